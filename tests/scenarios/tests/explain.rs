//! `turnpike explain` names the cause in its first line: twelve faults, each planted as it happens.
use std::fs;
use std::time::Duration;

use identity::{Authority, NodeIdentity};
use lab::process::FileKind;
use lab::{Lab, Network, wait};
use net::Clock;
use scenarios::{ORDERS, lab, page};

/// Leases end after 10 s, relays are missed after 4, attempts take 9.
const NOTICED: Duration = Duration::from_secs(60);
const NAME: &str = "orders.east";

/// What `turnpike explain` prints in west's workload; `before` may change the clock.
fn explain(lab: &Lab, before: &[&str]) -> anyhow::Result<(String, String)> {
    let turnpike = lab.binaries().join("turnpike").display().to_string();
    let config = lab
        .files()
        .of_process("west/dns-signal", FileKind::Config)
        .display()
        .to_string();
    let command = [turnpike.as_str(), "explain", NAME, "--config", &config];
    let output = lab.exec("west/app", &[before, &command].concat())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let (first, rest) = text.split_once('\n').unwrap_or((&text, &said));
    let works = first.contains(" works: ");
    anyhow::ensure!(
        output.status.success() == works,
        "{:?}: {text}{said}",
        output.status
    );
    Ok((first.to_owned(), rest.to_owned()))
}

/// Explains until the first line names the cause, and gives it back; what to do must stand below.
fn named(lab: &Lab, before: &[&str], parts: &[&str]) -> String {
    let what = format!("the first line to name {parts:?}");
    wait::until(&what, NOTICED, || {
        let (first, rest) = explain(lab, before)?;
        eprintln!("{first}");
        anyhow::ensure!(parts.iter().all(|part| first.contains(part)), "{first}");
        anyhow::ensure!(rest.starts_with("  -> "), "nothing to do: {rest}");
        Ok(Some(first))
    })
    .expect("the cause is named")
}

fn works_again(lab: &Lab) {
    wait::until_true("the name to work again", NOTICED, || {
        Ok(explain(lab, &[])?.0.starts_with("orders.east works: "))
    })
    .expect("it works when the fault is gone");
}

/// Loads a rule into a host of its own table; dropping the lab drops it.
fn block(lab: &Lab, host: &str, hook: &str, rule: &str) {
    let rules = format!(
        "table inet fault {{\n chain fault {{\n type filter hook {hook} priority -10;\n {rule} drop\n }}\n}}\n"
    );
    let file = lab.files().root().join("fault.nft");
    fs::write(&file, rules).expect("a rule set");
    let file = file.display().to_string();
    lab.output(host, &["nft", "-f", &file]).expect("loaded");
}

#[test]
fn nothing_is_wrong() {
    let lab = lab("exp0");
    let (first, rest) = explain(&lab, &[]).expect("it runs");
    assert!(first.starts_with("orders.east works: TCP 8080"), "{first}");
    assert!(!rest.contains("  -> "), "nothing to do: {rest}");
    for part in ["virtual IP", "relayed, selected", "this node may use it"] {
        assert!(rest.contains(part), "{rest}");
    }
    // Whoever reads it learns no secret.
    let mesh = lab.files().root().join("token");
    for entry in fs::read_dir(mesh).expect("tokens") {
        let secret = fs::read_to_string(entry.expect("a file").path()).expect("a secret");
        assert!(!rest.contains(secret.trim()));
    }
}

#[test]
fn the_relay_is_down() {
    let lab = lab("exp1");
    lab.kill9("west/relay").expect("it runs");
    named(
        &lab,
        &[],
        &["the relay `west`", "does not answer", "203.0.113.12:3478"],
    );
    lab.start("west/relay").expect("it starts again");
    works_again(&lab);
}

#[test]
fn the_relay_has_another_secret() {
    let lab = lab("exp2");
    // Over a link that is open, and allocations that are held: the harder case.
    page(&lab, "west/app", ORDERS, &[]).expect("a page before");
    let other = lab.files().root().join("token/other-secret");
    fs::write(&other, "0123456789abcdef0123456789abcdef").expect("a secret");
    let secret = lab.files().of_process("west/relay-secret", FileKind::Token);
    let (secret, other) = (secret.display().to_string(), other.display().to_string());
    lab.stop("west/relay").expect("it stops");
    lab.edit_config("west/relay", |text| text.replace(&secret, &other))
        .expect("edited");
    lab.start("west/relay").expect("it starts");
    named(
        &lab,
        &[],
        &["the relay `west`", "credentials", "secrets differ"],
    );
}

#[test]
fn the_certificate_has_expired() {
    let lab = lab("exp3");
    lab.stop("west/dns-signal").expect("it stops");
    let state = lab.files().of_process("west/dns-signal", FileKind::State);
    let kept = NodeIdentity::load(&state)
        .expect("readable")
        .expect("there");
    let read = |name: &str| fs::read_to_string(lab.files().mesh().join(name)).expect("the mesh's");
    let authority = Authority::load(&read("ca-certificate.pem"), &read("ca-key.pem"))
        .expect("the mesh's authority");
    let day = Duration::from_secs(86_400);
    let two_days_ago = model::UnixTime(Clock.unix_time().0 - 2 * 86_400);
    let old = authority.new_node(kept.node_id().clone(), day, two_days_ago);
    let old = old.expect("an old certificate");
    old.save(&state).expect("kept");
    let token = lab.files().of_process("west/dns-signal", FileKind::Token);
    fs::remove_file(token).expect("the token is gone");
    assert!(lab.start("west/dns-signal").is_err(), "it says so and ends");
    named(&lab, &[], &["this node's certificate has expired"]);
}

