//! `turn-load load`: packets through the relay.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use crate::burst::Burst;
use crate::cli::{Direction, Load};
use crate::clock::Clock;
use crate::flood::Flood;
use crate::flow::{self, Flow};
use crate::histogram::Histogram;
use crate::receiver::Receiver;
use crate::{flood, handshake, idle, process};

/// How long packets that are under way at the end are waited for.
const LINGER: Duration = Duration::from_millis(50);

/// What was seen.
#[derive(Debug, Serialize)]
struct Report {
    flows: u32,
    size: u32,
    direction: String,
    /// Packets in a row.
    burst: u32,
    seconds: f64,
    offered_per_second: f64,
    delivered_per_second: f64,
    /// Of the receiving sockets: this program was too slow then, not the relay.
    lost_by_receiver: u64,
    /// What other programs and other machines had meanwhile, of one core.
    others: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    flood_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<Cpu>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency: Option<Latency>,
}

/// What the server spent.
#[derive(Debug, Serialize)]
struct Cpu {
    ns_per_packet: f64,
    /// Of one core.
    busy: f64,
}

/// One way, in microseconds.
#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
    /// Packets that the sender sent later than they were due, 99 of 100 at most by so much.
    sent_late_p99: f64,
}

pub(crate) fn run(load: &Load) -> Result<()> {
    let sockets = 2 * u64::from(load.flows) + u64::from(load.idle);
    process::allow_open_files(sockets + flood::SOURCES)?;
    let server = load.server.server;
    let flood = load.flood.map(|rate| Flood::start(server, rate));
    let flood = flood.transpose()?;
    // Not the flood, which would be where the users are.
    if let Some(core) = load.observation.cpu {
        process::pin(core)?;
    }
    let idle = idle::hold(&load.server, load.idle)?;
    let flows = flow::open(load)?;
    let mut run = Run::new(load, flows, flood)?;
    let report = run.measure(load);
    handshake::give_back(run.flows.iter_mut().filter_map(Flow::allocation))?;
    idle::give_all_back(idle)?;
    report?.print(load.observation.json)
}

/// Sender and receiver.
#[derive(Debug)]
struct Run {
    clock: Clock,
    flows: Vec<Flow>,
    direction: Direction,
    burst: Burst,
    receiver: Receiver,
    /// Whose turn it is.
    turn: usize,
    /// Nanoseconds from burst to burst; 0 for no pause.
    interval: u64,
    due: u64,
    late: Histogram,
    timed: bool,
    offered: u64,
    flood: Option<Flood>,
}

impl Run {
    fn new(load: &Load, flows: Vec<Flow>, flood: Option<Flood>) -> Result<Self> {
        let clock = Clock::start();
        let relayed = !load.direct;
        let (size, direction) = (load.size as usize, load.direction);
        let sent_framed = relayed && direction == Direction::ClientToPeer;
        let burst = Burst::new(load.burst() as usize, size, sent_framed, load.sender);
        let received_framed = relayed && direction == Direction::PeerToClient;
        let receiver = Receiver::new(&flows, direction, size, received_framed, clock)?;
        let per_burst = u64::from(load.burst()) * 1_000_000_000;
        Ok(Self {
            clock,
            flows,
            direction,
            burst,
            receiver,
            turn: 0,
            interval: load.rate.map_or(0, |rate| per_burst / rate.max(1)),
            due: 0,
            late: Histogram::default(),
            timed: load.latency,
            offered: 0,
            flood,
        })
    }

    /// Sends and receives until a point in time.
    fn go_on(&mut self, until: u64) -> Result<()> {
        loop {
            let now = self.clock.now();
            if now >= until {
                return Ok(());
            }
            if now >= self.due {
                self.send(now)?;
            }
            self.receiver.poll(&mut self.flows)?;
        }
    }

    fn send(&mut self, now: u64) -> Result<()> {
        if self.interval > 0 {
            self.late.add(now - self.due);
            // What could not be sent in time is not caught up with beyond a few bursts.
            self.due = (self.due + self.interval).max(now.saturating_sub(8 * self.interval));
        }
        let index = self.turn;
        self.turn = (index + 1) % self.flows.len();
        let flow = &mut self.flows[index];
        let stamp = flow.next(index as u32, if self.timed { now } else { 0 });
        let channel = match self.direction {
            Direction::ClientToPeer => flow.channel,
            Direction::PeerToClient => None,
        };
        let (entry, _) = flow.ends(self.direction);
        let sent = self.burst.send(&entry.io, channel, stamp);
        flow.sequence += self.burst.len();
        self.offered += sent.context("sending to the relay")?;
        Ok(())
    }

