//! Every mode that `turnutils_uclient` has, as Debian ships it, against our relay and against coturn's own server in the
//! same run: where it completes against coturn, it completes against ours. The table is printed.
//!
//! "Completes": it ends with exit code 0, and every message that it counted came back. A mode that fails is tried once
//! more, on both sides alike: the client gives up early on a busy machine. With DTLS and mobility it is tried often: at
//! random the client comes back with DTLS 1.0 (which RFC 8996 retired), and ends when that is refused.

use anyhow::{Context as _, Result, ensure};
use interop::coturn::{Ended, Peer, Server, uclient};
use interop::relay::Relay;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use turnpike_interop as interop;

/// Most of the time each of them waits.
const AT_ONCE: usize = 6;
const SECONDS: u32 = 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
    Tls,
    Dtls,
}

/// A way to run it. Without `y` in its flags it talks to `turnutils_peer`.
#[derive(Debug, Clone, Copy)]
struct Mode {
    over: Transport,
    flags: &'static str,
    ipv6: bool,
    /// With `-R` it overwrites some bytes of a tenth of what it sends, sends the same again when nothing comes, and waits for
    /// ever: luck decides whether it completes. See [`BY_CHANCE`].
    by_chance: bool,
    /// How often at most.
    tries: usize,
}

/// Why coturn's luck is better: of 3 000 Allocates with a FINGERPRINT that were damaged so, a fifth had an attribute
/// that did not end within the message. coturn, which then finds no FINGERPRINT, answers them 401, and the client begins
/// anew; what is left of them both servers ignore or answer alike.
const BY_CHANCE: &str = "with -R luck decides: of damaged messages, those that are not STUN any more (RFC 8489 section \
    6.3) are ignored here, while coturn answers some of them, whose attributes are broken, by 401";

const fn mode(over: Transport, flags: &'static str) -> Mode {
    Mode {
        over,
        flags,
        ipv6: false,
        by_chance: false,
        tries: 2,
    }
}

const fn ipv6(over: Transport, flags: &'static str) -> Mode {
    Mode {
        ipv6: true,
        ..mode(over, flags)
    }
}

const fn by_chance(mode: Mode) -> Mode {
    Mode {
        by_chance: true,
        // Luck is not forced.
        tries: 1,
        ..mode
    }
}

const fn often(mode: Mode) -> Mode {
    Mode { tries: 20, ..mode }
}

use Transport::{Dtls, Tcp, Tls, Udp};

const MODES: &[Mode] = &[
    // Pairs of ports, which is EVEN-PORT and RESERVATION-TOKEN; one port; indications; between two of its own.
    mode(Udp, ""),
    mode(Udp, "-c"),
    mode(Udp, "-s"),
    mode(Udp, "-y"),
    mode(Udp, "-y -s -c"),
    mode(Tcp, ""),
    mode(Tcp, "-s -c"),
    mode(Tcp, "-y -c"),
    mode(Tls, "-c"),
    mode(Tls, "-s -c"),
    mode(Tls, "-y -c"),
    mode(Dtls, ""),
    mode(Dtls, "-s -c"),
    mode(Dtls, "-y -c"),
    // IPv6, and IPv4 asked for by name.
    ipv6(Udp, "-x"),
    ipv6(Udp, "-x -y -s"),
    ipv6(Tcp, "-x -c"),
    ipv6(Tls, "-x -c"),
    ipv6(Dtls, "-x -c"),
    mode(Udp, "-X -c"),
    // Both families in one allocation.
    mode(Udp, "-Z"),
    mode(Udp, "-Z -y"),
    mode(Tcp, "-Z -y"),
    // DONT-FRAGMENT, padding, further requests, random ends, bandwidth, origin, no permissions.
    mode(Udp, "-g -c"),
    mode(Udp, "-D -c"),
    mode(Tcp, "-D -c"),
    mode(Udp, "-G -c"),
    mode(Tcp, "-G -c"),
    mode(Tls, "-G -c"),
    mode(Udp, "-B"),
    mode(Tcp, "-D -B -c"),
    mode(Dtls, "-D -G -B -c"),
    mode(Udp, "-a 100000 -c"),
    mode(Udp, "-o http://relay.example -c"),
    mode(Udp, "-I -c"),
    // RFC 6062: TCP to the peer, asked for by the client and by the peer.
    mode(Tcp, "-T"),
    mode(Tcp, "-T -D -G"),
    mode(Tcp, "-T -B"),
    mode(Tls, "-T"),
    ipv6(Tcp, "-x -T"),
    mode(Tcp, "-P"),
    // RFC 8016.
    mode(Udp, "-M -c"),
    mode(Udp, "-M -y"),
    ipv6(Udp, "-x -M -y"),
    mode(Tcp, "-M -c"),
    often(mode(Dtls, "-M -y -c")),
    // What should go wrong, and connecting in a hurry.
    mode(Udp, "-N -c"),
    mode(Udp, "-N -y"),
    by_chance(mode(Udp, "-R -c")),
    by_chance(mode(Tcp, "-R -c")),
    mode(Udp, "-O"),
    mode(Tcp, "-O"),
];

