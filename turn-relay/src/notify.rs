//! What systemd is told (`sd_notify(3)`), if it started the service with `Type=notify`; otherwise nothing.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// It runs, and this is the process to be watched: a successor says so, too.
pub(crate) fn ready() {
    tell(&format!("READY=1\nMAINPID={}\n", std::process::id()));
}

/// A drain has begun.
pub(crate) fn stopping() {
    tell("STOPPING=1\n");
}

fn tell(text: &str) {
    if let Err(error) = try_to_tell(text) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

fn try_to_tell(text: &str) -> io::Result<()> {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(&path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.send_to_addr(text.as_bytes(), &address).map(drop)
}
