//! Which allocations to hold: one on every relay that is wanted.
//!
//! Each reservation goes through: credential asked for → credential here, allocation running → allocated.
//! Losing an allocation is the allocation's own business (it allocates anew); here it only means
//! that its relayed addresses are not announced meanwhile. Failing to get a credential is tried again with
//! back-off; a credential is exchanged well before it expires.

mod ending;

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use model::{NetworkName, RelayAccess, RelayName, RelayUri, RelayWay, RelayedAddr};
use protocol::{
    directory,
    document::{self, relay_trouble::Kind as TroubleKind},
};

/// Relays one node holds allocations on; further ones are left out.
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

/// What is to be done outside, for a reservation.
#[derive(Debug, Clone, PartialEq)]
pub enum Reserve {
    /// Look the relay up, get a credential for it, and answer with [`Reservations::handle_access`].
    FetchAccess {
        /// The relay.
        relay: RelayName,
        /// Where it listens, the preferred first; never empty.
        uris: Vec<RelayUri>,
    },
    /// For the log: no credential or no address; it will be tried again.
    AccessFailed {
        /// The relay.
        relay: RelayName,
        /// Why.
        reason: String,
        /// When it will be tried again.
        retry_in: Duration,
    },
    /// For the log: a relay that is wanted cannot be used.
    RelayIgnored {
        /// The relay.
        relay: RelayName,
        /// Why.
        reason: String,
    },
    /// Start a standing allocation.
    Allocate {
        /// The relay.
        relay: RelayName,
        /// Where, and with which credential.
        access: RelayAccess,
    },
    /// Go on with this credential.
    RenewCredential {
        /// The relay.
        relay: RelayName,
        /// The credential; the ways are the same.
        access: RelayAccess,
    },
    /// Delete the allocation and forget the relay.
    Release {
        /// The relay.
        relay: RelayName,
    },
    /// Delete the allocation, which nothing uses any more, and try for another one later.
    GiveBack {
        /// The relay.
        relay: RelayName,
    },
}

/// One allocation that should be held.
#[derive(Debug, Clone)]
struct Reservation {
    network: NetworkName,
    uris: Vec<RelayUri>,
    /// The ways that the allocation may use; none before the first credential.
    ways: Vec<RelayWay>,
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
    /// What is held will soon be gone: the relay drains.
    ending: bool,
}

impl Reservation {
    fn is_held(&self) -> bool {
        !self.relayed.is_empty()
    }

    /// A credential is asked for `now`.
    fn fetch_access(&mut self, relay: &RelayName, now: Instant) -> Reserve {
        self.credential = Credential::Expected { since: now };
        Reserve::FetchAccess {
            relay: relay.clone(),
            uris: self.uris.clone(),
        }
    }
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
    /// Where the relay is spoken to, the preferred first; none yet before the first credential.
    pub ways: &'a [RelayWay],
    /// The relayed addresses held now.
    pub relayed: &'a [RelayedAddr],
    /// They will soon be gone: the relay drains.
    pub ending: bool,
}

/// A relay, and the relayed addresses that are held there.
pub type Foothold = (RelayName, Vec<RelayedAddr>);

/// All reservations, by relay.
#[derive(Debug)]
pub struct Reservations {
    by_relay: BTreeMap<RelayName, Reservation>,
    /// When it is to be looked whether what is on relays that drain can go elsewhere.
    leave_at: Option<Instant>,
    /// State of the jitter's generator; never 0.
    seed: u64,
}

