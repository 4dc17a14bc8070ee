//! The sockets of SIP: binds them, accepts, dials, and finds for each message the connection that carries it.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::Handle,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, rustls};

use super::{
    FlowId, Hop, Protocol, Remote, Source,
    config::{Config, Limits, SendError, TransportError},
    connection::{Connection, Line, Outgoing, Queue, QueueError},
    counters::{Counters, DropReason, count},
    overlay::{BoxedStream, OverlayDialer},
    table::{Key, Table, group},
    tls::{self, Tls},
    udp::{self, UdpPort, UdpReader},
    undelivered::Undelivered,
    via::over_tcp,
};
use crate::{
    name::PeerId,
    sip::{Message, tap::Tap},
};

/// Names what was given to [`Transports::send`], so that its sender knows what failed.
pub type Token = u64;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// The pause when no connection can be accepted: the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Datagrams read before other tasks of the thread have their turn.
const UDP_TURN: usize = 64;

/// What the transports report.
#[derive(Debug)]
pub enum Event {
    /// A message came.
    Message {
        /// The message.
        message: Message,
        /// Where it came from.
        source: Source,
    },
    /// What was given to [`Transports::send`] was not sent, or perhaps in part.
    Failed {
        /// What.
        token: Token,
        /// Why not.
        error: SendError,
    },
    /// A datagram that was sent did not arrive; whose it is, its transaction knows.
    Undelivered(Undelivered),
    /// A connection or overlay stream ended.
    Closed {
        /// Which one.
        flow: FlowId,
        /// The other side.
        remote: Remote,
    },
}

/// Transports whose addresses are bound.
pub struct Bound {
    /// What sends.
    pub transports: Transports,
    /// What came over connections and streams, and what could not be sent. Ends when the last [`Transports`] is
    /// gone, and all that it started with it.
    pub events: mpsc::Receiver<Event>,
    /// The UDP sockets, to be read by whoever wants to ([`UdpPort::reader`]), or by [`Transports::serve_udp`].
    pub udp: Vec<UdpPort>,
}

/// The handle to all transports. Cheap to clone; when the last one is gone everything is closed.
#[derive(Clone)]
pub struct Transports {
    core: Core,
    _stop: Arc<watch::Sender<()>>,
}

/// What each task has: when it runs, the receiver of events does not end.
#[derive(Clone)]
struct Core {
    shared: Arc<Shared>,
    events: mpsc::Sender<Event>,
    /// Changes, with an error, when the last handle is gone.
    stop: watch::Receiver<()>,
}

struct Shared {
    limits: Limits,
    counters: Arc<Counters>,
    udp: Vec<UdpPort>,
    listening: Vec<(Protocol, SocketAddr)>,
    tls: Tls,
    overlay: Option<Box<dyn OverlayDialer>>,
    runtime: Handle,
    table: Mutex<Table>,
    next_flow: AtomicU64,
    tap: Option<Tap>,
}

impl Transports {
    /// Binds every address and starts to accept, on the current runtime.
    ///
    /// # Errors
    /// [`TransportError`]: an address in use, a certificate that cannot be read.
    pub fn bind(config: Config) -> Result<Bound, TransportError> {
        let tls = Tls::new(&config.tls)?;
        let counters = Arc::<Counters>::default();
        let next_flow = AtomicU64::new(1);
        let (mut udp, mut listeners, mut listening) = (Vec::new(), Vec::new(), Vec::new());
        for &(protocol, address) in &config.listen {
            let only_v6 = has_ipv4_sibling(&config.listen, protocol, address);
            let refused = |why: io::Error| TransportError::Listen { protocol, address, why: Arc::new(why) };
            match protocol {
                Protocol::Udp => {
                    let next = || FlowId(next_flow.fetch_add(1, Ordering::Relaxed));
                    let shards = config.udp_shards.max(1);
                    let ports = UdpPort::bind(address, only_v6, shards, next, &counters).map_err(refused)?;
                    listening.extend(ports.first().map(|port| (protocol, port.local())));
                    udp.extend(ports);
                }
                Protocol::Tcp | Protocol::Tls => {
                    let acceptor = if protocol == Protocol::Tls {
                        Some(tls.acceptor()?.ok_or(TransportError::NoCertificate { address })?)
                    } else {
                        None
                    };
                    let listener = listener(address, only_v6).map_err(refused)?;
                    listening.push((protocol, listener.local_addr().map_err(refused)?));
                    listeners.push((protocol, listener, acceptor));
                }
                // Its streams come from elsewhere.
                Protocol::Overlay => {}
            }
        }
        let (overlay, incoming) = config.overlay.map(|port| (port.dialer, port.incoming)).unzip();
        let (events, receiver) = mpsc::channel(config.limits.events.max(1));
        let (stop, stopping) = watch::channel(());
        let shared = Shared {
            limits: config.limits,
            counters,
            udp: udp.clone(),
            listening,
            tls,
            overlay,
            runtime: Handle::current(),
            table: Mutex::default(),
            next_flow,
            tap: config.tap,
        };
        let core = Core { shared: Arc::new(shared), events, stop: stopping };
        for (protocol, listener, acceptor) in listeners {
            tokio::spawn(core.clone().accept(protocol, listener, acceptor));
        }
        if let Some(incoming) = incoming {
            tokio::spawn(core.clone().accept_streams(incoming));
        }
        Ok(Bound { transports: Self { core, _stop: Arc::new(stop) }, events: receiver, udp })
    }

