//! What can happen to a lab under a running transfer, and how long the transfer stands still.
//!
//! Each event is one line of `docs/protocol/link.md` or of the operator's guide, done to real processes: the transfer is
//! one TCP connection through the tunnel on which numbered records go there and back every 5 ms; it demands each back,
//! once and in order.
use std::cell::Cell;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::cable::Cable;
use crate::lab::{Lab, LabOptions};
use crate::plan::{self, Network, TCP_ECHO_PORT};
use crate::process::is_gone;
use crate::scoped::ScopedLab;
use crate::wait;

const APP: &str = "west/app";
const SIDECAR: &str = "west/dns-signal";
const RELAYS: [&str; 2] = ["west/relay", "west/relay2"];
/// Time for anything to come up again between two rounds.
const HEAL: Duration = Duration::from_secs(20);
/// A transfer runs so long before the event, and so long in all.
const BEFORE: Duration = Duration::from_millis(1_500);
const SECONDS: &str = "7";
/// A relay that drains is noticed within 5 s, and gone a few seconds later.
const SECONDS_OF_DRAIN: &str = "16";
/// How long a relay may drain; it takes less.
const DRAIN: Duration = Duration::from_secs(30);
/// Bytes that the relay at hand must have carried before the one that drains is gone: some hundred records.
const MOVED: f64 = 50_000.0;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The relay that carries the link is killed; another one is at hand.
    RelayKilled,
    /// The relay that carries the link is told to stop, and drains; another one is at hand.
    RelayDrained,
    /// The only relay is killed and started again at once.
    RelayRestarted,
    /// The direct path is cut; a relay is at hand.
    DirectCut,
    /// The activator is killed and started again at once: the established connection lives on.
    ActivatorRestarted,
    /// The activator is killed, another one is there: until a new connection is served.
    ActivatorKilled,
    /// Discovery is killed and started again.
    DiscoveryRestarted,
    /// The sidecar's host gets another address.
    AddressChanged,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::RelayKilled,
        Self::RelayDrained,
        Self::RelayRestarted,
        Self::DirectCut,
        Self::ActivatorRestarted,
        Self::ActivatorKilled,
        Self::DiscoveryRestarted,
        Self::AddressChanged,
    ];

    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RelayKilled => "relay killed, a second at hand",
            Self::RelayDrained => "relay drained, a second at hand",
            Self::RelayRestarted => "the only relay killed and started",
            Self::DirectCut => "direct path cut",
            Self::ActivatorRestarted => "the only activator killed and started",
            Self::ActivatorKilled => "activator killed: new connections",
            Self::DiscoveryRestarted => "discovery killed and started",
            Self::AddressChanged => "sidecar's address changes",
        }
    }

    /// The longest pause that is promised, on a machine that has nothing else to do.
    #[must_use]
    pub const fn bound(self) -> Duration {
        match self {
            Self::RelayKilled | Self::RelayDrained | Self::DirectCut | Self::ActivatorKilled => {
                Duration::from_secs(1)
            }
            Self::RelayRestarted | Self::ActivatorRestarted => Duration::from_secs(3),
            Self::AddressChanged => Duration::from_secs(2),
            Self::DiscoveryRestarted => Duration::from_millis(250),
        }
    }

    const fn needs_spares(self) -> bool {
        matches!(
            self,
            Self::RelayKilled | Self::RelayDrained | Self::ActivatorKilled
        )
    }
}

/// One round of an event.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Outcome {
    /// Records that came back; 0 where the event ends the connection.
    pub records: u64,
    /// How long nothing came back, or until a new connection was served, in milliseconds.
    pub longest_pause_ms: u64,
}

/// A lab in which one event can happen again and again.
#[derive(Debug)]
pub struct Stage {
    event: Event,
    // Before the lab, which it is part of.
    cable: Option<Cable>,
    lab: ScopedLab,
    /// The last number of the sidecar's address, and of the next one it gets.
    addresses: Cell<[u8; 2]>,
}

impl Stage {
    /// Brings the lab up.
    pub fn up(event: Event, options: &LabOptions) -> Result<Self> {
        let options = LabOptions {
            spares: event.needs_spares(),
            ..options.clone()
        };
        let lab = ScopedLab::up(&options)?;
        let mut cable = None;
        if event == Event::DirectCut {
            cable = Some(lab.join(APP, "east/activator", 0)?);
            for process in ["east/activator", SIDECAR] {
                lab.stop(process)?;
                lab.start(process)?;
            }
        }
        if event == Event::RelayDrained {
            for relay in RELAYS {
                let drain = format!("drain-seconds = {}\n", DRAIN.as_secs());
                lab.edit_config(relay, |config| drain + config)?;
                lab.stop(relay)?;
                lab.start(relay)?;
            }
        }
        let stage = Self {
            event,
            cable,
            lab,
            addresses: Cell::new(plan::APP_ADDRESSES),
        };
        stage.heal()?;
        Ok(stage)
    }

