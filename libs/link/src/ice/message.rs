//! Connectivity checks as STUN messages. [RFC 8445 §7](https://www.rfc-editor.org/rfc/rfc8445#section-7)

use std::net::SocketAddr;

use bytes::BytesMut;
use stun_types::attribute::{AttributeStaticType as _, AttributeType, Username, XorMappedAddress};
use stun_types::message::{MessageClass, Method, TransactionId};
use wire::stun::write::{Key, Writer};
use wire::stun::{IntegrityKind, Message};

use crate::stun::BINDING;

const ERROR_CODE: u16 = 0x0009;
/// [RFC 8445 §16.1](https://www.rfc-editor.org/rfc/rfc8445#section-16.1)
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const ICE_CONTROLLED: u16 = 0x8029;
const ICE_CONTROLLING: u16 = 0x802a;
/// 487, as ERROR-CODE has it. [RFC 8489 §14.8](https://www.rfc-editor.org/rfc/rfc8489#section-14.8)
const ROLE_CONFLICT: [u8; 4] = [0, 0, 4, 87];

/// What a check says beside its credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) id: TransactionId,
    /// What the priority of the sender's address would be if it were new to the receiver.
    pub(super) priority: u32,
    pub(super) controlling: bool,
    pub(super) tie_breaker: u64,
    pub(super) nominate: bool,
}

/// A message of ICE whose credentials are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    Check(Check),
    Success(TransactionId),
    RoleConflict(TransactionId),
}

/// The credentials of both ends. [RFC 8445 §5.3](https://www.rfc-editor.org/rfc/rfc8445#section-5.3)
pub(super) struct Credentials {
    pub(super) ufrag: String,
    pub(super) pwd: String,
}

impl Credentials {
    /// Short-term credentials sign with the password itself. [RFC 8489 §9.1.1]
    ///
    /// [RFC 8489 §9.1.1]: https://www.rfc-editor.org/rfc/rfc8489#section-9.1.1
    fn key(&self) -> Key {
        Key::new(self.pwd.as_bytes(), IntegrityKind::Sha1)
    }
}

/// A check from us to the peer.
pub(super) fn encode_check(check: &Check, local: &Credentials, remote: &Credentials) -> BytesMut {
    encode(MessageClass::Request, check.id, &remote.key(), |writer| {
        let username = format!("{}:{}", remote.ufrag, local.ufrag);
        writer.add(Username::TYPE, username.as_bytes());
        writer.add(AttributeType::new(PRIORITY), &check.priority.to_be_bytes());
        let role = if check.controlling {
            ICE_CONTROLLING
        } else {
            ICE_CONTROLLED
        };
        writer.add(AttributeType::new(role), &check.tie_breaker.to_be_bytes());
        if check.nominate {
            writer.add(AttributeType::new(USE_CANDIDATE), &[]);
        }
    })
}

/// The answer to a check that came from `source`.
pub(super) fn encode_success(
    id: TransactionId,
    source: SocketAddr,
    local: &Credentials,
) -> BytesMut {
    encode(MessageClass::Success, id, &local.key(), |writer| {
        writer.add_address(XorMappedAddress::TYPE, source);
    })
}

/// The answer to a check whose sender claims our role. [RFC 8445 §7.3.1.1]
///
/// [RFC 8445 §7.3.1.1]: https://www.rfc-editor.org/rfc/rfc8445#section-7.3.1.1
pub(super) fn encode_role_conflict(id: TransactionId, local: &Credentials) -> BytesMut {
    encode(MessageClass::Error, id, &local.key(), |writer| {
        writer.add(AttributeType::new(ERROR_CODE), &ROLE_CONFLICT);
    })
}

