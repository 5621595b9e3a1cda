//! The background task: connect, work, and when that ends, again.

use std::{
    future::Future,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use arc_swap::ArcSwap;
use identity::{NodeIdentity, Verifier};
use net::Clock;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    Directory, Event, IdentityHandle, Settings,
    connection::{Client, connect},
    directory::Shared,
    join, publisher,
    session::{Ended, Session},
    state::State,
};

/// Events that the service has not taken. Then the task waits, and with it the view.
const EVENTS: usize = 256;
/// After one that was ended on purpose.
const AGAIN: Duration = Duration::from_millis(50);
/// After a connection that worked.
const SOON: (u64, u64) = (200, 500);
/// After one that did not.
const LATER: (u64, u64) = (200, 2000);

/// Starts the task that keeps the view, the registration, the mailbox and the certificate; it ends when
/// `shutdown` does, or with [`Directory::shutdown`], and then withdraws the registration. Must be called within a
/// tokio runtime. The receiver must be read, or dropped.
///
/// # Panics
/// Not in practice: the identity's CA certificate was read before.
pub fn start(
    settings: Settings,
    identity: Arc<IdentityHandle>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> (Directory, mpsc::Receiver<Event>) {
    let verifier = verifier(&identity.current());
    let (stop, stopped) = mpsc::channel(1);
    let (events, receiver) = mpsc::channel(EVENTS);
    let shared = Arc::new(Shared {
        identity,
        view: ArcSwap::default(),
        verifier: ArcSwap::from_pointee(verifier),
        link: watch::Sender::new(Err("not connected yet".into())),
        moved: tokio::sync::Notify::new(),
        published: watch::Sender::new(None),
        lease: AtomicU64::new(0),
        stop,
    });
    tokio::spawn(run(settings, shared.clone(), events, stopped, shutdown));
    (Directory { shared }, receiver)
}

pub(crate) fn verifier(identity: &NodeIdentity) -> Verifier {
    identity
        .verifier()
        .expect("the identity's CA certificate was read before")
}

async fn run(
    settings: Settings,
    shared: Arc<Shared>,
    events: mpsc::Sender<Event>,
    mut stopped: mpsc::Receiver<oneshot::Sender<()>>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let done = tokio::select! {
        () = keep_connected(&settings, &shared, events) => None,
        () = shutdown => None,
        done = stopped.recv() => done,
    };
    publisher::withdraw(&shared).await;
    if let Some(done) = done {
        // It may have given up waiting.
        let _ = done.send(());
    }
}

async fn keep_connected(settings: &Settings, shared: &Arc<Shared>, events: mpsc::Sender<Event>) {
    let mut state = State::new(shared.clone(), events);
    let mut announced: Option<String> = None;
    loop {
        let mut worked = false;
        let ended = tokio::select! {
            ended = attempt(settings, shared, &mut state, &mut worked) => ended,
            () = shared.moved.notified() => {
                drop(shared.link.send_replace(Err("this host's addresses changed".into())));
                Ended::Again
            }
        };
        let reason = match ended {
            Ended::Again => {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            Ended::Lost(reason) => reason,
        };
        drop(shared.link.send_replace(Err(reason.clone())));
        if worked || announced.as_ref() != Some(&reason) {
            tracing::warn!(%reason, "discovery is away; going on with the last view");
            announced = Some(reason.clone());
            state.disconnected(reason).await;
        }
        tokio::time::sleep(jitter(if worked { SOON } else { LATER })).await;
    }
}

/// One connection, from start to end.
async fn attempt(
    settings: &Settings,
    shared: &Arc<Shared>,
    state: &mut State,
    worked: &mut bool,
) -> Ended {
    let mut identity = shared.identity.current();
    if Clock.unix_time() > identity.not_after() {
        // Away for so long that the certificate ended; only the token can help.
        match join::enroll(settings).await {
            Ok(new) if new.node_id() == identity.node_id() => {
                if let Err(error) = shared.identity.replace(new) {
                    return Ended::Lost(error.to_string());
                }
                identity = shared.identity.current();
            }
            Ok(new) => return Ended::Lost(format!("the token made us {}", new.node_id())),
            Err(error) => {
                let ended = identity.not_after();
                return Ended::Lost(format!("our certificate expired at {ended}: {error}"));
            }
        }
    }
    let tls = identity.tls();
    match connect(&settings.discovery, Client::Known(&tls)).await {
        Ok(channel) => {
            Session::new(channel, shared.clone(), identity)
                .run(state, worked)
                .await
        }
        Err(reason) => Ended::Lost(reason),
    }
}

/// Random, so that a thousand nodes do not come back at once.
fn jitter((low, high): (u64, u64)) -> Duration {
    let random = getrandom::u64().unwrap_or(0);
    Duration::from_millis(low + random % (high - low))
}
