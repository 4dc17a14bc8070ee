//! The task that owns the swarm.

mod silence;
mod traversal;

use std::{
    collections::{HashMap, HashSet},
    io,
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock, atomic::Ordering},
    time::{Duration, Instant},
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId as Libp2pPeer, Swarm, TransportError,
    core::{
        ConnectedPoint,
        upgrade::{NegotiationError, Version},
    },
    identify,
    identity::Keypair,
    multiaddr::Protocol,
    relay,
    request_response::{self, OutboundFailure, OutboundRequestId, ResponseChannel},
    swarm::{self, DialError, SwarmEvent},
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use self::{
    silence::Silences,
    traversal::{Traversing, are_loopback, is_circuit, until},
};
use super::{
    AskError, NetworkConfig, NetworkError, Reached, Role, Traffic,
    behaviour::{self, Behaviour, BehaviourEvent, Protocols},
    network::{Command, direct},
    transport,
};
use crate::{
    client::{ErrorCode, ErrorReply, Event, PeerInfo, ReachView, RequestFrame, ResponseFrame},
    name::PeerId,
    overlay::{
        Answer, Caller, Responder, addresses,
        limits::Limits,
        table::{Heard, SharedTable},
    },
};

/// Requests that may be worked on at a time; above it a member says that it is busy.
const MAX_WORKING: usize = 512;
/// How long binding the listen addresses may take.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses remembered at which one peer is seen.
const MAX_SEEN: usize = 8;

/// What the loop shares with its handles.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) table: SharedTable,
    pub(super) traffic: Arc<Traffic>,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) reached: watch::Sender<Reached>,
    /// The addresses from which peers that are connected came, or at which they were dialled; none over a relay.
    pub(super) seen: Arc<RwLock<HashMap<Libp2pPeer, Vec<IpAddr>>>>,
}

impl Shared {
    /// The addresses at which a connected peer is seen.
    pub(super) fn seen_at(&self, peer: &Libp2pPeer) -> Vec<IpAddr> {
        self.seen.read().unwrap_or_else(PoisonError::into_inner).get(peer).cloned().unwrap_or_default()
    }

    fn on_seen(&self, peer: Libp2pPeer, address: &Multiaddr) {
        let Some(ip) = direct_ip(address) else { return };
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        let addresses = seen.entry(peer).or_default();
        if addresses.len() < MAX_SEEN && !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }

    fn on_gone(&self, peer: &Libp2pPeer) {
        self.seen.write().unwrap_or_else(PoisonError::into_inner).remove(peer);
    }

    fn reached(&self, now: Reached) {
        self.reached.send_if_modified(|reached| {
            if reached.view.reach != now.view.reach {
                tracing::info!(reach = ?now.view.reach, why = now.view.why, "how others reach this member");
            }
            std::mem::replace(reached, now.clone()) != now
        });
    }

    /// Takes a peer that others have told of into the routing table if there is room.
    pub(super) fn heard_of(&self, info: PeerInfo) {
        let peer = info.peer;
        self.changed(peer, self.table.heard_of(info));
    }

    /// Takes a peer that has proved who it is into the routing table.
    fn met(&self, info: PeerInfo) {
        let peer = info.peer;
        self.changed(peer, self.table.met(info));
    }

    fn changed(&self, peer: PeerId, heard: Heard) {
        match heard {
            Heard::Entered => self.publish(Event::PeerJoined { peer }),
            Heard::Displaced(other) => {
                self.publish(Event::PeerLeft { peer: other });
                self.publish(Event::PeerJoined { peer });
            }
            Heard::Known | Heard::InReserve | Heard::Myself | Heard::Client => {}
        }
    }

    fn forget(&self, peer: &PeerId) {
        self.left(peer, self.table.remove(peer));
    }

    /// Leaves a peer out of the routing table that takes no part in routing.
    fn leave_out(&self, peer: PeerId) {
        self.left(&peer, self.table.client(peer));
    }

    fn left(&self, peer: &PeerId, removed: Option<Option<PeerId>>) {
        if let Some(moved_up) = removed {
            self.publish(Event::PeerLeft { peer: *peer });
            if let Some(peer) = moved_up {
                self.publish(Event::PeerJoined { peer });
            }
        }
    }

