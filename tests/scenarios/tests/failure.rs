//! Any one process may be killed: the next request after its restart succeeds within 15 seconds.
use std::time::{Duration, Instant};

use lab::{Lab, Network, wait};
use scenarios::{BILLING, ORDERS, RECOVERY, lab, page, page_within};

fn kill_and_recover(lab: &Lab, process: &str) {
    page(lab, "west/app", ORDERS, &[]).expect("a page before");
    let begin = Instant::now();
    lab.kill9(process).expect("it runs");
    lab.start(process).expect("it starts again");
    let left = RECOVERY.saturating_sub(begin.elapsed());
    page_within(lab, "west/app", ORDERS, left).expect("a page after");
    eprintln!(
        "{process}: {:.1} s from the kill to the next page",
        begin.elapsed().as_secs_f64()
    );
    page_within(lab, "east/app", BILLING, RECOVERY).expect("a page in the other direction");
}

#[test]
fn the_relay_is_killed() {
    kill_and_recover(&lab("fail1"), "west/relay");
}

#[test]
fn discovery_is_killed() {
    kill_and_recover(&lab("fail2"), "discovery");
}

#[test]
fn the_activator_is_killed() {
    kill_and_recover(&lab("fail3"), "east/activator");
}

#[test]
fn the_sidecar_is_killed() {
    kill_and_recover(&lab("fail4"), "west/dns-signal");
}

#[test]
fn without_discovery_open_links_go_on_and_names_are_still_answered_at_once() {
    let lab = lab("fail5");
    page(&lab, "west/app", ORDERS, &[]).expect("the link opens");
    lab.kill9("discovery").expect("it runs");
    wait::until_true("dns-signal to notice", RECOVERY, || {
        Ok(lab.node_status("west/dns-signal")?["discovery_connected"] == false)
    })
    .expect("the status says that discovery is away");
    page(&lab, "west/app", ORDERS, &["-m", "3"]).expect("the open link works");

    // East has no link yet: it knows the activator from before, and cannot signal. DNS answers all the same.
    let begin = Instant::now();
    let dig = [
        "dig",
        "+short",
        "+tries=1",
        "+time=2",
        "billing.west.mesh.internal",
        "A",
    ];
    let answer = lab.output("east/app", &dig).expect("an answer");
    assert!(answer.starts_with("198.1"), "{answer}");
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "it took {:?}",
        begin.elapsed()
    );
    assert!(
        page(&lab, "east/app", BILLING, &["-m", "3"]).is_err(),
        "nobody carries an offer"
    );

    lab.start("discovery").expect("it starts again");
    page_within(&lab, "east/app", BILLING, RECOVERY).expect("a page");
    page(&lab, "west/app", ORDERS, &["-m", "3"]).expect("the open link worked all the while");
}

#[test]
fn all_of_a_networks_parts_are_stopped_politely_and_started_again() {
    let lab = lab("fail6");
    page(&lab, "west/app", ORDERS, &[]).expect("a page before");
    let processes = [
        "west/dns-signal",
        "east/activator",
        "west/relay",
        "discovery",
    ];
    for process in processes {
        lab.stop(process).expect("SIGTERM ends it");
    }
    for process in processes.iter().rev() {
        lab.start(process).expect("it starts again");
    }
    let name = Network::East.service_name();
    lab.wait_for_name(Network::West, &name, RECOVERY)
        .expect("the name is known again");
    page_within(&lab, "west/app", ORDERS, RECOVERY).expect("a page after");
}
