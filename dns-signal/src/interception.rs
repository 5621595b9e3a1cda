//! How a workload's queries come here, by what the host has; undone when this process ends, however it ends.
//!
//! | way | what is done | undone by |
//! |---|---|---|
//! | own | nothing: resolv.conf names this process | |
//! | redirect | nftables turns port 53 here ([`redirect`]) | the kernel: the table belongs to a process that ends with this one |
//! | resolv-conf | resolv.conf names this process ([`resolv_conf`]) | a second process that outlives this one; else the next start |

pub mod redirect;
pub mod resolv_conf;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;

use anyhow::Context as _;
use dns_signal_proto::virtual_ip::Pools;
use thiserror::Error;

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
    /// nftables, or no start.
    Redirect,
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
            "redirect" => Ok(Self::Redirect),
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
    /// What is sent to virtual IPs is for a remote service, a DNS server possibly.
    pub pools: &'a Pools,
    /// Where the resolv.conf of before is kept.
    pub state_directory: &'a Path,
}

/// A way that is in force; given up when dropped.
#[derive(Debug)]
pub enum Interception {
    /// Whoever made resolv.conf saw to it.
    Own,
    /// Nobody did, and nothing is done.
    None,
    /// By nftables.
    Redirect(Redirect),
    /// By resolv.conf.
    ResolvConf(ResolvConf),
}

impl fmt::Display for Interception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("resolv.conf names dns-signal already"),
            Self::None => f.write_str("none"),
            Self::Redirect(redirect) => redirect.fmt(f),
            Self::ResolvConf(_) => f.write_str("resolv.conf was replaced"),
        }
    }
}

impl Interception {
    /// Cleans up after an earlier process, and does what is wished.
    ///
    /// # Errors
    /// When a certain way is wished, and it does not work.
    pub fn start(wish: Wish, around: &Around<'_>) -> anyhow::Result<Self> {
        resolv_conf::clean_up(around.state_directory);
        match wish {
            Wish::None => Ok(Self::None),
            Wish::Redirect => Ok(Self::Redirect(
                Redirect::start(around).context("`dns.interception` asks for nftables")?,
            )),
            Wish::ResolvConf => Ok(Self::ResolvConf(
                ResolvConf::start(around).context("`dns.interception` asks for resolv.conf")?,
            )),
            Wish::Auto => Ok(Self::first_that_works(around)),
        }
    }

    fn first_that_works(around: &Around<'_>) -> Self {
        if resolv_conf::names_only(around.listen) {
            return Self::Own;
        }
        let error = match Redirect::start(around) {
            Ok(redirect) => return Self::Redirect(redirect),
            Err(error) => error,
        };
        tracing::info!(
            error = format!("{error:#}"),
            "nftables cannot turn queries here"
        );
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
