//! Virtual IPs: stable, paired, never given twice, bounded.

#![allow(clippy::unwrap_used)]

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use dns_signal_proto::service::ServiceId;
use dns_signal_proto::virtual_ip::{
    MAX_ASSIGNMENTS, OtherPools, PoolError, PoolExhausted, Pools, Restored, VirtualIpPair,
    VirtualIps,
};
use proptest::collection::{hash_set, vec};
use proptest::prelude::*;

fn pools(ipv4: &str, ipv6: &str) -> Pools {
    Pools::new(ipv4.parse().unwrap(), ipv6.parse().unwrap()).unwrap()
}

fn default_pools() -> Pools {
    pools("198.18.0.0/15", "fd74:7572:6e70::/64")
}

fn id(text: &str) -> ServiceId {
    text.parse().unwrap()
}

/// Room for 13 services: collisions are the rule.
fn small_pools() -> Pools {
    pools("10.9.8.0/28", "fd00::/64")
}

#[test]
fn a_name_has_its_place_by_a_hash_that_never_changes() {
    // Written down: another value would break the promise that all sidecars and versions agree.
    let mut table = VirtualIps::new(default_pools());
    let mut address = |name| table.assign(&id(name)).unwrap().0;
    let orders = address("orders.east");
    assert_eq!(orders.ipv4.to_string(), "198.18.186.11");
    assert_eq!(orders.ipv6.to_string(), "fd74:7572:6e70::ba0b");
    assert_eq!(address("billing.west").ipv4.to_string(), "198.19.211.25");
}

#[test]
fn the_first_host_address_is_the_device_s_own() {
    let device = default_pools().device();
    assert_eq!(
        (device.ipv4.to_string(), device.ipv6.to_string()),
        ("198.18.0.1".into(), "fd74:7572:6e70::1".into())
    );
    let table = VirtualIps::new(default_pools());
    assert_eq!(table.service_of(device.ipv4.into()), None);
    assert!(default_pools().contains(device.ipv6.into()));
    assert!(!default_pools().contains("198.20.0.1".parse().unwrap()));
}

#[test]
fn reverse_zones_are_those_of_the_pools_and_no_others() {
    let zones = |ipv4: &str, ipv6: &str| pools(ipv4, ipv6).reverse_zones();
    let own6 = "0.0.0.0.0.7.e.6.2.7.5.7.4.7.d.f.ip6.arpa";
    assert_eq!(
        default_pools().reverse_zones(),
        ["18.198.in-addr.arpa", "19.198.in-addr.arpa", own6]
    );
    assert_eq!(
        zones("10.0.0.0/8", "fc00::/7"),
        ["10.in-addr.arpa", "c.f.ip6.arpa", "d.f.ip6.arpa"]
    );
    let smallest = zones("10.9.8.4/30", "fd00::/126");
    assert_eq!(smallest[0], "4.8.9.10.in-addr.arpa");
    assert_eq!(smallest[3], "7.8.9.10.in-addr.arpa");
    assert_eq!(smallest.len(), 4 + 4);
    assert!(smallest[7].starts_with("3.0.0.0."), "{}", smallest[7]);
    assert_eq!(zones("128.0.0.0/2", "fd00::/64").len(), 64 + 1);
}

#[test]
fn a_range_without_room_or_not_for_hosts_is_no_pool() {
    let new = |ipv4: &str, ipv6: &str| Pools::new(ipv4.parse().unwrap(), ipv6.parse().unwrap());
    let good6 = "fd00::/64";
    assert_eq!(new("10.0.0.0/30", good6).unwrap().places(), 1);
    assert_eq!(new("10.0.0.0/8", "fd00::/126").unwrap().places(), 2);
    assert_eq!(
        new("10.0.0.0/8", "fc00::/7").unwrap().places(),
        (1 << 24) - 3
    );
    assert!(matches!(
        new("10.0.0.0/31", good6),
        Err(PoolError::Ipv4TooSmall(_))
    ));
    assert!(matches!(
        new("10.0.0.0/8", "fd00::/127"),
        Err(PoolError::Ipv6TooSmall(_))
    ));
    assert!(matches!(
        new("10.0.0.1/8", good6),
        Err(PoolError::NotARange(..))
    ));
    assert!(matches!(
        new("10.0.0.0/8", "fd00::1/64"),
        Err(PoolError::NotARange(..))
    ));
    for ipv4 in [
        "0.0.0.0/0",
        "0.0.0.0/8",
        "127.0.0.0/8",
        "224.0.0.0/4",
        "240.0.0.0/4",
    ] {
        assert!(
            matches!(new(ipv4, good6), Err(PoolError::NotForHosts(_))),
            "{ipv4}"
        );
    }
    for ipv6 in ["::/0", "::/64", "ff00::/8"] {
        assert!(
            matches!(new("10.0.0.0/8", ipv6), Err(PoolError::NotForHosts(_))),
            "{ipv6}"
        );
    }
}

