//! Where clients are listened for, and what that needs.

use super::{File, Values, parse, seconds, share};
use crate::certificate::CertificateFiles;
use crate::cli::Args;
use crate::stream::{StreamKind, StreamLimits};
use model::ServerAddr;
use service_kit::ConfigError;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use turn_relay_proto::{Alternate, AlternateTransport, Limits, NatDiscovery};

/// All addresses, by transport.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listen {
    pub(crate) udp: Vec<ServerAddr>,
    /// Of TCP and TLS.
    pub(crate) streams: Vec<(StreamKind, ServerAddr)>,
    pub(crate) dtls: Vec<ServerAddr>,
}

impl Listen {
    /// Each with its transport.
    pub(crate) fn all(&self) -> impl Iterator<Item = (AlternateTransport, SocketAddr)> {
        let udp = self.udp.iter().map(|server| (None, server));
        let streams = self.streams.iter();
        let streams = streams.map(|(kind, server)| (Some(*kind), server));
        let dtls = self.dtls.iter();
        let dtls = dtls.map(|server| (Some(StreamKind::Dtls), server));
        let all = udp.chain(streams).chain(dtls);
        all.map(|(kind, server)| (transport(kind), server.0))
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = ServerAddr> {
        let streams = self.streams.iter().map(|(_, address)| *address);
        let dtls = self.dtls.iter().copied();
        self.udp.iter().copied().chain(streams).chain(dtls)
    }
}

pub(super) fn listen(list: &Values) -> Result<Listen, ConfigError> {
    let mut listen = Listen::default();
    if list.values.is_empty() {
        listen.udp.push(ServerAddr(([0, 0, 0, 0], 3478).into()));
    }
    for (transport, address) in parse::each(list, address)? {
        let twice = match transport {
            None if listen.udp.contains(&address) => true,
            // To the kernel, UDP and DTLS are the same, and TCP and TLS.
            None | Some(StreamKind::Dtls) => {
                let mut others = listen.udp.iter().chain(&listen.dtls);
                address.0.port() != 0 && others.any(|other| *other == address)
            }
            // Each port 0 is another one.
            Some(_) => {
                address.0.port() != 0 && listen.streams.iter().any(|(_, other)| *other == address)
            }
        };
        if twice {
            let remedy = "remove one";
            return Err(ConfigError::of_field(
                list.field,
                address,
                "given twice",
                remedy,
            ));
        }
        match transport {
            None => listen.udp.push(address),
            Some(StreamKind::Dtls) => listen.dtls.push(address),
            Some(kind) => listen.streams.push((kind, address)),
        }
    }
    Ok(listen)
}

pub(super) fn transport(kind: Option<StreamKind>) -> AlternateTransport {
    match kind {
        None => AlternateTransport::Udp,
        Some(StreamKind::Tcp) => AlternateTransport::Tcp,
        Some(StreamKind::Tls) => AlternateTransport::Tls,
        Some(StreamKind::Dtls) => AlternateTransport::Dtls,
    }
}

/// Where clients are sent that have no room here.
pub(super) fn alternates(list: &Values) -> Result<Vec<Alternate>, ConfigError> {
    let of = |(kind, address): (Option<StreamKind>, ServerAddr)| Alternate {
        transport: transport(kind),
        address: address.0,
    };
    let servers = parse::each(list, |field, text| {
        let (kind, server) = address(field, text)?;
        if server.0.ip().is_unspecified() || server.0.port() == 0 {
            let remedy = "name the address and port that clients reach it at";
            return Err(ConfigError::of_field(
                field,
                text,
                "no client could go there",
                remedy,
            ));
        }
        Ok((kind, server))
    })?;
    Ok(servers.into_iter().map(of).collect())
}

/// The pairs of addresses for NAT behavior discovery; what has to be listened on for them is added.
pub(super) fn discovery(
    list: &Values,
    listen: &mut Listen,
) -> Result<Vec<NatDiscovery>, ConfigError> {
    let mut pairs: Vec<NatDiscovery> = Vec::new();
    for text in &list.values {
        let error = |problem: &str, remedy: &str| {
            Err(ConfigError::of_field(list.field, text, problem, remedy))
        };
        let Ok(alternate) = text.parse::<SocketAddr>() else {
            return error(
                "not an address and port",
                "write ADDR:PORT, for example 203.0.113.13:3479",
            );
        };
        let same_family = |other: SocketAddr| other.is_ipv4() == alternate.is_ipv4();
        if pairs.iter().any(|pair| same_family(pair.primary)) {
            return error("a second one of its family", "remove one");
        }
        let mut udp = listen.udp.iter().map(|server| server.0);
        let primary = udp.find(|primary| same_family(*primary));
        let primary = primary.filter(|p| !p.ip().is_unspecified() && p.port() != 0);
        let Some(primary) = primary else {
            return error(
                "there is no address of its family beside it",
                "name one in listen, for example udp://203.0.113.12:3478",
            );
        };
        if alternate.ip().is_unspecified()
            || alternate.port() == 0
            || alternate.ip() == primary.ip()
            || alternate.port() == primary.port()
        {
            return error(
                "address and port must both differ from those in listen",
                "write another address of this machine, and another port",
            );
        }
        for (ip, port) in [
            (primary.ip(), alternate.port()),
            (alternate.ip(), primary.port()),
            (alternate.ip(), alternate.port()),
        ] {
            let server = ServerAddr(SocketAddr::new(ip, port));
            if !listen.udp.contains(&server) {
                listen.udp.push(server);
            }
        }
        pairs.push(NatDiscovery { primary, alternate });
    }
    Ok(pairs)
}

pub(super) fn address(
    field: &str,
    text: &str,
) -> Result<(Option<StreamKind>, ServerAddr), ConfigError> {
    let error = |problem: &str| {
        ConfigError::of_field(
            field,
            text,
            problem,
            "write udp://ADDR:PORT, for example udp://203.0.113.12:3478 or tls://[2001:db8::12]:5349",
        )
    };
    let (transport, address) = match text.split_once("://") {
        Some(("udp", address)) => (None, address),
        Some(("tcp", address)) => (Some(StreamKind::Tcp), address),
        Some(("tls", address)) => (Some(StreamKind::Tls), address),
        Some(("dtls", address)) => (Some(StreamKind::Dtls), address),
        Some(_) => return Err(error("only udp, tcp, tls and dtls are served")),
        None => return Err(error("not a transport and address")),
    };
    let address: SocketAddr = address
        .parse()
        .map_err(|_| error("not an address and port"))?;
    Ok((transport, ServerAddr(address)))
}

/// The files that TLS and DTLS listeners need, if there are any.
pub(super) fn certificate(
    args: &Args,
    file: &File,
    listen: &Listen,
) -> Result<Option<CertificateFiles>, ConfigError> {
    let streams = listen.streams.iter().copied();
    let mut tls = streams.filter(|(kind, _)| *kind == StreamKind::Tls);
    let dtls = listen.dtls.first().map(|first| (StreamKind::Dtls, *first));
    let Some((kind, address)) = tls.next().or(dtls) else {
        return Ok(None);
    };
    let missing = |field: &str, remedy: &str| {
        let problem = format!("missing, and the listener {kind}://{address} needs it");
        ConfigError::of_field(field, "", problem, remedy)
    };
    let certificate = args
        .certificate_file
        .as_ref()
        .or(file.certificate_file.as_ref());
    let key = args.key_file.as_ref().or(file.key_file.as_ref());
    Ok(Some(CertificateFiles {
        certificate: certificate.cloned().ok_or_else(|| {
            missing(
                "certificate-file",
                "name a PEM file with the certificate first, then its chain",
            )
        })?,
        key: key
            .cloned()
            .ok_or_else(|| missing("key-file", "name a PEM file with the certificate's key"))?,
        for_dtls: !listen.dtls.is_empty(),
    }))
}

/// The bounds of TCP to peers, in the mind's limits.
pub(super) fn mind_limits(file: &File) -> Limits {
    let mut limits = Limits::default();
    if let Some(most) = file.peer_connections {
        limits.peer_connections = most;
    }
    if let Some(most) = file.peer_connections_per_allocation {
        limits.peer_connections_per_allocation = most.get();
    }
    limits
}

/// The bounds of one event loop of so many.
pub(super) fn limits(file: &File, threads: u16) -> StreamLimits {
    let prefix = file.connections_without_allocation_per_prefix;
    StreamLimits {
        connections: share(file.connections, 65_536, threads),
        strangers: share(file.connections_without_allocation, 8_192, threads),
        strangers_of_prefix: share(prefix, 1_024, threads),
        handshake: seconds(file.handshake_seconds, 10),
        stranger: seconds(file.without_allocation_seconds, 30),
        buffer: file
            .connection_buffer_bytes
            .map_or(256 << 10, NonZeroUsize::get),
    }
}
