//! Routes of this machine that have addresses in common with the pools of virtual IPs.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};

use dns_signal_proto::virtual_ip::Pools;
use explain::facts::Collision;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// More are not looked at: a router with a full table is no place for a sidecar.
const MAX_ROUTES: usize = 65_536;

/// The collisions there are now, the pools' own interface left out. A default route collides with nothing.
pub(crate) fn collisions(pools: &Pools, own: &str) -> Vec<Collision> {
    let ipv4 = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let ipv6 = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    let routes = ipv4.lines().skip(1).filter_map(ipv4_route);
    let routes = routes.chain(ipv6.lines().filter_map(ipv6_route));
    among(routes.take(MAX_ROUTES), pools, own)
}

fn among(
    routes: impl Iterator<Item = (IpNet, String)>,
    pools: &Pools,
    own: &str,
) -> Vec<Collision> {
    let pools = [IpNet::V4(pools.ipv4()), IpNet::V6(pools.ipv6())];
    let mut found: Vec<Collision> = Vec::new();
    for (route, interface) in routes {
        if interface == own || interface == "lo" || route.prefix_len() == 0 {
            continue;
        }
        for pool in &pools {
            if pool.contains(&route) || route.contains(pool) {
                found.push(Collision {
                    pool: pool.to_string(),
                    route: route.to_string(),
                    interface: interface.clone(),
                    takes_over: pool.contains(&route),
                });
            }
        }
    }
    found.sort_by_key(|collision| !collision.takes_over);
    found.truncate(8);
    found
}

/// A line of /proc/net/route: addresses are hexadecimal in the machine's byte order.
fn ipv4_route(line: &str) -> Option<(IpNet, String)> {
    let mut fields = line.split_whitespace();
    let interface = fields.next()?.to_owned();
    let address = |text: &str| {
        let number = u32::from_str_radix(text, 16).ok()?;
        Some(Ipv4Addr::from(number.to_ne_bytes()))
    };
    let destination = address(fields.next()?)?;
    let mask = address(fields.nth(5)?)?;
    let net = Ipv4Net::with_netmask(destination, mask).ok()?;
    Some((net.into(), interface))
}

/// A line of /proc/net/ipv6_route. Link-local and multicast routes are on every interface.
fn ipv6_route(line: &str) -> Option<(IpNet, String)> {
    let mut fields = line.split_whitespace();
    let destination = u128::from_str_radix(fields.next()?, 16).ok()?;
    let length = u8::from_str_radix(fields.next()?, 16).ok()?;
    let interface = fields.next_back()?.to_owned();
    let address = Ipv6Addr::from(destination);
    if address.is_multicast() || address.is_unicast_link_local() {
        return None;
    }
    let net = Ipv6Net::new(address, length).ok()?;
    Some((IpNet::from(net), interface))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_as_the_kernel_writes_them() {
        let line = "lan\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0";
        let (net, interface) = ipv4_route(line).expect("a route");
        assert_eq!(
            (net.to_string().as_str(), interface.as_str()),
            ("10.0.0.0/24", "lan")
        );
        let line = "fd740000000000000000000000000000 40 00000000000000000000000000000000 00 \
                    00000000000000000000000000000000 00000100 00000001 00000000 00000001     lan";
        let (net, interface) = ipv6_route(line).expect("a route");
        assert_eq!(
            (net.to_string().as_str(), interface.as_str()),
            ("fd74::/64", "lan")
        );
        assert_eq!(ipv4_route("Iface Destination"), None);
    }

    #[test]
    fn a_collision_takes_over_when_it_is_within_the_pool() {
        let pools = Pools::new(
            "198.18.0.0/15".parse().unwrap(),
            "fd74:7572:6e70::/64".parse().unwrap(),
        )
        .unwrap();
        let routes = |texts: &[&str]| {
            let routes: Vec<_> = texts
                .iter()
                .map(|text| (text.parse::<IpNet>().unwrap(), "lan".to_owned()))
                .collect();
            among(routes.into_iter(), &pools, "turnpike0")
        };
        assert_eq!(
            routes(&["0.0.0.0/0", "10.0.0.0/8", "::/0", "fd75::/64"]),
            []
        );
        let found = routes(&["198.0.0.0/8", "198.19.7.0/24"]);
        let takes: Vec<_> = found
            .iter()
            .map(|collision| (collision.route.as_str(), collision.takes_over))
            .collect();
        assert_eq!(takes, [("198.19.7.0/24", true), ("198.0.0.0/8", false)]);
        let own = [(
            "198.18.0.0/15".parse::<IpNet>().unwrap(),
            "turnpike0".to_owned(),
        )];
        assert_eq!(among(own.into_iter(), &pools, "turnpike0"), []);
    }
}
