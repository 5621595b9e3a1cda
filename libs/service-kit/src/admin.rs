//! The admin port: health, readiness, metrics, and what a service adds.

use crate::{ConfigError, Readiness};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;

/// All metrics of a process. Locked while they are written out and while new ones are registered, never to count.
pub type SharedRegistry = Arc<Mutex<Registry>>;

/// A registry whose metrics all have `prefix` before their names.
pub fn shared_registry(prefix: &str) -> SharedRegistry {
    Arc::new(Mutex::new(Registry::with_prefix(prefix)))
}

/// A bound admin port. Plain HTTP without authentication: it belongs on a loopback or otherwise private address.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    router: Router,
}

impl Admin {
    /// Listens on `address` (TCP). `extra` is served beside:
    /// - `GET /healthz`: 200 while the process lives;
    /// - `GET /readyz`: 200, or 503 with the name of each unfinished task in a line of its own;
    /// - `GET /metrics`: OpenMetrics 1.0 text.
    ///
    /// # Errors
    /// When the address cannot be listened on; the error calls the field `admin`.
    pub async fn bind(
        address: SocketAddr,
        registry: SharedRegistry,
        readiness: Readiness,
        extra: Router,
    ) -> Result<Self, ConfigError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| ConfigError::listen("admin", address, &error))?;
        Ok(Self::over(listener, registry, readiness, extra))
    }

    /// As [`Admin::bind`], on a listening socket that is there already.
    ///
    /// # Errors
    /// When it is none.
    pub fn on(
        socket: OwnedFd,
        registry: SharedRegistry,
        readiness: Readiness,
        extra: Router,
    ) -> io::Result<Self> {
        let socket = std::net::TcpListener::from(socket);
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(socket)?;
        Ok(Self::over(listener, registry, readiness, extra))
    }

    fn over(
        listener: TcpListener,
        registry: SharedRegistry,
        readiness: Readiness,
        extra: Router,
    ) -> Self {
        let router = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz).with_state(readiness))
            .route("/metrics", get(metrics).with_state(registry))
            .merge(extra);
        Self { listener, router }
    }

    /// The listening socket once more, for another process.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn socket(&self) -> io::Result<OwnedFd> {
        self.listener.as_fd().try_clone_to_owned()
    }

    /// The address in use, which tells the port if 0 was asked for.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` is done and the requests under way are answered.
    ///
    /// # Errors
    /// When the listening socket fails.
    pub async fn serve(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        axum::serve(self.listener, self.router)
            .with_graceful_shutdown(shutdown)
            .await
    }

    /// Serves in a task of its own until the process ends.
    pub fn spawn(self) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move {
            if let Err(error) = self.serve(std::future::pending()).await {
                tracing::error!(%error, "the admin port failed");
            }
        })
    }
}

async fn readyz(State(readiness): State<Readiness>) -> impl IntoResponse {
    let unfinished = readiness.unfinished();
    if unfinished.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            unfinished.join("\n") + "\n",
        )
    }
}

async fn metrics(State(registry): State<SharedRegistry>) -> impl IntoResponse {
    const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let mut text = String::new();
    let registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => (StatusCode::OK, [(header::CONTENT_TYPE, CONTENT_TYPE)], text),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain")],
            format!("{error}\n"),
        ),
    }
}
