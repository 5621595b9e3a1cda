use std::borrow::Borrow;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use ipnet::IpNet;
use nix::sys::uio::{readv, writev};
use tun_rs::{DeviceBuilder, SyncDevice};
use wire::frame::{Frame, Gso, GsoKind, HEADER_LEN, Header};
use wire::ip::{complete_partial, segment};

use crate::host::{self, TunError};
use crate::virtio;

/// What interface is wanted.
#[derive(Debug, Clone)]
pub struct TunConfig {
    /// Its name, at most 15 bytes; `turnpike%d` lets the kernel choose a number.
    pub name: String,
    /// The longest packet that the host sends unjoined, in bytes; at least 1 280 for IPv6.
    pub mtu: u16,
    /// Whether to ask for offload; there is no reason not to but a test.
    pub offload: bool,
    /// The interface's own addresses, with the length of the prefix that is on it.
    pub addresses: Vec<IpNet>,
    /// Further prefixes that lead into it.
    pub routes: Vec<IpNet>,
}

/// A TUN interface. It disappears when this is dropped. Reads and writes take a shared reference and never
/// block; whoever wants to wait watches the descriptor.
pub struct Device {
    device: SyncDevice,
    name: String,
    index: u32,
    offload: bool,
    malformed: AtomicU64,
    /// Only what the kernel cannot do itself is put together here.
    scratch: Mutex<Vec<u8>>,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device")
            .field("name", &self.name)
            .field("offload", &self.offload)
            .finish_non_exhaustive()
    }
}

impl Device {
    /// Makes the interface, sets its addresses and routes and brings it up. When the kernel refuses offload,
    /// says so in one log line and goes on without. Blocks for the few milliseconds that the kernel takes.
    ///
    /// # Errors
    ///
    /// See [`TunError`]. Nothing is left behind.
    pub fn create(config: impl Borrow<TunConfig>) -> Result<Self, TunError> {
        let config = config.borrow();
        let (device, offload) =
            open(&config.name, config.offload).map_err(|source| TunError::Create {
                name: config.name.clone(),
                source,
            })?;
        let failed = |source| TunError::Create {
            name: config.name.clone(),
            source,
        };
        let name = device.name().map_err(failed)?;
        let index = device.if_index().map_err(failed)?;
        host::configure(&name, index, config)?;
        tracing::info!(interface = %name, mtu = config.mtu, offload,
            udp_offload = offload && device.udp_gso(), "the TUN interface is up");
        Ok(Self {
            device,
            name,
            index,
            offload,
            malformed: AtomicU64::new(0),
            scratch: Mutex::new(Vec::new()),
        })
    }

    /// The interface's name, as the kernel has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's number.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Whether long frames come and go as they are.
    pub fn offload(&self) -> bool {
        self.offload
    }

    /// Packets of the kernel that we cannot carry (see [`wire::ip::PacketError`]); they were skipped.
    pub fn malformed(&self) -> u64 {
        self.malformed.load(Ordering::Relaxed)
    }

