//! The handle to a running swarm.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use libp2p::{Multiaddr, identity::Keypair, multiaddr::Protocol};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    task::JoinHandle,
};

use super::{
    CircuitLimits, event_loop,
    streams::{IncomingStreams, PeerStream, Reply},
};
use crate::{
    client::{Call, CodecError, ErrorReply, Event, PeerInfo, Reach, ReachView, RequestFrame, ResponseFrame},
    identity::{DescriptorHash, SecretKey},
    kind::Kind,
    name::{OverlayId, PeerId, Position},
    overlay::{
        Responder,
        limits::Rates,
        table::{RoutingTable, SharedTable},
    },
};

/// Commands that may wait for the event loop before askers are held back.
const COMMAND_QUEUE: usize = 1024;
/// Events a slow follower may fall behind before it loses some.
const EVENT_QUEUE: usize = 1024;

/// What a process is in the overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Answers requests, keeps a routing table, stores records.
    Member,
    /// Takes streams for SIP, and belongs to nobody's routing table.
    Agent,
    /// Asks, and leaves.
    Client,
}

/// How a swarm is to run.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// What it does for others.
    pub role: Role,
    /// The overlay; part of every protocol name.
    pub overlay: OverlayId,
    /// The descriptor's hash; part of every protocol name.
    pub descriptor: DescriptorHash,
    /// Where to listen, as multiaddrs. Empty for a client.
    pub listen: Vec<String>,
    /// Whether to dial over QUIC (a member that listens on QUIC does in any case).
    pub quic: bool,
    /// How long a request may take, dialling included.
    pub request_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Peers in a bucket of the routing table.
    pub bucket_size: usize,
    /// What one peer may ask for.
    pub rates: Rates,
    /// Whether peers are reached through relays too. Who is not a client also finds out how it is reached itself, and a
    /// member relays for others; not if all addresses are on loopback.
    pub nat: bool,
    /// What one circuit through this member may cost it.
    pub circuits: CircuitLimits,
    /// Whether to announce itself, and to find others, on the local network.
    pub mdns: bool,
}

impl NetworkConfig {
    /// The configuration of a one-shot client.
    pub fn client(overlay: OverlayId, descriptor: DescriptorHash, timeout: Duration) -> Self {
        Self { role: Role::Client, request_timeout: timeout, ..Self::member(overlay, descriptor) }
    }

    /// The configuration of a member, with the durations of a long-lived overlay.
    pub fn member(overlay: OverlayId, descriptor: DescriptorHash) -> Self {
        Self {
            role: Role::Member,
            overlay,
            descriptor,
            listen: Vec::new(),
            quic: false,
            request_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(60),
            bucket_size: 20,
            rates: Rates::default(),
            nat: false,
            circuits: CircuitLimits::default(),
            mdns: false,
        }
    }
}

/// Why a swarm did not start.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NetworkError {
    /// An address that is no multiaddr, or one that cannot be listened on.
    #[error("'{address}' is not an address to listen on: {why}; write one like /ip4/0.0.0.0/tcp/4001")]
    Address {
        /// The address as given.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// The operating system refuses the address.
    #[error("cannot listen on {address}: {why}; choose another with --listen")]
    Listen {
        /// The address.
        address: String,
        /// What the operating system says.
        why: String,
    },
    /// The transport cannot be set up.
    #[error("cannot set up the overlay transport: {why}")]
    Transport {
        /// What failed.
        why: String,
    },
}

impl NetworkError {
    /// What sort of failure this is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Address { .. } => Kind::Usage,
            Self::Listen { .. } | Self::Transport { .. } => Kind::Local,
        }
    }
}

/// Why a peer did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// No connection could be made.
    #[error("cannot be dialled: {0}")]
    Dial(String),
    /// No answer within the time.
    #[error("did not answer in time")]
    Timeout,
    /// The peer does not belong to this overlay, or has another descriptor.
    #[error("speaks another protocol: another overlay, or another descriptor of this one")]
    OtherOverlay,
    /// The peer speaks no SIP, or that of another overlay.
    #[error("nobody takes SIP there: no user agent and no proxy peer of this overlay")]
    NoSip,
    /// The connection broke, or what came is not a frame.
    #[error("connection failed: {0}")]
    Connection(String),
    /// The peer answered that it will not serve this.
    #[error("refused: {0}")]
    Refused(ErrorReply),
    /// The request cannot be written.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// This process is shutting down.
    #[error("this member is shutting down")]
    Closed,
}

