//! Which allocations to hold: one on every relay in the directory's view, the own network's included
//! (its sidecars reach this activator there too).
//!
//! Each reservation goes through: credential asked for → credential here, allocation running → allocated.
//! Losing an allocation is the allocation's own business (`turn_client` allocates anew); here it only means
//! that its relayed addresses are not announced meanwhile. Failing to get a credential is tried again with
//! back-off; a credential is exchanged well before it expires.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use model::{NetworkName, RelayName, RelayTransport, RelayUri, RelayedAddr, ServerAddr};
use protocol::{
    directory,
    document::{self, relay_trouble::Kind as TroubleKind},
};

use crate::output::Output;

/// Relays one activator holds allocations on; further ones in the view are left out.
pub const MAX_RESERVATIONS: usize = 64;

/// Relays of which a registration says why nothing is held there.
pub const MAX_TROUBLES: usize = 16;

/// The wait after the first failure to get a credential; doubles up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(500);

/// The longest wait between two attempts: short enough to be back soon after discovery is.
const MAX_BACKOFF: Duration = Duration::from_secs(4);

/// No credential is asked for more often than this, whatever the relay says about the last one.
const MIN_CREDENTIAL_INTERVAL: Duration = Duration::from_secs(1);

/// An allocation whose credentials were refused is doubted for this long after: turn-client says so every 5 s.
const DOUBT: Duration = Duration::from_secs(15);

/// What an allocation on a relay needs.
#[derive(Clone, PartialEq, Eq)]
pub struct RelayAccess {
    /// The relay's address, looked up.
    pub server: ServerAddr,
    /// TURN username.
    pub username: String,
    /// TURN password. Never logged.
    pub password: String,
    /// How long the relay accepts the credential from now on.
    pub lifetime: Duration,
}

impl std::fmt::Debug for RelayAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            server,
            username,
            lifetime,
            ..
        } = self;
        write!(f, "RelayAccess({username} at {server} for {lifetime:?})")
    }
}

/// One allocation that should be held.
#[derive(Debug, Clone)]
struct Reservation {
    network: NetworkName,
    uri: RelayUri,
    /// The server the allocation runs on; none before the first credential.
    server: Option<ServerAddr>,
    relayed: Vec<RelayedAddr>,
    credential: Credential,
    /// Credentials that could not be had, in a row.
    failures: u32,
    /// Credentials that the relay refused since it last accepted one.
    refusals: u32,
    /// Why nothing is held, once that is known; or why what is held may be gone.
    trouble: Option<TroubleKind>,
    /// When the relay last refused a fresh credential of an allocation that is held.
    doubted: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
enum Credential {
    /// Asked for; an answer or an error will come.
    Expected { since: Instant },
    /// To be asked for at this time.
    Due(Instant),
}

/// What `/status` and the log say about one reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservationStatus<'a> {
    /// The relay.
    pub relay: &'a RelayName,
    /// The network it stands in.
    pub network: &'a NetworkName,
    /// Where allocations were made; none yet before the first credential.
    pub server: Option<ServerAddr>,
    /// The relayed addresses held now.
    pub relayed: &'a [RelayedAddr],
}

/// A relay, and the relayed addresses that are held there.
pub type Foothold = (RelayName, Vec<RelayedAddr>);

/// All reservations, by relay.
#[derive(Debug)]
pub struct Reservations {
    by_relay: BTreeMap<RelayName, Reservation>,
    /// State of the jitter's generator; never 0.
    seed: u64,
}

