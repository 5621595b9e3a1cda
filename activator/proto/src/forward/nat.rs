//! Who is who behind the activator: (link, virtual IP) ⇄ (client address, service's real address).
//!
//! Each binding of a link gets a client of its own, so a packet's way back needs nothing but its destination: two
//! services on one address, or a ping and its answer, cannot be confused, and no flow is remembered.
//!
//! The client belongs to the sidecar rather than to the link: a second link of the same sidecar shares it, so that flows
//! go on when one link follows another. Answers go where the sidecar sent last.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use model::{NodeId, ServiceName};
use rustc_hash::FxHashMap;

use crate::{
    answer::{MAX_LINK_BINDINGS, VirtualIps},
    forward::{
        flow::{Flow, FlowEnd, FlowRecord, Flows, Traffic},
        pool::{Client, ClientPool},
    },
    links::LinkKey,
    policy::Export,
    stats::DropReason,
};

mod moving;

pub use moving::{MAX_MOVED, Moving};

/// Of a service whose name has other addresses now, what is open stays at the old one while that was heard within this time.
pub const QUIET: Duration = Duration::from_secs(5);

/// One address family of a binding.
#[derive(Debug, Clone, Copy)]
struct Way<A> {
    virtual_ip: A,
    /// `None`: the service has no address of the family.
    real: Option<A>,
}

impl<A: Copy + PartialEq> Way<A> {
    fn new(virtual_ip: A, addresses: &[A], choose: usize) -> Self {
        let real = addresses.get(choose % addresses.len().max(1)).copied();
        Self { virtual_ip, real }
    }

    /// The address that is used stays if it is still one of these; gives the one that is used then.
    fn renew(&mut self, addresses: &[A], choose: usize) -> Option<A> {
        if self.real.is_none_or(|real| !addresses.contains(&real)) {
            *self = Self::new(self.virtual_ip, addresses, choose);
        }
        self.real
    }

    /// `Some`: another address from now on.
    fn move_to(&mut self, address: Option<A>) {
        self.real = address.or(self.real);
    }

    fn is_among(&self, addresses: &[A]) -> bool {
        self.real.is_none_or(|real| addresses.contains(&real))
    }
}

/// One service, as one link sees it.
#[derive(Debug)]
struct Slot {
    /// Where answers go: by which the sidecar sent last.
    link: LinkKey,
    /// All links that are bound to it.
    links: Vec<LinkKey>,
    owner: u64,
    node: NodeId,
    export: Arc<Export>,
    ipv4: Option<Way<Ipv4Addr>>,
    ipv6: Option<Way<Ipv6Addr>>,
    /// Since its last record.
    flow: Option<Flow>,
    /// When the service last said something, at its old address, other than that nobody is there.
    heard: Option<Instant>,
    /// It has another address for what is new.
    moving: Option<Box<Moving>>,
}

#[derive(Debug, Default)]
struct LinkNat {
    bindings: FxHashMap<IpAddr, Client>,
    /// The sidecar's own addresses, learned from its first packet of each family: it may use no other.
    sidecar_ipv4: Option<Ipv4Addr>,
    sidecar_ipv6: Option<Ipv6Addr>,
}

/// Where a packet from a link goes.
#[derive(Debug)]
pub struct ToService<'a> {
    /// The service, for its ports.
    pub export: &'a Export,
    /// Becomes the destination; `None`: the service has no address of this family.
    pub real: Option<IpAddr>,
    /// Becomes the source.
    pub client: IpAddr,
    /// Where it is counted what passes.
    pub traffic: &'a mut Traffic,
    /// The service has another address for TCP connections that begin now.
    pub moving: Option<&'a mut Moving>,
}

/// Where a packet from the TUN goes.
#[derive(Debug)]
pub struct ToLink<'a> {
    /// The link it leaves by.
    pub link: LinkKey,
    /// The service's real address: what the source has to be.
    pub real: IpAddr,
    /// Its other address, if it has one for what is new: what the source may be, too.
    pub moving: Option<IpAddr>,
    /// Becomes the source.
    pub virtual_ip: IpAddr,
    /// Becomes the destination.
    pub sidecar: IpAddr,
    /// Where it is counted what passes.
    pub traffic: &'a mut Traffic,
    /// Where it is noted when the service was heard.
    pub heard: &'a mut Option<Instant>,
}