    /// One round: a transfer, the event in the middle of it, and everything well again afterwards.
    pub fn round(&self) -> Result<Outcome> {
        let lab = &*self.lab;
        let mut transfer = Transfer::start(lab, self.event)?;
        std::thread::sleep(BEFORE);
        transfer.check_runs()?;
        let outcome = match self.event {
            Event::RelayKilled => {
                let used = self.used_relay()?;
                lab.kill9(used)?;
                let outcome = transfer.finish()?;
                lab.start(used)?;
                outcome
            }
            Event::RelayDrained => {
                let used = self.used_relay()?;
                self.drain(used)?;
                let outcome = transfer.finish()?;
                lab.start(used)?;
                outcome
            }
            Event::RelayRestarted => self.restarted("west/relay", transfer)?,
            Event::ActivatorRestarted => self.restarted("east/activator", transfer)?,
            Event::DiscoveryRestarted => self.restarted("discovery", transfer)?,
            Event::AddressChanged => {
                let [from, to] = self.addresses.get();
                lab.readdress(APP, from, to)?;
                self.addresses.set([to, from]);
                transfer.finish()?
            }
            Event::DirectCut => {
                self.cut(true)?;
                let outcome = transfer.finish();
                self.cut(false)?;
                outcome?
            }
            Event::ActivatorKilled => {
                let used = self.used_activator()?;
                lab.kill9(&used)?;
                let pause = self.until_connected()?;
                transfer.abandon();
                lab.start(&used)?;
                Outcome {
                    records: 0,
                    longest_pause_ms: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                }
            }
        };
        self.heal()?;
        Ok(outcome)
    }

    fn restarted(&self, process: &str, transfer: Transfer) -> Result<Outcome> {
        self.lab.kill9(process)?;
        self.lab.start(process)?;
        transfer.finish()
    }

    /// Until everything is as before the first round.
    fn heal(&self) -> Result<()> {
        let lab = &*self.lab;
        if self.event == Event::ActivatorKilled {
            // Its registration comes back with it: the sidecar knows both.
            for activator in ["east/activator", "east/activator2"] {
                wait::until_true("footholds", HEAL, || footholds(lab, activator, 2))?;
            }
        }
        if matches!(self.event, Event::RelayKilled | Event::RelayDrained) {
            wait::until_true("footholds", HEAL, || footholds(lab, "east/activator", 2))?;
        }
        let direct = self.event == Event::DirectCut;
        wait::until_true("a link that carries", HEAL, || {
            connect(lab)?;
            let link = open_link(lab)?;
            Ok(!direct || link["path"] == "direct")
        })
    }

    fn cut(&self, cut: bool) -> Result<()> {
        let cable = self.cable.as_ref().context("there is no cable")?;
        let rule = if cut {
            let interface = &cable.interface;
            format!(
                "add table inet cut; add chain inet cut in {{ type filter hook input priority 0; }}; \
                 add rule inet cut in iifname {interface} drop"
            )
        } else {
            "delete table inet cut".to_owned()
        };
        for host in &cable.hosts {
            self.lab.output(host, &["nft", &rule])?;
        }
        Ok(())
    }

    /// Tells a relay to stop, and waits until it has, by itself and because nothing is on it any more; by then the other one
    /// carries the transfer.
    fn drain(&self, relay: &str) -> Result<()> {
        let lab = &*self.lab;
        let other = RELAYS.into_iter().find(|other| *other != relay);
        let other = other.context("another relay")?;
        let before = relayed(lab, other)?;
        let begin = Instant::now();
        let pid = lab.process(relay)?.tell_to_stop()?;
        let moved = || Ok(relayed(lab, other)? - before > MOVED);
        wait::until_true("the transfer to go over to the other relay", DRAIN, moved)?;
        ensure!(
            !is_gone(pid),
            "{relay} was gone before the transfer had left it"
        );
        let left = DRAIN.saturating_sub(begin.elapsed());
        wait::until_true("the drained relay to end before its time", left, || {
            Ok(is_gone(pid))
        })
    }

