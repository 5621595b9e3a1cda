//! The relay carried it: there is no other way, its own count shows the bytes, and without it there is nothing.
use std::process::Child;
use std::time::{Duration, Instant};

use lab::{Lab, Network, wait};
use scenarios::{ORDERS, RECOVERY, lab, page, page_within};

const MIB: u64 = 1 << 20;

fn slow_download(lab: &Lab) -> Child {
    let url = format!("{ORDERS}/bytes/{}", 2_000 * MIB);
    // Three seconds without bytes, and curl gives up.
    let give_up = ["--speed-time", "3", "--speed-limit", "1"];
    let fixed = [
        "curl",
        "-sS",
        "-o",
        "/dev/null",
        "--limit-rate",
        "20M",
        &url,
    ];
    lab.spawn("west/app", &[&fixed[..], &give_up].concat())
        .expect("curl starts")
}

#[test]
fn the_relay_of_the_callers_network_counts_what_was_carried_and_the_other_does_not() {
    let lab = lab("relay1");
    page(&lab, "west/app", ORDERS, &[]).expect("the link opens");
    let before = Network::PAIR.map(|network| lab.relay_bytes(network).expect("a count"));
    let length = 20 * MIB;
    let url = format!("{ORDERS}/bytes/{length}");
    page(&lab, "west/app", &url, &["-o", "/dev/null"]).expect("a download");
    // The relay publishes its counts now and then.
    wait::until_true("west's relay to have counted it", RECOVERY, || {
        Ok(lab.relay_bytes(Network::West)? - before[0] > length)
    })
    .expect("the bytes crossed west's relay");
    let after = Network::PAIR.map(|network| lab.relay_bytes(network).expect("a count"));
    let (west, east) = (after[0] - before[0], after[1] - before[1]);
    assert!(
        west < length + length / 4,
        "the overhead stays small: {west} bytes for {length}"
    );
    assert!(
        east < length / 100,
        "east's relay has nothing to do with it: {east} bytes"
    );
    let status = lab.node_status("west/dns-signal").expect("a status");
    assert_eq!(status["links"][0]["path"], "relay/udp", "{status}");
}

#[test]
fn without_the_relay_a_transfer_stops_and_with_it_new_requests_work_again() {
    let lab = lab("relay2");
    let mut download = slow_download(&lab);
    let started = lab.relay_bytes(Network::West).expect("a count");
    wait::until_true("the transfer to get going", RECOVERY, || {
        Ok(lab.relay_bytes(Network::West)? > started + 5 * MIB)
    })
    .expect("a transfer");
    lab.stop("west/relay").expect("it stops");
    let status = download.wait().expect("curl ends");
    assert!(!status.success(), "the transfer went on without a relay");
    assert!(
        page(&lab, "west/app", ORDERS, &["-m", "2"]).is_err(),
        "a page without a relay"
    );

    let begin = Instant::now();
    lab.start("west/relay").expect("it starts again");
    page_within(
        &lab,
        "west/app",
        ORDERS,
        RECOVERY.saturating_sub(begin.elapsed()),
    )
    .expect("a page, with nothing else restarted");
    wait::until_true("the relay to have counted it", RECOVERY, || {
        Ok(lab.relay_bytes(Network::West)? > 0)
    })
    .expect("the relay carried it");
}

#[test]
fn a_transfer_in_one_direction_does_not_notice_the_other_networks_relay() {
    let lab = lab("relay3");
    page(&lab, "west/app", ORDERS, &[]).expect("the link opens");
    lab.stop("east/relay").expect("it stops");
    let deadline = Instant::now() + Duration::from_secs(6);
    while Instant::now() < deadline {
        page(&lab, "west/app", ORDERS, &["-m", "2"]).expect("a page");
    }
}
