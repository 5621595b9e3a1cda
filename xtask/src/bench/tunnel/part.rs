//! What is measured, one part after the other.
use std::fmt;

use anyhow::Result;

use super::contender::Contender;
use super::load::{self, Metrics};
use super::rivals;

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lengths {
    /// Seconds of the part that counts most.
    pub(super) single: u64,
    /// Seconds of the others on a short path.
    pub(super) short: u64,
    /// Seconds on a long path, where TCP needs a while to find its rate.
    pub(super) long: u64,
    /// Seconds on one of those that are there to compare with.
    pub(super) long_beside: u64,
    /// Pings, 10 ms apart.
    pub(super) pings: u32,
}

/// A path through the delay box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LongPath {
    /// Milliseconds, there and back.
    pub(super) round_trip: u32,
    /// Of each direction, in tenths of a percent.
    pub(super) loss: u32,
    /// TCP's congestion control.
    pub(super) congestion: &'static str,
}

/// One part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// TCP, this many flows, as fast as it goes.
    Tcp(u32),
    /// TCP, one flow in each direction.
    Both,
    /// UDP at this many Mbit/s.
    Udp(u32),
    /// Ping, nothing else.
    Ping,
    /// Ping beside one TCP flow.
    PingLoaded,
    /// One TCP flow through the delay box.
    Long(LongPath),
}

/// A column of a table: heading, metric, digits after the point.
pub(super) type Column = (&'static str, &'static str, usize);

const SPEED: Column = ("Gbit/s", "gbit_s", 3);
const CPU: [Column; 2] = [
    ("ends ns/B", "cpu_ns_per_byte", 3),
    ("relay ns/B", "relay_cpu_ns_per_byte", 3),
];
const RETRANSMITS: Column = ("retransmits", "retransmits", 0);

impl Part {
    /// All of them, in the order in which they run.
    pub(super) fn all() -> Vec<Self> {
        let mut parts = vec![
            Self::Tcp(1),
            Self::Ping,
            Self::PingLoaded,
            Self::Tcp(4),
            Self::Tcp(16),
            Self::Both,
            Self::Udp(100),
            Self::Udp(500),
        ];
        for congestion in ["bbr", "cubic"] {
            for round_trip in [80, 20, 0] {
                for loss in [0, 1, 10] {
                    parts.push(Self::Long(LongPath {
                        round_trip,
                        loss,
                        congestion,
                    }));
                }
            }
        }
        parts
    }

    /// The path it needs, when that is not the short one.
    pub(super) const fn long_path(self) -> Option<LongPath> {
        match self {
            Self::Long(path) => Some(path),
            _ => None,
        }
    }

    /// Whether it is measured in every round: all that the project asks something of. Other long paths, and rivals on
    /// all of them, are measured once, so that a run has an end.
    pub(super) fn takes_part(self, contender: &str, round: u32) -> bool {
        let always =
            self.counts() && (self.long_path().is_none() || !rivals::NAMES.contains(&contender));
        always || round == 1
    }

    fn counts(self) -> bool {
        self.long_path()
            .is_none_or(|path| path.round_trip == 80 && path.congestion == "bbr")
    }

    /// One round. `congestion` is TCP's on the short path, when not the kernel's.
    pub(super) fn measure(
        self,
        contender: &Contender,
        lengths: Lengths,
        congestion: Option<&str>,
    ) -> Result<Metrics> {
        match self {
            Self::Tcp(1) => load::tcp(contender, 1, lengths.single, congestion),
            Self::Tcp(flows) => load::tcp(contender, flows, lengths.short, congestion),
            Self::Both => load::both_directions(contender, lengths.short, congestion),
            Self::Udp(megabits) => load::udp(contender, megabits, lengths.short),
            Self::Ping => load::ping(contender, lengths.pings),
            Self::PingLoaded => load::loaded_ping(contender, lengths.pings, congestion),
            Self::Long(path) => {
                let seconds = if self.counts() {
                    lengths.long
                } else {
                    lengths.long_beside
                };
                load::tcp(contender, 1, seconds, Some(path.congestion))
            }
        }
    }

