//! Our own contenders: labs with both carriers in each, one per way the packets take.
//!
//! A lab has two pairs of sidecar and activator. West's sidecar and east's activator use the datagram lane, the other
//! pair the data channel; so both are up at once, and neither is started anew between two measurements. The service
//! is on the activator's own host, where the rivals have their second end, too.
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::process::FileKind;
use lab::{Cable, Lab, LabOptions, Network, ScopedLab, wait};

use super::contender::{Contender, in_namespace, output};
use super::load::Ended;

const READY_WITHIN: Duration = Duration::from_secs(20);
/// On the long path, so that it is the bottleneck, not a socket: twice what 80 ms and 500 Mbit/s hold, the queue, and
/// room. Elsewhere the kernel's own bounds stand.
const SOCKET_BUFFERS: &str = "4096 131072 33554432";

/// Which way packets take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// A cable from host to host.
    Direct,
    /// Our relay.
    Relay,
    /// coturn in its place.
    Coturn,
    /// A cable with the delay box in its middle.
    Long,
}

impl Way {
    pub(super) const ALL: [Self; 4] = [Self::Direct, Self::Relay, Self::Coturn, Self::Long];

    /// The lab's name.
    pub(super) const fn lab(self) -> &'static str {
        match self {
            Self::Direct => "tbdirect",
            Self::Relay => "tbrelay",
            Self::Coturn => "tbcoturn",
            Self::Long => "tblong",
        }
    }

    /// What our two contenders are called, lane first.
    pub(super) const fn contenders(self) -> [&'static str; 2] {
        match self {
            Self::Direct | Self::Long => ["lane", "channel"],
            Self::Relay => ["lane-relay", "channel-relay"],
            Self::Coturn => ["lane-coturn", "channel-coturn"],
        }
    }

    const fn has_cable(self) -> bool {
        matches!(self, Self::Direct | Self::Long)
    }
}

/// A lab, ready to be measured.
pub(super) struct Site {
    pub(super) lab: ScopedLab,
    /// West's sidecar to east's activator, and east's to west's.
    pub(super) cables: Vec<Cable>,
    way: Way,
    relays: Vec<Ended>,
}

impl Site {
    /// Brings it up; with `mesh` false, only the hosts and the cables.
    pub(super) fn up(way: Way, binaries: &Path, mesh: bool) -> Result<Self> {
        let options = LabOptions {
            binaries: binaries.to_owned(),
            mesh,
            ..LabOptions::new(way.lab())
        };
        let mut site = Self {
            lab: ScopedLab::up(&options)?,
            cables: Vec::new(),
            way,
            relays: Vec::new(),
        };
        for network in Network::PAIR {
            site.prepare_network(network, binaries)?;
        }
        if mesh {
            site.configure()?;
        }
        Ok(site)
    }

    fn prepare_network(&mut self, network: Network, binaries: &Path) -> Result<()> {
        if self.way == Way::Long {
            for host in hosts(network) {
                let namespace = self.lab.namespace(&host);
                lab::netns::inside(&namespace, || {
                    fs::write("/proc/sys/net/ipv4/tcp_rmem", SOCKET_BUFFERS)?;
                    fs::write("/proc/sys/net/ipv4/tcp_wmem", SOCKET_BUFFERS)
                })?
                .context("setting TCP's buffers")?;
            }
        }
        if !self.way.has_cable() {
            return Ok(());
        }
        let [client, server] = hosts(network);
        let number = network as u8;
        let cable = if self.way == Way::Long {
            let mut cable = self.lab.join_through_box(&client, &server, number)?;
            cable.shape(binaries, &[])?;
            cable
        } else {
            self.lab.join(&client, &server, number)?
        };
        self.cables.push(cable);
        // The relay would be another path, and ICE takes the first that works.
        let relay = lab::plan::Segment::Inside(network).addresses(2).0;
        let namespace = self.lab.namespace(&client);
        output(in_namespace(&namespace, "ip").args([
            "route",
            "add",
            "unreachable",
            &format!("{relay}/32"),
        ]))?;
        Ok(())
    }

    /// Carriers and exports; and everything anew, so that it sees the cables, and coturn.
    fn configure(&mut self) -> Result<()> {
        let lab = &self.lab;
        for network in Network::PAIR {
            lab.stop(&format!("{network}/dns-signal"))?;
            lab.stop(&format!("{network}/activator"))?;
            if self.way == Way::Coturn {
                lab.stop(&format!("{network}/relay"))?;
                self.relays.push(coturn(lab, network)?);
            }
        }
        for network in Network::PAIR {
            let carrier = carrier(network);
            let activator = format!("{}/activator", network.other());
            lab.edit_config(&activator, |text| {
                let on_this_host = gateway(network.other());
                let exported = text.find("\n[[export]]").unwrap_or(text.len());
                let name = network.other().service();
                let export = format!(
                    "\n[[export]]\nname = \"{name}\"\naddresses = [\"{on_this_host}\"]\ntcp = [5201]\nudp = [5201]\n"
                );
                in_section("[tunnel]", carrier, &text[..exported]) + &export
            })?;
            lab.start(&activator)?;
        }
        for network in Network::PAIR {
            let carrier = carrier(network);
            let sidecar = format!("{network}/dns-signal");
            lab.edit_config(&sidecar, |text| {
                in_section("[link]", carrier, &text.replace("\"60s\"", "\"1h\""))
            })?;
            lab.start(&sidecar)?;
        }
        for network in Network::PAIR {
            lab.wait_for_name(network, &network.other().service_name(), READY_WITHIN)?;
        }
        Ok(())
    }

