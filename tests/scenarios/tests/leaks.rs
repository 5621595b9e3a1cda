//! Memory and descriptors return to where they were after 200 links opened and closed.
use std::fs;
use std::thread;
use std::time::Duration;

use lab::plan::HTTP_PORT;
use lab::{Lab, Network, wait};
use scenarios::{RECOVERY, lab, page_within};

const PROCESSES: [&str; 7] = [
    "discovery",
    "west/relay",
    "east/relay",
    "west/activator",
    "east/activator",
    "west/dns-signal",
    "east/dns-signal",
];
/// Of each sidecar: to the other network's service, and to its own network's.
const LINKS_PER_ROUND: u64 = 2;
/// 200 links in all.
const ROUNDS: u64 = 50;
const WARM_UP: u64 = 5;
/// What an allocator may keep for itself, in KiB.
const MEMORY_SLACK: u64 = 6 * 1024;
const DESCRIPTOR_SLACK: usize = 2;

#[derive(Debug, Clone, Copy)]
struct Usage {
    resident_kib: u64,
    descriptors: usize,
}

fn usage(lab: &Lab, process: &str) -> Usage {
    let pid = lab
        .process(process)
        .expect("known")
        .running()
        .expect("it runs");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("its memory");
    let resident = line
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok());
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("its descriptors")
        .count();
    Usage {
        resident_kib: resident.expect("a number"),
        descriptors,
    }
}

fn count(lab: &Lab, network: Network, what: &str) -> u64 {
    let metric = format!("dns_signal_links_{what}_total");
    let value = lab.metric(&format!("{network}/dns-signal"), &metric);
    value.expect("a count") as u64
}

/// Each sidecar opens one link to either network's service, and both are gone before the next two.
fn open_and_close(lab: &Lab, rounds: u64) {
    thread::scope(|scope| {
        for network in Network::PAIR {
            scope.spawn(move || {
                let host = format!("{network}/app");
                for _ in 0..rounds {
                    let closed = count(lab, network, "closed");
                    for service in Network::PAIR {
                        let url = format!("http://{}:{HTTP_PORT}/", service.service_name());
                        page_within(lab, &host, &url, RECOVERY).expect("a page");
                    }
                    wait::until_true("the idle links to be closed", RECOVERY, || {
                        Ok(count(lab, network, "closed") >= closed + LINKS_PER_ROUND)
                    })
                    .expect("the links are closed");
                }
            });
        }
    });
}

#[test]
fn two_hundred_links_leave_nothing_behind() {
    let lab = lab("leaks1");
    for network in Network::PAIR {
        let process = format!("{network}/dns-signal");
        lab.edit_config(&process, |text| text.replace("\"60s\"", "\"1s\""))
            .expect("edited");
        lab.stop(&process).expect("it stops");
        lab.start(&process).expect("it starts");
        lab.wait_for_name(network, &network.other().service_name(), RECOVERY)
            .expect("the name");
    }
    open_and_close(&lab, WARM_UP);
    let before = PROCESSES.map(|process| usage(&lab, process));
    let opened = || {
        Network::PAIR
            .map(|network| count(&lab, network, "opened"))
            .iter()
            .sum::<u64>()
    };
    let opened_before = opened();
    open_and_close(&lab, ROUNDS);
    assert!(
        opened() - opened_before >= 200,
        "{} links opened",
        opened() - opened_before
    );
    let mut grown = Vec::new();
    for (process, before) in PROCESSES.into_iter().zip(before) {
        // What a closed link leaves to a timer goes within seconds.
        let settled = wait::until_true(process, Duration::from_secs(20), || {
            let after = usage(&lab, process);
            Ok(after.descriptors <= before.descriptors + DESCRIPTOR_SLACK
                && after.resident_kib <= before.resident_kib + MEMORY_SLACK)
        });
        let after = usage(&lab, process);
        eprintln!("{process}: {before:?} -> {after:?}");
        if settled.is_err() {
            grown.push(format!("{process}: {before:?} -> {after:?}"));
        }
    }
    assert!(grown.is_empty(), "{grown:#?}");
}
