//! What a site's own services say of its users: the answers of its HTTP hook, and the tokens of authorization servers
//! (RFC 7635).

use crate::core::{SERVER, config, request};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use model::{ClientAddr, ServerAddr, UnixTime};
use request::{Reader, Writer};
use serde_json::Value;
use std::time::{Duration, Instant};
use turn_relay::foreign::understand;
use turn_relay_proto::{
    Burst, Credentials, FiveTuple, HashedPassword, LookedUp, Now, Output, Server, TokenKey,
    Transport, Verdict,
};

const REALM: &str = "west";
const MOST: Duration = Duration::from_secs(60);
const DATE: u64 = 1_767_225_600;
const KEY: [u8; 16] = *b"1234567890123456";
const ACCESS_TOKEN: u16 = 0x1B;

pub(crate) fn run(data: &[u8]) {
    match data.split_first() {
        Some((0x80.., rest)) => token(rest, true),
        Some((0x40.., rest)) => token(rest, false),
        Some((_, rest)) => answer(rest),
        None => {}
    }
}

/// The body of a hook's answer.
fn answer(body: &[u8]) {
    let result = understand("alice", REALM, MOST, body);
    let Ok(said) = serde_json::from_slice::<Value>(body) else {
        assert!(result.is_err(), "it is not JSON");
        return;
    };
    let text = |name: &str, at: usize| said.get(name).or_else(|| said.get(at))?.as_str();
    let password = text("password", 0);
    match result {
        Ok(LookedUp::User {
            keys,
            identity,
            remember,
        }) => {
            assert_eq!(identity.as_deref(), text("user", 3));
            assert!(identity.is_none_or(|user| user.len() < 509) && remember <= MOST);
            match password {
                Some(password) => assert!(keys == HashedPassword::new("alice", REALM, password)),
                None => {
                    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect();
                    let keys: [String; 2] = [hex(&keys.md5), hex(&keys.sha256)];
                    let said = [("md5", 1), ("sha256", 2)].map(|(name, at)| text(name, at));
                    assert_eq!(said.map(|key| key.map(str::to_lowercase)), keys.map(Some));
                }
            }
        }
        Ok(other) => panic!("{other:?} of a body"),
        Err(error) => {
            let error = error.to_string();
            assert!(!error.is_empty() && !error.contains('\n'));
            // Unless it is what is said of everything.
            let usual = understand("alice", REALM, MOST, b"").map_err(|usual| usual.to_string());
            let is_usual = |password: &str| usual.as_ref().is_err_and(|u| u.contains(password));
            let secret = password.filter(|password| password.len() > 9 && !is_usual(password));
            assert!(secret.is_none_or(|secret| !error.contains(secret)));
        }
    }
}

/// What a token says: a key, and until when it is good.
fn read(opened: &[u8]) -> Option<(&[u8], u64)> {
    let length = usize::from(u16::from_be_bytes([*opened.first()?, *opened.get(1)?]));
    let key = opened.get(2..2 + length)?;
    let rest = opened.get(2 + length..14 + length)?;
    let made = rest[..6].iter().fold(0, |n, b| n << 8 | u64::from(*b));
    let lifetime = u64::from(u32::from_be_bytes(rest[8..].try_into().expect("4 bytes")));
    let lifetime = lifetime.min(86_400);
    let is_now = lifetime > 0 && DATE.abs_diff(made) < lifetime + 5;
    let is_key = (16..=64).contains(&key.len());
    (is_now && is_key).then_some((key, made.min(DATE) + lifetime + 5))
}

/// An Allocate request with ACCESS-TOKEN, of somebody who has the key of the authorization server (`sealed`), or has not.
fn token(data: &[u8], sealed: bool) {
    let data = &data[..data.len().min(200)];
    let mut credentials = Credentials::new(REALM);
    credentials.add_token_key("north", TokenKey::new(&KEY).expect("16 bytes"));
    let started = Instant::now();
    let mut server = Server::new(config(credentials), started);
    let mut value = data.to_vec();
    if sealed {
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &KEY).expect("16 bytes"));
        let nonce = Nonce::assume_unique_for_key([7; 12]);
        key.seal_in_place_append_tag(nonce, Aad::from(REALM), &mut value)
            .expect("room");
        value = [&[0, 12][..], &[7; 12], &value].concat();
    }
    let opened = sealed.then(|| read(data)).flatten();
    let key = opened.map_or(&b"0123456789abcdefghij"[..], |(key, _)| key);
    let ask = |server: &mut Server, nonce: &[u8]| {
        let mut writer = Writer::new(request::ALLOCATE, 0, [5; 12]);
        writer.add(request::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        writer.add(request::LIFETIME, &3_000_u32.to_be_bytes());
        writer.add(request::USERNAME, b"north");
        writer.add(request::REALM, REALM.as_bytes());
        writer.add(request::NONCE, nonce);
        writer.add(ACCESS_TOKEN, &value);
        writer.sign_with(key);
        exchange(server, started, &writer.0)
    };
    let challenge = ask(&mut server, b"none");
    let nonce = Reader(&challenge).get(request::NONCE).expect("a nonce");
    let answer = ask(&mut server, nonce);
    let answer = Reader(&answer);
    let Some((_, expires)) = opened else {
        assert_eq!(answer.error_code(), Some(401));
        assert_eq!(server.stats().allocations, 0);
        return;
    };
    assert_eq!(answer.class(), 2, "{:?}", answer.error_code());
    let lifetime = answer.get(request::LIFETIME).expect("LIFETIME");
    let lifetime = u32::from_be_bytes(lifetime.try_into().expect("4 bytes"));
    assert!(
        DATE + u64::from(lifetime) <= expires,
        "longer than its token"
    );
}

fn exchange(server: &mut Server, started: Instant, request: &[u8]) -> Vec<u8> {
    let now = Now {
        instant: started + Duration::from_secs(1),
        unix: UnixTime(DATE),
    };
    let path = FiveTuple {
        client: ClientAddr("192.0.2.1:4000".parse().expect("an address")),
        server: ServerAddr(SERVER.parse().expect("an address")),
        transport: Transport::Udp,
    };
    let burst = Burst::new(request, request.len());
    let (verdict, _) = server.handle_client_burst(now, path, burst);
    assert!(matches!(verdict, Verdict::Handled));
    let mut answer = None;
    while let Some(output) = server.poll_output() {
        match output {
            Output::Answer { bytes, .. } => answer = Some(bytes.to_vec()),
            Output::OpenRelay { relay, .. } => server.handle_relay_opened(now, relay, Ok(())),
            _ => {}
        }
    }
    answer.expect("an answer")
}
