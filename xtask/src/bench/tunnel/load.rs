//! The load, iperf3 and ping, and what they say.
use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lab::{netns, wait};
use serde_json::Value;

use super::contender::{Contender, in_namespace};

/// Numbers by their names.
pub(super) type Metrics = BTreeMap<&'static str, f64>;

const PORT: u16 = 5201;
const LISTENS_WITHIN: Duration = Duration::from_secs(5);
/// Added to a run's length before it is killed.
const PATIENCE: u64 = 15;
/// The state of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";
const GIGA: f64 = 1e9;

/// A process that ends with the run it is for.
pub(super) struct Ended(pub(super) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// TCP flows from the client to the server.
pub(super) fn tcp(
    contender: &Contender,
    flows: u32,
    seconds: u64,
    congestion: Option<&str>,
) -> Result<Metrics> {
    let flows = flows.to_string();
    let args = [&["-P", &flows][..], &chosen(congestion)].concat();
    let run = Run::of(contender, &args, seconds)?;
    let mut metrics = Metrics::new();
    let received = &run.said["end"]["sum_received"];
    metrics.insert("gbit_s", number(received, "bits_per_second")? / GIGA);
    metrics.insert(
        "retransmits",
        number(&run.said["end"]["sum_sent"], "retransmits")?,
    );
    run.add_cpu(&mut metrics, number(received, "bytes")?);
    run.add_stalls(&mut metrics);
    Ok(metrics)
}

/// One TCP flow in each direction at once.
pub(super) fn both_directions(
    contender: &Contender,
    seconds: u64,
    congestion: Option<&str>,
) -> Result<Metrics> {
    let args = [&["--bidir"][..], &chosen(congestion)].concat();
    let run = Run::of(contender, &args, seconds)?;
    let end = &run.said["end"];
    let (there, back) = (&end["sum_received"], &end["sum_received_bidir_reverse"]);
    let rate = |sum| number(sum, "bits_per_second").map(|bits| bits / GIGA);
    let (there_rate, back_rate) = (rate(there)?, rate(back)?);
    let mut metrics = Metrics::from([
        ("gbit_s", there_rate + back_rate),
        ("there_gbit_s", there_rate),
        ("back_gbit_s", back_rate),
    ]);
    metrics.insert(
        "retransmits",
        number(&end["sum_sent"], "retransmits")?
            + number(&end["sum_sent_bidir_reverse"], "retransmits")?,
    );
    let bytes = number(there, "bytes")? + number(back, "bytes")?;
    run.add_cpu(&mut metrics, bytes);
    Ok(metrics)
}

/// UDP datagrams of 1200 bytes at a fixed rate.
pub(super) fn udp(contender: &Contender, megabits: u32, seconds: u64) -> Result<Metrics> {
    let rate = format!("{megabits}M");
    let run = Run::of(contender, &["-u", "-b", &rate, "-l", "1200"], seconds)?;
    let sum = &run.said["end"]["sum"];
    let (lost, jitter) = (number(sum, "lost_percent")?, number(sum, "jitter_ms")?);
    let arrived = 1.0 - lost / 100.0;
    let mut metrics = Metrics::from([("lost_percent", lost), ("jitter_ms", jitter)]);
    metrics.insert("gbit_s", number(sum, "bits_per_second")? / GIGA * arrived);
    run.add_cpu(&mut metrics, number(sum, "bytes")? * arrived);
    Ok(metrics)
}

/// A ping each 10 ms.
pub(super) fn ping(contender: &Contender, count: u32) -> Result<Metrics> {
    let wanted = count.to_string();
    let limit = u64::from(count) / 100 + PATIENCE;
    let output = contender
        .at_client("ping", limit)
        .args(["-4", "-n", "-i", "0.01", "-W", "2", "-c", &wanted])
        .arg(&contender.target)
        .output()
        .context("running ping")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let mut times: Vec<f64> = said.lines().filter_map(round_trip).collect();
    times.sort_by(f64::total_cmp);
    ensure!(!times.is_empty(), "no ping came back: {}", said.trim());
    let lost = 100.0 * (1.0 - times.len() as f64 / f64::from(count));
    Ok(Metrics::from([
        ("p50_ms", quantile(&times, 0.5)),
        ("p99_ms", quantile(&times, 0.99)),
        ("lost_percent", lost.max(0.0)),
    ]))
}

/// The same while one TCP flow takes all it can get.
pub(super) fn loaded_ping(
    contender: &Contender,
    count: u32,
    congestion: Option<&str>,
) -> Result<Metrics> {
    let seconds = u64::from(count) / 100 + 2;
    let server = serve(contender)?;
    let mut client = contender.at_client("iperf3", seconds + PATIENCE);
    client
        .args(iperf_args(&contender.target, seconds))
        .args(chosen(congestion))
        .arg("-J")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let bulk = Ended(client.spawn().context("starting iperf3")?);
    // Let it reach its speed: not waiting for a state, but the load itself.
    std::thread::sleep(Duration::from_millis(700));
    let metrics = ping(contender, count)?;
    drop((bulk, server));
    Ok(metrics)
}

/// One run of iperf3: what the client said, with the server's words in it, and the CPU time it took.
struct Run {
    said: Value,
    ends: f64,
    relay: f64,
}

impl Run {
    fn of(contender: &Contender, args: &[&str], seconds: u64) -> Result<Self> {
        let server = serve(contender)?;
        let before = contender.cpu()?;
        let output = contender
            .at_client("iperf3", seconds + PATIENCE)
            .args(iperf_args(&contender.target, seconds))
            .args(["-J", "--get-server-output"])
            .args(args)
            .output()
            .context("running iperf3")?;
        let after = contender.cpu()?;
        drop(server);
        let said: Value = serde_json::from_slice(&output.stdout).with_context(|| {
            let text = String::from_utf8_lossy(&output.stdout);
            format!("iperf3 ({}) said: {}", output.status, text.trim())
        })?;
        if let Some(error) = said["error"].as_str() {
            bail!("iperf3: {error}");
        }
        Ok(Self {
            said,
            ends: after.ends - before.ends,
            relay: after.relay - before.relay,
        })
    }

    fn add_cpu(&self, metrics: &mut Metrics, bytes: f64) {
        if bytes > 0.0 {
            metrics.insert("cpu_ns_per_byte", self.ends / bytes * GIGA);
            metrics.insert("relay_cpu_ns_per_byte", self.relay / bytes * GIGA);
        }
    }

    /// Whole seconds, as the receiver saw them: the slowest, and how many brought nothing.
    fn add_stalls(&self, metrics: &mut Metrics) {
        let intervals = self.said["server_output_json"]["intervals"].as_array();
        let seconds: Vec<f64> = intervals
            .into_iter()
            .flatten()
            .map(|interval| &interval["sum"])
            .filter(|sum| sum["seconds"].as_f64().is_some_and(|length| length > 0.9))
            .filter_map(|sum| sum["bits_per_second"].as_f64())
            .collect();
        let slowest = seconds.iter().copied().reduce(f64::min);
        metrics.insert("slowest_second_gbit_s", slowest.unwrap_or(0.0) / GIGA);
        let stalled = seconds.iter().filter(|&&bits| bits == 0.0).count();
        metrics.insert("stalled_seconds", stalled as f64);
    }
}

/// The words that choose TCP's congestion control.
fn chosen(congestion: Option<&str>) -> Vec<&str> {
    congestion
        .into_iter()
        .flat_map(|name| ["-C", name])
        .collect()
}

fn iperf_args(target: &str, seconds: u64) -> Vec<String> {
    let (port, seconds) = (PORT.to_string(), seconds.to_string());
    let args = ["-4", "-c", target, "-p", &port, "-t", &seconds];
    let more = ["-i", "1", "--connect-timeout", "5000"];
    args.into_iter().chain(more).map(str::to_owned).collect()
}

/// An iperf3 server for one run, once it listens.
fn serve(contender: &Contender) -> Result<Ended> {
    let mut command = in_namespace(&contender.server, "iperf3");
    let bound_to = contender.bound_to.iter();
    let child = command
        .args(bound_to.flat_map(|address| ["-B", address]))
        .args(["-4", "-s", "-1", "-J", "-i", "1", "-p", &PORT.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting iperf3's server")?;
    let server = Ended(child);
    wait::until_true("iperf3's server to listen", LISTENS_WITHIN, || {
        let sockets = netns::inside(&contender.server, || {
            std::fs::read_to_string("/proc/thread-self/net/tcp")
        })??;
        Ok(sockets.lines().any(listens))
    })?;
    Ok(server)
}

/// A line of `/proc/net/tcp`: `sl local_address rem_address st …`, the port in hexadecimal.
fn listens(line: &str) -> bool {
    let mut words = line.split_whitespace().skip(1);
    let local = words.next().unwrap_or_default();
    local.ends_with(&format!(":{PORT:04X}")) && words.nth(1) == Some(LISTEN)
}

/// `64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=0.045 ms`, in milliseconds.
fn round_trip(line: &str) -> Option<f64> {
    let rest = line.split(" time=").nth(1)?;
    rest.split(' ').next()?.parse().ok()
}

/// Of sorted values; the smallest that `share` of them do not exceed.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

fn number(value: &Value, field: &str) -> Result<f64> {
    value[field]
        .as_f64()
        .with_context(|| format!("iperf3 did not say `{field}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_ping_and_of_the_kernel_are_read() {
        let line = "64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=0.045 ms";
        assert_eq!(round_trip(line), Some(0.045));
        assert_eq!(round_trip("PING 10.0.0.1 (10.0.0.1)"), None);
        let line = "   0: 00000000:1451 00000000:0000 0A 00000000:00000000 00:00000000";
        assert!(listens(line));
        assert!(!listens(&line.replace(" 0A ", " 01 ")));
        assert!(!listens(&line.replace("1451", "1452")));
    }

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(quantile(&values, 0.5), 100.0);
        assert_eq!(quantile(&values, 0.99), 198.0);
        assert_eq!(quantile(&[7.0], 0.99), 7.0);
    }
}
