//! From facts to the cause, case by case.

#![allow(clippy::unwrap_used, reason = "a test may end so")]

use explain::{
    Code, Facts, Sidecar,
    facts::{
        Activator, Binding, Collision, Failure, FailureKind, Foothold, FullSize, IdentityProblem,
        IdentityProblemKind, Known, Link, Outcome, Probe, Rejected, Relay, Trouble, TroubleKind,
    },
    judge, text,
};

/// Everything as it is when it works.
fn working() -> Facts {
    let node = "east/activator/gw".to_owned();
    let relay = |name: &str| Relay {
        name: name.to_owned(),
        network: name.to_owned(),
        url: format!("turn:{name}.example:3478?transport=udp"),
    };
    Facts {
        name: "orders.east".to_owned(),
        sidecar: Some(Sidecar {
            node: "west/workload/app".to_owned(),
            network: "west".to_owned(),
            discovery: "https://d.example:7400".to_owned(),
            suffix: "mesh.internal".to_owned(),
            known: Known::Exported,
            service: "orders".to_owned(),
            target: "east".to_owned(),
            services: vec!["orders".to_owned()],
            networks: vec!["east".to_owned(), "west".to_owned()],
            relays: vec![relay("west"), relay("east")],
            activators: vec![Activator {
                node: node.clone(),
                exports: true,
                tcp: vec![8080],
                footholds: vec![Foothold {
                    relay: "west".to_owned(),
                    network: "west".to_owned(),
                    relayed: vec!["10.0.0.2:50000".to_owned()],
                }],
                ..Activator::default()
            }],
            virtual_ips: vec!["198.18.0.7".parse().unwrap()],
            link: Some(Link {
                node,
                open: true,
                path: Some("relay/udp".to_owned()),
                carrier: Some("datagram".to_owned()),
                binding: Binding::Accepted,
                mtu: 1_400,
                ..Link::default()
            }),
            ..Sidecar::default()
        }),
        probes: vec![probe(Outcome::Open)],
        ..Facts::default()
    }
}

fn probe(outcome: Outcome) -> Probe {
    Probe {
        address: "198.18.0.7".parse().unwrap(),
        port: 8080,
        outcome,
        ms: 1.5,
    }
}

fn sidecar(change: impl FnOnce(&mut Sidecar)) -> Facts {
    let mut facts = working();
    change(facts.sidecar.as_mut().unwrap());
    facts
}

/// No link, and how the last attempt ended.
fn failed(kind: FailureKind, reason: &str) -> Facts {
    sidecar(|sidecar| {
        sidecar.link = None;
        sidecar.failures = 1;
        sidecar.last_failure = Some(Failure {
            kind,
            node: Some("east/activator/gw".to_owned()),
            reason: reason.to_owned(),
            seconds_ago: 0.1,
            steps: Vec::new(),
            pairs: Vec::new(),
        });
    })
}

fn with(mut facts: Facts, change: impl FnOnce(&mut Sidecar)) -> Facts {
    change(facts.sidecar.as_mut().unwrap());
    facts
}

fn trouble(kind: TroubleKind) -> impl FnOnce(&mut Sidecar) {
    move |sidecar| {
        let activator = &mut sidecar.activators[0];
        activator.troubles = vec![Trouble {
            relay: "west".to_owned(),
            network: "west".to_owned(),
            kind,
        }];
    }
}

fn unasked(kind: Option<IdentityProblemKind>) -> Facts {
    Facts {
        name: "orders.east".to_owned(),
        unasked: Some("connection refused".to_owned()),
        identity: kind.map(|kind| IdentityProblem {
            kind,
            problem: "so it is".to_owned(),
        }),
        ..Facts::default()
    }
}

fn known(known: Known) -> Facts {
    sidecar(|sidecar| {
        sidecar.known = known;
        sidecar.link = None;
    })
}

fn rejected(reason: &str) -> Facts {
    with(known(Known::NoSuchNetwork), |sidecar| {
        sidecar.rejected = vec![Rejected {
            from: "registration/east/gw".to_owned(),
            reason: reason.to_owned(),
        }];
    })
}

fn collides(takes_over: bool) -> impl FnOnce(&mut Sidecar) {
    move |sidecar| {
        sidecar.collisions = vec![Collision {
            pool: "198.18.0.0/15".to_owned(),
            route: "198.18.0.0/16".to_owned(),
            interface: "lan".to_owned(),
            takes_over,
        }];
    }
}

