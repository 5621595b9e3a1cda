//! Loss recovery by send order and time, and a window that only persistent loss narrows.
//!
//! Not in upstream's crate. Used instead of RFC 9260's section 7 when [`TransportConfig::with_recovery`] asks for it:
//! for associations whose streams carry traffic with congestion control of its own, like the packets of a tunnel,
//! which must not be slowed a second time. What is on the wire stays RFC 9260 and RFC 3758.
//!
//! * **Loss**: as in RFC 9002 section 6.1.2 and RFC 8985: something sent later has arrived, and 9/8 of a round trip has
//!   passed. Every transmission has a number, so a retransmission that is lost too is found the same way.
//! * **Repair**: at once, as many as the window allows, as often as the stream's reliability permits. What it does
//!   not permit is abandoned; FORWARD TSN may skip what the peer has acknowledged, too, so many holes are closed in
//!   one round trip and not one hole in each.
//! * **Timer**: a probe after srtt + 4 rttvar (RFC 9002 section 6.2), which asks for news and narrows nothing. Only
//!   the third in a row does.
//! * **Window**: opens by what is acknowledged up to the configured limit. Loss by itself says nothing: those who
//!   are inside see it and slow down. Persistent loss is a circuit breaker's matter (RFC 8085 section 3.1.11 and RFC
//!   8084): where more than a quarter was lost for more than a second, the window becomes what the path delivered,
//!   and opens slowly again.
//! * **SACK**: every second packet at first, then every `packets_per_sack`, at once for a new gap.
//!
//! [`TransportConfig::with_recovery`]: crate::TransportConfig::with_recovery

use super::*;

/// How an association recovers from loss; see [`TransportConfig::with_recovery`](crate::TransportConfig::with_recovery).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoveryConfig {
    /// First retransmission of INIT and COOKIE ECHO, and of DATA before a round trip was measured.
    pub rto_initial: Duration,
    /// Shortest time after which unanswered DATA is probed for.
    pub rto_min: Duration,
    /// Longest: how soon after an outage it is noticed that it is over.
    pub rto_max: Duration,
    /// Longest time for which a SACK is held back.
    pub sack_delay: Duration,
    /// Packets with DATA until a SACK is sent, once the association has warmed up.
    pub packets_per_sack: u32,
    /// Most bytes that may be on the way, whatever the peer would take.
    pub window_max: u32,
}

impl Default for RecoveryConfig {
    fn default() -> Self {
        Self {
            rto_initial: Duration::from_millis(500),
            rto_min: Duration::from_millis(50),
            rto_max: Duration::from_millis(500),
            sack_delay: Duration::from_millis(10),
            packets_per_sack: 8,
            window_max: 64 << 20,
        }
    }
}

/// Packets in the window at the start, and the least that the breaker leaves.
const INITIAL_PACKETS: u32 = 32;
/// Packets in the window while the path is silent: so many are sent blindly in each `rto_max`.
const SILENT_PACKETS: u32 = 10;
/// The breaker looks at intervals of this length, or of four round trips if that is longer.
const INTERVAL: Duration = Duration::from_millis(500);
/// Intervals in a row that must be bad before it acts.
const BAD_INTERVALS: u32 = 3;
/// Fewer packets than this in an interval say nothing.
const INTERVAL_PACKETS: u32 = 50;
/// Packets that are acknowledged in pairs, at the beginning.
const WARM_UP: u64 = 200;
/// TSNs that are looked at beyond the last gap for DATA that is older than what arrived.
const LOOK_BEYOND: usize = 64;
/// Timers are not finer than this.
const GRANULARITY: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Copy)]
struct Sent {
    at: Instant,
    /// Number of the transmission; 0 for what never was sent.
    order: u64,
    bytes: u32,
    state: SentState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SentState {
    Flying,
    /// Said to be lost; waits to be sent again, or was abandoned.
    Lost,
    Arrived,
}

#[derive(Debug)]
pub(crate) struct Recovery {
    pub(crate) config: RecoveryConfig,
    mtu: u32,
    /// One entry for each TSN above the cumulative one.
    sent: VecDeque<Sent>,
    /// Gap blocks of the last SACK as TSNs, both ends included.
    gaps: Vec<(u32, u32)>,
    to_resend: VecDeque<u32>,
    order: u64,
    flying: usize,
    /// Of the transmission that was sent last among those that arrived.
    arrived_order: u64,
    srtt: Option<Duration>,
    rttvar: Duration,
    latest_rtt: Duration,
    min_rtt: Duration,
    probes: u32,
    probe_due: bool,
    window: u32,
    limited: bool,
    interval: Interval,
    bad_intervals: u32,
    /// Whose loss was not yet told to the peer: the point that the last FORWARD TSN said, and when.
    forwarded: Option<(u32, Instant)>,
    // As a receiver.
    packets: u64,
    unsacked: u32,
    highest_seen: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Interval {
    since: Option<Instant>,
    lost: u32,
    arrived: u32,
    arrived_bytes: u64,
}

impl Recovery {
    pub(crate) fn new(config: RecoveryConfig, mtu: u32) -> Self {
        Self {
            config,
            mtu,
            sent: VecDeque::new(),
            gaps: Vec::new(),
            to_resend: VecDeque::new(),
            order: 0,
            flying: 0,
            arrived_order: 0,
            srtt: None,
            rttvar: Duration::ZERO,
            latest_rtt: Duration::ZERO,
            min_rtt: Duration::MAX,
            probes: 0,
            probe_due: false,
            window: INITIAL_PACKETS * mtu,
            limited: false,
            interval: Interval::default(),
            bad_intervals: 0,
            forwarded: None,
            packets: 0,
            unsacked: 0,
            highest_seen: None,
        }
    }

