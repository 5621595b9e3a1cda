//! Names outside of the mesh are asked of real resolvers over TLS and HTTPS, and of nobody in clear text.
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use lab::{Lab, wait};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use scenarios::{Beside, RECOVERY, lab};
use serde_json::Value;

const SIDECAR: &str = "west/dns-signal";
const WORKLOAD: &str = "west/app";
/// TLS and HTTPS.
const FIRST: &str = "    interface: 203.0.113.54@853
    interface: 203.0.113.54@443
    tls-port: 853
    https-port: 443";
const SECOND: &str = "    interface: 203.0.113.54@8853\n    tls-port: 8853";
const OVER_TLS: &str = "tls://203.0.113.54#dns.example";
const OVER_HTTPS: &str = "https://dns.example/dns-query#203.0.113.54";
/// Counts what leaves the workload's host for port 53, its loopback excepted.
const WATCH: &str = "table inet watch { chain out { type filter hook postrouting priority 0; \
     oifname \"lo\" return; meta l4proto { tcp, udp } th dport 53 counter; }; }";
/// TLS of the first on the port, too, that interception turns: its own belongs to the lab's DNS server.
const ON_PORT_53: &str = "table ip also { chain in { type nat hook prerouting priority -100; \
     ip daddr 203.0.113.54 tcp dport 53 dnat to 203.0.113.54:853; }; }";
/// A client waits no longer by default (resolv.conf(5)).
const PATIENCE: Duration = Duration::from_secs(5);

/// An authority, and a certificate of it for `dns.example`, among the lab's files.
fn certify(lab: &Lab) -> PathBuf {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = || KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(params, key()).expect("an authority");
    let own = key();
    let params = CertificateParams::new(vec!["dns.example".to_owned()]).expect("parameters");
    let certificate = params.signed_by(&own, &authority).expect("a certificate");
    let root = lab.files().root();
    let write = |name: &str, text: String| fs::write(root.join(name), text).expect("written");
    write("upstream.key", own.serialize_pem());
    write("upstream.pem", certificate.pem());
    write("authority.pem", authority.pem());
    root.join("authority.pem")
}

fn unbound(lab: &Lab, name: &str, listen: &str, port: u16) -> Beside {
    let root = lab.files().root();
    let config = include_str!("../dns/encrypted.conf")
        .replace("@DIRECTORY@", &root.display().to_string())
        .replace("@LISTEN@", listen);
    let file = root.join(name);
    fs::write(&file, config).expect("written");
    let file = file.display().to_string();
    let started = Beside::start(lab, "upstream", &["unbound", "-d", "-c", &file]);
    let namespace = lab.namespace("upstream");
    wait::until_true("unbound to listen", RECOVERY, || {
        let server = format!("203.0.113.54:{port}").parse()?;
        lab::probe::tcp_accepts(&namespace, server)
    })
    .expect("it listens");
    started.expect("unbound starts")
}

/// dns-signal with these upstreams, newly started.
fn start_with(lab: &Lab, upstreams: &[&str], more: &str) {
    lab.stop(SIDECAR).expect("it stops");
    let trust = lab.files().root().join("authority.pem");
    lab.edit_config(SIDECAR, |text| {
        let others = text.lines().filter(|line| {
            !["upstream", "interception"]
                .iter()
                .any(|it| line.starts_with(it))
        });
        let others = others.map(|line| format!("{line}\n")).collect::<String>();
        let own =
            format!("[dns]\nupstreams = {upstreams:?}\nupstream-trust-file = {trust:?}\n{more}\n");
        others.replace("[dns]\n", &own)
    })
    .expect("its configuration");
    lab.start(SIDECAR).expect("it starts");
}

fn dig(lab: &Lab, args: &[&str]) -> String {
    let fixed = ["dig", "+tries=1", "+time=5"];
    let output = lab.exec(WORKLOAD, &[&fixed[..], args].concat());
    String::from_utf8_lossy(&output.expect("dig").stdout).into_owned()
}

fn upstreams(lab: &Lab) -> Vec<Value> {
    let status = lab.node_status(SIDECAR).expect("/status");
    status["upstreams"].as_array().expect("a list").clone()
}

fn metric(lab: &Lab, name: &str) -> f64 {
    let name = format!("dns_signal_{name}");
    lab.metric(SIDECAR, &name).expect("metrics")
}

fn trouble(lab: &Lab, trouble: &str) -> f64 {
    let all = lab.metric_by_labels(SIDECAR, "dns_signal_dns_troubles_total");
    all.expect("metrics")[&format!("trouble=\"{trouble}\"")]
}

fn watch(lab: &Lab) {
    lab.output(WORKLOAD, &["nft", WATCH]).expect("nft");
    // It sees what it should.
    dig(lab, &["@203.0.113.53", "www.example.com"]);
    assert_eq!(in_clear_text(lab), 1);
}

/// Packets for port 53 so far.
fn in_clear_text(lab: &Lab) -> u64 {
    let listed = lab.output(WORKLOAD, &["nft", "list", "table", "inet", "watch"]);
    let listed = listed.expect("nft");
    let after = listed.split("packets ").nth(1).expect("a counter");
    let number = after.split(' ').next().expect("a number");
    number.parse().expect("a number")
}

/// From now on nothing of the sidecar's connection gets through west's router, as when a NAT forgot it.
fn lose_connection(lab: &Lab) {
    let listed = lab.output(WORKLOAD, &["ss", "-Htn", "dst", "203.0.113.54:853"]);
    let listed = listed.expect("ss");
    let local = listed.split_whitespace().nth(3).expect("a connection");
    let port = local.rsplit(':').next().expect("its port");
    let hole = format!(
        "table ip hole {{ chain through {{ type filter hook forward priority 0; tcp sport {port} drop; }}; }}"
    );
    lab.output("west/router", &["nft", &hole]).expect("nft");
}

