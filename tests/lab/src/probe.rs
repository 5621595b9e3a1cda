//! Small clients that run inside a host's namespace without any tool of that host: HTTP GET, TCP connect, DNS.
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::netns;

const TIMEOUT: Duration = Duration::from_secs(2);
const DNS_HEADER: usize = 12;

/// Status and body of an HTTP GET; bodies of admin ports are small.
pub fn http_get(namespace: &str, server: SocketAddr, path: &str) -> Result<(u16, String)> {
    netns::inside(namespace, || {
        let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)
            .with_context(|| format!("connecting to {server}"))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        write!(
            stream,
            "GET {path} HTTP/1.0\r\nHost: {server}\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        stream
            .read_to_end(&mut answer)
            .with_context(|| format!("reading from {server}{path}"))?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .context("not an HTTP response")?;
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Ok((
            status.context("an HTTP response without a status")?,
            body.to_owned(),
        ))
    })?
}

/// Whether something accepts TCP connections there.
pub fn tcp_accepts(namespace: &str, server: SocketAddr) -> Result<bool> {
    netns::inside(namespace, || {
        TcpStream::connect_timeout(&server, TIMEOUT).is_ok()
    })
}

/// What a DNS server said: its response code and how many answers it gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DnsReply {
    /// 0 is NOERROR, 3 NXDOMAIN (RFC 1035, section 4.1.1).
    pub code: u8,
    /// Records in the answer section.
    pub answers: u16,
}

/// What can be asked for, with its number (RFC 1035, section 3.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordType {
    /// IPv4 addresses.
    A = 1,
    /// Text.
    Txt = 16,
}

/// Asks for the records of a name over UDP.
pub fn dns_query(
    namespace: &str,
    server: SocketAddr,
    name: &str,
    record: RecordType,
) -> Result<DnsReply> {
    let question = question(name, record)?;
    netns::inside(namespace, || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.connect(server)?;
        socket.send(&question)?;
        let mut reply = [0; 1500];
        let length = socket
            .recv(&mut reply)
            .with_context(|| format!("asking {server} for {name}"))?;
        ensure!(
            length >= DNS_HEADER && reply[..2] == question[..2],
            "not an answer to {name}"
        );
        Ok(DnsReply {
            code: reply[3] & 0x0f,
            answers: u16::from_be_bytes([reply[6], reply[7]]),
        })
    })?
}

/// A query with recursion desired, RFC 1035 section 4.1.
fn question(name: &str, record: RecordType) -> Result<Vec<u8>> {
    let mut message = vec![0x7a, 0x11, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|length| (1..64).contains(length));
        message.push(length.with_context(|| format!("`{name}` is not a DNS name"))?);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, record as u8, 0, 1]);
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_written_as_in_rfc_1035() {
        let message = question("a.example", RecordType::A).expect("a valid name");
        assert_eq!(
            &message[DNS_HEADER..],
            b"\x01a\x07example\x00\x00\x01\x00\x01"
        );
        assert!(question("a..b", RecordType::A).is_err());
        assert!(question(&"x".repeat(64), RecordType::Txt).is_err());
    }
}
