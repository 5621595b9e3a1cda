//! The packet path: from a client to a peer and back, in as few steps as the protocol allows.
//!
//! Nothing here allocates or locks. A client's packet costs one hash look-up (none, in a run of packets) for its
//! allocation and a binary search for its channel; a peer's packet costs an index for its allocation and one hash
//! look-up (none, in a run) for its channel or permission.

use crate::output::Prefix;
use crate::{DropReason, Family, FiveTuple, Now, RelayId, Server, Verdict};
use model::PeerAddr;
use stun_types::attribute::{AttributeStaticType, AttributeType};
use turn_types::attribute::{Data, DontFragment, XorPeerAddress};
use turn_types::message::{DATA, SEND};
use wire::channel_data;
use wire::stun::{MAGIC_COOKIE, Message, parse};

/// The largest payload that fits a Data indication's 16-bit lengths with everything before it.
const MAX_INDICATED: usize = 65_535 - Prefix::MAX - 3;

impl Server {
    /// [RFC 8656 section 12.6](https://www.rfc-editor.org/rfc/rfc8656#section-12.6).
    #[inline]
    pub(crate) fn relay_channel_data<'a>(
        &mut self,
        now: Now,
        path: FiveTuple,
        datagram: &'a [u8],
    ) -> Verdict<'a> {
        let Ok(message) = channel_data::decode(datagram) else {
            return Verdict::Dropped(DropReason::MalformedChannelData);
        };
        let Some((id, allocation)) = self.table.find(path) else {
            return Verdict::Dropped(DropReason::NoAllocation);
        };
        let Some(peer) = allocation.channels.by_number(message.channel, now.instant) else {
            return Verdict::Dropped(DropReason::UnboundChannel);
        };
        let family = Family::of(peer.0);
        if allocation.relay(family).is_none() {
            return Verdict::Dropped(DropReason::FamilyMismatch);
        }
        // The short cut would leave out the receiver's account: it is for relays without limits.
        if self.config.short_cut
            && !self.config.shared.meters()
            && let Some(end) = Self::other_end(
                &self.config.shared,
                &mut self.copies,
                allocation,
                peer,
                now.instant,
            )
        {
            // No longer than the ChannelData it came in.
            let len = message.payload.len() as u16;
            return Verdict::ToClient {
                path: end.path,
                prefix: Prefix::new(&[&channel_data::header(end.number, len)]),
                payload: message.payload,
                padding: 0,
            };
        }
        Verdict::ToPeer {
            relay: RelayId {
                allocation: id,
                family,
            },
            peer,
            payload: message.payload,
            // Section 12.6 knows no DONT-FRAGMENT.
            dont_fragment: false,
        }
    }

    /// An indication: Send ([RFC 8656 section 11.2](https://www.rfc-editor.org/rfc/rfc8656#section-11.2)), or a Binding
    /// indication, which only keeps NATs open.
    pub(crate) fn relay_indication<'a>(
        &mut self,
        now: Now,
        path: FiveTuple,
        message: &Message<'a>,
    ) -> Verdict<'a> {
        match message.method() {
            SEND => self.relay_send(now, path, message),
            stun_types::message::BINDING => Verdict::Handled,
            _ => Verdict::Dropped(DropReason::UnknownMethod),
        }
    }

    fn relay_send<'a>(&mut self, now: Now, path: FiveTuple, message: &Message<'a>) -> Verdict<'a> {
        let Some((id, allocation)) = self.table.find(path) else {
            return Verdict::Dropped(DropReason::NoAllocation);
        };
        let (mut peer, mut payload, mut dont_fragment) = (None, None, false);
        for (kind, value) in message.attributes() {
            match kind {
                XorPeerAddress::TYPE if peer.is_none() => {
                    let Ok(address) = parse::<XorPeerAddress>(value) else {
                        return Verdict::Dropped(DropReason::MalformedSend);
                    };
                    peer = Some(PeerAddr(address.addr(message.transaction_id())));
                }
                Data::TYPE if payload.is_none() => payload = Some(value),
                DontFragment::TYPE => dont_fragment = true,
                unknown if is_unknown_in_send(unknown) => {
                    return Verdict::Dropped(DropReason::MalformedSend);
                }
                _ => {}
            }
        }
        let (Some(peer), Some(payload)) = (peer, payload) else {
            return Verdict::Dropped(DropReason::MalformedSend);
        };
        let family = Family::of(peer.0);
        if allocation.relay(family).is_none() {
            return Verdict::Dropped(DropReason::FamilyMismatch);
        }
        if allocation.tcp.is_some() {
            return Verdict::Dropped(DropReason::TcpAllocation);
        }
        if !allocation
            .permissions
            .is_permitted(peer.0.ip(), now.instant)
        {
            return Verdict::Dropped(DropReason::NoPermission);
        }
        if let Err(reason) = self.authorize_data(id, peer, now.instant) {
            return Verdict::Dropped(reason);
        }
        Verdict::ToPeer {
            relay: RelayId {
                allocation: id,
                family,
            },
            peer,
            payload,
            dont_fragment,
        }
    }

    /// [RFC 8656 sections 11.3 and 12.7](https://www.rfc-editor.org/rfc/rfc8656#section-12.7).
    #[inline]
    pub(crate) fn relay_to_client<'a>(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: PeerAddr,
        payload: &'a [u8],
    ) -> Verdict<'a> {
        let Some(allocation) = self.table.get_mut(relay.allocation) else {
            return Verdict::Dropped(DropReason::RelayClosed);
        };
        if allocation.relay(relay.family).is_none() {
            return Verdict::Dropped(DropReason::RelayClosed);
        }
        let path = allocation.path;
        if let Some(channel) = allocation.channels.by_peer(peer, now.instant) {
            if channel.permitted_until <= now.instant {
                return Verdict::Dropped(DropReason::NoPermission);
            }
            let Ok(len) = u16::try_from(payload.len()) else {
                return Verdict::Dropped(DropReason::TooLarge);
            };
            return Verdict::ToClient {
                path,
                prefix: Prefix::new(&[&channel_data::header(channel.number, len)]),
                payload,
                padding: 0,
            };
        }
        if !allocation
            .permissions
            .is_permitted(peer.0.ip(), now.instant)
        {
            return Verdict::Dropped(DropReason::NoPermission);
        }
        if !allocation.realm.peer_policy.hears(peer) {
            return Verdict::Dropped(DropReason::DeniedPeer);
        }
        if payload.len() > MAX_INDICATED {
            return Verdict::Dropped(DropReason::TooLarge);
        }
        let transaction = self.random.transaction();
        Verdict::ToClient {
            path,
            prefix: data_indication(peer, payload.len(), transaction),
            payload,
            padding: (payload.len().next_multiple_of(4) - payload.len()) as u8,
        }
    }
}