    fn measure(&mut self, load: &Load) -> Result<Report> {
        let pid = load.observation.pid;
        let cpu = || pid.map(process::cpu_nanoseconds).transpose();
        let others_before = process::others_nanoseconds(pid)?;
        let start = self.clock.now();
        self.due = start;
        self.go_on(start + nanoseconds(load.warmup))?;
        self.late = Histogram::default();
        self.receiver.latency = self.timed.then(Histogram::default);
        let (cpu_before, tally_before, offered_before) =
            (cpu()?, self.receiver.tally, self.offered);
        let flooded = |run: &Self| run.flood.as_ref().map(Flood::sent);
        let flood_before = flooded(self);
        let begin = self.clock.now();
        self.go_on(begin + nanoseconds(load.seconds))?;
        let end = self.clock.now();
        let (cpu_after, tally_after, offered_after) = (cpu()?, self.receiver.tally, self.offered);
        let others = process::others_nanoseconds(pid)?.saturating_sub(others_before);
        self.drain()?;
        self.receiver.tally.check()?;

        let seconds = (end - begin) as f64 / 1e9;
        let delivered = tally_after.delivered - tally_before.delivered;
        ensure!(delivered > 0, "nothing came through");
        let spent = cpu_before
            .zip(cpu_after)
            .map(|(before, after)| (after - before) as f64);
        let microseconds = |value: u64| value as f64 / 1e3;
        Ok(Report {
            flows: load.flows,
            size: load.size,
            direction: load.direction.to_string(),
            burst: load.burst(),
            seconds,
            offered_per_second: (offered_after - offered_before) as f64 / seconds,
            delivered_per_second: delivered as f64 / seconds,
            flood_per_second: flooded(self)
                .zip(flood_before)
                .map(|(after, before)| (after - before) as f64 / seconds),
            lost_by_receiver: lost_by_receivers(&self.flows, self.direction)?,
            others: others as f64 / (end - start) as f64,
            cpu: spent.map(|spent| Cpu {
                ns_per_packet: spent / delivered as f64,
                busy: spent / 1e9 / seconds,
            }),
            latency: self.receiver.latency.as_ref().map(|latency| Latency {
                p50: microseconds(latency.percentile(0.5)),
                p90: microseconds(latency.percentile(0.9)),
                p99: microseconds(latency.percentile(0.99)),
                max: microseconds(latency.greatest()),
                sent_late_p99: microseconds(self.late.percentile(0.99)),
            }),
        })
    }

    /// Takes what is under way, so that the relay is idle when the next load begins.
    fn drain(&mut self) -> Result<()> {
        let mut last = (self.clock.now(), self.receiver.tally.delivered);
        loop {
            self.receiver.poll(&mut self.flows)?;
            let now = self.clock.now();
            if self.receiver.tally.delivered != last.1 {
                last = (now, self.receiver.tally.delivered);
            } else if now - last.0 > nanoseconds(LINGER) {
                return Ok(());
            }
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

/// Packets that the receiving sockets had no room for: the last column of `/proc/net/udp`.
fn lost_by_receivers(flows: &[Flow], direction: Direction) -> Result<u64> {
    let mut ports = BTreeSet::new();
    for flow in flows {
        let (_, exit) = flow.ends(direction);
        ports.insert(format!("{:04X}", exit.io.local_addr()?.port()));
    }
    let mut lost = 0;
    for table in ["/proc/net/udp", "/proc/net/udp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        for line in text.lines().skip(1) {
            let mut columns = line.split_whitespace();
            let port = columns.nth(1).and_then(|local| local.rsplit(':').next());
            if port.is_some_and(|port| ports.contains(port)) {
                let drops = columns.last().and_then(|drops| drops.parse::<u64>().ok());
                lost += drops.unwrap_or(0);
            }
        }
    }
    Ok(lost)
}

impl Report {
    fn print(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        println!(
            "{} flows, {} bytes, {}, bursts of {}: {:.0} packets/s of {:.0} offered",
            self.flows,
            self.size,
            self.direction,
            self.burst,
            self.delivered_per_second,
            self.offered_per_second
        );
        if let Some(flood) = self.flood_per_second {
            println!("beside {flood:.0} requests/s of strangers");
        }
        if let Some(cpu) = &self.cpu {
            println!(
                "the server spends {:.0} ns per packet delivered, {:.2} of a core",
                cpu.ns_per_packet, cpu.busy
            );
        }
        if let Some(latency) = &self.latency {
            println!(
                "one way: p50 {:.1} us, p90 {:.1} us, p99 {:.1} us, at most {:.1} us; sent late: p99 {:.1} us",
                latency.p50, latency.p90, latency.p99, latency.max, latency.sent_late_p99
            );
        }
        println!("other programs had {:.3} of a core", self.others);
        if self.lost_by_receiver > 0 {
            println!("the receiver itself lost {} packets", self.lost_by_receiver);
        }
        Ok(())
    }
}