impl AskError {
    /// What sort of failure this is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Refused(reply) => reply.kind(),
            Self::OtherOverlay => Kind::Untrusted,
            _ => Kind::Unreachable,
        }
    }
}

/// What a swarm has done so far.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Requests answered.
    pub served: AtomicU64,
    /// Requests turned away for their sender's limits.
    pub throttled: AtomicU64,
    /// Requests sent.
    pub asked: AtomicU64,
    /// Connections open at present.
    pub connections: AtomicU64,
}

/// Where and how others reach a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reached {
    /// The addresses, the best first: see [`Network::addresses`].
    pub addresses: Vec<String>,
    /// How, and why so.
    pub view: ReachView,
    /// Whether everybody does so without a relay, for all we know: then this process can store for others.
    pub for_all: bool,
}

pub(super) enum Command {
    Ask {
        peer: libp2p::PeerId,
        addresses: Vec<Multiaddr>,
        frame: RequestFrame,
        reply: oneshot::Sender<Result<ResponseFrame, AskError>>,
    },
    OpenSip {
        peer: libp2p::PeerId,
        addresses: Vec<Multiaddr>,
        reply: Reply,
    },
    AcceptSip(oneshot::Sender<IncomingStreams>),
    Silent(libp2p::PeerId),
}

/// A handle to a running swarm. Cheap to clone; the swarm ends when every handle is gone.
#[derive(Clone)]
pub struct Network {
    pub(super) commands: mpsc::Sender<Command>,
    peer: PeerId,
    shared: event_loop::Shared,
    /// Whether it finds out how others reach it.
    traversing: bool,
}

/// A swarm whose addresses are bound, and which does nothing until it is run.
pub struct Bound {
    event_loop: event_loop::EventLoop,
    commands: mpsc::Receiver<Command>,
}

impl Bound {
    /// Runs the swarm on the current runtime, with `responder` answering what it is asked.
    pub fn run(self, responder: Arc<dyn Responder>) -> JoinHandle<()> {
        tokio::spawn(self.event_loop.run(responder, self.commands))
    }
}

impl Network {
    /// Builds a swarm and binds every listen address.
    ///
    /// # Errors
    /// [`NetworkError`]: an address that cannot be parsed or bound.
    pub async fn bind(config: NetworkConfig, key: &SecretKey) -> Result<(Self, Bound), NetworkError> {
        let keypair = Keypair::ed25519_from_bytes(key.seed())
            .map_err(|error| NetworkError::Transport { why: error.to_string() })?;
        let (commands, receiver) = mpsc::channel(COMMAND_QUEUE);
        let (events, _) = broadcast::channel(EVENT_QUEUE);
        let table = SharedTable::new(RoutingTable::new(key.peer_id().position(), config.bucket_size));
        let shared = event_loop::Shared {
            table,
            traffic: Arc::default(),
            events,
            reached: watch::Sender::default(),
            seen: Arc::default(),
        };
        let event_loop = event_loop::EventLoop::bind(config, &keypair, shared.clone()).await?;
        let network = Self { commands, peer: key.peer_id(), shared, traversing: event_loop.is_traversing() };
        Ok((network, Bound { event_loop, commands: receiver }))
    }

    /// This process's peer id.
    pub const fn peer(&self) -> PeerId {
        self.peer
    }

    /// The addresses at which others reach this process, best first and no more than a record may have
    /// ([`MAX_ADDRESSES`](crate::record::MAX_ADDRESSES)), as multiaddrs without a last `/p2p/` part. They may change
    /// while it runs.
    pub fn addresses(&self) -> Vec<String> {
        self.shared.reached.borrow().addresses.clone()
    }

    /// How others reach this process.
    pub fn reach(&self) -> ReachView {
        self.shared.reached.borrow().view.clone()
    }

    /// Whether everybody reaches this process without a relay, for all we know: then it can store for others.
    pub fn is_for_all(&self) -> bool {
        self.shared.reached.borrow().for_all
    }

    /// Waits until it is known how others reach this process, and there is a way, at most for `timeout`; not at all if
    /// that is not looked into.
    pub async fn settled(&self, timeout: Duration) {
        if !self.traversing {
            return;
        }
        let is_known = |reached: &Reached| !matches!(reached.view.reach, Reach::Unknown | Reach::Not);
        let mut reached = self.shared.reached.subscribe();
        // At the end of the time it is told as it stands; of a swarm that has ended there is no news.
        let _ = tokio::time::timeout(timeout, reached.wait_for(is_known)).await;
    }

