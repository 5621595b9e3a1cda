//! Asking in clear text, over UDP and TCP.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dns_signal_proto::query::{self, Query};
use dns_signal_proto::stats::DnsStats;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::timeout;

/// The largest UDP payload there is.
const MAX_DATAGRAM: usize = 65_535;

/// What our own packets carry, if they must be told from others'; 0: nothing.
#[derive(Debug, Default)]
pub(super) struct Mark(AtomicU32);

impl Mark {
    pub(super) fn set(&self, mark: Option<u32>) {
        self.0.store(mark.unwrap_or(0), Ordering::Relaxed);
    }

    /// A socket for streams to `server`, marked.
    pub(super) fn tcp_socket(&self, server: SocketAddr) -> io::Result<TcpSocket> {
        let socket = if server.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        self.put_on(&socket)?;
        Ok(socket)
    }

    fn put_on<'s, S>(&self, socket: &'s S) -> io::Result<()>
    where
        SockRef<'s>: From<&'s S>,
    {
        match self.0.load(Ordering::Relaxed) {
            0 => Ok(()),
            mark => SockRef::from(socket).set_mark(mark),
        }
    }
}

pub(super) async fn ask_udp(
    server: SocketAddr,
    mark: &Mark,
    message: &[u8],
    query: &Query,
    stats: &DnsStats,
) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind(SocketAddr::new(any_address(server), 0)).await?;
    mark.put_on(&socket)?;
    socket.connect(server).await?;
    let (asked, id) = with_random_id(message)?;
    socket.send(&asked).await?;
    // Room that nobody has to zero.
    let mut answer = Vec::with_capacity(MAX_DATAGRAM);
    loop {
        answer.clear();
        socket.recv_buf(&mut answer).await?;
        if query::is_answer_to(&answer, id, &query.question) {
            query::set_id(&mut answer, query.id);
            return Ok(answer);
        }
        stats.upstream_mismatches.count();
    }
}

pub(super) async fn ask_tcp(
    server: SocketAddr,
    mark: &Mark,
    message: &[u8],
    query: &Query,
    patience: Duration,
) -> io::Result<Vec<u8>> {
    let (asked, id) = with_random_id(message)?;
    let socket = mark.tcp_socket(server)?;
    let mut stream = timeout(patience, socket.connect(server)).await??;
    stream.set_nodelay(true)?;
    let mut framed = Vec::with_capacity(asked.len() + 2);
    frame(&asked, &mut framed)?;
    stream.write_all(&framed).await?;
    let length = usize::from(stream.read_u16().await?);
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    if !query::is_answer_to(&answer, id, &query.question) {
        return Err(io::Error::other("the answer is to another question"));
    }
    query::set_id(&mut answer, query.id);
    Ok(answer)
}

/// Appends a message as streams carry it: after its length
/// ([RFC 7766 section 8](https://www.rfc-editor.org/rfc/rfc7766#section-8)).
pub(super) fn frame(message: &[u8], onto: &mut Vec<u8>) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    onto.extend_from_slice(&length.to_be_bytes());
    onto.extend_from_slice(message);
    Ok(())
}

fn with_random_id(message: &[u8]) -> io::Result<(Vec<u8>, u16)> {
    let mut random = [0; 2];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let id = u16::from_ne_bytes(random);
    let mut message = message.to_vec();
    query::set_id(&mut message, id);
    Ok((message, id))
}

fn any_address(like: SocketAddr) -> IpAddr {
    match like {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