#[test]
fn names_are_asked_over_tls_and_https_and_of_the_next_upstream_when_the_first_is_killed() {
    let lab = lab("upstreams1");
    certify(&lab);
    let mut first = unbound(&lab, "first.conf", FIRST, 853);
    watch(&lab);
    for upstream in [OVER_TLS, OVER_HTTPS] {
        start_with(&lab, &[upstream], "");
        for transport in ["+notcp", "+tcp"] {
            assert_eq!(
                dig(&lab, &[transport, "+short", "www.example.com"]),
                "203.0.113.53\n"
            );
        }
        let absent = dig(&lab, &["absent.example.com"]);
        assert!(absent.contains("status: NXDOMAIN"), "{absent}");
        // More than a datagram takes: truncated, and whole over TCP.
        let long = dig(&lab, &["+ignore", "long.example.com", "TXT"]);
        assert!(
            long.contains(" tc ") && long.contains("ANSWER: 0"),
            "{long}"
        );
        let long = dig(&lab, &["+short", "long.example.com", "TXT"]);
        assert_eq!(long.lines().count(), 10, "{long}");
        // All on one connection.
        assert_eq!(metric(&lab, "dns_upstream_connections_total"), 1.0);
        let status = &upstreams(&lab)[0];
        assert_eq!(status["upstream"], upstream);
        assert_eq!(
            (&status["connected"], &status["problem"]),
            (&Value::Bool(true), &Value::Null)
        );
    }

    start_with(&lab, &[OVER_TLS], "");
    assert_eq!(
        dig(&lab, &["+short", "before.any.example.com"]),
        "203.0.113.57\n"
    );
    lose_connection(&lab);
    // Nobody says so: the kernel notices, and the query is asked again.
    assert_eq!(
        dig(&lab, &["+short", "after.any.example.com"]),
        "203.0.113.57\n"
    );
    assert_eq!(metric(&lab, "dns_upstream_connections_total"), 2.0);

    let _second = unbound(&lab, "second.conf", SECOND, 8853);
    start_with(&lab, &[OVER_TLS, "tls://203.0.113.54:8853#dns.example"], "");
    let short = |name: &str| {
        let name = format!("{name}.any.example.com");
        let begin = std::time::Instant::now();
        assert_eq!(dig(&lab, &["+short", &name]), "203.0.113.57\n", "{name}");
        assert!(begin.elapsed() < PATIENCE);
    };
    short("both");
    first.end();
    for name in ["one", "is", "gone"] {
        short(name);
    }
    let problem = |index: usize| upstreams(&lab)[index]["problem"].clone();
    let told = problem(0);
    assert!(
        told.as_str().is_some_and(|told| told.contains("refused")),
        "{told}"
    );
    assert_eq!(problem(1), Value::Null);
    assert_eq!(in_clear_text(&lab), 1);
    drop(first);

    // Where port 53 is turned here whomever it is for, dns-signal's own connections pass, also those to port 53.
    let _first = unbound(&lab, "first.conf", FIRST, 853);
    lab.output("upstream", &["nft", ON_PORT_53]).expect("nft");
    let on_port_53 = "tls://203.0.113.54:53#dns.example";
    start_with(&lab, &[on_port_53], "interception = \"redirect\"");
    let asked = ["+short", "@192.0.2.1", "own.any.example.com"];
    assert_eq!(dig(&lab, &asked), "203.0.113.57\n");
    assert_eq!(trouble(&lab, "upstream_unreachable"), 0.0);
}

#[test]
fn a_certificate_that_is_not_the_upstreams_is_refused_and_told_and_nothing_goes_in_clear_text() {
    let lab = lab("upstreams2");
    certify(&lab);
    let _unbound = unbound(&lab, "first.conf", FIRST, 853);
    watch(&lab);
    for (upstream, wrong) in [
        (OVER_TLS, "tls://203.0.113.54#other.example"),
        (OVER_HTTPS, "https://203.0.113.54/dns-query"),
    ] {
        start_with(&lab, &[wrong], "");
        let failed = dig(&lab, &["www.example.com"]);
        assert!(failed.contains("status: SERVFAIL"), "{failed}");
        let status = &upstreams(&lab)[0];
        let problem = status["problem"].as_str().expect("a problem");
        assert!(
            problem.contains("certificate not valid for name"),
            "{problem}"
        );
        assert!(trouble(&lab, "upstream_untrusted") > 0.0);
        let log = fs::read_to_string(lab.files().of_process(SIDECAR, lab::process::FileKind::Log));
        let log = log.expect("its log");
        assert!(
            log.contains("an encrypted upstream cannot be used"),
            "{log}"
        );
        let turnpike = lab.binaries().join("turnpike").display().to_string();
        let admin = ["doctor", "--admin", "127.0.0.1:9103"];
        let doctor = lab.exec(WORKLOAD, &[&[&*turnpike], &admin[..]].concat());
        let doctor = String::from_utf8_lossy(&doctor.expect("it runs").stdout).into_owned();
        let fault = format!("FAULT upstream: {wrong} cannot be used: ");
        assert!(doctor.contains(&fault), "{doctor}");
        // Another that is right does it.
        start_with(&lab, &[wrong, upstream], "");
        assert_eq!(dig(&lab, &["+short", "www.example.com"]), "203.0.113.53\n");
    }
    assert_eq!(in_clear_text(&lab), 1);
}
