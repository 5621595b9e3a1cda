//! What was measured: rounds, medians, and the file that keeps them.
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::svg::{Bar, Group};

/// What one run showed: name and value.
pub(crate) type Metrics = BTreeMap<String, f64>;

/// All parts that were measured, perhaps in several runs.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Book {
    pub(crate) parts: BTreeMap<String, Part>,
}

/// One part, measured in one run.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Part {
    pub(crate) circumstances: Value,
    /// Whether those that are measured ran as real-time processes.
    pub(crate) realtime: bool,
    pub(crate) rounds: u32,
    pub(crate) cases: Vec<Case>,
}

/// One load with everyone under it.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) contenders: Vec<Entry>,
}

/// All rounds of one contender under one load.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) median: Metrics,
    pub(crate) rounds: Vec<Metrics>,
}

impl Book {
    /// What earlier runs wrote; nothing when there is no file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let text =
            fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let value: Value = serde_json::from_str(&text)?;
        serde_json::from_value(value).with_context(|| format!("understanding {}", path.display()))
    }

    /// The median of a metric, where it was measured.
    pub(crate) fn median(&self, case: &str, contender: &str, metric: &str) -> Option<f64> {
        let mut cases = self.parts.values().flat_map(|part| &part.cases);
        let case = cases.find(|found| found.name == case)?;
        case.median(contender, metric)
    }

    /// Bars of everyone for whom a metric was measured.
    pub(crate) fn group(
        &self,
        case: &str,
        metric: &str,
        divisor: f64,
        title: String,
        is_ours: impl Fn(&str) -> bool,
    ) -> Option<Group> {
        let mut cases = self.parts.values().flat_map(|part| &part.cases);
        let case = cases.find(|found| found.name == case)?;
        let bars: Vec<Bar> = case
            .contenders
            .iter()
            .filter_map(|entry| {
                Some(Bar {
                    label: entry.name.clone(),
                    value: entry.median.get(metric)?.max(0.0) / divisor,
                    ours: is_ours(&entry.name),
                })
            })
            .collect();
        (!bars.is_empty()).then_some(Group { title, bars })
    }
}

impl Part {
    /// Adds what a round showed.
    pub(crate) fn add(&mut self, case: &str, contender: &str, metrics: Metrics) {
        let position = self.cases.iter().position(|found| found.name == case);
        let position = position.unwrap_or_else(|| {
            self.cases.push(Case {
                name: case.to_owned(),
                contenders: Vec::new(),
            });
            self.cases.len() - 1
        });
        let entries = &mut self.cases[position].contenders;
        match entries.iter_mut().find(|entry| entry.name == contender) {
            Some(entry) => entry.rounds.push(metrics),
            None => entries.push(Entry {
                name: contender.to_owned(),
                median: Metrics::new(),
                rounds: vec![metrics],
            }),
        }
    }

    /// Fills the medians in.
    pub(crate) fn conclude(&mut self) {
        for case in &mut self.cases {
            for entry in &mut case.contenders {
                entry.conclude();
            }
        }
    }

    /// For people: the columns are heading, metric, divisor and digits; `compared` is put in relation to `references`.
    pub(crate) fn print(
        &self,
        columns: &[(&str, &str, f64, usize)],
        compared: &str,
        references: &[&str],
    ) {
        for case in &self.cases {
            println!("\n{} (median of {})", case.name, self.rounds);
            print!("  {:<12}", "");
            for (heading, ..) in columns {
                print!(" {heading:>14}");
            }
            for reference in references {
                print!(" {:>12}", format!("to {reference}"));
            }
            println!();
            for entry in &case.contenders {
                print!("  {:<12}", entry.name);
                for &(_, metric, divisor, digits) in columns {
                    match entry.median.get(metric) {
                        Some(value) => print!(" {:>14.digits$}", value / divisor),
                        None => print!(" {:>14}", "-"),
                    }
                }
                for reference in references {
                    let pair = entry
                        .median
                        .get(compared)
                        .zip(case.median(reference, compared));
                    match pair {
                        Some((own, other)) if other > 0.0 => print!(" {:>12.3}", own / other),
                        _ => print!(" {:>12}", "-"),
                    }
                }
                println!();
            }
        }
    }
}

impl Case {
    pub(crate) fn median(&self, contender: &str, metric: &str) -> Option<f64> {
        let entry = self
            .contenders
            .iter()
            .find(|entry| entry.name == contender)?;
        entry.median.get(metric).copied()
    }
}

impl Entry {
    fn conclude(&mut self) {
        let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for round in &mut self.rounds {
            for (name, value) in round {
                *value = rounded(*value);
                values.entry(name.clone()).or_default().push(*value);
            }
        }
        for (name, mut values) in values {
            values.sort_by(f64::total_cmp);
            self.median.insert(name, values[values.len() / 2]);
        }
    }
}

/// Four significant digits say all there is.
fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_all_rounds_and_found_by_name() {
        let mut part = Part {
            circumstances: Value::Null,
            realtime: false,
            rounds: 3,
            cases: Vec::new(),
        };
        for value in [3.0, 1.0, 2.0] {
            part.add("a", "coturn", Metrics::from([("x".to_owned(), value)]));
        }
        part.add("b", "coturn", Metrics::new());
        part.conclude();
        let mut book = Book::default();
        book.parts.insert("part".to_owned(), part);
        assert_eq!(book.median("a", "coturn", "x"), Some(2.0));
        assert_eq!(book.median("a", "turn-relay", "x"), None);
        assert_eq!(book.median("b", "coturn", "x"), None);
    }
}
