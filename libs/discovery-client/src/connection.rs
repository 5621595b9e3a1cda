//! One TLS connection to discovery, and its failures in one line.

use std::{error::Error, time::Duration};

use identity::TlsMaterial;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// No call takes longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(3);
/// A connection that does not answer pings is dead after these two.
const PING_EVERY: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(4);

/// Who we are in TLS: nobody yet, or a node or operator.
pub(crate) enum Client<'a> {
    /// Only the CA (PEM) is known: enrolling.
    Anonymous { ca_pem: &'a str },
    /// With a client certificate.
    Known(&'a TlsMaterial),
}

/// Connects; the server's certificate must chain to the mesh CA and name the host of `url`.
pub(crate) async fn connect(url: &str, client: Client<'_>) -> Result<Channel, String> {
    let (host, _) = split(url)?;
    let ca = match &client {
        Client::Anonymous { ca_pem } => *ca_pem,
        Client::Known(tls) => &tls.ca_pem,
    };
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ca))
        .domain_name(host.trim_start_matches('[').trim_end_matches(']'));
    if let Client::Known(material) = client {
        let key = material.key_pem.as_bytes();
        tls = tls.identity(Identity::from_pem(&material.certificate_pem, key));
    }
    let endpoint = Endpoint::from_shared(url.to_owned())
        .and_then(|endpoint| endpoint.tls_config(tls))
        .map_err(|error| one_line(&error))?
        .connect_timeout(DEADLINE)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    match tokio::time::timeout(DEADLINE, endpoint.connect()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(one_line(&error)),
        Err(_) => Err("no answer within 3 s".into()),
    }
}

/// Host (IPv6 in brackets) and port of an `https://host:port` URL.
pub(crate) fn split(url: &str) -> Result<(&str, u16), String> {
    let form = || "it must have the form https://HOST:PORT".to_owned();
    let rest = url.strip_prefix("https://").ok_or_else(form)?;
    let (host, port) = rest
        .trim_end_matches('/')
        .rsplit_once(':')
        .ok_or_else(form)?;
    let bare_ipv6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    if host.is_empty() || host.contains('/') || bare_ipv6 {
        return Err(form());
    }
    Ok((host, port.parse().map_err(|_| form())?))
}

/// The error and its causes without repetitions, in words that say what to do where we know it.
pub(crate) fn one_line(error: &(dyn Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = match error.downcast_ref::<tonic::Status>() {
            Some(status) => status.message().to_owned(),
            None => error.to_string(),
        };
        if !text.is_empty() && !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    let all = parts.join(": ");
    let has = |what: &str| all.contains(what);
    let hint = if has("UnknownIssuer") || has("BadSignature") {
        "its certificate was not issued by the CA of this mesh: is this the discovery of another mesh?"
    } else if has("not valid for name") || has("NotValidForName") {
        "its certificate does not name this host: run `turnpike init` with --discovery HOST:PORT as nodes use it"
    } else if has("invalid peer certificate: Expired") || has("certificate expired: verif") {
        "its certificate has expired, or this machine's clock is wrong"
    } else if has("NotValidYet") || has("certificate not valid yet") {
        "its certificate is not valid yet: this machine's clock is wrong"
    } else if has("CertificateExpired") {
        "it says that this node's certificate has expired: check the clocks"
    } else if has("UnknownCA") || has("DecryptError") || has("BadCertificate") {
        "it does not accept this node's certificate: was it issued by this mesh?"
    } else {
        // "transport error" by itself says nothing.
        return match parts.len() {
            0 | 1 => all,
            _ => parts[1..].join(": "),
        };
    };
    format!("{hint} ({})", parts.last().map_or("", String::as_str))
}
