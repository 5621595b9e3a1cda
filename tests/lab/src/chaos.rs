//! Five networks under constant traffic, to which something happens again and again, by chance, from a seed.
//!
//! Each workload holds a connection to the service of each other network and makes new ones, with records that say for
//! whom they are ([`traffic`]). What happens is drawn from the seed ([`event`]). From the moment when it is over, or at
//! once where another way stays open, everything must flow again in time ([`Chaos::heals_within`]); meanwhile nobody may
//! end by himself, complain as of an error, or grow ([`processes`]).
//!
//! The sequence of events depends on the seed alone, not on how long anything takes.
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::lab::{Lab, LabOptions};
use crate::nat::NatKind;
use crate::plan::Network;
use crate::process::FileKind;
use crate::scoped::ScopedLab;
use crate::topology;

mod event;
mod processes;
mod random;
mod traffic;

pub use event::{Event, Events};
pub use traffic::{Told, ToldOfPair};

use processes::Processes;
use traffic::Traffic;

/// From the end of an event until every pair's traffic flows, on a machine that has nothing else to do.
pub const HEALS_WITHIN: Duration = Duration::from_secs(15);
/// When something did not heal, it is looked at for so long before the run is given up.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(60);
/// What a process may take until it has given back what it needed for a while.
const SETTLES_WITHIN: Duration = Duration::from_secs(30);

/// What each network's router does; the rest of a pair decides whether it has a direct way.
const NATS: [NatKind; 5] = [
    NatKind::Symmetric,
    NatKind::PortRestricted,
    NatKind::FullCone,
    NatKind::AddressRestricted,
    NatKind::Symmetric,
];

/// What is to happen.
#[derive(Debug, Clone)]
pub struct Chaos {
    /// What the events are drawn from.
    pub seed: u64,
    /// No event begins after this.
    pub length: Duration,
    /// From the end of an event until every pair's traffic flows: [`HEALS_WITHIN`], or more where other things run.
    pub heals_within: Duration,
    /// A directory for logs and statuses, as they were when something was first seen that must not be.
    pub evidence: PathBuf,
}

/// One event, and what came of it.
#[derive(Debug, Clone)]
pub struct Row {
    /// From the start of the run.
    pub at: Duration,
    /// What happened.
    pub event: Event,
    /// From its end, or from its beginning where another way stays open, until every pair's traffic flowed.
    pub healed: Duration,
    /// The longest time in which a pair's connection brought nothing back, the event itself included.
    pub longest_pause: Duration,
    /// Connections that broke.
    pub broken: usize,
}

/// A run.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// In the order in which they happened.
    pub rows: Vec<Row>,
    /// Records that came back.
    pub records: u64,
    /// What must not be; empty when all is well.
    pub problems: Vec<String>,
    /// What the processes used at first and at last; empty when the run was given up.
    pub usage: String,
}

impl Chaos {
    /// Brings the networks up, and lets things happen. `say` gets a line for each event.
    pub fn run(&self, options: &LabOptions, say: &mut dyn FnMut(&str)) -> Result<Report> {
        let options = LabOptions {
            networks: Network::FIVE.len(),
            // So many processes start at once.
            ready_within: Duration::from_secs(60),
            ..options.clone()
        };
        let lab = ScopedLab::up(&options)?;
        for (&network, nat) in lab.networks().iter().zip(NATS) {
            lab.set_nat(network, nat)?;
            retransmit_often(&lab, &format!("{network}/app"))?;
            let service = format!("{network}/{}", network.service());
            retransmit_often(&lab, &service)?;
            // What listens already has made its choice.
            lab.stop(&service)?;
            lab.start(&service)?;
        }
        let traffic = Traffic::start(&lab)?;
        traffic.wait_until_all_flow(traffic::now(), GIVEN_UP_AFTER)?;
        let run = Run {
            lab: &lab,
            evidence: &self.evidence,
            heals_within: self.heals_within,
            say,
            begin: Instant::now(),
            traffic,
            processes: Processes::of(&lab),
            report: Report::default(),
        };
        run.go(self)
    }
}

struct Run<'a> {
    lab: &'a Lab,
    evidence: &'a Path,
    heals_within: Duration,
    say: &'a mut dyn FnMut(&str),
    begin: Instant,
    traffic: Traffic,
    processes: Processes,
    report: Report,
}

