//! Cables that the picture does not have: from a host of one network straight to a host of the other.
//!
//! With one of these, ICE has a direct path to find. Its addresses are of TEST-NET-2, so it stands beside everything
//! else; a process that binds its addresses when it starts must be started after. `Lab::down` removes cables with the
//! hosts.
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::command::{run, run_with_input};
use crate::lab::Lab;
use crate::netns;

/// The most cables of a lab: what TEST-NET-2 has room for.
const CABLES_MAX: u8 = 64;

/// Two hosts, joined.
#[derive(Debug)]
pub struct Cable {
    /// The hosts, as `west/app`.
    pub hosts: [String; 2],
    /// Their addresses on it, in the same order.
    pub addresses: [Ipv4Addr; 2],
    /// The interface on both.
    pub interface: String,
    /// The box in its middle, and the process in there.
    middle: Option<(String, Option<Child>)>,
}

impl Lab {
    /// Joins two hosts by a cable without delay. `number`, 0 to 63, tells the cables of a lab apart: interface
    /// `cable<number>`, addresses from 198.51.100.(4 × number)/30.
    pub fn join(&self, left: &str, right: &str, number: u8) -> Result<Cable> {
        let cable = Cable::named(left, right, number)?;
        let interface = &cable.interface;
        let [left, right] = cable.namespaces(self);
        let script =
            format!("link add {interface} netns {left} type veth peer {interface} netns {right}\n");
        run_with_input("ip", &["-batch", "-"], &script)?;
        cable.plug_in(self)?;
        Ok(cable)
    }

    /// The same with a box in the middle of it, which [`Cable::shape`] gives delay, rate and loss. Until then nothing
    /// passes. Both hosts send plain Ethernet frames into it: no offload.
    pub fn join_through_box(&self, left: &str, right: &str, number: u8) -> Result<Cable> {
        let mut cable = Cable::named(left, right, number)?;
        let interface = &cable.interface;
        let namespaces = cable.namespaces(self);
        let middle = netns::name(self.name(), &format!("box{number}"));
        netns::create(&middle)?;
        let mut script = String::new();
        for (namespace, side) in namespaces.iter().zip(["left", "right"]) {
            let _ = writeln!(
                script,
                "link add {interface} netns {namespace} type veth peer {side} netns {middle}"
            );
        }
        run_with_input("ip", &["-batch", "-"], &script)?;
        netns::inside(&middle, || {
            // Else the box itself would speak on its interfaces.
            fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1")
        })??;
        let script = "link set left up\nlink set right up\n";
        run_with_input("ip", &["-n", &middle, "-batch", "-"], script)?;
        for namespace in &namespaces {
            without_offload(namespace, interface)?;
        }
        cable.middle = Some((middle, None));
        cable.plug_in(self)?;
        Ok(cable)
    }
}

impl Cable {
    fn named(left: &str, right: &str, number: u8) -> Result<Self> {
        ensure!(number < CABLES_MAX, "cable {number}: there are 0 to 63");
        let address = |last| Ipv4Addr::new(198, 51, 100, 4 * number + last);
        Ok(Self {
            hosts: [left.to_owned(), right.to_owned()],
            addresses: [address(1), address(2)],
            interface: format!("cable{number}"),
            middle: None,
        })
    }

    fn namespaces(&self, lab: &Lab) -> [String; 2] {
        self.hosts.each_ref().map(|host| lab.namespace(host))
    }

    fn plug_in(&self, lab: &Lab) -> Result<()> {
        let interface = &self.interface;
        for (namespace, address) in self.namespaces(lab).iter().zip(self.addresses) {
            let script =
                format!("address add {address}/30 dev {interface}\nlink set {interface} up\n");
            run_with_input("ip", &["-n", namespace, "-batch", "-"], &script)?;
        }
        Ok(())
    }

    /// Puts another box in the middle: `delay-box` from `binaries`, with these arguments. For a moment nothing passes,
    /// and what was under way is lost.
    pub fn shape(&mut self, binaries: &Path, arguments: &[&str]) -> Result<()> {
        let (namespace, running) = self
            .middle
            .as_mut()
            .context("this cable has no box in the middle")?;
        if let Some(child) = running.take() {
            end(child);
        }
        let program = binaries.join("delay-box");
        let mut child = Command::new("ip")
            .args(["netns", "exec", namespace])
            // It is the network, so it must not wait for what it measures.
            .args(["nice", "-n", "-15"])
            .arg(&program)
            .args(["left", "right"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut said = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut said)?;
        }
        if said.trim() != "ready" {
            let status = child.wait()?;
            bail!("{} does not start ({status}): {said}", program.display());
        }
        *running = Some(child);
        Ok(())
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        if let Some((_, Some(child))) = self.middle.take() {
            end(child);
        }
    }
}

fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// A box that forwards frames one by one needs them as they are on a real wire: of at most an MTU, with checksums.
fn without_offload(namespace: &str, interface: &str) -> Result<()> {
    let off = [
        "tx", "off", "sg", "off", "tso", "off", "gso", "off", "gro", "off",
    ];
    let command = ["netns", "exec", namespace, "ethtool", "-K", interface];
    run("ip", &[&command[..], &off].concat())
        .map(drop)
        .context("switching offload off")
}
