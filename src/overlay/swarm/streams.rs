//! Raw streams between two peers, for SIP: opened to a peer, dialling it if need be, and accepted from peers.
//!
//! Why not libp2p-stream: it hands incoming streams over through a queue without room, so that of two that come at
//! once one is lost, it dials without the addresses that a routing record gives, and has no limit for a peer.
//!
//! Whoever accepts a stream begins it with CRLF, which is nothing in SIP (RFC 3261 §7.5): protocols are named together
//! with the first request, so only this tells the opener that the other side speaks its own.

use std::{
    collections::{HashMap, VecDeque},
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId as Libp2pPeer, Stream, StreamProtocol,
    core::{
        Endpoint,
        transport::PortUse,
        upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo},
    },
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, DialError, FromSwarm,
        NetworkBehaviour, NotifyHandler, StreamUpgradeError, SubstreamProtocol, THandlerInEvent, ToSwarm,
        derive_prelude::{ConnectionClosed, ConnectionEstablished, DialFailure},
        dial_opts::{DialOpts, PeerCondition},
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{mpsc, oneshot},
};

use super::{
    AskError,
    event_loop::{dial_error, from_libp2p, speaks_another},
};
use crate::name::PeerId;

/// Accepted streams of one peer at a time: one carries any number of calls.
const MAX_PER_PEER: usize = 4;
/// Accepted streams of all peers at a time.
const MAX_ACCEPTED: usize = 1024;
/// Accepted streams that wait for their reader.
const ACCEPT_QUEUE: usize = 64;
/// Streams that may be wanted of a peer while it is dialled.
const MAX_WAITING: usize = 64;

/// A stream to a peer whose id is authenticated. Dropping it closes it.
pub struct PeerStream {
    stream: Stream,
    _place: Option<Place>,
}

/// What an accepted stream counts against for as long as it lives.
struct Place {
    _of_peer: Arc<()>,
    _of_all: Arc<()>,
}

impl AsyncRead for PeerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer.initialize_unfilled());
        read.map_ok(|count| buffer.advance(count))
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// Accepted streams, with the peers that opened them.
pub type IncomingStreams = mpsc::Receiver<(PeerId, PeerStream)>;

/// Where an opened stream, or why there is none, is to be told.
pub(super) type Reply = oneshot::Sender<Result<PeerStream, AskError>>;

/// An order to a connection's handler: open a stream.
#[derive(Debug)]
pub(super) struct Open(Reply);

impl std::fmt::Debug for PeerStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PeerStream")
    }
}

/// A peer that is being dialled, and who waits for it.
struct Dialling {
    peer: Libp2pPeer,
    waiting: Vec<Reply>,
}

/// The behaviour: which connections there are, who waits for one, how many streams were accepted.
pub(super) struct Behaviour {
    protocol: StreamProtocol,
    accepting: Arc<AtomicBool>,
    incoming: Option<mpsc::Sender<(PeerId, PeerStream)>>,
    connected: HashMap<Libp2pPeer, Vec<ConnectionId>>,
    dialling: HashMap<ConnectionId, Dialling>,
    actions: VecDeque<ToSwarm<(), Open>>,
    accepted: Arc<()>,
    accepted_of: HashMap<PeerId, Arc<()>>,
}

impl Behaviour {
    pub(super) fn new(protocol: StreamProtocol) -> Self {
        Self {
            protocol,
            accepting: Arc::default(),
            incoming: None,
            connected: HashMap::new(),
            dialling: HashMap::new(),
            actions: VecDeque::new(),
            accepted: Arc::default(),
            accepted_of: HashMap::new(),
        }
    }

    /// Accepts streams from now on; whoever accepted them before gets no more.
    pub(super) fn accept(&mut self) -> IncomingStreams {
        let (sender, receiver) = mpsc::channel(ACCEPT_QUEUE);
        self.incoming = Some(sender);
        self.accepting.store(true, Ordering::Relaxed);
        receiver
    }

