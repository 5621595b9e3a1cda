//! What an event loop does when it is told something.

use super::EventLoop;
use crate::control::Control;
use crate::handover::Then;
use turn_relay_proto::Now;

impl EventLoop {
    /// What then: [`Then::End`] if a successor has everything.
    pub(super) fn handle_control(&mut self, now: Now) -> Then {
        let messages: Vec<Control> = self.control.receive().collect();
        for message in messages {
            match message {
                Control::LookedUp { user, answer } => {
                    self.server.handle_looked_up(now, &user, &answer);
                }
                Control::Configure {
                    server,
                    streams,
                    done,
                } => {
                    self.streams.set_limits(streams);
                    let replaced = self.server.replace_config(now.instant, *server);
                    // Who asked may have gone meanwhile.
                    let _ = done.send(replaced);
                }
                Control::TellUsage { done } => {
                    if let Some(usage) = &self.usage {
                        usage.users(self.server.take_usage(now.instant));
                    }
                    // Who asked may have gone meanwhile.
                    let _ = done.send(());
                }
                Control::Drain { until } => self.server.set_draining(Some(until)),
                Control::Freeze { frozen, then } => {
                    if self.freeze(&frozen, &then) == Then::End {
                        return Then::End;
                    }
                }
                Control::Shard { message, sockets } => {
                    self.handle_shard(now, *message, sockets);
                }
            }
        }
        Then::GoOn
    }
}
