//! The store's core in virtual time.

#![allow(clippy::unwrap_used, reason = "a test may end so")]

use std::time::{Duration, Instant};

use discovery::store::{Change, Core, EventKind, Limits, StoreError};
use model::{LeaseId, Revision};

const SECOND: Duration = Duration::from_secs(1);
const LEASE: LeaseId = LeaseId(7);

fn limits() -> Limits {
    Limits {
        ring: 4,
        entries: 5,
        leases_per_owner: 2,
        revision_block: 100,
    }
}

/// A core whose disk is always up to date.
fn core() -> Core {
    let mut core = Core::new(limits(), Revision(0));
    settle(&mut core);
    core
}

fn settle(core: &mut Core) -> Vec<Change> {
    let changes = core.take_changes();
    for change in &changes {
        if let Change::Reserve(bound) = change {
            core.on_reserved(*bound);
        }
    }
    changes
}

fn keys(core: &Core, prefix: &str) -> Vec<String> {
    core.range(prefix).map(|(key, _)| key.to_string()).collect()
}

#[test]
fn a_put_is_seen_by_range_and_by_watchers_and_counts_revisions() {
    let mut core = core();
    assert_eq!(core.put("a/1", b"x", None, None), Ok(Revision(1)));
    assert_eq!(core.put("a/1", b"y", None, None), Ok(Revision(2)));
    assert_eq!(core.put("b/1", b"z", None, None), Ok(Revision(3)));
    assert_eq!(keys(&core, "a/"), ["a/1"]);
    assert_eq!(keys(&core, ""), ["a/1", "b/1"]);
    let entry = core.get("a/1").unwrap();
    assert_eq!(
        (entry.create_revision, entry.mod_revision),
        (Revision(1), Revision(2))
    );
    let seen: Vec<_> = core
        .events_from(Revision(2))
        .unwrap()
        .map(|e| e.key.to_string())
        .collect();
    assert_eq!(seen, ["a/1", "b/1"]);
}

#[test]
fn a_delete_makes_a_revision_and_an_event_and_is_no_error_twice() {
    let mut core = core();
    core.put("a", b"", None, None).unwrap();
    assert_eq!(core.delete("a", None), Ok((Revision(2), true)));
    assert_eq!(core.delete("a", None), Ok((Revision(2), false)));
    let event = core.events_from(Revision(2)).unwrap().next().unwrap();
    assert_eq!(event.kind, EventKind::Delete);
    assert_eq!(core.put("a", b"", None, None), Ok(Revision(3)));
    assert_eq!(core.get("a").unwrap().create_revision, Revision(3));
}

#[test]
fn compare_and_swap_lets_one_of_two_win() {
    let mut core = core();
    let absent = Some(Revision(0));
    let first = core.put("a", b"1", None, absent).unwrap();
    let lost = StoreError::Conflict {
        expected: Revision(0),
        actual: first,
    };
    assert_eq!(core.put("a", b"2", None, absent), Err(lost));
    let second = core.put("a", b"3", None, Some(first)).unwrap();
    assert!(core.put("a", b"4", None, Some(first)).is_err());
    assert!(core.delete("a", Some(first)).is_err());
    assert!(core.delete("a", Some(second)).unwrap().1);
    assert_eq!(core.revision(), Revision(3), "what failed made no revision");
}

#[test]
fn a_lease_ends_after_its_time_with_its_keys_unless_it_is_kept_alive() {
    let (mut core, start) = (core(), Instant::now());
    core.grant(LEASE, "node", 10 * SECOND, start).unwrap();
    core.put("a", b"", Some((LEASE, "node")), None).unwrap();
    core.put("b", b"", None, None).unwrap();
    assert_eq!(core.poll_timeout(), Some(start + 10 * SECOND));
    core.handle_timeout(start + 9 * SECOND);
    assert_eq!(
        core.keep_alive(LEASE, "node", start + 9 * SECOND),
        Ok(10 * SECOND)
    );
    core.handle_timeout(start + 18 * SECOND);
    assert_eq!(keys(&core, ""), ["a", "b"]);
    core.handle_timeout(start + 19 * SECOND);
    assert_eq!(keys(&core, ""), ["b"]);
    assert_eq!(core.poll_timeout(), None);
    let late = core.keep_alive(LEASE, "node", start + 20 * SECOND);
    assert_eq!(late, Err(StoreError::NoLease));
    assert_eq!(
        core.put("a", b"", Some((LEASE, "node")), None),
        Err(StoreError::NoLease)
    );
}

#[test]
fn a_key_put_again_without_or_with_another_lease_leaves_the_first() {
    let (mut core, start) = (core(), Instant::now());
    let other = LeaseId(8);
    core.grant(LEASE, "node", SECOND, start).unwrap();
    core.grant(other, "node", 5 * SECOND, start).unwrap();
    core.put("a", b"", Some((LEASE, "node")), None).unwrap();
    core.put("b", b"", Some((LEASE, "node")), None).unwrap();
    core.put("a", b"", Some((other, "node")), None).unwrap();
    core.put("b", b"", None, None).unwrap();
    core.handle_timeout(start + SECOND);
    assert_eq!(keys(&core, ""), ["a", "b"]);
    core.revoke(other, "node").unwrap();
    assert_eq!(keys(&core, ""), ["b"]);
    assert_eq!(core.poll_timeout(), None);
}

