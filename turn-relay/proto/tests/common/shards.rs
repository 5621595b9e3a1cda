//! What shards say to each other, carried by the test.

use super::{Outcome, Relay};
use turn_relay_proto::{RelayId, ShardMessage};

impl Relay {
    /// Puts it aside, with the sockets that go with it.
    pub(super) fn post(&mut self, shard: u16, message: ShardMessage, relays: &[RelayId]) {
        let sockets = relays.iter().map(|relay| {
            let (address, _) = self.open.iter().find(|(_, id)| *id == relay).unwrap();
            *address
        });
        let sockets = sockets.collect();
        self.open.retain(|_, id| !relays.contains(id));
        self.letters.push((shard, message, sockets));
    }

    /// Carries what shards say to each other, until they have nothing more to say.
    pub fn carry_letters(shards: &mut [Self]) {
        while let Some(from) = shards.iter().position(|shard| !shard.letters.is_empty()) {
            for (to, message, sockets) in std::mem::take(&mut shards[from].letters) {
                let to = &mut shards[usize::from(to)];
                let relays = to.server.handle_shard_message(to.now, message);
                to.open.extend(sockets.into_iter().zip(relays));
                to.drain();
            }
        }
    }

    /// What the server wants to say by itself.
    pub fn polled(&mut self) -> Outcome {
        self.drain();
        match self.answers.pop() {
            Some((_, bytes)) => Outcome::Answer(bytes),
            None => Outcome::Nothing,
        }
    }
}
