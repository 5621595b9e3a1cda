//! What goes wrong, when, and in which order: drawn from a seed, with traffic all the time.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use crate::model::{ANSWER, HEAL, Harm, Model, Truth};
use crate::packet::Transport;
use crate::picture::{Extent, ORDERS, STOCK};
use crate::random::Random;
use crate::tables::Tables;
use crate::timeline::Conditions;
use crate::world::World;

/// Two packets of the workload are at most this far apart.
const PACE: Duration = Duration::from_millis(400);
/// The same while discovery is away for long.
const SLOW_PACE: Duration = Duration::from_secs(8);
/// Events of a course.
const EVENTS: u64 = 12;
/// More than so many things are not broken at once.
const MOST_BROKEN: usize = 4;
/// An idle link ends after this.
const IDLE: Duration = Duration::from_secs(30);
/// Until all that ends by time has: channels last ten minutes, and are swept away after.
const REST: Duration = Duration::from_secs(16 * 60);
/// Every so manieth seed waits for that.
const WHOLLY: u64 = 5;
/// Names that workloads ask for, and how they are spread over the pool.
const NAMES: u64 = 40;

/// Something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    RelayKilled(usize),
    RelayDrains(usize),
    RelayStarts(usize),
    ActivatorKilled(usize),
    ActivatorStops(usize),
    ActivatorStarts(usize),
    CableCut,
    CableMended,
    UdpBlocked,
    UdpOpen,
    DiscoveryLeaves,
    DiscoveryReturns,
    NatForgets,
    SidecarMoves,
    SidecarRestarts,
    Weather(Weather),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    Calm,
    Slow,
    Rough,
    Dead,
}

impl Weather {
    const fn conditions(self) -> Conditions {
        match self {
            Self::Calm => Conditions::CALM,
            Self::Slow => Conditions {
                latency: Duration::from_millis(60),
                jitter: Duration::from_millis(15),
                ..Conditions::CALM
            },
            Self::Rough => Conditions::ROUGH,
            Self::Dead => Conditions::DEAD,
        }
    }
}

impl Event {
    /// What it takes away that may be in use.
    const fn harm(self) -> Harm {
        match self {
            Self::RelayStarts(_)
            | Self::ActivatorStarts(_)
            | Self::RelayDrains(_)
            | Self::CableMended
            | Self::UdpOpen
            | Self::DiscoveryLeaves
            | Self::DiscoveryReturns => Harm::None,
            Self::RelayKilled(_)
            | Self::ActivatorKilled(_)
            | Self::ActivatorStops(_)
            | Self::SidecarMoves
            | Self::SidecarRestarts => Harm::One(Duration::from_secs(2)),
            Self::UdpBlocked | Self::NatForgets => Harm::One(Duration::from_secs(3)),
            // Where UDP is blocked, too, the link may end first, after 4 s.
            Self::CableCut => Harm::One(Duration::from_secs(5)),
            Self::Weather(_) => Harm::All,
        }
    }
}

/// One course. When it panics, it says its seed and what happened.
pub struct Course {
    seed: u64,
    random: Random,
    world: World,
    model: Model,
    weather: Weather,
    draining: [bool; 2],
    /// Nothing else has happened since a relay began to drain, and the other one was there.
    in_peace: bool,
    sidecar_port: u16,
    names: crate::names::Names,
    /// What happened, and when.
    timeline: Vec<(Duration, String)>,
}

impl fmt::Debug for Course {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        for (at, what) in &self.timeline {
            writeln!(f, "{:10.3} s  {what}", at.as_secs_f64())?;
        }
        writeln!(f, "{:10.3} s  now", self.world.elapsed().as_secs_f64())
    }
}

impl Drop for Course {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let recent = self.world.notices.len().saturating_sub(12);
            let notices = &self.world.notices[recent..];
            eprintln!("{self:?}the sidecar's last words: {notices:#?}");
        }
    }
}

/// Which seeds to run: `TURNPIKE_SEED` for one, `TURNPIKE_SEEDS` for so many or for a range as `2001-3000`.
///
/// # Panics
/// When these are no numbers.
#[must_use]
pub fn seeds(by_default: u64) -> std::ops::RangeInclusive<u64> {
    let number = |text: &str| text.parse::<u64>().expect("a number of a seed");
    if let Ok(seed) = std::env::var("TURNPIKE_SEED") {
        return number(&seed)..=number(&seed);
    }
    match std::env::var("TURNPIKE_SEEDS") {
        Ok(text) => match text.split_once('-') {
            Some((first, last)) => number(first)..=number(last),
            None => 1..=number(&text),
        },
        Err(_) => 1..=by_default,
    }
}