    pub(crate) fn srtt(&self) -> Option<Duration> {
        self.srtt
    }

    /// Whether `bytes` more may be sent.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.flying == 0 || self.flying + bytes <= self.window as usize
    }

    /// The bytes of DATA on the way, and how many may be.
    pub(crate) fn flight(&self) -> (usize, usize) {
        (self.flying, self.window as usize)
    }

    /// DATA that goes out for the first time; TSNs come in order.
    pub(crate) fn on_sent(&mut self, bytes: usize, now: Instant) {
        self.order += 1;
        self.flying += bytes;
        self.sent.push_back(Sent {
            at: now,
            order: self.order,
            bytes: bytes as u32,
            state: SentState::Flying,
        });
    }

    /// A TSN that stands for DATA which was given up before it was sent.
    pub(crate) fn on_skipped(&mut self, now: Instant) {
        self.sent.push_back(Sent {
            at: now,
            order: 0,
            bytes: 0,
            state: SentState::Lost,
        });
    }

    fn on_rtt(&mut self, rtt: Duration) {
        self.latest_rtt = rtt;
        self.min_rtt = self.min_rtt.min(rtt);
        match self.srtt {
            None => {
                self.srtt = Some(rtt);
                self.rttvar = rtt / 2;
            }
            Some(srtt) => {
                self.rttvar = (self.rttvar * 3 + srtt.abs_diff(rtt)) / 4;
                self.srtt = Some((srtt * 7 + rtt) / 8);
            }
        }
    }

    fn probe_timeout(&self) -> Duration {
        let base = match self.srtt {
            Some(srtt) => (srtt + (self.rttvar * 4).max(GRANULARITY) + self.config.sack_delay)
                .max(self.config.rto_min),
            None => self.config.rto_initial,
        };
        (base * (1 << self.probes.min(10))).min(self.config.rto_max)
    }

    fn loss_delay(&self) -> Duration {
        let rtt = self.srtt.unwrap_or_default().max(self.latest_rtt);
        (rtt + rtt / 8).max(rtt + GRANULARITY)
    }

