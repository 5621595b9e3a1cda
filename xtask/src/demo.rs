//! `cargo xtask demo`: what Turnpike is for, once, with everything it did written down.
use std::env;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use lab::plan::HTTP_PORT;
use lab::{Lab, LabOptions, Network, wait};
use serde_json::Value;

use crate::{build, packages, shell};

const CALLER: Network = Network::West;
const STATUS_DEADLINE: Duration = Duration::from_secs(3);

pub(crate) fn run(name: &str, keep: bool) -> Result<()> {
    packages::ensure_root("the demo")?;
    packages::ensure_installed(&[packages::FOR_LAB])?;
    let binaries = build::release_binaries()?;
    let begin = Instant::now();
    shell::heading("Bringing the lab up");
    Lab::remove(name)?;
    let options = LabOptions {
        binaries,
        progress: |line| eprintln!("   {line}"),
        ..LabOptions::new(name)
    };
    let lab = Lab::up(&options)?;
    let shown = show(&lab);
    if keep {
        println!("\nThe lab is left up. Try:");
        let turnpike = options.binaries.join("turnpike");
        let turnpike = shortened(&turnpike.display().to_string());
        println!(
            "   {turnpike} lab exec --name {name} west/app -- curl http://orders.east.mesh.internal:8080/"
        );
        println!("   {turnpike} lab status --name {name}");
        println!("   {turnpike} lab down --name {name}");
    } else {
        lab.down()?;
    }
    shown?;
    println!(
        "\nAll of it, without the build, took {:.1} s.",
        begin.elapsed().as_secs_f64()
    );
    Ok(())
}

/// A path below the current directory, as one would type it.
fn shortened(path: &str) -> String {
    let current = env::current_dir().map(|path| format!("{}/", path.display()));
    current
        .ok()
        .and_then(|prefix| path.strip_prefix(&prefix))
        .unwrap_or(path)
        .to_owned()
}

fn show(lab: &Lab) -> Result<()> {
    let callee = CALLER.other();
    let name = callee.service_name();
    let url = format!("http://{name}:{HTTP_PORT}/");
    let process = format!("{CALLER}/dns-signal");
    let before = lab.relay_bytes(CALLER)?;
    shell::heading(&format!("In {CALLER}/app: curl {url}"));
    // DNS, TCP, first byte: milliseconds since curl started, behind the page and a line of its own.
    let timing = "\n%{time_namelookup} %{time_connect} %{time_starttransfer} %{remote_ip}";
    let output = lab.output(
        &format!("{CALLER}/app"),
        &["curl", "-sS", "-m", "20", "-w", timing, &url],
    )?;
    let (page, timing) = output
        .rsplit_once('\n')
        .context("curl's own times are missing")?;
    println!("   {}", page.trim());

    let link = wait::until(
        "dns-signal's /status to show the link",
        STATUS_DEADLINE,
        || {
            let status = lab.node_status(&process)?;
            let links = status["links"].as_array().cloned().unwrap_or_default();
            Ok(links.into_iter().find(|link| step(link, "open").is_some()))
        },
    )?;
    print_steps(&link, &name, timing, callee);
    let relayed = wait::until("the relay to count the bytes", STATUS_DEADLINE, || {
        let relayed = lab.relay_bytes(CALLER)?.saturating_sub(before);
        Ok((relayed > 0).then_some(relayed))
    })
    .context("the bytes took another way")?;
    let path = link["path"].as_str().unwrap_or("unknown");
    println!("\n   path: {path}");
    println!("   {CALLER}'s relay carried {relayed} bytes, by its own count");
    Ok(())
}

fn step(link: &Value, name: &str) -> Option<f64> {
    let steps = link["steps"].as_array()?;
    steps
        .iter()
        .find(|step| step["step"] == name)
        .and_then(|step| step["ms"].as_f64())
}

fn print_steps(link: &Value, name: &str, timing: &str, callee: Network) {
    let mut times = timing.split(' ');
    let mut next = || times.next().unwrap_or_default().to_owned();
    let (dns, connect, first, address) = (next(), next(), next(), next());
    let meanings = [
        ("dns_answer", format!("DNS answer: {name} is {address}")),
        (
            "offer_sent",
            format!("offer, signed, left for {callee}'s activator through discovery"),
        ),
        (
            "answer_received",
            "answer, signed, came back: the relayed address to use".to_owned(),
        ),
        (
            "ice_connected",
            "ICE connected: a path through the relay works".to_owned(),
        ),
        (
            "dtls_connected",
            "DTLS connected, with the certificates that were signed".to_owned(),
        ),
        ("open", "data channel open: queued packets flow".to_owned()),
        (
            "first_byte",
            "first byte came back through the link".to_owned(),
        ),
    ];
    println!("\n   milliseconds since dns-signal was asked for the name:");
    for (key, meaning) in meanings {
        match step(link, key) {
            Some(ms) => println!("   {ms:8.1}  {meaning}"),
            None => println!("          -  {meaning} (not recorded)"),
        }
    }
    let ms = |seconds: &str| seconds.parse::<f64>().unwrap_or_default() * 1000.0;
    println!("\n   milliseconds since curl was started:");
    println!("   {:8.1}  name resolved", ms(&dns));
    println!("   {:8.1}  TCP connected", ms(&connect));
    println!("   {:8.1}  first byte of the page", ms(&first));
}
