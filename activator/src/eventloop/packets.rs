//! The packet path: what comes in, and what that leads to at once.

use std::{io, time::Instant};

use activator_proto::{
    LinkKey,
    forward::{FromTun, fit_mss},
    stats::DropReason,
};
use link::Transmit;

use super::{EventLoop, Received};

/// Frames read from the device in one turn, and their bytes: other work has to wait for that long.
const TUN_BATCH: usize = 32;
/// See [`TUN_BATCH`].
const TUN_BATCH_BYTES: usize = 256 << 10;

impl EventLoop {
    /// One batch of each socket that has something.
    pub(super) fn receive_datagrams(&mut self, now: Instant) {
        let Self {
            poller,
            allocations,
            sockets,
            bursts,
            stats,
            ..
        } = self;
        allocations.receive(poller, now, |local, remote, payload, segment| {
            stats.relayed_bytes_received += payload.len() as u64;
            bursts.push(Received {
                local,
                remote,
                payload,
                segment,
            });
        });
        sockets.receive(poller, |burst| {
            bursts.push(Received {
                local: burst.meta.local,
                remote: burst.meta.source,
                payload: burst.payload,
                segment: burst.segment,
            });
        });
        // A link is drained when it has seen all of the batch: it joins what belongs together.
        for burst in self.bursts.drain(..) {
            let Received {
                local,
                remote,
                payload,
                segment,
            } = burst;
            if self.reflexive.handle_datagram(local, remote, &payload, now) {
                continue;
            }
            match self.links.route(local, remote, &payload) {
                Some(active) => active
                    .link
                    .handle_datagrams(local, remote, payload, segment, now),
                None => self.stats.stray_datagrams += 1,
            }
        }
        self.drain_all(now);
    }

    /// One batch of the device.
    ///
    /// # Errors
    /// When the device is gone.
    pub(super) fn receive_frames(&mut self, now: Instant) -> anyhow::Result<()> {
        if !self.poller.is_ready(&self.device) {
            return Ok(());
        }
        let mut bytes = 0;
        for _ in 0..TUN_BATCH {
            let length = match self.device.try_recv(&mut self.frame) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => {
                    let name = self.device.name();
                    return Err(anyhow::Error::new(error)
                        .context(format!("the TUN interface `{name}` is gone")));
                }
            };
            self.on_frame(length, now);
            bytes += length;
            if bytes >= TUN_BATCH_BYTES {
                break;
            }
        }
        Ok(())
    }

    /// The first `length` bytes of the frame buffer.
    fn on_frame(&mut self, length: usize, now: Instant) {
        let Some(frame) = self.frame.get_mut(..length) else {
            return;
        };
        let FromTun::ToLink(key) = self.gateway.forwarder.to_link(frame, now) else {
            return;
        };
        let sent = self.links.touch(key).is_some_and(|active| {
            fit_mss(frame, active.link.frame_mtu());
            active.link.send_frame(frame, now).is_ok()
        });
        if !sent {
            self.gateway.forwarder.count_drop(DropReason::LinkCongested);
        }
        self.transmit(key);
    }

    /// Sends what a link has to send. Bursts go out at once, single datagrams with the next flush.
    pub(super) fn transmit(&mut self, key: LinkKey) {
        let Self {
            links,
            allocations,
            sockets,
            stats,
            ..
        } = self;
        let mut known = None;
        while let Some(active) = links.touch_quietly(key) {
            let mut learned = None;
            while let Some(Transmit {
                local,
                remote,
                payload,
                segment,
            }) = active.link.poll_transmit()
            {
                if allocations.send(local, remote, &payload, segment) {
                    stats.relayed_bytes_sent += payload.len() as u64;
                } else if !sockets.send(local, remote, &payload, segment) {
                    stats.datagrams_refused += payload.chunks(segment).len() as u64;
                }
                if known != Some((local, remote)) {
                    learned = Some((local, remote));
                    break;
                }
            }
            // Once per run of equal pairs: what comes back on them is this link's.
            let Some((local, remote)) = learned else {
                break;
            };
            links.learn(key, local, remote);
            known = learned;
        }
    }
}
