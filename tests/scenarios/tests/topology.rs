//! The lab is what it claims to be: without this, nothing that the other chapters show means anything.
use std::process::{Command, Stdio};

use lab::process::Files;
use lab::{Lab, LabOptions, NatKind, ScopedLab, netns, wait};
use scenarios::{RECOVERY, bare_lab, options};

/// How the upstream host sees `host`, asked at two of its addresses from one socket.
fn observed_ports(lab: &Lab, host: &str) -> (String, String) {
    let service = lab.binaries().join("lab-service").display().to_string();
    let printed = lab
        .output(
            host,
            &[
                &service,
                "observe",
                "203.0.113.53:9002",
                "203.0.113.54:9002",
            ],
        )
        .expect("the upstream host answers");
    let (first, second) = printed.trim().split_once('\n').expect("two answers");
    (first.to_owned(), second.to_owned())
}

#[test]
fn inside_a_network_hosts_reach_each_other_over_both_families() {
    let lab = bare_lab("topo1");
    for (host, service) in [("west/app", "west/billing"), ("east/app", "east/orders")] {
        for address in ["http://10.0.0.20:8080/", "http://[fd00:10::20]:8080/"] {
            let page = lab
                .output(host, &["curl", "-sS", "-m", "5", "-g", address])
                .expect("a page");
            assert!(page.starts_with(&format!("{service} greets ")), "{page}");
        }
    }
}

#[test]
fn from_one_network_nothing_of_the_other_can_be_reached() {
    let lab = bare_lab("topo2");
    // The other's routers and relays have public addresses; what is behind them has none.
    let targets = [
        "http://203.0.113.21:8080/",
        "http://203.0.113.22:8080/",
        "http://10.0.0.21:8080/",
        "http://[2001:db8:113::21]:8080/",
        "http://[fd00:10::21]:8080/",
    ];
    for target in targets {
        let output = lab
            .exec("west/app", &["curl", "-sS", "-m", "1", "-g", target])
            .expect("curl");
        assert!(!output.status.success(), "{target} answered");
    }
    // Someone on the public segment who routes the private range to a router gets nothing from it.
    for (range, router) in [
        ("10.0.0.0/24", "203.0.113.21"),
        ("fd00:10::/64", "2001:db8:113::21"),
    ] {
        lab.output("upstream", &["ip", "route", "add", range, "via", router])
            .expect("a route");
    }
    for target in ["http://10.0.0.20:8080/", "http://[fd00:10::20]:8080/"] {
        let output = lab
            .exec("upstream", &["curl", "-sS", "-m", "1", "-g", target])
            .expect("curl");
        assert!(!output.status.success(), "{target} answered");
    }
}

#[test]
fn the_world_outside_is_reached_by_name_and_by_ping() {
    let lab = bare_lab("topo3");
    for host in ["west/app", "east/app", "west/activator", "discovery"] {
        let page = lab
            .output(
                host,
                &[
                    "curl",
                    "-sS",
                    "-m",
                    "5",
                    "-4",
                    "http://www.example.com:8080/",
                ],
            )
            .expect("a page by name");
        assert!(page.starts_with("upstream/web greets "), "{page}");
    }
    lab.output(
        "west/app",
        &["ping", "-c", "1", "-W", "2", "second.example.com"],
    )
    .expect("a ping");
    let page = lab
        .output(
            "west/app",
            &[
                "curl",
                "-sS",
                "-m",
                "5",
                "-6",
                "http://www.example.com:8080/",
            ],
        )
        .expect("a page over IPv6");
    assert!(
        page.contains("2001:db8:113::11"),
        "translated to the router's address: {page}"
    );
}

#[test]
fn the_upstream_serves_names_of_every_kind_and_knows_what_does_not_exist() {
    let lab = bare_lab("topo10");
    let dig = |args: &[&str]| {
        let fixed = ["dig", "+tries=2", "+time=2"];
        lab.output("east/app", &[&fixed[..], args].concat())
            .expect("dig")
    };
    for (name, record, expected) in [
        ("www.example.com", "A", "203.0.113.53"),
        ("www.example.com", "AAAA", "2001:db8:113::53"),
        ("alias.example.com", "A", "CNAME\twww.example.com."),
        ("example.com", "MX", "10 mail.example.com."),
        ("example.com", "TXT", "\"lab\""),
    ] {
        let printed = dig(&[name, record]);
        assert!(printed.contains(expected), "{name} {record}: {printed}");
    }
    assert!(dig(&["absent.example.com"]).contains("status: NXDOMAIN"));
    let whole = dig(&["long.example.com", "TXT"]);
    assert!(whole.contains("Truncated, retrying in TCP"), "{whole}");
    assert!(whole.contains("ANSWER: 10"), "{whole}");
}