impl Mode {
    fn shown(&self) -> String {
        let secure = match self.over {
            Udp => "",
            Tcp => "-t ",
            Tls => "-t -S ",
            Dtls => "-S ",
        };
        format!("{secure}{}", self.flags).trim().to_owned()
    }

    fn run(&self, server: SocketAddr, peers: [&Peer; 2]) -> Result<Ended> {
        let shown = self.shown();
        let mut flags: Vec<&str> = shown.split_whitespace().collect();
        let peer = peers[usize::from(self.ipv6)].address;
        let (ip, port) = (peer.ip().to_string(), peer.port().to_string());
        let own_peers = ["-y", "-T", "-P"];
        if !flags.iter().any(|flag| own_peers.contains(flag)) {
            flags.extend(["-e", &ip, "-r", &port]);
        }
        flags.extend(["-m", "1", "-n", "3", "-l", "130"]);
        let mut ended = uclient(SECONDS, server, &flags)?;
        for _ in 1..self.tries {
            if ended.completed() {
                break;
            }
            ended = uclient(SECONDS, server, &flags)?;
        }
        Ok(ended)
    }
}

/// Where a mode finds our relay; nowhere if it does not listen for it.
fn ours(relay: &Relay, mode: &Mode) -> Option<SocketAddr> {
    let listen = match mode.over {
        Udp => &relay.listen,
        Tcp => &relay.tcp,
        Tls => &relay.tls,
        Dtls => &relay.dtls,
    };
    let mut listen = listen.iter();
    listen
        .find(|address| address.is_ipv6() == mode.ipv6)
        .copied()
}

/// How a mode went: against ours, against coturn.
type Row = (Option<Ended>, Ended);

fn run(mode: &Mode, relay: &Relay, coturn: &Server, peers: [&Peer; 2]) -> Result<Row> {
    let ip: IpAddr = if mode.ipv6 { "::1" } else { "127.0.0.1" }.parse()?;
    let port = match mode.over {
        Udp | Tcp => coturn.plain,
        Tls | Dtls => coturn.secure,
    };
    let theirs = mode.run(SocketAddr::new(ip, port), peers)?;
    let ours = match ours(relay, mode) {
        Some(server) => Some(mode.run(server, peers)?),
        None => None,
    };
    Ok((ours, theirs))
}

/// All modes, some at once, in the order of the table.
fn run_all(relay: &Relay, coturn: &Server, peers: [&Peer; 2]) -> Result<Vec<Row>> {
    let next = AtomicUsize::new(0);
    let rows = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((at, mode)) = {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    MODES.get(at).map(|mode| (at, mode))
                } {
                    let row = run(mode, relay, coturn, peers);
                    rows.lock().expect("no thread panicked").push((at, row));
                }
            });
        }
    });
    let mut rows = rows.into_inner().expect("no thread panicked");
    rows.sort_by_key(|(at, _)| *at);
    rows.into_iter().map(|(_, row)| row).collect()
}

fn word(ended: Option<&Ended>) -> String {
    match ended {
        None => "-".to_owned(),
        Some(ended) if ended.completed() && ended.sent == 0 => "completes".to_owned(),
        Some(ended) if ended.completed() => {
            format!("completes, {} of {}", ended.received, ended.sent)
        }
        Some(ended) if ended.well => format!("{} of {}", ended.received, ended.sent),
        Some(_) => "fails".to_owned(),
    }
}

#[test]
fn where_uclient_completes_against_coturn_it_completes_against_us() -> Result<()> {
    let relay = Relay::start()?;
    let coturn = Server::start()?;
    let peers = [
        Peer::start("127.0.0.1".parse()?)?,
        Peer::start("::1".parse()?)?,
    ];
    let rows = run_all(&relay, &coturn, [&peers[0], &peers[1]])?;

    let mut wrong = String::new();
    println!("| turnutils_uclient | turn-relay | coturn |\n|---|---|---|");
    for (mode, (ours, theirs)) in MODES.iter().zip(&rows) {
        let completes = ours.as_ref().is_some_and(Ended::completed);
        let shown = mode.shown();
        println!(
            "| {shown} | {} | {} |",
            word(ours.as_ref()),
            word(Some(theirs))
        );
        if theirs.completed() && !completes && !mode.by_chance {
            let said = ours.as_ref().map(|ended| ended.said.as_str());
            let said = said.unwrap_or("no listener");
            writeln!(wrong, "{shown} does not complete against us: {said}")?;
        }
    }
    println!("{BY_CHANCE}");
    ensure!(wrong.is_empty(), "{wrong}");
    // Whatever was damaged, nobody else notices.
    for over in [Udp, Tcp] {
        let server = ours(&relay, &mode(over, "")).context("a listener")?;
        let after = mode(over, "-c").run(server, [&peers[0], &peers[1]])?;
        ensure!(after.completed(), "afterwards: {}", after.said);
    }
    Ok(())
}
