//! What runs on every connection.

use std::{num::NonZeroUsize, time::Duration};

use libp2p::{
    StreamProtocol, connection_limits, identify,
    identity::Keypair,
    kad,
    request_response::{self, ProtocolSupport},
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};

use super::{NetworkConfig, NetworkError, Role, codec::FrameCodec};

/// Connections a member accepts, in all and from one peer.
const MAX_INCOMING: u32 = 1024;
const MAX_PENDING_INCOMING: u32 = 256;
const MAX_PER_PEER: u32 = 4;

/// Peers that a query which refreshes the routing table settles for, and asks at a time. One answer brings the twenty
/// that its sender knows closest; the neighbourhood itself is found by frames of our own. Every peer asked beyond
/// that costs a connection, which in a small overlay soon means one to everybody.
const REFRESH_PEERS: NonZeroUsize = NonZeroUsize::MIN;

/// Requests of one connection that may be under way at a time, each way.
const MAX_STREAMS: usize = 128;

/// The behaviours of a member; a client has `requests` alone.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) limits: Toggle<connection_limits::Behaviour>,
    pub(super) requests: request_response::Behaviour<FrameCodec>,
    pub(super) identify: Toggle<identify::Behaviour>,
    pub(super) kad: Toggle<kad::Behaviour<kad::store::MemoryStore>>,
}

/// The names under which an overlay's members speak to each other. The descriptor's hash is part of them, so that
/// two overlays never mix, nor two descriptors of one.
pub(super) struct Protocols {
    pub(super) kad: StreamProtocol,
    pub(super) client: StreamProtocol,
    pub(super) version: String,
}

impl Protocols {
    pub(super) fn new(config: &NetworkConfig) -> Result<Self, NetworkError> {
        let base = format!("/p2psip/{}-{}", config.overlay, config.descriptor.short());
        let protocol = |suffix: &str| {
            StreamProtocol::try_from_owned(format!("{base}/{suffix}"))
                .map_err(|error| NetworkError::Transport { why: error.to_string() })
        };
        Ok(Self { kad: protocol("kad/1")?, client: protocol("client/1")?, version: base })
    }
}

pub(super) fn build(config: &NetworkConfig, key: &Keypair, protocols: &Protocols) -> Behaviour {
    let member = config.role == Role::Member;
    let support = if member { ProtocolSupport::Full } else { ProtocolSupport::Outbound };
    let requests = request_response::Behaviour::with_codec(
        FrameCodec,
        [(protocols.client.clone(), support)],
        request_response::Config::default()
            .with_request_timeout(config.request_timeout)
            .with_max_concurrent_streams(MAX_STREAMS),
    );
    let limits = member.then(|| {
        connection_limits::Behaviour::new(
            connection_limits::ConnectionLimits::default()
                .with_max_established_incoming(Some(MAX_INCOMING))
                .with_max_pending_incoming(Some(MAX_PENDING_INCOMING))
                .with_max_established_per_peer(Some(MAX_PER_PEER)),
        )
    });
    let identify = member.then(|| {
        identify::Behaviour::new(
            identify::Config::new(protocols.version.clone(), key.public())
                .with_agent_version(concat!("p2psip/", env!("CARGO_PKG_VERSION")).to_owned())
                .with_push_listen_addr_updates(true)
                .with_cache_size(0),
        )
    });
    let kad = member.then(|| kademlia(config, key, protocols));
    Behaviour { limits: limits.into(), requests, identify: identify.into(), kad: kad.into() }
}

/// Kademlia keeps the routing table and nothing else: records travel in frames of our own, whose answers say whether
/// a record was stored, and what libp2p would put into its own store is dropped.
fn kademlia(config: &NetworkConfig, key: &Keypair, protocols: &Protocols) -> kad::Behaviour<kad::store::MemoryStore> {
    let peer = key.public().to_peer_id();
    let mut kad = kad::Config::new(protocols.kad.clone());
    kad.set_query_timeout(Duration::from_secs(10))
        .set_substreams_timeout(Duration::from_secs(3))
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_caching(kad::Caching::Disabled)
        .set_replication_factor(REFRESH_PEERS)
        .set_parallelism(REFRESH_PEERS)
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_kbucket_size(NonZeroUsize::new(config.bucket_size).unwrap_or(NonZeroUsize::MIN))
        .set_periodic_bootstrap_interval(Some(config.refresh));
    let mut behaviour = kad::Behaviour::with_config(peer, kad::store::MemoryStore::new(peer), kad);
    // The default mode waits for a confirmed external address, which a loopback overlay never gets.
    behaviour.set_mode(Some(kad::Mode::Server));
    behaviour
}
