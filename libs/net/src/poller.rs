use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::pin::pin;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Descriptors reported by one [`Poller::poll`]; more come with the next.
const MAX_READY: usize = 64;

/// What a loop with a thread of its own waits for: descriptors, a time, and what other threads tell it through futures
/// (channels). One system call asks or waits; there is no runtime in between, which would cost a packet that arrives
/// alone more than the packet itself does.
///
/// A descriptor stays ready until it is read empty. One that is closed is forgotten by itself.
#[derive(Debug)]
pub struct Poller {
    epoll: Epoll,
    events: [EpollEvent; MAX_READY],
    ready: usize,
    bell: Arc<Bell>,
    /// The same bell, as futures want it.
    waker: Waker,
    /// The kernel waits in nanoseconds; since Linux 5.11.
    precise: bool,
}

/// Wakes the thread that waits.
#[derive(Debug)]
struct Bell {
    rung: AtomicBool,
    descriptor: EventFd,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // It holds a count of one at most, so there is room.
            let _ = self.descriptor.write(1);
        }
    }
}

impl Poller {
    /// One that watches nothing yet.
    ///
    /// # Errors
    ///
    /// When there is no descriptor left for it.
    pub fn new() -> io::Result<Self> {
        let bell = Arc::new(Bell {
            // Nobody was asked yet.
            rung: AtomicBool::new(true),
            descriptor: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
        });
        let poller = Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            events: [EpollEvent::empty(); MAX_READY],
            ready: 0,
            waker: Waker::from(bell.clone()),
            bell,
            precise: true,
        };
        poller.watch(&poller.bell.descriptor, false)?;
        Ok(poller)
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
        match self.epoll.modify(descriptor, &mut event) {
            Err(Errno::ENOENT) => self.epoll.add(descriptor, event)?,
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
        self.ready = match self.epoll.wait(&mut self.events, EpollTimeout::ZERO) {
            Err(Errno::EINTR) => 0,
            result => result?,
        };
        Ok(self.ready > 0)
    }

    /// As [`Self::poll`], but waits for something to be ready, for what [`Self::hear`] should be asked about, or until
    /// `deadline`, to the microsecond where the kernel can. May return early.
    ///
    /// # Errors
    ///
    /// Only when the poller itself is broken.
    pub fn wait(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        let passed =
            || deadline.is_some_and(|due| due.saturating_duration_since(Instant::now()).is_zero());
        if self.bell.rung.load(Ordering::Acquire) || passed() {
            return self.poll().map(drop);
        }
        self.ready = match self.sleep(deadline) {
            Err(Errno::EINTR) => 0,
            result => result?,
        };
        Ok(())
    }

    /// Whether the last [`Self::poll`] or [`Self::wait`] found this descriptor ready, to be read or written.
    pub fn is_ready(&self, descriptor: impl AsFd) -> bool {
        let key = key(descriptor.as_fd());
        let ready = self.events.get(..self.ready).unwrap_or_default();
        ready.iter().any(|event| event.data() == key)
    }

    /// Polls a future, if it, or one that was polled before it, might have something new to say: for
    /// channels of other threads. `make` makes it; what is not done by then is dropped, so it must not lose anything
    /// by that. Ask until it says `None`.
    pub fn hear<F: Future>(&self, make: impl FnOnce() -> F) -> Option<F::Output> {
        let rung = &self.bell.rung;
        // Before the others are asked: what is said afterwards rings again.
        if !rung.load(Ordering::Acquire) || !rung.swap(false, Ordering::AcqRel) {
            return None;
        }
        let _ = self.bell.descriptor.read();
        match pin!(make()).poll(&mut Context::from_waker(&self.waker)) {
            Poll::Ready(heard) => {
                // There may be more, and the rest of the future was not asked.
                rung.store(true, Ordering::Release);
                Some(heard)
            }
            Poll::Pending => None,
        }
    }

    #[allow(unsafe_code)]
    fn sleep(&mut self, deadline: Option<Instant>) -> nix::Result<usize> {
        let rest = deadline.map(|due| due.saturating_duration_since(Instant::now()));
        if self.precise {
            let time = rest.map(|rest| libc::timespec {
                tv_sec: rest.as_secs().min(86_400) as libc::time_t,
                tv_nsec: libc::c_long::from(rest.subsec_nanos()),
            });
            let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
            // SAFETY: the descriptor is open; `EpollEvent` is transparent over `epoll_event`, and there is room for as
            // many as are said; the time is null or outlives the call; no signal mask.
            let found = unsafe {
                libc::syscall(
                    libc::SYS_epoll_pwait2,
                    self.epoll.0.as_raw_fd(),
                    self.events.as_mut_ptr(),
                    MAX_READY as libc::c_int,
                    time,
                    ptr::null::<libc::sigset_t>(),
                    0_usize,
                )
            };
            match Errno::result(found) {
                // EPERM: a seccomp filter that is older than the call.
                Err(Errno::ENOSYS | Errno::EPERM) => self.precise = false,
                result => return result.map(|found| found as usize),
            }
        }
        let timeout = rest.map_or(EpollTimeout::NONE, |rest| {
            // Rounded up: early would be a loop that spins.
            let ms = rest.as_micros().div_ceil(1_000).min(60_000);
            EpollTimeout::from(ms as u16)
        });
        self.epoll.wait(&mut self.events, timeout)
    }
}

fn key(descriptor: BorrowedFd<'_>) -> u64 {
    // Descriptors are not negative.
    descriptor.as_raw_fd() as u64
}
