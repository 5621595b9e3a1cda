//! `bench dns`: names of the mesh answered by dns-signal in the lab, beside unbound and dnsmasq with the same name as
//! local data; and names outside of the mesh, forwarded by all three to one upstream, beside that upstream asked directly.
//!
//! The layout is the same for everyone: whoever is measured has one core to itself (`--server-core`), dnsperf and the
//! upstream are on another (`--load-core`), all in one network namespace, over loopback.
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Args;

mod acceptance;
mod load;
mod servers;

use super::parts;
use super::report::{circumstances, directory_of_reports, publish};
use super::results::{self, Book};
use super::rounds::Rounds;
use super::svg::Group;
use super::verdict::Verdict;
use crate::{build, packages, shell};
use load::{CPU, Dnsperf, MEAN, P50, P99, Pace, SPEED};
use servers::{Field, OURS, RIVALS, UPSTREAM};

/// What forwarding adds to the upstream's own mean, microseconds.
const ADDED: &str = "added_mean_us";

/// Queries of a slow part in a second, forwarded and not.
const INTERCEPTED_RATE: u32 = 10_000;
const FORWARDED_RATE: u32 = 1_000;

/// How much of it.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    rounds: Rounds,
    /// Only these parts, by name or its beginning: intercepted, intercepted-fast, intercepted-paced, forwarded-fast, forwarded-paced
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<String>,
    /// The core of the one that is measured
    #[arg(long, default_value_t = 1, value_name = "CORE")]
    server_core: usize,
    /// The core of dnsperf and the upstream
    #[arg(long, default_value_t = 0, value_name = "CORE")]
    load_core: usize,
}

impl Options {
    /// What may be published; its parts may come from several runs.
    fn is_whole(&self) -> bool {
        let usual = self.server_core == 1 && self.load_core == 0;
        self.rounds.are_whole() && usual
    }
}

/// One load, with everyone under it in turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// A name of the mesh.
    Intercepted(Pace),
    /// Names outside of it, none twice in a run.
    Forwarded(Pace),
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (what, pace) = match self {
            Self::Intercepted(pace) => ("intercepted", pace),
            Self::Forwarded(pace) => ("forwarded", pace),
        };
        let pace = match pace {
            Pace::Fast => "fast",
            Pace::PerSecond(_) => "paced",
        };
        write!(f, "{what}-{pace}")
    }
}

impl Part {
    /// In the order in which they run.
    fn all() -> Vec<Self> {
        vec![
            Self::Intercepted(Pace::Fast),
            Self::Intercepted(Pace::PerSecond(INTERCEPTED_RATE)),
            Self::Forwarded(Pace::Fast),
            Self::Forwarded(Pace::PerSecond(FORWARDED_RATE)),
        ]
    }

    /// For people, and the key of its results.
    fn title(self) -> String {
        let (what, pace) = match self {
            Self::Intercepted(pace) => ("a name of the mesh", pace),
            Self::Forwarded(pace) => ("names outside of the mesh", pace),
        };
        match pace {
            Pace::Fast => format!("{what}, as fast as it goes"),
            Pace::PerSecond(rate) => format!("{what}, {rate} a second"),
        }
    }

    /// One round: everyone once.
    fn round(
        self,
        field: &Field,
        dnsperf: &Dnsperf<'_>,
        measured: &mut results::Part,
    ) -> Result<()> {
        let (pace, is_forwarded) = match self {
            Self::Intercepted(pace) => (pace, false),
            Self::Forwarded(pace) => (pace, true),
        };
        let queries = if is_forwarded {
            field.outside()
        } else {
            field.ours()
        };
        let mut direct = None;
        if is_forwarded {
            let metrics = dnsperf.run(field.upstream(), queries, pace)?;
            direct = metrics.get(MEAN).copied();
            measured.add(&self.title(), UPSTREAM, metrics);
        }
        for server in field.servers() {
            let mut metrics = dnsperf
                .run(server, queries, pace)
                .with_context(|| server.name.to_owned())?;
            if let (Some(direct), Some(&through)) = (direct, metrics.get(MEAN)) {
                metrics.insert(ADDED.to_owned(), through - direct);
            }
            measured.add(&self.title(), server.name, metrics);
        }
        Ok(())
    }