    fn publish(&self, event: Event) {
        // An error means that nobody follows.
        let _ = self.events.send(event);
    }
}

/// An answer that took a while, and the channel it goes back on.
type Finished = (ResponseChannel<ResponseFrame>, ResponseFrame);

/// The swarm and what it needs to be driven.
pub(super) struct EventLoop {
    swarm: Swarm<Behaviour>,
    protocols: Protocols,
    shared: Shared,
    limits: Limits,
    asked: HashMap<OutboundRequestId, oneshot::Sender<Result<ResponseFrame, AskError>>>,
    dial_errors: HashMap<Libp2pPeer, String>,
    working: usize,
    finished: (mpsc::Sender<Finished>, mpsc::Receiver<Finished>),
    silences: Silences,
    on_loopback: HashSet<Libp2pPeer>,
    traversing: Traversing,
}

impl EventLoop {
    /// Builds the swarm and binds its listen addresses.
    pub(super) async fn bind(config: NetworkConfig, key: &Keypair, shared: Shared) -> Result<Self, NetworkError> {
        let addresses = parse_listen(&config.listen)?;
        let with_quic = config.quic || addresses.iter().any(transport::is_quic);
        let protocols = Protocols::new(&config)?;
        let peer = from_libp2p(&key.public().to_peer_id())
            .ok_or_else(|| NetworkError::Transport { why: "the key is not one of ed25519".to_owned() })?;
        let nat = config.nat && !(config.role == Role::Member && are_loopback(&addresses));
        let traversing = nat && config.role != Role::Client && !are_loopback(&addresses);
        let (circuits, relayed) = nat.then(|| relay::client::new(key.public().to_peer_id())).unzip();
        let mut swarm = Swarm::new(
            transport::build(key, with_quic, circuits)?,
            behaviour::build(&config, key, &protocols, relayed, traversing)?,
            key.public().to_peer_id(),
            // V1Lazy: a request goes out together with the name of its protocol, and not a round trip later.
            swarm::Config::with_tokio_executor()
                .with_idle_connection_timeout(config.idle_timeout)
                .with_substream_upgrade_protocol_override(Version::V1Lazy),
        );
        let listening = listen(&mut swarm, addresses).await?;
        for address in &listening {
            swarm.add_external_address(address.clone());
        }
        let listening: Vec<String> = listening.iter().map(Multiaddr::to_string).collect();
        let why = if traversing { "no peer has told yet how it sees this member" } else { "not looked into" };
        let view = ReachView { why: why.to_owned(), ..ReachView::default() };
        shared.reached(Reached { addresses: addresses::best(listening.clone()), view, for_all: true });
        Ok(Self {
            swarm,
            protocols,
            traversing: Traversing::new(peer, listening),
            shared,
            limits: Limits::new(config.rates),
            asked: HashMap::new(),
            dial_errors: HashMap::new(),
            working: 0,
            finished: mpsc::channel(MAX_WORKING),
            silences: Silences::default(),
            on_loopback: HashSet::new(),
        })
    }

