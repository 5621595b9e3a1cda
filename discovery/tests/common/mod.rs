//! A mesh on loopback: its CA, a real discovery with real TLS, and nodes.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use discovery::{App, Config, store::Store};
use discovery_client::{Directory, Event, Settings};
use identity::{Authority, JoinToken, NodeIdentity, TlsMaterial, document, write_private};
use model::{NodeId, Role, UnixTime};
use protocol::{
    directory::directory_client::DirectoryClient,
    document::{Offer, Registration, SignedDocument, document::Body},
};
use tempfile::TempDir;
use tokio::{sync::mpsc, sync::oneshot, task::JoinHandle};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn now() -> UnixTime {
    net::Clock.unix_time()
}

pub(crate) fn node(text: &str) -> NodeId {
    text.parse().unwrap()
}

pub(crate) struct Mesh {
    pub(crate) authority: Authority,
    pub(crate) directory: TempDir,
    /// Added to discovery's clock, seconds.
    pub(crate) offset: Arc<AtomicI64>,
}

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    /// Where the console is, if the configuration has one.
    pub(crate) console: Option<SocketAddr>,
    pub(crate) store: Store,
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Mesh {
    pub(crate) fn new() -> Self {
        let authority = Authority::new("demo".parse().unwrap(), now()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mesh = Self {
            authority,
            directory,
            offset: Arc::default(),
        };
        let server = mesh
            .authority
            .issue_server(&["127.0.0.1".into()], 24 * HOUR, now())
            .unwrap();
        let put =
            |name: &str, text: &str| write_private(&mesh.path(name), text.as_bytes()).unwrap();
        put("ca.pem", &mesh.authority.certificate_pem());
        put("ca-key.pem", &mesh.authority.key_pem());
        put("server.pem", &server.certificate_pem);
        put("server-key.pem", &server.key_pem);
        put("secret", "0123456789abcdef0123456789abcdef\n");
        mesh
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn config_text(&self, listen: &str) -> String {
        let at = |name: &str| self.path(name).display().to_string();
        format!(
            "listen = \"{listen}\"\ndata-file = \"{}\"\n\
             ca-certificate-file = \"{}\"\nca-key-file = \"{}\"\n\
             certificate-file = \"{}\"\nkey-file = \"{}\"\n\
             [[relay]]\nname = \"west\"\nnetwork = \"west\"\n\
             url = \"turn:203.0.113.12:3478?transport=udp\"\nauth-secret-file = \"{}\"\n",
            at("data.redb"),
            at("ca.pem"),
            at("ca-key.pem"),
            at("server.pem"),
            at("server-key.pem"),
            at("secret"),
        )
    }

    pub(crate) fn config(&self, listen: &str) -> Config {
        toml::from_str(&self.config_text(listen)).unwrap()
    }

    pub(crate) async fn start(&self) -> Running {
        self.start_with(self.config("127.0.0.1:0")).await
    }

    /// Starts again where a former one was.
    pub(crate) async fn restart(&self, address: SocketAddr) -> Running {
        self.start_with(self.config(&address.to_string())).await
    }

    pub(crate) async fn start_with(&self, config: Config) -> Running {
        let offset = self.offset.clone();
        let time = Arc::new(move || {
            UnixTime(
                now()
                    .0
                    .saturating_add_signed(offset.load(Ordering::Relaxed)),
            )
        });
        let app = App::start(&config, time).await.unwrap();
        let (address, store) = (app.local_addr().unwrap(), app.store());
        let console = app.console_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(app.run(async {
            let _ = stopped.await;
        }));
        Running {
            address,
            console,
            store,
            stop,
            task,
        }
    }

    pub(crate) fn token(&self, network: &str, role: Role, uses: u32, ttl: Duration) -> String {
        self.token_named(network, role, None, uses, ttl)
    }

    pub(crate) fn token_named(
        &self,
        network: &str,
        role: Role,
        name: Option<&str>,
        uses: u32,
        ttl: Duration,
    ) -> String {
        let network = network.parse().unwrap();
        let name = name.map(|name| name.parse().unwrap());
        let url = "https://unused:1";
        JoinToken::create(
            &self.authority,
            &network,
            role,
            name.as_ref(),
            uses,
            ttl,
            url,
            now(),
        )
        .unwrap()
    }

    pub(crate) fn settings(
        &self,
        id: &str,
        address: SocketAddr,
        token: Option<String>,
    ) -> Settings {
        let id = node(id);
        Settings {
            discovery: format!("https://{address}"),
            state_directory: self.path(&format!("state-{}-{}", id.network, id.name)),
            join_token: token,
            node_name: Some(id.name.to_string()),
            network: id.network,
            role: id.role,
        }
    }

    /// A node whose identity was made with the CA, without enrolling.
    pub(crate) fn identity(&self, id: &str) -> NodeIdentity {
        self.authority.new_node(node(id), HOUR, now()).unwrap()
    }

    /// A node that is enrolled and connected.
    pub(crate) async fn join(&self, id: &str, address: SocketAddr) -> Node {
        let role = node(id).role;
        let token = self.token(node(id).network.as_str(), role, 1, HOUR);
        let settings = self.settings(id, address, Some(token));
        let identity = discovery_client::join(&settings).await.unwrap();
        let (directory, events) =
            discovery_client::start(settings, identity, std::future::pending());
        let mut node = Node { directory, events };
        node.until(|event| matches!(event, Event::Connected).then_some(()))
            .await;
        node
    }
}

impl Running {
    pub(crate) async fn stop(self) -> SocketAddr {
        let _ = self.stop.send(());
        within(self.task).await.unwrap().unwrap();
        self.address
    }
}

pub(crate) struct Node {
    pub(crate) directory: Directory,
    pub(crate) events: mpsc::Receiver<Event>,
}

impl Node {
    pub(crate) fn id(&self) -> NodeId {
        self.directory.identity().node_id().clone()
    }

    /// Takes events until one is it.
    pub(crate) async fn until<T>(&mut self, mut is_it: impl FnMut(Event) -> Option<T>) -> T {
        within(async {
            loop {
                let event = self.events.recv().await.expect("the task ended");
                if let Some(it) = is_it(event) {
                    return it;
                }
            }
        })
        .await
    }

    pub(crate) fn registration(&self) -> SignedDocument {
        self.registration_with(1)
    }

    pub(crate) fn registration_with(&self, instance: u64) -> SignedDocument {
        let identity = self.directory.identity();
        let id = identity.node_id();
        let body = Registration {
            network: id.network.to_string(),
            node: id.name.to_string(),
            instance,
            ..Registration::default()
        };
        identity
            .sign(&document(Body::Registration(body), None, HOUR, now()))
            .unwrap()
    }

    pub(crate) fn offer(&self, to: &NodeId, link: u64) -> SignedDocument {
        let body = Body::Offer(Offer {
            link,
            ..Offer::default()
        });
        self.directory
            .identity()
            .sign(&document(body, Some(to), HOUR, now()))
            .unwrap()
    }
}

pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .expect("it did not happen in time")
}

/// Looks until it is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(
            Instant::now() < deadline,
            "{what}: it did not happen in time"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A bare client, with whatever certificate.
pub(crate) async fn client(
    address: SocketAddr,
    ca_pem: &str,
    tls: Option<&TlsMaterial>,
) -> Result<DirectoryClient<Channel>, tonic::transport::Error> {
    let mut config = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ca_pem))
        .domain_name("127.0.0.1");
    if let Some(tls) = tls {
        config = config.identity(Identity::from_pem(
            &tls.certificate_pem,
            tls.key_pem.as_bytes(),
        ));
    }
    let endpoint = Endpoint::from_shared(format!("https://{address}"))?.tls_config(config)?;
    Ok(DirectoryClient::new(endpoint.connect().await?))
}
