//! Signed documents: what is believed, and a test for each reason not to.

#![allow(clippy::unwrap_used, reason = "a test may end so")]

use std::{collections::BTreeSet, time::Duration};

use model::{NodeId, UnixTime};
use prost::Message as _;
use protocol::document::{Bye, Document, Offer, Registration, SignedDocument, document::Body};
use turnpike_identity::{
    Authority, CertificateError, LEEWAY, NodeIdentity, Verifier, VerifyError, document,
};

const NOW: UnixTime = UnixTime(1_800_000_000);
const DAY: Duration = Duration::from_secs(86_400);
const MINUTE: Duration = Duration::from_secs(60);

fn node(text: &str) -> NodeId {
    text.parse().unwrap()
}

struct World {
    authority: Authority,
    app: NodeIdentity,
    gateway: NodeIdentity,
}

fn world() -> World {
    let authority = Authority::new("demo".parse().unwrap(), NOW).unwrap();
    let app = authority
        .new_node(node("west/workload/app"), DAY, NOW)
        .unwrap();
    let gateway = authority
        .new_node(node("east/activator/gw"), DAY, NOW)
        .unwrap();
    World {
        authority,
        app,
        gateway,
    }
}

fn offer(to: &NodeId) -> Document {
    document(
        Body::Offer(Offer {
            link: 7,
            ..Offer::default()
        }),
        Some(to),
        MINUTE,
        NOW,
    )
}

fn registration(network: &str, name: &str) -> Document {
    let body = Registration {
        network: network.into(),
        node: name.into(),
        ..Registration::default()
    };
    document(Body::Registration(body), None, MINUTE, NOW)
}

fn verify(world: &World, signed: &SignedDocument, now: UnixTime) -> Result<(), VerifyError> {
    world
        .gateway
        .verifier()
        .unwrap()
        .verify(signed, now)
        .map(|_| ())
}

#[test]
fn an_offer_to_us_is_believed_and_says_who_signed_it() {
    let w = world();
    let signed = w.app.sign(&offer(w.gateway.node_id())).unwrap();
    let verified = w.gateway.verifier().unwrap().verify(&signed, NOW).unwrap();
    assert_eq!(verified.node, node("west/workload/app"));
    assert_eq!(verified.document, offer(w.gateway.node_id()));
    assert_eq!(verified.serial, w.app.certificate().serial);
}

#[test]
fn any_altered_byte_is_noticed() {
    let w = world();
    let signed = w.app.sign(&offer(w.gateway.node_id())).unwrap();
    for i in 0..signed.payload.len() {
        let mut altered = signed.clone();
        altered.payload[i] ^= 1;
        assert_eq!(
            verify(&w, &altered, NOW),
            Err(VerifyError::WrongSignature),
            "byte {i}"
        );
    }
    for i in 0..signed.signature.len() {
        let mut altered = signed.clone();
        altered.signature[i] ^= 1;
        assert_eq!(
            verify(&w, &altered, NOW),
            Err(VerifyError::WrongSignature),
            "byte {i}"
        );
    }
    for i in 0..signed.certificate.len() {
        let mut altered = signed.clone();
        altered.certificate[i] ^= 1;
        assert!(verify(&w, &altered, NOW).is_err(), "byte {i}");
    }
}

#[test]
fn another_nodes_certificate_does_not_fit_the_signature() {
    let w = world();
    let mut signed = w.app.sign(&offer(w.gateway.node_id())).unwrap();
    let other = w
        .authority
        .new_node(node("west/workload/other"), DAY, NOW)
        .unwrap();
    signed.certificate = other.certificate_der().to_vec();
    assert_eq!(verify(&w, &signed, NOW), Err(VerifyError::WrongSignature));
}

#[test]
fn another_ca_of_the_same_name_is_unknown() {
    let w = world();
    let stranger = world();
    let signed = stranger.app.sign(&offer(w.gateway.node_id())).unwrap();
    assert_eq!(verify(&w, &signed, NOW), Err(VerifyError::UnknownAuthority));
}

