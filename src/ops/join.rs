//! Being a member: `p2p-join`.

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, task::JoinHandle};

use super::{Access, OpsError, access::Known, outcome::JoinOutcome};
use crate::{
    clock::ms,
    dns::{
        Family, TsigKey,
        locate::{Locator, Options, Transport, has_no_route},
        publish::{Publisher, ZoneAt},
    },
    gatekeeper::Config,
    identity::{Descriptor, Home, HomeLock, Pins, Policy},
    member::{
        AdapterConfig, Gatekeeper, GatekeeperConfig, GatekeeperError, Member, MemberConfig, Proxy, ProxyConfig,
        Publish, PublishBy, adapter, remembered,
    },
    name::OverlayId,
    sip::transport::Protocol,
};
pub use crate::{
    gatekeeper::TEMPLATE as GATEKEEPER_TEMPLATE,
    member::{ProxyTls, adapter::TEMPLATE as PHONES_TEMPLATE},
    overlay::swarm::CircuitLimits,
};

/// How long calls that are being set up may take to finish when a proxy peer leaves.
const DRAIN: Duration = Duration::from_secs(30);
/// The lease of a proxy peer that has the zone's key itself, in seconds.
const LEASE: u32 = 120;

/// How long finding out how others reach a new member may take.
const SETTLED: Duration = Duration::from_secs(2);

/// What is asked of a new member.
#[derive(Debug, Clone, Default)]
pub struct JoinRequest {
    /// Where to listen, as multiaddrs; empty for every interface, TCP and QUIC, on free ports.
    pub listen: Vec<String>,
    /// Whether the overlay is a purely local one (R2): any name will do, and a descriptor is made if there is none.
    pub local: bool,
    /// Whether to announce itself, and to find others, on the local network.
    pub mdns: bool,
    /// How to be a proxy peer, if it is to be one.
    pub proxy: Option<ProxyRequest>,
    /// The gatekeeper's file, if it is to be one.
    pub gatekeeper: Option<PathBuf>,
    /// How to be an adapter, if it is to be one.
    pub adapter: Option<AdapterRequest>,
    /// Where to serve metrics, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// What one circuit through this member may cost it.
    pub circuits: CircuitLimits,
}

/// What is asked of a proxy peer.
#[derive(Debug, Clone)]
pub struct ProxyRequest {
    /// Where to listen for the public network, over UDP and TCP.
    pub listen: SocketAddr,
    /// Where to listen over TLS, and with which certificate.
    pub tls: Option<ProxyTls>,
    /// How to enter the DNS, if it is to be entered.
    pub publish: Option<PublishRequest>,
}

/// How a proxy peer is to enter the DNS.
#[derive(Debug, Clone, Default)]
pub struct PublishRequest {
    /// The addresses at which the public network reaches it, if not those where it listens.
    pub addresses: Vec<IpAddr>,
    /// Whether to enter although it is behind a NAT (R11).
    pub force: bool,
    /// The zone's key, if it has that itself; else a gatekeeper is asked.
    pub key: Option<PathBuf>,
    /// The zone's primary server; else the one that its SOA record names. Only with the key.
    pub server: Option<SocketAddr>,
}

/// What is asked of an adapter.
#[derive(Debug, Clone)]
pub struct AdapterRequest {
    /// Where to listen for phones, over UDP and TCP.
    pub listen: SocketAddr,
    /// The file of the phones that may register.
    pub phones: PathBuf,
}

/// A member that runs in this process, and what it holds on to.
pub(super) struct Running {
    pub(super) member: Member,
    pub(super) known: Known,
    _lock: HomeLock,
}

/// Joins, reports, and stays until `shutdown`; then leaves in good order.
///
/// # Errors
/// [`OpsError`]: no descriptor to be trusted, an address in use, another process with the same home, nobody to join.
pub async fn join(
    access: &Access,
    request: &JoinRequest,
    report: &mut (impl FnMut(JoinOutcome) + ?Sized),
    shutdown: impl Future<Output = ()>,
) -> Result<(), OpsError> {
    let started = Instant::now();
    // What is wrong with files shows before anybody is bothered.
    let gatekeeper = request.gatekeeper.as_deref().map(|file| gatekeeper_config(access, file)).transpose()?;
    let key = request.proxy.iter().filter_map(|proxy| proxy.publish.as_ref()?.key.as_deref()).next();
    let key = key.map(TsigKey::load).transpose()?;
    tokio::pin!(shutdown);
    let running = tokio::select! {
        running = start(access, request) => running?,
        () = &mut shutdown => return Ok(()),
    };
    let served = serve(access, request, &running, (gatekeeper, key), started, report, shutdown).await;
    // Whatever went wrong after it had joined: it leaves in good order.
    running.member.stop().await;
    served
}