    /// Both carriers' contenders; the links are open afterwards, on the way they should be.
    pub(super) fn contenders(&self) -> Result<Vec<Contender>> {
        let names = self.way.contenders();
        Network::PAIR
            .into_iter()
            .zip(names)
            .map(|(network, name)| self.contender(network, name))
            .collect()
    }

    fn contender(&self, network: Network, name: &'static str) -> Result<Contender> {
        let lab = &self.lab;
        let pid = |process: &str| {
            let running = lab.process(process)?.running();
            running.with_context(|| format!("{process} does not run"))
        };
        let sidecar = format!("{network}/dns-signal");
        let relay = match self.way {
            Way::Direct | Way::Long => None,
            Way::Relay => Some(pid(&format!("{network}/relay"))?),
            Way::Coturn => Some(self.relays[network as usize].0.id()),
        };
        let [client, server] = hosts(network).map(|host| lab.namespace(&host));
        let contender = Contender {
            name,
            client,
            server,
            target: network.other().service_name(),
            bound_to: Some(gateway(network.other()).to_string()),
            ends: vec![
                pid(&sidecar)?,
                pid(&format!("{}/activator", network.other()))?,
            ],
            relay,
        };
        contender.wait_open()?;
        self.check_path(network)?;
        Ok(contender)
    }

    /// That packets take the way they are said to take, by the word of the end that holds the allocations.
    fn check_path(&self, network: Network) -> Result<()> {
        let path = if self.way.has_cable() {
            "direct"
        } else {
            "relay/udp"
        };
        let (_, carrier) = carrier(network);
        let activator = format!("{}/activator", network.other());
        let what = format!("{activator} to have {carrier} over {path}");
        wait::until_true(&what, READY_WITHIN, || {
            let status = self.lab.node_status(&activator)?;
            let link = &status["links"][0];
            let is = |field: &str, wanted: &str| link[field].as_str() == Some(wanted);
            ensure!(
                is("path", path) && is("carrier", carrier),
                "it has {} over {}",
                link["carrier"],
                link["path"]
            );
            Ok(true)
        })
    }

    /// No tunnel: from end to end of the first cable.
    pub(super) fn bare(&self) -> Option<Contender> {
        let cable = self.cables.first()?;
        let [client, server] = cable.hosts.each_ref().map(|host| self.lab.namespace(host));
        Some(Contender {
            name: "no-tunnel",
            client,
            server,
            target: cable.addresses[1].to_string(),
            bound_to: None,
            ends: Vec::new(),
            relay: None,
        })
    }
}

/// The ends of a network's outgoing link: its workload, and the other's gateway.
fn hosts(network: Network) -> [String; 2] {
    [
        format!("{network}/app"),
        format!("{}/activator", network.other()),
    ]
}

/// The inside address of the host where a network's activator is.
fn gateway(network: Network) -> Ipv4Addr {
    lab::plan::Segment::Inside(network).addresses(3).0
}

/// What the pair of a network's sidecar is configured to use, and what that comes to.
const fn carrier(network: Network) -> (&'static str, &'static str) {
    match network {
        Network::West => ("auto", "datagram"),
        _ => ("data-channel", "data-channel"),
    }
}

/// A configuration with a carrier in one of its sections.
fn in_section(section: &str, (carrier, _): (&str, &str), text: &str) -> String {
    text.replacen(section, &format!("{section}\ncarrier = \"{carrier}\""), 1)
}

/// coturn where the network's relay was, with its secret.
fn coturn(lab: &Lab, network: Network) -> Result<Ended> {
    let secret = lab
        .files()
        .of_process(&format!("{network}/relay-secret"), FileKind::Token);
    let secret = fs::read_to_string(secret).context("reading the relay's secret")?;
    let log = lab
        .files()
        .of_process(&format!("{network}/coturn"), FileKind::Log);
    let log = fs::File::create(log).context("making coturn's log")?;
    let address = network.relay();
    let relayed = lab::plan::Segment::Inside(network).addresses(2).0;
    let namespace = lab.namespace(&format!("{network}/relay"));
    let child = in_namespace(&namespace, "turnserver")
        .args([
            "-n",
            "--no-tls",
            "--no-dtls",
            "--no-cli",
            "--use-auth-secret",
        ])
        .args(["--log-file=stdout", "--simple-log", "--pidfile=/dev/null"])
        .arg(format!("--static-auth-secret={}", secret.trim()))
        .arg(format!("--realm={network}"))
        .arg(format!("--listening-ip={}", address.ip()))
        .arg(format!("--listening-port={}", address.port()))
        .arg(format!("--relay-ip={relayed}"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("starting turnserver")?;
    Ok(Ended(child))
}
