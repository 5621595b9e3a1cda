//! Composition: files are read, the store opened, the relays entered, the ports opened; then it runs.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use identity::{Authority, Verifier};
use model::UnixTime;
use protocol::directory::directory_server::DirectoryServer;
use service_kit::{Admin, ConfigError, Readiness, SharedRegistry, shared_registry};
use tokio::{net::TcpListener, sync::watch};
use tonic::transport::{Server, ServerTlsConfig};
use traces::Exporting;

use crate::{
    Config,
    console::Console,
    incoming,
    mail_traces::MailTraces,
    metrics::Metrics,
    parts::{check_lifetimes, open_store, read, relays, secret_error, tls},
    peer::Peers,
    records,
    service::Service,
    store::{Core, Store, StoreError, Update},
    watch::Watches,
};

/// The date, as this process is to believe it.
pub type TimeSource = Arc<dyn Fn() -> UnixTime + Send + Sync>;

/// No message from a node is larger.
const MAX_MESSAGE: usize = 64 * 1024;
/// Calls and watches at a time on one connection.
const MAX_STREAMS: u32 = 64;
const CALL: Duration = Duration::from_secs(10);
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long calls under way may take when the process is told to stop.
const DRAIN: Duration = Duration::from_secs(2);
const SWEEP: Duration = Duration::from_secs(600);

/// A discovery server with its ports open.
pub struct App {
    service: Arc<Service>,
    listener: TcpListener,
    tls: ServerTlsConfig,
    admin: Option<Admin>,
    console: Option<Console>,
    closing: watch::Sender<bool>,
    readiness: Readiness,
    exporting: Exporting,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").finish_non_exhaustive()
    }
}

impl App {
    /// Reads what the configuration names, opens store and ports. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// One line naming the field.
    pub async fn start(config: &Config, time: TimeSource) -> Result<Self, ConfigError> {
        check_lifetimes(config)?;
        let collector = config.traces.check()?;
        let (ca_pem, key_pem) = (
            read("ca-certificate-file", &config.ca_certificate_file)?,
            service_kit::read_secret_file(&config.ca_key_file)
                .map_err(|error| secret_error("ca-key-file", &config.ca_key_file, &error))?,
        );
        let authority = Authority::load(&ca_pem, key_pem.expose()).map_err(|error| {
            let remedy = "name the files that `turnpike init` made";
            ConfigError::of_field("ca-key-file", config.ca_key_file.display(), error, remedy)
        })?;
        let verifier = Verifier::new(authority.certificate_der(), None).map_err(|error| {
            let remedy = "name the file that `turnpike init` made";
            let file = config.ca_certificate_file.display();
            ConfigError::of_field("ca-certificate-file", file, error, remedy)
        })?;
        let tls = tls(config, &ca_pem)?;
        let (relays, secrets) = relays(&config.relay)?;
        let store = open_store(config)?;
        enter_relays(&store, relays, (time)())
            .await
            .map_err(|error| {
                let file = config.data_file.as_deref().unwrap_or(Path::new("(memory)"));
                ConfigError::of_field("data-file", file.display(), error, "check the disk")
            })?;
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|error| ConfigError::listen("listen", config.listen, &error))?;
        let registry = shared_registry("discovery");
        let metrics = register(&registry);
        let readiness = Readiness::new();
        let admin = match config.admin {
            Some(address) => {
                let extra = axum::Router::new();
                Some(Admin::bind(address, registry, readiness.clone(), extra).await?)
            }
            None => None,
        };
        let console = match config.console {
            Some(address) => Some(Console::bind(address).await?),
            None => None,
        };
        let (traces, exporting) =
            collector.start("discovery", None, Arc::clone(&metrics.trace_spans));
        let (closing, closed) = watch::channel(false);
        let service = Arc::new(Service {
            authority,
            store,
            peers: Arc::new(Peers::new(verifier.clone())),
            verifier,
            time,
            closing: closed,
            watches: Watches::default(),
            metrics,
            mail_traces: Arc::new(MailTraces::new(traces)),
            reports: console.is_some().then(Mutex::default),
            secrets,
            certificate_lifetime: config.certificate_lifetime,
            credential_lifetime: config.turn_credential_lifetime,
        });
        service.reload_revocations();
        Ok(Self {
            service,
            listener,
            tls,
            admin,
            console,
            closing,
            readiness,
            exporting,
        })
    }

    /// The address nodes connect to, which tells the port if 0 was asked for.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where the console listens, if there is one.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn console_addr(&self) -> io::Result<Option<SocketAddr>> {
        self.console.as_ref().map(Console::local_addr).transpose()
    }

    /// The store, for tests that play a lying discovery.
    #[must_use]
    pub fn store(&self) -> Store {
        self.service.store.clone()
    }

    /// Serves until `shutdown`, then ends watches and lets calls finish for 2 s.
    ///
    /// # Errors
    /// If TLS cannot be set up, the listening socket fails or the data file can no longer be written.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> anyhow::Result<()> {
        let address = self.local_addr()?;
        let starting = self.readiness.task("listen");
        if let Some(admin) = self.admin {
            admin.spawn();
        }
        if let Some(console) = self.console {
            console.spawn(self.service.clone());
        }
        let directory =
            DirectoryServer::from_arc(self.service.clone()).max_decoding_message_size(MAX_MESSAGE);
        let mut closed = self.closing.subscribe();
        let server = Server::builder()
            .tls_config(self.tls)?
            .timeout(CALL)
            .max_concurrent_streams(MAX_STREAMS)
            .http2_keepalive_interval(Some(PING_EVERY))
            .http2_keepalive_timeout(Some(PING_TIMEOUT))
            .http2_max_header_list_size(16 * 1024)
            .add_service(directory)
            .serve_with_incoming_shutdown(incoming::accept(self.listener), async move {
                let _ = closed.wait_for(|closing| *closing).await;
            });
        let mesh = &self.service.authority.mesh().name;
        tracing::info!(%address, %mesh, revision = %self.service.store.revision(), "serving");
        starting.done();
        let housekeeping = tokio::spawn(housekeeping(self.service.clone()));
        let mut server = std::pin::pin!(server);
        let store = self.service.store.clone();
        let result = tokio::select! {
            result = &mut server => result.map_err(anyhow::Error::from),
            reason = store.failed() => Err(anyhow::anyhow!("data-file: {reason}")),
            () = shutdown => {
                self.closing.send_replace(true);
                // Whoever does not finish in time is cut off.
                let _ = tokio::time::timeout(DRAIN, server).await;
                Ok(())
            }
        };
        housekeeping.abort();
        // Only a disk that hangs takes longer.
        let _ = tokio::time::timeout(DRAIN, store.close()).await;
        self.exporting.end().await;
        result
    }
}

