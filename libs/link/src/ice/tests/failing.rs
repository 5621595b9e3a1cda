//! Paths that die, with other paths at hand, or none.

use super::*;

pub(super) const SECOND: &str = "10.0.0.4:50001";

/// A world with two relays in which addresses can be cut off, both ends sending all the time.
pub(super) struct Failing {
    pub(super) world: World,
    dead: std::rc::Rc<std::cell::RefCell<BTreeSet<SocketAddr>>>,
}

impl Failing {
    pub(super) fn new(answerer: &[LocalCandidate]) -> Self {
        let dead = std::rc::Rc::new(std::cell::RefCell::new(BTreeSet::new()));
        let cut = dead.clone();
        let routes = move |from: SocketAddr, to: SocketAddr| {
            let cut = cut.borrow();
            (!cut.contains(&from) && !cut.contains(&to)).then_some((from, to))
        };
        let world = World::connected(&offerer(), answerer, routes);
        Self { world, dead }
    }

    /// Both ends send every 20 ms for this long, and hear what gets through.
    pub(super) fn talk(&mut self, length: Duration) {
        let end = self.world.now + length;
        while self.world.now < end {
            let now = self.world.now;
            for side in [0, 1] {
                self.world.ends[side].sent(now);
                let Some((local, remote, _)) = self.world.last(side) else {
                    continue;
                };
                if let Some((from, to)) = (self.world.routes)(local, remote) {
                    self.world.ends[1 - side].heard(to, from, now);
                }
            }
            self.world.drain();
            self.world.run(Duration::from_millis(20));
        }
    }

    pub(super) fn kill(&self, what: &str) {
        self.dead.borrow_mut().insert(address(what));
    }
}

pub(super) fn two_relays() -> [LocalCandidate; 2] {
    [RELAYED, SECOND].map(|relayed| candidate(CandidateKind::Relayed, relayed))
}

#[test]
fn a_relay_that_dies_under_traffic_is_left_for_the_other_within_600_ms() {
    let mut failing = Failing::new(&two_relays());
    failing.talk(Duration::from_secs(12));
    let (_, used, _) = failing.world.last(0).expect("selected");
    failing.kill(&used.to_string());
    failing.talk(Duration::from_millis(600));
    for side in [0, 1] {
        let (local, remote, path) = failing.world.last(side).expect("selected");
        assert_eq!(path, Path::RelayUdp);
        assert!(local != used && remote != used, "side {side}");
    }
    assert_eq!(failing.world.silent, [0, 0], "another was at hand");
}

#[test]
fn a_direct_path_that_is_cut_is_left_within_600_ms_and_taken_again_when_it_is_back() {
    let mut failing = Failing::new(&answerer());
    failing.talk(Duration::from_secs(12));
    assert_eq!(failing.world.last(0).expect("selected").2, Path::Direct);
    failing.kill(HOST);
    failing.talk(Duration::from_millis(600));
    for side in [0, 1] {
        let path = failing.world.last(side).expect("selected").2;
        assert_eq!(path, Path::RelayUdp, "side {side}");
    }
    failing.dead.borrow_mut().clear();
    failing.talk(Duration::from_secs(6));
    for side in [0, 1] {
        let path = failing.world.last(side).expect("selected").2;
        assert_eq!(path, Path::Direct, "side {side}");
    }
}

#[test]
fn a_link_without_any_path_says_so_and_goes_on_over_a_new_relayed_address() {
    let relay = [candidate(CandidateKind::Relayed, RELAYED)];
    let mut failing = Failing::new(&relay);
    failing.talk(Duration::from_secs(2));
    failing.kill(RELAYED);
    failing.talk(Duration::from_millis(700));
    assert_eq!(failing.world.silent, [1, 1]);
    // The answerer has another allocation; nobody tells the offerer but its checks.
    let now = failing.world.now;
    let answerer = &mut failing.world.ends[1];
    answerer.retire(address(RELAYED), now);
    answerer.add_local(candidate(CandidateKind::Relayed, SECOND));
    failing.talk(Duration::from_millis(500));
    for side in [0, 1] {
        let (_, _, path) = failing.world.last(side).expect("selected");
        assert_eq!(path, Path::RelayUdp, "the offerer knows it for a relay's");
    }
    let (ours, theirs) = (address(OFFERER), address(SECOND));
    assert_eq!(failing.world.last(0).map(|it| it.1), Some(theirs));
    assert_eq!(failing.world.last(1).map(|it| it.1), Some(ours));
    assert_eq!(failing.world.failed, [None, None]);
}

#[test]
fn a_relay_that_is_back_after_three_seconds_without_any_path_is_found_before_the_link_ends() {
    let mut failing = Failing::new(&answerer());
    failing.talk(Duration::from_secs(12));
    assert_eq!(failing.world.last(0).expect("selected").2, Path::Direct);
    failing.kill(HOST);
    failing.kill(RELAYED);
    failing.talk(Duration::from_secs(3));
    assert_eq!(failing.world.silent, [1, 1]);
    failing.dead.borrow_mut().remove(&address(RELAYED));
    failing.talk(Duration::from_millis(900));
    for side in [0, 1] {
        let path = failing.world.last(side).expect("selected").2;
        assert_eq!(path, Path::RelayUdp, "side {side}");
    }
    assert_eq!(failing.world.failed, [None, None]);
}

