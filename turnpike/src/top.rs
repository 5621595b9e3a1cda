//! `turnpike top`: links and their rates, live in the terminal. Plain ANSI: it works wherever a shell does.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr},
};
use serde_json::Value;

use crate::{
    admin,
    ping::stop_on_signal,
    status_text::{cell, section},
};

/// Where an activator and a dns-signal are, unless told otherwise.
const PORTS: [u16; 2] = [9102, 9103];
/// A key is noticed within this.
const TICK: Duration = Duration::from_millis(50);
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

#[derive(Args)]
pub(crate) struct TopArgs {
    /// The admin port of an activator or dns-signal; repeatable [default: those of this machine]
    #[arg(long, value_name = "ADDR")]
    admin: Vec<SocketAddr>,
    /// From one picture to the next
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,
}

/// Until `q`, Escape, Ctrl-C or a signal.
pub(crate) fn run(args: &TopArgs) -> Result<()> {
    ensure!(
        isatty(io::stdin()) && isatty(io::stdout()),
        "top needs a terminal: elsewhere, `turnpike status --json --admin ADDR` says the same"
    );
    let admins = match args.admin.as_slice() {
        [] => PORTS
            .map(|port| (Ipv4Addr::LOCALHOST, port).into())
            .to_vec(),
        admins => admins.to_vec(),
    };
    let stop = stop_on_signal();
    let mut rates = Rates::default();
    let screen = Screen::enter()?;
    loop {
        let lines = picture(&admins, args.admin.is_empty(), &mut rates, Instant::now());
        screen.draw(&lines)?;
        let until = Instant::now() + args.interval.max(TICK);
        while Instant::now() < until {
            if screen.wants_to_leave()? || stop.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    }
}

/// The terminal, given back as it was when this is dropped, whatever ends the program but SIGKILL.
struct Screen {
    before: Termios,
}

impl Screen {
    fn enter() -> Result<Self> {
        let before = tcgetattr(io::stdin()).context("the terminal")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).context("the terminal")?;
        let screen = Self { before };
        io::stdout().write_all(ENTER.as_bytes())?;
        io::stdout().flush()?;
        Ok(screen)
    }

    /// No wider and no higher than the terminal is now.
    fn draw(&self, lines: &[String]) -> Result<()> {
        let size = tcgetwinsize(io::stdout()).ok();
        let width = size.map_or(80, |size| usize::from(size.ws_col).max(1));
        let height = size.map_or(24, |size| usize::from(size.ws_row).max(1));
        let mut text = String::from("\x1b[H");
        for (row, line) in lines.iter().take(height).enumerate() {
            if row > 0 {
                text.push_str("\r\n");
            }
            text.extend(line.chars().filter(|c| !c.is_control()).take(width));
            text.push_str("\x1b[K");
        }
        text.push_str("\x1b[J");
        io::stdout().write_all(text.as_bytes())?;
        io::stdout().flush()?;
        Ok(())
    }

    /// Waits a moment for a key.
    fn wants_to_leave(&self) -> Result<bool> {
        let stdin = io::stdin();
        let mut ready = [PollFd::new(&stdin, PollFlags::IN)];
        let tick = Timespec::try_from(TICK).ok();
        match poll(&mut ready, tick.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(false),
            Ok(_) => {}
            Err(error) => return Err(error).context("the terminal"),
        }
        let mut keys = [0; 16];
        let length = rustix::io::read(&stdin, &mut keys).context("the terminal")?;
        let leave = |key: &u8| matches!(key, b'q' | b'Q' | 3 | 4);
        // A lone escape; a longer sequence is an arrow or the like. Nothing at all: the terminal is gone.
        Ok(length == 0 || keys[..length].iter().any(leave) || keys[..length] == [27])
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = io::stdout().write_all(LEAVE.as_bytes());
        let _ = io::stdout().flush();
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Byte counts of the picture before, to show rates.
#[derive(Default)]
struct Rates {
    before: BTreeMap<String, (Instant, u64)>,
}

impl Rates {
    fn of(&mut self, what: String, count: u64, now: Instant) -> String {
        let before = self.before.insert(what, (now, count));
        let Some((at, earlier)) = before else {
            return "-".to_owned();
        };
        let seconds = now.saturating_duration_since(at).as_secs_f64().max(0.001);
        rate(count.saturating_sub(earlier) as f64 * 8.0 / seconds)
    }
}

/// Bits per second, in four places.
fn rate(bits: f64) -> String {
    let units = [(1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")];
    match units.iter().find(|(unit, _)| bits >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bits / unit),
        None => format!("{bits:.0} bit/s"),
    }
}

fn picture(admins: &[SocketAddr], guessed: bool, rates: &mut Rates, now: Instant) -> Vec<String> {
    let mut lines = vec!["turnpike top: q quits".to_owned()];
    let mut answered = false;
    for admin in admins {
        let status = match admin::get::<Value>(*admin, "/status") {
            Ok(status) => status,
            Err(_) if guessed => continue,
            Err(error) => {
                lines.push(format!("{error:#}"));
                continue;
            }
        };
        answered = true;
        lines.push(String::new());
        lines.extend(of_service(*admin, &status, rates, now));
    }
    if guessed && !answered {
        lines.push(
            "neither an activator nor a dns-signal answers on this machine: name one with --admin"
                .to_owned(),
        );
    }
    lines
}

fn of_service(admin: SocketAddr, status: &Value, rates: &mut Rates, now: Instant) -> Vec<String> {
    let connected = status["discovery_connected"] == true;
    let discovery = if connected {
        "discovery connected"
    } else {
        "discovery AWAY"
    };
    let mut lines = vec![format!("{} ({admin}), {discovery}", cell(status, "node"))];
    let mut table = |items: &str, header: [&str; 7], columns: [&str; 5], number: &str| {
        let Some(items) = status.get(items).and_then(Value::as_array) else {
            return;
        };
        let rows = items.iter().map(|item| {
            let id = format!("{admin} {} {}", cell(item, number), cell(item, columns[0]));
            let mut rate = |direction: &str| {
                let count = item[direction].as_u64().unwrap_or_default();
                rates.of(format!("{id} {direction}"), count, now)
            };
            let rates = [rate("bytes_received"), rate("bytes_sent")];
            let cells = columns.map(|column| match item[column].as_f64() {
                Some(number) if column == "rtt_ms" => format!("{number:.1}"),
                _ => cell(item, column),
            });
            cells.into_iter().chain(rates).collect()
        });
        let rows: Vec<Vec<String>> = rows.collect();
        let mut text = String::new();
        section(&mut text, &header, &rows);
        lines.extend(text.lines().skip(1).map(str::to_owned));
    };
    table(
        "allocations",
        [
            "ALLOCATION ON",
            "STATE",
            "NETWORK",
            "SERVER",
            "PEERS",
            "IN",
            "OUT",
        ],
        ["relay", "state", "network", "server", "peers"],
        "relay",
    );
    table(
        "links",
        [
            "LINK WITH",
            "STATE",
            "PATH",
            "CARRIER",
            "RTT ms",
            "IN",
            "OUT",
        ],
        ["peer", "state", "path", "carrier", "rtt_ms"],
        "link",
    );
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rates_are_of_the_time_between_two_pictures() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        assert_eq!(rates.of("a".to_owned(), 100, now), "-");
        let later = now + Duration::from_secs(2);
        assert_eq!(rates.of("a".to_owned(), 2_500_100, later), "10.0 Mbit/s");
        assert_eq!(rates.of("a".to_owned(), 0, later + TICK), "0 bit/s");
    }

    #[test]
    fn a_picture_has_a_line_for_each_link() {
        let link = json!({ "link": 1, "peer": "east/activator/gw", "state": "open", "path": "relay/udp",
            "carrier": "datagram", "rtt_ms": 11.04, "bytes_received": 1, "bytes_sent": 2 });
        let status =
            json!({ "node": "west/workload/app", "discovery_connected": true, "links": [link] });
        let admin = SocketAddr::from(([127, 0, 0, 1], 9103));
        let lines = of_service(admin, &status, &mut Rates::default(), Instant::now());
        assert!(lines[0].contains("west/workload/app") && lines[0].contains("connected"));
        assert!(
            lines[2].contains("east/activator/gw") && lines[2].contains("11.0"),
            "{lines:?}"
        );
    }
}
