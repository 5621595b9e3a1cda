//! The table of DNS cases, `dns/cases.txt`: real programs ask in a lab, and get what its rows say.
use std::fs;
use std::time::Instant;

use lab::{Lab, Network, plan, wait};
use scenarios::dns::{self, Clients};
use scenarios::{Beside, RECOVERY, lab};

const SIDECAR: &str = "west/dns-signal";
const ORDERS: &str = "orders.east.mesh.internal";
/// A resolver that validates, and has what the lab's DNS server has.
const VALIDATING: &str = "203.0.113.54:5300";
/// Further names, before the next section of the configuration.
const ALIASES: &str = r#"
[[dns.alias]]
name = "*.prod.svc.clusterset.local"

[[dns.alias]]
name = "shop.example.com"
service = "orders"
networks = ["east"]

[[dns.alias]]
name = "*.any.mesh.internal"
choose = "round-robin"

[tunnel]"#;

#[test]
fn every_client_gets_what_the_table_says_over_every_transport_and_in_every_state() {
    let clients = Clients::build().expect("the clients can be compiled");
    let lab = lab("dnscases");
    let _upstream = prepare(&lab);
    let sections = dns::read(dns::CASES).expect("the table can be read");
    let (mut failures, mut count) = (Vec::new(), 0);
    for section in &sections {
        enter(&lab, &section.state);
        println!("[{}]", section.state);
        for case in &section.cases {
            set_resolver(&lab, &section.state, &case.transport);
            let begin = Instant::now();
            let got = clients.ask(&lab, case).expect("the client can be run");
            let fits = case.fits(&got);
            let verdict = if fits { "ok  " } else { "FAIL" };
            let took = begin.elapsed().as_millis();
            println!("{verdict} {case} {took:5} ms  {got}");
            count += 1;
            if !fits {
                failures.push(format!(
                    "[{}] {case}: {got}; {}",
                    section.state,
                    case.expected()
                ));
            }
        }
    }
    println!("{count} cases, {} failed", failures.len());
    assert!(count >= 60, "the table has {count} rows");
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// A resolver that validates, a service of one family, and dns-signal with this resolver as its upstream.
fn prepare(lab: &Lab) -> Beside {
    let root = lab.files().root();
    fs::write(root.join("signed.zone"), include_str!("../dns/signed.zone"))
        .expect("the zone is written");
    let config =
        include_str!("../dns/unbound.conf").replace("@DIRECTORY@", &root.display().to_string());
    let config_file = root.join("unbound.conf");
    fs::write(&config_file, config).expect("the configuration is written");
    let upstream = start_upstream(lab);
    for (activator, names) in [
        ("east/activator", &["legacy", "shared"][..]),
        ("west/activator", &["shared"]),
    ] {
        let export = |name: &&str| {
            format!("\n[[export]]\nname = \"{name}\"\naddresses = [\"10.0.0.20\"]\ntcp = [8080]\n")
        };
        let exports: String = names.iter().map(export).collect();
        lab.edit_config(activator, |text| text.to_owned() + &exports)
            .expect("the activator's configuration");
        lab.stop(activator).expect("it stops");
        lab.start(activator).expect("it starts again");
    }
    lab.edit_config(SIDECAR, |text| text.replace("[tunnel]", ALIASES))
        .expect("dns-signal's configuration");
    set_upstreams(lab, &plan::UPSTREAM_DNS.to_string(), VALIDATING);
    lab.stop(SIDECAR).expect("it stops");
    lab.start(SIDECAR).expect("it starts again");
    for name in ["legacy.east", "shared.east", "shared.west", "orders.east"] {
        lab.wait_for_name(Network::West, &format!("{name}.mesh.internal"), RECOVERY)
            .expect("it knows the service");
    }
    upstream
}

fn start_upstream(lab: &Lab) -> Beside {
    let config = lab
        .files()
        .root()
        .join("unbound.conf")
        .display()
        .to_string();
    let unbound =
        Beside::start(lab, "upstream", &["unbound", "-d", "-c", &config]).expect("unbound starts");
    wait::until_true("unbound to answer", RECOVERY, || {
        let asked = [
            "dig",
            "+short",
            "+time=1",
            "+tries=1",
            "-p5300",
            "@203.0.113.54",
        ];
        Ok(lab
            .output("upstream", &[&asked[..], &["www.example.com"]].concat())?
            .contains("203.0.113.53"))
    })
    .expect("unbound answers");
    unbound
}

fn set_upstreams(lab: &Lab, before: &str, after: &str) {
    lab.edit_config(SIDECAR, |text| text.replace(before, after))
        .expect("dns-signal's configuration");
}

/// Makes the state that a section of the table is about, out of the one before.
fn enter(lab: &Lab, state: &str) {
    match state {
        "up" | "search" => {}
        "west-away" => {
            lab.stop("west/activator").expect("it runs");
            let asked = [
                "dig",
                "+noall",
                "+comments",
                "shared.west.mesh.internal",
                "TXT",
            ];
            wait::until_true("shared.west to be gone", RECOVERY, || {
                Ok(lab.output("west/app", &asked)?.contains("NXDOMAIN"))
            })
            .expect("it goes");
        }
        "lost" => lab.kill9("discovery").expect("it runs"),
        "blind" => {
            lab.kill9(SIDECAR).expect("it runs");
            // It does not get ready, but answers.
            lab.process(SIDECAR)
                .expect("known")
                .start()
                .expect("it starts");
            resolves(lab, "www.example.com");
        }
        "back" => {
            lab.start("discovery").expect("it starts");
            lab.wait_for_name(Network::West, ORDERS, RECOVERY)
                .expect("dns-signal sees the directory");
        }
        "dead-first" => {
            let both = format!("203.0.113.99:53\", \"{VALIDATING}");
            set_upstreams(lab, VALIDATING, &both);
            lab.stop(SIDECAR).expect("it stops");
            lab.start(SIDECAR).expect("it starts");
        }
        "no-upstream" => {
            set_upstreams(lab, VALIDATING, "203.0.113.98:53");
            lab.stop(SIDECAR).expect("it stops");
            lab.start(SIDECAR).expect("it starts");
        }
        other => panic!("the table has the state `{other}`, which nobody knows how to make"),
    }
}

fn resolves(lab: &Lab, name: &str) {
    wait::until_true(&format!("{name} to be resolved"), RECOVERY, || {
        let asked = ["dig", "+short", "+time=1", "+tries=1", name];
        Ok(lab.output("west/app", &asked)?.contains("203.0.113.53"))
    })
    .expect("it is");
}

/// The workload's resolv.conf.
fn set_resolver(lab: &Lab, state: &str, transport: &str) {
    let mut text = String::from("nameserver 127.0.0.1\noptions timeout:2 attempts:1\n");
    if state == "search" {
        text += "search east.mesh.internal mesh.internal\noptions ndots:5\n";
    }
    if transport == "tcp" {
        text += "options use-vc\n";
    }
    let file = format!("/etc/netns/{}/resolv.conf", lab.namespace("west/app"));
    fs::write(&file, text).expect("resolv.conf can be written");
}
