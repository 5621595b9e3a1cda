//! The real program, killed at any moment: what was answered is there afterwards, and revisions go on.

#![allow(clippy::unwrap_used, reason = "a test may end so")]

mod common;

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use common::{HOUR, Mesh, PATIENCE, now};
use identity::{NodeIdentity, TlsMaterial, document};
use prost::Message as _;
use protocol::{
    directory::{LeaseGrantRequest, PutRequest, RangeRequest, directory_client::DirectoryClient},
    document::{Registration, document::Body},
};
use tonic::transport::Channel;

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // SIGKILL.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(mesh: &Mesh, port: u16) -> Program {
    let config = mesh.path("discovery.toml");
    std::fs::write(&config, mesh.config_text(&format!("127.0.0.1:{port}"))).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_discovery"));
    command
        .arg("--config")
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Program(command.spawn().unwrap())
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

async fn connect(mesh: &Mesh, port: u16, tls: &TlsMaterial) -> DirectoryClient<Channel> {
    let ca = mesh.authority.certificate_pem();
    let address = format!("127.0.0.1:{port}").parse().unwrap();
    let connected = async {
        loop {
            match common::client(address, &ca, Some(tls)).await {
                Ok(client) => return client,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, connected)
        .await
        .expect("discovery did not start")
}

fn registration(node: &NodeIdentity, instance: u64) -> Vec<u8> {
    let id = node.node_id();
    let body = Registration {
        network: id.network.to_string(),
        node: id.name.to_string(),
        instance,
        ..Registration::default()
    };
    node.sign(&document(Body::Registration(body), None, HOUR, now()))
        .unwrap()
        .encode_to_vec()
}

#[tokio::test]
async fn kill_9_at_any_moment_loses_nothing_that_was_answered() {
    let mesh = Mesh::new();
    let port = free_port();
    let node = mesh.identity("east/activator/gw");
    let tls = node.tls();
    let mut answered = (0, Vec::new());
    let mut lease = 0;
    for round in 0..6u64 {
        let program = start(&mesh, port);
        let mut client = connect(&mesh, port, &tls).await;
        let range = RangeRequest {
            prefix: "registration/".into(),
        };
        let listed = client.range(range).await.unwrap().into_inner();
        assert!(listed.revision >= answered.0, "revisions never go back");
        if round == 0 {
            let grant = LeaseGrantRequest { ttl_seconds: 3600 };
            lease = client.lease_grant(grant).await.unwrap().into_inner().lease;
        } else {
            // What was being put when the program died may be there too.
            let entry = &listed.entries[0];
            assert!(entry.mod_revision >= answered.0, "round {round}");
            assert!(
                entry.mod_revision > answered.0 || entry.value == answered.1,
                "round {round}"
            );
            assert_eq!(entry.lease, lease);
        }
        // Killed by another thread while puts are under way, a little later in each round.
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20 + 17 * round));
            drop(program);
        });
        for instance in 0.. {
            let value = registration(&node, round << 32 | instance);
            let put = PutRequest {
                key: "registration/east/gw".into(),
                value: value.clone(),
                lease,
                expected_revision: None,
            };
            match client.put(put).await {
                Ok(response) => answered = (response.get_ref().revision, value),
                Err(_) => break,
            }
        }
        killer.join().unwrap();
    }
    assert!(answered.0 > 0);
}
