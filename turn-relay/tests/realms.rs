//! Several realms in the running process.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/stream.rs"]
mod stream;

use common::{DEADLINE, Service, channel_data, command, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls::version::{TLS12, TLS13};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use stream::{Certificate, tcp, tls};
use stun_types::attribute::{AttributeType, ErrorCode, Nonce, RawAttribute, Realm, Username};
use stun_types::message::{
    IntegrityAlgorithm, LongTermCredentials, Message, MessageWrite, MessageWriteExt,
    MessageWriteVec, Method,
};
use turn_types::attribute::{ChannelNumber, RequestedTransport, XorPeerAddress};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, REFRESH};

const ORIGIN: AttributeType = AttributeType::new(0x802F);
const CHANNEL: u16 = 0x4001;

/// A client of one realm.
struct Tenant {
    socket: UdpSocket,
    realm: &'static str,
    who: (&'static str, &'static str),
    nonce: String,
}

/// The first request of a client.
fn first(origin: Option<&str>) -> Vec<u8> {
    let mut writer = Message::builder_request(ALLOCATE, MessageWriteVec::new());
    if let Some(origin) = origin {
        let origin = RawAttribute::new(ORIGIN, origin.as_bytes());
        writer.add_attribute(&origin).unwrap();
    }
    writer.finish()
}

/// What it is challenged for, and with which nonce.
fn challenge(answer: &[u8]) -> (String, String) {
    let answer = Message::from_bytes(answer).unwrap();
    assert_eq!(answer.attribute::<ErrorCode>().unwrap().code(), 401);
    let realm = answer.attribute::<Realm>().unwrap().realm().to_owned();
    (
        realm,
        answer.attribute::<Nonce>().unwrap().nonce().to_owned(),
    )
}

impl Tenant {
    fn connect(
        server: SocketAddr,
        realm: &'static str,
        who: (&'static str, &'static str),
        origin: Option<&str>,
    ) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.send(&first(origin)).unwrap();
        let mut buffer = [0; 2_000];
        let length = socket.recv(&mut buffer).unwrap();
        let (challenged, nonce) = challenge(&buffer[..length]);
        assert_eq!(challenged, realm);
        Self {
            socket,
            realm,
            who,
            nonce,
        }
    }

    /// The error code; 0 for success.
    fn request(&self, method: Method, more: impl FnOnce(&mut MessageWriteVec)) -> u16 {
        let mut writer = Message::builder_request(method, MessageWriteVec::new());
        more(&mut writer);
        let (name, password) = self.who;
        writer.add_attribute(&Username::new(name).unwrap()).unwrap();
        writer
            .add_attribute(&Realm::new(self.realm).unwrap())
            .unwrap();
        writer
            .add_attribute(&Nonce::new(&self.nonce).unwrap())
            .unwrap();
        let key = LongTermCredentials::new(name.into(), password.into());
        let key = key.to_key(self.realm.into()).into();
        writer
            .add_message_integrity(&key, IntegrityAlgorithm::Sha1)
            .unwrap();
        self.socket.send(&writer.finish()).unwrap();
        let mut buffer = [0; 2_000];
        let length = self.socket.recv(&mut buffer).expect("an answer in time");
        let answer = Message::from_bytes(&buffer[..length]).unwrap();
        let error = answer.attribute::<ErrorCode>();
        error.map_or(0, |error| error.code())
    }

    fn allocate(&self) -> u16 {
        self.request(ALLOCATE, |writer| {
            let udp = RequestedTransport::new(RequestedTransport::UDP);
            writer.add_attribute(&udp).unwrap();
        })
    }

    fn bind(&self, peer: SocketAddr) -> u16 {
        self.request(CHANNEL_BIND, |writer| {
            let peer = XorPeerAddress::new(peer, writer.transaction_id());
            writer.add_attribute(&ChannelNumber::new(CHANNEL)).unwrap();
            writer.add_attribute(&peer).unwrap();
        })
    }

    fn refresh(&self) -> u16 {
        self.request(REFRESH, |_| {})
    }

    /// A packet through the relay.
    fn reaches(&self, peer: &UdpSocket, payload: &[u8]) {
        self.socket.send(&channel_data(CHANNEL, payload)).unwrap();
        let mut buffer = [0; 2_000];
        let (length, _) = peer.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], payload);
    }
}

