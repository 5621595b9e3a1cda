//! Ten thousand names on three sidecars that learn and ask in orders of their own, and start anew: each name keeps its
//! addresses, and they are the same everywhere.
use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use discovery_client::{Directory, IdentityHandle, Settings};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use identity::{Authority, document};
use lab::plan::DISCOVERY;
use lab::{Lab, LabOptions, Network, ScopedLab};
use model::{NodeId, Role};
use net::Clock;
use nix::sched::{CloneFlags, setns};
use protocol::document::document::Body;
use protocol::document::{Registration, Service};
use scenarios::options;
use tokio::sync::mpsc;

const NAMES: usize = 10_000;
/// Services of one activator.
const EACH: usize = 125;
const ACTIVATORS: usize = NAMES / EACH;
/// Where they are: none of the lab's.
const NETWORKS: [&str; 2] = ["far", "further"];
/// Activators that open their sessions at once.
const TOGETHER: usize = 8;
const DAY: Duration = Duration::from_secs(86_400);
const PATIENCE: Duration = Duration::from_secs(60);

type Addresses = HashMap<usize, Vec<IpAddr>>;

fn name(n: usize) -> String {
    let network = NETWORKS[n / EACH % NETWORKS.len()];
    format!("s{n}.{network}.mesh.internal.")
}

/// Every name once, in an order that depends on `step`, which has no divisor in common with [`NAMES`].
fn in_order(step: usize) -> impl Iterator<Item = usize> {
    (0..NAMES).map(move |n| n * step % NAMES)
}

/// In a host's network namespace, on a thread of its own.
fn inside<T: Send + 'static>(
    lab: &Lab,
    host: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let namespace = fs::File::open(format!("/run/netns/{}", lab.namespace(host))).expect("there");
    std::thread::spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
        run()
    })
}

/// Activators that export [`EACH`] services each, as far as discovery must know of them.
struct Exporters {
    /// How many there should be.
    wanted: mpsc::UnboundedSender<usize>,
    /// How many discovery has.
    there: Receiver<usize>,
}

impl Exporters {
    fn start(lab: &Lab) -> Self {
        let mesh = lab.files().mesh();
        let (wanted, all_wanted) = mpsc::unbounded_channel();
        let (say, there) = sync_channel(1);
        // Ends when this is dropped.
        let _ = inside(lab, "west/app", move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime
                .expect("a runtime")
                .block_on(export(&mesh, all_wanted, &say));
        });
        Self { wanted, there }
    }

    fn up_to(&self, number: usize) {
        self.wanted.send(number).expect("the exporters live");
        let there = self.there.recv_timeout(PATIENCE).expect("they are there");
        assert_eq!(there, number);
    }
}

