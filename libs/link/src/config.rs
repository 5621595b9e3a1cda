//! What can be chosen about a link.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::output::{Carrier, LinkError};

/// Which end of the link this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkRole {
    /// dns-signal: controlling in ICE, client in DTLS and SCTP, opens the data channels.
    Offerer,
    /// activator: controlled in ICE, server in DTLS and SCTP.
    Answerer,
}

/// Which ways a link's packets may take. Each end sees to it for itself: where the two contradict each other, there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathChoice {
    /// The best there is.
    #[default]
    Auto,
    /// Through a relay: this end shows the other no address of its own but where a relay has to know it.
    RelayOnly,
    /// Never through a relay.
    DirectOnly,
}

impl PathChoice {
    /// Whether a pair may be used that does, or does not, need a relay.
    pub(crate) fn allows(self, relayed: bool) -> bool {
        match self {
            Self::Auto => true,
            Self::RelayOnly => relayed,
            Self::DirectOnly => !relayed,
        }
    }
}

impl fmt::Display for PathChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::RelayOnly => "relay-only",
            Self::DirectOnly => "direct-only",
        })
    }
}

impl FromStr for PathChoice {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        match text {
            "auto" => Ok(Self::Auto),
            "relay-only" => Ok(Self::RelayOnly),
            "direct-only" => Ok(Self::DirectOnly),
            _ => Err(LinkError::Setup(
                "a path is `auto`, `relay-only` or `direct-only`".to_owned(),
            )),
        }
    }
}

/// Settings of a link; both ends may differ.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Largest SCTP packet in bytes. 1400 fits an Ethernet path: 37 bytes of DTLS, 28 of UDP/IPv4 and 4 of
    /// ChannelData come on top.
    pub sctp_mtu: u32,
    /// SCTP receive window in bytes.
    pub receive_window: u32,
    /// Bytes that may wait to be sent on the `ip` channel; frames beyond are refused.
    pub send_limit: usize,
    /// Without a path for this long, the link ends.
    pub check_timeout: Duration,
    /// What is sent and not answered for this long (or twelve round trips), on no path, ends the link. A path that does
    /// not answer while another does is left long before.
    pub silence_timeout: Duration,
    /// How often the offerer checks a path that is not used: a NAT keeps a mapping for two minutes
    /// ([RFC 4787 §4.3](https://www.rfc-editor.org/rfc/rfc4787#section-4.3)), the hastiest for half a one. The
    /// answerer ends the link after three of these without a sign of life.
    pub keepalive: Duration,
    /// From ICE connected to the data channels open: more than this ends the link.
    pub open_timeout: Duration,
    /// What shall carry frames.
    pub carrier: Carrier,
    /// Which ways packets may take.
    pub path: PathChoice,
    /// Largest datagram of the lane, in bytes of UDP payload, that is tried; at most [`MAX_DATAGRAM`]. 1472 fills an
    /// Ethernet path over IPv4. It begins with as much as the data channel uses, and probes find out what gets through.
    pub datagram_ceiling: usize,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            sctp_mtu: 1400,
            receive_window: 8 << 20,
            send_limit: 4 << 20,
            check_timeout: Duration::from_secs(6),
            silence_timeout: Duration::from_secs(4),
            keepalive: Duration::from_secs(30),
            open_timeout: Duration::from_secs(8),
            carrier: Carrier::Auto,
            path: PathChoice::Auto,
            datagram_ceiling: 1472,
        }
    }
}

/// The most that [`LinkConfig::datagram_ceiling`] can be: as many of these as one key may seal are 2³⁴·² blocks of AES,
/// below the 2³⁴·⁵ that [RFC 8446 §5.5](https://www.rfc-editor.org/rfc/rfc8446#section-5.5) allows.
pub const MAX_DATAGRAM: usize = 9216;

/// What DTLS 1.2 with AES-GCM adds to an SCTP packet.
pub(crate) const DTLS_OVERHEAD: usize = 37;

/// First retransmission of a DTLS flight. RFC 6347 §4.2.4.1 advises 1 s, tuned down where round trips are known
/// to be shorter: a relayed path in one region.
pub(crate) const DTLS_FLIGHT_INTERVAL: Duration = Duration::from_millis(300);

/// Longest control message in bytes.
pub(crate) const MAX_CONTROL: usize = 16 << 10;

/// Longest message on the `ip` channel: a 64 KiB packet and its frame header.
pub(crate) const MAX_FRAME: usize = (64 << 10) + 64;

/// Local candidates kept per link; the oldest reflexive one makes room.
pub(crate) const MAX_LOCAL_CANDIDATES: usize = 32;

/// Remote candidates of a description; and so many are kept of those that trickled in since, the latest.
pub(crate) const MAX_REMOTE_CANDIDATES: usize = 16;

/// Version of the link protocol, in descriptions and in `Hello`.
pub(crate) const LINK_VERSION: u32 = 1;