const ALICE: (&str, &str) = ("alice", "wonderland");
/// Of the realm `acme`.
const OTHER_ALICE: (&str, &str) = ("alice", "looking-glass");
const CAROL: (&str, &str) = ("carol", "christmas");
const ORIGIN_OF_ACME: &str = "https://www.acme.example";

/// A relay with the realms `turnpike` and `acme`, and the files that it is made from.
struct Setup {
    directory: tempfile::TempDir,
    certificate: Certificate,
    listen: [SocketAddr; 2],
}

impl Setup {
    fn new() -> Self {
        let free = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let setup = Self {
            directory: tempfile::tempdir().unwrap(),
            certificate: Certificate::new(),
            listen: free.map(|socket| socket.local_addr().unwrap()),
        };
        setup.write("acme-users", "alice:looking-glass\ncarol:christmas\n");
        setup.write("users", "alice:wonderland\n");
        setup.write("acme-revoked", "");
        setup.write("usage", "");
        setup
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(self.path(name), mode).unwrap();
    }

    /// With these fields at the top, and these in the table of `acme`.
    fn config(&self, top: &str, acme: &str) -> String {
        let [first, second] = self.listen;
        let text = format!(
            "listen = ['udp://{first}', 'udp://{second}', 'tls://127.0.0.1:0']\n\
             certificate-file = {:?}\nkey-file = {:?}\nallow-peers = ['127.0.0.1/32']\n\
             users-file = {:?}\nusage-file = {:?}\nusage-seconds = 1\n{top}\n",
            self.certificate.path("certificate.pem"),
            self.certificate.path("key.pem"),
            self.path("users"),
            self.path("usage"),
        );
        let realm = format!(
            "[[realms]]\nname = 'acme'\nlisten = ['udp://{second}']\n\
             tls-names = ['RELAY.example']\norigins = ['{ORIGIN_OF_ACME}']\n\
             users-file = {:?}\nrevocations-file = {:?}\n\
             allow-peers = ['127.0.0.2/32']\n{acme}\n",
            self.path("acme-users"),
            self.path("acme-revoked"),
        );
        match acme {
            "none" => text,
            _ => text + &realm,
        }
    }

    fn start(&self, top: &str, acme: &str) -> Service {
        self.write("config", &self.config(top, acme));
        Service::start(&["--config", self.path("config").to_str().unwrap()])
    }

    fn reload(&self, service: &Service, top: &str, acme: &str) {
        self.write("config", &self.config(top, acme));
        let applied = "config_reloads_total{result=\"applied\"}";
        let before = service.metric(applied);
        let pid = Pid::from_raw(service.child.id() as i32);
        kill(pid, Signal::SIGHUP).unwrap();
        until("the reload", || {
            (service.metric(applied) > before).then_some(())
        });
    }

