//! Just enough of HTTP/1.1 (RFC 9112) for curl: GET `/`, GET `/bytes/N`, PUT (answers the body's SHA-256), POST
//! (answers the body).
use std::io::{self, BufRead as _, BufReader, BufWriter, Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result};
use lab::plan::HTTP_PORT;

use crate::bytes::{self, Hashing};

const HEADERS_MAX: usize = 64;
const LINE_MAX: u64 = 8 * 1024;
const POST_MAX: u64 = 1024 * 1024;

/// Serves until the process ends; a thread per connection.
pub(crate) fn serve(name: &str) -> Result<()> {
    let listener =
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, HTTP_PORT)).context("listening for HTTP")?;
    let name: Arc<str> = name.into();
    for stream in listener.incoming() {
        let stream = stream.context("accepting a connection")?;
        let name = Arc::clone(&name);
        thread::spawn(move || {
            // A connection that breaks is the client's affair.
            let _ = converse(&stream, &name);
        });
    }
    Ok(())
}

struct Request {
    method: String,
    path: String,
    length: Option<u64>,
    expects_continue: bool,
    closes: bool,
}

fn converse(stream: &TcpStream, name: &str) -> io::Result<()> {
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::with_capacity(64 * 1024, stream);
    let mut writer = BufWriter::with_capacity(64 * 1024, stream);
    while let Some(request) = read_request(&mut reader)? {
        if request.expects_continue {
            writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            writer.flush()?;
        }
        let mut body = reader.by_ref().take(request.length.unwrap_or(0));
        match (
            request.method.as_str(),
            request.path.strip_prefix("/bytes/").map(str::parse),
        ) {
            ("GET", Some(Ok(length))) => {
                let digest = format!("X-Sha256: {}\r\n", bytes::digest(length));
                head(&mut writer, "200 OK", length, &digest)?;
                bytes::write(length, &mut writer)?;
            }
            ("GET", None) if request.path == "/" => {
                let peer = stream.peer_addr()?;
                text(
                    &mut writer,
                    "200 OK",
                    &format!("{name} greets {}\n", peer.ip().to_canonical()),
                )?;
            }
            ("PUT", _) if request.length.is_some() => {
                let mut hash = Hashing::default();
                io::copy(&mut body, &mut hash)?;
                text(&mut writer, "200 OK", &format!("{}\n", hash.hex()))?;
            }
            ("POST", _) if request.length.is_some_and(|length| length <= POST_MAX) => {
                let mut received = Vec::new();
                body.read_to_end(&mut received)?;
                head(&mut writer, "200 OK", received.len() as u64, "")?;
                writer.write_all(&received)?;
            }
            ("PUT" | "POST", _) => {
                text(
                    &mut writer,
                    "411 Length Required",
                    "a body needs a (small) Content-Length\n",
                )?;
                return writer.flush();
            }
            _ => text(&mut writer, "404 Not Found", "there are / and /bytes/N\n")?,
        }
        writer.flush()?;
        if request.closes {
            break;
        }
    }
    Ok(())
}

fn head(writer: &mut impl Write, status: &str, length: u64, more: &str) -> io::Result<()> {
    write!(
        writer,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{more}\r\n"
    )
}

fn text(writer: &mut impl Write, status: &str, body: &str) -> io::Result<()> {
    head(
        writer,
        status,
        body.len() as u64,
        "Content-Type: text/plain\r\n",
    )?;
    writer.write_all(body.as_bytes())
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<Request>> {
    let first = read_line(reader)?;
    let mut words = first.split(' ');
    let (Some(method), Some(path), Some(version)) = (words.next(), words.next(), words.next())
    else {
        return Ok(None);
    };
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        length: None,
        expects_continue: false,
        closes: version == "HTTP/1.0",
    };
    for _ in 0..HEADERS_MAX {
        let line = read_line(reader)?.to_ascii_lowercase();
        let Some((field, value)) = line.split_once(':') else {
            return Ok(Some(request));
        };
        match (field, value.trim()) {
            ("content-length", value) => request.length = value.parse().ok(),
            ("expect", "100-continue") => request.expects_continue = true,
            ("connection", "close") => request.closes = true,
            _ => {}
        }
    }
    Ok(None)
}

fn read_line(reader: &mut BufReader<&TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    reader.by_ref().take(LINE_MAX).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}
