//! The directory through the client: registrations, the view, mail, and what happens when discovery goes away.

#![allow(clippy::unwrap_used, reason = "a test may end so")]

mod common;

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use common::{HOUR, Mesh, eventually, node, now, within};
use discovery_client::{DirectoryError, Event};
use identity::{NodeIdentity, NodeKey, document};
use model::Role;
use prost::Message as _;
use protocol::{
    directory::Envelope,
    document::{Bye, Registration, document::Body},
};

#[tokio::test]
async fn a_registration_reaches_the_others_and_goes_with_its_activator() {
    let mesh = Mesh::new();
    let server = mesh.start().await;
    let gateway = mesh.join("east/activator/gw", server.address).await;
    let app = mesh.join("west/workload/app", server.address).await;
    assert!(app.directory.view().connected);
    let relay = &app.directory.view().relays[&"west".parse().unwrap()];
    assert_eq!(relay.url, "turn:203.0.113.12:3478?transport=udp");

    gateway
        .directory
        .publish(Some(gateway.registration_with(5)));
    let id = gateway.id();
    let seen = || {
        app.directory
            .view()
            .registrations
            .get(&id)
            .map(|r| r.registration.instance)
    };
    eventually("seen", || seen() == Some(5)).await;
    gateway
        .directory
        .publish(Some(gateway.registration_with(6)));
    eventually("changed", || seen() == Some(6)).await;
    gateway.directory.publish(None);
    eventually("withdrawn", || seen().is_none()).await;
    gateway
        .directory
        .publish(Some(gateway.registration_with(7)));
    eventually("back", || seen() == Some(7)).await;
    within(gateway.directory.shutdown()).await;
    eventually("gone", || seen().is_none()).await;
}

#[tokio::test]
async fn a_registration_outlives_a_silent_activator_by_its_lease_only() {
    let mesh = Mesh::new();
    let server = mesh.start().await;
    let app = mesh.join("west/workload/app", server.address).await;
    let tls = mesh.identity("east/activator/gw");
    let ca = mesh.authority.certificate_pem();
    let mut client = common::client(server.address, &ca, Some(&tls.tls()))
        .await
        .unwrap();
    let lease = client
        .lease_grant(protocol::directory::LeaseGrantRequest { ttl_seconds: 2 })
        .await
        .unwrap()
        .into_inner()
        .lease;
    let body = Registration {
        network: "east".into(),
        node: "gw".into(),
        ..Default::default()
    };
    let signed = tls
        .sign(&document(Body::Registration(body), None, HOUR, now()))
        .unwrap();
    let put = protocol::directory::PutRequest {
        key: "registration/east/gw".into(),
        value: signed.encode_to_vec(),
        lease,
        expected_revision: None,
    };
    client.put(put).await.unwrap();
    let began = Instant::now();
    let seen = || app.directory.view().registrations.len();
    eventually("seen", || seen() == 1).await;
    eventually("expired", || seen() == 0).await;
    assert!(
        began.elapsed() > Duration::from_millis(1500),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn mail_arrives_once_in_order_and_is_gone_from_the_mailbox() {
    let mesh = Mesh::new();
    let server = mesh.start().await;
    let mut gateway = mesh.join("east/activator/gw", server.address).await;
    let app = mesh.join("west/workload/app", server.address).await;
    for link in 0..40 {
        let to = gateway.id();
        app.directory.post(&to, app.offer(&to, link)).await.unwrap();
    }
    for link in 0..40 {
        let (from, body) = gateway
            .until(|event| match event {
                Event::Message { from, document, .. } => Some((from, document.body)),
                _ => None,
            })
            .await;
        assert_eq!(from, app.id());
        assert!(matches!(body, Some(Body::Offer(offer)) if offer.link == link));
    }
    let left = || server.store.read(|core| core.range("mailbox/").count());
    eventually("deleted", || left() == 0).await;
}

#[tokio::test]
async fn mail_to_nobody_is_refused() {
    let mesh = Mesh::new();
    let server = mesh.start().await;
    let app = mesh.join("west/workload/app", server.address).await;
    let to = node("east/activator/nobody");
    let error = app
        .directory
        .post(&to, app.offer(&to, 1))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, DirectoryError::Refused(why) if why.contains("no node")),
        "{error}"
    );
}

