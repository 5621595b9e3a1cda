//! The stages that all nodes go through together, and how long each takes.
use std::fs;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use discovery_client::{IdentityHandle, Settings};
use identity::Authority;
use model::{NodeId, Role};
use net::Clock;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::cli::Arguments;
use crate::node::{Node, Target};
use crate::report::{Board, Counts, Memory, Report};

/// Certificates live longer than any load.
const CERTIFICATE: Duration = Duration::from_secs(86_400);
/// How often the board is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Nodes that come to discovery at the same time.
const JOINING: u32 = 32;
/// For packets on links that stood idle.
const SECOND_ECHO: Duration = Duration::from_secs(10);
/// For the last words of links, which nobody acknowledges.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What every node does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Comes to discovery and finds the activator.
    Join,
    /// Opens its link, sends one packet.
    Open,
    /// Sends another.
    Again,
    /// Closes the link.
    End,
}

/// Runs all of them.
///
/// # Errors
/// When the nodes cannot be made or do not come to discovery in time. Links that do not open are in the report.
pub(crate) fn run(arguments: &Arguments) -> Result<Report> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(load(arguments))
}

async fn load(arguments: &Arguments) -> Result<Report> {
    let board = Arc::new(Board::default());
    let (stage, stages) = watch::channel(Stage::Join);
    let begin = Instant::now();
    start(arguments, &board, &stages).await?;
    let all = arguments.links;
    let join_within = Duration::from_secs(arguments.join_within);
    if !until(&board, join_within, |counts| counts.joined == all).await {
        let joined = board.counts().joined;
        bail!("{joined} of {all} nodes came to discovery within {join_within:?}");
    }
    let joined = begin.elapsed();
    let before = memory(arguments)?;

    stage.send_replace(Stage::Open);
    let open_within = Duration::from_secs(arguments.open_within);
    let echoed = |round: usize| move |counts: &Counts| counts.echoes[round].len() == all as usize;
    until(&board, open_within, echoed(0)).await;
    sleep(Duration::from_secs(arguments.hold)).await;
    let idle = memory(arguments)?;
    let open = board.counts().open;
    stage.send_replace(Stage::Again);
    until(&board, SECOND_ECHO, echoed(1)).await;
    let counts = board.counts().clone();
    stage.send_replace(Stage::End);
    sleep(LAST_WORDS).await;

    let grown = |(before, idle): (Option<u64>, Option<u64>)| {
        let (before_kib, idle_kib) = before.zip(idle)?;
        Some(Memory {
            before_kib,
            idle_kib,
            per_link_kib: idle_kib.saturating_sub(before_kib) as f64 / f64::from(open.max(1)),
        })
    };
    let mut report = Report::new(all, joined, counts);
    report.idle_s = arguments.hold;
    report.open_after_idle = open;
    report.activator = grown((before[0], idle[0]));
    report.discovery = grown((before[1], idle[1]));
    Ok(report)
}

/// Makes the nodes and lets them run.
async fn start(
    arguments: &Arguments,
    board: &Arc<Board>,
    stages: &watch::Receiver<Stage>,
) -> Result<()> {
    let read = |file: &str| {
        let path = arguments.mesh_directory.join(file);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let authority = Authority::load(&read("ca-certificate.pem")?, &read("ca-key.pem")?)?;
    for number in 0..arguments.links {
        let id = NodeId {
            network: arguments.network.clone(),
            role: Role::Workload,
            name: format!("load-{number}").parse()?,
        };
        let identity = authority.new_node(id, CERTIFICATE, Clock.unix_time())?;
        let settings = Settings {
            discovery: arguments.discovery.clone(),
            // Only a renewed certificate would be written there.
            state_directory: arguments.mesh_directory.clone(),
            join_token: None,
            node_name: None,
            network: arguments.network.clone(),
            role: Role::Workload,
        };
        let identity = Arc::new(IdentityHandle::new(identity, &settings.state_directory));
        let (directory, events) = discovery_client::start(settings, identity, pending());
        let target = Target {
            network: arguments.to.clone(),
            service: arguments.service.clone(),
            port: arguments.port,
        };
        let node = Node::new(arguments.bind(), target, directory, board.clone()).await?;
        tokio::spawn(node.run(events, stages.clone()));
        // All at once would have each wait for all others, and give up.
        let join_within = Duration::from_secs(arguments.join_within);
        until(board, join_within, |counts| {
            counts.joined + JOINING > number
        })
        .await;
    }
    Ok(())
}

/// Waits for the nodes to have got so far. `false`: not in time.
async fn until(board: &Board, within: Duration, reached: impl Fn(&Counts) -> bool) -> bool {
    let deadline = Instant::now() + within;
    while !reached(&board.counts()) {
        if Instant::now() >= deadline {
            return false;
        }
        sleep(LOOK).await;
    }
    true
}

/// Of the activator and of discovery, where they were named.
fn memory(arguments: &Arguments) -> Result<[Option<u64>; 2]> {
    let of = |pid: Option<i32>| pid.map(anonymous_kib).transpose();
    Ok([of(arguments.activator)?, of(arguments.discovery_process)?])
}

fn anonymous_kib(pid: i32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("{path} says nothing of RssAnon"))
}
