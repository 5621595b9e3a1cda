//! How a workload's queries come here, by what the host has; undone when this process ends, however it ends.
//!
//! | way | what is done | undone by |
//! |---|---|---|
//! | own | nothing: resolv.conf names this process | |
//! | resolved | systemd-resolved asks here for our names ([`resolved`]) | the kernel: it all belongs to the TUN interface |
//! | redirect | nftables turns port 53 here ([`redirect`]) | the kernel: the table belongs to a process that ends with this one |
//! | dnsmasq | a dnsmasq of this host asks here for our names ([`dnsmasq`]) | the next start; names of others never come here |
//! | resolv-conf | resolv.conf names this process ([`resolv_conf`]) | a second process that outlives this one; else the next start |

pub mod dnsmasq;
pub mod redirect;
pub mod resolv_conf;
mod resolved;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context as _, bail};
use dns_signal_proto::alias::Aliases;
use dns_signal_proto::intercept::Suffix;
use dns_signal_proto::virtual_ip::Pools;
use thiserror::Error;

use dnsmasq::{Dnsmasq, DropIn};
use redirect::Redirect;
use resolv_conf::ResolvConf;

/// What the configuration asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// The first way that works.
    #[default]
    Auto,
    /// Nothing: somebody else sees to it.
    None,
    /// systemd-resolved, or no start.
    Resolved,
    /// nftables, or no start.
    Redirect,
    /// dnsmasq, or no start.
    Dnsmasq,
    /// resolv.conf, or no start.
    ResolvConf,
}

/// Not a way of interception.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a way of interception")]
pub struct NotAWish;

impl FromStr for Wish {
    type Err = NotAWish;

    fn from_str(text: &str) -> Result<Self, NotAWish> {
        match text {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            "resolved" => Ok(Self::Resolved),
            "redirect" => Ok(Self::Redirect),
            "dnsmasq" => Ok(Self::Dnsmasq),
            "resolv-conf" => Ok(Self::ResolvConf),
            _ => Err(NotAWish),
        }
    }
}

/// What interception must know.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// Where queries are answered, at least one address.
    pub listen: &'a [SocketAddr],
    /// The resolvers that are asked in turn.
    pub upstreams: &'a [SocketAddr],
    /// The domain of the mesh.
    pub suffix: &'a Suffix,
    /// Further names that may be ours.
    pub aliases: &'a Aliases,
    /// What is sent to virtual IPs is for a remote service, a DNS server possibly.
    pub pools: &'a Pools,
    /// The index of the TUN interface.
    pub device: u32,
    /// What is known of the host's dnsmasq.
    pub dnsmasq: &'a Dnsmasq,
    /// Where it is kept what is to be undone.
    pub state_directory: &'a Path,
}

impl Around<'_> {
    /// The domains at and below which names are ours, or may be.
    fn zones(&self) -> Vec<String> {
        let aliases = self.aliases.zones();
        let ours = [self.suffix.to_string()].into_iter();
        ours.chain(self.pools.reverse_zones())
            .chain(aliases)
            .collect()
    }

    /// Of the names that another resolver of this host asks for here, those with an alias that stands for nothing are asked of
    /// the upstreams. None of these may be that resolver.
    fn must_not_go_round(&self) -> anyhow::Result<()> {
        let here = |upstream: &&SocketAddr| upstream.ip().is_loopback();
        match self.upstreams.iter().find(here) {
            Some(upstream) if !self.aliases.is_empty() => bail!(
                "the upstream {upstream} is on this host, and may ask for the names of `dns.alias` here again: name resolvers of other hosts"
            ),
            _ => Ok(()),
        }
    }
}

/// A way that is in force; given up when dropped.
#[derive(Debug)]
pub enum Interception {
    /// Whoever made resolv.conf saw to it.
    Own,
    /// Nobody did, and nothing is done.
    None,
    /// By systemd-resolved.
    Resolved,
    /// By nftables.
    Redirect(Redirect),
    /// By dnsmasq.
    Dnsmasq(DropIn),
    /// By resolv.conf.
    ResolvConf(ResolvConf),
}

impl fmt::Display for Interception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("resolv.conf names dns-signal already"),
            Self::None => f.write_str("none"),
            Self::Resolved => f.write_str("systemd-resolved asks dns-signal for names of the mesh"),
            Self::Redirect(redirect) => redirect.fmt(f),
            Self::Dnsmasq(drop_in) => write!(
                f,
                "dnsmasq asks dns-signal for names of the mesh, as {} says",
                drop_in.file().display()
            ),
            Self::ResolvConf(_) => f.write_str("resolv.conf was replaced"),
        }
    }
}

