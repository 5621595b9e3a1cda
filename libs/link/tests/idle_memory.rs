//! What links cost that stand idle after they were used. A process of its own, since it counts the pages of all of it.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{ANSWERER, OFFERER, World};

const PAIRS: usize = 100;
/// Of one end, in bytes.
const BOUND: usize = 64 << 10;
const SECOND: Duration = Duration::from_secs(1);

/// Bytes of this process in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4_096
}

fn used_and_idle() -> World {
    let mut world = World::new(Duration::from_millis(1));
    world.signal();
    assert!(world.run_until(5 * SECOND, World::both_open));
    world.run_until(SECOND, |_| false);
    for _ in 0..4 {
        for side in [OFFERER, ANSWERER] {
            let now = world.now;
            world.links[side]
                .send_frame(&[7; 30_000], now)
                .expect("room");
        }
        world.drain();
        world.run_until(SECOND, |_| false);
    }
    assert_eq!(world.frames(ANSWERER).len(), 4);
    world.run_until(30 * SECOND, |_| false);
    assert!(world.both_open());
    // What the test itself kept.
    world.events = [Vec::new(), Vec::new()];
    world
}

#[test]
fn an_idle_link_that_was_used_keeps_at_most_64_kib() {
    let mut worlds = vec![used_and_idle()];
    let before = resident();
    worlds.extend((0..PAIRS).map(|_| used_and_idle()));
    let each = resident().saturating_sub(before) / (2 * PAIRS);
    eprintln!("{each} bytes for each end of a link");
    assert!(each <= BOUND, "{each} bytes for each end");
}
