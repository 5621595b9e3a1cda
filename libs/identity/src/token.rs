//! Join tokens: an operator's permission for a node to enroll, on paper.
//!
//! `turnpike-join-v1.<base64url of a SignedJoinToken>`, signed by the CA's key. It carries the CA certificate, so it
//! is all that a node needs to find the mesh and to know it. How often it was used is discovery's to count.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use model::{NetworkName, NodeName, Role, UnixTime};
use prost::Message as _;
use protocol::document::{JoinToken as Encoded, SignedJoinToken};
use rustls_pki_types::CertificateDer;
use webpki::aws_lc_rs::ECDSA_P256_SHA256;

use crate::{Authority, AuthorityError, Mesh};

const PREFIX: &str = "turnpike-join-v1.";
const CONTEXT: &[u8] = b"turnpike-join-v1\0";
const MAX_TOKEN: usize = 8192;

/// Why a token is no good. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token, or cut short.
    #[error(
        "not a join token ({0}); it is one line that begins with `turnpike-join-v1.`: \
         copy it whole, or make one with `turnpike token create`"
    )]
    Malformed(&'static str),
    /// Signed by another CA.
    #[error(
        "the join token is of another mesh, or was altered: \
         make one with `turnpike token create` in this mesh's directory"
    )]
    WrongMesh,
    /// Too late.
    #[error(
        "the join token expired at {expires} and it is {now}: \
         make a new one with `turnpike token create` (or check the clock)"
    )]
    Expired {
        /// Until when it was good.
        expires: UnixTime,
        /// The clock.
        now: UnixTime,
    },
}

/// What a join token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// 16 random bytes as hex: what uses are counted by.
    pub id: String,
    /// Which network the node will stand in.
    pub network: NetworkName,
    /// What the node will be.
    pub role: Role,
    /// The name it must take, if the operator chose one.
    pub node: Option<NodeName>,
    /// How many different keys may enroll with it, at least 1.
    pub uses: u32,
    /// Until when.
    pub expires: UnixTime,
    /// The mesh's CA certificate, DER.
    pub ca_certificate: Vec<u8>,
    /// Where discovery is: `https://host:port`.
    pub discovery: String,
}

impl JoinToken {
    /// Makes a token with a new id, good from `now` for `ttl`.
    ///
    /// # Errors
    /// If the library cannot sign.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a field, and the caller names them"
    )]
    pub fn create(
        authority: &Authority,
        network: &NetworkName,
        role: Role,
        node: Option<&NodeName>,
        uses: u32,
        ttl: Duration,
        discovery: &str,
        now: UnixTime,
    ) -> Result<String, AuthorityError> {
        let mut id = vec![0u8; 16];
        getrandom::fill(&mut id).expect("the operating system has random numbers");
        let payload = Encoded {
            id,
            network: network.to_string(),
            role: role.to_string(),
            node: node.map(NodeName::to_string).unwrap_or_default(),
            uses: uses.max(1),
            expires_unix_time: now.saturating_add(ttl).0,
            ca_certificate: authority.certificate_der().to_vec(),
            discovery: discovery.to_owned(),
        }
        .encode_to_vec();
        let signature = authority.sign(&[CONTEXT, &payload].concat())?;
        let signed = SignedJoinToken { payload, signature }.encode_to_vec();
        Ok(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(signed)))
    }

    /// What a node does with the token it was given: reads it, trusting whoever gave it. Only detects that it was
    /// damaged; whether it is good is discovery's to say.
    ///
    /// # Errors
    /// [`TokenError::Malformed`], [`TokenError::WrongMesh`] if it is not signed by the CA it names.
    pub fn read(text: &str) -> Result<Self, TokenError> {
        let (token, signed) = decode(text)?;
        check_signature(&signed, &token.ca_certificate)?;
        Ok(token)
    }

    /// What discovery does: it must be signed by this CA (DER) and not have expired.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify(text: &str, ca_certificate: &[u8], now: UnixTime) -> Result<Self, TokenError> {
        let (token, signed) = decode(text)?;
        check_signature(&signed, ca_certificate)?;
        if now > token.expires {
            return Err(TokenError::Expired {
                expires: token.expires,
                now,
            });
        }
        Ok(token)
    }
}

fn decode(text: &str) -> Result<(JoinToken, SignedJoinToken), TokenError> {
    use TokenError::Malformed;
    let text = text.trim();
    if text.len() > MAX_TOKEN {
        return Err(Malformed("longer than 8192 bytes"));
    }
    let text = text
        .strip_prefix(PREFIX)
        .ok_or(Malformed("it begins with something else"))?;
    let bytes = BASE64_URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| Malformed("it is damaged or cut short"))?;
    let damaged = |_| Malformed("it is damaged or cut short");
    let signed = SignedJoinToken::decode(bytes.as_slice()).map_err(damaged)?;
    let token = Encoded::decode(signed.payload.as_slice()).map_err(damaged)?;
    let node = match token.node.as_str() {
        "" => None,
        name => Some(
            name.parse()
                .map_err(|_| Malformed("its node is not a name"))?,
        ),
    };
    let token = JoinToken {
        id: token.id.iter().map(|b| format!("{b:02x}")).collect(),
        network: token
            .network
            .parse()
            .map_err(|_| Malformed("its network is not a name"))?,
        role: token
            .role
            .parse()
            .map_err(|_| Malformed("its role is unknown"))?,
        node,
        uses: token.uses,
        expires: UnixTime(token.expires_unix_time),
        ca_certificate: token.ca_certificate,
        discovery: token.discovery,
    };
    Ok((token, signed))
}

fn check_signature(signed: &SignedJoinToken, ca_certificate: &[u8]) -> Result<(), TokenError> {
    Mesh::of(ca_certificate).map_err(|_| TokenError::Malformed("its CA certificate is none"))?;
    let der = CertificateDer::from(ca_certificate);
    // A CA certificate is no end entity, but its key's signature is checked alike.
    webpki::EndEntityCert::try_from(&der)
        .map_err(|_| TokenError::Malformed("its CA certificate is none"))?
        .verify_signature(
            ECDSA_P256_SHA256,
            &[CONTEXT, &signed.payload].concat(),
            &signed.signature,
        )
        .map_err(|_| TokenError::WrongMesh)
}
