//! A relay that does as it is told, in virtual time. It reads and signs with `stun-types` alone, so nothing of the
//! crate under test is used to judge it.
#![allow(dead_code, unreachable_pub)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use model::PeerAddr;
use stun_types::attribute::*;
use stun_types::message::*;
use turn_types::attribute::{ChannelNumber, Data, Lifetime, XorPeerAddress, XorRelayedAddress};
use turn_types::message::*;
use turnpike_turn_client::{
    Allocation, AllocationConfig, Credential, Event, Families, LostReason, Received,
};

pub const RELAY: &str = "203.0.113.12:3478";
pub const MAPPED: &str = "198.51.100.7:40000";

pub fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn peer(text: &str) -> PeerAddr {
    PeerAddr(addr(text))
}

pub fn credential(name: &str) -> Credential {
    Credential {
        username: name.to_owned(),
        password: format!("{name}'s password"),
    }
}

/// What the relay does with requests.
pub struct Relay {
    pub up: bool,
    pub realm: String,
    pub nonce: String,
    /// Offers PASSWORD-ALGORITHMS.
    pub modern: bool,
    pub users: BTreeSet<String>,
    pub relayed: Vec<SocketAddr>,
    pub lifetime: u32,
    /// Answers requests of this method with this error, once per entry.
    pub errors: Vec<(Method, u16)>,
    /// Swallows so many of the next requests of this method.
    pub swallow: BTreeMap<u16, u32>,
    pub allocated_by: Option<String>,
    pub permissions: BTreeSet<IpAddr>,
    pub channels: BTreeMap<u16, SocketAddr>,
    /// Everything authentic that was asked.
    pub log: Vec<(Instant, Method)>,
    /// Data of Send indications and ChannelData.
    pub relayed_data: Vec<(SocketAddr, Vec<u8>, &'static str)>,
    pub unsigned_answers: bool,
    /// Two different messages never have the same.
    pub ids: BTreeSet<u128>,
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            up: true,
            realm: "west".to_owned(),
            nonce: "nonce-1".to_owned(),
            modern: false,
            users: ["alice".to_owned(), "bob".to_owned()].into(),
            relayed: vec![addr("10.0.0.2:50000"), addr("[fd00:10::2]:50000")],
            lifetime: 600,
            errors: Vec::new(),
            swallow: BTreeMap::new(),
            allocated_by: None,
            permissions: BTreeSet::new(),
            channels: BTreeMap::new(),
            log: Vec::new(),
            relayed_data: Vec::new(),
            unsigned_answers: false,
            ids: BTreeSet::new(),
        }
    }
}

impl Relay {
    pub fn restart(&mut self) {
        self.allocated_by = None;
        self.permissions.clear();
        self.channels.clear();
        self.nonce.push_str("-restarted");
        for relayed in &mut self.relayed {
            relayed.set_port(relayed.port() + 1);
        }
    }

    pub fn count(&self, method: Method) -> usize {
        self.log
            .iter()
            .filter(|(_, logged)| *logged == method)
            .count()
    }

    fn algorithm(&self) -> IntegrityAlgorithm {
        if self.modern {
            IntegrityAlgorithm::Sha256
        } else {
            IntegrityAlgorithm::Sha1
        }
    }

    fn nonce(&self) -> String {
        if self.modern {
            format!("obMatJos2gAAA{}", self.nonce)
        } else {
            self.nonce.clone()
        }
    }

