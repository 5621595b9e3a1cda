//! What the project asks of its tunnel, and whether this run shows it.
use serde_json::{Value, json};

use super::part::{LongPath, Part};
use super::results::Table;

/// One bound, and what was seen.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    what: String,
    seen: f64,
    bound: f64,
    /// Whether `seen` must be at least `bound`; else at most.
    at_least: bool,
}

impl Verdict {
    fn is_met(&self) -> bool {
        if self.at_least {
            self.seen >= self.bound
        } else {
            self.seen <= self.bound
        }
    }

    pub(super) fn print(&self) {
        let sign = if self.at_least { ">=" } else { "<=" };
        let met = if self.is_met() { "met   " } else { "MISSED" };
        println!(
            "  {met} {:<62} {:>8.3} {sign} {}",
            self.what, self.seen, self.bound
        );
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "what": self.what,
            "seen": self.seen,
            "bound": self.bound,
            "bound_is": if self.at_least { "least" } else { "most" },
            "met": self.is_met(),
        })
    }
}

/// Loss in tenths of a percent, and what default carrier and data channel must keep of TCP without a tunnel.
const LONG: [(u32, f64, f64); 3] = [(0, 0.90, 0.60), (1, 0.90, 0.50), (10, 0.90, 0.25)];

/// Every bound whose parts were measured.
pub(super) fn judge(tables: &[Table]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    if let Some(table) = find(tables, Part::Tcp(1)) {
        speed(table, &mut verdicts);
    }
    let pings = [
        (Part::Ping, "p50_ms", "lane", 0.25),
        (Part::Ping, "p50_ms", "channel", 0.25),
        (Part::Ping, "p50_ms", "lane-relay", 0.4),
        (Part::Ping, "p50_ms", "channel-relay", 0.4),
        (Part::PingLoaded, "p99_ms", "lane", 5.0),
        (Part::PingLoaded, "p99_ms", "channel", 5.0),
        (Part::PingLoaded, "p99_ms", "lane-relay", 5.0),
        (Part::PingLoaded, "p99_ms", "channel-relay", 5.0),
    ];
    for (part, metric, contender, bound) in pings {
        if let Some(seen) = median(tables, part, contender, metric) {
            verdicts.push(Verdict {
                what: format!("{}, {contender}, {metric}", part.title()),
                seen,
                bound,
                at_least: false,
            });
        }
    }
    for (loss, lane, channel) in LONG {
        let part = Part::Long(LongPath {
            round_trip: 80,
            loss,
            congestion: "bbr",
        });
        long_path(tables, part, lane, channel, &mut verdicts);
    }
    verdicts
}

fn speed(table: &Table, verdicts: &mut Vec<Verdict>) {
    let bounds = [
        ("lane", 7.0),
        ("channel", 3.5),
        ("lane-relay", 3.5),
        ("channel-relay", 2.0),
    ];
    for (contender, bound) in bounds {
        let Some(seen) = table
            .entry(contender)
            .and_then(|entry| entry.median("gbit_s"))
        else {
            continue;
        };
        verdicts.push(Verdict {
            what: format!("One TCP flow, {contender}, Gbit/s"),
            seen,
            bound,
            at_least: true,
        });
        if let (true, Some(rival)) = (contender == "lane", table.best_rival()) {
            verdicts.push(Verdict {
                what: "One TCP flow, lane, times the best rival".to_owned(),
                seen: seen / rival,
                bound: 7.0,
                at_least: true,
            });
        }
    }
}

fn long_path(tables: &[Table], part: Part, lane: f64, channel: f64, verdicts: &mut Vec<Verdict>) {
    let Some(bare) = median(tables, part, "no-tunnel", "gbit_s") else {
        return;
    };
    for (contender, bound) in [("lane", lane), ("channel", channel)] {
        let Some(seen) = median(tables, part, contender, "gbit_s") else {
            continue;
        };
        verdicts.push(Verdict {
            what: format!("`{part}`, {contender}, share of no tunnel"),
            seen: seen / bare,
            bound,
            at_least: true,
        });
        let entry = find(tables, part).and_then(|table| table.entry(contender));
        verdicts.push(Verdict {
            what: format!("`{part}`, {contender}, seconds without progress, any round"),
            seen: entry
                .and_then(|entry| entry.worst("stalled_seconds"))
                .unwrap_or(f64::INFINITY),
            bound: 0.0,
            at_least: false,
        });
    }
}

fn find(tables: &[Table], part: Part) -> Option<&Table> {
    tables.iter().find(|table| table.part == part)
}

fn median(tables: &[Table], part: Part, contender: &str, metric: &str) -> Option<f64> {
    find(tables, part)?.entry(contender)?.median(metric)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tunnel::load::Metrics;
    use crate::bench::tunnel::results::Entry;

    fn table(part: Part, entries: &[(&'static str, f64)]) -> Table {
        Table {
            part,
            entries: entries
                .iter()
                .map(|&(contender, gbit_s)| Entry {
                    contender,
                    rounds: vec![Metrics::from([
                        ("gbit_s", gbit_s),
                        ("stalled_seconds", 0.0),
                    ])],
                })
                .collect(),
        }
    }

    #[test]
    fn the_lane_must_be_fast_and_seven_times_its_best_rival() {
        let entries = [("lane", 7.7), ("nebula", 1.0), ("wireguard-go", 1.2)];
        let verdicts = judge(&[table(Part::Tcp(1), &entries)]);
        let met: Vec<bool> = verdicts.iter().map(Verdict::is_met).collect();
        assert_eq!(met, [true, false]);
    }

    #[test]
    fn a_long_path_is_judged_by_its_share_of_no_tunnel() {
        let part = Part::Long(LongPath {
            round_trip: 80,
            loss: 10,
            congestion: "bbr",
        });
        let entries = [("no-tunnel", 0.4), ("lane", 0.35), ("channel", 0.11)];
        let verdicts = judge(&[table(part, &entries)]);
        let met: Vec<bool> = verdicts.iter().map(Verdict::is_met).collect();
        assert_eq!(met, [false, true, true, true]);
    }
}
