//! What a predecessor wrote, taken without the sockets of a relay: for `crate::foreign`.

use super::take::{Inheritance, read_state};
use crate::stream::{DtlsSetup, StreamLimits, StreamSetup, Streams};
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use prost::Message;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// What this process would leave to a successor of its own, right after it took this state with these sockets. What event
/// loops have beside connections goes over as it is: that is `turn_relay_proto::Server::import`'s.
///
/// # Errors
/// When it is not the state of a relay, or sockets are missing.
pub fn take_and_leave(
    state: &[u8],
    sockets: Vec<OwnedFd>,
    now: Instant,
) -> anyhow::Result<Vec<u8>> {
    let limits = StreamLimits {
        connections: 16,
        strangers: 16,
        strangers_of_prefix: 16,
        handshake: Duration::from_secs(10),
        stranger: Duration::from_secs(30),
        buffer: 1 << 16,
    };
    let mut state = read_state(state)?;
    let inheritance = Inheritance::read(state.clone(), sockets, now)?;
    for (state, shard) in state.shards.iter_mut().zip(inheritance.shards) {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let setup = StreamSetup {
            listeners: Vec::new(),
            tls: None,
            limits,
            proxies: [].into(),
            peers: Default::default(),
            dtls: DtlsSetup {
                listeners: Vec::new(),
                certificate: None,
                config: None,
                cookie_key: [0; 32],
            },
        };
        let mut streams = Streams::new(setup, &epoll, now)?;
        for (connection, socket) in shard.connections {
            streams.adopt(connection, socket, now, &epoll)?;
        }
        let left = streams.export(now).into_iter();
        state.connections = left.map(|(connection, _)| connection).collect();
    }
    Ok(state.encode_to_vec())
}
