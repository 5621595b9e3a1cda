//! What can happen, and how it is drawn.
use std::fmt;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::random::Random;
use crate::lab::Lab;
use crate::nat::Firewall;
use crate::plan::{APP_ADDRESSES, Network, Segment};

/// Something that happens to the networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A process is killed, and started again after a while.
    Killed {
        /// As `west/relay`.
        process: String,
        /// Until it is started.
        away: Duration,
    },
    /// A host's cable is pulled, and put back.
    Pulled {
        /// As `west/app`.
        host: String,
        /// Of which it is pulled.
        segment: Segment,
        /// Until it is put back.
        away: Duration,
    },
    /// A cable is pulled and put back several times.
    Flapping {
        /// As `west/app`.
        host: String,
        /// Of which it is pulled.
        segment: Segment,
        /// How often.
        times: u64,
        /// How long it is out each time, and in again.
        each: Duration,
    },
    /// A router forgets what it translates.
    Rebound(Network),
    /// A router lets no UDP through, for a while.
    NoUdp {
        /// Whose router.
        network: Network,
        /// How long.
        length: Duration,
    },
    /// A workload host gets another address.
    Readdressed {
        /// Whose workload.
        network: Network,
        /// The last number it has, and the one it gets.
        numbers: [u8; 2],
    },
}

impl Event {
    /// Whether there is another way while it lasts: then traffic must not wait for its end.
    #[must_use]
    pub const fn leaves_a_way(&self) -> bool {
        matches!(self, Self::NoUdp { .. })
    }

    /// What the table calls it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Killed { process, .. } => match process.rsplit('/').next() {
                Some("relay") => "relay killed",
                Some("activator") => "activator killed",
                Some("dns-signal") => "dns-signal killed",
                _ => "discovery killed",
            },
            Self::Pulled { .. } => "cable pulled",
            Self::Flapping { .. } => "cable flapping",
            Self::Rebound(_) => "NAT mappings forgotten",
            Self::NoUdp { .. } => "UDP blocked",
            Self::Readdressed { .. } => "workload's address",
        }
    }

    /// Does it; how long it lasts until [`Self::end`].
    pub(super) fn begin(&self, lab: &Lab) -> Result<Duration> {
        match self {
            Self::Killed { process, away } => {
                lab.kill9(process)?;
                Ok(*away)
            }
            Self::Pulled {
                host,
                segment,
                away,
            } => {
                lab.plug(host, *segment, false)?;
                Ok(*away)
            }
            Self::Flapping {
                host,
                segment,
                times,
                each,
            } => {
                for _ in 1..*times {
                    lab.plug(host, *segment, false)?;
                    thread::sleep(*each);
                    lab.plug(host, *segment, true)?;
                    thread::sleep(*each);
                }
                lab.plug(host, *segment, false)?;
                Ok(*each)
            }
            Self::Rebound(network) => {
                lab.forget_mappings(*network)?;
                Ok(Duration::ZERO)
            }
            Self::NoUdp { network, length } => {
                lab.set_firewall(*network, Firewall::NoUdp)?;
                Ok(*length)
            }
            Self::Readdressed { network, numbers } => {
                let [from, to] = *numbers;
                lab.readdress(&format!("{network}/app"), from, to)?;
                Ok(Duration::ZERO)
            }
        }
    }

    /// Ends it.
    pub(super) fn end(&self, lab: &Lab) -> Result<()> {
        match self {
            Self::Killed { process, .. } => lab.start(process),
            Self::Pulled { host, segment, .. } | Self::Flapping { host, segment, .. } => {
                lab.plug(host, *segment, true)
            }
            Self::NoUdp { network, .. } => lab.set_firewall(*network, Firewall::Open),
            Self::Rebound(_) | Self::Readdressed { .. } => Ok(()),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: &Duration| format!("{:.1} s", time.as_secs_f64());
        match self {
            Self::Killed { process, away } => {
                write!(f, "{process} killed, started after {}", seconds(away))
            }
            Self::Pulled {
                host,
                segment,
                away,
            } => {
                let segment = segment.interface();
                write!(
                    f,
                    "{host} without its {segment} cable for {}",
                    seconds(away)
                )
            }
            Self::Flapping {
                host,
                segment,
                times,
                each,
            } => {
                let (segment, each) = (segment.interface(), each.as_millis());
                write!(
                    f,
                    "{host} {segment} cable flaps {times} times, {each} ms each"
                )
            }
            Self::Rebound(network) => write!(f, "{network}/router forgets its mappings"),
            Self::NoUdp { network, length } => {
                write!(
                    f,
                    "{network}/router lets no UDP through for {}",
                    seconds(length)
                )
            }
            Self::Readdressed { network, numbers } => {
                write!(
                    f,
                    "{network}/app moves from .{} to .{}",
                    numbers[0], numbers[1]
                )
            }
        }
    }
}

