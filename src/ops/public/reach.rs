//! A stream to one of the proxy peers that were found.

use std::time::Duration;

use futures::{StreamExt as _, stream::FuturesUnordered};

use crate::{
    client::PeerInfo,
    name::PeerId,
    ops::finder::Found,
    overlay::swarm::{AskError, Network},
};

/// After this time without a stream to one proxy peer the next one is tried as well.
const HEDGE: Duration = Duration::from_millis(500);

/// The first proxy peer to which there is a stream. One that hangs does not hold up the others.
pub(super) async fn reach(network: &Network, found: &[Found], timeout: Duration) -> Result<PeerId, Option<AskError>> {
    let infos = found.iter().filter_map(|found| {
        let addresses = found.hop.addresses.to_vec();
        found.hop.remote.peer().map(|peer| PeerInfo { peer, addresses })
    });
    let mut waiting = infos.collect::<Vec<_>>().into_iter();
    let open = |info: PeerInfo| async move { network.open_sip(&info, timeout).await.map(|_| info.peer) };
    let mut opening: FuturesUnordered<_> = waiting.next().into_iter().map(open).collect();
    let mut failure = None;
    loop {
        let opened = tokio::select! {
            opened = opening.next() => opened,
            () = tokio::time::sleep(HEDGE), if !waiting.as_slice().is_empty() => {
                opening.extend(waiting.next().map(open));
                continue;
            }
        };
        match opened {
            Some(Ok(peer)) => return Ok(peer),
            Some(Err(error)) => {
                failure = Some(error);
                opening.extend(waiting.next().map(open));
            }
            None => return Err(failure),
        }
    }
}
