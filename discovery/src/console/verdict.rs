//! What the directory can say about a service: whether others can reach it, and what is wrong. What only a sidecar knows
//! (its virtual IP, its link, the candidates) `turnpike explain` says there.

use serde::Serialize;

use super::picture::{Activator, Network, Service};

/// Renewed every 3 s; a lease of 10 s with less than this left was not.
const LEASE_IS_LATE: f64 = 4.0;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Bad,
    Warn,
    Ok,
    Note,
}

/// One thing about a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    pub(crate) text: String,
    /// What to do.
    pub(crate) remedy: Option<String>,
}

impl Finding {
    fn new(level: Level, text: String, remedy: &str) -> Self {
        let remedy = (!remedy.is_empty()).then(|| remedy.to_owned());
        Self {
            level,
            text,
            remedy,
        }
    }
}

/// The worst first; there is always one.
pub(crate) fn of(service: &Service, networks: &[Network]) -> Vec<Finding> {
    let exporters: Vec<&Activator> = networks
        .iter()
        .flat_map(|network| &network.activators)
        .filter(|activator| {
            let mut names = service.exporters.iter();
            names.any(|exporter| exporter.activator == activator.node)
        })
        .collect();
    let mut findings = Vec::new();
    ways(service, &exporters, networks, &mut findings);
    policy(service, &mut findings);
    for activator in &exporters {
        lease(activator, &mut findings);
    }
    if let [only] = exporters[..] {
        let text = format!(
            "Only {} exports it: when that is away, so is it.",
            only.node
        );
        let remedy = "install a second activator in this network, each with a token of its own";
        findings.push(Finding::new(Level::Note, text, remedy));
    }
    findings.sort_by_key(|finding| finding.level);
    findings
}

/// From which networks it can be reached through a relay.
fn ways(
    service: &Service,
    exporters: &[&Activator],
    networks: &[Network],
    findings: &mut Vec<Finding>,
) {
    let (mut reached, mut asked) = (Vec::new(), 0);
    for network in networks
        .iter()
        .filter(|other| other.name != service.network)
    {
        if network.workloads == 0 && network.relays.is_empty() {
            continue;
        }
        asked += 1;
        let has_foothold = |activator: &&Activator| {
            let mut footholds = activator.footholds.iter();
            footholds.any(|foothold| foothold.network == network.name)
        };
        if exporters.iter().any(has_foothold) {
            reached.push(network.name.as_str());
        } else {
            findings.push(no_way(network, exporters));
        }
    }
    let text = if !reached.is_empty() {
        let are = reached.join(", ");
        if reached.len() == asked {
            format!("Every other network has a way to it through a relay: {are}.")
        } else {
            format!("There is a way to it through a relay from {are}.")
        }
    } else if asked == 0 {
        "No other network has a relay or a workload yet.".to_owned()
    } else {
        return;
    };
    findings.push(Finding::new(Level::Ok, text, ""));
}

fn no_way(network: &Network, exporters: &[&Activator]) -> Finding {
    let name = &network.name;
    let trouble = exporters.iter().find_map(|activator| {
        let mut troubles = activator.troubles.iter();
        let trouble = troubles.find(|trouble| trouble.network == *name)?;
        Some((activator, trouble))
    });
    let (why, remedy) = match trouble {
        Some((activator, trouble)) => (
            format!(
                "{}, relay {}: {}",
                activator.node, trouble.relay, trouble.what
            ),
            trouble.remedy,
        ),
        None if network.relays.is_empty() => (
            "it has no relay".to_owned(),
            "add a relay of that network to discovery.toml",
        ),
        None => (
            "no activator that exports it holds an address on a relay there".to_owned(),
            "look at the log of its activators",
        ),
    };
    let text = format!("From {name} there is no way through a relay: {why}.");
    Finding::new(Level::Bad, text, remedy)
}

