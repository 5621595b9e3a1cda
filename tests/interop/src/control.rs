//! A conversation on a link's `control` channel, of which each answer is known.

use crate::workload::VIRTUAL_IP;
use anyhow::{Context as _, Result, ensure};
use prost::Message as _;
use protocol::document::{Bind, Binding, Control, Hello, Ping, control::Body};

/// The far end of a `control` channel, as the foreign peer reaches it.
pub trait Peer {
    /// Sends a message.
    fn say(&mut self, message: Vec<u8>) -> Result<()>;
    /// Waits for the next message.
    fn hear(&mut self) -> Result<Vec<u8>>;
}

/// Hello from both ends, a ping, a binding that is accepted and one that is refused.
pub fn converse(peer: &mut impl Peer) -> Result<()> {
    ensure!(
        matches!(hear(peer)?, Body::Hello(hello) if hello.version == 1),
        "the first message is no Hello"
    );
    let hello = Hello {
        version: 1,
        ..Hello::default()
    };
    say(peer, Body::Hello(hello))?;
    let ping = Ping {
        id: 0x0123_4567_89ab,
    };
    say(peer, Body::Ping(ping))?;
    ensure!(hear(peer)? == Body::Pong(ping), "the ping's answer");
    let [a, b, c, d] = VIRTUAL_IP;
    let bindings = [("orders", d + 1), ("nothing", d + 2)].map(|(service, d)| Binding {
        service: service.to_owned(),
        virtual_ipv4: vec![a, b, c, d],
        virtual_ipv6: Vec::new(),
    });
    let bindings = bindings.to_vec();
    say(peer, Body::Bind(Bind { bindings }))?;
    let heard = hear(peer)?;
    let Body::Bound(bound) = &heard else {
        anyhow::bail!("{heard:?} instead of Bound");
    };
    let accepted: Vec<_> = bound.results.iter().map(|result| result.accepted).collect();
    ensure!(accepted == [true, false], "{bound:?}");
    Ok(())
}

fn say(peer: &mut impl Peer, body: Body) -> Result<()> {
    peer.say(Control { body: Some(body) }.encode_to_vec())
}

fn hear(peer: &mut impl Peer) -> Result<Body> {
    let message = Control::decode(&peer.hear()?[..])?;
    message.body.context("an empty message")
}