    /// Runs until every handle is gone.
    pub(super) async fn run(mut self, responder: Arc<dyn Responder>, mut commands: mpsc::Receiver<Command>) {
        self.traverse();
        loop {
            tokio::select! {
                () = until(self.traversing.wake()) => self.traverse(),
                command = commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                Some((channel, response)) = self.finished.1.recv() => {
                    self.working = self.working.saturating_sub(1);
                    self.respond(channel, response);
                }
                event = self.swarm.select_next_some() => self.on_event(event, &*responder),
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Ask { peer, addresses, frame, reply } => {
                let requests = &mut self.swarm.behaviour_mut().requests;
                let id = requests.send_request_with_addresses(&peer, frame, addresses);
                self.asked.insert(id, reply);
            }
            Command::OpenSip { peer, addresses, reply } => {
                self.swarm.behaviour_mut().streams.open(peer, addresses, reply);
            }
            Command::AcceptSip(reply) => {
                // Whoever wanted the streams may have gone.
                let _ = reply.send(self.swarm.behaviour_mut().streams.accept());
            }
            Command::Silent(peer) => self.on_silent(&peer),
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>, responder: &dyn Responder) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Requests(event)) => {
                self.on_request_event(event, responder);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. })) => {
                self.on_identified(peer_id, &info);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Relayed(event)) => self.on_relay_event(&event),
            SwarmEvent::Behaviour(BehaviourEvent::Nat(event)) => self.on_traversal_event(event),
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(event)) => self.on_announced(event),
            SwarmEvent::NewListenAddr { address, .. } => self.on_listening(&address),
            SwarmEvent::ExpiredListenAddr { address, .. } => self.on_not_listening(&address),
            SwarmEvent::ListenerClosed { listener_id, .. } => self.on_listener_closed(listener_id),
            SwarmEvent::ConnectionEstablished { peer_id, endpoint, num_established, .. } => {
                self.shared.traffic.connections.fetch_add(1, Ordering::Relaxed);
                self.silences.start_again(&peer_id);
                self.dial_errors.remove(&peer_id);
                match &endpoint {
                    ConnectedPoint::Dialer { address, .. } => self.on_dialled(peer_id, address),
                    ConnectedPoint::Listener { send_back_addr, local_addr } if num_established.get() == 1 => {
                        if !is_circuit(local_addr) {
                            self.on_came(peer_id, send_back_addr);
                        }
                    }
                    ConnectedPoint::Listener { .. } => {}
                }
                self.shared.on_seen(peer_id, remote_address(&endpoint));
                if is_loopback(remote_address(&endpoint)) {
                    self.on_loopback.insert(peer_id);
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established, .. } => {
                self.shared.traffic.connections.fetch_sub(1, Ordering::Relaxed);
                if num_established == 0 {
                    self.on_loopback.remove(&peer_id);
                    self.shared.on_gone(&peer_id);
                    self.silences.no_longer_missed(&peer_id);
                    self.on_disconnected(&peer_id);
                }
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                if let DialError::Transport(attempts) = &error {
                    attempts.iter().for_each(|(address, _)| self.on_sent_to(address));
                }
                // A dial that was refused by our own limits or was not needed says nothing about the peer.
                let unreachable =
                    matches!(error, DialError::Transport(_) | DialError::NoAddresses | DialError::WrongPeerId { .. });
                // One that is connected is tried in other ways too, at its own request.
                if unreachable && !self.swarm.is_connected(&peer) {
                    self.forget(&peer);
                }
                if self.dial_errors.len() < MAX_WORKING {
                    self.dial_errors.insert(peer, dial_error(&error));
                }
            }
            _ => {}
        }
    }

    fn on_request_event(
        &mut self,
        event: request_response::Event<RequestFrame, ResponseFrame>,
        responder: &dyn Responder,
    ) {
        match event {
            request_response::Event::Message { peer, message, .. } => match message {
                request_response::Message::Request { request, channel, .. } => {
                    self.on_request(&peer, request, channel, responder);
                }
                request_response::Message::Response { request_id, response } => {
                    if let Some(member) = self.silences.answered(&peer) {
                        self.shared.met(member);
                    }
                    self.answer(request_id, Ok(response));
                }
            },
            request_response::Event::OutboundFailure { peer, request_id, error, .. } => {
                let error = match error {
                    OutboundFailure::DialFailure => AskError::Dial(
                        self.dial_errors.remove(&peer).unwrap_or_else(|| "no address could be reached".to_owned()),
                    ),
                    OutboundFailure::Timeout => AskError::Timeout,
                    OutboundFailure::UnsupportedProtocols => AskError::OtherOverlay,
                    OutboundFailure::Io(error) if speaks_another(&error) => AskError::OtherOverlay,
                    OutboundFailure::ConnectionClosed => AskError::Connection("closed by the peer".to_owned()),
                    OutboundFailure::Io(error) => AskError::Connection(error.to_string()),
                };
                self.answer(request_id, Err(error));
            }
            // The other side did not wait, or sent no frame: nothing is owed to it.
            request_response::Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "inbound request failed");
            }
            request_response::Event::ResponseSent { .. } => {}
        }
    }

    fn on_request(
        &mut self,
        peer: &Libp2pPeer,
        frame: RequestFrame,
        channel: ResponseChannel<ResponseFrame>,
        responder: &dyn Responder,
    ) {
        let Some(caller) = from_libp2p(peer) else {
            // Not an ed25519 peer: it can have no place in this overlay, nor limits of its own.
            let _ = self.swarm.disconnect_peer_id(*peer);
            return;
        };
        if !self.limits.admit(caller, &frame.service, frame.body.len(), Instant::now()) {
            self.shared.traffic.throttled.fetch_add(1, Ordering::Relaxed);
            self.shared.publish(Event::Throttled { peer: caller });
            let error = ErrorReply::new(ErrorCode::Throttled, "too many requests from you for now; try again later");
            return self.respond(channel, ResponseFrame::Error(error));
        }
        self.shared.traffic.served.fetch_add(1, Ordering::Relaxed);
        match responder.respond(Caller::Peer(caller), frame) {
            Answer::Now(response) => self.respond(channel, response),
            Answer::Later(_) if self.working >= MAX_WORKING => {
                let error = ErrorReply::new(ErrorCode::Unavailable, "this member is busy; try another");
                self.respond(channel, ResponseFrame::Error(error));
            }
            Answer::Later(future) => {
                self.working += 1;
                let finished = self.finished.0.clone();
                tokio::spawn(async move {
                    let response = future.await;
                    // The loop is gone: so is the one who asked.
                    let _ = finished.send((channel, response)).await;
                });
            }
        }
    }

    fn respond(&mut self, channel: ResponseChannel<ResponseFrame>, response: ResponseFrame) {
        // The connection may be gone by now, and with it the one who asked.
        let _ = self.swarm.behaviour_mut().requests.send_response(channel, response);
    }

    fn answer(&mut self, id: OutboundRequestId, result: Result<ResponseFrame, AskError>) {
        if let Some(reply) = self.asked.remove(&id) {
            // Whoever asked may have given up.
            let _ = reply.send(result);
        }
    }

    fn on_identified(&mut self, peer: Libp2pPeer, info: &identify::Info) {
        let Some(id) = from_libp2p(&peer).filter(|_| info.protocol_version == self.protocols.version) else { return };
        self.silences.no_longer_missed(&peer);
        // A peer somewhere else tells us nothing by its loopback addresses: those are our own.
        let local = self.on_loopback.contains(&peer);
        let usable = info.listen_addrs.iter().filter(|address| local || !is_loopback(address));
        let addresses: Vec<String> = usable.map(without_peer).filter(|address| direct(address).is_some()).collect();
        if addresses.is_empty() || !info.protocols.contains(&self.protocols.client) {
            // It takes part as a client: nobody could go on from it.
            self.shared.leave_out(id);
        } else {
            self.shared.met(PeerInfo { peer: id, addresses });
        }
        self.on_seen(peer, info);
    }

    /// A peer has not answered in time.
    fn on_silent(&mut self, peer: &Libp2pPeer) {
        if !self.silences.one_more(*peer) {
            return;
        }
        let member = from_libp2p(peer).and_then(|id| self.shared.table.info_of_met(&id));
        if let Some(member) = member.filter(|_| self.swarm.is_connected(peer)) {
            self.silences.miss(*peer, member);
        }
        self.forget(peer);
    }

    /// Takes a peer that cannot be reached out of the routing table; it comes back when it is heard of again.
    fn forget(&mut self, peer: &Libp2pPeer) {
        self.silences.start_again(peer);
        if let Some(id) = from_libp2p(peer) {
            self.shared.forget(&id);
        }
    }
}

