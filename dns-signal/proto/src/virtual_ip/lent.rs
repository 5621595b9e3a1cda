//! Virtual IPs that are lent: to names below wildcards, of which there is no end.
//!
//! A name keeps its place as long as there is room. When there is none, for its wildcard or in all, the name that was asked
//! for least lately gives its place to a new one, if that is long ago: after [`REST`], or, if its activator never said that
//! there is anything behind it, after [`UNFOUND_REST`]. A name of which the activator says that it is not there gives its
//! place back at once. So whoever asks for names at random fills neither the pools nor the memory, and nobody's address goes
//! to another name while it is used.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use model::{ExportName, NetworkName};
use thiserror::Error;

use crate::service::ServiceId;

/// Names of one wildcard that can have an address.
pub const MAX_BELOW: usize = 512;
/// Names of all wildcards that can.
pub const MAX_LENT: usize = 4_096;
/// See the module. Longer than clients remember.
pub const REST: Duration = Duration::from_secs(3_600);
/// See the module. Longer than a link takes to open.
pub const UNFOUND_REST: Duration = Duration::from_secs(20);

/// A wildcard of a network, written `*.prod.east`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wildcard {
    /// What it is called there.
    pub name: ExportName,
    /// The network.
    pub network: NetworkName,
}

impl fmt::Display for Wildcard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.network)
    }
}

/// Why a name below a wildcard gets no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotLent {
    /// As many names of the wildcard have one as may.
    #[error("{MAX_BELOW} names of this wildcard have a virtual IP, and none of them has rested")]
    WildcardFull,
    /// As many names of all wildcards have one as may.
    #[error("{MAX_LENT} names of wildcards have a virtual IP, and none of them has rested")]
    Full,
    /// The pools have no place.
    #[error("no virtual IP is free")]
    PoolExhausted,
}

#[derive(Clone, Debug)]
struct Loan {
    wildcard: Wildcard,
    /// When it was last asked for; `None`: not since the start.
    asked: Option<Instant>,
    /// Its activator said that there is something behind it.
    found: bool,
}

/// Who has what was lent.
#[derive(Clone, Debug, Default)]
pub(super) struct Lent {
    loans: HashMap<ServiceId, Loan>,
    below: HashMap<Wildcard, usize>,
}

impl Lent {
    pub(super) fn len(&self) -> usize {
        self.loans.len()
    }

    /// Notes that a name was asked for. `false`: it was lent nothing.
    pub(super) fn touch(&mut self, id: &ServiceId, now: Instant) -> bool {
        let loan = self.loans.get_mut(id);
        let is_lent = loan.is_some();
        if let Some(loan) = loan {
            loan.asked = Some(now);
        }
        is_lent
    }

    /// The name that must give its place back before one more of this wildcard is lent one, if any must.
    pub(super) fn in_the_way(
        &mut self,
        wildcard: &Wildcard,
        now: Instant,
    ) -> Result<Option<ServiceId>, NotLent> {
        let of_wildcard = self.below.get(wildcard).copied().unwrap_or_default() >= MAX_BELOW;
        if !of_wildcard && self.loans.len() < MAX_LENT {
            return Ok(None);
        }
        let among = self
            .loans
            .iter_mut()
            .filter(|(_, loan)| !of_wildcard || loan.wildcard == *wildcard);
        let rested = among.filter_map(|(id, loan)| {
            // What an earlier process gave rests from the first time that it matters.
            let asked = *loan.asked.get_or_insert(now);
            let rest = if loan.found { REST } else { UNFOUND_REST };
            (now.saturating_duration_since(asked) >= rest).then_some((asked, id))
        });
        let first = rested.min_by_key(|(asked, _)| *asked);
        match first {
            Some((_, id)) => Ok(Some(id.clone())),
            None if of_wildcard => Err(NotLent::WildcardFull),
            None => Err(NotLent::Full),
        }
    }

    pub(super) fn lend(
        &mut self,
        id: ServiceId,
        wildcard: Wildcard,
        asked: Option<Instant>,
        found: bool,
    ) {
        *self.below.entry(wildcard.clone()).or_default() += 1;
        let loan = Loan {
            wildcard,
            asked,
            found,
        };
        self.loans.insert(id, loan);
    }

    /// What was lent to a name is so no longer. `false`: it was lent nothing.
    pub(super) fn end(&mut self, id: &ServiceId) -> bool {
        let Some(loan) = self.loans.remove(id) else {
            return false;
        };
        if let Some(count) = self.below.get_mut(&loan.wildcard) {
            *count -= 1;
            if *count == 0 {
                self.below.remove(&loan.wildcard);
            }
        }
        true
    }

    /// Whether this is news.
    pub(super) fn found(&mut self, id: &ServiceId) -> bool {
        let loan = self.loans.get_mut(id);
        loan.is_some_and(|loan| !std::mem::replace(&mut loan.found, true))
    }

    /// The wildcard of a name to which a place was lent, if it is to be remembered.
    pub(super) fn kept(&self, id: &ServiceId) -> Kept<'_> {
        match self.loans.get(id) {
            None => Kept::ForGood,
            Some(loan) if loan.found => Kept::Lent(&loan.wildcard),
            Some(_) => Kept::Not,
        }
    }
}

/// How a name's address is remembered over a restart.
pub(super) enum Kept<'a> {
    ForGood,
    Lent(&'a Wildcard),
    /// Nobody knows yet whether there is such a name.
    Not,
}
