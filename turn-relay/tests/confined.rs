//! What the running process has given up.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, Service};
use nix::unistd::{Gid, Uid, User, chown};
use std::os::unix::fs::PermissionsExt;
use turn_types::AddressFamily;

/// A line of `/proc/PID/status`, of all threads: they have to agree.
fn status(service: &Service, name: &str) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", service.child.id())).unwrap();
    let mut values: Vec<_> = tasks
        .map(|task| {
            let text = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim_start_matches(':').trim().to_owned()
        })
        .collect();
    values.dedup();
    let [value] = &values[..] else {
        panic!("{name}: {values:?}");
    };
    value.clone()
}

#[test]
fn every_thread_is_confined_unless_it_is_switched_off() {
    let service = Service::start(&["--listen", "udp://127.0.0.1:0"]);
    assert_eq!(status(&service, "NoNewPrivs"), "1");
    assert_eq!(status(&service, "Seccomp"), "2");
    assert!(service.log().contains("onfined"), "{}", service.log());

    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("turn-relay.toml");
    std::fs::write(&config, "confinement = false\n").unwrap();
    let config = config.to_str().unwrap();
    let service = Service::start(&["--listen", "udp://127.0.0.1:0", "--config", config]);
    assert_eq!(status(&service, "NoNewPrivs"), "1");
    assert!(service.log().contains("`confinement` is off"));
}

/// Root becomes nobody; anybody else stays who it is.
#[test]
fn it_runs_as_who_it_is_told_with_the_capabilities_that_it_needs() {
    let root = Uid::current().is_root();
    let user = match root {
        true => User::from_name("nobody").unwrap().unwrap(),
        false => User::from_uid(Uid::current()).unwrap().unwrap(),
    };
    let directory = tempfile::tempdir().unwrap();
    let usage = directory.path().join("usage.jsonl");
    let config = directory.path().join("turn-relay.toml");
    let text = format!("run-as = {:?}\nusage-file = {usage:?}\n", user.name);
    std::fs::write(&config, text).unwrap();
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), mode).unwrap();
    let owner = (Some(user.uid), Some(Gid::from_raw(user.gid.as_raw())));
    chown(directory.path(), owner.0, owner.1).unwrap();
    let service = Service::start(&[
        "--listen",
        "udp://127.0.0.1:0",
        "--config",
        config.to_str().unwrap(),
    ]);
    let id = user.uid.to_string();
    assert_eq!(status(&service, "Uid"), [&id[..]; 4].join("\t"));
    if root {
        // CAP_NET_BIND_SERVICE and CAP_NET_ADMIN, as far as root itself has them here.
        let left = u64::from_str_radix(&status(&service, "CapEff"), 16).unwrap();
        assert_eq!(left & !(1 << 10 | 1 << 12), 0);
        assert_eq!(status(&service, "CapEff"), status(&service, "CapAmb"));
    }
    let client = Client::connect(service.listen[0]);
    client.allocate(AddressFamily::IPV4).unwrap();
    client.delete().unwrap();
    common::until("a record", || {
        let text = std::fs::read_to_string(&usage).unwrap();
        text.contains("\"deleted\"").then_some(())
    });
}

#[test]
fn a_user_that_does_not_exist_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("turn-relay.toml");
    std::fs::write(
        &config,
        "relay-addresses = [\"127.0.0.1\"]\nrun-as = \"nobody-at-all\"\n",
    )
    .unwrap();
    let config = config.to_str().unwrap();
    let output = common::command(&["--user", "a:b", "--config", config])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("turn-relay.toml:2: field `run-as`: value `nobody-at-all`"),
        "{error}"
    );
}
