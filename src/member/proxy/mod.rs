//! A member as a proxy peer (draft §3.1): sockets and overlay streams, users' contacts, servers of the public network,
//! and the service record, around the proxy [`Engine`](engine::Engine). An adapter runs on the same engine, with a proxy
//! peer or without.
//!
//! Threads of its own read datagrams and handle them on the spot, with the engine that is the message's shard
//! ([`hub`]). What takes long, lookups and questions to the DNS, runs in tasks and comes back as an answer; what was
//! looked up lately needs none.

mod directory;
mod drive;
mod hub;
pub(crate) mod servers;
mod way_back;

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

pub(super) use self::hub::Hub;
use self::hub::Surroundings;
use super::{
    AdapterConfig, AdapterError, Member, Offer, OfferError, Publish,
    adapter::Publisher,
    gatekeeper::{Applicant, Inbox},
    metrics::{Collector, DescriptorEncoder, counter, gauge},
    sip_streams,
};
use crate::{
    client::{ProxyStatus, gatekeeper::PublicationState},
    dns::locate::Locator,
    identity::Certificate,
    kind::Kind,
    name::{OverlayId, Service},
    overlay::swarm::AskError,
    proxy::{engine, fork::Patience, route::Realm, throttle::Rate},
    record::{Endpoint, MAX_ENDPOINTS},
    sip::{
        tap::Tap,
        transaction,
        transport::{self, Protocol, TlsFiles, TransportError, Transports},
    },
};

/// What an adapter listens to: UDP and TCP.
const ADAPTER_PORTS: usize = 2;
/// How long leaving the DNS may take.
const WITHDRAWAL: Duration = Duration::from_secs(6);
/// Threads that read datagrams, at most.
const MAX_WORKERS: usize = 8;
/// Where packets to the public network would go, to learn which of our addresses they would leave from (RFC 5737,
/// RFC 3849). Nothing is sent.
const PUBLIC: [&str; 2] = ["192.0.2.1:5060", "[2001:db8::1]:5060"];

/// What a proxy peer is made of.
pub struct ProxyConfig {
    /// Where to serve UDP and TCP for the public network; nowhere if this is an adapter alone, and no proxy peer.
    pub address: Option<SocketAddr>,
    /// What serves phones, if anything does.
    pub adapter: Option<AdapterConfig>,
    /// Where to serve TLS, and with which certificate.
    pub tls: Option<ProxyTls>,
    /// What finds servers of other domains.
    pub locator: Locator,
    /// What permits the member's key to offer the service. `None`: the one in the member's home; an open overlay needs none.
    pub certificate: Option<Certificate>,
    /// How to enter the DNS, if it is to be entered.
    pub publish: Option<Publish>,
    /// How long to wait for what.
    pub patience: Patience,
    /// How much one source may send.
    pub rate: Rate,
    /// How long a stopping proxy peer waits for what has begun.
    pub drain: Duration,
    /// Who listens in, if anybody.
    pub tap: Option<Tap>,
}

/// SIP over TLS.
#[derive(Debug, Clone)]
pub struct ProxyTls {
    /// Where to serve it.
    pub address: SocketAddr,
    /// The certificate, its intermediates behind it, in PEM.
    pub certificate: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
}

impl ProxyConfig {
    /// A proxy peer without TLS and with the usual durations.
    pub fn new(address: SocketAddr, locator: Locator) -> Self {
        Self { address: Some(address), ..Self::without_proxy(locator) }
    }

    /// No proxy peer: only what serves phones, once that is set.
    pub fn without_proxy(locator: Locator) -> Self {
        Self {
            address: None,
            adapter: None,
            tls: None,
            locator,
            certificate: None,
            publish: None,
            patience: Patience::default(),
            rate: Rate::default(),
            drain: Duration::from_secs(10),
            tap: None,
        }
    }
}

