//! Two agents and a world between them in which some addresses reach each other, in virtual time.

use super::remotes::MAX_REMOTES;
use super::*;
use crate::config::MAX_REMOTE_CANDIDATES;
use std::collections::BTreeSet;

mod choice;
mod failing;
mod leaving;
mod punching;

const ONE_WAY: Duration = Duration::from_millis(10);

type Route = (SocketAddr, SocketAddr);

struct World {
    now: Instant,
    ends: [Ice; 2],
    /// From which base what address is reached, and as whom the sender appears there.
    routes: Box<dyn Fn(SocketAddr, SocketAddr) -> Option<Route>>,
    wire: Vec<(Instant, usize, Route, BytesMut)>,
    selected: [Vec<(SocketAddr, SocketAddr, Path)>; 2],
    promised: [Option<(SocketAddr, SocketAddr, Instant)>; 2],
    failed: [Option<Instant>; 2],
    silent: [usize; 2],
    /// An address behind which everything takes four times as long.
    slow: Option<SocketAddr>,
    sent: usize,
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn candidate(kind: CandidateKind, text: &str) -> LocalCandidate {
    LocalCandidate {
        kind,
        address: address(text),
        base: address(text),
    }
}

/// Everybody reaches everybody.
fn open(from: SocketAddr, to: SocketAddr) -> Option<Route> {
    Some((from, to))
}

impl World {
    fn new(
        offerer: &[LocalCandidate],
        answerer: &[LocalCandidate],
        routes: impl Fn(SocketAddr, SocketAddr) -> Option<Route> + 'static,
    ) -> Self {
        let certificate = DtlsCertificate::generate().expect("a certificate");
        let (config, now) = (LinkConfig::default(), Instant::now());
        let ends = [(LinkRole::Offerer, offerer), (LinkRole::Answerer, answerer)].map(
            |(role, candidates)| {
                let mut ice = Ice::new(role, &certificate, &config, now).expect("an agent");
                for local in candidates {
                    assert!(ice.add_local(*local), "each once");
                }
                ice
            },
        );
        Self {
            now,
            ends,
            routes: Box::new(routes),
            wire: Vec::new(),
            selected: [Vec::new(), Vec::new()],
            promised: [None, None],
            failed: [None, None],
            silent: [0, 0],
            slow: None,
            sent: 0,
        }
    }

    /// Tells `side` what the other end is.
    fn introduce(&mut self, side: usize) {
        let mut description = SessionDescription::default();
        self.ends[1 - side].describe(&mut description);
        for candidate in &description.candidates {
            self.ends[side].add_remote(candidate).expect("usable");
        }
        self.ends[side]
            .start(&description.ice_ufrag, &description.ice_pwd, self.now)
            .expect("credentials");
        self.drain();
    }

    fn connected(
        offerer: &[LocalCandidate],
        answerer: &[LocalCandidate],
        routes: impl Fn(SocketAddr, SocketAddr) -> Option<Route> + 'static,
    ) -> Self {
        let mut world = Self::new(offerer, answerer, routes);
        world.introduce(1);
        world.introduce(0);
        world
    }

    fn drain(&mut self) {
        for side in [0, 1] {
            while let Some(transmit) = self.ends[side].poll_transmit() {
                self.sent += 1;
                if let Some(route) = (self.routes)(transmit.local, transmit.remote) {
                    let slow = self
                        .slow
                        .is_some_and(|slow| route.0 == slow || route.1 == slow);
                    let arrives = self.now + if slow { 4 * ONE_WAY } else { ONE_WAY };
                    self.wire.push((arrives, 1 - side, route, transmit.payload));
                    self.wire.sort_by_key(|sent| sent.0);
                }
            }
            while let Some(event) = self.ends[side].poll_event() {
                match event {
                    IceEvent::Selected {
                        local,
                        remote,
                        path,
                    } => {
                        self.selected[side].push((local, remote, path));
                    }
                    IceEvent::Promising { local, remote } => {
                        self.promised[side].get_or_insert((local, remote, self.now));
                    }
                    IceEvent::Silent => self.silent[side] += 1,
                    IceEvent::Failed => self.failed[side] = Some(self.now),
                }
            }
        }
    }

    fn run(&mut self, length: Duration) {
        let end = self.now + length;
        loop {
            let arrival = self.wire.first().map(|first| first.0);
            let timers = [0, 1].map(|side| self.ends[side].poll_timeout());
            let next = [arrival, timers[0], timers[1]].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            if arrival == Some(next) {
                let (_, side, (from, to), payload) = self.wire.remove(0);
                self.ends[side].handle_stun(to, from, &payload, self.now);
            } else {
                self.ends
                    .iter_mut()
                    .for_each(|end| end.handle_timeout(self.now));
            }
            self.drain();
        }
    }

