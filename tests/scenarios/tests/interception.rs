//! How a workload's queries come to dns-signal, and that a host resolves names without it, however it ended.
mod resolved;

use std::fs;
use std::time::Duration;

use lab::{Lab, Network, wait};
use nix::sys::signal::Signal;
use resolved::Resolved;
use scenarios::{Beside, RECOVERY, lab, page};

const SIDECAR: &str = "west/dns-signal";
const ORDERS: &str = "orders.east.mesh.internal";
/// What the host's resolv.conf says before dns-signal comes.
const BEFORE: &str =
    "# the host's own\nnameserver 203.0.113.53\nsearch example.com\noptions timeout:1 attempts:1\n";
/// A host without its resolver must not be without names for longer.
const SOON: Duration = Duration::from_secs(5);

fn resolv_conf(lab: &Lab) -> String {
    format!("/etc/netns/{}/resolv.conf", lab.namespace("west/app"))
}

/// dns-signal on a host that has used another resolver so far, with this wish in its configuration.
fn start_with(lab: &Lab, interception: &str) {
    lab.stop(SIDECAR).expect("it stops");
    // In place: the file is mounted where the workload looks for it.
    fs::write(resolv_conf(lab), BEFORE).expect("resolv.conf can be written");
    lab.edit_config(SIDECAR, |text| {
        text.replace(
            "[dns]",
            &format!("[dns]\ninterception = \"{interception}\""),
        )
    })
    .expect("its configuration");
    lab.start(SIDECAR).expect("it starts again");
    lab.wait_for_name(Network::West, ORDERS, RECOVERY)
        .expect("it knows the name");
}

fn getent(lab: &Lab, name: &str) -> String {
    let output = lab.exec("west/app", &["getent", "ahostsv4", name]);
    String::from_utf8_lossy(&output.expect("getent").stdout).into_owned()
}

fn dig(lab: &Lab, args: &[&str]) -> String {
    let fixed = ["dig", "+short", "+tries=1", "+time=2"];
    let output = lab.exec("west/app", &[&fixed[..], args].concat());
    String::from_utf8_lossy(&output.expect("dig").stdout).into_owned()
}

/// The mesh's names are resolved, by whomever they are asked, and all others too.
fn names_work(lab: &Lab) {
    assert!(getent(lab, ORDERS).starts_with("198.18.186.11"));
    assert!(getent(lab, "www.example.com").starts_with("203.0.113.53"));
    // The search domain of before.
    assert!(getent(lab, "www").starts_with("203.0.113.53"));
    let orders = page(lab, "west/app", scenarios::ORDERS, &[]).expect("a page");
    assert!(orders.starts_with("east/orders greets "), "{orders}");
}

/// As if dns-signal had never been there.
fn public_names_work(lab: &Lab) {
    wait::until_true("public names to resolve", SOON, || {
        Ok(getent(lab, "www.example.com").starts_with("203.0.113.53"))
    })
    .expect("they do");
    // A resolver between may remember them for as long as they may be, 5 s.
    wait::until_true("names of the mesh to be gone", 2 * SOON, || {
        Ok(getent(lab, ORDERS).is_empty())
    })
    .expect("they go");
}

fn interception(lab: &Lab) -> String {
    let asked = ["curl", "-sS", "http://127.0.0.1:9103/status"];
    let status = lab.output("west/app", &asked).expect("/status");
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    status["interception"].as_str().expect("a text").to_owned()
}

/// The tables of nftables that are dns-signal's.
fn tables(lab: &Lab) -> usize {
    let listed = lab.output("west/app", &["nft", "list", "tables"]);
    listed.expect("nft").matches("turnpike_dns").count()
}

/// How many questions dns-signal has asked of others.
fn forwarded(lab: &Lab) -> u64 {
    let ask = ["curl", "-sS", "http://127.0.0.1:9103/metrics"];
    let metrics = lab.output("west/app", &ask).expect("metrics");
    let asked = "dns_signal_dns_outcomes_total{outcome=\"forwarded\"}";
    let line = metrics.lines().find_map(|line| line.strip_prefix(asked));
    let number = line.expect("it is there").trim().parse();
    number.expect("a number")
}

