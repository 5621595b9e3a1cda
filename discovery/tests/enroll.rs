//! Joining: every way in, and every way to be refused.

#![allow(clippy::unwrap_used, reason = "a test may end so")]

mod common;

use std::{sync::atomic::Ordering, time::Duration};

use common::{HOUR, Mesh, client, node, now};
use discovery_client::{JoinError, join};
use identity::NodeIdentity;
use model::Role;
use protocol::directory::RangeRequest;

async fn refused(settings: &discovery_client::Settings) -> String {
    let error = join(settings).await.unwrap_err().to_string();
    assert!(!error.contains('\n'), "one line: {error}");
    error
}

#[tokio::test]
async fn a_node_enrolls_with_a_token_and_needs_none_the_next_time() {
    let mesh = Mesh::new();
    let server = mesh.start().await;
    let token = mesh.token("west", Role::Workload, 1, HOUR);
    let mut settings = mesh.settings("west/workload/app", server.address, Some(token));
    let identity = join(&settings).await.unwrap().current();
    assert_eq!(*identity.node_id(), node("west/workload/app"));
    settings.join_token = None;
    let again = join(&settings).await.unwrap().current();
    assert_eq!(again.certificate().serial, identity.certificate().serial);
    // Also when discovery is away.
    server.stop().await;
    join(&settings).await.unwrap();
}

#[tokio::test]
async fn a_single_use_token_works_once_but_its_answer_may_be_asked_for_again() {
    let mesh = Mesh::new();
    let server = mesh.start().await;
    let token = mesh.token("west", Role::Workload, 1, HOUR);
    let settings = mesh.settings("west/workload/app", server.address, Some(token.clone()));
    join(&settings).await.unwrap();
    // The answer was lost: same key, no certificate.
    std::fs::remove_file(settings.state_directory.join("node-certificate.pem")).unwrap();
    join(&settings).await.unwrap();
    // Another node.
    let other = mesh.settings("west/workload/other", server.address, Some(token.clone()));
    let error = refused(&other).await;
    assert!(
        error.contains("used up") && error.contains("turnpike token create"),
        "{error}"
    );
    // The count survives a restart.
    let address = server.stop().await;
    let server = mesh.restart(address).await;
    let error = refused(&other).await;
    assert!(error.contains("used up"), "{error}");
    server.stop().await;
}

#[tokio::test]
async fn a_token_for_three_lets_three_in() {
    let mesh = Mesh::new();
    let server = mesh.start().await;
    let token = mesh.token("west", Role::Workload, 3, HOUR);
    for name in ["a", "b", "c"] {
        let id = format!("west/workload/{name}");
        join(&mesh.settings(&id, server.address, Some(token.clone())))
            .await
            .unwrap();
    }
    let error = refused(&mesh.settings("west/workload/d", server.address, Some(token))).await;
    assert!(error.contains("3 of 3"), "{error}");
}

#[tokio::test]
async fn without_a_name_discovery_chooses_one_and_keeps_to_it() {
    let mesh = Mesh::new();
    let server = mesh.start().await;
    let token = mesh.token("west", Role::Workload, 1, HOUR);
    let mut settings = mesh.settings("west/workload/x", server.address, Some(token));
    settings.node_name = None;
    let first = join(&settings).await.unwrap().current();
    assert!(
        first.node_id().name.as_str().starts_with("workload-"),
        "{:?}",
        first.node_id()
    );
    std::fs::remove_file(settings.state_directory.join("node-certificate.pem")).unwrap();
    assert_eq!(
        join(&settings).await.unwrap().current().node_id(),
        first.node_id()
    );
}

#[tokio::test]
async fn a_name_is_not_taken_over_but_with_a_token_for_that_name() {
    let mesh = Mesh::new();
    let server = mesh.start().await;
    let token = mesh.token("west", Role::Workload, 9, HOUR);
    let settings = mesh.settings("west/workload/app", server.address, Some(token));
    join(&settings).await.unwrap();
    let mut thief = settings.clone();
    thief.state_directory = mesh.path("thief");
    let error = refused(&thief).await;
    assert!(
        error.contains("taken") && error.contains("--node app"),
        "{error}"
    );
    thief.join_token = Some(mesh.token_named("west", Role::Workload, Some("app"), 1, HOUR));
    join(&thief).await.unwrap();
}

#[tokio::test]
async fn wrong_tokens_say_what_is_wrong_with_them() {
    let (mesh, stranger) = (Mesh::new(), Mesh::new());
    let server = mesh.start().await;
    let id = "west/workload/app";
    let with = |token: Option<String>| mesh.settings(id, server.address, token);

    let error = refused(&with(None)).await;
    assert!(error.contains("turnpike token create"), "{error}");
    let error = refused(&with(Some("hello".into()))).await;
    assert!(
        error.contains("join-token-file") && error.contains("turnpike-join-v1."),
        "{error}"
    );
    let error = refused(&with(Some(mesh.token("east", Role::Workload, 1, HOUR)))).await;
    assert!(
        error.contains("network = `west`") && error.contains("`east`"),
        "{error}"
    );
    let error = refused(&with(Some(mesh.token("west", Role::Activator, 1, HOUR)))).await;
    assert!(
        error.contains("role `activator`") && error.contains("--role workload"),
        "{error}"
    );
    let other = mesh.token_named("west", Role::Workload, Some("other"), 1, HOUR);
    let error = refused(&with(Some(other))).await;
    assert!(
        error.contains("node-name = `app`") && error.contains("`other`"),
        "{error}"
    );
    // A token of another mesh leads to a discovery that is not of that mesh.
    let error = refused(&with(Some(stranger.token("west", Role::Workload, 1, HOUR)))).await;
    assert!(error.contains("another mesh"), "{error}");
}

