//! What runs on every connection.

use libp2p::{
    StreamProtocol, connection_limits, identify,
    identity::Keypair,
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

/// The behaviours of a member; a client has `requests` and `streams` alone.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) limits: Toggle<connection_limits::Behaviour>,
    pub(super) requests: request_response::Behaviour<FrameCodec>,
    pub(super) identify: Toggle<identify::Behaviour>,
    pub(super) streams: streams::Behaviour,
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
    let streams = streams::Behaviour::new(protocols.sip.clone());
    Behaviour { limits: limits.into(), requests, identify: identify.into(), streams }
}
