//! What was once a hole in some TURN server is none here: each row names what it was, and fails when its guard is gone.
//!
//! What is left of the same list needs sockets: `turn-relay/tests/abuse.rs`.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "abuse/ownership.rs"]
mod ownership;
#[path = "abuse/peers.rs"]
mod peers;
#[path = "abuse/strangers.rs"]
mod strangers;

use std::panic::catch_unwind;

/// What it was, what it taught, and the proof.
type Row = (&'static str, &'static str, fn());

#[test]
fn every_lesson_is_learned() {
    let rows = [peers::ROWS, strangers::ROWS, ownership::ROWS].concat();
    let failed: Vec<_> = rows
        .iter()
        .filter(|(_, _, proof)| catch_unwind(proof).is_err())
        .map(|(what, lesson, _)| format!("{what}: {lesson}"))
        .collect();
    println!("{} lessons", rows.len());
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}
