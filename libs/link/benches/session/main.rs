//! One session in memory: both ends on one thread, nothing between them; ours by both carriers and `rtc`'s own
//! `PeerConnection` in turns. Prints the median of five runs each, in Mbit/s, and the ratios. The lane cuts each frame
//! into segments, seals and opens them, and joins them again.

mod frame;
mod rival;

use std::hint::black_box;
use std::time::{Duration, Instant};

use turnpike_link::{
    CandidateKind, Carrier, DtlsCertificate, Link, LinkConfig, LinkEvent, LinkRole, LocalCandidate,
    SendRefused,
};

/// How long each run takes.
const RUN: Duration = Duration::from_secs(2);

/// Runs of each; odd, so that there is a median.
const RUNS: usize = 5;

/// Bytes on the way at most.
const WINDOW: u64 = 1 << 20;

/// Frames sent between two looks at the clock.
const BATCH: usize = 64;

fn main() {
    // The harness of `cargo bench` passes flags that mean nothing here; `--lane` and `--channel` are ours.
    let has = |flag: &str| std::env::args().any(|argument| argument == flag);
    let (lane_only, channel_only) = (has("--lane"), has("--channel"));
    println!(
        "{:>8}  {:>13}  {:>13}  {:>13}  {:>6}  {:>6}",
        "frames", "lane", "data channel", "rtc", "l/rtc", "d/rtc"
    );
    for frame in [1_300, 16_000, 64_000] {
        let mut runs = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..RUNS {
            if !channel_only {
                runs[0].push(run(frame, Carrier::Datagram));
            }
            if !lane_only {
                runs[1].push(run(frame, Carrier::DataChannel));
            }
            if !lane_only && !channel_only {
                runs[2].push(rival::run(frame));
            }
        }
        let [lane, channel, rival] = runs.map(|mut runs| {
            runs.sort_by(f64::total_cmp);
            runs.get(RUNS / 2).copied().unwrap_or(f64::NAN)
        });
        println!(
            "{frame:>6} B  {lane:>6.0} Mbit/s  {channel:>6.0} Mbit/s  {rival:>6.0} Mbit/s  {:>6.2}  {:>6.2}",
            lane / rival,
            channel / rival
        );
    }
}

fn run(length: usize, carrier: Carrier) -> f64 {
    let (mut offerer, mut answerer) = open(carrier);
    let frame = frame::tcp(length);
    let before = answerer.stats().bytes_received;
    let (start, started, mut received) = (Instant::now(), cpu(), 0);
    let already = offerer.stats().bytes_sent;
    while start.elapsed() < RUN {
        let now = Instant::now();
        for _ in 0..BATCH {
            if offerer.stats().bytes_sent - already >= received + WINDOW {
                break;
            }
            match offerer.send_frame(&frame, now) {
                // What the lane cuts is taken at once, as an event loop does.
                Ok(()) if carrier == Carrier::Datagram => {
                    exchange(&mut offerer, &mut answerer, now);
                    received = answerer.stats().bytes_received - before;
                }
                Ok(()) => {}
                Err(SendRefused::QueueFull) => break,
                Err(other) => panic!("{other}"),
            }
        }
        exchange(&mut offerer, &mut answerer, now);
        received = answerer.stats().bytes_received - before;
    }
    let took = (cpu() - started).as_secs_f64();
    assert_eq!(offerer.carrier(), carrier);
    received as f64 * 8.0 / took / 1e6
}

/// How long this thread ran: what else the machine does counts for nobody.
/// [proc_pid_schedstat](https://docs.kernel.org/scheduler/sched-stats.html)
pub(crate) fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let ran = stat.split(' ').next().and_then(|field| field.parse().ok());
    Duration::from_nanos(ran.expect("nanoseconds"))
}

/// Moves what either has for the other until both are quiet.
fn exchange(offerer: &mut Link, answerer: &mut Link, now: Instant) {
    let mut moved = true;
    while moved {
        moved = false;
        while let Some(sent) = offerer.poll_transmit() {
            moved = true;
            answerer.handle_datagrams(sent.remote, sent.local, sent.payload, sent.segment, now);
            while let Some(event) = answerer.poll_event() {
                if let LinkEvent::Frame(frame) = event {
                    black_box(frame);
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
}

fn open(carrier: Carrier) -> (Link, Link) {
    let now = Instant::now();
    let config = LinkConfig {
        carrier,
        ..LinkConfig::default()
    };
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
    while !answerer.is_open() || offerer.carrier() != carrier {
        exchange(&mut offerer, &mut answerer, Instant::now());
    }
    (offerer, answerer)
}
