//! Memory and descriptors return to where they were after 200 links opened and closed.
use std::fs;
use std::thread;
use std::time::Duration;

use lab::{Lab, Network, wait};
use scenarios::{RECOVERY, caller, lab, page_within};

const PROCESSES: [&str; 7] = [
    "discovery",
    "west/relay",
    "east/relay",
    "west/activator",
    "east/activator",
    "west/dns-signal",
    "east/dns-signal",
];
/// Links of each network, of 200 in all.
const ROUNDS: usize = 100;
const WARM_UP: usize = 10;
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

/// Opens links one after the other, in both directions at once, each gone before the next.
fn open_and_close(lab: &Lab, rounds: usize) {
    thread::scope(|scope| {
        for network in Network::ALL {
            scope.spawn(move || {
                let (host, url) = caller(network);
                let process = format!("{network}/dns-signal");
                for _ in 0..rounds {
                    page_within(lab, host, url, RECOVERY).expect("a page");
                    wait::until_true("the idle link to be closed", RECOVERY, || {
                        let status = lab.node_status(&process)?;
                        Ok(status["links"].as_array().is_some_and(Vec::is_empty))
                    })
                    .expect("the link is closed");
                }
            });
        }
    });
}

#[test]
fn two_hundred_links_leave_nothing_behind() {
    let lab = lab("leaks1");
    for network in Network::ALL {
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
    open_and_close(&lab, ROUNDS);
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
