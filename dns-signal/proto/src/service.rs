//! What a name under the mesh suffix stands for.

use std::fmt;
use std::str::FromStr;

use model::{NameError, NetworkName, ServiceName};

/// A service in a network, written `orders.east`, or `api.prod.east` when its name has several labels: the part of a DNS name
/// before the mesh suffix.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId {
    /// Its name within the network.
    pub service: ServiceName,
    /// The network that exports it.
    pub network: NetworkName,
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.service, self.network)
    }
}

impl FromStr for ServiceId {
    type Err = NameError;

    /// Reads `orders.east`; a text without a dot lacks its network, whose name is then the empty text.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (service, network) = text.rsplit_once('.').unwrap_or((text, ""));
        Ok(Self {
            service: service.parse()?,
            network: network.parse()?,
        })
    }
}
