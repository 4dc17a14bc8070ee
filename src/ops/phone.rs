//! Runs a user agent over real transports: its messages, its questions for next hops, its timers.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io::{self, BufWriter},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::mpsc;

use super::{
    OpsError,
    finder::{Finder, Found, NotFound},
    flow::{self, FlowView},
    join::has_ipv6,
};
use crate::{
    dns::Family,
    kind::Kind,
    name::PeerId,
    sip::{
        Message,
        capture::{Captured, PcapWriter},
        edit::Edit,
        tap::Tap,
        transaction,
        transport::{
            self, Hop, MAX_DATAGRAM, OverlayPort, Protocol, Remote, Source, Transports, over_tcp, overlay::via_host,
        },
    },
    ua::{Agent, AgentConfig, CallId, Event, LocateId, Output, RegisterEvent, Way},
};

/// How often a connection of ours is kept alive, so that its end is noticed (RFC 5626 §3.5.1).
const KEEP_ALIVE: Duration = Duration::from_secs(25);
/// Messages kept for the ladder; of a longer run the first ones.
const MAX_CAPTURED: usize = 20_000;

/// A question for next hops, and its answer.
type Search = (LocateId, Result<Vec<Found>, NotFound>);

/// What is captured, and where to.
#[derive(Debug, Clone, Default)]
pub struct CaptureRequest {
    /// Keep the messages, for the ladder.
    pub flow: bool,
    /// Write them to this file as well.
    pub pcap: Option<PathBuf>,
    /// Who listens in, if anybody.
    pub tap: Option<Tap>,
}

/// A user agent that runs.
pub(super) struct Phone {
    agent: Agent,
    transports: Transports,
    events: mpsc::Receiver<transport::Event>,
    finder: Arc<Finder>,
    finding: FuturesUnordered<BoxFuture<'static, Search>>,
    peer: Option<PeerId>,
    tape: Tape,
    happened: VecDeque<(CallId, Event)>,
    registered: VecDeque<RegisterEvent>,
    /// What sort of failure the last search for a next hop was.
    not_found: Option<Kind>,
    /// The same of the last message that could not be sent.
    not_sent: Option<Kind>,
    /// Where the last message went.
    last_hop: Option<Hop>,
}

/// What was captured, and what the parties are called.
struct Tape {
    keep: bool,
    messages: Vec<Captured>,
    pcap: Option<(PathBuf, PcapWriter<BufWriter<File>>)>,
    failed: Option<OpsError>,
    names: HashMap<Remote, (String, String)>,
}