fn kill9(lab: &Lab) {
    lab.kill9(SIDECAR).expect("it runs");
}

#[test]
fn port_53_is_redirected_whomever_a_program_asks_and_nothing_stays_after_kill_9() {
    let lab = lab("intercept1");
    start_with(&lab, "auto");
    assert!(interception(&lab).starts_with("nftables redirects port 53"));
    names_work(&lab);
    for transport in ["+notcp", "+tcp"] {
        // A resolver that a program brings along, and one that is not even there.
        for server in ["@203.0.113.53", "@192.0.2.1"] {
            assert_eq!(dig(&lab, &[server, transport, ORDERS]), "198.18.186.11\n");
            assert_eq!(
                dig(&lab, &[server, transport, "www.example.com"]),
                "203.0.113.53\n"
            );
        }
    }
    assert_eq!(tables(&lab), 1);

    kill9(&lab);
    public_names_work(&lab);
    wait::until_true("the table to be gone", SOON, || Ok(tables(&lab) == 0)).expect("it goes");

    // Started again at once, while the one before may still be ending.
    lab.start(SIDECAR).expect("it starts");
    kill9(&lab);
    lab.start(SIDECAR).expect("it starts");
    lab.wait_for_name(Network::West, ORDERS, RECOVERY)
        .expect("it knows the name");
    names_work(&lab);
    wait::until_true("one table", SOON, || Ok(tables(&lab) == 1)).expect("one");

    lab.stop(SIDECAR).expect("it stops");
    assert_eq!(tables(&lab), 0);
    public_names_work(&lab);
}

#[test]
fn a_resolver_of_the_host_itself_is_not_asked_in_a_circle() {
    let lab = lab("intercept2");
    // It asks the lab's DNS server, and is what dns-signal asks, as with systemd-resolved.
    let resolver = [
        "dnsmasq",
        "-k",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",
        "--no-resolv",
        "--no-hosts",
        "--cache-size=0",
        "--bind-interfaces",
        "--listen-address=127.0.0.53",
        "--server=203.0.113.53",
    ];
    let _resolver = Beside::start(&lab, "west/app", &resolver).expect("dnsmasq starts");
    lab.edit_config(SIDECAR, |text| {
        text.replace("203.0.113.53:53", "127.0.0.53:53")
    })
    .expect("its configuration");
    start_with(&lab, "redirect");
    fs::write(
        resolv_conf(&lab),
        BEFORE.replace("203.0.113.53", "127.0.0.53"),
    )
    .expect("resolv.conf can be written");
    assert!(interception(&lab).contains("of loopback only"));
    names_work(&lab);
    // What it got it got once: a circle would have gone on until somebody gave up.
    let before = forwarded(&lab);
    assert_eq!(dig(&lab, &["www.example.com"]), "203.0.113.53\n");
    assert_eq!(forwarded(&lab), before + 1);

    kill9(&lab);
    public_names_work(&lab);
}

#[test]
fn a_replaced_resolv_conf_is_put_back_after_kill_9_by_the_guard_and_else_by_the_next_start() {
    let lab = lab("intercept3");
    let now = || fs::read_to_string(resolv_conf(&lab)).expect("resolv.conf");
    let is_back = || {
        wait::until_true("resolv.conf to be back", SOON, || Ok(now() == BEFORE)).expect("it is");
    };
    start_with(&lab, "resolv-conf");
    assert_eq!(interception(&lab), "resolv.conf was replaced");
    assert!(now().contains("nameserver 127.0.0.1\n"), "{}", now());
    assert!(!now().contains("nameserver 203"), "{}", now());
    names_work(&lab);

    kill9(&lab);
    is_back();
    public_names_work(&lab);

    // The end of the guard too: as when a whole container or service is killed.
    lab.start(SIDECAR).expect("it starts");
    let pid = lab
        .process(SIDECAR)
        .expect("known")
        .running()
        .expect("it runs");
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let guard: u32 = children
        .expect("it has a child")
        .trim()
        .parse()
        .expect("one");
    lab::process::send(guard, Signal::SIGKILL).expect("killed");
    kill9(&lab);
    assert!(now().contains("nameserver 127.0.0.1\n"), "{}", now());
    lab.start(SIDECAR).expect("it starts");
    lab.wait_for_name(Network::West, ORDERS, RECOVERY)
        .expect("it knows the name");
    names_work(&lab);

    // Somebody else's change is respected.
    lab.stop(SIDECAR).expect("it stops");
    assert_eq!(now(), BEFORE);
    lab.start(SIDECAR).expect("it starts");
    let other = "nameserver 203.0.113.54\n";
    fs::write(resolv_conf(&lab), other).expect("resolv.conf can be written");
    lab.stop(SIDECAR).expect("it stops");
    assert_eq!(now(), other);
}

