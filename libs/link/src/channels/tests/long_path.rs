//! The data channel on long and lossy paths, in virtual time: what a model of TCP gets through it, against what the same
//! model gets without it on the same path with the same losses.

mod pipe;
mod tcp;

use super::*;
use pipe::{Path, Pipe};
use tcp::{Ack, Control as Congestion, Receiver, Sender};

const PAYLOAD: usize = 1_308;
const HEADERS: usize = 52;
/// What DTLS, UDP and IP add to an SCTP packet.
const BELOW: usize = 65;
const PATH: Path = Path {
    bits_per_second: 50e6,
    round_trip: Duration::from_millis(80),
    loss: 0.0,
    queue: 250_000.0,
    seed: 1,
    outage: (Duration::ZERO, Duration::ZERO),
};
const LENGTH: Duration = Duration::from_secs(5);

/// Segments that arrived in order, and the longest time in which none did.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    segments: u32,
    pause: Duration,
    last: Duration,
}

impl Outcome {
    fn note(&mut self, segments: u32, now: Duration) {
        if segments > self.segments || now >= LENGTH {
            self.pause = self.pause.max(now - self.last);
            self.last = now;
            self.segments = segments;
        }
    }
}

fn bare(congestion: Congestion, path: Path) -> Outcome {
    let (mut sender, mut receiver) = (Sender::new(congestion), Receiver::default());
    let (mut out, mut back) = (Pipe::new(path, 0), Pipe::new(path, 1));
    let (mut now, mut outcome) = (Duration::ZERO, Outcome::default());
    while now < LENGTH {
        while let Some(id) = sender.poll_send(now) {
            out.push(id, PAYLOAD + HEADERS, now);
        }
        let due = [sender.poll_timeout(), receiver.due, out.next(), back.next()];
        now = now.max(due.into_iter().flatten().min().unwrap_or(LENGTH));
        while let Some(id) = out.pop(now) {
            if let Some(ack) = receiver.handle(id, now) {
                back.push(ack, HEADERS, now);
            }
        }
        if receiver.due.is_some_and(|due| due <= now) {
            back.push(receiver.say(), HEADERS, now);
        }
        while let Some(ack) = back.pop(now) {
            sender.handle_ack(&ack, now);
        }
        sender.handle_timeout(now);
        outcome.note(receiver.next, now);
    }
    outcome
}

/// Two ends and the path between them.
struct World {
    ends: [Channels; 2],
    pipes: [Pipe<Bytes>; 2],
    start: Instant,
    now: Duration,
    frames: Vec<(usize, BytesMut)>,
}

impl World {
    fn new(path: Path) -> Self {
        let (config, start) = (LinkConfig::default(), Instant::now());
        let ends = [LinkRole::Offerer, LinkRole::Answerer].map(|role| Channels::new(role, &config));
        let mut world = Self {
            ends,
            pipes: [Pipe::new(path, 0), Pipe::new(path, 1)],
            start,
            now: Duration::ZERO,
            frames: Vec::new(),
        };
        world.ends[0].start(start).expect("started");
        // Until the acknowledgments of the channels are there, too.
        while !world.ends[1].is_open() || world.now < path.round_trip * 5 {
            world.step(Some(path.round_trip * 5));
        }
        world
    }

    fn at(&self) -> Instant {
        self.start + self.now
    }

    fn send(&mut self, side: usize, frame: &[u8]) -> bool {
        let at = self.at();
        self.ends[side].send_frame(frame, at).is_ok()
    }

    fn flush(&mut self) {
        let at = self.at();
        for side in [0, 1] {
            while let Some(packets) = self.ends[side].poll_packets(at) {
                for packet in packets {
                    let bytes = packet.len() + BELOW;
                    self.pipes[side].push(packet, bytes, self.now);
                }
            }
        }
    }

    /// To the next thing that happens, or to `due`.
    fn step(&mut self, due: Option<Duration>) {
        self.flush();
        let timer = |end: &Channels| Some(end.poll_timeout()? - self.start);
        let [a, b] = &self.ends;
        let next = [
            due,
            timer(a),
            timer(b),
            self.pipes[0].next(),
            self.pipes[1].next(),
        ];
        self.now = self
            .now
            .max(next.into_iter().flatten().min().expect("something"));
        let at = self.at();
        for side in [0, 1] {
            while let Some(packet) = self.pipes[side].pop(self.now) {
                self.ends[1 - side].handle_packet(packet, at);
            }
            let end = &mut self.ends[1 - side];
            if end.poll_timeout().is_some_and(|due| due <= at) {
                end.handle_timeout(at);
            }
            while let Some(event) = end.poll_event() {
                match event {
                    ChannelEvent::Frame(frame) => self.frames.push((1 - side, frame)),
                    ChannelEvent::Lost(why) => panic!("{why}"),
                    _ => {}
                }
            }
        }
        self.flush();
    }
}

