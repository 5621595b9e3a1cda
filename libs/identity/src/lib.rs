//! Who a node is and what it said: the mesh CA, node certificates, join tokens, signed documents.
//!
//! The journey: an operator makes an [`Authority`] and from it a [`JoinToken`]; a node makes a [`NodeKey`] and a
//! request, discovery checks the token and has the authority issue a certificate; the two are a
//! [`NodeIdentity`], which signs documents; whoever receives one asks a [`Verifier`].
//!
//! Invariants: ECDSA P-256 with SHA-256 everywhere, one CA per mesh and no intermediates, one SPIFFE URI per
//! certificate, serial numbers of 16 random bytes. Time is passed in; clocks may differ by [`LEEWAY`]. Nothing in
//! a document is looked at before its certificate and signature are good.

#![forbid(unsafe_code)]

mod certificate;
mod files;
mod authority;
mod node;
mod token;
mod verifier;

pub use authority::{Authority, AuthorityError, Mesh, TlsMaterial, request_public_key};
pub use certificate::{CertificateError, CertificateInfo, Serial};
pub use files::{StateError, certificate_pem, write_private, write_public};
pub use node::{NodeIdentity, NodeKey, document};
pub use token::{JoinToken, TokenError};
pub use verifier::{Verified, Verifier, VerifyError};

use std::time::Duration;

/// How far two clocks may be apart: 120 s. Certificates and documents are accepted this much early or late.
pub const LEEWAY: Duration = Duration::from_secs(120);

/// The longest encoded document that is signed or verified: 16 KiB.
pub const MAX_DOCUMENT: usize = 16 * 1024;
