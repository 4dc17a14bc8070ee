//! On which levels of the tree a provider is listed (RFC 7374 §4.3).

use std::collections::BTreeMap;

use super::{Place, place};
use crate::{
    name::{MAX_LEVEL, PeerId, Position, TreeNode},
    record::{Body, VerifiedRecord},
};

/// The walk of a provider that registers, or does so again: it looks at the tree, and says where to be listed.
///
/// From the level to begin with it goes up as long as it is the first or last provider of its interval, and down until
/// it has an interval for itself. Both ways are walked at the same time.
#[derive(Debug)]
pub struct Registration {
    own: Position,
    peer: PeerId,
    start: u8,
    /// Its place on each level that was read; `None` where nobody could be asked.
    places: BTreeMap<u8, Option<Place>>,
    /// The levels that are being read.
    asked: Vec<u8>,
}

/// Where a provider is to be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The tree nodes, from the root's side.
    pub nodes: Vec<TreeNode>,
    /// The level on which it has an interval for itself, where the next registration begins: for
    /// [`ServiceOffer::depth`](crate::record::ServiceOffer::depth).
    pub depth: u8,
}

impl Registration {
    /// The registration of `peer`, which begins on the level `start`: that of the last one's [`Listing::depth`], or
    /// [`start_level`](super::start_level).
    pub fn new(peer: PeerId, start: u8) -> Self {
        let start = start.min(MAX_LEVEL);
        Self { own: peer.position(), peer, start, places: BTreeMap::new(), asked: Vec::new() }
    }

    /// A tree node to be read, if there is one to be read now. When there is none and all answers are in, the walk is
    /// over.
    pub fn poll(&mut self) -> Option<TreeNode> {
        let next = self.next_up().or_else(|| self.next_down())?;
        self.asked.push(next);
        Some(TreeNode::containing(next, &self.own))
    }

    /// What is listed at a tree node: tombstones, and what is listed of this provider itself, do not count.
    pub fn on_read<'a>(&mut self, node: TreeNode, records: impl IntoIterator<Item = &'a VerifiedRecord>) {
        let others = records.into_iter().filter_map(|record| match record.body() {
            Body::Service(offer) if offer.peer != self.peer => Some(offer.peer.position()),
            _ => None,
        });
        let others: Vec<_> = others.collect();
        self.places.insert(node.level(), Some(place(node, &self.own, others.iter())));
    }

    /// Nobody could be asked about a tree node. The walk does not go on in that direction.
    pub fn on_failure(&mut self, node: TreeNode) {
        self.places.insert(node.level(), None);
    }

    /// Where to be listed, when the walk is over.
    pub fn listing(&self) -> Listing {
        // Every level on the way up has been reached because the one below is to be listed on, and is listed on itself
        // (RFC 7374 §4.3, step 4); on the way down, those where it is the first or last.
        let listed = |level: u8| {
            let place = self.places.get(&level).copied().flatten();
            level <= self.start || place.is_some_and(|place| place.outermost)
        };
        let levels = self.places.keys().filter(|level| listed(**level));
        let mut nodes: Vec<_> = levels.map(|level| TreeNode::containing(*level, &self.own)).collect();
        let alone = self.places.iter().find(|(_, place)| place.is_some_and(|place| place.alone));
        let depth = alone.map(|(level, _)| *level).or_else(|| nodes.last().map(|node| node.level()));
        let depth = depth.unwrap_or(self.start);
        // It is the only one in the node below that level, which would be empty without it: most nodes of the level that
        // has as many nodes as there are providers shall have one, for whoever meets an empty node has to look elsewhere.
        let below = TreeNode::containing(depth.saturating_add(1), &self.own);
        if alone.is_some() && !nodes.contains(&below) {
            nodes.push(below);
            nodes.sort_unstable();
        }
        Listing { depth, nodes }
    }

    /// One above the highest level, if that was reached as the first or last of its interval.
    fn next_up(&self) -> Option<u8> {
        let level = match self.places.first_key_value() {
            None => self.start,
            Some((level, Some(place))) if place.outermost => level.checked_sub(1)?,
            Some(_) => return None,
        };
        (!self.asked.contains(&level)).then_some(level)
    }

    /// One below the deepest level, if somebody else is in the interval there.
    fn next_down(&self) -> Option<u8> {
        let (level, place) = self.places.last_key_value()?;
        let level = level.checked_add(1).filter(|level| *level <= MAX_LEVEL)?;
        (place.is_some_and(|place| !place.alone) && !self.asked.contains(&level)).then_some(level)
    }
}
