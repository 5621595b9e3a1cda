//! The successor's side.

use super::format::{ConnectionState, ShardState, State};
use super::passing::Passing;
use super::{READY, TOOK, VARIABLE, VERSION};
use crate::config::Settings;
use anyhow::{Context, ensure};
use net::Clock;
use prost::Message;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// The process that started this one to be succeeded by it.
#[derive(Debug)]
pub(crate) struct Predecessor(Passing);

/// All that it left.
pub(crate) struct Inheritance {
    pub(crate) nonce_key: [u8; 32],
    /// What nonces count from.
    pub(crate) nonce_start: Instant,
    /// When it was taken over.
    pub(crate) at: Instant,
    pub(crate) listeners: InheritedListeners,
    /// As it is configured.
    pub(crate) admin: Option<(SocketAddr, OwnedFd)>,
    /// One for each event loop.
    pub(crate) shards: Vec<InheritedShard>,
}

/// One event loop's part.
#[derive(Debug)]
pub(crate) struct InheritedShard {
    /// For `turn_relay_proto::Server::import`.
    pub(crate) core: Vec<u8>,
    pub(crate) shared: Vec<OwnedFd>,
    /// By position; empty if they share.
    pub(crate) relays: Vec<Option<OwnedFd>>,
    pub(crate) connections: Vec<(ConnectionState, OwnedFd)>,
}

/// Listeners that nobody has claimed yet.
#[derive(Debug, Default)]
pub(crate) struct InheritedListeners(Vec<InheritedListener>);

#[derive(Debug)]
struct InheritedListener {
    transport: String,
    configured: SocketAddr,
    address: SocketAddr,
    sockets: Vec<OwnedFd>,
}

impl InheritedListeners {
    /// The address and the sockets, one for each event loop, of a listener that is configured alike here.
    pub(crate) fn claim(
        &mut self,
        transport: &str,
        configured: SocketAddr,
    ) -> Option<(SocketAddr, Vec<OwnedFd>)> {
        let is_it = |l: &InheritedListener| l.transport == transport && l.configured == configured;
        let found = self.0.iter().position(is_it)?;
        let found = self.0.remove(found);
        Some((found.address, found.sockets))
    }
}

impl Predecessor {
    /// If this process was started as a successor.
    ///
    /// # Errors
    /// When standard input does not lead to a predecessor, although it should.
    pub(crate) fn of_this_process() -> anyhow::Result<Option<Self>> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
        let metadata = std::fs::File::from(socket.try_clone()?).metadata()?;
        ensure!(
            std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type()),
            "{VARIABLE} is set, but nobody is there to be succeeded: unset it"
        );
        Ok(Some(Self(Passing::from(socket))))
    }

    /// Says that this process is ready, and takes everything. Blocks. From here on nothing is relayed until
    /// [`Predecessor::took`].
    ///
    /// # Errors
    /// When the predecessor is gone, or left something that cannot be understood.
    pub(crate) fn take(&self) -> anyhow::Result<Inheritance> {
        let ready = [READY, VERSION.to_string().as_bytes()].concat();
        self.0.send(&ready).context("the predecessor is gone")?;
        let (state, sockets) = self.0.receive_state()?;
        let at = Clock.now();
        Inheritance::read(read_state(&state)?, sockets, at)
    }

    /// Says that this process goes on, so that the predecessor can end.
    ///
    /// # Errors
    /// When it is gone already.
    pub(crate) fn took(self) -> anyhow::Result<()> {
        self.0.send(TOOK).context("the predecessor is gone")
    }
}

