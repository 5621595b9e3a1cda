//! The cookies and sessions of DTLS, with clients that speak it, datagrams that nobody should send, and addresses that are
//! not their sender's: nothing is begun for who has not shown a cookie, and nobody gets more than was sent in his name.

use arbitrary::{Result, Unstructured};
use dimpl::{Config, Dtls, DtlsCertificate, Output};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use turn_relay::foreign::DtlsEnd;

const CLIENTS: [&str; 3] = ["192.0.2.1:4000", "192.0.2.1:4001", "[2001:db8::1]:4000"];
/// Fewer than there are clients.
const SESSIONS: usize = 2;
const EVENTS: usize = 48;

struct Client {
    address: SocketAddr,
    dtls: Dtls,
    /// What it said and nobody has carried yet, and all that it said.
    waiting: Vec<Vec<u8>>,
    said: Vec<Vec<u8>>,
    messages: Vec<Vec<u8>>,
    cookies: Vec<Vec<u8>>,
    is_connected: bool,
    is_over: bool,
    /// A message has arrived.
    is_heard: bool,
    has_begun: bool,
    /// It may have a session that it knows nothing of, or its own may be over.
    is_disturbed: bool,
}

struct World {
    end: DtlsEnd,
    clients: Vec<Client>,
    now: Instant,
    started: Instant,
}

pub(super) fn run(data: &[u8]) {
    let mut world = World::new();
    let mut input = Unstructured::new(data);
    for _ in 0..EVENTS {
        if input.is_empty() || world.step(&mut input).is_err() {
            break;
        }
    }
    // Whoever was heard before is heard still, whatever others said meanwhile.
    for client in 0..CLIENTS.len() {
        world.carry(client, usize::MAX);
        let who = &world.clients[client];
        if who.is_heard && !who.is_disturbed {
            assert!(!who.is_over, "a session was ended by strangers");
            world.talk(client, b"still there?");
            world.carry(client, usize::MAX);
            assert!(world.clients[client].messages.is_empty(), "not heard");
        }
    }
}

/// In files for as long as they are read.
fn end(server: SocketAddr, now: Instant) -> DtlsEnd {
    static FILES: OnceLock<tempfile::TempDir> = OnceLock::new();
    let directory = FILES.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(["turn.example".into()]);
        let made = made.expect("a certificate");
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name, pem| std::fs::write(directory.path().join(name), pem).expect("a file");
        write("certificate", made.cert.pem());
        write("key", made.signing_key.serialize_pem());
        directory
    });
    let file = |name: &str| directory.path().join(name);
    let (certificate, key) = (file("certificate"), file("key"));
    let files: [&Path; 2] = [&certificate, &key];
    DtlsEnd::new(files, server, SESSIONS, now).expect("an end")
}

fn client(address: &str, seed: u64, now: Instant) -> Client {
    static CERTIFICATE: OnceLock<DtlsCertificate> = OnceLock::new();
    let certificate = CERTIFICATE.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(["client.example".into()]);
        let made = made.expect("a certificate");
        DtlsCertificate {
            certificate: made.cert.der().to_vec(),
            private_key: made.signing_key.serialize_der(),
        }
    });
    let config = Config::builder()
        .require_client_certificate(false)
        .dangerously_set_rng_seed(seed)
        .build()
        .expect("a configuration");
    let mut dtls = Dtls::new_12(Arc::new(config), certificate.clone(), now);
    dtls.set_active(true);
    let mut client = Client {
        address: address.parse().expect("an address"),
        dtls,
        waiting: Vec::new(),
        said: Vec::new(),
        messages: Vec::new(),
        cookies: Vec::new(),
        is_connected: false,
        is_over: false,
        is_heard: false,
        has_begun: false,
        is_disturbed: false,
    };
    client.pass(now);
    client
}

impl Client {
    fn pass(&mut self, now: Instant) {
        self.is_over |= self.dtls.handle_timeout(now).is_err();
        self.drain();
    }

    fn hear(&mut self, datagram: &[u8], now: Instant) {
        if !self.is_over {
            let result = self.dtls.handle_timeout(now);
            let result = result.and_then(|()| self.dtls.handle_packet(datagram));
            self.is_over |= result.is_err();
            self.drain();
        }
    }