    /// Where and how others reach this process, from now on.
    pub fn reached(&self) -> watch::Receiver<Reached> {
        self.shared.reached.subscribe()
    }

    /// The addresses at which a peer that is connected is seen; none, if it is reached through relays alone.
    pub fn seen_at(&self, peer: &PeerId) -> Vec<IpAddr> {
        to_libp2p(peer).map(|peer| self.shared.seen_at(&peer)).unwrap_or_default()
    }

    /// This process as others see it.
    pub fn myself(&self) -> PeerInfo {
        PeerInfo { peer: self.peer, addresses: self.addresses() }
    }

    /// The routing table.
    pub const fn table(&self) -> &SharedTable {
        &self.shared.table
    }

    /// The counters.
    pub fn traffic(&self) -> &Traffic {
        &self.shared.traffic
    }

    /// The channel on which events are published; subscribe to follow them.
    pub const fn events(&self) -> &broadcast::Sender<Event> {
        &self.shared.events
    }

    /// The peers of the routing table closest to `target`, nearest first.
    pub fn closest(&self, target: &Position, count: usize) -> Vec<PeerInfo> {
        self.shared.table.closest(target, count)
    }

    /// Sends a typed request and waits for its reply, at most for `timeout`.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn call<C: Call>(&self, to: &PeerInfo, call: &C, timeout: Duration) -> Result<C::Reply, AskError> {
        let response = self.ask(to, RequestFrame::of(call)?, timeout).await?;
        response.reply::<C>().map_err(AskError::Refused)
    }

    /// Sends a frame and waits for the answer, at most for `timeout`. A peer that stays silent loses its place in
    /// the routing table.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn ask(&self, to: &PeerInfo, frame: RequestFrame, timeout: Duration) -> Result<ResponseFrame, AskError> {
        let peer = to_libp2p(&to.peer)?;
        let addresses = to.addresses.iter().filter_map(|address| dialable(address)).collect();
        self.shared.traffic.asked.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        let command = Command::Ask { peer, addresses, frame, reply };
        self.commands.send(command).await.map_err(|_| AskError::Closed)?;
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(AskError::Closed),
            Err(_) => {
                // A full queue must not hold up the asker: the hint is worth nothing then.
                let _ = self.commands.try_send(Command::Silent(peer));
                Err(AskError::Timeout)
            }
        }
    }

    /// Opens a stream for SIP to a peer, dialling it if need be, at most for `timeout`.
    ///
    /// # Errors
    /// [`AskError`]; [`AskError::NoSip`] if the peer takes none.
    pub async fn open_sip(&self, to: &PeerInfo, timeout: Duration) -> Result<PeerStream, AskError> {
        let peer = to_libp2p(&to.peer)?;
        let addresses = to.addresses.iter().filter_map(|address| dialable(address)).collect();
        let (reply, opened) = oneshot::channel();
        let command = Command::OpenSip { peer, addresses, reply };
        self.commands.send(command).await.map_err(|_| AskError::Closed)?;
        match tokio::time::timeout(timeout, opened).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(AskError::Connection("closed before the stream was open".to_owned())),
            Err(_) => Err(AskError::Timeout),
        }
    }

    /// The streams for SIP that peers open, each with its authenticated peer. Before the first call none are accepted;
    /// after a second one the first receiver gets no more. Dropping the receiver ends it.
    ///
    /// # Errors
    /// [`AskError::Closed`].
    pub async fn incoming_sip(&self) -> Result<IncomingStreams, AskError> {
        let (reply, accepted) = oneshot::channel();
        self.commands.send(Command::AcceptSip(reply)).await.map_err(|_| AskError::Closed)?;
        accepted.await.map_err(|_| AskError::Closed)
    }

    /// Takes peers that others told of into the routing table, where it has room.
    pub fn heard_of(&self, peers: impl IntoIterator<Item = PeerInfo>) {
        for mut info in peers {
            info.addresses.retain(|address| direct(address).is_some());
            if !info.addresses.is_empty() {
                self.shared.heard_of(info);
            }
        }
    }
}

/// The peer's id as libp2p has it.
pub(super) fn to_libp2p(peer: &PeerId) -> Result<libp2p::PeerId, AskError> {
    libp2p::PeerId::from_bytes(&peer.multihash()).map_err(|error| AskError::Dial(error.to_string()))
}

