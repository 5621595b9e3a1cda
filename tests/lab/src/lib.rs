//! Networks on one machine, built out of Linux namespaces.
//!
//! The picture is always the same ([`plan`]): a public segment in TEST-NET addresses, and private networks, `west` and
//! `east` and up to three more, which use the same addresses inside. Each has a router that translates addresses ([`nat`]) and
//! drops what its kind does not let in ([`Lab::set_nat`] and its neighbors change that while the lab is up), a relay at
//! its edge, an activator, a service, and a workload host `app`. There is no route between them: what gets from one to
//! the other went through a relay, through punched NATs, or through a cable that [`Lab::join`] laid.
//!
//! The journey of `Lab::up`: [`topology`] makes namespaces, bridges, and addresses; [`mesh`] makes the certificate
//! authority, tokens, and configuration files; [`process`] starts the real binaries, each in its host's namespace, and
//! [`wait`] polls until they say that they are ready. Everything a lab leaves on the machine carries its name, so
//! [`Lab::down`] finds it again even when the process that made it is gone:
//!
//! | what | where |
//! |---|---|
//! | namespaces | `tp-<lab>-<host>` |
//! | resolver settings | `/etc/netns/tp-<lab>-<host>/resolv.conf` |
//! | mesh directory, configuration, logs, process ids, node states | `/run/turnpike-lab/<lab>/` |
//!
//! Needs root, `ip` (iproute2), `nft`, and `dnsmasq`. Not thread-safe towards two labs of one name: bringing up a name
//! that is up is refused.
#![forbid(unsafe_code)]

pub mod plan;
pub mod nat;
pub mod netns;
mod command;
pub mod topology;
pub mod mesh;
pub mod process;
pub mod wait;
pub mod probe;
pub mod status;
mod lab;
mod admin;
mod cable;
pub mod chaos;
pub mod failover;
pub mod many_links;
mod router;
mod scoped;
pub mod cli;

pub use cable::Cable;
pub use lab::{Lab, LabOptions};
pub use nat::{Dependent, Firewall, NatKind};
pub use plan::Network;
pub use scoped::ScopedLab;
