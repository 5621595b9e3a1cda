//! What the process gives up before it does anything: its user, its capabilities, writing to files, and calls to the kernel
//! that a relay never makes. Whoever finds a way to run code in it finds less to do with it.
//!
//! All of it belongs to the calling thread and those that it starts, and to a successor: so it comes before the runtime.
//! What the kernel lacks is left out, and said in the log.

use crate::cli::Args;
use crate::config::Settings;
use anyhow::Context;
use landlock::{
    ABI, AccessFs, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, path_beneath_rules,
};
use nix::unistd::{User, getuid, initgroups, setgid, setuid};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use service_kit::{Capability, ConfigError, drop_capabilities};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// For ports below 1024, and for socket buffers beyond the system's limit.
const KEEP: [Capability; 2] = [Capability::CAP_NET_BIND_SERVICE, Capability::CAP_NET_ADMIN];

/// Calls that are answered with EPERM: others' memory, mounts, namespaces, kernel modules, keys, the clock, and what has
/// been the way into the kernel more often than others. Everything else is allowed, so that a later version, started as a
/// successor under this filter, can make calls that this one does not know of.
const DENIED: [libc::c_long; 44] = [
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_fspick,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_personality,
];

/// What came of it, for the log: there is none yet.
#[derive(Debug, Default)]
pub(crate) struct Confinement {
    /// Why files can still be written, and calls be made.
    open: Vec<String>,
    off: bool,
}

impl Confinement {
    pub(crate) fn log(&self) {
        if self.off {
            tracing::warn!("not confined: `confinement` is off");
        } else if self.open.is_empty() {
            tracing::info!(
                "confined: files cannot be written, and calls that a relay does not make are refused"
            );
        }
        for problem in &self.open {
            tracing::warn!(%problem, "not wholly confined");
        }
    }
}

/// Gives up what is not needed.
///
/// # Errors
/// When the user does not exist or cannot be changed to, or capabilities cannot be dropped. What the kernel lacks for the
/// rest is no error.
pub(crate) fn confine(args: &Args) -> anyhow::Result<Confinement> {
    // What is wrong with it is said later, when there is a log.
    let settings = Settings::load(args).ok();
    let settings = settings.as_ref();
    if let Some(name) = settings.and_then(|settings| settings.run_as.as_deref()) {
        become_user(name)?;
    }
    drop_capabilities(&KEEP)?;
    if settings.is_some_and(|settings| settings.run_as.is_some()) {
        pass_on_capabilities();
    }
    let mut confinement = Confinement::default();
    match settings {
        Some(settings) if settings.confinement => {
            let writable = settings.usage_records.as_ref();
            let writable = writable.and_then(|usage| directory(&usage.file));
            let mut problem = |what: &str, result: anyhow::Result<()>| {
                if let Err(error) = result {
                    confinement.open.push(format!("{what}: {error:#}"));
                }
            };
            problem("landlock", forbid_writing(writable.as_deref()));
            problem("seccomp", forbid_calls());
        }
        _ => confinement.off = true,
    }
    Ok(confinement)
}

fn directory(file: &Path) -> Option<PathBuf> {
    let parent = file.parent()?;
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    Some(parent.to_owned())
}

/// Another user from here on, with the capabilities that are kept.
fn become_user(name: &str) -> anyhow::Result<()> {
    let unknown = |problem: String| {
        ConfigError::of_field("run-as", name, problem, "name a user of this machine")
    };
    let user = User::from_name(name)
        .map_err(|error| unknown(error.to_string()))?
        .ok_or_else(|| unknown("no such user".into()))?;
    if getuid() == user.uid {
        return Ok(());
    }
    let changed = || -> anyhow::Result<()> {
        nix::sys::prctl::set_keepcaps(true)?;
        initgroups(&CString::new(name)?, user.gid)?;
        setgid(user.gid)?;
        setuid(user.uid)?;
        // Back in effect, for what is dropped next.
        let permitted = caps::read(None, caps::CapSet::Permitted)?;
        caps::set(None, caps::CapSet::Effective, &permitted)?;
        Ok(())
    };
    changed()
        .with_context(|| format!("cannot become the user {name}: is the relay started as root?"))
}

/// To a successor: without this, a program that is started has none, unless its user is root.
fn pass_on_capabilities() {
    let Ok(permitted) = caps::read(None, caps::CapSet::Permitted) else {
        return;
    };
    for set in [caps::CapSet::Inheritable, caps::CapSet::Ambient] {
        // A successor that cannot have them binds no new port below 1024, and says so.
        let _ = caps::set(None, set, &permitted);
    }
}

/// No file is written, made, moved or removed any more, but in this directory. Reading is the file system's to permit:
/// a reload may name new files.
fn forbid_writing(except: Option<&Path>) -> anyhow::Result<()> {
    let writes = AccessFs::from_write(ABI::V5);
    let except = except.into_iter().chain([Path::new("/dev/null")]);
    let status = Ruleset::default()
        .handle_access(writes)?
        .create()?
        .add_rules(path_beneath_rules(except, writes))?
        .restrict_self()?;
    match status.ruleset {
        RulesetStatus::NotEnforced => anyhow::bail!("this kernel does not have it"),
        _ => Ok(()),
    }
}

fn forbid_calls() -> anyhow::Result<()> {
    let denied: BTreeMap<i64, _> = DENIED.iter().map(|call| (*call, Vec::new())).collect();
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let arch = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(denied, SeccompAction::Allow, refused, arch)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(apply_filter(&program)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Whatever is given up is given up by a thread of its own.
    fn aside<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(test).join().unwrap()
    }

    #[test]
    fn calls_are_refused_and_no_others() {
        aside(|| {
            nix::sys::prctl::set_no_new_privs().unwrap();
            nix::sched::unshare(nix::sched::CloneFlags::empty()).unwrap();
            forbid_calls().unwrap();
            let refused = nix::sched::unshare(nix::sched::CloneFlags::empty());
            assert_eq!(refused, Err(nix::Error::EPERM));
            std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            std::thread::spawn(|| ()).join().unwrap();
        });
    }

    #[test]
    fn where_the_kernel_has_landlock_files_are_written_in_one_directory_only() {
        let directory = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        aside(move || {
            nix::sys::prctl::set_no_new_privs().unwrap();
            let enforced = forbid_writing(Some(directory.path()));
            let here = std::fs::write(directory.path().join("a"), "a");
            here.unwrap();
            let there = std::fs::write(other.path().join("a"), "a");
            // A kernel without it says so, and does nothing.
            assert_eq!(enforced.is_ok(), there.is_err());
            std::fs::read("/etc/passwd").unwrap();
        });
    }
}
