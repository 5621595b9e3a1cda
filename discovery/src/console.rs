//! The console: a page for browsers, and what it draws. Read-only, without a password, and of no use to anybody who only reads;
//! still it names nodes and addresses, so it belongs on loopback.
//!
//! What nodes say is JSON here and text in the page. The policy below lets a browser run nothing but our own script, and connect
//! to nobody but us; the check of `Host` keeps pages of other sites from reading us through a name of theirs (DNS rebinding).

mod picture;
mod draw;
mod verdict;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use net::Clock;
use service_kit::ConfigError;
use tokio::{net::TcpListener, sync::Mutex};

use self::draw::{Around, Raw};
use crate::service::Service;

const FILES: [(&str, &str, &str); 6] = [
    (
        "/",
        "text/html; charset=utf-8",
        include_str!("../console/index.html"),
    ),
    (
        "/console.css",
        "text/css; charset=utf-8",
        include_str!("../console/console.css"),
    ),
    (
        "/console.js",
        "text/javascript; charset=utf-8",
        include_str!("../console/console.js"),
    ),
    (
        "/map.js",
        "text/javascript; charset=utf-8",
        include_str!("../console/map.js"),
    ),
    (
        "/pages.js",
        "text/javascript; charset=utf-8",
        include_str!("../console/pages.js"),
    ),
    (
        "/icon.svg",
        "image/svg+xml",
        include_str!("../console/icon.svg"),
    ),
];

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];

/// However many look, the picture is not drawn oftener.
const FRESH: Duration = Duration::from_millis(500);

/// The console with its port open.
pub(crate) struct Console(TcpListener);

/// The last picture, and when it was drawn.
type Last = Option<(Instant, Arc<str>)>;

struct Shown {
    service: Arc<Service>,
    last: Mutex<Last>,
}

impl Console {
    /// # Errors
    /// One line naming the field `console`.
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, ConfigError> {
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "the console has no password: whoever reaches this address sees the mesh");
        }
        let listener = TcpListener::bind(address).await;
        listener
            .map(Self)
            .map_err(|error| ConfigError::listen("console", address, &error))
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves in a task of its own until the process ends.
    pub(crate) fn spawn(self, service: Arc<Service>) {
        let last = Mutex::default();
        let mut router = Router::new()
            .route("/picture.json", get(picture))
            .with_state(Arc::new(Shown { service, last }));
        for (path, kind, text) in FILES {
            let file = move || async move { ([(header::CONTENT_TYPE, kind)], text) };
            router = router.route(path, get(file));
        }
        let router = router.layer(middleware::from_fn(guard));
        tokio::spawn(async move {
            if let Err(error) = axum::serve(self.0, router).await {
                tracing::error!(%error, "the console failed");
            }
        });
    }
}

/// On the way in: by which name we were called. On the way out: what the browser may do.
async fn guard(request: Request, next: Next) -> Response {
    let mut response = if is_called_by_address(request.headers()) {
        next.run(request).await
    } else {
        let problem = "call the console by its address, or as localhost\n";
        (StatusCode::MISDIRECTED_REQUEST, problem).into_response()
    };
    for (name, value) in HEADERS {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

/// `127.0.0.1:9105`, `[::1]:9105`, `localhost`: no name that somebody else could let point here.
fn is_called_by_address(headers: &HeaderMap) -> bool {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    host.is_some_and(|host| {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let address = name.trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
    })
}

async fn picture(State(shown): State<Arc<Shown>>) -> Response {
    // Who comes meanwhile waits for it, and gets the same.
    let mut last = shown.last.lock().await;
    let fresh = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH);
    let json = match fresh {
        Some((_, json)) => Some(json.clone()),
        None => {
            let service = shown.service.clone();
            let drawn = tokio::task::spawn_blocking(move || draw(&service)).await;
            let json: Option<Arc<str>> = drawn.ok().flatten().map(Into::into);
            *last = json.clone().map(|json| (Clock.now(), json));
            json
        }
    };
    match json {
        Some(json) => (
            [(header::CONTENT_TYPE, "application/json")],
            json.to_string(),
        )
            .into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Signatures are verified here, so this takes a moment for each activator.
fn draw(service: &Service) -> Option<String> {
    let raw = service.store.read(Raw::of);
    let now = Clock.now();
    let reports = service.reports.as_ref().map(|reports| {
        let mut reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.current(now)
    });
    let mesh = service.authority.mesh();
    let picture = draw::picture(
        &raw,
        &Around {
            mesh: mesh.name.as_str(),
            verifier: &service.peers.verifier(),
            reports: &reports.unwrap_or_default(),
            time: (service.time)(),
            now,
        },
    );
    serde_json::to_string(&picture).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_names_of_the_console() {
        let called = |host: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(host));
            is_called_by_address(&headers)
        };
        for host in [
            "127.0.0.1:9105",
            "127.0.0.1",
            "[::1]:9105",
            "[::1]",
            "localhost:9105",
            "LocalHost",
        ] {
            assert!(called(host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9105",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "",
        ] {
            assert!(!called(host), "{host}");
        }
        assert!(!is_called_by_address(&HeaderMap::new()));
    }
}