    /// The relay that carried more in the last moments.
    fn used_relay(&self) -> Result<&'static str> {
        let [one, two] = RELAYS;
        let count = || Ok::<_, anyhow::Error>([relayed(&self.lab, one)?, relayed(&self.lab, two)?]);
        let before = count()?;
        std::thread::sleep(Duration::from_millis(300));
        let after = count()?;
        let first = after[0] - before[0] > after[1] - before[1];
        Ok(if first { one } else { two })
    }

    fn used_activator(&self) -> Result<String> {
        let busy = |process: &str| -> Result<f64> {
            let links = self.lab.node_status(process)?["links"].clone();
            let links = links.as_array().cloned().unwrap_or_default();
            Ok(links
                .iter()
                .filter(|link| {
                    link["peer"]
                        .as_str()
                        .is_some_and(|it| it.starts_with("west/"))
                })
                .filter_map(|link| link["frames_received"].as_f64())
                .sum())
        };
        let names = ["east/activator", "east/activator2"];
        let before = names.map(busy);
        std::thread::sleep(Duration::from_millis(300));
        let mut most = (0.0, names[0]);
        for (name, before) in names.into_iter().zip(before) {
            let more = busy(name)? - before?;
            if more > most.0 {
                most = (more, name);
            }
        }
        Ok(most.1.to_owned())
    }

    /// From now until a new connection is served; several are tried at once, as a SYN that is lost costs a second.
    fn until_connected(&self) -> Result<Duration> {
        let begin = Instant::now();
        let mut attempts: Vec<Child> = Vec::new();
        loop {
            ensure!(begin.elapsed() < HEAL, "no new connection was served");
            attempts.push(fetch(&self.lab)?);
            std::thread::sleep(Duration::from_millis(50));
            let mut served = false;
            for child in &mut attempts {
                served |= child.try_wait()?.is_some_and(|status| status.success());
            }
            if served {
                let took = begin.elapsed();
                for mut child in attempts {
                    let _ = child.kill();
                    let _ = child.wait();
                }
                return Ok(took);
            }
        }
    }
}

/// The transfer, in the workload's host.
#[derive(Debug)]
struct Transfer(Child);

impl Transfer {
    fn start(lab: &Lab, event: Event) -> Result<Self> {
        let seconds = match event {
            Event::RelayDrained => SECONDS_OF_DRAIN,
            _ => SECONDS,
        };
        let program = lab.binaries().join("lab-service").display().to_string();
        let (name, port) = (Network::East.service_name(), TCP_ECHO_PORT.to_string());
        let command = [&*program, "sequence", &*name, &*port, "--seconds", seconds];
        lab.spawn(APP, &command).map(Self)
    }

    fn check_runs(&mut self) -> Result<()> {
        ensure!(
            self.0.try_wait()?.is_none(),
            "the transfer ended before the event"
        );
        Ok(())
    }

    fn finish(self) -> Result<Outcome> {
        let output = self.0.wait_with_output().context("the transfer")?;
        ensure!(
            output.status.success(),
            "the transfer broke: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        serde_json::from_slice(&output.stdout).context("what the transfer says")
    }

    fn abandon(mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Bytes that a relay has relayed, both ways.
fn relayed(lab: &Lab, relay: &str) -> Result<f64> {
    lab.metric(relay, "turn_relay_relayed_bytes_total")
}

fn fetch(lab: &Lab) -> Result<Child> {
    let url = format!("http://{}:8080/", Network::East.service_name());
    Command::new("ip")
        .args(["netns", "exec", &lab.namespace(APP)])
        .args(["curl", "-sS", "--fail", "-m", "5", "-o", "/dev/null", &url])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting curl")
}

fn connect(lab: &Lab) -> Result<()> {
    let url = format!("http://{}:8080/", Network::East.service_name());
    let curl = ["curl", "-sS", "--fail", "-m", "3", "-o", "/dev/null", &*url];
    lab.output(APP, &curl).map(drop)
}

fn open_link(lab: &Lab) -> Result<serde_json::Value> {
    let status = lab.node_status(SIDECAR)?;
    let links = status["links"].as_array().cloned().unwrap_or_default();
    let open = links.into_iter().find(|link| link["state"] == "open");
    open.context("no open link")
}

/// Whether an activator holds so many allocations in west.
fn footholds(lab: &Lab, activator: &str, count: usize) -> Result<bool> {
    let status = lab.node_status(activator)?;
    let allocations = status["allocations"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let held = allocations
        .iter()
        .filter(|held| held["network"] == "west" && held["state"] == "allocated");
    Ok(held.count() == count)
}
