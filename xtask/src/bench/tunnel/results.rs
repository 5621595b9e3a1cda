//! What was measured: rounds, their medians, and tables of them.
use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::load::Metrics;
use super::part::Part;
use super::rivals;

/// All rounds of one contender in one part. A round that failed has no metrics.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) contender: &'static str,
    pub(super) rounds: Vec<Metrics>,
}

/// One part with everyone in it.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) part: Part,
    pub(super) entries: Vec<Entry>,
}

impl Entry {
    /// The median over all rounds; one that failed counts as none of it, so as 0.
    pub(super) fn median(&self, metric: &str) -> Option<f64> {
        let known = self.rounds.iter().any(|round| round.contains_key(metric));
        let mut values: Vec<f64> = self
            .rounds
            .iter()
            .map(|round| round.get(metric).copied().unwrap_or(0.0))
            .collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        known.then(|| {
            if values.len().is_multiple_of(2) {
                f64::midpoint(values[middle - 1], values[middle])
            } else {
                values[middle]
            }
        })
    }

    /// The greatest of all rounds.
    pub(super) fn worst(&self, metric: &str) -> Option<f64> {
        let values = self.rounds.iter().filter_map(|round| round.get(metric));
        values.copied().reduce(f64::max)
    }

    fn failed(&self) -> usize {
        self.rounds.iter().filter(|round| round.is_empty()).count()
    }

    fn to_json(&self) -> Value {
        let metrics: BTreeSet<&str> = self
            .rounds
            .iter()
            .flat_map(|round| round.keys())
            .copied()
            .collect();
        let medians: serde_json::Map<String, Value> = metrics
            .into_iter()
            .filter_map(|metric| Some((metric.to_owned(), json!(rounded(self.median(metric)?)))))
            .collect();
        let rounds: Vec<Value> = self
            .rounds
            .iter()
            .map(|round| {
                round
                    .iter()
                    .map(|(&name, &value)| (name, rounded(value)))
                    .collect()
            })
            .collect();
        json!({"contender": self.contender, "median": medians, "rounds": rounds})
    }
}

/// Four significant digits say all there is.
fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

impl Table {
    pub(super) fn entry(&self, contender: &str) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.contender == contender)
    }

    /// The best rival's median of what this part compares.
    pub(super) fn best_rival(&self) -> Option<f64> {
        let (metric, more_is_better) = self.part.measure_of_success();
        let medians = self
            .entries
            .iter()
            .filter(|entry| rivals::NAMES.contains(&entry.contender))
            .filter_map(|entry| entry.median(metric));
        if more_is_better {
            medians.reduce(f64::max)
        } else {
            medians.reduce(f64::min)
        }
    }

    /// For people.
    pub(super) fn print(&self) {
        let rounds = self.entries.first().map_or(0, |entry| entry.rounds.len());
        let columns = self.part.columns();
        println!(
            "\n{} (`{}`, median of {rounds})",
            self.part.title(),
            self.part
        );
        print!("  {:<16}", "");
        for (heading, ..) in &columns {
            print!(" {heading:>14}");
        }
        println!(" {:>14} {:>14}", "to no tunnel", "to best rival");
        let (metric, _) = self.part.measure_of_success();
        let bare = self
            .entry("no-tunnel")
            .and_then(|entry| entry.median(metric));
        for entry in &self.entries {
            print!("  {:<16}", entry.contender);
            for (_, metric, digits) in &columns {
                match entry.median(metric) {
                    Some(value) => print!(" {value:>14.digits$}"),
                    None => print!(" {:>14}", "-"),
                }
            }
            for reference in [bare, self.best_rival()] {
                match (entry.median(metric), reference) {
                    (Some(value), Some(reference)) if reference > 0.0 => {
                        print!(" {:>14.3}", value / reference);
                    }
                    _ => print!(" {:>14}", "-"),
                }
            }
            match entry.failed() {
                0 => println!(),
                failed => println!("   {failed} failed"),
            }
        }
    }

    pub(super) fn to_json(&self) -> Value {
        let contenders: Vec<Value> = self.entries.iter().map(Entry::to_json).collect();
        json!({
            "part": self.part.to_string(),
            "title": self.part.title(),
            "contenders": contenders,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_that_failed_pulls_the_median_down() {
        let round = |value| Metrics::from([("gbit_s", value)]);
        let mut entry = Entry {
            contender: "lane",
            rounds: vec![round(3.0), round(1.0), round(2.0)],
        };
        assert_eq!(entry.median("gbit_s"), Some(2.0));
        entry.rounds.push(Metrics::new());
        assert_eq!(entry.median("gbit_s"), Some(1.5));
        entry.rounds.push(Metrics::new());
        assert_eq!(entry.median("gbit_s"), Some(1.0));
        assert_eq!(entry.worst("gbit_s"), Some(3.0));
        assert_eq!(entry.median("p50_ms"), None);
    }
}
