use super::*;
use wire::ip::Ecn;

const MS: Duration = Duration::from_millis(1);
const ROUND_TRIP: Duration = Duration::from_millis(80);

/// A message of a UDP packet from this port, with a number in it and this ECN field.
pub(in super::super) fn udp(port: u16, number: u32, length: usize, ecn: u8) -> Vec<u8> {
    let mut packet = vec![0; length];
    packet[..12].copy_from_slice(&[0x45, ecn, 0, 0, 0, 9, 0x40, 0, 64, 17, 0, 0]);
    packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    packet[20..22].copy_from_slice(&port.to_be_bytes());
    packet[24..26].copy_from_slice(&(length as u16 - 20).to_be_bytes());
    packet[28..32].copy_from_slice(&number.to_be_bytes());
    [&wire::frame::Header::PLAIN.encode()[..], &packet].concat()
}

fn put(waiting: &mut Waiting, frame: Vec<u8>, now: Instant) {
    waiting.push(Waiting::flow(&frame), frame.into(), now);
}

/// Port and number.
fn read(message: &Bytes) -> (u16, u32) {
    let packet = &message[HEADER_LEN..];
    let number = [packet[28], packet[29], packet[30], packet[31]];
    let port = u16::from_be_bytes([packet[20], packet[21]]);
    (port, u32::from_be_bytes(number))
}

#[test]
fn a_flow_with_little_to_say_comes_before_a_thousand_of_another() {
    let (mut waiting, now) = (Waiting::default(), Instant::now());
    for number in 0..1_000 {
        put(&mut waiting, udp(1, number, 1_300, 0), now);
    }
    for number in 0..3 {
        put(&mut waiting, udp(2, number, 84, 0), now);
    }
    let order: Vec<_> = std::iter::from_fn(|| waiting.pop(ROUND_TRIP, now))
        .map(|message| read(&message))
        .collect();
    assert_eq!(order.len(), 1_003);
    // The turn of the first had begun.
    let positions = order.iter().enumerate().filter(|(_, (port, _))| *port == 2);
    assert!(
        positions.map(|(at, _)| at).max() <= Some(5),
        "{:?}",
        &order[..9]
    );
    for port in [1, 2] {
        let of = order.iter().filter(|(of, _)| *of == port);
        assert!(of.map(|(_, number)| *number).is_sorted());
    }
    assert_eq!((waiting.bytes(), waiting.told), (0, Told::default()));
}

#[test]
fn flows_that_fill_the_queue_get_equal_shares() {
    let (mut waiting, now) = (Waiting::default(), Instant::now());
    for number in 0..300 {
        put(&mut waiting, udp(1, number, 1_300, 0), now);
        // Three times as many, of a third.
        for part in 0..3 {
            put(&mut waiting, udp(2, 3 * number + part, 433, 0), now);
        }
    }
    let mut bytes = [0; 3];
    for _ in 0..400 {
        let message = waiting.pop(ROUND_TRIP, now).expect("more");
        bytes[usize::from(read(&message).0)] += message.len();
    }
    assert!(bytes[1].abs_diff(bytes[2]) < 2 * QUANTUM, "{bytes:?}");
}

#[test]
fn who_has_most_of_a_full_queue_gives_room_to_others_and_not_to_itself() {
    const MOST: usize = 100_000;
    let (mut waiting, now) = (Waiting::default(), Instant::now());
    let (bulk, ping) = (udp(1, 0, 1_300, 0), udp(2, 0, 84, 0));
    let (of_bulk, of_ping) = (Waiting::flow(&bulk), Waiting::flow(&ping));
    while waiting.make_room(of_bulk, bulk.len(), MOST) {
        put(&mut waiting, bulk.clone(), now);
    }
    assert!(waiting.bytes() + bulk.len() > MOST && waiting.told.dropped == 0);
    for _ in 0..100 {
        assert!(waiting.make_room(of_ping, ping.len(), MOST));
        put(&mut waiting, ping.clone(), now);
        assert!(waiting.bytes() <= MOST);
    }
    assert!((1..=8).contains(&waiting.told.dropped));
    // Nobody gets more than there is.
    assert!(!waiting.make_room(of_ping, MOST + 1, MOST));
}

/// Twice as many come as go, for two seconds. How many go, and the longest that one of the second half waited.
fn overload(ecn: u8) -> (Waiting, usize, Duration) {
    let (mut waiting, start) = (Waiting::default(), Instant::now());
    let (mut sent, mut longest) = (0, Duration::ZERO);
    for number in 0..2_000 {
        let now = start + number * MS;
        for _ in 0..2 {
            // As who reacts to what it is told: by a pause.
            let told = waiting.told.marked + waiting.told.dropped;
            if u64::from(number) > 150 * told {
                put(&mut waiting, udp(1, number, 1_300, ecn), now);
            }
        }
        if let Some(message) = waiting.pop(ROUND_TRIP, now) {
            sent += 1;
            let marked = Ecn::of(&message[HEADER_LEN..]) == Ecn::CongestionExperienced;
            assert!(!marked || ecn != 0);
            if number > 1_000 {
                longest = longest.max(now - (start + read(&message).1 * MS));
            }
        }
    }
    (waiting, sent, longest)
}

#[test]
fn who_lets_messages_wait_for_too_long_is_told_by_a_mark_or_by_a_loss() {
    let (capable, sent, longest) = overload(0b10);
    assert!(
        capable.told.marked > 3 && capable.told.dropped == 0,
        "{:?}",
        capable.told
    );
    let (other, others, longest_of_others) = overload(0);
    assert!(
        other.told.dropped > 3 && other.told.marked == 0,
        "{:?}",
        other.told
    );
    for (sent, longest) in [(sent, longest), (others, longest_of_others)] {
        assert!(sent > 1_200, "{sent}");
        assert!(longest < 200 * MS, "{longest:?}");
    }
}

#[test]
fn what_waits_for_less_than_the_target_is_never_touched() {
    let (mut waiting, start) = (Waiting::default(), Instant::now());
    for number in 0..5_000 {
        let now = start + number * MS;
        put(&mut waiting, udp(1, number, 1_300, 0b10), now);
        if number >= 4 {
            let message = waiting.pop(ROUND_TRIP, now).expect("one");
            assert_eq!(read(&message), (1, number - 4));
        }
    }
    assert_eq!(waiting.told, Told::default());
    while waiting.pop(ROUND_TRIP, start + 5_000 * MS).is_some() {}
    waiting.trim();
    assert!(waiting.flows.is_empty());
}