impl Interception {
    /// Cleans up after an earlier process, and does what is wished.
    ///
    /// # Errors
    /// When a certain way is wished, and it does not work.
    pub async fn start(wish: Wish, around: &Around<'_>) -> anyhow::Result<Self> {
        resolv_conf::clean_up(around.state_directory);
        dnsmasq::clean_up(around.state_directory);
        match wish {
            Wish::None => Ok(Self::None),
            Wish::Resolved => {
                let started = resolved::start(around, &around.zones()).await;
                started.context("`dns.interception` asks for systemd-resolved")?;
                Ok(Self::Resolved)
            }
            Wish::Redirect => Ok(Self::Redirect(
                Redirect::start(around).context("`dns.interception` asks for nftables")?,
            )),
            Wish::Dnsmasq => Ok(Self::Dnsmasq(
                DropIn::start(around, &around.zones())
                    .context("`dns.interception` asks for dnsmasq")?,
            )),
            Wish::ResolvConf => Ok(Self::ResolvConf(
                ResolvConf::start(around).context("`dns.interception` asks for resolv.conf")?,
            )),
            Wish::Auto => Ok(Self::first_that_works(around).await),
        }
    }

    async fn first_that_works(around: &Around<'_>) -> Self {
        if resolv_conf::names_only(around.listen) {
            return Self::Own;
        }
        if resolved::is_asked_by_programs() {
            match resolved::start(around, &around.zones()).await {
                Ok(()) => return Self::Resolved,
                Err(error) => tracing::info!(
                    error = format!("{error:#}"),
                    "systemd-resolved cannot send queries here"
                ),
            }
        }
        let error = match Redirect::start(around) {
            Ok(redirect) => return Self::Redirect(redirect),
            Err(error) => error,
        };
        tracing::info!(
            error = format!("{error:#}"),
            "nftables cannot turn queries here"
        );
        if resolv_conf::names_only_this_host() {
            match DropIn::start(around, &around.zones()) {
                Ok(drop_in) => return Self::Dnsmasq(drop_in),
                Err(error) => tracing::info!(
                    error = format!("{error:#}"),
                    "dnsmasq cannot send queries here"
                ),
            }
        }
        let replaced = match resolv_conf::written_by_others() {
            Some(target) => Err(anyhow::anyhow!(
                "resolv.conf is a link to {}, which another program writes",
                target.display()
            )),
            None => ResolvConf::start(around),
        };
        match replaced {
            Ok(resolv_conf) => Self::ResolvConf(resolv_conf),
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "no way to intercept DNS works: name dns-signal in the workload's resolv.conf"
                );
                Self::None
            }
        }
    }

    /// The mark of this process's own queries, which must not come back.
    pub fn own_mark(&self) -> Option<u32> {
        matches!(self, Self::Redirect(_)).then_some(redirect::MARK)
    }
}

/// Where a program of this host reaches a socket that listens on `listen`.
fn reached_at(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use dns_signal_proto::alias::Alias;

    use super::*;

    #[test]
    fn what_may_be_ours_is_told_and_does_not_go_round() {
        let mut aliases = Aliases::new("west".parse().unwrap());
        let ipv4 = "198.18.0.0/15".parse().unwrap();
        let pools = Pools::new(ipv4, "fd00::/64".parse().unwrap()).unwrap();
        let around = |aliases: &Aliases, upstream: &str| {
            let upstreams = [upstream.parse().unwrap()];
            let around = Around {
                listen: &["127.0.0.1:53".parse().unwrap()],
                upstreams: &upstreams,
                suffix: &"mesh.internal".parse().unwrap(),
                aliases,
                pools: &pools,
                device: 7,
                dnsmasq: &Dnsmasq::default(),
                state_directory: Path::new("/nowhere"),
            };
            (around.zones(), around.must_not_go_round().is_ok())
        };
        let reverse = "0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
        let ours = [
            "mesh.internal",
            "18.198.in-addr.arpa",
            "19.198.in-addr.arpa",
            reverse,
        ];
        let (zones, fine) = around(&aliases, "127.0.0.53:53");
        assert_eq!(zones, ours);
        assert!(fine, "without aliases nothing is asked of upstreams");

        let alias = Alias {
            service: None,
            networks: Vec::new(),
            choice: Default::default(),
        };
        aliases.add("*.prod.example", alias).unwrap();
        let (zones, fine) = around(&aliases, "192.0.2.1:53");
        assert_eq!(zones[ours.len()..], ["prod.example"]);
        assert!(fine);
        for upstream in ["127.0.0.53:53", "127.0.0.1:5335", "[::1]:53"] {
            assert!(!around(&aliases, upstream).1, "{upstream}");
        }
    }
}