#[tokio::test]
async fn a_discovery_that_alters_a_document_is_not_believed() {
    let mesh = Mesh::new();
    let server = mesh.start().await;
    let gateway = mesh.join("east/activator/gw", server.address).await;
    let mut app = mesh.join("west/workload/app", server.address).await;

    // A registration of which one byte is altered.
    let mut altered = gateway.registration();
    let last = altered.payload.len() - 1;
    altered.payload[last] ^= 1;
    let value = altered.encode_to_vec();
    server
        .store
        .update(|core, _| core.put("registration/east/gw", &value, None, None))
        .await
        .unwrap();
    let (from, reason) = rejected(&mut app).await;
    assert_eq!(from, "registration/east/gw");
    assert!(reason.contains("signature is wrong"), "{reason}");
    assert!(app.directory.view().registrations.is_empty());

    // A true registration under another's name.
    let value = gateway.registration().encode_to_vec();
    server
        .store
        .update(|core, _| core.put("registration/east/no", &value, None, None))
        .await
        .unwrap();
    let (_, reason) = rejected(&mut app).await;
    assert!(reason.contains("signed by east/activator/gw"), "{reason}");

    // Mail: altered, and with another sender's name on it.
    let bye = |link| {
        Body::Bye(Bye {
            link,
            ..Bye::default()
        })
    };
    let sign = |body| {
        let to = app.directory.identity().node_id().clone();
        gateway
            .directory
            .identity()
            .sign(&document(body, Some(&to), HOUR, now()))
            .unwrap()
    };
    let mut altered = sign(bye(1));
    altered.payload[0] ^= 0x40;
    let good = sign(bye(2));
    let envelopes = [
        ("east/activator/gw", altered),
        ("east/activator/other", good.clone()),
        ("east/activator/gw", good),
    ];
    for (i, (from, document)) in envelopes.into_iter().enumerate() {
        let value = Envelope {
            from: from.into(),
            document: Some(document),
        }
        .encode_to_vec();
        let key = format!("mailbox/west/workload/app/{i}");
        server
            .store
            .update(|core, now| core.put_ephemeral(&key, &value, HOUR, now))
            .await
            .unwrap();
    }
    let (from, reason) = rejected(&mut app).await;
    assert_eq!(from, "east/activator/gw");
    assert!(
        reason.contains("signature is wrong") || reason.contains("malformed"),
        "{reason}"
    );
    let (from, reason) = rejected(&mut app).await;
    assert_eq!(from, "east/activator/other");
    assert!(reason.contains("did not send it"), "{reason}");
    let link = app
        .until(|event| match event {
            Event::Message { document, .. } => match document.body {
                Some(Body::Bye(bye)) => Some(bye.link),
                _ => None,
            },
            _ => None,
        })
        .await;
    assert_eq!(link, 2);
}

