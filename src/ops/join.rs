//! Being a member: `p2p-join`.

use std::{
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Access, OpsError, access::Known, outcome::JoinOutcome};
pub use crate::member::{ProxyTls, adapter::TEMPLATE as PHONES_TEMPLATE};
use crate::{
    dns::{
        Family,
        locate::{Locator, Options, Transport, has_no_route},
    },
    identity::{Descriptor, Home, HomeLock, Pins, Policy},
    member::{AdapterConfig, Member, MemberConfig, Proxy, ProxyConfig, adapter, remembered},
    name::OverlayId,
    sip::transport::Protocol,
};

/// How long calls that are being set up may take to finish when a proxy peer leaves.
const DRAIN: Duration = Duration::from_secs(30);

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
    /// How to be an adapter, if it is to be one.
    pub adapter: Option<AdapterRequest>,
    /// Where to serve metrics, if anywhere.
    pub metrics: Option<SocketAddr>,
}

/// What is asked of a proxy peer.
#[derive(Debug, Clone)]
pub struct ProxyRequest {
    /// Where to listen for the public network, over UDP and TCP.
    pub listen: SocketAddr,
    /// Where to listen over TLS, and with which certificate.
    pub tls: Option<ProxyTls>,
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
    report: &mut dyn FnMut(JoinOutcome),
    shutdown: impl Future<Output = ()>,
) -> Result<(), OpsError> {
    let started = Instant::now();
    tokio::pin!(shutdown);
    let running = tokio::select! {
        running = start(access, request) => running?,
        () = &mut shutdown => return Ok(()),
    };
    let member = &running.member;
    let metrics = match request.metrics {
        Some(address) => Some(member.metrics().serve(address).await?),
        None => None,
    };
    let proxy = match proxy_config(access, request, &running.known.descriptor)? {
        Some(config) => Some(Proxy::start(member, config).await?),
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
        adapter: proxy.iter().flat_map(|proxy| proxy.phones()).map(sip_address).collect(),
        metrics: metrics.as_ref().map(|server| format!("http://{}/metrics", server.address())),
        peers: status.peers,
        restored: member.restored(),
        elapsed_ms: started.elapsed().as_secs_f64() * 1e3,
    });
    shutdown.await;
    if let Some(proxy) = proxy {
        proxy.stop().await;
    }
    running.member.stop().await;
    Ok(())
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
    if let Some(ProxyRequest { listen, tls }) = request.proxy.clone() {
        (config.address, config.tls) = (Some(listen), tls);
    }
    if let Some(AdapterRequest { listen, phones }) = &request.adapter {
        let (phones, algorithms) = adapter::load(phones, descriptor.overlay(), &access.own_home()?)?;
        config.adapter = Some(AdapterConfig::new(*listen, phones, algorithms));
    }
    Ok(Some(config))
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
    config.network.mdns = request.mdns;
    config.network.listen = listen_addresses(access, request);
    config.peers = peers;
    config.remembered = remembered(&home);
    config.socket = Some(access.socket_path());
    config.home = Some(home.clone());
    config.timing.join = access.timeout;
    let member = Member::start(config).await?;
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
