//! Signaling mail: bounded, short-lived, never on disk. Discovery says who sent it; what it says is signed.

use std::time::{Duration, Instant};

use model::NodeId;
use prost::Message as _;
use protocol::{directory::Envelope, document::SignedDocument};

use crate::{
    authorize::mailbox_prefix,
    records,
    store::{Core, StoreError},
};

/// Unread mail is dropped after this.
pub(crate) const TTL: Duration = Duration::from_secs(30);
/// Mail waiting in one mailbox.
pub(crate) const MAX_MAIL: usize = 256;
/// Mail waiting in one mailbox from one sender, so that no sender can shut out the others.
pub(crate) const MAX_MAIL_FROM_ONE: usize = 64;

/// Why mail was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PostError {
    #[error("there is no node {0}")]
    NoNode(NodeId),
    #[error("the mailbox of {0} is full: it does not read its mail")]
    Full(NodeId),
    #[error("{MAX_MAIL_FROM_ONE} documents of this node wait unread in the mailbox of {0}")]
    TooMany(NodeId),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Gives the key under which it lies.
pub(crate) fn post(
    core: &mut Core,
    from: &NodeId,
    to: &NodeId,
    document: SignedDocument,
    now: Instant,
) -> Result<String, PostError> {
    if records::node(core, to).is_none() {
        return Err(PostError::NoNode(to.clone()));
    }
    let prefix = mailbox_prefix(to);
    let sender = from.to_string();
    let (mut all, mut same) = (0, 0);
    for (_, entry) in core.range(&prefix) {
        all += 1;
        same += usize::from(sender_of(&entry.value) == Some(sender.as_bytes()));
    }
    if all >= MAX_MAIL {
        return Err(PostError::Full(to.clone()));
    }
    if same >= MAX_MAIL_FROM_ONE {
        return Err(PostError::TooMany(to.clone()));
    }
    // Zero-padded, so that keys sort in the order of arrival.
    let key = format!("{prefix}{:020}", core.revision().next().0);
    let value = Envelope {
        from: sender,
        document: Some(document),
    }
    .encode_to_vec();
    core.put_ephemeral(&key, &value, TTL, now)?;
    Ok(key)
}

/// The first field of an encoded [`Envelope`], without decoding the document: tag 0x0a, one length byte (a node id
/// with the longest names has more than 127 bytes, then two), text.
fn sender_of(value: &[u8]) -> Option<&[u8]> {
    let (tag, rest) = value.split_first()?;
    let mut rest = rest;
    let length = prost::encoding::decode_varint(&mut rest).ok()?;
    if *tag != 0x0a {
        return None;
    }
    rest.get(..usize::try_from(length).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        records::NodeRecord,
        store::{Change, Limits},
    };
    use model::Revision;

    fn node(text: &str) -> NodeId {
        text.parse().unwrap()
    }

    fn core() -> Core {
        let mut core = Core::new(Limits::default(), Revision(0));
        for change in core.take_changes() {
            if let Change::Reserve(bound) = change {
                core.on_reserved(bound);
            }
        }
        records::put_node(
            &mut core,
            &node("east/activator/gw"),
            &NodeRecord::default(),
        )
        .unwrap();
        core
    }

    #[test]
    fn mail_is_kept_in_order_and_says_who_sent_it() {
        let (mut core, now) = (core(), Instant::now());
        let to = node("east/activator/gw");
        for i in 0..20u8 {
            let document = SignedDocument {
                payload: vec![i],
                ..SignedDocument::default()
            };
            post(&mut core, &node("west/workload/app"), &to, document, now).unwrap();
        }
        let mail: Vec<_> = core
            .range("mailbox/east/activator/gw/")
            .map(|(_, entry)| Envelope::decode(&*entry.value).unwrap())
            .collect();
        assert!(mail.iter().all(|mail| mail.from == "west/workload/app"));
        let payloads: Vec<u8> = mail
            .iter()
            .map(|mail| mail.document.as_ref().unwrap().payload[0])
            .collect();
        assert_eq!(payloads, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn a_mailbox_is_bounded_and_each_senders_part_of_it_too() {
        let (mut core, now) = (core(), Instant::now());
        let to = node("east/activator/gw");
        let mut send =
            |from: &str| post(&mut core, &node(from), &to, SignedDocument::default(), now);
        for sender in ["a", "b", "c", "d"] {
            let from = format!("west/workload/{sender}{}", "x".repeat(60));
            for _ in 0..MAX_MAIL_FROM_ONE {
                send(&from).unwrap();
            }
            assert!(send(&from).is_err());
        }
        assert_eq!(send("west/workload/e"), Err(PostError::Full(to.clone())));
        core.handle_timeout(now + TTL);
        assert!(
            post(
                &mut core,
                &node("west/workload/e"),
                &to,
                SignedDocument::default(),
                now
            )
            .is_ok()
        );
    }

    #[test]
    fn there_is_no_mailbox_for_a_node_that_never_was() {
        let (mut core, now) = (core(), Instant::now());
        let to = node("east/activator/nobody");
        let result = post(
            &mut core,
            &node("west/workload/a"),
            &to,
            SignedDocument::default(),
            now,
        );
        assert_eq!(result, Err(PostError::NoNode(to)));
    }
}
