//! The TUN device, with offload: one read gives up to 64 KB of one flow, one write takes as much.
//!
//! The journey: [`Device::create`] makes the interface, with addresses and routes; [`Device::try_recv`] gives
//! what the host sends into it as frames ([`wire::frame`]), ready for a link; [`Device::try_send`] gives the
//! host what a link brought. The frame's header and the kernel's `virtio_net_hdr` say the same in other words
//! (`virtio.rs`), so nothing is cut, joined or summed here while the kernel has offload.
//!
//! Without offload in the kernel the same calls work with ordinary packets, and what the other side joined is
//! cut in software. A frame is checked against its packet before the kernel sees it. Linux only.

mod device;
mod host;
mod virtio;

pub use device::{Device, TunConfig};
pub use host::TunError;