/// What a member is beyond a member, until `shutdown`.
async fn serve(
    access: &Access,
    request: &JoinRequest,
    running: &Running,
    (gatekeeper, key): (Option<GatekeeperConfig>, Option<TsigKey>),
    started: Instant,
    report: &mut (impl FnMut(JoinOutcome) + ?Sized),
    shutdown: impl Future<Output = ()>,
) -> Result<(), OpsError> {
    let member = &running.member;
    let gatekeeper = match gatekeeper {
        Some(config) => Some(Gatekeeper::start(member, config).await?),
        None => None,
    };
    let metrics = match request.metrics {
        Some(address) => Some(member.metrics().serve(address).await?),
        None => None,
    };
    let proxy = match proxy_config(access, request, &running.known.descriptor)? {
        Some(mut config) => {
            if let Some(publish) = request.proxy.as_ref().and_then(|proxy| proxy.publish.as_ref()) {
                config.publish = Some(publish_by(access, publish, key, running.known.descriptor.overlay()).await?);
            }
            Some(Proxy::start(member, config).await?)
        }
        None => None,
    };
    let status = member.status();
    report(JoinOutcome {
        status: "joined",
        overlay: status.overlay,
        policy: status.policy,
        descriptor: status.descriptor,
        peer: status.peer,
        addresses: member.full_addresses(),
        socket: member.socket().map(|path| path.display().to_string()).unwrap_or_default(),
        proxy: proxy.iter().flat_map(|proxy| proxy.listening()).map(sip_address).collect(),
        gatekeeper: gatekeeper.as_ref().map(|gatekeeper| {
            let ZoneAt { zone, server, .. } = gatekeeper.zone();
            format!("{zone} on {server}")
        }),
        adapter: proxy.iter().flat_map(|proxy| proxy.phones()).map(sip_address).collect(),
        metrics: metrics.as_ref().map(|server| format!("http://{}/metrics", server.address())),
        peers: status.peers,
        restored: member.restored(),
        elapsed_ms: ms(started.elapsed()),
    });
    shutdown.await;
    if let Some(proxy) = proxy {
        proxy.stop().await;
    }
    if let Some(gatekeeper) = gatekeeper {
        gatekeeper.stop().await;
    }
    Ok(())
}

/// A membership in a task of its own, beside which this process does other things.
#[derive(Debug)]
pub struct Membership {
    /// Dropped, or told, it ends the membership.
    leave: oneshot::Sender<()>,
    task: JoinHandle<Result<(), OpsError>>,
}

impl Membership {
    /// As [`join`], but returns as soon as this process is a member. Whoever drops the future gives up joining; whoever
    /// drops the membership leaves in good order, as far as the runtime lives long enough.
    ///
    /// # Errors
    /// As [`join`].
    pub async fn begin(access: Access, request: JoinRequest) -> Result<(Self, JoinOutcome), OpsError> {
        let (leave, left) = oneshot::channel::<()>();
        let (joined, outcome) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut joined = Some(joined);
            let mut report = |outcome| {
                if let Some(joined) = joined.take() {
                    // Whoever waited may have given up, and with it the membership.
                    let _ = joined.send(outcome);
                }
            };
            let shutdown = async {
                let _ = left.await;
            };
            join(&access, &request, &mut report, shutdown).await
        });
        match outcome.await {
            Ok(outcome) => Ok((Self { leave, task }, outcome)),
            Err(_) => Err(match task.await {
                Ok(Err(error)) => error,
                // It has panicked, which was reported; or the runtime ends, and nobody will read this.
                Ok(Ok(())) | Err(_) => OpsError::NotJoined,
            }),
        }
    }

    /// Leaves in good order, and returns when that is done.
    ///
    /// # Errors
    /// What the membership failed of, if it had ended by itself.
    pub async fn end(self) -> Result<(), OpsError> {
        drop(self.leave);
        self.task.await.unwrap_or(Err(OpsError::NotJoined))
    }
}

/// How to be a proxy peer, an adapter or both.
fn proxy_config(
    access: &Access,
    request: &JoinRequest,
    descriptor: &Descriptor,
) -> Result<Option<ProxyConfig>, OpsError> {
    if request.proxy.is_none() && request.adapter.is_none() {
        return Ok(None);
    }
    let options = Options {
        transports: vec![Transport::Udp, Transport::Tcp, Transport::Tls],
        unreachable: has_no_route,
        ..Options::default()
    };
    let mut config = ProxyConfig::without_proxy(Locator::new(access.resolver()?, options));
    config.drain = DRAIN;
    if let Some(ProxyRequest { listen, tls, .. }) = request.proxy.clone() {
        (config.address, config.tls) = (Some(listen), tls);
    }
    if let Some(AdapterRequest { listen, phones }) = &request.adapter {
        let phones = adapter::load(phones, descriptor.overlay(), &access.own_home()?)?;
        config.adapter = Some(AdapterConfig::new(*listen, phones));
    }
    Ok(Some(config))
}

fn gatekeeper_config(access: &Access, path: &Path) -> Result<GatekeeperConfig, OpsError> {
    let file = Config::load(path).map_err(GatekeeperError::from)?;
    TsigKey::load(&file.key)?;
    let path = Some(path.to_owned());
    Ok(GatekeeperConfig { file, path, resolver: access.resolver()?, certificate: None, timeout: access.timeout })
}

