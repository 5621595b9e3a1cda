//! The real binary, and a client of few lines over a real socket.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use stun_types::attribute::{AttributeWrite, ErrorCode, Nonce, Realm, Username};
use stun_types::message::{
    IntegrityAlgorithm, LongTermCredentials, Message, MessageIntegrityCredentials, MessageWrite,
    MessageWriteExt, MessageWriteVec, Method,
};
use turn_types::attribute::{
    ChannelNumber, Lifetime, RequestedAddressFamily, RequestedTransport, XorPeerAddress,
    XorRelayedAddress,
};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH};

pub const DEADLINE: Duration = Duration::from_secs(10);

/// Asks until the answer is there.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turn-relay"));
    command.args(args).env_remove("TURNPIKE_CONFIG");
    command
}

/// A running relay, killed when dropped.
pub struct Service {
    pub child: Child,
    pub listen: Vec<SocketAddr>,
    pub admin: SocketAddr,
    log: tempfile::NamedTempFile,
}

impl Service {
    /// With an admin port and a user, on ports that the kernel chooses.
    pub fn start(args: &[&str]) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let child = command(&["--admin", "127.0.0.1:0", "--user", "alice:wonderland"])
            .args(args)
            .stdin(Stdio::null())
            .stderr(File::create(log.path()).unwrap())
            .spawn()
            .unwrap();
        let mut service = Self {
            child,
            listen: Vec::new(),
            admin: ([127, 0, 0, 1], 0).into(),
            log,
        };
        service.admin = until("the admin port", || {
            service.addresses("admin port address=").pop()
        });
        service.listen = service.addresses("listening address=udp://");
        until("readiness", || {
            service
                .get("/readyz")
                .starts_with("HTTP/1.1 200")
                .then_some(())
        });
        service
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    /// Where it listens over `tcp` or `tls`.
    pub fn listening(&self, transport: &str) -> Vec<SocketAddr> {
        self.addresses(&format!("listening address={transport}://"))
    }

    fn addresses(&self, after: &str) -> Vec<SocketAddr> {
        let log = self.log();
        let found = log.lines().filter_map(|line| line.split_once(after));
        found
            .map(|(_, address)| address.trim().parse().unwrap())
            .collect()
    }

    pub fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// All metrics, as they are served.
    pub fn metrics(&self) -> String {
        self.get("/metrics")
    }

