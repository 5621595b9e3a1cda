//! Whom an export is for.

use std::{fmt, str::FromStr};

use model::{NetworkName, NodeId, NodeName, Role};

/// Some of the mesh's workloads, by what their certificates say: everyone (`*`), a network's (`west`), or those of a
/// network with certain names (`west/app-1`, `west/app-*`). A node's SPIFFE id in full will do for the last:
/// `west/workload/app-1` is what stands in it after `/network/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    network: Option<NetworkName>,
    name: Name,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    Any,
    Is(NodeName),
    Begins(String),
}

/// Not a description of workloads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no workloads: use *, NETWORK, NETWORK/NAME or NETWORK/BEGINNING*")]
pub struct NotWho(String);

impl Who {
    /// Whether this node is meant.
    #[must_use]
    pub fn contains(&self, node: &NodeId) -> bool {
        let Self { network, name } = self;
        node.role == Role::Workload
            && network
                .as_ref()
                .is_none_or(|network| *network == node.network)
            && match name {
                Name::Any => true,
                Name::Is(name) => *name == node.name,
                Name::Begins(beginning) => node.name.as_str().starts_with(beginning.as_str()),
            }
    }
}

impl FromStr for Who {
    type Err = NotWho;

    fn from_str(text: &str) -> Result<Self, NotWho> {
        let wrong = || NotWho(text.chars().take(200).collect());
        if text == "*" {
            return Ok(Self {
                network: None,
                name: Name::Any,
            });
        }
        let (network, name) = match text.split_once('/') {
            Some((network, name)) => (network, Some(name)),
            None => (text, None),
        };
        let network = network.parse::<NetworkName>().map_err(|_| wrong())?;
        let name = match name.map(|name| name.strip_prefix("workload/").unwrap_or(name)) {
            None | Some("*") => Name::Any,
            Some(name) => match name.strip_suffix('*') {
                // A beginning of a name is one itself, but for a hyphen at its end.
                Some(beginning) => beginning
                    .trim_end_matches('-')
                    .parse::<NodeName>()
                    .map(|_| Name::Begins(beginning.to_owned()))
                    .map_err(|_| wrong())?,
                None => Name::Is(name.parse().map_err(|_| wrong())?),
            },
        };
        Ok(Self {
            network: Some(network),
            name,
        })
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.network, &self.name) {
            (None, _) => f.write_str("*"),
            (Some(network), Name::Any) => write!(f, "{network}"),
            (Some(network), Name::Is(name)) => write!(f, "{network}/{name}"),
            (Some(network), Name::Begins(beginning)) => write!(f, "{network}/{beginning}*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_are_told_apart_by_network_and_name() {
        let nodes = [
            "west/workload/app-1",
            "west/workload/app-2",
            "west/workload/batch",
            "east/workload/app-1",
            "west/activator/app-1",
        ];
        let table: [(&str, &[&str]); 7] = [
            ("*", &nodes[..4]),
            ("west", &nodes[..3]),
            ("west/*", &nodes[..3]),
            ("west/app-*", &nodes[..2]),
            ("west/app-1", &nodes[..1]),
            ("west/workload/app-1", &nodes[..1]),
            ("north", &[]),
        ];
        for (text, expected) in table {
            let who: Who = text.parse().expect(text);
            let meant = nodes
                .into_iter()
                .filter(|node| who.contains(&node.parse().expect("an id")));
            assert_eq!(meant.collect::<Vec<_>>(), expected, "{text}");
        }
    }

    #[test]
    fn what_names_nobody_is_refused() {
        for text in [
            "",
            "West",
            "west/",
            "west/*-app",
            "west/a*b*",
            "*/app",
            "west/activator/gw",
            "**",
        ] {
            assert!(text.parse::<Who>().is_err(), "{text}");
        }
        for text in ["*", "west", "west/app-1", "west/app-*"] {
            assert_eq!(text.parse::<Who>().expect(text).to_string(), text);
        }
    }
}
