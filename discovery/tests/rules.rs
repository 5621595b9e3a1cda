//! The wire itself: who may do what, compare-and-swap, watches, bounds.

#![allow(clippy::unwrap_used, reason = "a test may end so")]

mod common;

use std::time::Duration;

use common::{HOUR, Mesh, now, within};
use identity::{NodeIdentity, document};
use prost::Message as _;
use protocol::{
    directory::{
        DeleteRequest, LeaseGrantRequest, LeaseKeepAliveRequest, PostRequest, PutRequest,
        RangeRequest, RenewRequest, WatchRequest, directory_client::DirectoryClient, event::Kind,
    },
    document::{Registration, SignedDocument, document::Body},
};
use tonic::{Code, transport::Channel};

async fn connect(
    mesh: &Mesh,
    server: &common::Running,
    node: &NodeIdentity,
) -> DirectoryClient<Channel> {
    let ca = mesh.authority.certificate_pem();
    common::client(server.address, &ca, Some(&node.tls()))
        .await
        .unwrap()
}

fn registration(node: &NodeIdentity) -> Vec<u8> {
    let id = node.node_id();
    let body = Registration {
        network: id.network.to_string(),
        node: id.name.to_string(),
        ..Registration::default()
    };
    node.sign(&document(Body::Registration(body), None, HOUR, now()))
        .unwrap()
        .encode_to_vec()
}

fn put(key: &str, value: Vec<u8>, lease: u64) -> PutRequest {
    PutRequest {
        key: key.into(),
        value,
        lease,
        expected_revision: None,
    }
}