/// Why a binding is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// No client address is free.
    #[error("this activator has no client address left")]
    PoolExhausted,
    /// The link has as many as it may have.
    #[error("this link already has {MAX_LINK_BINDINGS} bindings, which is its limit")]
    TooMany,
}

/// The bindings of all links.
#[derive(Debug)]
pub struct NatTable {
    pool: ClientPool,
    slots: FxHashMap<Client, Slot>,
    owners: FxHashMap<u64, Client>,
    links: FxHashMap<LinkKey, LinkNat>,
    pub(super) flows: Flows,
}

impl NatTable {
    /// An empty table over this pool.
    #[must_use]
    pub fn new(pool: ClientPool) -> Self {
        Self {
            pool,
            slots: FxHashMap::default(),
            owners: FxHashMap::default(),
            links: FxHashMap::default(),
            flows: Flows::default(),
        }
    }

    /// Binds virtual IPs of a link of this node to a service. A virtual IP that the link used for another service moves.
    ///
    /// # Errors
    /// When a bound is reached.
    pub fn bind(
        &mut self,
        link: LinkKey,
        node: &NodeId,
        export: &Arc<Export>,
        virtual_ips: VirtualIps,
        now: Instant,
    ) -> Result<(), BindError> {
        let owner = owner(node, export, virtual_ips);
        let choose = choice(owner);
        let slot = Slot {
            link,
            links: vec![link],
            owner,
            node: node.clone(),
            export: export.clone(),
            ipv4: virtual_ips
                .ipv4
                .map(|it| Way::new(it, &export.ipv4, choose)),
            ipv6: virtual_ips
                .ipv6
                .map(|it| Way::new(it, &export.ipv6, choose)),
            flow: None,
            heard: None,
            moving: None,
        };
        if self.is_bound(&slot) {
            return Ok(());
        }
        for address in slot.virtual_ips().into_iter().flatten() {
            self.unbind(link, address, now);
        }
        let held = self.links.entry(link).or_default();
        if held.bindings.len() + 2 > MAX_LINK_BINDINGS * 2 {
            return Err(BindError::TooMany);
        }
        let client = match self.owners.get(&owner) {
            Some(client) => *client,
            None => self
                .pool
                .assign(owner, now)
                .ok_or(BindError::PoolExhausted)?,
        };
        for address in slot.virtual_ips().into_iter().flatten() {
            held.bindings.insert(address, client);
        }
        self.owners.insert(owner, client);
        match self.slots.get_mut(&client) {
            Some(shared) => shared.links.push(link),
            None => drop(self.slots.insert(client, slot)),
        }
        Ok(())
    }

    /// A name of a link's virtual IPs is another service now, or none. What still hears from its old address keeps it until
    /// the next call. `false`: the virtual IPs stand for the name no longer.
    pub fn readdress(
        &mut self,
        link: LinkKey,
        name: &ServiceName,
        virtual_ips: VirtualIps,
        export: Option<&Arc<Export>>,
        now: Instant,
    ) -> bool {
        let addresses = virtual_ips.addresses();
        let Some(held) = self.links.get(&link) else {
            return false;
        };
        let client = addresses
            .clone()
            .find_map(|address| held.bindings.get(&address));
        let Some(slot) = client.and_then(|client| self.slots.get_mut(client)) else {
            return false;
        };
        if slot.export.name != *name {
            return false;
        }
        if export.is_some_and(|export| Arc::ptr_eq(export, &slot.export)) {
            return true;
        }
        let (ipv4, ipv6) = export.map_or((&[][..], &[][..]), |it| (&it.ipv4[..], &it.ipv6[..]));
        let stays = slot.ipv4.is_none_or(|way| way.is_among(ipv4))
            && slot.ipv6.is_none_or(|way| way.is_among(ipv6));
        let choose = choice(slot.owner);
        let heard = slot.heard;
        // It went on, or back: what went along does so again.
        slot.moving.take_if(|moving| !moving.is_among(ipv4, ipv6));
        if heard.is_some_and(|at| now.saturating_duration_since(at) < QUIET) {
            match &slot.moving {
                // As many as may be have moved: the others follow.
                Some(moving) if moving.is_full() => {}
                Some(_) => return true,
                None if stays => {}
                None => {
                    let (mut to_ipv4, mut to_ipv6) = (slot.ipv4, slot.ipv6);
                    let to_ipv4 = to_ipv4.as_mut().and_then(|way| way.renew(ipv4, choose));
                    let to_ipv6 = to_ipv6.as_mut().and_then(|way| way.renew(ipv6, choose));
                    slot.moving = export.map(|_| Box::new(Moving::new(to_ipv4, to_ipv6)));
                    return true;
                }
            }
        }
        let moved = slot.moving.take();
        let Some(export) = export else {
            for address in addresses {
                self.unbind(link, address, now);
            }
            return false;
        };
        // What has moved stays where it is.
        let (to_ipv4, to_ipv6) = moved.map_or((None, None), |moved| (moved.ipv4, moved.ipv6));
        if let Some(way) = &mut slot.ipv4 {
            way.move_to(to_ipv4);
            way.renew(ipv4, choose);
        }
        if let Some(way) = &mut slot.ipv6 {
            way.move_to(to_ipv6);
            way.renew(ipv6, choose);
        }
        slot.export = Arc::clone(export);
        true
    }

