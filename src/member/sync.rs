//! Storers of the same names compare what they hold, so that records survive churn.
//!
//! A member computes, for each name it holds, which members of its routing table should hold it too, and sends each of
//! them the fingerprints of those dictionaries. The other answers with what it has where they differ, and is sent in
//! turn what it lacks. Nothing is ever taken on trust: every envelope is verified as if a stranger had sent it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::{broadcast, watch};

use super::{Timing, core::Core};
use crate::{
    client::{Digest, Event, PeerInfo, PutRevocations, Store},
    name::{PeerId, Position},
};

/// Dictionaries in one digest.
const MAX_DIGEST: usize = 1000;
/// How many leading bits of its own position a member may flip to find somebody far away.
const FAR_BITS: u32 = 8;
/// Records sent to one neighbour in one round; the rest follows in the next.
const MAX_SENT: usize = 500;

/// A duration, longer or shorter by up to a quarter.
pub(super) fn spread(duration: Duration) -> Duration {
    duration.mul_f64(0.75 + f64::from(random_octet()) / 512.0)
}

fn random_octet() -> u8 {
    let mut octet = [0; 1];
    // Without randomness members march in step, which is a pity and no fault.
    let _ = getrandom::fill(&mut octet);
    octet[0]
}

/// Compares and repairs, until the member stops.
pub(super) async fn run(core: Arc<Core>, timing: Timing, mut stopping: watch::Receiver<bool>) {
    let network = core.network();
    let mut events = network.events().subscribe();
    loop {
        tokio::select! {
            () = tokio::time::sleep(spread(timing.sync)) => {}
            () = neighbours_changed(&mut events) => tokio::time::sleep(spread(timing.settle)).await,
            _ = stopping.changed() => return,
        }
        core.purge();
        tokio::select! {
            () = round(&core, timing) => {}
            _ = stopping.changed() => return,
        }
    }
}

/// Waits until a peer enters or leaves the routing table. The changes of the settling time are taken together.
async fn neighbours_changed(events: &mut broadcast::Receiver<Event>) {
    loop {
        match events.recv().await {
            Ok(Event::PeerJoined { .. } | Event::PeerLeft { .. }) | Err(broadcast::error::RecvError::Lagged(_)) => {
                while events.try_recv().is_ok() {}
                return;
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// One comparison with every neighbour concerned.
async fn round(core: &Arc<Core>, timing: Timing) {
    let mut shared: BTreeMap<PeerId, (PeerInfo, Vec<(Position, u64)>)> = BTreeMap::new();
    for (position, fingerprint) in core.fingerprints() {
        for info in core.storers(&position) {
            let (_, dictionaries) = shared.entry(info.peer).or_insert_with(|| (info, Vec::new()));
            if dictionaries.len() < MAX_DIGEST {
                dictionaries.push((position, fingerprint));
            }
        }
    }
    // Who shares no record with anybody has to hear of revoked certificates too: each asks somebody far away.
    let far = core.network().peer().position().with_bit_flipped(u32::from(random_octet()) % FAR_BITS);
    for info in core.network().closest(&far, 1) {
        shared.entry(info.peer).or_insert_with(|| (info, Vec::new()));
    }
    for (info, dictionaries) in shared.into_values() {
        if let Err(error) = compare(core, &info, dictionaries, timing.request).await {
            tracing::debug!(peer = %info.peer, %error, "comparing records");
        }
    }
}

async fn compare(
    core: &Arc<Core>,
    info: &PeerInfo,
    dictionaries: Vec<(Position, u64)>,
    timeout: Duration,
) -> Result<(), crate::overlay::swarm::AskError> {
    let network = core.network();
    let digest = Digest { dictionaries, revocations: core.revocations_sequence() };
    let reply = network.call(info, &digest, timeout).await?;
    if let Some(list) = reply.revocations {
        core.take_revocations(&list);
    } else if reply.wants_revocations
        && let Some(list) = core.revocations()
    {
        network.call(info, &PutRevocations { list: list.into() }, timeout).await?;
    }
    for envelope in reply.envelopes.iter().take(MAX_SENT) {
        core.accept(envelope, Some(info.peer));
    }
    // After the merge: what the other still lacks is everything it did not send itself.
    let theirs: std::collections::HashSet<&[u8]> = reply.envelopes.iter().map(|envelope| envelope.as_slice()).collect();
    let mut sent = 0;
    for position in reply.differing {
        for envelope in core.envelopes(&position) {
            if sent >= MAX_SENT {
                return Ok(());
            }
            if !theirs.contains(&envelope[..]) {
                network.call(info, &Store { envelope: envelope.to_vec().into() }, timeout).await?;
                sent += 1;
            }
        }
    }
    Ok(())
}
