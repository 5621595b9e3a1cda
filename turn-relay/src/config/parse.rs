//! Values, with errors that say what would be right.

use super::listen::Listen;
use super::{Values, same_family};
use crate::udp::Io;
use ipnet::IpNet;
use service_kit::ConfigError;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use turn_relay_proto::RelayAddress;

/// RFC 8489 section 14.9: fewer than 128 characters; small, because it is in the answer to everyone.
const MAX_REALM: usize = 127;

/// Parses each value of a list.
pub(super) fn each<T>(
    list: &Values,
    parse: impl Fn(&str, &str) -> Result<T, ConfigError>,
) -> Result<Vec<T>, ConfigError> {
    list.values
        .iter()
        .map(|value| parse(list.field, value))
        .collect()
}

pub(crate) fn realm(field: &str, text: &str) -> Result<String, ConfigError> {
    if text.is_empty() || text.len() > MAX_REALM || text.contains(['"', ':']) {
        return Err(ConfigError::of_field(
            field,
            text,
            "not a realm",
            "use 1 to 127 characters, without quotation mark and colon",
        ));
    }
    Ok(text.to_owned())
}

pub(super) fn server_name(name: String) -> Result<String, ConfigError> {
    if name.is_empty() || name.len() > MAX_REALM {
        let remedy = "use 1 to 127 characters";
        return Err(ConfigError::of_field(
            "server-name",
            name,
            "not a name",
            remedy,
        ));
    }
    Ok(name)
}

fn address(field: &str, text: &str) -> Result<IpAddr, ConfigError> {
    let error = |problem| {
        ConfigError::of_field(
            field,
            text,
            problem,
            "write one address of this machine, for example 10.0.0.2 or fd00:10::2",
        )
    };
    let ip: IpAddr = text.parse().map_err(|_| error("not an IP address"))?;
    if ip.is_unspecified() || ip.is_multicast() {
        return Err(error("peers could not send to this address"));
    }
    Ok(ip)
}

/// Relay addresses with what clients are told, in the order of the configuration.
pub(super) fn relay_addresses(
    relay: &Values,
    external: &Values,
    listen: &Listen,
) -> Result<Vec<RelayAddress>, ConfigError> {
    let mut bind = each(relay, address)?;
    if bind.is_empty() {
        bind = listen.addresses().map(|server| server.0.ip()).collect();
        bind.sort_unstable();
        bind.dedup();
        if let Some(wildcard) = bind.iter().find(|ip| ip.is_unspecified()) {
            return Err(ConfigError::of_field(
                relay.field,
                "",
                format!("missing, and the address listened on, {wildcard}, cannot stand for it"),
                "name an address of this machine, for example relay-addresses = [\"10.0.0.2\"]",
            ));
        }
    }
    let external = each(external, address).map(|list| (external.field, list))?;
    let advertised = |index: usize| {
        let of_family = |ip: &&IpAddr| same_family(**ip, bind[index]);
        let told: Vec<&IpAddr> = external.1.iter().filter(of_family).collect();
        let position = bind[..index].iter().filter(of_family).count();
        let count = bind.iter().filter(of_family).count();
        if !told.is_empty() && told.len() != count {
            let list: Vec<String> = told.iter().map(|ip| ip.to_string()).collect();
            return Err(ConfigError::of_field(
                external.0,
                list.join(", "),
                format!("{} for {count} relay addresses of the family", told.len()),
                "name one for each relay address of the family, or none",
            ));
        }
        Ok(told.get(position).map_or(bind[index], |ip| **ip))
    };
    (0..bind.len())
        .map(|index| {
            Ok(RelayAddress {
                bind: bind[index],
                advertised: advertised(index)?,
            })
        })
        .collect()
}

