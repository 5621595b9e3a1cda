//! Records that say for whom they are: a server that returns only its own, with its name before them, and a client that
//! keeps connections to many such servers busy and tells what comes back, as long as somebody listens.
//!
//! A record is a line: `<from> <to> <connection> <number> <milliseconds since 1970>`.
use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use lab::chaos::{Told, ToldOfPair};
use lab::plan::RECORDS_PORT;

use crate::client::resolve;

const EVERY: Duration = Duration::from_millis(100);
const NEW_EVERY: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(100);
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// A connection on which nothing comes back for so long is given up; longer than anything may take to heal.
const LOST_AFTER: Duration = Duration::from_secs(40);
const NEW_DEADLINE: Duration = Duration::from_secs(3);

/// Serves on a thread of its own, as `name`.
pub(crate) fn serve(name: &str) -> Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, RECORDS_PORT))
        .context("listening for records")?;
    let name: Arc<str> = name.into();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let name = Arc::clone(&name);
            // A connection that breaks is the other side's affair.
            thread::spawn(move || give_back(&stream, &name));
        }
    });
    Ok(())
}

fn give_back(mut stream: &TcpStream, name: &str) -> io::Result<()> {
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        // What is another's goes back as well: the client sees that the names differ.
        stream.write_all(format!("{name} {line}").as_bytes())?;
        line.clear();
    }
    Ok(())
}

/// One service, and what came back from it.
#[derive(Debug)]
struct Target {
    /// How it calls itself: `east/orders`.
    name: String,
    host: String,
    /// When the newest record was sent that came back, on the connection that is held and on new ones.
    held: AtomicU64,
    new: AtomicU64,
    records: AtomicU64,
    broken: Mutex<Vec<String>>,
    wrong: Mutex<Vec<String>>,
}

/// Keeps one connection to each of these names open, with a record every 100 ms, and makes a new one each second, over
/// IPv4 and IPv6 in turns. Prints what came back, a line of JSON every 100 ms, until nobody reads that.
pub(crate) fn exchange(own: &str, hosts: Vec<String>) -> Result<()> {
    let targets: Vec<Arc<Target>> = hosts
        .into_iter()
        .map(|host| Ok(Arc::new(Target::new(host)?)))
        .collect::<Result<_>>()?;
    for target in &targets {
        let (own, own_too) = (own.to_owned(), own.to_owned());
        let (held, new) = (Arc::clone(target), Arc::clone(target));
        thread::spawn(move || hold(&own, &held));
        thread::spawn(move || renew(&own_too, &new));
    }
    let mut output = io::stdout().lock();
    loop {
        let pairs = targets.iter().map(|target| target.tell()).collect();
        let told = serde_json::to_string(&Told { at: now(), pairs })?;
        if writeln!(output, "{told}").is_err() {
            return Ok(());
        }
        thread::sleep(EVERY);
    }
}

impl Target {
    /// `orders.east.mesh.internal` calls itself `east/orders`.
    fn new(host: String) -> Result<Self> {
        let mut labels = host.split('.');
        let service = labels.next().unwrap_or_default();
        let network = labels.next().context("a name with a network in it")?;
        Ok(Self {
            name: format!("{network}/{service}"),
            held: AtomicU64::new(0),
            new: AtomicU64::new(0),
            records: AtomicU64::new(0),
            broken: Mutex::default(),
            wrong: Mutex::default(),
            host,
        })
    }

    fn tell(&self) -> ToldOfPair {
        let taken = |list: &Mutex<Vec<String>>| {
            std::mem::take(&mut *list.lock().unwrap_or_else(PoisonError::into_inner))
        };
        ToldOfPair {
            to: self.name.clone(),
            held: self.held.load(Ordering::Relaxed),
            new: self.new.load(Ordering::Relaxed),
            records: self.records.load(Ordering::Relaxed),
            broken: taken(&self.broken),
            wrong: taken(&self.wrong),
        }
    }