    /// Something arrived: the window opens, and the breaker counts.
    fn on_arrived(&mut self, packets: u32, bytes: usize, now: Instant) {
        self.probes = 0;
        self.interval.arrived += packets;
        self.interval.arrived_bytes += bytes as u64;
        if !self.limited {
            self.window = self
                .window
                .saturating_add(bytes as u32)
                .min(self.config.window_max);
        }
        let since = *self.interval.since.get_or_insert(now);
        let srtt = self.srtt.unwrap_or_default();
        let passed = now.duration_since(since);
        if passed < INTERVAL.max(srtt * 4) {
            return;
        }
        let seen = std::mem::take(&mut self.interval);
        self.interval.since = Some(now);
        let sent = seen.lost + seen.arrived;
        if sent < INTERVAL_PACKETS {
            return;
        }
        if seen.lost * 4 > sent {
            self.bad_intervals += 1;
            if self.limited || self.bad_intervals >= BAD_INTERVALS {
                self.limited = true;
                let rtt = srtt.min(self.min_rtt * 2);
                let delivered =
                    seen.arrived_bytes as f64 * rtt.as_secs_f64() / passed.as_secs_f64();
                self.window = (delivered as u32).max(INITIAL_PACKETS * self.mtu);
            }
            return;
        }
        self.bad_intervals = 0;
        // Between a tenth and a quarter it stays as it is: a path may lose that by itself.
        if self.limited && seen.lost * 10 < sent {
            self.window = (self.window + self.window / 4).min(self.config.window_max);
            self.limited = self.window < self.config.window_max;
        }
    }

    /// Counts a packet with DATA; whether it is answered at once.
    pub(crate) fn wants_sack(&mut self) -> bool {
        self.packets += 1;
        self.unsacked += 1;
        let every = if self.packets < WARM_UP {
            2
        } else {
            self.config.packets_per_sack
        };
        self.unsacked >= every
    }

    /// Whether `tsn` shows a gap that was not known: neither the next of those seen, nor one from before.
    pub(crate) fn opens_gap(&mut self, tsn: u32, cumulative: u32) -> bool {
        let highest = self
            .highest_seen
            .filter(|h| sna32gt(*h, cumulative))
            .unwrap_or(cumulative);
        if sna32gt(tsn, highest) {
            self.highest_seen = Some(tsn);
            tsn != highest.wrapping_add(1)
        } else {
            false
        }
    }

    /// The SACK's timer fired: a peer that sent several packets and waits has a small window, and is answered in pairs
    /// again.
    pub(crate) fn on_sack_late(&mut self) {
        if self.unsacked > 1 {
            self.packets = 0;
        }
    }

    pub(crate) fn on_sack_sent(&mut self) {
        self.unsacked = 0;
    }
}

#[derive(Default)]
struct Arrivals {
    packets: u32,
    bytes: usize,
    /// Transmission number, send time and whether it was the only transmission, of the newest.
    newest: Option<(u64, Instant, bool)>,
    released: Vec<(u16, i64)>,
}

impl Arrivals {
    /// Counts DATA that is acknowledged for the first time; `current`: its stream is still there.
    fn take(
        &mut self,
        recovery: &mut Recovery,
        sent: Sent,
        chunk: &ChunkPayloadData,
        payload: usize,
        current: bool,
    ) {
        if sent.order == 0 {
            return; // never sent
        }
        if sent.state == SentState::Flying {
            recovery.flying -= sent.bytes as usize;
        }
        // An acknowledgment that FORWARD TSN asked for is no arrival.
        if !chunk.abandoned() {
            self.packets += 1;
            self.bytes += sent.bytes as usize;
            if self.newest.is_none_or(|(order, ..)| order < sent.order) {
                self.newest = Some((sent.order, sent.at, chunk.nsent == 1));
            }
        }
        if payload > 0 && current {
            let stream = chunk.stream_identifier;
            match self.released.iter_mut().find(|(id, _)| *id == stream) {
                Some((_, bytes)) => *bytes += payload as i64,
                None => self.released.push((stream, payload as i64)),
            }
        }
    }
}

impl Association {
    /// RFC 9260 section 6.2.1, with the loss detection described in this module.
    pub(super) fn handle_sack_with_recovery(
        &mut self,
        d: &ChunkSelectiveAck,
        now: Instant,
    ) -> Result<Vec<Packet>> {
        let state = self.state();
        if !matches!(
            state,
            AssociationState::Established
                | AssociationState::ShutdownPending
                | AssociationState::ShutdownReceived
        ) {
            return Ok(vec![]);
        }
        self.stats.inc_sacks();
        let Some(mut recovery) = self.recovery.take() else {
            return Ok(vec![]);
        };
        let handled = self.take_sack(&mut recovery, d, now);
        self.recovery = Some(recovery);
        let advanced = handled?;
        self.postprocess_sack(state, advanced, now);
        self.arm_probe(now);
        Ok(vec![])
    }

