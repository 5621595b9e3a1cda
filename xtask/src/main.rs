//! The project's own commands: `cargo xtask demo | test | conformance | fuzz | tidy | deny | ci | bench | chaos`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod bench;
mod build;
mod chaos;
mod ci;
mod compose;
mod conformance;
mod demo;
mod deny;
mod fuzz;
mod packages;
mod shell;
mod testing;
mod tidy;
mod workspace;

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    about = "Turnpike's own build, test and demonstration commands"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring two private networks up, reach a service from one in the other by name, and show what happened
    Demo {
        /// Leave the lab up afterwards
        #[arg(long)]
        keep: bool,
        /// The lab's name: 1 to 12 of a-z and 0-9
        #[arg(long, default_value = "demo")]
        name: String,
    },
    /// Run every test there is: of each crate, in the lab, and against programs that are not ours
    Test {
        /// Instead: compose.yaml with a container engine of its own, and the faults of its profiles
        #[arg(long)]
        compose: bool,
        /// Only tests whose name contains this
        filter: Option<String>,
    },
    /// Run the tests that turn-relay/conformance.toml names, and write docs/conformance.md
    Conformance {
        /// Only of these rows; the others stay as they are
        #[arg(value_name = "ROW")]
        rows: Vec<u32>,
    },
    /// Measure us and a rival in turns, and print the ratio
    Bench {
        #[command(subcommand)]
        subject: bench::Subject,
    },
    /// Let things happen to five networks under constant traffic, and see that everything heals
    Chaos(chaos::Options),
    /// Search for input that breaks turn-relay
    Fuzz {
        /// One of the directories in tests/fuzz/corpus; each of them in turn if none is named
        target: Option<String>,
        /// How long, for each
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// Do not search: add to the kept corpus what the search has found and what reaches new code
        #[arg(long)]
        keep: bool,
    },
    /// Check the house rules: file sizes, layers, what the documents name
    Tidy,
    /// Check licences, sources and banned crates of all dependencies
    Deny,
    /// Everything that must hold before a change lands: fmt, clippy, docs, deny, tidy, test
    Ci,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Demo { keep, name } => demo::run(&name, keep).map(|()| ExitCode::SUCCESS),
        Command::Test { compose, filter } => testing::run(&testing::Request {
            parts: if compose {
                testing::Parts::Compose
            } else {
                testing::Parts::Tests
            },
            filter: filter.as_deref(),
            ..Default::default()
        }),
        Command::Conformance { rows } => conformance::run(&rows).map(|()| ExitCode::SUCCESS),
        Command::Bench { subject } => bench::run(subject),
        Command::Chaos(options) => chaos::run(&options),
        Command::Fuzz {
            target,
            seconds,
            keep,
        } => fuzz::run(target.as_deref(), seconds, keep).map(|()| ExitCode::SUCCESS),
        Command::Tidy => tidy::run().map(|()| ExitCode::SUCCESS),
        Command::Deny => deny::run().map(|()| ExitCode::SUCCESS),
        Command::Ci => ci::run(),
    }
}
