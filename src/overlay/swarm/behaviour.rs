//! What runs on every connection.

use std::time::Duration;

use libp2p::{
    StreamProtocol, autonat, connection_limits, dcutr, identify,
    identity::Keypair,
    mdns, relay,
    request_response::{self, ProtocolSupport},
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};

use super::{NetworkConfig, NetworkError, Role, codec::FrameCodec, streams};

/// Connections a member accepts, in all and from one peer.
const MAX_INCOMING: u32 = 1024;
const MAX_PENDING_INCOMING: u32 = 256;
const MAX_PER_PEER: u32 = 4;

/// Requests of one connection that may be under way at a time, each way.
const MAX_STREAMS: usize = 128;

/// Circuits through a relay: for signalling and the overlay's own requests, so few octets and long lives.
const MAX_CIRCUITS: usize = 512;
const MAX_CIRCUITS_OF_PEER: usize = 16;
const MAX_CIRCUIT_OCTETS: u64 = 32 << 20;
const MAX_CIRCUIT_LIFE: Duration = Duration::from_secs(2 * 60 * 60);
/// Members behind NATs that a relay holds a place for.
const MAX_RESERVATIONS: usize = 256;

/// How often AutoNAT looks for addresses to be tested.
const AUTONAT_INTERVAL: Duration = Duration::from_secs(1);

/// The behaviours of a member; a client has `requests` and `streams` alone, a user agent does not serve others.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) limits: Toggle<connection_limits::Behaviour>,
    pub(super) requests: request_response::Behaviour<FrameCodec>,
    pub(super) identify: Toggle<identify::Behaviour>,
    pub(super) streams: streams::Behaviour,
    pub(super) relayed: Toggle<relay::client::Behaviour>,
    pub(super) nat: Toggle<Traversal>,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
}

/// What lets members behind NATs be reached, and what they need of others.
#[derive(NetworkBehaviour)]
pub(super) struct Traversal {
    pub(super) tested: autonat::v2::client::Behaviour,
    pub(super) testing: Toggle<autonat::v2::server::Behaviour>,
    pub(super) relaying: Toggle<relay::Behaviour>,
    pub(super) punching: dcutr::Behaviour,
}

impl Traversal {
    fn new(key: &Keypair, member: bool, circuits: CircuitLimits) -> Self {
        let peer = key.public().to_peer_id();
        let relay = relay::Config {
            max_reservations: MAX_RESERVATIONS,
            max_circuits: MAX_CIRCUITS,
            max_circuits_per_peer: MAX_CIRCUITS_OF_PEER,
            max_circuit_duration: circuits.life,
            max_circuit_bytes: circuits.octets,
            ..relay::Config::default()
        };
        let tested = autonat::v2::client::Config::default().with_probe_interval(AUTONAT_INTERVAL);
        Self {
            tested: autonat::v2::client::Behaviour::new(rand::make_rng(), tested),
            testing: member.then(|| autonat::v2::server::Behaviour::new(rand::make_rng())).into(),
            relaying: member.then(|| relay::Behaviour::new(peer, relay)).into(),
            punching: dcutr::Behaviour::new(peer),
        }
    }
}

/// What one circuit through this member may cost it.
#[derive(Debug, Clone, Copy)]
pub struct CircuitLimits {
    /// How long it lasts.
    pub life: Duration,
    /// How many octets pass, both ways together.
    pub octets: u64,
}

impl Default for CircuitLimits {
    fn default() -> Self {
        Self { life: MAX_CIRCUIT_LIFE, octets: MAX_CIRCUIT_OCTETS }
    }
}

/// The names under which an overlay's members speak to each other. The descriptor's hash is part of them, so that
/// two overlays never mix, nor two descriptors of one.
pub(super) struct Protocols {
    pub(super) client: StreamProtocol,
    pub(super) sip: StreamProtocol,
    pub(super) version: String,
}

impl Protocols {
    pub(super) fn new(config: &NetworkConfig) -> Result<Self, NetworkError> {
        let base = format!("/p2psip/{}-{}", config.overlay, config.descriptor.short());
        let protocol = |name| {
            StreamProtocol::try_from_owned(format!("{base}/{name}/1"))
                .map_err(|error| NetworkError::Transport { why: error.to_string() })
        };
        Ok(Self { client: protocol("client")?, sip: protocol("sip")?, version: base })
    }
}

/// The behaviours that `config` asks for. `relayed` is the relay client that belongs to the transport, if there is one;
/// `traversing` is whether to find out how this process is reached.
///
/// # Errors
/// [`NetworkError::Transport`], if the local network cannot be listened to.
pub(super) fn build(
    config: &NetworkConfig,
    key: &Keypair,
    protocols: &Protocols,
    relayed: Option<relay::client::Behaviour>,
    traversing: bool,
) -> Result<Behaviour, NetworkError> {
    let member = config.role == Role::Member;
    let support = if member { ProtocolSupport::Full } else { ProtocolSupport::Outbound };
    let requests = request_response::Behaviour::with_codec(
        FrameCodec,
        [(protocols.client.clone(), support)],
        request_response::Config::default()
            .with_request_timeout(config.request_timeout)
            .with_max_concurrent_streams(MAX_STREAMS),
    );
    let reachable = config.role != Role::Client;
    let limits = reachable.then(|| {
        connection_limits::Behaviour::new(
            connection_limits::ConnectionLimits::default()
                .with_max_established_incoming(Some(MAX_INCOMING))
                .with_max_pending_incoming(Some(MAX_PENDING_INCOMING))
                .with_max_established_per_peer(Some(MAX_PER_PEER)),
        )
    });
    let identify = reachable.then(|| {
        identify::Behaviour::new(
            identify::Config::new(protocols.version.clone(), key.public())
                .with_agent_version(concat!("p2psip/", env!("CARGO_PKG_VERSION")).to_owned())
                .with_push_listen_addr_updates(true)
                // Which of its addresses a member tells of is decided, not collected.
                .with_hide_listen_addrs(true)
                .with_cache_size(0),
        )
    });
    let streams = streams::Behaviour::new(protocols.sip.clone());
    let nat = traversing.then(|| Traversal::new(key, member, config.circuits));
    let mdns =
        (member && config.mdns).then(|| mdns::Behaviour::new(mdns::Config::default(), key.public().to_peer_id()));
    let mdns = mdns.transpose().map_err(|error| NetworkError::Transport { why: format!("mDNS: {error}") })?;
    Ok(Behaviour {
        limits: limits.into(),
        requests,
        identify: identify.into(),
        streams,
        relayed: relayed.into(),
        nat: nat.into(),
        mdns: mdns.into(),
    })
}
