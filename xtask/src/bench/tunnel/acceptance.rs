//! What the project asks of its tunnel, and whether this run shows it.
use super::part::{LongPath, Part};
use super::results::Table;
use crate::bench::verdict::Verdict;

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
            let what = format!("{}, {contender}, {metric}", part.title());
            verdicts.push(Verdict::at_most(what, Some(seen), bound));
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
        let what = format!("One TCP flow, {contender}, Gbit/s");
        verdicts.push(Verdict::at_least(what, Some(seen), bound));
        if let (true, Some(rival)) = (contender == "lane", table.best_rival()) {
            let what = "One TCP flow, lane, times the best rival".to_owned();
            verdicts.push(Verdict::at_least(what, Some(seen / rival), 7.0));
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
        let what = format!("`{part}`, {contender}, share of no tunnel");
        verdicts.push(Verdict::at_least(what, Some(seen / bare), bound));
        let entry = find(tables, part).and_then(|table| table.entry(contender));
        let stalled = entry.and_then(|entry| entry.worst("stalled_seconds"));
        let what = format!("`{part}`, {contender}, seconds without progress, any round");
        verdicts.push(Verdict::at_most(what, stalled.or(Some(f64::INFINITY)), 0.0));
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
        let met: Vec<bool> = verdicts.iter().filter_map(Verdict::is_met).collect();
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
        let met: Vec<bool> = verdicts.iter().filter_map(Verdict::is_met).collect();
        assert_eq!(met, [false, true, true, true]);
    }
}
