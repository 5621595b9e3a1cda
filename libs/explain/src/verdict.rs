//! The verdict: one cause, and what else is worth knowing.
//!
//! Questions are asked in the order in which things are needed: a sidecar, a name, an address, discovery, an activator,
//! its consent, a path, a session, the service. The first that fails is the cause; later ones could only be its
//! consequences.

use serde::Serialize;

use crate::{
    facts::{
        Binding, Facts, Failure, FailureKind, IdentityProblemKind, Known, Link, Outcome, Probe,
        Rejected, Sidecar,
    },
    path,
};

/// What is wrong, or that nothing is; one word for machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the text of each finding says it")]
pub enum Code {
    Works,
    SidecarAway,
    CertificateExpired,
    ClockSkew,
    NotEnrolled,
    IdentityRefused,
    Configuration,
    NotOurs,
    PoolCollision,
    DiscoveryAway,
    NoSuchNetwork,
    ActivatorAway,
    NotExported,
    NameAbsent,
    PolicyRefused,
    ActivatorRefused,
    RelayDown,
    WrongSecret,
    RelayRefuses,
    NoFoothold,
    NotBelieved,
    UdpBlocked,
    NoSession,
    MtuHole,
    PortClosed,
    ServiceSilent,
    ServiceUnreachable,
    NotOpenYet,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// For machines.
    pub code: Code,
    /// One sentence.
    pub what: String,
    /// What to do, step by step; empty when there is nothing to do.
    pub remedy: Vec<String>,
}

impl Finding {
    pub(crate) fn new(code: Code, what: impl Into<String>, remedy: &[&str]) -> Self {
        Self {
            code,
            what: what.into(),
            remedy: remedy.iter().map(|step| (*step).to_owned()).collect(),
        }
    }
}

/// What the facts amount to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The cause, or that it works.
    pub cause: Finding,
    /// What else was found, not the cause.
    pub besides: Vec<Finding>,
}

impl Verdict {
    /// Whether the name can be used.
    #[must_use]
    pub fn works(&self) -> bool {
        self.cause.code == Code::Works
    }
}

/// Decides.
#[must_use]
pub fn judge(facts: &Facts) -> Verdict {
    let Some(sidecar) = &facts.sidecar else {
        return Verdict {
            cause: without_sidecar(facts),
            besides: Vec::new(),
        };
    };
    let cause = name(facts, sidecar)
        .or_else(|| consent(sidecar))
        .or_else(|| match &sidecar.link {
            Some(link) if link.open => Some(tunnel(facts, sidecar, link)),
            _ => None,
        })
        .unwrap_or_else(|| path::no_link(sidecar));
    // What the pool hides may be just what is needed: a relay, the network's own router.
    let hides = collision(sidecar).filter(|_| cause.code != Code::Works);
    let (cause, mut besides) = match hides {
        Some(collision) if cause.code != Code::PoolCollision => (collision, vec![cause]),
        _ => (cause, Vec::new()),
    };
    if let Some(away) = discovery_away(sidecar).filter(|_| cause.code != Code::DiscoveryAway) {
        besides.push(away);
    }
    if let Some(link) = sidecar.link.as_ref().filter(|_| cause.code == Code::Works) {
        besides.extend(mtu_hole(facts, link));
    }
    if let Some(collision) = collision(sidecar).filter(|_| cause.code != Code::PoolCollision) {
        besides.push(collision);
    }
    besides.extend(path::troubles(sidecar).filter(|trouble| trouble.code != cause.code));
    Verdict { cause, besides }
}

fn without_sidecar(facts: &Facts) -> Finding {
    let unasked = facts.unasked.as_deref().unwrap_or("it was not asked");
    let Some(identity) = &facts.identity else {
        let what = format!("dns-signal cannot be asked: {unasked}");
        return Finding::new(
            Code::SidecarAway,
            what,
            &[
                "start dns-signal on this machine, and read the last line of its log if it ends",
                "name its admin port with --admin, or its configuration with --config, if it listens elsewhere",
            ],
        );
    };
    let (code, what, first) = match identity.kind {
        IdentityProblemKind::Expired => (
            Code::CertificateExpired,
            "this node's certificate has expired",
            "make a token with `turnpike token create`, put it into join-token-file, and start dns-signal: \
             it enrolls anew under its old name",
        ),
        IdentityProblemKind::ClockSkew => (
            Code::ClockSkew,
            "this machine's clock is wrong",
            "set the clock (NTP), then start dns-signal again",
        ),
        IdentityProblemKind::NotEnrolled => (
            Code::NotEnrolled,
            "this node has never enrolled",
            "make a token with `turnpike token create`, put it into join-token-file, and start dns-signal",
        ),
        IdentityProblemKind::Refused => (
            Code::IdentityRefused,
            "discovery refuses this node",
            "ask who runs the mesh whether its certificate was revoked",
        ),
        IdentityProblemKind::Unusable => (
            Code::Configuration,
            "dns-signal's configuration cannot be used",
            "correct it as the line says, then start dns-signal again",
        ),
    };
    let what = format!("{what}: {}", identity.problem);
    let after = format!("dns-signal does not run until then ({unasked})");
    Finding::new(code, what, &[first, &after])
}

