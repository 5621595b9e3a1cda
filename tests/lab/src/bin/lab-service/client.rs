//! Clients: what a workload might do that curl and ping do not.
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

const REPLY_DEADLINE: Duration = Duration::from_secs(2);
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// The first address of a name, of one family when that is asked for.
pub(crate) fn resolve(host: &str, port: u16, family: Option<u8>) -> Result<SocketAddr> {
    let addresses = (host, port)
        .to_socket_addrs()
        .with_context(|| format!("resolving {host}"))?;
    let fits = |address: &SocketAddr| match family {
        Some(4) => address.is_ipv4(),
        Some(6) => address.is_ipv6(),
        _ => true,
    };
    addresses
        .into_iter()
        .find(fits)
        .with_context(|| format!("{host} has no such address"))
}

fn socket_for(server: SocketAddr) -> Result<UdpSocket> {
    let socket = if server.is_ipv4() {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
    } else {
        UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))
    };
    let socket = socket.context("making a UDP socket")?;
    socket
        .set_read_timeout(Some(REPLY_DEADLINE))
        .context("a read timeout")?;
    Ok(socket)
}

fn pattern(length: usize, salt: usize) -> Vec<u8> {
    // The low byte of a number is what is wanted.
    (0..length)
        .map(|index| (index.wrapping_mul(31).wrapping_add(salt) & 0xff) as u8)
        .collect()
}

/// Sends datagrams of the given sizes, one after the other.
pub(crate) fn udp_echo(server: SocketAddr, sizes: &[usize], tries: u32) -> Result<()> {
    let socket = socket_for(server)?;
    socket
        .connect(server)
        .with_context(|| format!("connecting to {server}"))?;
    let mut again = 0;
    for &size in sizes {
        let sent = pattern(size, size);
        again += (0..tries)
            .find(|_| returns(&socket, &sent))
            .with_context(|| {
                format!("{size} bytes to {server} did not come back, {tries} times")
            })?;
    }
    println!(
        "{} datagrams came back from {server}, {again} sent again",
        sizes.len()
    );
    Ok(())
}

fn returns(socket: &UdpSocket, sent: &[u8]) -> bool {
    if socket.send(sent).is_err() {
        return false;
    }
    let deadline = Instant::now() + REPLY_DEADLINE;
    let mut buffer = vec![0; 65_535];
    // Late answers to earlier datagrams are passed over.
    while Instant::now() < deadline {
        match socket.recv(&mut buffer) {
            Ok(length) if buffer[..length] == *sent => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}

/// All connections are open before the first byte is sent.
pub(crate) fn tcp_echo(server: SocketAddr, connections: usize, bytes: usize) -> Result<()> {
    let barrier = Arc::new(Barrier::new(connections));
    let threads: Vec<_> = (0..connections)
        .map(|index| {
            let barrier = Arc::clone(&barrier);
            thread::spawn(move || {
                let stream = TcpStream::connect_timeout(&server, CONNECT_DEADLINE);
                barrier.wait();
                let stream = stream.with_context(|| format!("connection {index} to {server}"))?;
                exchange(stream, &pattern(bytes, index))
            })
        })
        .collect();
    let mut failed = Vec::new();
    for thread in threads {
        if let Err(error) = thread.join().map_err(|_| anyhow!("a thread panicked"))? {
            failed.push(format!("{error:#}"));
        }
    }
    if let Some(first) = failed.first() {
        bail!(
            "{} of {connections} connections failed, one of them: {first}",
            failed.len()
        );
    }
    println!("{connections} connections at once, {bytes} bytes each, all came back");
    Ok(())
}

fn exchange(mut stream: TcpStream, sent: &[u8]) -> Result<()> {
    stream
        .set_read_timeout(Some(CONNECT_DEADLINE))
        .context("a read timeout")?;
    let mut writer = stream.try_clone().context("a second handle")?;
    let mut received = vec![0; sent.len()];
    let writing = {
        let sent = sent.to_owned();
        thread::spawn(move || writer.write_all(&sent))
    };
    stream.read_exact(&mut received).context("reading back")?;
    writing
        .join()
        .map_err(|_| anyhow!("a thread panicked"))?
        .context("sending")?;
    ensure!(received == sent, "what came back differs");
    Ok(())
}

/// One line per server: the address it saw.
pub(crate) fn observe(servers: &[SocketAddr]) -> Result<()> {
    let socket = socket_for(servers[0])?;
    for &server in servers {
        socket
            .send_to(b"?", server)
            .with_context(|| format!("asking {server}"))?;
        let mut buffer = [0; 100];
        let (length, from) = socket
            .recv_from(&mut buffer)
            .with_context(|| format!("no answer from {server}"))?;
        ensure!(from == server, "{from} answered for {server}");
        println!("{}", String::from_utf8_lossy(&buffer[..length]));
    }
    Ok(())
}

/// Bytes of a record of [`sequence`]: its number, and a pattern that begins with it.
const RECORD: usize = 512;
const EVERY: Duration = Duration::from_millis(5);
/// A connection on which nothing comes back for so long is lost.
const LOST_AFTER: Duration = Duration::from_secs(20);

/// Prints one line of JSON: records that came back, and the longest pause between two of them in milliseconds.
pub(crate) fn sequence(server: SocketAddr, length: Duration) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&server, CONNECT_DEADLINE)
        .with_context(|| format!("connecting to {server}"))?;
    stream.set_nodelay(true).context("no delay")?;
    stream
        .set_read_timeout(Some(LOST_AFTER))
        .context("a read timeout")?;
    let mut writer = stream.try_clone().context("a second handle")?;
    let begin = Instant::now();
    let writing = thread::spawn(move || -> std::io::Result<u64> {
        let mut number = 0_u64;
        while begin.elapsed() < length {
            writer.write_all(&record(number))?;
            number += 1;
            thread::sleep(EVERY);
        }
        writer.shutdown(std::net::Shutdown::Write)?;
        Ok(number)
    });
    let (mut records, mut longest, mut last) = (0_u64, Duration::ZERO, Instant::now());
    let mut received = [0; RECORD];
    loop {
        match stream.read_exact(&mut received) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Err(error) => {
                return Err(error).with_context(|| format!("after {records} records"));
            }
        }
        ensure!(
            received == record(records),
            "record {records} came back as another"
        );
        longest = longest.max(last.elapsed());
        last = Instant::now();
        records += 1;
    }
    let sent = writing
        .join()
        .map_err(|_| anyhow!("a thread panicked"))?
        .context("sending")?;
    ensure!(records == sent, "{records} of {sent} records came back");
    println!(
        "{{\"records\":{records},\"longest_pause_ms\":{}}}",
        longest.as_millis()
    );
    Ok(())
}

fn record(number: u64) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    for (index, chunk) in record.chunks_mut(8).enumerate() {
        chunk.copy_from_slice(&number.wrapping_add(index as u64).to_be_bytes());
    }
    record
}