    fn records(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("usage")).unwrap();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn peer(address: &str) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[test]
fn each_realm_is_reached_by_listener_name_and_origin_and_shares_nothing() {
    let setup = Setup::new();
    let service = setup.start("", "allocations-per-user = 2");
    let [first_address, second_address] = setup.listen;
    let (western, western_address) = peer("127.0.0.1:0");
    let (acmes, acmes_address) = peer("127.0.0.2:0");

    let alice = Tenant::connect(first_address, "turnpike", ALICE, None);
    assert_eq!((alice.allocate(), alice.bind(western_address)), (0, 0));
    alice.reaches(&western, b"four");
    let by_listener = Tenant::connect(second_address, "acme", OTHER_ALICE, None);
    assert_eq!(by_listener.allocate(), 0);
    assert_eq!(by_listener.bind(western_address), 403);
    assert_eq!(by_listener.bind(acmes_address), 0);
    by_listener.reaches(&acmes, b"seven77");
    let by_origin = Tenant::connect(first_address, "acme", OTHER_ALICE, Some(ORIGIN_OF_ACME));
    assert_eq!(by_origin.allocate(), 0);
    // Her third, and the other alice's second.
    let third = Tenant::connect(second_address, "acme", OTHER_ALICE, None);
    assert_eq!(third.allocate(), 486);
    let other = Tenant::connect(first_address, "turnpike", ALICE, None);
    assert_eq!(other.allocate(), 0);
    // Nobody is anybody elsewhere.
    let stranger = Tenant::connect(second_address, "acme", ALICE, None);
    assert_eq!(stranger.allocate(), 401);

    let address = service.listening("tls")[0];
    for version in [&TLS12, &TLS13] {
        let session = tls(address, &setup.certificate.der, version, &[]).unwrap();
        assert_eq!(challenged_over(session), "acme");
    }
    drop(tcp(address));

    let of = |realm: &str, direction: &str| {
        let labels = format!("realm=\"{realm}\",direction=\"{direction}\"");
        service.metric(&format!("realm_bytes_total{{{labels}}}"))
    };
    until("the metrics", || {
        (of("acme", "to_peer") == 7 && of("turnpike", "to_peer") == 4).then_some(())
    });
    assert_eq!(service.metric("realm_allocations{realm=\"acme\"}"), 2);
    until("the records", || {
        let bytes = |realm: &str, bytes: u64| {
            setup.records().iter().any(|record| {
                record["record"] == "user"
                    && record["realm"] == realm
                    && record["user"] == "alice"
                    && record["bytes_to_peer"] == bytes
            })
        };
        (bytes("turnpike", 4) && bytes("acme", 7)).then_some(())
    });
}

/// The realm that a client is challenged for on this connection.
fn challenged_over(mut session: impl Read + Write) -> String {
    session.write_all(&first(None)).unwrap();
    session.flush().unwrap();
    let mut answer = vec![0; 20];
    session.read_exact(&mut answer).unwrap();
    let length = usize::from(answer[2]) * 256 + usize::from(answer[3]);
    answer.resize(20 + length, 0);
    session.read_exact(&mut answer[20..]).unwrap();
    challenge(&answer).0
}

/// What is wrong with one realm's file holds up nobody else's.
#[test]
fn a_user_is_revoked_while_the_file_of_another_realm_is_missing() {
    let setup = Setup::new();
    setup.write("revoked", "");
    let service = setup.start(
        &format!("revocations-file = {:?}", setup.path("revoked")),
        "",
    );
    let carol = Tenant::connect(setup.listen[1], "acme", CAROL, None);
    assert_eq!(carol.allocate(), 0);
    std::fs::remove_file(setup.path("revoked")).unwrap();
    setup.write("acme-revoked", "carol\n");
    until("carol to be out", || (carol.refresh() != 0).then_some(()));
    drop(service);
}

#[test]
fn realms_are_reloaded_revoked_handed_over_and_taken_away() {
    let setup = Setup::new();
    let mut service = setup.start("", "");
    let [first_address, second_address] = setup.listen;
    let (western, western_address) = peer("127.0.0.1:0");
    let (acmes, acmes_address) = peer("127.0.0.2:0");
    let alice = Tenant::connect(first_address, "turnpike", ALICE, None);
    let other = Tenant::connect(second_address, "acme", OTHER_ALICE, None);
    let carol = Tenant::connect(second_address, "acme", CAROL, None);
    for client in [&alice, &other, &carol] {
        assert_eq!(client.allocate(), 0);
    }
    assert_eq!(alice.bind(western_address), 0);
    assert_eq!(
        (other.bind(acmes_address), carol.bind(acmes_address)),
        (0, 0)
    );

    // Another way to it, and other users: nobody is dropped.
    setup.write(
        "acme-users",
        "alice:looking-glass\ncarol:christmas\ndave:new\n",
    );
    setup.reload(&service, "", "max-lifetime-seconds = 600");
    assert_eq!(
        (alice.refresh(), other.refresh(), carol.refresh()),
        (0, 0, 0)
    );
    let dave = Tenant::connect(second_address, "acme", ("dave", "new"), None);
    assert_eq!(dave.allocate(), 0);

    // Within a second of a change, without SIGHUP: one of the two who are called alice.
    setup.write("acme-revoked", "alice\n");
    let revoked = "allocations_ended_total{reason=\"revoked\"}";
    until("the revocation", || {
        (service.metric(revoked) == 1).then_some(())
    });
    assert_eq!(
        (other.refresh(), alice.refresh(), carol.refresh()),
        (401, 0, 0)
    );

    let pid = Pid::from_raw(service.child.id() as i32);
    kill(pid, Signal::SIGUSR2).unwrap();
    assert_eq!(service.child.wait().unwrap().code(), Some(0));
    alice.reaches(&western, b"still");
    carol.reaches(&acmes, b"here");
    assert_eq!((alice.refresh(), carol.refresh()), (0, 0));

    // Its successor is nobody's child.
    let said = service.log();
    let successor = said
        .rsplit("a successor goes on successor=")
        .next()
        .unwrap();
    let successor = successor.split_whitespace().next().unwrap();
    setup.write("config", &setup.config("", "none"));
    kill(Pid::from_raw(successor.parse().unwrap()), Signal::SIGHUP).unwrap();
    until("the end of the realm", || {
        (service.metric(revoked) == 2).then_some(())
    });
    assert_eq!((carol.refresh(), alice.refresh()), (401, 0));
    alice.reaches(&western, b"still");
}

#[test]
fn mistakes_are_named_with_realm_and_field() {
    let setup = Setup::new();
    let [first_address, second_address] = setup.listen;
    let again = format!(
        "[[realms]]\nname = 'west'\nusers-file = {:?}\n",
        setup.path("acme-users")
    );
    for (acme, field, problem) in [
        ("listn = []", "realms[0].listn", "did you mean"),
        (
            "max-lifetime-seconds = 5",
            "realms.acme.max-lifetime-seconds",
            "600 to 86400",
        ),
        (
            "deny-peers = ['x']",
            "realms.acme.deny-peers",
            "not a network",
        ),
        (
            "auth-secret-files = ['/nothing']",
            "realms.acme.auth-secret-files",
            "cannot read",
        ),
        (
            "[[realms]]\nname = 'acme'",
            "realms.acme.name",
            "a second realm of this name",
        ),
        (
            "[[realms]]\nname = 'turnpike'",
            "realms.turnpike.name",
            "a second realm",
        ),
        ("[[realms]]\nname = ''", "realms..name", "not a realm"),
        (
            "[[realms]]\nname = 'west'",
            "",
            "nobody could log in to the realm `west`",
        ),
        (
            &format!("{again}origins = ['{ORIGIN_OF_ACME}']"),
            "realms.west.origins",
            "it leads to the realm `acme` already",
        ),
        (
            &format!("{again}origins = ['www.acme.example']"),
            "realms.west.origins",
            "not an origin",
        ),
        (
            &format!("{again}tls-names = ['relay.EXAMPLE']"),
            "realms.west.tls-names",
            "it leads to the realm `acme` already",
        ),
        (
            &format!("{again}listen = ['udp://{second_address}']"),
            "realms.west.listen",
            "it leads to the realm `acme` already",
        ),
        (
            &format!("{again}listen = ['tcp://{first_address}']"),
            "realms.west.listen",
            "does not listen there",
        ),
    ] {
        setup.write("config", &setup.config("", acme));
        let path = setup.path("config");
        let output = command(&["config", "check", "--config", path.to_str().unwrap()])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{acme}: {said}");
        assert!(
            said.contains(field) && said.contains(problem),
            "{acme}: {said}"
        );
    }
}