/// Whether the name stands for a service, and for addresses that lead to it.
fn name(facts: &Facts, sidecar: &Sidecar) -> Option<Finding> {
    let Sidecar {
        target, service, ..
    } = sidecar;
    match sidecar.known {
        Known::NotOurs => {
            let suffix = &sidecar.suffix;
            let what = format!("`{}` is not a name of the mesh", facts.name);
            let form = format!("use SERVICE.NETWORK or SERVICE.NETWORK.{suffix}");
            return Some(Finding::new(Code::NotOurs, what, &[&form]));
        }
        Known::NothingYet => {
            return Some(discovery_away(sidecar).unwrap_or_else(|| {
                Finding::new(
                    Code::NotEnrolled,
                    "this sidecar has not seen the directory yet",
                    &["ask again in a moment"],
                )
            }));
        }
        Known::NoSuchNetwork => return Some(no_activator(sidecar)),
        Known::NoSuchService => {
            let what = format!("`{target}` does not export a service `{service}`");
            let list = sidecar.services.join(", ");
            let known = format!("it exports: {list}; correct the name if it is one of these");
            let export = format!(
                "or add an [[export]] with name = \"{service}\" to the activator's configuration in `{target}`, and \
                 start it again"
            );
            return Some(Finding::new(Code::NotExported, what, &[&known, &export]));
        }
        Known::Absent => {
            let reason = sidecar.absent.as_deref().unwrap_or_default();
            return Some(name_absent(sidecar, reason));
        }
        Known::Exported => {}
    }
    collision(sidecar).filter(|_| sidecar.collisions[0].takes_over)
}

/// A wildcard covers the name, and its network's DNS knows of nothing there, or of nothing that may be reached.
fn name_absent(sidecar: &Sidecar, reason: &str) -> Finding {
    let Sidecar {
        target, service, ..
    } = sidecar;
    let reason = after(reason, "`: ");
    let what = format!("`{target}` has nothing under the name `{service}`: {reason}");
    let mend = if reason.contains("`within`") {
        format!(
            "if it shall be reached: add a prefix with its addresses to `within` of the wildcard's [[export]] in `{target}`, \
             and start the activator again; its log names the addresses"
        )
    } else if reason.contains("does not say") {
        format!(
            "look whether the resolvers of `{target}` answer its activator: `dns.servers`, or its /etc/resolv.conf"
        )
    } else {
        format!("or add it to the DNS of `{target}`, where the activator looks it up")
    };
    let again = "what was said is believed for a while; ask again in a minute at most";
    Finding::new(Code::NameAbsent, what, &["correct the name", &mend, again])
}

/// No activator is registered for a network that was named.
fn no_activator(sidecar: &Sidecar) -> Finding {
    let target = &sidecar.target;
    if let Some(finding) = sidecar.rejected.iter().find_map(disbelieved) {
        return finding;
    }
    let known = sidecar.relays.iter().any(|relay| relay.network == *target)
        || sidecar.networks.contains(target);
    if !known {
        let networks = sidecar.networks.join(", ");
        let list =
            format!("networks of the mesh: {networks}; correct the name if it is one of these");
        let what = format!("the mesh has no network `{target}`");
        let join = "or give the network a relay in discovery's configuration, and start an activator there";
        return Finding::new(Code::NoSuchNetwork, what, &[&list, join]);
    }
    // An old view may be wrong about who is there.
    if let Some(mut away) = discovery_away(sidecar) {
        away.remedy.push(format!(
            "no activator of `{target}` was registered when it was last seen"
        ));
        return away;
    }
    activator_away(target, "no activator of the network is registered")
}

pub(crate) fn activator_away(target: &str, why: &str) -> Finding {
    let what = format!("the activator of `{target}` is away: {why}");
    Finding::new(
        Code::ActivatorAway,
        what,
        &[
            &format!("start the activator in `{target}`; if it ends, its last log line says why"),
            "if it runs: its /status says whether it reaches discovery",
        ],
    )
}

