//! A wildcard export: what its names are, the exporting network's own DNS says.
use std::fs;

use lab::process::FileKind;
use lab::{Lab, Network, wait};
use scenarios::{Beside, RECOVERY, page_within};
use serde_json::Value;

const ZONE: &str = "prod.svc.cluster.local";
/// east's own resolver stands where its service does.
const RESOLVER: &str = "10.0.0.20";
const PORT: &str = "8081";
/// A page that says who serves it.
const SERVER: &str = r"
import http.server, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(sys.argv[2].encode())
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(('0.0.0.0', int(sys.argv[1])), Page).serve_forever()
";
/// Connects, and says how that ended.
const CONNECT: &str = r"
import errno, socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 10).close()
    print('open')
except OSError as e:
    print(errno.errorcode.get(e.errno, e))
";
/// So many names that nobody has, as fast as one asks.
const RANDOM_NAMES: &str = r"
import socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
failed = 0
for n in range(int(sys.argv[1])):
    labels = ['r%d' % n, 'prod', 'east', 'mesh', 'internal']
    name = b''.join(bytes([len(l)]) + l.encode() for l in labels) + b'\0'
    s.sendto(struct.pack('>6H', n, 0x100, 1, 0, 0, 0) + name + b'\0\1\0\1', ('127.0.0.1', 53))
    failed += s.recv(512)[3] & 15 == 2
print(failed)
";

const RECORDS: [(&str, &str); 6] = [
    ("one", "10.0.0.20"),
    ("two", "10.0.0.10"),
    ("a.b", "10.0.0.10"),
    ("metadata", "169.254.169.254"),
    ("outside", "203.0.113.53"),
    // The activator itself.
    ("gateway", "10.0.0.3"),
];

/// east's own resolver, with these names.
fn resolver(lab: &Lab, records: &[(&str, &str)]) -> Beside {
    let mut command: Vec<String> = [
        "dnsmasq",
        "--keep-in-foreground --conf-file=/dev/null --pid-file= --user=root --log-facility=-",
        "--no-resolv --no-hosts --no-poll --local=/#/ --local-ttl=5 --bind-interfaces",
    ]
    .iter()
    .flat_map(|line| line.split(' ').map(str::to_owned))
    .collect();
    command.push(format!("--listen-address={RESOLVER}"));
    for (name, address) in records {
        command.push(format!("--host-record={name}.{ZONE},{address}"));
    }
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    Beside::start(lab, "east/orders", &command).expect("a resolver")
}

/// Two hosts with a page each, as long as this lives.
fn pages(lab: &Lab) -> [Beside; 2] {
    let page = |host, says| Beside::start(lab, host, &["python3", "-c", SERVER, PORT, says]);
    [("east/orders", "one"), ("east/app", "two")]
        .map(|(host, says)| page(host, says).expect("a page"))
}

fn export(lab: &Lab) {
    lab.stop("east/activator").expect("it stops");
    let flows = flow_file(lab);
    lab.edit_config("east/activator", |text| {
        format!(
            r#"flow-file = "{}"
{text}
[[export]]
name = "*.prod"
resolve = "*.{ZONE}"
within = ["10.0.0.0/24"]
tcp = [{PORT}]

[dns]
servers = ["{RESOLVER}"]
"#,
            flows.display()
        )
    })
    .expect("edited");
    lab.start("east/activator").expect("it starts");
}

fn flow_file(lab: &Lab) -> std::path::PathBuf {
    let state = lab.files().of_process("east/activator", FileKind::State);
    state.join("flows.jsonl")
}

fn full(name: &str) -> String {
    format!("{name}.prod.east.mesh.internal")
}

fn dig(lab: &Lab, name: &str, what: &[&str]) -> String {
    let name = full(name);
    let dig = ["dig", "+tries=2", "+time=3", &name, "A"];
    let printed = lab.output("west/app", &[&dig[..], what].concat());
    printed.expect("dig").trim().to_owned()
}

fn connect(lab: &Lab, address: &str) -> String {
    let printed = lab.output("west/app", &["python3", "-c", CONNECT, address, PORT]);
    printed.expect("python").trim().to_owned()
}

/// The first line of `turnpike explain`, until it has these parts.
fn explained(lab: &Lab, name: &str, parts: &[&str]) {
    let turnpike = lab.binaries().join("turnpike").display().to_string();
    let config = lab.files().of_process("west/dns-signal", FileKind::Config);
    let config = config.display().to_string();
    wait::until_true("the cause to be named", RECOVERY, || {
        let name = format!("{name}.prod.east");
        let command = [turnpike.as_str(), "explain", &name, "--config", &config];
        let output = lab.exec("west/app", &command)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let first = text.lines().next().unwrap_or_default();
        anyhow::ensure!(parts.iter().all(|part| first.contains(part)), "{text}");
        Ok(true)
    })
    .expect("it is explained");
}

/// A name that leads nowhere: an address at first, whose packets are refused, then NXDOMAIN.
fn leads_nowhere(lab: &Lab, name: &str, reason: &str) {
    let address = dig(lab, name, &["+short"]);
    assert!(address.starts_with("198.1"), "answered at once: {address}");
    assert_eq!(connect(lab, &address), "ECONNREFUSED", "{name}");
    wait::until_true("NXDOMAIN", RECOVERY, || {
        Ok(dig(lab, name, &[]).contains("status: NXDOMAIN"))
    })
    .expect("the name is not there");
    explained(lab, name, &["nothing under the name", reason]);
}