fn encode(
    class: MessageClass,
    id: TransactionId,
    key: &Key,
    attributes: impl FnOnce(&mut Writer<'_>),
) -> BytesMut {
    let mut bytes = Vec::with_capacity(160);
    let mut writer = Writer::new(&mut bytes, class, Method::new(BINDING), id);
    attributes(&mut writer);
    writer.sign(key);
    writer.finish();
    BytesMut::from(bytes.as_slice())
}

/// Reads what came in; `None` for what is malformed, of another kind, or not signed as it must be.
pub(super) fn decode(
    datagram: &[u8],
    local: &Credentials,
    remote: Option<&Credentials>,
) -> Option<Incoming> {
    let message = Message::decode(datagram).ok()?;
    if message.method() != Method::new(BINDING) {
        return None;
    }
    let id = message.transaction_id();
    // A request is signed with the receiver's password, a response with that of who received the request.
    let signer = match message.class() {
        MessageClass::Request => local,
        _ => remote?,
    };
    if !signer.key().verifies(&message.integrity()?) {
        return None;
    }
    match message.class() {
        MessageClass::Request => decode_check(&message, local).map(Incoming::Check),
        MessageClass::Success => Some(Incoming::Success(id)),
        MessageClass::Error => {
            let code = message.value(AttributeType::new(ERROR_CODE))?;
            code.starts_with(&ROLE_CONFLICT)
                .then_some(Incoming::RoleConflict(id))
        }
        MessageClass::Indication => None,
    }
}

fn decode_check(message: &Message<'_>, local: &Credentials) -> Option<Check> {
    let username = std::str::from_utf8(message.value(Username::TYPE)?).ok()?;
    if username.split_once(':')?.0 != local.ufrag {
        return None;
    }
    let number = |kind| message.value(AttributeType::new(kind));
    let controlling = number(ICE_CONTROLLING);
    let tie_breaker = controlling.or_else(|| number(ICE_CONTROLLED))?;
    Some(Check {
        id: message.transaction_id(),
        priority: u32::from_be_bytes(number(PRIORITY)?.try_into().ok()?),
        controlling: controlling.is_some(),
        tie_breaker: u64::from_be_bytes(tie_breaker.try_into().ok()?),
        nominate: number(USE_CANDIDATE).is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(name: &str) -> Credentials {
        Credentials {
            ufrag: name.to_owned(),
            pwd: format!("the password of {name}, 22 or more"),
        }
    }

    #[test]
    fn a_check_is_read_as_it_was_written_and_only_by_whom_it_is_for() {
        let (ours, theirs) = (credentials("ours"), credentials("theirs"));
        for (controlling, nominate) in [(true, true), (true, false), (false, false)] {
            let check = Check {
                id: TransactionId::from(77),
                priority: 0x6eff_00ff,
                controlling,
                tie_breaker: u64::MAX - 3,
                nominate,
            };
            let bytes = encode_check(&check, &ours, &theirs);
            assert_eq!(decode(&bytes, &theirs, None), Some(Incoming::Check(check)));
            assert_eq!(decode(&bytes, &ours, None), None, "signed for another");
            let other = Credentials {
                ufrag: "other".to_owned(),
                pwd: theirs.pwd.clone(),
            };
            assert_eq!(decode(&bytes, &other, None), None, "named another");
        }
    }

    #[test]
    fn an_answer_is_believed_from_the_peer_alone() {
        let (ours, theirs) = (credentials("ours"), credentials("theirs"));
        let id = TransactionId::from(9);
        let source = "192.0.2.7:9".parse().expect("an address");
        let success = encode_success(id, source, &theirs);
        let read = |bytes: &[u8]| decode(bytes, &ours, Some(&theirs));
        assert_eq!(read(&success), Some(Incoming::Success(id)));
        assert_eq!(decode(&success, &theirs, Some(&ours)), None);
        assert_eq!(decode(&success, &ours, None), None, "before any peer");
        let conflict = encode_role_conflict(id, &theirs);
        assert_eq!(read(&conflict), Some(Incoming::RoleConflict(id)));
    }

    #[test]
    fn no_bit_of_what_a_check_says_can_be_changed() {
        let (ours, theirs) = (credentials("ours"), credentials("theirs"));
        let check = Check {
            id: TransactionId::from(77),
            priority: 1,
            controlling: true,
            tie_breaker: 2,
            nominate: true,
        };
        let bytes = encode_check(&check, &ours, &theirs);
        // What follows the integrity is not believed anyway: FINGERPRINT, 8 bytes.
        for bit in 0..(bytes.len() - 8) * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&changed, &theirs, None), None, "bit {bit}");
        }
    }
}
