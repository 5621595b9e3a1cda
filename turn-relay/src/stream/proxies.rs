//! Connections of load balancers, until it is known whose they are.

use super::{Announced, CloseReason, NoHeader, Streams};
use model::ClientAddr;
use std::io::ErrorKind;
use std::net::SocketAddr;

impl Streams {
    pub(super) fn is_proxy(&self, source: SocketAddr) -> bool {
        self.proxies.iter().any(|net| net.contains(&source.ip()))
    }

    /// Goes on with the header of a load balancer. Its connection is the announced client's from here on.
    pub(super) fn receive_header(&mut self, slot: u32) {
        let Some(connection) = self.room.get_mut(slot) else {
            return;
        };
        let Some(header) = &mut connection.proxy else {
            return;
        };
        let reason = match header.read(&connection.socket) {
            Ok(Ok(Announced::NotYet)) => return,
            Ok(Ok(Announced::Itself)) => {
                connection.proxy = None;
                return;
            }
            Ok(Ok(Announced::Client(client))) => {
                connection.proxy = None;
                let proxy = std::mem::replace(&mut connection.path.client, ClientAddr(client));
                let is_stranger = connection.stranger_since.is_some();
                let (seemed, source) = (proxy.0.ip(), client.ip());
                if self.room.announce(seemed, source, is_stranger) {
                    return;
                }
                CloseReason::Prefix
            }
            Ok(Err(NoHeader)) => CloseReason::BadProxyHeader,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => CloseReason::Client,
            Err(_) => CloseReason::Broken,
        };
        self.room.close(slot, reason);
    }
}
