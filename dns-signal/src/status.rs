//! What `/status` and `/metrics` show.

use std::sync::Arc;

use arc_swap::ArcSwap;
use dns_signal_proto::agent::{AgentStats, LinkStatus};
use explain::facts::Upstream;
use serde::Serialize;
use service_kit::status::{LinkStatus as Link, StepStatus, milliseconds};

/// `GET /status` of the admin port.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Status {
    /// `network/role/name`.
    pub(crate) node: String,
    pub(crate) discovery_connected: bool,
    /// How the workload's queries come here.
    pub(crate) interception: String,
    /// Who is asked for all other names.
    pub(crate) upstreams: Vec<Upstream>,
    /// The addresses that relays see of this host's sockets, `ip:port`.
    pub(crate) reflexive: Vec<String>,
    pub(crate) links: Vec<Link>,
}

/// What `/metrics` shows; the event loop renews it a few times a second.
#[derive(Clone, Debug, Default)]
pub(crate) struct Picture {
    pub(crate) links_open: usize,
    pub(crate) discovery_connected: bool,
    pub(crate) agent: AgentStats,
    pub(crate) shell: ShellStats,
}

/// Where the picture hangs.
pub(crate) type Board = Arc<ArcSwap<Picture>>;

/// What the event loop itself counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ShellStats {
    /// Datagrams the kernel did not take.
    pub(crate) datagrams_refused: u64,
    /// Frames the TUN device did not take.
    pub(crate) tun_refused: u64,
}

/// A link as `/status` shows it.
pub(crate) fn link(status: &LinkStatus) -> Link {
    let steps = status.steps.iter();
    Link {
        link: status.link,
        peer: status.peer.to_string(),
        state: Link::state(status.open),
        path: status.path.map(|path| path.to_string()),
        carrier: status.carrier.map(|carrier| carrier.to_string()),
        rtt_ms: status.rtt.map(milliseconds),
        steps: steps
            .map(|step| StepStatus::new(step.name, step.after))
            .collect(),
        frames_sent: status.stats.frames_sent,
        bytes_sent: status.stats.bytes_sent,
        frames_received: status.stats.frames_received,
        bytes_received: status.stats.bytes_received,
        frames_refused: status.stats.frames_refused,
        queue_dropped: status.stats.queue_dropped,
        queue_marked: status.stats.queue_marked,
    }
}
