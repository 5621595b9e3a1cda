//! The traffic of all pairs, and what is known of it: a client in each workload's host tells ten times a second.
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::lab::Lab;
use crate::wait;

/// What `lab-service records` prints on one line.
#[derive(Debug, Serialize, Deserialize)]
pub struct Told {
    /// Milliseconds since 1970.
    pub at: u64,
    /// One for each service.
    pub pairs: Vec<ToldOfPair>,
}

/// What came back from one service.
#[derive(Debug, Serialize, Deserialize)]
pub struct ToldOfPair {
    /// The service, as `east/orders`.
    pub to: String,
    /// When the newest record was sent that came back on the connection that is held: milliseconds since 1970.
    pub held: u64,
    /// The same on a connection made for it.
    pub new: u64,
    /// Records that came back, ever.
    pub records: u64,
    /// Held connections that broke since the line before, and how.
    pub broken: Vec<String>,
    /// What came back since the line before and should not have.
    pub wrong: Vec<String>,
}

/// Milliseconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

#[derive(Debug, Default)]
struct Pair {
    held: u64,
    new: u64,
    records: u64,
    longest_pause: u64,
}

#[derive(Debug, Default)]
struct Known {
    /// By both names: `west/app to east/orders`.
    pairs: BTreeMap<String, Pair>,
    broken: Vec<String>,
    wrong: Vec<String>,
}

/// The clients; they end with this.
#[derive(Debug)]
pub(super) struct Traffic {
    clients: Vec<Child>,
    known: Arc<Mutex<Known>>,
}

impl Traffic {
    /// From each workload to each other network's service.
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let program = lab.binaries().join("lab-service").display().to_string();
        let known = Arc::new(Mutex::new(Known::default()));
        let mut clients = Vec::new();
        for &network in lab.networks() {
            let own = format!("{network}/app");
            let others = lab.networks().iter().filter(|&&other| other != network);
            let names: Vec<String> = others.map(|other| other.service_name()).collect();
            let mut command = vec![&*program, "records", "--own", &own];
            command.extend(names.iter().map(String::as_str));
            let mut client = lab.spawn(&own, &command)?;
            let lines = BufReader::new(client.stdout.take().context("what it prints")?).lines();
            clients.push(client);
            let known = Arc::clone(&known);
            thread::spawn(move || {
                for line in lines.map_while(Result::ok) {
                    if let Ok(told) = serde_json::from_str(&line) {
                        locked(&known).learn(&own, told);
                    }
                }
            });
        }
        Ok(Self { clients, known })
    }

    /// Waits until of each pair a record has come back that was sent at `from` or later, on the connection that is held
    /// and on a new one.
    pub(super) fn wait_until_all_flow(&self, from: u64, within: Duration) -> Result<()> {
        wait::until_true("all traffic to flow", within, || {
            let known = locked(&self.known);
            ensure!(!known.pairs.is_empty(), "nothing was told yet");
            let stuck: Vec<String> = known
                .pairs
                .iter()
                .filter(|(_, pair)| pair.held < from || pair.new < from)
                .map(|(name, pair)| {
                    let late = |newest: u64| from.saturating_sub(newest);
                    let (held, new) = (late(pair.held), late(pair.new));
                    format!("{name} (the held connection {held} ms behind, new ones {new} ms)")
                })
                .collect();
            ensure!(stuck.is_empty(), "not {}", stuck.join(", "));
            Ok(true)
        })
    }

    /// Pauses count from now on.
    pub(super) fn forget_pauses(&self) {
        for pair in locked(&self.known).pairs.values_mut() {
            pair.longest_pause = 0;
        }
    }

    /// The longest time in which a held connection brought nothing back.
    pub(super) fn longest_pause(&self) -> Duration {
        let known = locked(&self.known);
        let pauses = known.pairs.values().map(|pair| pair.longest_pause);
        Duration::from_millis(pauses.max().unwrap_or_default())
    }

    /// Held connections that broke since this was asked last.
    pub(super) fn take_broken(&self) -> Vec<String> {
        std::mem::take(&mut locked(&self.known).broken)
    }

    /// What came back since this was asked last and should not have.
    pub(super) fn take_wrong(&self) -> Vec<String> {
        std::mem::take(&mut locked(&self.known).wrong)
    }

    /// Records that came back, of all pairs.
    pub(super) fn records(&self) -> u64 {
        locked(&self.known)
            .pairs
            .values()
            .map(|pair| pair.records)
            .sum()
    }
}

impl Known {
    fn learn(&mut self, own: &str, told: Told) {
        for of_pair in told.pairs {
            let name = format!("{own} to {}", of_pair.to);
            let named = |said: String| format!("{name}: {said}");
            self.broken.extend(of_pair.broken.into_iter().map(named));
            self.wrong.extend(of_pair.wrong.into_iter().map(named));
            let pair = self.pairs.entry(name.clone()).or_default();
            pair.held = of_pair.held;
            pair.new = of_pair.new;
            pair.records = of_pair.records;
            let pause = told.at.saturating_sub(of_pair.held);
            pair.longest_pause = pair.longest_pause.max(pause);
        }
    }
}

fn locked(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Traffic {
    fn drop(&mut self) {
        for client in &mut self.clients {
            let _ = client.kill();
            let _ = client.wait();
        }
    }
}
