use std::net::IpAddr;

use super::checksum::get;
use super::layout::{Extent, Fragment, Layout, PacketError, Protocol, tcp_header_len};

/// An IP packet where it lies, with what was found in it.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    bytes: &'a [u8],
    layout: Layout,
}

/// What an ICMP error says of the packet that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Embedded {
    /// Who sent that packet: the receiver of the error.
    pub source: IpAddr,
    /// Where it was going.
    pub destination: IpAddr,
    /// What it carried.
    pub protocol: Protocol,
    /// Its source and destination port, for TCP and UDP.
    pub ports: Option<(u16, u16)>,
    /// The identifier of an echo request or reply.
    pub echo_identifier: Option<u16>,
}

impl<'a> Packet<'a> {
    /// Reads a packet. Bytes after its end are not part of it.
    ///
    /// # Errors
    ///
    /// See [`PacketError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PacketError> {
        let layout = Layout::parse(bytes)?;
        Ok(Self {
            bytes: &bytes[..layout.end],
            layout,
        })
    }

    /// Where things are; `Copy`, so that it outlives this borrow.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The whole packet.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The source address.
    pub fn source(&self) -> IpAddr {
        self.layout.source
    }

    /// The destination address.
    pub fn destination(&self) -> IpAddr {
        self.layout.destination
    }

    /// What the packet carries.
    pub fn protocol(&self) -> Protocol {
        self.layout.protocol
    }

    /// Which part of a datagram it is.
    pub fn fragment(&self) -> Fragment {
        self.layout.fragment
    }

    /// The transport header and what follows it; in a later fragment only data.
    pub fn segment(&self) -> &'a [u8] {
        &self.bytes[self.layout.l4..]
    }

    /// What TCP or UDP carries; `None` for later fragments and other protocols.
    pub fn payload(&self) -> Option<&'a [u8]> {
        matches!(self.layout.protocol, Protocol::Tcp | Protocol::Udp)
            .then(|| self.layout.headers_len(self.bytes))
            .flatten()
            .map(|headers| &self.bytes[headers..])
    }

    /// The source and destination port of TCP and UDP; `None` for later fragments.
    pub fn ports(&self) -> Option<(u16, u16)> {
        ports(&self.layout, self.bytes)
    }

    /// The flags of a TCP header, RFC 9293 section 3.1: FIN is 1, SYN 2, RST 4, ACK 16.
    pub fn tcp_flags(&self) -> Option<u8> {
        let is_tcp = self.layout.protocol == Protocol::Tcp;
        (is_tcp && self.layout.fragment != Fragment::Later).then(|| self.segment()[13])
    }

    /// The type and code of ICMP and ICMPv6.
    pub fn icmp(&self) -> Option<(u8, u8)> {
        is_icmp(&self.layout).then(|| (self.segment()[0], self.segment()[1]))
    }

    /// The identifier of an ICMP or ICMPv6 echo request or reply.
    pub fn echo_identifier(&self) -> Option<u16> {
        echo_identifier(&self.layout, self.bytes)
    }

    /// Whether this is an ICMP or ICMPv6 message that reports an error. An error must never be answered by an
    /// error ([RFC 1122 section 3.2.2](https://www.rfc-editor.org/rfc/rfc1122#section-3.2.2)).
    pub fn is_icmp_error(&self) -> bool {
        quoted_at(&self.layout, self.bytes).is_some()
    }

    /// What the packet that an ICMP error quotes says, as far as it is quoted.
    pub fn embedded(&self) -> Option<Embedded> {
        let quoted = &self.bytes[quoted_at(&self.layout, self.bytes)?..];
        let layout = Layout::locate(quoted, Extent::Quoted).ok()?;
        Some(Embedded {
            source: layout.source,
            destination: layout.destination,
            protocol: layout.protocol,
            ports: ports(&layout, quoted),
            echo_identifier: echo_identifier(&layout, quoted),
        })
    }

    /// Bytes of the TCP header; 0 when this is not the beginning of a TCP segment.
    pub(crate) fn tcp_header_len(&self) -> usize {
        self.tcp_flags()
            .map_or(0, |_| tcp_header_len(self.segment()))
    }
}

fn ports(layout: &Layout, bytes: &[u8]) -> Option<(u16, u16)> {
    let known = matches!(layout.protocol, Protocol::Tcp | Protocol::Udp)
        && layout.fragment != Fragment::Later;
    let header = bytes.get(layout.l4..layout.end)?.get(..4)?;
    known.then(|| (get(header, 0), get(header, 2)))
}

fn is_icmp(layout: &Layout) -> bool {
    matches!(layout.protocol, Protocol::Icmp | Protocol::Icmpv6)
        && layout.fragment != Fragment::Later
}

fn echo_identifier(layout: &Layout, bytes: &[u8]) -> Option<u16> {
    if !is_icmp(layout) {
        return None;
    }
    let header = bytes.get(layout.l4..layout.end)?.get(..8)?;
    let echo = match layout.protocol {
        Protocol::Icmp => matches!(header[0], 0 | 8),
        _ => matches!(header[0], 128 | 129),
    };
    echo.then(|| get(header, 4))
}

/// Where the quoted packet begins, in an ICMP error: RFC 792 (3, 4, 5, 11, 12), RFC 4443 section 2.1 (below
/// 128).
pub(crate) fn quoted_at(layout: &Layout, bytes: &[u8]) -> Option<usize> {
    if !is_icmp(layout) {
        return None;
    }
    let kind = *bytes.get(layout.l4)?;
    let error = match layout.protocol {
        Protocol::Icmp => matches!(kind, 3 | 4 | 5 | 11 | 12),
        _ => kind < 128,
    };
    (error && layout.l4 + 8 <= layout.end).then_some(layout.l4 + 8)
}
