//! `turnpike doctor`: looks at the sidecar of this machine, and at what it knows of the mesh.

use std::{net::ToSocketAddrs as _, process::ExitCode};

use anyhow::Result;
use clap::Args;
use explain::{
    Facts, Finding, Sidecar,
    facts::{Activator, TroubleKind, Upstream},
    judge,
};

use crate::sidecar::SidecarArgs;

#[derive(Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    sidecar: SidecarArgs,
}

/// What was found, a line each.
#[derive(Default)]
struct Report {
    faults: usize,
}

impl Report {
    fn ok(&mut self, about: &str, says: &str) {
        println!("ok    {about}: {says}");
    }

    fn fault(&mut self, about: &str, says: &str, remedies: &[String]) {
        self.faults += 1;
        println!("FAULT {about}: {says}");
        for remedy in remedies {
            println!("        -> {remedy}");
        }
    }

    fn finding(&mut self, about: &str, finding: &Finding) {
        self.fault(about, &finding.what, &finding.remedy);
    }
}

/// Exit code 0 when nothing is wrong, 1 otherwise.
pub(crate) fn run(args: &DoctorArgs) -> Result<ExitCode> {
    let reach = args.sidecar.reach()?;
    let mut report = Report::default();
    // No service has this name: it is asked for what is said beside it.
    let ask = |network: &str| reach.ask(&format!("doctor.{network}"), false);
    match ask("doctor") {
        Err(error) => {
            let facts = Facts {
                unasked: Some(format!("{error:#}")),
                identity: reach.identity_problem(),
                ..Facts::default()
            };
            report.finding("dns-signal", &judge(&facts).cause);
        }
        Ok(sidecar) => {
            let node = match sidecar.node.as_str() {
                "" => "not enrolled yet",
                node => node,
            };
            report.ok("dns-signal", &format!("{node}, at {}", reach.admin));
            this_machine(&mut report, &sidecar);
            for network in &sidecar.networks {
                match ask(network) {
                    Ok(of_network) => activators(&mut report, network, &of_network),
                    Err(error) => report.fault(network, &format!("{error:#}"), &[]),
                }
            }
        }
    }
    Ok(ExitCode::from(u8::from(report.faults > 0)))
}

fn this_machine(report: &mut Report, sidecar: &Sidecar) {
    match &sidecar.discovery_problem {
        None => report.ok("discovery", &format!("connected to {}", sidecar.discovery)),
        Some(problem) => report.fault(
            "discovery",
            &format!("{} is away: {problem}", sidecar.discovery),
            &["start it, or mend the way to it; open links go on meanwhile".to_owned()],
        ),
    }
    for Upstream {
        upstream, problem, ..
    } in &sidecar.upstreams
    {
        match problem {
            None => report.ok("upstream", upstream),
            Some(problem) => report.fault(
                "upstream",
                &format!("{upstream} cannot be used: {problem}"),
                &["correct `upstreams` or `upstream-trust-file` in dns-signal's configuration, or mend the way to it"
                    .to_owned()],
            ),
        }
    }
    for collision in &sidecar.collisions {
        report.fault(
            "virtual IPs",
            &format!(
                "the pool {} collides with the route {} on {}",
                collision.pool, collision.route, collision.interface
            ),
            &[
                "choose another `pool-ipv4` or `pool-ipv6` in dns-signal's configuration"
                    .to_owned(),
            ],
        );
    }
    if sidecar.collisions.is_empty() {
        report.ok(
            "virtual IPs",
            "no route of this machine collides with the pools",
        );
    }
    if !sidecar
        .relays
        .iter()
        .any(|relay| relay.network == sidecar.network)
    {
        report.fault(
            "relays",
            &format!(
                "`{}` has no relay: other networks' activators cannot be reached from here",
                sidecar.network
            ),
            &["add a [[relay]] for it to discovery's configuration".to_owned()],
        );
    }
}

fn activators(report: &mut Report, network: &str, sidecar: &Sidecar) {
    if sidecar.activators.is_empty() && network != sidecar.network {
        report.fault(
            network,
            "no activator is registered: none of its services can be reached",
            &[format!("start the activator in `{network}`")],
        );
    }
    for activator in &sidecar.activators {
        let services = sidecar.services.len();
        let here = activator
            .footholds
            .iter()
            .any(|foothold| foothold.network == sidecar.network);
        if here {
            let says = format!(
                "{} can be reached from here; services exported: {services}",
                activator.node
            );
            report.ok(network, &says);
        }
        troubles(report, activator);
        if !here && activator.troubles.is_empty() {
            let says = format!(
                "{} holds no allocation in `{}`",
                activator.node, sidecar.network
            );
            report.fault(network, &says, &["look at that activator's log".to_owned()]);
        }
    }
    let mut services = sidecar.services.iter();
    if let Some(service) = services.find(|service| !service.starts_with('*')) {
        resolver(report, &format!("{service}.{network}.{}", sidecar.suffix));
    }
}

fn troubles(report: &mut Report, activator: &Activator) {
    for trouble in &activator.troubles {
        let (what, remedy) = match trouble.kind {
            TroubleKind::Silent => (
                "gets no answer from",
                "start turn-relay there, or mend the way to it",
            ),
            TroubleKind::CredentialRefused => (
                "is refused (credentials) by",
                "give the relay and discovery the same secret",
            ),
            TroubleKind::Refused => (
                "is refused by",
                "`turn-relay doctor` on the relay's machine",
            ),
            _ => ("cannot use", "the activator's log says why"),
        };
        let says = format!(
            "{} {what} the relay `{}` of `{}`",
            activator.node, trouble.relay, trouble.network
        );
        report.fault("relays", &says, &[remedy.to_owned()]);
    }
}

/// Whether a workload that asks this machine's resolver gets to know the mesh's names.
fn resolver(report: &mut Report, name: &str) {
    match (name, 0).to_socket_addrs() {
        Ok(mut found) => {
            let first = found.next().map(|address| address.ip().to_string());
            report.ok(
                "resolver",
                &format!("{name} is {}", first.unwrap_or_default()),
            );
        }
        Err(error) => report.fault(
            "resolver",
            &format!("this machine does not resolve {name}: {error}"),
            &["point /etc/resolv.conf at an address of dns-signal's `dns.listen`".to_owned()],
        ),
    }
}
