//! Further names of services: what they mean, and when they are somebody else's.

#![allow(clippy::unwrap_used)]

use dns_signal_proto::alias::{Alias, AliasError, Aliases, Choice};
use dns_signal_proto::services::{Families, Services};
use hickory_proto::rr::{Name, RecordType};

fn services() -> Services {
    let mut services = Services::new(7);
    for id in ["orders.east", "shared.east", "shared.north", "shared.west"] {
        let families = Families {
            ipv4: true,
            ipv6: true,
        };
        services.insert(id.parse().unwrap(), families);
    }
    services
}

fn alias(service: Option<&str>, networks: &[&str], choice: Choice) -> Alias {
    Alias {
        service: service.map(|name| name.parse().unwrap()),
        networks: networks.iter().map(|name| name.parse().unwrap()).collect(),
        choice,
    }
}

fn aliases() -> Aliases {
    let mut aliases = Aliases::new("north".parse().unwrap());
    for (name, service, networks, choice) in [
        (
            "*.prod.svc.clusterset.local",
            None,
            &[][..],
            Choice::Failover,
        ),
        ("*.all.mesh.internal", None, &[], Choice::RoundRobin),
        (
            "API.example.com",
            Some("orders"),
            &["east"],
            Choice::Failover,
        ),
        (
            "shared.prod.svc.clusterset.local",
            Some("shared"),
            &["west", "east"],
            Choice::Failover,
        ),
        (
            "*.front.example.com",
            Some("orders"),
            &["west", "east"],
            Choice::Failover,
        ),
    ] {
        aliases.add(name, alias(service, networks, choice)).unwrap();
    }
    aliases
}

/// The services meant, and the zone.
fn meaning(name: &str) -> String {
    let found = aliases().meaning(&Name::from_ascii(name).unwrap(), &services());
    found.map_or_else(String::new, |meaning| {
        let ids: Vec<_> = meaning
            .services
            .iter()
            .map(|(id, _)| id.to_string())
            .collect();
        format!("{} in {}", ids.join(" "), meaning.zone)
    })
}

#[test]
fn a_name_means_the_services_of_its_alias_in_order_of_preference() {
    for (name, expected) in [
        (
            "orders.prod.svc.clusterset.local.",
            "orders.east in prod.svc.clusterset.local.",
        ),
        (
            "OrderS.Prod.svc.clusterset.LOCAL.",
            "orders.east in prod.svc.clusterset.local.",
        ),
        // The sidecar's own network first, then by name.
        (
            "shared.all.mesh.internal.",
            "shared.north shared.east shared.west in all.mesh.internal.",
        ),
        // The exact name before the wildcard, and its networks in its order.
        (
            "shared.prod.svc.clusterset.local.",
            "shared.west in shared.prod.svc.clusterset.local.",
        ),
        ("api.example.com.", "orders.east in api.example.com."),
        // The first that exports it.
        (
            "www.front.example.com.",
            "orders.east in front.example.com.",
        ),
        // Nobody's: left to others.
        ("absent.prod.svc.clusterset.local.", ""),
        ("a.orders.prod.svc.clusterset.local.", ""),
        ("prod.svc.clusterset.local.", ""),
        ("not_a_service.prod.svc.clusterset.local.", ""),
        ("www.api.example.com.", ""),
        ("example.com.", ""),
        (".", ""),
    ] {
        assert_eq!(meaning(name), expected, "{name}");
    }
}

#[test]
fn the_zones_of_all_aliases_can_be_told_to_others() {
    assert_eq!(
        aliases().zones(),
        [
            "all.mesh.internal",
            "api.example.com",
            "front.example.com",
            "prod.svc.clusterset.local",
            "shared.prod.svc.clusterset.local"
        ]
    );
}

#[test]
fn only_addresses_and_what_goes_with_them_are_an_aliass() {
    use RecordType::{A, AAAA, ANY, CAA, DNSKEY, DS, HTTPS, MX, NS, SRV, SVCB, TXT};
    let name = Name::from_ascii("api.example.com.").unwrap();
    for (record_type, is_ours) in [A, AAAA, ANY, HTTPS, SVCB]
        .map(|it| (it, true))
        .into_iter()
        .chain([MX, TXT, CAA, SRV, NS, DS, DNSKEY].map(|it| (it, false)))
    {
        assert_eq!(
            aliases().covers(&name, record_type),
            is_ours,
            "{record_type}"
        );
    }
}

#[test]
fn names_that_are_none_or_would_take_everything_are_refused() {
    let add = |name: &str, service| aliases().add(name, alias(service, &[], Choice::Failover));
    for (name, service, expected) in [
        ("*", None, AliasError::TooWide),
        ("*.", None, AliasError::TooWide),
        (".", Some("orders"), AliasError::TooWide),
        ("", Some("orders"), AliasError::TooWide),
        ("a.*.example.com", Some("orders"), AliasError::NotAName),
        ("*.*.example.com", None, AliasError::NotAName),
        ("a..example.com", Some("orders"), AliasError::NotAName),
        ("www.example.com", None, AliasError::NoService),
        ("api.EXAMPLE.com.", Some("orders"), AliasError::Twice),
        ("*.all.mesh.internal", None, AliasError::Twice),
    ] {
        assert_eq!(add(name, service), Err(expected), "{name}");
    }
}

#[test]
fn a_network_that_exports_a_wildcard_has_the_names_that_an_alias_gives_it_and_no_others() {
    let mut services = services();
    let families = Families {
        ipv4: true,
        ipv6: false,
    };
    let (network, all) = ("east".parse().unwrap(), "*".parse().unwrap());
    services.insert_export(network, all, families, (&[80], &[]));
    let mut aliases = aliases();
    let named = alias(Some("api.prod"), &["east"], Choice::Failover);
    aliases.add("api.example.org", named).unwrap();
    let meaning = |name: &str| {
        let name = Name::from_ascii(format!("{name}.")).unwrap();
        let meaning = aliases.meaning(&name, &services)?;
        Some(meaning.services[0].0.to_string())
    };
    assert_eq!(meaning("api.example.org").as_deref(), Some("api.prod.east"));
    assert_eq!(
        meaning("orders.prod.svc.clusterset.local").as_deref(),
        Some("orders.east")
    );
    assert_eq!(meaning("anything.prod.svc.clusterset.local"), None);
}
