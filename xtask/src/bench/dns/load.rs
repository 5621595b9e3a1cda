//! dnsperf, and what it says.
use anyhow::{Context as _, Result, ensure};

use super::servers::{Field, Server};
use crate::bench::cpu::cpu_seconds;
use crate::bench::results::Metrics;

pub(super) const SPEED: &str = "queries_per_second";
/// Nanoseconds for each query that was answered.
pub(super) const CPU: &str = "cpu_ns_each";
pub(super) const BUSY: &str = "busy";
/// Microseconds from query to answer, as dnsperf sees it.
pub(super) const MEAN: &str = "mean_us";
pub(super) const P50: &str = "p50_us";
pub(super) const P99: &str = "p99_us";

/// How fast queries come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// As fast as they are answered, 200 under way.
    Fast,
    /// So many a second.
    PerSecond(u32),
}

/// The load generator, on its core.
#[derive(Debug)]
pub(super) struct Dnsperf<'a> {
    field: &'a Field,
    core: String,
    seconds: String,
}

impl<'a> Dnsperf<'a> {
    pub(super) fn new(field: &'a Field, core: usize, seconds: u32) -> Self {
        Self {
            field,
            core: core.to_string(),
            seconds: seconds.to_string(),
        }
    }

    /// One run; an error when answers are missing.
    pub(super) fn run(&self, server: &Server, queries: &str, pace: Pace) -> Result<Metrics> {
        let port = server.port.to_string();
        let rate;
        let mut command = vec![
            "taskset",
            "-c",
            &self.core,
            "dnsperf",
            "-s",
            "127.0.0.1",
            "-p",
            &port,
            "-d",
            queries,
            "-l",
            &self.seconds,
            "-c",
            "8",
        ];
        match pace {
            Pace::Fast => command.extend(["-q", "200"]),
            Pace::PerSecond(queries) => {
                rate = queries.to_string();
                // Verbose: each answer with its time.
                command.extend(["-Q", &rate, "-v"]);
            }
        }
        let before = cpu_seconds(server.pid)?;
        let said = self.field.output(&command)?;
        let cpu = cpu_seconds(server.pid)? - before;
        understand(&said, cpu).with_context(|| {
            let ends: Vec<&str> = said.lines().rev().take(30).collect();
            format!("dnsperf said, from its end:\n{}", ends.join("\n"))
        })
    }
}

fn understand(said: &str, cpu: f64) -> Result<Metrics> {
    let number = |label: &str| -> Result<f64> {
        let line = said
            .lines()
            .find(|line| line.trim_start().starts_with(label));
        let value = line.and_then(|line| line.split(':').nth(1)?.split_whitespace().next());
        value
            .and_then(|value| value.parse().ok())
            .with_context(|| format!("no `{label}`"))
    };
    let (sent, completed) = (number("Queries sent")?, number("Queries completed")?);
    ensure!(
        completed > 0.0 && completed >= sent * 0.99,
        "{completed} of {sent} queries were answered"
    );
    // `Response codes:       NOERROR 29990 (99.97%), SERVFAIL 10 (0.03%)`
    let good = said.split("NOERROR ").last().unwrap_or_default();
    let good: f64 = good
        .split_whitespace()
        .next()
        .and_then(|count| count.parse().ok())
        .unwrap_or_default();
    ensure!(
        good >= completed * 0.99,
        "{good} of {completed} answers were good"
    );
    let mut metrics = Metrics::from(
        [
            (SPEED, number("Queries per second")?),
            (CPU, cpu / completed * 1e9),
            (BUSY, cpu / number("Run time (s)")?),
            (MEAN, number("Average Latency (s)")? * 1e6),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    // `> NOERROR orders.east.mesh.internal A 0.000123`
    let answers = said.lines().filter(|line| line.starts_with("> "));
    let mut times: Vec<f64> = answers
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect();
    times.sort_by(f64::total_cmp);
    for (name, share) in [(P50, 0.50), (P99, 0.99)] {
        let rank = (times.len() as f64 * share) as usize;
        if let Some(time) = times.get(rank) {
            metrics.insert(name.to_owned(), time * 1e6);
        }
    }
    Ok(metrics)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "> NOERROR a.b A 0.000200\n> NOERROR a.b A 0.000100\n> NOERROR a.b A 0.000300\n\
        \n  Queries sent:         3\n  Queries completed:    3 (100.00%)\n  Response codes:       NOERROR 3 (100.00%)\n  Average packet size:  request 43, response 59\n\
        \n  Run time (s):         2.000000\n  Queries per second:   1.500000\n\
        \n  Average Latency (s):  0.000200 (min 0.000100, max 0.000300)\n";

    #[test]
    fn what_dnsperf_says_is_understood() {
        let metrics = understand(SAID, 0.000_3).expect("numbers");
        let expected = [
            (SPEED, 1.5),
            (MEAN, 200.0),
            (P50, 200.0),
            (P99, 300.0),
            (CPU, 100_000.0),
        ];
        for (name, value) in expected {
            assert!((metrics[name] - value).abs() < 1e-6, "{name}: {metrics:?}");
        }
    }

    #[test]
    fn lost_and_failed_answers_are_no_result() {
        let lost = SAID.replace("completed:    3", "completed:    2");
        assert!(understand(&lost, 0.0).is_err());
        let failed = SAID.replace(
            "NOERROR 3 (100.00%)",
            "SERVFAIL 2 (66.67%), NOERROR 1 (33.33%)",
        );
        assert!(understand(&failed, 0.0).is_err());
    }
}
