//! A wire between two network interfaces that is long, narrow and lossy: what a kernel without netem lacks.
//!
//! Every Ethernet frame that one interface hears goes out at the other, later, at a bounded rate, or not at all: see
//! [`wire`]. Both directions are alike and independent. It works on frames as they are, so whoever sends into it must
//! not leave segmentation and checksums to the interface (`ethtool -K IF tx off tso off gso off`): a frame longer than
//! the interface's MTU is dropped, and said so.
#![forbid(unsafe_code)]

mod port;
mod wire;

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use port::Port;
use wire::{Shape, Wire};

/// Frames taken from one side before the other has its turn.
const BURST: usize = 64;
/// The default queue, as time at the given rate.
const QUEUE: Duration = Duration::from_millis(40);
/// Frames that are due this soon go out now: waking up for each would cost more than it is worth.
const GRAIN: Duration = Duration::from_micros(50);

#[derive(Debug, Parser)]
#[command(
    name = "delay-box",
    about = "Join two network interfaces by a wire with delay, rate and loss; says `ready` and runs until it is ended"
)]
struct Arguments {
    /// One interface; nobody else should use it
    left: String,
    /// The other
    right: String,
    /// How long a frame is under way, in one direction
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    delay: Duration,
    /// Bits per second, with K, M or G for thousands; without it, as fast as frames come
    #[arg(long, value_parser = parse_rate)]
    rate: Option<u64>,
    /// Bytes that may wait for their turn at that rate; the rest is dropped. Default: what it carries in 40 ms
    #[arg(long)]
    queue: Option<u64>,
    /// Which share of the frames is lost, 0 to 1
    #[arg(long, default_value_t = 0.0, value_parser = parse_share)]
    loss: f64,
    /// Which frames these are: the same for the same seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn parse_rate(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'K')) => (&text[..at], 1_000),
        Some((at, 'M')) => (&text[..at], 1_000_000),
        Some((at, 'G')) => (&text[..at], 1_000_000_000),
        _ => (text, 1),
    };
    let number: Option<u64> = digits.parse().ok();
    number
        .and_then(|number| number.checked_mul(unit))
        .filter(|&rate| rate > 0)
        .ok_or_else(|| "a rate is a whole number above 0, such as 500M".to_owned())
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share: Option<f64> = text.parse().ok();
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "a share is a number from 0 to 1".to_owned())
}

impl Arguments {
    fn shape(&self) -> Shape {
        let default_queue = self
            .rate
            .map_or(u64::MAX, |rate| rate / 8 * QUEUE.as_millis() as u64 / 1_000);
        Shape {
            delay: self.delay,
            rate: self.rate,
            queue: self.queue.unwrap_or(default_queue),
            loss: self.loss,
        }
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut ports = [Port::open(&arguments.left)?, Port::open(&arguments.right)?];
    let now = Instant::now();
    // The wire that begins at the port of the same number.
    let mut wires = [0, 1].map(|n| Wire::new(arguments.shape(), arguments.seed * 2 + n, now));
    println!("ready");
    io::stdout().flush().context("saying that it is ready")?;
    loop {
        let now = Instant::now();
        let mut busy = false;
        for (port, wire) in ports.iter_mut().zip(&mut wires) {
            for _ in 0..BURST {
                let Some(frame) = port.receive()? else { break };
                wire.push(frame, now);
                busy = true;
            }
        }
        for (wire, port) in wires.iter_mut().zip(ports.iter().rev()) {
            wire.deliver(now + GRAIN, |frame| port.send(frame));
        }
        if !busy {
            let next = wires.iter().filter_map(Wire::next_delivery).min();
            wait(&ports, next)?;
        }
    }
}

/// Until a frame comes, or `next`.
fn wait(ports: &[Port; 2], next: Option<Instant>) -> Result<()> {
    let mut fds = ports
        .each_ref()
        .map(|port| PollFd::new(port.as_fd(), PollFlags::POLLIN));
    let timeout =
        next.map(|next| TimeSpec::from_duration(next.saturating_duration_since(Instant::now())));
    match ppoll(&mut fds, timeout, None) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error).context("waiting for frames"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_shares_are_read() {
        assert_eq!(parse_rate("500M"), Ok(500_000_000));
        assert_eq!(parse_rate("1"), Ok(1));
        for wrong in ["", "M", "0", "-1", "1.5G", "99999999999G", "5\u{b5}"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_share("0.01"), Ok(0.01));
        assert!(parse_share("1.01").is_err() && parse_share("NaN").is_err());
    }

    #[test]
    fn the_queue_holds_40_ms_at_the_given_rate() {
        let arguments = Arguments::parse_from(["delay-box", "a", "b", "--rate", "500M"]);
        assert_eq!(arguments.shape().queue, 2_500_000);
    }
}
