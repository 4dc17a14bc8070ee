//! The iterative lookup: finds the peers closest to a position by asking ever closer ones.
//!
//! Kademlia's node lookup with the disjoint paths of S/Kademlia (Baumgart and Mies, 2007): the peers known at the
//! start are dealt to several paths, each path goes on from what it was told itself, and a peer belongs to the path that
//! reaches it first. Whoever lies on one path cannot keep the others from the target. A request that stays
//! unanswered does not hold up its path: after a while the next candidate is asked too (a hedge), so that dead peers
//! cost their hedge and not their timeout.
//!
//! Sans-IO: the driver calls [`Walk::poll`] until it is told to wait or that the walk is done, sends what it is told
//! to send, and reports replies, failures and the time.
//!
//! ```
//! use std::time::Instant;
//! use p2psip::{client::PeerInfo, name::{PeerId, Position}, overlay::walk::{End, Step, Walk, WalkConfig}};
//!
//! let (now, target) = (Instant::now(), Position::of_name("sip:alice@p2psip.org"));
//! let seed = PeerInfo { peer: PeerId::from_public_key([1; 32]), addresses: vec!["/ip4/192.0.2.1/tcp/4001".into()] };
//! let mut walk = Walk::new(target, vec![seed.clone()], None, WalkConfig::default(), now);
//! let Step::Ask(ask) = walk.poll(now) else { unreachable!() };
//! assert_eq!(ask.peer, seed);
//! walk.on_reply(&ask.peer.peer, Vec::new(), now);
//! assert_eq!(walk.poll(now), Step::Done(End::Exhausted));
//! ```

mod candidate;
mod machine;

use std::time::{Duration, Instant};

pub use machine::Walk;

use crate::{client::PeerInfo, name::PeerId};

/// The most paths there can be: they are counted in the bits of an octet.
const MAX_PATHS: u8 = 8;

/// The limits and timers of a [`Walk`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalkConfig {
    /// How many of the closest peers are sought: the overlay's replication.
    pub k: usize,
    /// Disjoint paths, 1 to 8.
    pub paths: u8,
    /// After this time without an answer, the path asks its next candidate too. Once round-trip times are known it is
    /// four times their median, if that is less, and never under 20 ms.
    pub hedge: Duration,
    /// After this time without an answer, a peer no longer counts among the closest, provided that a majority of them
    /// has answered. Once round-trip times are known it is eight times their median, if that is less, and never under
    /// 100 ms.
    pub patience: Duration,
    /// The round-trip time to expect before this walk has measured any, where the caller knows.
    pub typical_rtt: Option<Duration>,
    /// After this time a request is given up. A later answer counts as long as the walk runs.
    pub request_timeout: Duration,
    /// How long the whole walk may take.
    pub timeout: Duration,
    /// Requests sent at the most.
    pub max_requests: usize,
    /// Candidates that each path remembers at the most; the farthest go first.
    pub max_candidates: usize,
    /// Peers taken from one reply.
    pub per_reply: usize,
    /// Addresses taken for one peer from one path.
    pub max_addresses: usize,
    /// Any 64 bits: once the walk has come to one of the `2k` closest peers, it asks the `k` closest in an order that
    /// follows from these, so that not everybody asks the same few. `None`: the nearest first throughout.
    pub spread: Option<u64>,
}

impl WalkConfig {
    /// The defaults for an overlay that stores each record at `k` peers.
    pub fn for_replication(k: usize) -> Self {
        let k = k.max(1);
        Self {
            k,
            paths: 3,
            hedge: Duration::from_millis(150),
            patience: Duration::from_millis(500),
            typical_rtt: None,
            request_timeout: Duration::from_secs(2),
            timeout: Duration::from_secs(5),
            max_requests: 48 + 2 * k,
            max_candidates: 64,
            // As many as a Kademlia bucket has: where half of them have left, enough are there.
            per_reply: 20.max(2 * k),
            max_addresses: 8,
            spread: None,
        }
    }
}

impl Default for WalkConfig {
    fn default() -> Self {
        Self::for_replication(8)
    }
}

/// What the driver does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send a request to this peer, then poll again.
    Ask(Ask),
    /// Nothing to do before this time, unless a reply or a failure comes first.
    Wait(Instant),
    /// The walk is over; it asks for nothing more.
    Done(End),
}

/// A request to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Whom to ask, and where this path was told that the peer is.
    ///
    /// A peer is asked once, except that a path that was told other addresses has a try of its own after a failure,
    /// so that nobody hides a peer by telling wrong addresses.
    pub peer: PeerInfo,
    /// The path that asks.
    pub path: u8,
    /// The length of the chain of peers that led here; 1 for a peer known at the start.
    pub hop: u8,
}

/// Why a walk is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The closest peers have all answered.
    Settled,
    /// Everybody known has been asked, and they are fewer than were sought.
    Exhausted,
    /// The limit on requests was reached first.
    Budget,
    /// The time was up first.
    Deadline,
    /// The caller had enough.
    Finished,
}

/// Why a peer did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be made.
    Unreachable,
    /// No answer came in time.
    Silent,
    /// It answered that it does not serve the request.
    Refused,
    /// What it answered cannot be read.
    Malformed,
}

/// One request of a walk: a line of its trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    /// The peer asked.
    pub peer: PeerId,
    /// Who told of it; `None` for a peer known at the start.
    pub via: Option<PeerId>,
    /// The path that asked.
    pub path: u8,
    /// The length of the chain of peers that led to it.
    pub hop: u8,
    /// How many leading bits its position has in common with the target: what the walk tries to raise.
    pub common_prefix: u32,
    /// When it was asked, from the start of the walk.
    pub asked: Duration,
    /// How long it took until the peer answered or the request failed.
    pub took: Option<Duration>,
    /// What became of the request.
    pub outcome: Outcome,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// No answer yet; after the end, none before the end.
    Waiting,
    /// An answer that told of this many peers, of whom `new` had not been heard of.
    Answered {
        /// Peers in the answer.
        peers: usize,
        /// Of those, unheard of.
        new: usize,
    },
    /// No answer.
    Failed(Failure),
}
