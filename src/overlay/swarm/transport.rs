//! TCP with noise and yamux, and QUIC. Built by hand: a client that only needs TCP does not pay for QUIC's TLS.

use std::time::Duration;

use futures::future::Either;
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, OrTransport},
        upgrade::Version,
    },
    identity::Keypair,
    multiaddr::Protocol,
    noise, quic, relay, tcp, yamux,
};

use super::{NetworkError, cork::Corked, redial::Redial};

/// How long dialling and the handshakes may take. Without an end to it, a few hundred TCP connections that say nothing
/// would fill all places for connections under way, and keep everybody else out.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether an address is one of QUIC.
pub(super) fn is_quic(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::QuicV1))
}

/// The transport of a process: TCP always, QUIC and circuits through relays if wanted.
pub(super) fn build(
    key: &Keypair,
    with_quic: bool,
    circuits: Option<relay::client::Transport>,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, NetworkError> {
    let noise = noise::Config::new(key).map_err(|error| NetworkError::Transport { why: error.to_string() })?;
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        // V1Lazy saves the dialler a round trip for each negotiation.
        .upgrade(Version::V1Lazy)
        .authenticate(Corked(noise))
        .multiplex(yamux::Config::default())
        .timeout(HANDSHAKE_TIMEOUT);
    let tcp = Redial::new(tcp.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer))));
    let tcp = match circuits {
        None => tcp.boxed(),
        Some(circuits) => {
            // The relay sees octets and no more: the two ends authenticate each other as on TCP.
            let noise = noise::Config::new(key).map_err(|error| NetworkError::Transport { why: error.to_string() })?;
            let circuits = circuits
                .upgrade(Version::V1Lazy)
                .authenticate(Corked(noise))
                .multiplex(yamux::Config::default())
                .timeout(HANDSHAKE_TIMEOUT);
            OrTransport::new(circuits, tcp)
                .map(|either, _| match either {
                    Either::Left((peer, muxer)) => (peer, StreamMuxerBox::new(muxer)),
                    Either::Right(connection) => connection,
                })
                .boxed()
        }
    };
    if !with_quic {
        return Ok(tcp);
    }
    let quic = quic::tokio::Transport::new(quic::Config::new(key))
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
    Ok(OrTransport::new(tcp, quic)
        .map(|either, _| match either {
            Either::Left(connection) => connection,
            Either::Right(connection) => connection,
        })
        .boxed())
}
