//! A member of an overlay in memory, and what it answers.

use std::{collections::BTreeMap, sync::Arc};

use serde_bytes::ByteBuf;

use super::{Conduct, MemoryOverlay};
use crate::{
    client::{FetchReply, PeerInfo, StoreReply},
    identity::SecretKey,
    name::{InstanceId, PeerId, Position},
    overlay::storer::{Storer, StorerLimits},
    record::{Refusal, Trust},
};

/// How many peers a member tells of at the most.
const MAX_CLOSER: usize = 40;

#[derive(Debug)]
pub(super) struct Member {
    pub(super) peer: PeerId,
    pub(super) key: SecretKey,
    pub(super) position: Position,
    pub(super) address: String,
    /// The members that it knows, each with the leading bits of its position: enough to tell who is closer.
    pub(super) table: Vec<(u64, usize)>,
    pub(super) storer: Storer,
    pub(super) conduct: Conduct,
    /// Requests that have reached it and were answered.
    pub(super) served: u64,
    /// The first record of each instance: what a [`Conduct::Stale`] member returns.
    first: BTreeMap<(Position, InstanceId), Vec<u8>>,
}

impl Member {
    pub(super) fn new(key: SecretKey, index: usize, trust: &Arc<Trust>) -> Self {
        let peer = key.peer_id();
        Self {
            peer,
            key,
            position: peer.position(),
            address: format!("/memory/{}", index + 1),
            table: Vec::new(),
            storer: Storer::new(Arc::clone(trust), StorerLimits::default()),
            conduct: Conduct::Honest,
            served: 0,
            first: BTreeMap::new(),
        }
    }
}

/// What becomes of a request.
pub(super) enum Delivery<T> {
    Answer(T),
    /// There is somebody who says that nobody is there.
    Unreachable,
    /// Nothing comes back.
    Lost,
}

impl MemoryOverlay {
    pub(super) fn on_fetch(&mut self, to: &PeerInfo, target: &Position, closer: usize) -> Delivery<FetchReply> {
        if self.is_ghost_awake(to) {
            return Delivery::Answer(FetchReply { envelopes: vec![], closer: self.ghosts_near(target, closer) });
        }
        let index = match self.deliver(to) {
            Delivery::Answer(index) => index,
            Delivery::Unreachable => return Delivery::Unreachable,
            Delivery::Lost => return Delivery::Lost,
        };
        let ghosts = match self.conduct(index) {
            Some(Conduct::Ghosts | Conduct::Eclipse) => Some(self.ghosts_near(target, closer)),
            _ => None,
        };
        let Some(member) = self.members.get(index) else { return Delivery::Lost };
        let mut closer = ghosts.unwrap_or_else(|| self.known_near(member, target, closer));
        let mut envelopes: Vec<_> =
            member.storer.fetch(target, self.wall()).iter().map(|envelope| ByteBuf::from(&**envelope)).collect();
        match member.conduct {
            Conduct::Withholding | Conduct::Ghosts | Conduct::Eclipse => envelopes.clear(),
            Conduct::Stale => {
                let first = member.first.iter().filter(|((position, _), _)| position == target);
                envelopes = first.map(|(_, envelope)| ByteBuf::from(envelope.clone())).collect();
            }
            Conduct::Forging => {
                for envelope in &mut envelopes {
                    if let Some(last) = envelope.last_mut() {
                        *last ^= 1;
                    }
                }
            }
            Conduct::WrongAddresses => {
                for info in &mut closer {
                    info.addresses = vec!["/memory/0".to_owned()];
                }
            }
            Conduct::Honest | Conduct::Gone | Conduct::Hanging => {}
        }
        Delivery::Answer(FetchReply { envelopes, closer })
    }

    pub(super) fn on_store(&mut self, to: &PeerInfo, envelope: &[u8]) -> Delivery<StoreReply> {
        if self.is_ghost_awake(to) {
            return Delivery::Answer(StoreReply::Stored);
        }
        match self.deliver(to) {
            Delivery::Answer(index) => Delivery::Answer(self.store_at(index, envelope)),
            Delivery::Unreachable => Delivery::Unreachable,
            Delivery::Lost => Delivery::Lost,
        }
    }

