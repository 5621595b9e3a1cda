//! Port 53 turned here by nftables: catches also programs that ask a resolver of their own choice.
//!
//! The table has the flag `owner`: it belongs to the netlink socket that made it, and goes with it. So `nft` is kept
//! running, reading commands from a pipe; when this process ends in whatever way, the pipe closes, `nft` ends, and the kernel
//! removes the table. Nothing is left that someone would have to clean up.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use service_kit::nft;
use socket2::SockRef;

use super::{Around, reached_at};

/// Of the packets of this process's own queries: they pass. Not one of the bits that Kubernetes, Cilium, Tailscale or Istio
/// look at.
pub const MARK: u32 = 0x1053_0000;
/// A process before this one may need this long until its table is gone.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(20);

/// The table, while this lives.
#[derive(Debug)]
pub struct Redirect {
    // Closed to end `nft`.
    commands: Option<ChildStdin>,
    watcher: Option<JoinHandle<()>>,
    ends: Arc<AtomicBool>,
    how: String,
}

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.how)
    }
}

impl Redirect {
    /// Makes the table.
    ///
    /// # Errors
    /// When this process may not, there is no `nft`, or kernel or `nft` are too old.
    pub fn start(around: &Around<'_>) -> anyhow::Result<Self> {
        may_mark().context("cannot mark packets: it needs CAP_NET_ADMIN")?;
        let name = format!("turnpike_dns_{}", std::process::id());
        let (table, how) = table(&name, around)?;
        let (mut child, commands) = make(&name, &table)?;
        let ends = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ends);
        let watcher = thread::Builder::new()
            .name("nft".to_owned())
            .spawn(move || {
                let ended = child.wait();
                if !told.load(Ordering::Relaxed) {
                    tracing::error!(
                        ?ended,
                        "nft ended, and with it the interception of DNS; restart dns-signal"
                    );
                }
            })
            .context("cannot start a thread")?;
        Ok(Self {
            commands: Some(commands),
            watcher: Some(watcher),
            ends,
            how,
        })
    }
}

impl Drop for Redirect {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        drop(self.commands.take());
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
    }
}

fn may_mark() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    SockRef::from(&socket).set_mark(MARK)
}

/// Starts `nft` and waits until the table is there.
fn make(name: &str, table: &str) -> anyhow::Result<(Child, ChildStdin)> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut child = nft::spawn(&["-i"])?;
        let mut commands = child.stdin.take().context("no pipe to `nft`")?;
        let said = commands.write_all(format!("{table}\n").as_bytes());
        let is_there = said.is_ok() && wait_for(name, &mut child)?;
        if is_there {
            return Ok((child, commands));
        }
        drop(commands);
        let mut said = String::new();
        if let Some(mut errors) = child.stderr.take() {
            let _ = errors.read_to_string(&mut said);
        }
        let _ = child.wait();
        // A table of the same name whose owner is just ending is not ours to replace.
        if Instant::now() >= deadline {
            return Err(nft::refusal(&said));
        }
    }
}

/// Whether the table is there, after a moment at most.
fn wait_for(name: &str, child: &mut Child) -> anyhow::Result<bool> {
    let deadline = Instant::now() + PATIENCE / 6;
    while Instant::now() < deadline {
        let listed = Command::new("nft")
            .args(["list", "chain", "inet", name, "output"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .context("cannot run `nft`")?;
        if listed.success() {
            return Ok(true);
        }
        if child.try_wait().context("cannot wait for `nft`")?.is_some() {
            return Ok(false);
        }
        thread::sleep(PAUSE);
    }
    Ok(false)
}

/// The table in one line, and what it does.
fn table(name: &str, around: &Around<'_>) -> anyhow::Result<(String, String)> {
    let here = |of_family: fn(&SocketAddr) -> bool| {
        let found = around.listen.iter().copied().find(of_family);
        found.map(reached_at)
    };
    let (ipv4, ipv6) = (here(SocketAddr::is_ipv4), here(SocketAddr::is_ipv6));
    let mut rules = vec![
        format!("meta mark {MARK:#x} return"),
        format!("ip daddr {} return", around.pools.ipv4()),
        format!("ip6 daddr {} return", around.pools.ipv6()),
    ];
    let mut how = String::from("nftables redirects port 53");
    // A resolver on this host asks others in its turn; were that turned here too, it would go round.
    if around.upstreams.iter().any(|it| it.ip().is_loopback()) {
        rules.push("ip daddr != 127.0.0.0/8 return".to_owned());
        rules.push("ip6 daddr != ::1 return".to_owned());
        how += " of loopback only, for an upstream is on this host";
    }
    for (family, address) in [("ip", ipv4), ("ip6", ipv6)] {
        let Some(address) = address else { continue };
        let protocol = if family == "ip" { "ipv4" } else { "ipv6" };
        for transport in ["udp", "tcp"] {
            rules.push(format!(
                "meta nfproto {protocol} {transport} dport 53 dnat {family} to {address}"
            ));
        }
    }
    how += match (ipv4, ipv6) {
        (Some(_), Some(_)) => "",
        (Some(_), None) => ", over IPv4 only, as `dns.listen` says",
        (None, Some(_)) => ", over IPv6 only, as `dns.listen` says",
        (None, None) => bail!("there is no address to turn queries to"),
    };
    let rules = rules.join("; ");
    // Before the usual priority of destination NAT, where container engines put their own resolver.
    let table = format!(
        "table inet {name} {{ flags owner; chain output {{ type nat hook output priority -105; policy accept; {rules}; }}; }}"
    );
    Ok((table, how))
}
