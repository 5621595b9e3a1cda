//! Who can be asked for a network: the activators that are registered, as the directory shows them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use model::{ExportName, NetworkName, NodeId, Role, ServiceName};
use protocol::document::Registration;

/// The registrations in force, by the activator that signed each.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    registrations: BTreeMap<NodeId, Registration>,
}

impl Peers {
    /// Takes verified registrations; those that are not an activator's own are left out.
    #[must_use]
    pub fn new(registrations: impl IntoIterator<Item = (NodeId, Registration)>) -> Self {
        let registrations = registrations
            .into_iter()
            .filter(|(node, said)| {
                node.role == Role::Activator && node.network.as_str() == said.network
            })
            .collect();
        Self { registrations }
    }

    /// Those who were not there before, or started anew since.
    pub(crate) fn started_since<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = &'a NodeId> {
        let same = |node: &NodeId, said: &Registration| {
            let known = before.get(node);
            known.is_some_and(|known| known.instance == said.instance)
        };
        let all = self.registrations.iter();
        all.filter(move |(node, said)| !same(node, said))
            .map(|(node, _)| node)
    }

    pub(crate) fn get(&self, node: &NodeId) -> Option<&Registration> {
        self.registrations.get(node)
    }

    /// Whether any activator of `network` exports the service, or a wildcard above its name.
    pub(crate) fn export(&self, network: &NetworkName, service: &ServiceName) -> bool {
        let of_network = self
            .registrations
            .iter()
            .filter(|(node, _)| node.network == *network);
        of_network
            .flat_map(|(_, said)| &said.services)
            .filter_map(|exported| exported.name.parse::<ExportName>().ok())
            .any(|exported| exported.covers(service))
    }

    /// The activator to ask for `network` from inside `own`: one with a foothold here, or any when none has one; of
    /// these the one of the lowest rank, of those without any none.
    pub(crate) fn choose<R: Ord>(
        &self,
        network: &NetworkName,
        own: &NetworkName,
        rank: impl Fn(&NodeId) -> Option<R>,
    ) -> Option<(&NodeId, &Registration)> {
        self.registrations
            .iter()
            .filter(|(node, _)| node.network == *network)
            .filter_map(|(node, said)| Some((node, said, rank(node)?)))
            .min_by(|(_, a, first), (_, b, second)| {
                let ways = has_foothold(b, own).cmp(&has_foothold(a, own));
                ways.then(first.cmp(second))
            })
            .map(|(node, said, _)| (node, said))
    }
}

fn has_foothold(registration: &Registration, network: &NetworkName) -> bool {
    registration
        .footholds
        .iter()
        .any(|foothold| foothold.network == network.as_str())
}

/// Whether an activator still says that it holds this relayed address.
pub(crate) fn holds(registration: &Registration, relayed: SocketAddr) -> bool {
    registration
        .footholds
        .iter()
        .flat_map(|foothold| &foothold.relayed_addresses)
        .any(|address| address.parse() == Ok(relayed))
}
