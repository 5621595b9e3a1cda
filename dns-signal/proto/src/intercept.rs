//! What becomes of a question: ours, ours but absent, or somebody else's. A pure decision: it assigns nothing,
//! sends nothing and looks at no clock.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use hickory_proto::rr::{DNSClass, Name, RecordType};
use model::{Match, NetworkName, ServiceName};
use thiserror::Error;

use crate::service::ServiceId;
use crate::services::{Exported, Services};
use crate::virtual_ip::Pools;

/// Room that the suffix must leave in a name of 255 bytes for two labels of 63
/// ([RFC 1035 section 2.3.4](https://www.rfc-editor.org/rfc/rfc1035#section-2.3.4)).
const MAX_SUFFIX_BYTES: usize = 255 - 2 * 64 - 1;

/// The domain below which all names are the mesh's, by default `mesh.internal`
/// ([`internal` is reserved for such use](https://www.icann.org/en/board-activities-and-meetings/materials/approved-resolutions-special-meeting-of-the-icann-board-29-07-2024-en)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suffix(Name);

/// Why a text cannot be the suffix.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SuffixError {
    /// The root, or no text: every name would be ours.
    #[error("a suffix has at least one label")]
    Empty,
    /// `orders.east.<suffix>` must stay a legal name.
    #[error(
        "a suffix has at most {MAX_SUFFIX_BYTES} bytes, so that service and network fit before it"
    )]
    TooLong,
    /// Not a host name.
    #[error("a suffix consists of labels of a-z, 0-9 and `-`, separated by dots")]
    NotAName,
}

impl FromStr for Suffix {
    type Err = SuffixError;

    fn from_str(text: &str) -> Result<Self, SuffixError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(SuffixError::Empty);
        }
        if text.len() > MAX_SUFFIX_BYTES {
            return Err(SuffixError::TooLong);
        }
        let text = text.to_ascii_lowercase();
        // A label of a host name follows the same rule as the name of a service.
        let are_labels = text
            .split('.')
            .all(|label| label.parse::<ServiceName>().is_ok());
        let name = Name::from_ascii(&text).map_err(|_| SuffixError::NotAName)?;
        if are_labels {
            Ok(Self(absolute(name)))
        } else {
            Err(SuffixError::NotAName)
        }
    }
}

impl fmt::Display for Suffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_ascii().trim_end_matches('.'))
    }
}

impl Suffix {
    /// The zone's own name.
    pub fn name(&self) -> &Name {
        &self.0
    }

    /// The full name of a service.
    pub fn name_of(&self, id: &ServiceId) -> Name {
        // Infallible by MAX_SUFFIX_BYTES for a service of one label, and for what was asked for; the zone's own name is a
        // harmless stand-in.
        let labels = id.service.labels().chain([id.network.as_str()]);
        Name::from_labels(labels.map(str::as_bytes))
            .and_then(|name| name.append_domain(&self.0))
            .unwrap_or_else(|_| self.0.clone())
    }

    /// The service that a name, or the name of one of its ports, is about, whether it is exported or not.
    pub fn service_in(&self, name: &Name) -> Option<ServiceId> {
        let labels = self.labels_before(name)?;
        let (network, labels) = labels.split_last()?;
        let labels = labels.iter().skip_while(|label| label.starts_with('_'));
        Some(ServiceId {
            service: ServiceName::from_labels(labels).ok()?,
            network: network.parse().ok()?,
        })
    }

    /// The labels before the suffix, in lower case; `None`: not below the suffix.
    fn labels_before(&self, name: &Name) -> Option<Vec<String>> {
        if !self.0.zone_of(name) {
            return None;
        }
        let count = usize::from(name.num_labels().saturating_sub(self.0.num_labels()));
        let labels = name.iter().take(count);
        Some(
            labels
                .map(|label| String::from_utf8_lossy(label).to_ascii_lowercase())
                .collect(),
        )
    }
}

fn absolute(mut name: Name) -> Name {
    name.set_fqdn(true);
    name
}

