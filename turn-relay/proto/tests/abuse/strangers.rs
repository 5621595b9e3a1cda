//! By whoever has no credential, or is on the path of somebody who has.

use crate::Row;
use crate::common::{Client, Outcome, REALM, Relay, Setup, addr};
use stun_types::attribute::{
    Attribute, AttributeStaticType, AttributeWrite, Nonce, PasswordAlgorithms, Software,
};
use stun_types::message::BINDING;
use turn_relay_proto::{AnswerLimits, DropReason, Limits, rest_password};
use turn_types::attribute::{Lifetime, RequestedTransport, XorPeerAddress};
use turn_types::message::{ALLOCATE, CREATE_PERMISSION, REFRESH};

pub(crate) const ROWS: &[Row] = &[
    (
        "coturn ab762f33: attributes after MESSAGE-INTEGRITY were acted on",
        "only covered bytes are read",
        || {
            let mut relay = Relay::new();
            let mut client = Client::new("192.0.2.1:4000");
            client.allocate(&mut relay);
            let mut ending = client.signed(REFRESH, &[]);
            append(&mut ending, &Lifetime::new(0));
            let answer = client.exchange(&mut relay, &ending);
            assert_eq!(answer.code(), 0);
            assert_eq!(relay.stats().allocations, 1);
            let id = stun_types::message::TransactionId::generate();
            client.transaction = Some(id);
            let one = XorPeerAddress::new(addr("10.0.0.5:7"), id);
            let mut permitting = client.signed(CREATE_PERMISSION, &[&one]);
            append(
                &mut permitting,
                &XorPeerAddress::new(addr("10.0.0.6:7"), id),
            );
            assert_eq!(client.exchange(&mut relay, &permitting).code(), 0);
            assert_eq!(relay.stats().permissions, 1);
        },
    ),
    (
        "GHSA-5x2p-4vqj-f6m4, coturn#1999: state for whoever only sent one datagram",
        "nothing is stored for the unauthenticated",
        || {
            let mut relay = Relay::new();
            for host in 0..=255u8 {
                let client = Client::new(&format!("192.0.{host}.1:4000"));
                let udp = RequestedTransport::new(RequestedTransport::UDP);
                client.exchange(&mut relay, &client.unsigned(ALLOCATE, &[&udp]));
            }
            assert!(relay.server.poll_timeout().is_none());
            assert_eq!((relay.opened, relay.stats().allocations), (0, 0));
        },
    ),
    (
        "turn-rs: the nonce was never looked at; coturn#2002: nonces without state",
        "a nonce is good for one address and port, and for its time",
        || {
            let mut relay = Relay::new();
            let mut client = Client::new("192.0.2.1:4000");
            client.allocate(&mut relay);
            let nonce = client.nonce.clone();
            let code_of = |relay: &mut Relay, address: &str, nonce: Option<String>| {
                let mut other = Client::new(address);
                other.nonce = nonce;
                other.exchange(relay, &other.signed(ALLOCATE, &[])).code()
            };
            assert_eq!(code_of(&mut relay, "192.0.2.1:4001", nonce.clone()), 438);
            assert_eq!(code_of(&mut relay, "192.0.2.2:4000", nonce.clone()), 438);
            assert_eq!(code_of(&mut relay, "192.0.2.1:4001", Some("x".into())), 438);
            relay.pass(3_601);
            assert_eq!(code_of(&mut relay, "192.0.2.1:4000", nonce), 438);
        },
    ),
    (
        "amplification by spoofed requests (rtcsec 2026)",
        "an answer is at most one and a half times as large as the request, on the wire",
        || {
            for (source, headers) in [("192.0.2.1:4000", 28), ("[2001:db8::1]:4000", 48)] {
                let mut relay = Relay::with(answering(0, 0, 0));
                let client = Client::new(source);
                for (what, request) in requests(&client) {
                    let outcome = relay.client_sends(client.address, &request);
                    let Outcome::Answer(answer) = outcome else {
                        // Only what is smaller than the smallest challenge allows.
                        assert_eq!(what, "bare", "{outcome:?}");
                        assert_eq!(outcome, Outcome::Dropped(DropReason::UnauthenticatedSize));
                        continue;
                    };
                    let (on_wire, asked) = (answer.len() + headers, request.len() + headers);
                    assert!(on_wire * 2 <= asked * 3, "{what}: {on_wire} for {asked}");
                }
            }
        },
    ),
    (
        "but clients of WebRTC send 28 bytes first, and realms may be long",
        "such a client is answered all the same, a few times a second",
        || {
            let mut relay = Relay::with(answering(0, 0, 32));
            let client = Client::new("192.0.2.1:4000");
            let bare = client.unsigned(ALLOCATE, &[]);
            let answered = |relay: &mut Relay| {
                let outcome = relay.client_sends(client.address, &bare);
                matches!(outcome, Outcome::Answer(bytes) if bytes.len() <= 96)
            };
            assert!(answered(&mut relay) && answered(&mut relay));
            assert!(!answered(&mut relay));
            relay.pass(1);
            assert!(answered(&mut relay));
        },
    ),
    (
        "floods of requests (rtcsec 2026)",
        "answers are limited for each prefix, and in all",
        || {
            let mut relay = Relay::with(answering(30, 10, 0));
            let mut answered = |source: &str| {
                let client = Client::new(source);
                (0..100)
                    .filter(|_| {
                        let request = client.unsigned(BINDING, &[]);
                        let outcome = relay.client_sends(client.address, &request);
                        matches!(outcome, Outcome::Answer(_))
                    })
                    .count()
            };
            assert_eq!(answered("192.0.2.1:4000"), 10);
            assert_eq!(answered("192.0.2.200:4001"), 0);
            assert_eq!(answered("[2001:db8:1::1]:4000"), 10);
            assert_eq!(answered("[2001:db8:1:2::1]:4000"), 0);
            assert_eq!(answered("198.51.100.1:4000"), 10);
            assert_eq!(answered("203.0.113.1:4000"), 0);
            assert_eq!(relay.stats().dropped(DropReason::UnauthenticatedRate), 570);
        },
    ),
    (
        "floods of requests with integrity, to make the server compute",
        "without a nonce for its address a request is work within the same limit only",
        || {
            let mut relay = Relay::with(answering(10, 0, 0));
            let mut liar = Client::named("198.51.100.1:4000", "alice", "guess");
            liar.nonce = Some("obMatJos2gAAAAAAAAAAAAAAAAAAAAAAAAAAA".into());
            let request = liar.signed(ALLOCATE, &[]);
            let answered = (0..50)
                .filter(|_| {
                    let outcome = relay.client_sends(liar.address, &request);
                    matches!(outcome, Outcome::Answer(_))
                })
                .count();
            assert_eq!(answered, 10);
            // Who has a nonce comes through.
            let mut client = Client::new("192.0.2.1:4000");
            relay.pass(1);
            client.allocate(&mut relay);
            for _ in 0..50 {
                relay.client_sends(liar.address, &request);
            }
            assert_eq!(client.permit(&mut relay, &["10.0.0.5:7"]), 0);
        },
    ),
    (
        "a smaller answer must not weaken who asks with a larger request",
        "whoever has room for them hears of the algorithms, and keeps the cookie",
        || {
            let mut relay = Relay::new();
            let client = Client::new("192.0.2.1:4000");
            let name = Software::new("some client of some length").unwrap();
            let answer = client.exchange(&mut relay, &client.unsigned(ALLOCATE, &[&name]));
            assert!(answer.get::<PasswordAlgorithms>().is_some());
            assert!(
                answer
                    .get::<Nonce>()
                    .unwrap()
                    .nonce()
                    .starts_with("obMatJos2")
            );
        },
    ),
    (
        "turn-rs: the time in a REST user name was ignored",
        "an expired credential makes nothing new",
        || {
            let mut relay = Relay::new();
            let name = format!("{}:carol", crate::common::DATE.0 - 1);
            let password = rest_password(b"first secret", &name);
            let mut client = Client::named("192.0.2.1:4000", &name, &password);
            assert_eq!(client.try_allocate(&mut relay, &[]).code(), 401);
        },
    ),
    (
        "GHSA-4g7c-p5wg-j4hp, CVE-2018: user names as formats or SQL",
        "a user name is bytes that are compared",
        || {
            let mut relay = Relay::new();
            for name in [
                "%n%s%x%p",
                "' OR 1=1 --",
                "alice\0",
                "../../etc/passwd",
                "${jndi:x}",
            ] {
                let mut client = Client::named("192.0.2.1:4000", name, "wonderland");
                let asked = client.exchange(&mut relay, &client.unsigned(ALLOCATE, &[]));
                client.nonce = Some(asked.get::<Nonce>().unwrap().nonce().to_owned());
                let answer = client.exchange(&mut relay, &client.signed(ALLOCATE, &[]));
                assert_eq!(answer.code(), 401, "{name}");
            }
        },
    ),
    (
        "CVE-2020-6061, CVE-2020-6062: an HTTP parser on the TURN port",
        "there is none: what is not STUN or ChannelData is dropped",
        || {
            let mut relay = Relay::new();
            for text in [
                "GET / HTTP/1.1\r\n\r\n",
                "POST /admin HTTP/1.1\r\nContent-Length: 4294967295\r\n\r\n",
                "\x16\x03\x01 hello",
                "",
            ] {
                let outcome = relay.client_sends(addr("192.0.2.1:4000"), text.as_bytes());
                assert!(
                    matches!(outcome, Outcome::Dropped(_)),
                    "{text}: {outcome:?}"
                );
            }
        },
    ),
    (
        "coturn 605/643: lengths that are not those of the datagram",
        "a message is exactly its datagram",
        || {
            let mut relay = Relay::new();
            let mut client = Client::new("192.0.2.1:4000");
            client.allocate(&mut relay);
            client.bind(&mut relay, 0x4000, "10.0.0.5:7");
            let malformed = Outcome::Dropped(DropReason::MalformedChannelData);
            for bytes in [
                &b"\x40\x00\x00\x05abcd"[..],
                b"\x40\x00\xFF\xFFabcd",
                b"\x40\x00\x00",
            ] {
                assert_eq!(relay.client_sends(client.address, bytes), malformed);
            }
            let mut long = client.signed(REFRESH, &[&Lifetime::new(0)]);
            long.extend([0; 4]);
            assert_eq!(
                relay.client_sends(client.address, &long),
                Outcome::Dropped(DropReason::MalformedStun)
            );
        },
    ),
];