fn parse_listen(texts: &[String]) -> Result<Vec<Multiaddr>, NetworkError> {
    let parse = |text: &String| {
        text.parse::<Multiaddr>()
            .map_err(|error| NetworkError::Address { address: text.clone(), why: error.to_string() })
    };
    texts.iter().map(parse).collect()
}

/// Binds every address, and waits for each listener's first address.
async fn listen(swarm: &mut Swarm<Behaviour>, addresses: Vec<Multiaddr>) -> Result<Vec<Multiaddr>, NetworkError> {
    let mut waiting = HashMap::new();
    for address in addresses {
        check_free(&address)?;
        let id = swarm.listen_on(address.clone()).map_err(|error| match error {
            TransportError::MultiaddrNotSupported(address) => NetworkError::Address {
                address: address.to_string(),
                why: "neither /tcp/PORT nor /udp/PORT/quic-v1".to_owned(),
            },
            TransportError::Other(error) => {
                NetworkError::Listen { address: address.to_string(), why: root_cause(&error) }
            }
        })?;
        waiting.insert(id, address);
    }
    let mut bound = Vec::new();
    let deadline = tokio::time::Instant::now() + LISTEN_TIMEOUT;
    while !waiting.is_empty() {
        let event = tokio::time::timeout_at(deadline, swarm.select_next_some()).await;
        match event {
            Ok(SwarmEvent::NewListenAddr { listener_id, address }) => {
                waiting.remove(&listener_id);
                bound.push(address);
            }
            Ok(SwarmEvent::ListenerClosed { listener_id, reason: Err(error), .. }) => {
                if let Some(address) = waiting.remove(&listener_id) {
                    let why = root_cause(&error);
                    return Err(NetworkError::Listen { address: address.to_string(), why });
                }
            }
            Ok(_) => {}
            Err(_) => {
                let address = waiting.values().next().map(Multiaddr::to_string).unwrap_or_default();
                return Err(NetworkError::Listen { address, why: "no network interface has it".to_owned() });
            }
        }
    }
    Ok(bound)
}

