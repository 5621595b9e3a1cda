//! Addresses that will soon be gone.

use super::failing::{Failing, SECOND, two_relays};
use super::*;

const SETTLED: Duration = Duration::from_secs(12);

impl Failing {
    /// Both ends know of it.
    fn leave(&mut self, what: SocketAddr) {
        let now = self.world.now;
        assert!(self.world.ends[1].leave_local(what, now));
        self.world.ends[0].leave_remote(what, now);
        self.world.drain();
    }

    /// What each end uses of the answerer's.
    fn used(&self) -> [SocketAddr; 2] {
        let [offerer, answerer] = [0, 1].map(|side| self.world.last(side).expect("selected"));
        [offerer.1, answerer.0]
    }
}

#[test]
fn both_ends_go_over_to_the_other_relay_in_a_round_trip_or_so() {
    let mut failing = Failing::new(&two_relays());
    failing.talk(SETTLED);
    let [used, _] = failing.used();
    failing.leave(used);
    failing.talk(Duration::from_millis(100));
    let [ours, theirs] = failing.used();
    assert!(ours == theirs && ours != used, "{ours} {theirs}");
    let now = failing.world.now;
    assert!(
        !failing.world.ends[1].has_left(used, now),
        "something may be under way"
    );
    failing.talk(Duration::from_secs(3));
    let now = failing.world.now;
    assert!(failing.world.ends[1].has_left(used, now));
    failing.kill(&used.to_string());
    failing.talk(Duration::from_secs(30));
    assert_eq!(failing.used(), [ours; 2]);
    assert_eq!(failing.world.silent, [0, 0]);
}

#[test]
fn a_link_that_is_not_used_goes_over_too() {
    let mut failing = Failing::new(&two_relays());
    failing.world.run(SETTLED);
    let [used, _] = failing.used();
    failing.leave(used);
    failing.world.run(Duration::from_secs(3));
    let [ours, theirs] = failing.used();
    assert!(ours == theirs && ours != used, "{ours} {theirs}");
    let now = failing.world.now;
    assert!(failing.world.ends[1].has_left(used, now));
}

#[test]
fn without_another_it_carries_until_there_is_one() {
    let relay = [candidate(CandidateKind::Relayed, RELAYED)];
    let mut failing = Failing::new(&relay);
    failing.talk(SETTLED);
    failing.leave(address(RELAYED));
    failing.talk(SETTLED);
    assert_eq!(failing.used(), [address(RELAYED); 2]);
    let now = failing.world.now;
    assert!(!failing.world.ends[1].has_left(address(RELAYED), now));
    failing.world.ends[1].add_local(candidate(CandidateKind::Relayed, SECOND));
    failing.talk(Duration::from_millis(200));
    assert_eq!(failing.used(), [address(SECOND); 2]);
    assert_eq!(failing.world.silent, [0, 0]);
}

#[test]
fn it_is_used_again_when_the_other_one_dies() {
    let mut failing = Failing::new(&two_relays());
    failing.talk(SETTLED);
    let [used, _] = failing.used();
    failing.leave(used);
    failing.talk(Duration::from_secs(1));
    let [other, _] = failing.used();
    failing.kill(&other.to_string());
    failing.talk(Duration::from_secs(1));
    assert_eq!(failing.used(), [used; 2]);
}

#[test]
fn a_peer_can_only_name_addresses_of_its_own_and_they_are_forgotten_with_it() {
    let mut failing = Failing::new(&two_relays());
    failing.talk(SETTLED);
    let [used, _] = failing.used();
    let now = failing.world.now;
    let end = &mut failing.world.ends[0];
    for port in 1..100 {
        end.leave_remote(SocketAddr::new(used.ip(), port), now);
    }
    end.leave_remote(address(OFFERER), now);
    assert!(end.leaving.is_empty());
    end.leave_remote(used, now);
    end.leave_remote(used, now);
    assert_eq!(end.leaving.len(), 1);
    end.retire(used, now);
    assert!(end.leaving.is_empty());
}

#[test]
fn one_that_is_told_of_anew_is_there_to_stay() {
    let mut failing = Failing::new(&two_relays());
    failing.talk(SETTLED);
    let [used, _] = failing.used();
    let now = failing.world.now;
    let end = &mut failing.world.ends[0];
    end.leave_remote(used, now);
    assert!(end.pairs.iter().any(|pair| pair.leaving));
    let told = candidate(CandidateKind::Relayed, &used.to_string()).to_wire();
    end.add_remote(&told).expect("usable");
    assert!(end.pairs.iter().all(|pair| !pair.leaving));
}