#[test]
fn systemd_resolved_asks_for_the_names_of_the_mesh_only_and_forgets_them_after_kill_9() {
    let lab = lab("intercept5");
    lab.stop(SIDECAR).expect("it stops");
    let mut resolved = Resolved::start(&lab);
    fs::write(
        resolv_conf(&lab),
        "nameserver 127.0.0.53\noptions edns0 trust-ad timeout:1 attempts:2\nsearch example.com\n",
    )
    .expect("resolv.conf can be written");
    public_names_work(&lab);
    lab.edit_config(SIDECAR, |text| {
        text.replace("[dns]", "[dns]\ninterception = \"auto\"")
    })
    .expect("its configuration");

    let sidecar = resolved.start_sidecar(&lab);
    assert_eq!(
        interception(&lab),
        "systemd-resolved asks dns-signal for names of the mesh"
    );
    assert_eq!(tables(&lab), 0);
    names_work(&lab);
    for transport in ["+notcp", "+tcp"] {
        let ask = |name| dig(&lab, &["@127.0.0.53", transport, name]);
        assert_eq!(ask(ORDERS), "198.18.186.11\n");
        assert_eq!(ask("www.example.com"), "203.0.113.53\n");
    }
    let reverse = |address| dig(&lab, &["@127.0.0.53", "-x", address]);
    assert_eq!(reverse("198.18.186.11"), format!("{ORDERS}.\n"));
    assert_eq!(reverse("fd74:7572:6e70::ba0b"), format!("{ORDERS}.\n"));
    let said = resolved.control(&lab, &["query", ORDERS]);
    assert!(said.contains("198.18.186.11"), "{said}");
    // Not one question about names of others came to dns-signal.
    assert_eq!(forwarded(&lab), 0);

    sidecar.end(Signal::SIGKILL);
    public_names_work(&lab);
    let status = resolved.control(&lab, &["status"]);
    assert!(!status.contains("mesh.internal"), "{status}");

    // An alias has its names asked here too, and no others of its domain.
    let alias = "[[dns.alias]]\nname = \"api.example.com\"\nservice = \"orders\"\n";
    lab.edit_config(SIDECAR, |text| {
        text.replace("[tunnel]", &format!("{alias}\n[tunnel]"))
    })
    .expect("its configuration");
    let sidecar = resolved.start_sidecar(&lab);
    names_work(&lab);
    assert!(getent(&lab, "api.example.com").starts_with("198.18.186.11"));
    assert_eq!(forwarded(&lab), 0);
    let status = resolved.control(&lab, &["domain", "turnpike0"]);
    assert!(
        status.contains("~mesh.internal ~18.198.in-addr.arpa"),
        "{status}"
    );
    sidecar.end(Signal::SIGTERM);
    public_names_work(&lab);
    let status = resolved.control(&lab, &["status"]);
    assert!(!status.contains("mesh.internal"), "{status}");

    // With resolved as upstream, what the alias does not stand for would go round: the next way is taken.
    lab.edit_config(SIDECAR, |text| {
        text.replace("203.0.113.53:53", "127.0.0.53:53")
    })
    .expect("its configuration");
    let sidecar = resolved.start_sidecar(&lab);
    assert!(interception(&lab).contains("of loopback only"));
    names_work(&lab);
    assert!(getent(&lab, "api.example.com").starts_with("198.18.186.11"));
    sidecar.end(Signal::SIGTERM);
    lab.edit_config(SIDECAR, |text| {
        text.replace("127.0.0.53:53", "203.0.113.53:53")
    })
    .expect("its configuration");

    // Where resolved is not there after all, the next way is taken.
    resolved.end_resolved();
    let sidecar = resolved.start_sidecar(&lab);
    assert!(interception(&lab).starts_with("nftables redirects port 53"));
    names_work(&lab);
    sidecar.end(Signal::SIGTERM);
}

