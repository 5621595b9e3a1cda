//! Any TURN server will do: coturn, as Debian ships it, in the place of one network's relay.
use std::fs;
use std::process::Child;

use anyhow::{Context as _, Result};
use lab::plan::Segment;
use lab::process::FileKind;
use lab::{Lab, Network, wait};
use scenarios::{BILLING, ORDERS, RECOVERY, lab, page, page_within};

const MIB: u64 = 1 << 20;

/// Ends with the test.
struct Coturn(Child);

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Coturn {
    /// Where west's relay was, with its secret, on the same two legs.
    fn start(lab: &Lab) -> Result<Self> {
        let files = lab.files();
        let secret = files.of_process("west/relay-secret", FileKind::Token);
        let secret = fs::read_to_string(secret).context("the relay's secret")?;
        let log = files.of_process("west/coturn", FileKind::Log);
        // Not on a command line.
        let config = files.of_process("west/coturn", FileKind::Config);
        let inside = Segment::Inside(Network::West).addresses(2).0;
        let text = format!(
            "use-auth-secret\nstatic-auth-secret={secret}\nrealm=west\nlistening-ip={ip}\nlistening-port={port}\n\
             relay-ip={inside}\nno-tls\nno-dtls\nno-cli\nverbose\nsimple-log\nlog-file={log}\npidfile=/dev/null\n",
            secret = secret.trim(),
            ip = Network::West.relay().ip(),
            port = Network::West.relay().port(),
            log = log.display(),
        );
        fs::write(&config, text)?;
        let config = config.display().to_string();
        let child = lab.spawn("west/relay", &["turnserver", "-c", &config])?;
        Ok(Self(child))
    }

    /// What coturn says of the bytes that it relayed, in all sessions: it says so every 2 048 packets of one.
    fn relayed(lab: &Lab) -> Result<u64> {
        let log = fs::read_to_string(lab.files().of_process("west/coturn", FileKind::Log))?;
        let field = |line: &str, name: &str| -> Option<u64> {
            let value = line.split_once(name)?.1;
            value.split(',').next()?.trim().parse().ok()
        };
        let peer_usage = log.lines().filter(|line| line.contains("peer usage:"));
        Ok(peer_usage
            .filter_map(|line| Some(field(line, "rb=")? + field(line, "sb=")?))
            .sum())
    }
}

#[test]
fn coturn_in_the_place_of_one_networks_relay_carries_what_ours_did() {
    let lab = lab("coturn1");
    page(&lab, "west/app", ORDERS, &[]).expect("the link opens by our relay");
    lab.stop("west/relay").expect("it stops");
    assert!(
        page(&lab, "west/app", ORDERS, &["-m", "2"]).is_err(),
        "there is another way"
    );
    let coturn = Coturn::start(&lab).expect("coturn starts");
    page_within(&lab, "west/app", ORDERS, RECOVERY).expect("a page by coturn");
    let length = 20 * MIB;
    let url = format!("{ORDERS}/bytes/{length}");
    page(&lab, "west/app", &url, &["-o", "/dev/null"]).expect("a download by coturn");
    wait::until_true("coturn to have counted it", RECOVERY, || {
        Ok(Coturn::relayed(&lab)? > length / 2)
    })
    .unwrap_or_else(|error| panic!("{error}: {:?}", Coturn::relayed(&lab)));
    let status = lab.node_status("west/dns-signal").expect("a status");
    assert_eq!(status["links"][0]["path"], "relay/udp", "{status}");
    // The other network's relay is ours.
    page_within(&lab, "east/app", BILLING, RECOVERY).expect("a page by our relay");
    drop(coturn);
    assert!(
        page(&lab, "west/app", ORDERS, &["-m", "3"]).is_err(),
        "it goes on without coturn"
    );
}
