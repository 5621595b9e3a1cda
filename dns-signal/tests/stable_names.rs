//! Ten thousand names on three sidecars that learn and ask in orders of their own, and start anew.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::Path;

use dns_signal::dns_state;
use dns_signal_proto::services::{Families, Services};
use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use support::{Dns, PATIENCE, any_port, dead_address, eventually, pools, query};
use tokio::net::UdpSocket;
use tokio::time::timeout;

const NAMES: usize = 10_000;

fn name(n: usize) -> String {
    format!("s{n}.{}", ["east", "north", "south"][n % 3])
}

fn view(revision: u64, names: impl Iterator<Item = usize>) -> Services {
    let mut services = Services::new(revision);
    let families = Families {
        ipv4: true,
        ipv6: true,
    };
    for n in names {
        services.insert(name(n).parse().unwrap(), families);
    }
    services
}

/// Every name once, in an order that depends on `step`, which has no divisor in common with [`NAMES`].
fn in_order(step: usize) -> impl Iterator<Item = usize> {
    (0..NAMES).map(move |n| n * step % NAMES)
}

async fn start(state: &Path) -> Dns {
    let assigned = dns_state::load(state, pools());
    Dns::start_with(&[dead_address().await], assigned, any_port())
}

/// Both addresses of every name.
async fn addresses(dns: &Dns, step: usize) -> HashMap<usize, Vec<IpAddr>> {
    let socket = UdpSocket::bind(any_port()).await.unwrap();
    socket.connect(dns.address).await.unwrap();
    let mut found = HashMap::new();
    let mut buffer = [0; 1_232];
    let order: Vec<usize> = in_order(step).collect();
    for asked in order.chunks(50) {
        for n in asked {
            let mut query = query(&format!("{}.mesh.internal.", name(*n)), RecordType::ANY);
            query[..2].copy_from_slice(&u16::try_from(*n).unwrap().to_be_bytes());
            socket.send(&query).await.unwrap();
        }
        for _ in asked {
            let received = timeout(PATIENCE, socket.recv(&mut buffer)).await;
            let length = received.expect("an answer").unwrap();
            let answer = Message::from_vec(&buffer[..length]).unwrap();
            let data = answer.answers.iter().map(|record| &record.data);
            let both = data.map(|data| data.ip_addr().unwrap()).collect();
            found.insert(usize::from(answer.metadata.id), both);
        }
    }
    found
}

#[tokio::test]
async fn ten_thousand_names_keep_their_addresses_on_three_sidecars_and_over_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    for (sidecar, step) in [1_usize, 7, 9_999].into_iter().enumerate() {
        let state = directory.path().join(sidecar.to_string());
        let dns = start(&state).await;
        let keeper = tokio::spawn(dns_state::keep(dns.resolver.clone(), state.clone()));
        // Learned in parts.
        for part in 1..=3 {
            dns.resolver
                .publish(view(part as u64, in_order(step).take(NAMES * part / 3)));
        }
        let before = addresses(&dns, step).await;
        let file = state.join("virtual-ips");
        eventually("all names in the file", || {
            std::fs::read_to_string(&file).is_ok_and(|text| text.lines().count() == NAMES + 1)
        })
        .await;
        keeper.abort();
        drop(dns);

        let again = start(&state).await;
        again.resolver.publish(view(4, in_order(3)));
        assert_eq!(addresses(&again, 11).await, before);
        seen.push(before);
    }
    let distinct: HashSet<IpAddr> = seen[0].values().flatten().copied().collect();
    assert_eq!(
        distinct.len(),
        2 * NAMES,
        "an IPv4 and an IPv6 address each"
    );
    assert!(seen.iter().all(|sidecar| *sidecar == seen[0]));

    // A fourth that lost what it had still knows what workloads remember.
    let fourth = start(&directory.path().join("fourth")).await;
    fourth.resolver.publish(view(5, in_order(17)));
    for n in in_order(101) {
        let destination = fourth
            .resolver
            .destination_of(seen[0][&n][n % 2])
            .expect("a service");
        let id = format!("{}.{}", destination.service, destination.network);
        assert_eq!(id, name(n));
    }
}
