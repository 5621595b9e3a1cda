//! Who a node is, and how a certificate says so.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::name::{MeshName, NameError, NetworkName, NodeName};

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A network's gateway: registers, answers links.
    Activator,
    /// Beside a workload (dns-signal): offers links.
    Workload,
}

impl Role {
    /// As it is written in node ids, keys and certificates.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Activator => "activator",
            Self::Workload => "workload",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = NodeIdError;
    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        match text {
            "activator" => Ok(Self::Activator),
            "workload" => Ok(Self::Workload),
            _ => Err(NodeIdError::Role(text.chars().take(80).collect())),
        }
    }
}

/// A node: `<network>/<role>/<name>`, for example `west/workload/app-1`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    /// The network it stands in.
    pub network: NetworkName,
    /// What it is for.
    pub role: Role,
    /// Its name, unique within network and role.
    pub name: NodeName,
}

/// Why a text is not a node id or SPIFFE id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeIdError {
    /// Not three parts, or not a SPIFFE id of a known form.
    #[error("`{0}` is not a node id: it has the form <network>/<role>/<name>")]
    Form(String),
    /// Neither `activator` nor `workload`.
    #[error("`{0}` is not a role: it is `activator` or `workload`")]
    Role(String),
    /// A part is not a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Not a SPIFFE id that this mesh issues.
    #[error(
        "`{0}` is not a SPIFFE id of a mesh: \
         it has the form spiffe://<mesh>/network/<network>/<role>/<name>"
    )]
    Spiffe(String),
}

impl FromStr for NodeId {
    type Err = NodeIdError;
    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        let mut parts = text.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(network), Some(role), Some(name), None) => Ok(Self {
                network: network.parse()?,
                role: role.parse()?,
                name: name.parse()?,
            }),
            _ => Err(NodeIdError::Form(text.chars().take(220).collect())),
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.network, self.role, self.name)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

/// Whom a certificate speaks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// A node of a network.
    Node(NodeId),
    /// An operator, with the right to revoke.
    Admin(NodeName),
}

/// A SPIFFE id: `spiffe://<mesh>/network/<network>/<role>/<name>`, or `spiffe://<mesh>/admin/<name>` for an
/// operator. Stands in a certificate as its only URI subject alternative name
/// ([X.509-SVID](https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md)).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    /// The trust domain.
    pub mesh: MeshName,
    /// Who it is.
    pub subject: Subject,
}

impl SpiffeId {
    /// The id of a node.
    #[must_use]
    pub const fn node(mesh: MeshName, node: NodeId) -> Self {
        Self {
            mesh,
            subject: Subject::Node(node),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Subject::Node(node) => write!(f, "spiffe://{}/network/{node}", self.mesh),
            Subject::Admin(name) => write!(f, "spiffe://{}/admin/{name}", self.mesh),
        }
    }
}

impl FromStr for SpiffeId {
    type Err = NodeIdError;
    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        let form = || NodeIdError::Spiffe(text.chars().take(300).collect());
        let rest = text.strip_prefix("spiffe://").ok_or_else(form)?;
        let (mesh, path) = rest.split_once('/').ok_or_else(form)?;
        let subject = match path.split_once('/') {
            Some(("network", node)) => Subject::Node(node.parse()?),
            Some(("admin", name)) => Subject::Admin(name.parse()?),
            _ => return Err(form()),
        };
        Ok(Self {
            mesh: mesh.parse()?,
            subject,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ids_and_spiffe_ids_survive_a_round_trip() {
        let node: NodeId = "west/workload/app-1".parse().unwrap();
        assert_eq!(node.to_string(), "west/workload/app-1");
        let id = SpiffeId::node("demo".parse().unwrap(), node);
        assert_eq!(id.to_string(), "spiffe://demo/network/west/workload/app-1");
        assert_eq!(id.to_string().parse::<SpiffeId>().unwrap(), id);
        let admin: SpiffeId = "spiffe://demo/admin/root".parse().unwrap();
        assert_eq!(admin.subject, Subject::Admin("root".parse().unwrap()));
        assert_eq!(admin.to_string(), "spiffe://demo/admin/root");
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "west",
            "west/workload",
            "west/king/app",
            "west/workload/app/x",
            "/activator/a",
        ] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad:?}");
        }
        for bad in [
            "https://demo/network/west/workload/app",
            "spiffe://demo",
            "spiffe://demo/network/west/workload",
            "spiffe://demo/network/west/workload/app/more",
            "spiffe:///network/west/workload/app",
            "spiffe://demo/west/workload/app",
            "spiffe://demo/admin/",
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad:?}");
        }
    }
}
