//! Who may touch which key. Pure decisions; what is not named here is denied.

use identity::Serial;
use model::{NetworkName, NodeId, NodeName, RelayName, Role, Subject};

/// A key of the directory, as clients may name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    /// `relay/<name>`: written by discovery alone.
    Relay(RelayName),
    /// `registration/<network>/<node>`.
    Registration(NetworkName, NodeName),
    /// `mailbox/<network>/<role>/<node>/<sequence>`: written through Post alone.
    Mail(NodeId),
    /// `revocation/<serial>`.
    Revocation(Serial),
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("`{0}` is not a key of the directory")]
    Unknown(String),
    #[error("{0} may not do this to `{1}`")]
    Forbidden(String, String),
}

impl Key {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once('/')?;
        match kind {
            "relay" => rest.parse().ok().map(Self::Relay),
            "registration" => {
                let (network, node) = rest.split_once('/')?;
                Some(Self::Registration(
                    network.parse().ok()?,
                    node.parse().ok()?,
                ))
            }
            "mailbox" => {
                let (node, sequence) = rest.rsplit_once('/')?;
                let digits = !sequence.is_empty() && sequence.bytes().all(|b| b.is_ascii_digit());
                if digits {
                    node.parse().ok().map(Self::Mail)
                } else {
                    None
                }
            }
            "revocation" => {
                let serial: Serial = rest.parse().ok()?;
                // One spelling for each, or a revocation could be missed.
                (serial.to_string() == rest).then_some(Self::Revocation(serial))
            }
            _ => None,
        }
    }
}

fn describe(subject: &Subject) -> String {
    match subject {
        Subject::Node(node) => node.to_string(),
        Subject::Admin(name) => format!("admin {name}"),
    }
}

/// May it put this key?
pub(crate) fn may_put(subject: &Subject, text: &str) -> Result<Key, Denied> {
    let key = parse(text)?;
    let allowed = match (&key, subject) {
        (Key::Registration(..), Subject::Node(node)) => is_own_registration(&key, node),
        (Key::Revocation(_), Subject::Admin(_)) => true,
        _ => false,
    };
    verdict(allowed, subject, text).map(|()| key)
}

/// May it delete this key?
pub(crate) fn may_delete(subject: &Subject, text: &str) -> Result<Key, Denied> {
    let key = parse(text)?;
    let allowed = match (&key, subject) {
        (Key::Registration(..), Subject::Node(node)) => is_own_registration(&key, node),
        (Key::Registration(..) | Key::Revocation(_), Subject::Admin(_)) => true,
        (Key::Mail(owner), Subject::Node(node)) => owner == node,
        _ => false,
    };
    verdict(allowed, subject, text).map(|()| key)
}

/// May it list and watch everything with this prefix?
pub(crate) fn may_list(subject: &Subject, prefix: &str) -> Result<(), Denied> {
    let public = ["relay/", "registration/", "revocation/"];
    let allowed = public.iter().any(|public| prefix.starts_with(public))
        || match subject {
            Subject::Node(node) => prefix == mailbox_prefix(node),
            Subject::Admin(_) => prefix.starts_with("node/"),
        };
    verdict(allowed, subject, prefix)
}

/// Where a node's mail is.
pub(crate) fn mailbox_prefix(node: &NodeId) -> String {
    format!("mailbox/{node}/")
}

fn is_own_registration(key: &Key, node: &NodeId) -> bool {
    matches!(key, Key::Registration(network, name)
        if node.role == Role::Activator && *network == node.network && *name == node.name)
}

fn parse(text: &str) -> Result<Key, Denied> {
    Key::parse(text).ok_or_else(|| Denied::Unknown(text.chars().take(200).collect()))
}

fn verdict(allowed: bool, subject: &Subject, text: &str) -> Result<(), Denied> {
    if allowed {
        return Ok(());
    }
    let text = text.chars().take(200).collect();
    Err(Denied::Forbidden(describe(subject), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(text: &str) -> Subject {
        Subject::Node(text.parse().unwrap())
    }

    fn admin() -> Subject {
        Subject::Admin("root".parse().unwrap())
    }

    #[test]
    fn a_node_writes_its_own_registration_and_nothing_else() {
        let gateway = node("east/activator/gw");
        assert!(may_put(&gateway, "registration/east/gw").is_ok());
        assert!(may_delete(&gateway, "registration/east/gw").is_ok());
        for key in [
            "registration/east/other",
            "registration/west/gw",
            "relay/west",
            "revocation/01",
            "mailbox/east/activator/gw/1",
            "node/east/activator/gw",
            "token/00",
        ] {
            assert!(may_put(&gateway, key).is_err(), "{key}");
        }
        assert!(may_put(&node("east/workload/gw"), "registration/east/gw").is_err());
        assert!(may_put(&admin(), "registration/east/gw").is_err());
    }

    #[test]
    fn a_node_reads_what_is_public_and_its_own_mail() {
        let app = node("west/workload/app");
        for prefix in [
            "relay/",
            "registration/",
            "registration/east/",
            "revocation/",
        ] {
            assert!(may_list(&app, prefix).is_ok(), "{prefix}");
        }
        assert!(may_list(&app, "mailbox/west/workload/app/").is_ok());
        for prefix in [
            "",
            "m",
            "mailbox/",
            "mailbox/west/workload/app",
            "mailbox/west/workload/app2/",
            "node/",
            "token/",
            "regis",
        ] {
            assert!(may_list(&app, prefix).is_err(), "{prefix}");
        }
        assert!(may_list(&admin(), "node/").is_ok());
        assert!(may_list(&admin(), "mailbox/west/workload/app/").is_err());
        assert!(may_list(&admin(), "token/").is_err());
    }

    #[test]
    fn only_the_owner_deletes_mail_and_only_an_operator_revokes() {
        let mail = "mailbox/west/workload/app/00000000000000000001";
        assert!(may_delete(&node("west/workload/app"), mail).is_ok());
        assert!(may_delete(&node("west/workload/other"), mail).is_err());
        assert!(may_delete(&admin(), mail).is_err());
        assert!(may_put(&admin(), "revocation/0a").is_ok());
        assert!(may_put(&admin(), "revocation/0A").is_err());
        assert!(may_put(&admin(), "revocation/xyz").is_err());
        assert!(may_delete(&admin(), "revocation/0a").is_ok());
    }
}