pub(super) fn network(field: &str, text: &str) -> Result<IpNet, ConfigError> {
    let network: Result<IpNet, _> = text.parse();
    match network {
        Ok(network) if network.trunc() == network => Ok(network),
        Ok(network) => Err(ConfigError::of_field(
            field,
            text,
            "an address within a network, not a network",
            format!(
                "did you mean {} or {}?",
                network.trunc(),
                IpNet::from(network.addr())
            ),
        )),
        Err(_) => Err(ConfigError::of_field(
            field,
            text,
            "not a network",
            "write CIDR notation, for example 10.0.0.0/24 or fd00:10::/64",
        )),
    }
}

pub(super) fn ports(field: &str, text: &str) -> Result<RangeInclusive<u16>, ConfigError> {
    let range = text.split_once('-').and_then(|(low, high)| {
        let low: u16 = low.trim().parse().ok()?;
        let high: u16 = high.trim().parse().ok()?;
        (low > 0 && low <= high).then_some(low..=high)
    });
    range.ok_or_else(|| {
        ConfigError::of_field(
            field,
            text,
            "not a range of ports",
            "write LO-HI with 1 <= LO <= HI <= 65535, for example 49152-65535",
        )
    })
}

/// Whether relayed addresses share sockets.
pub(super) fn relay_sockets(
    flag: Option<(&'static str, &str)>,
    field: Option<&str>,
) -> Result<bool, ConfigError> {
    match flag.or(field.map(|text| ("relay-sockets", text))) {
        None | Some((_, "per-allocation")) => Ok(false),
        Some((_, "shared")) => Ok(true),
        Some((field, text)) => Err(ConfigError::of_field(
            field,
            text,
            "no such way",
            "write per-allocation or shared",
        )),
    }
}

/// The networks that relayed addresses are taken from.
pub(super) fn relay_networks(relay: &Values, external: &Values) -> Result<Vec<IpNet>, ConfigError> {
    if let Some(text) = external.values.first() {
        return Err(ConfigError::of_field(
            external.field,
            text,
            "not known with shared relay sockets",
            "remove it: clients are told the addresses themselves",
        ));
    }
    if relay.values.is_empty() {
        return Err(ConfigError::of_field(
            relay.field,
            "",
            "missing, and shared relay sockets take their addresses from there",
            "name a network that leads to this machine, for example relay-addresses = [\"10.0.64.0/20\"]",
        ));
    }
    let networks = each(relay, network)?;
    // Two addresses at least between the first and the last.
    match networks
        .iter()
        .find(|n| n.max_prefix_len() - n.prefix_len() < 2)
    {
        None => Ok(networks),
        Some(small) => Err(ConfigError::of_field(
            relay.field,
            small,
            "too small: each allocation takes an address of it",
            "name a network, not an address",
        )),
    }
}

/// Each event loop has an even port of its own.
pub(super) fn ports_of_shards(
    ports: &RangeInclusive<u16>,
    threads: u16,
) -> Result<(), ConfigError> {
    let first = u32::from(*ports.start()).next_multiple_of(2);
    if first + 2 * u32::from(threads - 1) <= u32::from(*ports.end()) {
        return Ok(());
    }
    Err(ConfigError::of_field(
        "port-range",
        format!("{}-{}", ports.start(), ports.end()),
        format!("too few for {threads} event loops, each of which takes an even one"),
        "widen it",
    ))
}

/// The rung that is forced, if one is.
pub(super) fn io(
    flag: Option<(&'static str, &str)>,
    field: Option<&str>,
) -> Result<Option<Io>, ConfigError> {
    let Some((field, text)) = flag.or(field.map(|text| ("io", text))) else {
        return Ok(None);
    };
    match text {
        "auto" => Ok(None),
        "uring" => Ok(Some(Io::Uring)),
        "gso" => Ok(Some(Io::Gso)),
        "mmsg" => Ok(Some(Io::Mmsg)),
        "plain" => Ok(Some(Io::Plain)),
        _ => Err(ConfigError::of_field(
            field,
            text,
            "no such way",
            "write auto, uring, gso, mmsg or plain",
        )),
    }
}

pub(super) fn admin(field: &str, text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse().map_err(|_| {
        ConfigError::of_field(
            field,
            text,
            "not an address and port",
            "write ADDR:PORT, for example 127.0.0.1:9101",
        )
    })
}