/// What to do with a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A service of the mesh: answer with its virtual IP in the families asked for, and open the link.
    Remote {
        /// Which one.
        id: ServiceId,
        /// An A record is wanted and can be given.
        ipv4: bool,
        /// An AAAA record is wanted and can be given.
        ipv6: bool,
    },
    /// SRV: where the service can be reached over one transport
    /// ([RFC 2782](https://www.rfc-editor.org/rfc/rfc2782)).
    Ports {
        /// Which one.
        id: ServiceId,
        /// At least one.
        ports: Vec<u16>,
    },
    /// TXT: what is known of a service.
    Text {
        /// Which one.
        id: ServiceId,
        /// `key=value` each ([RFC 1464](https://www.rfc-editor.org/rfc/rfc1464)).
        texts: Vec<String>,
    },
    /// The reverse of a virtual IP: the name is to be looked up among those assigned.
    Pointer {
        /// The virtual IP.
        address: IpAddr,
        /// Whose SOA goes with NXDOMAIN.
        zone: Name,
    },
    /// The SOA of our own zone was asked for.
    Authority,
    /// The name exists, but not with this type: NOERROR with SOA
    /// ([RFC 2308 section 2.2](https://www.rfc-editor.org/rfc/rfc2308#section-2.2)).
    NoData {
        /// Whose SOA.
        zone: Name,
    },
    /// NXDOMAIN with SOA ([RFC 2308 section 2.1](https://www.rfc-editor.org/rfc/rfc2308#section-2.1)).
    NoSuchName {
        /// Whose SOA.
        zone: Name,
    },
    /// Ours, but the directory has not been seen yet, so that nothing can be said: SERVFAIL.
    Unknown,
    /// Somebody else's: to the upstream resolvers, unchanged.
    Forward,
    /// A class other than IN, or a transfer of our zone: REFUSED.
    Refuse,
}

/// Decides about one question. `services` is `None` until the directory was seen for the first time.
pub fn decide(
    name: &Name,
    record_type: RecordType,
    class: DNSClass,
    services: Option<&Services>,
    suffix: &Suffix,
    pools: &Pools,
) -> Decision {
    if class != DNSClass::IN {
        return Decision::Refuse;
    }
    if let Some(labels) = suffix.labels_before(name) {
        return decide_ours(&labels, record_type, services, suffix);
    }
    match reverse(name, pools) {
        Some((Reverse::Address(address), zone)) if record_type == RecordType::PTR => {
            Decision::Pointer { address, zone }
        }
        Some((Reverse::Nothing, zone)) => Decision::NoSuchName { zone },
        Some((_, zone)) => Decision::NoData { zone },
        None => Decision::Forward,
    }
}

fn decide_ours(
    labels: &[String],
    record_type: RecordType,
    services: Option<&Services>,
    suffix: &Suffix,
) -> Decision {
    if matches!(record_type, RecordType::AXFR | RecordType::IXFR) {
        return Decision::Refuse;
    }
    let zone = suffix.name().clone();
    if labels.is_empty() {
        return match record_type {
            RecordType::SOA => Decision::Authority,
            _ => Decision::NoData { zone },
        };
    }
    let Some(services) = services else {
        return Decision::Unknown;
    };
    let Some((network, labels)) = labels.split_last() else {
        return Decision::NoData { zone };
    };
    match labels {
        // An empty non-terminal exists (RFC 8020 section 2).
        [] => match network.parse::<NetworkName>() {
            Ok(network) if services.has_network(&network) => Decision::NoData { zone },
            _ => Decision::NoSuchName { zone },
        },
        [port, transport, service @ ..] if transport.starts_with('_') && !service.is_empty() => {
            let port = (Some(port.as_str()), transport.as_str());
            decide_ports(port, (service, network), record_type, services, zone)
        }
        [transport, service @ ..] if transport.starts_with('_') && !service.is_empty() => {
            let port = (None, transport.as_str());
            decide_ports(port, (service, network), record_type, services, zone)
        }
        service => decide_service(service, network, record_type, services, zone),
    }
}

fn decide_service(
    service: &[String],
    network: &str,
    record_type: RecordType,
    services: &Services,
    zone: Name,
) -> Decision {
    let (Ok(service), Ok(network)) = (ServiceName::from_labels(service), network.parse()) else {
        return Decision::NoSuchName { zone };
    };
    let id = ServiceId { service, network };
    let exported = match services.find(&id) {
        Match::Service(exported) | Match::Wildcard(_, exported) => exported,
        Match::Beginning => return Decision::NoData { zone },
        Match::Nothing => return Decision::NoSuchName { zone },
    };
    if record_type == RecordType::TXT {
        let texts = texts(&id, exported);
        return Decision::Text { id, texts };
    }
    let families = exported.families;
    let any = record_type == RecordType::ANY;
    let ipv4 = families.ipv4 && (any || record_type == RecordType::A);
    let ipv6 = families.ipv6 && (any || record_type == RecordType::AAAA);
    if ipv4 || ipv6 {
        Decision::Remote { id, ipv4, ipv6 }
    } else {
        Decision::NoData { zone }
    }
}

