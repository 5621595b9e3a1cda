//! What is told to the host's network stack about the interface: up, MTU, queue, addresses, routes.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::route::{RouteProtocol, RouteScope};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use thiserror::Error;

use crate::device::TunConfig;

/// Packets that wait for us in the interface's queue before the kernel drops. Its default of 500 is short for what
/// arrives while the loop is at work elsewhere; and what waits, small packets behind frames of 64 KB, waits in here.
const TX_QUEUE_LEN: u32 = 1_000;

/// Why there is no TUN device.
#[derive(Debug, Error)]
pub enum TunError {
    /// The kernel does not make the interface.
    #[error(
        "cannot create the TUN interface `{name}`: {source}; it needs /dev/net/tun and CAP_NET_ADMIN"
    )]
    Create {
        /// The name asked for.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The interface is there but could not be set up.
    #[error("cannot {action} on the TUN interface `{name}`: {source}")]
    Configure {
        /// The interface.
        name: String,
        /// What was tried.
        action: String,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}")]
    Netlink(io::Error),
}

/// Brings the interface up with what `config` says. On a thread of its own, since netlink is spoken by tasks
/// and the caller may be one; a thread sees the network namespace of the one that started it.
pub(crate) fn configure(name: &str, index: u32, config: &TunConfig) -> Result<(), TunError> {
    let work = || -> Result<(), TunError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.map_err(TunError::Netlink)?.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().map_err(TunError::Netlink)?;
            let driver = tokio::spawn(connection);
            let result = apply(&handle, name, index, config).await;
            driver.abort();
            result
        })
    };
    std::thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|_| {
        Err(TunError::Netlink(io::Error::other(
            "the netlink thread panicked",
        )))
    })
}

async fn apply(
    handle: &Handle,
    name: &str,
    index: u32,
    config: &TunConfig,
) -> Result<(), TunError> {
    // Without link-local addresses the kernel does not send router solicitations into the tunnel.
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/addr_gen_mode"), "1");
    let failed = |action: String| {
        let name = name.to_owned();
        move |source| TunError::Configure {
            name,
            action,
            source,
        }
    };
    let link = LinkUnspec::new_with_index(index)
        .mtu(u32::from(config.mtu))
        .txqueuelen(TX_QUEUE_LEN)
        .up()
        .build();
    let set = handle.link().set(link).execute().await;
    set.map_err(failed(format!(
        "set the MTU {} and bring it up",
        config.mtu
    )))?;
    for address in &config.addresses {
        let mut add = handle
            .address()
            .add(index, address.addr(), address.prefix_len())
            .replace();
        // Nobody else is on it, and an address that is still being probed cannot be bound (RFC 4862 section 5.4).
        add.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        let result = add
            .execute()
            .await
            .map_err(failed(format!("set the address {address}")));
        tolerate_missing_ipv6(*address, result)?;
    }
    for route in &config.routes {
        let result = add_route(handle, index, *route).await;
        let result = result.map_err(failed(format!("set the route {route}")));
        tolerate_missing_ipv6(*route, result)?;
    }
    Ok(())
}

async fn add_route(handle: &Handle, index: u32, route: IpNet) -> Result<(), rtnetlink::Error> {
    let message = match route.trunc() {
        IpNet::V4(net) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .destination_prefix(net.addr(), net.prefix_len())
            .output_interface(index)
            .scope(RouteScope::Link)
            .protocol(RouteProtocol::Static)
            .build(),
        IpNet::V6(net) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
            .destination_prefix(net.addr(), net.prefix_len())
            .output_interface(index)
            .protocol(RouteProtocol::Static)
            .build(),
    };
    handle.route().add(message).replace().execute().await
}

/// A host without IPv6 still has IPv4: one warning instead of no device.
fn tolerate_missing_ipv6(net: IpNet, result: Result<(), TunError>) -> Result<(), TunError> {
    match (net.addr(), result) {
        (IpAddr::V6(_), Err(error)) => {
            tracing::warn!(%error, "going on without this; is IPv6 switched off on this host?");
            Ok(())
        }
        (_, result) => result,
    }
}