impl Reservations {
    /// None yet. `seed` drives the jitter of retries.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            by_relay: BTreeMap::new(),
            leave_at: None,
            seed: seed | 1,
        }
    }

    /// These relays are wanted now. Returns the footholds that went away.
    pub fn handle_relays<'a>(
        &mut self,
        relays: impl Iterator<Item = (&'a RelayName, &'a directory::Relay)>,
        now: Instant,
        outputs: &mut VecDeque<impl From<Reserve>>,
    ) -> Vec<Foothold> {
        let mut wanted: BTreeMap<RelayName, (NetworkName, Vec<RelayUri>)> = BTreeMap::new();
        for (name, relay) in relays {
            if wanted.len() == MAX_RESERVATIONS {
                outputs.push_back(
                    Reserve::RelayIgnored {
                        relay: name.clone(),
                        reason: format!("there are more than {MAX_RESERVATIONS} relays"),
                    }
                    .into(),
                );
                break;
            }
            match usable(relay) {
                Ok((network, uris, wrong)) => {
                    wanted.insert(name.clone(), (network, uris));
                    let relay = name.clone();
                    outputs
                        .extend(wrong.map(|reason| Reserve::RelayIgnored { relay, reason }.into()));
                }
                Err(reason) => {
                    outputs.push_back(
                        Reserve::RelayIgnored {
                            relay: name.clone(),
                            reason,
                        }
                        .into(),
                    );
                }
            }
        }

        let mut lost = Vec::new();
        self.by_relay.retain(|name, held| {
            let keep = wanted
                .get(name)
                .is_some_and(|(network, uris)| *network == held.network && *uris == held.uris);
            if !keep {
                if !held.relayed.is_empty() {
                    lost.push((name.clone(), std::mem::take(&mut held.relayed)));
                }
                if !held.ways.is_empty() {
                    outputs.push_back(
                        Reserve::Release {
                            relay: name.clone(),
                        }
                        .into(),
                    );
                }
            }
            keep
        });
        for (name, (network, uris)) in wanted {
            self.by_relay.entry(name).or_insert_with_key(|name| {
                outputs.push_back(
                    Reserve::FetchAccess {
                        relay: name.clone(),
                        uris: uris.clone(),
                    }
                    .into(),
                );
                Reservation {
                    network,
                    uris,
                    ways: Vec::new(),
                    relayed: Vec::new(),
                    credential: Credential::Expected { since: now },
                    failures: 0,
                    refusals: 0,
                    trouble: None,
                    doubted: None,
                    ending: false,
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
        outputs: &mut VecDeque<impl From<Reserve>>,
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
                outputs.push_back(
                    Reserve::AccessFailed {
                        relay: relay.clone(),
                        reason,
                        retry_in: wait,
                    }
                    .into(),
                );
                return Vec::new();
            }
        };
        held.failures = 0;
        let renew_in = (access.lifetime * 2 / 3).max(MIN_CREDENTIAL_INTERVAL);
        held.credential = Credential::Due(now + renew_in);
        if held.ways == access.ways {
            outputs.push_back(
                Reserve::RenewCredential {
                    relay: relay.clone(),
                    access,
                }
                .into(),
            );
            return Vec::new();
        }
        // The first one, or the relay's name now leads to another address.
        let moved = !std::mem::replace(&mut held.ways, access.ways.clone()).is_empty();
        if moved {
            outputs.push_back(
                Reserve::Release {
                    relay: relay.clone(),
                }
                .into(),
            );
        }
        outputs.push_back(
            Reserve::Allocate {
                relay: relay.clone(),
                access,
            }
            .into(),
        );
        if moved {
            std::mem::take(&mut held.relayed)
        } else {
            Vec::new()
        }
    }

    /// There could be no allocation for a reason of this host's: from the beginning, later.
    pub fn handle_not_started(&mut self, relay: &RelayName, now: Instant) {
        if let Some(held) = self.by_relay.get_mut(relay) {
            held.ways.clear();
            held.credential = Credential::Due(now + MAX_BACKOFF);
        }
    }

    /// The relay no longer accepts the credential.
    pub fn handle_credential_refused(
        &mut self,
        relay: &RelayName,
        now: Instant,
        outputs: &mut VecDeque<impl From<Reserve>>,
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
            outputs.push_back(held.fetch_access(relay, now).into());
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
            held.ending = false;
            news
        })
    }

    /// The allocation is gone, until [`Self::handle_allocated`]. Returns the relayed addresses it had.
    pub fn handle_lost(&mut self, relay: &RelayName, why: TroubleKind) -> Vec<RelayedAddr> {
        let held = self.by_relay.get_mut(relay);
        held.map(|held| {
            held.trouble = Some(why);
            held.ending = false;
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
    pub fn handle_timeout(&mut self, now: Instant, outputs: &mut VecDeque<impl From<Reserve>>) {
        for (relay, held) in &mut self.by_relay {
            if held.doubted.is_some_and(|at| at + DOUBT <= now) {
                held.doubted = None;
                if !held.relayed.is_empty() {
                    held.trouble = None;
                    held.refusals = 0;
                }
            }
            if matches!(held.credential, Credential::Due(at) if at <= now) {
                outputs.push_back(held.fetch_access(relay, now).into());
            }
        }
    }

    /// When [`Self::handle_timeout`] or [`Self::poll_leave`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = |held: &Reservation| match held.credential {
            Credential::Due(at) => Some(at),
            Credential::Expected { .. } => None,
        };
        let doubts = self.by_relay.values().filter_map(|held| held.doubted);
        let doubts = doubts.map(|at| at + DOUBT);
        let dues = self.by_relay.values().filter_map(due);
        dues.chain(doubts).chain(self.leave_at).min()
    }

    /// The relayed addresses held now, as they are announced.
    #[must_use]
    pub fn footholds(&self) -> Vec<document::Foothold> {
        let held = self.by_relay.iter().filter(|(_, held)| held.is_held());
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

    /// Every reservation, for people.
    pub fn status(&self) -> impl Iterator<Item = ReservationStatus<'_>> {
        self.by_relay.iter().map(|(relay, held)| ReservationStatus {
            relay,
            network: &held.network,
            ways: &held.ways,
            relayed: &held.relayed,
            ending: held.ending,
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

/// The relay's network, its URIs, and what is wrong with one that is left out.
fn usable(
    relay: &directory::Relay,
) -> Result<(NetworkName, Vec<RelayUri>, Option<String>), String> {
    let network = relay
        .network
        .parse()
        .map_err(|error: model::NameError| error.to_string())?;
    let all = std::iter::once(&relay.url).chain(&relay.more_urls);
    let (uris, wrong) = RelayUri::decode_all(all.map(String::as_str));
    let wrong = wrong.map(|error| error.to_string());
    if uris.is_empty() {
        return Err(wrong.unwrap_or_default());
    }
    Ok((network, uris, wrong))
}
