//! One export for all names below one: what each of them is, this network's own DNS says.
//!
//! Whoever can write into that DNS must not be able to point the activator at itself, at its own links, or at what answers
//! only to the host it runs on: an address counts only if it is within the ranges that the export names, and never if it is
//! loopback, link-local (a cloud's metadata service is), multicast, the activator's own, or of a client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use model::{ExportName, ServiceName};

use crate::{
    policy::{Export, Ports},
    who::Who,
};

/// Addresses of one name that are used; more are left out.
pub const MAX_ADDRESSES: usize = 16;

/// The longest name that DNS can ask for, as text without its last dot.
const MAX_DOMAIN: usize = 253;

/// Where Amazon's instances find their metadata over IPv6: a unique local address.
const METADATA_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wildcard {
    /// It is for the names below this one; `None`: for all.
    pub below: Option<ServiceName>,
    /// A name's `*` is asked for below this domain.
    pub domain: Domain,
    /// Where its names may lead.
    pub within: Vec<IpNet>,
    /// TCP ports that can be reached.
    pub tcp: Ports,
    /// UDP ports that can be reached.
    pub udp: Ports,
    /// Who may use it; absent: every enrolled workload of the mesh.
    pub allow: Option<Vec<Who>>,
}

/// A domain of this network's DNS, in lower case, without its last dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain(String);

/// Not `*.` and a domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not `*.` and a domain, such as *.prod.svc.cluster.local")]
pub struct NotADomain(String);

impl Domain {
    /// Reads `*.prod.svc.cluster.local`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn below_star(text: &str) -> Result<Self, NotADomain> {
        let wrong = || NotADomain(text.chars().take(80).collect());
        let domain = text.strip_prefix("*.").ok_or_else(wrong)?;
        let domain = domain
            .strip_suffix('.')
            .unwrap_or(domain)
            .to_ascii_lowercase();
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(plain);
        // Room for one label.
        if domain.len() + 2 <= MAX_DOMAIN && domain.split('.').all(is_label) {
            Ok(Self(domain))
        } else {
            Err(wrong())
        }
    }
}

impl Wildcard {
    /// What to ask DNS for in place of a name; `None`: too long for DNS, or not below this wildcard.
    #[must_use]
    pub fn domain_of(&self, name: &ServiceName) -> Option<String> {
        let export = ExportName::Below(self.below.clone());
        let domain = format!("{}.{}", export.star_in(name)?, self.domain.0);
        (domain.len() <= MAX_DOMAIN).then_some(domain)
    }

    /// Whether its names may lead to IPv4 addresses, and to IPv6 addresses.
    #[must_use]
    pub fn families(&self) -> (bool, bool) {
        let ipv4 = self.within.iter().any(|range| range.addr().is_ipv4());
        let ipv6 = self.within.iter().any(|range| range.addr().is_ipv6());
        (ipv4, ipv6)
    }

    /// The service that a name is, by the addresses that DNS gave: those within its ranges for which `is_forbidden` does not
    /// hold, in order, at most [`MAX_ADDRESSES`] of each family. `None`: there are none of these.
    #[must_use]
    pub fn service(
        &self,
        name: &ServiceName,
        addresses: &[IpAddr],
        is_forbidden: impl Fn(IpAddr) -> bool,
    ) -> Option<Export> {
        let mut allowed: Vec<IpAddr> = addresses
            .iter()
            .copied()
            .filter(|address| {
                self.within.iter().any(|range| range.contains(address))
                    && !is_never_a_service(*address)
                    && !is_forbidden(*address)
            })
            .collect();
        // Servers give them in another order each time.
        allowed.sort_unstable();
        allowed.dedup();
        let (mut ipv4, mut ipv6) = (Vec::new(), Vec::new());
        for address in &allowed {
            match address {
                IpAddr::V4(address) if ipv4.len() < MAX_ADDRESSES => ipv4.push(*address),
                IpAddr::V6(address) if ipv6.len() < MAX_ADDRESSES => ipv6.push(*address),
                _ => {}
            }
        }
        (!allowed.is_empty()).then(|| Export {
            name: name.clone(),
            ipv4,
            ipv6,
            tcp: self.tcp.clone(),
            udp: self.udp.clone(),
            allow: self.allow.clone(),
        })
    }
}

