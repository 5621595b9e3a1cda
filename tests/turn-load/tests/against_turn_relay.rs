//! The load generator against our relay, without it, and through its own forwarder: short runs, whose figures mean nothing.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use turnpike_interop::relay::{Relay, USER};

/// Runs it against a relay, and returns what it says.
fn turn_load(what: &str, server: &str, args: &[&str]) -> Result<Value> {
    let output = command(what, server, args).output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{what} {args:?}: {error}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn command(what: &str, server: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turn-load"));
    command
        .args([what, "--json", "--server", server])
        .args(["--user", USER.0])
        .args(["--client", "127.0.0.1"])
        .args(args);
    if !args.contains(&"--password") {
        command.args(["--password", USER.1]);
    }
    command
}

/// A short load at a rate that everyone keeps up with; all that is offered comes through but what is under way.
fn comes_through(server: &str, args: &[&str]) -> Result<Value> {
    let short = ["--warmup", "0.05", "--seconds", "0.2", "--rate", "4000"];
    let said = turn_load("load", server, &[&short, args].concat())?;
    let number = |name: &str| said[name].as_f64().context(name.to_owned());
    let (offered, delivered) = (
        number("offered_per_second")?,
        number("delivered_per_second")?,
    );
    ensure!(
        delivered > offered * 0.5,
        "{args:?}: {delivered} of {offered}"
    );
    Ok(said)
}

const LOADS: [&[&str]; 5] = [
    &["--direction", "client-to-peer", "--burst", "8"],
    &["--direction", "peer-to-client", "--burst", "8"],
    &[
        "--direction",
        "client-to-peer",
        "--flows",
        "5",
        "--sender",
        "plain",
        "--size",
        "120",
    ],
    &[
        "--direction",
        "peer-to-client",
        "--flows",
        "5",
        "--sender",
        "plain",
        "--size",
        "120",
    ],
    &[
        "--direction",
        "peer-to-client",
        "--flows",
        "3",
        "--size",
        "24",
        "--idle",
        "70",
    ],
];

#[test]
fn packets_come_through_the_relay_in_both_directions() -> Result<()> {
    let relay = Relay::start()?;
    let server = relay.listen[0].to_string();
    for load in LOADS {
        comes_through(&server, load)?;
    }
    // All was given back.
    relay.wait_for("allocations", |count| count == 0)
}

/// Users' packets per second, offered and delivered, and requests of strangers beside them.
#[derive(Debug)]
struct Phase {
    offered: f64,
    delivered: f64,
    flood: f64,
}

impl Phase {
    fn of(server: &str, direction: &str, flood: &[&str]) -> Result<Self> {
        // What the generator keeps up with in both phases.
        let load = ["--rate", "20000", "--burst", "32", "--size", "200"];
        let time = [
            "--direction",
            direction,
            "--warmup",
            "0.1",
            "--seconds",
            "0.5",
        ];
        let said = turn_load("load", server, &[&load[..], &time, flood].concat())?;
        let number = |name: &str| said[name].as_f64().context(name.to_owned());
        Ok(Self {
            offered: number("offered_per_second")?,
            delivered: number("delivered_per_second")?,
            flood: said["flood_per_second"].as_f64().unwrap_or(0.0),
        })
    }
}

/// 100 000 Allocates of strangers a second, from 2 048 prefixes. Of what is offered beside them as much is delivered as
/// without: all, where the machine is not too busy to offer it.
#[test]
fn strangers_who_flood_the_relay_take_nothing_from_its_users() -> Result<()> {
    const FLOOD: [&str; 2] = ["--flood", "100000"];
    let relay = Relay::start()?;
    let server = relay.listen[0].to_string();
    for direction in ["client-to-peer", "peer-to-client"] {
        // Others use this machine, too: once it has to go well, with a flood that is one.
        let mut went_well = false;
        for _ in 0..8 {
            let calm = Phase::of(&server, direction, &[])?;
            let flooded = Phase::of(&server, direction, &FLOOD)?;
            println!("{direction}: {calm:?}, then {flooded:?}");
            let share = |phase: &Phase| phase.delivered / phase.offered;
            went_well = share(&flooded) >= 0.9 * share(&calm);
            if went_well && flooded.flood >= 2.0 * flooded.offered {
                break;
            }
            went_well = false;
        }
        ensure!(went_well, "{direction}: users lost more than a tenth");
    }
    relay.wait_for("allocations", |count| count == 0)
}

#[test]
fn packets_come_through_the_forwarder_and_without_anything_between() -> Result<()> {
    let forwarder = Forwarder::start()?;
    for load in LOADS.into_iter().take(4) {
        let load = [load, &["--latency"]].concat();
        for way in ["--forwarder", "--direct"] {
            let said = comes_through(&forwarder.address, &[&load[..], &[way]].concat())?;
            ensure!(said["latency"]["p99"].as_f64() > Some(0.0), "{said}");
        }
    }
    Ok(())
}

#[test]
fn allocations_are_made_and_given_back_and_held() -> Result<()> {
    let relay = Relay::start()?;
    let server = relay.listen[0].to_string();
    let args = ["--sockets", "40", "--in-flight", "8", "--seconds", "2"];
    let said = turn_load("churn", &server, &args)?;
    ensure!(
        said["allocations_per_second"].as_f64() > Some(0.0),
        "{said}"
    );
    relay.wait_for("allocations", |count| count == 0)?;
    let said = turn_load("idle", &server, &["--count", "100"])?;
    ensure!(said["count"] == 100, "{said}");
    relay.wait_for("allocations", |count| count == 0)
}

#[test]
fn a_wrong_password_and_a_silent_server_are_errors() -> Result<()> {
    let relay = Relay::start()?;
    let server = relay.listen[0].to_string();
    let refused = command("load", &server, &["--password", "wrong"]).output()?;
    let error = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        !refused.status.success() && error.contains("credential"),
        "{error}"
    );
    // Bound, so that nobody else is there, and never read.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0")?;
    let refused = command("load", &silent.local_addr()?.to_string(), &[]).output()?;
    let error = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        !refused.status.success() && error.contains("silent"),
        "{error}"
    );
    Ok(())
}

/// Ends with its value.
struct Forwarder {
    child: Child,
    address: String,
}

impl Forwarder {
    fn start() -> Result<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_turn-load"))
            .args(["forward", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let output = child.stdout.take().context("piped")?;
        BufReader::new(output).read_line(&mut line)?;
        let address = line.trim().rsplit(' ').next().unwrap_or_default();
        Ok(Self {
            address: address.to_owned(),
            child,
        })
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