async fn export(
    mesh: &Path,
    mut all_wanted: mpsc::UnboundedReceiver<usize>,
    say: &SyncSender<usize>,
) {
    let read = |file: &str| fs::read_to_string(mesh.join(file)).expect("the CA");
    let authority = Authority::load(&read("ca-certificate.pem"), &read("ca-key.pem"));
    let authority = authority.expect("a CA");
    let mut nodes = Vec::new();
    while let Some(wanted) = all_wanted.recv().await {
        while nodes.len() < wanted {
            nodes.push(enter(&authority, mesh, nodes.len()));
            // All at once would have each wait for all others, and give up.
            if nodes.len() % TOGETHER == 0 || nodes.len() == wanted {
                while known(&nodes[0]) < nodes.len() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        let _ = say.send(known(&nodes[0]));
    }
}

/// How many of them are registered, as one of them sees it.
fn known(node: &Directory) -> usize {
    let view = node.view();
    let networks = view.registrations.values();
    let networks = networks.map(|registered| registered.node.network.as_str());
    networks
        .filter(|network| NETWORKS.contains(network))
        .count()
}

fn enter(authority: &Authority, mesh: &Path, number: usize) -> Directory {
    let network = NETWORKS[number % NETWORKS.len()];
    let node: NodeId = format!("{network}/activator/n{number}")
        .parse()
        .expect("an id");
    let identity = authority.new_node(node.clone(), DAY, Clock.unix_time());
    let identity = identity.expect("a node");
    let service = |n: usize| Service {
        name: format!("s{n}"),
        ipv4: true,
        ipv6: true,
        tcp_ports: vec![80],
        ..Service::default()
    };
    let registration = Registration {
        network: network.to_owned(),
        node: node.name.to_string(),
        services: (number * EACH..(number + 1) * EACH).map(service).collect(),
        ..Registration::default()
    };
    let body = Body::Registration(registration);
    let said = document(body, None, DAY, Clock.unix_time());
    let signed = identity.sign(&said).expect("signed");
    let settings = Settings {
        discovery: format!("https://{DISCOVERY}"),
        // Only a renewed certificate would be written there.
        state_directory: mesh.to_owned(),
        join_token: None,
        node_name: None,
        network: node.network,
        role: Role::Activator,
    };
    let handle = Arc::new(IdentityHandle::new(identity, mesh));
    let (directory, mut events) = discovery_client::start(settings, handle, std::future::pending());
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    directory.publish(Some(signed));
    directory
}

/// Both addresses of these names, from a network's sidecar; those that it does not know yet are asked for again.
fn ask(lab: &Lab, network: Network, names: impl Iterator<Item = usize>) -> Addresses {
    let names: Vec<usize> = names.collect();
    let host = format!("{network}/app");
    let asked = inside(lab, &host, move || {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.connect("127.0.0.1:53").expect("connected");
        let pause = Some(Duration::from_millis(500));
        socket.set_read_timeout(pause).expect("set");
        let mut found = Addresses::new();
        let mut left = names;
        let deadline = Instant::now() + PATIENCE;
        while !left.is_empty() {
            assert!(Instant::now() < deadline, "{} names unknown", left.len());
            for some in left.chunks(50) {
                ask_some(&socket, some, &mut found);
            }
            left.retain(|n| !found.contains_key(n));
        }
        found
    });
    asked.join().expect("the names are known")
}

fn ask_some(socket: &UdpSocket, names: &[usize], found: &mut Addresses) {
    for n in names {
        let id = u16::try_from(*n).expect("fits an id");
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        let asked = Name::from_ascii(name(*n)).expect("a name");
        message.add_query(Query::query(asked, RecordType::ANY));
        let bytes = message.to_vec().expect("encoded");
        socket.send(&bytes).expect("sent");
    }
    let mut buffer = [0; 1_232];
    for _ in names {
        // Lost, or the sidecar just starts: asked again.
        let Ok(length) = socket.recv(&mut buffer) else {
            return;
        };
        let answer = Message::from_vec(&buffer[..length]).expect("an answer");
        let data = answer.answers.iter().map(|record| &record.data);
        let addresses: Vec<IpAddr> = data.filter_map(|data| data.ip_addr()).collect();
        if addresses.len() == 2 {
            found.insert(usize::from(answer.metadata.id), addresses);
        }
    }
}

/// Says which differ, if any.
fn same(network: Network, found: &Addresses, expected: &Addresses) {
    assert_eq!(found.len(), NAMES, "{network}");
    let differ = |n: &usize| found[n] != expected[n];
    let differ: Vec<usize> = (0..NAMES).filter(differ).collect();
    let some = differ.iter().take(5);
    let some: Vec<_> = some.map(|n| (name(*n), &found[n], &expected[n])).collect();
    assert!(
        differ.is_empty(),
        "{network}: {} differ: {some:?}",
        differ.len()
    );
}

#[test]
fn ten_thousand_names_have_the_same_addresses_on_three_sidecars_and_after_restarts() {
    let lab = ScopedLab::up(&LabOptions {
        networks: 3,
        ..options("names10k")
    });
    let lab = lab.expect("the lab comes up");
    let exporters = Exporters::start(&lab);
    let [west, east, isle] = [Network::West, Network::East, Network::Isle];

    // West and east learn them one activator after the other, isle learns all at once. What is asked for while it is the
    // only one of two names that collide stays where it is: so they are asked for when all are there.
    lab.stop("isle/dns-signal").expect("it stops");
    exporters.up_to(ACTIVATORS / 2);
    lab.kill9("east/dns-signal").expect("it runs");
    lab.start("east/dns-signal").expect("it starts");
    exporters.up_to(ACTIVATORS);
    lab.start("isle/dns-signal").expect("it starts");
    for network in [west, east, isle] {
        // The last that were registered, in whatever order.
        for number in ACTIVATORS - TOGETHER..ACTIVATORS {
            let one = name(number * EACH);
            let known = lab.wait_for_name(network, one.trim_end_matches('.'), PATIENCE);
            known.expect("it knows the name");
        }
    }
    let first = ask(&lab, west, in_order(7));
    for (network, step) in [(east, 9_999), (isle, 3)] {
        same(network, &ask(&lab, network, in_order(step)), &first);
    }
    let distinct: HashSet<&IpAddr> = first.values().flatten().collect();
    assert_eq!(distinct.len(), 2 * NAMES, "two for each name");

    lab.stop("west/dns-signal").expect("it stops");
    lab.kill9("east/dns-signal").expect("it runs");
    for (network, step) in [(west, 11), (east, 13), (isle, 17)] {
        let process = format!("{network}/dns-signal");
        if network != isle {
            lab.start(&process).expect("it starts");
        }
        let again = ask(&lab, network, in_order(step));
        same(network, &again, &first);
    }
}