/// What was not believed, by the reason that verification gave.
pub(crate) fn disbelieved(rejected: &Rejected) -> Option<Finding> {
    let Rejected { from, reason } = rejected;
    let (code, what) = if reason.contains("expired at") && reason.contains("certificate") {
        (Code::CertificateExpired, "its certificate has expired")
    } else if reason.contains("clock") {
        (Code::ClockSkew, "a clock is wrong, there or here")
    } else {
        (Code::NotBelieved, "what it says is not believed")
    };
    let remedy = match code {
        Code::CertificateExpired => {
            "look whether that node reaches discovery, where it renews its certificate; a new join token enrolls it anew"
        }
        Code::ClockSkew => {
            "set the clocks of both machines (NTP); 2 minutes of difference are tolerated"
        }
        _ => "look at that node's log; if nobody changed it, somebody in between alters documents",
    };
    let node = from.trim_start_matches("registration/");
    let what = format!("{node}: {what} ({reason})");
    Some(Finding::new(code, what, &[remedy]))
}

fn collision(sidecar: &Sidecar) -> Option<Finding> {
    let first = sidecar.collisions.first()?;
    let what = format!(
        "the pool of virtual IPs {} collides with the route {} of this machine (interface {})",
        first.pool, first.route, first.interface
    );
    Some(Finding::new(
        Code::PoolCollision,
        what,
        &[
            "choose another range, unused on this machine: `pool-ipv4` or `pool-ipv6` under [tunnel] in dns-signal's \
             configuration, and start it again",
            "workloads must ask for their names again afterwards: addresses change with the pool",
        ],
    ))
}

pub(crate) fn discovery_away(sidecar: &Sidecar) -> Option<Finding> {
    let problem = sidecar.discovery_problem.as_ref()?;
    let expired =
        problem.contains("certificate expired") || problem.contains("certificate has expired");
    if expired {
        let what = format!("this node's certificate has expired: {problem}");
        let remedy = "make a token with `turnpike token create`, put it into join-token-file, and start dns-signal again";
        return Some(Finding::new(Code::CertificateExpired, what, &[remedy]));
    }
    if problem.contains("clock") {
        let what = format!("a clock is wrong: {problem}");
        return Some(Finding::new(
            Code::ClockSkew,
            what,
            &["set this machine's clock and discovery's (NTP)"],
        ));
    }
    let what = format!("discovery at {} is away: {problem}", sidecar.discovery);
    Some(Finding::new(
        Code::DiscoveryAway,
        what,
        &[
            "start discovery, or mend the way to it; open links go on meanwhile, new ones need it",
            "nothing has to be restarted afterwards",
        ],
    ))
}

/// Whether the activator lets this node use the service.
fn consent(sidecar: &Sidecar) -> Option<Finding> {
    let refused = match &sidecar.link {
        Some(Link {
            binding: Binding::Refused(reason),
            node,
            ..
        }) => Some((node.as_str(), reason.as_str())),
        Some(_) => None,
        None => match &sidecar.last_failure {
            Some(Failure {
                kind: FailureKind::Refused,
                node,
                reason,
                ..
            }) => Some((node.as_deref().unwrap_or("the activator"), reason.as_str())),
            _ => None,
        },
    };
    let (node, reason) = refused?;
    if reason.contains("policy: ") {
        let what = format!(
            "{node} refuses this node by policy: {}",
            after(reason, "policy: ")
        );
        let allow = format!(
            "add `{}` to `allow` of the [[export]] in {node}'s configuration, if it should be allowed, and start it again",
            sidecar.network
        );
        return Some(Finding::new(Code::PolicyRefused, what, &[&allow]));
    }
    if reason.contains("name: `") {
        return Some(name_absent(sidecar, reason));
    }
    if reason.contains("unknown service") {
        let what = format!("{node} does not export `{}` any more", sidecar.service);
        return Some(Finding::new(
            Code::NotExported,
            what,
            &["ask again in a moment: the directory is about to say so too"],
        ));
    }
    if reason.contains("holds no allocation") {
        return Some(path::no_foothold(sidecar, node));
    }
    if let Some(disbelieved) = reason.split_once("not believed: ").and_then(|(_, reason)| {
        disbelieved(&Rejected {
            from: format!("{node} does not believe this node"),
            reason: reason.to_owned(),
        })
    }) {
        return Some(disbelieved);
    }
    let what = format!("{node} refuses: {reason}");
    Some(Finding::new(
        Code::ActivatorRefused,
        what,
        &["the reason is the activator's; its log has the same line"],
    ))
}

