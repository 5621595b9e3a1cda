//! Becoming a node: the kept identity, or a new one for a join token.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use identity::{JoinToken, LEEWAY, Mesh, NodeIdentity, NodeKey};
use model::{NodeId, NodeName, UnixTime};
use net::Clock;
use protocol::directory::{
    EnrollRequest, EnrollResponse, RangeRequest, directory_client::DirectoryClient,
};
use tonic::transport::Channel;

use crate::{
    IdentityHandle, JoinError, Settings,
    connection::{Client, DEADLINE, connect, one_line, split},
};

/// How long a first enrolment waits for discovery, which may be starting beside us.
const PATIENCE: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_millis(500);
/// Pause before discovery is asked again by [`join_patiently`].
const JOIN_INTERVAL: Duration = Duration::from_secs(1);

/// Whether a state directory holds an identity: a join token is not needed then, and its file may be gone.
#[must_use]
pub fn is_enrolled(state_directory: &Path) -> bool {
    matches!(NodeIdentity::load(state_directory), Ok(Some(_)))
}

/// The file of the join token, if it has to be read: it may be removed once the node is enrolled.
#[must_use]
pub fn token_file<'a>(state_directory: &Path, configured: Option<&'a Path>) -> Option<&'a Path> {
    configured.filter(|file| file.exists() || !is_enrolled(state_directory))
}

/// As [`join`], again and again while discovery cannot be reached: for `patience` at most, or as long as it takes.
///
/// # Errors
/// See [`JoinError`]; [`JoinError::Unreachable`] only after `patience`.
pub async fn join_patiently(
    settings: &Settings,
    patience: Option<Duration>,
) -> Result<Arc<IdentityHandle>, JoinError> {
    let deadline = patience.map(|patience| Clock.now() + patience);
    let mut told = false;
    loop {
        match join(settings).await {
            Err(error @ JoinError::Unreachable { .. })
                if deadline.is_none_or(|deadline| Clock.now() < deadline) =>
            {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%error, "not enrolled yet; trying again until discovery answers");
                }
                tokio::time::sleep(JOIN_INTERVAL).await;
            }
            ended => return ended,
        }
    }
}

/// Loads the node's identity from the state directory, or enrolls it with the join token. Takes at most 15 s when
/// discovery is away and there is no identity yet, at most 3 s otherwise; with an identity discovery may be away.
///
/// # Errors
/// See [`JoinError`]: one line each.
pub async fn join(settings: &Settings) -> Result<Arc<IdentityHandle>, JoinError> {
    check(settings)?;
    let now = Clock.unix_time();
    let kept = NodeIdentity::load(&settings.state_directory)?;
    let identity = match kept {
        Some(identity) => {
            check_kept(settings, &identity, now)?;
            if now <= identity.not_after() {
                check_clock(settings, &identity).await?;
                identity
            } else if settings.join_token.is_some() {
                enroll(settings).await?
            } else {
                let (node, not_after) = (identity.node_id().clone(), identity.not_after());
                return Err(JoinError::Expired {
                    node,
                    not_after,
                    now,
                });
            }
        }
        None => enroll(settings).await?,
    };
    tracing::info!(node = %identity.node_id(), mesh = %identity.mesh().name, "this is who we are");
    Ok(Arc::new(IdentityHandle::new(
        identity,
        &settings.state_directory,
    )))
}

fn check(settings: &Settings) -> Result<(), JoinError> {
    split(&settings.discovery).map_err(|problem| JoinError::Setting {
        field: "discovery",
        value: settings.discovery.clone(),
        problem,
    })?;
    if let Some(name) = &settings.node_name {
        name.parse::<NodeName>()
            .map_err(|error| JoinError::Setting {
                field: "node-name",
                value: name.clone(),
                problem: error.to_string(),
            })?;
    }
    Ok(())
}

fn check_kept(
    settings: &Settings,
    identity: &NodeIdentity,
    now: UnixTime,
) -> Result<(), JoinError> {
    let node = identity.node_id();
    let name = settings.node_name.as_deref();
    let same_name = name.is_none_or(|name| name == node.name.as_str());
    if node.network != settings.network || node.role != settings.role || !same_name {
        let name = name.unwrap_or("(any name)");
        let wanted = format!("{}/{}/{name}", settings.network, settings.role);
        return Err(JoinError::OtherNode {
            kept: node.clone(),
            wanted,
        });
    }
    let valid_from = identity.certificate().not_before;
    if now.saturating_add(LEEWAY) < valid_from {
        return Err(JoinError::ClockSkew {
            here: now,
            there: valid_from,
        });
    }
    Ok(())
}

