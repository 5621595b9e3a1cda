//! Many links to one activator: they open together, each carries packets, they stay, and none costs much.
use std::env;
use std::time::Duration;

use lab::{Lab, many_links};
use scenarios::lab;

/// What an idle link may cost the activator: docs/bench/links.md has it from a quiet machine.
const MEMORY_KIB: f64 = 64.0;

/// `TURNPIKE_LINKS=1000` tries as many.
fn wanted() -> u32 {
    let set = env::var("TURNPIKE_LINKS").ok();
    set.map_or(100, |number| {
        number.parse().expect("TURNPIKE_LINKS is a number")
    })
}

fn open(lab: &Lab) -> u64 {
    let status = lab.node_status("east/activator").expect("a status");
    let links = status["links"].as_array().expect("links");
    links.iter().filter(|link| link["state"] == "open").count() as u64
}

#[test]
fn many_links_open_together_on_one_activator_carry_packets_and_stay() {
    let lab = lab("links1");
    let before = open(&lab);
    let wanted = wanted();
    let outcome = many_links::run(
        &lab,
        wanted,
        Duration::from_secs(60),
        Duration::from_secs(20),
    )
    .expect("an outcome");
    println!("{outcome:#?}");
    assert_eq!(outcome.opening.count, wanted, "links opened");
    assert_eq!(outcome.first_echo.count, wanted, "packets came back");
    assert_eq!(outcome.open_after_idle, wanted, "links stayed");
    assert_eq!(
        outcome.second_echo.count, wanted,
        "packets came back after idling"
    );
    assert!(outcome.links_ended.is_empty(), "links ended");
    let cost = outcome.activator.per_link_kib;
    assert!(cost <= MEMORY_KIB, "{cost} KiB for an idle link");
    lab::wait::until_true("the closed links to be gone", scenarios::RECOVERY, || {
        Ok(open(&lab) == before)
    })
    .expect("every link was closed");
}
