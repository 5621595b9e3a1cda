//! New settings for the running relay: all of the configuration on SIGHUP, the revoked names when their file changes.
//!
//! All is read and checked before anything is changed; what is wrong leaves everything as it was. Then each event loop is
//! told by a message ([`Control`]), and no client is dropped but the revoked.

mod report;

use crate::certificate::{Certificate, NewCertificate};
use crate::cli::Args;
use crate::config::{Settings, revocations};
use crate::control::{Control, ControlSender, ask_all};
use crate::hook::Desk;
use crate::stamp::Stamp;
use crate::usage::Reopen;
use ipnet::IpNet;
use net::Clock;
pub(crate) use report::ReloadStats;
use report::Report;
use service_kit::ConfigError;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use turn_relay_proto::{Limits, PeerPolicy, PeerRules, Replaced, ServerConfig, Shared};

/// How often the file of revoked names is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// What no reload changes, and all event loops have in common.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) shared: Arc<Shared>,
    /// The addresses that clients and the operator are served at.
    pub(crate) own: Vec<SocketAddr>,
    pub(crate) nonce_key: [u8; 32],
    pub(crate) desk: Desk,
    pub(crate) short_cut: bool,
}

impl Frame {
    /// The settings as a mind is told them, at the start and later; without what is different for each.
    pub(crate) fn server_config(&self, settings: &Settings) -> ServerConfig {
        ServerConfig {
            shared: self.shared.clone(),
            limits: Limits {
                answers: settings.answers.of_one(settings.threads),
                ..settings.limits
            },
            software: format!("turnpike-turn-relay/{}", env!("CARGO_PKG_VERSION")),
            credentials: settings.credentials.clone(),
            revocations: settings.revocations.clone(),
            peer_policy: Arc::new(self.peer_policy(settings)),
            relay_port: None,
            short_cut: self.short_cut,
            extensions: settings.extensions.clone(),
            nonce_key: self.nonce_key,
            seed: [0; 32],
        }
    }

    fn peer_policy(&self, settings: &Settings) -> PeerPolicy {
        let interfaces = net::interface_addresses().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot list this machine's addresses");
            Vec::new()
        });
        // Without a list every address is taken for this machine's: nothing may be added to it then.
        let hosts = match interfaces.is_empty() {
            true => Vec::new(),
            false => {
                let relay = &settings.relay_addresses;
                let relay = relay.iter().flat_map(|own| [own.bind, own.advertised]);
                let interfaces = interfaces.into_iter().map(|interface| interface.address);
                let single = interfaces.chain(relay).map(IpNet::from);
                single
                    .chain(settings.relay_networks.iter().copied())
                    .collect()
            }
        };
        PeerPolicy::from(PeerRules {
            allow: settings.allow_peers.clone(),
            deny: settings.deny_peers.clone(),
            own: self.own.clone(),
            hosts,
            nat64: settings.nat64_prefixes.clone(),
        })
    }
}

/// Brings new settings to the event loops.
pub(crate) struct Reloader<'a> {
    pub(crate) args: &'a Args,
    pub(crate) frame: Frame,
    /// What runs now.
    pub(crate) settings: Settings,
    pub(crate) loops: Vec<ControlSender>,
    pub(crate) certificate: Option<Arc<Certificate>>,
    pub(crate) stats: Arc<ReloadStats>,
    pub(crate) hangup: Signal,
    /// If there are usage records.
    pub(crate) reopen: Option<Reopen>,
}

/// SIGHUP, which from now on does not end the process.
///
/// # Errors
/// When it cannot be caught.
pub(crate) fn hangup() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// All that a reload needs, read and checked.
struct Prepared {
    settings: Settings,
    certificate: Option<NewCertificate>,
}

impl Reloader<'_> {
    /// Never ends.
    pub(crate) async fn run(mut self) -> Infallible {
        let mut looks = tokio::time::interval(INTERVAL);
        let mut seen = self.revocations_stamp();
        loop {
            tokio::select! {
                _ = self.hangup.recv() => {
                    seen = self.revocations_stamp();
                    self.reload().await;
                }
                _ = looks.tick() => {
                    let stamp = self.revocations_stamp();
                    if std::mem::replace(&mut seen, stamp) != stamp {
                        self.reload_revocations().await;
                    }
                }
            }
        }
    }

    fn revocations_stamp(&self) -> Option<Stamp> {
        Stamp::of(self.settings.revocations_file.as_deref()?)
    }

    async fn reload(&mut self) {
        // Whatever the configuration is: the file may have been rotated.
        if let Some(reopen) = &self.reopen {
            reopen.ask();
        }
        match self.prepare() {
            Ok(prepared) => self.apply(prepared).await,
            Err(error) => {
                let error = match &self.args.common.config {
                    Some(file) => error.in_file(file),
                    None => error,
                };
                self.stats.on_refused();
                tracing::error!(%error, "the new configuration is refused, and the old one stays");
            }
        }
    }

    fn prepare(&self) -> Result<Prepared, ConfigError> {
        let settings = Settings::load(self.args)?;
        let (realm, before) = (
            settings.credentials.realm(),
            self.settings.credentials.realm(),
        );
        if realm != before {
            // Every key is made with it, and clients do not expect it to change.
            return Err(ConfigError::of_field(
                "realm",
                realm,
                format!("the running relay's is `{before}`, and cannot change"),
                "leave it, or start the relay again",
            ));
        }
        let files = settings.certificate.clone();
        let certificate = match (&self.certificate, files) {
            (Some(certificate), Some(files)) => Some(certificate.read(files)?),
            _ => None,
        };
        Ok(Prepared {
            settings,
            certificate,
        })
    }

    async fn apply(&mut self, prepared: Prepared) {
        let mut report = Report::default();
        let mut settings = prepared.settings;
        settings.written = report.compare_files(&self.settings.written, &settings.written);
        report.compare_settings(&self.settings, &settings);
        if let (Some(certificate), Some(new)) = (&self.certificate, prepared.certificate) {
            report.certificate = certificate.replace(new);
        }
        if settings.threads != self.settings.threads {
            // They are for as many event loops as there are.
            settings.stream_limits = self.settings.stream_limits;
            settings.threads = self.settings.threads;
        }
        self.settings = settings;
        self.frame.desk.replace(self.settings.hook.clone());
        let shared = &self.frame.shared;
        shared.set_limits(self.settings.usage);
        report.log(&self.tell_all().await);
        self.stats.on_applied(Clock.unix_time());
    }

    async fn reload_revocations(&mut self) {
        let Some(path) = &self.settings.revocations_file else {
            return;
        };
        match revocations(path) {
            Ok(new) => {
                let before = std::mem::replace(&mut self.settings.revocations, Arc::new(new));
                let mut report = Report::default();
                report.compare_revocations(&before, &self.settings.revocations);
                report.log(&self.tell_all().await);
            }
            Err(error) => {
                tracing::error!(%error, "the revoked names stay as they were");
            }
        }
    }

    /// Tells every event loop the settings, and waits until all have taken them.
    async fn tell_all(&self) -> Replaced {
        let config = self.frame.server_config(&self.settings);
        let configure = |done| Control::Configure {
            server: Box::new(config.clone()),
            streams: self.settings.stream_limits,
            done,
        };
        let mut all = Replaced::default();
        for replaced in ask_all(&self.loops, configure).await {
            all.revoked.extend(replaced.revoked);
            all.permissions += replaced.permissions;
            all.channels += replaced.channels;
            all.peer_connections += replaced.peer_connections;
        }
        all
    }
}
