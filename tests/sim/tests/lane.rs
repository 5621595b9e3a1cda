//! Two links on a rough path, by either carrier: every packet at most once and intact, and what is sent once the path
//! is good again arrives. `TURNPIKE_SEEDS` says how many paths; a failure names its seed, `TURNPIKE_SEED` runs only it.

#[path = "../../../libs/wire/tests/common/mod.rs"]
#[allow(clippy::unwrap_used)]
mod packets;
#[path = "lane/expected.rs"]
mod expected;
#[path = "lane/path.rs"]
mod path;
#[path = "lane/traffic.rs"]
mod traffic;

use std::time::Duration;

use link::Carrier;
use path::{Conditions, Path};

const SECOND: Duration = Duration::from_secs(1);
/// In a default run; a second or two.
const SEEDS: u64 = 12;

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("TURNPIKE_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("TURNPIKE_SEEDS").unwrap_or(SEEDS)).collect(),
    }
}

/// A rough while and a good end; whether the link lived.
fn rough(seed: u64, carrier: Carrier) -> bool {
    let mut path = Path::open(seed, carrier);
    for _ in 0..6 {
        path.change();
        for _ in 0..25 {
            path.send_some();
            path.run(Duration::from_millis(40));
        }
    }
    // What is still on the way arrives, or never will.
    path.conditions = Conditions::good();
    path.run(8 * SECOND);
    if !path.is_open() {
        return false;
    }
    path.forget();
    for _ in 0..10 {
        path.send_some();
        path.run(Duration::from_millis(50));
    }
    path.run(3 * SECOND);
    if path.is_open() {
        path.assert_nothing_is_missing();
    }
    path.is_open()
}

fn over_all_seeds(carrier: Carrier) {
    let seeds = seeds();
    let lived = seeds.iter().filter(|seed| rough(**seed, carrier)).count();
    assert!(lived * 10 >= seeds.len() * 9, "{lived} of {}", seeds.len());
}

#[test]
fn a_rough_path_repeats_and_spoils_nothing_over_the_lane() {
    over_all_seeds(Carrier::Auto);
}

#[test]
fn a_rough_path_repeats_and_spoils_nothing_over_the_data_channel() {
    over_all_seeds(Carrier::DataChannel);
}

#[test]
fn on_a_good_path_every_kind_of_packet_arrives_as_it_was_by_either_carrier() {
    for carrier in [Carrier::Auto, Carrier::DataChannel] {
        for seed in 1..=4 {
            let mut path = Path::open(seed, carrier);
            path.run(SECOND);
            path.forget();
            for _ in 0..40 {
                path.send_some();
                path.run(Duration::from_millis(20));
            }
            path.run(2 * SECOND);
            path.assert_nothing_is_missing();
            let expected = match carrier {
                Carrier::Auto => Carrier::Datagram,
                other => other,
            };
            for link in &path.links {
                assert_eq!(link.carrier(), expected);
                let stats = link.stats();
                assert_eq!(stats.lane.dropped(), 0);
                let by_lane = carrier == Carrier::Auto;
                assert_eq!(stats.lane.frames_sent * 2 > stats.frames_sent, by_lane);
                assert_eq!(stats.lane.packets_joined > 100, by_lane);
            }
        }
    }
}

#[test]
fn a_path_that_lets_no_lane_through_is_served_by_the_data_channel_and_by_the_lane_again_later() {
    for seed in 1..=4 {
        let mut path = Path::open(seed, Carrier::Auto);
        path.run(SECOND);
        assert_eq!(path.links[0].carrier(), Carrier::Datagram);
        path.conditions.lane = false;
        for _ in 0..80 {
            path.send_some();
            path.run(Duration::from_millis(50));
        }
        assert!(path.is_open(), "{:?}", path.closed);
        assert_eq!(path.links[0].carrier(), Carrier::DataChannel);
        assert_eq!(path.links[1].carrier(), Carrier::DataChannel);
        path.forget();
        path.send_some();
        path.run(3 * SECOND);
        path.assert_nothing_is_missing();
        path.conditions.lane = true;
        path.run(20 * SECOND);
        assert_eq!(path.links[0].carrier(), Carrier::Datagram);
        let changes = [Carrier::Datagram, Carrier::DataChannel, Carrier::Datagram];
        assert_eq!(path.carriers, [changes.to_vec(), changes.to_vec()]);
    }
}

#[test]
fn an_old_peer_or_one_that_does_not_want_the_lane_has_the_data_channel() {
    for choices in [
        [Carrier::Auto, Carrier::DataChannel],
        [Carrier::DataChannel, Carrier::Datagram],
    ] {
        let mut path = Path::open_with(1, choices);
        path.run(SECOND);
        path.forget();
        path.send_some();
        path.run(2 * SECOND);
        path.assert_nothing_is_missing();
        assert!(
            path.links
                .iter()
                .all(|link| link.carrier() == Carrier::DataChannel)
        );
        assert!(path.carriers.iter().all(Vec::is_empty));
    }
}

#[test]
fn a_path_whose_limit_sinks_loses_packets_for_seconds_and_not_for_good() {
    let mut path = Path::open(1, Carrier::Auto);
    path.run(5 * SECOND);
    let before = path.links[0].frame_mtu();
    assert!(before > 1_440, "{before}");
    path.conditions.limit = 1_300;
    for _ in 0..100 {
        path.send_some();
        path.run(Duration::from_millis(50));
    }
    assert!(path.links[0].frame_mtu() <= 1_300 - 22);
    assert_eq!(path.links[0].carrier(), Carrier::Datagram);
    path.run(2 * SECOND);
    path.forget();
    for _ in 0..20 {
        path.send_some();
        path.run(Duration::from_millis(50));
    }
    path.run(2 * SECOND);
    path.assert_nothing_is_missing();
}
