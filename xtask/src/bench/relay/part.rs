//! What is measured, in parts that can be run alone.
use std::fmt;

use anyhow::{Context as _, Result};

use super::contender::{self, COTURN, Contender, LIMIT, OURS, SERVERS, Setting};
use super::load::{BUSY, CPU, DELIVERED, DIRECTIONS, Generator, Lengths, Load, OTHERS};
use crate::bench::results::{self, Metrics};

pub(super) const FLOWS: [u32; 3] = [1, 16, 256];
pub(super) const SIZES: [u32; 2] = [1200, 120];
/// Idle allocations whose memory is measured.
const HELD: [u32; 2] = [5_000, 10_000];
/// Idle allocations beside flows.
pub(super) const BESIDE: u32 = 10_000;
/// CPU per packet to that of the same round with fewer: 256 flows to 16, and those with idle allocations beside to without.
pub(super) const TO_FEWER: &str = "cpu_to_fewer";
/// Runs of each in a round, in turns: a machine drifts by more than what is looked for.
const TURNS: usize = 3;

pub(super) const CHURN: &str = "allocations made and given back";
/// Microseconds that a relay adds, one way.
pub(super) const ADDED: [&str; 2] = ["added_p50_us", "added_p99_us"];
/// Half of whose load.
pub(super) const HALVES: [&str; 2] = ["its own", "coturn's"];
/// Runs in a round, in turns with the others; the one in the middle counts.
const LATENCY_TURNS: usize = 3;

/// One part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// So many flows with packets of so many bytes, as fast as it goes.
    Flows(u32, u32),
    /// How much later packets arrive than without a relay, at half load.
    Latency,
    /// Allocations made and given back.
    Churn,
    /// Memory of idle allocations.
    IdleMemory,
    /// 256 flows with and without idle allocations beside, and 16 flows to compare with.
    IdleFlows,
}

impl Part {
    /// In the order in which they run.
    pub(super) fn all() -> Vec<Self> {
        let flows = FLOWS.into_iter();
        let flows = flows.flat_map(|flows| SIZES.map(|size| Self::Flows(flows, size)));
        let others = [
            Self::Latency,
            Self::Churn,
            Self::IdleMemory,
            Self::IdleFlows,
        ];
        flows.chain(others).collect()
    }

    /// One round: everyone once under every load of the part, in turns.
    pub(super) fn round(
        self,
        setting: &Setting,
        lengths: Lengths,
        part: &mut results::Part,
    ) -> Result<()> {
        let generator = Generator::new(setting);
        match self {
            Self::Flows(flows, size) => {
                flows_round(setting, &generator, flows, size, lengths, part)
            }
            Self::Latency => latency_round(setting, &generator, lengths, part),
            Self::Churn => {
                for name in SERVERS {
                    let contender = Contender::start(name, setting)?;
                    part.add(CHURN, name, generator.churn(&contender, lengths)?);
                }
                Ok(())
            }
            Self::IdleMemory => {
                for count in HELD {
                    for name in SERVERS {
                        let contender = Contender::start(name, setting)?;
                        part.add(&held(count), name, generator.idle(&contender, count)?);
                    }
                }
                Ok(())
            }
            Self::IdleFlows => idle_flows_round(setting, &generator, lengths, part),
        }
    }

    pub(super) fn print(self, part: &results::Part) {
        const SPEED: (&str, &str, f64, usize) = ("kpackets/s", DELIVERED, 1e3, 0);
        const SPENT: (&str, &str, f64, usize) = ("CPU ns/packet", CPU, 1.0, 0);
        const CORE: (&str, &str, f64, usize) = ("of a core", BUSY, 1.0, 2);
        const TO: [&str; 2] = [COTURN, LIMIT];
        match self {
            Self::Flows(..) => part.print(&[SPEED, SPENT, CORE], CPU, &TO),
            Self::IdleFlows => {
                let ratio = ("CPU to fewer", TO_FEWER, 1.0, 3);
                part.print(&[SPEED, SPENT, CORE, ratio], CPU, &TO);
            }
            Self::Latency => part.print(
                &[
                    SPEED,
                    CORE,
                    ("p50 us", "p50", 1.0, 1),
                    ("p99 us", "p99", 1.0, 1),
                    ("p50 added us", ADDED[0], 1.0, 1),
                    ("p99 added us", ADDED[1], 1.0, 1),
                    ("others, % core", OTHERS, 0.01, 2),
                ],
                ADDED[1],
                &TO,
            ),
            Self::Churn => part.print(
                &[
                    ("per second", "allocations_per_second", 1.0, 0),
                    ("CPU us each", "cpu_ns_each", 1e3, 1),
                    CORE,
                ],
                "cpu_ns_each",
                &TO,
            ),
            Self::IdleMemory => {
                part.print(&[("bytes each", "bytes_each", 1.0, 0)], "bytes_each", &TO)
            }
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flows(flows, size) => write!(f, "flows-{flows}-{size}"),
            Self::Latency => f.write_str("latency"),
            Self::Churn => f.write_str("churn"),
            Self::IdleMemory => f.write_str("idle-memory"),
            Self::IdleFlows => f.write_str("idle-flows"),
        }
    }
}

impl Load {
    /// With GSO and nothing beside.
    pub(super) const fn fast(flows: u32, size: u32, direction: &'static str) -> Self {
        Self {
            flows,
            size,
            direction,
            sender: "gso",
            idle: 0,
        }
    }

    /// The same from a sender without GSO.
    pub(super) const fn plain(self) -> Self {
        Self {
            sender: "plain",
            ..self
        }
    }
}

pub(super) fn held(count: u32) -> String {
    format!("{count} idle allocations")
}

