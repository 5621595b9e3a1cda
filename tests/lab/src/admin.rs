//! Asking processes about themselves: their admin ports, and the numbers there.
use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

use crate::lab::Lab;
use crate::plan::Network;
use crate::probe;

impl Lab {
    /// GET on the admin port of a process; an error unless the status is 200.
    pub fn admin(&self, process: &str, path: &str) -> Result<String> {
        let handle = self.process(process)?;
        let server = handle.process.admin();
        let server = server.with_context(|| format!("{process} has no admin port"))?;
        let (status, body) = probe::http_get(&self.namespace(&handle.process.host), server, path)?;
        ensure!(status == 200, "{process}{path} says {status}: {body}");
        Ok(body)
    }

    /// `/status` of an activator or a dns-signal.
    pub fn node_status(&self, process: &str) -> Result<serde_json::Value> {
        let body = self.admin(process, "/status")?;
        serde_json::from_str(&body).with_context(|| format!("{process}/status is not JSON"))
    }

    /// The value of a metric of a process, summed over all its labels; 0 when it is not there yet.
    pub fn metric(&self, process: &str, name: &str) -> Result<f64> {
        Ok(self.metric_by_labels(process, name)?.values().sum())
    }

    /// The values of a metric by its labels, as `direction="to-peer"`.
    pub fn metric_by_labels(&self, process: &str, name: &str) -> Result<BTreeMap<String, f64>> {
        let metrics = self.admin(process, "/metrics")?;
        Ok(metrics
            .lines()
            .filter_map(|line| sample(line, name))
            .collect())
    }

    /// Payload bytes that a network's relay carried since it started, by its own count, both directions together.
    pub fn relay_bytes(&self, network: Network) -> Result<u64> {
        let bytes = self.metric(
            &format!("{network}/relay"),
            "turn_relay_relayed_bytes_total",
        )?;
        // A byte count stays far below 2^53.
        Ok(bytes as u64)
    }
}

/// One line of Prometheus' text format, when it is a sample of `name`: its labels and its value.
fn sample(line: &str, name: &str) -> Option<(String, f64)> {
    let rest = line.strip_prefix(name)?;
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => rest.split_once("} ")?,
        None => ("", rest.strip_prefix(' ')?),
    };
    Some((labels.to_owned(), value.split(' ').next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_and_without_labels() {
        let name = "turn_relay_relayed_bytes_total";
        let line = format!("{name}{{direction=\"to-peer\"}} 42");
        assert_eq!(
            sample(&line, name),
            Some(("direction=\"to-peer\"".to_owned(), 42.0))
        );
        assert_eq!(
            sample(&format!("{name} 7"), name),
            Some((String::new(), 7.0))
        );
        assert_eq!(sample(&format!("{name}_other 7"), name), None);
        assert_eq!(sample(&format!("# TYPE {name} counter"), name), None);
    }
}
