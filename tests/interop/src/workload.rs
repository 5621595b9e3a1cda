//! A workload of west that is not a dns-signal: it enrolls, and offers an activator links of its own making.

use crate::binaries;
use crate::echo::{DATAGRAMS, LENGTH};
use anyhow::{Context as _, Result, bail, ensure};
use discovery_client::{Directory, Event, Settings};
use identity::document;
use lab::process::FileKind;
use lab::{Lab, LabOptions, Network, ScopedLab, mesh, netns, wait};
use model::{NodeId, Role};
use net::Clock;
use protocol::document::{Answer, Binding, Offer, SessionDescription, document::Body};
use std::time::Duration;
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(10);
const VALIDITY: Duration = Duration::from_secs(30);

/// Where the tests' peers stand.
pub const HOST: &str = "west/app";
/// The address of that host, and of the workload inside the tunnel, and what it calls east's service.
pub const HOST_ADDRESS: [u8; 4] = [10, 0, 0, 10];
pub const SOURCE: [u8; 4] = [198, 18, 0, 1];
pub const VIRTUAL_IP: [u8; 4] = [198, 18, 1, 1];
/// Its links' number: it has one.
pub const LINK: u64 = 4_711;

/// Brings a lab up whose west has no dns-signal, and runs `test` in the network namespace of [`HOST`]. Panics, with the
/// last words of the lab's processes, when it fails.
pub fn in_its_place(name: &str, test: impl FnOnce(&Lab) -> Result<()> + Send) {
    let options = LabOptions {
        binaries: binaries(),
        ..LabOptions::new(name)
    };
    let lab = ScopedLab::up(&options).expect("the lab comes up");
    lab.stop("west/dns-signal").expect("it stops");
    let ended = netns::inside(&lab.namespace(HOST), || test(&lab));
    if let Err(error) = ended.and_then(|ended| ended) {
        panic!("{error:#}");
    }
}

/// What was echoed went through the one link there is, over west's relay and the `ip` channel, by everybody's own count.
pub fn check_counts(lab: &Lab) -> Result<()> {
    let moved = u64::from(DATAGRAMS) * LENGTH as u64;
    wait::until("the counts to say so", PATIENCE, || {
        let relayed = lab.relay_bytes(Network::West)?;
        ensure!(relayed > 2 * moved, "the relay carried {relayed} bytes");
        let status = lab.node_status("east/activator")?;
        let links = status["links"].as_array().context("links")?;
        let [link] = &links[..] else {
            bail!("there are {} links", links.len());
        };
        ensure!(link["path"] == "relay/udp", "{link}");
        // No foreign peer speaks of another carrier.
        ensure!(link["carrier"] == "data-channel", "{link}");
        for count in ["bytes_sent", "bytes_received"] {
            ensure!(link[count].as_u64() > Some(moved), "{count} of {link}");
        }
        Ok(Some(()))
    })
}

/// An enrolled workload and the activator of east as its directory shows it.
#[derive(Debug)]
pub struct Workload {
    directory: Directory,
    events: mpsc::Receiver<Event>,
    activator: NodeId,
    instance: u64,
}

impl Workload {
    /// Joins with a token of its own, and waits until east's activator is registered. Call it where discovery can be
    /// reached: on a thread of [`HOST`]'s namespace.
    pub async fn enroll(lab: &Lab) -> Result<Self> {
        let turnpike = lab.binaries().join("turnpike").display().to_string();
        let directory = lab.files().mesh().display().to_string();
        let once = ["--uses", "1"];
        let token = mesh::create_token(&turnpike, &directory, Network::West, "workload", &once)?;
        let settings = Settings {
            discovery: format!("https://{}", lab::plan::DISCOVERY),
            state_directory: lab.files().of_process("foreign-workload", FileKind::State),
            join_token: Some(token),
            node_name: Some("foreign".to_owned()),
            network: Network::West.name().parse()?,
            role: Role::Workload,
        };
        let identity = discovery_client::join(&settings).await?;
        let (directory, mut events) =
            discovery_client::start(settings, identity, std::future::pending());
        loop {
            let Event::ViewChanged(view) = next(&mut events, "east's activator").await? else {
                continue;
            };
            let mut registered = view.registrations.values();
            let Some(east) = registered.find(|it| it.node.network.as_str() == "east") else {
                continue;
            };
            return Ok(Self {
                directory,
                events,
                activator: east.node.clone(),
                instance: east.registration.instance,
            });
        }
    }

    /// Offers a link that is to reach `orders` at [`VIRTUAL_IP`], and gives back the answer.
    pub async fn offer(&mut self, description: SessionDescription) -> Result<Answer> {
        let binding = Binding {
            service: Network::East.service().to_owned(),
            virtual_ipv4: VIRTUAL_IP.to_vec(),
            virtual_ipv6: Vec::new(),
        };
        let offer = Offer {
            link: LINK,
            instance: self.instance,
            description: Some(description),
            bindings: vec![binding],
            traceparent: String::new(),
        };
        let to = Some(&self.activator);
        let document = document(Body::Offer(offer), to, VALIDITY, Clock.unix_time());
        let signed = self.directory.identity().sign(&document)?;
        self.directory.post(&self.activator, signed).await?;
        loop {
            let event = next(&mut self.events, "the answer").await?;
            let Event::Message { document, .. } = event else {
                continue;
            };
            match document.body {
                Some(Body::Answer(answer)) => return Ok(answer),
                Some(Body::Refusal(refusal)) => bail!("refused: {}", refusal.reason),
                Some(Body::Bye(bye)) => bail!("the activator ended it: {}", bye.reason),
                _ => {}
            }
        }
    }
}

async fn next(events: &mut mpsc::Receiver<Event>, what: &str) -> Result<Event> {
    let event = tokio::time::timeout(PATIENCE, events.recv()).await;
    let event = event.with_context(|| format!("waited in vain for {what}"))?;
    event.context("the directory's task ended")
}
