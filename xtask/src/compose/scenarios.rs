//! What `compose.yaml` promises a tester.
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::wait;

use super::project::Project;
use crate::workspace::target_directory;

/// A name that is a sentence, and the scenario.
type Scenario = (&'static str, fn(&Project<'_>) -> Result<()>);

pub(super) const ALL: [Scenario; 10] = [
    ("networks_reach_each_other_by_name_and_only_so", reach),
    ("names_outside_of_the_mesh_keep_resolving", other_names),
    ("the_console_shows_it_in_a_browser", console),
    (
        "programs_hold_no_privilege_that_they_do_not_need",
        privileges,
    ),
    (
        "a_relay_that_was_killed_is_used_again_within_15_s",
        relay_killed,
    ),
    (
        "an_activator_that_was_killed_answers_again_within_15_s",
        activator_killed,
    ),
    (
        "without_udp_a_network_is_not_reached_and_then_again",
        udp_blocked,
    ),
    (
        "a_lost_relay_cuts_its_network_off_from_others_only_one_way",
        relay_lost,
    ),
    (
        "a_lost_activator_takes_only_its_network_away",
        activator_lost,
    ),
    (
        "two_workloads_with_one_address_talk_to_each_other",
        same_addresses,
    ),
];

/// Profiles that are one container each, which breaks something for as long as it runs.
pub(super) const FAULTS: [&str; 3] = ["udp-blocked", "relay-lost", "activator-lost"];

/// How soon everything works again.
const RECOVERY: Duration = Duration::from_secs(15);
/// How long a fault may take until it shows.
const ONSET: Duration = Duration::from_secs(15);
/// Bytes fetched to see them pass.
const LENGTH: usize = 1_000_000;
const RELAYED: &str = "turn_relay_relayed_bytes_total";

/// A network, and the service it exports.
type Network = (&'static str, &'static str);
const WEST: Network = ("west", "billing");
const EAST: Network = ("east", "orders");
const NORTH: Network = ("north", "stock");
const NETWORKS: [Network; 3] = [WEST, EAST, NORTH];

fn url((network, service): Network, path: &str) -> String {
    format!("http://{service}.{network}.mesh.internal:8080{path}")
}

/// One request from a network's app to the service of another: whether the right one answered, or curl's complaint.
fn ask(
    project: &Project<'_>,
    from: Network,
    to: Network,
) -> Result<std::result::Result<(), String>> {
    let url = url(to, "/");
    let curl = ["curl", "-sS", "--max-time", "3", &url];
    let answer = project.try_exec(&format!("{}-app", from.0), &curl)?;
    match answer {
        Ok(page) => {
            let expected = format!("{}-{}", to.0, to.1);
            ensure!(page.contains(&expected), "{url} answered `{}`", page.trim());
            Ok(Ok(()))
        }
        Err(complaint) => Ok(Err(complaint)),
    }
}

fn answers(project: &Project<'_>, from: Network, to: Network, within: Duration) -> Result<()> {
    let what = format!("{} to reach {}", from.0, url(to, "/"));
    wait::until(&what, within, || match ask(project, from, to)? {
        Ok(()) => Ok(Some(())),
        Err(complaint) => anyhow::bail!(complaint),
    })
}

fn fails(project: &Project<'_>, from: Network, to: Network) -> Result<()> {
    let what = format!("{} not to reach {}", from.0, url(to, "/"));
    wait::until_true(&what, ONSET, || Ok(ask(project, from, to)?.is_err()))
}

/// What a network's relay has carried, in both directions.
fn relayed(project: &Project<'_>, network: Network) -> Result<usize> {
    let curl = ["curl", "-fsS", "http://127.0.0.1:9101/metrics"];
    let text = project.exec(&format!("{}-relay", network.0), &curl)?;
    let values = text.lines().filter(|line| line.starts_with(RELAYED));
    let values = values.map(|line| {
        let value = line.rsplit(' ').next().unwrap_or_default();
        value.parse::<usize>().context(line.to_owned())
    });
    let values: Vec<_> = values.collect::<Result<_>>()?;
    ensure!(!values.is_empty(), "the relay has no metric {RELAYED}");
    Ok(values.into_iter().sum())
}

fn reach(project: &Project<'_>) -> Result<()> {
    for from in NETWORKS {
        for to in NETWORKS {
            if from == to {
                continue;
            }
            answers(project, from, to, RECOVERY)?;
            let app = format!("{}-app", from.0);
            let before = relayed(project, from)?;
            let (fetched, url) = ("%{size_download}", url(to, &format!("/bytes/{LENGTH}")));
            let curl = [
                "curl",
                "-sS",
                "-o",
                "/dev/null",
                "-w",
                fetched,
                "--max-time",
                "20",
                &url,
            ];
            let size = project.exec(&app, &curl)?;
            ensure!(size == LENGTH.to_string(), "{url} gave {size} bytes");
            let carried = relayed(project, from)? - before;
            ensure!(
                carried >= LENGTH,
                "{}'s relay carried {carried} bytes of {LENGTH}",
                from.0
            );
        }
    }
    // By its address a service of another network is not there.
    let direct = ["curl", "-sS", "--max-time", "2", "http://10.2.0.20:8080/"];
    let answer = project.try_exec("west-app", &direct)?;
    ensure!(answer.is_err(), "west reaches 10.2.0.20 without the mesh");
    Ok(())
}

fn other_names(project: &Project<'_>) -> Result<()> {
    let found = project.exec("west-app", &["getent", "hosts", "west-router"])?;
    ensure!(found.starts_with("10.1.0.1 "), "west-router is {found}");
    let absent = ["getent", "hosts", "nothing.east.mesh.internal"];
    let answer = project.try_exec("west-app", &absent)?;
    ensure!(answer.is_err(), "{} exists: {answer:?}", absent[2]);
    Ok(())
}