    /// Has a member store a record.
    pub(super) fn store_at(&mut self, index: usize, envelope: &[u8]) -> StoreReply {
        // Some of those that it knows may have left.
        let (wall, limit) = (self.wall(), 4 * self.replication());
        let record = match self.trust.verify(envelope, None, wall) {
            Ok(record) => record,
            Err(refusal) => return StoreReply::Refused(refusal),
        };
        let Some(member) = self.members.get(index) else { return StoreReply::Refused(Refusal::NotResponsible) };
        let target = record.position().leading();
        let own = member.position.leading() ^ target;
        if member.table.iter().filter(|(leading, _)| leading ^ target < own).count() >= limit {
            return StoreReply::Refused(Refusal::NotResponsible);
        }
        let Some(member) = self.members.get_mut(index) else { return StoreReply::Refused(Refusal::NotResponsible) };
        if matches!(member.conduct, Conduct::Withholding | Conduct::Ghosts | Conduct::Eclipse) {
            return StoreReply::Stored;
        }
        member.first.entry((*record.position(), *record.instance())).or_insert_with(|| envelope.to_vec());
        match member.storer.insert(record, wall) {
            Ok(_) => StoreReply::Stored,
            Err(_) if member.conduct == Conduct::Stale => StoreReply::Stored,
            Err(refusal) => StoreReply::Refused(refusal),
        }
    }

    /// The peers that a member knows closest to a position.
    pub(super) fn known_near(&self, member: &Member, target: &Position, count: usize) -> Vec<PeerInfo> {
        let (target, count) = (target.leading(), count.min(MAX_CLOSER));
        let mut known: Vec<_> = member.table.iter().map(|(leading, index)| (leading ^ target, *index)).collect();
        if count < known.len() {
            known.select_nth_unstable(count);
            known.truncate(count);
        }
        known.sort_unstable();
        known.into_iter().filter_map(|(_, index)| self.info(index)).collect()
    }

    /// Whom a request reaches.
    fn deliver(&mut self, to: &PeerInfo) -> Delivery<usize> {
        let lost = self.rng.below(1000) < self.config.loss_permille;
        let Some(index) = self.by_peer.get(&to.peer).filter(|_| !lost) else { return Delivery::Lost };
        match self.members.get_mut(*index) {
            Some(member) if !to.addresses.contains(&member.address) => Delivery::Lost,
            Some(member) if member.conduct == Conduct::Gone => Delivery::Unreachable,
            Some(member) if member.conduct != Conduct::Hanging => {
                member.served += 1;
                Delivery::Answer(*index)
            }
            _ => Delivery::Lost,
        }
    }

    fn is_ghost_awake(&self, to: &PeerInfo) -> bool {
        let awake = to.addresses.iter().any(|address| address == "/memory/eclipse");
        awake && self.ghost_peers.contains(&to.peer)
    }

    /// Peers that do not exist, closest to the target, at addresses where nobody answers; or somebody, if there are
    /// members of [`Conduct::Eclipse`].
    fn ghosts_near(&mut self, target: &Position, count: usize) -> Vec<PeerInfo> {
        let eclipse = self.members.iter().any(|member| member.conduct == Conduct::Eclipse);
        let address = if eclipse { "/memory/eclipse" } else { "/memory/0" };
        let near = self.ghosts_near.entry(*target).or_insert_with(|| {
            let ghosts = self.ghosts.iter().map(|(position, peer)| (position.distance(target), *peer));
            let mut ghosts: Vec<_> = ghosts.collect();
            ghosts.sort_unstable();
            ghosts.into_iter().take(MAX_CLOSER).map(|(_, peer)| peer).collect()
        });
        let info = |peer: &PeerId| PeerInfo { peer: *peer, addresses: vec![address.to_owned()] };
        near.iter().take(count).map(info).collect()
    }
}
