//! `turnutils_uclient`, coturn's test client, as Debian ships it, with `turnutils_peer` as the peer that sends all back.
//! Over UDP, TCP (`-t`) and TLS (`-t -S`), and with TCP to peers (`-T`).
//!
//! With `-o`, it says where it comes from, and so which realm it is for.
//!
//! DTLS (`-S` alone) is in the matrix. `-R` and `-N`
//! do not complete against coturn itself; with peers that connect (`-P`) half of the messages are lost there and here. Over TLS it takes what one `SSL_read` gives for one message: it needs each in
//! a record of its own.
//!
//! For each allocation it draws two channel numbers, for two peers, out of 16 384, and does not look whether they are the
//! same: then it is told so (400, RFC 8656 section 12.2), and ends. Such a run is done again.
//!
//! Its allocations with both families (`-Z`) are left out: it asks for them with attribute 0x8032 of an old draft, which RFC
//! 8656 made 0x8000.

use anyhow::{Context as _, Result, ensure};
use interop::relay::{REALM, Relay, SECRET, USER};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use turnpike_interop as interop;

/// Clients, messages of each, bytes of each.
const CLIENTS: u64 = 4;
const MESSAGES: u64 = 10;
const LENGTH: u64 = 170;

struct Peer(Child);

impl Peer {
    fn start(address: SocketAddr) -> Result<Self> {
        let child = Command::new("turnutils_peer")
            .args(["-L", &address.ip().to_string()])
            .args(["-p", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("turnutils_peer, of Debian's package coturn")?;
        let peer = Self(child);
        let probe = UdpSocket::bind(SocketAddr::new(address.ip(), 0))?;
        probe.set_read_timeout(Some(std::time::Duration::from_millis(50)))?;
        lab::wait::until_true("the peer", std::time::Duration::from_secs(5), || {
            probe.send_to(b"there?", address)?;
            Ok(probe.recv(&mut [0; 16]).is_ok())
        })?;
        Ok(peer)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that was free a moment ago.
fn free(ip: &str) -> Result<SocketAddr> {
    let socket = UdpSocket::bind(SocketAddr::new(ip.parse()?, 0))?;
    Ok(socket.local_addr()?)
}

/// Sends messages and wants each of them back, and the relay to have counted each.
fn all_come_back(ip: &str, flags: &[&str]) -> Result<()> {
    let relay = Relay::start()?;
    all_come_back_from(&relay, "udp", &relay.listen, ip, flags)
}

/// The same over TCP.
fn all_come_back_over_tcp(ip: &str, flags: &[&str]) -> Result<()> {
    let relay = Relay::start()?;
    let flags = [&["-t"], flags].concat();
    all_come_back_from(&relay, "tcp", &relay.tcp, ip, &flags)
}

/// And over TLS.
fn all_come_back_over_tls(ip: &str, flags: &[&str]) -> Result<()> {
    let relay = Relay::start()?;
    let flags = [&["-t", "-S"], flags].concat();
    all_come_back_from(&relay, "tls", &relay.tls, ip, &flags)
}

fn all_come_back_from(
    relay: &Relay,
    transport: &str,
    listen: &[SocketAddr],
    ip: &str,
    flags: &[&str],
) -> Result<()> {
    let address = free(ip)?;
    let _peer = Peer::start(address)?;
    let server = listen
        .iter()
        .find(|listen| listen.is_ipv4() == address.is_ipv4())
        .context("a listener of the family")?;
    let run = || {
        Command::new("timeout")
            .args(["60", "turnutils_uclient"])
            .args(flags)
            .args(["-r", &address.port().to_string(), "-e", ip])
            .args(["-p", &server.port().to_string()])
            .args(["-m", &CLIENTS.to_string(), "-n", &MESSAGES.to_string()])
            .args(["-l", &LENGTH.to_string()])
            .arg(ip)
            .output()
            .context("turnutils_uclient, of Debian's package coturn")
    };
    let mut output = run()?;
    // Before it has sent anything to a peer.
    if String::from_utf8_lossy(&output.stdout).contains("channel bind: error 400") {
        output = run()?;
    }
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{}: {text}", output.status);
    let total = CLIENTS * MESSAGES;
    let all = format!("tot_send_msgs={total}, tot_recv_msgs={total}");
    ensure!(text.contains(&all), "not all came back: {text}");
    ensure!(text.contains("Total lost packets 0 "), "{text}");
    relay.wait_for_relayed(total, total * LENGTH)?;
    for direction in ["to_peer", "to_client"] {
        let labels = format!("transport=\"{transport}\",direction=\"{direction}\"");
        relay.wait_for(&format!("client_packets_total{{{labels}}}"), |count| {
            count == total
        })?;
    }
    // Each connection ended, and its allocation with it, if the client did not end that first.
    relay.wait_for("allocations", |count| transport == "udp" || count == 0)
}

/// A TCP peer that sends all back, for as long as the test runs.
fn echo() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Ends with its connection.
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    Ok(address)
}

/// TCP to peers (RFC 6062): all come back, and the relay has carried each, and nothing is left.
fn all_come_back_from_tcp_peers(transport: &str, flags: &[&str]) -> Result<()> {
    let relay = Relay::start()?;
    let peer = echo()?;
    let server = if transport == "tls" {
        relay.tls[0]
    } else {
        relay.tcp[0]
    };
    let output = Command::new("timeout")
        .args(["60", "turnutils_uclient", "-t", "-T"])
        .args(flags)
        .args(user())
        .args(["-e", "127.0.0.1", "-r", &peer.port().to_string()])
        .args(["-p", &server.port().to_string()])
        .args(["-m", &CLIENTS.to_string(), "-n", &MESSAGES.to_string()])
        .args(["-l", &LENGTH.to_string(), "127.0.0.1"])
        .output()
        .context("turnutils_uclient, of Debian's package coturn")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{}: {text}", output.status);
    let total = CLIENTS * MESSAGES;
    let all = format!("tot_send_msgs={total}, tot_recv_msgs={total}");
    ensure!(text.contains(&all), "not all came back: {text}");
    for direction in ["to_peer", "to_client"] {
        let labels = format!("transport=\"{transport}\",direction=\"{direction}\"");
        relay.wait_for(&format!("joined_bytes_total{{{labels}}}"), |bytes| {
            bytes >= total * LENGTH
        })?;
    }
    relay.wait_for("allocations", |count| count == 0)
}

fn user() -> [&'static str; 4] {
    ["-u", USER.0, "-w", USER.1]
}

#[test]
fn channels_with_pairs_of_ports() -> Result<()> {
    all_come_back("127.0.0.1", &user())
}

#[test]
fn send_and_data_indications() -> Result<()> {
    let flags = [&user()[..], &["-s", "-c"]].concat();
    all_come_back("127.0.0.1", &flags)
}

#[test]
fn channels_over_ipv6() -> Result<()> {
    let flags = [&user()[..], &["-x", "-c"]].concat();
    all_come_back("::1", &flags)
}

#[test]
fn over_tcp_with_pairs_of_ports() -> Result<()> {
    all_come_back_over_tcp("127.0.0.1", &user())
}

#[test]
fn over_tcp_with_indications() -> Result<()> {
    let flags = [&user()[..], &["-s", "-c"]].concat();
    all_come_back_over_tcp("127.0.0.1", &flags)
}

#[test]
fn over_tcp_with_mandatory_padding() -> Result<()> {
    let flags = [&user()[..], &["-c", "-D", "-B"]].concat();
    all_come_back_over_tcp("127.0.0.1", &flags)
}

#[test]
fn over_tcp_over_ipv6() -> Result<()> {
    let flags = [&user()[..], &["-x", "-c"]].concat();
    all_come_back_over_tcp("::1", &flags)
}

#[test]
fn over_tls_with_pairs_of_ports() -> Result<()> {
    all_come_back_over_tls("127.0.0.1", &user())
}

#[test]
fn over_tls_with_indications() -> Result<()> {
    let flags = [&user()[..], &["-s", "-c"]].concat();
    all_come_back_over_tls("127.0.0.1", &flags)
}

#[test]
fn over_tls_over_ipv6() -> Result<()> {
    let flags = [&user()[..], &["-x", "-c"]].concat();
    all_come_back_over_tls("::1", &flags)
}

#[test]
fn tcp_to_a_peer() -> Result<()> {
    all_come_back_from_tcp_peers("tcp", &[])
}

#[test]
fn tcp_from_client_to_client() -> Result<()> {
    all_come_back_from_tcp_peers("tcp", &["-y"])
}

#[test]
fn tcp_to_a_peer_over_tls() -> Result<()> {
    all_come_back_from_tcp_peers("tls", &["-S"])
}

#[test]
fn a_user_minted_from_the_secret() -> Result<()> {
    all_come_back("127.0.0.1", &["-u", "west/app", "-W", SECRET, "-c"])
}

/// `-o`: whom ORIGIN leads to another realm, which is the only one that knows the user.
#[test]
fn a_user_of_the_realm_that_the_origin_leads_to() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (users, config) = (
        directory.path().join("users"),
        directory.path().join("config"),
    );
    std::fs::write(&users, "tenant:of acme\n")?;
    let realm = format!(
        "[[realms]]\nname = 'acme'\norigins = ['https://acme.example']\n\
         users-file = {users:?}\nallow-peers = ['127.0.0.0/8']\n"
    );
    std::fs::write(&config, realm)?;
    let config = config.to_str().context("a path in UTF-8")?;
    let relay = Relay::start_with(&["--config", config])?;
    let flags = [
        "-o",
        "https://acme.example",
        "-u",
        "tenant",
        "-w",
        "of acme",
        "-c",
    ];
    all_come_back_from(&relay, "udp", &relay.listen, "127.0.0.1", &flags)?;
    let total = CLIENTS * MESSAGES * LENGTH;
    let labels = "realm=\"acme\",direction=\"to_peer\"";
    relay.wait_for(&format!("realm_bytes_total{{{labels}}}"), |count| {
        count == total
    })
}

#[test]
fn a_wrong_password_gets_nothing() -> Result<()> {
    let relay = Relay::start()?;
    let server = relay.listen[0];
    let output = Command::new("timeout")
        .args(["20", "turnutils_uclient", "-u", USER.0, "-w", "wrong", "-c"])
        .args(["-e", "127.0.0.1", "-p", &server.port().to_string()])
        .args(["-m", "1", "-n", "1", "127.0.0.1"])
        .output()
        .context("turnutils_uclient, of Debian's package coturn")?;
    ensure!(!output.status.success(), "realm {REALM}: it should give up");
    ensure!(relay.metric("allocations_created_total")? == 0);
    // The challenge, and the refusal.
    relay.wait_for("error_responses_total{code=\"401\"}", |count| count > 1)
}