/// `_tcp.<service>.<network>` and `_<port>._tcp.<service>.<network>`. The directory knows ports by number: a port's name is
/// understood where the service has only one of that transport.
fn decide_ports(
    (port, transport): (Option<&str>, &str),
    (service, network): (&[String], &str),
    record_type: RecordType,
    services: &Services,
    zone: Name,
) -> Decision {
    let id = match (ServiceName::from_labels(service), network.parse()) {
        (Ok(service), Ok(network)) => ServiceId { service, network },
        _ => return Decision::NoSuchName { zone },
    };
    let known = services.find(&id).value();
    let known = known.and_then(|exported| match transport {
        "_tcp" => Some(&exported.tcp),
        "_udp" => Some(&exported.udp),
        _ => None,
    });
    let Some(known) = known.filter(|known| !known.is_empty()) else {
        return Decision::NoSuchName { zone };
    };
    let Some(port) = port else {
        return Decision::NoData { zone };
    };
    let Some(name) = port.strip_prefix('_').filter(|name| !name.is_empty()) else {
        return Decision::NoSuchName { zone };
    };
    let ports: Vec<u16> = match name.parse() {
        Ok(number) => known.get(&number).copied().into_iter().collect(),
        Err(_) if known.len() == 1 => known.iter().copied().collect(),
        Err(_) => Vec::new(),
    };
    if ports.is_empty() {
        return Decision::NoSuchName { zone };
    }
    if !matches!(record_type, RecordType::SRV | RecordType::ANY) {
        return Decision::NoData { zone };
    }
    Decision::Ports { id, ports }
}

fn texts(id: &ServiceId, exported: &Exported) -> Vec<String> {
    let mut texts = vec![
        format!("service={}", id.service),
        format!("network={}", id.network),
    ];
    for (transport, ports) in [("tcp", &exported.tcp), ("udp", &exported.udp)] {
        let mut list = String::new();
        for port in ports {
            let comma = if list.is_empty() { "" } else { "," };
            let next = format!("{comma}{port}");
            // A character-string has at most 255 bytes (RFC 1035 section 3.3.14).
            if list.len() + next.len() + "tcp=".len() > 255 {
                break;
            }
            list += &next;
        }
        if !list.is_empty() {
            texts.push(format!("{transport}={list}"));
        }
    }
    texts
}

/// What a name among the reverse names of a pool is.
enum Reverse {
    /// An address's.
    Address(IpAddr),
    /// The beginning of several: it exists ([RFC 8020 section 2](https://www.rfc-editor.org/rfc/rfc8020#section-2)).
    Beginning,
    /// Neither.
    Nothing,
}

/// What a name at or below the reverse zones of the pools is, and its zone: the smallest that ends at a label (an octet, a
/// nibble) and lies within the pool.
fn reverse(name: &Name, pools: &Pools) -> Option<(Reverse, Name)> {
    if !name.iter().next_back()?.eq_ignore_ascii_case(b"arpa") {
        return None;
    }
    // An IPv6 address's, a nibble to a label.
    const LONGEST: usize = 34;
    let count = usize::from(name.num_labels());
    let longest = (1..=count.min(LONGEST)).rev().find_map(|labels| {
        let net = name.trim_to(labels).parse_arpa_name().ok()?;
        Some((net, labels))
    });
    let (net, labels) = longest?;
    let address = net.addr();
    let prefix = pools.prefix_len_around(address)?;
    if net.prefix_len() < prefix {
        return None;
    }
    let what = match net.prefix_len() == net.max_prefix_len() {
        _ if labels < count => Reverse::Nothing,
        true => Reverse::Address(address),
        false => Reverse::Beginning,
    };
    let bits_per_label = if address.is_ipv4() { 8 } else { 4 };
    // Below the two labels `in-addr.arpa`.
    let labels = usize::from(prefix.div_ceil(bits_per_label)) + 2;
    Some((what, absolute(name.to_lowercase().trim_to(labels))))
}
