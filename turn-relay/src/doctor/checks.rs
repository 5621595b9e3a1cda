//! What can be seen without sending anything.

use super::{Finding, seconds};
use crate::certificate::Certificate;
use crate::config::Settings;
use crate::udp::Io;
use net::Clock;
use nix::sys::resource::{Resource, getrlimit};
use std::fs;
use std::io;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A certificate that ends sooner should have been renewed.
const SOON: i64 = 14 * 86_400;
/// Bytes that the relay wants for each socket's buffers.
const BUFFER: u64 = 4 << 20;
/// What the process needs beyond clients.
const OTHER_DESCRIPTORS: u64 = 256;

pub(super) fn peers(settings: &Settings) -> Vec<Finding> {
    let networks = settings.realms.iter().map(|realm| realm.allow_peers.len());
    let networks: usize = networks.sum();
    if networks == 0 {
        return vec![Finding::warn(
            "peers",
            "none may be reached",
            "name networks in allow-peers",
        )];
    }
    vec![Finding::ok(
        "peers",
        format!("{networks} networks may be reached"),
    )]
}

pub(super) fn certificate(settings: &Settings, name: Option<&str>) -> Vec<Finding> {
    let Some(files) = &settings.certificate else {
        return Vec::new();
    };
    let about = format!("certificate {}", files.certificate.display());
    let chain = match Certificate::load(files.clone()) {
        Ok(certificate) => certificate.chain(),
        Err(error) => return vec![Finding::fail(about, error, "TLS needs it")],
    };
    let mut findings = vec![Finding::ok(&about, "belongs to its key")];
    let first = chain
        .first()
        .and_then(|der| X509Certificate::from_der(der).ok());
    let Some((_, first)) = first else {
        findings.push(Finding::fail(about, "cannot be read", "make another one"));
        return findings;
    };
    let now = Clock.unix_time().0 as i64;
    let (from, until) = (
        first.validity().not_before.timestamp(),
        first.validity().not_after.timestamp(),
    );
    let renew = "renew it: the relay reads its files again when they change";
    findings.push(match until - now {
        _ if now < from => Finding::fail(
            &about,
            format!("is valid in {} only", seconds(from - now)),
            "check the clock",
        ),
        ..=0 => Finding::fail(
            &about,
            format!("expired {} ago", seconds(until - now)),
            renew,
        ),
        left if left < SOON => {
            Finding::warn(&about, format!("expires in {}", seconds(left)), renew)
        }
        left => Finding::ok(&about, format!("expires in {}", seconds(left))),
    });
    if let Some(name) = name {
        let names = names(&first);
        findings.push(if names.iter().any(|pattern| is_for(pattern, name)) {
            Finding::ok(about, format!("is for {name}"))
        } else {
            Finding::fail(
                about,
                format!("is for {}, not for {name}", names.join(", ")),
                "clients refuse it",
            )
        });
    }
    findings
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let each = names.iter().flat_map(|names| &names.value.general_names);
    each.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress([a, b, c, d]) => Some(format!("{a}.{b}.{c}.{d}")),
        GeneralName::IPAddress(bytes) => {
            let bytes = <[u8; 16]>::try_from(*bytes).ok()?;
            Some(std::net::Ipv6Addr::from(bytes).to_string())
        }
        _ => None,
    })
    .collect()
}

/// RFC 9525 section 6.3: a `*` stands for the first label as a whole.
fn is_for(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.to_lowercase(), name.to_lowercase());
    match pattern.strip_prefix("*.") {
        Some(rest) => name.split_once('.').is_some_and(|(_, of)| of == rest),
        None => pattern == name,
    }
}

/// Descriptors, and the memory of sockets.
pub(super) fn limits(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let ports = u64::from(settings.ports.end() - settings.ports.start()) + 1;
    let relayed = ports * settings.relay_addresses.len() as u64;
    let connections = if settings.listen.streams.is_empty() {
        0
    } else {
        settings.stream_limits.connections as u64 * u64::from(settings.threads)
    };
    let wanted = relayed + connections + OTHER_DESCRIPTORS;
    findings.push(match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard >= wanted => Finding::ok(
            "open files",
            format!("{hard} allowed, {wanted} needed at most"),
        ),
        Ok((_, hard)) => Finding::warn(
            "open files",
            format!("{hard} allowed, and all allocations and connections would need {wanted}"),
            "raise the limit (LimitNOFILE= of systemd, ulimit -Hn); beyond it clients hear 508",
        ),
        Err(error) => Finding::warn("open files", error, "see getrlimit(2)"),
    });
    let admin = caps::has_cap(
        None,
        caps::CapSet::Effective,
        caps::Capability::CAP_NET_ADMIN,
    );
    let admin = admin.unwrap_or(false);
    for name in ["rmem_max", "wmem_max"] {
        let most = number(&format!("/proc/sys/net/core/{name}"));
        let about = format!("socket buffers (net.core.{name})");
        findings.push(match most {
            _ if admin => Finding::ok(about, "may be as large as wanted (CAP_NET_ADMIN)"),
            Some(most) if most >= BUFFER => Finding::ok(about, format!("{most} bytes")),
            Some(most) => Finding::warn(
                about,
                format!("{most} bytes: bursts will be lost"),
                format!("sysctl -w net.core.{name}={BUFFER}, or give CAP_NET_ADMIN"),
            ),
            None => Finding::warn(about, "cannot be read", "is /proc mounted?"),
        });
    }
    findings
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// What the kernel can do for datagrams.
pub(super) fn kernel(settings: &Settings) -> Vec<Finding> {
    let say = |io: Io, works: io::Result<()>| match works {
        Ok(()) => Finding::ok(format!("kernel, io {io}"), "works"),
        Err(error) if settings.io == Some(io) => Finding::fail(
            format!("kernel, io {io}"),
            error,
            "the configuration forces it: leave `io` out",
        ),
        Err(error) => Finding::warn(
            format!("kernel, io {io}"),
            error,
            "the relay does without it, with more system calls",
        ),
    };
    Io::ALL.into_iter().map(|io| say(io, io.works())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_clients_do() {
        assert!(is_for("relay.example", "Relay.Example"));
        assert!(is_for("*.example", "relay.example"));
        assert!(!is_for("*.example", "a.relay.example"));
        assert!(!is_for("*.example", "example"));
        assert!(!is_for("relay.example", "other.example"));
    }
}
