use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};

use crate::udp::UdpSocket;
use crate::{MAX_GSO_BYTES, MAX_GSO_SEGMENTS};

impl UdpSocket {
    /// Sends a burst that lies in parts (headers and payloads in turns, say) as datagrams of `segment` bytes, of which
    /// the last may be shorter, without putting it together first: the kernel does. At most [`Self::max_segments`]
    /// datagrams and [`MAX_GSO_BYTES`], or nothing is sent.
    ///
    /// # Errors
    ///
    /// As [`Self::try_send`]; `WouldBlock` when not all of it was taken.
    pub fn try_send_parts(
        &self,
        destination: SocketAddr,
        parts: &[IoSlice<'_>],
        segment: usize,
    ) -> io::Result<()> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let size = u16::try_from(segment).unwrap_or(u16::MAX);
        let datagrams = len.div_ceil(segment.max(1));
        if len > MAX_GSO_BYTES || datagrams > MAX_GSO_SEGMENTS {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let gso = [ControlMessage::UdpGsoSegments(&size)];
        let control = if datagrams > 1 { &gso[..] } else { &[] };
        if datagrams <= self.max_segments() && self.reaches(destination) {
            let to = SockaddrStorage::from(destination);
            let socket = self.as_fd().as_raw_fd();
            match sendmsg(socket, parts, control, MsgFlags::empty(), Some(&to)) {
                // As quinn-udp sees it: the kernel or the device cannot do GSO after all.
                Err(nix::Error::EIO | nix::Error::EINVAL) if datagrams > 1 => {}
                result => return result.map(|_| ()).map_err(io::Error::from),
            }
        }
        let whole: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        match self.try_send(destination, &whole, Some(segment))? {
            sent if sent < len => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        }
    }
}
