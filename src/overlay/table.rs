//! The routing table: Kademlia's buckets, as seen from one position. Pure, but for the lock around the shared copy.
//!
//! A bucket holds the peers that have a given number of leading bits in common with this one, at most so many; what
//! it has no room for waits in reserve and moves up when a peer of the bucket is found dead. A live peer is never
//! pushed out by a newcomer (Maymounkov and Mazières 2002, §2.2), so nobody gets into a full table by coming in
//! numbers.
//!
//! Peers that were *met*, over a connection that proves who they are, stand apart from those that were only *heard
//! of*: anybody can make up peers next to any position. Hearsay gives way to a peer that was met, does not change its
//! addresses, and does not count where the closest members share out their duties.
//!
//! A peer that says of itself that it takes no part in routing is left out, whatever others tell of it: it may be
//! behind a NAT, where nobody reaches it but those it is connected with.
//!
//! libp2p has a table too. Ours asks nobody by itself: libp2p-kad 0.49 cannot be kept from refreshing its whole table
//! whenever a small one grows, and dials the oldest peer of a full bucket for every newcomer, by which an overlay of
//! 64 members soon has a connection between any two.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use super::addresses;
use crate::{
    client::PeerInfo,
    name::{PeerId, Position},
    record::MAX_ADDRESSES,
};

/// Peers that wait in reserve for a place in one bucket.
const RESERVE: usize = 8;

#[derive(Debug, Clone)]
struct Entry {
    position: Position,
    info: PeerInfo,
    met: bool,
}

impl Entry {
    /// What was told or seen of the peer once more.
    fn update(&mut self, info: PeerInfo, met: bool) {
        if met {
            self.met = true;
            if !info.addresses.is_empty() {
                self.info = info;
            }
        } else if !self.met {
            for address in info.addresses {
                if self.info.addresses.len() < MAX_ADDRESSES && !self.info.addresses.contains(&address) {
                    self.info.addresses.push(address);
                }
            }
        }
    }
}

#[derive(Debug, Default)]
struct Bucket {
    live: Vec<Entry>,
    reserve: VecDeque<Entry>,
}

/// What became of a peer that was heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It is in the table now.
    Entered,
    /// It was there already; its addresses are up to date.
    Known,
    /// It has the place of this peer, which was only heard of and waits in reserve now.
    Displaced(PeerId),
    /// Its bucket is full.
    InReserve,
    /// It is this peer itself.
    Myself,
    /// It has said itself that it takes no part.
    Client,
}

/// A routing table.
#[derive(Debug)]
pub struct RoutingTable {
    own: Position,
    bucket_size: usize,
    /// By the number of leading bits in common with `own`.
    buckets: BTreeMap<u32, Bucket>,
    peers: usize,
    /// Connected peers that take no part in routing.
    clients: BTreeSet<PeerId>,
    /// Whether any peer was ever met.
    met_anybody: bool,
}

impl RoutingTable {
    /// The empty table of the peer at `own`, with so many peers to a bucket.
    pub const fn new(own: Position, bucket_size: usize) -> Self {
        Self { own, bucket_size, buckets: BTreeMap::new(), peers: 0, clients: BTreeSet::new(), met_anybody: false }
    }

    fn bucket_of(&self, position: &Position) -> u32 {
        self.own.distance(position).common_prefix()
    }

    /// Takes a peer in that others have told of, if its bucket has room, else into the bucket's reserve.
    pub fn heard_of(&mut self, info: PeerInfo) -> Heard {
        self.take(info, false)
    }

    /// Takes a peer in that has proved over a connection who it is. In a full bucket it has the place of one that was
    /// only heard of, if there is one.
    pub fn met(&mut self, info: PeerInfo) -> Heard {
        self.take(info, true)
    }

    fn take(&mut self, mut info: PeerInfo, met: bool) -> Heard {
        let position = info.peer.position();
        if position == self.own {
            return Heard::Myself;
        }
        self.met_anybody |= met;
        if met {
            self.clients.remove(&info.peer);
        } else if self.clients.contains(&info.peer) {
            return Heard::Client;
        }
        info.addresses = addresses::best(info.addresses);
        let bucket = self.buckets.entry(self.own.distance(&position).common_prefix()).or_default();
        if let Some(entry) = bucket.live.iter_mut().find(|entry| entry.position == position) {
            entry.update(info, met);
            return Heard::Known;
        }
        let waiting = bucket.reserve.iter().position(|waiting| waiting.position == position);
        let entry = match waiting.and_then(|at| bucket.reserve.remove(at)) {
            Some(mut entry) => {
                entry.update(info, met);
                entry
            }
            None => Entry { position, info, met },
        };
        if bucket.live.len() < self.bucket_size {
            bucket.live.push(entry);
            self.peers += 1;
            return Heard::Entered;
        }
        let hearsay = bucket.live.iter_mut().find(|live| !live.met).filter(|_| entry.met);
        let (waits, heard) = match hearsay {
            Some(live) => {
                let displaced = std::mem::replace(live, entry);
                let peer = displaced.info.peer;
                (displaced, Heard::Displaced(peer))
            }
            None => (entry, Heard::InReserve),
        };
        // Those that were met wait in front, and are the last to be dropped.
        let at = if waits.met { 0 } else { bucket.reserve.partition_point(|waiting| waiting.met) };
        bucket.reserve.insert(at, waits);
        bucket.reserve.truncate(RESERVE);
        heard
    }