#[test]
fn a_lease_is_its_owners_alone_and_owners_have_few() {
    let (mut core, start) = (core(), Instant::now());
    core.grant(LEASE, "node", SECOND, start).unwrap();
    assert_eq!(
        core.keep_alive(LEASE, "other", start),
        Err(StoreError::NoLease)
    );
    assert_eq!(core.revoke(LEASE, "other"), Err(StoreError::NoLease));
    assert_eq!(
        core.put("a", b"", Some((LEASE, "other")), None),
        Err(StoreError::NoLease)
    );
    assert_eq!(
        core.grant(LEASE, "node", SECOND, start),
        Err(StoreError::Busy)
    );
    core.grant(LeaseId(8), "node", SECOND, start).unwrap();
    let third = core.grant(LeaseId(9), "node", SECOND, start);
    assert_eq!(third, Err(StoreError::TooManyLeases(2)));
    core.grant(LeaseId(9), "other", SECOND, start).unwrap();
}

#[test]
fn mail_ends_after_its_time_unless_the_key_was_put_again() {
    let (mut core, start) = (core(), Instant::now());
    core.put_ephemeral("mail/1", b"", SECOND, start).unwrap();
    core.put_ephemeral("mail/2", b"", SECOND, start).unwrap();
    core.put_ephemeral("mail/2", b"", 3 * SECOND, start)
        .unwrap();
    core.handle_timeout(start + 2 * SECOND);
    assert_eq!(keys(&core, "mail/"), ["mail/2"]);
    core.handle_timeout(start + 3 * SECOND);
    assert!(keys(&core, "mail/").is_empty());
    assert!(
        settle(&mut core).is_empty(),
        "mail is not written to the disk"
    );
}

#[test]
fn a_watcher_that_is_too_late_or_too_early_must_list_again() {
    let mut core = core();
    for i in 0..6 {
        core.put("a", &[i], None, None).unwrap();
    }
    let from = |core: &Core, n| core.events_from(Revision(n)).map(Iterator::count);
    assert_eq!(from(&core, 2), Err(StoreError::OutOfRange(Revision(2))));
    assert_eq!(from(&core, 3), Ok(4));
    assert_eq!(from(&core, 7), Ok(0));
    assert_eq!(from(&core, 8), Err(StoreError::OutOfRange(Revision(8))));
}

#[test]
fn the_store_is_bounded() {
    let mut core = core();
    for i in 0..5 {
        core.put(&format!("k{i}"), b"", None, None).unwrap();
    }
    assert_eq!(core.put("more", b"", None, None), Err(StoreError::Full(5)));
    core.put("k1", b"again", None, None).unwrap();
    core.delete("k2", None).unwrap();
    core.put("more", b"", None, None).unwrap();
}

#[test]
fn no_revision_is_handed_out_that_the_disk_has_not_reserved() {
    let mut core = Core::new(limits(), Revision(1000));
    assert_eq!(core.put("a", b"", None, None), Err(StoreError::Busy));
    settle(&mut core);
    for i in 1001..=1100 {
        assert_eq!(core.put("a", b"", None, None), Ok(Revision(i)));
    }
    // The next block was asked for half way, and is not confirmed yet.
    assert_eq!(core.put("a", b"", None, None), Err(StoreError::Busy));
    let changes = settle(&mut core);
    assert!(
        changes.contains(&Change::Reserve(Revision(1200))),
        "{changes:?}"
    );
    assert_eq!(core.put("a", b"", None, None), Ok(Revision(1101)));
}

#[test]
fn an_expiry_that_the_disk_holds_up_happens_later() {
    let start = Instant::now();
    let mut core = Core::new(
        Limits {
            revision_block: 2,
            ..limits()
        },
        Revision(0),
    );
    settle(&mut core);
    core.grant(LEASE, "node", SECOND, start).unwrap();
    core.put("a", b"", Some((LEASE, "node")), None).unwrap();
    core.put("b", b"", Some((LEASE, "node")), None).unwrap();
    core.handle_timeout(start + SECOND);
    assert_eq!(keys(&core, ""), ["a", "b"]);
    settle(&mut core);
    core.handle_timeout(core.poll_timeout().unwrap());
    settle(&mut core);
    core.handle_timeout(start + 3 * SECOND);
    assert!(keys(&core, "").is_empty());
}

#[test]
fn what_is_restored_has_its_full_lease_again_and_orphans_are_deleted() {
    let start = Instant::now();
    let mut before = core();
    before.grant(LEASE, "node", 10 * SECOND, start).unwrap();
    before.put("a", b"1", Some((LEASE, "node")), None).unwrap();
    let entry = before.get("a").unwrap().clone();
    let later = start + 1000 * SECOND;
    let mut core = Core::new(limits(), Revision(100));
    core.restore_lease(LEASE, "node".into(), 10 * SECOND, later);
    core.restore_entry("a", entry.clone());
    core.restore_entry(
        "orphan",
        discovery::store::Entry {
            lease: Some(LeaseId(99)),
            ..entry
        },
    );
    assert!(settle(&mut core).contains(&Change::Delete("orphan".into())));
    assert_eq!(
        core.events_from(Revision(2)).map(Iterator::count),
        Err(StoreError::OutOfRange(Revision(2)))
    );
    core.handle_timeout(later + 9 * SECOND);
    assert_eq!(keys(&core, ""), ["a"]);
    core.handle_timeout(later + 10 * SECOND);
    assert!(keys(&core, "").is_empty());
    assert!(core.revision() > Revision(100));
}
