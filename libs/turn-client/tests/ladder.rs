//! Which way to a relay is used: the ladder's decisions in virtual time.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use stun_types::message::{Message, MessageWrite as _, MessageWriteVec};
use turnpike_turn_client::{Ladder, Rung, Step};

const UDP: Rung = 0;
const TCP: Rung = 1;
const TLS: Rung = 2;

struct World {
    start: Instant,
    now: Instant,
    ladder: Ladder,
    /// What the allocation says.
    unanswered: Option<Instant>,
    /// Which rungs answer.
    works: [bool; 3],
    steps: Vec<(u128, Step)>,
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl World {
    fn new(works: [bool; 3]) -> Self {
        let now = Instant::now();
        let mut world = Self {
            start: now,
            now,
            ladder: Ladder::new(3, 7, now),
            unanswered: None,
            works,
            steps: Vec::new(),
        };
        world.change(works);
        world
    }

    fn change(&mut self, works: [bool; 3]) {
        self.works = works;
        let answers = works[self.ladder.current()];
        self.unanswered = (!answers).then_some(self.now);
        self.settle();
    }

    fn settle(&mut self) {
        loop {
            self.ladder.handle_timeout(self.now, self.unanswered, None);
            let Some(step) = self.ladder.poll_step() else {
                return;
            };
            let at = (self.now - self.start).as_millis();
            self.steps.push((at, step.clone()));
            match step {
                Step::Open(rung) if rung == UDP || self.works[rung] => {
                    self.ladder.handle_open(rung, self.now);
                }
                Step::Open(rung) => self.ladder.handle_failed(rung, self.now),
                Step::Send(rung, message) if self.works[rung] => {
                    let request = Message::from_bytes(&message).unwrap();
                    let answer =
                        Message::builder_success(&request, MessageWriteVec::new()).finish();
                    assert!(!self.ladder.handle_message(rung, b"noise"));
                    assert!(self.ladder.handle_message(rung, &answer));
                }
                Step::Move { to, .. } => {
                    self.ladder.handle_moved(self.now);
                    self.unanswered = (!self.works[to]).then_some(self.now);
                }
                Step::Send(..) | Step::Close(_) => {}
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.ladder.poll_timeout(self.unanswered, None)
            && next <= end
        {
            assert!(next > self.now, "it wants to be woken for nothing");
            self.now = next;
            self.settle();
        }
        self.now = end;
    }

    fn moves(&self) -> Vec<(u128, Rung)> {
        let moves = self.steps.iter().filter_map(|(at, step)| match step {
            Step::Move { to, .. } => Some((*at, *to)),
            _ => None,
        });
        moves.collect()
    }
}

#[test]
fn where_udp_works_nothing_else_is_tried() {
    let mut world = World::new([true; 3]);
    world.pass(Duration::from_secs(3_600));
    assert_eq!(world.steps, []);
    assert_eq!(world.ladder.poll_timeout(None, None), None);
}

#[test]
fn tcp_is_tried_when_udp_is_silent_for_300_ms_and_tls_300_ms_later() {
    let mut world = World::new([false, true, true]);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.moves(), [(300, TCP)]);
    let mut world = World::new([false, false, true]);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.moves(), [(600, TLS)]);
}

#[test]
fn a_relay_that_is_merely_slow_stays_on_udp() {
    let mut world = World::new([false, true, true]);
    world.pass(ms(290));
    world.works[UDP] = true;
    world.unanswered = None;
    world.pass(Duration::from_secs(10));
    assert_eq!(world.moves(), []);
}

#[test]
fn udp_is_tried_again_ever_less_often_and_used_when_it_is_back() {
    let mut world = World::new([false, true, true]);
    world.pass(Duration::from_secs(120));
    assert_eq!(world.moves().len(), 1);
    let tries = world
        .steps
        .iter()
        .filter(|(_, step)| *step == Step::Open(UDP));
    assert!((4..=12).contains(&tries.count()), "{:?}", world.steps);
    world.change([true; 3]);
    world.pass(Duration::from_secs(33));
    assert_eq!(world.moves().last().unwrap().1, UDP);
    // What was left is closed a moment later.
    assert_eq!(world.steps.last().unwrap().1, Step::Close(TCP));
}

#[test]
fn a_connection_that_breaks_is_left_at_once() {
    let mut world = World::new([false, true, true]);
    world.pass(Duration::from_secs(10));
    let broken = (world.now - world.start).as_millis();
    world.works = [false, false, true];
    world.ladder.handle_failed(TCP, world.now);
    world.settle();
    world.pass(Duration::from_secs(2));
    let (at, to) = *world.moves().last().unwrap();
    assert_eq!(to, TLS);
    assert!(at - broken <= 700, "after {} ms", at - broken);
}

#[test]
fn a_path_that_comes_and_goes_is_climbed_to_ever_less_often() {
    let mut world = World::new([false, true, true]);
    for _ in 0..60 {
        world.change([true; 3]);
        world.pass(ms(500));
        world.change([false, true, true]);
        world.pass(ms(500));
    }
    assert!(world.moves().len() <= 16, "{:?}", world.moves());
}

#[test]
fn after_a_long_outage_the_only_way_that_works_is_found_within_seconds() {
    let mut world = World::new([false, true, false]);
    world.pass(ms(5_000));
    world.change([false; 3]);
    world.ladder.handle_failed(TCP, world.now);
    world.pass(ms(120_000));
    world.change([false, true, false]);
    let back = (world.now - world.start).as_millis();
    world.steps.clear();
    world.pass(ms(4_000));
    let opened = |step: &&(u128, Step)| step.1 == Step::Open(TCP);
    let (at, _) = world.steps.iter().find(opened).expect("TCP is tried");
    assert!(at - back <= 2_500, "after {} ms", at - back);
}