    /// What the relay answers to a datagram.
    pub fn handle(&mut self, now: Instant, datagram: &[u8]) -> Option<Vec<u8>> {
        if !self.up {
            return None;
        }
        if datagram[0] >= 0x40 {
            let number = u16::from_be_bytes([datagram[0], datagram[1]]);
            let len = usize::from(u16::from_be_bytes([datagram[2], datagram[3]]));
            let to = *self.channels.get(&number)?;
            self.relayed_data
                .push((to, datagram[4..4 + len].to_vec(), "channel"));
            return None;
        }
        let message = Message::from_bytes(datagram).expect("a well-formed message");
        let id = message.transaction_id();
        if message.class() == MessageClass::Indication {
            assert_eq!(message.method(), SEND);
            let to = message.attribute::<XorPeerAddress>().unwrap().addr(id);
            if self.permissions.contains(&to.ip()) {
                let data = message.attribute::<Data<'_>>().unwrap().data().to_vec();
                self.relayed_data.push((to, data, "indication"));
            }
            return None;
        }
        let method = message.method();
        self.ids.insert(id.into());
        if let Some(left) = self.swallow.get_mut(&method.value())
            && *left > 0
        {
            *left -= 1;
            return None;
        }
        let Ok(user) = message.attribute::<Username>() else {
            return Some(self.challenge(&message, 401));
        };
        let user = user.username().to_owned();
        let key = LongTermKeyCredentials::new(
            user.clone(),
            format!("{user}'s password"),
            self.realm.clone(),
        );
        let key = MessageIntegrityCredentials::from(key);
        if message.attribute::<Realm>().unwrap().realm() != self.realm {
            return Some(self.challenge(&message, 401));
        }
        if message.attribute::<Nonce>().unwrap().nonce() != self.nonce() {
            return Some(self.challenge(&message, 438));
        }
        assert_eq!(
            message.validate_integrity(&key).ok(),
            Some(self.algorithm()),
            "a sound signature"
        );
        if self.modern {
            let chosen = message.attribute::<PasswordAlgorithm>().unwrap();
            assert_eq!(chosen.algorithm(), PasswordAlgorithmValue::SHA256);
        }
        if !self.users.contains(&user) {
            return Some(self.challenge(&message, 401));
        }
        self.log.push((now, method));
        let scripted = self.errors.iter().position(|(m, _)| *m == method);
        let outcome = match scripted {
            Some(at) => Err(self.errors.remove(at).1),
            None => self.perform(&message, &user),
        };
        let mut answer = match outcome {
            Ok(answer) => answer,
            Err(code) => {
                let mut answer = Message::builder_error(&message, MessageWriteVec::new());
                answer
                    .add_attribute(&ErrorCode::new(code, "as told").unwrap())
                    .unwrap();
                answer
            }
        };
        if !self.unsigned_answers {
            answer
                .add_message_integrity(&key, self.algorithm())
                .unwrap();
        }
        Some(answer.finish())
    }

    fn perform(&mut self, message: &Message<'_>, user: &str) -> Result<MessageWriteVec, u16> {
        let id = message.transaction_id();
        let mut answer = Message::builder_success(message, MessageWriteVec::new());
        match (message.method(), &self.allocated_by) {
            (ALLOCATE, Some(_)) => return Err(437),
            (ALLOCATE, None) => {
                self.allocated_by = Some(user.to_owned());
                for relayed in &self.relayed {
                    answer
                        .add_attribute(&XorRelayedAddress::new(*relayed, id))
                        .unwrap();
                }
                answer
                    .add_attribute(&XorMappedAddress::new(addr(MAPPED), id))
                    .unwrap();
                answer.add_attribute(&Lifetime::new(self.lifetime)).unwrap();
            }
            (_, None) => return Err(437),
            (_, Some(owner)) if owner != user => return Err(441),
            (REFRESH, _) => {
                let asked = message.attribute::<Lifetime>().unwrap().seconds();
                if asked == 0 {
                    self.allocated_by = None;
                    self.permissions.clear();
                    self.channels.clear();
                }
                answer
                    .add_attribute(&Lifetime::new(asked.min(self.lifetime)))
                    .unwrap();
            }
            (CREATE_PERMISSION, _) => {
                let ip = message.attribute::<XorPeerAddress>().unwrap().addr(id).ip();
                self.permissions.insert(ip);
            }
            (CHANNEL_BIND, _) => {
                let number = message.attribute::<ChannelNumber>().unwrap().channel();
                let to = message.attribute::<XorPeerAddress>().unwrap().addr(id);
                let conflict = self
                    .channels
                    .iter()
                    .any(|(n, p)| (*n == number) != (*p == to));
                if conflict || !(0x4000..=0x4fff).contains(&number) {
                    return Err(400);
                }
                self.permissions.insert(to.ip());
                self.channels.insert(number, to);
            }
            _ => return Err(400),
        }
        Ok(answer)
    }