    /// Leaves a connected peer out that says that it takes no part in routing, until it says otherwise or is
    /// [`gone`](Self::gone). Returns what [`remove`](Self::remove) does.
    pub fn client(&mut self, peer: PeerId) -> Option<Option<PeerId>> {
        self.clients.insert(peer);
        self.remove(&peer)
    }

    /// A peer is connected no longer: what it has said of itself is forgotten.
    pub fn gone(&mut self, peer: &PeerId) {
        self.clients.remove(peer);
    }

    /// Takes a peer out, for it does not answer. `None`: it was not in the table. `Some`: it was, and this peer from
    /// the reserve, if any, has its place now.
    pub fn remove(&mut self, peer: &PeerId) -> Option<Option<PeerId>> {
        let position = peer.position();
        let prefix = self.bucket_of(&position);
        let bucket = self.buckets.get_mut(&prefix)?;
        bucket.reserve.retain(|waiting| waiting.position != position);
        let at = bucket.live.iter().position(|entry| entry.position == position)?;
        bucket.live.remove(at);
        let next = bucket.reserve.pop_front();
        let moved_up = next.as_ref().map(|entry| entry.info.peer);
        match next {
            Some(entry) => bucket.live.push(entry),
            None => self.peers -= 1,
        }
        if bucket.live.is_empty() {
            self.buckets.remove(&prefix);
        }
        Some(moved_up)
    }

    /// How many peers are in the table, the reserves not counted.
    pub const fn len(&self) -> usize {
        self.peers
    }

    /// Whether there is no peer.
    pub const fn is_empty(&self) -> bool {
        self.peers == 0
    }

    /// Whether the peer is in the table.
    pub fn contains(&self, peer: &PeerId) -> bool {
        let position = peer.position();
        let bucket = self.buckets.get(&self.bucket_of(&position));
        bucket.is_some_and(|bucket| bucket.live.iter().any(|entry| entry.position == position))
    }

    /// What is known of a peer in the table that was met.
    pub fn info_of_met(&self, peer: &PeerId) -> Option<&PeerInfo> {
        let position = peer.position();
        let bucket = self.buckets.get(&self.bucket_of(&position))?;
        bucket.live.iter().find(|entry| entry.met && entry.position == position).map(|entry| &entry.info)
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.buckets.values().flat_map(|bucket| &bucket.live)
    }

    /// The peers closest to `target`, nearest first.
    pub fn closest(&self, target: &Position, count: usize) -> Vec<PeerInfo> {
        closest(self.entries(), self.peers, target, count)
    }

    /// Of the peers that were met, those closest to `target`, nearest first.
    pub fn closest_met(&self, target: &Position, count: usize) -> Vec<PeerInfo> {
        closest(self.entries().filter(|entry| entry.met), self.peers, target, count)
    }

    /// How many peers that were met stand closer to `target` than this one does.
    pub fn rank(&self, target: &Position) -> usize {
        let own = self.own.distance(target);
        self.entries().filter(|entry| entry.met && entry.position.distance(target) < own).count()
    }

    /// Each bucket that holds a peer: the leading bits in common with this one, and how many peers it holds.
    pub fn buckets(&self) -> Vec<(u32, usize)> {
        self.buckets.iter().map(|(prefix, bucket)| (*prefix, bucket.live.len())).collect()
    }
}

fn closest<'a>(
    entries: impl Iterator<Item = &'a Entry>,
    at_most: usize,
    target: &Position,
    count: usize,
) -> Vec<PeerInfo> {
    let mut by_distance = Vec::with_capacity(at_most);
    by_distance.extend(entries.map(|entry| (entry.position.distance(target), entry)));
    if count < by_distance.len() {
        by_distance.select_nth_unstable_by_key(count, |(distance, _)| *distance);
        by_distance.truncate(count);
    }
    by_distance.sort_unstable_by_key(|(distance, _)| *distance);
    by_distance.into_iter().map(|(_, entry)| entry.info.clone()).collect()
}

