//! `bench tunnel`: two networks joined by ours, by no tunnel, and by the rivals, in turns in one run.
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Args;

mod acceptance;
mod contender;
mod guard;
mod load;
mod ours;
mod part;
mod report;
mod results;
mod rivals;

use contender::Contender;
use load::Metrics;
use ours::{Site, Way};
use part::{Lengths, LongPath, Part};
use results::{Entry, Table};
use rivals::Rival;

use super::parts;
use super::rounds::Rounds;
use crate::{build, packages, shell};

/// How much of it.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    rounds: Rounds,
    /// Only these parts, by name or its beginning: tcp, tcp-16, ping, loaded, both, udp, long, long-bbr-80ms-0.1
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<String>,
    /// Only these contenders: no-tunnel, lane, channel, lane-relay, channel-relay, lane-coturn, channel-coturn, nebula, wireguard-go, boringtun
    #[arg(long, value_name = "CONTENDER", value_delimiter = ',')]
    of: Vec<String>,
    /// TCP's congestion control where no delay box stands; default: the kernel's
    #[arg(long, value_name = "NAME")]
    congestion: Option<String>,
}

impl Options {
    fn wants(&self, contender: &str) -> bool {
        self.of.is_empty() || self.of.iter().any(|wanted| wanted == contender)
    }

    /// Everything, in full: what may be published.
    fn is_whole(&self) -> bool {
        self.only.is_empty()
            && self.of.is_empty()
            && self.rounds.are_whole()
            && self.congestion.is_none()
    }

    const fn lengths(&self) -> Lengths {
        if self.rounds.quick {
            Lengths {
                single: 2,
                short: 2,
                long: 5,
                long_beside: 3,
                pings: 100,
            }
        } else {
            Lengths {
                single: 3,
                short: 2,
                long: 10,
                long_beside: 6,
                pings: 250,
            }
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    packages::ensure_root("the benchmark")?;
    let labs = Way::ALL.map(Way::lab);
    guard::guarded(&labs, rivals::clean_up, || measure(options))
}

fn measure(options: &Options) -> Result<()> {
    let parts = parts::chosen(Part::all(), &options.only)?;
    packages::ensure_installed(&[packages::FOR_LAB, packages::FOR_BENCH_TUNNEL])?;
    rivals::prepare(|name| options.wants(name))?;
    let binaries = options.rounds.binaries(&build::FOR_LAB)?;
    let begin = Instant::now();
    let (long, short): (Vec<Part>, Vec<Part>) = parts
        .into_iter()
        .partition(|part| part.long_path().is_some());
    let mut tables = Vec::new();
    if !short.is_empty() {
        let field = Field::short(options, &binaries)?;
        for part in short {
            tables.push(field.part(part, options)?);
        }
    }
    if !long.is_empty() {
        let mut field = Field::long(options, &binaries)?;
        for part in long {
            if let Some(path) = part.long_path() {
                field.shape(&binaries, path)?;
            }
            tables.push(field.part(part, options)?);
        }
    }
    let verdicts = acceptance::judge(&tables);
    println!("\nWhat the project asks for");
    for verdict in &verdicts {
        verdict.print();
    }
    report::write(options, &tables, &verdicts, begin.elapsed())
}

/// Everyone who is measured in a part, and what they stand on.
struct Field {
    contenders: Vec<Contender>,
    rivals: Vec<Rival>,
    sites: Vec<Site>,
}

impl Field {
    fn short(options: &Options, binaries: &Path) -> Result<Self> {
        Self::of(options, binaries, &[Way::Direct, Way::Relay, Way::Coturn])
    }

    fn long(options: &Options, binaries: &Path) -> Result<Self> {
        Self::of(options, binaries, &[Way::Long])
    }

    /// Brings up what the chosen contenders need, the first way being the one of the rivals.
    fn of(options: &Options, binaries: &Path, ways: &[Way]) -> Result<Self> {
        let mut field = Self {
            contenders: Vec::new(),
            rivals: Vec::new(),
            sites: Vec::new(),
        };
        shell::heading("Bringing the labs up");
        for (index, &way) in ways.iter().enumerate() {
            let ours = way.contenders().iter().any(|name| options.wants(name));
            let hosts_rivals = index == 0;
            if !ours && !hosts_rivals {
                continue;
            }
            let site = Site::up(way, binaries, ours)
                .with_context(|| format!("bringing up {}", way.lab()))?;
            field.contenders.extend(site.bare());
            if ours {
                field.contenders.extend(site.contenders()?);
            }
            if hosts_rivals {
                field.rivals = start_rivals(options, &site)?;
            }
            field.sites.push(site);
        }
        let rivals = field.rivals.iter().map(|rival| rival.contender.clone());
        field.contenders.extend(rivals);
        field
            .contenders
            .retain(|contender| options.wants(contender.name));
        Ok(field)
    }

    /// Gives the cables another shape; what was lost on the way is waited for.
    fn shape(&mut self, binaries: &Path, path: LongPath) -> Result<()> {
        for site in &mut self.sites {
            for (seed, cable) in (1..).zip(&mut site.cables) {
                let arguments = path.arguments(seed);
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                cable.shape(binaries, &arguments)?;
            }
        }
        self.contenders.iter().try_for_each(Contender::wait_open)
    }

    /// All rounds of a part, each contender once per round.
    fn part(&self, part: Part, options: &Options) -> Result<Table> {
        let rounds = options.rounds.count();
        let mut entries: Vec<Entry> = self
            .contenders
            .iter()
            .map(|contender| Entry {
                contender: contender.name,
                rounds: Vec::new(),
            })
            .collect();
        for round in 1..=rounds {
            let mut field: Vec<(&Contender, &mut Entry)> = self
                .contenders
                .iter()
                .zip(&mut entries)
                .filter(|(contender, _)| part.takes_part(contender.name, round))
                .collect();
            if field.is_empty() {
                break;
            }
            eprint!("   {part}, round {round} of {rounds}:");
            for (contender, entry) in &mut field {
                eprint!(" {}", contender.name);
                // A tunnel that stalls is a result, not the end of the run.
                let metrics = part
                    .measure(contender, options.lengths(), options.congestion.as_deref())
                    .unwrap_or_else(|error| {
                        eprintln!("\n   {}: {error:#}", contender.name);
                        Metrics::new()
                    });
                entry.rounds.push(metrics);
            }
            eprintln!();
        }
        let table = Table { part, entries };
        table.print();
        Ok(table)
    }
}

fn start_rivals(options: &Options, site: &Site) -> Result<Vec<Rival>> {
    let cable = site.cables.first().context("no cable for the rivals")?;
    let wanted = rivals::NAMES.into_iter().filter(|name| options.wants(name));
    wanted
        .map(|name| {
            let rival = rivals::start(name, &site.lab, cable)?;
            rival.contender.wait_open()?;
            Ok(rival)
        })
        .collect()
}
