//! Entering the overlay, keeping the routing table fresh, and finding back.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{sync::watch, time::Instant};

use super::{MemberConfig, MemberError, core::Core, sync::spread};
use crate::{
    client::{Closest, PeerInfo},
    name::{PeerId, Position},
    overlay::swarm::{AskError, Network},
};

/// Peers asked for at a time.
const NEIGHBOURS: u8 = 20;
/// The larger buckets of a routing table, which hold the peers far away: in an overlay of 2,000 all but the last ones.
const DISTANT_BUCKETS: u32 = 8;
/// Neighbours beyond the storers of our own position that a member makes itself known to.
const MARGIN: usize = 3;
/// The least time that the other entries have once one has answered.
const MIN_ENTRIES_WAIT: Duration = Duration::from_millis(20);
/// Peers tried at a time when the overlay has been lost.
const MAX_TRIED: usize = 16;

/// Asks every given peer at once for our neighbours. Once one has answered, the others have as long again: a single
/// entry may lie, and what several tell apart from each other does not all come from it.
pub(super) async fn join(network: &Network, config: &MemberConfig) -> Result<(), MemberError> {
    network.heard_of(config.remembered.iter().cloned());
    let entries: Vec<&PeerInfo> = config.peers.iter().filter(|info| info.peer != network.peer()).collect();
    if entries.is_empty() {
        meet(network, config, Vec::new()).await;
        return Ok(());
    }
    let (own, began) = (network.peer().position(), Instant::now());
    let ask_entry = |entry| async move { (entry, ask(network, entry, own, config.timing.join).await) };
    let mut asked: FuturesUnordered<_> = entries.into_iter().map(ask_entry).collect();
    let (mut told, mut failures) = (Vec::new(), Vec::new());
    let mut until = None;
    while let Some((entry, result)) = next_before(&mut asked, until).await {
        match result {
            Ok(neighbours) => {
                let took = began.elapsed().clamp(MIN_ENTRIES_WAIT, config.timing.request);
                until = until.or(Some(Instant::now() + took));
                told.push((entry, neighbours));
            }
            Err(error) => failures.push((entry, error)),
        }
    }
    if !told.is_empty() {
        for (entry, neighbours) in &told {
            network.heard_of(neighbours.iter().chain([*entry]).cloned());
        }
        let look = told.iter().map(|(entry, _)| look_around(network, entry, config));
        futures::future::join_all(look).await;
        let reach = reach(config);
        let nearest = told
            .into_iter()
            .flat_map(|(entry, neighbours)| std::iter::once(entry.clone()).chain(neighbours.into_iter().take(reach)));
        meet(network, config, nearest.collect()).await;
        return Ok(());
    }
    let overlay = config.descriptor.overlay().clone();
    let describe = |(entry, error): &(&PeerInfo, AskError)| {
        format!("{} {error}", entry.addresses.first().map_or("no address", String::as_str))
    };
    let tried = failures.iter().map(describe).collect::<Vec<_>>().join("; ");
    Err(if failures.iter().any(|(_, error)| *error == AskError::OtherOverlay) {
        MemberError::OtherOverlay { overlay, tried }
    } else {
        MemberError::NobodyToJoin { overlay, tried }
    })
}

/// The next one to be done, if one is before `until`.
async fn next_before<F: Future>(pending: &mut FuturesUnordered<F>, until: Option<Instant>) -> Option<F::Output> {
    match until {
        Some(until) => tokio::time::timeout_at(until, pending.next()).await.ok().flatten(),
        None => pending.next().await,
    }
}

async fn ask(
    network: &Network,
    peer: &PeerInfo,
    target: Position,
    timeout: Duration,
) -> Result<Vec<PeerInfo>, AskError> {
    let mut peers = network.call(peer, &Closest { target, count: NEIGHBOURS }, timeout).await?.peers;
    peers.truncate(NEIGHBOURS.into());
    Ok(peers)
}

