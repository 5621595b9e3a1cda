//! Who may be reached, and how much users and strangers may cost.

use super::file::File;
use super::realm::RealmFile;
use ipnet::{IpNet, Ipv6Net};
use service_kit::ConfigError;
use turn_relay_proto::{
    AnswerLimits, MOST_NEW_PEERS, PeerRule, RelayLimits, RuleError, UsageLimits,
};

/// How many allocations a user may hold, unless configured otherwise.
const ALLOCATIONS_PER_USER: u32 = 4_096;

/// An entry of `allow-peers` or `deny-peers`.
pub(super) fn rule(field: &str, text: &str) -> Result<PeerRule, ConfigError> {
    text.parse().map_err(|error: RuleError| {
        let remedy = match error {
            RuleError::Network => {
                "write CIDR notation, for example 10.0.0.0/24 or fd00:10::/64".to_owned()
            }
            RuleError::HostBits(network) => format!(
                "did you mean {} or {}?",
                network.trunc(),
                IpNet::from(network.addr())
            ),
            RuleError::Ports => {
                "write up to 64 ports or ranges, for example 10.0.0.0/24:53,8000-8999".to_owned()
            }
        };
        ConfigError::of_field(field, text, error.to_string(), remedy)
    })
}

pub(super) fn nat64_prefix(field: &str, text: &str) -> Result<Ipv6Net, ConfigError> {
    let prefix = text.parse().ok().filter(|prefix: &Ipv6Net| {
        prefix.trunc() == *prefix && matches!(prefix.prefix_len(), 32 | 40 | 48 | 56 | 64 | 96)
    });
    prefix.ok_or_else(|| {
        ConfigError::of_field(
            field,
            text,
            "not a prefix of NAT64 (RFC 6052 section 2.2)",
            "write one of 32, 40, 48, 56, 64 or 96 bits, for example 2001:db8:64::/96",
        )
    })
}

pub(super) fn usage(file: &RealmFile) -> Result<UsageLimits, ConfigError> {
    let default = UsageLimits::default();
    let new_peers = file.new_peers_per_minute.unwrap_or(default.new_peers);
    if new_peers > MOST_NEW_PEERS {
        return Err(ConfigError::of_field(
            "new-peers-per-minute",
            new_peers,
            format!("more than {MOST_NEW_PEERS}, which is the most that is counted"),
            "write less, or 0 for any number",
        ));
    }
    Ok(UsageLimits {
        allocations_per_user: file.allocations_per_user.unwrap_or(ALLOCATIONS_PER_USER),
        allocations: file.allocations.unwrap_or(default.allocations),
        user_rate: file.user_bytes_per_second.unwrap_or(default.user_rate),
        total_rate: file.total_bytes_per_second.unwrap_or(default.total_rate),
        new_peers,
    })
}

/// Of all realms together.
pub(super) fn relay_limits(file: &File) -> RelayLimits {
    let default = RelayLimits::default();
    RelayLimits {
        allocations: file.relay_allocations.unwrap_or(default.allocations),
        rate: file.relay_bytes_per_second.unwrap_or(default.rate),
    }
}

pub(super) fn answers(file: &File) -> AnswerLimits {
    let default = AnswerLimits::default();
    let per_prefix = file.unauthenticated_answers_per_second_per_prefix;
    let large = file.large_unauthenticated_answers_per_second;
    AnswerLimits {
        total: file
            .unauthenticated_answers_per_second
            .unwrap_or(default.total),
        per_prefix: per_prefix.unwrap_or(default.per_prefix),
        large: large.unwrap_or(default.large),
    }
}
