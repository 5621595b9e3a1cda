//! Descriptors and memory through a socket pair.

#![allow(unsafe_code)]

use anyhow::{Context, bail, ensure};
use nix::cmsg_space;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, setsockopt, socketpair,
};
use nix::sys::time::TimeVal;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// The kernel takes 253 at a time (`SCM_MAX_FD`).
const MOST: usize = 250;
/// Of one message.
const TEXT: usize = 64;
/// Far above 65 536 allocations with some permissions and channels each.
const MAX_STATE: u64 = 1 << 30;

/// Messages with descriptors.
#[derive(Debug)]
pub(super) struct Passing(OwnedFd);

impl From<OwnedFd> for Passing {
    fn from(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

impl Passing {
    /// Two ends. The second is for another process.
    pub(super) fn pair() -> nix::Result<(Self, OwnedFd)> {
        let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
        let (here, there) = socketpair(family, kind, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self(here), there))
    }

    /// How long [`Passing::receive`] waits.
    pub(super) fn set_patience(&self, patience: Duration) -> nix::Result<()> {
        let time = TimeVal::new(patience.as_secs() as i64, patience.subsec_micros().into());
        setsockopt(&self.0, ReceiveTimeout, &time)
    }

    fn send_message(&self, text: &[u8], sockets: &[RawFd]) -> nix::Result<()> {
        let rights = [ControlMessage::ScmRights(sockets)];
        let rights = if sockets.is_empty() { &[][..] } else { &rights };
        let text = [IoSlice::new(text)];
        // Or else the end of the other process would be the end of this one.
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.0.as_raw_fd(), &text, rights, flags, None).map(drop)
    }

    pub(super) fn send(&self, text: &[u8]) -> nix::Result<()> {
        self.send_message(text, &[])
    }

    /// One message, or `None` at the end.
    pub(super) fn receive(&self) -> nix::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        let mut text = [0; TEXT];
        let mut control = cmsg_space!([RawFd; MOST]);
        let mut slices = [IoSliceMut::new(&mut text)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = recvmsg::<()>(self.0.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
        let mut sockets = Vec::new();
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = message {
                // SAFETY: the kernel has just made these descriptors for this process, and nobody else knows of them.
                sockets.extend(
                    raw.into_iter()
                        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
                );
            }
        }
        let length = received.bytes;
        if length == 0 && sockets.is_empty() {
            return Ok(None);
        }
        Ok(Some((text[..length].to_vec(), sockets)))
    }

    /// The state, and these sockets, which stay open here.
    pub(super) fn send_state(&self, state: &[u8], sockets: &[RawFd]) -> anyhow::Result<()> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let mut memory = File::from(memfd_create("turn-relay", flags).context("no memory file")?);
        memory.write_all(state)?;
        fcntl(&memory, FcntlArg::F_ADD_SEALS(seals()))?;
        self.send_message(sockets.len().to_string().as_bytes(), &[memory.as_raw_fd()])?;
        for some in sockets.chunks(MOST) {
            self.send_message(b"sockets", some)?;
        }
        Ok(())
    }

    /// What [`Passing::send_state`] sent.
    pub(super) fn receive_state(&self) -> anyhow::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let gone = "the predecessor went on alone";
        let (text, memory) = self.receive()?.context(gone)?;
        let count: usize = std::str::from_utf8(&text)?.parse()?;
        let [memory] = <[OwnedFd; 1]>::try_from(memory)
            .ok()
            .context("the state is missing")?;
        let sealed = fcntl(&memory, FcntlArg::F_GET_SEALS)?;
        ensure!(
            SealFlag::from_bits_truncate(sealed).contains(seals()),
            "the state could still change"
        );
        let mut memory = File::from(memory);
        let length = memory.metadata()?.len();
        ensure!(length <= MAX_STATE, "{length} bytes are no state");
        memory.rewind()?;
        let mut state = Vec::with_capacity(length as usize);
        memory.read_to_end(&mut state)?;
        let mut sockets = Vec::new();
        while sockets.len() < count {
            let (_, some) = self.receive()?.context(gone)?;
            if some.is_empty() {
                bail!("sockets are missing: is the limit of open files too low?");
            }
            sockets.extend(some);
        }
        Ok((state, sockets))
    }
}

fn seals() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn state_and_sockets_arrive_in_their_order() {
        let (here, there) = Passing::pair().unwrap();
        let there = Passing::from(there);
        let sockets: Vec<_> = (0..600)
            .map(|_| UdpSocket::bind("127.0.0.1:0").unwrap())
            .collect();
        let raw: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        let state = vec![7; 3_000_000];
        let receiving = std::thread::spawn(move || there.receive_state().unwrap());
        here.send_state(&state, &raw).unwrap();
        let (received, taken) = receiving.join().unwrap();
        assert_eq!(received, state);
        assert_eq!(taken.len(), 600);
        for (socket, taken) in sockets.iter().zip(taken) {
            let taken = UdpSocket::from(taken);
            assert_eq!(socket.local_addr().unwrap(), taken.local_addr().unwrap());
        }
    }

    #[test]
    fn whoever_is_gone_is_noticed_and_nobody_is_waited_for_for_ever() {
        let (here, there) = Passing::pair().unwrap();
        here.set_patience(Duration::from_millis(10)).unwrap();
        assert_eq!(here.receive().unwrap_err(), nix::Error::EAGAIN);
        drop(there);
        assert!(here.receive().unwrap().is_none());
        assert_eq!(here.send(b"hello").unwrap_err(), nix::Error::EPIPE);
    }
}
