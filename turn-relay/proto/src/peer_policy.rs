//! Which peers may be reached: none, unless the configuration says so, and however their address is written.
//!
//! One address has many spellings: `::ffff:10.0.0.1`, `::10.0.0.1`, `2002:a00:1::`, Teredo, NAT64. Each spelling of a
//! denied address was once a hole in some TURN server. Here an address is allowed only if it *and every address hidden
//! in it* is ([`faces`]). One function decides for every way to a peer: [`PeerPolicy::check`] where its port is known
//! (ChannelBind, Send, Connect of RFC 6062), and [`PeerPolicy::check_host`] for permissions, which know none.

mod faces;
mod rule;

pub use rule::{PeerRule, RuleError};

use faces::faces;
use ipnet::{IpNet, Ipv6Net};
use model::{PeerAddr, ServerAddr};
use std::net::{IpAddr, SocketAddr};

/// What a [`PeerPolicy`] is made from.
#[derive(Clone, Debug, Default)]
pub struct PeerRules {
    /// Who may be reached; nobody if there is none. Loopback, link-local addresses and the metadata services of clouds
    /// ([`Denied::Guarded`]) only by a rule for them or a part of them.
    pub allow: Vec<PeerRule>,
    /// Who may not, whatever `allow` says.
    pub deny: Vec<PeerRule>,
    /// What the relay itself serves at, or asks: never peers, as they would make a loop or be a way into it
    /// ([RFC 8656 section 21.1.7](https://www.rfc-editor.org/rfc/rfc8656#section-21.1.7)). An unspecified address stands
    /// for all of `hosts`.
    pub own: Vec<SocketAddr>,
    /// The addresses of this machine, beside loopback, and those that lead to it. If there is none, they are not known,
    /// and then every address is taken for one.
    pub hosts: Vec<IpNet>,
    /// Prefixes of NAT64 beside the well-known ones, of 32, 40, 48, 56, 64 or 96 bits
    /// ([RFC 6052 section 2.2](https://www.rfc-editor.org/rfc/rfc6052#section-2.2)).
    pub nat64: Vec<Ipv6Net>,
}

/// Immutable, shared by all shards.
#[derive(Clone, Debug, Default)]
pub struct PeerPolicy {
    rules: PeerRules,
    /// Whether some rule is about ports.
    by_port: bool,
}

macro_rules! denied {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// Why a peer may not be reached.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Denied { $($(#[$doc])* $name,)* }

        impl Denied {
            /// All of them, in the order of their discriminants.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As a metric's label: lower case with underscores.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

denied! {
    /// No rule allows it.
    NotAllowed = "not_allowed",
    /// A rule denies it.
    Listed = "listed",
    /// Loopback, link-local or a cloud's metadata service, and no rule is for just that.
    Guarded = "guarded",
    /// No single host: unspecified, multicast, broadcast, or port 0.
    NoHost = "no_host",
    /// The relay itself.
    Own = "own",
    /// The user asked for too many peers in a short time ([`UsageLimits::new_peers`](crate::UsageLimits::new_peers)).
    Scanning = "scanning",
}

impl PeerPolicy {
    /// Allows peers in these networks, at any port. `own` as in [`PeerRules`].
    pub fn new(allowed: Vec<IpNet>, own: &[ServerAddr]) -> Self {
        Self::from(PeerRules {
            allow: allowed.into_iter().map(PeerRule::from).collect(),
            own: own.iter().map(|server| server.0).collect(),
            ..PeerRules::default()
        })
    }

    /// Whether nobody at all is allowed.
    pub fn is_empty(&self) -> bool {
        self.rules.allow.is_empty()
    }

    /// Whether a permission for this address may be given: whether some port of it may be reached.
    ///
    /// # Errors
    /// Why not.
    pub fn check_host(&self, ip: IpAddr) -> Result<(), Denied> {
        self.check_faces(ip, None)
    }

    /// Whether this address and port may be reached.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, peer: PeerAddr) -> Result<(), Denied> {
        let port = peer.0.port();
        if port == 0 {
            return Err(Denied::NoHost);
        }
        if self.is_own(peer.0.ip(), port) {
            return Err(Denied::Own);
        }
        self.check_faces(peer.0.ip(), Some(port))
    }

    /// As [`PeerPolicy::check`], for an address that has a permission.
    pub(crate) fn check_permitted(&self, peer: PeerAddr) -> Result<(), Denied> {
        let port = peer.0.port();
        if self.by_port {
            self.check(peer)
        } else if port == 0 {
            Err(Denied::NoHost)
        } else if self.is_own(peer.0.ip(), port) {
            Err(Denied::Own)
        } else {
            Ok(())
        }
    }

    /// Whether what comes from this peer, whose address has a permission, is for the client: a port that may not be
    /// reached is not heard either.
    pub(crate) fn hears(&self, peer: PeerAddr) -> bool {
        !self.by_port || self.check(peer).is_ok()
    }

    fn check_faces(&self, ip: IpAddr, port: Option<u16>) -> Result<(), Denied> {
        for face in faces(ip, &self.rules.nat64) {
            if faces::is_no_host(face) {
                return Err(Denied::NoHost);
            }
            if self.rules.deny.iter().any(|rule| rule.denies(face, port)) {
                return Err(Denied::Listed);
            }
            let guard = faces::guard(face);
            let mut allowed = false;
            let mut meant = false;
            for rule in self.rules.allow.iter().filter(|r| r.allows(face, port)) {
                allowed = true;
                meant |= guard.is_none_or(|guard| guard.contains(&rule.network()));
            }
            match (allowed, meant) {
                (false, _) => return Err(Denied::NotAllowed),
                (true, false) => return Err(Denied::Guarded),
                (true, true) => {}
            }
        }
        Ok(())
    }

    fn is_own(&self, ip: IpAddr, port: u16) -> bool {
        let here = |face: IpAddr| {
            let hosts = &self.rules.hosts;
            hosts.is_empty() || face.is_loopback() || hosts.iter().any(|net| net.contains(&face))
        };
        let is_at = |own: &SocketAddr| {
            faces(ip, &self.rules.nat64).any(|face| match faces::mapped(own.ip()) {
                any if any.is_unspecified() => here(face),
                own => own == face,
            })
        };
        let mut own = self.rules.own.iter();
        own.any(|own| own.port() == port && is_at(own))
    }
}

impl From<PeerRules> for PeerPolicy {
    fn from(rules: PeerRules) -> Self {
        let by_port = rules
            .allow
            .iter()
            .chain(&rules.deny)
            .any(PeerRule::has_ports);
        Self { rules, by_port }
    }
}
