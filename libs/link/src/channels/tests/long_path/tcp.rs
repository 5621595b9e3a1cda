//! A model of a kernel's TCP: a bulk sender with selective acknowledgments, RACK, and CUBIC or BBR. Rough, but the same
//! with a tunnel and without: only the share counts. Windows and rates are in segments.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    Cubic,
    Bbr,
}

const INITIAL: f64 = 10.0;

/// What the receiver says: all below `next` is there, and these above it.
#[derive(Clone, Debug)]
pub(super) struct Ack {
    pub(super) next: u32,
    pub(super) also: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Duration,
    order: u64,
    delivered_then: u64,
    delivered_at: Duration,
    times: u32,
    lost: bool,
    arrived: bool,
}

pub(super) struct Sender {
    control: Control,
    first: u32,
    segments: VecDeque<Sent>,
    retransmit: BTreeSet<u32>,
    order: u64,
    highest_order: u64,
    highest_at: Duration,
    flight: usize,
    cwnd: f64,
    // RFC 6298 and RACK
    srtt: Option<Duration>,
    rttvar: Duration,
    min_rtt: Duration,
    reorder_steps: u32,
    reordering: bool,
    backoff: u32,
    timer: Option<Duration>,
    // CUBIC
    ssthresh: f64,
    recover: u64,
    w_max: f64,
    epoch: Option<Duration>,
    prior: f64,
    prior_ssthresh: f64,
    // BBR
    delivered: u64,
    delivered_at: Duration,
    rates: VecDeque<(u64, f64)>,
    round: u64,
    round_end: u64,
    full: f64,
    full_rounds: u32,
    phase: Phase,
    cycle: (usize, Duration),
    next_send: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Startup,
    Drain,
    Probe,
}

impl Sender {
    pub(super) fn new(control: Control) -> Self {
        Self {
            control,
            first: 0,
            segments: VecDeque::new(),
            retransmit: BTreeSet::new(),
            order: 0,
            highest_order: 0,
            highest_at: Duration::ZERO,
            flight: 0,
            cwnd: INITIAL,
            srtt: None,
            rttvar: Duration::ZERO,
            min_rtt: Duration::MAX,
            reorder_steps: 1,
            reordering: false,
            backoff: 0,
            timer: None,
            ssthresh: f64::MAX,
            recover: 0,
            w_max: 0.0,
            epoch: None,
            prior: 0.0,
            prior_ssthresh: 0.0,
            delivered: 0,
            delivered_at: Duration::ZERO,
            rates: VecDeque::new(),
            round: 0,
            round_end: 0,
            full: 0.0,
            full_rounds: 0,
            phase: Phase::Startup,
            cycle: (0, Duration::ZERO),
            next_send: Duration::ZERO,
        }
    }

    fn rto(&self) -> Duration {
        let base = self.srtt.map_or(Duration::from_secs(1), |srtt| {
            srtt + (self.rttvar * 4).max(Duration::from_millis(200))
        });
        base * (1 << self.backoff.min(6))
    }

    fn rate(&self) -> f64 {
        self.rates.iter().map(|r| r.1).fold(0.0, f64::max)
    }

    fn pacing_gain(&self) -> f64 {
        match self.phase {
            Phase::Startup => 2.77,
            Phase::Drain => 0.36,
            Phase::Probe => [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0][self.cycle.0],
        }
    }

    fn window(&self) -> f64 {
        match self.control {
            Control::Cubic => self.cwnd,
            Control::Bbr => {
                let rate = self.rate();
                if rate == 0.0 || self.min_rtt == Duration::MAX {
                    return INITIAL;
                }
                let bdp = rate * self.min_rtt.as_secs_f64();
                let gain = if self.phase == Phase::Startup {
                    2.77
                } else {
                    2.0
                };
                (bdp * gain).max(INITIAL)
            }
        }
    }

