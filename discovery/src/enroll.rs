//! A node comes in: the token is checked and counted, the certificate issued. And comes back to renew.
//!
//! A token is counted by key: the same key may ask again, because an answer can be lost.

use std::time::Duration;

use identity::{Authority, AuthorityError, JoinToken, TokenError};
use model::{NameError, NodeId, NodeName, UnixTime};

use crate::{
    records::{self, NodeRecord, TokenUse},
    store::{Core, Store, StoreError, Update},
};

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
    let certificate = authority.issue_node(request, node.clone(), lifetime, now)?;
    let record = NodeRecord {
        public_key,
        certificate_not_after: now.saturating_add(lifetime).0,
    };
    store
        .update(|core, _| count(core, &token, &node, &record, now))
        .await
        .map_err(|error| match error {
            Update::Refused(error) => error,
            Update::Disk => EnrollError::Disk,
        })?;
    Ok(Enrolled { node, certificate })
}

pub(crate) async fn renew(
    authority: &Authority,
    store: &Store,
    lifetime: Duration,
    (node, request): (&NodeId, &[u8]),
    now: UnixTime,
) -> Result<Enrolled, EnrollError> {
    let public_key = identity::request_public_key(request)?;
    let certificate = authority.issue_node(request, node.clone(), lifetime, now)?;
    let record = NodeRecord {
        public_key,
        certificate_not_after: now.saturating_add(lifetime).0,
    };
    let result = store
        .update(|core, _| records::put_node(core, node, &record))
        .await;
    result.map_err(|error| match error {
        Update::Refused(error) => EnrollError::Store(error),
        Update::Disk => EnrollError::Disk,
    })?;
    Ok(Enrolled {
        node: node.clone(),
        certificate,
    })
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
    record: &NodeRecord,
    now: UnixTime,
) -> Result<(), EnrollError> {
    let mut uses = records::token(core, &token.id);
    uses.expires_unix_time = token.expires.0;
    let id = node.to_string();
    match uses
        .uses
        .iter()
        .find(|used| used.public_key == record.public_key)
    {
        Some(used) if used.node != id => return Err(EnrollError::OtherName(used.node.clone())),
        Some(_) => {}
        None if uses.uses.len() >= token.uses as usize => {
            return Err(EnrollError::UsedUp(token.uses));
        }
        None => {
            uses.uses.push(TokenUse {
                public_key: record.public_key.clone(),
                node: id,
            });
        }
    }
    // Whoever holds a token for a network must not take over its other nodes.
    if token.node.is_none()
        && let Some(taken) = records::node(core, node)
        && taken.public_key != record.public_key
        && taken.certificate_not_after > now.0
    {
        return Err(EnrollError::NameTaken(node.clone(), node.name.clone()));
    }
    records::put_token(core, &token.id, &uses)?;
    records::put_node(core, node, record)?;
    Ok(())
}