/// Why a proxy peer did not start.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// R2: nobody outside could find it.
    #[error("{overlay} is a purely local overlay and has no proxy peers; leave --proxy out")]
    Local {
        /// The overlay.
        overlay: OverlayId,
    },
    /// The sockets.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The operating system lets nothing be read.
    #[error("cannot read SIP from {address}: {why}")]
    Socket {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        why: io::Error,
    },
    /// The swarm.
    #[error("cannot take SIP from the overlay: {0}")]
    Overlay(AskError),
    /// The service cannot be offered.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// The phones.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
}

impl ProxyError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Local { .. } => Kind::Usage,
            Self::Transport(error) => error.kind(),
            Self::Offer(error) => error.kind(),
            Self::Adapter(error) => error.kind(),
            Self::Socket { .. } | Self::Overlay(_) => Kind::Local,
        }
    }
}

/// What is asked of a running proxy peer.
enum Command {
    /// Withdraw the offer, begin nothing new, and say when what has begun is over.
    Drain(oneshot::Sender<()>),
}

/// A running proxy peer. Dropping it ends it at once; [`Proxy::stop`] ends it in good order.
pub struct Proxy {
    listening: Vec<(Protocol, SocketAddr)>,
    phones: Vec<(Protocol, SocketAddr)>,
    commands: mpsc::Sender<Command>,
    drain: Duration,
    hub: Arc<Hub>,
    tasks: Vec<JoinHandle<()>>,
    /// What keeps it in the DNS, and how it is told to leave there.
    applicant: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    /// The threads end when this does.
    _stop: watch::Sender<()>,
}

impl Proxy {
    /// Binds the sockets, takes SIP streams of the overlay, and offers the service there.
    ///
    /// # Errors
    /// [`ProxyError`]: a local overlay, an address in use, a certificate that cannot be read.
    pub async fn start(member: &Member, config: ProxyConfig) -> Result<Self, ProxyError> {
        let overlay = member.core.descriptor().overlay().clone();
        if config.address.is_some() && member.core.descriptor().is_local() {
            return Err(ProxyError::Local { overlay });
        }
        let publisher =
            config.adapter.as_ref().map(|adapter| Publisher::new(&member.core, &adapter.phones)).transpose()?;
        let network = member.network().clone();
        let overlay_port = sip_streams(&network).await.map_err(ProxyError::Overlay)?;
        let bound = Transports::bind(transport::Config {
            listen: listen(&config),
            tls: TlsFiles {
                certificate: config.tls.as_ref().map(|tls| (tls.certificate.clone(), tls.key.clone())),
                roots: None,
            },
            udp_shards: workers(),
            overlay: Some(overlay_port),
            tap: config.tap.clone(),
            ..transport::Config::default()
        })?;
        let mut listening = bound.transports.listening().to_vec();
        let phones = listening.split_off(listening.len() - config.adapter.iter().len() * ADAPTER_PORTS);

        let own = reachable(&listening).into_iter().chain(reachable(&phones)).collect();
        let reachable = reachable(&listening);
        let now = Instant::now();
        let adapter = match (&publisher, &config.adapter) {
            (Some(publisher), Some(adapter)) => {
                let listening = phones.iter().map(|(_, address)| *address).collect();
                Some(publisher.adapter(adapter, listening, config.address.is_none(), now)?)
            }
            _ => None,
        };
        let engine = engine::Config {
            realm: Realm { overlay, own },
            peer: member.peer(),
            transactions: transaction::Config::default(),
            patience: config.patience,
            rate: config.rate,
        };
        let mut endpoints: Vec<_> = reachable.iter().map(|(protocol, at)| endpoint(*protocol, *at)).collect();
        let inbox = Arc::<Inbox>::default();
        let surroundings = Surroundings {
            transports: bound.transports,
            core: member.core.clone(),
            locator: config.locator,
            publisher: publisher.map(Arc::new),
            inbox: inbox.clone(),
            tap: config.tap,
            endpoints: endpoints.iter().map(shown).collect(),
        };
        let hub = Arc::new(Hub::new(&engine, adapter, surroundings, now));
        let (commands, receiver) = mpsc::channel(1);
        let (offered, offer) = oneshot::channel();
        let tasks = vec![
            tokio::spawn(drive::read_connections(hub.clone(), bound.events)),
            tokio::spawn(drive::keep_time(hub.clone())),
            tokio::spawn(drive::attend(hub.clone(), receiver, offer)),
        ];
        let (stop, stopping) = watch::channel(());
        let drain = config.drain;
        let mut proxy =
            Self { listening, phones, commands, drain, hub: hub.clone(), tasks, applicant: None, _stop: stop };
        for port in &bound.udp {
            drive::read_datagrams(hub.clone(), port, stopping.clone())
                .map_err(|why| ProxyError::Socket { address: port.local(), why })?;
        }
        member.metrics().add(Box::new(ProxyMetrics(Arc::downgrade(&hub))));
        if config.address.is_none() {
            return Ok(proxy);
        }
        // Only what works already is offered; if it cannot be, the drop of `proxy` ends it.
        endpoints.truncate(MAX_ENDPOINTS);
        let certificate = config.certificate;
        let entering = config.publish.map(|publish| (publish, certificate.clone()));
        let offer = Offer { service: Service::Proxy, endpoints, certificate, serving: true, load: 0 };
        let handle = member.offer(offer).await?;
        // The task is gone only if it has panicked.
        let _ = offered.send(handle);
        member.core.set_proxy(&hub);
        if let Some((publish, certificate)) = entering {
            let applicant = Applicant::new(member, publish, certificate, &reachable, inbox, hub.clone());
            let (leave, left) = oneshot::channel();
            proxy.applicant = Some((leave, tokio::spawn(applicant.run(left))));
        }
        Ok(proxy)
    }