async fn publish_by(
    access: &Access,
    request: &PublishRequest,
    key: Option<TsigKey>,
    overlay: &OverlayId,
) -> Result<Publish, OpsError> {
    let resolver = access.resolver()?;
    let by = match key {
        None => PublishBy::Gatekeeper,
        Some(key) => {
            let zone = match request.server {
                Some(server) => ZoneAt::on(server, overlay, access.timeout).await?,
                None => ZoneAt::find(&resolver, overlay, access.timeout).await?,
            };
            let publisher = Box::new(Publisher::new(zone, key, access.timeout));
            PublishBy::Key { publisher, lease: LEASE }
        }
    };
    Ok(Publish { by, resolver, addresses: request.addresses.clone(), force: request.force })
}

/// A listening address as tools show it: `udp 192.0.2.1:5060`.
fn sip_address((protocol, address): &(Protocol, SocketAddr)) -> String {
    format!("{} {address}", protocol.token().to_ascii_lowercase())
}

/// Starts a member on the home of `access`.
pub(super) async fn start(access: &Access, request: &JoinRequest) -> Result<Running, OpsError> {
    let home = access.own_home()?;
    let lock = home.lock()?;
    let (known, peers) = overlay_of(access, request, &home).await?;
    let mut config = MemberConfig::new(known.descriptor.clone(), Arc::new(home.peer_key()?));
    config.revocations = known.revocations.clone();
    config.network.quic = true;
    config.network.nat = true;
    config.network.circuits = request.circuits;
    config.network.mdns = request.mdns;
    config.network.listen = listen_addresses(access, request);
    config.peers = peers;
    config.remembered = remembered(&home);
    config.socket = Some(access.socket_path());
    config.home = Some(home.clone());
    config.timing.join = access.timeout;
    let member = Member::start(config).await?;
    if !member.network().table().is_empty() {
        // Whoever asks for its addresses next should get those that lead here.
        member.network().settled(SETTLED).await;
    }
    for file in member.set_aside() {
        tracing::warn!(
            "{} could not be read ({}); it was set aside as {} and a new one begun",
            file.from.display(),
            file.why,
            file.to.display()
        );
    }
    Ok(Running { member, known, _lock: lock })
}

/// What the overlay is, and whom to join. The first member of all needs a descriptor and nobody else.
async fn overlay_of(
    access: &Access,
    request: &JoinRequest,
    home: &Home,
) -> Result<(Known, Vec<crate::client::PeerInfo>), OpsError> {
    let deadline = access.deadline();
    if let Some(known) = access.local_descriptor()? {
        let overlay = known.descriptor.overlay().clone();
        let peers = match access.entries(&overlay, Some(&known), deadline).await {
            Ok(entries) => entries,
            Err(error @ (OpsError::DescriptorChanged { .. } | OpsError::Dns(_) | OpsError::PeerAddress { .. })) => {
                return Err(error);
            }
            // Nobody is known yet: this is the first member, or one that remembers others from before.
            Err(_) if access.peers.is_empty() => Vec::new(),
            Err(error) => return Err(error),
        };
        return Ok((known, peers));
    }
    let overlay = access.overlay.clone().ok_or(OpsError::WhichOverlay)?;
    if !request.local {
        // An overlay that interconnects has a name that others can look up (R2).
        OverlayId::parse(overlay.as_str())?;
    } else if access.peers.is_empty() {
        return Ok((new_local_overlay(&overlay, home)?, Vec::new()));
    }
    let attached = access.attach(super::ViaChoice::Peer).await?;
    let peers = match attached.route {
        super::access::Route::Peers { entries, .. } => entries,
        super::access::Route::Socket(_) => Vec::new(),
    };
    Ok((attached.known, peers))
}

/// A purely local overlay needs no preparation: its first member writes an open descriptor.
fn new_local_overlay(overlay: &OverlayId, home: &Home) -> Result<Known, OpsError> {
    let descriptor = Descriptor::new(overlay.clone(), true, Policy::Open, None, crate::identity::Limits::default())?;
    home.set_descriptor(&descriptor)?;
    tracing::warn!(
        "began the local overlay {overlay}, open to everybody; others join it with \
         --descriptor {}",
        home.descriptor_path().display()
    );
    Ok(Known { descriptor: Arc::new(descriptor), revocations: None, pins: Pins::default() })
}

pub(super) fn listen_addresses(access: &Access, request: &JoinRequest) -> Vec<String> {
    if !request.listen.is_empty() {
        return request.listen.clone();
    }
    let v4 = ["/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1"];
    let v6 = ["/ip6/::/tcp/0", "/ip6/::/udp/0/quic-v1"];
    let wanted: &[&[&str]] = match access.family {
        Family::V4 => &[&v4],
        Family::V6 => &[&v6],
        Family::Any if has_ipv6() => &[&v4, &v6],
        Family::Any => &[&v4],
    };
    wanted.iter().flat_map(|addresses| addresses.iter()).map(|address| (*address).to_owned()).collect()
}

/// Whether this machine has IPv6 at all: many containers do not.
pub(super) fn has_ipv6() -> bool {
    std::net::UdpSocket::bind("[::1]:0").is_ok()
}
