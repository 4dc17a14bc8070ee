//! Where the providers of a service are listed, and how readers find some of them without all asking one member: ReDiR
//! (RFC 7374), for the load that well-known URIs would put on the storers of a single key (draft §3.3.3).
//!
//! Each service has a tree ([`TreeNode`]) whose nodes lie all over the overlay. A provider is listed on the levels of the
//! tree on which it is the first or last of its interval, down to the one where it has an interval for itself
//! and one further ([`Registration`]); storers admit it to a node only if its position lies in the node's range. A reader begins at random
//! points of a level that has about as many nodes as there are providers, and goes down where there may be more, and up
//! when it needs more ([`Discovery`]). So every node of that level is read equally often.
//!
//! Pure: both machines say which tree nodes to read, and are told what was there. Reading a node is a lookup of its name,
//! listing a provider the placement of a record, and both are the driver's.

mod discover;
mod rank;
mod register;
#[cfg(test)]
mod tests;

pub use discover::{Discovery, MAX_PROVIDERS, ServicesOutcome, Step, Wanted};
pub use rank::rank;
pub use register::{Listing, Registration};

use crate::name::{MAX_LEVEL, Position, TreeNode};

/// The level to begin with for whoever knows nothing about an overlay (RFC 7374 §4.2).
pub const START_LEVEL: u8 = 2;
/// How many members a first guess takes for each tree node: were all of them providers, a node would list so many.
const MEMBERS_PER_NODE: f64 = 8.0;
/// Of how many neighbours the guess is made: the more, the better, but a member knows only its closest ones all.
pub const NEIGHBOURS: usize = 20;

/// The level to begin with for a member that has not seen the service's tree yet, from the members closest to it: how
/// densely they stand tells how large the overlay is. RFC 7374 §4.2 begins on the same level everywhere and learns
/// afterwards; on a low level in a large overlay, that makes a hot spot of everybody's first lookup.
pub fn start_level(own: &Position, closest: &[Position]) -> u8 {
    let farthest = closest.iter().map(|position| position.distance(own).leading()).max().unwrap_or(u64::MAX);
    // So many members in this share of the space, and oneself.
    let share = (farthest as f64 + 1.0) / 2f64.powi(64);
    let members = (closest.len() as f64 + 1.0) / share;
    level_of(members / MEMBERS_PER_NODE)
}

/// The level that has about so many nodes.
fn level_of(nodes: f64) -> u8 {
    let level = nodes.max(1.0).log(crate::name::BRANCHING as f64).round();
    // Negative and infinite values saturate.
    (level as u8).min(MAX_LEVEL)
}

/// Where a provider stands at a tree node, in the eyes of another or of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// Whether it is the first or the last provider of its interval.
    outermost: bool,
    /// Whether nobody else is listed in its interval.
    alone: bool,
}

/// The place of a provider at `own` among `others` that are listed at a node.
fn place<'a>(node: TreeNode, own: &Position, others: impl Iterator<Item = &'a Position>) -> Place {
    let interval = node.interval_of(own);
    let (mut before, mut after) = (false, false);
    for other in others.filter(|other| node.interval_of(other) == interval) {
        before |= other < own;
        after |= other > own;
    }
    Place { outermost: !(before && after), alone: !(before || after) }
}
