//! `turn-load idle`: allocations that are held and not used.

use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::cli::{Idle, Server};
use crate::handshake::{self, Client};
use crate::{process, socket};

/// For the server to come to rest.
const REST: Duration = Duration::from_millis(300);
/// Sockets that are made at a time.
const AT_ONCE: usize = 64;

pub(crate) fn run(options: &Idle) -> Result<()> {
    if let Some(core) = options.observation.cpu {
        process::pin(core)?;
    }
    process::allow_open_files(u64::from(options.count))?;
    let resident = || {
        options
            .observation
            .pid
            .map(process::resident_bytes)
            .transpose()
    };
    // What the first allocations make the server reserve once is not what each costs.
    let first = hold(&options.server, 16)?;
    thread::sleep(REST);
    let before = resident()?;
    let begin = Instant::now();
    let clients = hold(&options.server, options.count)?;
    let took = begin.elapsed();
    thread::sleep(REST);
    let after = resident()?;
    let bytes_each = before.zip(after).map(|(before, after)| {
        after.saturating_sub(before) as f64 / f64::from(options.count.max(1))
    });
    give_all_back(first)?;
    give_all_back(clients)?;
    if options.observation.json {
        let report = json!({
            "count": options.count,
            "seconds": took.as_secs_f64(),
            "resident_before": before,
            "resident_after": after,
            "bytes_each": bytes_each,
        });
        println!("{report}");
        return Ok(());
    }
    println!(
        "{} allocations within {:.2} s",
        options.count,
        took.as_secs_f64()
    );
    if let Some(bytes) = bytes_each {
        println!("the server's resident memory grew by {bytes:.0} bytes for each");
    }
    Ok(())
}

/// Makes so many allocations.
///
/// # Errors
/// The server refuses, or there are no more sockets.
pub(crate) fn hold(server: &Server, count: u32) -> Result<Vec<Client>> {
    let local = server.client.unwrap_or(socket::any(server.server.ip()));
    let mut clients = Vec::new();
    // In groups, so that none waits so long that it asks again.
    while clients.len() < count as usize {
        let group = AT_ONCE.min(count as usize - clients.len());
        let sockets: Result<Vec<UdpSocket>> = (0..group).map(|_| socket::plain(local)).collect();
        let group: Result<Vec<Client>> = sockets?
            .into_iter()
            .map(|socket| Client::new(socket, server, None))
            .collect();
        let mut group = group?;
        handshake::complete(&mut group)
            .with_context(|| format!("after {} allocations", clients.len()))?;
        clients.append(&mut group);
    }
    Ok(clients)
}

/// Gives allocations back.
///
/// # Errors
/// As [`handshake::give_back`].
pub(crate) fn give_all_back(mut clients: Vec<Client>) -> Result<()> {
    handshake::give_back(
        clients
            .iter_mut()
            .map(|client| (&client.socket, &mut client.allocation)),
    )
}
