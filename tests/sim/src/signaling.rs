//! A stand-in for discovery: views with a delay, and mailboxes that keep what nobody fetches for half a minute.

use std::time::{Duration, Instant};

use model::NodeId;
use protocol::document::Registration;
use protocol::document::document::Body;

/// One way, all signing and storing included.
pub(crate) const DELAY: Duration = Duration::from_millis(25);
/// What a mailbox keeps, and how long a document is believed.
const TTL: Duration = Duration::from_secs(30);
/// A registration that nobody renews is kept for so long.
pub(crate) const LEASE: Duration = Duration::from_secs(15);
/// A post is given up after this.
pub(crate) const POST_TIMEOUT: Duration = Duration::from_secs(3);

/// A document in a mailbox.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) body: Body,
    pub(crate) posted: Instant,
}

#[derive(Debug, Default)]
pub(crate) struct Signaling {
    pub(crate) away: bool,
    /// What each activator wants to be there.
    pub(crate) wanted: [Option<Registration>; 2],
    /// What is there.
    pub(crate) registered: [Option<Registration>; 2],
    mailboxes: Vec<Mail>,
}

impl Signaling {
    /// Mail that could not be fetched when it came.
    pub(crate) fn keep(&mut self, mail: Mail) {
        self.mailboxes.push(mail);
    }

    /// What is in a mailbox and still good.
    pub(crate) fn fetch(&mut self, to: &NodeId, now: Instant) -> Vec<Mail> {
        self.mailboxes
            .retain(|mail| now.saturating_duration_since(mail.posted) < TTL);
        let (fetched, rest) = self.mailboxes.drain(..).partition(|mail| mail.to == *to);
        self.mailboxes = rest;
        fetched
    }

    pub(crate) fn mails(&self) -> usize {
        self.mailboxes.len()
    }
}