    fn last(&self, side: usize) -> Option<(SocketAddr, SocketAddr, Path)> {
        self.selected[side].last().copied()
    }
}

const OFFERER: &str = "10.0.0.10:4000";
const RELAYED: &str = "10.0.0.2:50000";
const HOST: &str = "192.0.2.3:7000";

fn offerer() -> [LocalCandidate; 1] {
    [candidate(CandidateKind::Host, OFFERER)]
}

fn answerer() -> [LocalCandidate; 2] {
    [
        candidate(CandidateKind::Relayed, RELAYED),
        candidate(CandidateKind::Host, HOST),
    ]
}

fn relay_only(from: SocketAddr, to: SocketAddr) -> Option<Route> {
    let relayed = [from, to].contains(&address(RELAYED));
    relayed.then_some((from, to))
}

#[test]
fn the_first_answered_check_selects() {
    let mut world = World::connected(&offerer(), &answerer(), relay_only);
    world.run(2 * ONE_WAY);
    let (ours, relayed) = (address(OFFERER), address(RELAYED));
    assert_eq!(world.last(0), Some((ours, relayed, Path::RelayUdp)));
    world.run(ONE_WAY);
    assert_eq!(world.last(1), Some((relayed, ours, Path::RelayUdp)));
    world.run(Duration::from_secs(20));
    assert_eq!(world.selected.map(|all| all.len()), [1, 1]);
}

#[test]
fn a_path_without_a_relay_takes_over() {
    let begin = Instant::now();
    let late = std::rc::Rc::new(std::cell::Cell::new(false));
    let opened = late.clone();
    let routes = move |from, to| {
        if late.get() {
            open(from, to)
        } else {
            relay_only(from, to)
        }
    };
    let mut world = World::connected(&offerer(), &answerer(), routes);
    world.run(Duration::from_millis(350));
    assert_eq!(world.last(0).expect("selected").2, Path::RelayUdp);
    opened.set(true);
    world.run(Duration::from_secs(1));
    for side in [0, 1] {
        assert_eq!(world.last(side).expect("selected").2, Path::Direct);
    }
    assert!(begin < world.now);
}

#[test]
fn a_dead_path_is_left_for_another_and_the_last_one_ends_it() {
    let dead = std::rc::Rc::new(std::cell::RefCell::new(BTreeSet::new()));
    let cut = dead.clone();
    let routes = move |from: SocketAddr, to: SocketAddr| {
        let dead = dead.borrow();
        (!dead.contains(&from) && !dead.contains(&to)).then_some((from, to))
    };
    let mut world = World::connected(&offerer(), &answerer(), routes);
    world.run(Duration::from_secs(1));
    assert_eq!(world.last(0).expect("selected").2, Path::Direct);
    for (down, path) in [(HOST, Some(Path::RelayUdp)), (RELAYED, None)] {
        cut.borrow_mut().insert(address(down));
        // What was on the wire arrives.
        world.run(2 * ONE_WAY);
        let now = world.now;
        world.ends.iter_mut().for_each(|end| end.sent(now));
        world.run(Duration::from_secs(5));
        match path {
            Some(path) => {
                assert_eq!(world.last(0).expect("selected").2, path);
                assert_eq!(world.last(1).expect("selected").2, path);
                assert_eq!(world.failed, [None, None]);
            }
            None => assert!(world.failed.iter().all(Option::is_some)),
        }
    }
}

#[test]
fn an_idle_path_costs_next_to_nothing_and_is_watched_all_the_same() {
    let minute = Duration::from_secs(60);
    let silent = std::rc::Rc::new(std::cell::Cell::new(false));
    let cut = silent.clone();
    let routes = move |from, to| relay_only(from, to).filter(|_| !silent.get());
    let mut world = World::connected(&offerer(), &answerer(), routes);
    world.run(minute);
    let before = world.sent;
    world.run(60 * minute);
    assert!(
        world.sent - before <= 60 * 4,
        "more than one packet in 15 s: {}",
        world.sent - before
    );
    assert_eq!(world.failed, [None, None]);
    cut.set(true);
    world.run(2 * minute);
    assert!(world.failed.iter().all(Option::is_some));
}

#[test]
fn what_is_sent_and_answered_by_nothing_else_is_answered_by_a_check() {
    let mut world = World::connected(&offerer(), &answerer(), relay_only);
    world.run(Duration::from_secs(1));
    for _ in 0..20 {
        let now = world.now;
        world.ends[0].sent(now);
        world.run(Duration::from_secs(1));
    }
    assert_eq!(world.failed, [None, None]);
}

#[test]
fn an_address_nobody_told_of_is_learned_from_its_checks() {
    // A NAT before the offerer: outside it is another, and only what it sent to may answer.
    let outside = address("203.0.113.9:61000");
    let routes = move |from: SocketAddr, to: SocketAddr| {
        if from == address(OFFERER) {
            Some((outside, to))
        } else if to == outside {
            Some((from, address(OFFERER)))
        } else {
            None
        }
    };
    let host = [candidate(CandidateKind::Host, HOST)];
    let mut world = World::connected(&offerer(), &host, routes);
    world.run(Duration::from_secs(1));
    let (ours, theirs) = (address(OFFERER), address(HOST));
    assert_eq!(world.last(0), Some((ours, theirs, Path::Direct)));
    assert_eq!(world.last(1), Some((theirs, outside, Path::Direct)));
}

#[test]
fn checks_that_come_before_the_answer_are_not_lost() {
    let mut world = World::new(&offerer(), &answerer(), relay_only);
    world.introduce(1);
    // The answerer's checks arrive, and are answered, long before its answer.
    world.run(Duration::from_millis(300));
    assert_eq!(world.last(1), None, "nothing is nominated yet");
    world.introduce(0);
    let path = (address(OFFERER), address(RELAYED), world.now);
    assert_eq!(world.promised[0], Some(path), "known at once");
    world.run(2 * ONE_WAY);
    assert!(world.last(0).is_some() && world.last(1).is_some());
    let known_as = world.last(0).map(|(_, _, path)| path);
    assert_eq!(known_as, Some(Path::RelayUdp), "the answer said so");
}

#[test]
fn two_ends_of_one_role_agree_on_who_controls() {
    for side in [0, 1] {
        let mut world = World::new(&offerer(), &answerer(), relay_only);
        let same = world.ends[1 - side].controlling;
        world.ends[side].controlling = same;
        world.introduce(1);
        world.introduce(0);
        world.run(Duration::from_secs(2));
        assert_ne!(world.ends[0].controlling, world.ends[1].controlling);
        assert!(world.last(0).is_some() && world.last(1).is_some());
    }
}

#[test]
fn nobody_there_ends_it_in_time() {
    let mut world = World::connected(&offerer(), &answerer(), |_, _| None);
    let begin = world.now;
    world.run(Duration::from_secs(30));
    let limit = LinkConfig::default().check_timeout + Duration::from_secs(1);
    for failed in world.failed {
        assert!(failed.expect("failed") - begin <= limit);
    }
    // Every pair was tried again, and none for ever.
    assert!((12..60).contains(&world.sent), "{}", world.sent);
}

#[test]
fn what_can_be_learned_is_bounded() {
    let mut world = World::connected(&offerer(), &answerer(), relay_only);
    world.run(Duration::from_secs(1));
    let mut description = SessionDescription::default();
    world.ends[1].describe(&mut description);
    let theirs = Credentials {
        ufrag: description.ice_ufrag,
        pwd: description.ice_pwd,
    };
    for port in 1..=500_u16 {
        let check = Check {
            id: u128::from(port).into(),
            priority: 7,
            controlling: true,
            tie_breaker: u64::MAX,
            nominate: true,
        };
        let payload = message::encode_check(&check, &world.ends[0].local, &theirs);
        let from = SocketAddr::new(address(OFFERER).ip(), port);
        let now = world.now;
        assert!(world.ends[1].handle_stun(address(RELAYED), from, &payload, now));
    }
    assert!(world.ends[1].remotes.len() <= MAX_REMOTES);
    assert!(world.ends[1].pairs.len() <= MAX_PAIRS);
    assert!(!world.ends[1].handle_stun(address(HOST), address(HOST), b"\0\x01garbage", world.now));
}

#[test]
fn a_peer_that_was_in_many_places_is_reached_at_the_latest() {
    let mut world = World::connected(&offerer(), &answerer(), open);
    world.run(Duration::from_secs(1));
    let used = world.last(1).unwrap().1;
    let mut told = |kind: CandidateKind, address: SocketAddr| {
        let moved = candidate(kind, &address.to_string()).to_wire();
        world.ends[1].add_remote(&moved).unwrap();
    };
    let inside = address("10.9.0.7:7000");
    told(CandidateKind::Host, inside);
    for port in 1..=100_u16 {
        let moved = SocketAddr::new(address(OFFERER).ip(), port);
        told(CandidateKind::ServerReflexive, moved);
    }
    let end = &world.ends[1];
    let latest = SocketAddr::new(address(OFFERER).ip(), 100);
    assert!(end.remotes().contains(&latest));
    assert!(
        end.remotes().contains(&inside),
        "no NAT gives another for it"
    );
    assert!(end.remotes.iter().any(|known| known.address == inside));
    assert!(end.remotes().len() <= MAX_REMOTE_CANDIDATES);
    assert!(end.pairs.iter().any(|pair| pair.remote == latest));
    assert!(end.remotes().contains(&used), "it carries packets");
    assert!(end.remotes.len() <= MAX_REMOTES && end.pairs.len() <= MAX_PAIRS);
}
