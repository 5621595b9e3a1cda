//! Telling protocols on one UDP port apart by the first byte.

/// What a datagram is ([RFC 7983 section 7](https://www.rfc-editor.org/rfc/rfc7983#section-7), as updated by
/// [RFC 9443 section 2](https://www.rfc-editor.org/rfc/rfc9443#section-2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// First byte 0 to 3.
    Stun,
    /// First byte 20 to 63.
    Dtls,
    /// First byte 64 to 79: TURN channels 0x4000 to 0x4FFF.
    ChannelData,
    /// Anything else: of no use to a TURN server; a link's own datagrams may be here.
    Other,
}

/// Classifies a datagram by its first byte.
pub fn classify(first: u8) -> Class {
    match first {
        0..=3 => Class::Stun,
        20..=63 => Class::Dtls,
        64..=79 => Class::ChannelData,
        _ => Class::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranges_are_those_of_rfc_7983() {
        let expected = |byte| match byte {
            0..=3 => Class::Stun,
            b if (20..64).contains(&b) => Class::Dtls,
            b if b >> 4 == 4 => Class::ChannelData,
            _ => Class::Other,
        };
        for byte in 0..=u8::MAX {
            assert_eq!(classify(byte), expected(byte), "{byte}");
        }
    }
}
