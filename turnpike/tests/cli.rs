//! The command as an operator runs it.

#![allow(clippy::unwrap_used, reason = "a test may end so")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use identity::{Authority, JoinToken};
use tempfile::TempDir;

fn turnpike(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_turnpike"))
        .args(args)
        .env_remove("TURNPIKE_MESH_DIRECTORY")
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// One line on standard error, and the exit code.
fn refused(args: &[&str]) -> (i32, String) {
    let output = turnpike(args);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    (output.status.code().unwrap(), text)
}

fn mesh() -> (TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let mesh = directory.path().join("mesh").display().to_string();
    let west = "turn:203.0.113.12:3478?transport=udp";
    let east = "turn:203.0.113.22:3478?transport=udp";
    stdout(&turnpike(&[
        "init",
        &mesh,
        "--mesh",
        "demo",
        "--discovery",
        "203.0.113.10:7400",
        "--network",
        "west",
        "--relay",
        west,
        "--network",
        "east",
        "--relay",
        east,
    ]));
    (directory, mesh)
}

#[test]
fn init_makes_a_whole_mesh_with_secrets_that_only_the_owner_reads() {
    let (_directory, mesh) = mesh();
    let mesh = Path::new(&mesh);
    let mode = |name: &str| fs::metadata(mesh.join(name)).unwrap().permissions().mode() & 0o777;
    for name in [
        "ca-key.pem",
        "discovery-key.pem",
        "west/relay-secret",
        "east/relay-secret",
        "west/relay-key.pem",
    ] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    assert_eq!(mode("."), 0o700);
    let read = |name: &str| fs::read_to_string(mesh.join(name)).unwrap();
    let authority = Authority::load(&read("ca-certificate.pem"), &read("ca-key.pem")).unwrap();
    assert_eq!(authority.mesh().name.as_str(), "demo");
    assert!(read("discovery-certificate.pem").contains("BEGIN CERTIFICATE"));
    assert_ne!(read("west/relay-secret"), read("east/relay-secret"));
    assert_eq!(read("west/relay-secret").trim().len(), 64);
    for network in ["west", "east"] {
        for name in ["turn-relay.toml", "activator.toml", "dns-signal.toml"] {
            let text = read(&format!("{network}/{name}"));
            text.parse::<toml::Table>().unwrap();
            assert!(text.contains(network), "{text}");
        }
    }
    let discovery: toml::Table = read("discovery.toml").parse().unwrap();
    assert_eq!(discovery["listen"].as_str(), Some("203.0.113.10:7400"));
    let relays = discovery["relay"].as_array().unwrap();
    assert_eq!(relays.len(), 2);
    // All files it names are there, by absolute paths.
    for table in [&discovery, relays[0].as_table().unwrap()] {
        for (key, value) in table.iter().filter(|(key, _)| key.ends_with("-file")) {
            let path = Path::new(value.as_str().unwrap());
            assert!(
                path.is_absolute() && (key == "data-file" || path.is_file()),
                "{key}"
            );
        }
    }
}

#[test]
fn init_does_not_overwrite_and_leaves_nothing_behind_when_it_fails() {
    let (directory, mesh) = mesh();
    let key = fs::read(Path::new(&mesh).join("ca-key.pem")).unwrap();
    let args = [
        "init",
        &mesh,
        "--mesh",
        "demo",
        "--discovery",
        "203.0.113.10:7400",
    ];
    let (code, error) = refused(&args);
    assert_eq!(code, 64);
    assert!(
        error.contains(&mesh) && error.contains("something already"),
        "{error}"
    );
    assert_eq!(fs::read(Path::new(&mesh).join("ca-key.pem")).unwrap(), key);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn wrong_arguments_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let new = directory.path().join("new").display().to_string();
    for discovery in [
        "203.0.113.10",
        "host:port",
        "2001:db8::1:7400",
        "https://host:1",
        ":7400",
    ] {
        let (code, error) = refused(&["init", &new, "--mesh", "demo", "--discovery", discovery]);
        assert_eq!(code, 64, "{error}");
        assert!(
            error.contains("--discovery") && error.contains(discovery),
            "{error}"
        );
    }
    let base = [
        "init",
        &new,
        "--mesh",
        "demo",
        "--discovery",
        "host:7400",
        "--network",
        "west",
    ];
    let (_, error) = refused(&base);
    assert!(error.contains("--relay"), "{error}");
    let (_, error) = refused(&[&base[..], &["--relay", "203.0.113.1"]].concat());
    assert!(error.contains("turn:HOST:PORT"), "{error}");
    let (code, error) = refused(&[
        "token",
        "create",
        "--mesh-directory",
        &new,
        "--network",
        "w",
        "--role",
        "workload",
    ]);
    assert_eq!(code, 64);
    assert!(
        error.contains("--mesh-directory") && error.contains("turnpike init"),
        "{error}"
    );
    assert!(!Path::new(&new).exists());
}

#[test]
fn a_token_is_one_line_that_the_mesh_believes() {
    let (_directory, mesh) = mesh();
    let text = stdout(&turnpike(&[
        "token",
        "create",
        "--mesh-directory",
        &mesh,
        "--network",
        "west",
        "--role",
        "workload",
        "--uses",
        "3",
        "--ttl",
        "10m",
        "--node",
        "app-1",
    ]));
    assert_eq!(text.lines().count(), 1);
    let read = |name: &str| fs::read_to_string(Path::new(&mesh).join(name)).unwrap();
    let authority = Authority::load(&read("ca-certificate.pem"), &read("ca-key.pem")).unwrap();
    let token =
        JoinToken::verify(&text, authority.certificate_der(), net::Clock.unix_time()).unwrap();
    assert_eq!(token.network.as_str(), "west");
    assert_eq!(token.node.unwrap().as_str(), "app-1");
    assert_eq!(token.uses, 3);
    assert_eq!(token.discovery, "https://203.0.113.10:7400");
    let left = token.expires.since(net::Clock.unix_time()).as_secs();
    assert!((590..=600).contains(&left), "{left}");
}

#[test]
fn status_says_that_discovery_is_away() {
    let (_directory, mesh) = mesh();
    let (code, error) = refused(&[
        "status",
        "--mesh-directory",
        &mesh,
        "--discovery",
        "https://127.0.0.1:1",
    ]);
    assert_eq!(code, 1);
    assert!(error.contains("https://127.0.0.1:1"), "{error}");
}
