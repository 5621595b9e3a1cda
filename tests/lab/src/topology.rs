//! Making the picture: namespaces, bridges, cables, addresses, routes, rule sets.
//!
//! Nothing appears in the machine's own network namespace: cables are made with both ends already inside.
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::command::{run, run_with_input};
use crate::nat::{Firewall, NatKind};
use crate::netns;
use crate::plan::{self, Host, IPV4_PREFIX, IPV6_PREFIX, Network, Segment};
use crate::wait;

const REMOVE_DEADLINE: Duration = Duration::from_secs(5);
const RESOLVER_DIRECTORY: &str = "/etc/netns";

/// Builds everything but processes.
pub fn build(lab: &str, networks: &[Network], nat: NatKind) -> Result<()> {
    for segment in Segment::all(networks) {
        make_bridge(lab, segment)?;
    }
    let hosts = plan::hosts(networks);
    for host in &hosts {
        netns::create(&netns::name(lab, &host.name))?;
    }
    run_with_input("ip", &["-batch", "-"], &cables(lab, &hosts))?;
    for segment in Segment::all(networks) {
        let ports = ports(segment, &hosts);
        run_with_input(
            "ip",
            &["-n", &netns::name(lab, &segment.name()), "-batch", "-"],
            &ports,
        )?;
    }
    for host in &hosts {
        configure(lab, host)?;
        if host.name.ends_with("/router") {
            let namespace = netns::name(lab, &host.name);
            let args = ["netns", "exec", &namespace, "nft", "-f", "-"];
            let network = networks
                .iter()
                .copied()
                .find(|network| host.name.starts_with(network.name()))
                .context("a router of a network")?;
            run_with_input("ip", &args, &nat.ruleset(network, false))
                .context("loading the router's rules")?;
        }
    }
    Ok(())
}

/// What a network's router lets through from now on.
pub fn set_firewall(lab: &str, network: Network, firewall: Firewall) -> Result<()> {
    load_firewall(lab, &format!("{network}/router"), &firewall.ruleset())
}

/// Loads a firewall's rules in a host.
pub(crate) fn load_firewall(lab: &str, host: &str, rules: &str) -> Result<()> {
    let namespace = netns::name(lab, host);
    let args = ["netns", "exec", &namespace, "nft", "-f", "-"];
    let loaded = run_with_input("ip", &args, rules).map(drop);
    loaded.with_context(|| format!("loading the firewall of {host}"))
}

/// Writes the resolv.conf that `ip netns exec` shows to what runs in a host.
pub fn set_resolver(lab: &str, host: &str, nameserver: std::net::IpAddr) -> Result<()> {
    let directory = Path::new(RESOLVER_DIRECTORY).join(netns::name(lab, host));
    let file = directory.join("resolv.conf");
    fs::create_dir_all(&directory)
        .and_then(|()| {
            fs::write(
                &file,
                format!("nameserver {nameserver}\noptions timeout:2 attempts:3\n"),
            )
        })
        .with_context(|| format!("writing {}", file.display()))
}

/// Removes namespaces and resolver files of a lab, whoever made them. What is already gone is fine.
pub fn remove(lab: &str) -> Result<()> {
    let prefix = netns::prefix(lab);
    wait::until_true("the lab's namespaces to be gone", REMOVE_DEADLINE, || {
        // In this order: what is made in between is in the list.
        let more = netns::is_being_made(&prefix)?;
        for namespace in netns::list(&prefix)? {
            netns::delete(&namespace)?;
        }
        Ok(!more)
    })?;
    let entries = match fs::read_dir(RESOLVER_DIRECTORY) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context("reading /etc/netns"),
    };
    for entry in entries {
        let entry = entry.context("reading /etc/netns")?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            fs::remove_dir_all(entry.path())
                .with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    // Only when nobody else has anything there.
    let _ = fs::remove_dir(RESOLVER_DIRECTORY);
    Ok(())
}