/// Says now that a port is taken: libp2p's listeners share a port with any other process of the same user that listens
/// in the same way, and the two would get each other's connections.
fn check_free(address: &Multiaddr) -> Result<(), NetworkError> {
    let mut parts = address.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
        Some(Protocol::Ip6(ip)) => IpAddr::V6(ip),
        _ => return Ok(()),
    };
    let bound = match parts.next() {
        Some(Protocol::Tcp(port)) if port != 0 => std::net::TcpListener::bind((ip, port)).map(drop),
        Some(Protocol::Udp(port)) if port != 0 => std::net::UdpSocket::bind((ip, port)).map(drop),
        _ => Ok(()),
    };
    bound.map_err(|error| NetworkError::Listen { address: address.to_string(), why: spoken(&error.to_string()) })
}

/// What the operating system says, without its number.
fn spoken(text: &str) -> String {
    text.split(" (os error").next().unwrap_or(text).to_owned()
}

/// The innermost cause: libp2p wraps what the operating system says several times over.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    spoken(&cause.to_string())
}

/// Whether a stream ended because the other side does not know our protocol: whoever names it together with the first
/// request learns that when the answer is read.
pub(super) fn speaks_another(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    matches!(cause, Some(NegotiationError::Failed))
}

pub(super) fn dial_error(error: &DialError) -> String {
    match error {
        DialError::Transport(attempts) => attempts
            .iter()
            .map(|(_, error)| match error {
                TransportError::MultiaddrNotSupported(_) => "such addresses are not supported".to_owned(),
                TransportError::Other(error) => root_cause(error),
            })
            .next()
            .unwrap_or_else(|| "no address".to_owned()),
        DialError::WrongPeerId { obtained, .. } => format!("another peer answers there: {obtained}"),
        DialError::NoAddresses => "no address is known".to_owned(),
        other => other.to_string(),
    }
}

pub(super) fn from_libp2p(peer: &Libp2pPeer) -> Option<PeerId> {
    PeerId::from_multihash(&peer.to_bytes())
}

fn remote_address(endpoint: &ConnectedPoint) -> &Multiaddr {
    match endpoint {
        ConnectedPoint::Dialer { address, .. } => address,
        ConnectedPoint::Listener { send_back_addr, .. } => send_back_addr,
    }
}

/// The IP address that a multiaddr begins with, unless it leads through a relay.
fn direct_ip(address: &Multiaddr) -> Option<IpAddr> {
    if address.iter().any(|part| matches!(part, Protocol::P2pCircuit)) {
        return None;
    }
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    }
}

fn is_loopback(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        _ => false,
    }
}

/// The address as text, without a trailing `/p2p/` part.
fn without_peer(address: &Multiaddr) -> String {
    let mut address = address.clone();
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    address.to_string()
}