    /// Opens a stream, over a connection that is there or by dialling.
    pub(super) fn open(&mut self, peer: Libp2pPeer, addresses: Vec<Multiaddr>, reply: Reply) {
        if let Some(connection) = self.connected.get(&peer).and_then(|all| all.first()) {
            self.actions.push_back(order(peer, *connection, reply));
        } else if let Some(dialling) = self.dialling.values_mut().find(|dialling| dialling.peer == peer) {
            dialling.waiting.retain(|reply| !reply.is_closed());
            if dialling.waiting.len() < MAX_WAITING {
                dialling.waiting.push(reply);
            } else {
                let _ = reply.send(Err(AskError::Dial("too many streams are wanted of it at once".to_owned())));
            }
        } else {
            let opts = DialOpts::peer_id(peer)
                .addresses(addresses)
                .extend_addresses_through_behaviour()
                .condition(PeerCondition::Disconnected)
                .build();
            self.dialling.insert(opts.connection_id(), Dialling { peer, waiting: vec![reply] });
            self.actions.push_back(ToSwarm::Dial { opts });
        }
    }

    fn on_connected(&mut self, peer: Libp2pPeer, connection: ConnectionId, relayed: bool) {
        let connections = self.connected.entry(peer).or_default();
        // The first one carries what is opened next: a circuit through a relay only if there is nothing better.
        connections.insert(if relayed { connections.len() } else { 0 }, connection);
        let ready = self.dialling.iter().filter(|(_, dialling)| dialling.peer == peer).map(|(id, _)| *id);
        for id in ready.collect::<Vec<_>>() {
            let waiting = self.dialling.remove(&id).map(|dialling| dialling.waiting).unwrap_or_default();
            self.actions.extend(waiting.into_iter().map(|reply| order(peer, connection, reply)));
        }
    }

    fn on_closed(&mut self, peer: Libp2pPeer, connection: ConnectionId) {
        if let Some(connections) = self.connected.get_mut(&peer) {
            connections.retain(|id| *id != connection);
            if connections.is_empty() {
                self.connected.remove(&peer);
            }
        }
        self.accepted_of.retain(|_, streams| Arc::strong_count(streams) > 1);
    }

    fn on_dial_failure(&mut self, connection: ConnectionId, error: &DialError) {
        let Some(Dialling { peer, waiting }) = self.dialling.remove(&connection) else { return };
        let connected = self.connected.get(&peer).and_then(|all| all.first()).copied();
        for reply in waiting {
            match connected {
                Some(connection) => self.actions.push_back(order(peer, connection, reply)),
                // Whoever asked may have given up.
                None => _ = reply.send(Err(AskError::Dial(dial_error(error)))),
            }
        }
    }

    fn on_stream(&mut self, peer: &Libp2pPeer, stream: Stream) {
        let Some(peer) = from_libp2p(peer) else { return };
        let Some(incoming) = &self.incoming else { return };
        let of_peer = self.accepted_of.entry(peer).or_default();
        // The one of the field itself does not count.
        if Arc::strong_count(of_peer) > MAX_PER_PEER || Arc::strong_count(&self.accepted) > MAX_ACCEPTED {
            tracing::debug!(%peer, "one stream too many: closed");
            return;
        }
        let place = Place { _of_peer: of_peer.clone(), _of_all: self.accepted.clone() };
        match incoming.try_send((peer, PeerStream { stream, _place: Some(place) })) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => tracing::debug!(%peer, "no reader in time: stream closed"),
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.incoming = None;
                self.accepting.store(false, Ordering::Relaxed);
            }
        }
    }

    fn handler(&self) -> Handler {
        Handler {
            protocol: self.protocol.clone(),
            accepting: self.accepting.clone(),
            orders: VecDeque::new(),
            accepted: VecDeque::new(),
        }
    }
}

