//! One session in memory: both ends on one thread, nothing between them; ours and `rtc`'s own `PeerConnection` in
//! turns. Prints the median of five runs each, in Mbit/s, and the ratio.

mod rival;

use std::hint::black_box;
use std::time::{Duration, Instant};

use turnpike_link::{
    CandidateKind, DtlsCertificate, Link, LinkConfig, LinkEvent, LinkRole, LocalCandidate,
    SendRefused,
};

/// How long each run takes.
const RUN: Duration = Duration::from_secs(2);

/// Runs of each; odd, so that there is a median.
const RUNS: usize = 5;

fn main() {
    // The harness of `cargo bench` passes flags that mean nothing here.
    println!(
        "{:>8}  {:>12}  {:>12}  {:>6}",
        "frames", "link", "rtc", "ratio"
    );
    for frame in [1_300, 16_000, 64_000] {
        let mut runs = [Vec::new(), Vec::new()];
        for _ in 0..RUNS {
            runs[0].push(run(frame));
            runs[1].push(rival::run(frame));
        }
        let [ours, rivals] = runs.map(|mut runs| {
            runs.sort_by(f64::total_cmp);
            runs[RUNS / 2]
        });
        println!(
            "{frame:>6} B  {ours:>5.0} Mbit/s  {rivals:>5.0} Mbit/s  {:>6.2}",
            ours / rivals
        );
    }
}

fn run(frame: usize) -> f64 {
    let (mut offerer, mut answerer) = open();
    let payload = vec![7; frame];
    let (start, mut received) = (Instant::now(), 0_usize);
    while start.elapsed() < RUN {
        let now = Instant::now();
        loop {
            match offerer.send_frame(&payload, now) {
                Ok(()) => {}
                Err(SendRefused::QueueFull) => break,
                Err(other) => panic!("{other}"),
            }
            if offerer.stats().bytes_sent - received as u64 > 1 << 20 {
                break;
            }
        }
        received += exchange(&mut offerer, &mut answerer, now);
    }
    received as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e6
}

/// Moves what either has for the other until both are quiet; gives the bytes of frames that arrived.
fn exchange(offerer: &mut Link, answerer: &mut Link, now: Instant) -> usize {
    let mut received = 0;
    let mut moved = true;
    while moved {
        moved = false;
        while let Some(sent) = offerer.poll_transmit() {
            moved = true;
            answerer.handle_datagrams(sent.remote, sent.local, sent.payload, sent.segment, now);
            while let Some(event) = answerer.poll_event() {
                if let LinkEvent::Frame(frame) = event {
                    received += black_box(frame).len();
                }
            }
        }
        while let Some(sent) = answerer.poll_transmit() {
            moved = true;
            offerer.handle_datagrams(sent.remote, sent.local, sent.payload, sent.segment, now);
        }
        while offerer.poll_event().is_some() {}
    }
    for link in [offerer, answerer] {
        if link.poll_timeout().is_some_and(|due| due <= now) {
            link.handle_timeout(now);
        }
    }
    received
}

fn open() -> (Link, Link) {
    let now = Instant::now();
    let config = LinkConfig::default();
    let mut made = [LinkRole::Offerer, LinkRole::Answerer].map(|role| {
        let certificate = DtlsCertificate::generate().expect("a certificate");
        Link::new(role, certificate, &config, now).expect("a link")
    });
    for (link, address) in made.iter_mut().zip(["10.0.0.10:4000", "10.0.0.3:7000"]) {
        let address = address.parse().expect("an address");
        let candidate = LocalCandidate {
            kind: CandidateKind::Host,
            address,
            base: address,
        };
        link.add_local_candidate(candidate, now)
            .expect("a candidate");
    }
    let [mut offerer, mut answerer] = made;
    answerer
        .set_remote_description(&offerer.local_description(), now)
        .expect("usable");
    offerer
        .set_remote_description(&answerer.local_description(), now)
        .expect("usable");
    while !offerer.is_open() || !answerer.is_open() {
        exchange(&mut offerer, &mut answerer, Instant::now());
    }
    (offerer, answerer)
}