    fn drain(&mut self) {
        let mut buffer = vec![0; 2_048];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(datagram) => {
                    self.waiting.push(datagram.to_vec());
                    self.said.push(datagram.to_vec());
                }
                Output::BufferTooSmall { needed } => buffer.resize(needed, 0),
                Output::Connected => self.is_connected = true,
                Output::CloseNotify => self.is_over = true,
                Output::Timeout(_) => return,
                _ => {}
            }
        }
    }
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let server = "203.0.113.12:443".parse().expect("an address");
        let clients = CLIENTS.iter().zip(1..);
        let clients = clients.map(|(address, seed)| client(address, seed, now));
        Self {
            end: end(server, now),
            clients: clients.collect(),
            now,
            started: now,
        }
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let from = input.int_in_range(0..=CLIENTS.len() - 1)?;
        match input.int_in_range(0..=9_u8)? {
            0..=3 => self.carry(from, input.int_in_range(1..=4)?),
            4 => {
                let message = input.arbitrary::<[u8; 3]>()?;
                self.talk(from, &message);
            }
            5 => {
                let datagram = input.arbitrary::<&[u8]>()?;
                self.arrive(from, datagram, true);
            }
            6 => {
                let datagram = self.hello(input)?;
                self.arrive(from, &datagram, true);
            }
            7 | 8 => {
                let of = input.int_in_range(0..=CLIENTS.len() - 1)?;
                let mut datagram = input.choose(&self.clients[of].said)?.clone();
                for _ in 0..input.int_in_range(0..=3)? {
                    let at = input.choose_index(datagram.len())?;
                    datagram[at] ^= input.arbitrary::<u8>()?;
                }
                if input.ratio(1, 4)? {
                    datagram.truncate(input.choose_index(datagram.len() + 1)?);
                }
                let answered = input.arbitrary()?;
                self.arrive(from, &datagram, answered);
            }
            _ => {
                let time = u64::from(input.arbitrary::<u16>()?);
                self.pass(Duration::from_millis(time));
            }
        }
        Ok(())
    }

    /// A ClientHello, right in its lengths or nearly, with a cookie of somebody.
    fn hello(&self, input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        let cookies: Vec<&Vec<u8>> = self.clients.iter().flat_map(|c| &c.cookies).collect();
        let cookie = match cookies.is_empty() || input.ratio(1, 4)? {
            true => &[][..],
            false => input.choose(&cookies)?,
        };
        let mut body = vec![0xFE, input.int_in_range(0xFC..=0xFF)?];
        body.extend([input.arbitrary::<u8>()?; 32]);
        let session = input.int_in_range(0..=3_u8)?;
        body.push(session);
        body.extend(vec![7; session.into()]);
        body.push(cookie.len() as u8);
        body.extend(cookie);
        let suites = [
            0, 4, 0xC0, 0x2B, 0xC0, 0x2C, 1, 0, 0, 8, 0, 10, 0, 4, 0, 2, 0, 23,
        ];
        body.extend(suites);
        let more = input.int_in_range(0..=9)?.min(input.len());
        body.extend(input.bytes(more)?);
        let length = (body.len() as u32).to_be_bytes();
        let mut message = vec![1, length[1], length[2], length[3]];
        message.extend([0, input.int_in_range(0..=2)?, 0, 0, 0]);
        message.extend(&length[1..]);
        message.extend(body);
        let mut datagram = vec![22, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0];
        datagram.push(input.int_in_range(0..=2)?);
        datagram.extend((message.len() as u16).to_be_bytes());
        datagram.extend(message);
        if input.ratio(1, 8)? {
            let at = input.choose_index(datagram.len())?;
            datagram[at] ^= input.arbitrary::<u8>()?;
        }
        Ok(datagram)
    }

    /// The next datagrams of a client arrive as they are.
    fn carry(&mut self, client: usize, most: usize) {
        for _ in 0..most {
            if self.clients[client].waiting.is_empty() {
                break;
            }
            let datagram = self.clients[client].waiting.remove(0);
            self.arrive(client, &datagram, true);
        }
    }

    fn talk(&mut self, client: usize, message: &[u8]) {
        let client = &mut self.clients[client];
        if client.is_connected
            && !client.is_over
            && client.dtls.send_application_data(message).is_ok()
        {
            client.messages.push(message.to_vec());
            client.drain();
        }
    }

    /// A datagram from a client's address; `answered` if what comes back arrives.
    fn arrive(&mut self, from: usize, datagram: &[u8], answered: bool) {
        let (_, begun_before) = self.end.sessions();
        let address = self.clients[from].address;
        self.end.handle_datagram(self.now, address, datagram);
        let (sessions, begun) = self.end.sessions();
        assert!(sessions <= SESSIONS as u64);
        let client = &mut self.clients[from];
        let shows = |cookie: &Vec<u8>| datagram.windows(32).any(|some| some == cookie);
        let has_shown = client.cookies.iter().any(shows);
        if begun > begun_before {
            assert_eq!(begun, begun_before + 1);
            assert!(has_shown, "a session without a cookie");
            client.has_begun = true;
        }
        // Another hello than the client's own takes the place of its session.
        client.is_disturbed |= has_shown && client.is_heard && begun > begun_before;
        let mut answers = 0;
        for (to, answer) in self.end.poll_datagrams() {
            assert_eq!(to, address, "to whom nothing was said");
            answers += 1;
            if !client.has_begun {
                assert!(answers == 1 && answer.len() <= datagram.len());
            }
            if let [22, 0xFE, 0xFF, ..] = answer[..]
                && answer.len() == 60
                && answer[13] == 3
            {
                client.cookies.push(answer[28..].to_vec());
            }
            if answered {
                client.hear(&answer, self.now);
            } else {
                client.is_disturbed |= client.is_heard;
            }
        }
        for (of, message) in self.end.poll_messages() {
            assert_eq!(of, address, "of whom nothing came");
            let said = client.messages.iter().position(|said| *said == message);
            client
                .messages
                .remove(said.expect("what it said, and once"));
            client.is_heard = true;
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.end.handle_timeout(self.now);
        for client in &mut self.clients {
            client.pass(self.now);
            // Nobody has an allocation: sessions end for that.
            client.is_disturbed |= self.now > self.started + Duration::from_secs(5);
        }
        for (to, answer) in self.end.poll_datagrams() {
            let mut clients = self.clients.iter_mut();
            let client = clients.find(|client| client.address == to);
            let client = client.expect("a client");
            assert!(client.has_begun, "said again to whom nothing is kept of");
            client.hear(&answer, self.now);
        }
        let due = self.end.poll_timeout();
        assert!(due.is_none_or(|due| due > self.now), "time stands still");
    }
}