#[test]
fn names_below_a_wildcard_are_what_the_exporting_networks_dns_says() {
    let lab = scenarios::lab("wild1");
    let _east = (resolver(&lab, &RECORDS), pages(&lab));
    export(&lab);
    lab.wait_for_name(Network::West, &full("one"), RECOVERY)
        .expect("the directory knows the wildcard");
    for (name, says) in [("one", "one"), ("two", "two"), ("a.b", "two")] {
        let url = format!("http://{}:{PORT}", full(name));
        let page = page_within(&lab, "west/app", &url, RECOVERY).expect("a page");
        assert_eq!(page, says, "{name}");
    }
    leads_nowhere(&lab, "nobody", "has no address for it");
    leads_nowhere(&lab, "metadata", "`within`");
    leads_nowhere(&lab, "outside", "`within`");
    leads_nowhere(&lab, "gateway", "`within`");
    let log = lab.files().of_process("east/activator", FileKind::Log);
    let log = fs::read_to_string(log).expect("a log");
    for address in ["169.254.169.254", "203.0.113.53", "10.0.0.3"] {
        let told = |line: &&str| line.contains("not `within`") && line.contains(address);
        assert!(log.lines().any(|line| told(&line)), "{address}: {log}");
    }
    explained(&lab, "one", &["one.prod.east works", PORT]);
    let status = lab.admin("east/activator", "/status").expect("a status");
    let status: Value = serde_json::from_str(&status).expect("JSON");
    let names = status["names"].as_array().expect("names");
    let known = |name: &str| names.iter().find(|known| known["name"] == name);
    let one = known("one.prod").expect("it is in use");
    assert_eq!(one["addresses"][0], "10.0.0.20", "{status}");
    let outside = known("outside.prod").expect("it was asked for");
    let problem = outside["problem"].as_str().expect("a problem");
    assert!(problem.contains("`within`"), "{status}");

    // The same address after a restart; the use is told by the name's own name.
    let addresses = |lab: &Lab| ["one", "two"].map(|name| dig(lab, name, &["+short"]));
    let before = addresses(&lab);
    assert_ne!(before[0], before[1]);
    lab.kill9("west/dns-signal").expect("it runs");
    lab.start("west/dns-signal").expect("it starts");
    lab.wait_for_name(Network::West, &full("one"), RECOVERY)
        .expect("it knows the name");
    assert_eq!(addresses(&lab), before);
    assert_eq!(connect(&lab, &before[1]), "open");
    lab.stop("west/dns-signal").expect("it stops");
    let used = |service: &'static str| {
        wait::until(
            &format!("the use of {service} to be told"),
            RECOVERY,
            || {
                let text = fs::read_to_string(flow_file(&lab))?;
                let records = text
                    .lines()
                    .filter_map(|line| serde_json::from_str(line).ok());
                Ok(records.into_iter().find(|record: &Value| {
                    record["service"] == service && record["verdict"] == "accepted"
                }))
            },
        )
        .expect("a record");
    };
    used("one.prod");
    used("two.prod");
}

#[test]
fn whoever_asks_for_names_at_random_keeps_nobody_from_names_that_are_there() {
    let lab = scenarios::lab("wild2");
    let _east = (resolver(&lab, &RECORDS), pages(&lab));
    export(&lab);
    lab.wait_for_name(Network::West, &full("one"), RECOVERY)
        .expect("the directory knows the wildcard");
    let url = format!("http://{}:{PORT}", full("one"));
    page_within(&lab, "west/app", &url, RECOVERY).expect("a page before");
    let failed = lab.output("west/app", &["python3", "-c", RANDOM_NAMES, "3000"]);
    let failed: u64 = failed.expect("it asks").trim().parse().expect("a number");
    assert!(failed > 0, "some found no room");
    let metric = |process, name| lab.metric(process, name).expect("a metric");
    assert!(metric("west/dns-signal", "dns_signal_virtual_ips_lent") <= 512.0);
    assert!(metric("east/activator", "activator_names") <= 4096.0);
    let page = page_within(&lab, "west/app", &url, RECOVERY).expect("a page");
    assert_eq!(page, "one");
    // A new name finds room as soon as some of these were found not to be there.
    let url = format!("http://{}:{PORT}", full("two"));
    let page = page_within(&lab, "west/app", &url, 4 * RECOVERY).expect("another page");
    assert_eq!(page, "two");
}

#[test]
fn a_name_that_moves_or_comes_to_be_is_followed_over_the_link_there_is() {
    let lab = scenarios::lab("wild3");
    let _pages = pages(&lab);
    let mut before = resolver(&lab, &RECORDS);
    export(&lab);
    lab.wait_for_name(Network::West, &full("one"), RECOVERY)
        .expect("the directory knows the wildcard");
    let url = |name| format!("http://{}:{PORT}", full(name));
    let page = page_within(&lab, "west/app", &url("one"), RECOVERY).expect("a page");
    assert_eq!(page, "one");
    let late = dig(&lab, "late", &["+short"]);
    assert_eq!(connect(&lab, &late), "ECONNREFUSED", "not yet");
    let links = || lab.metric("west/dns-signal", "dns_signal_links_opened_total");
    let opened = links().expect("a metric");

    before.end();
    let _after = resolver(&lab, &[("one", "10.0.0.10"), ("late", "10.0.0.20")]);
    for (name, says) in [("one", "two"), ("late", "one")] {
        wait::until_true("the name to be followed", 3 * RECOVERY, || {
            Ok(page_within(&lab, "west/app", &url(name), RECOVERY)? == says)
        })
        .expect(name);
    }
    assert_eq!(links().expect("a metric"), opened, "over the same link");
}
