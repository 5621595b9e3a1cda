//! A path whose limit is known, and changes.

use super::*;

/// A path of 20 ms that drops what is longer than `limit`; 0 drops everything.
struct Path {
    prober: Prober,
    now: Instant,
    limit: usize,
    /// Acknowledgements on the way.
    coming: VecDeque<(Instant, u32)>,
    probes: usize,
    random: u64,
    /// Of a hundred.
    loss: u64,
}

const ROUND_TRIP: Duration = Duration::from_millis(20);
const STEP_OF_TIME: Duration = Duration::from_millis(5);
const SECOND: Duration = Duration::from_secs(1);

impl Path {
    fn new(limit: usize) -> Self {
        let now = Instant::now();
        Self {
            prober: Prober::new(1437, 1472, now),
            now,
            limit,
            coming: VecDeque::new(),
            probes: 0,
            random: 0x9e37_79b9_7f4a_7c15,
            loss: 0,
        }
    }

    fn run(&mut self, time: Duration, traffic: bool) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP_OF_TIME;
            while self.coming.front().is_some_and(|(at, _)| *at <= self.now) {
                let (_, id) = self.coming.pop_front().expect("there is one");
                self.prober.on_heard(self.now);
                self.prober.on_acknowledged(id, self.now);
            }
            if traffic {
                self.prober.on_traffic(self.now);
            }
            while let Some(probe) = self.prober.poll_probe(self.now) {
                self.probes += 1;
                self.random ^= self.random << 13;
                self.random ^= self.random >> 7;
                self.random ^= self.random << 17;
                if probe.size <= self.limit && self.random % 100 >= self.loss {
                    self.coming.push_back((self.now + ROUND_TRIP, probe.id));
                }
            }
        }
    }
}

#[test]
fn the_limit_of_any_path_is_found() {
    for limit in [
        1200, 1207, 1280, 1399, 1436, 1437, 1440, 1452, 1471, 1472, 9000,
    ] {
        let mut path = Path::new(limit);
        path.run(20 * SECOND, false);
        let found = path.prober.limit();
        assert!(path.prober.is_alive(), "{limit}");
        assert!(
            found <= limit && found + STEP >= limit.min(1472),
            "{found} of {limit}"
        );
    }
}

#[test]
fn a_path_that_takes_nothing_is_never_alive_and_soon_left_alone() {
    for limit in [0, 1199] {
        let mut path = Path::new(limit);
        path.run(600 * SECOND, true);
        assert!(!path.prober.is_alive());
        let before = path.probes;
        path.run(600 * SECOND, false);
        assert!(path.probes - before <= 12, "{}", path.probes - before);
    }
}

#[test]
fn it_is_alive_after_one_round_trip() {
    let mut path = Path::new(1472);
    path.run(ROUND_TRIP + 2 * STEP_OF_TIME, false);
    assert!(path.prober.is_alive());
    assert_eq!(path.prober.limit(), 1437);
}

#[test]
fn an_idle_path_costs_nothing() {
    let mut path = Path::new(1472);
    path.run(10 * SECOND, false);
    let before = path.probes;
    path.run(10_000 * SECOND, false);
    assert_eq!(path.probes, before);
    assert_eq!(path.prober.poll_timeout(), None);
}

#[test]
fn a_limit_that_sinks_is_noticed_within_seconds_of_traffic_and_raised_again_later() {
    let mut path = Path::new(1472);
    path.run(10 * SECOND, true);
    assert!(path.prober.limit() > 1464);
    path.limit = 1300;
    path.run(3 * SECOND, true);
    let limit = path.prober.limit();
    assert!(path.prober.is_alive() && limit <= 1300, "{limit}");
    path.run(10 * SECOND, true);
    let limit = path.prober.limit();
    assert!(limit <= 1300 && limit + STEP >= 1300, "{limit}");
    path.limit = 1472;
    path.run(RAISE_AFTER + 10 * SECOND, true);
    assert!(path.prober.limit() > 1464);
}

#[test]
fn a_dead_path_is_noticed_within_two_seconds_of_traffic_and_found_again() {
    let mut path = Path::new(1472);
    path.run(10 * SECOND, true);
    path.limit = 0;
    path.run(Duration::from_millis(2_600), true);
    assert!(!path.prober.is_alive());
    path.limit = 1472;
    path.run(2 * SECOND, true);
    assert!(path.prober.is_alive());
}

#[test]
fn a_path_that_loses_every_third_datagram_is_not_given_up() {
    let mut path = Path::new(1472);
    path.loss = 33;
    path.run(10 * SECOND, true);
    for _ in 0..600 {
        path.run(SECOND, true);
        assert!(path.prober.is_alive());
    }
}

#[test]
fn what_others_know_of_the_path_is_believed() {
    let mut path = Path::new(1472);
    path.run(10 * SECOND, true);
    path.prober.lower(1280);
    assert_eq!(path.prober.limit(), 1280);
    path.run(700 * SECOND, true);
    assert_eq!(path.prober.limit(), 1280);
    let now = path.now;
    path.prober.on_path_change(now);
    path.run(SECOND, true);
    assert!(path.prober.is_alive());
    assert_eq!(path.prober.limit(), 1280);
}

#[test]
fn an_acknowledgement_of_nothing_that_was_sent_means_nothing() {
    let mut path = Path::new(0);
    path.run(SECOND, false);
    let now = path.now;
    assert!(!path.prober.on_acknowledged(77_777, now));
    assert!(!path.prober.is_alive());
}
