use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Descriptors reported by one [`Poller::poll`]; more come with the next.
const MAX_READY: usize = 64;

/// What is ready, for a loop that is busy: one system call says it of all descriptors, without a runtime in between.
/// Such a loop never waits, so the runtime would never look. When nothing is ready, [`Poller::readable`] waits with
/// the runtime for the same descriptors.
///
/// A descriptor stays ready until it is read empty. One that is closed is forgotten by itself.
#[derive(Debug)]
pub struct Poller {
    epoll: AsyncFd<Shared>,
    events: [EpollEvent; MAX_READY],
    ready: usize,
}

/// `Epoll` in the shape that `AsyncFd` wants.
#[derive(Debug)]
struct Shared(Epoll);

impl AsRawFd for Shared {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }
}

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

impl Poller {
    /// One that watches nothing. Must be called inside the tokio runtime that will wait.
    ///
    /// # Errors
    ///
    /// When there is no descriptor left for it.
    #[allow(unsafe_code)]
    pub fn new() -> io::Result<Self> {
        let epoll = Shared(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        // SAFETY: the descriptor is owned by what is registered and stays the same until that is dropped.
        let epoll = unsafe { AsyncFd::register_with_interest(epoll, Interest::READABLE) };
        Ok(Self {
            epoll: epoll?,
            events: [EpollEvent::empty(); MAX_READY],
            ready: 0,
        })
    }

    /// Watches a descriptor: whether it can be read, and with `writable` also whether it can be written. Called again
    /// it changes that.
    ///
    /// # Errors
    ///
    /// When the descriptor cannot be watched, as a plain file cannot.
    pub fn watch(&self, descriptor: impl AsFd, writable: bool) -> io::Result<()> {
        let descriptor = descriptor.as_fd();
        let mut flags = EpollFlags::EPOLLIN;
        flags.set(EpollFlags::EPOLLOUT, writable);
        let mut event = EpollEvent::new(flags, key(descriptor));
        let epoll = &self.epoll.get_ref().0;
        match epoll.modify(descriptor, &mut event) {
            Err(nix::Error::ENOENT) => epoll.add(descriptor, event)?,
            result => result?,
        }
        Ok(())
    }

    /// Looks which descriptors are ready now, without waiting; whether any is.
    ///
    /// # Errors
    ///
    /// Only when the poller itself is broken.
    pub fn poll(&mut self) -> io::Result<bool> {
        let epoll = &self.epoll.get_ref().0;
        self.ready = match epoll.wait(&mut self.events, EpollTimeout::ZERO) {
            Err(nix::Error::EINTR) => 0,
            result => result?,
        };
        Ok(self.ready > 0)
    }

    /// Whether the last [`Self::poll`] or [`Self::readable`] found this descriptor ready, to be read or written.
    pub fn is_ready(&self, descriptor: impl AsFd) -> bool {
        let key = key(descriptor.as_fd());
        let ready = self.events.get(..self.ready).unwrap_or_default();
        ready.iter().any(|event| event.data() == key)
    }

    /// As [`Self::poll`], but waits until there is something. Cancel safe.
    ///
    /// # Errors
    ///
    /// Only when the runtime is going away.
    pub async fn readable(&mut self) -> io::Result<()> {
        self.ready = 0;
        loop {
            // What became ready after this is noticed: the note that is cleared is older.
            let mut noted = self.epoll.readable_mut().await?;
            let epoll = &noted.get_inner().0;
            match epoll.wait(&mut self.events, EpollTimeout::ZERO) {
                Ok(0) => noted.clear_ready(),
                Err(nix::Error::EINTR) => {}
                result => {
                    self.ready = result?;
                    return Ok(());
                }
            }
        }
    }
}

fn key(descriptor: BorrowedFd<'_>) -> u64 {
    // Descriptors are not negative.
    descriptor.as_raw_fd() as u64
}
