//! The part of an event loop's turn that is about DTLS.

use super::EventLoop;
use crate::carrying::{Carrying, server_address};
use crate::udp::{RecvBatch, SendPlan};
use model::ClientAddr;
use std::os::fd::AsFd;
use turn_relay_proto::{Now, Traffic};

/// Datagrams that a turn takes from one socket. What is left stays ready.
const DATAGRAMS: usize = 64;

impl EventLoop {
    /// What arrived at one socket, as long as there are handshakes left that this turn has time for.
    pub(super) fn receive_dtls(
        &mut self,
        now: Now,
        index: usize,
        handshakes: &mut usize,
        batch: &mut RecvBatch,
        plan: &mut SendPlan,
    ) {
        for _ in 0..DATAGRAMS {
            if *handshakes == 0 {
                break;
            }
            let Some(listener) = self.streams.dtls().listeners().get(index) else {
                return;
            };
            match batch.fill(listener.socket.as_fd()) {
                Ok(taken) if taken.buffers > 0 => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::debug!(%error, "cannot receive");
                    break;
                }
            }
            let Some(received) = batch.get(0) else {
                break;
            };
            let server = server_address(listener, &received);
            let addresses = (ClientAddr(received.source), server);
            let was_step = self
                .streams
                .handle_datagram(now.instant, addresses, received.bytes);
            *handshakes -= usize::from(was_step);
        }
        self.carry_messages(now, plan);
    }

    fn carry_messages(&mut self, now: Now, plan: &mut SendPlan) {
        let messages = self.streams.dtls_mut().take_messages();
        if !messages.is_empty() {
            let mut to_peer = Traffic::default();
            let mut carrying = Carrying {
                now,
                server: &mut self.server,
                listeners: &self.listeners,
                relays: &self.relays,
                out: plan.start(),
                streams: self.streams.start_plan(),
            };
            for (path, message) in messages.iter() {
                carrying.carry_message(path, message, &mut to_peer);
            }
            let Carrying { out, streams, .. } = carrying;
            let unsent = out.flush();
            self.account(&unsent);
            self.send_streams(streams);
            self.drain_outputs(now, plan);
            self.streams.count_to_peer(to_peer);
            for path in messages.paths() {
                let has_allocation = self.server.has_allocation(path);
                self.streams
                    .handle_allocation(now.instant, path, has_allocation);
            }
        }
        self.streams.dtls_mut().give_back(messages);
    }

    /// Sends what sessions have to say.
    pub(super) fn send_dtls(&mut self, plan: &mut SendPlan) {
        let outgoing = self.streams.dtls_mut().take_outgoing();
        if !outgoing.is_empty() {
            let listeners = self.streams.dtls().listeners();
            let unsent = super::send_apart(listeners, &outgoing, plan);
            // Some are answers and some hellos: what is relayed is counted where it is encrypted.
            self.shell.send_buffer_full += unsent.blocked.iter().map(|b| b.packets).sum::<u64>();
            self.shell.send_refused += unsent.refused.iter().map(|r| r.packets).sum::<u64>();
        }
        self.streams.dtls_mut().give_back_outgoing(outgoing);
    }

    /// Clients of DTLS would not notice otherwise that nobody is here any more.
    pub(super) fn end_dtls(&mut self, plan: &mut SendPlan) {
        self.streams.dtls_mut().say_goodbye_to_all();
        self.send_dtls(plan);
    }
}