/// To whom it is open, as far as activators say.
fn policy(service: &Service, findings: &mut Vec<Finding>) {
    for exporter in &service.exporters {
        let name = &exporter.activator;
        if exporter.everyone == Some(false) && exporter.allow.is_empty() {
            let text = format!("The policy of {name} opens it to nobody.");
            let remedy =
                "give the export an `allow`, or set `default-allow`, in its activator.toml";
            findings.push(Finding::new(Level::Bad, text, remedy));
        }
    }
    let mut policies = service
        .exporters
        .iter()
        .filter_map(|exporter| Some((exporter.everyone?, &exporter.allow)));
    let first = policies.next();
    if first.is_some_and(|first| policies.any(|other| other != first)) {
        let text = "Its activators do not open it to the same workloads.".to_owned();
        let remedy = "give the export the same `allow` in each activator.toml";
        findings.push(Finding::new(Level::Warn, text, remedy));
    }
}

fn lease(activator: &Activator, findings: &mut Vec<Finding>) {
    if activator.lease_seconds < LEASE_IS_LATE {
        let text = format!(
            "{} is late: its lease ends in {:.0} s.",
            activator.node, activator.lease_seconds
        );
        let remedy = "it stopped, or does not reach discovery: look at its log";
        findings.push(Finding::new(Level::Warn, text, remedy));
    }
}

#[cfg(test)]
mod tests {
    use super::super::picture::{Exporter, Foothold, Relay, Trouble};
    use super::*;

    fn network(name: &str) -> Network {
        Network {
            name: name.into(),
            relays: vec![Relay {
                name: name.into(),
                urls: Vec::new(),
                holders: 0,
                troubled: 0,
            }],
            ..Network::default()
        }
    }

    /// `orders` of `east`, exported by `count` activators that hold an address on the relay of `west`.
    fn mesh(count: usize) -> (Service, Vec<Network>) {
        let mut service = Service {
            network: "east".into(),
            name: "orders".into(),
            ..Service::default()
        };
        let mut east = network("east");
        for number in 0..count {
            let node = format!("east/activator/gw-{number}");
            service.exporters.push(Exporter {
                activator: node.clone(),
                everyone: Some(true),
                allow: Vec::new(),
            });
            east.activators.push(Activator {
                node,
                lease_seconds: 9.0,
                footholds: vec![Foothold {
                    relay: "west".into(),
                    network: "west".into(),
                    addresses: Vec::new(),
                }],
                ..Activator::default()
            });
        }
        (service, vec![east, network("west")])
    }

    fn first(service: &Service, networks: &[Network]) -> (Level, String) {
        let finding = of(service, networks).remove(0);
        (finding.level, finding.text)
    }

    #[test]
    fn a_service_with_nothing_wrong_says_from_where() {
        let (service, networks) = mesh(2);
        let findings = of(&service, &networks);
        assert_eq!(findings.len(), 1, "{findings:?}");
        let expected = "Every other network has a way to it through a relay: west.";
        assert_eq!(first(&service, &networks), (Level::Ok, expected.into()));
    }

    #[test]
    fn a_relay_that_does_not_answer_is_named_first() {
        let (service, mut networks) = mesh(1);
        networks[0].activators[0].footholds.clear();
        networks[0].activators[0].troubles.push(Trouble {
            relay: "west".into(),
            network: "west".into(),
            what: "the relay does not answer it",
            remedy: "start it",
        });
        let (level, text) = first(&service, &networks);
        assert_eq!(level, Level::Bad);
        assert!(
            text.contains("west: the relay does not answer it"),
            "{text}"
        );
    }

    #[test]
    fn policies_that_open_it_to_nobody_or_differ_are_told() {
        let (mut service, networks) = mesh(2);
        service.exporters[0].everyone = Some(false);
        service.exporters[0].allow = vec!["west".into()];
        assert_eq!(first(&service, &networks).0, Level::Warn);
        service.exporters[0].allow.clear();
        let (level, text) = first(&service, &networks);
        assert_eq!(level, Level::Bad);
        assert!(text.contains("to nobody"), "{text}");
        // Who has not reported says nothing about its policy.
        service.exporters[0].everyone = None;
        assert_eq!(first(&service, &networks).0, Level::Ok);
    }

    #[test]
    fn an_activator_that_is_late_and_one_that_is_alone_are_told() {
        let (service, mut networks) = mesh(1);
        assert!(
            of(&service, &networks)
                .iter()
                .any(|f| f.level == Level::Note)
        );
        networks[0].activators[0].lease_seconds = 2.0;
        let (level, text) = first(&service, &networks);
        assert_eq!(level, Level::Warn);
        assert!(text.contains("ends in 2 s"), "{text}");
    }
}
