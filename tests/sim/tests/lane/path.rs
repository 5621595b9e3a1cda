//! A path between two links that loses, delays, repeats, forges, and changes what it takes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use link::{
    CandidateKind, Carrier, DtlsCertificate, Link, LinkConfig, LinkEvent, LinkRole, LocalCandidate,
};

use wire::ip::Packet;

use crate::expected::{Arrival, Expected};
use crate::traffic;

/// Chance, from a seed (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Of a hundred datagrams each, but for the last two.
pub(crate) struct Conditions {
    pub(crate) loss: u64,
    pub(crate) late: u64,
    pub(crate) twice: u64,
    pub(crate) forged: u64,
    /// Bytes of the longest datagram that passes.
    pub(crate) limit: usize,
    /// Whether the lane's datagrams pass at all.
    pub(crate) lane: bool,
}

impl Conditions {
    pub(crate) const fn good() -> Self {
        Self {
            loss: 0,
            late: 0,
            twice: 0,
            forged: 0,
            limit: 65_507,
            lane: true,
        }
    }
}

/// Bytes that arrive together: from where, to where, of which size each.
struct Burst {
    to: usize,
    payload: BytesMut,
    segment: usize,
}

pub(crate) struct Path {
    pub(crate) links: [Link; 2],
    pub(crate) conditions: Conditions,
    /// Which carriers each link said it uses.
    pub(crate) carriers: [Vec<Carrier>; 2],
    pub(crate) closed: [Option<String>; 2],
    seed: u64,
    now: Instant,
    random: Random,
    wire: BTreeMap<(Instant, u64), Burst>,
    number: u64,
    /// By receiver.
    expected: [Expected; 2],
    seen: Vec<Vec<u8>>,
    /// How often each side was told that the path takes no packet of that length.
    told: [u64; 2],
}

const DELAY: Duration = Duration::from_millis(10);

fn addresses() -> [SocketAddr; 2] {
    ["10.0.0.10:4000", "10.0.0.3:7000"].map(|text| text.parse().expect("an address"))
}

impl Path {
    pub(crate) fn open(seed: u64, carrier: Carrier) -> Self {
        Self::open_with(seed, [carrier; 2])
    }

    pub(crate) fn open_with(seed: u64, carriers: [Carrier; 2]) -> Self {
        let now = Instant::now();
        let roles = [LinkRole::Offerer, LinkRole::Answerer];
        let mut links = [0, 1].map(|side| {
            let config = LinkConfig {
                carrier: carriers[side],
                ..LinkConfig::default()
            };
            let certificate = DtlsCertificate::generate().expect("a certificate");
            let mut link = Link::new(roles[side], certificate, &config, now).expect("a link");
            let address = addresses()[side];
            let candidate = LocalCandidate {
                kind: CandidateKind::Host,
                address,
                base: address,
            };
            link.add_local_candidate(candidate, now)
                .expect("a candidate");
            link
        });
        let descriptions = [links[0].local_description(), links[1].local_description()];
        for (link, description) in links.iter_mut().zip(descriptions.iter().rev()) {
            link.set_remote_description(description, now)
                .expect("a description");
        }
        let mut path = Self {
            links,
            conditions: Conditions::good(),
            carriers: [Vec::new(), Vec::new()],
            closed: [None, None],
            seed,
            now,
            random: Random(seed),
            wire: BTreeMap::new(),
            number: 0,
            expected: Default::default(),
            seen: Vec::new(),
            told: [0, 0],
        };
        path.drain();
        path.run(Duration::from_secs(1));
        assert!(path.is_open(), "seed {seed}: not open: {:?}", path.closed);
        path
    }

    pub(crate) fn is_open(&self) -> bool {
        self.links.iter().all(Link::is_open)
    }

    /// Other conditions, by chance.
    pub(crate) fn change(&mut self) {
        let mut percent = |most: u64| {
            if self.random.below(2) == 0 {
                0
            } else {
                self.random.below(most)
            }
        };
        let (loss, late, twice, forged) = (percent(15), percent(30), percent(10), percent(10));
        let limit = [65_507, 1_472, 1_452, 1_440, 1_300, 1_437][self.random.below(6) as usize];
        let lane = self.random.below(5) > 0;
        self.conditions = Conditions {
            loss,
            late,
            twice,
            forged,
            limit,
            lane,
        };
    }

    /// A few frames either way.
    pub(crate) fn send_some(&mut self) {
        for from in [0, 1] {
            for _ in 0..self.random.below(4) {
                let frame = traffic::frame(&mut self.random);
                if self.links[from].send_frame(&frame, self.now).is_ok() {
                    self.expected[1 - from].send(&frame);
                }
                self.drain();
            }
        }
    }

    /// What was sent so far need not arrive any more.
    pub(crate) fn forget(&mut self) {
        self.expected.iter_mut().for_each(Expected::forget);
    }

