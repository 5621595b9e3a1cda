//! Asking the admin port of a service.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;

const HTTP_TIMEOUT: Duration = Duration::from_secs(3);
const MAX_ANSWER: u64 = 16 * 1024 * 1024;

/// GET with HTTP/1.0, of which nothing more than the body is needed.
///
/// # Errors
/// One line that names the port: it cannot be reached, or does not know the path.
pub(crate) fn get<T: DeserializeOwned>(address: SocketAddr, path: &str) -> Result<T> {
    let about = || format!("the admin port {address}");
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, HTTP_TIMEOUT)?;
        stream.set_read_timeout(Some(HTTP_TIMEOUT))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
        let mut text = String::new();
        stream.take(MAX_ANSWER).read_to_string(&mut text)?;
        Ok(text)
    };
    let answer = ask().with_context(about)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(about)?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status == "503" {
        bail!("{}: {}", about(), body.trim_end());
    }
    if status != "200" {
        let known = path.split('?').next().unwrap_or_default();
        let of = match known {
            "/explain" => "dns-signal",
            _ => "an activator or dns-signal",
        };
        bail!(
            "{}: it has no {known} (HTTP {status}); name that of {of}",
            about()
        );
    }
    serde_json::from_str(body).with_context(about)
}
