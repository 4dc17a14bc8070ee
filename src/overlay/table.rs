//! A copy of the routing table that can be read without asking the swarm's task.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use crate::{
    client::PeerInfo,
    name::{PeerId, Position},
};

#[derive(Debug)]
struct Entry {
    peer: PeerId,
    addresses: Vec<String>,
}

/// The peers of the routing table, by position. Cheap to clone; all clones share one table.
#[derive(Debug, Clone, Default)]
pub struct SharedTable(Arc<RwLock<BTreeMap<Position, Entry>>>);

impl SharedTable {
    /// Adds a peer or replaces its addresses.
    pub fn insert(&self, peer: PeerId, addresses: Vec<String>) {
        self.write().insert(peer.position(), Entry { peer, addresses });
    }

    /// Removes a peer; tells whether it was there.
    pub fn remove(&self, peer: &PeerId) -> bool {
        self.write().remove(&peer.position()).is_some()
    }

    /// Whether the peer is in the table.
    pub fn contains(&self, peer: &PeerId) -> bool {
        self.read().contains_key(&peer.position())
    }

    /// How many peers there are.
    pub fn len(&self) -> usize {
        self.read().len()
    }

    /// Whether there is no peer.
    pub fn is_empty(&self) -> bool {
        self.read().is_empty()
    }

    /// Every peer, in the order of positions.
    pub fn all(&self) -> Vec<PeerInfo> {
        self.read().values().map(Entry::info).collect()
    }

    /// The peers closest to `target`, nearest first.
    pub fn closest(&self, target: &Position, count: usize) -> Vec<PeerInfo> {
        let table = self.read();
        let mut by_distance: Vec<_> =
            table.iter().map(|(position, entry)| (position.distance(target), entry)).collect();
        if count < by_distance.len() {
            by_distance.select_nth_unstable_by_key(count, |(distance, _)| *distance);
            by_distance.truncate(count);
        }
        by_distance.sort_unstable_by_key(|(distance, _)| *distance);
        by_distance.into_iter().map(|(_, entry)| entry.info()).collect()
    }

    /// How many peers of the table stand closer to `target` than `position` does.
    pub fn rank(&self, target: &Position, position: &Position) -> usize {
        let own = position.distance(target);
        self.read().keys().filter(|other| other.distance(target) < own).count()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<Position, Entry>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<Position, Entry>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn info(&self) -> PeerInfo {
        PeerInfo { peer: self.peer, addresses: self.addresses.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_are_the_closest_and_come_nearest_first() {
        let table = SharedTable::default();
        let peers: Vec<PeerId> = (0..100).map(|n| PeerId::from_public_key([n; 32])).collect();
        for peer in &peers {
            table.insert(*peer, vec![]);
        }
        let target = Position::of_name("sip:alice@p2psip.org");
        let mut truth = peers.clone();
        truth.sort_by_key(|peer| peer.position().distance(&target));
        let found: Vec<PeerId> = table.closest(&target, 7).into_iter().map(|info| info.peer).collect();
        assert_eq!(found, truth[..7]);
        assert_eq!(table.closest(&target, 1000).len(), 100);
        assert!(table.closest(&target, 0).is_empty());
        assert_eq!(table.rank(&target, &truth[4].position()), 4);
        assert!(table.remove(&truth[0]) && !table.remove(&truth[0]));
        assert_eq!(table.closest(&target, 1)[0].peer, truth[1]);
    }
}