#[tokio::test]
async fn an_expired_token_is_refused_with_both_times() {
    let mesh = Mesh::new();
    let server = mesh.start().await;
    let token = mesh.token("west", Role::Workload, 1, Duration::ZERO);
    mesh.offset.store(1, Ordering::Relaxed);
    let error = refused(&mesh.settings("west/workload/app", server.address, Some(token))).await;
    assert!(
        error.contains("expired at 20") && error.contains("it is 20"),
        "{error}"
    );
}

#[tokio::test]
async fn a_clock_an_hour_off_is_told_with_both_times() {
    let mesh = Mesh::new();
    let server = mesh.start().await;
    for offset in [3600, -3600] {
        mesh.offset.store(offset, Ordering::Relaxed);
        let token = mesh.token("west", Role::Workload, 1, 5 * HOUR);
        let id = format!("west/workload/app{}", offset + 3600);
        let mut settings = mesh.settings(&id, server.address, Some(token));
        let error = join(&settings).await.unwrap_err();
        assert!(matches!(error, JoinError::ClockSkew { .. }), "{error}");
        let error = error.to_string();
        assert!(
            error.contains("60 min apart") && error.contains("set this machine's clock"),
            "{error}"
        );
        // And when the clock goes wrong later, at the next start.
        mesh.offset.store(0, Ordering::Relaxed);
        join(&settings).await.unwrap();
        settings.join_token = None;
        mesh.offset.store(-offset.abs(), Ordering::Relaxed);
        let error = join(&settings).await.unwrap_err();
        assert!(matches!(error, JoinError::ClockSkew { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_expired_certificate_needs_a_token_and_gets_one_with_the_same_key() {
    let mesh = Mesh::new();
    let server = mesh.start().await;
    let long_ago = now().saturating_sub(24 * HOUR);
    let old = mesh
        .authority
        .new_node(node("west/workload/app"), HOUR, long_ago)
        .unwrap();
    let mut settings = mesh.settings("west/workload/app", server.address, None);
    std::fs::create_dir(&settings.state_directory).unwrap();
    old.save(&settings.state_directory).unwrap();
    let error = refused(&settings).await;
    assert!(
        error.contains("expired at") && error.contains("--node app"),
        "{error}"
    );
    settings.join_token = Some(mesh.token("west", Role::Workload, 1, HOUR));
    let new = join(&settings).await.unwrap().current();
    assert_eq!(new.certificate().public_key, old.certificate().public_key);
    assert!(new.not_after() > now());
}

#[tokio::test]
async fn an_identity_of_another_network_is_not_used() {
    let mesh = Mesh::new();
    let server = mesh.start().await;
    let mut settings = mesh.settings("west/workload/app", server.address, None);
    std::fs::create_dir(&settings.state_directory).unwrap();
    mesh.identity("west/workload/app")
        .save(&settings.state_directory)
        .unwrap();
    settings.network = "east".parse().unwrap();
    let error = refused(&settings).await;
    assert!(
        error.contains("west/workload/app") && error.contains("east/workload"),
        "{error}"
    );
    assert!(
        NodeIdentity::load(&settings.state_directory)
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn certificates_of_another_ca_or_out_of_time_or_absent_get_nothing() {
    let (mesh, stranger) = (Mesh::new(), Mesh::new());
    let server = mesh.start().await;
    let ca = mesh.authority.certificate_pem();
    let range = || RangeRequest {
        prefix: "relay/".into(),
    };
    let tls = |mesh: &Mesh, from: model::UnixTime| {
        mesh.authority
            .new_node(node("west/workload/app"), HOUR, from)
            .unwrap()
            .tls()
    };

    let mut anonymous = client(server.address, &ca, None).await.unwrap();
    let status = anonymous.range(range()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
    assert!(status.message().contains("enroll first"), "{status}");

    let mut good = client(server.address, &ca, Some(&tls(&mesh, now())))
        .await
        .unwrap();
    assert_eq!(
        good.range(range()).await.unwrap().get_ref().entries.len(),
        1
    );

    for bad in [
        tls(&stranger, now()),
        tls(&mesh, now().saturating_sub(24 * HOUR)),
    ] {
        // TLS 1.3: the client learns of it with its first call.
        let refused = match client(server.address, &ca, Some(&bad)).await {
            Ok(mut client) => client.range(range()).await.is_err(),
            Err(_) => true,
        };
        assert!(refused);
    }
}

#[tokio::test]
async fn a_discovery_that_is_away_is_named() {
    let mesh = Mesh::new();
    let token = mesh.token("west", Role::Workload, 1, HOUR);
    let mut settings = mesh.settings(
        "west/workload/app",
        "127.0.0.1:1".parse().unwrap(),
        Some(token),
    );
    settings.discovery = "127.0.0.1:7400".into();
    let error = refused(&settings).await;
    assert!(
        error.contains("discovery = `127.0.0.1:7400`") && error.contains("https://"),
        "{error}"
    );
    // A certificate for another host.
    let server = mesh.start().await;
    settings.discovery = format!("https://localhost:{}", server.address.port());
    let error = refused(&settings).await;
    assert!(error.contains("does not name this host"), "{error}");
}