    /// The addresses that were bound for phones.
    pub fn phones(&self) -> &[(Protocol, SocketAddr)] {
        &self.phones
    }

    /// The addresses that were bound for the public network.
    pub fn listening(&self) -> &[(Protocol, SocketAddr)] {
        &self.listening
    }

    /// What it has done so far.
    pub fn status(&self) -> ProxyStatus {
        self.hub.status()
    }

    /// Takes the service record out, takes no more calls, and ends when what has begun is over or the time is up.
    pub async fn stop(mut self) {
        if let Some((leave, mut left)) = self.applicant.take() {
            // Out of the DNS first: whoever finds it there from now on finds nobody who takes calls.
            let _ = leave.send(());
            if tokio::time::timeout(WITHDRAWAL, &mut left).await.is_err() {
                tracing::warn!("the proxy peer's records in the DNS are left to their lease");
                left.abort();
            }
        }
        let (drained, over) = oneshot::channel();
        // It is gone only if it has panicked.
        let _ = self.commands.send(Command::Drain(drained)).await;
        if tokio::time::timeout(self.drain, over).await.is_err() {
            tracing::warn!("the proxy peer leaves while requests are still being worked on");
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        for task in self.tasks.iter().chain(self.applicant.iter().map(|(_, task)| task)) {
            task.abort();
        }
    }
}

/// How many threads read datagrams: one a core.
fn workers() -> usize {
    thread::available_parallelism().map_or(1, |cores| cores.get().min(MAX_WORKERS))
}

fn listen(config: &ProxyConfig) -> Vec<(Protocol, SocketAddr)> {
    let both = |address| [(Protocol::Udp, address), (Protocol::Tcp, address)];
    let mut listen: Vec<_> = config.address.into_iter().flat_map(both).collect();
    listen.extend(config.tls.as_ref().map(|tls| (Protocol::Tls, tls.address)));
    listen.extend(config.adapter.iter().flat_map(|adapter| both(adapter.address)));
    listen
}

/// The addresses under which others reach us: where a wildcard was bound, the one that packets to the public network
/// leave from, and loopback.
fn reachable(listening: &[(Protocol, SocketAddr)]) -> Vec<(Protocol, SocketAddr)> {
    let mut reachable = Vec::new();
    for &(protocol, address) in listening {
        if !address.ip().is_unspecified() {
            reachable.push((protocol, address));
            continue;
        }
        let outward = PUBLIC.iter().filter_map(|public| leaves_from(address.ip(), public));
        let loopback = match address.ip() {
            IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(_) => IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
        };
        for ip in outward.chain([loopback]) {
            let found = (protocol, SocketAddr::new(ip, address.port()));
            if !reachable.contains(&found) {
                reachable.push(found);
            }
        }
    }
    reachable
}

/// The address that packets to `remote` leave from.
fn leaves_from(bind: IpAddr, remote: &str) -> Option<IpAddr> {
    let remote: SocketAddr = remote.parse().ok()?;
    if remote.is_ipv4() != bind.is_ipv4() {
        return None;
    }
    let socket = UdpSocket::bind((bind, 0)).ok()?;
    socket.connect(remote).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}

/// An endpoint as people read it.
fn shown(endpoint: &Endpoint) -> String {
    let host = &endpoint.host;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    format!("{} {host}:{}", endpoint.transport, endpoint.port)
}

fn endpoint(protocol: Protocol, address: SocketAddr) -> Endpoint {
    Endpoint { transport: protocol.token().to_ascii_lowercase(), host: address.ip().to_string(), port: address.port() }
}

/// What a proxy peer counts, for Prometheus.
struct ProxyMetrics(Weak<Hub>);

impl fmt::Debug for ProxyMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProxyMetrics")
    }
}