impl InheritedShard {
    /// The sockets that relayed addresses share, if they are those that are needed here.
    pub(crate) fn claim_shared(
        &mut self,
        families: [bool; 2],
        port: u16,
    ) -> Option<Vec<UdpSocket>> {
        let shared = std::mem::take(&mut self.shared);
        let sockets: Vec<UdpSocket> = shared.into_iter().map(Into::into).collect();
        let addresses = sockets.iter().map(|socket| socket.local_addr().ok());
        let addresses: Option<Vec<_>> = addresses.collect();
        let wanted = [true, false].into_iter().zip(families);
        let wanted = wanted
            .filter(|(_, wanted)| *wanted)
            .map(|(v4, _)| (v4, port));
        let there = addresses?;
        let there = there
            .iter()
            .map(|address| (address.is_ipv4(), address.port()));
        there.eq(wanted).then_some(sockets)
    }
}

impl Inheritance {
    /// As many event loops as the predecessor had: the kernel knows which client is whose by the sockets.
    pub(crate) fn keep_threads(&self, settings: &mut Settings) {
        let threads = self.shards.len() as u16;
        if settings.threads != threads {
            let configured = settings.threads;
            tracing::warn!(
                threads,
                configured,
                "the number of event loops stays until a full restart"
            );
            settings.threads = threads;
        }
    }

    /// The admin port, if it is configured alike.
    pub(crate) fn claim_admin(&mut self, configured: SocketAddr) -> Option<OwnedFd> {
        let admin = self.admin.take();
        admin
            .filter(|(address, _)| *address == configured)
            .map(|(_, socket)| socket)
    }

    pub(super) fn read(state: State, sockets: Vec<OwnedFd>, at: Instant) -> anyhow::Result<Self> {
        let mut sockets = sockets.into_iter();
        let mut next = || sockets.next().context("a socket is missing");
        let admin = match &state.admin {
            Some(address) => Some((address.parse()?, next()?)),
            None => None,
        };
        let mut listeners = Vec::new();
        for listener in &state.listeners {
            listeners.push(InheritedListener {
                transport: listener.transport.clone(),
                configured: listener.configured.parse()?,
                address: listener.address.parse()?,
                sockets: Vec::new(),
            });
        }
        let mut shards = Vec::new();
        for shard in state.shards {
            for listener in &mut listeners {
                listener.sockets.push(next()?);
            }
            let ShardState {
                core,
                shared,
                relays,
                connections,
            } = shard;
            let shared = (0..shared).map(|_| next()).collect::<Result<_, _>>()?;
            let relays = (0..relays).map(|_| next().map(Some));
            let relays = relays.collect::<Result<_, _>>()?;
            let connections = connections.into_iter().map(|c| Ok((c, next()?)));
            let connections = connections.collect::<anyhow::Result<_>>()?;
            shards.push(InheritedShard {
                core,
                shared,
                relays,
                connections,
            });
        }
        let nonce_key = <[u8; 32]>::try_from(state.nonce_key).ok();
        let age = Duration::from_micros(state.nonce_age);
        Ok(Self {
            nonce_key: nonce_key.context("a key is missing")?,
            // Before the machine started: nonces of then are not fresh any more.
            nonce_start: at.checked_sub(age).unwrap_or(at),
            at,
            listeners: InheritedListeners(listeners),
            admin,
            shards,
        })
    }
}

/// Of a version that this one knows.
pub(super) fn read_state(written: &[u8]) -> anyhow::Result<State> {
    let state = State::decode(written).context("the state cannot be read")?;
    ensure!(state.version <= VERSION, "the predecessor is newer");
    Ok(state)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What a successor says to a state of this version that holds nothing.
    fn answer_to(version: u32) -> String {
        let (here, there) = Passing::pair().unwrap();
        let state = State {
            version,
            ..State::default()
        };
        // It waits in the socket.
        here.send_state(&state.encode_to_vec(), &[]).unwrap();
        let taken = Predecessor(Passing::from(there)).take();
        taken.err().unwrap().to_string()
    }

    #[test]
    fn a_newer_state_is_not_taken_and_an_older_one_is_looked_at() {
        assert_eq!(answer_to(VERSION + 1), "the predecessor is newer");
        assert_eq!(answer_to(u32::MAX), "the predecessor is newer");
        assert_eq!(answer_to(VERSION), "a key is missing");
    }
}
