//! One end of the wire: a raw socket on an interface.
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context as _, Result, bail};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, bind, setsockopt, socket, sockopt,
};
use std::os::fd::AsRawFd as _;

/// Bytes the kernel keeps for us while we do something else: what is lost here is lost outside of the model.
const RECEIVE_BUFFER: usize = 64 << 20;
/// The longest a frame can be with segmentation left to the interface.
const LONGEST: usize = 65_536 + HEADER;
/// Ethernet's header with a VLAN tag.
const HEADER: usize = 18;

#[derive(Debug)]
pub(crate) struct Port {
    socket: File,
    interface: String,
    buffer: Vec<u8>,
    frame_max: usize,
    complained: bool,
}

impl Port {
    /// Hears and speaks everything on `interface`.
    ///
    /// # Errors
    /// When there is no such interface, or without the right to (`CAP_NET_RAW`).
    pub(crate) fn open(interface: &str) -> Result<Self> {
        let address = getifaddrs()
            .context("listing interfaces")?
            .filter(|found| found.interface_name == interface)
            .find_map(|found| found.address?.as_link_addr().copied())
            .with_context(|| format!("no interface `{interface}`"))?;
        let mtu = fs::read_to_string(format!("/sys/class/net/{interface}/mtu"));
        let mtu: usize = mtu
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(1500);
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        )
        .context("opening a raw socket (needs root)")?;
        // With the protocol the socket was made for: the address has none.
        bind(socket.as_raw_fd(), &address)
            .with_context(|| format!("binding a raw socket to {interface}"))?;
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)
            .context("enlarging the receive buffer (needs root)")?;
        let mut port = Self {
            socket: socket.into(),
            interface: interface.to_owned(),
            buffer: vec![0; LONGEST],
            frame_max: mtu + HEADER,
            complained: true,
        };
        // Before it was bound, it heard every interface.
        while port.receive()?.is_some() {}
        port.complained = false;
        Ok(port)
    }

    /// The next frame that came in, if there is one.
    pub(crate) fn receive(&mut self) -> Result<Option<&[u8]>> {
        loop {
            let length = match self.socket.read(&mut self.buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                // Told once, when the interface goes down; it may come up again.
                Err(error) if error.kind() == ErrorKind::NetworkDown => return Ok(None),
                Err(error) => bail!("reading from {}: {error}", self.interface),
            };
            if length <= self.frame_max {
                return Ok(Some(&self.buffer[..length]));
            }
            if !self.complained {
                self.complained = true;
                eprintln!(
                    "delay-box: {} brings frames of {length} bytes: switch offload off at the far end",
                    self.interface
                );
            }
        }
    }

    /// Sends a frame; one that the kernel does not take is lost.
    pub(crate) fn send(&self, frame: &[u8]) {
        let _ = (&self.socket).write(frame);
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