async fn rejected(node: &mut common::Node) -> (String, String) {
    node.until(|event| match event {
        Event::Rejected { from, reason } => Some((from, reason)),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn all_is_back_within_3_s_of_a_restart_and_the_view_stays_meanwhile() {
    let mesh = Mesh::new();
    let server = mesh.start().await;
    let gateway = mesh.join("east/activator/gw", server.address).await;
    let mut app = mesh.join("west/workload/app", server.address).await;
    gateway.directory.publish(Some(gateway.registration()));
    let id = gateway.id();
    eventually("seen", || {
        app.directory.view().registrations.contains_key(&id)
    })
    .await;
    let before = app.directory.view().revision;

    let address = server.stop().await;
    app.until(|event| matches!(event, Event::Disconnected { .. }).then_some(()))
        .await;
    let view = app.directory.view();
    assert!(!view.connected && view.registrations.contains_key(&id));
    let began = Instant::now();
    let error = app
        .directory
        .post(&id, app.offer(&id, 1))
        .await
        .unwrap_err();
    assert!(matches!(error, DirectoryError::Away(_)), "{error}");
    assert!(began.elapsed() < Duration::from_secs(4));

    let server = mesh.restart(address).await;
    let began = Instant::now();
    app.until(|event| matches!(event, Event::Connected).then_some(()))
        .await;
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    let view = app.directory.view();
    assert!(
        view.registrations.contains_key(&id),
        "it was kept over the restart"
    );
    assert!(view.revision > before, "revisions never go back");
    // The activator goes on with its lease.
    eventually("registered again", || {
        server.store.read(|core| {
            core.get("registration/east/gw")
                .is_some_and(|e| e.mod_revision > before)
        })
    })
    .await;
    app.directory.post(&id, app.offer(&id, 1)).await.unwrap();
}

/// Its revisions begin anew, and what is under them has not been seen.
#[tokio::test]
async fn mail_and_registrations_arrive_after_discovery_has_lost_its_data_file() {
    let mesh = Mesh::new();
    let server = mesh.start().await;
    let mut gateway = mesh.join("east/activator/gw", server.address).await;
    let app = mesh.join("west/workload/app", server.address).await;
    let id = gateway.id();
    async fn offer(gateway: &mut common::Node, app: &common::Node, link: u64) {
        let id = gateway.id();
        app.directory.post(&id, app.offer(&id, link)).await.unwrap();
        let is_it = |event| match event {
            Event::Message { document, .. } => match document.body {
                Some(Body::Offer(offer)) => (offer.link == link).then_some(()),
                _ => None,
            },
            _ => None,
        };
        gateway.until(is_it).await;
    }
    for link in 0..50 {
        offer(&mut gateway, &app, link).await;
    }

    let address = server.stop().await;
    std::fs::remove_file(mesh.path("data.redb")).unwrap();
    let server = mesh.restart(address).await;
    gateway
        .until(|event| matches!(event, Event::Connected).then_some(()))
        .await;
    eventually("the workload is back", || app.directory.view().connected).await;
    offer(&mut gateway, &app, 50).await;
    gateway.directory.publish(Some(gateway.registration()));
    eventually("seen", || {
        app.directory.view().registrations.contains_key(&id)
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn without_a_data_file_all_is_back_too() {
    let mesh = Mesh::new();
    let mut config = mesh.config("127.0.0.1:0");
    config.data_file = None;
    let server = mesh.start_with(config.clone()).await;
    let mut gateway = mesh.join("east/activator/gw", server.address).await;
    let app = mesh.join("west/workload/app", server.address).await;
    gateway.directory.publish(Some(gateway.registration()));
    let id = gateway.id();
    eventually("seen", || {
        app.directory.view().registrations.contains_key(&id)
    })
    .await;
    config.listen = server.stop().await;
    gateway
        .until(|event| matches!(event, Event::Disconnected { .. }).then_some(()))
        .await;
    let _server = mesh.start_with(config).await;
    eventually("back", || {
        let view = app.directory.view();
        view.connected && view.registrations.contains_key(&id)
    })
    .await;
    app.directory.post(&id, app.offer(&id, 9)).await.unwrap();
    gateway
        .until(|event| matches!(event, Event::Message { .. }).then_some(()))
        .await;
}

#[tokio::test]
async fn turn_credentials_are_minted_for_a_node_and_a_known_relay() {
    let mesh = Mesh::new();
    let server = mesh.start().await;
    let app = mesh.join("west/workload/app", server.address).await;
    let credential = app
        .directory
        .turn_credentials(&"west".parse().unwrap())
        .await
        .unwrap();
    let expected = format!("{}:west/workload/app", credential.expires.0);
    assert_eq!(credential.username, expected);
    let left = credential.expires.since(now());
    assert!(
        (HOUR - Duration::from_secs(5)..=HOUR).contains(&left),
        "{left:?}"
    );
    let error = app
        .directory
        .turn_credentials(&"south".parse().unwrap())
        .await
        .unwrap_err();
    assert!(matches!(error, DirectoryError::Refused(_)), "{error}");
}

#[tokio::test]
async fn a_revoked_node_is_thrown_out_and_its_registration_is_not_seen() {
    let mesh = Mesh::new();
    let server = mesh.start().await;
    let mut gateway = mesh.join("east/activator/gw", server.address).await;
    let app = mesh.join("west/workload/app", server.address).await;
    gateway.directory.publish(Some(gateway.registration()));
    let id = gateway.id();
    eventually("seen", || {
        app.directory.view().registrations.contains_key(&id)
    })
    .await;

    let serial = gateway.directory.identity().certificate().serial.clone();
    let admin = mesh
        .authority
        .new_admin("root".parse().unwrap(), HOUR, now())
        .unwrap();
    let ca = mesh.authority.certificate_pem();
    let mut client = common::client(server.address, &ca, Some(&admin))
        .await
        .unwrap();
    let put = protocol::directory::PutRequest {
        key: format!("revocation/{serial}"),
        value: b"stolen".to_vec(),
        lease: 0,
        expected_revision: None,
    };
    client.put(put).await.unwrap();
    eventually("hidden", || {
        let view = app.directory.view();
        view.revoked.contains(&serial) && !view.registrations.contains_key(&id)
    })
    .await;
    assert!(app.directory.verifier().is_revoked(&serial));
    let reason = gateway
        .until(|event| match event {
            Event::Disconnected { reason } => Some(reason),
            _ => None,
        })
        .await;
    assert!(reason.contains("revoked"), "{reason}");
}

/// Whoever has taken a node over could have stocked up, and may still hold its join token.
#[tokio::test]
async fn a_revoked_node_has_no_other_certificate_and_does_not_come_back_with_its_token() {
    let mesh = Mesh::new();
    let server = mesh.start().await;
    let ca = mesh.authority.certificate_pem();
    let key = NodeKey::generate().unwrap();
    let certificate_request = key.request().unwrap();
    let enroll = |token: String| protocol::directory::EnrollRequest {
        token,
        certificate_request: certificate_request.clone(),
        node: "app".into(),
    };
    let token = mesh.token("west", Role::Workload, 1, HOUR);
    // Half of the first one's life is over: there is a second one, and it is not given anew for each request.
    mesh.offset.store(-13 * 3600, Ordering::Relaxed);
    let mut anonymous = common::client(server.address, &ca, None).await.unwrap();
    let first = anonymous.enroll(enroll(token.clone())).await.unwrap();
    mesh.offset.store(0, Ordering::Relaxed);
    let first = first.into_inner().certificate;
    let ca_der = mesh.authority.certificate_der().to_vec();
    let identity = NodeIdentity::new(key, first, ca_der).unwrap();
    let mut client = common::client(server.address, &ca, Some(&identity.tls()))
        .await
        .unwrap();
    let request = || protocol::directory::RenewRequest {
        certificate_request: certificate_request.clone(),
    };
    let second = client.renew(request()).await.unwrap().into_inner();
    let third = client.renew(request()).await.unwrap().into_inner();
    assert_eq!(third.certificate, second.certificate);
    let second = identity.renewed(second.certificate).unwrap();
    assert_ne!(second.certificate().serial, identity.certificate().serial);
    // Not for a key of the thief's own either.
    let other = mesh.identity("west/workload/app").request().unwrap();
    let stocked = client
        .renew(protocol::directory::RenewRequest {
            certificate_request: other,
        })
        .await;
    assert_eq!(stocked.unwrap_err().code(), tonic::Code::InvalidArgument);

    let admin = mesh
        .authority
        .new_admin("root".parse().unwrap(), 24 * HOUR, now())
        .unwrap();
    let mut operator = common::client(server.address, &ca, Some(&admin))
        .await
        .unwrap();
    let put = protocol::directory::PutRequest {
        key: format!("revocation/{}", identity.certificate().serial),
        value: b"stolen".to_vec(),
        lease: 0,
        expected_revision: None,
    };
    operator.put(put).await.unwrap();

    let mut thief = common::client(server.address, &ca, Some(&second.tls()))
        .await
        .unwrap();
    let error = thief.renew(request()).await.unwrap_err();
    assert!(error.message().contains("revoked"), "{error}");
    let error = anonymous.enroll(enroll(token)).await.unwrap_err();
    assert!(error.message().contains("was revoked"), "{error}");
    // With a new token it may.
    let token = mesh.token_named("west", Role::Workload, Some("app"), 1, HOUR);
    let back = anonymous.enroll(enroll(token)).await.unwrap().into_inner();
    let back = identity.renewed(back.certificate).unwrap();
    let mut client = common::client(server.address, &ca, Some(&back.tls()))
        .await
        .unwrap();
    client.renew(request()).await.unwrap();
}

#[tokio::test]
async fn a_certificate_is_renewed_at_two_thirds_of_its_life_with_the_same_key() {
    let mesh = Mesh::new();
    let server = mesh.start().await;
    let settings = mesh.settings("east/activator/gw", server.address, None);
    std::fs::create_dir(&settings.state_directory).unwrap();
    // Issued so that two thirds are over in a moment.
    let issued = now().saturating_sub(Duration::from_secs(39));
    let old = mesh
        .authority
        .new_node(node("east/activator/gw"), Duration::from_secs(60), issued)
        .unwrap();
    old.save(&settings.state_directory).unwrap();
    let identity = discovery_client::join(&settings).await.unwrap();
    let state = settings.state_directory.clone();
    let (directory, _events) = discovery_client::start(settings, identity, std::future::pending());
    let body = Registration {
        network: "east".into(),
        node: "gw".into(),
        ..Default::default()
    };
    let signed = directory
        .identity()
        .sign(&document(Body::Registration(body), None, HOUR, now()))
        .unwrap();
    directory.publish(Some(signed));
    eventually("renewed", || {
        directory.identity().not_after() > now().saturating_add(20 * HOUR)
    })
    .await;
    let new = directory.identity();
    assert_eq!(new.certificate().public_key, old.certificate().public_key);
    let kept = NodeIdentity::load(&state).unwrap().unwrap();
    assert_eq!(kept.certificate().serial, new.certificate().serial);
    // The registration is signed with the new certificate without anybody asking.
    eventually("signed anew", || {
        directory
            .view()
            .registrations
            .get(&node("east/activator/gw"))
            .is_some_and(|registration| registration.certificate == new.certificate().serial)
    })
    .await;
}
