//! Names that stand for services besides `<service>.<network>.<suffix>`: of another domain, and of a service wherever it is.
//!
//! An alias that stands for nothing at the moment is left to whoever else has the name: outside of the suffix the upstream
//! resolvers are asked, as if there were no alias.

use std::collections::HashMap;
use std::str::FromStr;

use hickory_proto::rr::{LowerName, Name, RecordType};
use model::{NetworkName, ServiceName};
use rustc_hash::FxHashMap;
use thiserror::Error;

use crate::service::ServiceId;
use crate::services::{Families, Services};

/// Which of several networks that export a service is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The first that exports it.
    #[default]
    Failover,
    /// All of them, each answer beginning with another.
    RoundRobin,
}

/// Not a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a way to choose among networks")]
pub struct NotAChoice;

impl FromStr for Choice {
    type Err = NotAChoice;

    fn from_str(text: &str) -> Result<Self, NotAChoice> {
        match text {
            "failover" => Ok(Self::Failover),
            "round-robin" => Ok(Self::RoundRobin),
            _ => Err(NotAChoice),
        }
    }
}

/// What one alias stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The service. `None`, with a wildcard only: the label in its place.
    pub service: Option<ServiceName>,
    /// The networks, in order of preference. Empty: all, this sidecar's own first, then by name.
    pub networks: Vec<NetworkName>,
    /// Which of them.
    pub choice: Choice,
}

/// Why a text is no alias's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AliasError {
    /// Not labels with dots between them, the first of which may be `*`.
    #[error("not a domain name; only its first label may be `*`")]
    NotAName,
    /// `*` alone, or the root.
    #[error("it would take the names of everybody")]
    TooWide,
    /// Only a wildcard's label can be the service.
    #[error("without `*` the service must be named")]
    NoService,
    /// The same name twice.
    #[error("there is an alias of this name already")]
    Twice,
}

/// What an alias means now: candidates in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// The services, at least one; with [`Choice::Failover`] exactly one.
    pub services: Vec<(ServiceId, Families)>,
    /// Whose SOA goes with NODATA: the name, or what follows the `*`.
    pub zone: Name,
}

/// All aliases of a sidecar.
#[derive(Clone, Debug)]
pub struct Aliases {
    own: NetworkName,
    exact: FxHashMap<LowerName, Alias>,
    below: FxHashMap<LowerName, Alias>,
}

impl Aliases {
    /// None yet, for a sidecar of the network `own`.
    pub fn new(own: NetworkName) -> Self {
        Self {
            own,
            exact: HashMap::default(),
            below: HashMap::default(),
        }
    }

    /// Adds one: `api.example.com`, or `*.prod.svc.clusterset.local`, in which `*` is one label.
    ///
    /// # Errors
    /// When the name is none, or taken.
    pub fn add(&mut self, name: &str, alias: Alias) -> Result<(), AliasError> {
        let (table, text) = match name.strip_prefix("*.") {
            Some(zone) => (&mut self.below, zone),
            None if alias.service.is_none() && name != "*" => return Err(AliasError::NoService),
            None => (&mut self.exact, name),
        };
        if matches!(text, "" | "." | "*") {
            return Err(AliasError::TooWide);
        }
        let mut zone = Name::from_utf8(text).map_err(|_| AliasError::NotAName)?;
        if zone.iter().any(|label| label.contains(&b'*')) {
            return Err(AliasError::NotAName);
        }
        zone.set_fqdn(true);
        if table.insert(LowerName::from(zone), alias).is_some() {
            return Err(AliasError::Twice);
        }
        Ok(())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.below.is_empty()
    }

    /// The domains in which all names with an alias are, without the final dot, in order.
    pub fn zones(&self) -> Vec<String> {
        let names = self.exact.keys().chain(self.below.keys());
        let mut zones: Vec<String> = names
            .map(|zone| {
                Name::from(zone.clone())
                    .to_ascii()
                    .trim_end_matches('.')
                    .to_owned()
            })
            .collect();
        zones.sort();
        zones.dedup();
        zones
    }

    /// The alias that covers a name, and the service it is about; the most exact one.
    fn find(&self, name: &Name) -> Option<(&Alias, ServiceName, Name)> {
        if self.is_empty() {
            return None;
        }
        let lower = LowerName::new(name);
        if let Some(alias) = self.exact.get(&lower) {
            return Some((alias, alias.service.clone()?, Name::from(lower)));
        }
        let (alias, zone) = (self.below.get(&lower.base_name())?, lower.base_name());
        let label = name.iter().next()?;
        let service = match &alias.service {
            Some(service) => service.clone(),
            None => {
                let label = std::str::from_utf8(label).ok()?.to_ascii_lowercase();
                ServiceName::from_labels([label]).ok()?
            }
        };
        Some((alias, service, zone.into()))
    }

    /// Whether a question is an alias's to answer, should there be a service behind it: other types than addresses, and
    /// what goes with them ([RFC 9460](https://www.rfc-editor.org/rfc/rfc9460)), stay with whoever has the name.
    pub fn covers(&self, name: &Name, record_type: RecordType) -> bool {
        use RecordType::{A, AAAA, ANY, HTTPS, SVCB};
        matches!(record_type, A | AAAA | ANY | HTTPS | SVCB) && self.find(name).is_some()
    }

    /// What a name means; `None`: no alias, or nobody exports the service.
    pub fn meaning(&self, name: &Name, services: &Services) -> Option<Meaning> {
        let (alias, service, zone) = self.find(name)?;
        let exported = |network: &NetworkName| {
            let id = ServiceId {
                service: service.clone(),
                network: network.clone(),
            };
            let families = services.families(&id)?;
            // Whoever exports `*` shall not have all names of an alias that names no service.
            let is_meant = alias.service.is_some() || services.has_service(&id);
            is_meant.then_some((id, families))
        };
        let mut found: Vec<_> = if alias.networks.is_empty() {
            let others = services.networks().filter(|network| **network != self.own);
            let all = std::iter::once(&self.own).chain(others);
            all.filter_map(exported).collect()
        } else {
            alias.networks.iter().filter_map(exported).collect()
        };
        if alias.choice == Choice::Failover {
            found.truncate(1);
        }
        (!found.is_empty()).then_some(Meaning {
            services: found,
            zone,
        })
    }
}
