//! Join tokens, and a CA kept as PEM.

#![allow(clippy::unwrap_used, reason = "a test may end so")]

use std::time::Duration;

use model::{Role, UnixTime};
use turnpike_identity::{Authority, JoinToken, TokenError};

const NOW: UnixTime = UnixTime(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3_600);

fn authority() -> Authority {
    Authority::new("demo".parse().unwrap(), NOW).unwrap()
}

fn token(authority: &Authority) -> String {
    let network = "west".parse().unwrap();
    let node = "app-1".parse().unwrap();
    let discovery = "https://203.0.113.10:7400";
    JoinToken::create(
        authority,
        &network,
        Role::Workload,
        Some(&node),
        3,
        HOUR,
        discovery,
        NOW,
    )
    .unwrap()
}

#[test]
fn a_token_says_what_it_was_made_with() {
    let ca = authority();
    let text = token(&ca);
    let token = JoinToken::verify(&text, ca.certificate_der(), NOW).unwrap();
    assert_eq!(JoinToken::read(&format!(" {text}\n")).unwrap(), token);
    assert_eq!(token.network.as_str(), "west");
    assert_eq!(token.role, Role::Workload);
    assert_eq!(token.node.unwrap().as_str(), "app-1");
    assert_eq!((token.uses, token.expires), (3, NOW.saturating_add(HOUR)));
    assert_eq!(token.ca_certificate, ca.certificate_der());
    assert_eq!(token.discovery, "https://203.0.113.10:7400");
    assert_eq!(token.id.len(), 32);
}

#[test]
fn an_expired_token_says_when_and_what_to_do() {
    let ca = authority();
    let now = NOW
        .saturating_add(HOUR)
        .saturating_add(Duration::from_secs(1));
    let error = JoinToken::verify(&token(&ca), ca.certificate_der(), now).unwrap_err();
    assert_eq!(
        error,
        TokenError::Expired {
            expires: NOW.saturating_add(HOUR),
            now
        }
    );
    assert!(
        error.to_string().contains("turnpike token create"),
        "{error}"
    );
}

#[test]
fn a_token_of_another_mesh_is_refused() {
    let (ca, other) = (authority(), authority());
    let result = JoinToken::verify(&token(&other), ca.certificate_der(), NOW);
    assert_eq!(result.unwrap_err(), TokenError::WrongMesh);
}

#[test]
fn a_damaged_token_is_refused() {
    let ca = authority();
    let text = token(&ca);
    for bad in [
        "",
        "hello",
        "turnpike-join-v1.",
        "turnpike-join-v1.%%%",
        &text[..text.len() / 2],
    ] {
        let result = JoinToken::verify(bad, ca.certificate_der(), NOW);
        assert!(
            matches!(result, Err(TokenError::Malformed(_))),
            "{bad:?}: {result:?}"
        );
    }
    for at in (20..text.len()).step_by(7) {
        let other = if text.as_bytes()[at] == b'A' {
            "B"
        } else {
            "A"
        };
        let mut bad = text.clone();
        bad.replace_range(at..=at, other);
        assert!(
            JoinToken::verify(&bad, ca.certificate_der(), NOW).is_err(),
            "at {at}"
        );
    }
}

#[test]
fn a_ca_is_loaded_from_its_pem_and_not_with_another_key() {
    let (ca, other) = (authority(), authority());
    let loaded = Authority::load(&ca.certificate_pem(), &ca.key_pem()).unwrap();
    assert_eq!(loaded.mesh().name.as_str(), "demo");
    let text = token(&loaded);
    assert!(JoinToken::verify(&text, ca.certificate_der(), NOW).is_ok());
    let error = Authority::load(&ca.certificate_pem(), &other.key_pem()).unwrap_err();
    assert!(
        error.to_string().contains("not the CA certificate's key"),
        "{error}"
    );
    assert!(Authority::load("nonsense", &ca.key_pem()).is_err());
}
