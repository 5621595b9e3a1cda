//! What discovery remembers for itself, under keys that no node may list: `token/<id>` and `node/<node id>`.

use model::{NodeId, UnixTime};
use prost::Message;

use crate::store::{Core, StoreError};

/// Records of nodes are kept this long after their certificate ended.
const KEEP_NODE: std::time::Duration = std::time::Duration::from_secs(7 * 86_400);

/// SHA-256 would do; the public key itself (65 bytes) is as good and needs no code.
pub(crate) type PublicKey = Vec<u8>;

/// Who used a token.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TokenRecord {
    #[prost(message, repeated, tag = "1")]
    pub(crate) uses: Vec<TokenUse>,
    #[prost(uint64, tag = "2")]
    pub(crate) expires_unix_time: u64,
}

/// One key that enrolled with a token, and as whom.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TokenUse {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) public_key: PublicKey,
    #[prost(string, tag = "2")]
    pub(crate) node: String,
}

/// A node that exists: whose name is taken, and who can get mail.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct NodeRecord {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) public_key: PublicKey,
    #[prost(uint64, tag = "2")]
    pub(crate) certificate_not_after: u64,
}

pub(crate) fn token(core: &Core, id: &str) -> TokenRecord {
    read(core, &token_key(id)).unwrap_or_default()
}

pub(crate) fn put_token(core: &mut Core, id: &str, record: &TokenRecord) -> Result<(), StoreError> {
    core.put(&token_key(id), &record.encode_to_vec(), None, None)
        .map(|_| ())
}

pub(crate) fn node(core: &Core, id: &NodeId) -> Option<NodeRecord> {
    read(core, &node_key(id))
}

pub(crate) fn put_node(
    core: &mut Core,
    id: &NodeId,
    record: &NodeRecord,
) -> Result<(), StoreError> {
    core.put(&node_key(id), &record.encode_to_vec(), None, None)
        .map(|_| ())
}

/// Forgets tokens that expired, and nodes that are long gone. Returns how many.
pub(crate) fn sweep(core: &mut Core, now: UnixTime) -> Result<usize, StoreError> {
    let tokens = core.range("token/").filter(|(_, entry)| {
        TokenRecord::decode(&*entry.value).is_ok_and(|token| token.expires_unix_time < now.0)
    });
    let nodes = core.range("node/").filter(|(_, entry)| {
        NodeRecord::decode(&*entry.value)
            .is_ok_and(|node| UnixTime(node.certificate_not_after).saturating_add(KEEP_NODE) < now)
    });
    let old: Vec<_> = tokens.chain(nodes).map(|(key, _)| key.clone()).collect();
    for key in &old {
        core.delete(key, None)?;
    }
    Ok(old.len())
}

fn read<T: Message + Default>(core: &Core, key: &str) -> Option<T> {
    T::decode(&*core.get(key)?.value).ok()
}

fn token_key(id: &str) -> String {
    format!("token/{id}")
}

fn node_key(id: &NodeId) -> String {
    format!("node/{id}")
}
