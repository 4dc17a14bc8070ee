//! Entering the overlay, and finding back into it.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::sync::watch;

use super::{MemberConfig, MemberError, core::Core};
use crate::{
    client::{Closest, PeerInfo},
    overlay::swarm::{AskError, Network},
};

/// Peers asked for on entering.
const NEIGHBOURS: u8 = 20;
/// The larger buckets of a routing table, which hold the peers far away: in an overlay of 2,000 all but the last ones.
const DISTANT_BUCKETS: u32 = 8;
/// Peers tried at a time when the overlay has been lost.
const MAX_TRIED: usize = 16;

/// Asks every given peer at once for our neighbours, and goes on as soon as one has answered.
pub(super) async fn join(network: &Network, config: &MemberConfig) -> Result<(), MemberError> {
    let entries: Vec<&PeerInfo> = config.peers.iter().filter(|info| info.peer != network.peer()).collect();
    let mut failures = Vec::new();
    if !entries.is_empty() {
        let mut asked: FuturesUnordered<_> =
            entries.iter().map(|entry| async { (*entry, ask(network, entry, config.timing.join).await) }).collect();
        while let Some((entry, result)) = asked.next().await {
            match result {
                Ok(neighbours) => {
                    let known = neighbours.iter().chain([entry]).chain(&config.remembered);
                    let known: Vec<PeerInfo> = known.cloned().collect();
                    // The swarm's task lives: it was started a moment ago.
                    let _ = network.add_peers(&known).await;
                    look_around(network, entry, config).await;
                    meet(network, neighbours, config).await;
                    return Ok(());
                }
                Err(error) => failures.push((entry, error)),
            }
        }
        let overlay = config.descriptor.overlay().clone();
        let tried = failures
            .iter()
            .map(|(entry, error)| {
                let address = entry.addresses.first().map_or("no address", String::as_str);
                format!("{address} {error}")
            })
            .collect::<Vec<_>>()
            .join("; ");
        return Err(if failures.iter().any(|(_, error)| *error == AskError::OtherOverlay) {
            MemberError::OtherOverlay { overlay, tried }
        } else {
            MemberError::NobodyToJoin { overlay, tried }
        });
    }
    let _ = network.add_peers(&config.remembered).await;
    let _ = network.bootstrap().await;
    Ok(())
}

/// Learns of peers all over the space from the one member that is connected already: a request for each of the larger
/// buckets of the routing table, and no connection more. Kademlia's own refresh finds the rest in time.
async fn look_around(network: &Network, entry: &PeerInfo, config: &MemberConfig) {
    let own = network.peer().position();
    let asked = (0..DISTANT_BUCKETS).map(|bucket| {
        let closest = Closest { target: own.with_bit_flipped(bucket), count: NEIGHBOURS };
        async move { network.call(entry, &closest, config.timing.request).await }
    });
    for reply in futures::future::join_all(asked).await.into_iter().flatten() {
        let _ = network.add_peers(&reply.peers).await;
    }
}

/// Makes our nearest neighbours know us: those who hold what we shall hold learn of us by being asked.
async fn meet(network: &Network, mut neighbours: Vec<PeerInfo>, config: &MemberConfig) {
    neighbours.truncate(usize::from(config.descriptor.limits().replication) + 3);
    let met = neighbours.iter().map(|neighbour| ask(network, neighbour, config.timing.request));
    for closer in futures::future::join_all(met).await.into_iter().flatten() {
        let _ = network.add_peers(&closer).await;
    }
}

async fn ask(network: &Network, entry: &PeerInfo, timeout: Duration) -> Result<Vec<PeerInfo>, AskError> {
    let closest = Closest { target: network.peer().position(), count: NEIGHBOURS };
    Ok(network.call(entry, &closest, timeout).await?.peers)
}

/// Watches the routing table: when it is empty, the peers known from before are tried again.
pub(super) async fn stay_joined(core: Arc<Core>, config: MemberConfig, mut stopping: watch::Receiver<bool>) {
    let network = core.network();
    let mut known: Vec<PeerInfo> = config.peers.iter().chain(&config.remembered).cloned().collect();
    loop {
        tokio::select! {
            () = tokio::time::sleep(config.timing.rejoin) => {}
            _ = stopping.changed() => return,
        }
        let table = network.table();
        if table.is_empty() {
            if !known.is_empty() {
                tracing::info!(peers = known.len(), "every peer is gone; trying those known from before");
                known.truncate(MAX_TRIED);
                let _ = network.add_peers(&known).await;
                let _ = network.bootstrap().await;
            }
        } else {
            let met = table.closest(&network.peer().position(), MAX_TRIED);
            core.remember(&met);
            known = met;
            known.extend(config.peers.iter().cloned());
        }
    }
}
