//! What discovery should say about this activator now, and whether that is news.

use model::NodeId;
use protocol::document;

/// The registration of one run of this activator.
#[derive(Debug)]
pub struct RegistrationState {
    current: document::Registration,
    published: bool,
}

impl RegistrationState {
    /// `instance` is new at each start: links of an earlier one are dead, and offers made to it are refused.
    #[must_use]
    pub fn new(node: &NodeId, instance: u64, services: Vec<document::Service>) -> Self {
        Self {
            current: document::Registration {
                network: node.network.to_string(),
                node: node.name.to_string(),
                instance,
                footholds: Vec::new(),
                services,
                troubles: Vec::new(),
            },
            published: false,
        }
    }

    /// Chosen at this start.
    #[must_use]
    pub const fn instance(&self) -> u64 {
        self.current.instance
    }

    /// The registration to publish if these footholds, and the reasons why there are no more, make it differ from what
    /// was published last.
    ///
    /// It is published without any foothold too: the names then exist, although they cannot be reached yet.
    pub fn handle_footholds(
        &mut self,
        footholds: Vec<document::Foothold>,
        troubles: Vec<document::RelayTrouble>,
    ) -> Option<document::Registration> {
        if self.published
            && self.current.footholds == footholds
            && self.current.troubles == troubles
        {
            return None;
        }
        self.current.footholds = footholds;
        self.current.troubles = troubles;
        self.published = true;
        Some(self.current.clone())
    }

    /// What was published last.
    #[must_use]
    pub const fn current(&self) -> &document::Registration {
        &self.current
    }
}
