//! The services of the lab's networks, and the clients that ask them what curl and ping cannot.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;

mod bytes;
mod client;
mod echo;
mod http;
mod records;

/// Example services of a lab, and clients for them
#[derive(Debug, Parser)]
enum Command {
    /// Serve HTTP on 8080, TCP echo on 9001, records on 9003, UDP echo on 9000, and "who am I" on UDP 9002; IPv4 and
    /// IPv6
    Serve {
        /// What the start page calls itself
        #[arg(long, default_value = "lab-service")]
        name: String,
    },
    /// Send one datagram of each size and demand the same back
    UdpEcho {
        /// Name or address
        host: String,
        /// UDP port
        port: u16,
        /// Bytes per datagram
        #[arg(required = true)]
        sizes: Vec<usize>,
        /// Only addresses of this family: 4 or 6
        #[arg(long)]
        family: Option<u8>,
        /// How often a datagram is sent before it counts as lost
        #[arg(long, default_value_t = 3)]
        tries: u32,
    },
    /// Open many TCP connections, have all of them open at once, and demand back what each sends
    TcpEcho {
        /// Name or address
        host: String,
        /// TCP port
        port: u16,
        /// Connections at once
        #[arg(long, default_value_t = 1)]
        connections: usize,
        /// Bytes per connection
        #[arg(long, default_value_t = 10_000)]
        bytes: usize,
        /// Only addresses of this family: 4 or 6
        #[arg(long)]
        family: Option<u8>,
    },
    /// For a while, send numbered records over one TCP connection to an echo server every 5 ms, demand each back in order,
    /// and print the longest time in which nothing came back
    Sequence {
        /// Name or address
        host: String,
        /// TCP port
        port: u16,
        /// How long
        #[arg(long, default_value_t = 8)]
        seconds: u64,
    },
    /// Keep connections to many services busy with records that say for whom they are, and print what comes back, a line
    /// of JSON every 100 ms
    Records {
        /// What the records call their sender
        #[arg(long, value_name = "NAME")]
        own: String,
        /// orders.east.mesh.internal, ...
        #[arg(required = true)]
        hosts: Vec<String>,
    },
    /// From one socket, ask each server under which address it sees us, and print the answers
    Observe {
        /// UDP servers
        #[arg(required = true)]
        servers: Vec<SocketAddr>,
    },
    /// Print the SHA-256 of what /bytes/N answers
    Digest {
        /// N
        length: u64,
    },
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Serve { name } => {
            echo::serve()?;
            records::serve(&name)?;
            http::serve(&name)
        }
        Command::UdpEcho {
            host,
            port,
            sizes,
            family,
            tries,
        } => client::udp_echo(client::resolve(&host, port, family)?, &sizes, tries),
        Command::TcpEcho {
            host,
            port,
            connections,
            bytes,
            family,
        } => client::tcp_echo(client::resolve(&host, port, family)?, connections, bytes),
        Command::Sequence {
            host,
            port,
            seconds,
        } => client::sequence(
            client::resolve(&host, port, None)?,
            Duration::from_secs(seconds),
        ),
        Command::Records { own, hosts } => records::exchange(&own, hosts),
        Command::Observe { servers } => client::observe(&servers),
        Command::Digest { length } => {
            println!("{}", bytes::digest(length));
            Ok(())
        }
    }
}
