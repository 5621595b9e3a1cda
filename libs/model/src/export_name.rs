//! What is exported under which name: services, and wildcards, which stand for all names below one.
//!
//! A wildcard covers what [RFC 4592](https://www.rfc-editor.org/rfc/rfc4592) says: names of any depth below its own, unless
//! there is something at the name, or at a nearer name above it. Beside `*.prod` and `db.prod`, `api.prod` and `a.b.prod`
//! are the wildcard's, `db.prod` is not, nor is anything below it, nor `prod` itself.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{NameError, ServiceName};

/// What an export is called: `orders`, or `*.prod`, or `*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ExportName {
    /// A service.
    Service(ServiceName),
    /// All names below this one; `None`: all names.
    Below(Option<ServiceName>),
}

impl ExportName {
    /// What stands in place of a wildcard's `*` in a name that is below it: `api` in `api.prod` for `*.prod`. Whether
    /// something else covers that name better is not asked here.
    #[must_use]
    pub fn star_in<'a>(&self, name: &'a ServiceName) -> Option<&'a str> {
        match self {
            Self::Service(_) => None,
            Self::Below(None) => Some(name.as_str()),
            Self::Below(Some(below)) => name
                .as_str()
                .strip_suffix(below.as_str())?
                .strip_suffix('.'),
        }
    }

    /// Whether a name is this service's, or below this wildcard.
    #[must_use]
    pub fn covers(&self, name: &ServiceName) -> bool {
        match self {
            Self::Service(service) => service == name,
            Self::Below(_) => self.star_in(name).is_some(),
        }
    }
}

impl FromStr for ExportName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.strip_prefix("*.") {
            Some(below) => Ok(Self::Below(Some(below.parse()?))),
            None if text == "*" => Ok(Self::Below(None)),
            None => Ok(Self::Service(text.parse()?)),
        }
    }
}

impl fmt::Display for ExportName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(service) => service.fmt(f),
            Self::Below(None) => f.pad("*"),
            Self::Below(Some(below)) => write!(f, "*.{below}"),
        }
    }
}

impl<'de> Deserialize<'de> for ExportName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

/// What is at a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Match<'a, V> {
    /// A service of that name.
    Service(&'a V),
    /// The wildcard that covers it.
    Wildcard(ExportName, &'a V),
    /// Nothing, but there is something below it ([RFC 8020 section 2](https://www.rfc-editor.org/rfc/rfc8020#section-2)).
    Beginning,
    /// Nothing.
    Nothing,
}

impl<'a, V> Match<'a, V> {
    /// What the name stands for.
    #[must_use]
    pub fn value(&self) -> Option<&'a V> {
        match self {
            Self::Service(value) | Self::Wildcard(_, value) => Some(value),
            Self::Beginning | Self::Nothing => None,
        }
    }
}

/// Exports by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exports<V> {
    /// What `*` stands for.
    all: Option<V>,
    /// Every name that is exported, or above one that is.
    nodes: BTreeMap<ServiceName, Node<V>>,
    wildcards: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Node<V> {
    service: Option<V>,
    /// What all names below it stand for.
    below: Option<V>,
}

impl<V> Default for Node<V> {
    fn default() -> Self {
        Self {
            service: None,
            below: None,
        }
    }
}

impl<V> Default for Exports<V> {
    fn default() -> Self {
        Self {
            all: None,
            nodes: BTreeMap::new(),
            wildcards: 0,
        }
    }
}

impl<V> Exports<V> {
    /// What is exported under a name, to be changed; made, if it is not there.
    pub fn entry(&mut self, name: ExportName, make: impl FnOnce() -> V) -> &mut V {
        let place = match name {
            ExportName::Service(name) => &mut self.node(name).service,
            ExportName::Below(below) => {
                let is_new = match &below {
                    None => self.all.is_none(),
                    Some(below) => self.nodes.get(below).is_none_or(|at| at.below.is_none()),
                };
                self.wildcards += usize::from(is_new);
                match below {
                    None => &mut self.all,
                    Some(below) => &mut self.node(below).below,
                }
            }
        };
        place.get_or_insert_with(make)
    }

    fn node(&mut self, name: ServiceName) -> &mut Node<V> {
        let mut rest = name.as_str();
        while let Some((_, above)) = rest.split_once('.') {
            // What follows a dot of a name is a name.
            if let Ok(above) = above.parse() {
                self.nodes.entry(above).or_default();
            }
            rest = above;
        }
        self.nodes.entry(name).or_default()
    }

