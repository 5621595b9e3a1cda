//! A gateway in virtual time, with everything it wanted done.
#![allow(
    dead_code,
    clippy::unwrap_used,
    missing_debug_implementations,
    unreachable_pub
)]

pub mod packet;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use activator_proto::{
    Forwarder, Gateway, GatewayConfig, Input, LinkLimits, Output,
    forward::{nat::NatTable, pool::ClientPool},
    policy::{Export, ExportTable},
};
use identity::Serial;
use model::{NodeId, RelayAccess, RelayName, RelayTransport, RelayWay, RelayedAddr, ServerAddr};
use protocol::{directory, document};

pub const INSTANCE: u64 = 0x1234;

pub struct World {
    pub gateway: Gateway,
    pub now: Instant,
    pub relays: BTreeMap<RelayName, directory::Relay>,
    pub revoked: BTreeSet<Serial>,
}

impl World {
    pub fn new() -> Self {
        Self::with(exports(), LinkLimits::default(), "100.89.0.0/16")
    }

    pub fn with(exports: Vec<Export>, limits: LinkLimits, ipv4: &str) -> Self {
        let pool = ClientPool::new(
            ipv4.parse().unwrap(),
            "fd89:7475:726e::/64".parse().unwrap(),
        )
        .unwrap();
        let config = GatewayConfig {
            node: node("east/activator/gate-1"),
            instance: INSTANCE,
            seed: 7,
            exports: ExportTable::new(exports).unwrap(),
            limits,
        };
        Self {
            gateway: Gateway::new(config, Forwarder::new(NatTable::new(pool), 1400)),
            now: Instant::now(),
            relays: BTreeMap::new(),
            revoked: BTreeSet::new(),
        }
    }

    /// With allocations on `west-relay` and `east-relay`.
    pub fn with_footholds(mut self) -> Self {
        for network in ["west", "east"] {
            self.add_relay(&format!("{network}-relay"), network);
        }
        self.view();
        for network in ["west", "east"] {
            self.allocate(&format!("{network}-relay"), "10.0.0.2:50000");
        }
        self.outputs();
        self
    }

    pub fn add_relay(&mut self, name: &str, network: &str) {
        let relay = directory::Relay {
            name: name.to_owned(),
            network: network.to_owned(),
            url: "turn:203.0.113.12:3478?transport=udp".to_owned(),
            more_urls: Vec::new(),
        };
        self.relays.insert(name.parse().unwrap(), relay);
    }

    pub fn view(&mut self) -> Vec<Output> {
        let input = Input::View {
            relays: &self.relays,
            revoked: &self.revoked,
        };
        self.gateway.handle_input(input, self.now);
        self.outputs()
    }

    pub fn allocate(&mut self, name: &str, relayed: &str) -> Vec<Output> {
        self.input(Input::Access {
            relay: relay(name),
            access: Ok(access()),
        });
        self.allocated(name, relayed)
    }

    pub fn allocated(&mut self, name: &str, relayed: &str) -> Vec<Output> {
        let relayed = vec![RelayedAddr(relayed.parse().unwrap())];
        self.input(Input::Allocated {
            relay: relay(name),
            relayed,
        })
    }

    pub fn offer(&mut self, from: &str, offer: document::Offer) -> Vec<Output> {
        self.input(Input::Offer {
            from: node(from),
            serial: serial(from),
            offer,
        })
    }

    pub fn input(&mut self, input: Input<'_>) -> Vec<Output> {
        self.gateway.handle_input(input, self.now);
        self.outputs()
    }

    pub fn advance(&mut self, by: Duration) -> Vec<Output> {
        self.now += by;
        self.gateway.handle_timeout(self.now);
        self.outputs()
    }

    pub fn outputs(&mut self) -> Vec<Output> {
        self.gateway.links().check_consistency();
        std::iter::from_fn(|| self.gateway.poll_output()).collect()
    }
}

pub fn node(id: &str) -> NodeId {
    id.parse().unwrap()
}

/// A serial number of this node's own.
pub fn serial(from: &str) -> Serial {
    let hex: String = from
        .bytes()
        .rev()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    hex.parse().unwrap()
}

pub fn relay(name: &str) -> RelayName {
    name.parse().unwrap()
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn access() -> RelayAccess {
    RelayAccess {
        ways: vec![RelayWay {
            transport: RelayTransport::Udp,
            server: ServerAddr("203.0.113.12:3478".parse().unwrap()),
            host: "203.0.113.12".to_owned(),
        }],
        username: "user".to_owned(),
        password: "secret".to_owned(),
        lifetime: Duration::from_secs(600),
    }
}

pub fn export(name: &str, addresses: &[&str], tcp: &[u16], udp: &[u16]) -> Export {
    let mut export = Export {
        name: name.parse().unwrap(),
        ipv4: Vec::new(),
        ipv6: Vec::new(),
        tcp: tcp.iter().copied().collect(),
        udp: udp.iter().copied().collect(),
        allow: None,
    };
    for address in addresses {
        match ip(address) {
            IpAddr::V4(ipv4) => export.ipv4.push(ipv4),
            IpAddr::V6(ipv6) => export.ipv6.push(ipv6),
        }
    }
    export
}

/// `orders` on both families, `stock` on the same IPv4 address with another port, `north-only` for one network.
pub fn exports() -> Vec<Export> {
    let mut north_only = export("north-only", &["10.0.0.21"], &[80], &[]);
    north_only.allow = Some(vec!["north".parse().unwrap()]);
    vec![
        export("orders", &["10.0.0.20", "fd00:10::20"], &[8080], &[9000]),
        export("stock", &["10.0.0.20"], &[8081], &[]),
        north_only,
    ]
}

pub fn binding(service: &str, ipv4: &str, ipv6: &str) -> document::Binding {
    let octets = |text: &str| match text.parse() {
        Ok(IpAddr::V4(ipv4)) => ipv4.octets().to_vec(),
        Ok(IpAddr::V6(ipv6)) => ipv6.octets().to_vec(),
        Err(_) => Vec::new(),
    };
    document::Binding {
        service: service.to_owned(),
        virtual_ipv4: octets(ipv4),
        virtual_ipv6: octets(ipv6),
    }
}

pub fn offer(link: u64, bindings: Vec<document::Binding>) -> document::Offer {
    let candidate = document::Candidate {
        kind: document::candidate::Kind::Host.into(),
        address: "10.0.0.10:4000".to_owned(),
        ..document::Candidate::default()
    };
    document::Offer {
        link,
        instance: INSTANCE,
        description: Some(document::SessionDescription {
            ice_ufrag: "ufrag".to_owned(),
            ice_pwd: "a password of more than 22".to_owned(),
            dtls_fingerprint: vec![7; 32],
            candidates: vec![candidate],
            link_version: 1,
            lane: None,
        }),
        bindings,
        traceparent: String::new(),
    }
}

pub fn orders(link: u64) -> document::Offer {
    offer(
        link,
        vec![binding("orders", "198.18.0.5", "fd74:7572:6e70::5")],
    )
}

/// The reason of the only output, which must be a refusal.
pub fn refusal(outputs: &[Output]) -> String {
    match outputs {
        [Output::Refuse { reason, .. }] => reason.to_string(),
        other => panic!("expected a refusal, got {other:?}"),
    }
}
