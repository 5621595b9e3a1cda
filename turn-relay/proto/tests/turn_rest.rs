//! Expiring credentials minted from a shared secret (draft-uberti-behave-turn-rest-00).

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, DATE, Relay};
use stun_types::message::IntegrityAlgorithm;
use turn_relay_proto::{rest_password, rest_password_sha256};
use turn_types::attribute::Lifetime;
use turn_types::message::REFRESH;

fn minted(secret: &str, lifetime: u64, name: &str) -> Client {
    minted_as(rest_password, secret, lifetime, name)
}

fn minted_as(form: fn(&[u8], &str) -> String, secret: &str, lifetime: u64, name: &str) -> Client {
    let user = format!("{}:{name}", DATE.0 + lifetime);
    let password = form(secret.as_bytes(), &user);
    Client::named("192.0.2.1:4000", &user, &password)
}

#[test]
fn every_secret_mints_users_with_both_hashes_for_both_algorithms() {
    for secret in ["first secret", "second secret"] {
        for algorithm in [IntegrityAlgorithm::Sha1, IntegrityAlgorithm::Sha256] {
            for form in [rest_password, rest_password_sha256] {
                let mut relay = Relay::new();
                let mut client = minted_as(form, secret, 600, "west/workload/app-1");
                client.algorithm = algorithm;
                client.allocate(&mut relay);
            }
        }
    }
}

#[test]
fn an_unknown_secret_mints_nobody() {
    let mut relay = Relay::new();
    let mut client = minted("third secret", 600, "app");
    client.nonce = Some("none".into());
    let request = client.signed(REFRESH, &[]);
    assert_eq!(client.exchange(&mut relay, &request).code(), 401);
}

#[test]
fn an_expired_user_makes_nothing_new_but_keeps_what_it_has() {
    let mut relay = Relay::new();
    let mut client = minted("first secret", 300, "app");
    client.allocate(&mut relay);
    relay.pass(301);
    let answer = client.request(&mut relay, REFRESH, &[&Lifetime::new(600)]);
    assert_eq!(answer.code(), 0);
    let mut late = minted("first secret", 300, "app");
    late.address.set_port(4001);
    assert_eq!(late.try_allocate(&mut relay, &[]).code(), 401);
    assert_eq!(relay.stats().allocations, 1);
}

#[test]
fn a_new_credential_of_the_same_name_takes_over_the_allocation() {
    let mut relay = Relay::new();
    minted("first secret", 300, "app").allocate(&mut relay);
    relay.pass(200);
    let mut renewed = minted("second secret", 900, "app");
    let answer = renewed.request(&mut relay, REFRESH, &[&Lifetime::new(600)]);
    assert_eq!(answer.code(), 0);
    let mut other = minted("first secret", 900, "other");
    let answer = other.request(&mut relay, REFRESH, &[&Lifetime::new(600)]);
    assert_eq!(answer.code(), 441);
}
