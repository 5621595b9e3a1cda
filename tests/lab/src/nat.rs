//! What the routers do to packets: nftables rule sets.
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::plan::{INSIDE_IPV4, INSIDE_IPV6};

/// How a router maps inside addresses to its own. All of them drop unsolicited packets from outside, so filtering is
/// address- and port-dependent (RFC 4787, section 5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NatKind {
    /// Another random port for every destination: address- and port-dependent mapping (RFC 4787, section 4.1),
    /// "symmetric". Hole punching through two of these fails.
    #[default]
    Symmetric,
    /// The inside port is kept where it is free, so the mapping is the same for every destination.
    PortPreserving,
}

impl NatKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Symmetric, Self::PortPreserving];

    const fn name(self) -> &'static str {
        match self {
            Self::Symmetric => "symmetric",
            Self::PortPreserving => "port-preserving",
        }
    }

    /// The router's whole rule set, in nft's language. `wan` and `lan` are its interfaces.
    #[must_use]
    pub fn ruleset(self) -> String {
        let masquerade = match self {
            Self::Symmetric => "masquerade random",
            Self::PortPreserving => "masquerade",
        };
        format!(
            r#"table inet lab {{
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "wan" ip saddr {INSIDE_IPV4} {masquerade}
        oifname "wan" ip6 saddr {INSIDE_IPV6} {masquerade}
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
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

impl fmt::Display for NatKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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