/// The address as libp2p has it, if it is one that we dial: an IP address with TCP or QUIC, or a circuit through a relay
/// at such an address.
pub(super) fn dialable(text: &str) -> Option<Multiaddr> {
    let Some((relay, "")) = text.split_once("/p2p-circuit") else { return direct(text) };
    let (address, peer) = relay.rsplit_once("/p2p/")?;
    peer.parse::<libp2p::PeerId>().ok()?;
    direct(address)?;
    text.parse().ok()
}

/// The address as libp2p has it, if it is one at which a peer is reached without a relay: an IP address with TCP or
/// QUIC.
pub(super) fn direct(text: &str) -> Option<Multiaddr> {
    let address: Multiaddr = text.parse().ok()?;
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    let usable = !ip.is_unspecified() && !ip.is_multicast();
    let transport = match (parts.next()?, parts.next(), parts.next()) {
        (Protocol::Tcp(port), None, None) => port != 0,
        (Protocol::Udp(port), Some(Protocol::QuicV1), None) => port != 0,
        _ => false,
    };
    (usable && transport).then_some(address)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::{
        client::{Closest, ClosestReply},
        identity::{Descriptor, Limits, Policy},
        overlay::{Answer, Caller},
    };

    /// A member's responder that sometimes keeps everybody waiting.
    #[derive(Default)]
    struct Sluggish(AtomicBool);

    impl Responder for Sluggish {
        fn respond(&self, _: Caller, _: RequestFrame) -> Answer {
            if self.0.load(Ordering::Relaxed) {
                return Answer::Later(Box::pin(std::future::pending()));
            }
            Answer::Now(ResponseFrame::of::<Closest>(Ok(&ClosestReply { peers: Vec::new() })))
        }
    }

    async fn member(responder: Arc<Sluggish>) -> Network {
        let overlay = OverlayId::parse("p2psip.org").unwrap();
        let descriptor = Descriptor::new(overlay.clone(), false, Policy::Open, None, Limits::default()).unwrap();
        let mut config = NetworkConfig::member(overlay, descriptor.hash());
        config.listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
        let (network, bound) = Network::bind(config, &SecretKey::generate().unwrap()).await.unwrap();
        bound.run(responder);
        network
    }

    #[tokio::test]
    async fn a_peer_that_was_slow_for_a_while_counts_again_once_it_answers() {
        let slow = Arc::new(Sluggish::default());
        let (one, other) = (member(Arc::default()).await, member(slow.clone()).await);
        let (info, position) = (other.myself(), other.peer().position());
        let ask = async |timeout| one.call(&info, &Closest { target: position, count: 1 }, timeout).await;
        let met = || !one.table().closest_met(&position, 1).is_empty();
        let until = async |wanted: bool| {
            let waiting = async {
                while met() != wanted {
                    tokio::time::sleep(Duration::from_millis(5)).await
                }
            };
            tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap();
        };
        ask(Duration::from_secs(10)).await.unwrap();
        until(true).await;
        slow.0.store(true, Ordering::Relaxed);
        for _ in 0..2 {
            assert_eq!(ask(Duration::from_millis(50)).await, Err(AskError::Timeout));
        }
        until(false).await;
        // Hearsay does not make it a neighbour again, an answer does, over the connection that has been there throughout.
        one.heard_of([info.clone()]);
        assert!(!met());
        slow.0.store(false, Ordering::Relaxed);
        ask(Duration::from_secs(10)).await.unwrap();
        until(true).await;
        assert_eq!(one.table().closest_met(&position, 1), std::slice::from_ref(&info));
    }

    #[test]
    fn only_addresses_that_can_be_dialled_are_dialled() {
        for good in ["/ip4/127.0.0.1/tcp/4001", "/ip6/::1/tcp/1", "/ip4/192.0.2.1/udp/4001/quic-v1"] {
            assert!(dialable(good).is_some(), "{good}");
        }
        for bad in ["", "/ip4/0.0.0.0/tcp/1", "/ip4/224.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/0", "/dns4/a.example/tcp/1"] {
            assert!(dialable(bad).is_none(), "{bad}");
        }
        assert!(dialable("/ip4/127.0.0.1/udp/53").is_none());
        let relay = SecretKey::generate().unwrap().peer_id();
        let circuit = format!("/ip4/192.0.2.1/tcp/4001/p2p/{relay}/p2p-circuit");
        assert!(dialable(&circuit).is_some() && direct(&circuit).is_none());
        for bad in ["/p2p-circuit", "/ip4/192.0.2.1/tcp/4001/p2p-circuit", &format!("{circuit}{circuit}")] {
            assert!(dialable(bad).is_none(), "{bad}");
        }
        assert!(dialable("/memory/1").is_none());
    }
}
