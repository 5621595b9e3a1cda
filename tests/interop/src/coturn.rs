//! coturn as Debian ships it: its server, to compare with, and its test client with the peer that sends all back.

use crate::relay::{REALM, USER};
use anyhow::{Context as _, Result, ensure};
use lab::wait;
use std::fs::File;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const START: Duration = Duration::from_secs(10);

/// A program that ends with its value.
#[derive(Debug)]
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `turnutils_peer`: sends back what it gets.
#[derive(Debug)]
pub struct Peer {
    pub address: SocketAddr,
    _running: Running,
}

impl Peer {
    /// At a port that was free a moment ago.
    pub fn start(ip: IpAddr) -> Result<Self> {
        let address = UdpSocket::bind(SocketAddr::new(ip, 0))?.local_addr()?;
        let child = Command::new("turnutils_peer")
            .args(["-L", &ip.to_string(), "-p", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("turnutils_peer, of Debian's package coturn")?;
        let running = Running(child);
        let probe = UdpSocket::bind(SocketAddr::new(ip, 0))?;
        probe.set_read_timeout(Some(Duration::from_millis(50)))?;
        wait::until_true("the peer", START, || {
            probe.send_to(b"there?", address)?;
            Ok(probe.recv(&mut [0; 16]).is_ok())
        })?;
        Ok(Self {
            address,
            _running: running,
        })
    }
}

/// `turnserver` on 127.0.0.1 and ::1, with the user and the realm of our relay.
#[derive(Debug)]
pub struct Server {
    /// UDP and TCP.
    pub plain: u16,
    /// TLS and DTLS.
    pub secure: u16,
    _running: Running,
    _directory: TempDir,
}

impl Server {
    pub fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = |name: &str| directory.path().join(name);
        let made = rcgen::generate_simple_self_signed(vec!["relay.example".into()])?;
        std::fs::write(path("certificate.pem"), made.cert.pem())?;
        std::fs::write(path("key.pem"), made.signing_key.serialize_pem())?;
        // Two ports next to each other: it opens the next one of each, too.
        let (plain, secure) = (free_pair()?, free_pair()?);
        let log = File::create(path("log"))?;
        let child = Command::new("turnserver")
            .args(["-n", "-L", "127.0.0.1", "-L", "::1", "--no-cli", "-m", "1"])
            .args(["-p", &plain.to_string()])
            .args(["--tls-listening-port", &secure.to_string()])
            .args(["--lt-cred-mech", "-r", REALM])
            .args(["--user", &format!("{}:{}", USER.0, USER.1)])
            .args(["--allow-loopback-peers", "--mobility"])
            .args(["--min-port", "40000", "--max-port", "48000"])
            .args(["--log-file", "stdout", "--simple-log"])
            .arg("--cert")
            .arg(path("certificate.pem"))
            .arg("--pkey")
            .arg(path("key.pem"))
            .arg("--userdb")
            .arg(path("turndb"))
            .arg("--pidfile")
            .arg(path("pid"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("turnserver, of Debian's package coturn")?;
        let mut running = Running(child);
        wait::until_true("coturn", START, || {
            let log = std::fs::read_to_string(path("log"))?;
            ensure!(running.0.try_wait()?.is_none(), "coturn said: {log}");
            let there = |port: u16| TcpStream::connect(("::1", port)).is_ok();
            Ok(there(plain) && there(secure))
        })?;
        Ok(Self {
            plain,
            secure,
            _running: running,
            _directory: directory,
        })
    }
}

fn free_pair() -> Result<u16> {
    for _ in 0..100 {
        let first = UdpSocket::bind(("127.0.0.1", 0))?;
        let port = first.local_addr()?.port();
        let next = port.checked_add(1);
        if next.is_some_and(|next| UdpSocket::bind(("127.0.0.1", next)).is_ok()) {
            return Ok(port);
        }
    }
    anyhow::bail!("no two free ports next to each other")
}

/// How `turnutils_uclient` ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// With exit code 0, in time.
    pub well: bool,
    pub sent: u64,
    pub received: u64,
    pub said: String,
}

impl Ended {
    /// It ended well, and whatever it counted came back.
    pub fn completed(&self) -> bool {
        self.well && self.sent == self.received
    }
}

/// Runs the client with these flags, as the user, against a server's port, for at most so many seconds.
pub fn uclient(seconds: u32, server: SocketAddr, flags: &[&str]) -> Result<Ended> {
    let output = Command::new("timeout")
        .args([&seconds.to_string(), "turnutils_uclient"])
        .args(["-u", USER.0, "-w", USER.1])
        .args(["-p", &server.port().to_string()])
        .args(flags)
        .arg(server.ip().to_string())
        .stdin(Stdio::null())
        .output()
        .context("turnutils_uclient, of Debian's package coturn")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = |name: &str| {
        let found = said.rmatch_indices(name).next()?;
        let rest = &said[found.0 + name.len()..];
        let digits = rest.find(|c: char| !c.is_ascii_digit());
        rest[..digits.unwrap_or(rest.len())].parse().ok()
    };
    Ok(Ended {
        well: output.status.success(),
        sent: last("tot_send_msgs=").unwrap_or(0),
        received: last("tot_recv_msgs=").unwrap_or(0),
        said,
    })
}