const CLOCK: &str = "it was issued at 2 and it is 1: a clock is wrong; check both nodes' clocks";
const EXPIRED: &str = "its certificate expired at 1 and it is 2: the node has not renewed it";
const NO_FOOTHOLD: &str =
    "the activator refused: this activator holds no allocation in network `west` now";
const POLICY: &str = "policy: `orders` is not open to workloads of network `west`";

#[test]
fn each_fault_has_its_cause() {
    use FailureKind as F;
    let refused = |reason: &str| failed(F::Refused, reason);
    let away = |facts: Facts| {
        with(facts, |sidecar| {
            sidecar.discovery_problem = Some("connection refused".to_owned());
        })
    };
    let probed = |outcome| Facts {
        probes: vec![probe(outcome)],
        ..working()
    };
    let swallowed = |carrier: &str| Facts {
        full_size: Some(FullSize {
            short: true,
            long: false,
            bytes: 1_400,
        }),
        ..sidecar(|sidecar| {
            sidecar.link.as_mut().unwrap().carrier = Some(carrier.to_owned());
        })
    };
    let table: Vec<(Facts, Code, &str)> = vec![
        (working(), Code::Works, "orders.east works"),
        (
            unasked(None),
            Code::SidecarAway,
            "dns-signal cannot be asked",
        ),
        (
            unasked(Some(IdentityProblemKind::Expired)),
            Code::CertificateExpired,
            "certificate has expired",
        ),
        (
            unasked(Some(IdentityProblemKind::ClockSkew)),
            Code::ClockSkew,
            "clock is wrong",
        ),
        (
            unasked(Some(IdentityProblemKind::NotEnrolled)),
            Code::NotEnrolled,
            "never enrolled",
        ),
        (
            unasked(Some(IdentityProblemKind::Refused)),
            Code::IdentityRefused,
            "refuses this node",
        ),
        (
            unasked(Some(IdentityProblemKind::Unusable)),
            Code::Configuration,
            "configuration",
        ),
        (
            known(Known::NotOurs),
            Code::NotOurs,
            "not a name of the mesh",
        ),
        (
            known(Known::NoSuchService),
            Code::NotExported,
            "does not export a service `orders`",
        ),
        (
            with(known(Known::Absent), |sidecar| {
                sidecar.absent = Some("name: `api.prod`: DNS has no address for it".to_owned())
            }),
            Code::NameAbsent,
            "`east` has nothing under the name `orders`: DNS has no address for it",
        ),
        (
            sidecar(|sidecar| {
                let link = sidecar.link.as_mut().unwrap();
                let reason = "name: `orders`: not `within` what the export allows";
                link.binding = Binding::Refused(reason.to_owned());
            }),
            Code::NameAbsent,
            "nothing under the name `orders`: not `within` what the export allows",
        ),
        (
            known(Known::NoSuchNetwork),
            Code::ActivatorAway,
            "the activator of `east` is away",
        ),
        (
            with(known(Known::NoSuchNetwork), |sidecar| {
                sidecar.target = "north".to_owned()
            }),
            Code::NoSuchNetwork,
            "no network `north`",
        ),
        (
            away(known(Known::NothingYet)),
            Code::DiscoveryAway,
            "discovery at https://d.example:7400 is away",
        ),
        (
            away(known(Known::NoSuchNetwork)),
            Code::DiscoveryAway,
            "discovery at",
        ),
        (
            rejected(CLOCK),
            Code::ClockSkew,
            "east/gw: a clock is wrong",
        ),
        (
            rejected(EXPIRED),
            Code::CertificateExpired,
            "east/gw: its certificate has expired",
        ),
        (
            rejected("its signature is wrong"),
            Code::NotBelieved,
            "not believed",
        ),
        (
            with(working(), collides(true)),
            Code::PoolCollision,
            "198.18.0.0/16",
        ),
        (
            with(working(), collides(false)),
            Code::Works,
            "orders.east works",
        ),
        (
            with(failed(F::NoPath, ""), collides(false)),
            Code::PoolCollision,
            "198.18.0.0/16",
        ),
        (
            refused(&format!("the activator refused: {POLICY}")),
            Code::PolicyRefused,
            "by policy: `orders`",
        ),
        (
            sidecar(|sidecar| {
                sidecar.link.as_mut().unwrap().binding = Binding::Refused(POLICY.to_owned());
            }),
            Code::PolicyRefused,
            "by policy: `orders`",
        ),
        (
            refused("the activator refused: it is full"),
            Code::ActivatorRefused,
            "it is full",
        ),
        (refused(NO_FOOTHOLD), Code::NoFoothold, "no allocation"),
        (
            with(refused(NO_FOOTHOLD), trouble(TroubleKind::Silent)),
            Code::RelayDown,
            "the relay `west`",
        ),
        (
            with(
                refused(NO_FOOTHOLD),
                trouble(TroubleKind::CredentialRefused),
            ),
            Code::WrongSecret,
            "secrets differ",
        ),
        (
            with(refused(NO_FOOTHOLD), trouble(TroubleKind::Refused)),
            Code::RelayRefuses,
            "does not allocate",
        ),
        (
            with(
                failed(F::NoPath, ""),
                trouble(TroubleKind::CredentialRefused),
            ),
            Code::WrongSecret,
            "secrets differ",
        ),
        (failed(F::NoPath, ""), Code::UdpBlocked, "UDP is blocked"),
        (
            failed(F::NoAnswer, "no answer"),
            Code::ActivatorAway,
            "is registered, and no answer",
        ),
        (
            away(failed(F::NoAnswer, "no answer")),
            Code::DiscoveryAway,
            "discovery at",
        ),
        (
            away(failed(F::NotDelivered, "away")),
            Code::DiscoveryAway,
            "discovery at",
        ),
        (
            failed(
                F::NotBelieved,
                &format!("the peer's document was not believed: {CLOCK}"),
            ),
            Code::ClockSkew,
            "a clock is wrong",
        ),
        (
            refused(&format!(
                "the activator refused: the document was not believed: {CLOCK}"
            )),
            Code::ClockSkew,
            "a clock is wrong",
        ),
        (
            failed(
                F::NoSession,
                "the session did not open in time after a path",
            ),
            Code::MtuHole,
            "MTU hole",
        ),
        (
            failed(F::NoSession, "DTLS failed"),
            Code::NoSession,
            "DTLS failed",
        ),
        (
            swallowed("data-channel"),
            Code::MtuHole,
            "1400 bytes did not come back",
        ),
        (swallowed("datagram"), Code::Works, "orders.east works"),
        (probed(Outcome::Closed), Code::PortClosed, "TCP port 8080"),
        (
            probed(Outcome::Silent),
            Code::ServiceSilent,
            "TCP port 8080",
        ),
        (
            probed(Outcome::Unreachable),
            Code::ServiceUnreachable,
            "TCP port 8080",
        ),
        (away(working()), Code::Works, "orders.east works"),
    ];
    for (number, (facts, code, part)) in table.into_iter().enumerate() {
        let verdict = judge(&facts);
        let said = text(&facts, &verdict);
        let first = said.lines().next().unwrap();
        assert_eq!(verdict.cause.code, code, "case {number}: {said}");
        assert!(
            first.contains(part),
            "case {number}: `{part}` is not in {first}"
        );
        assert_eq!(
            verdict.works(),
            verdict.cause.remedy.is_empty(),
            "case {number}: what to do stands below a fault, and only there"
        );
    }
}

#[test]
fn what_is_not_the_cause_is_said_besides() {
    let facts = with(working(), |sidecar| {
        sidecar.discovery_problem = Some("connection refused".to_owned());
        collides(false)(sidecar);
        trouble(TroubleKind::Silent)(sidecar);
    });
    let codes: Vec<Code> = judge(&facts).besides.iter().map(|it| it.code).collect();
    assert_eq!(
        codes,
        [Code::DiscoveryAway, Code::PoolCollision, Code::RelayDown]
    );
}

#[test]
fn another_sound_relay_keeps_a_trouble_from_being_the_cause() {
    let facts = with(failed(FailureKind::NoPath, ""), |sidecar| {
        trouble(TroubleKind::Silent)(sidecar);
        sidecar.activators[0].footholds.push(Foothold {
            relay: "west-2".to_owned(),
            network: "west".to_owned(),
            relayed: vec!["10.0.0.9:50000".to_owned()],
        });
    });
    let verdict = judge(&facts);
    assert_eq!(verdict.cause.code, Code::UdpBlocked);
    assert!(verdict.cause.what.contains("10.0.0.9:50000"));
}
