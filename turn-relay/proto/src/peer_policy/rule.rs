//! `10.0.0.0/24`, `10.0.0.0/24:53,8000-8999`, `fd00:10::/64:443`: a network, and the ports of it that are meant.

use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use thiserror::Error;

/// Ranges that one rule may name.
const MOST_RANGES: usize = 64;

/// A network and some of its ports; without ports all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRule {
    network: IpNet,
    /// Empty: all.
    ports: Vec<RangeInclusive<u16>>,
}

/// What is wrong with the text of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RuleError {
    #[error("not a network")]
    Network,
    /// With the network that was meant, or the one address.
    #[error("an address within a network, not a network")]
    HostBits(IpNet),
    #[error("not a list of ports")]
    Ports,
}

impl PeerRule {
    pub fn network(&self) -> IpNet {
        self.network
    }

    pub(super) fn has_ports(&self) -> bool {
        !self.ports.is_empty()
    }

    fn names(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.iter().any(|range| range.contains(&port))
    }

    /// Without a port: whether it allows any.
    pub(super) fn allows(&self, ip: IpAddr, port: Option<u16>) -> bool {
        self.network.contains(&ip) && port.is_none_or(|port| self.names(port))
    }

    /// Without a port: whether it denies all.
    pub(super) fn denies(&self, ip: IpAddr, port: Option<u16>) -> bool {
        self.network.contains(&ip) && port.map_or(self.ports.is_empty(), |port| self.names(port))
    }
}

impl From<IpNet> for PeerRule {
    fn from(network: IpNet) -> Self {
        Self {
            network,
            ports: Vec::new(),
        }
    }
}

impl FromStr for PeerRule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        // Of an IPv6 network too, the only colon behind the slash is that before the ports.
        let (address, rest) = text.split_once('/').ok_or(RuleError::Network)?;
        let (len, ports) = match rest.split_once(':') {
            Some((len, ports)) => (len, Some(ports)),
            None => (rest, None),
        };
        let network: IpNet = format!("{address}/{len}")
            .parse()
            .map_err(|_| RuleError::Network)?;
        if network.trunc() != network {
            return Err(RuleError::HostBits(network));
        }
        let ports = ports.map_or(Some(Vec::new()), |ports| {
            ports.split(',').map(range).collect::<Option<Vec<_>>>()
        });
        match ports {
            Some(ports) if ports.len() <= MOST_RANGES => Ok(Self { network, ports }),
            _ => Err(RuleError::Ports),
        }
    }
}

/// `53` or `8000-8999`.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let low: u16 = low.trim().parse().ok()?;
    let high: u16 = high.trim().parse().ok()?;
    (low > 0 && low <= high).then_some(low..=high)
}

impl fmt::Display for PeerRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.network)?;
        for (at, range) in self.ports.iter().enumerate() {
            f.write_str(if at == 0 { ":" } else { "," })?;
            match (range.start(), range.end()) {
                (low, high) if low == high => write!(f, "{low}")?,
                (low, high) => write!(f, "{low}-{high}")?,
            }
        }
        Ok(())
    }
}
