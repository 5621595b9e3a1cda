use std::io;
use std::net::{IpAddr, Ipv6Addr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// An address of this host and the interface that carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The interface's name, such as `eth0`: what an operator's include or exclude rule names.
    pub interface: String,
    /// The address itself; never loopback, unspecified, multicast or link-local IPv6.
    pub address: IpAddr,
}

/// The addresses of the interfaces that are up and are not loopback, in the kernel's order.
///
/// IPv6 link-local addresses are left out: they mean nothing without a zone, and a candidate has no zone
/// ([RFC 8445 section 5.1.1.1](https://www.rfc-editor.org/rfc/rfc8445#section-5.1.1.1)).
///
/// # Errors
///
/// What `getifaddrs` reports; in practice only lack of memory or descriptors.
pub fn interface_addresses() -> io::Result<Vec<InterfaceAddress>> {
    let interfaces = getifaddrs().map_err(io::Error::from)?;
    Ok(interfaces
        .filter(|interface| {
            interface.flags.contains(InterfaceFlags::IFF_UP)
                && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK)
        })
        .filter_map(|interface| {
            let storage = interface.address?;
            let v4 = storage.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            let v6 = storage.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip()));
            let address = v4.or(v6)?;
            is_usable(address).then_some(InterfaceAddress {
                interface: interface.interface_name,
                address,
            })
        })
        .collect())
}

/// All addresses of this host, on whatever interface and whether it is up or not, in the kernel's order: what is sent to one
/// of them stays here.
///
/// # Errors
///
/// As [`interface_addresses`].
pub fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let interfaces = getifaddrs().map_err(io::Error::from)?;
    let addresses = interfaces.filter_map(|interface| {
        let storage = interface.address?;
        let v4 = storage.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        let v6 = storage.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip()));
        v4.or(v6)
    });
    Ok(addresses.collect())
}

fn is_usable(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => Ipv6Addr::is_unicast_link_local(&v6),
    };
    !(link_local || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_candidate_is_left_out() {
        for refused in [
            "127.0.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!is_usable(refused.parse().unwrap()), "{refused}");
        }
        for usable in ["10.0.0.2", "203.0.113.5", "fd00:10::2", "2001:db8::1"] {
            assert!(is_usable(usable.parse().unwrap()), "{usable}");
        }
    }

    #[test]
    fn own_addresses_are_all_there_are() {
        let own = own_addresses().unwrap();
        assert!(own.contains(&IpAddr::from([127, 0, 0, 1])), "{own:?}");
        for listed in interface_addresses().unwrap() {
            assert!(own.contains(&listed.address), "{listed:?}");
        }
    }

    #[test]
    fn this_host_is_listed_without_loopback() {
        let addresses = interface_addresses().unwrap();
        assert!(
            addresses
                .iter()
                .all(|a| a.interface != "lo" && is_usable(a.address))
        );
    }
}
