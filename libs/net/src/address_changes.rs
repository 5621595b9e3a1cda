use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

/// `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR` of rtnetlink(7).
const GROUPS: u32 = 0x10 | 0x100;

/// Told by the kernel when an address of this host, in this network namespace, comes or goes. To be watched by a
/// [`Poller`](crate::Poller).
#[derive(Debug)]
pub struct AddressChanges {
    netlink: OwnedFd,
}

impl AddressChanges {
    /// Listens from now on.
    ///
    /// # Errors
    ///
    /// When the kernel has no rtnetlink for us, as in a confined process.
    pub fn new() -> io::Result<Self> {
        let netlink = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )?;
        bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        Ok(Self { netlink })
    }

    /// Whether anything changed since this was asked last. What exactly, an enumeration tells better.
    pub fn take(&self) -> bool {
        let mut changed = false;
        let mut message = [0; 4096];
        loop {
            match recv(self.netlink.as_raw_fd(), &mut message, MsgFlags::empty()) {
                // More happened than the kernel could keep for us.
                Ok(1..) | Err(Errno::ENOBUFS) => changed = true,
                Err(Errno::EINTR) => {}
                Ok(0) | Err(_) => return changed,
            }
        }
    }
}

impl AsFd for AddressChanges {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.netlink.as_fd()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn nothing_changes_while_nothing_changes() {
        let changes = AddressChanges::new().unwrap();
        assert!(!changes.take() || !changes.take());
    }
}
