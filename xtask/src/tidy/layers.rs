//! Who may depend on whom: words <- minds, words <- hands; shell uses all; services never import services.
use super::{Files, Problem};
use crate::workspace::Package;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    Words,
    Mind,
    Hand,
    Kit,
    Joint,
    Service,
    Proof,
}

const LAYERS: &[(&str, Layer)] = &[
    ("libs/model", Layer::Words),
    ("libs/wire", Layer::Words),
    ("libs/protocol", Layer::Words),
    ("libs/identity", Layer::Words),
    ("libs/link", Layer::Mind),
    ("libs/turn-client", Layer::Mind),
    ("libs/explain", Layer::Mind),
    ("turn-relay/proto", Layer::Mind),
    ("activator/proto", Layer::Mind),
    ("dns-signal/proto", Layer::Mind),
    ("libs/discovery-client", Layer::Hand),
    ("libs/net", Layer::Hand),
    ("libs/tun", Layer::Hand),
    ("libs/service-kit", Layer::Kit),
    ("libs/traces", Layer::Kit),
    ("libs/allocations", Layer::Joint),
    ("turn-relay", Layer::Service),
    ("activator", Layer::Service),
    ("dns-signal", Layer::Service),
    ("discovery", Layer::Service),
    ("turnpike", Layer::Service),
    ("tests/delay-box", Layer::Proof),
    ("tests/lab", Layer::Proof),
    ("tests/browser", Layer::Proof),
    ("tests/sim", Layer::Proof),
    ("tests/scenarios", Layer::Proof),
    ("tests/interop", Layer::Proof),
    ("tests/turn-load", Layer::Proof),
    ("tests/link-load", Layer::Proof),
    ("tests/fuzz", Layer::Proof),
    ("xtask", Layer::Proof),
];

/// Edges between layers that are forbidden, each with its reason.
const FORBIDDEN: [(Layer, &[Layer], &str); 6] = [
    (
        Layer::Words,
        &[
            Layer::Mind,
            Layer::Hand,
            Layer::Kit,
            Layer::Joint,
            Layer::Service,
            Layer::Proof,
        ],
        "words are what everyone speaks; they know nobody who speaks them",
    ),
    (
        Layer::Mind,
        &[
            Layer::Hand,
            Layer::Kit,
            Layer::Joint,
            Layer::Service,
            Layer::Proof,
        ],
        "a mind only thinks: input, output and time are handed to it",
    ),
    (
        Layer::Hand,
        &[
            Layer::Mind,
            Layer::Kit,
            Layer::Joint,
            Layer::Service,
            Layer::Proof,
        ],
        "a hand knows no state machine: hands and minds meet in a service's event loop",
    ),
    (
        Layer::Kit,
        &[Layer::Mind, Layer::Joint, Layer::Service, Layer::Proof],
        "the kit is the same for every service, so it knows none",
    ),
    (
        Layer::Joint,
        &[Layer::Kit, Layer::Joint, Layer::Service, Layer::Proof],
        "a joint is a part of several services' event loops: minds with their hands, and no more of a service",
    ),
    (
        Layer::Service,
        &[Layer::Service, Layer::Proof],
        "services meet on the wire, not in code",
    ),
];

/// Exceptions: who, whom, why.
const ALLOWED: [(&str, &str, &str); 1] = [(
    "turnpike",
    "tests/lab",
    "`turnpike lab` is the lab's command line",
)];

/// Crates of others that a mind must not use directly, each with its reason.
const NOT_IN_A_MIND: [(&str, &str); 12] = [
    ("tokio", "a runtime"),
    ("tokio-stream", "a runtime"),
    ("tokio-util", "a runtime"),
    ("futures-util", "a mind is polled by hand"),
    ("nix", "the kernel"),
    ("libc", "the kernel"),
    ("socket2", "sockets"),
    ("quinn-udp", "sockets"),
    ("getrandom", "the machine's randomness: a seed is passed in"),
    ("rand", "the machine's randomness: a seed is passed in"),
    (
        "prometheus-client",
        "an exporter: a mind has plain counters",
    ),
    ("tonic", "a transport"),
];

/// What a mind must not write, each with its reason.
const NOT_WRITTEN_IN_A_MIND: [(&str, &str); 9] = [
    ("Instant::now(", "a clock: `now` is passed in"),
    ("SystemTime::now(", "a clock: `now` is passed in"),
    ("UnixTime::now(", "a clock: `now` is passed in"),
    ("std::fs", "files"),
    ("std::thread", "threads"),
    ("std::env", "the environment"),
    ("UdpSocket", "sockets"),
    ("TcpStream", "sockets"),
    (
        "thread_rng",
        "the machine's randomness: a seed is passed in",
    ),
];

