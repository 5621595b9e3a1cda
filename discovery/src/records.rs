//! What discovery remembers for itself, under keys that no node may list: `token/<id>` and `node/<node id>`.

use std::time::Duration;

use identity::{CertificateError, CertificateInfo, Serial};
use model::{NodeId, UnixTime};
use prost::Message;

use crate::store::{Core, StoreError};

/// Records of nodes are kept this long after their certificate ended.
const KEEP_NODE: Duration = Duration::from_secs(7 * 86_400);

/// SHA-256 would do; the public key itself (65 bytes) is as good and needs no code.
pub(crate) type PublicKey = Vec<u8>;

/// Serial numbers of ended certificates that are kept of a node: at 24 h each, a link may be five months old.
const KEEP_ENDED: usize = 256;

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
    /// A certificate of this key was revoked since: the token lets it in no more.
    #[prost(bool, tag = "3")]
    pub(crate) revoked: bool,
}

/// A node that exists: whose name is taken, and who can get mail.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct NodeRecord {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) public_key: PublicKey,
    #[prost(uint64, tag = "2")]
    pub(crate) certificate_not_after: u64,
    /// Its certificates, oldest first: one that is revoked takes the others along. Also those that have ended, as links may be
    /// older than they.
    #[prost(message, repeated, tag = "3")]
    pub(crate) issued: Vec<Issued>,
}

/// A certificate, and what is asked of it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Issued {
    /// DER; empty when it has ended.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) certificate: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(crate) serial: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) public_key: PublicKey,
    #[prost(uint64, tag = "4")]
    pub(crate) not_after: u64,
}

impl Issued {
    pub(crate) fn read(certificate: &[u8]) -> Result<Self, CertificateError> {
        let info = CertificateInfo::read(certificate)?;
        Ok(Self {
            certificate: certificate.to_vec(),
            serial: info.serial.to_string(),
            public_key: info.public_key,
            not_after: info.not_after.0,
        })
    }

    const fn has_ended(&self, now: UnixTime) -> bool {
        self.not_after < now.0
    }
}

impl NodeRecord {
    /// Takes in a certificate. If the same key was given one of this `lifetime` of which half is still to come, it is
    /// that one, so that nobody collects certificates by asking again and again.
    pub(crate) fn issue(&mut self, new: Issued, lifetime: Duration, now: UnixTime) -> Vec<u8> {
        let young = now.saturating_add(lifetime / 2).0..=now.saturating_add(lifetime).0;
        let mut issued = self.issued.iter();
        let again =
            issued.find(|old| old.public_key == new.public_key && young.contains(&old.not_after));
        if let Some(again) = again {
            return again.certificate.clone();
        }
        let certificate = new.certificate.clone();
        self.add(new, now);
        certificate
    }

    /// Takes in a certificate that the node has.
    pub(crate) fn add(&mut self, new: Issued, now: UnixTime) {
        self.public_key = new.public_key.clone();
        self.certificate_not_after = new.not_after;
        for ended in self.issued.iter_mut().filter(|old| old.has_ended(now)) {
            ended.certificate.clear();
        }
        let ended = self.issued.len() - self.live(now);
        let mut too_many = ended.saturating_sub(KEEP_ENDED);
        self.issued.retain(|old| {
            let goes = too_many > 0 && old.has_ended(now);
            too_many -= usize::from(goes);
            !goes
        });
        self.issued.push(new);
    }

    /// How many of its certificates have not ended.
    pub(crate) fn live(&self, now: UnixTime) -> usize {
        self.issued.iter().filter(|one| !one.has_ended(now)).count()
    }
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

/// Revokes what else the node of a revoked certificate could come back with: its other certificates, and the join
/// tokens that its keys have used.
pub(crate) fn revoke_with(
    core: &mut Core,
    serial: &Serial,
    reason: &[u8],
) -> Result<(), StoreError> {
    let serial = serial.to_string();
    let found = core.range("node/").find_map(|(key, entry)| {
        let record = NodeRecord::decode(&*entry.value).ok()?;
        let mut issued = record.issued.iter();
        issued
            .any(|one| one.serial == serial)
            .then(|| (key.clone(), record))
    });
    let Some((key, mut record)) = found else {
        return Ok(());
    };
    let issued = std::mem::take(&mut record.issued);
    for one in issued.iter().filter(|one| one.serial != serial) {
        core.put(&format!("revocation/{}", one.serial), reason, None, None)?;
    }
    let tokens: Vec<_> = core
        .range("token/")
        .filter_map(|(key, entry)| {
            let mut token = TokenRecord::decode(&*entry.value).ok()?;
            let mut any = false;
            for used in &mut token.uses {
                if issued.iter().any(|one| one.public_key == used.public_key) {
                    used.revoked = true;
                    any = true;
                }
            }
            any.then(|| (key.clone(), token))
        })
        .collect();
    for (key, token) in tokens {
        core.put(&key, &token.encode_to_vec(), None, None)?;
    }
    core.put(&key, &record.encode_to_vec(), None, None)?;
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Change, Limits};
    use model::Revision;

    fn issued(serial: usize, not_after: u64) -> Issued {
        Issued {
            certificate: vec![1],
            serial: format!("{:04x}", 0x8000 + serial),
            public_key: vec![4; 65],
            not_after,
        }
    }

    #[test]
    fn a_revocation_covers_certificates_that_links_have_outlived() {
        let mut core = Core::new(Limits::default(), Revision(0));
        for change in core.take_changes() {
            if let Change::Reserve(bound) = change {
                core.on_reserved(bound);
            }
        }
        let id = "west/workload/app".parse().unwrap();
        let mut record = NodeRecord::default();
        record.add(issued(1, 100), UnixTime(50));
        record.add(issued(2, 200), UnixTime(120));
        assert_eq!(record.live(UnixTime(120)), 1);
        put_node(&mut core, &id, &record).unwrap();
        revoke_with(&mut core, &"8002".parse().unwrap(), b"stolen").unwrap();
        assert_eq!(&*core.get("revocation/8001").unwrap().value, b"stolen");
        assert!(node(&core, &id).unwrap().issued.is_empty());
    }

    #[test]
    fn what_is_remembered_of_a_node_is_bounded() {
        let mut record = NodeRecord::default();
        for time in 0..2_000 {
            record.add(issued(time, time as u64 + 1), UnixTime(time as u64));
        }
        let now = UnixTime(2_000);
        assert!(record.issued.len() <= KEEP_ENDED + record.live(now) + 2);
        assert_eq!(record.issued.last().unwrap().serial, "87cf");
        let kept: usize = record.issued.iter().map(|one| one.certificate.len()).sum();
        assert!(kept <= 3, "{kept}");
    }
}
