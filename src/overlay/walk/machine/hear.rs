//! What a walk hears of peers, and how much of it it keeps.

use super::{
    super::candidate::{Candidate, Offer, State, bit},
    Walk,
};
use crate::{client::PeerInfo, name::PeerId, record::MAX_ADDRESS};

impl Walk {
    /// Takes the peers of a reply that came on `path`; returns how many were unheard of.
    pub(super) fn take(&mut self, closer: Vec<PeerInfo>, from: &PeerId, path: u8, hop: u8) -> usize {
        // From a single seed, its reply starts the other paths.
        let mut paths = vec![path];
        if self.populated.is_power_of_two() {
            paths.extend((0..self.config.paths).filter(|other| *other != path));
        }
        let mut heard = Vec::with_capacity(self.config.per_reply);
        let mut new = 0;
        for info in closer.into_iter().take(self.config.per_reply) {
            if info.peer == *from || self.local == Some(info.peer) || heard.contains(&info.peer) {
                continue;
            }
            heard.push(info.peer);
            if let Some(candidate) = self.candidates.get_mut(&info.peer.position().distance(&self.target)) {
                candidate.mentions += 1;
                self.hear_of(info, path, hop, Some(*from));
            } else if let Some(path) = paths.get(new % paths.len()) {
                new += usize::from(self.hear_of(info, *path, hop, Some(*from)));
            }
        }
        for path in paths {
            self.forget_farthest(path);
        }
        new
    }

    /// Notes what a path was told of a peer, within its limit once [`Walk::forget_farthest`] has been called. Whether
    /// the peer is a new candidate.
    pub(super) fn hear_of(&mut self, info: PeerInfo, path: u8, hop: u8, via: Option<PeerId>) -> bool {
        let mut addresses: Vec<String> = Vec::new();
        for address in info.addresses {
            let is_sane = address.len() <= MAX_ADDRESS && address.bytes().all(|octet| octet.is_ascii_graphic());
            if is_sane && addresses.len() < self.config.max_addresses && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let distance = self.distance(&info.peer);
        if let Some(candidate) = self.candidates.get_mut(&distance) {
            // The first word on a path counts.
            if !candidate.offers.iter().any(|offer| offer.path == path) {
                candidate.offers.push(Offer { path, hop, via, addresses });
                if matches!(candidate.state, State::Failed(_)) {
                    candidate.revive();
                }
            }
            return false;
        }
        // Only a seed can be asked without an address.
        if via.is_some() && addresses.is_empty() {
            return false;
        }
        self.populated |= bit(path);
        self.candidates.insert(distance, Candidate::new(info.peer, Offer { path, hop, via, addresses }));
        true
    }

    /// Keeps what a path was told and has not used within its limit.
    pub(super) fn forget_farthest(&mut self, path: u8) {
        let is_unused = |candidate: &Candidate| candidate.visit.is_none() && candidate.paths() & bit(path) != 0;
        let unused = self.candidates.values().filter(|candidate| is_unused(candidate)).count();
        for _ in self.config.max_candidates..unused {
            let farthest = self.candidates.iter_mut().rev().find(|(_, candidate)| is_unused(candidate));
            let Some((distance, candidate)) = farthest else { return };
            candidate.offers.retain(|offer| offer.path != path);
            if candidate.offers.is_empty() {
                let distance = *distance;
                self.candidates.remove(&distance);
            }
        }
    }
}
