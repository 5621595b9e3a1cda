//! Names below wildcards of which their activator said that there is nothing behind them: for a while they are NXDOMAIN.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::service::ServiceId;

/// Names remembered; more are asked for again each time.
pub const MAX_ABSENT: usize = 1_024;
/// Nothing is believed for longer, whatever the activator says.
const LONGEST: Duration = Duration::from_secs(300);
/// Characters kept of a reason.
const MAX_REASON: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub struct Absent {
    names: HashMap<ServiceId, (Instant, Box<str>)>,
}

impl Absent {
    /// There is nothing behind a name, for so long.
    pub fn note(&mut self, id: ServiceId, lasts: Duration, reason: &str, now: Instant) {
        if self.names.len() >= MAX_ABSENT {
            self.names.retain(|_, (until, _)| *until > now);
        }
        if self.names.len() < MAX_ABSENT || self.names.contains_key(&id) {
            let reason: String = reason.chars().take(MAX_REASON).collect();
            let until = now + lasts.min(LONGEST);
            self.names.insert(id, (until, reason.into()));
        }
    }

    /// Why there is nothing behind a name, while that is believed.
    pub fn reason(&self, id: &ServiceId, now: Instant) -> Option<&str> {
        let (until, reason) = self.names.get(id)?;
        (*until > now).then_some(reason)
    }

    /// There is something, after all.
    pub fn forget(&mut self, id: &ServiceId) {
        self.names.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(service: &str) -> ServiceId {
        ServiceId {
            service: service.parse().expect("a name"),
            network: "east".parse().expect("a name"),
        }
    }

    #[test]
    fn a_name_is_absent_for_a_while_and_not_longer_than_may_be() {
        let (mut absent, now) = (Absent::default(), Instant::now());
        absent.note(id("api.prod"), Duration::from_secs(10), "no such name", now);
        absent.note(id("forever"), Duration::MAX, "", now);
        let later = now + Duration::from_secs(9);
        assert_eq!(absent.reason(&id("api.prod"), later), Some("no such name"));
        assert_eq!(absent.reason(&id("other"), later), None);
        let later = now + Duration::from_secs(10);
        assert_eq!(absent.reason(&id("api.prod"), later), None);
        assert_eq!(absent.reason(&id("forever"), now + LONGEST), None);
    }

    #[test]
    fn names_are_bounded_and_those_that_are_over_make_room() {
        let (mut absent, now) = (Absent::default(), Instant::now());
        let second = Duration::from_secs(1);
        for number in 0..2 * MAX_ABSENT {
            absent.note(id(&format!("n{number}")), second, "", now);
        }
        assert_eq!(absent.names.len(), MAX_ABSENT);
        absent.note(id("late"), second, "", now + second);
        assert_eq!(absent.names.len(), 1);
        absent.forget(&id("late"));
        assert!(absent.names.is_empty());
    }
}
