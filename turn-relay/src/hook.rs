//! The site's own check: users whom only it knows are asked about over HTTP. The event loops go on meanwhile; whatever is not
//! an answer lets nobody in.

use crate::config::RealmSettings;
use crate::control::{Control, ControlSender};
use crate::users::read_hex;
use arc_swap::ArcSwap;
use axum::body::Bytes;
use axum::http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use net::Clock;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use service_kit::{ConfigError, Secret, authorities_in, own_authorities};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use turn_relay_proto::{HashedPassword, LookedUp, MAX_USER, RealmUser};

/// A longer answer is none.
const MAX_ANSWER: usize = 16 * 1024;

/// Whom to ask, and how.
#[derive(Debug)]
pub(crate) struct HookSetup {
    pub(crate) url: String,
    pub(crate) realm: String,
    pub(crate) secret: Option<Secret>,
    /// A PEM file; without it the machine's own.
    pub(crate) authorities: Option<PathBuf>,
    pub(crate) timeout: Duration,
    pub(crate) in_flight: usize,
    pub(crate) remember: Duration,
    pub(crate) remember_refused: Duration,
}

/// The same, ready to ask.
#[derive(Debug)]
pub(crate) struct Hook {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: Uri,
    authorization: Option<HeaderValue>,
    turns: Semaphore,
    setup: HookSetup,
}

/// How it went so far.
#[derive(Debug, Default)]
pub(crate) struct HookStats {
    pub(crate) found: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) failed: AtomicU64,
    /// Now, those that wait for a turn included.
    pub(crate) in_flight: AtomicU64,
    /// Of all questions together.
    pub(crate) milliseconds: AtomicU64,
}

/// A question of an event loop.
#[derive(Debug)]
struct Ask {
    user: RealmUser,
    reply: ControlSender,
}

/// Where questions go.
#[derive(Debug)]
pub(crate) struct Desk {
    current: Arc<ArcSwap<Hooks>>,
    questions: mpsc::UnboundedSender<Ask>,
}

/// By realm.
type Hooks = HashMap<Box<str>, Arc<Hook>>;

fn hooks(realms: &[RealmSettings]) -> Arc<Hooks> {
    let each = realms.iter();
    let each = each.filter_map(|realm| Some((realm.name().into(), realm.hook.clone()?)));
    Arc::new(each.collect())
}

impl Desk {
    /// Answers questions from now on, with the help of each realm's hook. Within a runtime.
    pub(crate) fn open(realms: &[RealmSettings], stats: Arc<HookStats>) -> Self {
        let current = Arc::new(ArcSwap::from(hooks(realms)));
        let (questions, asked) = mpsc::unbounded_channel();
        tokio::spawn(serve(asked, current.clone(), stats));
        Self { current, questions }
    }

    /// Questions from now on go to others.
    pub(crate) fn replace(&self, realms: &[RealmSettings]) {
        self.current.store(hooks(realms));
    }

    /// For the event loop that is told by `reply`.
    pub(crate) fn asks(&self, reply: ControlSender) -> Asks {
        let questions = self.questions.clone();
        Asks { questions, reply }
    }
}

/// An event loop's end. As many questions wait as the mind lets requests wait.
#[derive(Clone, Debug)]
pub(crate) struct Asks {
    questions: mpsc::UnboundedSender<Ask>,
    reply: ControlSender,
}

impl Asks {
    pub(crate) fn ask(&self, user: RealmUser) {
        let reply = self.reply.clone();
        // Fails only where the process ends.
        let _ = self.questions.send(Ask { user, reply });
    }
}

#[derive(Serialize)]
struct Question<'q> {
    user: &'q str,
    realm: &'q str,
}

#[derive(Deserialize)]
struct Said {
    password: Option<String>,
    md5: Option<String>,
    sha256: Option<String>,
    user: Option<String>,
    seconds: Option<u64>,
}

