//! What the directory says.

use std::str::FromStr as _;

use activator_proto::Input;
use discovery_client::Event;
use model::{NodeId, Role};
use net::Clock;
use protocol::document::{Refusal, document::Body};

use super::EventLoop;

impl EventLoop {
    pub(super) fn on_event(&mut self, event: Event) {
        let now = Clock.now();
        match event {
            Event::ViewChanged(view) => {
                let input = Input::View {
                    relays: &view.relays,
                    revoked: &view.revoked,
                };
                self.gateway.handle_input(input, now);
                self.stun_servers.handle_view(&view);
            }
            Event::Message {
                from,
                document,
                certificate,
            } => match document.body {
                Some(Body::Offer(offer)) => {
                    tracing::debug!(%from, link = offer.link, "offer");
                    let input = Input::Offer {
                        from,
                        serial: certificate,
                        offer,
                    };
                    self.gateway.handle_input(input, now);
                }
                Some(Body::Bye(bye)) => {
                    self.gateway.handle_input(Input::Bye { from, bye }, now);
                }
                Some(Body::Candidates(candidates)) => self.on_candidates(&from, &candidates, now),
                Some(Body::Registration(_) | Body::Answer(_) | Body::Refusal(_)) | None => {
                    tracing::debug!(%from, "a document that means nothing to an activator");
                }
            },
            Event::Rejected { from, reason } => self.on_rejected(&from, &reason),
            Event::Connected => {
                tracing::info!("discovery is reachable");
                if let Some(task) = self.discovered.take() {
                    task.done();
                }
            }
            Event::Disconnected { reason } => {
                tracing::warn!(%reason, "discovery is not reachable; links and allocations stay");
            }
        }
    }

    /// Both sides get a clear line: ours in the log, theirs by a refusal. Link 0 says that it is not known which of
    /// their offers it was: nothing of a document that was not believed is looked at.
    fn on_rejected(&mut self, from: &str, reason: &str) {
        self.stats.documents_rejected += 1;
        // The directory has said it aloud.
        tracing::debug!(%from, %reason, "a document was not believed; telling its sender");
        if let Ok(node) = NodeId::from_str(from)
            && node.role == Role::Workload
        {
            let reason = format!("the document was not believed: {reason}");
            self.signaling
                .post(&node, Body::Refusal(Refusal { link: 0, reason }));
        }
    }
}