    /// The bound addresses of UDP, TCP and TLS.
    pub fn listening(&self) -> &[(Protocol, SocketAddr)] {
        &self.core.shared.listening
    }

    /// What was received, sent and dropped so far.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.core.shared.counters
    }

    /// Whether a hop's transport is spoken here at all. TCP and TLS can always be dialled.
    pub fn speaks(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Udp => !self.core.shared.udp.is_empty(),
            Protocol::Tcp | Protocol::Tls => true,
            Protocol::Overlay => self.core.shared.overlay.is_some(),
        }
    }

    /// Sends a message: a datagram at once, anything else by the connection to the hop, which is opened if there is
    /// none. Never waits; any thread may call it. What fails later is reported as [`Event::Failed`] with the token.
    ///
    /// # Errors
    /// [`SendError`], if it is already known that the message cannot be sent; then no event follows.
    pub fn send(&self, hop: &Hop, bytes: Bytes, token: Token) -> Result<(), SendError> {
        if hop.protocol == Protocol::Udp {
            return self.core.send_datagram(hop, bytes, token);
        }
        self.core.queue(hop, Outgoing { bytes, token, datagram: None })
    }

    /// Reads UDP sockets on the current runtime, and reports what comes with the events of the connections.
    ///
    /// # Errors
    /// What the operating system says: no more file descriptors.
    pub fn serve_udp(&self, ports: &[UdpPort]) -> io::Result<()> {
        for port in ports {
            tokio::spawn(self.core.clone().read_datagrams(port.reader()?));
        }
        Ok(())
    }
}

impl Shared {
    fn datagram(&self, hop: &Hop, bytes: &Bytes) -> Result<(), SendError> {
        let port = udp::choose(&self.udp, hop).ok_or_else(|| SendError::NoSocket { hop: Box::new(hop.clone()) })?;
        self.note_sent(Protocol::Udp, bytes);
        port.try_send(hop, bytes)
    }

    fn note_sent(&self, protocol: Protocol, bytes: &Bytes) {
        if let Some(tap) = &self.tap {
            tap.sent(protocol, bytes);
        }
    }

    fn flow(&self) -> FlowId {
        FlowId(self.next_flow.fetch_add(1, Ordering::Relaxed))
    }
}

impl Core {
    fn send_datagram(&self, hop: &Hop, bytes: Bytes, token: Token) -> Result<(), SendError> {
        // A response's length is the business of whoever asked.
        if bytes.len() > self.shared.limits.datagram
            && let Ok(message) = Message::parse(bytes.clone())
            && let Some((over, changed)) = over_tcp(&message, hop, self.shared.limits.datagram)
        {
            return self.queue(&over, Outgoing { bytes: changed, token, datagram: Some(bytes) });
        }
        self.shared.datagram(hop, &bytes)
    }

    fn queue(&self, hop: &Hop, mut message: Outgoing) -> Result<(), SendError> {
        let shared = &self.shared;
        let boxed = || Box::new(hop.clone());
        shared.note_sent(hop.protocol, &message.bytes);
        let mut table = lock(&shared.table);
        if let Some(flow) = table.find(hop) {
            match table.push(flow, message) {
                Ok(()) => return Ok(()),
                Err(QueueError::Stalled) => {
                    table.forget(flow);
                    return Err(SendError::Stalled { hop: boxed() });
                }
                Err(QueueError::Ended(returned)) => message = returned,
            }
        }
        let usable = match hop.remote {
            Remote::Socket(address) => hop.protocol != Protocol::Overlay && address.port() != 0,
            Remote::Peer(_) => hop.protocol == Protocol::Overlay && shared.overlay.is_some(),
        };
        if !usable {
            shared.counters.lose(DropReason::NoWayBack);
            return Err(SendError::NoSocket { hop: boxed() });
        }
        if table.len() >= shared.limits.connections {
            shared.counters.lose(DropReason::Crowded);
            return Err(SendError::Crowded { hop: boxed() });
        }
        let flow = shared.flow();
        let (line, queue) = Line::new(&shared.limits);
        // A new queue has room for one.
        let _ = line.push(message);
        table.add(flow, line, Key::of(hop), None);
        drop(table);
        shared.runtime.spawn(self.clone().dial(flow, hop.clone(), queue));
        Ok(())
    }

