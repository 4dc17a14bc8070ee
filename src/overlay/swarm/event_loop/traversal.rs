//! Being reached through NATs: what the swarm sees goes to [`Reachability`], and what that decides goes back.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::Instant,
};

use libp2p::{
    Multiaddr, PeerId as Libp2pPeer, autonat,
    core::transport::ListenerId,
    dcutr, identify, mdns,
    multiaddr::Protocol,
    relay,
    swarm::{
        FromSwarm, NetworkBehaviour as _, NewExternalAddrCandidate,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use super::{EventLoop, direct_ip, from_libp2p, is_loopback, without_peer};
use crate::{
    client::PeerInfo,
    name::PeerId,
    overlay::{
        reach::{Action, Reachability},
        swarm::{Reached, behaviour::TraversalEvent, network::direct},
    },
    record::MAX_ADDRESSES,
};

/// Peers dialled for one announcement on the local network.
const MAX_ANNOUNCED: usize = 16;
/// Outgoing connections of which the address is remembered, and hosts that something was sent to.
const MAX_DIALLED: usize = 1024;

/// What is remembered between events.
pub(super) struct Traversing {
    reachability: Reachability,
    /// The listeners for circuits, and the relay of each.
    circuits: HashMap<ListenerId, Libp2pPeer>,
    /// What others are told, circuits apart.
    advertised: Vec<Multiaddr>,
    /// Where peers were dialled: there they can be reached.
    dialled: HashMap<Libp2pPeer, Multiaddr>,
    /// The hosts that something was sent to: a NAT may let them in that lets in nobody else.
    sent_to: HashSet<IpAddr>,
    /// The connected peers that came though nothing had been sent to them.
    strangers: HashSet<Libp2pPeer>,
}

impl Traversing {
    /// For a process that listens at these addresses.
    pub(super) fn new(peer: PeerId, listening: Vec<String>) -> Self {
        let reachability = Reachability::new(peer, listening);
        Self {
            reachability,
            circuits: HashMap::new(),
            advertised: Vec::new(),
            dialled: HashMap::new(),
            sent_to: HashSet::new(),
            strangers: HashSet::new(),
        }
    }

    /// When to look again, if nothing happens before.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.reachability.wake()
    }
}

/// Waits until `at`, for ever if there is no such time.
pub(super) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

impl EventLoop {
    /// Whether this process finds out how it is reached.
    pub(in crate::overlay::swarm) fn is_traversing(&self) -> bool {
        self.swarm.behaviour().nat.is_enabled()
    }

    /// Does what is to be done now about being reached, and tells the handles how it stands.
    pub(super) fn traverse(&mut self) {
        if !self.is_traversing() {
            return;
        }
        let now = Instant::now();
        while let Some(action) = self.traversing.reachability.poll(now) {
            match action {
                Action::Advertise { addresses, relay } => self.advertise(&addresses, relay),
                Action::Reserve(relay) => self.reserve(&relay, now),
                Action::Release => {
                    for (listener, _) in std::mem::take(&mut self.traversing.circuits) {
                        self.swarm.remove_listener(listener);
                    }
                }
            }
        }
        self.advertise_no_more();
        let reachability = &self.traversing.reachability;
        self.shared.reached(Reached {
            addresses: reachability.addresses(),
            view: reachability.view(),
            for_all: reachability.is_for_all(),
        });
    }

    fn advertise(&mut self, addresses: &[String], relay: bool) {
        self.traversing.advertised = addresses.iter().filter_map(|address| address.parse().ok()).collect();
        let known: Vec<Multiaddr> = self.swarm.external_addresses().cloned().collect();
        for address in self.traversing.advertised.iter().filter(|address| !known.contains(address)) {
            self.swarm.add_external_address(address.clone());
        }
        let own = |address: &&Multiaddr| !is_circuit(address) && !is_loopback(address);
        let own: Vec<Multiaddr> = self.swarm.listeners().filter(own).cloned().collect();
        if let Some(nat) = self.swarm.behaviour_mut().nat.as_mut() {
            if let Some(relaying) = nat.relaying.as_mut() {
                relaying.set_status((!relay).then_some(relay::Status::Disable));
            }
            // Those of our own too: a peer behind a NAT can dial a public one, and a neighbour behind ours a private one.
            for addr in &own {
                let candidate = NewExternalAddrCandidate { addr };
                nat.punching.on_swarm_event(FromSwarm::NewExternalAddrCandidate(candidate));
            }
        }
    }

    /// Takes back what is not to be told: what AutoNAT confirms, libp2p would tell by itself.
    fn advertise_no_more(&mut self) {
        let told: Vec<Multiaddr> = self.swarm.external_addresses().filter(|told| !is_circuit(told)).cloned().collect();
        for address in told.iter().filter(|told| !self.traversing.advertised.contains(told)) {
            self.swarm.remove_external_address(address);
        }
    }

    fn reserve(&mut self, relay: &PeerInfo, now: Instant) {
        let place = super::super::network::to_libp2p(&relay.peer).ok().and_then(|peer| {
            let address: Multiaddr = relay.addresses.first()?.parse().ok()?;
            let circuit = address.with(Protocol::P2p(peer)).with(Protocol::P2pCircuit);
            Some((self.swarm.listen_on(circuit).ok()?, peer))
        });
        match place {
            Some((listener, peer)) => {
                self.traversing.circuits.insert(listener, peer);
            }
            None => self.traversing.reachability.on_lost(&relay.peer, now),
        }
    }

    /// A connection that we have made: there the peer is.
    pub(super) fn on_dialled(&mut self, peer: Libp2pPeer, address: &Multiaddr) {
        if !is_circuit(address) && self.traversing.dialled.len() < MAX_DIALLED {
            self.traversing.dialled.insert(peer, address.clone());
        }
        self.on_sent_to(address);
    }

    /// Something was sent there, if only in vain.
    pub(super) fn on_sent_to(&mut self, address: &Multiaddr) {
        if let Some(host) = direct_ip(address).filter(|_| self.traversing.sent_to.len() < MAX_DIALLED) {
            self.traversing.sent_to.insert(host);
        }
    }

    /// A peer that was not connected has come from `address`.
    pub(super) fn on_came(&mut self, peer: Libp2pPeer, address: &Multiaddr) {
        // Beyond the limit nobody is known to be a stranger.
        let remembers_all = self.traversing.sent_to.len() < MAX_DIALLED;
        if let Some(host) = direct_ip(address).filter(|host| remembers_all && !self.traversing.sent_to.contains(host)) {
            self.traversing.strangers.insert(peer);
            self.traversing.reachability.on_stranger(host);
            self.traverse();
        }
    }

    /// The last connection to a peer is closed.
    pub(super) fn on_disconnected(&mut self, peer: &Libp2pPeer) {
        self.traversing.dialled.remove(peer);
        self.traversing.strangers.remove(peer);
        if let Some(peer) = from_libp2p(peer) {
            self.shared.table.gone(&peer);
        }
    }

    /// What a peer tells of itself, and of us.
    pub(super) fn on_seen(&mut self, peer: Libp2pPeer, info: &identify::Info) {
        let Some(id) = from_libp2p(&peer) else { return };
        if !is_circuit(&info.observed_addr) {
            let observed = without_peer(&info.observed_addr);
            self.traversing.reachability.on_observed(&observed);
            // To whom it has dialled, a peer tells the address that it has dialled.
            if self.traversing.strangers.contains(&peer) && direct(&observed).is_some() {
                self.traversing.reachability.on_confirmed(observed);
            }
        }
        // One that we have reached ourselves, others reach too; at all its addresses, we suppose.
        let dialled = self.traversing.dialled.get(&peer).map(without_peer);
        if let Some(dialled) = dialled.filter(|_| info.protocols.contains(&relay::HOP_PROTOCOL_NAME)) {
            let told = info.listen_addrs.iter().filter(|address| !is_loopback(address)).map(without_peer);
            let others = told.filter(|address| *address != dialled && direct(address).is_some());
            let addresses = std::iter::once(dialled.clone()).chain(others).take(MAX_ADDRESSES).collect();
            self.traversing.reachability.on_relay(PeerInfo { peer: id, addresses });
        }
        self.traverse();
    }

    pub(super) fn on_traversal_event(&mut self, event: TraversalEvent) {
        match event {
            TraversalEvent::Tested(event) => self.on_tested(event),
            TraversalEvent::Punching(dcutr::Event { remote_peer_id: peer, result }) => match result {
                Ok(_) => tracing::debug!(%peer, "through the NAT: a direct connection takes over from the circuit"),
                Err(error) => tracing::debug!(%peer, %error, "not through the NAT: the circuit has to do"),
            },
            TraversalEvent::Relaying(relay::Event::CircuitClosed { src_peer_id, dst_peer_id, error }) => {
                let why = error.map(|error| error.to_string()).unwrap_or_default();
                tracing::debug!(from = %src_peer_id, to = %dst_peer_id, why, "a circuit through this member has ended");
            }
            TraversalEvent::Testing(_) | TraversalEvent::Relaying(_) => {}
        }
    }

    fn on_tested(&mut self, event: autonat::v2::client::Event) {
        let address = without_peer(&event.tested_addr);
        // Circuits that a listener stands for are candidates of libp2p too, and prove nothing.
        if direct(&address).is_none() {
            return;
        }
        match event.result {
            Ok(()) => self.traversing.reachability.on_confirmed(address),
            Err(error) => self.traversing.reachability.on_refuted(&address, &error.to_string()),
        }
        self.traverse();
    }

    pub(super) fn on_relay_event(&mut self, event: &relay::client::Event) {
        let relay::client::Event::ReservationReqAccepted { relay_peer_id, .. } = event else { return };
        if let Some(relay) = from_libp2p(relay_peer_id) {
            self.traversing.reachability.on_reserved(&relay);
            self.traverse();
        }
    }

    /// A listener got an address: a circuit's is told when the relay has confirmed it.
    pub(super) fn on_listening(&mut self, address: &Multiaddr) {
        if !is_circuit(address) {
            self.traversing.reachability.on_listening(without_peer(address));
            self.traverse();
        }
    }

    pub(super) fn on_not_listening(&mut self, address: &Multiaddr) {
        self.traversing.reachability.on_not_listening(&without_peer(address));
        self.traverse();
    }

    /// A listener has ended; if it was one for circuits, the relay has no place for us any more.
    pub(super) fn on_listener_closed(&mut self, listener: ListenerId) {
        if let Some(relay) = self.traversing.circuits.remove(&listener).and_then(|peer| from_libp2p(&peer)) {
            self.traversing.reachability.on_lost(&relay, Instant::now());
            self.traverse();
        }
    }

    /// Peers announce themselves on the local network: of whatever overlay they are, identify tells.
    pub(super) fn on_announced(&mut self, event: mdns::Event) {
        let mdns::Event::Discovered(announced) = event else { return };
        let mut peers: HashMap<Libp2pPeer, Vec<Multiaddr>> = HashMap::new();
        for (peer, address) in announced.into_iter().filter(|(_, address)| direct(&without_peer(address)).is_some()) {
            peers.entry(peer).or_default().push(address);
        }
        for (peer, addresses) in peers.into_iter().take(MAX_ANNOUNCED) {
            let dial = DialOpts::peer_id(peer).addresses(addresses).condition(PeerCondition::DisconnectedAndNotDialing);
            if let Err(error) = self.swarm.dial(dial.build()) {
                tracing::debug!(%peer, %error, "announced on the local network, not dialled");
            }
        }
    }
}

pub(super) fn is_circuit(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// Whether all of them lead to this machine alone: then there is no NAT to think of.
pub(super) fn are_loopback(addresses: &[Multiaddr]) -> bool {
    addresses.iter().all(is_loopback)
}
