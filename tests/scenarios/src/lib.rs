//! What the system promises, as tests that read like a specification, against the real binaries in a lab.
//!
//! Every file under `tests/` is one chapter. They need root, the tools of the lab, and release binaries, whose
//! directory `TURNPIKE_BIN_DIR` names; `cargo xtask test` sees to all of it. A test without them fails; none skips.
//! Each test has a lab of its own, so none depends on what another left behind.
#![forbid(unsafe_code)]

pub mod dns;

use std::env;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use lab::{Lab, LabOptions, Network, ScopedLab};

/// What a workload of west asks for.
pub const ORDERS: &str = "http://orders.east.mesh.internal:8080";
/// What a workload of east asks for.
pub const BILLING: &str = "http://billing.west.mesh.internal:8080";
/// After a part came back, the next request must succeed within this.
pub const RECOVERY: Duration = Duration::from_secs(15);

/// Options for a lab with the release binaries.
#[must_use]
pub fn options(name: &str) -> LabOptions {
    let binaries = env::var_os("TURNPIKE_BIN_DIR").map(PathBuf::from);
    let binaries = binaries.expect(
        "TURNPIKE_BIN_DIR must name the directory of the release binaries: `cargo xtask test` sets it",
    );
    LabOptions {
        binaries,
        ..LabOptions::new(name)
    }
}

/// The whole picture, working.
#[must_use]
pub fn lab(name: &str) -> ScopedLab {
    ScopedLab::up(&options(name)).expect("the lab comes up")
}

/// Only the networks and the example services.
#[must_use]
pub fn bare_lab(name: &str) -> ScopedLab {
    let options = LabOptions {
        mesh: false,
        ..options(name)
    };
    ScopedLab::up(&options).expect("the lab comes up")
}

/// A network's workload, and the address of the other network's service.
#[must_use]
pub const fn caller(network: Network) -> (&'static str, &'static str) {
    match network {
        Network::West => ("west/app", ORDERS),
        Network::East => ("east/app", BILLING),
        Network::Isle => ("isle/app", BILLING),
        Network::Cape => ("cape/app", BILLING),
        Network::Gulf => ("gulf/app", BILLING),
    }
}

/// The page at an address, as curl in `host` gets it; further arguments for curl may follow.
pub fn page(lab: &Lab, host: &str, url: &str, more: &[&str]) -> anyhow::Result<String> {
    lab.output(
        host,
        &[&["curl", "-sS", "--fail", "-m", "20", url], more].concat(),
    )
}

/// Asks again and again, each time with little patience, until a page comes.
pub fn page_within(lab: &Lab, host: &str, url: &str, within: Duration) -> anyhow::Result<String> {
    lab::wait::until(&format!("{host} to get {url}"), within, || {
        page(lab, host, url, &["-m", "3"]).map(Some)
    })
}

/// A program that runs in a host as long as this lives.
#[derive(Debug)]
pub struct Beside(Child);

impl Beside {
    /// Starts it.
    ///
    /// # Errors
    /// When there is no such host or program.
    pub fn start(lab: &Lab, host: &str, command: &[&str]) -> anyhow::Result<Self> {
        lab.spawn(host, command).map(Self)
    }

    /// Ends it now.
    pub fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.end();
    }
}

/// The lab's own client and server, as a path.
#[must_use]
pub fn service(lab: &Lab) -> String {
    lab.binaries().join("lab-service").display().to_string()
}
