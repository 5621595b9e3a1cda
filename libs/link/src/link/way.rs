//! How packets travel, and addresses that come and go under a link that stays.

use std::net::SocketAddr;
use std::time::Instant;

use protocol::document::{Control, Leaving, Leg, control::Body};

use super::Link;
use crate::output::{LinkEvent, Path};

impl Link {
    /// How packets travel, once a pair is nominated.
    #[must_use]
    pub fn path(&self) -> Option<Path> {
        let [own, peers] = self.legs;
        match self.path? {
            Path::Direct => Some(Path::Direct),
            _ => Some(own.max(peers)),
        }
    }

    /// How this end reaches the relay of the nominated pair. The peer is told, so that both call the path the same.
    pub fn set_leg(&mut self, leg: Path, now: Instant) {
        let before = self.path();
        if std::mem::replace(&mut self.legs[0], leg) != leg {
            self.say_leg(now);
            self.on_legs(before);
        }
    }

    /// What the peer has to know of our addresses, and could not be told before.
    pub(super) fn say_ways(&mut self, now: Instant) {
        self.say_leg(now);
        for address in self.ice.leaving_locals() {
            self.say_leaving(address, now);
        }
    }

    /// Over UDP is what the peer takes for granted.
    fn say_leg(&mut self, now: Instant) {
        if self.legs[0] == Path::RelayUdp && !self.said_leg {
            return;
        }
        let leg = Leg {
            path: self.legs[0].to_string(),
        };
        let body = Some(Body::Leg(leg));
        // What is not open yet hears of it when it is.
        self.said_leg |= self.send_control(&Control { body }, now).is_ok();
    }

    pub(super) fn on_leg(&mut self, leg: &Leg) {
        let before = self.path();
        if let Some(leg) = Path::from_text(&leg.path).filter(|leg| leg.is_relayed()) {
            self.legs[1] = leg;
            self.on_legs(before);
        }
    }

    fn on_legs(&mut self, before: Option<Path>) {
        if let Some(path) = self.path().filter(|path| Some(*path) != before) {
            self.events.push_back(LinkEvent::Path(path));
        }
    }

    /// An address of either end is no more: a relayed one whose allocation is gone, for example. The link goes on over
    /// another, or ends when none is found within
    /// [`LinkConfig::silence_timeout`](crate::LinkConfig::silence_timeout).
    pub fn retire_address(&mut self, address: SocketAddr, now: Instant) {
        self.ice.retire(address, now);
        self.drive(now);
    }

    /// An address of this end will soon be gone: that of an allocation on a relay that drains. It carries on until another
    /// path does, which is looked for at once; the peer is told. `true`: neither end uses it any more, and it can be retired.
    /// To be asked again until then.
    pub fn leave_address(&mut self, address: SocketAddr, now: Instant) -> bool {
        if self.ice.leave_local(address, now) {
            self.say_leaving(address, now);
            self.drive(now);
        }
        self.ice.has_left(address, now)
    }

    /// What is not open yet says it when it is.
    fn say_leaving(&mut self, address: SocketAddr, now: Instant) {
        if self.channels.is_open() {
            let address = address.to_string();
            let body = Some(Body::Leaving(Leaving { address }));
            let _ = self.channels.send_control(&Control { body }, now);
        }
    }

    pub(super) fn on_leaving(&mut self, leaving: &Leaving, now: Instant) {
        if let Ok(address) = leaving.address.parse() {
            self.ice.leave_remote(address, now);
        }
    }
}
