//! Two lanes face to face, in virtual time.

use std::collections::HashSet;

use super::epoch::{COUNTER_LIMIT, OVERLAP, REKEY_AFTER, REKEY_TIME};
use super::*;
use proptest::prelude::*;
use wire::frame::{Gso, GsoKind, Header, PartialChecksum};

const SECOND: Duration = Duration::from_secs(1);

struct Two {
    lanes: [Lane; 2],
    now: Instant,
    /// What went over the wire, and from whom.
    wire: Vec<(usize, Vec<u8>)>,
    frames: [Vec<Vec<u8>>; 2],
}

impl Two {
    fn new() -> Self {
        Self::with(&LinkConfig::default(), [7; SECRET_LEN])
    }

    fn with(config: &LinkConfig, exported: [u8; SECRET_LEN]) -> Self {
        let now = Instant::now();
        let mut lanes = [
            Lane::new(LinkRole::Offerer, config),
            Lane::new(LinkRole::Answerer, config),
        ];
        let offers = [lanes[0].offer(), lanes[1].offer()];
        for (lane, offer) in lanes.iter_mut().zip(offers.iter().rev()) {
            lane.set_remote_offer(offer.as_ref());
            lane.start(|| Some(exported.into()), now);
            lane.handle_timeout(now);
        }
        Self {
            lanes,
            now,
            wire: Vec::new(),
            frames: [Vec::new(), Vec::new()],
        }
    }

    fn open() -> Self {
        let mut two = Self::new();
        two.exchange(|_, _| true);
        two.run(5 * SECOND);
        two
    }