#[test]
fn a_full_pool_refuses_new_names_and_keeps_the_old() {
    let mut table = VirtualIps::new(small_pools());
    for n in 0..13 {
        table.assign(&id(&format!("s{n}.east"))).unwrap();
    }
    let before = table.get(&id("s5.east"));
    assert_eq!(table.assign(&id("one-more.east")), Err(PoolExhausted));
    assert_eq!(table.assign(&id("s5.east")), Ok((before.unwrap(), false)));
    assert_eq!(table.len(), 13);
}

#[test]
fn however_large_the_pool_the_table_is_bounded() {
    let mut table = VirtualIps::new(pools("10.0.0.0/8", "fd00::/64"));
    for n in 0..MAX_ASSIGNMENTS {
        table.assign(&id(&format!("s{n}.east"))).unwrap();
    }
    assert_eq!(table.assign(&id("one-more.east")), Err(PoolExhausted));
}

#[test]
fn what_was_written_is_read_even_if_partly_damaged() {
    let mut table = VirtualIps::new(small_pools());
    table.assign(&id("orders.east")).unwrap();
    table.assign(&id("billing.west")).unwrap();
    let good = table.encode();

    let mut restored = VirtualIps::new(small_pools());
    assert_eq!(
        restored.restore(&good),
        Ok(Restored {
            taken: 2,
            skipped: 0
        })
    );
    assert_eq!(restored.encode(), good);

    // Garbage, an address that is not ours or is the device's, a name without network, and the same again.
    // The last line would give an address to a second name.
    let taken = table.get(&id("orders.east")).unwrap().ipv4;
    let damaged = format!(
        "{good}what\n10.9.9.9 a.b\n10.9.8.1 a.b\n10.9.8.0 a.b\n10.9.8.15 a.b\n10.9.8.9 alone\n10.9.8.3 orders.east\n{taken} thief.east\n"
    );
    let mut restored = VirtualIps::new(small_pools());
    assert_eq!(
        restored.restore(&damaged),
        Ok(Restored {
            taken: 2,
            skipped: 8
        })
    );
    assert_eq!(restored.encode(), good);

    let mut other = VirtualIps::new(default_pools());
    assert_eq!(other.restore(&good), Err(OtherPools));
    assert_eq!(other.restore(""), Err(OtherPools));
    assert!(other.is_empty());
}

/// All of these, with an address each.
fn ask(table: &mut VirtualIps, names: &[ServiceId]) -> HashMap<ServiceId, VirtualIpPair> {
    let pair = |id: &ServiceId| (id.clone(), table.assign(id).unwrap().0);
    names.iter().map(pair).collect()
}

#[test]
fn ten_thousand_names_have_one_address_each_whoever_asks_first() {
    let names: Vec<ServiceId> = (0..10_000).map(|n| id(&format!("s{n}.east"))).collect();
    let mut first = VirtualIps::new(default_pools());
    first.expect(names.clone());
    let one = ask(&mut first, &names);
    let mut second = VirtualIps::new(default_pools());
    for part in names.rchunks(700) {
        second.expect(part.to_vec());
    }
    let backwards: Vec<_> = names.iter().rev().cloned().collect();
    assert_eq!(ask(&mut second, &backwards), one);
    // Without a plan it would make a difference: some of them collide.
    let mut unplanned = VirtualIps::new(default_pools());
    assert_ne!(ask(&mut unplanned, &backwards), one);
}

#[test]
fn an_address_that_only_another_sidecar_gave_leads_to_its_service() {
    let mut table = VirtualIps::new(default_pools());
    let (orders, address) = (id("orders.east"), "198.18.186.11".parse().unwrap());
    assert_eq!(table.expected_at(address), None);
    table.expect([orders.clone()]);
    assert_eq!(table.expected_at(address), Some(&orders));
    assert_eq!(table.service_of(address), None, "not given here");
    table.assign(&orders).unwrap();
    assert_eq!(table.expected_at(address), Some(&orders));
    assert_eq!(table.service_of(address), Some(&orders));
}

#[test]
fn names_that_nobody_asks_for_take_no_room() {
    let all: Vec<ServiceId> = (0..100).map(|n| id(&format!("s{n}.east"))).collect();
    let mut table = VirtualIps::new(small_pools());
    table.expect(all.clone());
    let asked = ask(&mut table, &all[87..]);
    let distinct: HashSet<_> = asked.values().collect();
    assert_eq!(distinct.len(), 13);
    assert_eq!(table.assign(&all[0]), Err(PoolExhausted));
    assert_eq!(ask(&mut table, &all[87..]), asked);
}

fn name() -> impl Strategy<Value = ServiceId> {
    ("[a-z][a-z0-9]{0,6}", "(east|west|north)")
        .prop_map(|(service, network)| id(&format!("{service}.{network}")))
}

