//! Who may log in to the real process, and with what.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, Service, command};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};
use turn_relay_proto::{rest_password, rest_password_sha256};
use turn_types::AddressFamily;

const FAMILY: AddressFamily = AddressFamily::IPV4;

/// What `turn-relay user hash` prints.
fn hashed(name: &str, realm: &str, password: &str) -> String {
    let mut child = command(&["user", "hash", name, "--realm", realm])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn write(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn hashed_users_and_minted_users_of_both_forms_log_in() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let line = hashed("bob", "turnpike", "builder: the best");
    assert!(line.starts_with("bob:$turn$") && !line.contains("best"));
    write(&path("users"), &format!("carol:christmas\n{line}"));
    write(&path("secret"), "one secret");
    write(&path("newer"), "another");
    let config = format!(
        "users-file = {:?}\nauth-secret-files = [{:?}, {:?}]\nlisten = [\"udp://127.0.0.1:0\"]",
        path("users"),
        path("secret"),
        path("newer")
    );
    write(&path("config"), &config);
    let service = Service::start(&["--config", path("config").to_str().unwrap()]);
    let allocate = |name: &str, password: &str| {
        Client::connect_as(service.listen[0], (name, password)).allocate(FAMILY)
    };
    allocate("bob", "builder: the best").unwrap();
    allocate("carol", "christmas").unwrap();
    assert_eq!(allocate("bob", "builder"), Err(401));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let user = format!("{}:dave", now.as_secs() + 600);
    for secret in [&b"one secret"[..], b"another"] {
        allocate(&user, &rest_password(secret, &user)).unwrap();
        allocate(&user, &rest_password_sha256(secret, &user)).unwrap();
    }
    assert_eq!(allocate(&user, &rest_password(b"a third", &user)), Err(401));
    assert!(!service.log().contains("others can read this secret"));
}

#[test]
fn a_line_hashed_for_another_realm_does_not_start_the_relay_and_a_readable_file_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let users = directory.path().join("users");
    let config = directory.path().join("config");
    write(
        &config,
        &format!("users-file = {users:?}\nlisten = [\"udp://127.0.0.1:0\"]"),
    );
    write(
        &users,
        &format!("# who\n{}", hashed("bob", "east", "builder")),
    );
    let output = command(&["--config", config.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let line = String::from_utf8(output.stderr).unwrap();
    assert!(line.contains("users: field `line 2`"), "{line}");
    assert!(line.contains("hashed for the realm `east`"), "{line}");

    write(&users, &hashed("bob", "turnpike", "builder"));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&users, mode).unwrap();
    let service = Service::start(&["--config", config.to_str().unwrap()]);
    assert!(service.log().contains("others can read this secret"));
}