    fn challenge(&self, message: &Message<'_>, code: u16) -> Vec<u8> {
        let mut answer = Message::builder_error(message, MessageWriteVec::new());
        answer
            .add_attribute(&ErrorCode::new(code, "who").unwrap())
            .unwrap();
        answer
            .add_attribute(&Realm::new(&self.realm).unwrap())
            .unwrap();
        answer
            .add_attribute(&Nonce::new(&self.nonce()).unwrap())
            .unwrap();
        if self.modern {
            let both = [PasswordAlgorithmValue::MD5, PasswordAlgorithmValue::SHA256];
            answer
                .add_attribute(&PasswordAlgorithms::new(&both))
                .unwrap();
        }
        answer.finish()
    }
}

/// A client, a relay, and the time.
pub struct World {
    pub start: Instant,
    pub now: Instant,
    pub client: Allocation,
    pub relay: Relay,
    pub events: Vec<(Duration, Event)>,
    pub from_peers: Vec<(PeerAddr, Vec<u8>)>,
    /// Kept back instead of given to the relay.
    pub hold: bool,
    pub held: Vec<Vec<u8>>,
}

impl World {
    pub fn new(relay: Relay) -> Self {
        Self::with(relay, Families::Both)
    }

    pub fn with(relay: Relay, families: Families) -> Self {
        let now = Instant::now();
        let config = AllocationConfig {
            mobile: true,
            transport: model::RelayTransport::Udp,
            server: addr(RELAY),
            local: addr("10.0.0.3:40000"),
            families,
            seed: 7,
        };
        let client = Allocation::new(config, credential("alice"), now);
        let mut world = Self {
            start: now,
            now,
            client,
            relay,
            events: Vec::new(),
            from_peers: Vec::new(),
            hold: false,
            held: Vec::new(),
        };
        world.settle();
        world
    }

    /// A world in which everything went well so far.
    pub fn allocated() -> Self {
        let mut world = Self::new(Relay::default());
        assert!(matches!(world.events.remove(0).1, Event::Allocated { .. }));
        world
    }

    /// Lets everything happen that needs no time to pass.
    pub fn settle(&mut self) {
        while let Some(datagram) = self.client.poll_transmit() {
            if self.hold {
                self.held.push(datagram);
            } else if let Some(answer) = self.relay.handle(self.now, &datagram) {
                self.deliver(&answer);
            }
        }
        while let Some(event) = self.client.poll_event() {
            self.events.push((self.now - self.start, event));
        }
    }

    pub fn deliver(&mut self, datagram: &[u8]) {
        if let Received::FromPeer { peer, payload } =
            self.client.handle_datagram(self.now, datagram)
        {
            self.from_peers.push((peer, payload.to_vec()));
        }
    }

    /// Lets time pass, from deadline to deadline.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut steps = 0;
        while let Some(next) = self.client.poll_timeout().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.client.handle_timeout(self.now);
            self.settle();
            steps += 1;
            assert!(steps < 200_000, "it spins");
        }
        self.now = end;
    }

    /// Lets time pass while the relay sends something every second, so that nothing is probed.
    pub fn pass_busy(&mut self, time: Duration, channel: &[u8]) {
        let end = self.now + time;
        while self.now < end {
            self.pass(Duration::from_secs(1).min(end - self.now));
            self.deliver(channel);
        }
    }

    pub fn permit(&mut self, text: &str) -> bool {
        let permitted = self.client.permit(peer(text), self.now);
        self.settle();
        permitted
    }

    pub fn send(&mut self, to: &str, payload: &[u8]) -> bool {
        let mut out = Vec::new();
        let encoded = self.client.encode_to_peer(peer(to), payload, &mut out);
        if encoded {
            assert!(self.relay.handle(self.now, &out).is_none());
        } else {
            assert!(out.is_empty());
        }
        encoded
    }

    pub fn take_events(&mut self) -> Vec<Event> {
        self.events.drain(..).map(|(_, event)| event).collect()
    }

    pub fn lost(reason: LostReason) -> Event {
        Event::Lost { reason }
    }
}

pub fn channel_data(number: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend((payload.len() as u16).to_be_bytes());
    bytes.extend(payload);
    bytes
}

pub fn data_indication(from: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = Message::builder_indication(DATA, MessageWriteVec::new());
    let id = message.transaction_id();
    message
        .add_attribute(&XorPeerAddress::new(addr(from), id))
        .unwrap();
    message.add_attribute(&Data::new(payload)).unwrap();
    message.finish()
}

pub fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}