fn order(peer_id: Libp2pPeer, connection: ConnectionId, reply: Reply) -> ToSwarm<(), Open> {
    ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(connection), event: Open(reply) }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = ();

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: Libp2pPeer,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: Libp2pPeer,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, endpoint, .. }) => {
                self.on_connected(peer_id, connection_id, endpoint.is_relayed());
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                self.on_closed(peer_id, connection_id);
            }
            FromSwarm::DialFailure(DialFailure { connection_id, error, .. }) => {
                self.on_dial_failure(connection_id, error);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: Libp2pPeer, _: ConnectionId, stream: Stream) {
        self.on_stream(&peer, stream);
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<(), THandlerInEvent<Self>>> {
        // Whoever fills the queue does so through the swarm, which polls again.
        self.actions.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// One connection: opens what is ordered, passes up what the other side opens.
pub(super) struct Handler {
    protocol: StreamProtocol,
    accepting: Arc<AtomicBool>,
    orders: VecDeque<Reply>,
    accepted: VecDeque<Stream>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = Stream;
    type InboundProtocol = Raw;
    type OutboundProtocol = Raw;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Reply;

    fn listen_protocol(&self) -> SubstreamProtocol<Raw, ()> {
        let accepting = self.accepting.load(Ordering::Relaxed);
        SubstreamProtocol::new(Raw(accepting.then(|| self.protocol.clone())), ())
    }

    fn connection_keep_alive(&self) -> bool {
        !self.orders.is_empty()
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Raw, Reply, Stream>> {
        if let Some(stream) = self.accepted.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(stream));
        }
        while let Some(reply) = self.orders.pop_front() {
            if !reply.is_closed() {
                let protocol = SubstreamProtocol::new(Raw(Some(self.protocol.clone())), reply);
                return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
            }
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, Open(reply): Open) {
        self.orders.push_back(reply);
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Raw, Raw, (), Reply>) {
        match event {
            // More at once than may be kept are not even passed up.
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. })
                if self.accepted.len() < MAX_PER_PEER =>
            {
                self.accepted.push_back(stream);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, info: reply }) => {
                // Whoever asked may have given up: the stream closes.
                let _ = reply.send(Ok(PeerStream { stream, _place: None }));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: reply, error }) => {
                let _ = reply.send(Err(match error {
                    StreamUpgradeError::Timeout => AskError::Timeout,
                    StreamUpgradeError::NegotiationFailed => AskError::NoSip,
                    StreamUpgradeError::Io(error) | StreamUpgradeError::Apply(error) => {
                        if speaks_another(&error) {
                            AskError::NoSip
                        } else {
                            AskError::Connection(error.to_string())
                        }
                    }
                }));
            }
            _ => {}
        }
    }
}

/// The stream itself, once it is confirmed. Without a protocol nothing is accepted.
#[derive(Debug, Clone)]
pub(super) struct Raw(Option<StreamProtocol>);

/// What an accepted stream begins with.
const CONFIRMATION: [u8; 2] = *b"\r\n";

impl UpgradeInfo for Raw {
    type Info = StreamProtocol;
    type InfoIter = std::option::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Raw {
    type Output = Stream;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Stream>>;

    fn upgrade_inbound(self, mut stream: Stream, _: StreamProtocol) -> Self::Future {
        Box::pin(async move {
            stream.write_all(&CONFIRMATION).await?;
            stream.flush().await?;
            Ok(stream)
        })
    }
}

impl OutboundUpgrade<Stream> for Raw {
    type Output = Stream;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Stream>>;

    fn upgrade_outbound(self, mut stream: Stream, _: StreamProtocol) -> Self::Future {
        Box::pin(async move {
            stream.flush().await?;
            let mut begin = [0; 2];
            stream.read_exact(&mut begin).await?;
            if begin == CONFIRMATION { Ok(stream) } else { Err(io::ErrorKind::InvalidData.into()) }
        })
    }
}