#[test]
fn a_certificate_is_good_from_120_s_before_to_120_s_after_its_time() {
    let w = world();
    let info = w.app.certificate().clone();
    let forever = Document {
        issued_unix_time: 0,
        expires_unix_time: u64::MAX,
        ..offer(w.gateway.node_id())
    };
    let signed = w.app.sign(&forever).unwrap();
    let second = Duration::from_secs(1);
    let last = info.not_after.saturating_add(LEEWAY);
    assert_eq!(verify(&w, &signed, last), Ok(()));
    let now = last.saturating_add(second);
    let not_after = info.not_after;
    assert_eq!(
        verify(&w, &signed, now),
        Err(VerifyError::CertificateExpired { not_after, now })
    );
    let first = info.not_before.saturating_sub(LEEWAY);
    assert_eq!(verify(&w, &signed, first), Ok(()));
    let now = first.saturating_sub(second);
    let not_before = info.not_before;
    assert_eq!(
        verify(&w, &signed, now),
        Err(VerifyError::CertificateNotYetValid { not_before, now })
    );
}

#[test]
fn a_document_is_good_from_120_s_before_to_120_s_after_its_time() {
    let w = world();
    let signed = w.app.sign(&offer(w.gateway.node_id())).unwrap();
    let expired = NOW.saturating_add(MINUTE);
    assert_eq!(verify(&w, &signed, expired.saturating_add(LEEWAY)), Ok(()));
    let now = UnixTime(expired.0 + 121);
    assert_eq!(
        verify(&w, &signed, now),
        Err(VerifyError::DocumentExpired { expired, now })
    );
    let now = UnixTime(NOW.0 - 121);
    assert_eq!(
        verify(&w, &signed, now),
        Err(VerifyError::DocumentNotYetValid { issued: NOW, now })
    );
}

#[test]
fn a_revoked_certificate_is_refused_and_the_nodes_next_one_is_not() {
    let w = world();
    let serial = w.app.certificate().serial.clone();
    let verifier = w
        .gateway
        .verifier()
        .unwrap()
        .with_revocations(BTreeSet::from([serial.to_string().parse().unwrap()]));
    let signed = w.app.sign(&offer(w.gateway.node_id())).unwrap();
    assert_eq!(
        verifier.verify(&signed, NOW).unwrap_err(),
        VerifyError::Revoked(serial)
    );
    let id = w.app.node_id().clone();
    let next = w
        .authority
        .issue_node(&w.app.request().unwrap(), id, DAY, NOW)
        .unwrap();
    let next = w.app.renewed(next).unwrap();
    let signed = next.sign(&offer(w.gateway.node_id())).unwrap();
    assert!(verifier.verify(&signed, NOW).is_ok());
}

#[test]
fn a_document_for_another_node_or_for_everyone_is_not_for_us() {
    let w = world();
    let other = node("east/activator/other");
    let signed = w.app.sign(&offer(&other)).unwrap();
    assert_eq!(
        verify(&w, &signed, NOW),
        Err(VerifyError::WrongAudience("east/activator/other".into()))
    );
    let everyone = Document {
        audience: String::new(),
        ..offer(&other)
    };
    let signed = w.app.sign(&everyone).unwrap();
    assert_eq!(
        verify(&w, &signed, NOW),
        Err(VerifyError::WrongAudience(String::new()))
    );
}

#[test]
fn a_registration_must_name_the_activator_that_signed_it() {
    let w = world();
    let signed = w.gateway.sign(&registration("east", "gw")).unwrap();
    assert_eq!(verify(&w, &signed, NOW), Ok(()));
    for (network, name) in [("west", "gw"), ("east", "other")] {
        let signed = w.gateway.sign(&registration(network, name)).unwrap();
        let wrong = VerifyError::WrongAuthor(w.gateway.node_id().clone());
        assert_eq!(verify(&w, &signed, NOW), Err(wrong));
    }
    let signed = w.app.sign(&registration("west", "app")).unwrap();
    let wrong = VerifyError::WrongAuthor(w.app.node_id().clone());
    assert_eq!(verify(&w, &signed, NOW), Err(wrong));
}

#[test]
fn an_activator_does_not_offer() {
    let w = world();
    let other = w
        .authority
        .new_node(node("east/activator/other"), DAY, NOW)
        .unwrap();
    let signed = other.sign(&offer(w.gateway.node_id())).unwrap();
    assert!(matches!(
        verify(&w, &signed, NOW),
        Err(VerifyError::WrongAuthor(_))
    ));
}