    async fn dial(self, flow: FlowId, hop: Hop, queue: Queue) {
        let limits = self.shared.limits;
        let mut stop = self.stop.clone();
        let dialled = tokio::select! {
            dialled = timeout(limits.connect, self.shared.connect(&hop)) => dialled,
            _ = stop.changed() => Ok(Err(io::Error::other("shutting down"))),
        };
        let error = match dialled {
            Ok(Ok((stream, source))) => {
                let source = Source { flow, ..source };
                count(&self.shared.counters.traffic(hop.protocol).opened);
                return self.run(stream, source, queue, true).await;
            }
            Ok(Err(error)) => send_error(&hop, &error),
            Err(_) => SendError::Unreachable { hop: Box::new(hop.clone()), why: "no connection in time".to_owned() },
        };
        self.end(flow, queue, &error).await;
    }

    /// Carries a connection until it ends.
    async fn run(self, stream: BoxedStream, source: Source, mut queue: Queue, dialled: bool) {
        let open = &self.shared.counters.traffic(source.protocol).open;
        let hop = source.way_back();
        let flow = source.flow;
        let mut connection = Connection {
            source,
            dialled,
            limits: self.shared.limits,
            events: self.events.clone(),
            counters: self.shared.counters.clone(),
            stop: self.stop.clone(),
            tap: self.shared.tap.clone(),
        };
        open.fetch_add(1, Ordering::Relaxed);
        let end = connection.run(stream, &mut queue).await;
        open.fetch_sub(1, Ordering::Relaxed);
        tracing::debug!(%hop, %end, "connection ended");
        let error = SendError::Unreachable { hop: Box::new(hop), why: end.to_string() };
        self.end(flow, queue, &error).await;
    }

    /// Takes the connection out of the table, so that nothing more is queued, and tells what was not sent.
    async fn end(&self, flow: FlowId, queue: Queue, error: &SendError) {
        lock(&self.shared.table).forget(flow);
        for message in queue.rest().await {
            if let (Some(datagram), SendError::Unreachable { hop, .. }) = (&message.datagram, error) {
                let hop = Hop { protocol: Protocol::Udp, flow: None, ..(**hop).clone() };
                if self.shared.datagram(&hop, datagram).is_ok() {
                    continue;
                }
            }
            let failed = Event::Failed { token: message.token, error: error.clone() };
            // Nobody reads any more: then nobody waits for it either.
            let _ = self.events.send(failed).await;
        }
        let _ = self.events.send(Event::Closed { flow, remote: error.hop().remote }).await;
    }

