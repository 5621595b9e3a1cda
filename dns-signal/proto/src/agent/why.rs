//! What is known of the way to a service, for whoever asks why it works or not.

use model::{NetworkName, ServiceName};

use super::Agent;
use super::output::{Verdict, Way};
use super::session::BindingState;

impl Agent {
    /// The link to a network as it is, or how the last attempt to open one ended.
    #[must_use]
    pub fn way_to(&self, network: &NetworkName, service: &ServiceName) -> Way {
        let remote = self.remotes.get(network);
        let key = remote.and_then(|remote| remote.link);
        let session = key.and_then(|key| Some((key, self.links.get(key)?)));
        Way {
            failures: remote.map_or(0, |remote| remote.attempts_failed),
            last_failure: remote.and_then(|remote| remote.failure.clone()),
            link: session.map(|(key, session)| session.status(key)),
            pairs: session.map_or_else(Vec::new, |(_, session)| session.link.pairs()),
            verdict: match session.and_then(|(_, session)| session.binding(service)) {
                None => Verdict::NotAsked,
                Some(BindingState::ExpectResult { .. }) => Verdict::Asked,
                Some(BindingState::Accepted) => Verdict::Accepted,
                Some(BindingState::Refused { reason, .. }) => Verdict::Refused(reason.clone()),
            },
            mtu: session.map_or(0, |(_, session)| session.link.frame_mtu()),
            lane_silent: session.is_some_and(|(_, session)| session.link.lane_is_silent()),
        }
    }
}
