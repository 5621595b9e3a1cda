mod long_path;

use super::*;

/// Two ends, open, with nothing between them.
fn open() -> ([Channels; 2], Instant) {
    let (config, now) = (LinkConfig::default(), Instant::now());
    let mut ends = [LinkRole::Offerer, LinkRole::Answerer].map(|role| Channels::new(role, &config));
    ends[0].start(now).expect("started");
    exchange(&mut ends, now);
    assert!(ends.iter().all(Channels::is_open));
    for end in &mut ends {
        while end.poll_event().is_some() {}
    }
    (ends, now)
}

fn exchange(ends: &mut [Channels; 2], now: Instant) {
    let mut moved = true;
    while moved {
        moved = false;
        for from in [0, 1] {
            while let Some(packets) = ends[from].poll_packets(now) {
                moved = true;
                for packet in packets {
                    ends[1 - from].handle_packet(packet, now);
                }
            }
        }
    }
}

fn say(ends: &mut [Channels; 2], stream: u16, message: &[u8], now: Instant) {
    let message = Bytes::copy_from_slice(message);
    ends[0]
        .write(stream, &message, PayloadProtocolIdentifier::Binary, now)
        .expect("room");
    exchange(ends, now);
}

#[test]
fn control_messages_that_cannot_be_read_are_dropped_and_counted() {
    let (mut ends, now) = open();
    say(&mut ends, CONTROL_STREAM, &[0xff; 9], now);
    say(&mut ends, CONTROL_STREAM, &vec![0; MAX_CONTROL + 1], now);
    assert_eq!(ends[1].dropped, 2);
    assert!(ends[1].poll_event().is_none());
    let ping = Control {
        body: Some(protocol::document::control::Body::Ping(
            protocol::document::Ping { id: 7 },
        )),
    };
    ends[0].send_control(&ping, now).expect("room");
    exchange(&mut ends, now);
    assert!(matches!(ends[1].poll_event(), Some(ChannelEvent::Control(said)) if said == ping));
}

#[test]
fn a_channel_that_is_none_of_ours_is_heard_by_nobody() {
    let (mut ends, now) = open();
    let (_, association) = ends[0].association.as_mut().expect("an association");
    association
        .open_stream(4, PayloadProtocolIdentifier::Binary)
        .expect("a stream");
    let hello = Dcep::DataChannelOpen(DataChannelOpen {
        channel_type: ChannelType::Reliable,
        priority: CHANNEL_PRIORITY_NORMAL,
        reliability_parameter: 0,
        label: b"ip".to_vec(),
        protocol: Vec::new(),
    });
    assert!(ends[0].send_dcep(4, &hello, now));
    say(&mut ends, 4, b"a second channel of the same name", now);
    assert_eq!(ends[1].dropped, 1);
    assert!(ends[1].poll_event().is_none());
    assert!(ends[1].is_open());
}

#[test]
fn openings_that_cannot_be_read_are_dropped_and_counted() {
    let (mut ends, now) = open();
    let mut sent = 0;
    for kind in 0..=255 {
        for length in [1, 2, 5, 11, 12, 40] {
            let mut message = vec![0xff; length];
            message[0] = kind;
            let message = Bytes::from(message);
            // An acknowledgement is one byte; what follows is not looked at.
            sent += u64::from(kind != DATA_CHANNEL_ACK);
            ends[0]
                .write(
                    CONTROL_STREAM,
                    &message,
                    PayloadProtocolIdentifier::Dcep,
                    now,
                )
                .expect("room");
            exchange(&mut ends, now);
        }
    }
    assert_eq!(ends[1].dropped, sent);
    assert!(ends[1].is_open());
}

#[test]
fn packets_that_are_not_sctp_are_dropped_and_counted() {
    let (mut ends, now) = open();
    for length in 0..64 {
        ends[1].handle_packet(Bytes::from(vec![0x5a; length]), now);
    }
    assert_eq!(ends[1].dropped, 64);
    assert!(ends[1].is_open());
}

/// SCTP's checksum, CRC32c. [RFC 9260 appendix A](https://www.rfc-editor.org/rfc/rfc9260#appendix-A)
fn checksum(packet: &mut [u8]) {
    packet[8..12].fill(0);
    let mut crc = u32::MAX;
    for byte in packet.iter() {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
        }
    }
    packet[8..12].copy_from_slice(&(!crc).to_le_bytes());
}

/// Every packet that `ends[0]` sends for a frame, with a checksum or without.
fn checksums(ends: &mut [Channels; 2], now: Instant) -> Vec<bool> {
    ends[0].send_frame(&[7; 1_000], now).expect("room");
    let packets = ends[0].poll_packets(now).expect("a packet");
    packets
        .iter()
        .map(|packet| packet[8..12] != [0; 4])
        .collect()
}

#[test]
fn checksums_are_left_out_only_towards_a_peer_that_says_so() {
    let (mut ends, now) = open();
    assert_eq!(checksums(&mut ends, now), [false]);

    let (config, now) = (LinkConfig::default(), Instant::now());
    let mut ends = [LinkRole::Offerer, LinkRole::Answerer].map(|role| Channels::new(role, &config));
    // A peer like any browser's: it says nothing about checksums, and sends them.
    let transport = std::mem::take(&mut ends[1].transport).with_zero_checksum(false);
    let server = ServerConfig::new(transport);
    ends[1].endpoint.set_server_config(Some(Arc::new(server)));
    ends[0].start(now).expect("started");
    exchange(&mut ends, now);
    assert!(ends.iter().all(Channels::is_open));
    assert_eq!(checksums(&mut ends, now), [true]);
    // And it takes none without.
    let dropped = ends[1].dropped;
    let mut packet = vec![0x5a; 64];
    packet[8..12].fill(0);
    ends[1].handle_packet(Bytes::from(packet), now);
    assert_eq!(ends[1].dropped, dropped + 1);
}

