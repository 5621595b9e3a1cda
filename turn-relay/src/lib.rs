//! `turn-relay`: a TURN server over UDP, TCP, TLS and DTLS.
//!
//! A library so that tests and fuzz targets reach what reads foreign bytes; the program is [`run`] and nothing else.
//!
//! The journey: [`cli`] and [`config`] become [`config::Settings`]; [`app`] binds the [`listener`]s, starts one
//! [`eventloop`] per core and the admin port; each event loop owns a mind (`turn_relay_proto::Server`), its
//! [`relay_sockets`], the batches of [`udp`] that datagrams come and go in, and the connections of [`stream`], whose
//! [`certificate`] may change at any time; [`reload`] brings new settings to those that run, by [`control`]; [`metrics`] shows what
//! they count. [`running`] waits for signals: a drain, or a successor, which gets everything by [`handover`].

#![deny(unsafe_code)]

mod cli;
mod commands;
mod confine;
mod config;
mod users;
mod hook;
mod app;
mod reload;
mod stamp;
mod control;
mod running;
mod handover;
mod notify;
mod doctor;
mod listener;
mod eventloop;
mod carrying;
mod stream;
mod tcp_relay;
mod certificate;
mod relay_sockets;
mod udp;
mod usage;
mod metrics;
mod moderation;

pub mod foreign;

use clap::Parser;
use std::process::ExitCode;

/// Whether the text of a config file could be served, with what it names as it is on this machine.
///
/// # Errors
/// One line: which field, its value, what is wrong, and what to do.
pub fn check_config(text: &str) -> Result<(), service_kit::ConfigError> {
    config::Settings::read(text).map(drop)
}

/// The whole program: flags from the command line, until it is told to stop.
pub fn run() -> ExitCode {
    let args = cli::Args::parse();
    if let Some(command) = &args.command {
        return commands::run(&args, command);
    }
    let confinement = match confine::confine(&args) {
        Ok(confinement) => confinement,
        Err(error) => return service_kit::report(args.common.config.as_deref(), Err(error)),
    };
    service_kit::main("turn-relay", &args.common, || app::run(&args, &confinement))
}
