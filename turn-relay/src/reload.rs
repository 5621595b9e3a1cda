//! New settings for the running relay: all of the configuration on SIGHUP, the revoked names when their file changes.
//!
//! All is read and checked before anything is changed; what is wrong leaves everything as it was. Then each event loop is
//! told by a message ([`Control`]), and no client is dropped but the revoked.

mod report;

use crate::certificate::{Certificate, NewCertificate};
use crate::cli::Args;
use crate::config::{RealmSettings, Settings, revocations};
use crate::control::{Control, ControlSender, ask_all};
use crate::hook::Desk;
use crate::stamp::Stamp;
use ipnet::IpNet;
use net::Clock;
pub(crate) use report::ReloadStats;
use report::Report;
use service_kit::{ConfigError, Reopen};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use turn_relay_proto::{
    AlternateTransport, Entrance, Limits, PeerPolicy, PeerRules, Realm, Realms, Replaced,
    ServerConfig, Shared, UsageLimits,
};

/// How often the file of revoked names is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// What no reload changes, and all event loops have in common.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) shared: Arc<Shared>,
    /// The addresses that clients and the operator are served at.
    pub(crate) own: Vec<SocketAddr>,
    /// Those of clients as they are configured, and as they are.
    pub(crate) listeners: Vec<(&'static str, SocketAddr, SocketAddr)>,
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
            realms: Arc::new(self.realms(settings)),
            relay_port: None,
            short_cut: self.short_cut,
            extensions: settings.extensions.clone(),
            nonce_key: self.nonce_key,
            seed: [0; 32],
        }
    }

    /// What users may use from now on. Nobody is in a realm that is only in `before`.
    pub(crate) fn set_limits(&self, settings: &Settings, before: Option<&Settings>) {
        let realms = settings.realms.iter();
        for old in before.iter().flat_map(|before| &before.realms) {
            if !realms.clone().any(|realm| realm.name() == old.name()) {
                self.shared
                    .set_limits_of(old.name(), UsageLimits::default());
            }
        }
        realms.for_each(|realm| self.shared.set_limits_of(realm.name(), realm.usage));
        self.shared.set_relay_limits(settings.relay_limits);
    }

    fn realms(&self, settings: &Settings) -> Realms {
        let hosts = hosts(settings);
        // Denied in the first realm is denied in all.
        let denied = &settings.realms[0].deny_peers;
        let mut realms = settings.realms.iter().enumerate().map(|(at, realm)| {
            let own = if at == 0 { &[][..] } else { &realm.deny_peers };
            let policy = PeerPolicy::from(PeerRules {
                allow: realm.allow_peers.clone(),
                deny: denied.iter().chain(own).cloned().collect(),
                own: self.own.clone(),
                hosts: hosts.clone(),
                nat64: settings.nat64_prefixes.clone(),
            });
            let mut made = Realm::new(&self.shared, realm.credentials.clone(), Arc::new(policy));
            made.revocations = realm.revocations.clone();
            made.max_lifetime = realm.max_lifetime;
            made.entrances = self.entrances(realm);
            made.server_names = realm.tls_names.clone();
            made.origins = realm.origins.clone();
            made
        });
        let first = realms.next().expect("there is one at least");
        Realms::new(first, realms)
    }

    fn entrances(&self, realm: &RealmSettings) -> Vec<Entrance> {
        let actual = |(transport, address): &(AlternateTransport, SocketAddr)| {
            let mut listeners = self.listeners.iter();
            let found = listeners.find(|(label, configured, _)| {
                *label == transport_label(*transport) && configured == address
            });
            found.map(|(_, _, actual)| Entrance {
                transport: *transport,
                address: *actual,
            })
        };
        realm.listen.iter().filter_map(actual).collect()
    }
}

fn transport_label(transport: AlternateTransport) -> &'static str {
    match transport {
        AlternateTransport::Udp => "udp",
        AlternateTransport::Tcp => "tcp",
        AlternateTransport::Tls => "tls",
        AlternateTransport::Dtls => "dtls",
    }
}

/// The addresses of this machine, and those that lead to it.
fn hosts(settings: &Settings) -> Vec<IpNet> {
    let interfaces = net::interface_addresses().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot list this machine's addresses");
        Vec::new()
    });
    // Without a list every address is taken for this machine's: nothing may be added to it then.
    if interfaces.is_empty() {
        return Vec::new();
    }
    let relay = &settings.relay_addresses;
    let relay = relay.iter().flat_map(|own| [own.bind, own.advertised]);
    let interfaces = interfaces.into_iter().map(|interface| interface.address);
    let single = interfaces.chain(relay).map(IpNet::from);
    single
        .chain(settings.relay_networks.iter().copied())
        .collect()
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
        let mut seen = self.revocations_stamps();
        loop {
            tokio::select! {
                _ = self.hangup.recv() => {
                    self.reload().await;
                    seen = self.revocations_stamps();
                }
                _ = looks.tick() => {
                    let stamps = self.revocations_stamps();
                    if stamps != seen {
                        seen = stamps;
                        self.reload_revocations().await;
                    }
                }
            }
        }
    }

    /// Of each realm's file.
    fn revocations_stamps(&self) -> Vec<Option<Stamp>> {
        let realms = self.settings.realms.iter();
        let stamp = |realm: &RealmSettings| Stamp::of(realm.revocations_file.as_deref()?);
        realms.map(stamp).collect()
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
        let (realm, before) = (settings.realms[0].name(), self.settings.realms[0].name());
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
        let before = std::mem::replace(&mut self.settings, settings);
        self.frame.desk.replace(&self.settings.realms);
        self.frame.set_limits(&self.settings, Some(&before));
        report.log(&self.tell_all().await);
        self.stats.on_applied(Clock.unix_time());
    }

    async fn reload_revocations(&mut self) {
        let mut report = Report::default();
        for realm in &mut self.settings.realms {
            let Some(path) = &realm.revocations_file else {
                continue;
            };
            match revocations(path) {
                Ok(new) => {
                    let before = std::mem::replace(&mut realm.revocations, Arc::new(new));
                    report.compare_revocations(&before, &realm.revocations);
                }
                Err(error) => {
                    let realm = realm.name();
                    tracing::error!(realm, %error, "the revoked names stay as they were");
                }
            }
        }
        report.log(&self.tell_all().await);
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
