//! systemd-resolved asks this process for the names that are ours, and nobody else's.
//!
//! The names are routing domains of the TUN interface's link, and this process is the link's server: resolved(8), "Protocols and
//! routing". All of it belongs to the interface, which the kernel removes when this process ends in whatever way, and
//! resolved forgets it then. Names of others never come here, and nothing is left that someone would have to clean up.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::time::timeout;
use zbus::Connection;
use zbus::message::Message;

use super::{Around, reached_at, resolv_conf};

/// Where resolved itself answers on loopback ([the second without its own additions](https://www.freedesktop.org/software/systemd/man/latest/systemd-resolved.service.html)).
const STUBS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::new(127, 0, 0, 54)];
const DNS_PORT: u16 = 53;
const SERVICE: &str = "org.freedesktop.resolve1";
const PATH: &str = "/org/freedesktop/resolve1";
const INTERFACE: &str = "org.freedesktop.resolve1.Manager";
/// A bus or a resolved that says nothing must not keep DNS from being answered.
const PATIENCE: Duration = Duration::from_secs(5);
// As in <sys/socket.h>, which D-Bus speaks too.
const AF_INET: i32 = 2;
const AF_INET6: i32 = 10;

/// Whether all that resolv.conf names is resolved.
pub(super) fn is_asked_by_programs() -> bool {
    let stubs = STUBS.map(|stub| SocketAddr::new(stub.into(), DNS_PORT));
    resolv_conf::names_only(&stubs)
}

/// Makes `zones` routing domains of the link, and this process its server.
///
/// # Errors
/// When there is no bus, no resolved on it, or it refuses; or when names would go round. The link is then as before.
pub(super) async fn start(around: &Around<'_>, zones: &[String]) -> anyhow::Result<()> {
    around.must_not_go_round()?;
    let done = timeout(PATIENCE, take(around, zones)).await;
    done.context("no answer from the system bus in 5 s")?
}

async fn take(around: &Around<'_>, zones: &[String]) -> anyhow::Result<()> {
    let bus = Connection::system().await.context("no system bus")?;
    // Not to start it: where it does not run, it resolves nothing.
    let names = ("org.freedesktop.DBus", "/org/freedesktop/DBus");
    let runs = bus
        .call_method(
            Some(names.0),
            names.1,
            Some(names.0),
            "NameHasOwner",
            &SERVICE,
        )
        .await?;
    ensure!(
        runs.body().deserialize::<bool>()?,
        "systemd-resolved does not run"
    );
    let link = i32::try_from(around.device).context("an interface without a number")?;
    let set = Link { bus: &bus, link };
    match set.everything(around, zones).await {
        Ok(()) => Ok(()),
        Err(error) => {
            let _ = set.call("RevertLink", &link).await;
            Err(error)
        }
    }
}

/// The link of the TUN interface, as resolved has it.
struct Link<'a> {
    bus: &'a Connection,
    link: i32,
}

impl Link<'_> {
    async fn everything(&self, around: &Around<'_>, zones: &[String]) -> anyhow::Result<()> {
        let link = self.link;
        // First of all: at no time may it be asked for what is not ours.
        self.call("SetLinkDefaultRoute", &(link, false)).await?;
        let domains: Vec<(&str, bool)> = zones.iter().map(|zone| (&**zone, true)).collect();
        self.call("SetLinkDomains", &(link, domains)).await?;
        // What the host wants of others does not fit a server on loopback with names that nobody signs.
        for setting in [
            "SetLinkDNSSEC",
            "SetLinkDNSOverTLS",
            "SetLinkLLMNR",
            "SetLinkMulticastDNS",
        ] {
            self.call(setting, &(link, "no")).await?;
        }
        let servers: Vec<(i32, Vec<u8>, u16, &str)> = around
            .listen
            .iter()
            .map(|listen| server(reached_at(*listen)))
            .collect();
        self.call("SetLinkDNSEx", &(link, servers)).await?;
        Ok(())
    }

    async fn call<B>(&self, method: &'static str, body: &B) -> anyhow::Result<Message>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
    {
        let called = self
            .bus
            .call_method(Some(SERVICE), PATH, Some(INTERFACE), method, body)
            .await;
        called.with_context(|| format!("systemd-resolved refuses {method}"))
    }
}

/// Family, address, port, and the name for TLS.
fn server(address: SocketAddr) -> (i32, Vec<u8>, u16, &'static str) {
    match address.ip() {
        IpAddr::V4(ip) => (AF_INET, ip.octets().into(), address.port(), ""),
        IpAddr::V6(ip) => (AF_INET6, ip.octets().into(), address.port(), ""),
    }
}
