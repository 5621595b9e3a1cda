//! Packets that will never arrive are refused, so that a workload sees at once what it would see of a host without such a
//! service, instead of silence.

use bytes::BytesMut;
use wire::frame::{HEADER_LEN, Header};
use wire::ip::{Packet, Protocol, answer};

use super::waiting::WaitingFrame;
use super::{Agent, AgentOutput, FrameDrop};

impl Agent {
    /// Drops a frame from the TUN device: TCP is answered with a reset, all else with "port unreachable", where there may
    /// be an answer at all.
    pub fn refuse_frame(&mut self, frame: &[u8], reason: FrameDrop) {
        self.stats.count_drop(reason);
        self.answer_refused(frame);
    }

    /// Frames that waited too long for a link. What no activator exports any more is refused; for the rest a link may come
    /// yet, and their senders try again.
    pub(super) fn on_aged(&mut self, aged: &[WaitingFrame]) {
        self.stats.dropped_waiting += aged.len() as u64;
        for WaitingFrame {
            destination, frame, ..
        } in aged
        {
            if !self
                .peers
                .export(&destination.network, &destination.service)
            {
                self.answer_refused(frame);
            }
        }
    }

    fn answer_refused(&mut self, frame: &[u8]) {
        let refused = frame.get(HEADER_LEN..).unwrap_or_default();
        let Ok(packet) = Packet::parse(refused) else {
            return;
        };
        let answered = match packet.layout().protocol {
            Protocol::Tcp => answer::tcp_reset(refused),
            _ => answer::unreachable(refused, packet.destination(), answer::Unreachable::Port),
        };
        if let Some(answered) = answered {
            let mut frame = BytesMut::from(&Header::PLAIN.encode()[..]);
            frame.extend_from_slice(&answered);
            self.outputs.push_back(AgentOutput::ToTun(frame));
        }
    }
}