impl Collector for ProxyMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        // A proxy peer that has ended has nothing to tell.
        let Some(hub) = self.0.upgrade() else { return Ok(()) };
        let status = hub.status();
        let e = &mut encoder;
        gauge(e, "proxy_transactions", "Transactions that are open", status.transactions.into())?;
        gauge(e, "proxy_load", "How busy the proxy peer is, 0 to 1", f64::from(status.load) / 1000.0)?;
        counter(e, "proxy_requests_forwarded", "Requests passed on", status.forwarded)?;
        counter(e, "proxy_requests_answered", "Requests answered here with a final response", status.answered)?;
        counter(e, "proxy_acks_forwarded", "ACKs passed on without state", status.acks)?;
        counter(
            e,
            "proxy_requests_throttled",
            "Requests refused because their source sends too many",
            status.throttled,
        )?;
        counter(
            e,
            "proxy_requests_overloaded",
            "Requests refused for want of room or because of leaving",
            status.overloaded,
        )?;
        counter(e, "proxy_loops", "Requests that came by a second time unchanged", status.loops)?;
        counter(e, "proxy_messages_dropped", "Messages that could not be passed on or answered", status.dropped)?;
        counter(e, "proxy_lookups", "Lookups of users in the overlay", status.lookups)?;
        counter(e, "proxy_lookups_spared", "Users found among those looked up lately", status.spared)?;
        counter(
            e,
            "proxy_lookups_refused",
            "Users not looked up because too many lookups found nobody",
            status.lookups_refused,
        )?;
        counter(e, "proxy_datagrams_undelivered", "Datagrams that did not arrive, as ICMP says", hub.undelivered())?;
        let Some(publication) = status.publication else { return Ok(()) };
        let shown = u8::from(publication.state == PublicationState::Shown);
        gauge(e, "proxy_in_dns", "Whether the DNS shows the proxy peer", shown.into())?;
        counter(e, "proxy_dns_renewals", "Leases of the proxy peer's DNS records renewed", publication.renewals)?;
        counter(e, "proxy_dns_failures", "Times that it was not entered into the DNS", publication.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_known_by_addresses_that_others_can_reach() {
        let udp = |address: &str| (Protocol::Udp, address.parse().unwrap());
        assert_eq!(reachable(&[udp("127.0.0.1:5070")]), [udp("127.0.0.1:5070")]);
        let wild = reachable(&[udp("0.0.0.0:5070")]);
        assert!(wild.contains(&udp("127.0.0.1:5070")), "{wild:?}");
        assert!(wild.iter().all(|(_, address)| !address.ip().is_unspecified() && address.is_ipv4()), "{wild:?}");
    }
}
