//! DNS over TLS ([RFC 7858](https://www.rfc-editor.org/rfc/rfc7858)): queries go out as they come, several at once, and answers
//! come back in whatever order ([RFC 7766 section 6.2.1.1](https://www.rfc-editor.org/rfc/rfc7766#section-6.2.1.1)).

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dns_signal_proto::query;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::encrypted::Trouble;
use super::plain::frame;
use crate::dns_resolver::Resolver;

/// Queries that wait to be written; beyond, who asks waits.
const QUEUE: usize = 64;
/// Queries without an answer on one connection, those among them that nobody waits for any more.
const MAX_WAITING: usize = 1_024;
/// An upstream that does not even take a good-bye is left.
const GOOD_BYE: Duration = Duration::from_secs(1);

/// Asks on one connection, which ends when nobody holds one of these.
#[derive(Clone, Debug)]
pub(super) struct Asker(mpsc::Sender<Ask>);

#[derive(Debug)]
struct Ask {
    message: Vec<u8>,
    answer: oneshot::Sender<Vec<u8>>,
}

impl Asker {
    /// The answer, with the query's id.
    pub(super) async fn ask(&self, message: Vec<u8>) -> Result<Vec<u8>, Trouble> {
        let ended = || Trouble::Lost(io::ErrorKind::ConnectionAborted.into());
        let id = message.first_chunk().copied().unwrap_or_default();
        let (answer, wait) = oneshot::channel();
        let asked = self.0.send(Ask { message, answer }).await;
        asked.map_err(|_| ended())?;
        let mut answer = wait.await.map_err(|_| ended())?;
        query::set_id(&mut answer, u16::from_be_bytes(id));
        Ok(answer)
    }
}

/// Who waits for an answer, by the id of the query on this connection.
#[derive(Debug, Default)]
struct Waiting(Mutex<HashMap<u16, oneshot::Sender<Vec<u8>>>>);

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, HashMap<u16, oneshot::Sender<Vec<u8>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its id; `None`: there are too many.
    fn insert(&self, from: u16, answer: oneshot::Sender<Vec<u8>>) -> Option<u16> {
        let mut waiting = self.lock();
        if waiting.len() >= MAX_WAITING {
            waiting.retain(|_, answer| !answer.is_closed());
        }
        if waiting.len() >= MAX_WAITING {
            return None;
        }
        let mut id = from;
        while waiting.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        waiting.insert(id, answer);
        Some(id)
    }
}

/// How to ask on `stream`, and what has to run meanwhile; it ends with the connection.
pub(super) fn start<S>(
    stream: S,
    resolver: Arc<Resolver>,
) -> (Asker, impl Future<Output = ()> + Send)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (sender, asks) = mpsc::channel(QUEUE);
    let running = async move {
        let waiting = Waiting::default();
        let (read, write) = tokio::io::split(stream);
        let ended = tokio::select! {
            ended = receive(read, &waiting, &resolver) => ended,
            ended = send(write, asks, &waiting) => ended,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection to an upstream ended");
        }
    };
    (Asker(sender), running)
}

/// Until nobody can ask any more.
async fn send(
    mut write: impl AsyncWrite + Unpin,
    mut asks: mpsc::Receiver<Ask>,
    waiting: &Waiting,
) -> io::Result<()> {
    let mut out = Vec::new();
    let mut next = 0;
    while let Some(first) = asks.recv().await {
        // What came meanwhile shares a record with it.
        let mut more = Some(first);
        while let Some(Ask {
            mut message,
            answer,
        }) = more
        {
            if let Some(id) = waiting.insert(next, answer) {
                next = id.wrapping_add(1);
                query::set_id(&mut message, id);
                frame(&message, &mut out)?;
            }
            more = asks.try_recv().ok();
        }
        write.write_all(&out).await?;
        write.flush().await?;
        out.clear();
    }
    timeout(GOOD_BYE, write.shutdown()).await?
}

/// Until the upstream ends it.
async fn receive(
    mut read: impl AsyncRead + Unpin,
    waiting: &Waiting,
    resolver: &Resolver,
) -> io::Result<()> {
    loop {
        let mut answer = vec![0; usize::from(read.read_u16().await?)];
        read.read_exact(&mut answer).await?;
        let id = answer.first_chunk().copied().map(u16::from_be_bytes);
        let waits = id.and_then(|id| waiting.lock().remove(&id));
        match waits {
            // Who asked may have been answered by another upstream.
            Some(waits) => drop(waits.send(answer)),
            None => resolver.stats().upstream_mismatches.count(),
        }
    }
}