/// Asks discovery for the time, and whether it knows us. That it is away is for later.
async fn check_clock(settings: &Settings, identity: &NodeIdentity) -> Result<(), JoinError> {
    let ask = async {
        let tls = identity.tls();
        let channel = connect(&settings.discovery, Client::Known(&tls))
            .await
            .ok()?;
        let request = RangeRequest {
            prefix: "revocation/".into(),
        };
        Some(DirectoryClient::new(channel).range(request).await)
    };
    let status = match tokio::time::timeout(DEADLINE, ask).await {
        Ok(Some(Ok(response))) => return compare_clocks(UnixTime(response.get_ref().unix_time)),
        Ok(Some(Err(status))) => status,
        _ => return Ok(()),
    };
    let time = status
        .metadata()
        .get("unix-time")
        .and_then(|time| time.to_str().ok()?.parse().ok());
    if let Some(time) = time {
        compare_clocks(UnixTime(time))?;
    }
    match status.code() {
        tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => {
            Err(JoinError::Refused(status.message().to_owned()))
        }
        _ => Ok(()),
    }
}

fn compare_clocks(there: UnixTime) -> Result<(), JoinError> {
    let here = Clock.unix_time();
    if here.abs_diff(there) > LEEWAY {
        return Err(JoinError::ClockSkew { here, there });
    }
    Ok(())
}

/// Gets a certificate for the key in the state directory.
pub(crate) async fn enroll(settings: &Settings) -> Result<NodeIdentity, JoinError> {
    let text = settings.join_token.as_deref().ok_or(JoinError::NoToken)?;
    let token = JoinToken::read(text)?;
    check_token(settings, &token)?;
    let key = NodeKey::load_or_generate(&settings.state_directory)?;
    let unusable = |problem: String| JoinError::Protocol {
        url: settings.discovery.clone(),
        problem,
    };
    let request = EnrollRequest {
        token: text.trim().to_owned(),
        certificate_request: key.request().map_err(|error| unusable(error.to_string()))?,
        node: settings.node_name.clone().unwrap_or_default(),
    };
    let response = ask(settings, &token, request).await?;
    compare_clocks(UnixTime(response.unix_time))?;
    let identity = NodeIdentity::new(key, response.certificate, token.ca_certificate.clone())
        .map_err(|error| unusable(error.to_string()))?;
    let node = identity.node_id();
    let NodeId { network, role, .. } = node;
    if *network != token.network || *role != token.role {
        return Err(unusable(format!("a certificate for {node}")));
    }
    identity.save(&settings.state_directory)?;
    tracing::info!(%node, not_after = %identity.not_after(), "enrolled");
    Ok(identity)
}

fn check_token(settings: &Settings, token: &JoinToken) -> Result<(), JoinError> {
    let wrong = |field, value: &str, is: String| {
        let problem = format!(
            "the join token is for {is}: correct the configuration, \
             or make another token with `turnpike token create`"
        );
        Err(JoinError::Setting {
            field,
            value: value.to_owned(),
            problem,
        })
    };
    if token.network != settings.network {
        let is = format!("the network `{}`", token.network);
        return wrong("network", settings.network.as_str(), is);
    }
    if token.role != settings.role {
        let problem = format!(
            "the join token is for the role `{}`, and this is the role `{}`: \
             make another token with `turnpike token create --role {}`",
            token.role, settings.role, settings.role
        );
        return Err(JoinError::Refused(problem));
    }
    match (&token.node, &settings.node_name) {
        (Some(is), Some(name)) if is.as_str() != name => {
            wrong("node-name", name, format!("the node `{is}`"))
        }
        _ => Ok(()),
    }
}

/// Asks until discovery answers, but not for long, and not when it is the wrong one.
async fn ask(
    settings: &Settings,
    token: &JoinToken,
    request: EnrollRequest,
) -> Result<EnrollResponse, JoinError> {
    let ca = identity::certificate_pem(&token.ca_certificate);
    Mesh::of(&token.ca_certificate)
        .map_err(|_| JoinError::Token(identity::TokenError::WrongMesh))?;
    let deadline = Instant::now() + PATIENCE;
    let mut told = false;
    loop {
        let reason = match connect(&settings.discovery, Client::Anonymous { ca_pem: &ca }).await {
            Ok(channel) => match call(channel, request.clone()).await {
                Ok(response) => return Ok(response),
                Err(Failure::Refused(reason)) => return Err(JoinError::Refused(reason)),
                Err(Failure::Lost(reason)) => reason,
            },
            Err(reason) => reason,
        };
        let hopeless = reason.contains("certificate") || reason.contains("lookup");
        if hopeless || Instant::now() >= deadline {
            return Err(JoinError::Unreachable {
                url: settings.discovery.clone(),
                reason,
            });
        }
        if !std::mem::replace(&mut told, true) {
            tracing::info!(%reason, "waiting for discovery");
        }
        tokio::time::sleep(RETRY).await;
    }
}

enum Failure {
    Refused(String),
    Lost(String),
}

async fn call(channel: Channel, request: EnrollRequest) -> Result<EnrollResponse, Failure> {
    let mut client = DirectoryClient::new(channel);
    match tokio::time::timeout(DEADLINE, client.enroll(request)).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(match status.code() {
            tonic::Code::PermissionDenied | tonic::Code::InvalidArgument => {
                Failure::Refused(status.message().to_owned())
            }
            _ => Failure::Lost(one_line(&status)),
        }),
        Err(_) => Err(Failure::Lost("no answer within 3 s".into())),
    }
}
