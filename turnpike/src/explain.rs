//! `turnpike explain`: why a name works or does not, and what to do.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Args;
use explain::{
    Facts, Sidecar,
    facts::{FullSize, Known, Outcome},
    judge, text,
};
use serde_json::json;

use crate::{
    reach,
    sidecar::{Reach, SidecarArgs, check_name},
};

/// A port that does not answer for this long is silent: a SYN is repeated after one second, and after three.
const PORT_PATIENCE: Duration = Duration::from_millis(3_500);
/// Ports that are tried.
const MAX_PORTS: usize = 4;
const ECHO_PATIENCE: Duration = Duration::from_secs(1);
/// Of each length, and one must come back.
const ECHOES: u16 = 3;
/// As long as the sidecar's interface lets a packet be.
const FULL_SIZE: usize = 1_400;
/// Times that it begins anew when the link it tried is not the link any more.
const ROUNDS: usize = 3;

#[derive(Args)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    sidecar: SidecarArgs,
    /// For machines
    #[arg(long)]
    json: bool,
    /// The service, such as orders.east
    #[arg(value_name = "NAME")]
    name: String,
}

/// Exit code 0 when the name works, 1 when not.
pub(crate) fn run(args: &ExplainArgs) -> Result<ExitCode> {
    check_name(&args.name)?;
    let facts = gather(&args.sidecar.reach()?, &args.name);
    let verdict = judge(&facts);
    if args.json {
        let all = json!({ "verdict": verdict, "facts": facts });
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        print!("{}", text(&facts, &verdict));
    }
    Ok(ExitCode::from(u8::from(!verdict.works())))
}

fn gather(reach: &Reach, name: &str) -> Facts {
    let mut facts = Facts {
        name: name.to_owned(),
        ..Facts::default()
    };
    for _ in 0..ROUNDS {
        let sidecar = match reach.settled(name) {
            Ok(sidecar) => sidecar,
            Err(error) => {
                facts.sidecar = None;
                facts.unasked = Some(format!("{error:#}"));
                facts.identity = reach.identity_problem();
                return facts;
            }
        };
        let link = open_link(&sidecar);
        facts.sidecar = Some(sidecar);
        if link.is_none() {
            return facts;
        }
        probe(&mut facts);
        // What a probe met may have been the end of the link.
        let after = reach.ask(name, false).ok();
        let same = after.as_ref().and_then(open_link) == link;
        if same {
            facts.sidecar = after;
            return facts;
        }
    }
    facts
}

fn open_link(sidecar: &Sidecar) -> Option<u64> {
    let link = sidecar.link.as_ref()?;
    (link.open && sidecar.known == Known::Exported).then_some(link.link)
}

/// Tries the service through the link.
fn probe(facts: &mut Facts) {
    facts.probes.clear();
    facts.full_size = None;
    let Some(sidecar) = &facts.sidecar else {
        return;
    };
    let Some(&address) = sidecar.virtual_ips.first() else {
        return;
    };
    let node = sidecar.link.as_ref().map(|link| link.node.as_str());
    let activator = sidecar
        .activators
        .iter()
        .find(|activator| Some(activator.node.as_str()) == node);
    let ports = activator.map(|activator| activator.tcp.as_slice());
    for &port in ports.unwrap_or_default().iter().take(MAX_PORTS) {
        facts.probes.push(reach::tcp(address, port, PORT_PATIENCE));
    }
    let came = |bytes: usize| -> Option<bool> {
        for sequence in 0..ECHOES {
            let sequence = sequence + bytes as u16;
            match reach::echo(address, bytes, sequence, ECHO_PATIENCE) {
                Ok(Some(_)) => return Some(true),
                Ok(None) => {}
                // May not, or cannot: that says nothing of the path.
                Err(_) => return None,
            }
        }
        Some(false)
    };
    let all_silent = !facts.probes.is_empty()
        && facts
            .probes
            .iter()
            .all(|probe| probe.outcome == Outcome::Silent);
    if all_silent {
        return;
    }
    if let Some(short) = came(84)
        && let Some(long) = if short { came(FULL_SIZE) } else { Some(false) }
    {
        facts.full_size = Some(FullSize {
            short,
            long,
            bytes: FULL_SIZE,
        });
    }
}