    fn take_sack(
        &mut self,
        recovery: &mut Recovery,
        d: &ChunkSelectiveAck,
        now: Instant,
    ) -> Result<bool> {
        let cumulative = d.cumulative_tsn_ack;
        if sna32gt(self.cumulative_tsn_ack_point, cumulative) {
            return Ok(false); // an old one that was overtaken
        }
        if sna32gte(cumulative, self.my_next_tsn) {
            return Err(Error::ErrInflightQueueTsnPop);
        }
        let mut arrivals = Arrivals::default();
        let mut tsn = self.cumulative_tsn_ack_point;
        let advanced = tsn != cumulative;
        while tsn != cumulative {
            tsn = tsn.wrapping_add(1);
            let (Some(sent), Some(mut chunk)) =
                (recovery.sent.pop_front(), self.inflight_queue.pop(tsn))
            else {
                return Err(Error::ErrInflightQueueTsnPop);
            };
            if sent.state != SentState::Arrived {
                let payload = chunk.user_data.len();
                chunk.acknowledge();
                let current = self.is_current_stream_data(&chunk);
                arrivals.take(recovery, sent, &chunk, payload, current);
            }
        }
        self.cumulative_tsn_ack_point = cumulative;
        self.take_gaps(recovery, &mut arrivals, d)?;

        if let Some((order, at, only)) = arrivals.newest {
            let rtt = now.saturating_duration_since(at);
            // Of a retransmission it cannot be told whether the first one was only late (Karn's algorithm).
            if only {
                recovery.on_rtt(rtt);
            }
            if only || rtt >= recovery.min_rtt {
                recovery.arrived_order = recovery.arrived_order.max(order);
            }
        }
        if arrivals.packets > 0 {
            recovery.on_arrived(arrivals.packets, arrivals.bytes, now);
            self.timers.reset_retrans(Timer::T3RTX);
            self.timers.set(Timer::T3RTX, None);
        }
        let released: FxHashMap<u16, i64> = arrivals.released.iter().copied().collect();
        self.release_stream_buffers(&released);

        let outstanding = self.inflight_queue.get_num_bytes() as u32;
        self.rwnd = d
            .advertised_receiver_window_credit
            .saturating_sub(outstanding);

        self.find_lost(recovery, now)?;
        self.forward_abandoned(recovery, now);
        if self.inflight_queue.is_empty() {
            self.timers.stop(Timer::T3RTX);
        }
        Ok(advanced)
    }

    /// The gap blocks of a SACK: only what the one before did not say is looked at.
    fn take_gaps(
        &mut self,
        recovery: &mut Recovery,
        arrivals: &mut Arrivals,
        d: &ChunkSelectiveAck,
    ) -> Result<()> {
        let cumulative = d.cumulative_tsn_ack;
        let known = std::mem::take(&mut recovery.gaps);
        let mut known_at = known.partition_point(|(_, end)| sna32lte(*end, cumulative));
        let mut last_end = 0;
        for block in &d.gap_ack_blocks {
            // In order and apart from each other, or it is nothing that can be understood.
            if block.start <= last_end || block.end < block.start {
                break;
            }
            last_end = block.end;
            let first = cumulative.wrapping_add(u32::from(block.start));
            let last = cumulative.wrapping_add(u32::from(block.end));
            if sna32gte(last, self.my_next_tsn) {
                return Err(Error::ErrTsnRequestNotExist);
            }
            recovery.gaps.push((first, last));
            let mut tsn = first;
            while sna32lte(tsn, last) {
                while known_at < known.len() && sna32lt(known[known_at].1, tsn) {
                    known_at += 1;
                }
                if let Some((start, end)) = known.get(known_at)
                    && sna32lte(*start, tsn)
                {
                    tsn = end.wrapping_add(1);
                    continue;
                }
                let index = tsn.wrapping_sub(cumulative).wrapping_sub(1) as usize;
                let Some(sent) = recovery.sent.get_mut(index) else {
                    return Err(Error::ErrTsnRequestNotExist);
                };
                if sent.state != SentState::Arrived {
                    let was = *sent;
                    sent.state = SentState::Arrived;
                    self.inflight_queue.acknowledge(tsn);
                    let payload = self.inflight_queue.release_payload(tsn);
                    let Some(chunk) = self.inflight_queue.get(tsn) else {
                        return Err(Error::ErrTsnRequestNotExist);
                    };
                    let current = self.is_current_stream_data(chunk);
                    arrivals.take(recovery, was, chunk, payload, current);
                }
                tsn = tsn.wrapping_add(1);
            }
        }
        Ok(())
    }

