//! What arrives, packet by packet.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use wire::channel_data;

use crate::cli::Direction;
use crate::clock::Clock;
use crate::flow::Flow;
use crate::histogram::Histogram;
use crate::payload::{self, Tally};
use crate::socket::Buffers;

/// Sockets looked at between two bursts.
const READY: usize = 64;
/// Calls of `recvmmsg` for one flow in a row.
const SHARE: usize = 8;
/// Of so many buffers, one packet is compared byte by byte.
const SAMPLE: u64 = 64;

#[derive(Debug)]
pub(crate) struct Receiver {
    direction: Direction,
    size: usize,
    /// Packets come in ChannelData.
    framed: bool,
    buffers: Buffers,
    /// With more flows than one: which has something.
    epoll: Option<Epoll>,
    clock: Clock,
    received: u64,
    pub(crate) tally: Tally,
    /// How long packets took, in nanoseconds, when asked for.
    pub(crate) latency: Option<Histogram>,
}

impl Receiver {
    /// # Errors
    /// There is no epoll.
    pub(crate) fn new(
        flows: &[Flow],
        direction: Direction,
        size: usize,
        framed: bool,
        clock: Clock,
    ) -> Result<Self> {
        let mut epoll = None;
        if flows.len() > 1 {
            let poll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("an epoll")?;
            for (flow, index) in flows.iter().zip(0..) {
                let (_, exit) = flow.ends(direction);
                poll.add(exit.io.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, index))
                    .context("adding to an epoll")?;
            }
            epoll = Some(poll);
        }
        Ok(Self {
            direction,
            size,
            framed,
            buffers: Buffers::new(Buffers::MOST),
            epoll,
            clock,
            received: 0,
            tally: Tally::default(),
            latency: None,
        })
    }

    /// Takes what is there, of each socket that has something a few calls of `recvmmsg`.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn poll(&mut self, flows: &mut [Flow]) -> Result<()> {
        let mut events = [EpollEvent::empty(); READY];
        let ready = match &self.epoll {
            None => return self.take(flows, 0),
            Some(epoll) => epoll
                .wait(&mut events, EpollTimeout::ZERO)
                .context("waiting")?,
        };
        for event in &events[..ready] {
            self.take(flows, event.data() as usize)?;
        }
        Ok(())
    }

    /// Until there is no more, or one flow has had its share.
    fn take(&mut self, flows: &mut [Flow], index: usize) -> Result<()> {
        for _ in 0..SHARE {
            if self.take_once(flows, index)? < Buffers::MOST {
                break;
            }
        }
        Ok(())
    }

    fn take_once(&mut self, flows: &mut [Flow], index: usize) -> Result<usize> {
        let flow = &mut flows[index];
        let (_, exit) = flow.ends(self.direction);
        let filled = exit
            .receive(&mut self.buffers)
            .context("receiving from the relay")?;
        if filled == 0 {
            return Ok(0);
        }
        let now = if self.latency.is_some() {
            self.clock.now()
        } else {
            0
        };
        for (buffer, stride) in self.buffers.filled(filled) {
            self.received += 1;
            for (number, datagram) in buffer.chunks(stride).enumerate() {
                let payload = if self.framed {
                    match unframed(datagram, flow.channel) {
                        Some(payload) => payload,
                        // The relay's own words.
                        None if is_stun(datagram) => continue,
                        None => &[],
                    }
                } else {
                    datagram
                };
                let sampled = number == 0 && self.received.is_multiple_of(SAMPLE);
                let sound = payload::read(payload, self.size)
                    .filter(|stamp| stamp.flow as usize == index)
                    .filter(|_| !sampled || payload::is_whole(payload));
                let Some(stamp) = sound else {
                    self.tally.damaged += 1;
                    continue;
                };
                if !flow.progress.is_in_order(stamp.sequence) {
                    self.tally.disordered += 1;
                    continue;
                }
                self.tally.delivered += 1;
                if let Some(latency) = &mut self.latency {
                    latency.add(now.saturating_sub(stamp.sent));
                }
            }
        }
        Ok(filled)
    }
}

fn unframed(datagram: &[u8], channel: Option<[u8; 4]>) -> Option<&[u8]> {
    let message = channel_data::decode(datagram).ok()?;
    let header = channel_data::header(message.channel, message.payload.len() as u16);
    (Some(header) == channel).then_some(message.payload)
}

fn is_stun(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & 0xC0 == 0)
}
