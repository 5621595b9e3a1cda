#![allow(clippy::unwrap_used)]

use super::*;
use service_kit::parse_config;

const SAMPLE: &str = r#"
network = "east"
discovery = "https://203.0.113.10:7400"
state-directory = "/var/lib/turnpike"
join-token-file = "/etc/turnpike/token"

[[export]]
name = "orders"
addresses = ["10.0.0.20", "fd00:10::20"]
tcp = [8080]
udp = [9000]
"#;

fn load(text: &str) -> Result<Checked, ConfigError> {
    let file = Path::new("activator.toml");
    parse_config::<Config>(file, text)?.check(file)
}

fn refused(text: &str) -> String {
    load(text).unwrap_err().to_string()
}

#[test]
fn a_minimal_file_is_enough() {
    let checked = load(SAMPLE).unwrap();
    assert_eq!(checked.exports.iter().count(), 1);
    assert_eq!(checked.limits, LinkLimits::default());
    assert_eq!(checked.pool.prefixes().0.to_string(), "100.89.0.0/16");
}

#[test]
fn errors_name_field_value_and_remedy() {
    let with = |from: &str, to: &str| refused(&SAMPLE.replace(from, to));
    for (error, parts) in [
        (
            with("network = \"east\"", "network = \"EAST\""),
            ["network", "EAST"],
        ),
        (
            with("https://203.0.113.10:7400", "203.0.113.10"),
            ["discovery", "https://HOST:PORT"],
        ),
        (with("tcp =", "tpc ="), ["tpc", "tcp"]),
        (
            with("[[export]]", "flow-seconds = 0\n[[export]]"),
            ["flow-seconds", "1 to 86400"],
        ),
        (
            with("\"10.0.0.20\", ", "\"10.0.0.300\", "),
            ["addresses", "10.0.0.300"],
        ),
        (
            with("\"10.0.0.20\", ", "\"127.0.0.1\", "),
            ["127.0.0.1", "unicast"],
        ),
        (
            with("\"10.0.0.20\", ", "\"100.89.3.4\", "),
            ["export[0].addresses", "client pool"],
        ),
        (
            with("tcp = [8080]\nudp = [9000]", ""),
            ["export[0]", "port"],
        ),
        (with("8080", "0"), ["orders", "1 to 65535"]),
        (
            refused(&format!("{SAMPLE}[tunnel]\nmtu = 576\n")),
            ["tunnel.mtu", "1280"],
        ),
        (
            refused(&format!("{SAMPLE}[tunnel]\ninterface = \"a b\"\n")),
            ["tunnel.interface", "a b"],
        ),
        (
            refused(&format!(
                "{SAMPLE}[tunnel]\nclient-pool-ipv4 = \"10.9.0.0/33\"\n"
            )),
            ["client-pool-ipv4", "10.9.0.0/33"],
        ),
        (
            refused(&format!(
                "{SAMPLE}[tunnel]\nclient-pool-ipv4 = \"10.9.0.0/30\"\n"
            )),
            ["client-pool-ipv4", "29 bits"],
        ),
        (
            refused(&format!("{SAMPLE}[limits]\nlinks = 0\n")),
            ["limits.links", "65536"],
        ),
    ] {
        assert!(error.starts_with("activator.toml:"), "{error}");
        assert!(!error.contains('\n'), "{error}");
        for part in parts {
            assert!(error.contains(part), "`{part}` is missing: {error}");
        }
    }
}

#[test]
fn a_name_exported_twice_is_refused() {
    let twice =
        format!("{SAMPLE}[[export]]\nname = \"orders\"\naddresses = [\"10.0.0.9\"]\ntcp = [1]\n");
    let error = refused(&twice);
    assert!(
        error.contains("export[1].name") && error.contains("twice"),
        "{error}"
    );
}

#[test]
fn the_carrier_can_be_chosen() {
    let with = |carrier: &str| format!("{SAMPLE}\n[tunnel]\ncarrier = \"{carrier}\"\n");
    assert_eq!(load(SAMPLE).unwrap().carrier, Carrier::Auto);
    for carrier in [Carrier::Auto, Carrier::Datagram, Carrier::DataChannel] {
        let checked = load(&with(&carrier.to_string())).unwrap();
        assert_eq!(checked.carrier, carrier);
    }
    let error = refused(&with("pigeon"));
    for part in ["tunnel.carrier", "pigeon", "data-channel"] {
        assert!(error.contains(part), "{error}");
    }
}

const WILDCARD: &str = r#"
network = "isle"
discovery = "https://203.0.113.10:7400"
state-directory = "/var/lib/turnpike"

[dns]
servers = ["10.96.0.10", "[fd00::53]:5353"]

[[export]]
name = "*.prod"
resolve = "*.prod.svc.cluster.local"
within = ["10.96.0.0/12"]
tcp = [80]
"#;

#[test]
fn a_wildcard_has_what_dns_is_asked_for_and_where_it_may_lead() {
    let checked = load(WILDCARD).unwrap();
    let servers: Vec<String> = checked
        .dns_servers
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(servers, ["10.96.0.10:53", "[fd00::53]:5353"]);
    let exported: Vec<_> = checked.exports.iter().collect();
    let [Exported::Wildcard(wildcard)] = exported[..] else {
        panic!("{exported:?}")
    };
    let domain = wildcard.domain_of(&"api.prod".parse().unwrap());
    assert_eq!(domain.as_deref(), Some("api.prod.svc.cluster.local"));
    let all = WILDCARD.replace("\"*.prod\"", "\"*\"");
    assert_eq!(load(&all).unwrap().exports.announced()[0].name, "*");
}

#[test]
fn errors_of_wildcards_name_field_value_and_remedy() {
    let with = |from: &str, to: &str| refused(&WILDCARD.replace(from, to));
    let no_resolve = with("resolve = \"*.prod.svc.cluster.local\"\n", "");
    for (error, parts) in [
        (
            &no_resolve,
            [
                "export[0].resolve",
                "leads nowhere",
                "*.prod.svc.cluster.local",
            ],
        ),
        (
            &with("\"*.prod.svc.cluster.local\"", "\"prod.svc\""),
            ["export[0].resolve", "prod.svc", "not `*.` and a domain"],
        ),
        (
            &with("within = [\"10.96.0.0/12\"]\n", ""),
            ["export[0].within", "*.prod", "give `within`"],
        ),
        (
            &with("10.96.0.0/12", "169.254.0.0/16"),
            ["export[0].within", "169.254.0.0/16", "unicast"],
        ),
        (
            &with("tcp = [80]", "tcp = [80]\naddresses = [\"10.0.0.1\"]"),
            ["export[0].addresses", "DNS says", "without `*`"],
        ),
        (
            &with("\"*.prod\"", "\"prod\""),
            ["export[0].resolve", "only with a wildcard", "addresses"],
        ),
        (
            &with("\"*.prod\"", "\"a.*\""),
            ["a.*", "not a service name", "dots"],
        ),
        (
            &with("\"10.96.0.10\"", "\"ten\""),
            ["dns.servers[0]", "ten", "10.96.0.10"],
        ),
    ] {
        for part in parts {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