    /// The next segment to send, if any may be now.
    pub(super) fn poll_send(&mut self, now: Duration) -> Option<u32> {
        if self.flight as f64 >= self.window() {
            return None;
        }
        if self.control == Control::Bbr && now < self.next_send {
            return None;
        }
        let id = match self.retransmit.pop_first() {
            Some(id) => id,
            None => {
                let id = self.first.wrapping_add(self.segments.len() as u32);
                self.segments.push_back(Sent {
                    at: now,
                    order: 0,
                    delivered_then: 0,
                    delivered_at: now,
                    times: 0,
                    lost: false,
                    arrived: false,
                });
                id
            }
        };
        self.order += 1;
        if self.flight == 0 {
            self.delivered_at = now;
        }
        self.flight += 1;
        let sent = &mut self.segments[(id - self.first) as usize];
        sent.at = now;
        sent.order = self.order;
        sent.delivered_then = self.delivered;
        sent.delivered_at = self.delivered_at;
        sent.times += 1;
        sent.lost = false;
        if self.control == Control::Bbr {
            let rate = self.rate();
            if rate > 0.0 {
                let gap = Duration::from_secs_f64(1.0 / (rate * self.pacing_gain()));
                // A qdisc sends a few at once rather than wake for each.
                self.next_send = self
                    .next_send
                    .max(now.saturating_sub(Duration::from_millis(1)))
                    + gap;
            }
        }
        if self.timer.is_none() {
            self.timer = Some(now + self.rto());
        }
        Some(id)
    }

    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        let pacing = (self.control == Control::Bbr && (self.flight as f64) < self.window())
            .then_some(self.next_send);
        [self.timer, pacing].into_iter().flatten().min()
    }

    pub(super) fn handle_timeout(&mut self, now: Duration) {
        if self.timer.is_none_or(|due| due > now) {
            return;
        }
        self.backoff += 1;
        self.timer = Some(now + self.rto());
        for (index, sent) in self.segments.iter_mut().enumerate() {
            if !sent.arrived && !sent.lost {
                sent.lost = true;
                self.flight -= 1;
                self.retransmit.insert(self.first + index as u32);
            }
        }
        if self.control == Control::Cubic {
            self.ssthresh = (self.cwnd * 0.7).max(2.0);
            self.w_max = self.cwnd;
            self.cwnd = 1.0;
            self.epoch = None;
            self.recover = self.order;
        }
    }

    pub(super) fn handle_ack(&mut self, ack: &Ack, now: Duration) {
        let mut newly = Vec::new();
        while self.first < ack.next && !self.segments.is_empty() {
            let sent = self.segments.pop_front().expect("not empty");
            let id = self.first;
            self.first += 1;
            if !sent.arrived {
                newly.push((id, sent));
            }
        }
        for &id in &ack.also {
            if id >= self.first
                && let Some(sent) = self.segments.get_mut((id - self.first) as usize)
                && !sent.arrived
            {
                sent.arrived = true;
                newly.push((id, *sent));
            }
        }
        if newly.is_empty() {
            return;
        }
        self.backoff = 0;
        self.timer = None;
        let mut sample: Option<Sent> = None;
        let mut acked = 0_u64;
        for (id, sent) in &newly {
            acked += 1;
            if sent.lost {
                // Said to be lost, but here: it was only late.
                self.retransmit.remove(id);
                self.spurious();
            } else {
                self.flight -= 1;
                let rtt = now - sent.at;
                if sent.times > 1 && rtt < self.min_rtt {
                    self.spurious();
                    continue;
                }
                if sent.times == 1 {
                    self.on_rtt(rtt);
                }
            }
            if sent.order > self.highest_order && !sent.lost {
                self.highest_order = sent.order;
                self.highest_at = sent.at;
            }
            if sample.is_none_or(|s| sent.delivered_then > s.delivered_then) {
                sample = Some(*sent);
            }
        }
        self.delivered += acked;
        self.delivered_at = now;
        self.detect(now);
        match self.control {
            Control::Cubic => self.grow(acked as f64, now),
            Control::Bbr => {
                if let Some(sample) = sample {
                    self.on_rate(&sample, now);
                }
            }
        }
        if self.flight > 0 || !self.retransmit.is_empty() {
            self.timer = Some(now + self.rto());
        }
    }

    fn spurious(&mut self) {
        self.reordering = true;
        if self.control == Control::Cubic && self.prior > self.cwnd {
            self.cwnd = self.prior;
            self.ssthresh = self.prior_ssthresh;
            self.epoch = None;
        }
        self.reorder_steps = (self.reorder_steps + 1).min(16);
    }

    fn on_rtt(&mut self, rtt: Duration) {
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

    fn detect(&mut self, now: Duration) {
        let srtt = self.srtt.unwrap_or(Duration::from_secs(1));
        let window = if self.reordering {
            (self.min_rtt / 4 * self.reorder_steps).min(srtt)
        } else {
            Duration::ZERO
        };
        let mut lost_any = false;
        let mut newest = 0;
        for (index, sent) in self.segments.iter_mut().enumerate() {
            if sent.arrived || sent.lost || sent.order >= self.highest_order {
                if sent.times == 1 && sent.order > self.highest_order {
                    break;
                }
                continue;
            }
            let by_count = !self.reordering && self.highest_order - sent.order >= 3;
            let by_time = self.reordering && now >= sent.at + srtt + window;
            if by_count || by_time {
                sent.lost = true;
                self.flight -= 1;
                self.retransmit.insert(self.first + index as u32);
                lost_any = true;
                newest = newest.max(sent.order);
            }
        }
        if lost_any && self.control == Control::Cubic && newest > self.recover {
            self.recover = self.order;
            self.prior = self.cwnd;
            self.prior_ssthresh = self.ssthresh;
            self.w_max = if self.cwnd < self.w_max {
                self.cwnd * 0.85
            } else {
                self.cwnd
            };
            self.cwnd = (self.cwnd * 0.7).max(2.0);
            self.ssthresh = self.cwnd;
            self.epoch = None;
        }
    }

    fn grow(&mut self, acked: f64, now: Duration) {
        if (self.flight as f64) + acked + 3.0 < self.cwnd * 0.8 {
            return; // not what limits
        }
        if self.cwnd < self.ssthresh {
            self.cwnd += acked;
            // HyStart: leave when the queue builds.
            if let Some(srtt) = self.srtt
                && srtt > self.min_rtt + (self.min_rtt / 8).max(Duration::from_millis(4))
            {
                self.ssthresh = self.cwnd;
            }
            return;
        }
        let epoch = *self.epoch.get_or_insert(now);
        if self.w_max < self.cwnd {
            self.w_max = self.cwnd;
        }
        let k = (self.w_max * 0.3 / 0.4).cbrt();
        let start = self.w_max * 0.7;
        let rtt = self.srtt.unwrap_or_default().as_secs_f64();
        let t = (now - epoch).as_secs_f64() + rtt;
        let cubic = 0.4 * (t - k).powi(3) + self.w_max;
        let reno = start + 0.53 * (t / rtt.max(1e-6));
        let target = cubic.max(reno).min(self.cwnd * 1.5);
        if target > self.cwnd {
            self.cwnd += (target - self.cwnd) / self.cwnd * acked;
        }
    }

    fn on_rate(&mut self, sample: &Sent, now: Duration) {
        let time = (now - sample.delivered_at)
            .max(now - sample.at)
            .max(self.min_rtt.min(now));
        let rate = (self.delivered - sample.delivered_then) as f64 / time.as_secs_f64();
        if sample.delivered_then >= self.round_end {
            self.round += 1;
            self.round_end = self.delivered;
            if self.phase == Phase::Startup {
                let best = self.rate();
                if best >= self.full * 1.25 {
                    self.full = best;
                    self.full_rounds = 0;
                } else {
                    self.full_rounds += 1;
                    if self.full_rounds >= 3 {
                        self.phase = Phase::Drain;
                    }
                }
            }
        }
        let round = self.round;
        self.rates.retain(|r| r.0 + 10 > round && r.1 > rate);
        self.rates.push_back((round, rate));
        let bdp = self.rate() * self.min_rtt.as_secs_f64();
        if self.phase == Phase::Drain && self.flight as f64 <= bdp {
            self.phase = Phase::Probe;
            self.cycle = (2, now);
        }
        if self.phase == Phase::Probe && now > self.cycle.1 + self.min_rtt {
            self.cycle = ((self.cycle.0 + 1) % 8, now);
        }
    }
}

/// The other end: says what arrived.
#[derive(Default)]
pub(super) struct Receiver {
    pub(super) next: u32,
    early: BTreeSet<u32>,
    recent: VecDeque<u32>,
    unsaid: u32,
    pub(super) due: Option<Duration>,
}

impl Receiver {
    pub(super) fn handle(&mut self, id: u32, now: Duration) -> Option<Ack> {
        self.unsaid += 1;
        if id >= self.next {
            self.early.insert(id);
        }
        while self.early.remove(&self.next) {
            self.next += 1;
        }
        self.recent.retain(|&r| r >= self.next);
        if id >= self.next {
            self.recent.push_back(id);
            if self.recent.len() > 16 {
                self.recent.pop_front();
            }
        }
        if self.unsaid >= 2 || !self.early.is_empty() {
            return Some(self.say());
        }
        self.due.get_or_insert(now + Duration::from_millis(40));
        None
    }

    pub(super) fn say(&mut self) -> Ack {
        self.unsaid = 0;
        self.due = None;
        Ack {
            next: self.next,
            also: self.recent.iter().copied().collect(),
        }
    }
}
