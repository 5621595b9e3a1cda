//! Keeps the node's registration in the directory, under a lease, signed afresh.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use identity::NodeIdentity;
use model::UnixTime;
use net::Clock;
use prost::Message as _;
use protocol::{
    directory::{
        LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, PutRequest,
        directory_client::DirectoryClient,
    },
    document::{Document, SignedDocument},
};
use tonic::{Code, Status, transport::Channel};

use crate::{connection::one_line, directory::Shared, session::bounded};

const LEASE_TTL_SECONDS: u32 = 10;
const KEEP_ALIVE: Duration = Duration::from_secs(3);
const WITHDRAW: Duration = Duration::from_secs(1);

struct Publisher {
    client: DirectoryClient<Channel>,
    shared: Arc<Shared>,
    /// What was put in this session.
    put: Option<SignedDocument>,
    /// A refusal that was logged.
    complained: Option<String>,
}

/// Runs for as long as a session; returns why it cannot go on.
pub(crate) async fn run(client: DirectoryClient<Channel>, shared: Arc<Shared>) -> String {
    let mut wanted = shared.published.subscribe();
    let mut publisher = Publisher {
        client,
        shared,
        put: None,
        complained: None,
    };
    loop {
        let document = wanted.borrow_and_update().clone();
        match publisher.ensure(document).await {
            Ok(()) => publisher.complained = None,
            Err(status) if is_refusal(status.code()) => publisher.complain(status.message()),
            Err(status) => return one_line(&status),
        }
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return "shutting down".into();
                }
            }
            () = tokio::time::sleep(KEEP_ALIVE) => {}
        }
    }
}

/// Discovery understood and said no: another connection would not help.
const fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
    )
}

impl Publisher {
    fn complain(&mut self, reason: &str) {
        if self.complained.as_deref() != Some(reason) {
            tracing::error!(reason, "discovery refuses our registration");
            self.complained = Some(reason.to_owned());
        }
    }

    /// One step: whatever was there, afterwards the directory has what is wanted, for another 10 s.
    async fn ensure(&mut self, asked: Option<SignedDocument>) -> Result<(), Status> {
        let Some(asked) = asked else {
            let lease = self.shared.lease.swap(0, Ordering::Relaxed);
            self.put = None;
            return if lease == 0 {
                Ok(())
            } else {
                revoke(&mut self.client, lease).await
            };
        };
        self.keep_alive().await?;
        let identity = self.shared.identity.current();
        let wanted = freshen(asked.clone(), &identity, Clock.unix_time());
        if self.put.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let node = identity.node_id();
        let request = PutRequest {
            key: format!("registration/{}/{}", node.network, node.name),
            value: wanted.encode_to_vec(),
            lease: self.shared.lease.load(Ordering::Relaxed),
            expected_revision: None,
        };
        bounded(self.client.put(request)).await?;
        // What is kept is the fresh one, so that it is signed anew only when due; unless another was published meanwhile.
        self.shared.published.send_if_modified(|published| {
            if published.as_ref() == Some(&asked) {
                *published = Some(wanted.clone());
            }
            false
        });
        self.put = Some(wanted);
        Ok(())
    }

    /// A lease that lives: the one we had, even from an earlier connection, or a new one.
    async fn keep_alive(&mut self) -> Result<(), Status> {
        let lease = self.shared.lease.load(Ordering::Relaxed);
        if lease != 0 {
            let request = LeaseKeepAliveRequest { lease };
            let response = bounded(self.client.lease_keep_alive(request)).await?;
            if response.get_ref().ttl_seconds > 0 {
                return Ok(());
            }
            tracing::info!("our lease was lost; registering again");
        }
        self.put = None;
        let request = LeaseGrantRequest {
            ttl_seconds: LEASE_TTL_SECONDS,
        };
        let response = bounded(self.client.lease_grant(request)).await?;
        self.shared
            .lease
            .store(response.get_ref().lease, Ordering::Relaxed);
        Ok(())
    }
}

/// Signs anew, for as long as before, when the certificate was renewed or half of the time is over.
fn freshen(signed: SignedDocument, identity: &NodeIdentity, now: UnixTime) -> SignedDocument {
    let Ok(document) = Document::decode(signed.payload.as_slice()) else {
        return signed;
    };
    let issued = UnixTime(document.issued_unix_time);
    let lifetime = UnixTime(document.expires_unix_time).since(issued);
    let young = now < issued.saturating_add(lifetime / 2);
    if young && signed.certificate == identity.certificate_der() {
        return signed;
    }
    let document = Document {
        issued_unix_time: now.0,
        expires_unix_time: now.saturating_add(lifetime).0,
        ..document
    };
    identity.sign(&document).unwrap_or(signed)
}

async fn revoke(client: &mut DirectoryClient<Channel>, lease: u64) -> Result<(), Status> {
    match bounded(client.lease_revoke(LeaseRevokeRequest { lease })).await {
        Err(status) if status.code() != Code::NotFound => Err(status),
        _ => Ok(()),
    }
}

/// Takes the registration out of the directory, if that can be done within 1 s; otherwise its lease ends.
pub(crate) async fn withdraw(shared: &Shared) {
    let lease = shared.lease.swap(0, Ordering::Relaxed);
    let channel = shared.link.borrow().clone();
    if let (Ok(channel), true) = (channel, lease != 0) {
        let mut client = DirectoryClient::new(channel);
        let _ = tokio::time::timeout(WITHDRAW, revoke(&mut client, lease)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use identity::{Authority, document};
    use protocol::document::{Registration, document::Body};

    #[test]
    fn a_registration_is_signed_anew_at_half_time_and_after_a_renewal() {
        let hour = Duration::from_secs(3600);
        let now = UnixTime(1_800_000_000);
        let authority = Authority::new("demo".parse().unwrap(), now).unwrap();
        let id: model::NodeId = "east/activator/gw".parse().unwrap();
        let identity = authority.new_node(id.clone(), 24 * hour, now).unwrap();
        let body = Body::Registration(Registration {
            network: "east".into(),
            node: "gw".into(),
            ..Registration::default()
        });
        let signed = identity.sign(&document(body, None, hour, now)).unwrap();
        let soon = now.saturating_add(hour / 4);
        assert_eq!(freshen(signed.clone(), &identity, soon), signed);

        let later = now.saturating_add(hour * 3 / 4);
        let fresh = freshen(signed.clone(), &identity, later);
        let verified = identity.verifier().unwrap().verify(&fresh, later).unwrap();
        assert_eq!(
            verified.document.expires_unix_time,
            later.saturating_add(hour).0
        );

        let certificate = authority
            .issue_node(&identity.request().unwrap(), id, 24 * hour, soon)
            .unwrap();
        let renewed = identity.renewed(certificate).unwrap();
        assert_eq!(
            freshen(signed, &renewed, soon).certificate,
            renewed.certificate_der()
        );
    }
}
