//! The addresses that NATs show of the host sockets: server-reflexive candidates, learned by Binding requests to the
//! relays of the mesh, which are STUN servers, too.
//! [RFC 8445 §5.1.1.2](https://www.rfc-editor.org/rfc/rfc8445#section-5.1.1.2),
//! [RFC 8489](https://www.rfc-editor.org/rfc/rfc8489)
//!
//! Each base asks up to [`ASKED`] servers of its family, so that one that is silent costs nothing, and asks again every
//! [`REFRESH`], which keeps the NAT's mapping and notices when it changed. A server that stays silent is left for the
//! next in the list.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use stun_types::attribute::{AttributeStaticType, XorMappedAddress};
use stun_types::message::{MessageClass, Method, TransactionId};
use wire::stun::Message;
use wire::stun::write::{Writer, read_address};

use crate::candidate::{CandidateKind, LocalCandidate, Reach, reach};
use crate::certificate::DtlsCertificate;
use crate::output::Transmit;
use crate::stun::{BINDING, BINDING_SUCCESS, random_id};

/// Servers that a base asks at once.
const ASKED: usize = 2;
/// Bases that ask, and servers that can be asked; more are left out.
const MAX_BASES: usize = 16;
const MAX_SERVERS: usize = 64;
/// NATs keep a mapping for two minutes, the hastiest for half a one.
/// [RFC 4787 §4.3](https://www.rfc-editor.org/rfc/rfc4787#section-4.3)
const REFRESH: Duration = Duration::from_secs(20);
/// First repetition; each further one waits twice as long.
const FIRST_INTERVAL: Duration = Duration::from_millis(250);
/// Requests without an answer, in 4 s, before what was known is over and the next server is asked.
const MAX_ATTEMPTS: u32 = 4;
/// Without any answer so far the servers are tried again no more often than this.
const PAUSE: Duration = Duration::from_secs(5);

/// Learns and keeps the reflexive addresses of all bases, without I/O: [`Reflexive::poll_transmit`] after every call.
#[derive(Debug)]
pub struct Reflexive {
    certificate: Arc<DtlsCertificate>,
    bases: Vec<SocketAddr>,
    servers: Vec<SocketAddr>,
    questions: Vec<Question>,
    changed: bool,
}

/// What one base asks one server, again and again.
#[derive(Debug)]
struct Question {
    base: SocketAddr,
    server: SocketAddr,
    /// Of the request that is not answered yet.
    id: Option<TransactionId>,
    attempts: u32,
    due: Instant,
    mapped: Option<SocketAddr>,
}

impl Reflexive {
    /// Asks nobody until it is told whom and from where.
    #[must_use]
    pub const fn new(certificate: Arc<DtlsCertificate>) -> Self {
        Self {
            certificate,
            bases: Vec::new(),
            servers: Vec::new(),
            questions: Vec::new(),
            changed: false,
        }
    }

    /// The addresses of the host sockets; the first 16 ask.
    pub fn set_bases(&mut self, bases: &[SocketAddr], now: Instant) {
        self.bases = bases.iter().copied().take(MAX_BASES).collect();
        self.ask(now);
    }

    /// Where STUN servers are, the preferred ones first; the first 64 are taken.
    pub fn set_servers(&mut self, servers: &[SocketAddr], now: Instant) {
        self.servers.clear();
        for server in servers.iter().take(MAX_SERVERS) {
            if !self.servers.contains(server) {
                self.servers.push(*server);
            }
        }
        self.ask(now);
    }

    /// What is known: at most two for a base, of different IP addresses. Where a NAT takes another port for every
    /// destination, what it showed to one server is as good as what it showed to another.
    pub fn candidates(&self) -> impl Iterator<Item = LocalCandidate> {
        let known = |question: &Question| Some((question.base, question.mapped?));
        self.questions
            .iter()
            .enumerate()
            .filter_map(move |(at, question)| {
                let (base, address) = known(question)?;
                let twin = |earlier: &Question| {
                    known(earlier).is_some_and(|(of, is)| of == base && is.ip() == address.ip())
                };
                let first = !self.questions[..at].iter().any(twin);
                // Without a NAT it is a host candidate.
                (first && !self.bases.contains(&address)).then_some(LocalCandidate {
                    kind: CandidateKind::ServerReflexive,
                    address,
                    base,
                })
            })
    }

