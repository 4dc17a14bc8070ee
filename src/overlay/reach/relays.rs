//! The relays that a member behind a NAT knows, and those at which it has a place.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    client::PeerInfo,
    name::{PeerId, Position},
};

/// Relays that a member behind a NAT holds places at: one may die.
const WANTED_RELAYS: usize = 2;
/// Relays remembered.
pub(super) const MAX_RELAYS: usize = 32;
/// How long a relay that would not have us, or was lost, is left alone.
pub(super) const AVOID: Duration = Duration::from_secs(30);
/// How long a reservation may take.
pub(super) const RESERVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A relay's standing with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Known.
    Known,
    /// Asked for a place, at this time.
    Asked(Instant),
    /// We have a place.
    Held,
    /// Not to be asked before this time.
    Avoided(Instant),
}

#[derive(Debug, Clone)]
struct Relay {
    info: PeerInfo,
    standing: Standing,
}

/// All relays that are known.
#[derive(Debug, Default)]
pub(super) struct Relays(BTreeMap<PeerId, Relay>);

impl Relays {
    /// One more, or other addresses of one that is known.
    pub(super) fn learn(&mut self, info: PeerInfo) {
        if let Some(known) = self.0.get_mut(&info.peer) {
            known.info = info;
        } else if self.0.len() < MAX_RELAYS {
            self.0.insert(info.peer, Relay { info, standing: Standing::Known });
        }
    }

    /// A relay has a place for us.
    pub(super) fn reserved(&mut self, relay: &PeerId) {
        self.set(relay, Standing::Held);
    }

    /// A relay has no place for us, or no longer.
    pub(super) fn lost(&mut self, relay: &PeerId, now: Instant) {
        self.set(relay, Standing::Avoided(now + AVOID));
    }

    fn set(&mut self, relay: &PeerId, standing: Standing) {
        if let Some(relay) = self.0.get_mut(relay) {
            relay.standing = standing;
        }
    }

    /// All places are given up.
    pub(super) fn release(&mut self) {
        for relay in self.0.values_mut() {
            relay.standing = Standing::Known;
        }
    }

    /// When the next one has been silent, or left alone, for long enough.
    pub(super) fn wake(&self) -> Option<Instant> {
        let times = self.0.values().filter_map(|relay| match relay.standing {
            Standing::Asked(since) => Some(since + RESERVE_TIMEOUT),
            Standing::Avoided(until) => Some(until),
            Standing::Known | Standing::Held => None,
        });
        times.min()
    }

    /// The next relay to be asked by who is at `position`: the closest one in the overlay, so that members spread over
    /// the relays.
    pub(super) fn next(&mut self, position: &Position, now: Instant) -> Option<PeerInfo> {
        let mut places = 0;
        for relay in self.0.values_mut() {
            match relay.standing {
                Standing::Asked(since) if now >= since + RESERVE_TIMEOUT => {
                    relay.standing = Standing::Avoided(now + AVOID);
                }
                Standing::Avoided(until) if now >= until => relay.standing = Standing::Known,
                Standing::Asked(_) | Standing::Held => places += 1,
                Standing::Known | Standing::Avoided(_) => {}
            }
        }
        if places >= WANTED_RELAYS {
            return None;
        }
        let free = self.0.values_mut().filter(|relay| relay.standing == Standing::Known);
        let closest = free.min_by_key(|relay| position.distance(&relay.info.peer.position()))?;
        closest.standing = Standing::Asked(now);
        Some(closest.info.clone())
    }

    /// Those at which we have a place.
    pub(super) fn held(&self) -> impl Iterator<Item = &PeerInfo> + '_ {
        self.0.values().filter(|relay| relay.standing == Standing::Held).map(|relay| &relay.info)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