/// In Chromium, as a tester has it on the machine of the engine. The picture is left in the target directory.
fn console(project: &Project<'_>) -> Result<()> {
    answers(project, WEST, EAST, RECOVERY)?;
    let directory = target_directory()?.join("compose/console");
    fs::create_dir_all(&directory)?;
    let mut browser = project.browser(&directory)?;
    browser.set_screen((1280, 900), false)?;
    browser.open("http://127.0.0.1:9105/")?;
    for shown in [
        "document.querySelectorAll('.island').length === 3",
        "document.querySelectorAll('table[aria-label=Services] tbody tr').length >= 3",
        "!!document.querySelector('.map g.relay')",
        "document.querySelector('table[aria-label=Links]').innerText.includes('west/workload/')",
    ] {
        wait::until_true(shown, RECOVERY, || Ok(browser.evaluate(shown)? == true))?;
    }
    browser.screenshot(&directory.join("overview.png"))
}

/// `/proc/*/status` shows the programs' capabilities as a bit mask.
fn privileges(project: &Project<'_>) -> Result<()> {
    for (service, program, expected) in [
        ("discovery", "discovery", 0),
        ("west-relay", "turn-relay", 0),
        ("west-billing", "lab-service", 0),
        ("west-app", "sleep", 0),
        ("west-activator", "activator", 1 << 12),
        ("west-sidecar", "dns-signal", 1 << 12 | 1 << 10),
    ] {
        let script = format!("cat $(grep -lx 'Name:.{program}' /proc/[0-9]*/status)");
        let status = project.exec(service, &["sh", "-c", &script])?;
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
        let held = field("CapEff:").context("no line CapEff")?.trim();
        let held = u64::from_str_radix(held, 16).context("CapEff")?;
        ensure!(
            held == expected,
            "{program} holds {held:#x}, not {expected:#x}"
        );
        let is_root = field("Uid:").is_some_and(|ids| ids.trim().starts_with("0\t"));
        ensure!(
            is_root == (expected != 0),
            "{program} runs as {:?}",
            field("Uid:")
        );
    }
    Ok(())
}

fn relay_killed(project: &Project<'_>) -> Result<()> {
    answers(project, WEST, EAST, RECOVERY)?;
    project.kill_and_start("west-relay")?;
    answers(project, WEST, EAST, RECOVERY)?;
    let carried = relayed(project, WEST)?;
    ensure!(carried > 0, "the new relay carried nothing");
    answers(project, NORTH, WEST, RECOVERY)
}

fn activator_killed(project: &Project<'_>) -> Result<()> {
    answers(project, WEST, EAST, RECOVERY)?;
    project.kill_and_start("east-activator")?;
    answers(project, WEST, EAST, RECOVERY)?;
    answers(project, EAST, WEST, RECOVERY)
}

/// The relays of this picture listen for UDP only, so nobody reaches east's services meanwhile; east's own workloads reach
/// others through east's relay, which stands outside.
fn udp_blocked(project: &Project<'_>) -> Result<()> {
    during(project, "udp-blocked", || {
        fails(project, WEST, EAST)?;
        answers(project, WEST, NORTH, RECOVERY)?;
        answers(project, EAST, WEST, RECOVERY)
    })?;
    answers(project, WEST, EAST, RECOVERY)
}

/// West's workloads reach nobody, for there is one relay only; others reach west's services through their own.
fn relay_lost(project: &Project<'_>) -> Result<()> {
    during(project, "relay-lost", || {
        fails(project, WEST, EAST)?;
        fails(project, WEST, NORTH)?;
        answers(project, EAST, WEST, RECOVERY)?;
        answers(project, EAST, NORTH, RECOVERY)
    })?;
    answers(project, WEST, EAST, RECOVERY)?;
    answers(project, WEST, NORTH, RECOVERY)
}

fn activator_lost(project: &Project<'_>) -> Result<()> {
    during(project, "activator-lost", || {
        fails(project, WEST, EAST)?;
        answers(project, WEST, NORTH, RECOVERY)?;
        answers(project, EAST, WEST, RECOVERY)
    })?;
    answers(project, WEST, EAST, RECOVERY)?;
    answers(project, NORTH, EAST, RECOVERY)
}

/// With a fault in. It is taken out whatever was found.
fn during(project: &Project<'_>, fault: &str, check: impl FnOnce() -> Result<()>) -> Result<()> {
    project.put_in(fault)?;
    let found = check().with_context(|| format!("with {fault}"));
    project.take_out(fault)?;
    found.and(Ok(()))
}

fn same_addresses(project: &Project<'_>) -> Result<()> {
    let twins = ["west-twin", "west-twin-sidecar", "east-twin"];
    project.up_with_profile("same-addresses", &twins)?;
    for (from, url, expected) in [
        ("west-twin", "http://10.9.0.20:8080/", "west-twin"),
        (
            "west-twin",
            "http://twin.east.mesh.internal:8080/",
            "east-twin",
        ),
        (
            "east-app",
            "http://twin.west.mesh.internal:8080/",
            "west-twin",
        ),
    ] {
        let what = format!("{from} to reach {url}");
        let page = wait::until(&what, RECOVERY, || {
            let curl = ["curl", "-sS", "--max-time", "3", url];
            project.exec(from, &curl).map(Some)
        })?;
        ensure!(
            page.contains(expected),
            "{url} is answered by `{}`",
            page.trim()
        );
    }
    Ok(())
}
