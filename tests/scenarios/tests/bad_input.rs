//! Bad input ends in one line that names file, field, value and what to do, and in an exit code a supervisor can use:
//! 64 when the configuration is wrong and a restart cannot help, 1 otherwise.
use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Command, Output};

use lab::plan::Network;
use lab::process::FileKind;
use lab::{Lab, mesh};
use scenarios::{lab, options};

const CONFIG: i32 = 64;
const FAILURE: i32 = 1;
const TIMED_OUT: i32 = 124;

/// The error line of a program that must end by itself.
fn error_line(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_ne!(output.status.code(), Some(TIMED_OUT), "it went on: {said}");
    let lines: Vec<_> = said
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    assert_eq!(
        lines.len(),
        1,
        "one line that begins with `error: `: {said}"
    );
    assert!(!said.contains("panicked"), "{said}");
    lines[0].to_owned()
}

/// A configuration file of its own per case, in a directory that goes when this does.
struct Case {
    directory: PathBuf,
}

impl Case {
    fn new(name: &str) -> Self {
        let directory =
            std::env::temp_dir().join(format!("turnpike-bad-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        fs::write(
            directory.join("secret"),
            "0123456789abcdef0123456789abcdef\n",
        )
        .expect("a secret");
        Self { directory }
    }

    /// Runs a service with this configuration; `{dir}` stands for the case's directory.
    fn run(&self, program: &str, config: &str) -> Output {
        let directory = self.directory.display().to_string();
        let file = self.directory.join(format!("{program}.toml"));
        fs::write(&file, config.replace("{dir}", &directory)).expect("a configuration file");
        let program = options("none").binaries.join(program);
        let mut command = Command::new("timeout");
        command.arg("10").arg(program).arg("--config").arg(file);
        command.output().expect("it runs")
    }

    /// The same, for a configuration that is wrong: what the one line must contain.
    fn refuses(&self, program: &str, config: &str, expected: &[&str]) {
        let output = self.run(program, config);
        let line = error_line(&output);
        assert_eq!(output.status.code(), Some(CONFIG), "{program}: {line}");
        for part in expected.iter().chain([&program]) {
            assert!(line.contains(part), "{program}: `{part}` is not in: {line}");
        }
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

const RELAY: &str = r#"listen = ["udp://127.0.0.1:0"]
realm = "west"
auth-secret-files = ["{dir}/secret"]
relay-addresses = ["127.0.0.1"]
allow-peers = ["10.0.0.0/24"]
"#;
const NODE: &str = r#"network = "west"
discovery = "https://127.0.0.1:7400"
state-directory = "{dir}/state"
join-token-file = "{dir}/secret"
"#;
const DISCOVERY: &str = r#"listen = "127.0.0.1:0"
ca-certificate-file = "{dir}/absent-ca.pem"
ca-key-file = "{dir}/absent-ca-key.pem"
certificate-file = "{dir}/absent.pem"
key-file = "{dir}/absent-key.pem"
"#;

fn dns_signal(more: &str) -> String {
    format!("{NODE}[dns]\nlisten = [\"127.0.0.1:5353\"]\nupstreams = [\"127.0.0.1:53\"]\n{more}")
}

#[test]
fn an_unknown_key_is_refused_with_its_line() {
    let case = Case::new("unknown");
    for (program, config) in [
        ("turn-relay", RELAY.to_owned()),
        ("discovery", DISCOVERY.to_owned()),
        ("activator", NODE.to_owned()),
        ("dns-signal", dns_signal("")),
    ] {
        case.refuses(
            program,
            &format!("colour = \"red\"\n{config}"),
            &["colour", ".toml:1"],
        );
    }
}

#[test]
fn a_range_of_addresses_that_is_none_is_refused() {
    let case = Case::new("cidr");
    let relay = RELAY.replace("10.0.0.0/24", "10.0.0.0/33");
    case.refuses("turn-relay", &relay, &["allow-peers", "10.0.0.0/33"]);
    let activator = format!("{NODE}[tunnel]\nclient-pool-ipv4 = \"100.89.0.0/99\"\n");
    case.refuses(
        "activator",
        &activator,
        &["client-pool-ipv4", "100.89.0.0/99"],
    );
    let sidecar = dns_signal("[tunnel]\npool-ipv4 = \"198.18.0.0/99\"\n");
    case.refuses("dns-signal", &sidecar, &["pool-ipv4", "198.18.0.0/99"]);
}

#[test]
fn a_file_that_is_missing_is_named() {
    let case = Case::new("missing");
    let relay = RELAY.replace("{dir}/secret", "{dir}/absent");
    case.refuses("turn-relay", &relay, &["auth-secret-files", "/absent"]);
    case.refuses("discovery", DISCOVERY, &["absent-ca"]);
    for program in ["turn-relay", "discovery", "activator", "dns-signal"] {
        let mut command = Command::new("timeout");
        command
            .arg("10")
            .arg(options("none").binaries.join(program));
        let output = command
            .args(["--config", "/absent/there.toml"])
            .output()
            .expect("it runs");
        let line = error_line(&output);
        assert_eq!(output.status.code(), Some(CONFIG), "{program}: {line}");
        assert!(line.contains("/absent/there.toml"), "{program}: {line}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let case = Case::new("port");
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let output = case.run("turn-relay", &RELAY.replace("127.0.0.1:0", &address));
    let line = error_line(&output);
    assert!(
        matches!(output.status.code(), Some(CONFIG | FAILURE)),
        "{line}"
    );
    assert!(line.contains(&address) && line.contains("listen"), "{line}");
}

/// Starts a new activator in west with this token, its clock shifted, and gives back how it ended.
fn enrol(lab: &Lab, token: &str, clock: &str) -> Output {
    let state = lab.files().root().join("state/new");
    let _ = fs::remove_dir_all(state);
    let file = lab.files().of_process("west/activator", FileKind::Token);
    fs::write(file, token).expect("the token is written");
    let config = lab
        .files()
        .of_process("west/activator", FileKind::Config)
        .display()
        .to_string();
    let program = lab.binaries().join("activator").display().to_string();
    let command = [
        "timeout", "10", "faketime", "-f", clock, &program, "--config", &config,
    ];
    lab.exec("west/activator", &command).expect("it runs")
}

fn token(lab: &Lab, network: Network, more: &[&str]) -> String {
    let turnpike = lab.binaries().join("turnpike").display().to_string();
    let mesh = lab.files().mesh().display().to_string();
    mesh::create_token(&turnpike, &mesh, network, "activator", more).expect("a token")
}

fn fails(output: &Output, expected: &[&str]) {
    let line = error_line(output);
    assert!(
        matches!(output.status.code(), Some(CONFIG | FAILURE)),
        "{line}"
    );
    for part in expected {
        assert!(
            line.to_lowercase().contains(part),
            "`{part}` is not in: {line}"
        );
    }
}

#[test]
fn tokens_that_do_not_hold_and_clocks_that_differ_are_told_apart() {
    let lab = lab("bad1");
    lab.stop("west/activator").expect("it stops");
    // One that was never enrolled.
    lab.edit_config("west/activator", |text| {
        text.replace("state/west-activator", "state/new")
    })
    .expect("edited");
    let now = "+0";
    fails(&enrol(&lab, "no token at all", now), &["token"]);

    let good = token(&lab, Network::West, &["--uses", "1"]);
    let middle = good.len() / 2;
    let other = if good.as_bytes()[middle] == b'A' {
        "B"
    } else {
        "A"
    };
    let altered = format!("{}{other}{}", &good[..middle], &good[middle + 1..]);
    fails(&enrol(&lab, &altered, now), &["token"]);

    fails(
        &enrol(&lab, &token(&lab, Network::East, &[]), now),
        &["token", "east", "west"],
    );

    // Made two hours ago, for one.
    let turnpike = lab.binaries().join("turnpike").display().to_string();
    let mesh = lab.files().mesh().display().to_string();
    let create = [
        "token",
        "create",
        "--mesh-directory",
        &mesh,
        "--network",
        "west",
    ];
    let mut command = Command::new("faketime");
    command.args(["-f", "-7200", &turnpike]).args(create);
    let made = command
        .args(["--role", "activator", "--ttl", "1h"])
        .output()
        .expect("it runs");
    let expired = String::from_utf8_lossy(&made.stdout).trim().to_owned();
    fails(&enrol(&lab, &expired, now), &["token", "expired"]);

    for clock in ["+3600", "-3600"] {
        let output = enrol(&lab, &token(&lab, Network::West, &[]), clock);
        fails(&output, &["clock"]);
    }
}
