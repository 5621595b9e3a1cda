//! Writing answers.

use crate::auth::token::THIRD_PARTY_AUTHORIZATION;
use crate::auth::{PASSWORD_ALGORITHMS, Signer};
use crate::mobility::MOBILITY_TICKET;
use std::net::{IpAddr, SocketAddr};
use stun_types::attribute::{
    AlternateServer, AttributeStaticType, AttributeType, AttributeWrite, ErrorCode, Nonce,
    PasswordAlgorithms, RawAttribute, Realm, Software, UnknownAttributes, XorMappedAddress,
};
use stun_types::message::{
    Message as Writer, MessageClass, MessageType, MessageWrite, MessageWriteExt, MessageWriteVec,
    Method, TransactionId,
};
use turn_types::attribute::{
    ConnectionId, Icmp, Lifetime, ReservationToken, XorPeerAddress, XorRelayedAddress,
};
use turn_types::message::DATA;
use wire::stun::Message;

/// ADDRESS-ERROR-CODE ([RFC 8656 section 18.12](https://www.rfc-editor.org/rfc/rfc8656#section-18.12)).
const ADDRESS_ERROR_CODE: AttributeType = AttributeType::new(0x8001);

/// A response under construction, or an indication. All its parts are bounded, so that none can fail to fit.
#[derive(Debug)]
pub(crate) struct Answer {
    writer: MessageWriteVec,
    transaction: TransactionId,
}

impl Answer {
    pub(crate) fn success(method: Method, transaction: TransactionId) -> Self {
        Self::new(MessageClass::Success, method, transaction)
    }

    pub(crate) fn error(request: &Message<'_>, code: u16) -> Self {
        Self::error_to(request.method(), request.transaction_id(), code)
    }

    /// Without reason phrase: "the reason phrase is for diagnosis" (RFC 8489 section 14.8), and may be empty.
    pub(crate) fn short_error(request: &Message<'_>, code: u16) -> Self {
        let mut answer = Self::new(
            MessageClass::Error,
            request.method(),
            request.transaction_id(),
        );
        let value = [0, 0, (code / 100) as u8, (code % 100) as u8];
        answer.add_raw(ErrorCode::TYPE, &value);
        answer
    }

    pub(crate) fn error_to(method: Method, transaction: TransactionId, code: u16) -> Self {
        let mut answer = Self::new(MessageClass::Error, method, transaction);
        // Class and number (RFC 8489 section 14.8), and the reason phrase that the standards give.
        let reason = match code {
            405 => "Mobility Forbidden",
            code => ErrorCode::default_reason_for_code(code),
        };
        let mut value = vec![0, 0, (code / 100) as u8, (code % 100) as u8];
        value.extend(reason.as_bytes());
        answer.add_raw(ErrorCode::TYPE, &value);
        answer
    }

    /// A Data indication with ICMP in place of DATA (RFC 8656 section 11.5).
    pub(crate) fn icmp_indication(
        transaction: TransactionId,
        peer: SocketAddr,
        icmp: crate::Icmp,
    ) -> Self {
        let mut indication = Self::new(MessageClass::Indication, DATA, transaction);
        indication.add(&XorPeerAddress::new(peer, transaction));
        indication.add(&Icmp::new(icmp.kind, icmp.code, icmp.data));
        indication
    }

    pub(crate) fn indication(method: Method, transaction: TransactionId) -> Self {
        Self::new(MessageClass::Indication, method, transaction)
    }

    fn new(class: MessageClass, method: Method, transaction: TransactionId) -> Self {
        let kind = MessageType::from_class_method(class, method);
        let writer = MessageWriteVec::with_capacity(256);
        Self {
            writer: Writer::builder(kind, transaction, writer),
            transaction,
        }
    }

    fn add(&mut self, attribute: &dyn AttributeWrite) {
        self.writer.push_attribute_unchecked(attribute);
    }

    fn add_raw(&mut self, kind: AttributeType, value: &[u8]) {
        self.add(&RawAttribute::new(kind, value));
    }

