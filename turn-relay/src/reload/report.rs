//! What a reload changed, for the log and the metrics. No secret is named in it: the config file holds none, only the
//! paths of files with secrets, and of these files only numbers are told.

use crate::config::{RealmSettings, Settings};
use model::UnixTime;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use turn_relay_proto::{CredentialChanges, Credentials, RealmUser, Replaced, Revocations};

/// Fields that sockets, ports or threads were made from.
const NEED_RESTART: [&str; 14] = [
    "proxy-protocol-from",
    "admin",
    "external-addresses",
    "io",
    "listen",
    "port-range",
    "relay-addresses",
    "relay-sockets",
    "threads",
    "drain-seconds",
    "run-as",
    "confinement",
    "usage-file",
    "usage-seconds",
];

/// How reloads went so far. The start counts as one.
#[derive(Debug, Default)]
pub(crate) struct ReloadStats {
    pub(crate) applied: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// Whether the last one was refused.
    pub(crate) stale: AtomicBool,
    /// When the running configuration was taken, as Unix time.
    pub(crate) since: AtomicU64,
}

impl ReloadStats {
    pub(crate) fn new(now: UnixTime) -> Self {
        Self {
            since: AtomicU64::new(now.0),
            ..Self::default()
        }
    }

    pub(super) fn on_applied(&self, now: UnixTime) {
        self.since.store(now.0, Ordering::Relaxed);
        self.stale.store(false, Ordering::Relaxed);
        self.applied.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn on_refused(&self) {
        self.stale.store(true, Ordering::Relaxed);
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

/// The differences.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Field, before, and now.
    fields: Vec<(String, String, String)>,
    need_restart: Vec<String>,
    credentials: CredentialChanges,
    realms_added: usize,
    realms_removed: usize,
    revoked: usize,
    no_longer_revoked: usize,
    pub(super) certificate: bool,
}

impl Report {
    /// Compares the config files field by field. Returns what runs from now on: the new one, but with the old one's fields
    /// where they need a restart.
    pub(super) fn compare_files(&mut self, old: &toml::Table, new: &toml::Table) -> toml::Table {
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let mut running = new.clone();
        for name in names {
            let (before, now) = (old.get(name), new.get(name));
            if before == now {
                continue;
            }
            if NEED_RESTART.contains(&name.as_str()) {
                self.need_restart.push(name.clone());
                match before {
                    Some(before) => running.insert(name.clone(), before.clone()),
                    None => running.remove(name),
                };
            } else {
                let text = |value: Option<&toml::Value>| {
                    value.map_or("default".to_owned(), ToString::to_string)
                };
                self.fields.push((name.clone(), text(before), text(now)));
            }
        }
        running
    }

    /// Compares what is in other files.
    pub(super) fn compare_settings(&mut self, old: &Settings, new: &Settings) {
        let names = |settings: &Settings| -> BTreeSet<String> {
            let realms = settings.realms.iter();
            realms.map(|realm| realm.name().to_owned()).collect()
        };
        let (before, now) = (names(old), names(new));
        self.realms_added = now.difference(&before).count();
        self.realms_removed = before.difference(&now).count();
        // One that was not there, or is no more, had or has nobody.
        let (nobody, none) = (Credentials::new(""), Revocations::default());
        for name in before.union(&now) {
            let of = |settings: &Settings| settings.realms.iter().position(|r| r.name() == name);
            let (old, new) = (
                of(old).map(|at| &old.realms[at]),
                of(new).map(|at| &new.realms[at]),
            );
            let credentials =
                |realm: Option<&RealmSettings>| realm.map(|realm| realm.credentials.clone());
            let (before, now) = (credentials(old), credentials(new));
            let before = before.as_deref().unwrap_or(&nobody);
            self.credentials
                .add(now.as_deref().unwrap_or(&nobody).changes_from(before));
            let revocations =
                |realm: Option<&RealmSettings>| realm.map(|realm| realm.revocations.clone());
            let (before, now) = (revocations(old), revocations(new));
            let before = before.as_deref().unwrap_or(&none);
            self.compare_revocations(before, now.as_deref().unwrap_or(&none));
        }
    }

    /// Of one realm, beside others.
    pub(super) fn compare_revocations(&mut self, old: &Revocations, new: &Revocations) {
        self.revoked += new.beyond(old);
        self.no_longer_revoked += old.beyond(new);
    }

    /// Says it, and what it ended.
    pub(super) fn log(&self, ended: &Replaced) {
        for (field, before, now) in &self.fields {
            tracing::info!(%field, %before, %now, "changed");
        }
        if !self.need_restart.is_empty() {
            let fields = self.need_restart.join(", ");
            tracing::warn!(%fields, "changed in the file, and not before the relay is started again");
        }
        let mut users: BTreeMap<&RealmUser, usize> = BTreeMap::new();
        for user in &ended.revoked {
            *users.entry(user).or_default() += 1;
        }
        for (user, allocations) in users {
            let (user, realm) = (&*user.name, &*user.realm);
            tracing::info!(user, allocations, realm, "ended: revoked");
        }
        let credentials = &self.credentials;
        tracing::info!(
            fields = self.fields.len(),
            certificate = self.certificate,
            users_added = credentials.users_added,
            users_removed = credentials.users_removed,
            users_changed = credentials.users_changed,
            secrets_added = credentials.secrets_added,
            secrets_removed = credentials.secrets_removed,
            token_keys_changed = credentials.token_keys_changed,
            realms_added = self.realms_added,
            realms_removed = self.realms_removed,
            revoked = self.revoked,
            no_longer_revoked = self.no_longer_revoked,
            allocations_ended = ended.revoked.len(),
            permissions_ended = ended.permissions,
            channels_ended = ended.channels,
            peer_connections_ended = ended.peer_connections,
            "configuration applied"
        );
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_restart_stays_in_the_running_table_and_is_named_each_time() {
        let table = |text: &str| text.parse::<toml::Table>().unwrap();
        let old = table("listen = ['udp://127.0.0.1:1']\nallow-peers = ['10.0.0.0/24']");
        let new = table("listen = ['udp://127.0.0.1:2']\nthreads = 2\nallocations-per-user = 3");
        for _ in 0..2 {
            let mut report = Report::default();
            let running = report.compare_files(&old, &new);
            assert_eq!(report.need_restart, ["listen", "threads"]);
            let fields: Vec<_> = report.fields.iter().map(|(name, ..)| name).collect();
            assert_eq!(fields, ["allocations-per-user", "allow-peers"]);
            assert_eq!(
                running,
                table("listen = ['udp://127.0.0.1:1']\nallocations-per-user = 3")
            );
        }
    }
}