/// Crates of others that nothing of ours uses, each with its reason.
const NOWHERE: [(&str, &str); 4] = [
    ("ring", "there is one crypto back end: aws-lc-rs"),
    ("openssl", "there is one crypto back end: aws-lc-rs"),
    ("rustables", "GPL"),
    ("lazy_static", "std::sync::LazyLock does it"),
];

pub(super) fn check(files: &Files, members: &[&Package]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for package in members {
        let directory = package.directory();
        let Some(layer) = layer_of(&directory) else {
            problems.push(format!(
                "{directory}: which layer? Say it in xtask/src/tidy/layers.rs"
            ));
            continue;
        };
        for dependency in &package.dependencies {
            // Tests may use what they like.
            if dependency.kind.as_deref() == Some("dev") {
                continue;
            }
            let name = dependency.name.as_str();
            if let Some((_, reason)) = NOWHERE.iter().find(|(banned, _)| *banned == name) {
                problems.push(format!("{directory} uses {name}: {reason}"));
            }
            if layer == Layer::Mind
                && let Some((_, reason)) = NOT_IN_A_MIND.iter().find(|(banned, _)| *banned == name)
            {
                problems.push(format!("{directory} is a mind and uses {name}: {reason}"));
            }
            let Some(other) = members.iter().find(|member| member.name == name) else {
                continue;
            };
            problems.extend(forbidden_edge(&directory, layer, &other.directory()));
        }
        if layer == Layer::Mind {
            problems.extend(what_a_mind_writes(files, &directory));
        }
    }
    problems
}

fn layer_of(directory: &str) -> Option<Layer> {
    LAYERS
        .iter()
        .find(|(known, _)| *known == directory)
        .map(|&(_, layer)| layer)
}

fn forbidden_edge(from: &str, layer: Layer, to: &str) -> Option<Problem> {
    if ALLOWED
        .iter()
        .any(|&(who, whom, _)| (who, whom) == (from, to))
    {
        return None;
    }
    let other = layer_of(to)?;
    let rule = FORBIDDEN
        .iter()
        .find(|(who, whom, _)| *who == layer && whom.contains(&other));
    rule.map(|(_, _, reason)| format!("{from} must not depend on {to}: {reason}"))
        .or_else(|| foreign_mind(from, to))
}

/// The mind of a service belongs to that service alone.
fn foreign_mind(from: &str, to: &str) -> Option<Problem> {
    let owner = to.strip_suffix("/proto")?;
    (from != owner && !from.starts_with("tests/"))
        .then(|| format!("{from} must not depend on {to}: it is the mind of {owner}"))
}

fn what_a_mind_writes(files: &Files, directory: &str) -> Vec<Problem> {
    let prefix = format!("{directory}/src/");
    let sources = files.iter().filter(|(path, _)| path.starts_with(&prefix));
    let mut problems = Vec::new();
    for (path, text) in sources {
        if path.contains("tests") {
            continue;
        }
        for (index, line) in before_tests(text).enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for (written, reason) in NOT_WRITTEN_IN_A_MIND {
                if code.contains(written) {
                    let place = format!("{path}:{}", index + 1);
                    problems.push(format!("{place}: `{written}` in a mind: {reason}"));
                }
            }
        }
    }
    problems
}

/// The lines of a file down to its tests, which by habit are at its end.
fn before_tests(text: &str) -> impl Iterator<Item = &str> {
    let lines: Vec<_> = text.lines().collect();
    let begins = |index: &usize| {
        let mut rest = lines[*index..]
            .iter()
            .skip_while(|line| line.starts_with("#["));
        lines[*index] == "#[cfg(test)]"
            && rest
                .next()
                .is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
    };
    let end = (0..lines.len()).find(begins).unwrap_or(lines.len());
    lines.into_iter().take(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(from: &str, to: &str) -> Option<Problem> {
        forbidden_edge(from, layer_of(from).expect("a known crate"), to)
    }

    #[test]
    fn minds_and_hands_do_not_know_each_other_and_services_meet_on_the_wire() {
        assert!(edge("libs/link", "libs/net").is_some());
        assert!(edge("libs/net", "libs/link").is_some());
        assert!(edge("libs/wire", "libs/link").is_some());
        assert!(edge("activator", "dns-signal").is_some());
        assert!(edge("activator", "dns-signal/proto").is_some());
        assert!(edge("activator", "activator/proto").is_none());
        assert!(edge("libs/link", "libs/wire").is_none());
        assert!(edge("turnpike", "tests/lab").is_none());
        assert!(edge("discovery", "tests/lab").is_some());
    }

    #[test]
    fn tests_at_the_end_of_a_file_may_look_at_the_clock() {
        let text = "fn a() {}\n#[cfg(test)]\nmod more_tests;\nfn b() {}\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n}\n";
        assert_eq!(before_tests(text).last(), Some("fn b() {}"));
        assert_eq!(before_tests("a\nb").count(), 2);
    }
}
