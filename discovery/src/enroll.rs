//! A node comes in: the token is checked and counted, the certificate issued. And comes back to renew.
//!
//! A token is counted by key: the same key may ask again, because an answer can be lost, until it is revoked.

use std::time::Duration;

use identity::{Authority, AuthorityError, CertificateError, JoinToken, TokenError};
use model::{NameError, NodeId, NodeName, UnixTime};

use crate::{
    records::{self, Issued, TokenUse},
    store::{Core, Store, StoreError, Update},
};

/// Certificates of one node at a time. It has two or three, and more only if it was replaced with tokens for its name.
const MAX_ISSUED: usize = 64;

/// Why a node is not let in. The text reaches the operator of that node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrollError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(
        "the join token was used up ({0} of {0} uses): make a new one with `turnpike token create`"
    )]
    UsedUp(u32),
    #[error("this key has already enrolled with this join token, as {0}: ask for that name")]
    OtherName(String),
    #[error(
        "{0} was revoked after it used this join token: \
         make a new one with `turnpike token create --node {1}` if it may come back"
    )]
    Revoked(NodeId, NodeName),
    #[error("{0} has {MAX_ISSUED} certificates that have not ended, which is the limit")]
    TooMany(NodeId),
    #[error("a certificate is renewed for the key it was issued for, and this is another key")]
    OtherKey,
    #[error(
        "the name {0} is taken by another node: choose another node-name, \
         or replace that node with a token made with `turnpike token create --node {1}`"
    )]
    NameTaken(NodeId, NodeName),
    #[error("the join token is for the node `{wanted}`, not `{asked}`: correct node-name")]
    TokenForOther { wanted: NodeName, asked: String },
    #[error("node-name: {0}")]
    Name(#[from] NameError),
    #[error(transparent)]
    Issue(#[from] AuthorityError),
    #[error(transparent)]
    Issued(#[from] CertificateError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("discovery cannot write its data file")]
    Disk,
}

/// A node that was let in.
pub(crate) struct Enrolled {
    pub(crate) node: NodeId,
    /// DER.
    pub(crate) certificate: Vec<u8>,
}

pub(crate) async fn enroll(
    authority: &Authority,
    store: &Store,
    lifetime: Duration,
    (token, request, name): (&str, &[u8], &str),
    now: UnixTime,
) -> Result<Enrolled, EnrollError> {
    let token = JoinToken::verify(token, authority.certificate_der(), now)?;
    let public_key = identity::request_public_key(request)?;
    let node = node_id(&token, name, &public_key)?;
    let issued = issue(authority, request, &node, lifetime, now)?;
    let count = |core: &mut Core, _| {
        count(core, &token, &node, &public_key, now)?;
        keep(core, &node, issued, lifetime, now)
    };
    let certificate = store.update(count).await.map_err(refusal)?;
    Ok(Enrolled { node, certificate })
}

/// `holder`: whose certificate the caller showed, and the key in it.
pub(crate) async fn renew(
    authority: &Authority,
    store: &Store,
    lifetime: Duration,
    (holder, request): ((&NodeId, &[u8]), &[u8]),
    now: UnixTime,
) -> Result<Enrolled, EnrollError> {
    let (node, public_key) = holder;
    if identity::request_public_key(request)? != public_key {
        return Err(EnrollError::OtherKey);
    }
    let issued = issue(authority, request, node, lifetime, now)?;
    let keep = |core: &mut Core, _| keep(core, node, issued, lifetime, now);
    let certificate = store.update(keep).await.map_err(refusal)?;
    Ok(Enrolled {
        node: node.clone(),
        certificate,
    })
}

fn refusal(error: Update<EnrollError>) -> EnrollError {
    match error {
        Update::Refused(error) => error,
        Update::Disk => EnrollError::Disk,
    }
}

fn issue(
    authority: &Authority,
    request: &[u8],
    node: &NodeId,
    lifetime: Duration,
    now: UnixTime,
) -> Result<Issued, EnrollError> {
    let certificate = authority.issue_node(request, node.clone(), lifetime, now)?;
    Ok(Issued::read(&certificate)?)
}

/// Remembers that the node was given this certificate; returns it, or the one it was given a moment ago.
fn keep(
    core: &mut Core,
    node: &NodeId,
    issued: Issued,
    lifetime: Duration,
    now: UnixTime,
) -> Result<Vec<u8>, EnrollError> {
    let mut record = records::node(core, node).unwrap_or_default();
    let certificate = record.issue(issued, lifetime, now);
    if record.live(now) > MAX_ISSUED {
        return Err(EnrollError::TooMany(node.clone()));
    }
    records::put_node(core, node, &record)?;
    Ok(certificate)
}

/// The token's name, else the one asked for, else one made from the key, so that asking again gives the same.
fn node_id(token: &JoinToken, asked: &str, public_key: &[u8]) -> Result<NodeId, EnrollError> {
    let name = match &token.node {
        Some(wanted) if asked.is_empty() || asked == wanted.as_str() => wanted.clone(),
        Some(wanted) => {
            let asked = asked.chars().take(63).collect();
            return Err(EnrollError::TokenForOther {
                wanted: wanted.clone(),
                asked,
            });
        }
        None if !asked.is_empty() => asked.parse()?,
        None => {
            // The last bytes of an uncompressed point: as good as random.
            let tail = &public_key[public_key.len().saturating_sub(5)..];
            let digits: String = tail.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{}-{digits}", token.role).parse()?
        }
    };
    Ok(NodeId {
        network: token.network.clone(),
        role: token.role,
        name,
    })
}

fn count(
    core: &mut Core,
    token: &JoinToken,
    node: &NodeId,
    public_key: &[u8],
    now: UnixTime,
) -> Result<(), EnrollError> {
    let mut uses = records::token(core, &token.id);
    uses.expires_unix_time = token.expires.0;
    let id = node.to_string();
    match uses.uses.iter().find(|used| used.public_key == public_key) {
        Some(used) if used.node != id => return Err(EnrollError::OtherName(used.node.clone())),
        Some(used) if used.revoked => {
            return Err(EnrollError::Revoked(node.clone(), node.name.clone()));
        }
        Some(_) => {}
        None if uses.uses.len() >= token.uses as usize => {
            return Err(EnrollError::UsedUp(token.uses));
        }
        None => {
            uses.uses.push(TokenUse {
                public_key: public_key.to_vec(),
                node: id,
                revoked: false,
            });
        }
    }
    // Whoever holds a token for a network must not take over its other nodes.
    if token.node.is_none()
        && let Some(taken) = records::node(core, node)
        && taken.public_key != public_key
        && taken.certificate_not_after > now.0
    {
        return Err(EnrollError::NameTaken(node.clone(), node.name.clone()));
    }
    records::put_token(core, &token.id, &uses)?;
    Ok(())
}
