//! SIP's way into the overlay: the streams that its transports ask for are those of the member's swarm.

use std::{io, time::Duration};

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::{
    client::PeerInfo,
    name::PeerId,
    overlay::swarm::{AskError, Network},
    sip::transport::{BoxedStream, OverlayDialer, OverlayPort},
};

/// How long opening a stream may take, dialling included.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Streams that wait to be taken over by the transports.
const ACCEPT_QUEUE: usize = 64;

/// The streams for SIP of a swarm, both ways: of a member's, or of a client's that listens. From now on the swarm
/// accepts them, and hands them to the last one who asked.
///
/// # Errors
/// [`AskError::Closed`], if the swarm has ended.
pub async fn sip_streams(network: &Network) -> Result<OverlayPort, AskError> {
    let mut streams = network.incoming_sip().await?;
    let (sender, incoming) = mpsc::channel::<(PeerId, BoxedStream)>(ACCEPT_QUEUE);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = streams.recv() => accepted,
                () = sender.closed() => return,
            };
            let Some((peer, stream)) = accepted else { return };
            if sender.send((peer, Box::new(stream))).await.is_err() {
                return;
            }
        }
    });
    Ok(OverlayPort { dialer: Box::new(Dialer(network.clone())), incoming })
}

struct Dialer(Network);

#[async_trait]
impl OverlayDialer for Dialer {
    async fn open(&self, peer: PeerId, addresses: &[String]) -> io::Result<BoxedStream> {
        let to = PeerInfo { peer, addresses: addresses.to_vec() };
        let stream = self.0.open_sip(&to, OPEN_TIMEOUT).await.map_err(io::Error::other)?;
        Ok(Box::new(stream))
    }
}