/// As the unauthenticated send them.
fn requests(client: &Client) -> Vec<(&'static str, Vec<u8>)> {
    let udp = RequestedTransport::new(RequestedTransport::UDP);
    let lifetime = Lifetime::new(600);
    let short = Software::new("xy").unwrap();
    let long = Software::new("a program that says what it is called").unwrap();
    let of = |attributes: &[&dyn AttributeWrite]| client.unsigned(ALLOCATE, attributes);
    let mut unknown = client.unsigned(BINDING, &[]);
    for kind in 0..20u16 {
        unknown.extend((0x7000 + kind).to_be_bytes());
        unknown.extend([0, 0]);
    }
    let length = (unknown.len() - 20) as u16;
    unknown[2..4].copy_from_slice(&length.to_be_bytes());
    let mut guess = Client::named("192.0.2.1:4000", "alice", "guess");
    guess.address = client.address;
    vec![
        ("bare", of(&[])),
        ("as Chromium", of(&[&udp])),
        ("with lifetime", of(&[&udp, &lifetime])),
        ("with a name", of(&[&udp, &lifetime, &short])),
        ("with a long name", of(&[&udp, &lifetime, &long])),
        ("binding", client.unsigned(BINDING, &[])),
        ("binding with unknown attributes", unknown),
        ("wrong password", guess.signed(ALLOCATE, &[&udp])),
        ("refresh", client.unsigned(REFRESH, &[&udp])),
    ]
}

fn answering(total: u32, per_prefix: u32, large: u32) -> Setup {
    let answers = AnswerLimits {
        total,
        per_prefix,
        large,
    };
    assert!(REALM.len() <= 8, "the smallest challenge depends on it");
    Setup {
        limits: Limits {
            answers,
            ..Limits::default()
        },
        ..Setup::default()
    }
}

/// As someone on the path can.
fn append<A: AttributeWrite + AttributeStaticType>(message: &mut Vec<u8>, attribute: &A) {
    let raw = attribute.to_raw();
    message.extend(raw.get_type().value().to_be_bytes());
    message.extend((raw.value.len() as u16).to_be_bytes());
    message.extend(&raw.value[..]);
    message.resize(message.len().next_multiple_of(4), 0);
    let length = (message.len() - 20) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
}