    /// Whether [`Reflexive::candidates`] changed since this was asked last.
    pub const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.changed, false)
    }

    /// A datagram on a host socket; whether it was the answer to one of our requests. Costs the look at two bytes when
    /// it is not.
    pub fn handle_datagram(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        payload: &[u8],
        now: Instant,
    ) -> bool {
        if !payload.starts_with(&BINDING_SUCCESS) {
            return false;
        }
        let Ok(message) = Message::decode(payload) else {
            return false;
        };
        let id = message.transaction_id();
        let ours = |question: &&mut Question| {
            question.id == Some(id) && question.base == local && question.server == remote
        };
        let Some(question) = self.questions.iter_mut().find(ours) else {
            return false;
        };
        let mapped = message
            .value(XorMappedAddress::TYPE)
            .and_then(|value| read_address(value, id))
            .filter(|mapped| {
                mapped.port() != 0 && matches!(reach(mapped.ip()), Reach::Inside | Reach::Anywhere)
            });
        question.id = None;
        question.attempts = 0;
        question.due = now + REFRESH;
        self.changed |= question.mapped != mapped;
        question.mapped = mapped;
        true
    }

    /// Gives up servers whose time is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        for at in 0..self.questions.len() {
            let question = &mut self.questions[at];
            if question.due > now || question.attempts < MAX_ATTEMPTS {
                continue;
            }
            self.changed |= question.mapped.take().is_some();
            (question.id, question.attempts) = (None, 0);
            question.due = now + PAUSE;
            let (base, server) = (question.base, question.server);
            if let Some(next) = self.next_server(base, server) {
                self.questions[at].server = next;
            }
        }
    }

    /// When to call [`Reflexive::handle_timeout`], and then [`Reflexive::poll_transmit`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.questions.iter().map(|question| question.due).min()
    }

    /// The next request to send.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        let due =
            |question: &&mut Question| question.due <= now && question.attempts < MAX_ATTEMPTS;
        let question = self.questions.iter_mut().find(due)?;
        let id = match question.id {
            Some(id) => id,
            None => random_id(&self.certificate).ok()?,
        };
        question.id = Some(id);
        question.due = now + FIRST_INTERVAL * 2_u32.pow(question.attempts);
        question.attempts += 1;
        let mut bytes = Vec::with_capacity(28);
        Writer::new(&mut bytes, MessageClass::Request, Method::new(BINDING), id).finish();
        let payload = BytesMut::from(bytes.as_slice());
        Some(Transmit::one(question.base, question.server, payload))
    }

    /// Makes the questions fit bases and servers; those that fit already stay as they are.
    fn ask(&mut self, now: Instant) {
        let (bases, servers) = (&self.bases, &self.servers);
        let mut gone = false;
        self.questions.retain(|question| {
            let stays = bases.contains(&question.base) && servers.contains(&question.server);
            gone |= !stays && question.mapped.is_some();
            stays
        });
        self.changed |= gone;
        for &base in bases {
            let asked: Vec<SocketAddr> = self
                .questions
                .iter()
                .filter(|question| question.base == base)
                .map(|question| question.server)
                .collect();
            let more = servers
                .iter()
                .filter(|server| may_ask(base, **server) && !asked.contains(server))
                .take(ASKED.saturating_sub(asked.len()));
            for &server in more {
                self.questions.push(Question {
                    base,
                    server,
                    id: None,
                    attempts: 0,
                    due: now,
                    mapped: None,
                });
            }
        }
    }

    /// The server after `last` in the list that this base does not ask yet.
    fn next_server(&self, base: SocketAddr, last: SocketAddr) -> Option<SocketAddr> {
        let at = self.servers.iter().position(|server| *server == last)?;
        let asked = |server: &SocketAddr| {
            let same = |question: &Question| question.base == base && question.server == *server;
            self.questions.iter().any(same)
        };
        let (before, after) = self.servers.split_at(at);
        after
            .iter()
            .chain(before)
            .find(|server| may_ask(base, **server) && !asked(server))
            .copied()
    }
}