fn after<'a>(text: &'a str, mark: &str) -> &'a str {
    text.split_once(mark).map_or(text, |(_, rest)| rest)
}

/// The link is open: does the service answer?
fn tunnel(facts: &Facts, sidecar: &Sidecar, link: &Link) -> Finding {
    let service = format!("{}.{}", sidecar.service, sidecar.target);
    let refused = |outcome: &Outcome| facts.probes.iter().find(|probe| probe.outcome == *outcome);
    if let Some(hole) = mtu_hole(facts, link).filter(|_| !adapted(link)) {
        return hole;
    }
    if let Some(probe) = facts
        .probes
        .iter()
        .find(|probe| matches!(probe.outcome, Outcome::NotSent(_)))
    {
        let Outcome::NotSent(why) = &probe.outcome else {
            unreachable!("found as one")
        };
        let what = format!("this machine cannot send to {}: {why}", probe.address);
        return Finding::new(
            Code::PoolCollision,
            what,
            &["look at `ip route get` for this address: it must lead to dns-signal's interface"],
        );
    }
    if let Some(probe) = refused(&Outcome::Closed) {
        let what = format!(
            "the service's host has nothing listening on TCP port {}: it answers with a reset",
            probe.port
        );
        return Finding::new(
            Code::PortClosed,
            what,
            &[
                &format!(
                    "start the service behind `{service}`, or correct `tcp` and `addresses` of its [[export]]"
                ),
                "everything up to its host works: name, link and path",
            ],
        );
    }
    if let Some(probe) = refused(&Outcome::Unreachable) {
        let what = format!(
            "the activator cannot reach the service's host (TCP port {}): an ICMP error came back",
            probe.port
        );
        return Finding::new(
            Code::ServiceUnreachable,
            what,
            &[&format!(
                "start the host behind `{service}`, or correct `addresses` of its [[export]]"
            )],
        );
    }
    if let Some(probe) = refused(&Outcome::Silent) {
        let what = format!(
            "the service does not answer on TCP port {}: the link is open and nothing comes back",
            probe.port
        );
        return Finding::new(
            Code::ServiceSilent,
            what,
            &[
                "look for a firewall between the activator and the service: it must let in what comes from the activator",
                &format!(
                    "or correct `addresses` of the [[export]] of `{service}`: perhaps nobody has that address"
                ),
            ],
        );
    }
    if link.binding != Binding::Accepted {
        let what = format!(
            "{} has not said yet whether this node may use `{service}`",
            link.node
        );
        return Finding::new(Code::NotOpenYet, what, &["ask again in a moment"]);
    }
    let ports: Vec<String> = facts.probes.iter().map(port).collect();
    let over = link.path.as_deref().unwrap_or("?");
    let what = match ports.as_slice() {
        [] => format!(
            "{service} works: the link to {} is open ({over}); it has no TCP port to try",
            link.node
        ),
        ports => format!(
            "{service} works: TCP {} by {}, {over}",
            ports.join(", "),
            link.node
        ),
    };
    Finding::new(Code::Works, what, &[])
}

fn port(probe: &Probe) -> String {
    format!("{} in {:.1} ms", probe.port, probe.ms)
}

/// Whether the tunnel knows how much the path takes, and keeps TCP below it.
fn adapted(link: &Link) -> bool {
    link.carrier.as_deref() == Some("datagram") && !link.lane_silent
}

fn mtu_hole(facts: &Facts, link: &Link) -> Option<Finding> {
    let size = facts.full_size.as_ref()?;
    if size.long || !size.short {
        return None;
    }
    let path = link.path.as_deref().unwrap_or("?");
    let what = format!(
        "long packets disappear on the path ({path}): one of {} bytes did not come back, a short one did (an MTU hole)",
        size.bytes
    );
    let adapts = format!(
        "TCP goes on with packets of at most {} bytes meanwhile; long UDP datagrams are lost",
        link.mtu
    );
    let mut hole = Finding::new(Code::MtuHole, what, &MTU_REMEDY);
    if adapted(link) {
        hole.remedy.push(adapts);
    }
    Some(hole)
}

/// What to do about a path that swallows long packets.
pub(crate) const MTU_REMEDY: [&str; 2] = [
    "look for a link with a smaller MTU between this host, the relay and the activator (a VPN, PPPoE, an overlay), and let \
     ICMP \"fragmentation needed\" through there",
    "or raise that link's MTU to at least 1500; a path that takes less than 1250 is too narrow for the tunnel",
];
