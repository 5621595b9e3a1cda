//! How `dns.upstreams` names a resolver.
//!
//! | written | asked over |
//! |---|---|
//! | `192.0.2.53`, `[2001:db8::53]:53` | UDP; TCP if the query came over TCP |
//! | `tls://9.9.9.9#dns.quad9.net` | TLS ([RFC 7858](https://www.rfc-editor.org/rfc/rfc7858)), port 853 |
//! | `https://9.9.9.9/dns-query#dns.quad9.net` | HTTP/2 ([RFC 8484](https://www.rfc-editor.org/rfc/rfc8484)), port 443 |
//!
//! Host and fragment are, in whichever order, an address and the name that the certificate has to be for: a URL that somebody published
//! needs its address behind it, for no resolver is there yet to ask for it. Without a fragment the certificate has to be for
//! the address.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::Uri;
use rustls::pki_types::{DnsName, ServerName};
use thiserror::Error;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locator {
    /// Where it is.
    pub address: SocketAddr,
    /// How it is asked, unless in clear text.
    pub encryption: Option<Encryption>,
    text: String,
}

/// How an upstream is asked over an encrypted connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encryption {
    /// What its certificate has to be for.
    pub name: ServerName<'static>,
    /// Where requests of HTTP go; absent: DNS over TLS.
    pub http: Option<Uri>,
}

/// Why a text names no resolver.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LocatorError {
    /// Neither address nor URL.
    #[error("not an address")]
    NotAnAddress,
    /// A URL of something else.
    #[error("`{0}` is not a way to ask a resolver")]
    Scheme(String),
    /// There is only a name.
    #[error("the address of `{0}` is not known, and there is nobody yet to ask for it")]
    NoAddress(String),
    /// What should be the name in a certificate is none.
    #[error("`{0}` is not the name of a server")]
    Name(String),
    /// What follows the host is no path, or there should be none.
    #[error("`{0}` is not the path of a resolver")]
    Path(String),
}

impl LocatorError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NotAnAddress => {
                "use ADDRESS:PORT, such as 192.0.2.53:53 or [2001:db8::53]:53, or a URL such as tls://9.9.9.9#dns.quad9.net"
            }
            Self::Scheme(_) => "use tls:// or https://, or an address alone for UDP and TCP",
            Self::NoAddress(_) => {
                "write it behind a #, such as https://dns.quad9.net/dns-query#9.9.9.9"
            }
            Self::Name(_) => {
                "write what its certificate is for, such as tls://9.9.9.9#dns.quad9.net"
            }
            Self::Path(_) => {
                "use tls://ADDRESS#NAME, or a path as in https://9.9.9.9/dns-query#dns.quad9.net"
            }
        }
    }
}

impl From<SocketAddr> for Locator {
    /// One that is asked in clear text.
    fn from(address: SocketAddr) -> Self {
        Self {
            address,
            encryption: None,
            text: address.to_string(),
        }
    }
}

impl FromStr for Locator {
    type Err = LocatorError;