/// One event after the other, without end: the same for the same seed and networks.
#[derive(Debug)]
pub struct Events {
    random: Random,
    networks: Vec<Network>,
    /// Which of the [`APP_ADDRESSES`] each network's workload has.
    addresses: Vec<usize>,
}

impl Events {
    /// From the first one on.
    #[must_use]
    pub fn new(seed: u64, networks: &[Network]) -> Self {
        Self {
            random: Random::new(seed),
            networks: networks.to_owned(),
            addresses: vec![0; networks.len()],
        }
    }

    /// How long nothing happens, and what happens then.
    pub fn draw(&mut self) -> (Duration, Event) {
        let random = &mut self.random;
        let calm = random.millis(500, 3_000);
        let index = usize::try_from(random.below(self.networks.len() as u64)).unwrap_or(0);
        let network = self.networks[index];
        let event = match random.below(12) {
            kind @ 0..=4 => {
                let process = match kind {
                    0 => "discovery".to_owned(),
                    1 => format!("{network}/dns-signal"),
                    2 => format!("{network}/activator"),
                    _ => format!("{network}/relay"),
                };
                let away = random.millis(0, 3_000);
                Event::Killed { process, away }
            }
            5 | 6 => {
                let (host, segment) = plug(random, network);
                let away = random.millis(200, 4_000);
                Event::Pulled {
                    host,
                    segment,
                    away,
                }
            }
            7 => {
                let (host, segment) = plug(random, network);
                Event::Flapping {
                    host,
                    segment,
                    times: 2 + random.below(6),
                    each: random.millis(50, 600),
                }
            }
            8 | 9 => Event::Rebound(network),
            10 => Event::NoUdp {
                network,
                length: random.millis(1_000, 10_000),
            },
            _ => {
                let from = self.addresses[index];
                self.addresses[index] = 1 - from;
                Event::Readdressed {
                    network,
                    numbers: [APP_ADDRESSES[from], APP_ADDRESSES[1 - from]],
                }
            }
        };
        (calm, event)
    }
}

/// A cable of a network: of a host, or of those at its edge to either side.
fn plug(random: &mut Random, network: Network) -> (String, Segment) {
    let inside = Segment::Inside(network);
    let (host, segment) = random.one_of(&[
        ("app", inside),
        ("activator", inside),
        ("relay", inside),
        ("relay", Segment::Public),
        ("router", inside),
        ("router", Segment::Public),
    ]);
    (format!("{network}/{host}"), segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(seed: u64, count: usize) -> Vec<(Duration, Event)> {
        let mut events = Events::new(seed, &Network::FIVE);
        (0..count).map(|_| events.draw()).collect()
    }

    #[test]
    fn a_seed_always_gives_the_same_events_and_another_gives_others() {
        assert_eq!(first(7, 100), first(7, 100));
        assert_ne!(first(7, 100), first(8, 100));
    }

    #[test]
    fn every_kind_of_event_happens_to_every_network() {
        let events = first(1, 1_000);
        for network in Network::FIVE {
            for kind in [
                "relay killed",
                "activator killed",
                "dns-signal killed",
                "cable for",
                "flaps",
                "forgets",
                "no UDP",
                "moves from .10 to .11",
                "moves from .11 to .10",
            ] {
                let happens = |(_, event): &(Duration, Event)| {
                    let text = event.to_string();
                    text.starts_with(network.name()) && text.contains(kind)
                };
                assert!(events.iter().any(happens), "{network}: {kind}");
            }
        }
    }
}
