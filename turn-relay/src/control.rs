//! What an event loop is told while it runs, beside its sockets: by messages, so that no packet meets a lock.

use crate::handover::{Frozen, Then};
use crate::stream::StreamLimits;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;
use tokio::sync::oneshot;
use turn_relay_proto::{LookedUp, RealmUser, Replaced, ServerConfig, ShardMessage};

/// What an event loop is told.
#[derive(Debug)]
pub(crate) enum Control {
    /// New settings. What they ended is told in return.
    Configure {
        server: Box<ServerConfig>,
        streams: StreamLimits,
        done: oneshot::Sender<Replaced>,
    },
    /// Tell what users did since the last time.
    TellUsage { done: oneshot::Sender<()> },
    /// No new allocations from now on, and the others for no longer than this.
    Drain { until: Instant },
    /// Stop, leave everything to a successor, and wait to be told what then.
    Freeze {
        frozen: Sender<Frozen>,
        then: Receiver<Then>,
    },
    /// What another event loop's mind says to this one's.
    Shard {
        message: Box<ShardMessage>,
        /// Of the relayed addresses that come with it.
        sockets: Vec<UdpSocket>,
    },
    /// What the site says about a user.
    LookedUp { user: RealmUser, answer: LookedUp },
}

/// The end of whoever tells.
#[derive(Clone, Debug)]
pub(crate) struct ControlSender {
    messages: Sender<Control>,
    wake: Arc<EventFd>,
}

/// The event loop's end.
#[derive(Debug)]
pub(crate) struct ControlReceiver {
    messages: Receiver<Control>,
    wake: Arc<EventFd>,
    /// Ends all event loops when it is written to.
    stop: Arc<EventFd>,
}

/// Both ends for one event loop. `stop` is the same for all.
///
/// # Errors
/// When the kernel has no room for it.
pub(crate) fn control(stop: Arc<EventFd>) -> io::Result<(ControlSender, ControlReceiver)> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let wake = Arc::new(EventFd::from_flags(flags)?);
    let (sender, receiver) = channel();
    let ends = (
        ControlSender {
            messages: sender,
            wake: wake.clone(),
        },
        ControlReceiver {
            messages: receiver,
            wake,
            stop,
        },
    );
    Ok(ends)
}

impl ControlSender {
    /// Is lost if the event loop is gone: then the process ends, too.
    pub(crate) fn send(&self, message: Control) {
        if self.messages.send(message).is_ok() {
            // Fails only where it was woken 2^64 times without waking.
            let _ = self.wake.write(1);
        }
    }
}

/// Asks every event loop, and waits for their answers. One that is gone has none: it ends the process.
pub(crate) async fn ask_all<A>(
    loops: &[ControlSender],
    question: impl Fn(oneshot::Sender<A>) -> Control,
) -> Vec<A> {
    let ask = |event_loop: &ControlSender| {
        let (done, answer) = oneshot::channel();
        event_loop.send(question(done));
        answer
    };
    let waiting: Vec<_> = loops.iter().map(ask).collect();
    let mut answers = Vec::new();
    for answer in waiting {
        answers.extend(answer.await.ok());
    }
    answers
}

impl ControlReceiver {
    /// To be watched for: readable when there is something to be received.
    pub(crate) fn wake(&self) -> &EventFd {
        &self.wake
    }

    /// To be watched for, and never read.
    pub(crate) fn stop(&self) -> &EventFd {
        &self.stop
    }

    /// All there is now.
    pub(crate) fn receive(&self) -> impl Iterator<Item = Control> {
        // Before the messages are taken, so that a later one wakes again.
        let _ = self.wake.read();
        self.messages.try_iter()
    }
}