impl Hook {
    /// Reads the certificate authorities.
    ///
    /// # Errors
    /// One line: which field, what is wrong with it, and what to do.
    pub(crate) fn new(setup: HookSetup) -> Result<Self, ConfigError> {
        let wrong = |problem: &str| {
            let remedy =
                "write http://HOST:PORT/PATH or https://HOST/PATH, without user and password";
            ConfigError::of_field("hook.url", "…", problem, remedy)
        };
        let url: Uri = setup.url.parse().map_err(|_| wrong("not a URL"))?;
        let authority = url.authority().ok_or_else(|| wrong("no host in it"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("a user in it, which is a secret that would be shown"));
        }
        if !matches!(url.scheme_str(), Some("http" | "https")) {
            return Err(wrong("only http and https are spoken"));
        }
        let roots = match &setup.authorities {
            Some(path) => authorities_in("hook.ca-file", path)?,
            None if url.scheme_str() == Some("https") => {
                own_authorities("hook.url", "hook.ca-file")?
            }
            None => RootCertStore::empty(),
        };
        let unusable = |error: rustls::Error| wrong(&error.to_string());
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        let bearer = |secret: &Secret| {
            let value = HeaderValue::try_from(format!("Bearer {}", secret.expose()));
            let mut value = value.map_err(|_| {
                let remedy = "write one line of ASCII into it";
                ConfigError::of_field("hook.secret-file", "…", "not for a header", remedy)
            })?;
            value.set_sensitive(true);
            Ok(value)
        };
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            url,
            authorization: setup.secret.as_ref().map(bearer).transpose()?,
            turns: Semaphore::new(setup.in_flight),
            setup,
        })
    }

    /// Asks, and waits for the answer as long as that may take.
    async fn ask(&self, user: &str) -> LookedUp {
        match tokio::time::timeout(self.setup.timeout, self.try_ask(user)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the hook failed");
                LookedUp::Failed
            }
            Err(_) => {
                tracing::warn!(error = "no answer in time", "the hook failed");
                LookedUp::Failed
            }
        }
    }

    async fn try_ask(&self, user: &str) -> anyhow::Result<LookedUp> {
        let _turn = self.turns.acquire().await?;
        let realm = &self.setup.realm;
        let question = serde_json::to_vec(&Question { user, realm })?;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.url.clone())
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization.clone());
        }
        let request = request.body(Full::new(Bytes::from(question)))?;
        let response = self.client.request(request).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
                let remember = self.setup.remember_refused;
                return Ok(LookedUp::Refused { remember });
            }
            status => anyhow::bail!("it answered {status}"),
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect();
        let body = body
            .await
            .map_err(|_| anyhow::anyhow!("no end to its answer"))?;
        understand(user, realm, self.setup.remember, &body.to_bytes())
    }
}

/// What a site's own check says of a user of this realm: the body of its answer. It is remembered for `most` at most.
///
/// # Errors
/// When it is not the JSON it should be. The error holds nothing of it: there may be a password in it.
pub fn understand(
    user: &str,
    realm: &str,
    most: Duration,
    body: &[u8],
) -> anyhow::Result<LookedUp> {
    // All of it is text (RFC 8259 section 8.1), also what nobody reads.
    let text = std::str::from_utf8(body).ok();
    let said = text.and_then(|text| serde_json::from_str::<Said>(text).ok());
    let said = said.ok_or_else(|| anyhow::anyhow!("not the JSON it should be"))?;
    let keys = match said {
        Said {
            password: Some(password),
            ..
        } => HashedPassword::new(user, realm, &password),
        Said {
            md5: Some(md5),
            sha256: Some(sha256),
            ..
        } => {
            let keys = read_hex(&md5).zip(read_hex(&sha256));
            let (md5, sha256) = keys.ok_or_else(|| anyhow::anyhow!("not keys"))?;
            HashedPassword { md5, sha256 }
        }
        _ => anyhow::bail!("neither password nor keys in its answer"),
    };
    let identity = said.user.map(String::into_boxed_str);
    anyhow::ensure!(
        identity.as_ref().is_none_or(|user| user.len() <= MAX_USER),
        "too long a user in its answer"
    );
    Ok(LookedUp::User {
        keys,
        identity,
        remember: said
            .seconds
            .map_or(most, |s| Duration::from_secs(s).min(most)),
    })
}

/// Answers all questions with what is configured at the time, until nobody asks any more.
async fn serve(
    mut questions: mpsc::UnboundedReceiver<Ask>,
    current: Arc<ArcSwap<Hooks>>,
    stats: Arc<HookStats>,
) {
    while let Some(Ask { user, reply }) = questions.recv().await {
        let hook = current.load().get(&*user.realm).cloned();
        let stats = stats.clone();
        stats.in_flight.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let started = Clock.now();
            let answer = match hook {
                Some(hook) => hook.ask(&user.name).await,
                // Configured away meanwhile.
                None => LookedUp::Failed,
            };
            let counter = match &answer {
                LookedUp::User { .. } => &stats.found,
                LookedUp::Refused { .. } => &stats.refused,
                LookedUp::Failed => &stats.failed,
            };
            counter.fetch_add(1, Ordering::Relaxed);
            let took = Clock.now() - started;
            let took = took.as_millis() as u64;
            stats.milliseconds.fetch_add(took, Ordering::Relaxed);
            stats.in_flight.fetch_sub(1, Ordering::Relaxed);
            reply.send(Control::LookedUp { user, answer });
        });
    }
}
