//! A `turn-relay` on loopback, and its counters.

use crate::binaries;
use anyhow::{Context as _, Result, bail, ensure};
use lab::wait;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const START: Duration = Duration::from_secs(10);

/// The user it knows, and the secret that further ones can be minted from.
pub const USER: (&str, &str) = ("alice", "wonderland");
pub const SECRET: &str = "a secret for the tests";
pub const REALM: &str = "west";

/// Ends with its value.
#[derive(Debug)]
pub struct Relay {
    child: Child,
    /// Where it listens over UDP: IPv4, IPv6.
    pub listen: Vec<SocketAddr>,
    /// Over TCP, likewise.
    pub tcp: Vec<SocketAddr>,
    /// Over TLS, likewise, with a certificate that nobody has to trust.
    pub tls: Vec<SocketAddr>,
    /// Over DTLS, likewise.
    pub dtls: Vec<SocketAddr>,
    admin: SocketAddr,
    directory: TempDir,
}

impl Relay {
    /// Listens on 127.0.0.1 and ::1, relays there, and allows peers there.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// The same with further flags.
    pub fn start_with(more: &[&str]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let secret = directory.path().join("secret");
        std::fs::write(&secret, SECRET)?;
        let made =
            rcgen::generate_simple_self_signed(vec!["relay.example".into(), "127.0.0.1".into()])?;
        let (certificate, key) = (
            directory.path().join("certificate.pem"),
            directory.path().join("key.pem"),
        );
        std::fs::write(&certificate, made.cert.pem())?;
        std::fs::write(&key, made.signing_key.serialize_pem())?;
        let log = directory.path().join("log");
        let child = Command::new(binaries().join("turn-relay"))
            .args(["--listen", "udp://127.0.0.1:0", "--listen", "udp://[::1]:0"])
            .args(["--listen", "tcp://127.0.0.1:0", "--listen", "tcp://[::1]:0"])
            .args(["--listen", "tls://127.0.0.1:0", "--listen", "tls://[::1]:0"])
            .args(["--listen", "dtls://127.0.0.1:0"])
            .args(["--listen", "dtls://[::1]:0"])
            .arg("--certificate-file")
            .arg(certificate)
            .arg("--key-file")
            .arg(key)
            .args(["--admin", "127.0.0.1:0", "--realm", REALM])
            .args(["--user", &format!("{}:{}", USER.0, USER.1)])
            .arg("--auth-secret-file")
            .arg(secret)
            .args(["--allow-peer", "127.0.0.0/8", "--allow-peer", "::1/128"])
            .args(more)
            .stdin(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("starting turn-relay")?;
        let mut relay = Self {
            child,
            listen: Vec::new(),
            tcp: Vec::new(),
            tls: Vec::new(),
            dtls: Vec::new(),
            admin: ([127, 0, 0, 1], 0).into(),
            directory,
        };
        relay.admin = wait::until("the admin port", START, || {
            ensure!(relay.child.try_wait()?.is_none(), relay.log()?);
            Ok(relay.logged("admin port address=")?.pop())
        })?;
        relay.listen = relay.logged("listening address=udp://")?;
        relay.tcp = relay.logged("listening address=tcp://")?;
        relay.tls = relay.logged("listening address=tls://")?;
        relay.dtls = relay.logged("listening address=dtls://")?;
        wait::until_true("readiness", START, || {
            Ok(relay.get("/readyz")?.starts_with("HTTP/1.1 200"))
        })?;
        Ok(relay)
    }

    /// Its certificate, which it signed itself, as PEM.
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("certificate.pem")
    }

    fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.directory.path().join("log"))?)
    }

    /// How datagrams come and go, as it says itself.
    pub fn io(&self) -> Result<String> {
        let log = self.log()?;
        let found = log.lines().find_map(|line| line.split_once(" io="));
        let (_, rest) = found.context("it does not say")?;
        let word = rest.split_whitespace().next();
        Ok(word.unwrap_or_default().to_owned())
    }

    fn logged(&self, before: &str) -> Result<Vec<SocketAddr>> {
        let log = self.log()?;
        let found = log.lines().filter_map(|line| line.split_once(before));
        found
            .map(|(_, address)| Ok(address.trim().parse()?))
            .collect()
    }

    fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.admin)?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n"
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    /// A metric, named without the prefix `turn_relay_`, with its labels as they are written.
    pub fn metric(&self, name: &str) -> Result<u64> {
        let text = self.get("/metrics")?;
        for line in text.lines() {
            let Some((metric, value)) = line.rsplit_once(' ') else {
                continue;
            };
            if metric.strip_prefix("turn_relay_") == Some(name) {
                return Ok(value.parse()?);
            }
        }
        bail!("there is no metric {name}")
    }

    /// Waits for a value of a metric: they are published every 20 ms.
    pub fn wait_for(&self, name: &str, right: impl Fn(u64) -> bool) -> Result<()> {
        wait::until(name, START, || {
            let value = self.metric(name)?;
            ensure!(right(value), "{name} is {value}");
            Ok(Some(()))
        })
    }

    /// Waits until it counted so many relayed packets and bytes, to peers and to clients.
    pub fn wait_for_relayed(&self, packets: u64, bytes: u64) -> Result<()> {
        let expected = [packets, bytes, packets, bytes];
        wait::until("the relay's own counters", START, || {
            let counted = [
                self.metric("relayed_packets_total{direction=\"to_peer\"}")?,
                self.metric("relayed_bytes_total{direction=\"to_peer\"}")?,
                self.metric("relayed_packets_total{direction=\"to_client\"}")?,
                self.metric("relayed_bytes_total{direction=\"to_client\"}")?,
            ];
            ensure!(counted == expected, "{counted:?}, not {expected:?}");
            Ok(Some(()))
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
