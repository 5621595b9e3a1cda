//! The ladder: what the kernel can do for datagrams, found by trying it at the start.

use crate::udp::recv::RecvBatch;
use crate::udp::send::SendPlan;
use crate::udp::socket::{SocketOptions, bind};
use crate::udp::uring::Uring;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use turn_relay_proto::{Direction, Payloads};

/// How datagrams come and go: each rung does all that the one below does, with fewer system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Io {
    /// One datagram per system call.
    Plain,
    /// Many datagrams per system call (`recvmmsg`, `sendmmsg`).
    Mmsg,
    /// As before, and equal datagrams joined by the kernel on their way in (GRO) and cut apart by it on their way out
    /// (GSO).
    Gso,
    /// As before, and what leaves from several sockets shares a system call (io_uring).
    Uring,
}

impl Io {
    pub(crate) const ALL: [Self; 4] = [Self::Uring, Self::Gso, Self::Mmsg, Self::Plain];

    /// Whether the kernel joins datagrams and cuts them apart.
    pub(crate) fn joins(self) -> bool {
        matches!(self, Self::Gso | Self::Uring)
    }

    /// The highest rung that works here.
    pub(crate) fn probe() -> Self {
        [Self::Gso, Self::Mmsg]
            .into_iter()
            .find(|io| io.works().is_ok())
            .unwrap_or(Self::Plain)
    }

    /// Sends two equal datagrams over loopback and receives them.
    ///
    /// # Errors
    /// What the kernel lacks.
    pub(crate) fn works(self) -> io::Result<()> {
        const SIZE: usize = 100;
        let options = SocketOptions {
            gro: false,
            ..SocketOptions::default()
        };
        let (socket, to) = loopback(&options)?;
        if self == Self::Uring {
            Uring::new()?;
        }
        if self.joins() {
            // Says what is missing, which the wish for it when a socket is made does not.
            loopback(&SocketOptions {
                must_gro: true,
                ..options
            })?;
        }
        let mut plan = SendPlan::new(self);
        let bytes = [0x55; 2 * SIZE];
        let mut out = plan.start();
        for payload in bytes.chunks(SIZE) {
            let payloads = Payloads::one(payload);
            let parts = (&[][..], payloads, 0);
            out.push(socket.as_fd(), to, None, Direction::ToPeer, parts);
        }
        let unsent = out.flush();
        if plan.gave_up_joining() {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        if let Some(code) = unsent.error {
            return Err(io::Error::from_raw_os_error(code));
        }
        RecvBatch::new(self).fill(socket.as_fd()).map(drop)
    }
}

fn loopback(options: &SocketOptions) -> io::Result<(std::net::UdpSocket, SocketAddr)> {
    let socket = bind((Ipv4Addr::LOCALHOST, 0).into(), options)?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Mmsg => "mmsg",
            Self::Gso => "gso",
            Self::Uring => "uring",
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_rung_works_on_the_kernels_that_tests_run_on() {
        for io in Io::ALL {
            io.works().unwrap();
        }
        assert_eq!(Io::probe(), Io::Gso);
    }
}