    pub(crate) fn add_mapped(&mut self, client: SocketAddr) {
        self.add(&XorMappedAddress::new(client, self.transaction));
    }

    /// A transport address that is not masked, as MAPPED-ADDRESS has it (RFC 8489 section 14.1).
    pub(crate) fn add_address(&mut self, kind: u16, address: SocketAddr) {
        let mut value = vec![0, crate::Family::of(address) as u8 + 1];
        value.extend(address.port().to_be_bytes());
        match address.ip() {
            IpAddr::V4(ip) => value.extend(ip.octets()),
            IpAddr::V6(ip) => value.extend(ip.octets()),
        }
        self.add_raw(AttributeType::new(kind), &value);
    }

    pub(crate) fn add_padding(&mut self, kind: u16, len: usize) {
        self.add_raw(AttributeType::new(kind), &vec![0; len]);
    }

    pub(crate) fn add_peer(&mut self, peer: SocketAddr) {
        self.add(&XorPeerAddress::new(peer, self.transaction));
    }

    pub(crate) fn add_connection_id(&mut self, id: u32) {
        self.add(&ConnectionId::new(id));
    }

    pub(crate) fn add_relayed(&mut self, relayed: SocketAddr) {
        self.add(&XorRelayedAddress::new(relayed, self.transaction));
    }

    pub(crate) fn add_ticket(&mut self, ticket: &str) {
        self.add_raw(MOBILITY_TICKET, ticket.as_bytes());
    }

    pub(crate) fn add_lifetime(&mut self, seconds: u32) {
        self.add(&Lifetime::new(seconds));
    }

    pub(crate) fn add_reservation(&mut self, token: u64) {
        self.add(&ReservationToken::new(token));
    }

    pub(crate) fn add_alternate(&mut self, server: SocketAddr) {
        self.add(&AlternateServer::new(server));
    }

    pub(crate) fn add_address_error(&mut self, family: crate::Family, code: u16) {
        let mut value = vec![family as u8 + 1, 0, (code / 100) as u8, (code % 100) as u8];
        value.extend(ErrorCode::default_reason_for_code(code).as_bytes());
        self.add_raw(ADDRESS_ERROR_CODE, &value);
    }

    pub(crate) fn add_challenge(&mut self, realm: &str, nonce: &str) {
        self.add_raw(Realm::TYPE, realm.as_bytes());
        self.add_raw(Nonce::TYPE, nonce.as_bytes());
    }

    pub(crate) fn add_password_algorithms(&mut self) {
        self.add_raw(PasswordAlgorithms::TYPE, &PASSWORD_ALGORITHMS);
    }

    pub(crate) fn add_third_party(&mut self, server_name: &str) {
        self.add_raw(THIRD_PARTY_AUTHORIZATION, server_name.as_bytes());
    }

    pub(crate) fn add_unknown_attributes(&mut self, unknown: &[u16]) {
        let value: Vec<u8> = unknown.iter().flat_map(|kind| kind.to_be_bytes()).collect();
        self.add_raw(UnknownAttributes::TYPE, &value);
    }

    /// For those who proved who they are.
    pub(crate) fn signed(mut self, signer: &Signer, software: &str) -> Vec<u8> {
        self.add_raw(Software::TYPE, software.as_bytes());
        signer.sign(&mut self.writer);
        self.unsigned()
    }

    pub(crate) fn len(&self) -> usize {
        self.writer.len()
    }

    /// With FINGERPRINT, if that leaves it within `limit` bytes; and else without, however long it is.
    pub(crate) fn unsigned_within(self, limit: usize) -> Vec<u8> {
        const FINGERPRINT: usize = 8;
        if self.writer.len() + FINGERPRINT <= limit {
            self.unsigned()
        } else {
            self.writer.finish()
        }
    }

    /// With FINGERPRINT only.
    fn unsigned(mut self) -> Vec<u8> {
        // Fails only where there is one already.
        let added = self.writer.add_fingerprint();
        debug_assert!(added.is_ok());
        self.writer.finish()
    }
}
