//! Explicit congestion notification: the low two bits of IPv4's former type of service and of IPv6's traffic class
//! ([RFC 3168 section 5](https://www.rfc-editor.org/rfc/rfc3168#section-5)).

use super::checksum::{Delta, get};

/// What the field says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ecn {
    /// The transport does not react to marks.
    NotCapable,
    /// It does; ECT(1).
    Ect1,
    /// It does; ECT(0).
    Ect0,
    /// It does, and the packet met congestion.
    CongestionExperienced,
}

impl Ecn {
    /// Of an IP packet; what is none is not capable.
    #[must_use]
    pub fn of(packet: &[u8]) -> Self {
        let bits = match packet {
            [first, second, ..] if first >> 4 == 4 => *second & 0b11,
            [first, second, ..] if first >> 4 == 6 => (*second >> 4) & 0b11,
            _ => 0,
        };
        match bits {
            0b00 => Self::NotCapable,
            0b01 => Self::Ect1,
            0b10 => Self::Ect0,
            _ => Self::CongestionExperienced,
        }
    }
}

/// Marks an IP packet as having met congestion, in the place of being dropped; whether its transport understands that.
/// Otherwise it is left as it is.
pub fn mark_congestion(packet: &mut [u8]) -> bool {
    match (Ecn::of(packet), packet.first().map(|first| first >> 4)) {
        (Ecn::NotCapable, _) => false,
        (Ecn::CongestionExperienced, _) => true,
        (_, Some(4)) if packet.len() >= 20 => {
            let before = get(packet, 0);
            packet[1] |= 0b11;
            let mut delta = Delta::default();
            delta.word(before, get(packet, 0));
            let checksum = delta.apply(get(packet, 10));
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
            true
        }
        (_, Some(6)) => {
            packet[1] |= 0b11 << 4;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::checksum::{add, fold};
    use super::*;

    #[test]
    fn a_capable_packet_is_marked_and_stays_valid_and_others_stay_as_they_are() {
        for (bits, ecn) in [(1, Ecn::Ect1), (2, Ecn::Ect0)] {
            let mut v4 = [0; 40];
            v4[..12].copy_from_slice(&[0x45, 0xb8 | bits, 0, 40, 0, 9, 0x40, 0, 64, 6, 0, 0]);
            v4[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
            let checksum = !fold(add(0, &v4[..20]));
            v4[10..12].copy_from_slice(&checksum.to_be_bytes());
            let mut v6 = [0; 60];
            v6[..2].copy_from_slice(&[0x6b, 0x8f | bits << 4]);
            assert_eq!([Ecn::of(&v4), Ecn::of(&v6)], [ecn; 2]);
            for _ in 0..2 {
                assert!(mark_congestion(&mut v4) && mark_congestion(&mut v6));
                let marked = [Ecn::of(&v4), Ecn::of(&v6)];
                assert_eq!(marked, [Ecn::CongestionExperienced; 2]);
                assert_eq!(fold(add(0, &v4[..20])), 0xffff);
                // The class of service is another field.
                assert_eq!((v4[1], v6[..2] == [0x6b, 0xbf]), (0xbb, true));
            }
        }
        for packet in [
            &[0x45, 0xb8, 0, 20][..],
            &[0x6b, 0x80, 0],
            &[0x45],
            &[],
            &[0x15, 3],
        ] {
            let mut same = packet.to_vec();
            assert!(!mark_congestion(&mut same));
            assert_eq!(same, packet);
        }
    }
}
