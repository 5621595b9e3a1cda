//! What is of DTLS among the streams.

use super::{Streams, add};
use crate::stream::StreamKind;
use crate::stream::dtls::DtlsSessions;
use crate::stream::outgoing::Frame;
use model::{ClientAddr, ServerAddr};
use std::time::Instant;
use turn_relay_proto::Traffic;

impl Streams {
    pub(crate) fn dtls(&self) -> &DtlsSessions {
        &self.dtls
    }

    pub(crate) fn dtls_mut(&mut self) -> &mut DtlsSessions {
        &mut self.dtls
    }

    /// One datagram of a client of DTLS. Whether it was a step of a handshake, which costs more than anything else.
    pub(crate) fn handle_datagram(
        &mut self,
        now: Instant,
        addresses: (ClientAddr, ServerAddr),
        datagram: &[u8],
    ) -> bool {
        let stats = &mut self.stats;
        self.dtls.handle_datagram(now, addresses, datagram, stats)
    }

    /// What messages of clients of DTLS brought to peers.
    pub(crate) fn count_to_peer(&mut self, to_peer: Traffic) {
        add(&mut self.stats.of_mut(StreamKind::Dtls).to_peer, to_peer);
    }

    /// Frames for one session, which are `all` together; what had to be dropped.
    pub(super) fn send_datagrams(
        &mut self,
        id: u32,
        frames: &[Frame<'_>],
        all: Traffic,
    ) -> Traffic {
        let dropped = self.dtls.send(id, frames);
        let stats = self.stats.of_mut(StreamKind::Dtls);
        stats.to_client.packets += all.packets - dropped.packets;
        stats.to_client.bytes += all.bytes - dropped.bytes;
        add(&mut stats.dropped, dropped);
        dropped
    }
}
