//! Other addresses for a packet. Which checksums cover an address:
//!
//! ```text
//!  IPv4 header checksum   its own header
//!  TCP, UDP, ICMPv6       the pseudo-header, so both addresses
//!  ICMP                   no address of its own packet
//!  ICMP, ICMPv6 errors    the quoted packet byte for byte: its addresses, its header checksum and
//!                         its transport checksum, all of which change when its addresses do
//! ```

use std::net::IpAddr;

use thiserror::Error;

use super::checksum::{Checksum, Delta, get, put};
use super::layout::{Extent, Layout, PacketError, Protocol, Version};
use super::packet::quoted_at;

/// The addresses that a packet is to get; `None` leaves one as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rewrite {
    /// The new source.
    pub src: Option<IpAddr>,
    /// The new destination.
    pub dst: Option<IpAddr>,
}

/// Why a packet was not rewritten. It is unchanged then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RewriteError {
    /// Not a packet.
    #[error("not a packet: {0}")]
    Packet(#[from] PacketError),
    /// An address of one family for a packet of the other.
    #[error("an address of the other family")]
    Family,
    /// An ICMP error about a packet that its receiver never sent.
    #[error("an ICMP error about a packet of someone else")]
    ForeignError,
}

/// Gives `packet` other addresses and corrects every checksum that covers them. `checksum` says what the
/// transport checksum field of this packet holds.
///
/// In an ICMP error the quoted packet, which went the other way, is rewritten the other way: its source
/// becomes `dst`, its destination `src`. So an error from a router on the way names the same peer as an error
/// from the peer itself. Of fragments after the first only the IP header changes: the first carries the
/// checksum for all.
///
/// # Errors
///
/// See [`RewriteError`]; the packet is unchanged.
pub fn rewrite(
    packet: &mut [u8],
    rewrite: Rewrite,
    checksum: Checksum,
) -> Result<(), RewriteError> {
    let layout = Layout::parse(packet)?;
    rewrite_at(packet, &layout, rewrite, checksum)
}

/// As [`rewrite`], for a packet that was looked through already. `layout` must be that of this very packet.
///
/// # Errors
///
/// See [`RewriteError`]; the packet is unchanged.
pub fn rewrite_at(
    packet: &mut [u8],
    layout: &Layout,
    rewrite: Rewrite,
    checksum: Checksum,
) -> Result<(), RewriteError> {
    let Some(packet) = packet.get_mut(..layout.end) else {
        return Err(PacketError::Truncated.into());
    };
    let is_v4 = layout.version == Version::V4;
    if [rewrite.src, rewrite.dst]
        .into_iter()
        .flatten()
        .any(|a| a.is_ipv4() != is_v4)
    {
        return Err(RewriteError::Family);
    }
    let quoted = match quoted_at(layout, packet) {
        Some(at) => {
            let quoted = Layout::locate(&packet[at..], Extent::Quoted)?;
            if quoted.version != layout.version || quoted.source != layout.destination {
                return Err(RewriteError::ForeignError);
            }
            Some((at, quoted))
        }
        None => None,
    };
    let addresses = put_addresses(packet, layout, rewrite.src, rewrite.dst);
    let mut covered = Delta::default();
    if layout.protocol != Protocol::Icmp {
        covered.join(addresses);
    }
    if let Some((at, quoted)) = quoted {
        let inside = rewrite_quoted(&mut packet[at..], &quoted, rewrite);
        // A partial sum covers the pseudo-header only; what is quoted is summed later, as it is then.
        if checksum == Checksum::Full {
            covered.join(inside);
        }
    }
    if let Some(field) = layout.checksum_field() {
        correct(packet, field, layout.protocol, checksum, covered);
    }
    Ok(())
}

/// Writes the addresses and corrects the IPv4 header checksum. Returns the change of the address words.
fn put_addresses(
    packet: &mut [u8],
    layout: &Layout,
    src: Option<IpAddr>,
    dst: Option<IpAddr>,
) -> Delta {
    let mut delta = Delta::default();
    let (source_at, destination_at) = match layout.version {
        Version::V4 => (12, 16),
        Version::V6 => (8, 24),
    };
    for (address, at) in [(src, source_at), (dst, destination_at)] {
        match address {
            Some(IpAddr::V4(v4)) => replace(packet, at, &v4.octets(), &mut delta),
            Some(IpAddr::V6(v6)) => replace(packet, at, &v6.octets(), &mut delta),
            None => {}
        }
    }
    if layout.version == Version::V4 {
        let corrected = delta.apply(get(packet, 10));
        put(packet, 10, corrected);
    }
    delta
}

fn replace(packet: &mut [u8], at: usize, new: &[u8], delta: &mut Delta) {
    let field = &mut packet[at..at + new.len()];
    delta.bytes(field, new);
    field.copy_from_slice(new);
}

/// Rewrites the packet that an ICMP error quotes. Returns the change of all words in it.
fn rewrite_quoted(quoted: &mut [u8], layout: &Layout, rewrite: Rewrite) -> Delta {
    let header_checksum = get(quoted, 10);
    let addresses = put_addresses(quoted, layout, rewrite.dst, rewrite.src);
    let mut all = addresses;
    if layout.version == Version::V4 {
        all.word(header_checksum, get(quoted, 10));
    }
    if let Some(field) = layout.checksum_field()
        && layout.protocol != Protocol::Icmp
    {
        let before = get(quoted, field);
        correct(quoted, field, layout.protocol, Checksum::Full, addresses);
        all.word(before, get(quoted, field));
    }
    all
}

fn correct(packet: &mut [u8], field: usize, protocol: Protocol, checksum: Checksum, delta: Delta) {
    let old = get(packet, field);
    let new = match (checksum, protocol) {
        (Checksum::Partial, _) => delta.apply_partial(old),
        // RFC 768: zero means that there is none, and stays so.
        (Checksum::Full, Protocol::Udp) if old == 0 => 0,
        (Checksum::Full, Protocol::Udp) => match delta.apply(old) {
            0 => 0xffff,
            new => new,
        },
        (Checksum::Full, _) => delta.apply(old),
    };
    put(packet, field, new);
}
