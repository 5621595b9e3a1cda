//! The certificate of TLS and DTLS listeners. It is read again when its files change; connections that exist keep what they have.

use crate::stamp::Stamp;
use arc_swap::ArcSwap;
use dimpl::DtlsCertificate;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, Ticketer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{InconsistentKeys, ServerConfig};
use service_kit::{ConfigError, read_secret_of_field};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What [RFC 7443 section 3](https://www.rfc-editor.org/rfc/rfc7443#section-3) registers. A client that offers neither,
/// but something else, is refused; one that offers nothing is not.
const ALPN: [&[u8]; 2] = [b"stun.turn", b"stun.nat-discovery"];
/// How often the files are looked at. A change counts when it has lasted as long: certificate and key are two files.
const INTERVAL: Duration = Duration::from_secs(2);
/// Longer chains than this are a mistake.
const MAX_BYTES: u64 = 256 * 1024;

type Stamps = [Option<Stamp>; 2];

/// A certificate that was read and can be shown.
#[derive(Debug)]
pub(crate) struct NewCertificate {
    files: CertificateFiles,
    stamps: Stamps,
    shown: Shown,
}

/// A certificate with its key, for TLS and for DTLS.
#[derive(Debug)]
struct Shown {
    tls: Arc<CertifiedKey>,
    dtls: Option<DtlsCertificate>,
}

/// The two files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Whether DTLS listeners show it: not every key is one for them.
    pub(crate) for_dtls: bool,
}

/// What listeners show at the moment, and how often that was replaced.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: ArcSwap<CertificateFiles>,
    /// The files as they were when they were read.
    taken: Mutex<Stamps>,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<Shown>,
    pub(crate) reloads: AtomicU64,
    pub(crate) failed_reloads: AtomicU64,
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().tls.clone())
    }
}

impl Certificate {
    /// Reads both files.
    ///
    /// # Errors
    /// One line: which file, what is wrong with it, and what to do.
    pub(crate) fn load(files: CertificateFiles) -> Result<Arc<Self>, ConfigError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let taken = Mutex::new(stamps(&files));
        let current = ArcSwap::from_pointee(read(&files, &provider)?);
        Ok(Arc::new(Self {
            files: ArcSwap::from_pointee(files),
            taken,
            provider,
            current,
            reloads: AtomicU64::new(0),
            failed_reloads: AtomicU64::new(0),
        }))
    }

    /// What clients are shown: the certificate, then its chain.
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.current.load().tls.cert.clone()
    }

    /// What clients of DTLS are shown, if there may be any: the first certificate alone.
    pub(crate) fn dtls(&self) -> Option<DtlsCertificate> {
        self.current.load().dtls.clone()
    }

    /// TLS 1.2 and 1.3, with session tickets that need no memory.
    ///
    /// # Errors
    /// When there is no randomness for the tickets' key.
    pub(crate) fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        config.ticketer = Ticketer::new()?;
        Ok(Arc::new(config))
    }

    /// Looks at the files for ever, and takes what is new in them.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut seen = self.taken();
        loop {
            tokio::time::sleep(INTERVAL).await;
            let files = self.files.load_full();
            let stamps = stamps(&files);
            let has_lasted = std::mem::replace(&mut seen, stamps) == stamps;
            if stamps == self.taken() || !has_lasted {
                continue;
            }
            let file = files.certificate.display();
            match self.read((*files).clone()) {
                Ok(new) => {
                    self.replace(new);
                    tracing::info!(%file, "certificate read again");
                }
                Err(error) => {
                    // Until they change again.
                    *self.lock_taken() = stamps;
                    self.failed_reloads.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%error, "the certificate stays as it was");
                }
            }
        }
    }

    /// Reads these files, and changes nothing yet.
    ///
    /// # Errors
    /// As [`Certificate::load`].
    pub(crate) fn read(&self, files: CertificateFiles) -> Result<NewCertificate, ConfigError> {
        // Before they are read: what changes meanwhile is read again.
        let stamps = stamps(&files);
        let shown = read(&files, &self.provider)?;
        Ok(NewCertificate {
            files,
            stamps,
            shown,
        })
    }

    /// Shows another certificate from now on. Returns whether it is another.
    pub(crate) fn replace(&self, new: NewCertificate) -> bool {
        *self.lock_taken() = new.stamps;
        self.files.store(Arc::new(new.files));
        self.reloads.fetch_add(1, Ordering::Relaxed);
        let before = self.current.swap(Arc::new(new.shown));
        before.tls.cert != self.current.load().tls.cert
    }

    fn taken(&self) -> Stamps {
        *self.lock_taken()
    }

    fn lock_taken(&self) -> MutexGuard<'_, Stamps> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamps(files: &CertificateFiles) -> Stamps {
    [&files.certificate, &files.key].map(|path| Stamp::of(path))
}

fn read(files: &CertificateFiles, provider: &CryptoProvider) -> Result<Shown, ConfigError> {
    let chain = read_chain(&files.certificate)?;
    let wrong_key = |problem: String, remedy: &str| {
        ConfigError::of_field("key-file", files.key.display(), problem, remedy)
    };
    let key = read_secret_of_field("key-file", &files.key)?;
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).map_err(|_| {
        wrong_key(
            "no private key in it".into(),
            "name a PEM file with a key that is not encrypted",
        )
    })?;
    let dtls = match files.for_dtls {
        true => Some(for_dtls(&chain, &key).map_err(|problem| {
            let remedy =
                "use a certificate with an ECDSA key on P-256 or P-384, or leave dtls:// out";
            wrong_key(problem, remedy)
        })?),
        false => None,
    };
    let tls = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => wrong_key(
            format!("not the key of {}", files.certificate.display()),
            "name the key that the first certificate of the chain was made with",
        ),
        error => wrong_key(
            format!("cannot be used with its certificate: {error}"),
            "use a certificate with an ECDSA, Ed25519 or RSA key",
        ),
    })?;
    Ok(Shown {
        tls: Arc::new(tls),
        dtls,
    })
}

/// The library for DTLS has one kind of key, and sends no chain.
fn for_dtls(
    chain: &[CertificateDer<'_>],
    key: &PrivateKeyDer<'_>,
) -> Result<DtlsCertificate, String> {
    let keys = dimpl::crypto::aws_lc_rs::default_provider().key_provider;
    if keys.load_private_key(key.secret_der()).is_err() {
        return Err("not a key that DTLS can be served with".into());
    }
    if chain.len() > 1 {
        tracing::warn!("over DTLS clients are shown the first certificate without its chain");
    }
    Ok(DtlsCertificate {
        certificate: chain
            .first()
            .map(|first| first.to_vec())
            .unwrap_or_default(),
        private_key: key.secret_der().to_vec(),
    })
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let wrong = |problem: String, remedy: &str| {
        ConfigError::of_field("certificate-file", path.display(), problem, remedy)
    };
    let unreadable = |error| {
        wrong(
            format!("cannot read the certificate: {error}"),
            "check path and permissions",
        )
    };
    let length = fs::metadata(path).map_err(unreadable)?.len();
    if length > MAX_BYTES {
        return Err(wrong(
            format!("{length} bytes are no certificate"),
            "name a PEM file with the certificate and its chain",
        ));
    }
    let pem = fs::read(path).map_err(unreadable)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(wrong(
            "no certificate in it".into(),
            "name a PEM file with the certificate first, then its chain",
        )),
    }
}
