//! `turn-load forward`: what the machine allows, with GRO on receive, GSO on send, and the 4 bytes of ChannelData stripped or
//! added by iovec. No protocol, no table, nothing is checked: each flow has a pair of connected sockets of its own.
//!
//! A flow is asked for in one line over UDP, `CLIENT PEER SIZE`, and answered with `FRONT BACK`: where client and peer
//! send to.

use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use wire::channel_data::{self, FIRST_CHANNEL, HEADER_LEN};

use crate::cli::Forward;
use crate::process;
use crate::socket::{Buffers, FlowSocket, WARM};

/// Of the socket that is asked.
const ASKED: u64 = u64::MAX;
/// Buffers per `recvmmsg` while the kernel joins datagrams: more fall out of the cache before they are sent.
const JOINED: usize = 2;
/// What the kernel cuts at most (`UDP_MAX_SEGMENTS` of older ones), and sends at most.
const MOST_SEGMENTS: usize = 64;
const MOST_BYTES: usize = 65_507;
/// Flows per process; each is two sockets.
const MOST_FLOWS: usize = 4096;

/// What a flow is asked for with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) client: SocketAddr,
    pub(crate) peer: SocketAddr,
    /// Bytes of each payload.
    pub(crate) size: u16,
}

/// Where the client sends to, and where the peer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) front: SocketAddr,
    pub(crate) back: SocketAddr,
}

impl Question {
    pub(crate) fn encode(&self) -> String {
        format!("{} {} {}", self.client, self.peer, self.size)
    }

    fn decode(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [client, peer, size] = words[..] else {
            bail!("not a question: {text}");
        };
        Ok(Self {
            client: client.parse()?,
            peer: peer.parse()?,
            size: size.parse()?,
        })
    }
}

impl Answer {
    fn encode(&self) -> String {
        format!("{} {}", self.front, self.back)
    }

    pub(crate) fn decode(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [front, back] = words[..] else {
            bail!("not an answer: {text}");
        };
        Ok(Self {
            front: front.parse()?,
            back: back.parse()?,
        })
    }
}

/// What stands before each payload of a client.
pub(crate) fn header(size: u16) -> [u8; HEADER_LEN] {
    channel_data::header(FIRST_CHANNEL, size)
}

#[derive(Debug)]
struct Pair {
    front: FlowSocket,
    back: FlowSocket,
    header: [u8; HEADER_LEN],
}

pub(crate) fn run(options: &Forward) -> Result<()> {
    process::allow_open_files(2 * MOST_FLOWS as u64)?;
    let asked = UdpSocket::bind(options.listen)
        .with_context(|| format!("listening on {}", options.listen))?;
    println!("listening on {}", asked.local_addr()?);
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("an epoll")?;
    let event = |data| EpollEvent::new(EpollFlags::EPOLLIN, data);
    epoll.add(asked.as_fd(), event(ASKED)).context("an epoll")?;
    let mut pairs: Vec<Pair> = Vec::new();
    let mut buffers = Buffers::new(Buffers::MOST);
    loop {
        let mut events = [EpollEvent::empty(); 64];
        let ready = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error).context("waiting"),
        };
        for ready in &events[..ready] {
            if ready.data() == ASKED {
                let pair = answer(&asked, pairs.len())?;
                let Some(pair) = pair else { continue };
                let index = 2 * pairs.len() as u64;
                epoll
                    .add(pair.front.io.as_fd(), event(index))
                    .context("an epoll")?;
                epoll
                    .add(pair.back.io.as_fd(), event(index + 1))
                    .context("an epoll")?;
                pairs.push(pair);
                continue;
            }
            let pair = &pairs[(ready.data() / 2) as usize];
            let (from, to, added) = if ready.data().is_multiple_of(2) {
                (&pair.front, &pair.back, None)
            } else {
                (&pair.back, &pair.front, Some(&pair.header))
            };
            let filled = from.receive(&mut buffers).context("receiving")?;
            forward(&buffers, filled, &to.io, added);
            let joined = buffers
                .filled(filled)
                .any(|(buffer, stride)| buffer.len() > stride);
            buffers.want(if joined { JOINED } else { Buffers::MOST });
        }
    }
}

