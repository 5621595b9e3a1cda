//! The cookie of DTLS 1.2 ([RFC 6347 section 4.2.1](https://www.rfc-editor.org/rfc/rfc6347#section-4.2.1)), without any state:
//! nothing is kept for a client, and no session is begun, before it has shown a cookie that was sent to its address.

use aws_lc_rs::hmac;
use std::net::{IpAddr, SocketAddr};

const RECORD: usize = 13;
const HANDSHAKE: usize = 12;
pub(super) const COOKIE: usize = 32;
/// A cookie is good for this many seconds, and as many again.
const EPOCH: u64 = 32;

/// A ClientHello in one piece.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hello<'d> {
    datagram: &'d [u8],
    pub(super) random: &'d [u8; 32],
    pub(super) cookie: &'d [u8],
    /// Whether the client speaks DTLS 1.2.
    pub(super) is_served: bool,
    /// Where the cookie's length is, in the datagram.
    cookie_at: usize,
    message_seq: u16,
}

impl<'d> Hello<'d> {
    /// `None` for what is no ClientHello, or one of several pieces: with those, nothing could be stateless.
    pub(super) fn decode(datagram: &'d [u8]) -> Option<Self> {
        // Handshake, DTLS 1.0 or 1.2, epoch 0, and one record in the datagram.
        let [22, 0xFE, _, 0, 0, _, _, _, _, _, _, high, low, message @ ..] = datagram else {
            return None;
        };
        if usize::from(u16::from_be_bytes([*high, *low])) != message.len() {
            return None;
        }
        // ClientHello, from 0 to its end.
        let [1, l0, l1, l2, s0, s1, 0, 0, 0, f0, f1, f2, body @ ..] = message else {
            return None;
        };
        let length = u32::from_be_bytes([0, *l0, *l1, *l2]) as usize;
        if [l0, l1, l2] != [f0, f1, f2] || length != body.len() {
            return None;
        }
        let random = body.get(2..34)?.try_into().ok()?;
        let session = usize::from(*body.get(34)?);
        let at = 35 + session;
        let length = usize::from(*body.get(at)?);
        let cookie = body.get(at + 1..at + 1 + length)?;
        Some(Self {
            datagram,
            random,
            cookie,
            // Versions of DTLS count downward; the one before 1.2 is 1.0.
            is_served: matches!(body, [0xFE, 0..=0xFD, ..]),
            cookie_at: RECORD + HANDSHAKE + at,
            message_seq: u16::from_be_bytes([*s0, *s1]),
        })
    }

    pub(super) fn datagram(&self) -> &'d [u8] {
        self.datagram
    }

    /// As it was when the client said it for the first time: what a session has to hear to be where this one goes on.
    pub(super) fn without_cookie(&self) -> Vec<u8> {
        let mut first = self.datagram[..self.cookie_at].to_vec();
        first.push(0);
        first.extend(&self.datagram[self.cookie_at + 1 + self.cookie.len()..]);
        let message = first.len() - RECORD;
        // Sequence numbers of record and message are 0.
        first[5..11].fill(0);
        first[11..13].copy_from_slice(&(message as u16).to_be_bytes());
        let body = ((message - HANDSHAKE) as u32).to_be_bytes();
        first[RECORD + 1..RECORD + 4].copy_from_slice(&body[1..]);
        first[RECORD + 4..RECORD + 6].fill(0);
        first[RECORD + 9..RECORD + 12].copy_from_slice(&body[1..]);
        first
    }
}

/// What a client of DTLS 1.0 is told: protocol_version, a fatal alert of 70.
pub(super) const WRONG_VERSION: [u8; 15] = [21, 0xFE, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 70];

/// Makes and checks cookies.
pub(super) struct Cookies(hmac::Key);

impl std::fmt::Debug for Cookies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cookies(…)")
    }
}

impl Cookies {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// Of the client's address, and of all that it says but the cookie.
    fn tag(&self, hello: &Hello<'_>, client: SocketAddr, epoch: u64) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&epoch.to_be_bytes());
        match client.ip() {
            IpAddr::V4(ip) => context.update(&ip.to_ipv6_mapped().octets()),
            IpAddr::V6(ip) => context.update(&ip.octets()),
        }
        context.update(&client.port().to_be_bytes());
        let behind = hello.cookie_at + 1 + hello.cookie.len();
        context.update(&hello.datagram[RECORD + HANDSHAKE..hello.cookie_at]);
        context.update(&hello.datagram[behind..]);
        context.sign()
    }

    /// Whether the client shows what was sent to it, at most a minute ago.
    pub(super) fn is_shown(&self, hello: &Hello<'_>, client: SocketAddr, seconds: u64) -> bool {
        let epoch = seconds / EPOCH;
        let is_of = |epoch| {
            let tag = self.tag(hello, client, epoch);
            aws_lc_rs::constant_time::verify_slices_are_equal(tag.as_ref(), hello.cookie).is_ok()
        };
        // The second hello is the second message (section 4.2.2).
        hello.message_seq == 1 && (is_of(epoch) || epoch.checked_sub(1).is_some_and(is_of))
    }

    /// A HelloVerifyRequest: shorter than any hello. Its sequence numbers are 0, also in answer to a hello that is said
    /// again: the session that follows begins with 1, and a client counts each number once.
    pub(super) fn request(&self, hello: &Hello<'_>, client: SocketAddr, seconds: u64) -> Vec<u8> {
        const BODY: u8 = 3 + COOKIE as u8;
        let mut answer = vec![22, 0xFE, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        answer.push(HANDSHAKE as u8 + BODY);
        answer.extend([3, 0, 0, BODY, 0, 0, 0, 0, 0, 0, 0, BODY]);
        answer.extend([0xFE, 0xFF, COOKIE as u8]);
        answer.extend(self.tag(hello, client, seconds / EPOCH).as_ref());
        answer
    }
}
