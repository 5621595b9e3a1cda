//! `turn-load churn`: allocations made and given back.
//!
//! Each is all of it: Allocate without credentials, the challenge, Allocate with them, success, Refresh with lifetime 0,
//! success. Nothing is kept from one to the next but the socket.

use std::collections::VecDeque;
use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use serde_json::json;
use stun_types::message::MessageClass;
use turn_client::{Allocation, Event, LostReason};
use wire::stun::Message;

use crate::cli::{Churn, Server};
use crate::{handshake, process, socket};

const READY: usize = 64;
/// Until what was not answered is said again.
const REPEAT: Duration = Duration::from_millis(500);
/// Not counted.
const WARMUP: Duration = Duration::from_millis(300);

/// One socket and what it is about.
#[derive(Debug)]
struct Slot {
    socket: UdpSocket,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Resting,
    Allocating(Box<Allocation>),
    /// This request waits for its answer since then; whether it was said again.
    Releasing(Vec<u8>, Instant, bool),
}

pub(crate) fn run(options: &Churn) -> Result<()> {
    if let Some(core) = options.observation.cpu {
        process::pin(core)?;
    }
    process::allow_open_files(u64::from(options.sockets))?;
    let cpu = || {
        options
            .observation
            .pid
            .map(process::cpu_nanoseconds)
            .transpose()
    };
    let mut churner = Churner::new(options)?;
    churner.go_on(Instant::now() + WARMUP)?;
    let (cpu_before, done_before, begin) = (cpu()?, churner.done, Instant::now());
    churner.go_on(begin + options.seconds)?;
    let seconds = begin.elapsed().as_secs_f64();
    let done = (churner.done - done_before) as f64;
    ensure!(done > 0.0, "no allocation came about");
    let spent = cpu_before
        .zip(cpu()?)
        .map(|(before, after)| (after - before) as f64);
    churner.finish()?;
    if options.observation.json {
        let report = json!({
            "seconds": seconds,
            "allocations_per_second": done / seconds,
            "cpu_ns_each": spent.map(|spent| spent / done),
            "busy": spent.map(|spent| spent / 1e9 / seconds),
            "repeated": churner.repeated,
            "port_taken": churner.taken,
        });
        println!("{report}");
        return Ok(());
    }
    println!("{:.0} allocations/s made and given back", done / seconds);
    if let Some(spent) = spent {
        println!("the server spends {:.1} us for each", spent / done / 1e3);
    }
    if churner.repeated > 0 {
        println!(
            "{} requests to give one back had to be said again",
            churner.repeated
        );
    }
    if churner.taken > 0 {
        println!(
            "{} times the server still had the last allocation of a socket: use more --sockets",
            churner.taken
        );
    }
    Ok(())
}

#[derive(Debug)]
struct Churner {
    server: Server,
    slots: Vec<Slot>,
    resting: VecDeque<usize>,
    epoll: Epoll,
    done: u64,
    repeated: u64,
    /// Sockets whose last allocation the relay still had.
    taken: u64,
    looked: Instant,
}