    /// Takes one packet that the host sent into the interface, as a frame, and returns the frame's length.
    /// `buffer` must hold [`wire::frame::MAX_FRAME_LEN`] bytes, or a long packet would be cut off: it is
    /// refused instead.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when nothing was waiting; `InvalidInput` for a short buffer; otherwise the interface is
    /// gone.
    pub fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.len() < wire::frame::MAX_FRAME_LEN {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the buffer is too short",
            ));
        }
        loop {
            let (room, body) = buffer.split_at_mut(HEADER_LEN);
            let mut head = [0; virtio::LEN];
            let len = if self.offload {
                let mut parts = [IoSliceMut::new(&mut head), IoSliceMut::new(body)];
                self.read(&mut parts)?.saturating_sub(virtio::LEN)
            } else {
                self.read(&mut [IoSliceMut::new(body)])?
            };
            match virtio::to_frame(&head, &mut body[..len]) {
                Ok(header) => {
                    room.copy_from_slice(&header.encode());
                    return Ok(HEADER_LEN + len);
                }
                Err(error) => {
                    self.malformed.fetch_add(1, Ordering::Relaxed);
                    tracing::trace!(%error, len, "skipped a packet from the kernel");
                }
            }
        }
    }

    /// Gives the host the packet of a frame.
    ///
    /// # Errors
    ///
    /// `InvalidData` when these bytes are no sound frame (see [`wire::frame::FrameError`]); `WouldBlock` when
    /// the kernel takes nothing now; otherwise what the kernel says of this packet. The next may be taken.
    pub fn try_send(&self, frame: &[u8]) -> io::Result<()> {
        let frame = Frame::decode(frame)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.try_send_frame(&frame)
    }

    /// As [`Self::try_send`], for a frame that was decoded already.
    ///
    /// # Errors
    ///
    /// As [`Self::try_send`], but for `InvalidData`.
    pub fn try_send_frame(&self, frame: &Frame<'_>) -> io::Result<()> {
        let Frame { header, packet } = frame;
        if let Some(gso) = header.gso.filter(|gso| !self.cuts(*gso)) {
            return self.send_in_pieces(packet.bytes(), gso);
        }
        if !self.offload {
            return self.send_completed(header, packet.bytes());
        }
        self.write(&virtio::from_frame(header), packet.bytes())
    }

    /// Whether the kernel cuts this itself; UDP since Linux 6.2.
    fn cuts(&self, gso: Gso) -> bool {
        self.offload && (gso.kind != GsoKind::UdpL4 || self.device.udp_gso())
    }

    fn send_in_pieces(&self, packet: &[u8], gso: Gso) -> io::Result<()> {
        let mut scratch = self
            .scratch
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let plain = virtio::from_frame(&Header::PLAIN);
        let head = if self.offload { &plain[..] } else { &[] };
        let mut result = Ok(());
        segment::segment(packet, usize::from(gso.size), &mut scratch, |piece| {
            // After the first refusal the rest is dropped too: TCP repeats it, UDP may lose it.
            if result.is_ok() {
                result = self.write(head, piece);
            }
        });
        result
    }

    fn send_completed(&self, header: &Header, packet: &[u8]) -> io::Result<()> {
        let Some(partial) = header.partial_checksum else {
            return self.write(&[], packet);
        };
        let mut scratch = self
            .scratch
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        scratch.clear();
        scratch.extend_from_slice(packet);
        complete_partial(
            &mut scratch,
            usize::from(partial.start),
            usize::from(partial.offset),
        );
        self.write(&[], &scratch)
    }

    fn read(&self, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        readv(self, parts).map_err(io::Error::from)
    }

    fn write(&self, head: &[u8], packet: &[u8]) -> io::Result<()> {
        let parts = [IoSlice::new(head), IoSlice::new(packet)];
        writev(self, &parts).map(|_| ()).map_err(io::Error::from)
    }
}

impl AsFd for Device {
    #[allow(unsafe_code)]
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor belongs to `self.device` and is open for as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.device.as_raw_fd()) }
    }
}

impl AsRawFd for Device {
    fn as_raw_fd(&self) -> RawFd {
        self.device.as_raw_fd()
    }
}

/// Opens the interface; the second value says whether with offload.
fn open(name: &str, offload: bool) -> io::Result<(SyncDevice, bool)> {
    let build = |offload: bool| -> io::Result<SyncDevice> {
        let device = DeviceBuilder::new()
            .name(name)
            .with(|builder| {
                builder.offload(offload);
            })
            .inherit_enable_state()
            .build_sync()?;
        device.set_nonblocking(true)?;
        Ok(device)
    };
    if !offload {
        return Ok((build(false)?, false));
    }
    match build(true) {
        Ok(device) => Ok((device, true)),
        Err(refusal) => {
            let device = build(false)?;
            tracing::warn!(%refusal, interface = name, "the kernel refuses offload; going on without");
            Ok((device, false))
        }
    }
}
