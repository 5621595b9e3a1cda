//! What others see, and what else is on this machine.

use super::{Finding, askable, seconds};
use crate::config::Settings;
use net::Clock;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;
use stun_types::attribute::XorMappedAddress;
use stun_types::message::{BINDING, Message, MessageWrite, MessageWriteExt, MessageWriteVec};
use time::PrimitiveDateTime;
use time::macros::format_description;

/// How long an answer is waited for, and how often is asked.
const PATIENCE: Duration = Duration::from_millis(700);
const ATTEMPTS: usize = 3;
/// TURN credentials are good for hours, and certificates for days.
const CLOCK_TOLERANCE: i64 = 5;
const CLOCK_LIMIT: i64 = 60;

/// The address that a STUN server sees this socket at.
fn ask(socket: &UdpSocket, server: SocketAddr) -> io::Result<SocketAddr> {
    socket.set_read_timeout(Some(PATIENCE))?;
    for _ in 0..ATTEMPTS {
        let request = Message::builder_request(BINDING, MessageWriteVec::new());
        let transaction = request.transaction_id();
        socket.send_to(&request.finish(), server)?;
        let mut buffer = [0; 1_500];
        let length = match socket.recv_from(&mut buffer) {
            Ok((length, _)) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock) => continue,
            Err(error) => return Err(error),
        };
        let Ok(answer) = Message::from_bytes(&buffer[..length]) else {
            continue;
        };
        if answer.transaction_id() == transaction
            && let Ok(mapped) = answer.attribute::<XorMappedAddress>()
        {
            return Ok(mapped.addr(transaction));
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Whether each can be listened on, or is: then by a relay that answers.
pub(super) fn listeners(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    for address in &settings.listen.udp {
        let about = format!("listener udp://{address}");
        findings.push(match UdpSocket::bind(address.0) {
            Ok(_) => Finding::ok(about, "free: no relay runs there now"),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let answer = local(address.0).and_then(|socket| ask(&socket, askable(address.0)));
                match answer {
                    Ok(_) => Finding::ok(about, "a STUN server answers there"),
                    Err(error) => Finding::fail(
                        about,
                        format!("taken by something that is no STUN server ({error})"),
                        "`ss -ulpn` shows by what",
                    ),
                }
            }
            Err(error) => cannot_listen(about, &error),
        });
    }
    for (kind, address) in &settings.listen.streams {
        let about = format!("listener {kind}://{address}");
        findings.push(match TcpListener::bind(address.0) {
            Ok(_) => Finding::ok(about, "free: no relay runs there now"),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                match TcpStream::connect_timeout(&askable(address.0), PATIENCE) {
                    Ok(_) => Finding::ok(about, "something accepts connections there"),
                    Err(error) => Finding::fail(
                        about,
                        format!("taken, and takes no connections ({error})"),
                        "`ss -tlpn` shows by what",
                    ),
                }
            }
            Err(error) => cannot_listen(about, &error),
        });
    }
    findings
}

fn cannot_listen(about: String, error: &io::Error) -> Finding {
    let remedy = match error.kind() {
        io::ErrorKind::AddrNotAvailable => "use an address that `ip address` shows",
        io::ErrorKind::PermissionDenied => "a port below 1024 needs CAP_NET_BIND_SERVICE",
        _ => "choose another",
    };
    Finding::fail(about, error, remedy)
}

fn local(near: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if near.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0u16; 8], 0).into()
    };
    UdpSocket::bind(any)
}