fn make_bridge(lab: &str, segment: Segment) -> Result<()> {
    let namespace = netns::name(lab, &segment.name());
    netns::create(&namespace)?;
    set_kernel_options(
        &namespace,
        &[
            // Else every frame on the bridge would cross the firewall hooks of this namespace.
            ("bridge/bridge-nf-call-iptables", "0"),
            ("bridge/bridge-nf-call-ip6tables", "0"),
            ("ipv6/conf/default/disable_ipv6", "1"),
        ],
    )?;
    run_with_input(
        "ip",
        &["-n", &namespace, "-batch", "-"],
        "link set lo up\n\
         link add segment type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
         link set segment up\n",
    )?;
    Ok(())
}

/// The name of a host's end at the bridge; at most 15 bytes.
pub(crate) fn port_name(host: &str) -> String {
    host.replace('/', "-")
}

fn cables(lab: &str, hosts: &[Host]) -> String {
    let mut script = String::new();
    for host in hosts {
        for leg in &host.legs {
            let _ = writeln!(
                script,
                "link add {} netns {} type veth peer name {} netns {}",
                leg.segment.interface(),
                netns::name(lab, &host.name),
                port_name(&host.name),
                netns::name(lab, &leg.segment.name()),
            );
        }
    }
    script
}

fn ports(segment: Segment, hosts: &[Host]) -> String {
    hosts
        .iter()
        .filter(|host| host.legs.iter().any(|leg| leg.segment == segment))
        .map(|host| format!("link set {} master segment up\n", port_name(&host.name)))
        .collect()
}

fn configure(lab: &str, host: &Host) -> Result<()> {
    let namespace = netns::name(lab, &host.name);
    let forwarding = if host.forwards { "1" } else { "0" };
    set_kernel_options(
        &namespace,
        &[
            ("ipv4/ip_forward", forwarding),
            ("ipv6/conf/all/forwarding", forwarding),
            ("ipv6/conf/default/forwarding", forwarding),
            // Addresses are usable at once, and nobody advertises routes here.
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/default/accept_ra", "0"),
        ],
    )?;
    let inside = host.legs.iter().find(|leg| leg.segment != Segment::Public);
    let last = inside
        .and_then(|leg| leg.ipv4.first())
        .map(|ip| ip.octets()[3]);
    if let Some((first, last)) = last.and_then(plan::source_ports) {
        let range = format!("{first} {last}");
        set_kernel_options(&namespace, &[("ipv4/ip_local_port_range", &range)])?;
    }
    let mut script = String::from("link set lo up\n");
    for leg in &host.legs {
        let interface = leg.segment.interface();
        let _ = writeln!(script, "link set {interface} up");
        for address in &leg.ipv4 {
            let _ = writeln!(
                script,
                "address add {address}/{IPV4_PREFIX} dev {interface}"
            );
        }
        let _ = writeln!(
            script,
            "address add {}/{IPV6_PREFIX} dev {interface} nodad",
            leg.ipv6
        );
    }
    if let Some(network) = host.default_route {
        let (ipv4, ipv6) = Segment::Inside(network).addresses(1);
        let _ = writeln!(script, "route add default via {ipv4}");
        let _ = writeln!(script, "route add ::/0 via {ipv6}");
    }
    run_with_input("ip", &["-n", &namespace, "-batch", "-"], &script)?;
    Ok(())
}

/// Sets options under `/proc/sys/net`, in a namespace. Bridge options exist only where the kernel has that hook.
pub(crate) fn set_kernel_options(namespace: &str, options: &[(&str, &str)]) -> Result<()> {
    netns::inside(namespace, || {
        for (option, value) in options {
            let path = Path::new("/proc/sys/net").join(option);
            if option.starts_with("bridge/") && !path.exists() {
                continue;
            }
            fs::write(&path, value)
                .with_context(|| format!("setting {} in {namespace}", path.display()))?;
        }
        Ok(())
    })?
}

/// Says early what is missing, in words that tell what to do.
pub fn check_prerequisites() -> Result<()> {
    anyhow::ensure!(
        nix::unistd::geteuid().is_root(),
        "the lab needs root: it makes namespaces"
    );
    run("ip", &["-V"])?;
    run("nft", &["--version"])?;
    run("dnsmasq", &["--version"])?;
    Ok(())
}