    /// Looks at what is missing between what arrived: what was sent long enough before is lost.
    fn find_lost(&mut self, recovery: &mut Recovery, now: Instant) -> Result<()> {
        let delay = recovery.loss_delay();
        let base = self.cumulative_tsn_ack_point.wrapping_add(1);
        let mut lost = Vec::new();
        let mut next: Option<Instant> = None;
        let mut look = |recovery: &mut Recovery, from: usize, to: usize| -> bool {
            for index in from..to {
                let Some(sent) = recovery.sent.get_mut(index) else {
                    return false;
                };
                if sent.state != SentState::Flying || sent.order >= recovery.arrived_order {
                    continue;
                }
                let due = sent.at + delay;
                if due <= now {
                    sent.state = SentState::Lost;
                    lost.push((base.wrapping_add(index as u32), sent.bytes));
                } else {
                    next = Some(next.map_or(due, |next| next.min(due)));
                }
            }
            true
        };
        let mut from = 0;
        let gaps = std::mem::take(&mut recovery.gaps);
        for (first, last) in &gaps {
            let to = first.wrapping_sub(base) as usize;
            if !look(recovery, from, to) {
                break;
            }
            from = last.wrapping_sub(base) as usize + 1;
        }
        // Beyond the last gap only what was sent before a retransmission that arrived can be late.
        let end = recovery.sent.len().min(from + LOOK_BEYOND);
        look(recovery, from, end);
        recovery.gaps = gaps;
        for (tsn, bytes) in lost {
            recovery.flying -= bytes as usize;
            recovery.interval.lost += 1;
            self.on_lost(recovery, tsn, now)?;
        }
        self.timers.set(Timer::Loss, next);
        Ok(())
    }

    /// Gives DATA up, or puts it where it is sent from again.
    fn on_lost(&mut self, recovery: &mut Recovery, tsn: u32, now: Instant) -> Result<()> {
        let Some(chunk) = self.inflight_queue.get(tsn) else {
            return Ok(());
        };
        if chunk.abandoned() {
            return Ok(());
        }
        // Abandoning numbers the tail that was not sent.
        let next_tsn = self.my_next_tsn;
        let abandoned = self.abandon_retransmit_candidate(tsn, now)?;
        for _ in 0..self.my_next_tsn.wrapping_sub(next_tsn) {
            recovery.on_skipped(now);
        }
        if !abandoned {
            recovery.to_resend.push_back(tsn);
        }
        Ok(())
    }

    /// FORWARD TSN, when there is something new to skip, or the last one was not heeded.
    fn forward_abandoned(&mut self, recovery: &mut Recovery, now: Instant) {
        if !self.use_forward_tsn {
            return;
        }
        if sna32lt(
            self.advanced_peer_tsn_ack_point,
            self.cumulative_tsn_ack_point,
        ) {
            self.advanced_peer_tsn_ack_point = self.cumulative_tsn_ack_point;
            self.fwd_tsn_stream_map.clear();
        }
        self.advance_peer_ack_point();
        self.will_send_forward_tsn = false;
        let point = self.advanced_peer_tsn_ack_point;
        if sna32lte(point, self.cumulative_tsn_ack_point) {
            recovery.forwarded = None;
            return;
        }
        let wait =
            recovery.srtt.unwrap_or(recovery.config.rto_initial) + recovery.config.sack_delay;
        let again = recovery
            .forwarded
            .is_none_or(|(said, at)| said != point || now >= at + wait);
        if again {
            recovery.forwarded = Some((point, now));
            self.will_send_forward_tsn = true;
        }
    }

    pub(super) fn on_loss_timeout(&mut self, now: Instant) {
        let Some(mut recovery) = self.recovery.take() else {
            return;
        };
        let found = self.find_lost(&mut recovery, now);
        self.forward_abandoned(&mut recovery, now);
        self.recovery = Some(recovery);
        if let Err(err) = found {
            self.fail_message_queue(err);
        }
    }