/// A routing table that the swarm's task writes and everybody reads. Cheap to clone; all clones share one table.
#[derive(Debug, Clone)]
pub struct SharedTable(Arc<RwLock<RoutingTable>>);

impl SharedTable {
    /// Shares a table.
    pub fn new(table: RoutingTable) -> Self {
        Self(Arc::new(RwLock::new(table)))
    }

    /// Whether any peer was ever met, though it may have gone since.
    pub fn has_met_anybody(&self) -> bool {
        self.read().met_anybody
    }

    /// As [`RoutingTable::heard_of`].
    pub fn heard_of(&self, info: PeerInfo) -> Heard {
        self.write().heard_of(info)
    }

    /// As [`RoutingTable::met`].
    pub fn met(&self, info: PeerInfo) -> Heard {
        self.write().met(info)
    }

    /// As [`RoutingTable::client`].
    pub fn client(&self, peer: PeerId) -> Option<Option<PeerId>> {
        self.write().client(peer)
    }

    /// As [`RoutingTable::gone`].
    pub fn gone(&self, peer: &PeerId) {
        self.write().gone(peer);
    }

    /// As [`RoutingTable::remove`].
    pub fn remove(&self, peer: &PeerId) -> Option<Option<PeerId>> {
        self.write().remove(peer)
    }

    /// As [`RoutingTable::contains`].
    pub fn contains(&self, peer: &PeerId) -> bool {
        self.read().contains(peer)
    }

    /// As [`RoutingTable::info_of_met`].
    pub fn info_of_met(&self, peer: &PeerId) -> Option<PeerInfo> {
        self.read().info_of_met(peer).cloned()
    }

    /// As [`RoutingTable::len`].
    pub fn len(&self) -> usize {
        self.read().len()
    }

    /// As [`RoutingTable::is_empty`].
    pub fn is_empty(&self) -> bool {
        self.read().is_empty()
    }

    /// As [`RoutingTable::closest`].
    pub fn closest(&self, target: &Position, count: usize) -> Vec<PeerInfo> {
        self.read().closest(target, count)
    }

    /// As [`RoutingTable::closest_met`].
    pub fn closest_met(&self, target: &Position, count: usize) -> Vec<PeerInfo> {
        self.read().closest_met(target, count)
    }

    /// As [`RoutingTable::rank`].
    pub fn rank(&self, target: &Position) -> usize {
        self.read().rank(target)
    }

    /// As [`RoutingTable::buckets`].
    pub fn buckets(&self) -> Vec<(u32, usize)> {
        self.read().buckets()
    }

