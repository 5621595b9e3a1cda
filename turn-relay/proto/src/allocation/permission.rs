//! Permissions: which peer addresses may send to a relayed address
//! ([RFC 8656 section 9](https://www.rfc-editor.org/rfc/rfc8656#section-9)).

use rustc_hash::FxHashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Section 9: "The Permission Lifetime MUST be 300 seconds".
pub(crate) const LIFETIME: Duration = Duration::from_secs(300);

/// The permissions of one allocation. Expired ones are not honored; they take room until the next sweep.
#[derive(Debug, Default)]
pub(crate) struct Permissions {
    until: FxHashMap<IpAddr, Instant>,
    /// How often an address was added.
    installed: u32,
}

impl Permissions {
    pub(crate) fn len(&self) -> usize {
        self.until.len()
    }

    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        self.until.contains_key(&ip)
    }

    pub(crate) fn is_permitted(&self, ip: IpAddr, now: Instant) -> bool {
        self.until.get(&ip).is_some_and(|until| *until > now)
    }

    /// Installs or refreshes. Returns until when it holds.
    pub(crate) fn install(&mut self, ip: IpAddr, now: Instant) -> Instant {
        let until = now + LIFETIME;
        if self.until.insert(ip, until).is_none() {
            self.installed = self.installed.saturating_add(1);
        }
        until
    }

    /// Each, and until when it holds.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpAddr, Instant)> {
        self.until.iter().map(|(ip, until)| (*ip, *until))
    }

    /// How often a permission was installed for an address that had none.
    pub(crate) fn installed(&self) -> u32 {
        self.installed
    }

    /// As many as another process had installed.
    pub(crate) fn set_installed(&mut self, installed: u32) {
        self.installed = installed;
    }

    /// One that was installed in another process.
    pub(crate) fn restore(&mut self, ip: IpAddr, until: Instant) {
        self.until.insert(ip, until);
    }

    /// Forgets those to other addresses. Returns how many.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(IpAddr) -> bool) -> usize {
        let held = self.until.len();
        self.until.retain(|ip, _| keep(*ip));
        held - self.until.len()
    }

    /// Forgets those whose time is over.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.until.retain(|_, until| *until > now);
        if self.until.is_empty() {
            self.until = FxHashMap::default();
        }
    }
}