    /// Nothing was heard for long: asks for news with the oldest DATA that may be sent again, or with FORWARD TSN.
    pub(super) fn on_probe_timeout(&mut self, now: Instant) {
        let Some(mut recovery) = self.recovery.take() else {
            return;
        };
        self.stats.inc_t3timeouts();
        recovery.probes += 1;
        let silent = recovery.probes >= 3;
        if silent {
            recovery.window = SILENT_PACKETS * recovery.mtu;
            recovery.limited = false;
        }
        let base = self.cumulative_tsn_ack_point.wrapping_add(1);
        let wait = recovery.srtt.unwrap_or(recovery.config.rto_initial);
        let mut result = Ok(());
        let mut found = false;
        for index in 0..recovery.sent.len() {
            let sent = &mut recovery.sent[index];
            let tsn = base.wrapping_add(index as u32);
            if sent.state == SentState::Arrived {
                continue;
            }
            if sent.state == SentState::Lost {
                found |= recovery.to_resend.contains(&tsn);
                continue;
            }
            let chunk = self.inflight_queue.get(tsn);
            let gives_up = chunk.is_some_and(|c| {
                !c.abandoned() && self.retransmission_policy_exhausted(c, now, true)
            });
            let old = now.saturating_duration_since(sent.at) >= wait;
            // The first probe sends one packet; what may not be sent again is given up as it gets old.
            if (gives_up && old) || (!gives_up && (!found || silent)) {
                found |= !gives_up;
                sent.state = SentState::Lost;
                recovery.flying -= sent.bytes as usize;
                recovery.interval.lost += 1;
                result = self.on_lost(&mut recovery, tsn, now);
                if result.is_err() {
                    break;
                }
            }
        }
        recovery.probe_due = true;
        recovery.forwarded = None;
        self.forward_abandoned(&mut recovery, now);
        self.recovery = Some(recovery);
        match result {
            Ok(()) => self.arm_probe(now),
            Err(err) => self.fail_message_queue(err),
        }
    }

    /// Starts T3 for what is on the way, if it is not running.
    pub(super) fn arm_probe(&mut self, now: Instant) {
        let Some(recovery) = &self.recovery else {
            return;
        };
        let waits = sna32gt(
            self.advanced_peer_tsn_ack_point,
            self.cumulative_tsn_ack_point,
        );
        if (recovery.flying > 0 || !recovery.to_resend.is_empty() || waits)
            && self.timers.get(Timer::T3RTX).is_none()
        {
            self.timers
                .set(Timer::T3RTX, Some(now + recovery.probe_timeout()));
        }
    }

    /// DATA that was lost and may be sent again, as far as the window allows; one packet more when a probe is due.
    pub(super) fn gather_lost_data_packets(&mut self, raw_packets: &mut Vec<Bytes>, now: Instant) {
        let Some(mut recovery) = self.recovery.take() else {
            return;
        };
        let mut chunks = Vec::new();
        while let Some(&tsn) = recovery.to_resend.front() {
            let index = tsn
                .wrapping_sub(self.cumulative_tsn_ack_point)
                .wrapping_sub(1) as usize;
            let lost = recovery
                .sent
                .get_mut(index)
                .filter(|sent| sent.state == SentState::Lost);
            let chunk = self
                .inflight_queue
                .get_mut(tsn)
                .filter(|chunk| chunk.is_outstanding());
            let (Some(sent), Some(chunk)) = (lost, chunk) else {
                recovery.to_resend.pop_front();
                continue;
            };
            let bytes = sent.bytes as usize;
            let has_room =
                recovery.flying == 0 || recovery.flying + bytes <= recovery.window as usize;
            if !has_room && !(recovery.probe_due && chunks.is_empty()) {
                break;
            }
            recovery.order += 1;
            sent.order = recovery.order;
            sent.at = now;
            sent.state = SentState::Flying;
            recovery.flying += bytes;
            recovery.to_resend.pop_front();
            chunk.nsent += 1;
            self.stats.inc_fast_retrans();
            chunks.push(chunk.clone());
        }
        recovery.probe_due = false;
        self.recovery = Some(recovery);
        if !chunks.is_empty() {
            self.bundle_data_chunks_into_packets(chunks, raw_packets);
            self.arm_probe(now);
        }
    }
}