impl Run<'_> {
    fn go(mut self, chaos: &Chaos) -> Result<Report> {
        let before = self.processes.usage(self.lab)?;
        let mut events = Events::new(chaos.seed, self.lab.networks());
        while self.begin.elapsed() < chaos.length {
            let (calm, event) = events.draw();
            thread::sleep(calm);
            // What flowed must go on flowing when nothing happens.
            if self.heal("in quiet")?.is_none() || !self.happen(event)? {
                break;
            }
        }
        self.report.records = self.traffic.records();
        let grown = self.processes.grown(self.lab, &before, SETTLES_WITHIN)?;
        self.report.usage = grown.table;
        for problem in grown.problems {
            self.problem(&problem)?;
        }
        Ok(self.report)
    }

    /// False when there is no sense in going on.
    fn happen(&mut self, event: Event) -> Result<bool> {
        let at = self.begin.elapsed();
        let name = event.to_string();
        self.traffic.forget_pauses();
        let lasting = event.begin(self.lab)?;
        let meanwhile = if event.leaves_a_way() {
            let begin = Instant::now();
            let healed = self.heal(&format!("while {name}"))?;
            thread::sleep(lasting.saturating_sub(begin.elapsed()));
            healed
        } else {
            thread::sleep(lasting);
            Some(Duration::ZERO)
        };
        let begin = Instant::now();
        event.end(self.lab)?;
        let started = begin.elapsed();
        let (Some(meanwhile), Some(healed)) = (meanwhile, self.heal(&format!("after {name}"))?)
        else {
            return Ok(false);
        };
        let row = Row {
            at,
            event,
            healed: meanwhile.max(started + healed),
            longest_pause: self.traffic.longest_pause(),
            broken: self.look(&name)?,
        };
        (self.say)(&row.to_string());
        self.report.rows.push(row);
        Ok(true)
    }

    /// Waits until everything flows that is sent from now on; how long it took, or nothing when it never did.
    fn heal(&mut self, when: &str) -> Result<Option<Duration>> {
        let (begin, from) = (Instant::now(), traffic::now());
        if let Err(error) = self.traffic.wait_until_all_flow(from, self.heals_within) {
            self.problem(&format!("{when}: {error:#}"))?;
            let late = self.traffic.wait_until_all_flow(from, GIVEN_UP_AFTER);
            if let Err(error) = late {
                self.problem(&format!("{when}, and later: {error:#}"))?;
                return Ok(None);
            }
        }
        Ok(Some(begin.elapsed()))
    }

    /// What there is to see after an event; how many connections broke.
    fn look(&mut self, name: &str) -> Result<usize> {
        let broken = self.traffic.take_broken();
        for said in &broken {
            (self.say)(&format!("    broke: {said}"));
        }
        let wrong = self.traffic.take_wrong();
        let ended = self.processes.ended(self.lab)?;
        let complaints = self.processes.complaints(self.lab)?;
        for said in [wrong, ended, complaints].concat() {
            self.problem(&format!("after {name}: {said}"))?;
        }
        Ok(broken.len())
    }

    fn problem(&mut self, what: &str) -> Result<()> {
        (self.say)(&format!("PROBLEM: {what}"));
        if self.report.problems.is_empty() {
            keep_evidence(self.lab, self.evidence)?;
        }
        self.report.problems.push(what.to_owned());
        Ok(())
    }
}

/// A kernel waits twice as long each time before it sends a segment again, so that a connection is found healed only
/// long after it is. Where that can be bounded (since Linux 6.15), it is, and the number of times is raised instead.
fn retransmit_often(lab: &Lab, host: &str) -> Result<()> {
    let option = "ipv4/tcp_rto_max_ms";
    if !Path::new("/proc/sys/net").join(option).exists() {
        return Ok(());
    }
    let options = [(option, "1000"), ("ipv4/tcp_retries2", "100")];
    topology::set_kernel_options(&lab.namespace(host), &options)
}

/// Logs, and what each node says of itself.
fn keep_evidence(lab: &Lab, directory: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(directory);
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    for process in lab.nodes() {
        let stem = process.name.replace('/', "-");
        let log = lab.files().of_process(&process.name, FileKind::Log);
        fs::copy(&log, directory.join(format!("{stem}.log")))
            .with_context(|| format!("copying {}", log.display()))?;
        // Of one that does not answer, that is what there is to say.
        let status = lab.admin(&process.name, "/status");
        let status = status.unwrap_or_else(|error| format!("{error:#}"));
        fs::write(directory.join(format!("{stem}.status")), status)?;
    }
    Ok(())
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:7.1} s  {:<52} healed {:5.1} s, longest pause {:5.1} s, {} broken",
            self.at.as_secs_f64(),
            self.event.to_string(),
            self.healed.as_secs_f64(),
            self.longest_pause.as_secs_f64(),
            self.broken
        )
    }
}

impl Report {
    /// How long each kind of event took to heal.
    #[must_use]
    pub fn table(&self) -> String {
        let mut kinds: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
        for row in &self.rows {
            kinds.entry(row.event.kind()).or_default().push(row);
        }
        let mut table = format!(
            "{:<24} {:>6} {:>12} {:>12} {:>14} {:>7}\n",
            "event", "times", "healed, med.", "worst", "longest pause", "broken"
        );
        for (kind, rows) in kinds {
            let mut healed: Vec<Duration> = rows.iter().map(|row| row.healed).collect();
            healed.sort_unstable();
            let seconds = |time: Option<Duration>| time.unwrap_or_default().as_secs_f64();
            let pause = rows.iter().map(|row| row.longest_pause).max();
            let _ = writeln!(
                table,
                "{kind:<24} {:>6} {:>10.1} s {:>10.1} s {:>12.1} s {:>7}",
                rows.len(),
                seconds(healed.get(healed.len() / 2).copied()),
                seconds(healed.last().copied()),
                seconds(pause),
                rows.iter().map(|row| row.broken).sum::<usize>()
            );
        }
        table
    }
}