impl Churner {
    fn new(options: &Churn) -> Result<Self> {
        let server = options.server.clone();
        let local = server.client.unwrap_or(socket::any(server.server.ip()));
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("an epoll")?;
        let mut slots = Vec::new();
        for index in 0..u64::from(options.sockets) {
            let socket = socket::plain(local)?;
            socket.connect(server.server)?;
            epoll
                .add(socket.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, index))
                .context("adding to an epoll")?;
            slots.push(Slot {
                socket,
                stage: Stage::Resting,
            });
        }
        let mut churner = Self {
            server,
            resting: (0..slots.len()).collect(),
            slots,
            epoll,
            done: 0,
            repeated: 0,
            taken: 0,
            looked: Instant::now(),
        };
        for _ in 0..options.in_flight.min(options.sockets) {
            churner.begin_next()?;
        }
        Ok(churner)
    }

    fn begin_next(&mut self) -> Result<()> {
        let Some(index) = self.resting.pop_front() else {
            return Ok(());
        };
        let slot = &mut self.slots[index];
        let mut allocation = handshake::allocate(&slot.socket, &self.server)?;
        handshake::flush(&slot.socket, &mut allocation)?;
        slot.stage = Stage::Allocating(Box::new(allocation));
        Ok(())
    }

    fn go_on(&mut self, until: Instant) -> Result<()> {
        while Instant::now() < until {
            self.turn(true)?;
        }
        Ok(())
    }

    /// Gives back what there still is.
    fn finish(&mut self) -> Result<()> {
        let until = Instant::now() + 2 * REPEAT;
        while self.resting.len() < self.slots.len() && Instant::now() < until {
            self.turn(false)?;
        }
        Ok(())
    }

    fn turn(&mut self, begin_more: bool) -> Result<()> {
        let mut events = [EpollEvent::empty(); READY];
        let ready = self
            .epoll
            .wait(&mut events, EpollTimeout::ZERO)
            .context("waiting")?;
        for event in &events[..ready] {
            let index = event.data() as usize;
            if self.on_readable(index)? {
                self.resting.push_back(index);
                if begin_more {
                    self.begin_next()?;
                }
            }
        }
        let now = Instant::now();
        if now - self.looked > REPEAT / 5 {
            self.looked = now;
            self.repeat(now)?;
        }
        Ok(())
    }

    /// True when this one is given back.
    fn on_readable(&mut self, index: usize) -> Result<bool> {
        let slot = &mut self.slots[index];
        let mut bytes = [0; 2048];
        let Some(length) = handshake::receive(&slot.socket, &mut bytes)? else {
            return Ok(false);
        };
        let now = Instant::now();
        match &mut slot.stage {
            Stage::Resting => {}
            Stage::Allocating(allocation) => {
                allocation.handle_datagram(now, &bytes[..length]);
                while let Some(event) = allocation.poll_event() {
                    match event {
                        Event::Allocated { .. } => {
                            allocation.close(now);
                            let request = allocation.poll_transmit().context("no request")?;
                            let _ = slot.socket.send(&request);
                            slot.stage = Stage::Releasing(request, now, false);
                            return Ok(false);
                        }
                        // Some relays go on having an allocation for a second after it was given back.
                        Event::Lost {
                            reason: LostReason::PortTaken,
                        } => {
                            slot.stage = Stage::Resting;
                            self.taken += 1;
                            return Ok(true);
                        }
                        Event::Lost { reason } => bail!("no allocation: {reason}"),
                        Event::NeedCredential => {
                            bail!("the server does not accept the credential")
                        }
                        Event::PeerReady(_)
                        | Event::Moved
                        | Event::NotMoved
                        | Event::Ending { .. } => {}
                    }
                }
                handshake::flush(&slot.socket, allocation)?;
            }
            Stage::Releasing(request, _, again) => {
                if is_given_back(&bytes[..length], request, *again) {
                    slot.stage = Stage::Resting;
                    self.done += 1;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn repeat(&mut self, now: Instant) -> Result<()> {
        for slot in &mut self.slots {
            match &mut slot.stage {
                Stage::Resting => {}
                Stage::Allocating(allocation) => {
                    if allocation.poll_timeout().is_some_and(|at| at <= now) {
                        allocation.handle_timeout(now);
                        handshake::flush(&slot.socket, allocation)?;
                    }
                }
                Stage::Releasing(request, said, again) => {
                    if now - *said > REPEAT {
                        (*said, *again) = (now, true);
                        self.repeated += 1;
                        let _ = slot.socket.send(request);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Success; or, when it was asked for twice, that there is nothing to give back any more.
fn is_given_back(answer: &[u8], request: &[u8], again: bool) -> bool {
    let (Ok(answer), Ok(request)) = (Message::decode(answer), Message::decode(request)) else {
        return false;
    };
    let right = match answer.class() {
        MessageClass::Success => true,
        MessageClass::Error => again,
        _ => false,
    };
    right && answer.transaction_id() == request.transaction_id()
}