#[test]
fn a_symmetric_router_uses_another_port_for_every_destination() {
    let lab = bare_lab("topo4");
    for (host, router) in [("west/app", "203.0.113.11:"), ("east/app", "203.0.113.21:")] {
        let (first, second) = observed_ports(&lab, host);
        assert!(
            first.starts_with(router) && second.starts_with(router),
            "{first} {second}"
        );
        assert_ne!(first, second);
    }
}

#[test]
fn a_port_restricted_router_uses_the_same_port_for_every_destination() {
    let options = LabOptions {
        nat: NatKind::PortRestricted,
        mesh: false,
        ..options("topo5")
    };
    let lab = ScopedLab::up(&options).expect("the lab comes up");
    let (first, second) = observed_ports(&lab, "west/app");
    assert!(first.starts_with("203.0.113.11:"), "{first}");
    assert_eq!(first, second);
}

#[test]
fn two_labs_stand_side_by_side_and_one_goes_down_without_the_other() {
    let first = bare_lab("topo6a");
    let second = bare_lab("topo6b");
    drop(first);
    assert!(Lab::open("topo6a").is_err());
    assert!(second.status().complete(), "{}", second.status().to_text());
    second
        .output(
            "west/app",
            &["curl", "-sS", "-m", "5", "http://10.0.0.20:8080/"],
        )
        .expect("a page");
}

#[test]
fn down_removes_what_a_crashed_up_left_behind() {
    let lab = bare_lab("topo7");
    let pid = lab
        .process("east/orders")
        .expect("a process")
        .running()
        .expect("it runs");
    let before = lab.namespace("west/app");
    // Its memory of itself is gone, as after a crash half way.
    std::fs::remove_file(lab.files().root().join("lab.json")).expect("the record is removed");
    assert!(Lab::open("topo7").is_err());
    Lab::remove("topo7").expect("down");
    assert!(netns::identity(&before).is_none());
    assert!(netns::of_process(pid).is_none(), "east/orders still runs");
    assert!(!lab.files().root().exists());
    assert!(!std::path::Path::new("/etc/netns/tp-topo7-west-app").exists());
}

#[test]
fn a_lab_that_is_up_is_not_brought_up_again() {
    let lab = bare_lab("topo8");
    let again = Lab::up(&LabOptions {
        mesh: false,
        ..options(lab.name())
    });
    let message = again.expect_err("it is up already").to_string();
    assert!(message.contains("lab down --name topo8"), "{message}");
    assert!(lab.status().complete());
}

#[test]
fn processes_end_and_start_one_by_one() {
    let lab = bare_lab("topo9");
    lab.stop("west/billing").expect("SIGTERM ends it");
    assert!(!lab.status().complete());
    lab.start("west/billing").expect("it starts again");
    lab.kill9("west/billing").expect("SIGKILL ends it");
    lab.start("west/billing").expect("it starts again");
    assert!(lab.status().complete());
    let again = lab.process("west/billing").expect("known").start();
    assert!(again.is_err(), "it runs already");
}

/// Kills `turnpike lab up` as soon as `reached`, and shows that `turnpike lab down` leaves nothing.
fn killed_half_way(name: &str, reached: impl Fn() -> bool) {
    Lab::remove(name).expect("nothing is in the way");
    let options = options(name);
    let turnpike = |action: &str| {
        let mut command = Command::new(options.binaries.join("turnpike"));
        command.args(["lab", action, "--name", name]);
        command
            .env("TURNPIKE_BIN_DIR", &options.binaries)
            .stderr(Stdio::null());
        command
    };
    let mut up = turnpike("up")
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    wait::until_true("the lab to be half way up", RECOVERY, || Ok(reached())).expect("half way");
    up.kill().expect("it is killed");
    assert!(
        !up.wait().expect("it ends").success(),
        "it was done before it was killed"
    );
    assert!(turnpike("down").status().expect("it runs").success());
    assert_eq!(
        netns::list(&netns::prefix(name)).expect("a list"),
        Vec::<String>::new()
    );
    assert!(!Files::of(name).root().exists());
    assert!(
        turnpike("down").status().expect("it runs").success(),
        "down twice is fine"
    );
}

#[test]
fn lab_down_removes_what_a_killed_lab_up_left_among_namespaces() {
    let name = "topo11";
    let namespaces = || netns::list(&netns::prefix(name)).map_or(0, |list| list.len());
    killed_half_way(name, || namespaces() > 3);
}

#[test]
fn lab_down_removes_what_a_killed_lab_up_left_running() {
    let name = "topo12";
    let relay = netns::name(name, "west/relay");
    killed_half_way(name, || {
        netns::processes(&relay).is_ok_and(|processes| !processes.is_empty())
    });
}
