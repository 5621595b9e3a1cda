//! A running transfer outlives its relay, its path, its activator's process and discovery, and nothing in it is lost or
//! repeated. How long it stands still is for `cargo xtask bench failover` to say; here it only has to go on.
use lab::failover::{Event, Stage};
use scenarios::options;

fn outlives(event: Event, lab: &str) {
    let stage = Stage::up(event, &options(lab)).expect("the lab comes up");
    let outcome = stage.round().expect("the transfer goes on");
    eprintln!("{}: {outcome:?}", event.name());
}

#[test]
fn a_transfer_outlives_its_relay_when_a_second_is_at_hand() {
    outlives(Event::RelayKilled, "over1");
}

#[test]
fn a_transfer_has_left_a_relay_that_drains_before_it_goes() {
    outlives(Event::RelayDrained, "over8");
}

#[test]
fn a_transfer_outlives_the_restart_of_the_only_relay() {
    outlives(Event::RelayRestarted, "over2");
}

#[test]
fn a_transfer_outlives_its_direct_path() {
    outlives(Event::DirectCut, "over3");
}

#[test]
fn a_transfer_outlives_the_restart_of_its_activator() {
    outlives(Event::ActivatorRestarted, "over4");
}

#[test]
fn new_connections_find_the_second_activator_when_the_first_is_killed() {
    outlives(Event::ActivatorKilled, "over5");
}

#[test]
fn a_transfer_does_not_notice_the_restart_of_discovery() {
    outlives(Event::DiscoveryRestarted, "over6");
}

#[test]
fn a_transfer_outlives_another_address_of_its_sidecar() {
    outlives(Event::AddressChanged, "over7");
}
