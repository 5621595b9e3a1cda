//! The mesh's processes while things happen: whether they live, what they complain of, what they use.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::lab::Lab;
use crate::process::FileKind;
use crate::wait;

/// What a process may use more than before it all: what its allocator keeps, what it holds for peers that went away and
/// came back, what is under way.
const MORE_KIB: u64 = 24 * 1024;
const MORE_DESCRIPTORS: usize = 24;
const MORE_THREADS: usize = 4;

/// What a process uses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    resident_kib: u64,
    descriptors: usize,
    threads: usize,
}

/// The processes by name, and how far their logs were read.
#[derive(Debug)]
pub(super) struct Processes {
    logs: BTreeMap<String, u64>,
}

/// What came of comparing.
#[derive(Debug)]
pub(super) struct Grown {
    pub(super) table: String,
    pub(super) problems: Vec<String>,
}

impl Processes {
    pub(super) fn of(lab: &Lab) -> Self {
        let names = lab.nodes().map(|process| process.name.clone());
        Self {
            logs: names.map(|name| (name, 0)).collect(),
        }
    }

    /// Those that ended by themselves.
    pub(super) fn ended(&self, lab: &Lab) -> Result<Vec<String>> {
        let mut ended = Vec::new();
        for name in self.logs.keys() {
            let handle = lab.process(name)?;
            if handle.running().is_none() {
                ended.push(format!("{name} ended by itself; {}", handle.last_words()));
            }
        }
        Ok(ended)
    }

    /// Lines of errors and panics since this was asked last.
    pub(super) fn complaints(&mut self, lab: &Lab) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for (name, read) in &mut self.logs {
            let path = lab.files().of_process(name, FileKind::Log);
            let mut log =
                File::open(&path).with_context(|| format!("opening {}", path.display()))?;
            log.seek(SeekFrom::Start(*read))?;
            let mut reader = BufReader::new(log);
            let mut line = String::new();
            // The last line may be half written.
            while reader.read_line(&mut line)? > 0 && line.ends_with('\n') {
                *read += line.len() as u64;
                if line.contains(" ERROR ") || line.contains("panicked at") {
                    found.push(format!("{name} says: {}", line.trim_end()));
                }
                line.clear();
            }
        }
        Ok(found)
    }

    /// What each uses now.
    pub(super) fn usage(&self, lab: &Lab) -> Result<BTreeMap<String, Usage>> {
        self.logs
            .keys()
            .map(|name| Ok((name.clone(), usage(lab, name)?)))
            .collect()
    }

    /// Compares what each uses with what it used `before`, after giving it time to settle.
    pub(super) fn grown(
        &self,
        lab: &Lab,
        before: &BTreeMap<String, Usage>,
        settles_within: Duration,
    ) -> Result<Grown> {
        let mut now = BTreeMap::new();
        let settled = wait::until_true("all processes to settle", settles_within, || {
            now = self.usage(lab)?;
            Ok(now.iter().all(|(name, now)| now.is_about(before[name])))
        });
        let mut table = format!(
            "{:<18} {:>22} {:>16} {:>12}\n",
            "process", "resident KiB", "descriptors", "threads"
        );
        let mut problems = Vec::new();
        for (name, now) in &now {
            let before = before[name];
            let memory = format!("{} -> {}", before.resident_kib, now.resident_kib);
            let descriptors = format!("{} -> {}", before.descriptors, now.descriptors);
            let threads = format!("{} -> {}", before.threads, now.threads);
            let _ = writeln!(
                table,
                "{name:<18} {memory:>22} {descriptors:>16} {threads:>12}"
            );
            if settled.is_err() && !now.is_about(before) {
                problems.push(format!("{name} grew: {before:?} -> {now:?}"));
            }
        }
        Ok(Grown { table, problems })
    }
}

impl Usage {
    const fn is_about(self, before: Self) -> bool {
        self.resident_kib <= before.resident_kib + MORE_KIB
            && self.descriptors <= before.descriptors + MORE_DESCRIPTORS
            && self.threads <= before.threads + MORE_THREADS
    }
}

fn usage(lab: &Lab, name: &str) -> Result<Usage> {
    let pid = lab.process(name)?.running();
    let pid = pid.with_context(|| format!("{name} does not run"))?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let word = line.and_then(|rest| rest.split_whitespace().next());
        word.and_then(|word| word.parse().ok())
            .with_context(|| format!("{name} without {key}"))
    };
    Ok(Usage {
        resident_kib: field("VmRSS:")?,
        descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
        threads: usize::try_from(field("Threads:")?)?,
    })
}