#[test]
fn malformed_things_are_refused_whatever_they_are() {
    let w = world();
    let to = w.gateway.node_id();
    let good = w.app.sign(&offer(to)).unwrap();
    let empty = SignedDocument::default();
    assert!(matches!(
        verify(&w, &empty, NOW),
        Err(VerifyError::Malformed(_))
    ));
    let long = SignedDocument {
        payload: vec![0; 16 * 1024 + 1],
        ..good.clone()
    };
    assert!(matches!(
        verify(&w, &long, NOW),
        Err(VerifyError::Malformed(_))
    ));
    let ca = SignedDocument {
        certificate: w.authority.certificate_der().to_vec(),
        ..good.clone()
    };
    assert!(matches!(
        verify(&w, &ca, NOW),
        Err(VerifyError::Malformed(_))
    ));
    let cut = SignedDocument {
        certificate: good.certificate[..100].to_vec(),
        ..good
    };
    assert!(matches!(
        verify(&w, &cut, NOW),
        Err(VerifyError::Malformed(_))
    ));
    let bodiless = w
        .app
        .sign(&Document {
            body: None,
            ..offer(to)
        })
        .unwrap();
    assert!(matches!(
        verify(&w, &bodiless, NOW),
        Err(VerifyError::Malformed(_))
    ));
}

#[test]
fn a_signature_over_the_bare_payload_is_worth_nothing() {
    let w = world();
    // The context is part of what is signed: a payload that begins like the context does not help.
    let bye = document(
        Body::Bye(Bye::default()),
        Some(w.gateway.node_id()),
        MINUTE,
        NOW,
    );
    let mut signed = w.app.sign(&bye).unwrap();
    signed.payload = [b"turnpike-document-v1\0".as_slice(), &bye.encode_to_vec()].concat();
    assert_eq!(verify(&w, &signed, NOW), Err(VerifyError::WrongSignature));
}

#[test]
fn server_and_operator_certificates_do_not_sign_documents() {
    let w = world();
    let verifier = Verifier::new(w.authority.certificate_der(), None).unwrap();
    let admin = w
        .authority
        .new_admin("root".parse().unwrap(), DAY, NOW)
        .unwrap();
    let der = der(&admin.certificate_pem);
    assert!(verifier.verify_subject(&der, NOW).is_ok());
    assert!(matches!(
        verifier.verify_certificate(&der, NOW),
        Err(VerifyError::Malformed(_))
    ));
}

#[test]
fn a_certificate_request_must_prove_a_p256_key() {
    let w = world();
    let id = w.app.node_id().clone();
    let mut request = w.app.request().unwrap();
    let last = request.len() - 1;
    request[last] ^= 1;
    assert!(
        w.authority
            .issue_node(&request, id.clone(), DAY, NOW)
            .is_err()
    );
    assert!(w.authority.issue_node(b"nonsense", id, DAY, NOW).is_err());
}

#[test]
fn an_identity_is_kept_privately_and_loaded_again() {
    use std::os::unix::fs::PermissionsExt as _;
    let w = world();
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path();
    assert!(NodeIdentity::load(state).unwrap().is_none());
    w.app.save(state).unwrap();
    let loaded = NodeIdentity::load(state).unwrap().unwrap();
    assert_eq!(loaded.node_id(), w.app.node_id());
    assert_eq!(loaded.certificate(), w.app.certificate());
    for name in ["node-key.pem", "node-certificate.pem"] {
        let mode = std::fs::metadata(state.join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    // Another node's certificate beside our key is refused, and the error names the file.
    let other = tempfile::tempdir().unwrap();
    w.gateway.save(other.path()).unwrap();
    let name = "node-certificate.pem";
    std::fs::copy(other.path().join(name), state.join(name)).unwrap();
    let error = NodeIdentity::load(state).unwrap_err().to_string();
    assert!(
        error.contains(name) && error.contains("another key"),
        "{error}"
    );
}

#[test]
fn an_identity_needs_its_own_ca() {
    let w = world();
    let key = turnpike_identity::NodeKey::generate().unwrap();
    let id = w.app.node_id().clone();
    let certificate = w
        .authority
        .issue_node(&key.request().unwrap(), id, DAY, NOW)
        .unwrap();
    let stranger = world();
    let result = NodeIdentity::new(
        key,
        certificate,
        stranger.authority.certificate_der().to_vec(),
    );
    assert_eq!(result.unwrap_err(), CertificateError::UnknownAuthority);
}

fn der(pem: &str) -> Vec<u8> {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    BASE64_STANDARD.decode(body).unwrap()
}
