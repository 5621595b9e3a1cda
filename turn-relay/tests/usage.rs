//! Usage records in a file.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, DEADLINE, Service, channel_data, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use turn_types::AddressFamily;

fn records(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn allocations_and_users_are_recorded_and_the_file_can_be_rotated() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("turn-relay.toml");
    let file = directory.path().join("usage.jsonl");
    let text = format!("usage-file = {file:?}\nusage-seconds = 1\n");
    std::fs::write(&config, text).unwrap();
    let mut service = Service::start(&[
        "--config",
        config.to_str().unwrap(),
        "--listen",
        "udp://127.0.0.1:0",
        "--allow-peer",
        "127.0.0.0/8",
    ]);
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(DEADLINE)).unwrap();
    let client = Client::connect(service.listen[0]);
    let relayed = client.allocate(AddressFamily::IPV4).unwrap();
    client.bind(0x4001, peer.local_addr().unwrap()).unwrap();
    client.socket.send(&channel_data(0x4001, b"hello")).unwrap();
    let (_, from) = peer.recv_from(&mut [0; 100]).unwrap();
    peer.send_to(b"back", from).unwrap();
    client.receive();
    let user = until("a record of the user", || {
        let all = records(&file);
        all.into_iter().find(|r| r["bytes_to_client"] == 4)
    });
    assert_eq!(
        (&user["record"], &user["user"]),
        (&"user".into(), &"alice".into())
    );
    assert_eq!(
        (&user["bytes_to_peer"], &user["packets_to_peer"]),
        (&5.into(), &1.into())
    );
    client.delete().unwrap();
    let ended = until("a record of the allocation", || {
        records(&file)
            .into_iter()
            .find(|r| r["record"] == "allocation")
    });
    assert_eq!(
        (&ended["user"], &ended["reason"]),
        (&"alice".into(), &"deleted".into())
    );
    assert_eq!(
        (&ended["transport"], &ended["peers"]),
        (&"udp".into(), &1.into())
    );
    assert_eq!(ended["relayed"][0], relayed.to_string());
    assert_eq!(
        (&ended["bytes_to_peer"], &ended["bytes_to_client"]),
        (&5.into(), &4.into())
    );

    let old = directory.path().join("usage.jsonl.1");
    std::fs::rename(&file, &old).unwrap();
    let pid = Pid::from_raw(service.child.id() as i32);
    kill(pid, Signal::SIGHUP).unwrap();
    until("the reload", || {
        (service.metric("config_reloads_total{result=\"applied\"}") == 1).then_some(())
    });
    let before = records(&old).len();
    client.allocate(AddressFamily::IPV4).unwrap();
    kill(pid, Signal::SIGTERM).unwrap();
    service.child.wait().unwrap();
    // What exists at the end is recorded, too.
    let last = records(&file);
    assert!(
        last.iter()
            .any(|r| r["record"] == "allocation" && r["reason"] == "stopped"),
        "{last:?}"
    );
    assert_eq!(records(&old).len(), before);
}
