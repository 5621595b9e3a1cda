//! A burst of one flow: packets that differ in their stamps only.

use std::io::IoSlice;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg, sendmsg,
};
use wire::channel_data;

use crate::cli::Sender;
use crate::payload::{self, Stamp};

/// The bytes of a burst, reused for every flow so that they stay in the cache.
#[derive(Debug)]
pub(crate) struct Burst {
    bytes: Vec<u8>,
    /// Bytes of each datagram.
    datagram: usize,
    /// Bytes before the payload: 4 with a ChannelData header.
    header: usize,
    sender: Sender,
    headers: MultiHeaders<SockaddrStorage>,
}

impl Burst {
    /// `count` packets of `size` bytes each, with a ChannelData header in front of each if so wanted.
    pub(crate) fn new(count: usize, size: usize, channel_data: bool, sender: Sender) -> Self {
        let header = if channel_data {
            channel_data::HEADER_LEN
        } else {
            0
        };
        let datagram = header + size;
        let mut bytes = vec![0; datagram * count];
        for packet in bytes.chunks_exact_mut(datagram) {
            payload::prepare(&mut packet[header..]);
        }
        Self {
            bytes,
            datagram,
            header,
            sender,
            headers: MultiHeaders::preallocate(count, None),
        }
    }

    pub(crate) fn len(&self) -> u64 {
        (self.bytes.len() / self.datagram) as u64
    }

    /// Sends to where the socket is connected, beginning with `first`. How many packets the kernel took.
    ///
    /// # Errors
    /// What the kernel says, besides that it is full and that an earlier packet was refused.
    pub(crate) fn send(
        &mut self,
        socket: &UdpSocket,
        channel: Option<[u8; 4]>,
        first: Stamp,
    ) -> nix::Result<u64> {
        let (datagram, header) = (self.datagram, self.header);
        let packets = self.bytes.chunks_exact_mut(datagram);
        for (packet, sequence) in packets.zip(first.sequence..) {
            if let Some(channel) = channel {
                packet[..header].copy_from_slice(&channel);
            }
            payload::stamp(&mut packet[header..], Stamp { sequence, ..first });
        }
        let sent = match self.sender {
            Sender::Gso => self.send_joined(socket),
            Sender::Plain => self.send_singly(socket),
        };
        match sent {
            // What an earlier packet met is reported to the next call.
            Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ECONNREFUSED) => Ok(0),
            sent => sent,
        }
    }

    fn send_joined(&self, socket: &UdpSocket) -> nix::Result<u64> {
        // At most 9 004 bytes.
        let segment = self.datagram as u16;
        let cut = [ControlMessage::UdpGsoSegments(&segment)];
        let cut = if self.len() > 1 { &cut[..] } else { &[] };
        let parts = [IoSlice::new(&self.bytes)];
        sendmsg::<()>(
            socket.as_raw_fd(),
            &parts,
            cut,
            MsgFlags::MSG_DONTWAIT,
            None,
        )?;
        Ok(self.len())
    }

    fn send_singly(&mut self, socket: &UdpSocket) -> nix::Result<u64> {
        let packets: Vec<[IoSlice<'_>; 1]> = self
            .bytes
            .chunks_exact(self.datagram)
            .map(|packet| [IoSlice::new(packet)])
            .collect();
        let nowhere = vec![None; packets.len()];
        let sent = sendmmsg(
            socket.as_raw_fd(),
            &mut self.headers,
            &packets,
            &nowhere,
            [],
            MsgFlags::MSG_DONTWAIT,
        )?;
        Ok(sent.count() as u64)
    }
}