    async fn accept(self, protocol: Protocol, listener: TcpListener, acceptor: Option<TlsAcceptor>) {
        let mut stop = self.stop.clone();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.changed() => return,
            };
            let Ok((stream, remote)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(local) = stream.local_addr() else { continue };
            let source = Source::socket(protocol, remote, local, self.shared.flow());
            let Some(queue) = self.admit(&source) else { continue };
            tokio::spawn(self.clone().handshake(stream, acceptor.clone(), source, queue));
        }
    }

    /// Takes an accepted connection into the table, if there is room.
    fn admit(&self, source: &Source) -> Option<Queue> {
        let limits = &self.shared.limits;
        let group = source.remote.ip().map(group);
        let mut table = lock(&self.shared.table);
        let of_group = group.map(|group| table.accepted_from(&group)).unwrap_or_default();
        if table.len() >= limits.connections || of_group >= limits.connections_per_source {
            self.shared.counters.lose(DropReason::Crowded);
            return None;
        }
        let (line, queue) = Line::new(limits);
        table.add(source.flow, line, Key::of(&source.way_back()), group);
        Some(queue)
    }

    async fn handshake(self, stream: TcpStream, acceptor: Option<TlsAcceptor>, mut source: Source, queue: Queue) {
        // Without it small messages wait for acknowledgements of earlier ones; that it fails is no reason to end.
        let _ = stream.set_nodelay(true);
        let stream: BoxedStream = match acceptor {
            None => Box::new(stream),
            Some(acceptor) => match timeout(self.shared.limits.connect, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    source.domains = proven(stream.get_ref().1.peer_certificates());
                    Box::new(stream)
                }
                failed => {
                    let slow = failed.is_err();
                    self.shared.counters.lose(if slow { DropReason::Slow } else { DropReason::Handshake });
                    let why = "the TLS handshake failed".to_owned();
                    let error = SendError::Unreachable { hop: Box::new(source.way_back()), why };
                    return self.end(source.flow, queue, &error).await;
                }
            },
        };
        count(&self.shared.counters.traffic(source.protocol).accepted);
        self.run(stream, source, queue, false).await;
    }

    async fn accept_streams(self, mut incoming: mpsc::Receiver<(PeerId, BoxedStream)>) {
        let mut stop = self.stop.clone();
        loop {
            let accepted = tokio::select! {
                accepted = incoming.recv() => accepted,
                _ = stop.changed() => return,
            };
            let Some((peer, stream)) = accepted else { return };
            let source = Source::peer(peer, self.shared.flow());
            if let Some(queue) = self.admit(&source) {
                count(&self.shared.counters.traffic(Protocol::Overlay).accepted);
                tokio::spawn(self.clone().run(stream, source, queue, false));
            }
        }
    }

    async fn read_datagrams(self, mut reader: UdpReader) {
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                readable = reader.readable() => if readable.is_err() { return },
                _ = stop.changed() => return,
            }
            while let Some(undelivered) = reader.undelivered() {
                if self.events.send(Event::Undelivered(undelivered)).await.is_err() {
                    return;
                }
            }
            for _ in 0..UDP_TURN {
                let Some((message, source)) = reader.try_message() else { break };
                if let Some(tap) = &self.shared.tap {
                    tap.received(message.bytes());
                }
                if self.events.send(Event::Message { message, source }).await.is_err() {
                    return;
                }
            }
        }
    }
}

impl Shared {
    /// Makes a connection or opens a stream. The flow of the source is not yet the right one.
    async fn connect(&self, hop: &Hop) -> io::Result<(BoxedStream, Source)> {
        let address = match (hop.remote, &self.overlay) {
            (Remote::Socket(address), _) => address,
            (Remote::Peer(peer), Some(overlay)) => {
                let stream = overlay.open(peer, &hop.addresses).await?;
                return Ok((stream, Source::peer(peer, FlowId(0))));
            }
            (Remote::Peer(_), None) => return Err(io::ErrorKind::Unsupported.into()),
        };
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // From the address that the hop wants, not from its port: that one listens.
        if let Some(local) = hop.local.filter(|local| {
            local.is_ipv4() == address.is_ipv4()
                && !local.ip().is_unspecified()
                && local.ip().is_loopback() == address.ip().is_loopback()
        }) {
            socket.bind(SocketAddr::new(local.ip(), 0))?;
        }
        let stream = socket.connect(address).await?;
        let _ = stream.set_nodelay(true);
        let mut source = Source::socket(hop.protocol, address, stream.local_addr()?, FlowId(0));
        if hop.protocol != Protocol::Tls {
            return Ok((Box::new(stream), source));
        }
        let name = tls::server_name(hop.name.as_deref(), address.ip())?;
        let stream = self.tls.connector().map_err(io::Error::other)?.connect(name, stream).await?;
        source.domains = proven(stream.get_ref().1.peer_certificates());
        Ok((Box::new(stream), source))
    }
}

/// The domains of the certificate that the other side has shown and that was verified.
fn proven(certificates: Option<&[rustls::pki_types::CertificateDer<'_>]>) -> Arc<[String]> {
    certificates.and_then(<[_]>::first).map(|certificate| tls::domains(certificate)).unwrap_or_default().into()
}

fn send_error(hop: &Hop, error: &io::Error) -> SendError {
    let hop = Box::new(hop.clone());
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(untrusted @ rustls::Error::InvalidCertificate(_)) => {
            SendError::Untrusted { hop, why: untrusted.to_string() }
        }
        _ => SendError::Unreachable { hop, why: error.to_string() },
    }
}

/// Whether the same port is to be bound for IPv4 too, so that the IPv6 socket must leave it alone.
fn has_ipv4_sibling(listen: &[(Protocol, SocketAddr)], protocol: Protocol, address: SocketAddr) -> bool {
    let stream = |protocol| protocol != Protocol::Udp;
    listen.iter().any(|(other, ip)| {
        stream(*other) == stream(protocol) && ip.is_ipv4() && ip.port() == address.port() && address.port() != 0
    })
}

fn listener(address: SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    // Or else the port stays taken for a while after a restart.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A lock. The table is whole even if a holder has panicked: it is changed by single calls only.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