/// The name of a case of the part with latencies.
pub(super) fn half_load(direction: &str, whose: &str) -> String {
    format!("at half of {whose} load, {direction}")
}

fn flows_round(
    setting: &Setting,
    generator: &Generator<'_>,
    flows: u32,
    size: u32,
    lengths: Lengths,
    part: &mut results::Part,
) -> Result<()> {
    let contenders = start_all(setting)?;
    for direction in DIRECTIONS {
        let load = Load::fast(flows, size, direction);
        for load in [load, load.plain()] {
            for contender in &contenders {
                let metrics = generator.load(contender, load, lengths)?;
                part.add(&load.name(), contender.name, metrics);
            }
        }
    }
    Ok(())
}

/// All loads that are compared with one another are of the same rounds: a machine drifts by more than what is looked for.
fn idle_flows_round(
    setting: &Setting,
    generator: &Generator<'_>,
    lengths: Lengths,
    part: &mut results::Part,
) -> Result<()> {
    let lengths = Lengths {
        run: lengths.run * 5 / 8,
        ..lengths
    };
    for name in SERVERS {
        for direction in DIRECTIONS {
            // A new one: coturn refuses an address whose allocation was given back a moment ago.
            let contender = Contender::start(name, setting)?;
            let [few, many] = [16, 256].map(|flows| Load::fast(flows, 1200, direction));
            let crowded = Load {
                idle: BESIDE,
                ..many
            };
            // Only ours is asked how these compare.
            let (loads, turns) = if name == OURS {
                (vec![few, many, crowded], TURNS)
            } else {
                (vec![many, crowded], 1)
            };
            let mut runs = vec![Vec::new(); loads.len()];
            for turn in 0..turns {
                for step in 0..loads.len() {
                    // Whatever grows in the meantime is not always to the same one's cost.
                    let which = (turn + step) % loads.len();
                    runs[which].push(generator.load(&contender, loads[which], lengths)?);
                }
            }
            let mut before = None;
            for (load, runs) in loads.into_iter().zip(runs) {
                let mut metrics = mean(&runs);
                let spent = value(&metrics, CPU)?;
                if let Some(before) = before.replace(spent) {
                    metrics.insert(TO_FEWER.to_owned(), spent / before);
                }
                part.add(&beside(load), name, metrics);
            }
        }
    }
    Ok(())
}

/// The name of a case of the part with idle allocations.
pub(super) fn beside(load: Load) -> String {
    format!("beside: {}", load.name())
}

fn start_all(setting: &Setting) -> Result<Vec<Contender>> {
    let all = contender::ALL.into_iter();
    all.map(|name| Contender::start(name, setting)).collect()
}

/// Everyone at half of what it took from a plain sender, and at half of what coturn took; single packets, evenly spaced.
fn latency_round(
    setting: &Setting,
    generator: &Generator<'_>,
    lengths: Lengths,
    part: &mut results::Part,
) -> Result<()> {
    let contenders = start_all(setting)?;
    // There are many runs, and tens of thousands of packets in each.
    let lengths = Lengths {
        warmup: lengths.warmup / 2,
        run: lengths.run / 2,
    };
    for direction in DIRECTIONS {
        let load = Load::fast(16, 1200, direction).plain();
        let mut half = Metrics::new();
        for contender in &contenders {
            let metrics = generator.load(contender, load, lengths)?;
            half.insert(contender.name.to_owned(), value(&metrics, DELIVERED)? / 2.0);
        }
        let common = value(&half, COTURN)?;
        for whose in HALVES {
            let mut runs = vec![Vec::new(); contenders.len()];
            for _ in 0..LATENCY_TURNS {
                for (contender, runs) in contenders.iter().zip(&mut runs) {
                    let own = value(&half, contender.name)?;
                    let rate = if whose == HALVES[0] { own } else { common };
                    let bare = generator.latency(None, load, rate, lengths)?;
                    let metrics = generator.latency(Some(contender), load, rate, lengths)?;
                    runs.push(with_added(metrics, &bare)?);
                }
            }
            let case = half_load(direction, whose);
            for (contender, runs) in contenders.iter().zip(runs) {
                part.add(&case, contender.name, middle(runs)?);
            }
        }
    }
    Ok(())
}

/// Of several runs, the one in the middle by the p99 added.
fn middle(mut runs: Vec<Metrics>) -> Result<Metrics> {
    let added = |run: &Metrics| run.get(ADDED[1]).copied().unwrap_or(f64::MAX);
    runs.sort_by(|a, b| added(a).total_cmp(&added(b)));
    let position = runs.len() / 2;
    runs.into_iter().nth(position).context("no run")
}

/// Of each metric, over several runs.
fn mean(runs: &[Metrics]) -> Metrics {
    let mut sums = Metrics::new();
    for (name, value) in runs.iter().flatten() {
        *sums.entry(name.clone()).or_default() += value / runs.len() as f64;
    }
    sums
}

fn with_added(mut metrics: Metrics, bare: &Metrics) -> Result<Metrics> {
    for (added, percentile) in ADDED.into_iter().zip(["p50", "p99"]) {
        let difference = value(&metrics, percentile)? - value(bare, percentile)?;
        metrics.insert(added.to_owned(), difference);
    }
    Ok(metrics)
}

fn value(metrics: &Metrics, name: &str) -> Result<f64> {
    let value = metrics.get(name).copied();
    value.with_context(|| format!("turn-load did not say {name}"))
}

/// Everyone's name that a chart shows in color.
pub(super) fn is_ours(contender: &str) -> bool {
    ![COTURN, LIMIT].contains(&contender)
}