impl Reservations {
    /// None yet. `seed` drives the jitter of retries.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            by_relay: BTreeMap::new(),
            seed: seed | 1,
        }
    }

    /// The relays in the directory's view are now these. Returns the footholds that went away.
    pub fn handle_relays<'a>(
        &mut self,
        relays: impl Iterator<Item = (&'a RelayName, &'a directory::Relay)>,
        now: Instant,
        outputs: &mut VecDeque<Output>,
    ) -> Vec<Foothold> {
        let mut wanted: BTreeMap<RelayName, (NetworkName, RelayUri)> = BTreeMap::new();
        for (name, relay) in relays {
            if wanted.len() == MAX_RESERVATIONS {
                outputs.push_back(Output::RelayIgnored {
                    relay: name.clone(),
                    reason: format!("there are more than {MAX_RESERVATIONS} relays"),
                });
                break;
            }
            match usable(relay) {
                Ok(found) => drop(wanted.insert(name.clone(), found)),
                Err(reason) => {
                    outputs.push_back(Output::RelayIgnored {
                        relay: name.clone(),
                        reason,
                    });
                }
            }
        }

        let mut lost = Vec::new();
        self.by_relay.retain(|name, held| {
            let keep = wanted
                .get(name)
                .is_some_and(|(network, uri)| *network == held.network && *uri == held.uri);
            if !keep {
                if !held.relayed.is_empty() {
                    lost.push((name.clone(), std::mem::take(&mut held.relayed)));
                }
                if held.server.is_some() {
                    outputs.push_back(Output::Release {
                        relay: name.clone(),
                    });
                }
            }
            keep
        });
        for (name, (network, uri)) in wanted {
            self.by_relay.entry(name).or_insert_with_key(|name| {
                outputs.push_back(Output::FetchAccess {
                    relay: name.clone(),
                    uri: uri.clone(),
                });
                Reservation {
                    network,
                    uri,
                    server: None,
                    relayed: Vec::new(),
                    credential: Credential::Expected { since: now },
                    failures: 0,
                    refusals: 0,
                    trouble: None,
                    doubted: None,
                }
            });
        }
        lost
    }

    /// A credential came, or could not be had. Returns the relayed addresses that went away.
    pub fn handle_access(
        &mut self,
        relay: &RelayName,
        access: Result<RelayAccess, String>,
        now: Instant,
        outputs: &mut VecDeque<Output>,
    ) -> Vec<RelayedAddr> {
        let wait = self.backoff(relay);
        let Some(held) = self.by_relay.get_mut(relay) else {
            return Vec::new(); // no longer wanted
        };
        let access = match access {
            Ok(access) => access,
            Err(reason) => {
                held.failures = held.failures.saturating_add(1);
                held.credential = Credential::Due(now + wait);
                held.trouble = Some(TroubleKind::NoAccess);
                outputs.push_back(Output::AccessFailed {
                    relay: relay.clone(),
                    reason,
                    retry_in: wait,
                });
                return Vec::new();
            }
        };
        held.failures = 0;
        let renew_in = (access.lifetime * 2 / 3).max(MIN_CREDENTIAL_INTERVAL);
        held.credential = Credential::Due(now + renew_in);
        if held.server == Some(access.server) {
            outputs.push_back(Output::RenewCredential {
                relay: relay.clone(),
                access,
            });
            return Vec::new();
        }
        // The first one, or the relay's name now leads to another address.
        let moved = held.server.replace(access.server).is_some();
        if moved {
            outputs.push_back(Output::Release {
                relay: relay.clone(),
            });
        }
        outputs.push_back(Output::Allocate {
            relay: relay.clone(),
            access,
        });
        if moved {
            std::mem::take(&mut held.relayed)
        } else {
            Vec::new()
        }
    }

    /// There could be no allocation for a reason of this host's: from the beginning, later.
    pub fn handle_not_started(&mut self, relay: &RelayName, now: Instant) {
        if let Some(held) = self.by_relay.get_mut(relay) {
            held.server = None;
            held.credential = Credential::Due(now + MAX_BACKOFF);
        }
    }

    /// The relay no longer accepts the credential.
    pub fn handle_credential_refused(
        &mut self,
        relay: &RelayName,
        now: Instant,
        outputs: &mut VecDeque<Output>,
    ) {
        let Some(held) = self.by_relay.get_mut(relay) else {
            return;
        };
        if let Credential::Expected { since } = held.credential
            && now < since + MAX_BACKOFF
        {
            return; // already on its way
        }
        held.refusals = held.refusals.saturating_add(1);
        if held.refusals == 1 {
            held.credential = Credential::Expected { since: now };
            let uri = held.uri.clone();
            outputs.push_back(Output::FetchAccess {
                relay: relay.clone(),
                uri,
            });
        } else {
            // Fresh credentials are refused too: a secret differs, and asking faster does not help.
            held.trouble = Some(TroubleKind::CredentialRefused);
            held.doubted = Some(now);
            held.credential = Credential::Due(now + MAX_BACKOFF);
        }
    }

    /// The allocation is up at these addresses. Returns whether that is news.
    pub fn handle_allocated(&mut self, relay: &RelayName, relayed: Vec<RelayedAddr>) -> bool {
        self.by_relay.get_mut(relay).is_some_and(|held| {
            let news = held.relayed != relayed;
            held.relayed = relayed;
            held.refusals = 0;
            held.trouble = None;
            held.doubted = None;
            news
        })
    }

    /// The allocation is gone, until [`Self::handle_allocated`]. Returns the relayed addresses it had.
    pub fn handle_lost(&mut self, relay: &RelayName, why: TroubleKind) -> Vec<RelayedAddr> {
        let held = self.by_relay.get_mut(relay);
        held.map(|held| {
            held.trouble = Some(why);
            std::mem::take(&mut held.relayed)
        })
        .unwrap_or_default()
    }

    /// The network in which a relay stands on which an allocation is wanted.
    #[must_use]
    pub fn network_of(&self, relay: &RelayName) -> Option<&NetworkName> {
        self.by_relay.get(relay).map(|held| &held.network)
    }

    /// Asks for the credentials that are due, and no longer doubts what the relay has not complained of for a while.
    pub fn handle_timeout(&mut self, now: Instant, outputs: &mut VecDeque<Output>) {
        for (relay, held) in &mut self.by_relay {
            if held.doubted.is_some_and(|at| at + DOUBT <= now) {
                held.doubted = None;
                if !held.relayed.is_empty() {
                    held.trouble = None;
                    held.refusals = 0;
                }
            }
            if matches!(held.credential, Credential::Due(at) if at <= now) {
                held.credential = Credential::Expected { since: now };
                let uri = held.uri.clone();
                outputs.push_back(Output::FetchAccess {
                    relay: relay.clone(),
                    uri,
                });
            }
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = |held: &Reservation| match held.credential {
            Credential::Due(at) => Some(at),
            Credential::Expected { .. } => None,
        };
        let doubts = self.by_relay.values().filter_map(|held| held.doubted);
        let doubts = doubts.map(|at| at + DOUBT);
        self.by_relay.values().filter_map(due).chain(doubts).min()
    }

    /// The relayed addresses held now, as they are announced.
    #[must_use]
    pub fn footholds(&self) -> Vec<document::Foothold> {
        let held = self
            .by_relay
            .iter()
            .filter(|(_, held)| !held.relayed.is_empty());
        let foothold = |(relay, held): (&RelayName, &Reservation)| document::Foothold {
            relay: relay.to_string(),
            network: held.network.to_string(),
            relayed_addresses: held.relayed.iter().map(ToString::to_string).collect(),
        };
        held.map(foothold).collect()
    }

    /// Why nothing is held on relays, as it is announced: at most [`MAX_TROUBLES`].
    #[must_use]
    pub fn troubles(&self) -> Vec<document::RelayTrouble> {
        let trouble = |(relay, held): (&RelayName, &Reservation)| {
            let kind = held
                .trouble
                .filter(|_| held.relayed.is_empty() || held.doubted.is_some())?;
            Some(document::RelayTrouble {
                relay: relay.to_string(),
                network: held.network.to_string(),
                kind: kind.into(),
            })
        };
        let all = self.by_relay.iter().filter_map(trouble);
        all.take(MAX_TROUBLES).collect()
    }

    /// The relays in `network` on which an allocation is up.
    pub fn footholds_in<'a>(
        &'a self,
        network: &'a NetworkName,
    ) -> impl Iterator<Item = &'a RelayName> {
        self.by_relay
            .iter()
            .filter(move |(_, held)| held.network == *network && !held.relayed.is_empty())
            .map(|(relay, _)| relay)
    }

    /// Every reservation, for people.
    pub fn status(&self) -> impl Iterator<Item = ReservationStatus<'_>> {
        self.by_relay.iter().map(|(relay, held)| ReservationStatus {
            relay,
            network: &held.network,
            server: held.server,
            relayed: &held.relayed,
        })
    }

    /// Doubles with each failure, then 75 to 125 % of that, so that activators do not ask in step.
    fn backoff(&mut self, relay: &RelayName) -> Duration {
        let failures = self.by_relay.get(relay).map_or(0, |held| held.failures);
        let wait = MIN_BACKOFF
            .saturating_mul(1 << failures.min(8))
            .min(MAX_BACKOFF);
        // xorshift64
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        let percent = 75 + u32::try_from(self.seed % 51).unwrap_or(25);
        wait * percent / 100
    }
}

fn usable(relay: &directory::Relay) -> Result<(NetworkName, RelayUri), String> {
    let network = relay
        .network
        .parse()
        .map_err(|error: model::NameError| error.to_string())?;
    let uri = RelayUri::decode(&relay.url).map_err(|error| error.to_string())?;
    match uri.transport {
        RelayTransport::Udp => Ok((network, uri)),
        RelayTransport::Tcp | RelayTransport::Tls => {
            Err(format!("`{uri}`: relays are reached over UDP only so far"))
        }
    }
}
