//! What the search kept, and what it once found: nothing of it breaks anything any more.

use std::path::Path;

fn replay(name: &str) {
    let run = turnpike_fuzz::target(name).expect("a target");
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name);
    let mut files: Vec<_> = std::fs::read_dir(&directory)
        .expect("a corpus")
        .map(|entry| entry.expect("a file").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", directory.display());
    for path in files {
        println!("{}", path.display());
        run(&std::fs::read(&path).expect("a file that can be read"));
    }
}

#[test]
fn stun() {
    replay("stun");
}

#[test]
fn stream() {
    replay("stream");
}

#[test]
fn core() {
    replay("core");
}

#[test]
fn config() {
    replay("config");
}

#[test]
fn opening() {
    replay("opening");
}

#[test]
fn credentials() {
    replay("credentials");
}

#[test]
fn state() {
    replay("state");
}