/// Comprehension-required, and none of those that may come with a Send indication.
fn is_unknown_in_send(kind: AttributeType) -> bool {
    kind.comprehension_required() && !crate::request::KNOWN.contains(&kind)
}

/// A Data indication up to the value of its DATA attribute
/// ([RFC 8656 section 11.3](https://www.rfc-editor.org/rfc/rfc8656#section-11.3)). Written by hand, to borrow the payload.
fn data_indication(peer: PeerAddr, len: usize, transaction: [u8; 12]) -> Prefix {
    let mut address = [0; 24];
    let port = peer.0.port() ^ 0x2112;
    address[..2].copy_from_slice(&XorPeerAddress::TYPE.value().to_be_bytes());
    address[6..8].copy_from_slice(&port.to_be_bytes());
    let mask = MAGIC_COOKIE.iter().chain(&transaction);
    let xor = |to: &mut [u8], from: &[u8]| {
        for ((to, from), mask) in to.iter_mut().zip(from).zip(mask) {
            *to = from ^ mask;
        }
    };
    let address = match peer.0.ip() {
        std::net::IpAddr::V4(ip) => {
            address[3] = 8;
            address[5] = 1;
            xor(&mut address[8..12], &ip.octets());
            &address[..12]
        }
        std::net::IpAddr::V6(ip) => {
            address[3] = 20;
            address[5] = 2;
            xor(&mut address[8..], &ip.octets());
            &address[..]
        }
    };
    let body = (address.len() + 4 + len.next_multiple_of(4)) as u16;
    // Class indication (0b01): bit 4 of the type (RFC 8489 section 5).
    let kind = (0x0010 | DATA.value()).to_be_bytes();
    Prefix::new(&[
        &kind,
        &body.to_be_bytes(),
        &MAGIC_COOKIE,
        &transaction,
        address,
        &Data::TYPE.value().to_be_bytes(),
        &(len as u16).to_be_bytes(),
    ])
}