proptest! {
    #[test]
    fn assignments_are_unique_paired_reversible_and_within_bounds(
        names in vec(name(), 1..40),
        prefix4 in 8_u8..=30,
        prefix6 in 32_u8..=126,
    ) {
        let pools = Pools::new(
            ipnet::Ipv4Net::new([10, 0, 0, 0].into(), prefix4).unwrap(),
            ipnet::Ipv6Net::new("fd00::".parse().unwrap(), prefix6).unwrap(),
        ).unwrap();
        let mut table = VirtualIps::new(pools);
        let mut given: HashMap<ServiceId, VirtualIpPair> = HashMap::new();
        for name in &names {
            let Ok((pair, is_new)) = table.assign(name) else {
                prop_assert_eq!(given.len(), pools.places() as usize);
                continue;
            };
            prop_assert_eq!(is_new, !given.contains_key(name));
            let before = *given.entry(name.clone()).or_insert(pair);
            prop_assert_eq!(before, pair, "changed while in use");

            let net = pools.ipv4();
            prop_assert!(net.contains(&pair.ipv4) && pair.ipv4 != net.network() && pair.ipv4 != net.broadcast());
            prop_assert!(pools.ipv6().contains(&pair.ipv6) && pair.ipv6 != pools.ipv6().network());
            prop_assert!(pair.ipv4 != pools.device().ipv4 && pair.ipv6 != pools.device().ipv6);
            for address in [IpAddr::V4(pair.ipv4), IpAddr::V6(pair.ipv6)] {
                prop_assert_eq!(table.service_of(address), Some(name));
            }
        }
        let ipv4: HashSet<_> = given.values().map(|pair| pair.ipv4).collect();
        let ipv6: HashSet<_> = given.values().map(|pair| pair.ipv6).collect();
        prop_assert_eq!((ipv4.len(), ipv6.len()), (given.len(), given.len()), "one address for two names");
    }

    #[test]
    fn a_restart_changes_nothing_even_where_names_collide(
        names in hash_set(name(), 1..13),
        later in hash_set(name(), 0..13),
    ) {
        let mut before = VirtualIps::new(small_pools());
        for name in &names {
            before.assign(name).unwrap();
        }
        let mut after = VirtualIps::new(small_pools());
        after.restore(&before.encode()).unwrap();
        // Asked in another order, and among others.
        for name in later.iter().chain(&names) {
            let _ = after.assign(name);
        }
        for name in &names {
            prop_assert_eq!(before.get(name), after.get(name));
        }
    }

    #[test]
    fn sidecars_agree_where_names_collide_whatever_their_orders(
        orders in hash_set(name(), 1..60).prop_flat_map(|names| {
            let names: Vec<ServiceId> = names.into_iter().collect();
            let order = || Just(names.clone()).prop_shuffle();
            ((order(), order()), (order(), order()), (order(), order()))
        }),
        parts in 1_usize..20,
        restart_after in 0_usize..60,
    ) {
        // Room for 61: nearly all collide.
        let pools = pools("10.9.8.0/26", "fd00::/64");
        let ((a, b), (c, d), (e, f)) = orders;
        let mut agreed = None;
        for (learned, asked) in [(a, b), (c, d), (e, f)] {
            let mut table = VirtualIps::new(pools);
            for part in learned.chunks(parts) {
                table.expect(part.to_vec());
            }
            let (before, after) = asked.split_at(restart_after.min(asked.len()));
            ask(&mut table, before);
            let mut again = VirtualIps::new(pools);
            again.restore(&table.encode()).unwrap();
            again.expect(learned.clone());
            ask(&mut again, after);
            let addresses = ask(&mut again, &asked);
            let distinct: HashSet<_> = addresses.values().collect();
            prop_assert_eq!(distinct.len(), asked.len());
            let agreed = agreed.get_or_insert_with(|| addresses.clone());
            prop_assert_eq!(agreed, &addresses);
        }
    }

    #[test]
    fn sidecars_agree_unless_names_collide(names in vec(name(), 1..40)) {
        let mut first = VirtualIps::new(default_pools());
        let mut second = VirtualIps::new(default_pools());
        for name in &names {
            first.assign(name).unwrap();
        }
        for name in names.iter().rev() {
            second.assign(name).unwrap();
        }
        for name in &names {
            let mut alone = VirtualIps::new(default_pools());
            let home = alone.assign(name).unwrap().0;
            if first.get(name) == Some(home) && second.get(name) == Some(home) {
                continue;
            }
            // Then another name has the place somewhere.
            let rivals = [&first, &second].map(|table| table.service_of(home.ipv4.into()).cloned());
            prop_assert!(rivals.iter().flatten().any(|rival| rival != name));
        }
    }

    #[test]
    fn restoring_survives_any_text(text in "(turnpike virtual IPs 1 10.9.8.0/28 fd00::/64\n)?(10\\.9\\.8\\.[0-9]{1,2} [a-z.]{0,8}\n|.{0,20}\n){0,20}") {
        let mut table = VirtualIps::new(small_pools());
        let _ = table.restore(&text);
        prop_assert!(table.len() <= 13);
    }
}
