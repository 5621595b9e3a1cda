//! Where a relay listens: the TURN URI of [RFC 7065 section 3](https://www.rfc-editor.org/rfc/rfc7065#section-3),
//! `turn:host[:port][?transport=udp|tcp]` and `turns:…`.

use std::{fmt, net::IpAddr};

/// URIs of one relay that are used at most.
pub const MAX_RELAY_URIS: usize = 8;

/// The port when a `turn:` URI names none ([RFC 8656 section 18](https://www.rfc-editor.org/rfc/rfc8656#section-18)).
const TURN_PORT: u16 = 3478;

/// The port when a `turns:` URI names none.
const TURNS_PORT: u16 = 5349;

/// How the relay is spoken to; in the order in which they are preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RelayTransport {
    /// `turn:…`, `turn:…?transport=udp`.
    Udp,
    /// `turn:…?transport=tcp`.
    Tcp,
    /// `turns:…`, `turns:…?transport=tcp`.
    Tls,
}

impl fmt::Display for RelayTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        })
    }
}

/// A decoded TURN URI.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayUri {
    /// A host name, or an address without brackets.
    pub host: String,
    /// The port the relay listens on.
    pub port: u16,
    /// How it is spoken to.
    pub transport: RelayTransport,
}

/// Why a text is not a TURN URI that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{uri}` is not a usable TURN URI: {problem}")]
pub struct RelayUriError {
    uri: String,
    problem: &'static str,
}

impl RelayUri {
    /// Decodes a URI.
    ///
    /// # Errors
    /// When it is not one of RFC 7065's forms.
    pub fn decode(uri: &str) -> Result<Self, RelayUriError> {
        let wrong = |problem| RelayUriError {
            uri: uri
                .chars()
                .take(120)
                .flat_map(char::escape_default)
                .collect(),
            problem,
        };
        let (scheme, rest) = uri
            .split_once(':')
            .ok_or_else(|| wrong("it begins with `turn:` or `turns:`"))?;
        let (authority, query) = match rest.split_once('?') {
            Some((authority, query)) => (authority, Some(query)),
            None => (rest, None),
        };
        let transport = match (scheme, query) {
            ("turn", None | Some("transport=udp")) => RelayTransport::Udp,
            ("turn", Some("transport=tcp")) => RelayTransport::Tcp,
            ("turns", None | Some("transport=tcp")) => RelayTransport::Tls,
            ("turn" | "turns", Some(_)) => return Err(wrong("the transport is `udp` or `tcp`")),
            _ => return Err(wrong("it begins with `turn:` or `turns:`")),
        };
        let default_port = if transport == RelayTransport::Tls {
            TURNS_PORT
        } else {
            TURN_PORT
        };
        let (host, port) = split_port(authority).ok_or_else(|| wrong("the host is malformed"))?;
        let port = match port {
            None => default_port,
            Some(text) => match text.parse() {
                Ok(port) if port != 0 => port,
                _ => return Err(wrong("the port is a number from 1 to 65535")),
            },
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            transport,
        })
    }

    /// The URIs of one relay: what can be used of them, the preferred transports first and otherwise in their order, at
    /// most [`MAX_RELAY_URIS`]; and what is wrong with the first of the others.
    pub fn decode_all<'a>(
        uris: impl Iterator<Item = &'a str>,
    ) -> (Vec<Self>, Option<RelayUriError>) {
        let (mut usable, mut wrong) = (Vec::new(), None);
        for uri in uris.take(MAX_RELAY_URIS) {
            match Self::decode(uri) {
                Ok(uri) if !usable.contains(&uri) => usable.push(uri),
                Ok(_) => {}
                Err(error) => drop(wrong.get_or_insert(error)),
            }
        }
        usable.sort_by_key(|uri| uri.transport);
        (usable, wrong)
    }

    /// The host, when it is an address and no name has to be looked up.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    (!host.is_empty() && host.len() <= 253 && host.bytes().all(plain)).then_some((host, port))
}

impl fmt::Display for RelayUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, query) = match self.transport {
            RelayTransport::Udp => ("turn", "?transport=udp"),
            RelayTransport::Tcp => ("turn", "?transport=tcp"),
            RelayTransport::Tls => ("turns", "?transport=tcp"),
        };
        let Self { host, port, .. } = self;
        if host.contains(':') {
            write!(f, "{scheme}:[{host}]:{port}{query}")
        } else {
            write!(f, "{scheme}:{host}:{port}{query}")
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_rfc_7065_are_decoded() {
        for (uri, host, port, transport) in [
            (
                "turn:203.0.113.12:3478?transport=udp",
                "203.0.113.12",
                3478,
                RelayTransport::Udp,
            ),
            (
                "turn:203.0.113.12",
                "203.0.113.12",
                3478,
                RelayTransport::Udp,
            ),
            (
                "turn:[2001:db8::1]:3479",
                "2001:db8::1",
                3479,
                RelayTransport::Udp,
            ),
            (
                "turn:[2001:db8::1]",
                "2001:db8::1",
                3478,
                RelayTransport::Udp,
            ),
            (
                "turn:relay.example.org?transport=tcp",
                "relay.example.org",
                3478,
                RelayTransport::Tcp,
            ),
            (
                "turns:relay.example.org:443",
                "relay.example.org",
                443,
                RelayTransport::Tls,
            ),
            (
                "turns:relay.example.org",
                "relay.example.org",
                5349,
                RelayTransport::Tls,
            ),
        ] {
            let decoded = RelayUri::decode(uri).unwrap();
            assert_eq!(
                (decoded.host.as_str(), decoded.port, decoded.transport),
                (host, port, transport)
            );
            assert_eq!(RelayUri::decode(&decoded.to_string()).unwrap(), decoded);
        }
    }

    #[test]
    fn what_is_not_a_turn_uri_is_refused() {
        for uri in [
            "",
            "turn",
            "turn:",
            "stun:203.0.113.12",
            "turn:a:b:c",
            "turn:a:0",
            "turn:a:70000",
            "turn:a b",
            "turn:[::1",
            "turn:[x]:1",
            "turn:[::1]x",
            "turn:a?transport=sctp",
            "turns:a?transport=udp",
        ] {
            assert!(RelayUri::decode(uri).is_err(), "{uri:?}");
        }
    }
}