#[tokio::test]
async fn a_node_may_only_do_what_is_its_own_to_do() {
    let mesh = Mesh::new();
    let server = mesh.start().await;
    let gw = mesh.identity("east/activator/gw");
    let app = mesh.identity("west/workload/app");
    let (mut gw_client, mut app_client) = (
        connect(&mesh, &server, &gw).await,
        connect(&mesh, &server, &app).await,
    );
    let lease = gw_client
        .lease_grant(LeaseGrantRequest { ttl_seconds: 10 })
        .await
        .unwrap()
        .into_inner()
        .lease;

    let code =
        |result: Result<tonic::Response<_>, tonic::Status>| result.map(|_| ()).unwrap_err().code();
    // Another's registration; a workload's; without a lease; with another's lease; not signed by oneself.
    let other = put("registration/east/other", registration(&gw), lease);
    assert_eq!(code(gw_client.put(other).await), Code::PermissionDenied);
    let own = put("registration/west/app", registration(&app), 0);
    assert_eq!(code(app_client.put(own).await), Code::PermissionDenied);
    let bare = put("registration/east/gw", registration(&gw), 0);
    assert_eq!(code(gw_client.put(bare).await), Code::InvalidArgument);
    let foreign = mesh.identity("east/activator/foreign");
    let unsigned = put("registration/east/gw", registration(&foreign), lease);
    assert_eq!(code(gw_client.put(unsigned).await), Code::InvalidArgument);
    let mut foreign_client = connect(&mesh, &server, &foreign).await;
    let stolen = put("registration/east/foreign", registration(&foreign), lease);
    assert_eq!(code(foreign_client.put(stolen).await), Code::NotFound);
    // What discovery alone writes, and what only operators may.
    for key in ["relay/west", "revocation/01", "mailbox/east/activator/gw/1"] {
        assert_eq!(
            code(gw_client.put(put(key, vec![], 0)).await),
            Code::PermissionDenied,
            "{key}"
        );
    }
    assert_eq!(
        code(gw_client.put(put("token/1", vec![], 0)).await),
        Code::InvalidArgument
    );
    let delete = DeleteRequest {
        key: "relay/west".into(),
        expected_revision: None,
    };
    let denied = gw_client.delete(delete).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    // Another's mail.
    let prefix = String::from("mailbox/east/activator/gw/");
    let denied = app_client
        .range(RangeRequest {
            prefix: prefix.clone(),
        })
        .await
        .unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    let watch = WatchRequest {
        prefixes: vec![prefix],
        from_revision: 0,
    };
    assert_eq!(
        app_client.watch(watch).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    // Another's lease: as if it did not exist.
    let kept = app_client
        .lease_keep_alive(LeaseKeepAliveRequest { lease })
        .await
        .unwrap();
    assert_eq!(kept.get_ref().ttl_seconds, 0);
    // And its own, which works.
    gw_client
        .put(put("registration/east/gw", registration(&gw), lease))
        .await
        .unwrap();
}

#[tokio::test]
async fn compare_and_swap_is_refused_with_failed_precondition() {
    let mesh = Mesh::new();
    let server = mesh.start().await;
    let gw = mesh.identity("east/activator/gw");
    let mut client = connect(&mesh, &server, &gw).await;
    let lease = client
        .lease_grant(LeaseGrantRequest { ttl_seconds: 10 })
        .await
        .unwrap()
        .into_inner()
        .lease;
    let mut request = put("registration/east/gw", registration(&gw), lease);
    request.expected_revision = Some(0);
    let first = client
        .put(request.clone())
        .await
        .unwrap()
        .into_inner()
        .revision;
    let lost = client.put(request.clone()).await.unwrap_err();
    assert_eq!(lost.code(), Code::FailedPrecondition);
    request.expected_revision = Some(first);
    client.put(request).await.unwrap();
    let delete = DeleteRequest {
        key: "registration/east/gw".into(),
        expected_revision: Some(first),
    };
    assert_eq!(
        client.delete(delete).await.unwrap_err().code(),
        Code::FailedPrecondition
    );
}

#[tokio::test]
async fn a_watch_begins_where_it_was_asked_to_and_not_in_an_unknown_past() {
    let mesh = Mesh::new();
    let server = mesh.start().await;
    let gw = mesh.identity("east/activator/gw");
    let mut client = connect(&mesh, &server, &gw).await;
    let listed = client
        .range(RangeRequest {
            prefix: "registration/".into(),
        })
        .await
        .unwrap();
    let revision = listed.get_ref().revision;
    let lease = client
        .lease_grant(LeaseGrantRequest { ttl_seconds: 10 })
        .await
        .unwrap()
        .into_inner()
        .lease;
    let made = client
        .put(put("registration/east/gw", registration(&gw), lease))
        .await
        .unwrap();
    let made = made.get_ref().revision;

    let prefixes = vec!["registration/".to_owned()];
    let request = WatchRequest {
        prefixes: prefixes.clone(),
        from_revision: revision + 1,
    };
    let mut watch = client.watch(request).await.unwrap().into_inner();
    let answer = within(watch.message()).await.unwrap().unwrap();
    assert!(matches!(&answer.events[0].kind,
        Some(Kind::Put(entry)) if entry.mod_revision == made && entry.lease == lease));
    let delete = DeleteRequest {
        key: "registration/east/gw".into(),
        expected_revision: None,
    };
    client.delete(delete).await.unwrap();
    let deleted = loop {
        let answer = within(watch.message()).await.unwrap().unwrap();
        if let Some(event) = answer.events.into_iter().next() {
            break event;
        }
    };
    assert!(
        matches!(deleted.kind, Some(Kind::Delete(entry)) if entry.key == "registration/east/gw")
    );

    let address = server.stop().await;
    assert_eq!(
        within(watch.message()).await.unwrap_err().code(),
        Code::Unavailable
    );
    let server = mesh.restart(address).await;
    let mut client = connect(&mesh, &server, &gw).await;
    let past = WatchRequest {
        prefixes,
        from_revision: made,
    };
    assert_eq!(
        client.watch(past).await.unwrap_err().code(),
        Code::OutOfRange
    );
}

#[tokio::test]
async fn a_watch_misses_nothing_that_comes_at_once_and_sees_nothing_of_others() {
    let mesh = Mesh::new();
    let server = mesh.start().await;
    let app = mesh.identity("west/workload/app");
    let mut client = connect(&mesh, &server, &app).await;
    let request = WatchRequest {
        prefixes: vec!["mailbox/west/workload/app/".to_owned()],
        from_revision: server.store.revision().next().0,
    };
    let mut watch = client.watch(request).await.unwrap().into_inner();
    // More than one answer holds, twice: the second time while it waits.
    for round in 0..2 {
        let change = |core: &mut discovery::store::Core, _| {
            for number in 0..3_000 {
                for node in ["app", "other"] {
                    let key = format!("mailbox/west/workload/{node}/{round}-{number:04}");
                    core.put(&key, b"", None, None)?;
                }
            }
            Ok::<_, discovery::store::StoreError>(())
        };
        server.store.update(change).await.unwrap();
        let mut seen = Vec::new();
        // Signs of life come for ever.
        for _ in 0..8 {
            let answer = within(watch.message()).await.unwrap().unwrap();
            seen.extend(answer.events.into_iter().map(|event| match event.kind {
                Some(Kind::Put(entry)) => entry.key,
                other => panic!("{other:?}"),
            }));
            if seen.len() == 3_000 {
                break;
            }
        }
        let all = (0..3_000).map(|number| format!("mailbox/west/workload/app/{round}-{number:04}"));
        assert!(seen.into_iter().eq(all));
    }
}

#[tokio::test]
async fn leases_watches_and_messages_are_bounded() {
    let mesh = Mesh::new();
    let server = mesh.start().await;
    let gw = mesh.identity("east/activator/gw");
    let mut client = connect(&mesh, &server, &gw).await;
    let grant = LeaseGrantRequest { ttl_seconds: 10 };
    for _ in 0..8 {
        client.lease_grant(grant).await.unwrap();
    }
    assert_eq!(
        client.lease_grant(grant).await.unwrap_err().code(),
        Code::ResourceExhausted
    );
    let forever = LeaseGrantRequest {
        ttl_seconds: u32::MAX,
    };
    assert_eq!(
        client.lease_grant(forever).await.unwrap_err().code(),
        Code::InvalidArgument
    );

    let request = WatchRequest {
        prefixes: vec!["relay/".into()],
        from_revision: 0,
    };
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(client.watch(request.clone()).await.unwrap().into_inner());
    }
    assert_eq!(
        client.watch(request.clone()).await.unwrap_err().code(),
        Code::ResourceExhausted
    );
    drop(open);
    within(async {
        while client.watch(request.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;

    let to = "east/activator/gw".to_owned();
    let document = SignedDocument {
        payload: vec![0; 20_000],
        ..SignedDocument::default()
    };
    let long = PostRequest {
        to: to.clone(),
        document: Some(document),
    };
    assert_eq!(
        client.post(long).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let document = SignedDocument {
        payload: vec![0; 200_000],
        ..SignedDocument::default()
    };
    let longer = PostRequest {
        to,
        document: Some(document),
    };
    assert_eq!(
        client.post(longer).await.unwrap_err().code(),
        Code::OutOfRange
    );
}

#[tokio::test]
async fn a_watch_ends_when_the_certificate_does() {
    use std::sync::atomic::Ordering;
    let mesh = Mesh::new();
    let server = mesh.start().await;
    let gw = mesh.identity("east/activator/gw");
    let mut client = connect(&mesh, &server, &gw).await;
    let request = WatchRequest {
        prefixes: vec!["relay/".into()],
        from_revision: 0,
    };
    let mut watch = client.watch(request).await.unwrap().into_inner();
    within(watch.message()).await.unwrap().unwrap();
    mesh.offset.store(2 * 3600, Ordering::Relaxed);
    let ended = loop {
        match within(watch.message()).await {
            Ok(answer) => assert!(answer.is_some()),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Unauthenticated);
    let renew = RenewRequest {
        certificate_request: gw.request().unwrap(),
    };
    let late = client.renew(renew).await.unwrap_err();
    assert!(late.message().contains("expired"), "{late}");
}