/// Gauges every second, old records now and then.
async fn housekeeping(service: Arc<Service>) {
    let mut gauges = tokio::time::interval(Duration::from_secs(1));
    let mut sweeps = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            _ = gauges.tick() => {
                let (keys, leases) = service.store.read(Core::sizes);
                let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
                service.metrics.keys.set(number(keys));
                service.metrics.leases.set(number(leases));
                service.metrics.watches.set(number(service.watches.count()));
                service.metrics.revision.set(service.store.revision().0.cast_signed());
            }
            _ = sweeps.tick() => {
                let now = (service.time)();
                // A failing disk is told elsewhere.
                let _ = service.store.update(|core, _| records::sweep(core, now)).await;
            }
        }
    }
}

fn register(registry: &SharedRegistry) -> Metrics {
    let metrics = Metrics::default();
    metrics.register(&mut registry.lock().unwrap_or_else(PoisonError::into_inner));
    metrics
}

/// Enters the configured relays, takes out those that are gone, and forgets old records.
async fn enter_relays(
    store: &Store,
    relays: BTreeMap<String, Vec<u8>>,
    now: UnixTime,
) -> Result<(), Update<StoreError>> {
    store
        .update(|core, _| {
            let gone: Vec<_> = core
                .range("relay/")
                .filter(|(key, _)| !relays.contains_key(&***key))
                .map(|(key, _)| key.clone())
                .collect();
            for key in gone {
                core.delete(&key, None)?;
            }
            for (key, value) in &relays {
                if core.get(key).is_none_or(|entry| *entry.value != **value) {
                    core.put(key, value, None, None)?;
                }
            }
            records::sweep(core, now)
        })
        .await
        .map(|_| ())
}
