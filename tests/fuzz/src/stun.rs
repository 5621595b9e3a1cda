//! A datagram as STUN, ChannelData and whatever else may be on the port.

use stun_types::message::Message as Theirs;
use wire::channel_data;
use wire::stun::Message;

pub(crate) fn run(data: &[u8]) {
    if let Ok(read) = channel_data::decode(data) {
        let header = channel_data::header(read.channel, read.payload.len() as u16);
        let written = [&header, read.payload].concat();
        assert_eq!(data[..written.len()], written);
    }
    let Ok(message) = Message::decode(data) else {
        return;
    };
    let mut sum = 20;
    for (kind, value) in message.attributes() {
        sum += 4 + value.len().next_multiple_of(4);
        // The first of a kind is the one that counts.
        assert!(message.has(kind));
    }
    assert!(sum <= data.len());
    if let Some(integrity) = message.integrity() {
        assert!((16..=32).contains(&integrity.hmac.len()));
        assert!(integrity.text.len() + 4 <= data.len());
    }
    // The other reader is stricter about what follows the integrity; what both read is the same.
    if let Ok(theirs) = Theirs::from_bytes(data) {
        assert_eq!(message.method(), theirs.method());
        assert_eq!(message.class(), theirs.class());
        assert_eq!(message.transaction_id(), theirs.transaction_id());
        for (kind, value) in message.attributes() {
            let first = theirs.raw_attribute(kind).expect("an attribute of ours");
            if message.value(kind) == Some(value) {
                assert_eq!(&*first.value, value);
            }
        }
    }
}