    fn read(&self) -> RwLockReadGuard<'_, RoutingTable> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, RoutingTable> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u16) -> PeerId {
        let mut key = [7; 32];
        key[..2].copy_from_slice(&n.to_be_bytes());
        PeerId::from_public_key(key)
    }

    fn info(n: u16) -> PeerInfo {
        PeerInfo { peer: peer(n), addresses: vec![format!("/ip4/127.0.0.1/tcp/{}", n + 1)] }
    }

    fn table(peers: u16) -> RoutingTable {
        let mut table = RoutingTable::new(peer(u16::MAX).position(), 8);
        for n in 0..peers {
            table.heard_of(info(n));
        }
        table
    }

    #[test]
    fn a_client_stays_out_whatever_others_tell_of_it() {
        let mut table = table(3);
        assert_eq!(table.client(peer(1)), Some(None));
        assert_eq!((table.heard_of(info(1)), table.contains(&peer(1))), (Heard::Client, false));
        assert_eq!((table.met(info(1)), table.heard_of(info(1))), (Heard::Entered, Heard::Known));
        assert_eq!((table.client(peer(1)), table.client(peer(9))), (Some(None), None));
        table.gone(&peer(1));
        assert_eq!((table.heard_of(info(1)), table.heard_of(info(9))), (Heard::Entered, Heard::Client));
    }

    #[test]
    fn the_closest_are_the_closest_of_the_table_and_come_nearest_first() {
        let table = table(300);
        let target = Position::of_name("sip:alice@p2psip.org");
        let mut truth: Vec<PeerId> = (0..300).map(peer).filter(|peer| table.contains(peer)).collect();
        truth.sort_by_key(|peer| peer.position().distance(&target));
        let found: Vec<PeerId> = table.closest(&target, 7).into_iter().map(|info| info.peer).collect();
        assert_eq!(found, truth[..7]);
        assert_eq!(table.closest(&target, 1000).len(), table.len());
        assert!(table.closest(&target, 0).is_empty());
        let own = peer(u16::MAX).position().distance(&target);
        let closer: Vec<PeerId> =
            truth.iter().filter(|peer| peer.position().distance(&target) < own).copied().collect();
        assert_eq!((table.rank(&target), table.closest_met(&target, 7).len()), (0, 0), "nobody was met");
        let mut table = table;
        for peer in &closer[1..] {
            table.met(PeerInfo { peer: *peer, addresses: vec![] });
        }
        assert_eq!(table.rank(&target), closer.len() - 1);
        let met: Vec<PeerId> = table.closest_met(&target, 2).into_iter().map(|info| info.peer).collect();
        assert_eq!(met, closer[1..3]);
    }

    #[test]
    fn buckets_are_bounded_and_the_neighbourhood_is_known_in_full() {
        let table = table(2000);
        assert!(table.len() < 100, "{}", table.len());
        assert!(table.buckets().iter().all(|(_, peers)| *peers <= 8));
        let own = peer(u16::MAX).position();
        let mut near: Vec<PeerId> = (0..2000).map(peer).collect();
        near.sort_by_key(|peer| peer.position().distance(&own));
        assert!(near[..5].iter().all(|peer| table.contains(peer)));
    }

    #[test]
    fn newcomers_do_not_push_anybody_out_and_wait_in_reserve() {
        let mut table = table(2000);
        let before: Vec<PeerId> = table.entries().map(|entry| entry.info.peer).collect();
        for n in 3000..4000 {
            table.heard_of(info(n));
        }
        assert!(before.iter().all(|peer| table.contains(peer)));
        let far = before.iter().find(|peer| table.bucket_of(&peer.position()) == 0).copied().unwrap();
        let moved_up = table.remove(&far).unwrap().expect("somebody waited");
        assert!(table.contains(&moved_up) && !table.contains(&far));
        assert_eq!(table.len(), table.entries().count());
        assert_eq!(table.remove(&far), None);
    }

    #[test]
    fn a_known_peer_gets_its_new_addresses_and_one_is_not_ones_own_peer() {
        let mut table = table(1);
        let moved = PeerInfo { peer: peer(0), addresses: vec!["/ip4/127.0.0.1/tcp/9".to_owned()] };
        assert_eq!(table.met(moved.clone()), Heard::Known);
        assert_eq!(table.met(PeerInfo { peer: peer(0), addresses: vec![] }), Heard::Known);
        assert_eq!(table.closest(&peer(0).position(), 1), [moved]);
        assert_eq!(table.heard_of(info(u16::MAX - 1)), Heard::Entered);
        let own = PeerInfo { peer: peer(u16::MAX), addresses: vec![] };
        assert_eq!(table.heard_of(own), Heard::Myself);
    }

    #[test]
    fn hearsay_gives_way_to_who_was_met_and_does_not_move_anybody() {
        let mut table = table(2000);
        let before = table.len();
        let is_far = |n: &u16| table.bucket_of(&peer(*n).position()) == 0;
        let newcomers: Vec<u16> = (3000..4000).filter(is_far).take(10).collect();
        for n in &newcomers[..8] {
            assert!(matches!(table.met(info(*n)), Heard::Displaced(_)));
        }
        assert!(newcomers[..8].iter().all(|n| table.contains(&peer(*n))));
        assert_eq!(table.met(info(newcomers[8])), Heard::InReserve, "those in the bucket were met, too");
        assert_eq!(table.heard_of(info(newcomers[9])), Heard::InReserve);
        assert_eq!(table.len(), before);
        assert_eq!(table.remove(&peer(newcomers[0])), Some(Some(peer(newcomers[8]))), "who was met waits in front");

        let elsewhere = |n| PeerInfo { peer: peer(n), addresses: vec!["/ip4/192.0.2.66/tcp/1".to_owned()] };
        assert_eq!(table.heard_of(elsewhere(newcomers[1])), Heard::Known);
        assert_eq!(table.closest(&peer(newcomers[1]).position(), 1), [info(newcomers[1])]);
        let heard_of = table.closest(&peer(u16::MAX).position(), 1).remove(0);
        let lie = PeerInfo { peer: heard_of.peer, addresses: vec!["/ip4/192.0.2.66/tcp/1".to_owned()] };
        table.heard_of(lie);
        let addresses = table.closest(&heard_of.peer.position(), 1).remove(0).addresses;
        assert_eq!(addresses, [&heard_of.addresses[0], "/ip4/192.0.2.66/tcp/1"], "the first word is not the last");
    }
}
