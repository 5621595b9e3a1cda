//! One node: what dns-signal does for one link, without a DNS server and without a TUN device.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::BytesMut;
use discovery_client::{Directory, Event, Mailer};
use link::{
    CandidateKind, DtlsCertificate, Link, LinkConfig, LinkEvent, LinkRole, LocalCandidate, Step,
};
use model::{NetworkName, NodeId, ServiceName};
use net::Clock;
use protocol::document::document::Body;
use protocol::document::{Binding, Offer};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::echo;
use crate::report::Board;
use crate::stage::Stage;

/// As dns-signal: an answer is waited for so long, and after a failure so long until the next try, doubling.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
const TRY_AGAIN: Duration = Duration::from_millis(250);
const TRY_AGAIN_AT_LAST: Duration = Duration::from_secs(2);
/// A packet without an answer is sent again.
const ECHO_WITHIN: Duration = Duration::from_secs(1);
/// Longer datagrams than an Ethernet carries do not come.
const MAX_DATAGRAM: usize = 2048;

/// What the link is for.
pub(crate) struct Target {
    pub(crate) network: NetworkName,
    pub(crate) service: ServiceName,
    pub(crate) port: u16,
}

/// A node, its link, and how far it got.
pub(crate) struct Node {
    target: Target,
    mailer: Mailer,
    lost_mail: mpsc::Receiver<String>,
    losses: mpsc::Sender<String>,
    socket: UdpSocket,
    host: SocketAddr,
    certificate: Arc<DtlsCertificate>,
    board: Arc<Board>,
    stage: Stage,
    activator: Option<(NodeId, u64)>,
    /// The offer that counts: an answer to an earlier one comes too late.
    offered: u64,
    link: Option<Link>,
    opened: bool,
    /// When links were called for.
    called: Instant,
    /// There until the answer to the offer is.
    answer_by: Option<Instant>,
    try_at: Option<Instant>,
    failures: u32,
    /// The packet that is waited for: which, and when it was first and last sent.
    echo: Option<(usize, Instant, Instant)>,
}

impl Node {
    /// A node that knows nobody yet.
    pub(crate) async fn new(
        bind: SocketAddr,
        target: Target,
        directory: Directory,
        board: Arc<Board>,
    ) -> Result<Self> {
        let socket = UdpSocket::bind(bind).await?;
        let (losses, lost_mail) = mpsc::channel(4);
        Ok(Self {
            target,
            mailer: Mailer::new(directory),
            lost_mail,
            losses,
            host: socket.local_addr()?,
            socket,
            certificate: DtlsCertificate::generate()?,
            board,
            stage: Stage::Join,
            activator: None,
            offered: 0,
            link: None,
            opened: false,
            called: Instant::now(),
            answer_by: None,
            try_at: None,
            failures: 0,
            echo: None,
        })
    }

