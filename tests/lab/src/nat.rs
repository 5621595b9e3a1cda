//! What the routers do to packets: nftables rule sets.
//!
//! Linux's own NAT keeps an inside port where it is free and lets in what answers: port-restricted. What the other kinds let
//! in beside that is remembered in maps that packets from inside fill, with a time limit, as in a router of that kind.
//! Inside hosts use source ports of ranges of their own ([`crate::plan::source_ports`]), so that a port is always free and a
//! mapping the same for every destination.
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::plan::{DISCOVERY, INSIDE_IPV4, INSIDE_IPV6, Network, Segment};

/// What a mapping or a filter of a NAT depends on, beside the inside address (RFC 4787, sections 4.1 and 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependent {
    /// Endpoint-independent.
    Nothing,
    /// Address-dependent: on the other's IP address.
    Address,
    /// Address- and port-dependent.
    AddressAndPort,
}

/// The kinds of NAT that people name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NatKind {
    /// One mapping for every destination, and everybody may use it.
    FullCone,
    /// One mapping for every destination; hosts that were sent to may use it, from any port.
    AddressRestricted,
    /// One mapping for every destination, which only those addresses and ports may use that were sent to.
    PortRestricted,
    /// Another random port for every destination, which only that one may use.
    #[default]
    Symmetric,
}

impl NatKind {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::Symmetric,
    ];

    /// `full-cone`, `address-restricted`, `port-restricted`, `symmetric`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FullCone => "full-cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::Symmetric => "symmetric",
        }
    }

    /// What its mapping depends on.
    #[must_use]
    pub const fn mapping(self) -> Dependent {
        match self {
            Self::Symmetric => Dependent::AddressAndPort,
            _ => Dependent::Nothing,
        }
    }

    /// What its filter depends on.
    #[must_use]
    pub const fn filtering(self) -> Dependent {
        match self {
            Self::FullCone => Dependent::Nothing,
            Self::AddressRestricted => Dependent::Address,
            Self::PortRestricted | Self::Symmetric => Dependent::AddressAndPort,
        }
    }

    /// Whether checks of both sides open a way between two networks with these, without a relay (RFC 5128, section 3.3).
    /// Behind an endpoint-dependent mapping nobody knows beforehand which port the other side will see, so its NAT must let
    /// in any port, at least of an address that was sent to.
    #[must_use]
    pub fn punches_through(self, other: Self) -> bool {
        let fails = |hidden: Self, strict: Self| {
            hidden.mapping() != Dependent::Nothing
                && strict.filtering() == Dependent::AddressAndPort
        };
        !fails(self, other) && !fails(other, self)
    }

    /// The whole rule set of a network's router, in nft's language. `hairpin`: what inside hosts send to each other's outside
    /// addresses arrives, from the sender's outside address (RFC 4787, section 6); only for a kind with one mapping for every
    /// destination.
    #[must_use]
    pub fn ruleset(self, network: Network, hairpin: bool) -> String {
        let masquerade = match self.mapping() {
            Dependent::Nothing => "masquerade",
            _ => "masquerade fully-random",
        };
        let inward = match self.filtering() {
            Dependent::Nothing => r#"iifname "wan" dnat ip to udp dport map @mapped"#,
            Dependent::Address => {
                r#"iifname "wan" udp dport . ip saddr @sent dnat ip to udp dport map @mapped"#
            }
            Dependent::AddressAndPort => "",
        };
        let (turned, shown) = if hairpin {
            let (outside, _) = Segment::Public.addresses(network.router());
            (
                format!(r#"iifname "lan" ip daddr {outside} dnat ip to udp dport map @mapped"#),
                format!(r#"iifname "lan" oifname "lan" ct status dnat snat ip to {outside}"#),
            )
        } else {
            (String::new(), String::new())
        };
        format!(
            r#"table inet lab {{
    map mapped {{
        type inet_service : ipv4_addr
        flags dynamic,timeout
        timeout 2m
        size 65535
    }}
    set sent {{
        type inet_service . ipv4_addr
        flags dynamic,timeout
        timeout 2m
        size 65535
    }}
    chain prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
        {inward}
        {turned}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        {shown}
        oifname "wan" ip saddr {INSIDE_IPV4} {masquerade}
        oifname "wan" ip6 saddr {INSIDE_IPV6} {masquerade}
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        iifname "lan" oifname "wan" ip saddr {INSIDE_IPV4} meta l4proto udp update @mapped {{ udp sport : ip saddr }}
        iifname "lan" oifname "wan" ip saddr {INSIDE_IPV4} meta l4proto udp update @sent {{ udp sport . ip daddr }}
        ct state established,related accept
        ct status dnat accept
        oifname "wan" ip daddr {{ 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10, 198.18.0.0/15 }} counter drop
        oifname "wan" ip6 daddr fc00::/7 counter drop
        iifname "lan" oifname "wan" accept
        counter
    }}
    chain input {{
        type filter hook input priority filter; policy drop;
        iifname "lo" accept
        ct state established,related accept
        icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
        iifname "lan" accept
        counter
    }}
}}
"#
        )
    }
}

/// What a router lets through, whatever the NAT would; or a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Firewall {
    /// Everything.
    #[default]
    Open,
    /// Everything but UDP.
    NoUdp,
    /// Out: TCP to port 443, and to discovery. In: the answers.
    OnlyTcp443,
}

impl Firewall {
    /// A rule set of its own, in nft's language, in place of the one before.
    #[must_use]
    pub fn ruleset(self) -> String {
        let discovery = DISCOVERY.port();
        let rules = match self {
            Self::Open => String::new(),
            Self::NoUdp => "meta l4proto udp counter drop".to_owned(),
            Self::OnlyTcp443 => format!(
                r#"meta l4proto {{ icmp, icmpv6 }} accept
        iifname "lan" tcp dport {{ 443, {discovery} }} accept
        iifname "wan" tcp sport {{ 443, {discovery} }} accept
        counter drop"#
            ),
        };
        format!(
            r#"table inet firewall
delete table inet firewall
table inet firewall {{
    chain forward {{
        type filter hook forward priority filter - 1; policy accept;
        {rules}
    }}
}}
"#
        )
    }

    /// The same for what an inside host itself sends and gets: not even its neighbors are reached in another way.
    #[must_use]
    pub fn host_ruleset(self) -> String {
        let discovery = DISCOVERY.port();
        let [out, into] = match self {
            Self::Open => [String::new(), String::new()],
            Self::NoUdp => {
                ["o", "i"].map(|way| format!(r#"{way}ifname "lan" meta l4proto udp counter drop"#))
            }
            Self::OnlyTcp443 => [("o", "d"), ("i", "s")].map(|(way, port)| {
                format!(
                    r#"{way}ifname != "lan" accept
        meta l4proto {{ icmp, icmpv6 }} accept
        tcp {port}port {{ 443, {discovery} }} accept
        counter drop"#
                )
            }),
        };
        format!(
            r#"table inet firewall
delete table inet firewall
table inet firewall {{
    chain output {{
        type filter hook output priority filter - 1; policy accept;
        {out}
    }}
    chain input {{
        type filter hook input priority filter - 1; policy accept;
        {into}
    }}
}}
"#
        )
    }
}

impl fmt::Display for NatKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for NatKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| {
                let known: Vec<_> = Self::ALL.into_iter().map(Self::name).collect();
                format!("no NAT kind `{text}`: there are {}", known.join(", "))
            })
    }
}
