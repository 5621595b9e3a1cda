//! The admin port over real HTTP.

#![allow(clippy::unwrap_used)]

use axum::Router;
use axum::routing::get;
use prometheus_client::metrics::counter::Counter;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use turnpike_service_kit::{Admin, ConfigError, Readiness, drain, shared_registry};

async fn http_get(address: SocketAddr, path: &'static str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response
}

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

#[tokio::test]
async fn health_readiness_metrics_and_what_a_service_adds() {
    let registry = shared_registry("demo");
    let requests = Counter::<u64>::default();
    registry
        .lock()
        .unwrap()
        .register("requests", "Requests", requests.clone());
    let readiness = Readiness::new();
    let (directory, tunnel) = (readiness.task("directory"), readiness.task("tunnel"));
    let extra = Router::new().route("/status", get(|| async { "{}" }));
    let admin = Admin::bind(any_port(), registry, readiness.clone(), extra)
        .await
        .unwrap();
    let address = admin.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(admin.serve(async move {
        let _ = stopped.await;
    }));

    assert!(
        http_get(address, "/healthz")
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(http_get(address, "/status").await.ends_with("{}"));
    let unready = http_get(address, "/readyz").await;
    assert!(
        unready.starts_with("HTTP/1.1 503") && unready.ends_with("directory\ntunnel\n"),
        "{unready}"
    );
    directory.done();
    drop(tunnel);
    assert!(
        http_get(address, "/readyz")
            .await
            .ends_with("\r\n\r\ntunnel\n"),
        "a failed task stays"
    );

    requests.inc_by(7);
    let metrics = http_get(address, "/metrics").await;
    assert!(
        metrics.contains("application/openmetrics-text"),
        "{metrics}"
    );
    assert!(
        metrics.contains("demo_requests_total 7") && metrics.ends_with("# EOF\n"),
        "{metrics}"
    );
    assert!(
        http_get(address, "/nothing")
            .await
            .starts_with("HTTP/1.1 404")
    );

    stop.send(()).unwrap();
    served.await.unwrap().unwrap();
}

#[test]
fn ready_when_every_task_is_done() {
    let readiness = Readiness::new();
    let (first, second) = (readiness.task("relay"), readiness.task("relay"));
    first.done();
    assert_eq!(readiness.unfinished(), ["relay"]);
    second.done();
    assert!(readiness.is_ready());
}

#[tokio::test]
async fn a_port_in_use_is_said_so() {
    let taken = std::net::TcpListener::bind(any_port()).unwrap();
    let address = taken.local_addr().unwrap();
    let error: ConfigError = Admin::bind(
        address,
        shared_registry("demo"),
        Readiness::new(),
        Router::new(),
    )
    .await
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "field `admin`: value `{address}`: the port is in use; stop the process that has it, or choose another"
        )
    );
    assert!(error.is_transient());
}

#[tokio::test]
async fn a_drain_waits_for_those_at_work_but_not_forever() {
    let (trigger, watcher) = drain::channel();
    let mut worker = watcher.clone();
    drop(watcher);
    let work = tokio::spawn(async move {
        worker.started().await;
        assert!(worker.is_started());
    });
    assert!(trigger.drain(Duration::from_secs(10)).await);
    work.await.unwrap();

    let (trigger, _stuck) = drain::channel();
    assert!(!trigger.drain(Duration::from_millis(1)).await);
}

#[tokio::test]
async fn a_status_is_asked_of_whoever_answers_questions() {
    let (router, mut questions) = turnpike_service_kit::status::route::<[u32; 1]>();
    let admin = Admin::bind(
        any_port(),
        shared_registry("demo"),
        Readiness::new(),
        router,
    )
    .await
    .unwrap();
    let address = admin.local_addr().unwrap();
    let served = admin.spawn();

    // Each answer is made for its question: it says what is so at that moment.
    for now in [1, 2] {
        let asked = tokio::spawn(http_get(address, "/status"));
        questions.recv().await.unwrap().send([now]).unwrap();
        let said = asked.await.unwrap();
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
        assert!(said.ends_with(&format!("[{now}]\n")), "{said}");
    }
    drop(questions);
    let said = http_get(address, "/status").await;
    assert!(said.starts_with("HTTP/1.1 503"), "{said}");
    served.abort();
}