/// Whether no service can have this address for somebody else's packets, whatever the export allows.
pub(crate) fn is_never_a_service(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_never_ipv4(address),
        IpAddr::V6(address) => {
            address.is_unspecified()
                || address.is_multicast()
                || address.is_loopback()
                || address.is_unicast_link_local()
                || address == METADATA_IPV6
                // An IPv4 address in another dress: ::/96, ::ffff/96 (RFC 4291), 64:ff9b::/96 (RFC 6052), 2002::/16 (RFC 3056).
                || matches!(address.segments(), [0, 0, 0, 0, 0, 0 | 0xffff, ..])
                || matches!(address.segments(), [0x64, 0xff9b, ..] | [0x2002, ..])
        }
    }
}

const fn is_never_ipv4(address: Ipv4Addr) -> bool {
    // All of 0.0.0.0/8 and 240.0.0.0/4 (RFC 6890).
    let [first, ..] = address.octets();
    first == 0
        || first >= 240
        || address.is_multicast()
        || address.is_loopback()
        || address.is_link_local()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wildcard(below: &str, domain: &str, within: &[&str]) -> Wildcard {
        let below: ExportName = below.parse().unwrap();
        let ExportName::Below(below) = below else {
            panic!("{below} is no wildcard")
        };
        Wildcard {
            below,
            domain: Domain::below_star(domain).unwrap(),
            within: within.iter().map(|range| range.parse().unwrap()).collect(),
            tcp: [80].into_iter().collect(),
            udp: Ports::default(),
            allow: None,
        }
    }

    fn service(wildcard: &Wildcard, addresses: &[&str]) -> Option<(Vec<Ipv4Addr>, Vec<Ipv6Addr>)> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let own: IpAddr = "10.0.0.2".parse().unwrap();
        let name = "api.prod".parse().unwrap();
        let export = wildcard.service(&name, &addresses, |address| address == own)?;
        assert_eq!(export.name, name);
        assert_eq!(export.tcp, wildcard.tcp);
        Some((export.ipv4, export.ipv6))
    }

    #[test]
    fn the_star_is_asked_for_below_the_domain() {
        let prod = wildcard("*.prod", "*.Prod.svc.cluster.local.", &["10.0.0.0/8"]);
        let domain = |name: &str| prod.domain_of(&name.parse().unwrap());
        assert_eq!(
            domain("api.prod").as_deref(),
            Some("api.prod.svc.cluster.local")
        );
        assert_eq!(
            domain("a.b.prod").as_deref(),
            Some("a.b.prod.svc.cluster.local")
        );
        assert_eq!(domain("api"), None);
        let long = format!("*.{}", vec!["y".repeat(62); 3].join("."));
        let long = wildcard("*", &long, &["10.0.0.0/8"]);
        assert!(long.domain_of(&"x".repeat(63).parse().unwrap()).is_some());
        assert_eq!(
            long.domain_of(&format!("{0}.{0}", "x".repeat(40)).parse().unwrap()),
            None
        );
        for bad in [
            "", "*", "*.", "prod.svc", "*.*.x", "*.a..b", "*.a b", "x.*.y",
        ] {
            assert!(Domain::below_star(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_addresses_within_its_ranges_count() {
        let prod = wildcard("*.prod", "*.x", &["10.0.0.0/8", "fd00:10::/64"]);
        let (ipv4, ipv6) = service(
            &prod,
            &[
                "10.9.0.1",
                "192.0.2.1",
                "fd00:10::7",
                "10.1.0.1",
                "10.9.0.1",
                "2001:db8::1",
            ],
        )
        .unwrap();
        assert_eq!(
            ipv4,
            [Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 9, 0, 1)]
        );
        assert_eq!(ipv6.len(), 1);
        assert_eq!(service(&prod, &["192.0.2.1", "2001:db8::1"]), None);
        assert_eq!(service(&prod, &["10.0.0.2"]), None, "the activator's own");
        assert_eq!(service(&prod, &[]), None);
        let many: Vec<String> = (0..40).map(|n| format!("10.0.1.{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(service(&prod, &many).unwrap().0.len(), MAX_ADDRESSES);
    }

    #[test]
    fn what_is_no_hosts_is_refused_however_wide_the_ranges_are() {
        let everything = wildcard("*", "*.x", &["0.0.0.0/0", "::/0"]);
        for bad in [
            "127.0.0.1",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::1",
            "fd00:ec2::254",
        ] {
            assert_eq!(service(&everything, &[bad]), None, "{bad}");
        }
        assert!(service(&everything, &["203.0.113.7", "2001:db8::7"]).is_some());
    }
}