fn through(congestion: Congestion, path: Path) -> Outcome {
    let mut world = World::new(path);
    let (mut sender, mut receiver) = (Sender::new(congestion), Receiver::default());
    let (begin, mut outcome) = (world.now, Outcome::default());
    let mut segment = vec![0; wire::frame::HEADER_LEN + HEADERS + PAYLOAD];
    while world.now - begin < LENGTH {
        let now = world.now - begin;
        while let Some(id) = sender.poll_send(now) {
            segment[..4].copy_from_slice(&id.to_be_bytes());
            world.send(0, &segment);
        }
        let due = [sender.poll_timeout(), receiver.due];
        world.step(due.into_iter().flatten().min().map(|due| due + begin));
        let now = world.now - begin;
        let mut said = Vec::new();
        for (side, frame) in std::mem::take(&mut world.frames) {
            if side == 1 {
                let id = u32::from_be_bytes(frame[..4].try_into().expect("four"));
                said.extend(receiver.handle(id, now));
            } else {
                sender.handle_ack(&read(&frame), now);
            }
        }
        if receiver.due.is_some_and(|due| due <= now) {
            said.push(receiver.say());
        }
        for ack in said {
            world.send(1, &write(&ack));
        }
        sender.handle_timeout(now);
        outcome.note(receiver.next, now);
    }
    outcome
}

fn write(ack: &Ack) -> Vec<u8> {
    let numbers = std::iter::once(ack.next).chain(ack.also.iter().copied());
    let mut frame: Vec<u8> = numbers.flat_map(u32::to_be_bytes).collect();
    frame.resize(frame.len().max(HEADERS), 0xff);
    frame
}

fn read(frame: &[u8]) -> Ack {
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four"));
    let mut numbers = frame.chunks_exact(4).map(number);
    Ack {
        next: numbers.next().expect("one"),
        also: numbers.filter(|id| *id != u32::MAX).collect(),
    }
}

/// The share of what TCP gets without a tunnel, over some seeds, and the longest pause.
fn share(congestion: Congestion, loss: f64, seeds: u64) -> (f64, Duration) {
    let (mut with, mut without, mut pause) = (0, 0, Duration::ZERO);
    for seed in 1..=seeds {
        let path = Path { loss, seed, ..PATH };
        without += bare(congestion, path).segments;
        let outcome = through(congestion, path);
        with += outcome.segments;
        pause = pause.max(outcome.pause);
    }
    let share = f64::from(with) / f64::from(without);
    println!("{congestion:?} {loss}: {share:.2} of {without}, pause {pause:?}");
    (share, pause)
}

#[test]
fn bbr_inside_gets_its_share_of_a_long_path_and_never_stalls() {
    for (loss, least) in [(0.0, 0.8), (0.001, 0.8), (0.01, 0.8)] {
        let (share, pause) = share(Congestion::Bbr, loss, 1);
        assert!(share >= least, "{share} at {loss}");
        assert!(pause < Duration::from_secs(1), "{pause:?} at {loss}");
    }
}

#[test]
fn cubic_inside_gets_its_share_of_a_long_path_and_never_stalls() {
    for (loss, least) in [(0.0, 0.8), (0.001, 0.5), (0.01, 0.5)] {
        let (share, pause) = share(Congestion::Cubic, loss, 3);
        assert!(share >= least, "{share} at {loss}");
        assert!(pause < Duration::from_secs(1), "{pause:?} at {loss}");
    }
}

/// Frames at a fixed rate, whatever becomes of them, for ten seconds; gives when each arrived, and how much of what was
/// sent in the second half found no room at the bottleneck.
fn flood(path: Path, frames_per_second: u32) -> (Vec<Duration>, f64) {
    let mut world = World::new(path);
    let (begin, gap) = (world.now, Duration::from_secs(1) / frames_per_second);
    let (mut next, mut arrivals, mut half) = (begin, Vec::new(), None);
    let frame = vec![0; wire::frame::HEADER_LEN + HEADERS + PAYLOAD];
    while world.now < begin + Duration::from_secs(10) {
        while next <= world.now {
            world.send(0, &frame);
            next += gap;
        }
        world.step(Some(next));
        let now = world.now;
        arrivals.extend(world.frames.drain(..).map(|_| now));
        if half.is_none() && now > begin + Duration::from_secs(5) {
            half = Some((world.pipes[0].offered, world.pipes[0].overflowed));
        }
    }
    let (offered, overflowed) = half.expect("ten seconds passed");
    let pipe = &world.pipes[0];
    let excess = (pipe.overflowed - overflowed) / (pipe.offered - offered);
    (arrivals, excess)
}

#[test]
fn traffic_that_does_not_slow_down_is_narrowed_to_what_the_path_delivers() {
    let (arrivals, excess) = flood(PATH, 10_000);
    let last_half = arrivals
        .iter()
        .filter(|at| **at > Duration::from_secs(5))
        .count();
    let delivered = (last_half * PAYLOAD * 8) as f64 / 5.4;
    assert!(delivered > 0.7 * PATH.bits_per_second, "{delivered}");
    // More than half of it would not fit.
    assert!(excess < 0.3, "{excess}");
}

#[test]
fn what_a_path_takes_that_was_silent_for_long_arrives_at_once() {
    let outage = (Duration::from_secs(3), Duration::from_secs(6));
    let (arrivals, _) = flood(Path { outage, ..PATH }, 1_000);
    let first = arrivals
        .iter()
        .find(|at| **at > outage.1)
        .expect("something");
    assert!(*first < outage.1 + Duration::from_millis(700), "{first:?}");
    let after = arrivals
        .iter()
        .filter(|at| **at > outage.1 + Duration::from_secs(1))
        .count();
    assert!(after > 1_000 * 3 * 9 / 10, "{after}");
}
