//! `GET /status` of the admin port: asked of the event loop, so that nothing is prepared that nobody wants, and nobody
//! is told what was true a moment ago.

use std::time::Duration;

use axum::{
    Router,
    extract::{RawQuery, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

/// The loop answers within a turn; this is for one that is stuck.
const DEADLINE: Duration = Duration::from_secs(1);

/// Who asks at once; more are turned away.
const MAX_ASKING: usize = 16;

/// The longest DNS name is shorter.
const MAX_NAME: usize = 256;

/// Somebody wants to know: send the status, as it is now.
pub type Question<T> = oneshot::Sender<T>;

/// Somebody wants to know about something: send what is known of it.
#[derive(Debug)]
pub struct Asked<Q, T> {
    /// About what.
    pub about: Q,
    /// Where the answer goes.
    pub answer: Question<T>,
}

/// Asks an event loop about things, from any task. Cheap to clone.
#[derive(Debug)]
pub struct Asker<Q, T>(mpsc::Sender<Asked<Q, T>>);

impl<Q, T> Clone for Asker<Q, T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<Q, T> Asker<Q, T> {
    /// And where its questions come out.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Asked<Q, T>>) {
        let (sender, receiver) = mpsc::channel(MAX_ASKING);
        (Self(sender), receiver)
    }

    /// The answer; none when the loop does not give one within a second, or is asked too much.
    pub async fn ask(&self, about: Q) -> Option<T> {
        let (answer, wait) = oneshot::channel();
        self.0.try_send(Asked { about, answer }).ok()?;
        tokio::time::timeout(DEADLINE, wait).await.ok()?.ok()
    }
}

/// Where the questions come out. Who drops it no longer answers: 503 from then on.
pub type Questions<T> = mpsc::Receiver<Question<T>>;

/// The route, and where its questions come out. Unless one is answered within a second, who asked gets 503.
pub fn route<T: Serialize + Send + 'static>() -> (Router, Questions<T>) {
    let (router, _, questions) = route_and_asker();
    (router, questions)
}

/// [`route`], and a way for tasks of the service itself to ask.
pub fn route_and_asker<T: Serialize + Send + 'static>() -> (Router, StatusAsker<T>, Questions<T>) {
    let (questions, receiver) = mpsc::channel(MAX_ASKING);
    let asker = StatusAsker(questions);
    let router = Router::new().route("/status", get(status::<T>).with_state(asker.clone()));
    (router, asker, receiver)
}

/// Asks an event loop how it is, from any task. Cheap to clone.
#[derive(Debug)]
pub struct StatusAsker<T>(mpsc::Sender<Question<T>>);

impl<T> Clone for StatusAsker<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> StatusAsker<T> {
    /// The answer; none when the loop does not give one within a second, or is asked too much.
    pub async fn ask(&self) -> Option<T> {
        let (question, answer) = oneshot::channel();
        self.0.try_send(question).ok()?;
        tokio::time::timeout(DEADLINE, answer).await.ok()?.ok()
    }
}

/// A route that answers about what its query string names: `GET <path>?<field>=VALUE`, and with `&open=1` lets `answer`
/// know that more than looking is wanted. Values are taken as they stand: they are names, and nothing in a name needs
/// an escape.
pub fn about<T, F>(
    path: &str,
    field: &'static str,
    answer: impl Fn(String, bool) -> F + Clone + Send + Sync + 'static,
) -> Router
where
    T: Serialize,
    F: Future<Output = T> + Send,
{
    let handler = async move |RawQuery(query): RawQuery| {
        let query = query.unwrap_or_default();
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let named = pairs.clone().find(|(key, _)| *key == field);
        let open = pairs.any(|pair| pair == ("open", "1"));
        let Some((_, value)) = named.filter(|(_, value)| value.len() <= MAX_NAME) else {
            let problem = format!("ask with ?{field}=NAME, at most {MAX_NAME} bytes\n");
            return (StatusCode::BAD_REQUEST, problem).into_response();
        };
        match serde_json::to_string(&answer(value.to_owned(), open).await) {
            Ok(json) => json_response(json),
            Err(_) => unanswered(),
        }
    };
    Router::new().route(path, get(handler))
}

fn json_response(json: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], json + "\n").into_response()
}

async fn status<T: Serialize + Send + 'static>(State(asker): State<StatusAsker<T>>) -> Response {
    let status = asker.ask().await;
    match status.and_then(|status| serde_json::to_string(&status).ok()) {
        Some(json) => json_response(json),
        None => unanswered(),
    }
}

fn unanswered() -> Response {
    let problem = "the event loop does not answer: it is not running yet, or it is stuck\n";
    (StatusCode::SERVICE_UNAVAILABLE, problem).into_response()
}

/// A link in a status, at either end of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LinkStatus {
    /// This end's number for it.
    pub link: u64,
    /// `network/role/name` of the other end.
    pub peer: String,
    /// `opening`, `open`.
    pub state: &'static str,
    /// `direct`, `relay/udp`; absent until a pair is nominated.
    pub path: Option<String>,
    /// `datagram`, `data-channel`: what carries packets now; absent until the link is open.
    pub carrier: Option<String>,
    /// Round trip in milliseconds, once measured.
    pub rtt_ms: Option<f64>,
    /// The steps of opening, in their order.
    pub steps: Vec<StepStatus>,
    /// Frames and their bytes that the link took.
    pub frames_sent: u64,
    /// See `frames_sent`.
    pub bytes_sent: u64,
    /// Frames and their bytes that the link gave.
    pub frames_received: u64,
    /// See `frames_received`.
    pub bytes_received: u64,
    /// Frames that the link did not take: its queue was full.
    pub frames_refused: u64,
    /// Messages that were dropped, or marked instead (ECN), where their flow had waited for the data channel for too long, or
    /// had most of a queue that was full.
    pub queue_dropped: u64,
    /// See `queue_dropped`.
    pub queue_marked: u64,
}

/// A step of opening a link.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StepStatus {
    /// Its name.
    pub step: &'static str,
    /// Milliseconds since this end first knew that there should be a link.
    pub ms: f64,
}

impl StepStatus {
    /// A step that was reached after so long.
    #[must_use]
    pub fn new(step: &'static str, after: Duration) -> Self {
        let ms = milliseconds(after);
        Self { step, ms }
    }
}

impl LinkStatus {
    /// What `state` says of a link that can carry frames, or cannot yet.
    #[must_use]
    pub const fn state(open: bool) -> &'static str {
        if open { "open" } else { "opening" }
    }
}

/// As statuses show times.
#[must_use]
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