    fn print(self, measured: &results::Part) {
        const FAST: [(&str, &str, f64, usize); 3] = [
            ("queries/s", SPEED, 1.0, 0),
            ("CPU us/query", CPU, 1e3, 2),
            ("of a core", load::BUSY, 1.0, 2),
        ];
        const PACED: [(&str, &str, f64, usize); 4] = [
            ("CPU us/query", CPU, 1e3, 2),
            ("p50 ms", P50, 1e3, 3),
            ("p99 ms", P99, 1e3, 3),
            ("mean ms", MEAN, 1e3, 3),
        ];
        match self {
            Self::Intercepted(Pace::Fast) | Self::Forwarded(Pace::Fast) => {
                measured.print(&FAST, SPEED, &RIVALS);
            }
            Self::Intercepted(Pace::PerSecond(_)) => measured.print(&PACED, P99, &RIVALS),
            Self::Forwarded(Pace::PerSecond(_)) => {
                let added = ("added ms", ADDED, 1e3, 3);
                measured.print(&[&PACED[..], &[added]].concat(), ADDED, &RIVALS);
            }
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    packages::ensure_root("the benchmark")?;
    let parts = parts::chosen(Part::all(), &options.only)?;
    packages::ensure_installed(&[packages::FOR_LAB, packages::FOR_BENCH_DNS])?;
    let binaries = options.rounds.binaries(&build::FOR_LAB)?;
    let file = directory_of_reports(options.is_whole())?.join("dns.json");
    let mut book = Book::read(&file)?;
    shell::heading("Bringing the lab up");
    let field = Field::up(binaries, options.server_core, options.load_core)?;
    let dnsperf = Dnsperf::new(
        &field,
        options.load_core,
        if options.rounds.quick { 1 } else { 3 },
    );
    let begin = Instant::now();
    for part in parts {
        let measured = measure(part, &field, &dnsperf, options.rounds.count())?;
        book.parts.insert(part.to_string(), measured);
    }
    let verdicts = acceptance::judge(&book);
    println!("\nWhat the project asks for");
    verdicts.iter().for_each(Verdict::print);
    println!("\n{:.0} s", begin.elapsed().as_secs_f64());
    publish(&book, &verdicts, &charts(&book), &file)
}

fn measure(part: Part, field: &Field, dnsperf: &Dnsperf<'_>, rounds: u32) -> Result<results::Part> {
    let mut measured = results::Part {
        circumstances: circumstances(),
        realtime: false,
        rounds,
        cases: Vec::new(),
    };
    for round in 1..=rounds {
        eprintln!("   {part}, round {round} of {rounds}");
        part.round(field, dnsperf, &mut measured)
            .with_context(|| format!("{part}, round {round}"))?;
    }
    measured.conclude();
    part.print(&measured);
    Ok(measured)
}

fn charts(book: &Book) -> Vec<Group> {
    let mut groups = Vec::new();
    for part in Part::all() {
        let case = part.title();
        let metrics: &[(&str, &str, f64)] = match part {
            Part::Intercepted(Pace::Fast) | Part::Forwarded(Pace::Fast) => {
                &[(SPEED, "queries/s", 1.0), (CPU, "CPU per query, us", 1e3)]
            }
            Part::Intercepted(Pace::PerSecond(_)) => &[(P99, "p99, us", 1.0)],
            Part::Forwarded(Pace::PerSecond(_)) => &[(ADDED, "mean added, us", 1.0)],
        };
        for &(metric, unit, divisor) in metrics {
            let title = format!("{case}: {unit}");
            groups.extend(book.group(&case, metric, divisor, title, |name| name == OURS));
        }
    }
    groups
}
