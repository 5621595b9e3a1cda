//! What an event loop does when it is told something.

use super::EventLoop;
use crate::control::Control;
use turn_relay_proto::Now;

impl EventLoop {
    pub(super) fn handle_control(&mut self, now: Now) {
        let messages: Vec<Control> = self.control.receive().collect();
        for message in messages {
            match message {
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
            }
        }
    }
}
