//! What `/status` and `/metrics` show: a picture the event loop publishes, so that nobody who asks holds it up.

use std::sync::Arc;

use arc_swap::ArcSwap;
use dns_signal_proto::agent::{AgentStats, LinkStatus};
use serde::Serialize;

/// The picture, and where it hangs.
pub(crate) type Board = Arc<ArcSwap<Status>>;

/// `GET /status` of the admin port.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Status {
    /// `network/role/name`.
    pub(crate) node: String,
    pub(crate) discovery_connected: bool,
    pub(crate) links: Vec<Link>,
    #[serde(skip)]
    pub(crate) agent: AgentStats,
    #[serde(skip)]
    pub(crate) shell: ShellStats,
}

/// What the event loop itself counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ShellStats {
    /// Datagrams the kernel did not take.
    pub(crate) datagrams_refused: u64,
    /// Frames the TUN device did not take.
    pub(crate) tun_refused: u64,
}

/// One link.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Link {
    pub(crate) link: u64,
    pub(crate) peer: String,
    pub(crate) state: &'static str,
    /// `direct`, `relay/udp`; absent until a pair is nominated.
    pub(crate) path: Option<String>,
    pub(crate) rtt_ms: Option<f64>,
    pub(crate) steps: Vec<Step>,
    pub(crate) frames_sent: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) frames_received: u64,
    pub(crate) bytes_received: u64,
    pub(crate) frames_refused: u64,
}

/// A step of opening, in milliseconds since the link was wanted.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) step: &'static str,
    pub(crate) ms: f64,
}

impl From<LinkStatus> for Link {
    fn from(status: LinkStatus) -> Self {
        let ms = |duration: std::time::Duration| duration.as_secs_f64() * 1_000.0;
        Self {
            link: status.link,
            peer: status.peer.to_string(),
            state: if status.open { "open" } else { "opening" },
            path: status.path.map(|path| path.to_string()),
            rtt_ms: status.rtt.map(ms),
            steps: status
                .steps
                .iter()
                .map(|step| Step {
                    step: step.name,
                    ms: ms(step.after),
                })
                .collect(),
            frames_sent: status.stats.frames_sent,
            bytes_sent: status.stats.bytes_sent,
            frames_received: status.stats.frames_received,
            bytes_received: status.stats.bytes_received,
            frames_refused: status.stats.frames_refused,
        }
    }
}