#[test]
fn a_frame_is_cut_into_messages_of_one_packet_and_arrives_as_one() {
    let (mut ends, now) = open();
    for length in [1_400, 16_000, 64_000] {
        let sent = frames::tests::tcp(length);
        ends[0].send_frame(&sent, now).expect("room");
        // The window holds less than the longest at first: acknowledgments go back in between.
        let (mut packets, mut moved) = (0, true);
        while moved {
            moved = false;
            for from in [0, 1] {
                for packet in ends[from].poll_packets(now).unwrap_or_default() {
                    moved = true;
                    assert!(packet.len() <= LinkConfig::default().sctp_mtu as usize);
                    packets += usize::from(from == 0 && packet.len() > 100);
                    ends[1 - from].handle_packet(packet, now);
                }
            }
        }
        assert_eq!(packets, (length - 52_usize).div_ceil(1_308));
        let got = ends[1].finish().expect("a frame");
        let (sent, got) = (frames::tests::payload(&sent), frames::tests::payload(&got));
        assert_eq!(sent, got);
    }
}

#[test]
fn what_is_lost_on_ip_is_not_sent_again_and_holds_nothing_up() {
    let (mut ends, mut now) = open();
    for round in 0..20_u8 {
        ends[0].send_frame(&[round; 600], now).expect("room");
        let packets = ends[0].poll_packets(now).expect("packets");
        if round % 4 != 1 {
            for packet in packets {
                ends[1].handle_packet(packet, now);
            }
        }
        exchange(&mut ends, now);
        now += Duration::from_millis(20);
        for end in &mut ends {
            end.handle_timeout(now);
        }
        exchange(&mut ends, now);
    }
    let arrived: Vec<u8> = std::iter::from_fn(|| ends[1].poll_event())
        .map(|event| match event {
            ChannelEvent::Frame(frame) => frame[0],
            _ => panic!("no frame"),
        })
        .collect();
    let expected: Vec<u8> = (0..20).filter(|round| round % 4 != 1).collect();
    assert_eq!(arrived, expected);
    assert_eq!(ends[0].queue().0, 0);
}

#[test]
fn packets_of_a_peer_that_means_harm_do_not_panic() {
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    let mut ended = 0;
    for _ in 0..400 {
        let (mut ends, mut now) = open();
        for step in 0..25 {
            now += Duration::from_millis(20);
            let frame = Bytes::from(vec![step as u8; 1 + random() % 4_000]);
            let _ = ends[0].send_frame(&frame, now);
            let _ = ends[1].send_frame(&frame, now);
            for from in [0, 1] {
                let Some(packets) = ends[from].poll_packets(now) else {
                    continue;
                };
                for packet in packets {
                    let mut packet = packet.to_vec();
                    for _ in 0..random() % 4 {
                        let at = 12 + random() % (packet.len() - 12);
                        // Small numbers are types, flags and lengths: the ones that matter.
                        packet[at] = if random() % 2 == 0 {
                            random() as u8
                        } else {
                            (random() % 16) as u8
                        };
                    }
                    if random() % 8 == 0 {
                        packet.truncate(12 + random() % (packet.len() - 11));
                    }
                    checksum(&mut packet);
                    ends[1 - from].handle_packet(packet.into(), now);
                }
            }
            for end in &mut ends {
                end.handle_timeout(now);
                while let Some(event) = end.poll_event() {
                    ended += u32::from(matches!(event, ChannelEvent::Lost(_)));
                }
            }
        }
    }
    assert!(ended > 0, "no packet was bad enough to show anything");
}

#[test]
fn a_ping_leaves_before_all_that_waits_and_a_control_message_too() {
    let (mut ends, now) = open();
    let bulk = |number| waiting::tests::udp(1, number, 1_300, 0);
    let mut refused = 0;
    // The peer says nothing: the window fills up, and then the queue.
    for number in 0..1_000 {
        refused += u32::from(ends[0].send_frame(&bulk(number), now).is_err());
        let _ = ends[0].poll_packets(now);
    }
    assert!(ends[0].waiting.bytes() > 200_000 && refused > 0);
    let ping = waiting::tests::udp(2, 7, 84, 0);
    ends[0]
        .send_frame(&ping, now)
        .expect("room, whatever waits");
    let said = Control {
        body: Some(protocol::document::control::Body::Ping(
            protocol::document::Ping { id: 7 },
        )),
    };
    ends[0].send_control(&said, now).expect("room");
    // As soon as there is room again.
    let later = now + Duration::from_secs(60);
    let (mut sent, mut control, mut at) = (0, None, None);
    for _ in 0..1_000 {
        if let Some(due) = ends[0].poll_timeout() {
            ends[0].handle_timeout(due.min(later));
        }
        for packet in ends[0].poll_packets(later).unwrap_or_default() {
            sent += packet.len();
            let has = |what: &[u8]| packet.windows(what.len()).any(|part| part == what);
            at = at.or_else(|| has(&ping[24..]).then_some(sent));
            control = control.or_else(|| has(&said.encode_to_vec()).then_some(sent));
        }
    }
    let burst = 64 << 10;
    assert!(at.is_some_and(|at| at <= burst), "{at:?} of {sent}");
    assert!(
        control.is_some_and(|at| at <= burst),
        "{control:?} of {sent}"
    );
}
