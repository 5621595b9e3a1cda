//! The predecessor's side.

use super::format::{ListenerState, ShardState, State};
use super::passing::Passing;
use super::{READY, TOOK, VARIABLE, VERSION};
use crate::control::{Control, ControlSender};
use anyhow::{Context, bail};
use net::Clock;
use prost::Message;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// How long a successor may take to read its configuration. Everything goes on meanwhile.
const STARTING: Duration = Duration::from_secs(30);
/// How long an event loop may take to write down what it knows.
const FREEZING: Duration = Duration::from_secs(2);
/// How long a successor may take to go on. Nothing is relayed meanwhile.
const TAKING: Duration = Duration::from_secs(5);

/// What an event loop leaves, when it has stopped between two turns.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) state: ShardState,
    /// In the order of [`State`]. They are the loop's, which keeps them open until it is told what then.
    pub(crate) sockets: Vec<RawFd>,
}

/// What a stopped event loop does next. It goes on when nobody tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    GoOn,
    End,
}

/// What there is to hand over, apart from what the event loops know.
pub(crate) struct Estate {
    pub(crate) nonce_key: [u8; 32],
    pub(crate) nonce_start: Instant,
    /// Transport, address as configured, address: in the order of each event loop's sockets.
    pub(crate) listeners: Vec<(&'static str, SocketAddr, SocketAddr)>,
    /// As configured, and its socket.
    pub(crate) admin: Option<(SocketAddr, OwnedFd)>,
    pub(crate) loops: Vec<ControlSender>,
}

impl Estate {
    /// Starts a successor and gives it everything: its process id. Blocks. On success the event loops end, with their
    /// sockets left to the successor.
    ///
    /// # Errors
    /// When there is no successor. Everything goes on as before then.
    pub(crate) fn hand_over(&self) -> anyhow::Result<u32> {
        let (successor, there) = Passing::pair().context("no socket pair")?;
        let mut child = spawn(there)?;
        let pid = child.id();
        tracing::info!(pid, "a successor starts");
        let result = self.to(&successor);
        if let Err(error) = result {
            // It must not go on beside this one. It is not waited for by anybody else.
            let _ = child.kill();
            let status = child.wait();
            let ended = status.map_or_else(|_| "is gone".to_owned(), |s| s.to_string());
            return Err(error.context(format!("the successor {pid} has ended ({ended})")));
        }
        Ok(pid)
    }

    fn to(&self, successor: &Passing) -> anyhow::Result<()> {
        successor.set_patience(STARTING)?;
        let (said, _) = successor
            .receive()
            .context("it is not ready in time")?
            .context("it did not get ready: see its message above")?;
        let version = said.strip_prefix(READY).and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            digits.parse::<u32>().ok()
        });
        if version.context("it does not speak as a successor")? < VERSION {
            bail!("it is too old to take over: start it anew");
        }
        successor.set_patience(TAKING)?;
        let stopped_at = Clock.now();
        let stopped = Stopped::all(&self.loops)?;
        let (state, sockets) = self.write(&stopped);
        successor.send_state(&state, &sockets)?;
        let took = successor
            .receive()
            .context("it does not go on in time")?
            .is_some_and(|(said, _)| said == TOOK);
        if !took {
            bail!("it failed to take over: see its message above");
        }
        let stopped_for = stopped_at.elapsed();
        stopped.end();
        tracing::info!(
            bytes = state.len(),
            sockets = sockets.len(),
            stopped_for = ?stopped_for,
            "handed over"
        );
        Ok(())
    }

    fn write(&self, stopped: &Stopped) -> (Vec<u8>, Vec<RawFd>) {
        let listener =
            |(transport, configured, address): &(&str, SocketAddr, SocketAddr)| ListenerState {
                transport: (*transport).to_owned(),
                configured: configured.to_string(),
                address: address.to_string(),
            };
        let age = self.nonce_start.elapsed();
        let state = State {
            version: VERSION,
            nonce_key: self.nonce_key.to_vec(),
            nonce_age: age.as_micros() as u64,
            listeners: self.listeners.iter().map(listener).collect(),
            admin: self.admin.as_ref().map(|(address, _)| address.to_string()),
            shards: stopped.loops.iter().map(|l| l.0.state.clone()).collect(),
        };
        let admin = self.admin.iter().map(|(_, socket)| socket.as_raw_fd());
        let of_loops = stopped.loops.iter().flat_map(|l| l.0.sockets.iter());
        let sockets = admin.chain(of_loops.copied()).collect();
        (state.encode_to_vec(), sockets)
    }
}

/// The program as it was started, under a name that may lead to another binary now.
fn spawn(there: OwnedFd) -> anyhow::Result<Child> {
    let mut words = std::env::args_os();
    let program: OsString = words.next().context("the program's name is not known")?;
    Command::new(&program)
        .args(words)
        .env(VARIABLE, "1")
        .stdin(Stdio::from(there))
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

/// Event loops that wait to be told what then, and go on when this is dropped.
struct Stopped {
    loops: Vec<(Frozen, Sender<Then>)>,
}

impl Stopped {
    fn all(loops: &[ControlSender]) -> anyhow::Result<Self> {
        let mut waiting: Vec<(Receiver<Frozen>, Sender<Then>)> = Vec::new();
        for event_loop in loops {
            let (frozen, is_frozen) = channel();
            let (tell, then) = channel();
            event_loop.send(Control::Freeze { frozen, then });
            waiting.push((is_frozen, tell));
        }
        let mut stopped = Vec::new();
        for (is_frozen, tell) in waiting {
            let frozen = is_frozen.recv_timeout(FREEZING);
            stopped.push((frozen.context("an event loop does not stop")?, tell));
        }
        Ok(Self { loops: stopped })
    }

    fn end(&self) {
        for (_, tell) in &self.loops {
            // One that is gone has ended.
            let _ = tell.send(Then::End);
        }
    }
}