    /// A metric with its labels as they are written, without the prefix; 0 if it is not there.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics");
        let value = text.lines().find_map(|line| {
            line.strip_prefix("turn_relay_")?
                .strip_prefix(name)?
                .strip_prefix(' ')
        });
        value.map_or(0, |value| value.trim().parse().unwrap())
    }

    /// How many UDP sockets for IPv4 the process has.
    pub fn udp_sockets(&self) -> usize {
        let process = format!("/proc/{}", self.child.id());
        let table = std::fs::read_to_string(format!("{process}/net/udp")).unwrap();
        let inodes: Vec<_> = table
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().nth(9))
            .map(|inode| format!("socket:[{inode}]"))
            .collect();
        std::fs::read_dir(format!("{process}/fd"))
            .unwrap()
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .filter(|link| {
                inodes
                    .iter()
                    .any(|inode| link.as_os_str() == inode.as_str())
            })
            .count()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Its successors are nobody's children.
        for after in self.log().split("a successor starts pid=").skip(1) {
            let pid = after.split_whitespace().next().unwrap();
            let program = std::fs::read_link(format!("/proc/{pid}/exe"));
            if program
                .is_ok_and(|path| path == std::path::Path::new(env!("CARGO_BIN_EXE_turn-relay")))
            {
                let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}

/// Name and password.
pub type Who<'w> = (&'w str, &'w str);

pub const ALICE: Who<'static> = ("alice", "wonderland");

fn key((name, password): Who<'_>) -> MessageIntegrityCredentials {
    LongTermCredentials::new(name.into(), password.into())
        .to_key("turnpike".into())
        .into()
}

/// A request of alice's.
pub fn signed(
    method: Method,
    nonce: &str,
    attributes: impl FnOnce(&mut MessageWriteVec),
) -> Vec<u8> {
    signed_by(ALICE, method, nonce, attributes)
}

/// A request of anyone's.
pub fn signed_by(
    who: Who<'_>,
    method: Method,
    nonce: &str,
    attributes: impl FnOnce(&mut MessageWriteVec),
) -> Vec<u8> {
    let mut writer = Message::builder_request(method, MessageWriteVec::new());
    attributes(&mut writer);
    let parts: [&dyn AttributeWrite; 3] = [
        &Username::new(who.0).unwrap(),
        &Realm::new("turnpike").unwrap(),
        &Nonce::new(nonce).unwrap(),
    ];
    for part in parts {
        writer.add_attribute(part).unwrap();
    }
    writer
        .add_message_integrity(&key(who), IntegrityAlgorithm::Sha1)
        .unwrap();
    writer.finish()
}

/// An answer to alice, if it is a success; otherwise its error code.
pub fn verified(bytes: Vec<u8>) -> Result<Vec<u8>, u16> {
    verified_by(ALICE, bytes)
}

/// An answer to anyone. An error to a stranger is not signed.
pub fn verified_by(who: Who<'_>, bytes: Vec<u8>) -> Result<Vec<u8>, u16> {
    let answer = Message::from_bytes(&bytes).unwrap();
    let code = answer.attribute::<ErrorCode>().map(|error| error.code());
    if !matches!(code, Ok(401 | 438 | 500)) {
        answer.validate_integrity(&key(who)).unwrap();
    }
    match answer.attribute::<ErrorCode>() {
        Ok(error) => Err(error.code()),
        Err(_) => Ok(bytes),
    }
}

/// A client with a nonce.
pub struct Client {
    pub socket: UdpSocket,
    nonce: String,
    who: (String, String),
}

impl Client {
    pub fn connect(server: SocketAddr) -> Self {
        Self::connect_as(server, ALICE)
    }

    pub fn connect_as(server: SocketAddr, who: Who<'_>) -> Self {
        let any = if server.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self::over(socket, who)
    }

    /// Over a socket that is connected to the server and waits for answers.
    pub fn over(socket: UdpSocket, who: Who<'_>) -> Self {
        let mut client = Self {
            socket,
            nonce: "none".into(),
            who: (who.0.into(), who.1.into()),
        };
        let request = Message::builder_request(ALLOCATE, MessageWriteVec::new()).finish();
        let answer = client.exchange(&request);
        let answer = Message::from_bytes(&answer).unwrap();
        client.nonce = answer.attribute::<Nonce>().unwrap().nonce().to_owned();
        client
    }

    pub fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 65_536];
        let length = self.socket.recv(&mut buffer).expect("an answer in time");
        buffer.truncate(length);
        buffer
    }

    fn exchange(&self, request: &[u8]) -> Vec<u8> {
        self.socket.send(request).unwrap();
        self.receive()
    }

    /// A success answer.
    pub fn request(
        &self,
        method: Method,
        attributes: impl FnOnce(&mut MessageWriteVec),
    ) -> Result<Vec<u8>, u16> {
        let who = (&*self.who.0, &*self.who.1);
        let request = signed_by(who, method, &self.nonce, attributes);
        verified_by(who, self.exchange(&request))
    }

    pub fn allocate(&self, family: turn_types::AddressFamily) -> Result<SocketAddr, u16> {
        let answer = self.request(ALLOCATE, |writer| {
            let udp = RequestedTransport::new(RequestedTransport::UDP);
            writer.add_attribute(&udp).unwrap();
            writer
                .add_attribute(&RequestedAddressFamily::new(family))
                .unwrap();
        })?;
        let answer = Message::from_bytes(&answer).unwrap();
        let relayed: XorRelayedAddress = answer.attribute().unwrap();
        Ok(relayed.addr(answer.transaction_id()))
    }

    pub fn permit(&self, peer: SocketAddr) -> Result<(), u16> {
        let answer = self.request(CREATE_PERMISSION, |writer| {
            let id = writer.transaction_id();
            writer
                .add_attribute(&XorPeerAddress::new(peer, id))
                .unwrap();
        });
        answer.map(drop)
    }

    pub fn bind(&self, channel: u16, peer: SocketAddr) -> Result<(), u16> {
        let answer = self.request(CHANNEL_BIND, |writer| {
            let id = writer.transaction_id();
            writer.add_attribute(&ChannelNumber::new(channel)).unwrap();
            writer
                .add_attribute(&XorPeerAddress::new(peer, id))
                .unwrap();
        });
        answer.map(drop)
    }

    /// The lifetime granted, in seconds.
    pub fn refresh(&self) -> Result<u32, u16> {
        let answer = self.request(REFRESH, |_| {})?;
        let answer = Message::from_bytes(&answer).unwrap();
        Ok(answer.attribute::<Lifetime>().unwrap().seconds())
    }

    pub fn delete(&self) -> Result<(), u16> {
        let answer = self.request(REFRESH, |writer| {
            writer.add_attribute(&Lifetime::new(0)).unwrap();
        });
        answer.map(drop)
    }
}

pub fn channel_data(channel: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = channel.to_be_bytes().to_vec();
    bytes.extend((data.len() as u16).to_be_bytes());
    bytes.extend(data);
    bytes
}
