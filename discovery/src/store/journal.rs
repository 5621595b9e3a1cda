//! What survives: entries and leases in a redb file, written by one thread that joins what waits into one commit.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use model::{LeaseId, Revision};
use prost::Message;
use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    core::Core,
    types::{Change, Entry, Limits},
};

const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");
const LEASES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("leases");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// The layout of this file; another one is refused.
const FORMAT: u64 = 1;
/// Commits joined into one.
const MAX_BATCH: usize = 256;

/// Why the data file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// redb says no.
    #[error(transparent)]
    File(#[from] redb::Error),
    /// Its contents are of another version of this program, or not of this program at all.
    #[error("{0}")]
    Content(String),
}

#[derive(Message)]
struct StoredEntry {
    #[prost(bytes = "vec", tag = "1")]
    value: Vec<u8>,
    #[prost(uint64, tag = "2")]
    create_revision: u64,
    #[prost(uint64, tag = "3")]
    mod_revision: u64,
    #[prost(uint64, tag = "4")]
    lease: u64,
}

#[derive(Message)]
struct StoredLease {
    #[prost(string, tag = "1")]
    owner: String,
    #[prost(uint64, tag = "2")]
    ttl_milliseconds: u64,
}

/// Changes to make durable, and whom to tell.
pub(super) struct Commit {
    pub(super) changes: Vec<Change>,
    pub(super) done: Option<oneshot::Sender<()>>,
}

/// The open data file.
pub(super) struct Journal {
    database: Database,
}

impl Journal {
    /// Opens or makes the file (mode 0600).
    pub(super) fn open(path: &Path) -> Result<Self, JournalError> {
        let open = || -> Result<Self, redb::Error> {
            let database = Database::create(path)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
            let journal = Self { database };
            journal.prepare()?;
            Ok(journal)
        };
        Ok(open()?)
    }

    fn prepare(&self) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        transaction.open_table(ENTRIES)?;
        transaction.open_table(LEASES)?;
        {
            let mut meta = transaction.open_table(META)?;
            if meta.get("format")?.is_none() {
                meta.insert("format", FORMAT)?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// The state as it was made durable, with every lease at its full time; the next block of revisions is reserved.
    pub(super) fn load(&self, limits: Limits, now: Instant) -> Result<Core, JournalError> {
        let mut core = self.read(limits, now)?;
        let changes = core.take_changes();
        self.write(&changes)?;
        confirm(&mut core, &changes);
        Ok(core)
    }

    fn read(&self, limits: Limits, now: Instant) -> Result<Core, JournalError> {
        let read = || -> Result<Result<Core, String>, redb::Error> {
            let transaction = self.database.begin_read()?;
            let meta = transaction.open_table(META)?;
            let format = meta.get("format")?.map_or(0, |value| value.value());
            if format != FORMAT {
                return Ok(Err(format!(
                    "its format is {format}, this program knows {FORMAT}"
                )));
            }
            let reserved = meta.get("reserved")?.map_or(0, |value| value.value());
            let mut core = Core::new(limits, Revision(reserved));
            for item in transaction.open_table(LEASES)?.iter()? {
                let (id, bytes) = item?;
                let Ok(lease) = StoredLease::decode(bytes.value()) else {
                    return Ok(Err("a lease is damaged".into()));
                };
                let ttl = Duration::from_millis(lease.ttl_milliseconds);
                core.restore_lease(LeaseId(id.value()), lease.owner, ttl, now);
            }
            for item in transaction.open_table(ENTRIES)?.iter()? {
                let (key, bytes) = item?;
                let Ok(entry) = StoredEntry::decode(bytes.value()) else {
                    return Ok(Err(format!("the entry `{}` is damaged", key.value())));
                };
                core.restore_entry(
                    key.value(),
                    Entry {
                        value: entry.value.into(),
                        create_revision: Revision(entry.create_revision),
                        mod_revision: Revision(entry.mod_revision),
                        lease: (entry.lease != 0).then_some(LeaseId(entry.lease)),
                        ephemeral: false,
                    },
                );
            }
            Ok(Ok(core))
        };
        read()?.map_err(JournalError::Content)
    }

    /// Makes changes durable, all or none.
    pub(super) fn write(&self, changes: &[Change]) -> Result<(), JournalError> {
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            for change in changes {
                apply(&transaction, change)?;
            }
            transaction.commit()?;
            Ok(())
        };
        Ok(write()?)
    }

    /// Writes what comes until all senders are gone or the disk fails.
    pub(super) fn run(
        &self,
        mut commits: mpsc::Receiver<Commit>,
        on_durable: impl Fn(&[Change]),
    ) -> Result<(), JournalError> {
        while let Some(first) = commits.blocking_recv() {
            let mut changes = first.changes;
            let mut waiting = vec![first.done];
            while waiting.len() < MAX_BATCH
                && let Ok(next) = commits.try_recv()
            {
                changes.extend(next.changes);
                waiting.push(next.done);
            }
            self.write(&changes)?;
            on_durable(&changes);
            for done in waiting.into_iter().flatten() {
                // Whoever asked may have gone.
                let _ = done.send(());
            }
        }
        Ok(())
    }
}

/// Tells the core about reservations that are durable now.
pub(super) fn confirm(core: &mut Core, changes: &[Change]) {
    for change in changes {
        if let Change::Reserve(bound) = change {
            core.on_reserved(*bound);
        }
    }
}

fn apply(transaction: &WriteTransaction, change: &Change) -> Result<(), redb::Error> {
    match change {
        Change::Put(key, entry) => {
            let stored = StoredEntry {
                value: entry.value.to_vec(),
                create_revision: entry.create_revision.0,
                mod_revision: entry.mod_revision.0,
                lease: entry.lease.map_or(0, |lease| lease.0),
            };
            let bytes = stored.encode_to_vec();
            transaction
                .open_table(ENTRIES)?
                .insert(&**key, bytes.as_slice())?;
        }
        Change::Delete(key) => {
            transaction.open_table(ENTRIES)?.remove(&**key)?;
        }
        Change::Grant(id, owner, ttl) => {
            let ttl_milliseconds = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
            let stored = StoredLease {
                owner: owner.clone(),
                ttl_milliseconds,
            };
            let bytes = stored.encode_to_vec();
            transaction
                .open_table(LEASES)?
                .insert(id.0, bytes.as_slice())?;
        }
        Change::Revoke(id) => {
            transaction.open_table(LEASES)?.remove(id.0)?;
        }
        Change::Reserve(bound) => {
            transaction.open_table(META)?.insert("reserved", bound.0)?;
        }
    }
    Ok(())
}
