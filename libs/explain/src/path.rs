//! Why there is no link: footholds, relays, paths.

use crate::{
    facts::{Failure, FailureKind, Known, Rejected, Sidecar, Trouble, TroubleKind},
    verdict::{Code, Finding, MTU_REMEDY, activator_away, disbelieved, discovery_away},
};

/// No link is open to a network whose activators are known.
pub(crate) fn no_link(sidecar: &Sidecar) -> Finding {
    let Some(failure) = &sidecar.last_failure else {
        return discovery_away(sidecar)
            .or_else(|| first_trouble(sidecar))
            .unwrap_or_else(|| {
                let what = format!("the link to `{}` is not open yet", sidecar.target);
                Finding::new(Code::NotOpenYet, what, &["ask again in a moment"])
            });
    };
    let node = failure.node.as_deref().unwrap_or("the activator");
    match failure.kind {
        FailureKind::NotDelivered | FailureKind::NoAnswer | FailureKind::NoActivator => {
            if let Some(away) = discovery_away(sidecar) {
                return away;
            }
            if let Some(finding) = sidecar.rejected.iter().find_map(disbelieved) {
                return finding;
            }
            if let Some(trouble) = first_trouble(sidecar) {
                return trouble;
            }
            let why = format!("{node} is registered, and {}", failure.reason);
            activator_away(&sidecar.target, &why)
        }
        FailureKind::NotBelieved => {
            let (_, reason) = failure
                .reason
                .split_once("not believed: ")
                .unwrap_or(("", &failure.reason));
            let rejected = Rejected {
                from: node.to_owned(),
                reason: reason.to_owned(),
            };
            disbelieved(&rejected).unwrap_or_else(|| ended(node, failure))
        }
        FailureKind::NoPath => no_path(sidecar, node, failure),
        FailureKind::NoSession => no_session(node, failure),
        FailureKind::Refused | FailureKind::Ended | FailureKind::Local => ended(node, failure),
    }
}

fn ended(node: &str, failure: &Failure) -> Finding {
    let what = format!("the link to {node} did not open: {}", failure.reason);
    Finding::new(
        Code::NoSession,
        what,
        &["the activator's log has its side of it, under the same node's name"],
    )
}

fn no_session(node: &str, failure: &Failure) -> Finding {
    // Checks are a hundred bytes long, the handshake's longest message is a kilobyte.
    if failure.reason.contains("in time") {
        let what = format!(
            "a path to {node} was found, and longer packets disappear on it: the session did not open (an MTU hole)"
        );
        return Finding::new(Code::MtuHole, what, &MTU_REMEDY);
    }
    ended(node, failure)
}

fn no_path(sidecar: &Sidecar, node: &str, failure: &Failure) -> Finding {
    if let Some(trouble) = first_trouble(sidecar) {
        return trouble;
    }
    let relayed: Vec<&str> = relayed_here(sidecar).collect();
    if relayed.is_empty() {
        return no_foothold(sidecar, node);
    }
    let tried = failure.pairs.len();
    let to = relayed.join(", ");
    let what = format!(
        "UDP is blocked between this host and the relayed address ({to}): {tried} pairs of addresses were tried, none answered"
    );
    Finding::new(
        Code::UdpBlocked,
        what,
        &[
            "let UDP through between this host and the relay's inside address, ports of its `port-range` (49152-65535 \
             by default), both ways",
            "check that `allow-peers` of that relay contains this host's address",
        ],
    )
}

/// The activator has nothing to be reached by from here, and there is no direct way.
pub(crate) fn no_foothold(sidecar: &Sidecar, node: &str) -> Finding {
    first_trouble(sidecar).unwrap_or_else(|| {
        let network = &sidecar.network;
        let what = format!("{node} holds no allocation on a relay of `{network}`");
        let has_relay = sidecar.relays.iter().any(|relay| relay.network == *network);
        let remedy = if has_relay {
            "ask again in a moment: it may have started just now; then look at its log"
        } else {
            "this network has no relay: give it one, in discovery's configuration and beside it"
        };
        Finding::new(Code::NoFoothold, what, &[remedy])
    })
}

/// The target's relayed addresses in this network, those on relays with a trouble left out: they may be gone.
fn relayed_here(sidecar: &Sidecar) -> impl Iterator<Item = &str> {
    sidecar.activators.iter().flat_map(move |activator| {
        let sound = move |relay: &str| {
            activator
                .troubles
                .iter()
                .all(|trouble| trouble.relay != relay)
        };
        activator
            .footholds
            .iter()
            .filter(move |foothold| foothold.network == sidecar.network && sound(&foothold.relay))
            .flat_map(|foothold| foothold.relayed.iter().map(String::as_str))
    })
}

/// What keeps the target's activators off the relays of this network; nothing while one of them has a foothold here.
pub(crate) fn troubles(sidecar: &Sidecar) -> impl Iterator<Item = Finding> {
    sidecar
        .activators
        .iter()
        .filter(|activator| activator.exports || sidecar.known != Known::Exported)
        .flat_map(|activator| {
            let of_here = |trouble: &&Trouble| trouble.network == sidecar.network;
            activator
                .troubles
                .iter()
                .filter(of_here)
                .map(|trouble| describe(sidecar, &activator.node, trouble))
        })
}

fn first_trouble(sidecar: &Sidecar) -> Option<Finding> {
    if relayed_here(sidecar).next().is_some() {
        return None;
    }
    troubles(sidecar).next()
}

fn describe(sidecar: &Sidecar, node: &str, trouble: &Trouble) -> Finding {
    let Trouble {
        relay,
        network,
        kind,
    } = trouble;
    let url = sidecar
        .relays
        .iter()
        .find(|known| known.name == *relay)
        .map_or("?", |known| known.url.as_str());
    let (code, what, remedy) = match kind {
        TroubleKind::Silent => (
            Code::RelayDown,
            format!("the relay `{relay}` of `{network}` does not answer {node} ({url})"),
            [
                "start turn-relay there, or mend the way to it",
                "if it runs: let its port through the firewalls between the activator's network and the relay",
            ],
        ),
        TroubleKind::CredentialRefused => (
            Code::WrongSecret,
            format!(
                "the relay `{relay}` of `{network}` does not accept discovery's credentials: their secrets differ"
            ),
            [
                "make the relay's `auth-secret-files` and `auth-secret-file` of its [[relay]] in discovery's \
                 configuration hold the same text, and start the one that changed again",
                "if they are the same: compare the clocks of discovery and the relay, for credentials expire",
            ],
        ),
        TroubleKind::Refused => (
            Code::RelayRefuses,
            format!(
                "the relay `{relay}` of `{network}` answers {node} and does not allocate ({url})"
            ),
            [
                "look at the relay's log and its limits: quotas, `port-range`, `relay-addresses`",
                "`turn-relay doctor` there finds most of it",
            ],
        ),
        TroubleKind::NoAccess | TroubleKind::Unknown => (
            Code::NoFoothold,
            format!("{node} gets no access to the relay `{relay}` of `{network}` ({url})"),
            [
                "look at the activator's log: discovery gives no credential, or the relay's name has no address",
                "ask again when that is mended",
            ],
        ),
        TroubleKind::Unusable => (
            Code::NoFoothold,
            format!("{node} cannot use the URL of the relay `{relay}` of `{network}` ({url})"),
            [
                "correct `url` of this [[relay]] in discovery's configuration",
                "the activator's log says what is wrong with it",
            ],
        ),
    };
    Finding::new(code, what, &remedy)
}
