//! `turn-relay doctor`: looks at the configuration and the machine, and says what works, what may not, and what to do.

mod checks;
mod network;

use crate::cli::Args;
use crate::config::Settings;
use std::fmt::{self, Display};
use std::net::SocketAddr;

/// What it may ask, beyond this machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Questions {
    /// STUN servers, for the address seen from outside.
    pub(crate) stun: Vec<String>,
    /// A web server, for the time.
    pub(crate) clock: Option<String>,
    /// The name that clients know the relay by, for the certificate.
    pub(crate) name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One line.
#[derive(Clone, Debug)]
struct Finding {
    verdict: Verdict,
    about: String,
    says: String,
    /// What to do.
    remedy: String,
}

impl Finding {
    fn ok(about: impl Display, says: impl Display) -> Self {
        Self {
            verdict: Verdict::Ok,
            about: about.to_string(),
            says: says.to_string(),
            remedy: String::new(),
        }
    }

    fn warn(about: impl Display, says: impl Display, remedy: impl Display) -> Self {
        Self {
            verdict: Verdict::Warn,
            remedy: remedy.to_string(),
            ..Self::ok(about, says)
        }
    }

    fn fail(about: impl Display, says: impl Display, remedy: impl Display) -> Self {
        Self {
            verdict: Verdict::Fail,
            ..Self::warn(about, says, remedy)
        }
    }
}

impl Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        write!(f, "{verdict} {}: {}", self.about, self.says)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// Prints a line for each thing it looked at. Whether none of them failed.
pub(crate) fn examine(args: &Args, questions: &Questions) -> bool {
    let mut worst = Verdict::Ok;
    let mut say = |finding: Finding| {
        println!("{finding}");
        worst = worst.max(finding.verdict);
    };
    let settings = match Settings::load(args) {
        Ok(settings) => settings,
        Err(error) => {
            say(Finding::fail("configuration", error, "correct it first"));
            return false;
        }
    };
    say(Finding::ok("configuration", "can be read"));
    checks::peers(&settings).into_iter().for_each(&mut say);
    checks::certificate(&settings, questions.name.as_deref())
        .into_iter()
        .for_each(&mut say);
    checks::limits(&settings).into_iter().for_each(&mut say);
    checks::kernel(&settings).into_iter().for_each(&mut say);
    network::listeners(&settings).into_iter().for_each(&mut say);
    network::ports(&settings).into_iter().for_each(&mut say);
    network::outside(&settings, &questions.stun)
        .into_iter()
        .for_each(&mut say);
    say(network::clock(questions.clock.as_deref()));
    worst < Verdict::Fail
}

/// For printing.
fn seconds(count: i64) -> String {
    match count.abs() {
        172_800.. => format!("{} days", count.abs() / 86_400),
        7_200.. => format!("{} hours", count.abs() / 3_600),
        count => format!("{count} s"),
    }
}

/// The wildcard of a listener as an address to be asked.
fn askable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    address
}
