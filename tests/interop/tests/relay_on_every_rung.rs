//! Programs that are not ours, once on each way in which datagrams come and go (`io`): a coturn client, aioice, libnice and
//! Chromium. On the way that is chosen by itself, which is the first one here, they run in the other tests as well.

use anyhow::{Context as _, Result, ensure};
use browser::Chromium;
use interop::coturn::{Peer, uclient};
use interop::python::{Script, echoes};
use interop::relay::{Relay, USER};
use serde_json::json;
use turnpike_interop as interop;

const RUNGS: [&str; 4] = ["gso", "mmsg", "plain", "uring"];
const MESSAGES: u64 = 20;

fn coturn_client(relay: &Relay, _: &str) -> Result<()> {
    let peer = Peer::start("127.0.0.1".parse()?)?;
    let port = peer.address.port().to_string();
    let flags = ["-c", "-e", "127.0.0.1", "-r", &port, "-m", "2", "-n", "5"];
    let mut ended = uclient(40, relay.listen[0], &flags)?;
    if !ended.completed() {
        // It gives up early on a busy machine, and two of its random channel numbers may be the same.
        ended = uclient(40, relay.listen[0], &flags)?;
    }
    ensure!(ended.completed() && ended.sent == 10, "{}", ended.said);
    Ok(())
}

fn aioice(relay: &Relay, _: &str) -> Result<()> {
    echoes(
        relay,
        Script::Aioice,
        relay.listen[0],
        &["udp", "no"],
        MESSAGES,
    )
}

fn libnice(relay: &Relay, _: &str) -> Result<()> {
    echoes(relay, Script::Libnice, relay.listen[0], &["udp"], MESSAGES)
}

fn chromium(relay: &Relay, rung: &str) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let flags = ["--allow-loopback-in-peer-connection"];
    let mut browser = Chromium::start_here(directory.path(), &flags)?;
    browser.evaluate(include_str!("relayed_page.js"))?;
    let url = format!("turn:{}?transport=udp", relay.listen[0]);
    let server = json!({"urls": [url], "username": USER.0, "credential": USER.1});
    let kinds = browser.evaluate(&format!("relayed({server}, {MESSAGES})"))?;
    ensure!(kinds == json!(["relay udp"]), "{rung}: {kinds}");
    Ok(())
}

type Client = (&'static str, fn(&Relay, &str) -> Result<()>);

/// All rungs of one client, and its row.
fn runs_on_every_rung((name, run): Client) -> Result<()> {
    println!("| client | {} |\n|---|---|---|---|---|", RUNGS.join(" | "));
    let mut row = format!("| {name} |");
    for rung in RUNGS {
        let relay = Relay::start_with(&["--io", rung])?;
        run(&relay, rung).with_context(|| format!("{name} on {rung}"))?;
        // By its own count, and by the way it was told, and no other.
        relay.wait_for("relayed_packets_total{direction=\"to_client\"}", |count| {
            count > 0
        })?;
        ensure!(relay.io()? == rung, "it runs on {}", relay.io()?);
        let count = relay.metric("relayed_packets_total{direction=\"to_client\"}")?;
        row.push_str(&format!(" {count} packets |"));
    }
    println!("{row}");
    Ok(())
}

#[test]
fn the_coturn_client() -> Result<()> {
    runs_on_every_rung(("turnutils_uclient", coturn_client))
}

#[test]
fn aioice_of_python() -> Result<()> {
    runs_on_every_rung(("aioice", aioice))
}

#[test]
fn libnice_relay_only() -> Result<()> {
    runs_on_every_rung(("libnice", libnice))
}

#[test]
fn chromium_relay_only() -> Result<()> {
    runs_on_every_rung(("Chromium", chromium))
}
