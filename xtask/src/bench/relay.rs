//! `bench relay`: our relay, Debian's coturn and a forwarder without protocol under the same load, in turns in one run.
//!
//! The layout is the same for everyone: whoever is measured has one core to itself (`--relay-cores`), clients and peers
//! are one thread on another (`--load-core`), both at the highest priority; addresses are those of loopback.
use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

mod acceptance;
mod contender;
mod load;
mod part;

use super::parts;
use super::report::{circumstances, directory_of_reports, publish};
use super::results::{self, Book};
use super::rounds::Rounds;
use super::svg::Group;
use super::verdict::Verdict;
use crate::packages;
use crate::workspace::target_directory;
use contender::{Busy, Setting};
use load::{CPU, DIRECTIONS, Lengths, Load};
use part::Part;

/// As many as 16 000 clients take, and as 10 000 allocations and what coturn has for each client.
const OPEN_FILES: u64 = 20_000;

/// How much of it.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    rounds: Rounds,
    /// Only these parts, by name or its beginning: flows, flows-1, flows-16-1200, latency, churn, idle, idle-flows
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<String>,
    /// Cores of the one that is measured, as taskset(1) writes them
    #[arg(long, default_value = "1", value_name = "CORES")]
    relay_cores: String,
    /// The core of clients and peers
    #[arg(long, default_value_t = 0, value_name = "CORE")]
    load_core: usize,
    /// Run the one that is measured as a real-time process on cores that never idle: for a machine that has other work, too
    #[arg(long)]
    realtime: bool,
    /// Event loops of turn-relay [default: its own choice]
    #[arg(long)]
    threads: Option<u16>,
}

impl Options {
    const fn lengths(&self) -> Lengths {
        if self.rounds.quick {
            Lengths {
                warmup: 100,
                run: 300,
            }
        } else {
            Lengths {
                warmup: 200,
                run: 800,
            }
        }
    }

    /// What may be published; its parts may come from several runs.
    fn is_whole(&self) -> bool {
        let usual = self.relay_cores == "1" && self.load_core == 0 && self.threads.is_none();
        self.rounds.are_whole() && usual
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    packages::ensure_root("the benchmark")?;
    let parts = parts::chosen(Part::all(), &options.only)?;
    packages::ensure_installed(&[packages::FOR_BENCH_RELAY])?;
    let binaries = options.rounds.binaries(&["turn-relay", "turn-load"])?;
    allow_open_files()?;
    let directory = target_directory()?.join("bench/relay");
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    let setting = Setting {
        binaries,
        directory,
        relay_cores: options.relay_cores.clone(),
        load_core: options.load_core,
        realtime: options.realtime,
        threads: options.threads,
    };
    let file = directory_of_reports(options.is_whole())?.join("relay.json");
    let mut book = Book::read(&file)?;
    let begin = Instant::now();
    let busy = options.realtime.then(|| Busy::keep(&setting)).transpose()?;
    for part in parts {
        let measured = measure(part, &setting, options)?;
        book.parts.insert(part.to_string(), measured);
    }
    drop(busy);
    let verdicts = acceptance::judge(&book);
    println!("\nWhat the project asks for");
    verdicts.iter().for_each(Verdict::print);
    println!("\n{:.0} s", begin.elapsed().as_secs_f64());
    publish(&book, &verdicts, &charts(&book), &file)
}

fn allow_open_files() -> Result<()> {
    let (soft, hard) =
        getrlimit(Resource::RLIMIT_NOFILE).context("reading the limit of open files")?;
    if soft >= OPEN_FILES {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, hard.max(OPEN_FILES))
        .with_context(|| format!("{OPEN_FILES} open files are needed (ulimit -n), {hard} allowed"))
}

fn measure(part: Part, setting: &Setting, options: &Options) -> Result<results::Part> {
    let rounds = options.rounds.count();
    let mut measured = results::Part {
        circumstances: circumstances(),
        realtime: options.realtime,
        rounds,
        cases: Vec::new(),
    };
    for round in 1..=rounds {
        eprintln!("   {part}, round {round} of {rounds}");
        part.round(setting, options.lengths(), &mut measured)
            .with_context(|| format!("{part}, round {round}"))?;
    }
    measured.conclude();
    part.print(&measured);
    Ok(measured)
}

/// CPU per packet, and what else has one number.
fn charts(book: &Book) -> Vec<Group> {
    let mut groups = Vec::new();
    for flows in part::FLOWS {
        for direction in DIRECTIONS {
            let (large, small) = part::SIZES
                .map(|size| Load::fast(flows, size, direction))
                .into();
            for load in [large, large.plain(), small] {
                let title = format!("{}: CPU per packet, ns", load.name());
                groups.extend(book.group(&load.name(), CPU, 1.0, title, part::is_ours));
            }
        }
    }
    for direction in DIRECTIONS {
        let case = part::half_load(direction, "its own");
        let title = format!("p99 added {case}, us");
        groups.extend(book.group(&case, part::ADDED[1], 1.0, title, part::is_ours));
    }
    let title = "CPU of an allocation, made and given back, us".to_owned();
    groups.extend(book.group(part::CHURN, "cpu_ns_each", 1e3, title, part::is_ours));
    let title = "Memory of an idle allocation of 10 000, bytes".to_owned();
    groups.extend(book.group(&part::held(10_000), "bytes_each", 1.0, title, part::is_ours));
    groups
}
