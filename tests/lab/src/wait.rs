//! Waiting for a state, with a deadline and words for when it does not come.
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const INTERVAL: Duration = Duration::from_millis(15);

/// Asks again and again until the answer is `Some`; after `within`, an error that says what was waited for and the
/// last reason `attempt` gave. An `Err` of `attempt` is such a reason, not the end.
pub fn until<T>(
    what: &str,
    within: Duration,
    mut attempt: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        let reason = match attempt() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => String::new(),
            Err(error) => format!(": {error:#}"),
        };
        if Instant::now() >= deadline {
            bail!(
                "waited {:.1} s for {what}, in vain{reason}",
                within.as_secs_f64()
            );
        }
        thread::sleep(INTERVAL);
    }
}

/// The same for a plain yes or no.
pub fn until_true(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    until(what, within, || Ok(condition()?.then_some(())))
}