fn may_ask(base: SocketAddr, server: SocketAddr) -> bool {
    base.is_ipv4() == server.is_ipv4() && base.ip().is_loopback() == server.ip().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "10.0.0.10:4000";
    const SEEN: &str = "203.0.113.11:61000";

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn servers() -> [SocketAddr; 3] {
        [
            "203.0.113.22:3478",
            "203.0.113.12:3478",
            "203.0.113.32:3478",
        ]
        .map(address)
    }

    fn asking(now: Instant) -> Reflexive {
        let mut reflexive = Reflexive::new(DtlsCertificate::generate().expect("a certificate"));
        let bases = [BASE, "[fd00:10::10]:4001"].map(address);
        reflexive.set_bases(&bases, now);
        reflexive.set_servers(&servers(), now);
        reflexive
    }

    fn sent(reflexive: &mut Reflexive, now: Instant) -> Vec<Transmit> {
        std::iter::from_fn(|| reflexive.poll_transmit(now)).collect()
    }

    fn answer(request: &Transmit, seen: &str) -> Vec<u8> {
        let id = Message::decode(&request.payload)
            .expect("STUN")
            .transaction_id();
        let mut bytes = Vec::new();
        let method = Method::new(BINDING);
        let mut writer = Writer::new(&mut bytes, MessageClass::Success, method, id);
        writer.add_address(XorMappedAddress::TYPE, address(seen));
        writer.finish();
        bytes
    }

    fn known(reflexive: &Reflexive) -> Vec<String> {
        let candidates = reflexive.candidates();
        candidates.map(|one| one.address.to_string()).collect()
    }

    #[test]
    fn two_servers_are_asked_from_each_base_of_their_family_and_what_they_saw_is_kept() {
        let now = Instant::now();
        let mut reflexive = asking(now);
        let requests = sent(&mut reflexive, now);
        assert_eq!(requests.len(), 2, "nobody to ask over IPv6");
        for (request, server) in requests.iter().zip(servers()) {
            assert_eq!((request.local, request.remote), (address(BASE), server));
            let answer = answer(request, SEEN);
            assert!(reflexive.handle_datagram(request.local, server, &answer, now));
            assert!(
                !reflexive.handle_datagram(request.local, server, &answer, now),
                "twice"
            );
        }
        assert_eq!(known(&reflexive), [SEEN], "once");
        assert!(reflexive.take_changed());
        assert!(!reflexive.take_changed());
        assert_eq!(reflexive.poll_timeout(), Some(now + REFRESH));
        assert_eq!(sent(&mut reflexive, now + REFRESH).len(), 2);
    }

    #[test]
    fn only_the_server_that_was_asked_is_believed_and_only_what_can_be_a_candidate() {
        let now = Instant::now();
        let mut reflexive = asking(now);
        let requests = sent(&mut reflexive, now);
        let (request, [first, second, _]) = (&requests[0], servers());
        let good = answer(request, SEEN);
        assert!(!reflexive.handle_datagram(address(BASE), second, &good, now));
        assert!(!reflexive.handle_datagram(address(SEEN), first, &good, now));
        let mut other = good.clone();
        other[19] ^= 1;
        assert!(!reflexive.handle_datagram(address(BASE), first, &other, now));
        for length in 0..good.len() {
            assert!(!reflexive.handle_datagram(address(BASE), first, &good[..length], now));
        }
        for useless in [
            "127.0.0.1:5",
            "0.0.0.0:5",
            "169.254.169.254:80",
            "224.0.0.1:9",
            BASE,
        ] {
            let mut reflexive = asking(now);
            let requests = sent(&mut reflexive, now);
            let lie = answer(&requests[0], useless);
            assert!(reflexive.handle_datagram(address(BASE), first, &lie, now));
            assert_eq!(known(&reflexive), [""; 0], "{useless}");
        }
    }

    #[test]
    fn a_nat_that_takes_a_port_per_destination_gives_one_candidate() {
        let now = Instant::now();
        let mut reflexive = asking(now);
        for (request, seen) in sent(&mut reflexive, now)
            .iter()
            .zip([SEEN, "203.0.113.11:7"])
        {
            let answer = answer(request, seen);
            assert!(reflexive.handle_datagram(request.local, request.remote, &answer, now));
        }
        assert_eq!(known(&reflexive), [SEEN]);
    }

    #[test]
    fn a_silent_server_is_left_for_the_next_and_what_it_said_is_forgotten() {
        let start = Instant::now();
        let mut now = start;
        let mut reflexive = asking(now);
        let requests = sent(&mut reflexive, now);
        let said = answer(&requests[0], SEEN);
        assert!(reflexive.handle_datagram(address(BASE), servers()[0], &said, now));
        let mut asked = 0;
        let mut third = false;
        while now - start < Duration::from_secs(60) && !third {
            now = reflexive.poll_timeout().expect("it goes on");
            reflexive.handle_timeout(now);
            for request in sent(&mut reflexive, now) {
                asked += 1;
                third |= request.remote == servers()[2];
            }
        }
        assert!(third, "the third was asked");
        assert!(asked < 20, "{asked}");
        while now - start < Duration::from_secs(60) {
            now = reflexive.poll_timeout().expect("it goes on");
            reflexive.handle_timeout(now);
            sent(&mut reflexive, now);
        }
        assert_eq!(known(&reflexive), [""; 0]);
    }

    #[test]
    fn a_base_that_is_gone_takes_its_candidates_along() {
        let now = Instant::now();
        let mut reflexive = asking(now);
        let requests = sent(&mut reflexive, now);
        let said = answer(&requests[0], SEEN);
        assert!(reflexive.handle_datagram(address(BASE), servers()[0], &said, now));
        assert!(reflexive.take_changed());
        reflexive.set_bases(&[address("10.0.0.11:4000")], now);
        assert!(reflexive.take_changed());
        assert_eq!(known(&reflexive), [""; 0]);
        let asked = sent(&mut reflexive, now);
        assert!(
            asked
                .iter()
                .all(|request| request.local == address("10.0.0.11:4000"))
        );
        assert_eq!(asked.len(), 2);
    }

    #[test]
    fn bases_and_servers_are_bounded() {
        let now = Instant::now();
        let mut reflexive = Reflexive::new(DtlsCertificate::generate().expect("a certificate"));
        let many: Vec<SocketAddr> = (1..=200)
            .map(|last| SocketAddr::from(([203, 0, 113, last], 3478)))
            .collect();
        reflexive.set_bases(&many, now);
        reflexive.set_servers(&many, now);
        assert_eq!(sent(&mut reflexive, now).len(), MAX_BASES * ASKED);
    }
}
