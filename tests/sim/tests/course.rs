//! Everything that breaks in the lab breaks here, a thousand times over, at random moments: relays and activators are
//! killed, drain and start, paths are cut and mended, UDP is blocked, NATs forget, the sidecar moves, discovery is away for
//! an hour, and the network loses, repeats and delays. The reference model says what the workload must see of it.
//!
//! A failure says its seed and what happened; `TURNPIKE_SEED=7` runs that one alone, `TURNPIKE_SEEDS=5000` or
//! `TURNPIKE_SEEDS=1001-2000` more or others.

use std::panic::catch_unwind;
use std::sync::Mutex;
use std::thread;

use turnpike_sim::{Course, seeds};

const SEEDS: u64 = 1_000;

#[test]
fn whatever_breaks_and_when_the_workload_sees_what_the_model_says() {
    let seeds = Mutex::new(seeds(SEEDS));
    let failed = Mutex::new(Vec::new());
    let due = Mutex::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, Into::into) {
            scope.spawn(|| {
                while let Some(seed) = { seeds.lock().expect("the seeds").next() } {
                    match catch_unwind(|| Course::run(seed)) {
                        Ok(count) => *due.lock().expect("a number") += count,
                        Err(_) => failed.lock().expect("a list").push(seed),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("a list");
    let due = due.into_inner().expect("a number");
    eprintln!("{due} packets were due");
    assert!(
        failed.is_empty(),
        "seeds {failed:?} of {:?}",
        turnpike_sim::seeds(SEEDS)
    );
    assert!(due > 0, "nothing was demanded");
}
