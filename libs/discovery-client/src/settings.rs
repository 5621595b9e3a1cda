//! What a service's configuration says about discovery.

use std::path::PathBuf;

use model::{NetworkName, Role};

/// How to reach discovery, and as whom.
#[derive(Clone)]
pub struct Settings {
    /// `https://host:port`; the host must be a name in discovery's certificate.
    pub discovery: String,
    /// Where key and certificate are kept. Made if absent.
    pub state_directory: PathBuf,
    /// The text of a join token; needed once, and again when the certificate was let expire.
    pub join_token: Option<String>,
    /// The name to enroll with; discovery chooses one if absent.
    pub node_name: Option<String>,
    /// The network this node stands in.
    pub network: NetworkName,
    /// What this node is.
    pub role: Role,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("discovery", &self.discovery)
            .field("state_directory", &self.state_directory)
            .field("join_token", &self.join_token.as_ref().map(|_| "(secret)"))
            .field("node_name", &self.node_name)
            .field("network", &self.network)
            .field("role", &self.role)
            .finish()
    }
}
