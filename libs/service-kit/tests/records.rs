//! Records in files.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;

use turnpike_service_kit::{RecordFile, RecordStats, RecordWriter};

/// A message is a record.
fn start(path: &Path, stats: &Arc<RecordStats>) -> RecordWriter<u32> {
    let each = |message: Option<u32>, file: &mut RecordFile| {
        if let Some(number) = message {
            file.write(&[number]);
        }
    };
    RecordWriter::start("demo-file", path, Arc::clone(stats), each).unwrap()
}

fn counts(stats: &RecordStats) -> (u64, u64) {
    let read = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    (read(&stats.written), read(&stats.lost))
}

#[test]
fn records_are_lines_that_only_the_owner_reads_and_go_on_after_a_rotation() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("records.jsonl");
    let stats = Arc::default();
    let writer = start(&path, &stats);
    let sender = writer.sender();
    (1..=3).for_each(|number| sender.send(number));
    while counts(&stats).0 < 3 {
        std::thread::yield_now();
    }
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let rotated = directory.path().join("records.jsonl.1");
    fs::rename(&path, &rotated).unwrap();
    sender.send(4);
    while counts(&stats).0 < 4 {
        std::thread::yield_now();
    }
    writer.reopen().ask();
    sender.send(5);
    writer.end();
    assert_eq!(fs::read_to_string(&rotated).unwrap(), "1\n2\n3\n4\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "5\n");
    assert_eq!(counts(&stats), (5, 0));
}

#[test]
fn a_full_disk_loses_records_and_holds_nobody_up() {
    let stats = Arc::default();
    let writer = start(Path::new("/dev/full"), &stats);
    let sender = writer.sender();
    (0..100).for_each(|number| sender.send(number));
    writer.end();
    assert_eq!(counts(&stats), (0, 100));
}

#[test]
fn what_a_slow_disk_does_not_take_in_time_is_lost_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let stats: Arc<RecordStats> = Arc::default();
    let (go, may_go) = sync_channel::<()>(1);
    let slow = move |message: Option<u32>, file: &mut RecordFile| {
        if let Some(number) = message {
            if number == 0 {
                may_go.recv().unwrap();
            }
            file.write(&[number]);
        }
    };
    let path = directory.path().join("records");
    let writer = RecordWriter::start("demo-file", &path, Arc::clone(&stats), slow).unwrap();
    let sender = writer.sender();
    // Returns although nothing is taken out.
    (0..20_000).for_each(|number| sender.send(number));
    go.send(()).unwrap();
    writer.end();
    let (written, lost) = counts(&stats);
    assert_eq!(written + lost, 20_000);
    assert!(lost >= 10_000, "{lost} lost: what waits is bounded");
    let lines = fs::read_to_string(&path).unwrap().lines().count();
    assert_eq!(lines as u64, written);
}

#[test]
fn a_file_that_cannot_be_written_is_an_error_with_field_and_value() {
    let directory = tempfile::tempdir().unwrap();
    let each = |_: Option<u32>, _: &mut RecordFile| {};
    let refused = RecordWriter::start("demo-file", directory.path(), Arc::default(), each);
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("demo-file"), "{error}");
    assert!(
        error.contains(&directory.path().display().to_string()),
        "{error}"
    );
}