impl Course {
    /// Runs the course of a seed to its end; how many packets were due.
    ///
    /// # Panics
    /// When the workload saw what it must not, or did not see what it must.
    pub fn run(seed: u64) -> u64 {
        let mut course = Self::new(seed);
        for _ in 0..EVENTS {
            let pause = course.pause();
            course.traffic(pause, PACE);
            let event = course.draw();
            course.happen(event);
            if event == Event::DiscoveryLeaves && course.random.percent(10) {
                course.traffic(Duration::from_secs(3_600), SLOW_PACE);
            }
        }
        course.mend_all();
        course.traffic(HEAL + 2 * ANSWER, PACE);
        let due = course.model.due;
        course.rest();
        due
    }

    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let world = World::with(random.next(), IDLE, Extent::LARGE).settled();
        let truth = Truth {
            way: true,
            old_way: true,
            discovery: true,
            lossy: false,
        };
        let model = Model::new(truth, world.now());
        Self {
            seed,
            random,
            world,
            model,
            weather: Weather::Calm,
            draining: [false; 2],
            in_peace: false,
            sidecar_port: 4_000,
            names: crate::names::Names::new(),
            timeline: Vec::new(),
        }
    }

    /// Mostly short: what comes before the one before is healed is the hardest. Sometimes long enough for all to heal.
    fn pause(&mut self) -> Duration {
        let most = match self.random.below(10) {
            0..5 => Duration::from_secs(1),
            5..8 => Duration::from_secs(6),
            _ => return HEAL + 3 * ANSWER + self.random.duration(HEAL),
        };
        self.random.duration(most)
    }

    fn traffic(&mut self, duration: Duration, pace: Duration) {
        let end = self.world.elapsed() + duration;
        while self.world.elapsed() < end {
            let (service, ipv6) =
                [(&ORDERS, false), (&ORDERS, true), (&STOCK, false)][self.random.below(3) as usize];
            let transport = match self.random.below(3) {
                0 => Transport::Echo {
                    reply: false,
                    identifier: 7,
                },
                1 => Transport::data(50_000, service.tcp),
                _ => Transport::syn(50_001, service.tcp),
            };
            let more = vec![self.seed as u8; self.random.below(1_500) as usize];
            let number = self.world.send(service, ipv6, transport, &more);
            self.model.on_sent(number, self.world.now());
            let name = self.random.below(NAMES);
            self.names.ask(name);
            let left = end - self.world.elapsed();
            let next = pace / 4 + self.random.duration(pace * 3 / 4);
            self.world.run(next.min(left));
            self.notice_ends_of_drains();
            self.check();
        }
    }

    /// A relay that drained is gone: to who is still on it, a loss. Nobody is who had the time and another one.
    fn notice_ends_of_drains(&mut self) {
        for at in 0..2 {
            if self.draining[at] && !self.world.relays[at].up {
                self.draining[at] = false;
                self.timeline
                    .push((self.world.elapsed(), format!("relay {at} has drained")));
                let truth = self.truth();
                let harm = match self.in_peace {
                    true => Harm::None,
                    false => Harm::All,
                };
                self.model.on_event(truth, harm, self.world.now());
            }
        }
    }

    fn check(&mut self) {
        let reference = &self.world.reference;
        let checked = self.model.check(
            |number| reference.is_replied(number),
            reference.last_arrival,
            self.world.now(),
        );
        if let Err(what) = checked {
            panic!("seed {}: {what}", self.seed);
        }
    }

    /// What may happen now, one of them.
    fn draw(&mut self) -> Event {
        let mends = self.mends();
        if mends.len() > MOST_BROKEN || !mends.is_empty() && self.random.percent(30) {
            return mends[self.random.below(mends.len() as u64) as usize];
        }
        let mut all = vec![
            Event::NatForgets,
            Event::SidecarMoves,
            Event::SidecarRestarts,
            Event::Weather(Weather::Slow),
            Event::Weather(Weather::Rough),
            Event::Weather(Weather::Dead),
        ];
        for at in 0..2 {
            if self.world.relays[at].up {
                all.push(Event::RelayKilled(at));
                if !self.draining[at] {
                    all.push(Event::RelayDrains(at));
                }
            }
            if self.world.gates[at].is_some() {
                all.extend([Event::ActivatorKilled(at), Event::ActivatorStops(at)]);
            }
        }
        let world = &self.world;
        all.extend(world.cable.then_some(Event::CableCut));
        all.extend((!world.nat.no_udp).then_some(Event::UdpBlocked));
        all.extend((!world.signaling.away).then_some(Event::DiscoveryLeaves));
        all[self.random.below(all.len() as u64) as usize]
    }

    /// What would mend something.
    fn mends(&self) -> Vec<Event> {
        let world = &self.world;
        let mut all = Vec::new();
        for at in 0..2 {
            if !world.relays[at].up || self.draining[at] {
                all.push(Event::RelayStarts(at));
            }
            if world.gates[at].is_none() {
                all.push(Event::ActivatorStarts(at));
            }
        }
        all.extend((!world.cable).then_some(Event::CableMended));
        all.extend(world.nat.no_udp.then_some(Event::UdpOpen));
        all.extend(world.signaling.away.then_some(Event::DiscoveryReturns));
        if self.weather != Weather::Calm {
            all.push(Event::Weather(Weather::Calm));
        }
        all
    }

    fn happen(&mut self, event: Event) {
        let at = self.world.elapsed();
        self.timeline.push((at, format!("{event:?}")));
        let mut harm = event.harm();
        let well = self.model.is_well(self.world.now()) && !self.draining.contains(&true);
        let steady = matches!(self.weather, Weather::Calm | Weather::Slow);
        self.in_peace = false;
        let world = &mut self.world;
        match event {
            Event::RelayKilled(at) => world.stop_relay_at(at),
            Event::RelayDrains(at) => {
                self.in_peace = well && steady && world.relays[1 - at].up;
                self.draining[at] = true;
                world.drain_relay_at(at);
            }
            Event::RelayStarts(at) => {
                // One that still drains is replaced.
                if world.relays[at].up {
                    harm = Harm::All;
                }
                self.draining[at] = false;
                world.start_relay_at(at);
            }
            Event::ActivatorKilled(at) => world.stop_gate_at(at),
            Event::ActivatorStops(at) => world.shut_gate_at(at),
            Event::ActivatorStarts(at) => world.start_gate_at(at),
            Event::CableCut => world.set_cable(false),
            Event::CableMended => world.set_cable(true),
            Event::UdpBlocked => world.set_udp_blocked(true),
            Event::UdpOpen => world.set_udp_blocked(false),
            Event::DiscoveryLeaves => world.stop_signaling(),
            Event::DiscoveryReturns => world.start_signaling(),
            Event::NatForgets => world.forget_nat(),
            Event::SidecarMoves => world.move_sidecar(),
            Event::SidecarRestarts => {
                self.sidecar_port += u16::from(self.random.percent(50));
                self.names.restart();
                world.restart_sidecar(self.sidecar_port);
            }
            Event::Weather(weather) => {
                // It changes under what is on its way; only what vanishes is harm.
                if weather != Weather::Dead {
                    harm = Harm::None;
                }
                self.weather = weather;
                world.conditions = weather.conditions();
            }
        }
        let truth = self.truth();
        self.model.on_event(truth, harm, self.world.now());
    }

    fn truth(&self) -> Truth {
        let world = &self.world;
        let relays = world.relays.iter().zip(self.draining);
        let relay = |old: bool| {
            let mut ways = relays.clone();
            ways.any(|(relay, draining)| relay.up && (old || !draining))
        };
        let activator = world.gates.iter().any(Option::is_some);
        let way = |relay| activator && (relay || world.cable) && self.weather != Weather::Dead;
        // TCP on a network that loses a tenth of everything on each leg stands still for longer than a path may be silent.
        let stuck = world.nat.no_udp && !world.cable && self.weather == Weather::Rough;
        Truth {
            way: way(relay(false)) && !stuck,
            old_way: way(relay(true)),
            discovery: !world.signaling.away,
            lossy: self.weather == Weather::Rough,
        }
    }

    fn mend_all(&mut self) {
        for event in self.mends() {
            self.happen(event);
        }
    }

    /// Nobody sends any more: whatever was held is given back. What relays forget by themselves only some seeds wait for.
    fn rest(&mut self) {
        static AT_REST: OnceLock<Tables> = OnceLock::new();
        let at_rest = *AT_REST.get_or_init(|| {
            let mut world = World::with(1, IDLE, Extent::LARGE).settled();
            world.run(REST);
            world.run_until(Duration::from_secs(1), |world| {
                world.tables().requests_waiting == 0
            });
            world.tables()
        });
        let wholly = self.seed.is_multiple_of(WHOLLY);
        self.world.run(if wholly { REST } else { IDLE * 3 });
        // Now and then an allocation asks whether its relay is still there.
        let second = Duration::from_secs(1);
        let is_at_rest = |world: &World| {
            let tables = world.tables();
            match wholly {
                true => tables == at_rest,
                false => tables.without_relays() == at_rest.without_relays(),
            }
        };
        if !self.world.run_until(second, is_at_rest) {
            let tables = self.world.tables();
            panic!("seed {}: at rest {tables:?}, not {at_rest:?}", self.seed);
        }
    }
}
