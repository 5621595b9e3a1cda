//! What an operator reads when `dns-signal.toml` is wrong.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use dns_signal::config::Config;

const GOOD: &str = r#"
network = "west"
discovery = "https://203.0.113.10:7400"
state-directory = "/tmp/state"

[dns]
listen = ["127.0.0.1:53", "::1"]
upstreams = ["203.0.113.53"]
suffix = "mesh.internal"
ttl = "5s"

[tunnel]
interface = "turnpike0"
pool-ipv4 = "198.18.0.0/15"
pool-ipv6 = "fd74:7572:6e70::/64"

[link]
idle-timeout = "60s"
"#;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn load(text: &str) -> Result<Config, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dns-signal.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(&path).map_err(|error| {
        let line = error.to_string();
        assert!(!line.contains('\n'), "{line}");
        line.replace(&format!("{}/", directory.path().display()), "")
    })
}

#[test]
fn a_good_file_is_read() {
    let config = load(GOOD).unwrap();
    assert_eq!(config.dns.listen[1], address("[::1]:53"));
    assert_eq!(config.dns.upstreams, [address("203.0.113.53:53")]);
    assert_eq!(config.link.idle_timeout, Duration::from_secs(60));
    assert_eq!(config.tunnel.pools.device().ipv4.to_string(), "198.18.0.1");
}

#[test]
fn what_has_a_default_need_not_be_written() {
    let config = load("network = \"west\"\ndiscovery = \"https://d:1\"\n[dns]\nupstreams = [\"192.0.2.1\"]\n").unwrap();
    assert_eq!(config.admin, address("127.0.0.1:9103"));
    assert_eq!(config.dns.suffix.to_string(), "mesh.internal");
    assert_eq!(config.dns.ttl, Duration::from_secs(5));
    assert_eq!(config.tunnel.interface, "turnpike0");
}

#[test]
fn a_wrong_value_is_named_with_file_line_field_and_remedy() {
    let cases = [
        (
            "198.18.0.0/15",
            "198.18.0.0/99",
            "dns-signal.toml:14: field `tunnel.pool-ipv4`: value `198.18.0.0/99`: not an IPv4 range; \
             use a range such as 198.18.0.0/15",
        ),
        (
            "198.18.0.0/15",
            "198.18.0.1/15",
            "dns-signal.toml:14: field `tunnel.pool-ipv4`: value `198.18.0.1/15`: 198.18.0.1/15 has bits beyond its \
             prefix; the range is 198.18.0.0/15; use a range such as 198.18.0.0/15",
        ),
        (
            "fd74:7572:6e70::/64",
            "198.18.0.0/15",
            "dns-signal.toml:15: field `tunnel.pool-ipv6`: value `198.18.0.0/15`: not an IPv6 range; \
             use a range such as fd74:7572:6e70::/64",
        ),
        (
            "turnpike0",
            "a name of more than 15",
            "dns-signal.toml:13: field `tunnel.interface`: value `a name of more than 15`: not an interface name; \
             use 1 to 15 letters, digits, - or _",
        ),
        (
            "203.0.113.53",
            "dns.example",
            "dns-signal.toml:8: field `dns.upstreams[0]`: value `dns.example`: not an address; \
             use ADDRESS:PORT, such as 192.0.2.53:53 or [2001:db8::53]:53",
        ),
        (
            "203.0.113.53",
            "127.0.0.1",
            "dns-signal.toml:8: field `dns.upstreams[0]`: value `127.0.0.1:53`: dns-signal itself listens there, so \
             queries would go round; name a resolver that does not forward to this one",
        ),
        (
            "[\"203.0.113.53\"]",
            "[]",
            "dns-signal.toml:8: field `dns.upstreams`: value `[]`: no address; name at least one address, such as \
             127.0.0.1:53",
        ),
        (
            "\"5s\"",
            "\"5 bananas\"",
            "dns-signal.toml:10: field `dns.ttl`: value `5 bananas`: not a duration; use a number with a unit, such as \
             5s, 2m or 1h",
        ),
        (
            "\"5s\"",
            "\"2h\"",
            "dns-signal.toml:10: field `dns.ttl`: value `2h`: out of range; use 0s to 1h",
        ),
        (
            "\"60s\"",
            "\"0s\"",
            "dns-signal.toml:18: field `link.idle-timeout`: value `0s`: out of range; use 1s to 1day",
        ),
        (
            "mesh.internal",
            "mesh..internal",
            "dns-signal.toml:9: field `dns.suffix`: value `mesh..internal`: a suffix consists of labels of a-z, 0-9 and \
             `-`, separated by dots; use a domain such as mesh.internal",
        ),
        (
            "https://203.0.113.10:7400",
            "203.0.113.10:7400",
            "dns-signal.toml:3: field `discovery`: value `203.0.113.10:7400`: not the address of a discovery server; \
             use https://HOST:PORT, as `turnpike init` was told",
        ),
        (
            "upstreams",
            "upstream",
            "dns-signal.toml:8: field `dns.upstream`: unknown key; did you mean `upstreams`?",
        ),
        (
            "network = \"west\"",
            "network = \"West!\"",
            "dns-signal.toml:2: field `network`: value `West!`: `West!` is not a network name: use 1 to 63 of a-z, 0-9 and \
             `-`, not beginning or ending with `-`; correct the value",
        ),
    ];
    for (good, bad, expected) in cases {
        let error = load(&GOOD.replacen(good, bad, 1)).unwrap_err();
        assert_eq!(error, expected);
    }
}
