//! ChannelData, the four-byte framing of the packet path
//! ([RFC 8656 section 12.4](https://www.rfc-editor.org/rfc/rfc8656#section-12.4)).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------------------------------+-------------------------------+
//! |         Channel Number        |            Length             |
//! +-------------------------------+-------------------------------+
//! /                       Application Data                        /
//! +---------------------------------------------------------------+
//! ```
//!
//! Over UDP no padding is needed; what follows the data is ignored (section 12.5).

use thiserror::Error;

/// Bytes before the application data.
pub const HEADER_LEN: usize = 4;
/// The lowest channel number ([RFC 8656 section 12](https://www.rfc-editor.org/rfc/rfc8656#section-12)).
pub const FIRST_CHANNEL: u16 = 0x4000;
/// The highest channel number that RFC 8656 lets a client bind.
pub const LAST_CHANNEL: u16 = 0x4FFF;
/// The highest that its predecessor let them bind ([RFC 5766 section 11](https://www.rfc-editor.org/rfc/rfc5766#section-11)).
pub const LAST_CHANNEL_OF_RFC_5766: u16 = 0x7FFF;

/// A ChannelData message that borrows its datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelData<'a> {
    /// As received: whether it is bound is not known here.
    pub channel: u16,
    /// 0 to 65 535 bytes.
    pub payload: &'a [u8],
}

/// Why bytes are not a ChannelData message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChannelDataError {
    /// Fewer than four bytes.
    #[error("shorter than a ChannelData header")]
    Header,
    /// The length field promises more than there is.
    #[error("shorter than its ChannelData length field says")]
    Truncated,
}

/// Reads one ChannelData message from a datagram.
///
/// # Errors
/// When the datagram is shorter than the header or than the header's length field says.
pub fn decode(datagram: &[u8]) -> Result<ChannelData<'_>, ChannelDataError> {
    let (header, rest) = datagram
        .split_first_chunk::<HEADER_LEN>()
        .ok_or(ChannelDataError::Header)?;
    let [c0, c1, l0, l1] = *header;
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    let payload = rest.get(..len).ok_or(ChannelDataError::Truncated)?;
    Ok(ChannelData {
        channel: u16::from_be_bytes([c0, c1]),
        payload,
    })
}

/// The header for `len` bytes of application data; a datagram never holds more than 65 535.
pub fn header(channel: u16, len: u16) -> [u8; HEADER_LEN] {
    let ([c0, c1], [l0, l1]) = (channel.to_be_bytes(), len.to_be_bytes());
    [c0, c1, l0, l1]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_is_read_and_what_follows_it_is_ignored() {
        let decoded = decode(&[0x40, 0x01, 0, 3, b'a', b'b', b'c', 0]).unwrap();
        assert_eq!(decoded.channel, 0x4001);
        assert_eq!(decoded.payload, b"abc");
        assert_eq!(decode(&[0x4F, 0xFF, 0, 0]).unwrap().payload, b"");
    }

    #[test]
    fn a_message_that_is_too_short_is_refused() {
        assert_eq!(decode(&[0x40, 0, 0]), Err(ChannelDataError::Header));
        assert_eq!(
            decode(&[0x40, 0, 0, 2, 1]),
            Err(ChannelDataError::Truncated)
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(channel: u16, payload: Vec<u8>) {
            let mut bytes = header(channel, payload.len() as u16).to_vec();
            bytes.extend(&payload);
            prop_assert_eq!(decode(&bytes), Ok(ChannelData { channel, payload: &payload }));
        }
    }
}