    fn from_str(text: &str) -> Result<Self, LocatorError> {
        let Some((scheme, rest)) = text.split_once("://") else {
            let address = socket_address(text, 53).ok_or(LocatorError::NotAnAddress)?;
            return Ok(address.into());
        };
        let (is_http, port) = match scheme {
            "tls" => (false, 853),
            "https" => (true, 443),
            other => return Err(LocatorError::Scheme(other.to_owned())),
        };
        let (rest, fragment) = match rest.split_once('#') {
            Some((rest, fragment)) => (rest, Some(fragment)),
            None => (rest, None),
        };
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (address, name) = match (socket_address(host, port), fragment) {
            (Some(address), None) => (address, ServerName::from(address.ip())),
            (Some(address), Some(name)) => (address, dns_name(name)?),
            (None, fragment) => {
                let (host, port) = match host.rsplit_once(':') {
                    Some((host, port)) => {
                        let port = port.parse().map_err(|_| LocatorError::NotAnAddress)?;
                        (host, port)
                    }
                    None => (host, port),
                };
                let name = dns_name(host)?;
                let ip = fragment.and_then(ip_address);
                let ip = ip.ok_or_else(|| LocatorError::NoAddress(host.to_owned()))?;
                (SocketAddr::new(ip, port), name)
            }
        };
        let http = match (is_http, path) {
            (true, path) => Some(uri(&name, address.port(), path)?),
            (false, "") => None,
            (false, path) => return Err(LocatorError::Path(path.to_owned())),
        };
        Ok(Self {
            address,
            encryption: Some(Encryption { name, http }),
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn socket_address(text: &str, port: u16) -> Option<SocketAddr> {
    let with_port = text.parse().ok();
    with_port.or_else(|| Some(SocketAddr::new(ip_address(text)?, port)))
}

/// With brackets, if it is of IPv6, or without.
fn ip_address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    match bare {
        Some(ipv6) => ipv6.parse().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

fn dns_name(text: &str) -> Result<ServerName<'static>, LocatorError> {
    let not_a_name = || LocatorError::Name(text.to_owned());
    if ip_address(text).is_some() {
        return Err(not_a_name());
    }
    let name = DnsName::try_from(text.to_owned()).map_err(|_| not_a_name())?;
    Ok(ServerName::DnsName(name))
}

/// `path` may be a template of RFC 8484 section 4.1, and absent where everybody has the same.
fn uri(name: &ServerName<'_>, port: u16, path: &str) -> Result<Uri, LocatorError> {
    let path = match path.strip_suffix("{?dns}").unwrap_or(path) {
        "" | "/" => "/dns-query",
        path => path,
    };
    let authority = match name {
        ServerName::IpAddress(_) if name.to_str().contains(':') => format!("[{}]", name.to_str()),
        _ => name.to_str().into_owned(),
    };
    let port = match port {
        443 => String::new(),
        port => format!(":{port}"),
    };
    let uri = format!("https://{authority}{port}{path}").parse();
    uri.map_err(|_| LocatorError::Path(path.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn resolvers_are_named_as_their_administrators_know_them() {
        for (text, address, name, uri) in [
            ("192.0.2.53", "192.0.2.53:53", None, None),
            ("[2001:db8::53]:54", "[2001:db8::53]:54", None, None),
            ("2001:db8::53", "[2001:db8::53]:53", None, None),
            (
                "tls://9.9.9.9#dns.quad9.net",
                "9.9.9.9:853",
                Some("dns.quad9.net"),
                None,
            ),
            ("tls://9.9.9.9", "9.9.9.9:853", Some("9.9.9.9"), None),
            (
                "tls://[2620:fe::fe]:8853#dns.quad9.net",
                "[2620:fe::fe]:8853",
                Some("dns.quad9.net"),
                None,
            ),
            (
                "tls://dns.quad9.net:8853#2620:fe::fe",
                "[2620:fe::fe]:8853",
                Some("dns.quad9.net"),
                None,
            ),
            (
                "https://9.9.9.9/dns-query#dns.quad9.net",
                "9.9.9.9:443",
                Some("dns.quad9.net"),
                Some("https://dns.quad9.net/dns-query"),
            ),
            (
                "https://dns.quad9.net:8443/mine{?dns}#[2620:fe::fe]",
                "[2620:fe::fe]:8443",
                Some("dns.quad9.net"),
                Some("https://dns.quad9.net:8443/mine"),
            ),
            (
                "https://[2620:fe::fe]",
                "[2620:fe::fe]:443",
                Some("2620:fe::fe"),
                Some("https://[2620:fe::fe]/dns-query"),
            ),
        ] {
            let locator: Locator = text.parse().unwrap();
            assert_eq!(locator.address.to_string(), address, "{text}");
            let encryption = locator.encryption.as_ref();
            let found = encryption.map(|it| it.name.to_str().into_owned());
            assert_eq!(found.as_deref(), name, "{text}");
            let http = encryption.and_then(|it| it.http.as_ref());
            assert_eq!(http.map(Uri::to_string).as_deref(), uri, "{text}");
        }
    }

    #[test]
    fn what_names_no_resolver_is_refused_for_its_reason() {
        for (text, problem) in [
            ("dns.quad9.net", LocatorError::NotAnAddress),
            ("9.9.9.9#dns.quad9.net", LocatorError::NotAnAddress),
            ("quic://9.9.9.9", LocatorError::Scheme("quic".into())),
            (
                "tls://dns.quad9.net",
                LocatorError::NoAddress("dns.quad9.net".into()),
            ),
            (
                "https://dns.quad9.net/dns-query#dns.quad9.net",
                LocatorError::NoAddress("dns.quad9.net".into()),
            ),
            ("tls://9.9.9.9#", LocatorError::Name(String::new())),
            (
                "tls://9.9.9.9#1.1.1.1",
                LocatorError::Name("1.1.1.1".into()),
            ),
            (
                "tls://9.9.9.9/dns-query#dns.quad9.net",
                LocatorError::Path("/dns-query".into()),
            ),
            (
                "https://9.9.9.9/a b#dns.quad9.net",
                LocatorError::Path("/a b".into()),
            ),
            ("tls://quad9:x#9.9.9.9", LocatorError::NotAnAddress),
        ] {
            assert_eq!(text.parse::<Locator>(), Err(problem), "{text}");
        }
    }
}
