//! Whom an activator believes. A stranger in west, enrolled but lying, tries each lie; the refusal can be read at both
//! ends, and no link comes up.
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use discovery_client::{Directory, Event, IdentityHandle, Settings};
use identity::{Authority, NodeIdentity, document};
use lab::{Lab, process::FileKind, wait};
use link::{CandidateKind, DtlsCertificate, Link, LinkConfig, LinkRole, LocalCandidate};
use model::{NodeId, Role};
use net::Clock;
use nix::sched::{CloneFlags, setns};
use protocol::document::document::Body;
use protocol::document::{Binding, Offer, SignedDocument};
use scenarios::{ORDERS, RECOVERY, lab, page};
use tokio::sync::mpsc;

const DAY: Duration = Duration::from_secs(86_400);
const VALIDITY: Duration = Duration::from_secs(30);

/// A node of west whose certificate is good, and who may say what it likes.
struct Stranger {
    identity: NodeIdentity,
    directory: Directory,
    events: mpsc::Receiver<Event>,
    target: NodeId,
    instance: u64,
}

/// Runs `run` in a host's network namespace, on a thread of its own.
fn inside<T: Send>(lab: &Lab, host: &str, run: impl AsyncFnOnce() -> T + Send) -> T {
    let namespace = fs::File::open(format!("/run/netns/{}", lab.namespace(host))).expect("there");
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
                .block_on(run())
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn authority(lab: &Lab) -> Authority {
    let read = |file: &str| fs::read_to_string(lab.files().mesh().join(file)).expect("the CA");
    Authority::load(&read("ca-certificate.pem"), &read("ca-key.pem")).expect("a CA")
}

impl Stranger {
    async fn enter(lab: &Lab) -> Self {
        let node: NodeId = "west/workload/stranger".parse().expect("an id");
        let identity = authority(lab)
            .new_node(node, DAY, Clock.unix_time())
            .expect("a node");
        let state: PathBuf = lab.files().of_process("stranger", FileKind::State);
        fs::create_dir_all(&state).expect("a directory");
        identity.save(&state).expect("saved");
        let kept = NodeIdentity::load(&state)
            .expect("readable")
            .expect("there");
        let settings = Settings {
            discovery: "https://203.0.113.10:7400".to_owned(),
            state_directory: state.clone(),
            join_token: None,
            node_name: None,
            network: "west".parse().expect("a name"),
            role: Role::Workload,
        };
        let handle = Arc::new(IdentityHandle::new(identity, &state));
        let (directory, mut events) =
            discovery_client::start(settings, handle, std::future::pending());
        loop {
            let event = tokio::time::timeout(RECOVERY, events.recv())
                .await
                .expect("in time");
            let Event::ViewChanged(view) = event.expect("the task lives") else {
                continue;
            };
            let east = view
                .registrations
                .values()
                .find(|r| r.node.network.as_str() == "east");
            if let Some(registered) = east {
                let target = registered.node.clone();
                let instance = registered.registration.instance;
                return Self {
                    identity: kept,
                    directory,
                    events,
                    target,
                    instance,
                };
            }
        }
    }

    fn link(&self, host: SocketAddr) -> Link {
        let certificate = DtlsCertificate::generate().expect("a certificate");
        let now = Clock.now();
        let mut link =
            Link::new(LinkRole::Offerer, certificate, &LinkConfig::default(), now).expect("a link");
        let candidate = LocalCandidate {
            kind: CandidateKind::Host,
            address: host,
            base: host,
        };
        link.add_local_candidate(candidate, now)
            .expect("a candidate");
        link
    }

    fn offer(&self, link: &Link) -> Offer {
        let binding = Binding {
            service: "orders".to_owned(),
            virtual_ipv4: vec![198, 18, 1, 1],
            virtual_ipv6: Vec::new(),
        };
        Offer {
            link: 4_711,
            instance: self.instance,
            description: Some(link.local_description()),
            bindings: vec![binding],
            traceparent: String::new(),
        }
    }

    fn sign(&self, identity: &NodeIdentity, offer: Offer) -> SignedDocument {
        let said = document(
            Body::Offer(offer),
            Some(&self.target),
            VALIDITY,
            Clock.unix_time(),
        );
        identity.sign(&said).expect("signed")
    }

    async fn post(&self, signed: SignedDocument) {
        self.directory
            .post(&self.target, signed)
            .await
            .expect("posted");
    }

    /// The reason the activator gives for ending or refusing it.
    async fn told(&mut self) -> String {
        loop {
            let event = tokio::time::timeout(RECOVERY, self.events.recv()).await;
            let Event::Message { document, .. } =
                event.expect("a word in time").expect("the task lives")
            else {
                continue;
            };
            match document.body {
                Some(Body::Refusal(refusal)) => return refusal.reason,
                Some(Body::Bye(bye)) => return bye.reason,
                Some(Body::Answer(_)) => panic!("the activator believed it"),
                _ => {}
            }
        }
    }
}

fn log_says(lab: &Lab, process: &str, words: &str) {
    let log = lab.files().of_process(process, FileKind::Log);
    wait::until_true(&format!("{process} to log `{words}`"), RECOVERY, || {
        Ok(fs::read_to_string(&log)?
            .lines()
            .any(|line| line.contains(words)))
    })
    .expect("a log line");
}

fn somewhere() -> SocketAddr {
    "10.0.0.10:40000".parse().expect("an address")
}

#[test]
fn an_altered_document_a_strange_authority_and_an_expired_certificate_are_refused_aloud() {
    let lab = lab("trust1");
    let told = inside(&lab, "west/app", async || {
        let mut stranger = Stranger::enter(&lab).await;
        let offer = stranger.offer(&stranger.link(somewhere()));
        let mut told = Vec::new();

        // What a discovery or a relay that alters a document would make of it.
        let mut altered = stranger.sign(&stranger.identity, offer.clone());
        let last = altered.payload.len() - 1;
        altered.payload[last] ^= 1;
        stranger.post(altered).await;
        told.push(stranger.told().await);

        let other =
            Authority::new("lab".parse().expect("a name"), Clock.unix_time()).expect("a CA");
        let node = stranger.identity.node_id().clone();
        let foreign = other
            .new_node(node.clone(), DAY, Clock.unix_time())
            .expect("a node");
        stranger.post(stranger.sign(&foreign, offer.clone())).await;
        told.push(stranger.told().await);

        let yesterday = Clock.unix_time().saturating_sub(2 * DAY);
        let expired = authority(&lab)
            .new_node(node, DAY, yesterday)
            .expect("a node");
        stranger.post(stranger.sign(&expired, offer)).await;
        told.push(stranger.told().await);
        told
    });
    for (words, told) in ["signature", "not issued by the CA", "expired"]
        .into_iter()
        .zip(told)
    {
        assert!(told.contains(words), "told `{told}`, not of the {words}");
        log_says(&lab, "east/activator", words);
    }
    page(&lab, "west/app", ORDERS, &[]).expect("honest workloads are served");
}

#[test]
fn a_dtls_certificate_that_was_not_signed_ends_the_link_aloud() {
    let lab = lab("trust2");
    let told = inside(&lab, "west/app", async || {
        let mut stranger = Stranger::enter(&lab).await;
        let socket = tokio::net::UdpSocket::bind("10.0.0.10:0")
            .await
            .expect("a socket");
        let host = socket.local_addr().expect("an address");
        let mut link = stranger.link(host);
        let mut offer = stranger.offer(&link);
        // The signed fingerprint is not that of the certificate that DTLS will show.
        if let Some(description) = &mut offer.description {
            description.dtls_fingerprint[0] ^= 1;
        }
        stranger
            .post(stranger.sign(&stranger.identity, offer))
            .await;
        let deadline = Instant::now() + RECOVERY;
        let mut buffer = vec![0; 65_536];
        loop {
            while let Some(sent) = link.poll_transmit() {
                for payload in sent.datagrams() {
                    let _ = socket.send_to(payload, sent.remote).await;
                }
            }
            while link.poll_event().is_some() {}
            assert!(
                !link.is_open(),
                "the activator took another certificate than the signed one"
            );
            assert!(Instant::now() < deadline, "the activator said nothing");
            let due = link
                .poll_timeout()
                .map_or(Duration::from_millis(50), |due| {
                    due.saturating_duration_since(Instant::now())
                        .min(Duration::from_millis(50))
                });
            tokio::select! {
                event = stranger.events.recv() => {
                    let event = event.expect("the task lives");
                    let Event::Message { document, .. } = event else { continue };
                    match document.body {
                        Some(Body::Answer(answer)) => {
                            let description = answer.description.expect("a description");
                            link.set_remote_description(&description, Instant::now()).expect("usable");
                        }
                        Some(Body::Bye(bye)) => return bye.reason,
                        Some(Body::Refusal(refusal)) => panic!("refused: {}", refusal.reason),
                        _ => {}
                    }
                }
                received = socket.recv_from(&mut buffer) => {
                    if let Ok((length, from)) = received {
                        let payload = BytesMut::from(&buffer[..length]);
                        link.handle_datagram(host, from, payload, Instant::now());
                    }
                }
                () = tokio::time::sleep(due) => link.handle_timeout(Instant::now()),
            }
        }
    });
    assert!(told.contains("fingerprint"), "told `{told}`");
    log_says(&lab, "east/activator", "fingerprint");
}
