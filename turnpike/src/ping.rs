//! `turnpike ping`: how long each step to a service takes, again and again.

use std::{
    net::{IpAddr, ToSocketAddrs as _},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Args;
use explain::{
    Facts, Sidecar,
    facts::{Link, Outcome},
    judge,
};

use crate::{
    reach,
    sidecar::{SidecarArgs, check_name},
};

/// How often a pause looks whether it should end.
const TICK: Duration = Duration::from_millis(20);
/// What `ping` sends, too.
const ECHO_BYTES: usize = 84;

#[derive(Args)]
pub(crate) struct PingArgs {
    #[command(flatten)]
    sidecar: SidecarArgs,
    /// How often; 0: until Ctrl-C
    #[arg(short, long, value_name = "N", default_value_t = 4)]
    count: u32,
    /// From one to the next
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// How long an answer is waited for
    #[arg(short = 'W', long, value_name = "TIME", default_value = "2s", value_parser = timeout)]
    timeout: Duration,
    /// A TCP port to connect to [default: the service's first one, or ICMP echo when it has none]
    #[arg(short, long, value_name = "PORT", conflicts_with = "icmp")]
    port: Option<u16>,
    /// ICMP echo instead of a TCP connection
    #[arg(long)]
    icmp: bool,
    /// The service, such as orders.east
    #[arg(value_name = "NAME")]
    name: String,
}

fn timeout(text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match parsed.is_zero() {
        true => Err("must be more than 0".to_owned()),
        false => Ok(parsed),
    }
}

/// Exit code 0 when at least one answer came, 1 when none.
pub(crate) fn run(args: &PingArgs) -> Result<ExitCode> {
    check_name(&args.name)?;
    let reach = args.sidecar.reach()?;
    let sidecar = reach.settled(&args.name);
    let (sidecar, unasked) = match sidecar {
        Ok(sidecar) => (Some(sidecar), None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    let target = sidecar.as_ref().and_then(|sidecar| {
        let link = sidecar.link.as_ref().filter(|link| link.open)?;
        Some((sidecar, link, *sidecar.virtual_ips.first()?))
    });
    let Some((sidecar, link, address)) = target else {
        let identity = unasked.as_ref().and_then(|_| reach.identity_problem());
        let facts = Facts {
            name: args.name.clone(),
            sidecar,
            unasked,
            identity,
            ..Facts::default()
        };
        let name = &args.name;
        println!(
            "{}\n  -> more: turnpike explain {name}",
            judge(&facts).cause.what
        );
        return Ok(ExitCode::FAILURE);
    };
    let port = args
        .port
        .or_else(|| first_port(sidecar, link))
        .filter(|_| !args.icmp);
    Ok(rounds(args, sidecar, link, address, port))
}

fn first_port(sidecar: &Sidecar, link: &Link) -> Option<u16> {
    let mut activators = sidecar.activators.iter();
    let activator = activators.find(|activator| activator.node == link.node)?;
    activator.tcp.first().copied()
}

fn rounds(
    args: &PingArgs,
    sidecar: &Sidecar,
    link: &Link,
    address: IpAddr,
    port: Option<u16>,
) -> ExitCode {
    let service = format!("{}.{}", sidecar.service, sidecar.target);
    let path = link.path.as_deref().unwrap_or("?");
    println!("PING {service} ({address}) by {}, {path}", link.node);
    println!("link: {}", opening(link));
    let stop = stop_on_signal();
    let (mut names, mut answers) = (Vec::new(), Vec::new());
    let begin = Instant::now();
    let mut sent = 0;
    let full = format!("{service}.{}", sidecar.suffix);
    while args.count == 0 || sent < args.count {
        if sent > 0 {
            pause(begin + args.interval * sent, &stop);
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        sent += 1;
        let dns = resolve(&full, address);
        let (what, outcome) = hop(address, port, sent, args.timeout);
        let said = match &outcome {
            Ok(ms) => format!("{ms:.2} ms"),
            Err(why) => why.clone(),
        };
        println!("seq={sent} dns={} {what}={said}", said_of(&dns));
        names.extend(dns.ok());
        answers.extend(outcome.ok());
    }
    summary(&service, sent, begin.elapsed(), &names, &answers);
    ExitCode::from(u8::from(answers.is_empty()))
}

/// How long each step took when the link was opened.
fn opening(link: &Link) -> String {
    let mut last = 0.0;
    let label = |step: &str| match step {
        "offer_sent" => Some("offer"),
        "answer_received" => Some("answer"),
        "ice_connected" => Some("ICE"),
        "dtls_connected" => Some("DTLS"),
        "open" => Some("channel"),
        _ => None,
    };
    let steps = link.steps.iter().filter_map(|(step, ms)| {
        let took = ms - last;
        label(step).map(|label| {
            last = *ms;
            format!("{label} {took:.1} ms")
        })
    });
    let steps: Vec<String> = steps.collect();
    let rtt = link.rtt_ms.map(|ms| format!("; round trip now {ms:.1} ms"));
    format!("{}{}", steps.join(", "), rtt.unwrap_or_default())
}

/// As a workload resolves it, with this machine's own resolver.
fn resolve(name: &str, expected: IpAddr) -> Result<f64, String> {
    let begin = Instant::now();
    let found = (name, 0).to_socket_addrs();
    let ms = begin.elapsed().as_secs_f64() * 1_000.0;
    // This machine may ask another resolver than its sidecar.
    let mut addresses = found.map_err(|_| "unknown-here".to_owned())?;
    if addresses.any(|found| found.ip() == expected) {
        Ok(ms)
    } else {
        Err("another-address".to_owned())
    }
}

fn said_of(result: &Result<f64, String>) -> String {
    match result {
        Ok(ms) => format!("{ms:.2} ms"),
        Err(why) => why.clone(),
    }
}

fn hop(
    address: IpAddr,
    port: Option<u16>,
    sequence: u32,
    patience: Duration,
) -> (String, Result<f64, String>) {
    let Some(port) = port else {
        let outcome = match reach::echo(address, ECHO_BYTES, sequence as u16, patience) {
            Ok(Some(after)) => Ok(after.as_secs_f64() * 1_000.0),
            Ok(None) => Err("no answer".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        return ("icmp".to_owned(), outcome);
    };
    let probe = reach::tcp(address, port, patience);
    let outcome = match probe.outcome {
        Outcome::Open => Ok(probe.ms),
        Outcome::Closed => Err("closed (reset)".to_owned()),
        Outcome::Unreachable => Err("unreachable (ICMP)".to_owned()),
        Outcome::Silent => Err("no answer".to_owned()),
        Outcome::NotSent(why) => Err(why),
    };
    (format!("tcp/{port}"), outcome)
}

fn summary(service: &str, sent: u32, took: Duration, names: &[f64], answers: &[f64]) {
    let lost = f64::from(sent) - answers.len() as f64;
    let percent = 100.0 * lost / f64::from(sent.max(1));
    println!("\n--- {service} turnpike ping statistics ---");
    println!(
        "{sent} sent, {} answered, {percent:.0}% lost, time {} ms",
        answers.len(),
        took.as_millis()
    );
    for (what, times) in [("dns", names), ("service", answers)] {
        if let Some([low, mean, high, deviation]) = statistics(times) {
            println!("{what} min/avg/max/mdev = {low:.2}/{mean:.2}/{high:.2}/{deviation:.2} ms");
        }
    }
}

fn statistics(times: &[f64]) -> Option<[f64; 4]> {
    let low = times.iter().copied().reduce(f64::min)?;
    let high = times.iter().copied().reduce(f64::max)?;
    let count = times.len() as f64;
    let mean = times.iter().sum::<f64>() / count;
    let squares = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>();
    Some([low, mean, high, (squares / count).sqrt()])
}

/// Turns true on SIGINT or SIGTERM: what was begun is still ended properly.
pub(crate) fn stop_on_signal() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        if let Ok(runtime) = runtime
            && runtime.block_on(service_kit::shutdown_signal()).is_ok()
        {
            told.store(true, Ordering::Relaxed);
        }
    });
    stop
}

fn pause(until: Instant, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(TICK));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_those_of_ping() {
        assert_eq!(statistics(&[]), None);
        assert_eq!(statistics(&[2.0, 4.0]), Some([2.0, 3.0, 4.0, 1.0]));
    }

    #[test]
    fn each_step_is_shown_by_what_it_took() {
        let steps = [
            ("dns_answer", 0.0),
            ("offer_sent", 1.0),
            ("answer_received", 4.0),
            ("open", 9.0),
        ];
        let link = Link {
            steps: steps.map(|(step, ms)| (step.to_owned(), ms)).to_vec(),
            ..Link::default()
        };
        assert_eq!(
            opening(&link),
            "offer 1.0 ms, answer 3.0 ms, channel 5.0 ms"
        );
    }
}
