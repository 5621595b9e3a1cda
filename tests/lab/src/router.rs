//! What happens to routers while a lab is up: another NAT, mappings forgotten, a carrier's NAT in between.
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use crate::command::run_with_input;
use crate::lab::Lab;
use crate::nat::NatKind;
use crate::netns;
use crate::plan::{IPV4_PREFIX, Network, Segment};
use crate::topology;

/// Between a router and its carrier's NAT: of the range for just that (RFC 6598).
const CARRIER: &str = "100.64.0";

impl Lab {
    /// Makes a network's router a NAT of this kind. Mappings that it has stay as they are.
    pub fn set_nat(&self, network: Network, nat: NatKind) -> Result<()> {
        self.load_rules(&format!("{network}/router"), &nat.ruleset(network, false))
    }

    /// The same, with hairpinning.
    pub fn set_hairpin_nat(&self, network: Network, nat: NatKind) -> Result<()> {
        self.load_rules(&format!("{network}/router"), &nat.ruleset(network, true))
    }

    fn load_rules(&self, host: &str, rules: &str) -> Result<()> {
        let namespace = self.namespace(host);
        let args = ["netns", "exec", &namespace, "nft", "-f", "-"];
        run_with_input("ip", &args, &format!("flush ruleset\n{rules}"))
            .map(drop)
            .with_context(|| format!("loading the rules of {host}"))
    }

    /// A network's router forgets every mapping, as when it dials in anew; a symmetric one will choose other ports.
    pub fn forget_mappings(&self, network: Network) -> Result<()> {
        let namespace = self.namespace(&format!("{network}/router"));
        netns::inside(&namespace, forget_connections)?
            .with_context(|| format!("making {network}/router forget"))
    }

    /// Puts a carrier's NAT of this kind before a network's router, over IPv4: what comes from the network is translated
    /// twice. The carrier takes over the router's outside address. It cannot be taken out again.
    pub fn put_behind_carrier(&self, network: Network, nat: NatKind) -> Result<()> {
        let carrier = self.namespace(&format!("{network}/carrier"));
        let router = self.namespace(&format!("{network}/router"));
        let public = self.namespace(&Segment::Public.name());
        let (outside, _) = Segment::Public.addresses(network.router());
        netns::create(&carrier)?;
        topology::set_kernel_options(&carrier, &[("ipv4/ip_forward", "1")])?;
        let script = format!(
            "-n {router} link delete wan\n\
             -n {carrier} link set lo up\n\
             link add wan netns {router} type veth peer name lan netns {carrier}\n\
             link add wan netns {carrier} type veth peer name {network}-carrier netns {public}\n\
             -n {public} link set {network}-carrier master segment up\n\
             -n {router} address add {CARRIER}.2/{IPV4_PREFIX} dev wan\n\
             -n {router} link set wan up\n\
             -n {router} route add default via {CARRIER}.1\n\
             -n {carrier} address add {CARRIER}.1/{IPV4_PREFIX} dev lan\n\
             -n {carrier} link set lan up\n\
             -n {carrier} address add {outside}/{IPV4_PREFIX} dev wan\n\
             -n {carrier} link set wan up\n"
        );
        for line in script.lines() {
            let arguments: Vec<&str> = line.split_whitespace().collect();
            crate::command::run("ip", &arguments)?;
        }
        let rules = nat.ruleset(network, false);
        let rules = rules.replace(crate::plan::INSIDE_IPV4, &format!("{CARRIER}.0/24"));
        self.load_rules(&format!("{network}/carrier"), &rules)
    }

    /// Gives an inside host another IPv4 address, with this last number, instead of the one it has.
    pub fn readdress(&self, host: &str, from: u8, to: u8) -> Result<()> {
        // The same range in every network.
        let address = |last| Segment::Inside(Network::West).addresses(last).0;
        let script = format!(
            "address delete {}/{IPV4_PREFIX} dev lan\naddress add {}/{IPV4_PREFIX} dev lan\nroute replace default via {}\n",
            address(from),
            address(to),
            address(1)
        );
        let namespace = self.namespace(host);
        run_with_input("ip", &["-n", &namespace, "-batch", "-"], &script).map(drop)
    }

    /// Pulls a host's cable out of a segment, or puts it back: the host sees that the carrier is gone.
    pub fn plug(&self, host: &str, segment: Segment, plugged: bool) -> Result<()> {
        let namespace = self.namespace(&segment.name());
        let port = topology::port_name(host);
        let state = if plugged { "up" } else { "down" };
        crate::command::run("ip", &["-n", &namespace, "link", "set", &port, state]).map(drop)
    }
}

/// Empties the kernel's table of connections, in the namespace of this thread: `IPCTNL_MSG_CT_DELETE` without a filter.
fn forget_connections() -> Result<()> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )
    .context("a netlink socket")?;
    // A header: length, `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE`, request with acknowledgement, sequence and
    // port numbers; then any family, version 0.
    let mut request = Vec::new();
    request.extend(20_u32.to_ne_bytes());
    request.extend(0x0102_u16.to_ne_bytes());
    request.extend(0x0005_u16.to_ne_bytes());
    request.extend([0; 12]);
    let kernel = NetlinkAddr::new(0, 0);
    sendto(netlink.as_raw_fd(), &request, &kernel, MsgFlags::empty()).context("asking")?;
    let mut answer = [0; 256];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty()).context("the answer")?;
    // An error message whose code is 0 acknowledges.
    ensure!(
        length >= 20 && answer[16..20] == [0; 4],
        "the kernel refuses: {:?}",
        &answer[..length.min(20)]
    );
    Ok(())
}
