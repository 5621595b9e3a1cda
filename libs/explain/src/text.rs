//! A verdict and its facts for people: the cause first, what to do below it, then everything that is known.

use std::fmt::Write as _;

use crate::{
    facts::{Binding, Facts, Outcome, Pair, Sidecar},
    verdict::{Finding, Verdict},
};

/// The whole explanation. Its first line is the cause.
#[must_use]
pub fn text(facts: &Facts, verdict: &Verdict) -> String {
    let mut text = String::new();
    finding(&mut text, "", &verdict.cause);
    for besides in &verdict.besides {
        text.push('\n');
        finding(&mut text, "besides: ", besides);
    }
    if let Some(sidecar) = &facts.sidecar {
        text.push('\n');
        known(&mut text, facts, sidecar);
    }
    text
}

fn finding(text: &mut String, before: &str, finding: &Finding) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{before}{}", finding.what);
    for step in &finding.remedy {
        let _ = writeln!(text, "  -> {step}");
    }
}

fn known(text: &mut String, facts: &Facts, sidecar: &Sidecar) {
    let mut line = |key: &str, value: String| {
        let _ = writeln!(text, "{key:11} {value}");
    };
    line("name", facts.name.clone());
    if sidecar.service.is_empty() {
        return;
    }
    line(
        "asked",
        format!(
            "{} for {}.{}",
            sidecar.node, sidecar.service, sidecar.target
        ),
    );
    let discovery = match &sidecar.discovery_problem {
        None => format!("{} (connected)", sidecar.discovery),
        Some(problem) => format!("{} (away: {problem})", sidecar.discovery),
    };
    line("discovery", discovery);
    for activator in &sidecar.activators {
        let ports = match activator.exports {
            true => format!(
                "exports it, tcp {:?} udp {:?}",
                activator.tcp, activator.udp
            ),
            false => "does not export it".to_owned(),
        };
        line(
            "activator",
            format!("{}: {ports}, until {}", activator.node, activator.expires),
        );
        for foothold in &activator.footholds {
            line(
                "",
                format!(
                    "in {} by relay {}: {}",
                    foothold.network,
                    foothold.relay,
                    foothold.relayed.join(" ")
                ),
            );
        }
        for trouble in &activator.troubles {
            line(
                "",
                format!(
                    "not by relay {} of {}: {:?}",
                    trouble.relay, trouble.network, trouble.kind
                ),
            );
        }
    }
    let addresses: Vec<String> = sidecar
        .virtual_ips
        .iter()
        .map(ToString::to_string)
        .collect();
    if !addresses.is_empty() {
        line("virtual IP", addresses.join(" "));
    }
    if let Some(link) = &sidecar.link {
        let state = if link.open { "open" } else { "opening" };
        let rtt = link
            .rtt_ms
            .map(|ms| format!(", {ms:.1} ms"))
            .unwrap_or_default();
        let path = link.path.as_deref().unwrap_or("no path yet");
        let carrier = link.carrier.as_deref().unwrap_or("no carrier yet");
        line(
            "link",
            format!(
                "{} with {}: {state}, {path}, {carrier}, packets up to {}{rtt}",
                link.link, link.node, link.mtu
            ),
        );
        let policy = match &link.binding {
            Binding::NotAsked => "not asked yet".to_owned(),
            Binding::Asked => "asked, no answer yet".to_owned(),
            Binding::Accepted => "this node may use it".to_owned(),
            Binding::Refused(reason) => format!("refused: {reason}"),
        };
        line("policy", policy);
        steps(&mut line, &link.steps);
        pairs(&mut line, &link.pairs);
    }
    if let Some(failure) = &sidecar.last_failure {
        let node = failure.node.as_deref().unwrap_or("nobody");
        line(
            "failed",
            format!(
                "{:.1} s ago with {node}: {} ({} in all)",
                failure.seconds_ago, failure.reason, sidecar.failures
            ),
        );
        if sidecar.link.is_none() {
            steps(&mut line, &failure.steps);
            pairs(&mut line, &failure.pairs);
        }
    }
    for probe in &facts.probes {
        let outcome = match &probe.outcome {
            Outcome::Open => "open".to_owned(),
            Outcome::Closed => "closed (reset)".to_owned(),
            Outcome::Unreachable => "unreachable (ICMP)".to_owned(),
            Outcome::Silent => "silent".to_owned(),
            Outcome::NotSent(why) => why.clone(),
        };
        line(
            "tried",
            format!(
                "{} port {}: {outcome}, {:.1} ms",
                probe.address, probe.port, probe.ms
            ),
        );
    }
    if let Some(size) = &facts.full_size {
        let said = |came: bool| {
            if came {
                "came back"
            } else {
                "did not come back"
            }
        };
        line(
            "tried",
            format!(
                "echo: short {}, {} bytes {}",
                said(size.short),
                size.bytes,
                said(size.long)
            ),
        );
    }
}

fn steps(line: &mut impl FnMut(&str, String), steps: &[(String, f64)]) {
    if !steps.is_empty() {
        let steps: Vec<String> = steps
            .iter()
            .map(|(step, ms)| format!("{step} {ms:.1}"))
            .collect();
        line("steps, ms", steps.join(", "));
    }
}

fn pairs(line: &mut impl FnMut(&str, String), pairs: &[Pair]) {
    for pair in pairs {
        let relayed = if pair.relayed { "relayed" } else { "direct" };
        let rtt = pair
            .rtt_ms
            .map(|ms| format!(", {ms:.1} ms"))
            .unwrap_or_default();
        line(
            "pair",
            format!(
                "{} - {}: {relayed}, {}{rtt}",
                pair.local, pair.remote, pair.state
            ),
        );
    }
}