#[test]
fn dnsmasq_asks_for_the_names_of_the_mesh_only_and_does_without_them_after_kill_9() {
    let lab = lab("intercept6");
    lab.stop(SIDECAR).expect("it stops");
    let directory = tempfile::tempdir().expect("a directory");
    let of = |name: &str| directory.path().join(name).display().to_string();
    fs::create_dir(of("dnsmasq.d")).expect("a directory");
    let drop_in = of("dnsmasq.d/turnpike.conf");
    // What keeps a service running, and restarts it.
    let keep = format!(
        "while :; do dnsmasq -k --conf-file=/dev/null --pid-file={pid} --user=root --no-resolv --no-hosts --stop-dns-rebind --rebind-domain-ok=example.com \
         --bind-interfaces --listen-address=127.0.0.1 --server=203.0.113.53 '--conf-dir={directory},*.conf'; sleep 0.1; done",
        pid = of("pid"),
        directory = of("dnsmasq.d"),
    );
    let _dnsmasq = Beside::start(&lab, "west/app", &["sh", "-c", &keep]).expect("it starts");
    lab.edit_config(SIDECAR, |text| {
        let reload = format!("kill $(cat {})", of("pid"));
        let dns = format!(
            "[dns]\nlisten = [\"127.0.0.1:5300\"]\ninterception = \"dnsmasq\"\ndnsmasq-reload = [\"sh\", \"-c\", \"{reload}\"]"
        );
        let without = text.lines().filter(|line| !line.starts_with("listen"));
        let without: Vec<&str> = without.collect();
        without.join("\n").replace("[dns]", &dns)
    })
    .expect("its configuration");
    fs::write(
        resolv_conf(&lab),
        BEFORE.replace("203.0.113.53", "127.0.0.1"),
    )
    .expect("resolv.conf can be written");
    public_names_work(&lab);

    let start = || {
        lab.start(SIDECAR).expect("it starts");
        lab.wait_for_name(Network::West, ORDERS, RECOVERY)
            .expect("dnsmasq knows the name");
    };
    start();
    assert_eq!(
        interception(&lab),
        format!("dnsmasq asks dns-signal for names of the mesh, as {drop_in} says")
    );
    names_work(&lab);
    let reverse = dig(&lab, &["@127.0.0.1", "-x", "198.18.186.11"]);
    assert_eq!(reverse, format!("{ORDERS}.\n"));
    assert_eq!(forwarded(&lab), 0);

    kill9(&lab);
    public_names_work(&lab);
    assert!(fs::exists(&drop_in).expect("a look"));
    // The next start cleans up, whatever it is told to do.
    lab.edit_config(SIDECAR, |text| text.replace("\"dnsmasq\"", "\"none\""))
        .expect("its configuration");
    lab.start(SIDECAR).expect("it starts");
    assert!(!fs::exists(&drop_in).expect("a look"));
    public_names_work(&lab);

    lab.stop(SIDECAR).expect("it stops");
    lab.edit_config(SIDECAR, |text| text.replace("\"none\"", "\"dnsmasq\""))
        .expect("its configuration");
    start();
    assert!(fs::exists(&drop_in).expect("a look"));
    lab.stop(SIDECAR).expect("it stops");
    assert!(!fs::exists(&drop_in).expect("a look"));
    public_names_work(&lab);
}

#[test]
fn a_host_that_asks_dns_signal_already_is_left_alone() {
    let lab = lab("intercept4");
    assert_eq!(interception(&lab), "resolv.conf names dns-signal already");
    assert_eq!(tables(&lab), 0);
}