    /// The metric by which contenders are compared, and whether more of it is better.
    pub(super) const fn measure_of_success(self) -> (&'static str, bool) {
        match self {
            Self::Udp(_) => ("lost_percent", false),
            Self::Ping => ("p50_ms", false),
            Self::PingLoaded => ("p99_ms", false),
            Self::Tcp(_) | Self::Both | Self::Long(_) => ("gbit_s", true),
        }
    }

    pub(super) fn columns(self) -> Vec<Column> {
        match self {
            Self::Tcp(_) => [&[SPEED, RETRANSMITS][..], &CPU].concat(),
            Self::Both => [
                &[
                    SPEED,
                    ("there", "there_gbit_s", 3),
                    ("back", "back_gbit_s", 3),
                ][..],
                &[RETRANSMITS],
                &CPU,
            ]
            .concat(),
            Self::Udp(_) => [
                &[SPEED, ("lost %", "lost_percent", 3)][..],
                &[("jitter ms", "jitter_ms", 3)],
                &CPU,
            ]
            .concat(),
            Self::Ping | Self::PingLoaded => vec![
                ("p50 ms", "p50_ms", 3),
                ("p99 ms", "p99_ms", 3),
                ("lost %", "lost_percent", 1),
            ],
            Self::Long(_) => vec![
                SPEED,
                ("slowest second", "slowest_second_gbit_s", 3),
                ("stalled s", "stalled_seconds", 0),
                RETRANSMITS,
                CPU[0],
            ],
        }
    }

    /// For people.
    pub(super) fn title(self) -> String {
        match self {
            Self::Tcp(1) => "One TCP flow".to_owned(),
            Self::Tcp(flows) => format!("{flows} TCP flows"),
            Self::Both => "One TCP flow in each direction at once".to_owned(),
            Self::Udp(megabits) => format!("UDP, datagrams of 1200 bytes, {megabits} Mbit/s"),
            Self::Ping => "Ping, idle".to_owned(),
            Self::PingLoaded => "Ping beside one TCP flow".to_owned(),
            Self::Long(path) => format!(
                "One TCP flow ({}), 500 Mbit/s, {} ms, {} % loss",
                path.congestion,
                path.round_trip,
                path.percent()
            ),
        }
    }
}

impl LongPath {
    fn percent(self) -> f64 {
        f64::from(self.loss) / 10.0
    }

    /// What the delay box is started with, for both directions alike.
    pub(super) fn arguments(self, seed: u64) -> Vec<String> {
        let delay = format!("{}us", self.round_trip * 500);
        let loss = format!("{}", self.percent() / 100.0);
        ["--delay", &delay, "--loss", &loss, "--rate", "500M"]
            .into_iter()
            .map(str::to_owned)
            .chain(["--seed".to_owned(), seed.to_string()])
            .collect()
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(flows) => write!(f, "tcp-{flows}"),
            Self::Both => f.write_str("both"),
            Self::Udp(megabits) => write!(f, "udp-{megabits}"),
            Self::Ping => f.write_str("ping"),
            Self::PingLoaded => f.write_str("loaded"),
            Self::Long(path) => write!(
                f,
                "long-{}-{}ms-{}",
                path.congestion,
                path.round_trip,
                path.percent()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::parts::is_called;

    #[test]
    fn a_part_is_asked_for_by_its_name_or_its_beginning() {
        assert!(is_called(&Part::Tcp(1), "tcp-1"));
        assert!(is_called(&Part::Tcp(16), "tcp"));
        assert!(!is_called(&Part::Tcp(16), "tcp-1"));
        let long = Part::Long(LongPath {
            round_trip: 80,
            loss: 1,
            congestion: "bbr",
        });
        assert_eq!(long.to_string(), "long-bbr-80ms-0.1");
        assert!(is_called(&long, "long-bbr-80ms"));
        assert!(!is_called(&long, "long-bbr-80ms-0"));
    }

    #[test]
    fn no_two_parts_have_one_name() {
        let mut names: Vec<String> = Part::all().iter().map(Part::to_string).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