    pub(crate) fn assert_nothing_is_missing(&self) {
        let missing: Vec<usize> = self.expected.iter().flat_map(Expected::missing).collect();
        assert!(
            missing.is_empty(),
            "seed {}: packets of {missing:?} bytes",
            self.seed
        );
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let arrival = self.wire.first_key_value().map(|((at, _), _)| *at);
            let timer = self.links.iter_mut().filter_map(Link::poll_timeout).min();
            let Some(next) = [arrival, timer]
                .into_iter()
                .flatten()
                .min()
                .filter(|next| *next <= end)
            else {
                break;
            };
            self.now = self.now.max(next);
            if arrival == Some(next) {
                let Some((_, burst)) = self.wire.pop_first() else {
                    break;
                };
                let (here, there) = (addresses()[burst.to], addresses()[1 - burst.to]);
                self.links[burst.to].handle_datagrams(
                    here,
                    there,
                    burst.payload,
                    burst.segment,
                    self.now,
                );
            } else {
                for link in &mut self.links {
                    if link.poll_timeout().is_some_and(|due| due <= self.now) {
                        link.handle_timeout(self.now);
                    }
                }
            }
            self.drain();
        }
        self.now = end;
    }

    fn drain(&mut self) {
        for side in [0, 1] {
            while let Some(event) = self.links[side].poll_event() {
                match event {
                    LinkEvent::Frame(frame) => self.on_frame(side, &frame),
                    LinkEvent::Carrier(carrier) => self.carriers[side].push(carrier),
                    LinkEvent::Closed(reason) => self.closed[side] = Some(reason.to_string()),
                    _ => {}
                }
            }
            while let Some(transmit) = self.links[side].poll_transmit() {
                self.carry(1 - side, &transmit.payload, transmit.segment);
            }
        }
    }

    fn on_frame(&mut self, side: usize, frame: &[u8]) {
        for packet in traffic::packets(frame) {
            match self.expected[side].arrive(&packet) {
                Arrival::Expected => {}
                Arrival::Unknown if is_too_big(&packet) => {
                    self.told[side] += 1;
                    assert!(
                        self.told[side] <= self.links[side].stats().too_big_told,
                        "seed {}: nobody said so",
                        self.seed
                    );
                }
                Arrival::Unknown => {
                    panic!("seed {}: a packet nobody sent: {packet:?}", self.seed)
                }
                Arrival::Twice => panic!("seed {}: a packet came twice: {packet:?}", self.seed),
            }
        }
    }

    /// Each datagram has its own fate; those that have none arrive together.
    fn carry(&mut self, to: usize, payload: &[u8], segment: usize) {
        let mut together = BytesMut::new();
        for datagram in payload.chunks(segment) {
            let chance = |random: &mut Random, percent: u64| random.below(100) < percent;
            let is_lane = (8..16).contains(&datagram[0]);
            if datagram.len() > self.conditions.limit
                || is_lane && !self.conditions.lane
                || chance(&mut self.random, self.conditions.loss)
            {
                self.push(to, DELAY, std::mem::take(&mut together), segment);
                continue;
            }
            if chance(&mut self.random, self.conditions.forged) {
                self.forge(to, datagram);
            }
            let twice = chance(&mut self.random, self.conditions.twice);
            let late = chance(&mut self.random, self.conditions.late);
            for again in [true, twice] {
                let delay = DELAY + Duration::from_micros(self.random.below(30_000));
                if again && (late || twice) {
                    self.push(to, delay, BytesMut::from(datagram), segment);
                }
            }
            if late || twice {
                self.push(to, DELAY, std::mem::take(&mut together), segment);
            } else {
                together.extend_from_slice(datagram);
            }
        }
        self.push(to, DELAY, together, segment);
    }

    /// Something that looks like `datagram`, or like one of before, and is neither.
    fn forge(&mut self, to: usize, datagram: &[u8]) {
        if self.seen.len() < 64 {
            self.seen.push(datagram.to_vec());
        }
        let which = self.random.below(self.seen.len() as u64) as usize;
        let mut forged = BytesMut::from(&self.seen[which][..]);
        if self.random.below(3) > 0 {
            let at = self.random.below(forged.len() as u64) as usize;
            forged[at] ^= 1 << self.random.below(8);
        }
        let delay = Duration::from_micros(self.random.below(40_000));
        let segment = forged.len();
        self.push(to, delay, forged, segment);
    }

    fn push(&mut self, to: usize, delay: Duration, payload: BytesMut, segment: usize) {
        if !payload.is_empty() {
            self.number += 1;
            self.wire.insert(
                (self.now + delay, self.number),
                Burst {
                    to,
                    payload,
                    segment,
                },
            );
        }
    }
}

/// "Fragmentation needed" or "packet too big", about a packet of who is told to who is said to tell.
fn is_too_big(packet: &[u8]) -> bool {
    let Ok(packet) = Packet::parse(packet) else {
        return false;
    };
    let about = packet.embedded();
    matches!(packet.icmp(), Some((3, 4) | (2, 0)))
        && about.is_some_and(|about| {
            about.source == packet.destination() && about.destination == packet.source()
        })
}
