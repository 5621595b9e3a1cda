//! Echo over TCP and UDP, and "who am I" over UDP.
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::thread;

use anyhow::{Context as _, Result};
use lab::plan::{OBSERVE_PORT, TCP_ECHO_PORT, UDP_ECHO_PORT};
use nix::ifaddrs::getifaddrs;

const DATAGRAM_MAX: usize = 65_535;

/// Starts all of them on threads of their own.
pub(crate) fn serve() -> Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, TCP_ECHO_PORT))
        .context("listening for TCP echo")?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that breaks is the other side's affair.
            thread::spawn(move || io::copy(&mut &stream, &mut &stream));
        }
    });
    // One socket per address, so that an answer leaves from the address that was asked.
    for address in own_addresses()? {
        answer(SocketAddr::new(address, UDP_ECHO_PORT), |payload, _| {
            payload.to_vec()
        })?;
        answer(SocketAddr::new(address, OBSERVE_PORT), |_, from| {
            from.to_string().into_bytes()
        })?;
    }
    Ok(())
}

fn own_addresses() -> Result<Vec<IpAddr>> {
    let interfaces = getifaddrs().context("reading interface addresses")?;
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address
            .as_sockaddr_in()
            .map(|address| IpAddr::V4(address.ip()));
        let v6 = address
            .as_sockaddr_in6()
            .map(nix::sys::socket::SockaddrIn6::ip);
        v4.or(v6.filter(|ip| !ip.is_unicast_link_local()).map(IpAddr::V6))
    });
    Ok(addresses.collect())
}

fn answer(listen: SocketAddr, reply: fn(&[u8], SocketAddr) -> Vec<u8>) -> Result<()> {
    let socket = UdpSocket::bind(listen).with_context(|| format!("listening on {listen}"))?;
    thread::spawn(move || {
        let mut buffer = vec![0; DATAGRAM_MAX];
        loop {
            // An error here is an ICMP message about an earlier answer.
            if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&reply(&buffer[..length], from), from);
            }
        }
    });
    Ok(())
}