/// Answers a question; `None` when it was none.
fn answer(asked: &UdpSocket, flows: usize) -> Result<Option<Pair>> {
    let mut bytes = [0; 256];
    let Ok((length, from)) = asked.recv_from(&mut bytes) else {
        return Ok(None);
    };
    let Ok(question) = Question::decode(&String::from_utf8_lossy(&bytes[..length])) else {
        return Ok(None);
    };
    if flows >= MOST_FLOWS {
        return Ok(None);
    }
    let local = asked.local_addr()?.ip();
    let pair = Pair {
        front: FlowSocket::bind(local, WARM)?,
        back: FlowSocket::bind(local, WARM)?,
        header: header(question.size),
    };
    pair.front.io.connect(question.client)?;
    pair.back.io.connect(question.peer)?;
    let answer = Answer {
        front: pair.front.io.local_addr()?,
        back: pair.back.io.local_addr()?,
    };
    asked.send_to(answer.encode().as_bytes(), from)?;
    Ok(Some(pair))
}

/// Sends all of it on; neighbors of one length with one system call, in their order. What is refused is lost.
fn forward(buffers: &Buffers, filled: usize, to: &UdpSocket, added: Option<&[u8; HEADER_LEN]>) {
    let mut run = Run::default();
    for (buffer, stride) in buffers.filled(filled) {
        for datagram in buffer.chunks(stride) {
            let payload = match added {
                Some(_) => datagram,
                None => &datagram[HEADER_LEN.min(datagram.len())..],
            };
            let length = payload.len() + added.map_or(0, |header| header.len());
            if !run.takes(length) {
                run.send(to);
            }
            run.add(added, payload, length);
        }
    }
    run.send(to);
}

/// Datagrams of one length, of which the last may be shorter.
#[derive(Default)]
struct Run<'a> {
    parts: Vec<IoSlice<'a>>,
    segment: usize,
    last: usize,
    bytes: usize,
    count: usize,
}

impl<'a> Run<'a> {
    const fn takes(&self, length: usize) -> bool {
        self.count == 0
            || (self.last == self.segment
                && length <= self.segment
                && self.count < MOST_SEGMENTS
                && self.bytes + length <= MOST_BYTES)
    }

    fn add(&mut self, header: Option<&'a [u8; HEADER_LEN]>, payload: &'a [u8], length: usize) {
        if self.count == 0 {
            self.segment = length;
        }
        if let Some(header) = header {
            self.parts.push(IoSlice::new(header));
        }
        self.parts.push(IoSlice::new(payload));
        self.last = length;
        self.bytes += length;
        self.count += 1;
    }

    fn send(&mut self, to: &UdpSocket) {
        if self.count > 0 {
            // A datagram is no longer than its length field says.
            let segment = self.segment as u16;
            let cut = [ControlMessage::UdpGsoSegments(&segment)];
            let cut = if self.count > 1 { &cut[..] } else { &[] };
            let _ = sendmsg::<()>(
                to.as_raw_fd(),
                &self.parts,
                cut,
                MsgFlags::MSG_DONTWAIT,
                None,
            );
        }
        self.parts.clear();
        (self.bytes, self.count) = (0, 0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_are_read_back() {
        let question = Question {
            client: "127.0.0.2:5".parse().unwrap(),
            peer: "[::1]:6".parse().unwrap(),
            size: 1200,
        };
        assert_eq!(Question::decode(&question.encode()).unwrap(), question);
        let answer = Answer {
            front: question.client,
            back: question.peer,
        };
        assert_eq!(Answer::decode(&answer.encode()).unwrap(), answer);
        assert!(Question::decode("127.0.0.1:1 nonsense").is_err());
    }

    #[test]
    fn a_run_ends_after_a_shorter_one_and_before_a_longer_one() {
        let bytes = [0; 2000];
        let mut run = Run::default();
        for length in [1000, 1000, 400] {
            assert!(run.takes(length));
            run.add(None, &bytes[..length], length);
        }
        assert!(!run.takes(400) && !run.takes(1000));
        let mut run = Run::default();
        run.add(None, &bytes[..400], 400);
        assert!(!run.takes(401) && run.takes(400));
    }
}