#[test]
fn a_relay_that_is_back_after_the_used_one_was_retired_is_found_before_the_link_ends() {
    let mut failing = Failing::new(&two_relays());
    failing.talk(Duration::from_secs(12));
    let (_, used, _) = failing.world.last(0).expect("selected");
    let other = if used == address(RELAYED) {
        SECOND
    } else {
        RELAYED
    };
    failing.kill(RELAYED);
    failing.kill(SECOND);
    failing.talk(Duration::from_millis(200));
    let now = failing.world.now;
    for end in &mut failing.world.ends {
        end.retire(used, now);
    }
    failing.talk(Duration::from_secs(3));
    failing.dead.borrow_mut().remove(&address(other));
    failing.talk(Duration::from_millis(900));
    for side in [0, 1] {
        let (local, remote, _) = failing.world.last(side).expect("selected");
        assert!([local, remote].contains(&address(other)), "side {side}");
    }
    assert_eq!(failing.world.failed, [None, None]);
}

#[test]
fn a_nat_that_forgets_its_mapping_a_hundred_times_is_followed_each_time() {
    let outside = |port: u16| SocketAddr::new(address("198.51.100.1:1").ip(), port);
    let port = std::rc::Rc::new(std::cell::Cell::new(1_000));
    let mapped = port.clone();
    let routes = move |from: SocketAddr, to: SocketAddr| {
        if to == address(HOST) {
            return Some((outside(mapped.get()), to));
        }
        let open = from == address(HOST) && to == outside(mapped.get());
        open.then(|| (from, address(OFFERER)))
    };
    let host = [candidate(CandidateKind::Host, HOST)];
    let mut failing = Failing {
        world: World::connected(&offerer(), &host, routes),
        dead: std::rc::Rc::default(),
    };
    for round in 0..100 {
        port.set(1_000 + round);
        failing.talk(Duration::from_secs(2));
        let of = |side: usize| failing.world.last(side).map(|it| it.1);
        assert_eq!(of(0), Some(address(HOST)), "round {round}");
        assert_eq!(of(1), Some(outside(1_000 + round)), "round {round}");
        assert_eq!(failing.world.failed, [None, None], "round {round}");
    }
}

#[test]
fn an_offerer_of_many_addresses_falls_back_to_a_relay_that_was_restarted() {
    let outside = |port: u16| SocketAddr::new(address("198.51.100.1:1").ip(), port);
    let port = std::rc::Rc::new(std::cell::Cell::new(1_000));
    let blocked = std::rc::Rc::new(std::cell::Cell::new(false));
    let (mapped, closed) = (port.clone(), blocked.clone());
    let relayed = [RELAYED, SECOND].map(address);
    let routes = move |from: SocketAddr, to: SocketAddr| {
        if [from, to].iter().any(|one| relayed.contains(one)) {
            return Some((from, to));
        }
        if closed.get() {
            return None;
        }
        if to == address(HOST) {
            return Some((outside(mapped.get()), to));
        }
        let open = from == address(HOST) && to == outside(mapped.get());
        open.then(|| (from, address(OFFERER)))
    };
    // Those on other networks' relays reach nobody here.
    let elsewhere = (1..=8).map(|network| format!("10.{network}.0.2:50000"));
    let elsewhere = elsewhere.map(|relayed| candidate(CandidateKind::Relayed, &relayed));
    let locals: Vec<LocalCandidate> = answerer().into_iter().chain(elsewhere).collect();
    let mut failing = Failing {
        world: World::connected(&offerer(), &locals, routes),
        dead: std::rc::Rc::default(),
    };
    for round in 0..40 {
        port.set(1_000 + round);
        let told = outside(1_000 + round).to_string();
        let told = candidate(CandidateKind::ServerReflexive, &told).to_wire();
        failing.world.ends[1].add_remote(&told).unwrap();
        failing.talk(Duration::from_secs(3));
        assert_eq!(failing.world.failed, [None, None], "round {round}");
    }
    let again = candidate(CandidateKind::Relayed, SECOND);
    let now = failing.world.now;
    for end in &mut failing.world.ends {
        end.retire(address(RELAYED), now);
    }
    assert!(failing.world.ends[1].add_local(again));
    failing.world.ends[0].add_remote(&again.to_wire()).unwrap();
    failing.talk(Duration::from_secs(5));
    blocked.set(true);
    failing.talk(Duration::from_secs(2));
    for side in [0, 1] {
        let (local, remote, path) = failing.world.last(side).expect("selected");
        assert_eq!(path, Path::RelayUdp, "side {side}");
        let ends = [local, remote];
        assert!(ends.contains(&address(SECOND)), "side {side}: {ends:?}");
    }
    assert_eq!(failing.world.failed, [None, None]);
}

#[test]
fn pairs_that_are_kept_cost_a_used_link_little_and_an_idle_one_nothing() {
    let mut failing = Failing::new(&[two_relays()[0], two_relays()[1], answerer()[1]]);
    failing.talk(Duration::from_secs(10));
    let before = failing.world.sent;
    failing.talk(Duration::from_secs(60));
    let used = failing.world.sent - before;
    assert!(used <= 60 * 2, "in a minute of use: {used}");
    failing.world.run(Duration::from_secs(60));
    let before = failing.world.sent;
    failing.world.run(Duration::from_secs(600));
    let idle = failing.world.sent - before;
    assert!(idle <= 40, "in ten idle minutes: {idle}");
}

#[test]
fn the_quicker_of_two_relays_is_used() {
    let mut failing = Failing::new(&two_relays());
    failing.talk(Duration::from_secs(1));
    let (_, first, _) = failing.world.last(0).expect("selected");
    failing.world.slow = Some(first);
    failing.talk(Duration::from_secs(20));
    for side in [0, 1] {
        let (local, remote, _) = failing.world.last(side).expect("selected");
        assert!(local != first && remote != first, "side {side}");
    }
}