/// Learns of peers all over the space from one member that is connected already: a request for each of the larger
/// buckets of the routing table, and no connection more.
async fn look_around(network: &Network, entry: &PeerInfo, config: &MemberConfig) {
    let own = network.peer().position();
    let asked =
        (0..DISTANT_BUCKETS).map(|bucket| ask(network, entry, own.with_bit_flipped(bucket), config.timing.request));
    for peers in futures::future::join_all(asked).await.into_iter().flatten() {
        network.heard_of(peers);
    }
}

/// How many neighbours a member makes itself known to.
fn reach(config: &MemberConfig) -> usize {
    usize::from(config.descriptor.limits().replication) + MARGIN
}

/// Makes our nearest neighbours know us: those who hold what we shall hold learn of us by being asked. Twice, for the
/// first answers may tell of nearer ones. `told` are asked as well: what one entry makes up, if it lies, stands nearest
/// and would hide them.
async fn meet(network: &Network, config: &MemberConfig, mut told: Vec<PeerInfo>) {
    let own = network.peer().position();
    let mut met: HashSet<PeerId> = HashSet::from([network.peer()]);
    for _ in 0..2 {
        let strangers: Vec<PeerInfo> = std::mem::take(&mut told)
            .into_iter()
            .chain(network.closest(&own, reach(config)))
            .filter(|info| met.insert(info.peer))
            .collect();
        ask_around(network, config, &strangers).await;
    }
}

/// Asks members for our neighbours, all at once. They learn of us by it, and whoever is dead is missed and leaves the table.
async fn ask_around(network: &Network, config: &MemberConfig, members: &[PeerInfo]) {
    let own = network.peer().position();
    let asked = members.iter().map(|member| ask(network, member, own, config.timing.request));
    for closer in futures::future::join_all(asked).await.into_iter().flatten() {
        network.heard_of(closer);
    }
}

/// Watches the routing table: refreshes it now and then, and tries the peers known from before when it is empty.
pub(super) async fn stay_joined(core: Arc<Core>, config: MemberConfig, mut stopping: watch::Receiver<bool>) {
    let network = core.network();
    let mut known: Vec<PeerInfo> = config.peers.iter().chain(&config.remembered).cloned().collect();
    let mut refreshed = Instant::now();
    let mut bucket = 0;
    let own = network.peer().position();
    let met = network.closest(&own, MAX_TRIED);
    if !met.is_empty() {
        core.remember(&met);
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(spread(config.timing.rejoin)) => {}
            _ = stopping.changed() => return,
        }
        core.report_trouble();
        core.reread_revocations();
        // Somebody wanted a record stored here, and these seem to stand closer. Once the dead among them are missed, it
        // finds its way when it is sent again; far from this member a refresh would take long to miss them.
        let doubted = core.take_doubted();
        tokio::select! {
            () = ask_around(network, &config, &doubted) => {}
            _ = stopping.changed() => return,
        }
        let table = network.table();
        if table.is_empty() {
            if known.is_empty() {
                continue;
            }
            tracing::info!(peers = known.len(), "every peer is gone; trying those known from before");
            known.truncate(MAX_TRIED);
            network.heard_of(known.clone());
        } else if refreshed.elapsed() < config.timing.refresh {
            continue;
        }
        refreshed = Instant::now();
        tokio::select! {
            () = refresh(network, &config, bucket) => {}
            _ = stopping.changed() => return,
        }
        bucket = (bucket + 1) % DISTANT_BUCKETS;
        let met = table.closest(&own, MAX_TRIED);
        if !met.is_empty() {
            core.remember(&met);
            known = met;
            known.extend(config.peers.iter().cloned());
        }
    }
}

/// Asks the neighbours about the neighbourhood, and somebody far away about one of the larger buckets. Whoever is
/// dead is missed by it and leaves the table.
async fn refresh(network: &Network, config: &MemberConfig, bucket: u32) {
    meet(network, config, Vec::new()).await;
    let target = network.peer().position().with_bit_flipped(bucket);
    for peer in network.closest(&target, 1) {
        if let Ok(peers) = ask(network, &peer, target, config.timing.request).await {
            network.heard_of(peers);
        }
    }
}
