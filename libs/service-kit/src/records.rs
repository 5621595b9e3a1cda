//! Records as JSON lines in a file, written by a thread of their own.
//!
//! Who has something to say never waits: where there is no room, it is lost and counted. The file is opened again when that
//! is asked for (SIGHUP, usually), so that it can be rotated.

use crate::ConfigError;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use tokio::signal::unix::{SignalKind, signal};

/// Messages that wait for the thread.
const WAITING: usize = 8_192;
/// Lines of one system call.
const LINES: usize = 1_024;

/// For metrics.
#[derive(Debug, Default)]
pub struct RecordStats {
    /// Records that are in the file.
    pub written: AtomicU64,
    /// Records that found no room, on their way or on the disk.
    pub lost: AtomicU64,
}

/// Where messages are handed over, from any thread.
#[derive(Debug)]
pub struct RecordSender<M> {
    messages: SyncSender<Option<M>>,
    stats: Arc<RecordStats>,
}

/// The thread. `M` is what it is told; what records it makes of that is up to who starts it.
#[derive(Debug)]
pub struct RecordWriter<M> {
    sender: RecordSender<M>,
    again: Reopen,
    thread: JoinHandle<()>,
}

/// Tells the thread to open its file again, before it writes the next time.
#[derive(Clone, Debug, Default)]
pub struct Reopen(Arc<AtomicBool>);

/// The file, as the thread sees it.
#[derive(Debug)]
pub struct RecordFile {
    field: &'static str,
    path: PathBuf,
    file: File,
    again: Reopen,
    /// A line was begun for which there was no room.
    torn: bool,
    stats: Arc<RecordStats>,
}

impl Reopen {
    /// Does not wait for it.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Asks at each SIGHUP, for good; from now on it does not end the process.
    ///
    /// # Errors
    /// When the signal cannot be caught.
    pub fn on_hangup(self) -> io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                self.ask();
            }
        });
        Ok(())
    }
}

impl<M> Clone for RecordSender<M> {
    fn clone(&self) -> Self {
        Self {
            messages: self.messages.clone(),
            stats: Arc::clone(&self.stats),
        }
    }
}

impl<M> RecordSender<M> {
    /// Never waits: what finds no room is lost, and counted as one record.
    pub fn send(&self, message: M) {
        if self.messages.try_send(Some(message)).is_err() {
            self.stats.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<M: Send + 'static> RecordWriter<M> {
    /// Opens the file, which only its owner may read, and starts the thread. It gives `on_message` one message after the
    /// other, and `None` at the end. `field` is the configuration's, for errors.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn start(
        field: &'static str,
        path: &Path,
        stats: Arc<RecordStats>,
        mut on_message: impl FnMut(Option<M>, &mut RecordFile) + Send + 'static,
    ) -> Result<Self, ConfigError> {
        let file = open(path).map_err(|error| {
            ConfigError::of_field(
                field,
                path.display(),
                format!("cannot be written: {error}"),
                "name a file in a directory that this service may write to",
            )
        })?;
        let again = Reopen::default();
        let mut file = RecordFile {
            field,
            path: path.to_owned(),
            file,
            again: again.clone(),
            torn: false,
            stats: Arc::clone(&stats),
        };
        let (messages, received) = sync_channel::<Option<M>>(WAITING);
        let thread = thread::Builder::new()
            .name("records".into())
            .spawn(move || {
                for message in received {
                    let over = message.is_none();
                    on_message(message, &mut file);
                    if over {
                        return;
                    }
                }
            })
            .map_err(|error| ConfigError::without_field(error, "raise the limit of threads"))?;
        let sender = RecordSender { messages, stats };
        Ok(Self {
            sender,
            again,
            thread,
        })
    }

    /// One more end to hand messages over.
    #[must_use]
    pub fn sender(&self) -> RecordSender<M> {
        self.sender.clone()
    }

    /// To have the file opened again.
    #[must_use]
    pub fn reopen(&self) -> Reopen {
        self.again.clone()
    }

    /// Writes what waits, and ends. Blocks as long as the disk does.
    pub fn end(self) {
        // Behind all that was sent before; an error means that the thread is gone.
        let _ = self.sender.messages.send(None);
        let _ = self.thread.join();
    }
}

impl RecordFile {
    /// Whole lines with one system call, so that others who write to the file do not come between. What the disk does not
    /// take is lost, and counted.
    pub fn write<R: Serialize>(&mut self, records: &[R]) {
        if self.again.0.swap(false, Ordering::Relaxed) {
            self.open_again();
        }
        for some in records.chunks(LINES) {
            let mut lines = Vec::new();
            if self.torn {
                lines.push(b'\n');
            }
            for record in some {
                let before = lines.len();
                match serde_json::to_writer(&mut lines, record) {
                    Ok(()) => lines.push(b'\n'),
                    // Half a record is none.
                    Err(_) => lines.truncate(before),
                }
            }
            let written = self.file.write_all(&lines);
            let was_torn = std::mem::replace(&mut self.torn, written.is_err());
            let count = some.len() as u64;
            match written {
                Ok(()) => _ = self.stats.written.fetch_add(count, Ordering::Relaxed),
                Err(error) => {
                    if !was_torn {
                        let file = self.path.display();
                        tracing::error!(field = self.field, %file, %error, "records are lost: they cannot be written");
                    }
                    self.lose(count);
                }
            }
        }
    }

    /// Counts records that were not even tried.
    pub fn lose(&self, count: u64) {
        self.stats.lost.fetch_add(count, Ordering::Relaxed);
    }

    fn open_again(&mut self) {
        match open(&self.path) {
            Ok(file) => {
                self.file = file;
                self.torn = false;
            }
            Err(error) => {
                let file = self.path.display();
                tracing::error!(field = self.field, %file, %error, "cannot open it again: the old one stays");
            }
        }
    }
}

/// Others may not read who talked to whom.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).open(path)
}
