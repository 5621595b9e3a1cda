//! Clients whose messages are written and read by `stun-types`.

use super::*;

/// A client as RFC 8656 wants it: asks, is challenged, asks again.
#[derive(Clone, Debug)]
pub struct Client {
    pub address: SocketAddr,
    pub user: String,
    pub password: String,
    pub realm: String,
    pub nonce: Option<String>,
    pub algorithm: IntegrityAlgorithm,
    /// For the next request instead of a random one.
    pub transaction: Option<TransactionId>,
    pub transport: Transport,
}

impl Client {
    pub fn new(address: &str) -> Self {
        Self::named(address, "alice", "wonderland")
    }

    pub fn named(address: &str, user: &str, password: &str) -> Self {
        Self {
            address: addr(address),
            user: user.into(),
            password: password.into(),
            realm: REALM.into(),
            nonce: None,
            algorithm: IntegrityAlgorithm::Sha1,
            transaction: None,
            transport: Transport::Udp,
        }
    }

    pub fn credentials(&self) -> MessageIntegrityCredentials {
        LongTermCredentials::new(self.user.clone(), self.password.clone())
            .to_key(self.realm.clone())
            .into()
    }

    fn begin(&self, method: Method, attributes: &[&dyn AttributeWrite]) -> MessageWriteVec {
        let mut writer = Message::builder_request(method, MessageWriteVec::new());
        if let Some(id) = self.transaction {
            let kind = writer.get_type();
            writer = Message::builder(kind, id, MessageWriteVec::new());
        }
        for attribute in attributes {
            writer.add_attribute(*attribute).unwrap();
        }
        writer
    }

    /// A signed request, with whatever nonce there is.
    pub fn signed(&self, method: Method, attributes: &[&dyn AttributeWrite]) -> Vec<u8> {
        let mut writer = self.begin(method, attributes);
        let nonce = self.nonce.as_deref().unwrap_or("none");
        writer
            .add_attribute(&Username::new(&self.user).unwrap())
            .unwrap();
        writer
            .add_attribute(&Realm::new(&self.realm).unwrap())
            .unwrap();
        writer.add_attribute(&Nonce::new(nonce).unwrap()).unwrap();
        if self.algorithm == IntegrityAlgorithm::Sha256 {
            let offered = [PasswordAlgorithmValue::SHA256, PasswordAlgorithmValue::MD5];
            writer
                .add_attribute(&PasswordAlgorithms::new(&offered))
                .unwrap();
            writer
                .add_attribute(&PasswordAlgorithm::new(offered[0]))
                .unwrap();
        }
        writer
            .add_message_integrity(&self.credentials(), self.algorithm)
            .unwrap();
        writer.finish()
    }

    pub fn unsigned(&self, method: Method, attributes: &[&dyn AttributeWrite]) -> Vec<u8> {
        self.begin(method, attributes).finish()
    }

    /// Sends bytes that must be answered.
    pub fn exchange(&self, relay: &mut Relay, request: &[u8]) -> Answer {
        match relay.client_sends_over(self.transport, self.address, request) {
            Outcome::Answer(bytes) => {
                let answer = Answer(bytes);
                let request = Message::from_bytes(request).unwrap();
                assert_eq!(answer.message().transaction_id(), request.transaction_id());
                assert_eq!(answer.message().method(), request.method());
                assert!(answer.message().is_response());
                answer
            }
            other => panic!("no answer but {other:?}"),
        }
    }

    /// Sends a request with valid credentials; gets a nonce first where there is none. The answer's integrity is checked.
    pub fn request(
        &mut self,
        relay: &mut Relay,
        method: Method,
        attributes: &[&dyn AttributeWrite],
    ) -> Answer {
        if self.nonce.is_none() {
            let challenge = self.exchange(relay, &self.unsigned(method, attributes));
            assert_eq!(challenge.code(), 401);
            self.nonce = Some(challenge.get::<Nonce>().unwrap().nonce().to_owned());
        }
        let answer = self.exchange(relay, &self.signed(method, attributes));
        let checked = answer.message().validate_integrity(&self.credentials());
        assert_eq!(checked.ok(), Some(self.algorithm));
        answer
    }

    pub fn try_allocate(&mut self, relay: &mut Relay, more: &[&dyn AttributeWrite]) -> Answer {
        let udp = RequestedTransport::new(RequestedTransport::UDP);
        let mut attributes: Vec<&dyn AttributeWrite> = vec![&udp];
        attributes.extend(more);
        self.request(relay, ALLOCATE, &attributes)
    }

    /// The relayed address.
    pub fn allocate(&mut self, relay: &mut Relay) -> SocketAddr {
        let answer = self.try_allocate(relay, &[]);
        assert_eq!(answer.code(), 0);
        answer.relayed()[0]
    }

    /// The answer's code.
    pub fn permit(&mut self, relay: &mut Relay, peers: &[&str]) -> u16 {
        let id = TransactionId::generate();
        self.transaction = Some(id);
        let peers: Vec<_> = peers
            .iter()
            .map(|peer| XorPeerAddress::new(addr(peer), id))
            .collect();
        let attributes: Vec<&dyn AttributeWrite> = peers
            .iter()
            .map(|peer| peer as &dyn AttributeWrite)
            .collect();
        let answer = self.request(relay, CREATE_PERMISSION, &attributes);
        self.transaction = None;
        answer.code()
    }

    /// The answer's code.
    pub fn bind(&mut self, relay: &mut Relay, channel: u16, peer: &str) -> u16 {
        let id = TransactionId::generate();
        self.transaction = Some(id);
        let peer = XorPeerAddress::new(addr(peer), id);
        let attributes: [&dyn AttributeWrite; 2] = [&ChannelNumber::new(channel), &peer];
        let answer = self.request(relay, CHANNEL_BIND, &attributes);
        self.transaction = None;
        answer.code()
    }

    pub fn indication(&self, peer: &str, data: &[u8], more: &[&dyn AttributeWrite]) -> Vec<u8> {
        let mut writer =
            Message::builder_indication(turn_types::message::SEND, MessageWriteVec::new());
        let id = writer.transaction_id();
        writer
            .add_attribute(&XorPeerAddress::new(addr(peer), id))
            .unwrap();
        writer
            .add_attribute(&turn_types::attribute::Data::new(data))
            .unwrap();
        for attribute in more {
            writer.add_attribute(*attribute).unwrap();
        }
        writer.finish()
    }

    pub fn sends_indication(&self, relay: &mut Relay, peer: &str, data: &[u8]) -> Outcome {
        let indication = self.indication(peer, data, &[]);
        relay.client_sends_over(self.transport, self.address, &indication)
    }

    pub fn sends_channel_data(&self, relay: &mut Relay, channel: u16, data: &[u8]) -> Outcome {
        let mut bytes = channel.to_be_bytes().to_vec();
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(data);
        relay.client_sends_over(self.transport, self.address, &bytes)
    }
}
