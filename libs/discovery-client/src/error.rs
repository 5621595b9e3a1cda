//! What can go wrong, each in one line that says what to do.

use std::time::Duration;

use identity::{StateError, TokenError};
use model::{NodeId, UnixTime};

/// Why a node could not join. The text is for whoever started the service.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The state directory cannot be used.
    #[error("state-directory: {0}")]
    State(#[from] StateError),
    /// A field of the configuration is wrong.
    #[error("{field} = `{value}`: {problem}")]
    Setting {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// The kept identity is another network's or role's.
    #[error(
        "the state directory holds the identity of {kept}, but the configuration says {wanted}: \
         correct the configuration, or use another state-directory"
    )]
    OtherNode {
        /// Whose identity is kept.
        kept: NodeId,
        /// Network and role from the configuration.
        wanted: String,
    },
    /// There is neither identity nor token.
    #[error(
        "this node is not enrolled and has no join token: \
         make one with `turnpike token create` and name its file in join-token-file"
    )]
    NoToken,
    /// The certificate has ended and there is no token to get a new one.
    #[error(
        "the certificate of {node} expired at {not_after} and it is {now}: \
         make a new token with `turnpike token create --node {}` and name its file in join-token-file \
         (or check the clock)", node.name
    )]
    Expired {
        /// Who this is.
        node: NodeId,
        /// Until when the certificate was valid.
        not_after: UnixTime,
        /// This machine's clock.
        now: UnixTime,
    },
    /// The token is no good.
    #[error("join-token-file: {0}")]
    Token(#[from] TokenError),
    /// Discovery refused, and said why.
    #[error("discovery refuses this node: {0}")]
    Refused(String),
    /// This clock and the mesh's are too far apart.
    #[error(
        "this machine's clock shows {here} and discovery's shows {there}, {} apart: \
         set this machine's clock (at most 2 minutes of difference are tolerated)",
        spoken(here.abs_diff(*there))
    )]
    ClockSkew {
        /// This machine's clock.
        here: UnixTime,
        /// Discovery's clock, or the certificate's beginning.
        there: UnixTime,
    },
    /// Discovery cannot be reached, or is not what it should be.
    #[error("cannot reach discovery at {url}: {reason}")]
    Unreachable {
        /// Its address from the configuration or token.
        url: String,
        /// Why.
        reason: String,
    },
    /// What discovery sent cannot be used.
    #[error("discovery at {url} sent something unusable: {problem}")]
    Protocol {
        /// Its address.
        url: String,
        /// What is wrong.
        problem: String,
    },
}

/// Why a call to discovery failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// There is no connection now.
    #[error("discovery is away: {0}")]
    Away(String),
    /// No answer within the deadline of 3 s.
    #[error("discovery did not answer within 3 s")]
    Timeout,
    /// Discovery refused: unknown node, full mailbox, not permitted.
    #[error("discovery refused: {0}")]
    Refused(String),
}

fn spoken(duration: Duration) -> String {
    match duration.as_secs() {
        s @ 0..=119 => format!("{s} s"),
        s @ 120..=7_199 => format!("{} min", s / 60),
        s @ 7_200..=172_799 => format!("{} h", s / 3_600),
        s => format!("{} days", s / 86_400),
    }
}
