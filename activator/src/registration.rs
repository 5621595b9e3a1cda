//! Signs the registration and keeps it signed: before the document ends, and with each new certificate.

use std::time::{Duration, Instant};

use discovery_client::Directory;
use identity::Serial;
use net::Clock;
use protocol::document::{Registration, document::Body};

/// How long a signed registration is believed. Long, because sidecars go on with what they have while discovery is
/// away; the lease is what withdraws it.
const VALIDITY: Duration = Duration::from_secs(24 * 3600);

/// It is signed anew this often.
const RENEW_AFTER: Duration = Duration::from_secs(6 * 3600);

/// The certificate is looked at this often: it is renewed by the directory's task.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What discovery should keep.
#[derive(Debug)]
pub(crate) struct Publisher {
    directory: Directory,
    current: Option<Registration>,
    signed_at: Instant,
    signed_with: Option<Serial>,
    look_at: Instant,
}

impl Publisher {
    pub(crate) fn new(directory: Directory) -> Self {
        let now = Clock.now();
        Self {
            directory,
            current: None,
            signed_at: now,
            signed_with: None,
            look_at: now,
        }
    }

    /// Publishes this registration, or withdraws.
    pub(crate) fn publish(&mut self, registration: Option<Registration>, now: Instant) {
        self.current = registration;
        if self.current.is_none() {
            self.directory.publish(None);
            tracing::info!("registration withdrawn");
            return;
        }
        self.sign(now);
        if let Some(registration) = &self.current {
            let footholds: Vec<String> = registration
                .footholds
                .iter()
                .map(|foothold| {
                    let addresses = foothold.relayed_addresses.join("+");
                    format!("{}@{}={addresses}", foothold.relay, foothold.network)
                })
                .collect();
            tracing::info!(
                instance = %format_args!("{:016x}", registration.instance),
                services = registration.services.len(),
                footholds = %footholds.join(" "),
                "registration"
            );
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.current.as_ref().map(|_| self.look_at)
    }

    /// Signs anew what needs it.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.current.is_none() || now < self.look_at {
            return;
        }
        self.look_at = now + LOOK_EVERY;
        let old = now.saturating_duration_since(self.signed_at) >= RENEW_AFTER;
        let renewed =
            self.signed_with.as_ref() != Some(&self.directory.identity().certificate().serial);
        if old || renewed {
            self.sign(now);
        }
    }

    fn sign(&mut self, now: Instant) {
        let Some(registration) = self.current.clone() else {
            return;
        };
        let identity = self.directory.identity();
        let document = identity::document(
            Body::Registration(registration),
            None,
            VALIDITY,
            Clock.unix_time(),
        );
        match identity.sign(&document) {
            Ok(signed) => {
                self.directory.publish(Some(signed));
                self.signed_at = now;
                self.signed_with = Some(identity.certificate().serial.clone());
                self.look_at = now + LOOK_EVERY;
            }
            Err(error) => tracing::error!(%error, "cannot sign the registration"),
        }
    }
}
