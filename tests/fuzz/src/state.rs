//! What a predecessor leaves: whatever it is, it is taken or refused as a whole, and what was taken is left as it was found.

use crate::core::{self, World, server};
use arbitrary::Unstructured;
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use turn_relay::foreign::take_and_leave;
use turn_relay_proto::{Output, Server};

/// Longer than anything lives.
const LONG: Duration = Duration::from_secs(2 * 24 * 3_600);

pub(crate) fn run(data: &[u8]) {
    let Some((first, data)) = data.split_first() else {
        return;
    };
    match first >> 6 {
        0 => import(data),
        1 => take(data, usize::from(first & 0x0F)),
        2 => go_on(data),
        _ => damage(data),
    }
}

/// A core's part.
fn import(state: &[u8]) {
    let now = Instant::now();
    let mut one = server(now);
    let before = one.export(now);
    let Ok(imported) = one.import(state, now, |_| true) else {
        assert_eq!(one.export(now), before, "something was taken");
        return;
    };
    assert_eq!(one.stats().allocations, imported.allocations as u64);
    let addresses: BTreeSet<_> = imported.relays.iter().map(|relay| relay.address).collect();
    assert_eq!(addresses.len(), imported.relays.len(), "one address of two");
    let left = one.export(now);
    let mut other = server(now);
    let again = other.import(&left.state, now, |_| true);
    let again = again.expect("its own state");
    assert_eq!(again.left_out, 0);
    assert!(again.allocations <= imported.allocations);
    assert_same(&other.export(now).state, &left.state);
    end(one, now, imported.relays.len());
    end(other, now, again.relays.len());
}

/// What is in maps may be written in another order.
fn assert_same(one: &[u8], other: &[u8]) {
    let sorted = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes.sort_unstable();
        bytes
    };
    assert_eq!(sorted(one), sorted(other));
}

/// Nothing lives for ever, whatever was written of its time; each socket is closed once.
fn end(mut server: Server, now: Instant, sockets: usize) {
    let mut closed = 0;
    loop {
        while let Some(output) = server.poll_output() {
            closed += usize::from(matches!(output, Output::CloseRelay { .. }));
        }
        match server.poll_timeout() {
            Some(next) => {
                assert!(next <= now + LONG, "it lives for ever");
                server.handle_timeout(next);
                assert!(server.poll_timeout().is_none_or(|after| after > next));
            }
            None => break,
        }
    }
    let stats = server.stats();
    let left = (stats.allocations, stats.permissions, stats.channels);
    assert_eq!((closed, left), (sockets, (0, 0, 0)));
}

/// The whole document, with so many sockets.
fn take(state: &[u8], sockets: usize) {
    let (socket, _other) = UnixStream::pair().expect("two sockets");
    let sockets = || -> Vec<OwnedFd> {
        let each = (0..sockets).map(|_| socket.try_clone().expect("a socket").into());
        each.collect()
    };
    let now = Instant::now();
    if let Ok(left) = take_and_leave(state, sockets(), now) {
        let again = take_and_leave(&left, sockets(), now).expect("its own state");
        assert_eq!(again, left);
    }
}

/// Clients, whose relay is succeeded by another now and then.
fn go_on(data: &[u8]) {
    let mut world = World::new();
    let mut input = Unstructured::new(data);
    for _ in 0..6 {
        let events = input.int_in_range(0..=20).unwrap_or(0);
        core::play(&mut world, &mut input, events);
        world.succeed();
    }
    core::play(&mut world, &mut input, 20);
    world.finish();
}

/// What a relay in use leaves, not quite as it was.
fn damage(data: &[u8]) {
    let mut world = World::new();
    let mut input = Unstructured::new(data);
    let flips = input.int_in_range(0..=6).unwrap_or(0);
    let flips: Vec<(u16, u8)> = (0..flips).filter_map(|_| input.arbitrary().ok()).collect();
    core::play(&mut world, &mut input, 30);
    let mut state = world.export();
    for (at, flip) in flips {
        if !state.is_empty() {
            let at = usize::from(at) % state.len();
            state[at] ^= flip;
        }
    }
    import(&state);
}