/// The ports for relayed addresses.
pub(super) fn ports(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (low, high) = (*settings.ports.start(), *settings.ports.end());
    for address in &settings.relay_addresses {
        let ip = address.bind;
        let about = format!("relayed addresses {ip}:{low}-{high}");
        if let Err(error) = UdpSocket::bind((ip, 0)) {
            findings.push(cannot_listen(about, &error));
            continue;
        }
        let taken = settings.ports.clone();
        let taken = taken.filter(|port| UdpSocket::bind((ip, *port)).is_err());
        findings.push(match taken.count() {
            0 => Finding::ok(about, "all free"),
            some => Finding::ok(
                about,
                format!("{some} in use, by a relay that runs or by others: those are passed over"),
            ),
        });
    }
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"));
    let ephemeral = read("ip_local_port_range").unwrap_or_default();
    let mut ends = ephemeral.split_whitespace().flat_map(str::parse::<u16>);
    let reserved = read("ip_local_reserved_ports").unwrap_or_default();
    if let (Some(first), Some(last)) = (ends.next(), ends.next())
        && first <= high
        && low <= last
        && reserved.trim().is_empty()
    {
        findings.push(Finding::warn(
            "port-range",
            format!("overlaps with the ports {first}-{last} that other programs get"),
            format!("sysctl -w net.ipv4.ip_local_reserved_ports={low}-{high}"),
        ));
    }
    findings
}

/// What others see the relay addresses as.
pub(super) fn outside(settings: &Settings, servers: &[String]) -> Vec<Finding> {
    if servers.is_empty() {
        let remedy = "name a STUN server outside with --stun HOST:PORT";
        return vec![Finding::warn("address outside", "not looked at", remedy)];
    }
    let mut findings = Vec::new();
    for server in servers {
        let found = match server.to_socket_addrs() {
            Ok(addresses) => addresses.collect::<Vec<_>>(),
            Err(error) => {
                let remedy = "write HOST:PORT, for example stun.example.com:3478";
                findings.push(Finding::fail(
                    format!("STUN server {server}"),
                    error,
                    remedy,
                ));
                continue;
            }
        };
        for address in &settings.relay_addresses {
            let same = |server: &&SocketAddr| server.is_ipv4() == address.bind.is_ipv4();
            let Some(to) = found.iter().find(same) else {
                continue;
            };
            let about = format!("{} as {server} sees it", address.bind);
            let seen = UdpSocket::bind((address.bind, 0)).and_then(|socket| ask(&socket, *to));
            findings.push(seen_as(about, address.advertised, seen));
        }
    }
    findings
}

fn seen_as(about: String, told: IpAddr, seen: io::Result<SocketAddr>) -> Finding {
    match seen {
        Ok(seen) if seen.ip() == told => {
            Finding::ok(about, format!("{told}, which is what clients are told"))
        }
        Ok(seen) => Finding::fail(
            about,
            format!("{}, but clients are told {told}", seen.ip()),
            "set external-addresses, unless peers are on this side of the NAT",
        ),
        Err(error) => Finding::fail(
            about,
            format!("no answer ({error})"),
            "is UDP let out, and in again?",
        ),
    }
}

/// Expiring credentials are compared with the clock.
pub(super) fn clock(server: Option<&str>) -> Finding {
    let Some(server) = server else {
        let remedy = "name a web server with --clock HOST:PORT";
        return Finding::warn("clock", "not compared with another", remedy);
    };
    match date_of(server) {
        Ok(date) => {
            let difference = Clock.unix_time().0 as i64 - date;
            let says = format!("{} from {server}'s", seconds(difference));
            match difference.abs() {
                ..=CLOCK_TOLERANCE => Finding::ok("clock", says),
                away if away <= CLOCK_LIMIT => Finding::warn("clock", says, "run a time service"),
                _ => Finding::fail(
                    "clock",
                    says,
                    "run a time service: expiring credentials go by it",
                ),
            }
        }
        Err(error) => Finding::warn("clock", format!("{server}: {error}"), "name another server"),
    }
}

/// The Date of an answer (RFC 9110 section 6.6.1), in Unix time.
fn date_of(server: &str) -> io::Result<i64> {
    let to = server.to_socket_addrs()?.next();
    let to = to.ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mut stream = TcpStream::connect_timeout(&to, 3 * PATIENCE)?;
    stream.set_read_timeout(Some(3 * PATIENCE))?;
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    let request = format!("HEAD / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(16 << 10).read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    let date = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("date").then(|| value.trim())
    });
    let format = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let date = date.and_then(|date| PrimitiveDateTime::parse(date, format).ok());
    let date = date.ok_or_else(|| io::Error::other("its answer has no Date"))?;
    Ok(date.assume_utc().unix_timestamp())
}