    /// Goes through the stages as they are called; ends with the last.
    pub(crate) async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut stages: watch::Receiver<Stage>,
    ) {
        let mut buffer = vec![0; MAX_DATAGRAM];
        loop {
            self.drain();
            let due = self.due();
            tokio::select! {
                changed = stages.changed() => {
                    let stage = *stages.borrow_and_update();
                    if changed.is_err() || stage == Stage::End {
                        return self.end();
                    }
                    self.on_stage(stage);
                }
                Some(event) = events.recv() => self.on_event(event),
                Some(reason) = self.lost_mail.recv() => self.on_failed(&reason),
                Ok((length, from)) = self.socket.recv_from(&mut buffer) => {
                    if let Some(link) = &mut self.link {
                        let payload = BytesMut::from(&buffer[..length]);
                        link.handle_datagram(self.host, from, payload, Clock.now());
                    }
                }
                () = sleep_until(due) => self.on_timeout(),
            }
        }
    }

    fn on_stage(&mut self, stage: Stage) {
        self.stage = stage;
        match stage {
            Stage::Open => {
                self.called = Instant::now();
                self.offer();
            }
            Stage::Again => self.send_echo(1),
            Stage::Join | Stage::End => {}
        }
    }

    fn on_event(&mut self, event: Event) {
        let now = Clock.now();
        match event {
            Event::ViewChanged(view) => {
                let mut known = view.registrations.values();
                let found = known.find(|known| known.node.network == self.target.network);
                let known = found.map(|known| (known.node.clone(), known.registration.instance));
                if self.activator.is_none() && known.is_some() {
                    self.board.counts().joined += 1;
                }
                self.activator = known;
            }
            Event::Message { document, .. } => match document.body {
                Some(Body::Answer(answer)) if answer.link == self.offered => {
                    self.answer_by = None;
                    let Some(link) = &mut self.link else { return };
                    let description = answer.description.unwrap_or_default();
                    if let Err(error) = link.set_remote_description(&description, now) {
                        self.on_failed(&error.to_string());
                    }
                }
                Some(Body::Candidates(trickled)) => {
                    for candidate in &trickled.candidates {
                        if let Some(link) = &mut self.link {
                            let _ = link.add_remote_candidate(candidate, now);
                        }
                    }
                }
                Some(Body::Refusal(refusal)) if refusal.link == self.offered => {
                    self.on_failed(&refusal.reason)
                }
                Some(Body::Bye(bye)) if bye.link == self.offered => self.on_failed(&bye.reason),
                _ => {}
            },
            Event::Rejected { reason, .. } => self.on_failed(&reason),
            Event::Connected | Event::Disconnected { .. } => {}
        }
    }

    fn offer(&mut self) {
        let Some((activator, instance)) = self.activator.clone() else {
            return self.on_failed("the activator is gone");
        };
        let config = LinkConfig::default();
        let made = Link::new(
            LinkRole::Offerer,
            self.certificate.clone(),
            &config,
            Clock.now(),
        )
        .and_then(|mut link| {
            let host = LocalCandidate {
                kind: CandidateKind::Host,
                address: self.host,
                base: self.host,
            };
            link.add_local_candidate(host, Clock.now()).map(|_| link)
        });
        let link = match made {
            Ok(link) => link,
            Err(error) => return self.on_failed(&error.to_string()),
        };
        self.offered += 1;
        let offer = Offer {
            link: self.offered,
            instance,
            description: Some(link.local_description()),
            bindings: vec![Binding {
                service: self.target.service.to_string(),
                virtual_ipv4: echo::VIRTUAL.octets().to_vec(),
                virtual_ipv6: Vec::new(),
            }],
            traceparent: String::new(),
        };
        self.link = Some(link);
        self.answer_by = Some(Instant::now() + ANSWER_WITHIN);
        let losses = self.losses.clone();
        self.mailer
            .post(&activator, Body::Offer(offer), None, move |reason| {
                let _ = losses.try_send(reason);
            });
    }

    /// The offer, or the link before it was open, came to nothing.
    fn on_failed(&mut self, reason: &str) {
        if self.opened {
            return;
        }
        self.answer_by = None;
        self.link = None;
        let pause = TRY_AGAIN * (1 << self.failures.min(4));
        self.failures += 1;
        self.try_at = Some(Instant::now() + pause.min(TRY_AGAIN_AT_LAST));
        let mut counts = self.board.counts();
        *counts.failed.entry(reason.to_owned()).or_default() += 1;
    }

    fn on_open(&mut self) {
        self.opened = true;
        {
            let mut counts = self.board.counts();
            counts.open += 1;
            counts.opening.push(self.called.elapsed());
        }
        self.send_echo(0);
    }

    fn on_closed(&mut self, reason: &str) {
        if !self.opened {
            return self.on_failed(reason);
        }
        self.link = None;
        self.echo = None;
        let mut counts = self.board.counts();
        counts.open -= 1;
        *counts.ended.entry(reason.to_owned()).or_default() += 1;
    }

    fn send_echo(&mut self, round: usize) {
        let now = Instant::now();
        let first = match self.echo {
            Some((same, first, _)) if same == round => first,
            _ => now,
        };
        let said = (round as u64).to_be_bytes();
        if let Some(link) = self.link.as_mut().filter(|link| link.is_open()) {
            let _ = link.send_frame(&echo::frame(self.target.port, said), Clock.now());
            self.echo = Some((round, first, now));
        }
    }

    fn on_frame(&mut self, frame: &[u8]) {
        let Some((round, first, _)) = self.echo else {
            return;
        };
        if echo::said(frame) != Some((round as u64).to_be_bytes()) {
            return;
        }
        self.echo = None;
        let path = self.link.as_ref().and_then(Link::path);
        let mut counts = self.board.counts();
        counts.echoes[round].push(first.elapsed());
        if round == 0 {
            let path = path.map_or_else(|| "unknown".to_owned(), |path| path.to_string());
            *counts.paths.entry(path).or_default() += 1;
        }
    }

    /// Takes all that the link has to say and to send.
    fn drain(&mut self) {
        while let Some(event) = self.link.as_mut().and_then(Link::poll_event) {
            match event {
                LinkEvent::Step(Step::Open) => self.on_open(),
                LinkEvent::Frame(frame) => self.on_frame(&frame),
                LinkEvent::Closed(reason) if self.stage < Stage::End => {
                    self.flush();
                    self.on_closed(&reason.to_string());
                }
                _ => {}
            }
        }
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(sent) = self.link.as_mut().and_then(Link::poll_transmit) {
            for payload in sent.datagrams() {
                // One that the kernel does not take is lost, as on any path.
                let _ = self.socket.try_send_to(payload, sent.remote);
            }
        }
    }

    fn due(&mut self) -> Instant {
        let timeout = self.link.as_mut().and_then(Link::poll_timeout);
        let echo = self.echo.map(|(_, _, sent)| sent + ECHO_WITHIN);
        let all = [
            timeout.map(Instant::from_std),
            self.answer_by,
            self.try_at,
            echo,
        ];
        let never = Instant::now() + Duration::from_secs(3600);
        all.into_iter().flatten().min().unwrap_or(never)
    }

    fn on_timeout(&mut self) {
        let now = Instant::now();
        if self.answer_by.is_some_and(|by| by <= now) {
            self.on_failed("no answer to the offer");
        }
        if self.try_at.take_if(|at| *at <= now).is_some() {
            self.offer();
        }
        if let Some((round, _, sent)) = self.echo
            && sent + ECHO_WITHIN <= now
        {
            self.board.counts().lost += 1;
            self.send_echo(round);
        }
        if let Some(link) = &mut self.link {
            link.handle_timeout(Clock.now());
        }
    }

    fn end(&mut self) {
        self.stage = Stage::End;
        if let Some(link) = &mut self.link {
            link.close("the load is over", Clock.now());
        }
        self.drain();
    }
}