impl Phone {
    /// Binds the sockets and begins to listen, on the current runtime.
    pub(super) fn start(
        config: AgentConfig,
        listen: Vec<(Protocol, SocketAddr)>,
        overlay: Option<(PeerId, OverlayPort)>,
        finder: impl Into<Arc<Finder>>,
        capture: &CaptureRequest,
    ) -> Result<Self, OpsError> {
        let tape = Tape::new(capture)?;
        let (peer, overlay) = overlay.unzip();
        let mut limits = transport::Limits { keep_alive: Some(KEEP_ALIVE), ..transport::Limits::default() };
        if listen.is_empty() {
            // Nothing but streams of the overlay: whoever is alive there answers what keeps them alive.
            limits.idle = KEEP_ALIVE * 3;
        }
        let tap = capture.tap.clone();
        let config_of = transport::Config { listen, overlay, limits, tap, ..transport::Config::default() };
        let transport::Bound { transports, events, udp } = Transports::bind(config_of)?;
        let socket = |why: io::Error| transport::TransportError::Listen {
            protocol: Protocol::Udp,
            address: udp.first().map_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), transport::UdpPort::local),
            why: Arc::new(why),
        };
        transports.serve_udp(&udp).map_err(socket)?;
        Ok(Self {
            agent: Agent::new(config, Instant::now()),
            transports,
            events,
            finder: finder.into(),
            finding: FuturesUnordered::new(),
            peer,
            tape,
            happened: VecDeque::new(),
            registered: VecDeque::new(),
            not_found: None,
            not_sent: None,
            last_hop: None,
        })
    }

    /// The addresses of UDP, TCP and TLS.
    pub(super) fn listening(&self) -> &[(Protocol, SocketAddr)] {
        self.transports.listening()
    }

    /// The user agent, to be told what to do.
    pub(super) const fn agent(&mut self) -> &mut Agent {
        &mut self.agent
    }

    /// What sort of failure has just stopped a call, as far as it was not SIP's.
    pub(super) fn take_failure(&mut self) -> Option<Kind> {
        let (not_found, not_sent) = (self.not_found.take(), self.not_sent.take());
        not_found.or(not_sent)
    }

    /// Where the last message went.
    pub(super) const fn last_hop(&self) -> Option<&Hop> {
        self.last_hop.as_ref()
    }

    /// The messages of a call so far.
    pub(super) fn flow(&self, call_id: &str, own_name: &str) -> FlowView {
        flow::view(&self.tape.messages, call_id, own_name, &self.tape.names)
    }

    /// The next thing that happens to a call. Safe to drop and call again.
    pub(super) async fn next(&mut self) -> Result<(CallId, Event), OpsError> {
        loop {
            self.drain();
            if let Some(error) = self.tape.failed.take() {
                return Err(error);
            }
            if let Some(happened) = self.happened.pop_front() {
                return Ok(happened);
            }
            self.step().await;
        }
    }

    /// The next thing that happens to a binding at a registrar. Safe to drop and call again.
    pub(super) async fn next_registration(&mut self) -> RegisterEvent {
        loop {
            self.drain();
            if let Some(happened) = self.registered.pop_front() {
                return happened;
            }
            self.step().await;
        }
    }

    /// What has happened to bindings meanwhile.
    pub(super) fn take_registration(&mut self) -> Option<RegisterEvent> {
        self.registered.pop_front()
    }

    /// Lets what is still to be sent be sent, and late messages be answered, until `deadline` at the latest.
    pub(super) async fn settle(&mut self, deadline: Instant) {
        while !self.agent.is_idle() {
            self.drain();
            if tokio::time::timeout_at(deadline.into(), self.step()).await.is_err() {
                return;
            }
        }
    }

    /// Waits for a message, a next hop or a timer, and tells the agent.
    async fn step(&mut self) {
        let timer = self.agent.poll_timeout();
        let due = async {
            match timer {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(event) = self.events.recv() => self.transport_event(event),
            Some((id, found)) = self.finding.next(), if !self.finding.is_empty() => self.found(id, found),
            () = due => self.agent.handle_timeout(Instant::now()),
        }
    }

    /// Does what the agent wants.
    fn drain(&mut self) {
        while let Some(output) = self.agent.poll_output() {
            match output {
                Output::Send { to, bytes, token } => self.send(to, bytes, token),
                Output::Locate { id, uri, outbound } => {
                    let finder = self.finder.clone();
                    self.finding.push(Box::pin(async move { (id, finder.find(&uri, outbound).await) }));
                }
                Output::Event { call, event } => self.happened.push_back((call, event)),
                Output::Registration { event, .. } => self.registered.push_back(event),
            }
        }
    }

    fn send(&mut self, to: Hop, bytes: Bytes, token: transaction::Token) {
        let (mut to, mut bytes) = (to, bytes);
        if to.protocol == Protocol::Udp
            && bytes.len() > MAX_DATAGRAM
            && let Ok(message) = Message::parse(bytes.clone())
            && let Some((hop, request)) = over_tcp(&message, &to, MAX_DATAGRAM)
        {
            (to, bytes) = (hop, request);
        }
        let local = self.local(&to);
        self.last_hop = Some(to.clone());
        match self.transports.send(&to, bytes.clone(), token.number()) {
            Ok(()) => {
                let (protocol, remote) = (to.protocol, to.remote);
                self.tape.add(Captured { at: Instant::now(), protocol, from: local, to: remote, sent: true, bytes });
            }
            Err(error) => {
                self.not_sent = Some(error.kind());
                self.agent.transport_failed(token, error.hop(), &error.to_string(), Instant::now());
            }
        }
    }

    fn transport_event(&mut self, event: transport::Event) {
        match event {
            transport::Event::Message { message, source } => self.received(message, source),
            transport::Event::Failed { token, error } => {
                self.not_sent = Some(error.kind());
                let token = transaction::Token::of_number(token);
                self.agent.transport_failed(token, error.hop(), &error.to_string(), Instant::now());
            }
            transport::Event::Undelivered(undelivered) => {
                if self.agent.undelivered(&undelivered, Instant::now()) {
                    self.not_sent = Some(Kind::Unreachable);
                }
            }
            transport::Event::Closed { flow, .. } => self.agent.closed(flow, Instant::now()),
        }
    }

    fn received(&mut self, mut message: Message, mut source: Source) {
        let local = self.local(&source.way_back());
        let (protocol, remote) = (source.protocol, source.remote);
        let now = Instant::now();
        self.tape.add(Captured {
            at: now,
            protocol,
            from: remote,
            to: local,
            sent: false,
            bytes: message.bytes().clone(),
        });
        if let (Remote::Socket(own), true) = (local, source.local.ip().is_unspecified()) {
            source.local = SocketAddr::new(own.ip(), source.local.port());
        }
        if let (true, Remote::Socket(from)) = (message.is_request(), source.remote) {
            let mut edit = Edit::new(&message);
            edit.stamp_via(from);
            if let Ok(stamped) = Message::parse(edit.finish()) {
                message = stamped;
            }
        }
        self.agent.receive(message, source, now);
    }

    fn found(&mut self, id: LocateId, found: Result<Vec<Found>, NotFound>) {
        let ways = match found {
            Ok(found) => {
                for Found { hop, name, how } in &found {
                    self.tape.names.entry(hop.remote).or_insert_with(|| (name.clone(), how.clone()));
                }
                let way = |found: Found| Way { sent_by: self.sent_by(&found.hop), hop: found.hop };
                Ok(found.into_iter().map(way).collect())
            }
            Err(NotFound { kind, why }) => {
                self.not_found = Some(kind);
                Err(why)
            }
        };
        self.agent.located(id, ways, Instant::now());
    }

    /// Our address as a hop may use it.
    fn sent_by(&self, hop: &Hop) -> String {
        match self.local(hop) {
            Remote::Peer(peer) => via_host(&peer),
            Remote::Socket(address) => address.to_string(),
        }
    }

    /// Our side of a hop: for connections the address at which others connect to us, even if we dialled.
    fn local(&self, hop: &Hop) -> Remote {
        let remote = match (hop.remote, self.peer) {
            (Remote::Peer(_), Some(peer)) => return Remote::Peer(peer),
            (Remote::Peer(_), None) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            (Remote::Socket(remote), _) => remote,
        };
        let protocol = if hop.protocol == Protocol::Tls { Protocol::Tcp } else { hop.protocol };
        let same = |listening: &&(Protocol, SocketAddr)| {
            (listening.0 == hop.protocol || listening.0 == protocol) && listening.1.is_ipv4() == remote.is_ipv4()
        };
        let own = self.transports.listening().iter().find(same).map(|(_, address)| *address);
        let own = own.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, protocol.default_port())));
        Remote::Socket(if own.ip().is_unspecified() { SocketAddr::new(route_to(remote), own.port()) } else { own })
    }
}

