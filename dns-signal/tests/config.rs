//! What an operator reads when `dns-signal.toml` is wrong.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use dns_signal::config::Config;
use dns_signal::interception::Wish;

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
    assert_eq!(config.dns.upstreams, [address("203.0.113.53:53").into()]);
    assert_eq!(config.link.idle_timeout, Duration::from_secs(60));
    assert_eq!(config.link.carrier.to_string(), "auto");
    assert_eq!(config.tunnel.pools.device().ipv4.to_string(), "198.18.0.1");
}

#[test]
fn what_has_a_default_need_not_be_written() {
    let config = load(
        "network = \"west\"\ndiscovery = \"https://d:1\"\n[dns]\nupstreams = [\"192.0.2.1\"]\n",
    )
    .unwrap();
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
             use ADDRESS:PORT, such as 192.0.2.53:53 or [2001:db8::53]:53, or a URL such as tls://9.9.9.9#dns.quad9.net",
        ),
        (
            "203.0.113.53",
            "https://dns.example/dns-query",
            "dns-signal.toml:8: field `dns.upstreams[0]`: value `https://dns.example/dns-query`: the address of `dns.example` \
             is not known, and there is nobody yet to ask for it; write it behind a #, such as \
             https://dns.quad9.net/dns-query#9.9.9.9",
        ),
        (
            "203.0.113.53",
            "127.0.0.1",
            "dns-signal.toml:8: field `dns.upstreams[0]`: value `127.0.0.1`: dns-signal itself listens there, so \
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
            "[link]",
            "[link]\ncarrier = \"pigeon\"",
            "dns-signal.toml:18: field `link.carrier`: value `pigeon`: not a carrier; use \"auto\", \"datagram\" or \
             \"data-channel\"",
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

/// Exit code and standard error of the real program.
fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_dns-signal"))
        .args(arguments)
        .env_clear()
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn the_program_says_one_line_and_exits_with_64() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dns-signal.toml");
    let path = path.to_str().unwrap();
    std::fs::write(path, GOOD.replace("ttl", "tlt")).unwrap();
    let cases = [
        (
            vec!["--config", path],
            "field `dns.tlt`: unknown key; did you mean `ttl`?",
        ),
        (
            vec!["--config", "/nonexistent/x.toml"],
            "/nonexistent/x.toml: the file does not exist; ",
        ),
        (
            vec![],
            "--config: no configuration file given; add --config FILE",
        ),
        (
            vec!["--config", path, "--log", "a=b=c"],
            "field `--log`: value `a=b=c`: ",
        ),
        (
            vec!["--confg", path],
            "unexpected argument '--confg' found; ",
        ),
    ];
    for (arguments, expected) in cases {
        let (code, errors) = run(&arguments);
        let last = errors.lines().last().unwrap();
        assert!(
            last.starts_with("error: ") && last.contains(expected),
            "{errors}"
        );
        assert_eq!(code, Some(64), "{errors}");
    }
}

#[test]
fn a_port_in_use_is_one_line_and_exit_code_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dns-signal.toml");
    let state = directory.path().join("state");
    let text = GOOD
        .replace("\"127.0.0.1:53\", \"::1\"", &format!("\"{taken}\""))
        .replace("/tmp/state", state.to_str().unwrap());
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let (code, errors) = run(&["--config", path]);
    let expected = format!(
        "error: {path}:7: field `dns.listen[0]`: value `{taken}`: the port is in use; stop the process that has it, or \
         choose another"
    );
    assert_eq!(errors.lines().last(), Some(&*expected));
    assert_eq!(code, Some(1));
}

#[test]
fn aliases_and_ways_of_interception_are_checked() {
    let with = |more: &str| load(&GOOD.replace("[tunnel]", &format!("{more}\n[tunnel]")));
    let good = r#"
interception = "redirect"
[[dns.alias]]
name = "*.prod.svc.clusterset.local"
[[dns.alias]]
name = "api.example.com"
service = "orders"
networks = ["east", "west"]
choose = "round-robin"
"#;
    let config = with(good).unwrap();
    assert!(!config.dns.aliases.is_empty());
    assert_eq!(config.dns.interception, Wish::Redirect);
    for (text, wish) in [
        ("auto", Wish::Auto),
        ("resolved", Wish::Resolved),
        ("dnsmasq", Wish::Dnsmasq),
        ("resolv-conf", Wish::ResolvConf),
        ("none", Wish::None),
    ] {
        let config = with(&format!("interception = \"{text}\"")).unwrap();
        assert_eq!(config.dns.interception, wish);
    }
    for (bad, expected) in [
        (
            "interception = \"magic\"",
            "field `dns.interception`: value `magic`: not a way of interception",
        ),
        (
            "dnsmasq-file = \"dnsmasq.d/turnpike.conf\"",
            "field `dns.dnsmasq-file`: value `dnsmasq.d/turnpike.conf`: not an absolute path",
        ),
        (
            "dnsmasq-reload = []",
            "field `dns.dnsmasq-reload`: value `[]`: not a program with its arguments",
        ),
        (
            "[[dns.alias]]\nname = \"api.example.com\"",
            "field `dns.alias[0].name`: value `api.example.com`: without `*` the service must be named",
        ),
        (
            "[[dns.alias]]\nname = \"*\"",
            "field `dns.alias[0].name`: value `*`: it would take the names of everybody",
        ),
        (
            "[[dns.alias]]\nname = \"*.a.b\"\nchoose = \"any\"",
            "field `dns.alias[0].choose`: value `any`: not a way to choose among networks",
        ),
    ] {
        let error = with(bad).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}