    /// Moves what there is until both are quiet; `passes` may change it.
    fn exchange(&mut self, mut passes: impl FnMut(usize, &mut Vec<u8>) -> bool) {
        loop {
            let mut moved = false;
            for from in [0, 1] {
                while let Some(burst) = self.lanes[from].poll_burst() {
                    moved = true;
                    for datagram in burst.payload.chunks(burst.segment) {
                        let mut datagram = datagram.to_vec();
                        self.wire.push((from, datagram.clone()));
                        if passes(from, &mut datagram) {
                            self.lanes[1 - from].handle_datagram(&mut datagram, self.now);
                        }
                    }
                }
                let to = 1 - from;
                while let Some(frame) = self.lanes[to]
                    .poll_frame()
                    .or_else(|| self.lanes[to].finish())
                {
                    self.frames[to].push(frame.to_vec());
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// Lets time pass from timer to timer.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self
            .lanes
            .iter()
            .filter_map(Lane::poll_timeout)
            .min()
            .filter(|next| *next <= end)
        {
            self.now = self.now.max(next);
            let now = self.now;
            self.lanes
                .iter_mut()
                .for_each(|lane| lane.handle_timeout(now));
            self.exchange(|_, _| true);
        }
        self.now = end;
    }

    fn send(&mut self, from: usize, frame: &[u8]) -> Carried {
        self.lanes[from].send_frame(frame, self.now)
    }

    fn session(&mut self, of: usize) -> &mut Session {
        self.lanes[of].session.as_mut().expect("a session")
    }
}

/// IPv4, TCP without options, segments of 1 000 bytes.
fn frame(payload: usize) -> Vec<u8> {
    let total = 40 + payload;
    let mut packet = vec![0x5a; total];
    packet[..20].copy_from_slice(&[
        0x45,
        0,
        (total >> 8) as u8,
        total as u8,
        0,
        1,
        0x40,
        0,
        64,
        6,
        0,
        0,
        10,
        0,
        0,
        1,
        10,
        0,
        0,
        2,
    ]);
    packet[20..40].copy_from_slice(&[
        0, 80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 16, 1, 1, 0, 0, 0, 0,
    ]);
    let header = Header {
        gso: (payload > 1_000).then_some(Gso {
            kind: GsoKind::TcpV4,
            ecn: false,
            size: 1_000,
        }),
        partial_checksum: Some(PartialChecksum {
            start: 20,
            offset: 16,
        }),
        headers_len: if payload > 1_000 { 40 } else { 0 },
    };
    [&header.encode()[..], &packet].concat()
}

#[test]
fn the_keys_are_those_of_the_document() {
    let exported: [u8; SECRET_LEN] = std::array::from_fn(|at| at as u8);
    let hex = |aead, sender| {
        let mut sealer = Sealer::new(
            &Secret::first(&exported, aead, sender).expect("a secret"),
            aead,
        )
        .expect("keys");
        let mut datagram = BytesMut::new();
        Sealer::begin(&mut datagram);
        datagram.extend_from_slice(&[PROBE, 0, 0, 0, 1]);
        sealer.seal(&mut datagram, 0);
        crate::certificate::hex(&datagram)
    };
    assert_eq!(
        hex(Aead::Aes128Gcm, LinkRole::Offerer),
        "080000000037e1181bb525d06a0dfbaf5df12fbfe6fa58df70e3"
    );
    assert_eq!(
        hex(Aead::Aes128Gcm, LinkRole::Answerer),
        "0800000000d6dfcbbd8c302176347905c914924f5c1dde98ee7f"
    );
    assert_eq!(
        hex(Aead::ChaCha20Poly1305, LinkRole::Offerer),
        "0800000000e9fc198b59839eb88472d57b8edad58c357acaaefa"
    );
}

#[test]
fn without_an_answer_to_the_first_probe_the_data_channels_have_the_frames_once_they_are_there() {
    let mut two = Two::new();
    assert_eq!(two.send(0, &frame(5_000)), Carried::Yes);
    two.lanes[0].on_fallback();
    assert_eq!(
        two.send(0, &frame(5_000)),
        Carried::Yes,
        "it may be answered"
    );
    two.now += Duration::from_millis(300);
    let now = two.now;
    two.lanes[0].handle_timeout(now);
    assert_eq!(two.send(0, &frame(5_000)), Carried::No);
    two.exchange(|_, _| true);
    assert_eq!(two.send(0, &frame(5_000)), Carried::Yes, "answered late");
}

#[test]
fn a_frame_crosses_as_soon_as_there_are_keys() {
    let mut two = Two::new();
    assert_eq!(two.lanes[0].poll_change(), Some(Carrier::Datagram));
    assert_eq!(two.lanes[0].poll_change(), None);
    assert_eq!(two.send(0, &frame(500)), Carried::Yes);
    two.exchange(|_, _| true);
    assert_eq!(two.frames[1].pop().expect("a frame").len(), 12 + 40 + 500);
    assert_eq!(two.lanes[0].poll_change(), None);
    for payload in [1, 1_000, 5_000, 64_000] {
        assert_eq!(two.send(0, &frame(payload)), Carried::Yes);
        two.exchange(|_, _| true);
        let came = two.frames[1].pop().expect("a frame");
        assert_eq!(came.len(), 12 + 40 + payload);
        assert_eq!(came[12 + 40..], frame(payload)[12 + 40..]);
    }
    assert_eq!(two.lanes[1].stats.dropped(), 0);
    assert!(
        two.wire
            .iter()
            .all(|(_, datagram)| (8..16).contains(&datagram[0]))
    );
}

#[test]
fn a_burst_is_datagrams_of_one_size_that_one_call_can_send() {
    let mut two = Two::open();
    assert_eq!(two.send(0, &frame(65_400)), Carried::Yes);
    let mut datagrams = 0;
    while let Some(burst) = two.lanes[0].poll_burst() {
        assert!(burst.payload.len() <= 65_000);
        let sizes: Vec<usize> = burst
            .payload
            .chunks(burst.segment)
            .map(<[u8]>::len)
            .collect();
        assert!(sizes.len() <= 64);
        assert!(
            sizes[..sizes.len() - 1]
                .iter()
                .all(|size| *size == burst.segment)
        );
        datagrams += sizes.len();
    }
    let stats = two.lanes[0].stats;
    assert_eq!(stats.datagrams_sent, 66);
    // And a probe, since the lane was idle.
    assert_eq!(datagrams, 67);
}

#[test]
fn what_does_not_fit_is_left_to_the_data_channel() {
    let mut two = Two::open();
    let limit = two.lanes[0].packet_limit();
    assert!(limit > 1_400);
    two.lanes[0].lower(1_050);
    assert_eq!(two.lanes[0].packet_limit(), 1_200 - OVERHEAD);
    assert_eq!(two.send(0, &frame(990)), Carried::Yes);
    // One packet of 1 540 bytes, not several.
    let mut long = frame(1_500);
    long[1..6].fill(0);
    assert_eq!(two.send(0, &long), Carried::No);
    assert_eq!(two.send(0, b"this is not a frame"), Carried::No);
}

#[test]
fn what_was_seen_or_changed_or_made_up_is_dropped_and_counted() {
    let mut two = Two::open();
    let before = two.wire.len();
    assert_eq!(two.send(0, &frame(30_000)), Carried::Yes);
    two.exchange(|_, _| true);
    assert_eq!(two.frames[1].len(), 1);
    let sent: Vec<Vec<u8>> = two.wire[before..]
        .iter()
        .map(|(_, datagram)| datagram.clone())
        .collect();
    let now = two.now;
    for datagram in &sent {
        assert!(!two.lanes[1].handle_datagram(&mut datagram.clone(), now));
        // Nor does it pass as the other direction's.
        assert!(!two.lanes[0].handle_datagram(&mut datagram.clone(), now));
    }
    assert_eq!(two.lanes[1].stats.dropped_replayed, sent.len() as u64);
    let fresh = || {
        let mut datagram = sent[0].clone();
        datagram[1..5].copy_from_slice(&5_000_u32.to_be_bytes());
        datagram
    };
    for at in 0..fresh().len() {
        let mut datagram = fresh();
        datagram[at] ^= 1;
        assert!(!two.lanes[1].handle_datagram(&mut datagram, now));
    }
    for length in 0..60 {
        assert!(!two.lanes[1].handle_datagram(&mut fresh()[..length], now));
    }
    let mut unknown = fresh();
    unknown[0] = 0x0d;
    assert!(!two.lanes[1].handle_datagram(&mut unknown, now));
    let stats = two.lanes[1].stats;
    assert!(
        stats.dropped_forged > 900 && stats.dropped_malformed >= 22,
        "{stats:?}"
    );
    assert_eq!(stats.dropped_epoch, 1);
    assert_eq!(two.frames[1].len(), 1);
    // None of this keeps what is good from passing.
    assert_eq!(two.send(0, &frame(30_000)), Carried::Yes);
    two.exchange(|_, _| true);
    assert_eq!(two.frames[1].len(), 2);
}

#[test]
fn what_is_older_than_the_window_is_dropped_and_what_is_in_it_passes_in_any_order() {
    let mut two = Two::open();
    let mut held = Vec::new();
    for _ in 0..200 {
        assert_eq!(two.send(0, &frame(60_000)), Carried::Yes);
        while let Some(burst) = two.lanes[0].poll_burst() {
            held.extend(burst.payload.chunks(burst.segment).map(<[u8]>::to_vec));
        }
    }
    let now = two.now;
    held.reverse();
    let lane = &mut two.lanes[1];
    let passes = |datagram: &mut Vec<u8>| usize::from(lane.handle_datagram(datagram, now));
    let passed: usize = held.iter_mut().map(passes).sum();
    assert!((4_096..8_193).contains(&passed), "{passed}");
    assert_eq!(two.lanes[1].stats.dropped_old as usize, held.len() - passed);
}

#[test]
fn nothing_is_believed_before_the_keys_are_there() {
    let mut two = Two::open();
    assert_eq!(two.send(0, &frame(100)), Carried::Yes);
    let mut burst = two.lanes[0].poll_burst().expect("a burst");
    let mut late = Lane::new(LinkRole::Answerer, &LinkConfig::default());
    assert!(!late.handle_datagram(&mut burst.payload, two.now));
    assert_eq!(late.stats.dropped_early, 1);
}

#[test]
fn a_key_serves_its_time_and_its_count() {
    let mut two = Two::open();
    let first = two.session(0).sealer.position().0;
    two.session(0).sealer.skip(REKEY_AFTER);
    assert_eq!(two.send(0, &frame(2_000)), Carried::Yes);
    assert_eq!(two.session(0).sealer.position().0, first + 1);
    two.exchange(|_, _| true);
    two.now += SECOND;
    assert_eq!(two.send(0, &frame(2_000)), Carried::Yes);
    two.exchange(|_, _| true);
    two.now += REKEY_TIME;
    assert_eq!(two.send(0, &frame(2_000)), Carried::Yes);
    assert_eq!(two.session(0).sealer.position().0, first + 2);
    two.exchange(|_, _| true);
    assert_eq!(two.frames[1].len(), 3);
    assert_eq!(two.session(1).opener.epoch(), first + 2);
}

#[test]
fn a_key_nobody_confirmed_is_not_followed_by_another_and_never_used_up() {
    let mut two = Two::open();
    two.session(0).sealer.skip(REKEY_AFTER);
    two.send(0, &frame(100));
    let epoch = two.session(0).sealer.position().0;
    // Nothing comes back any more.
    two.exchange(|_, _| false);
    two.session(0).sealer.skip(COUNTER_LIMIT - 200);
    let mut carried = 0;
    while two.send(0, &frame(2_000)) == Carried::Yes {
        two.exchange(|_, _| false);
        carried += 1;
        assert!(carried < 200);
    }
    let (now_at, counter) = two.session(0).sealer.position();
    assert_eq!(now_at, epoch);
    assert!(counter <= COUNTER_LIMIT);
}

#[test]
fn what_was_on_the_way_at_a_change_of_keys_arrives_and_later_the_old_key_is_forgotten() {
    let mut two = Two::open();
    let mut held = Vec::new();
    for _ in 0..2 {
        two.send(0, &frame(900));
        two.exchange(|_, datagram| {
            held.push(datagram.clone());
            false
        });
    }
    two.session(0).sealer.skip(REKEY_AFTER);
    two.send(0, &frame(900));
    two.exchange(|_, _| true);
    let now = two.now;
    assert!(two.lanes[1].handle_datagram(&mut held[0].clone(), now));
    two.run(OVERLAP + SECOND);
    let now = two.now;
    assert!(!two.lanes[1].handle_datagram(&mut held[1].clone(), now));
    assert!(two.lanes[1].stats.dropped_epoch > 0);
    assert!(two.session(1).opener.poll_timeout().is_none());
}

#[test]
fn both_ends_change_their_keys_at_once() {
    let mut two = Two::open();
    for _ in 0..20 {
        for end in [0, 1] {
            two.session(end).sealer.skip(REKEY_AFTER);
            assert_eq!(two.send(end, &frame(3_000)), Carried::Yes);
        }
        two.exchange(|_, _| true);
        two.now += SECOND;
        for end in [0, 1] {
            assert_eq!(two.send(end, &frame(3_000)), Carried::Yes);
        }
        two.exchange(|_, _| true);
    }
    for end in [0, 1] {
        assert_eq!(two.frames[end].len(), 40);
        assert_eq!(two.lanes[end].stats.dropped(), 0);
        assert!(two.session(end).sealer.position().0 >= 20);
    }
}

#[test]
fn a_link_that_moves_a_terabyte_changes_its_keys_and_never_uses_a_nonce_twice() {
    let mut two = Two::open();
    let (mut bytes, mut last, mut epochs) = (0_u64, (0, 0), HashSet::new());
    let start = two.wire.len();
    while bytes < 1_000_000_000_000 {
        let position = two.session(0).sealer.position();
        assert_eq!(two.send(0, &frame(60_000)), Carried::Yes);
        let after = two.session(0).sealer.position();
        assert!(after > last && after.1 <= COUNTER_LIMIT, "{after:?}");
        epochs.insert(after.0);
        last = after;
        bytes += 60_000;
        two.exchange(|_, _| true);
        two.frames[1].clear();
        // As if so many had been sent in between, at 8 Gbit/s.
        let skipped = 1 << 20;
        if position.1 < REKEY_AFTER {
            two.session(0).sealer.skip(skipped);
            bytes += u64::from(skipped) * 1_000;
        }
        two.now += SECOND;
    }
    assert!(
        epochs.len() >= 1_000_000_000 / REKEY_AFTER as usize,
        "{}",
        epochs.len()
    );
    assert_eq!(two.lanes[1].stats.dropped(), 0);
    // As the wire shows it: no header twice before the three bits of the epoch come round again.
    let mut seen = HashSet::new();
    let mut epoch = 0;
    for (from, datagram) in &two.wire[start..] {
        if *from == 0 {
            let bits = u32::from(datagram[0] & 7);
            epoch += (bits + 8 - epoch % 8) % 8;
            assert!(seen.insert((epoch, datagram[1..5].to_vec())));
        }
    }
}

#[test]
fn epochs_links_and_directions_have_keys_of_their_own() {
    let mut texts = HashSet::new();
    for exported in [[1; SECRET_LEN], [2; SECRET_LEN]] {
        for aead in [Aead::Aes128Gcm, Aead::ChaCha20Poly1305] {
            for sender in [LinkRole::Offerer, LinkRole::Answerer] {
                let mut secret = Secret::first(&exported, aead, sender).expect("a secret");
                for _ in 0..20 {
                    let mut text = [0; 64];
                    secret
                        .key(aead)
                        .expect("a key")
                        .seal(0, b"", &mut text)
                        .expect("sealed");
                    assert!(texts.insert(text));
                    secret = secret.next().expect("another");
                }
            }
        }
    }
}

#[test]
fn both_ends_come_to_the_same_cipher() {
    let (aes, chacha) = (Aead::Aes128Gcm, Aead::ChaCha20Poly1305);
    let (fast, slow) = ([aes, chacha], [chacha, aes]);
    for (ours, theirs, chosen) in [
        (fast, fast, aes),
        (fast, slow, chacha),
        (slow, fast, chacha),
        (slow, slow, chacha),
    ] {
        assert_eq!(
            Aead::choose(&ours, &theirs.map(|aead| aead as u32)),
            Some(chosen)
        );
    }
    assert_eq!(Aead::choose(&fast, &[1]), Some(aes));
    assert_eq!(Aead::choose(&slow, &[1]), Some(aes));
    assert_eq!(Aead::choose(&fast, &[2, 29]), Some(chacha));
    assert_eq!(Aead::choose(&fast, &[]), None);
}

#[test]
fn a_peer_that_does_not_speak_it_or_does_not_want_it_is_left_in_peace() {
    let now = Instant::now();
    let config = |carrier| LinkConfig {
        carrier,
        ..LinkConfig::default()
    };
    let wanted = Lane::new(LinkRole::Offerer, &config(Carrier::Auto)).offer();
    for (carrier, offer) in [
        (Carrier::Auto, None),
        (
            Carrier::Datagram,
            Some(LaneOffer {
                version: 0,
                aeads: vec![1],
            }),
        ),
        (
            Carrier::Auto,
            Some(LaneOffer {
                version: 1,
                aeads: vec![],
            }),
        ),
        (Carrier::DataChannel, wanted),
    ] {
        let mut lane = Lane::new(LinkRole::Answerer, &config(carrier));
        lane.set_remote_offer(offer.as_ref());
        lane.start(|| Some([7; SECRET_LEN].into()), now);
        lane.handle_timeout(now);
        assert!(lane.poll_burst().is_none() && lane.poll_timeout().is_none());
        assert_eq!(lane.carrier(), Carrier::DataChannel);
    }
}

proptest! {
    #[test]
    fn whatever_an_authentic_peer_says_is_a_frame_or_a_counted_drop(
        texts in prop::collection::vec(
            (0_u8..6, prop::collection::vec(any::<u8>(), 0..120), any::<bool>()), 1..20,
        ),
    ) {
        let mut two = Two::open();
        for (kind, mut body, packet_like) in texts {
            if packet_like && !body.is_empty() {
                body[0] = if body[0] & 1 == 0 { 0x45 } else { 0x60 };
                let length = body.len() as u8;
                if let Some(field) = body.get_mut(2..4) {
                    field.copy_from_slice(&[0, length]);
                }
            }
            two.session(0).send_text(&[&[kind], &body], 0);
        }
        two.exchange(|_, _| true);
        prop_assert!(two.frames[1].iter().all(|frame| frame.len() > wire::frame::HEADER_LEN));
    }
}
