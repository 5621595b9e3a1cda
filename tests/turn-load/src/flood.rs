//! Strangers: Allocate requests without credentials, each from another address of 127.0.0.0/8 and another /24, as spoofed
//! ones would come. They have a thread of their own, so that whoever sends the users' packets does not pay for them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// Addresses that take turns.
pub(crate) const SOURCES: u64 = 2_048;
/// What is sent in a row.
const BURST: u64 = 16;
/// Bursts that are caught up with at most.
const LATE: u32 = 64;
/// An Allocate with REQUESTED-TRANSPORT for UDP, as browsers send it; the transaction comes in.
const REQUEST: [u8; 28] = [
    0, 3, 0, 8, 0x21, 0x12, 0xA4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x19, 0, 4, 17, 0,
    0, 0,
];

/// Sends until it is dropped.
#[derive(Debug)]
pub(crate) struct Flood {
    sent: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// So many requests per second, at least 1. Where this thread may run, the flood may.
    ///
    /// # Errors
    /// The server is not on IPv4 loopback, where all addresses are ours; or there are no more sockets.
    pub(crate) fn start(server: SocketAddr, rate: u64) -> Result<Self> {
        ensure!(
            matches!(server.ip(), IpAddr::V4(ip) if ip.is_loopback()),
            "a flood is only for a server on 127.0.0.0/8"
        );
        let sources: Result<Vec<_>> = (0..SOURCES)
            .map(|n| {
                let (high, low) = ((n >> 8) as u8, n as u8);
                let socket = UdpSocket::bind((Ipv4Addr::new(127, 100 + high, low, 1), 0))
                    .context("a socket for a source of the flood")?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            })
            .collect();
        let sources = sources?;
        let interval = Duration::from_nanos(BURST * 1_000_000_000 / rate.max(1));
        let (sent, over) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (counter, end) = (sent.clone(), over.clone());
        let thread = thread::spawn(move || send(&sources, server, interval, &counter, &end));
        Ok(Self {
            sent,
            over,
            thread: Some(thread),
        })
    }

    /// Requests so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

fn send(
    sources: &[UdpSocket],
    server: SocketAddr,
    interval: Duration,
    sent: &AtomicU64,
    over: &AtomicBool,
) {
    let (mut request, mut number) = (REQUEST, 0_u64);
    let mut due = Instant::now();
    while !over.load(Ordering::Relaxed) {
        let now = Instant::now();
        if let Some(early) = due.checked_duration_since(now) {
            thread::sleep(early);
            continue;
        }
        let oldest = now.checked_sub(interval * LATE);
        due = oldest.map_or(due, |oldest| due.max(oldest)) + interval;
        for source in sources.iter().cycle().skip((number % SOURCES) as usize) {
            request[8..16].copy_from_slice(&number.to_be_bytes());
            number += 1;
            // A full buffer is a loss like any other.
            let is_sent = source.send_to(&request, server).is_ok();
            sent.fetch_add(u64::from(is_sent), Ordering::Relaxed);
            if number.is_multiple_of(BURST) {
                break;
            }
        }
    }
}
