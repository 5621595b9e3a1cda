//! `GET /status` of the admin port: asked of the event loop, so that nothing is prepared that nobody wants.

use std::time::Duration;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

/// The loop answers within a turn; this is for one that is stuck.
const DEADLINE: Duration = Duration::from_secs(1);

/// Somebody wants to know.
pub(crate) type Question = oneshot::Sender<Status>;

/// Everything, for people and for `turnpike status`.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Status {
    /// `network/role/name`.
    pub(crate) node: String,
    pub(crate) instance: String,
    pub(crate) discovery_connected: bool,
    pub(crate) allocations: Vec<AllocationStatus>,
    pub(crate) links: Vec<LinkStatus>,
    pub(crate) services: Vec<String>,
}

/// One allocation that should be.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct AllocationStatus {
    pub(crate) relay: String,
    pub(crate) network: String,
    pub(crate) server: Option<String>,
    pub(crate) relayed: Vec<String>,
    /// `waiting` for a credential, `allocating`, `allocated`.
    pub(crate) state: &'static str,
    pub(crate) peers: usize,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
}

/// One link.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LinkStatus {
    pub(crate) link: u64,
    pub(crate) peer: String,
    /// `opening`, `open`.
    pub(crate) state: &'static str,
    /// `direct`, `relay/udp`; absent until a pair is nominated.
    pub(crate) path: Option<String>,
    pub(crate) rtt_ms: Option<f64>,
    pub(crate) steps: Vec<StepStatus>,
    pub(crate) frames_sent: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) frames_received: u64,
    pub(crate) bytes_received: u64,
    pub(crate) frames_refused: u64,
}

/// A step of opening, in milliseconds since the offer came.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StepStatus {
    pub(crate) step: &'static str,
    pub(crate) ms: f64,
}

/// The route, and where its questions come out.
pub(crate) fn router() -> (Router, mpsc::Receiver<Question>) {
    let (questions, receiver) = mpsc::channel(16);
    (
        Router::new().route("/status", get(status).with_state(questions)),
        receiver,
    )
}

async fn status(State(questions): State<mpsc::Sender<Question>>) -> axum::response::Response {
    let (question, answer) = oneshot::channel();
    let asked = questions.try_send(question).is_ok();
    let answer = match tokio::time::timeout(DEADLINE, answer).await {
        Ok(Ok(status)) if asked => serde_json::to_string(&status).ok(),
        _ => None,
    };
    match answer {
        Some(json) => ([(header::CONTENT_TYPE, "application/json")], json + "\n").into_response(),
        None => {
            let problem = "the event loop does not answer\n";
            (StatusCode::SERVICE_UNAVAILABLE, problem).into_response()
        }
    }
}