#[test]
fn the_service_is_not_exported() {
    let lab = lab("exp4");
    lab.stop("east/activator").expect("it stops");
    lab.edit_config("east/activator", |text| {
        text.replace("name = \"orders\"", "name = \"shipping\"")
    })
    .expect("edited");
    lab.start("east/activator").expect("it starts");
    named(&lab, &[], &["`east` does not export a service `orders`"]);
}

#[test]
fn policy_refuses() {
    let lab = lab("exp5");
    lab.stop("east/activator").expect("it stops");
    lab.edit_config("east/activator", |text| {
        text.replace("udp = [", "allow = [\"north\"]\nudp = [")
    })
    .expect("edited");
    lab.start("east/activator").expect("it starts");
    named(
        &lab,
        &[],
        &["by policy", "`orders` is not open to", "`west`"],
    );
    let log = fs::read_to_string(lab.files().of_process("east/activator", FileKind::Log));
    let log = log.expect("the activator's log");
    assert!(
        log.contains("offer refused") && log.contains("policy: `orders` is not open to"),
        "the other end says so too"
    );
    // Workloads by the beginning of their names.
    lab.stop("east/activator").expect("it stops");
    lab.edit_config("east/activator", |text| {
        text.replace("allow = [\"north\"]", "allow = [\"west/workload-*\"]")
    })
    .expect("edited");
    lab.start("east/activator").expect("it starts");
    works_again(&lab);
}

#[test]
fn the_activator_is_away() {
    let lab = lab("exp6");
    lab.kill9("east/activator").expect("it runs");
    // At once, while its lease still says that it is there, and after it.
    let first = named(&lab, &[], &["the activator of `east` is away"]);
    eprintln!("{first}");
    named(
        &lab,
        &[],
        &["the activator of `east` is away: no activator of the network is registered"],
    );
    lab.start("east/activator").expect("it starts again");
    works_again(&lab);
}

#[test]
fn udp_is_blocked_between_the_host_and_the_relay_and_tcp_too() {
    let lab = lab("exp7");
    page(&lab, "west/app", ORDERS, &[]).expect("a page before");
    block(
        &lab,
        "west/app",
        "output",
        "oifname \"lan\" meta l4proto { tcp, udp } th dport { 443, 3478, 49152-65535 }",
    );
    named(&lab, &[], &["UDP is blocked", "10.0.0.2"]);
    lab.output("west/app", &["nft", "delete", "table", "inet", "fault"])
        .expect("the rule is gone");
    works_again(&lab);
}

#[test]
fn the_pool_collides_with_a_route() {
    let lab = lab("exp8");
    page(&lab, "west/app", ORDERS, &[]).expect("a page before");
    lab.output(
        "west/app",
        &["ip", "route", "add", "198.18.0.0/16", "via", "10.0.0.1"],
    )
    .expect("somebody uses that range");
    named(
        &lab,
        &[],
        &["pool of virtual IPs", "198.18.0.0/16", "interface lan"],
    );
    lab.output("west/app", &["ip", "route", "del", "198.18.0.0/16"])
        .expect("nobody does");
    works_again(&lab);
}

#[test]
fn discovery_is_away() {
    let lab = lab("exp9");
    lab.kill9("discovery").expect("it runs");
    named(
        &lab,
        &[],
        &["discovery at https://203.0.113.10:7400 is away"],
    );
    lab.start("discovery").expect("it starts again");
    works_again(&lab);
}

#[test]
fn the_clock_is_an_hour_off() {
    let lab = lab("exp10");
    lab.stop("west/dns-signal").expect("it stops");
    // The machine's clock: the sidecar's and this command's.
    let shifted = ["faketime", "-f", "+3600"];
    let program = lab.binaries().join("dns-signal").display().to_string();
    let config = lab.files().of_process("west/dns-signal", FileKind::Config);
    let config = config.display().to_string();
    let command = [
        &["timeout", "10"],
        &shifted[..],
        &[&program, "--config", &config],
    ]
    .concat();
    let ended = lab.exec("west/app", &command).expect("it runs");
    assert!(!ended.status.success(), "it says so and ends");
    named(&lab, &shifted, &["this machine's clock is wrong"]);
    lab.start("west/dns-signal").expect("with the right clock");
    works_again(&lab);
}

#[test]
fn long_packets_disappear() {
    let lab = lab("exp12");
    block(
        &lab,
        "east/router",
        "forward",
        "meta l4proto udp meta length > 1000",
    );
    named(&lab, &[], &["long", "packets disappear", "MTU hole"]);
    lab.output("east/router", &["nft", "delete", "table", "inet", "fault"])
        .expect("the rule is gone");
    works_again(&lab);
}

#[test]
fn the_services_port_is_closed() {
    let lab = lab("exp13");
    lab.kill9("east/orders").expect("it runs");
    named(&lab, &[], &["nothing listening on TCP port 8080", "reset"]);
    lab.start("east/orders").expect("it starts again");
    works_again(&lab);
    lab.wait_for_name(Network::West, "orders.east.mesh.internal", NOTICED)
        .expect("all the while");
}