    /// Forgets a link, and the clients that no other link has.
    pub fn remove(&mut self, link: LinkKey, now: Instant) {
        let Some(held) = self.links.remove(&link) else {
            return;
        };
        for client in held.bindings.into_values() {
            self.leave(link, client, now);
        }
        // Give memory back once the last link is gone.
        if self.links.is_empty() {
            self.slots.shrink_to_fit();
            self.owners.shrink_to_fit();
            self.links.shrink_to_fit();
        }
    }

    /// The link has nothing to do with the client any more.
    fn leave(&mut self, link: LinkKey, client: Client, now: Instant) {
        let Some(slot) = self.slots.get_mut(&client) else {
            return;
        };
        slot.links.retain(|other| *other != link);
        match slot.links.last() {
            Some(other) if slot.link == link => slot.link = *other,
            Some(_) => {}
            None => {
                self.owners.remove(&slot.owner);
                if let Some(slot) = self.slots.remove(&client)
                    && let Some(flow) = slot.flow
                {
                    self.flows.tell(|| slot.record(&flow, FlowEnd::Closed));
                }
                self.pool.release(client, now);
            }
        }
    }

    /// Where a packet of `link` from `source` to `destination` goes.
    ///
    /// # Errors
    /// Why nowhere.
    pub fn to_service(
        &mut self,
        link: LinkKey,
        source: IpAddr,
        destination: IpAddr,
        now: Instant,
    ) -> Result<ToService<'_>, DropReason> {
        let held = self
            .links
            .get_mut(&link)
            .ok_or(DropReason::UnknownVirtualIp)?;
        let client = *held
            .bindings
            .get(&destination)
            .ok_or(DropReason::UnknownVirtualIp)?;
        let slot = self.slots.get_mut(&client);
        let slot = slot.ok_or(DropReason::UnknownVirtualIp)?;
        slot.link = link;
        let (real, address) = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(_)) => {
                if *held.sidecar_ipv4.get_or_insert(source) != source {
                    return Err(DropReason::SpoofedSource);
                }
                let way = slot.ipv4.ok_or(DropReason::UnknownVirtualIp)?;
                (
                    way.real.map(IpAddr::V4),
                    IpAddr::V4(self.pool.ipv4_of(client)),
                )
            }
            (IpAddr::V6(source), IpAddr::V6(_)) => {
                if *held.sidecar_ipv6.get_or_insert(source) != source {
                    return Err(DropReason::SpoofedSource);
                }
                let way = slot.ipv6.ok_or(DropReason::UnknownVirtualIp)?;
                (
                    way.real.map(IpAddr::V6),
                    IpAddr::V6(self.pool.ipv6_of(client)),
                )
            }
            _ => return Err(DropReason::Malformed),
        };
        Ok(ToService {
            export: &slot.export,
            real,
            client: address,
            traffic: self.flows.count(&mut slot.flow, now),
            moving: slot.moving.as_deref_mut(),
        })
    }

    /// Where a packet to this client address goes.
    ///
    /// # Errors
    /// Why nowhere.
    pub fn to_link(
        &mut self,
        client_address: IpAddr,
        now: Instant,
    ) -> Result<ToLink<'_>, DropReason> {
        let client = self
            .pool
            .client_of(client_address)
            .ok_or(DropReason::UnknownClient)?;
        let slot = self.slots.get_mut(&client);
        let slot = slot.ok_or(DropReason::UnknownClient)?;
        let held = self
            .links
            .get(&slot.link)
            .ok_or(DropReason::UnknownClient)?;
        let (real, virtual_ip, sidecar) = match client_address {
            IpAddr::V4(_) => {
                let way = slot.ipv4.ok_or(DropReason::UnknownClient)?;
                let sidecar = held.sidecar_ipv4.ok_or(DropReason::UnknownClient)?;
                (
                    way.real.map(IpAddr::from),
                    way.virtual_ip.into(),
                    sidecar.into(),
                )
            }
            IpAddr::V6(_) => {
                let way = slot.ipv6.ok_or(DropReason::UnknownClient)?;
                let sidecar = held.sidecar_ipv6.ok_or(DropReason::UnknownClient)?;
                (
                    way.real.map(IpAddr::from),
                    way.virtual_ip.into(),
                    sidecar.into(),
                )
            }
        };
        Ok(ToLink {
            link: slot.link,
            real: real.ok_or(DropReason::UnknownClient)?,
            moving: slot
                .moving
                .as_ref()
                .and_then(|moving| moving.address(client_address.is_ipv6())),
            virtual_ip,
            sidecar,
            traffic: self.flows.count(&mut slot.flow, now),
            heard: &mut slot.heard,
        })
    }

    /// Tells the flows that are over or have gone on for long, if it is time to look for them.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let Some(part) = self.flows.look(now) else {
            return;
        };
        for slot in self.slots.values_mut() {
            match slot.flow.map(|flow| (flow, flow.due(part, now))) {
                Some((flow, Some(end))) => {
                    self.flows.tell(|| slot.record(&flow, end));
                    slot.flow = None;
                }
                Some((_, None)) => self.flows.look_again(now),
                None => {}
            }
        }
    }

    /// All flows are over.
    pub(super) fn end_flows(&mut self) {
        for slot in self.slots.values_mut() {
            if let Some(flow) = slot.flow.take() {
                self.flows.tell(|| slot.record(&flow, FlowEnd::Closed));
            }
        }
    }

    /// Client addresses in use: one per binding.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.pool.assigned()
    }

    /// Links with at least one binding ever.
    #[must_use]
    pub fn links(&self) -> usize {
        self.links.len()
    }

    /// The pools.
    #[must_use]
    pub const fn pool(&self) -> &ClientPool {
        &self.pool
    }

    fn is_bound(&self, slot: &Slot) -> bool {
        let Some(held) = self.links.get(&slot.link) else {
            return false;
        };
        slot.virtual_ips().into_iter().flatten().all(|address| {
            let client = held.bindings.get(&address);
            let there = client.and_then(|client| self.slots.get(client));
            there.is_some_and(|there| {
                Arc::ptr_eq(&there.export, &slot.export)
                    && there.virtual_ips() == slot.virtual_ips()
            })
        })
    }

    /// Takes out the binding of a virtual IP, in both families.
    fn unbind(&mut self, link: LinkKey, address: IpAddr, now: Instant) {
        let Some(held) = self.links.get_mut(&link) else {
            return;
        };
        let Some(client) = held.bindings.get(&address).copied() else {
            return;
        };
        held.bindings.retain(|_, other| *other != client);
        self.leave(link, client, now);
    }
}

/// Stands for one service as one sidecar sees it, on every activator alike, so it never changes: FNV-1a, 64 bits.
fn owner(node: &NodeId, export: &Export, virtual_ips: VirtualIps) -> u64 {
    let named = format!(
        "{node} {} {:?} {:?}",
        export.name, virtual_ips.ipv4, virtual_ips.ipv6
    );
    named.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Which of a service's addresses an owner gets. The same for every link of the node: its flows know one service address.
fn choice(owner: u64) -> usize {
    usize::try_from(owner >> 32).unwrap_or_default()
}

impl Slot {
    fn record(&self, flow: &Flow, end: FlowEnd) -> FlowRecord {
        FlowRecord {
            link: self.link,
            node: self.node.clone(),
            service: self.export.name.to_string(),
            verdict: flow.verdict(end),
        }
    }

    fn virtual_ips(&self) -> [Option<IpAddr>; 2] {
        [
            self.ipv4.map(|way| IpAddr::V4(way.virtual_ip)),
            self.ipv6.map(|way| IpAddr::V6(way.virtual_ip)),
        ]
    }
}