/// The address from which the system would send to another one. Nothing is sent.
pub(super) fn route_to(remote: SocketAddr) -> IpAddr {
    let (any, loopback) = match remote {
        SocketAddr::V4(_) => (IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv4Addr::LOCALHOST)),
        SocketAddr::V6(_) => (IpAddr::from(Ipv6Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::LOCALHOST)),
    };
    let socket = UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(remote).map(|()| socket));
    socket.and_then(|socket| socket.local_addr()).map_or(loopback, |address| address.ip())
}

/// Free ports of every family that may be used, for UDP and TCP: those of a user agent that only calls.
pub(super) fn any_port(family: Family) -> Vec<(Protocol, SocketAddr)> {
    let (v4, v6) = (IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED));
    let addresses = match family {
        Family::V4 => vec![v4],
        Family::V6 => vec![v6],
        Family::Any if has_ipv6() => vec![v4, v6],
        Family::Any => vec![v4],
    };
    let both = |ip| [Protocol::Udp, Protocol::Tcp].map(|protocol| (protocol, SocketAddr::new(ip, 0)));
    addresses.into_iter().flat_map(both).collect()
}

impl Tape {
    fn new(request: &CaptureRequest) -> Result<Self, OpsError> {
        let pcap = request.pcap.as_deref().map(create).transpose()?;
        Ok(Self { keep: request.flow, messages: Vec::new(), pcap, failed: None, names: HashMap::new() })
    }

    fn add(&mut self, message: Captured) {
        if let Some((path, writer)) = &mut self.pcap
            && let Err(why) = writer.write(&message)
        {
            self.failed = Some(OpsError::Capture { path: path.clone(), why });
            self.pcap = None;
        }
        if self.keep && self.messages.len() < MAX_CAPTURED {
            self.messages.push(message);
        }
    }
}

fn create(path: &Path) -> Result<(PathBuf, PcapWriter<BufWriter<File>>), OpsError> {
    let failed = |why| OpsError::Capture { path: path.to_owned(), why };
    let file = File::create(path).map_err(failed)?;
    let writer = PcapWriter::new(BufWriter::new(file), (Instant::now(), SystemTime::now())).map_err(failed)?;
    Ok((path.to_owned(), writer))
}
