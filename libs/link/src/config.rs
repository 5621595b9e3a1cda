//! What can be chosen about a link.

use std::time::Duration;

use crate::output::Carrier;

/// Which end of the link this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkRole {
    /// dns-signal: controlling in ICE, client in DTLS and SCTP, opens the data channels.
    Offerer,
    /// activator: controlled in ICE, server in DTLS and SCTP.
    Answerer,
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
    /// Without an answer for this long while checking, or without a sign of life after, the link ends. It is
    /// split evenly between ICE's "disconnected" and "failed".
    pub ice_timeout: Duration,
    /// How often consent is refreshed on the nominated pair.
    /// [RFC 7675 §5.1](https://www.rfc-editor.org/rfc/rfc7675#section-5.1)
    pub keepalive: Duration,
    /// From ICE connected to the data channels open: more than this ends the link.
    pub open_timeout: Duration,
    /// What shall carry frames.
    pub carrier: Carrier,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            sctp_mtu: 1400,
            receive_window: 8 << 20,
            send_limit: 4 << 20,
            ice_timeout: Duration::from_secs(6),
            keepalive: Duration::from_secs(1),
            open_timeout: Duration::from_secs(8),
            carrier: Carrier::Auto,
        }
    }
}

/// How often unanswered checks are repeated while connecting.
/// [RFC 8445 §14.2](https://www.rfc-editor.org/rfc/rfc8445#section-14.2)
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Checks per pair before it is given up: `ice_timeout` decides instead.
pub(crate) const MAX_CHECKS: u16 = 500;

/// First retransmission of a DTLS flight. RFC 6347 §4.2.4.1 advises 1 s, tuned down where round trips are known
/// to be shorter: a relayed path in one region.
pub(crate) const DTLS_FLIGHT_INTERVAL: Duration = Duration::from_millis(300);

/// Longest control message in bytes.
pub(crate) const MAX_CONTROL: usize = 16 << 10;

/// Longest message on the `ip` channel: a 64 KiB packet and its frame header.
pub(crate) const MAX_FRAME: usize = (64 << 10) + 64;

/// Remote candidates kept per link; more are ignored.
pub(crate) const MAX_REMOTE_CANDIDATES: usize = 16;

/// Version of the link protocol, in descriptions and in `Hello`.
pub(crate) const LINK_VERSION: u32 = 1;
