use nix::errno::Errno;

/// What the scheduler is asked for: the least it grants, 100 us.
const SLICE_NS: u64 = 100_000;

/// `struct sched_attr`, version 0: sched_setattr(2).
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Asks for short time slices for the calling thread, of an ordinary scheduling policy: it gets no more of a processor than
/// before, but gets it sooner when a packet arrives while others are at work. Since Linux 6.12; an older kernel goes on as
/// it did, and so does one that refuses.
#[allow(unsafe_code)]
pub fn ask_for_short_slices() {
    let mut attributes = SchedAttr::default();
    let size = size_of::<SchedAttr>() as u32;
    // SAFETY: thread 0 is the calling one; the kernel writes `size` bytes at most, which is what there is.
    let read =
        unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0_u32) };
    let asked = Errno::result(read).and_then(|_| {
        attributes.size = size;
        // Only what is ordinary has slices; another policy was somebody's choice.
        if attributes.policy != libc::SCHED_OTHER as u32 {
            return Ok(0);
        }
        attributes.runtime = SLICE_NS;
        // SAFETY: as above; the kernel reads what `size` says.
        let set =
            unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0_u32) };
        Errno::result(set)
    });
    if let Err(error) = asked {
        tracing::debug!(%error, "the scheduler keeps its own time slices");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_keeps_its_policy_and_its_nice_value() {
        let nice_and_policy = || {
            // SAFETY: neither takes a pointer; 0 is the calling thread.
            #[allow(unsafe_code)]
            unsafe {
                (
                    libc::getpriority(libc::PRIO_PROCESS, 0),
                    libc::sched_getscheduler(0),
                )
            }
        };
        let before = nice_and_policy();
        ask_for_short_slices();
        assert_eq!(nice_and_policy(), before);
    }
}