    /// Looks at what came back where `expected` should have, and remembers when that was sent.
    fn check(&self, sent: &Sent<'_>, line: &str, newest: &AtomicU64) -> bool {
        let stamp = line.trim_end().rsplit(' ').next();
        let stamp = stamp.and_then(|word| word.parse::<u64>().ok());
        let expected = stamp.map(|stamp| format!("{} {}", self.name, sent.line(stamp)));
        if expected.as_deref() == Some(line) {
            newest.fetch_max(stamp.unwrap_or_default(), Ordering::Relaxed);
            self.records.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        let said = format!("where {} should be: {line:?}", sent.line(0).trim_end());
        note(&self.wrong, said);
        false
    }
}

fn note(list: &Mutex<Vec<String>>, said: String) {
    list.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(said);
}

/// A record, but for the time.
struct Sent<'a> {
    from: &'a str,
    to: &'a str,
    connection: u64,
    number: u64,
}

impl Sent<'_> {
    fn line(&self, stamp: u64) -> String {
        let mut line = String::new();
        let Self {
            from,
            to,
            connection,
            number,
        } = self;
        let _ = writeln!(line, "{from} {to} {connection} {number} {stamp}");
        line
    }
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

fn connect(target: &Target, family: Option<u8>) -> Result<TcpStream> {
    let server = resolve(&target.host, RECORDS_PORT, family)?;
    let stream = TcpStream::connect_timeout(&server, CONNECT_DEADLINE)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One connection as long as it lives, and then another.
fn hold(own: &str, target: &Target) {
    for connection in 1.. {
        let stream = loop {
            match connect(target, Some(4)) {
                Ok(stream) => break stream,
                Err(_) => thread::sleep(AGAIN),
            }
        };
        if let Err(error) = converse(own, target, connection, &stream) {
            note(&target.broken, format!("{error:#}"));
        }
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn converse(own: &str, target: &Target, connection: u64, stream: &TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(LOST_AFTER))?;
    let mut writer = stream.try_clone().context("a second handle")?;
    let (from, to) = (own.to_owned(), target.name.clone());
    thread::spawn(move || -> io::Result<()> {
        for number in 0.. {
            let sent = Sent {
                from: &from,
                to: &to,
                connection,
                number,
            };
            writer.write_all(sent.line(now()).as_bytes())?;
            thread::sleep(EVERY);
        }
        Ok(())
    });
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    let begin = Instant::now();
    for number in 0.. {
        line.clear();
        let length = lines.read_line(&mut line).with_context(|| {
            let age = begin.elapsed().as_secs();
            format!("reading record {number} of connection {connection}, {age} s old")
        })?;
        anyhow::ensure!(
            length > 0 && line.ends_with('\n'),
            "connection {connection} was closed at record {number}"
        );
        let sent = Sent {
            from: own,
            to: &target.name,
            connection,
            number,
        };
        if !target.check(&sent, &line, &target.held) {
            anyhow::bail!("a wrong record");
        }
    }
    Ok(())
}

/// A new connection each second, for one record.
fn renew(own: &str, target: &Target) {
    for connection in 1_u64.. {
        let family = if connection % 2 == 0 { 6 } else { 4 };
        let sent = Sent {
            from: own,
            to: &target.name,
            connection,
            number: 0,
        };
        // That it fails shows in the time that passes.
        let _ = ask_once(target, &sent, family);
        thread::sleep(NEW_EVERY);
    }
}

fn ask_once(target: &Target, sent: &Sent<'_>, family: u8) -> Result<()> {
    let mut stream = connect(target, Some(family))?;
    stream.set_read_timeout(Some(NEW_DEADLINE))?;
    stream.write_all(sent.line(now()).as_bytes())?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    // Else it broke.
    if line.ends_with('\n') {
        target.check(sent, &line, &target.new);
    }
    Ok(())
}