    /// What a name stands for.
    #[must_use]
    pub fn find(&self, name: &ServiceName) -> Match<'_, V> {
        if let Some(node) = self.nodes.get(name) {
            let service = node.service.as_ref();
            return service.map_or(Match::Beginning, Match::Service);
        }
        let mut rest = name.as_str();
        while let Some((_, above)) = rest.split_once('.') {
            if let Some((above, node)) = self.nodes.get_key_value(above) {
                return wildcard(Some(above), node.below.as_ref());
            }
            rest = above;
        }
        wildcard(None, self.all.as_ref())
    }

    /// A service of exactly this name.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<&V> {
        self.nodes.get(name)?.service.as_ref()
    }

    /// The services, without wildcards, by name.
    pub fn services(&self) -> impl Iterator<Item = (&ServiceName, &V)> {
        let nodes = self.nodes.iter();
        nodes.filter_map(|(name, node)| Some((name, node.service.as_ref()?)))
    }

    /// How many wildcards there are.
    #[must_use]
    pub const fn wildcards(&self) -> usize {
        self.wildcards
    }
}

fn wildcard<'a, V>(below: Option<&ServiceName>, value: Option<&'a V>) -> Match<'a, V> {
    value.map_or(Match::Nothing, |value| {
        Match::Wildcard(ExportName::Below(below.cloned()), value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exports(names: &[&'static str]) -> Exports<&'static str> {
        let mut exports = Exports::default();
        for name in names {
            exports.entry(name.parse().unwrap(), || *name);
        }
        exports
    }

    fn found(exports: &Exports<&'static str>, name: &str) -> &'static str {
        match exports.find(&name.parse().unwrap()) {
            Match::Service(value) => value,
            Match::Wildcard(name, value) => {
                assert_eq!(name.to_string(), *value);
                value
            }
            Match::Beginning => "beginning",
            Match::Nothing => "nothing",
        }
    }

    #[test]
    fn a_wildcard_covers_names_of_any_depth_unless_something_is_nearer() {
        let all = exports(&["*.prod", "db.prod", "*.eu.prod", "orders", "a.b.c"]);
        for (name, expected) in [
            ("api.prod", "*.prod"),
            ("a.b.prod", "*.prod"),
            ("db.prod", "db.prod"),
            ("replica.db.prod", "nothing"),
            ("prod", "beginning"),
            ("eu.prod", "beginning"),
            ("api.eu.prod", "*.eu.prod"),
            ("orders", "orders"),
            ("x.orders", "nothing"),
            ("b.c", "beginning"),
            ("x.b.c", "nothing"),
            ("other", "nothing"),
            ("xprod", "nothing"),
        ] {
            assert_eq!(found(&all, name), expected, "{name}");
        }
        assert_eq!(all.wildcards(), 2);
        assert_eq!(all.services().count(), 3);
    }

    #[test]
    fn a_star_alone_covers_what_nothing_else_is_above() {
        let all = exports(&["*", "orders", "db.prod"]);
        assert_eq!(found(&all, "anything"), "*");
        assert_eq!(found(&all, "a.b"), "*");
        assert_eq!(found(&all, "orders"), "orders");
        assert_eq!(found(&all, "x.prod"), "nothing", "`prod` is there");
    }

    #[test]
    fn the_star_is_all_that_stands_before_the_wildcards_own_name() {
        let star = |export: &str, name: &str| {
            let export: ExportName = export.parse().unwrap();
            let name: ServiceName = name.parse().unwrap();
            assert_eq!(export.covers(&name), export.star_in(&name).is_some());
            export.star_in(&name).map(str::to_owned)
        };
        assert_eq!(star("*.prod", "a.b.prod").as_deref(), Some("a.b"));
        assert_eq!(star("*", "a.b").as_deref(), Some("a.b"));
        assert_eq!(star("*.prod", "prod"), None);
        assert_eq!(star("*.prod", "xprod"), None);
    }

    #[test]
    fn only_the_first_label_is_a_star() {
        for good in ["*", "*.prod", "*.eu.prod", "orders", "db.prod"] {
            assert_eq!(good.parse::<ExportName>().unwrap().to_string(), good);
        }
        for bad in ["", "*.", "a.*", "*.*", "*x", "**", "*.Prod"] {
            assert!(bad.parse::<ExportName>().is_err(), "{bad:?}");
        }
    }
}
