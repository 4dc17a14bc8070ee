//! Finding providers of a service: one, several, or as many as there are (RFC 7374 §4.5).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use serde_bytes::ByteBuf;

use crate::{
    client::{LookupReply, Rejected, Verdict},
    clock::UnixMs,
    name::{BRANCHING, InstanceId, Interval, MAX_LEVEL, Position, TreeNode},
    overlay::{
        lookup::{LookupOutcome, MAX_REJECTED, TraceLine},
        scatter::{GOLDEN, scatter},
    },
    record::{Body, VerifiedRecord},
};

/// Providers that a discovery returns at the most.
pub const MAX_PROVIDERS: usize = 1_000;
/// Tree nodes that it reads at the most.
const MAX_READS: usize = 2_048;
/// Tree nodes that it reads at a time.
const AT_A_TIME: usize = 8;
/// Providers that a reader who wants several expects of a tree node.
const PER_NODE: usize = 4;
/// The level to begin with for newcomers to an overlay in which few know all the others.
const LARGE_OVERLAY: u8 = 5;
/// How often a reader tries other tree nodes of the same level before it goes up.
const RETRIES: u8 = 2;

/// How many providers are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// So many, wherever they are.
    Some(usize),
    /// As many as there are.
    All,
}

impl Wanted {
    /// How many.
    pub const fn count(self) -> usize {
        match self {
            Self::Some(count) if count < MAX_PROVIDERS => count,
            Self::Some(_) | Self::All => MAX_PROVIDERS,
        }
    }
}

/// What the driver does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Look this tree node up; answer with [`Discovery::on_read`].
    Read(TreeNode),
    /// Wait for an answer.
    Wait,
    /// The discovery is over. Answers that are still under way are of no interest.
    Done,
}

/// A discovery under way. See [`redir`](super).
///
/// RFC 7374 §4.5 seeks the closest successor of a key, and has three cases at each tree node: nothing there, so go up;
/// something on either side of the key, so go down; otherwise done. Here any providers will do, so the cases are: too few
/// there and no more to be expected below, so go up; too few, but an interval may hide more, so go down; otherwise done.
/// Before it goes up it tries elsewhere on the same level, for what lies above a part of the space without providers
/// would otherwise be read by all who began there.
#[derive(Debug)]
pub struct Discovery {
    wanted: Wanted,
    /// The tree nodes to be read.
    waiting: VecDeque<TreeNode>,
    /// Every tree node that was ever in `waiting`, but for those that were only glanced at and looked empty.
    asked: BTreeSet<TreeNode>,
    /// Tree nodes at which a glance is enough, for there are others.
    glanced: BTreeSet<TreeNode>,
    /// Where on which level it begins.
    level: u8,
    random: u64,
    points: u64,
    retries: u8,
    /// The highest tree node read on the way up.
    top: Option<TreeNode>,
    under_way: usize,
    reads: usize,
    /// Of each provider the newest that any tree node has, tombstones included: a provider that withdraws is gone as
    /// soon as one node has heard of it.
    newest: BTreeMap<InstanceId, VerifiedRecord>,
    /// Tree nodes about which nobody could be asked.
    unread: usize,
    untrusted: bool,
    totals: Totals,
}

/// What it has cost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Totals {
    storers: u32,
    requests: u32,
    silent: u32,
    hops: u32,
    disagreeing: u32,
    rejected: Vec<Rejected>,
    trace: Vec<TraceLine>,
}

/// What a discovery has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicesOutcome {
    /// The newest record of each provider found.
    pub records: Vec<VerifiedRecord>,
    /// Whether these are all providers that there are.
    pub complete: bool,
    /// The tree nodes read.
    pub nodes: u32,
    /// As of a lookup: [`Verdict::NotFound`] only if the whole tree was read and is empty; the costs and what was not
    /// believed of all tree nodes, but of `storers` and `hops` the largest.
    pub reply: LookupReply,
    /// Storers that disagreed, of all tree nodes.
    pub disagreeing: u32,
    /// Every request.
    pub trace: Vec<TraceLine>,
    /// How long it has taken.
    pub took: Duration,
}

impl Discovery {
    /// A discovery. `depth` is where providers are usually listed ([`ServicesOutcome::depth`] of an earlier one), and
    /// `start` the level that the overlay's size suggests ([`start_level`](super::start_level)), to begin with where the
    /// depth is not known. `random` is any 64 bits, which decide where on a level it begins.
    pub fn new(wanted: Wanted, depth: Option<f64>, start: u8, random: u64) -> Self {
        let level = match wanted {
            Wanted::All => 0.0,
            Wanted::Some(count) => level_for_one(count, depth, start) - levels(per_node(count)),
        };
        let mut discovery = Self {
            wanted,
            waiting: VecDeque::new(),
            asked: BTreeSet::new(),
            glanced: BTreeSet::new(),
            level: (level.round() as u8).min(MAX_LEVEL),
            random,
            points: 0,
            retries: 0,
            top: None,
            under_way: 0,
            reads: 0,
            newest: BTreeMap::new(),
            unread: 0,
            untrusted: false,
            totals: Totals::default(),
        };
        discovery.begin(if wanted == Wanted::All { 1 } else { wanted.count() });
        discovery
    }

    /// Reads as many tree nodes of its level as are likely to have `missing` providers.
    fn begin(&mut self, missing: usize) {
        for _ in 0..missing.div_ceil(per_node(self.wanted.count())).clamp(1, AT_A_TIME) {
            let node = TreeNode::at(self.level, self.random.wrapping_add(GOLDEN.wrapping_mul(self.points)));
            self.points += 1;
            self.top.get_or_insert(node);
            self.glance(node);
        }
    }

    fn read(&mut self, node: TreeNode) {
        if self.asked.insert(node) {
            self.waiting.push_back(node);
        }
    }

    /// Reads a node for what may be there. That the root is empty is to be known for certain.
    fn glance(&mut self, node: TreeNode) {
        if node == TreeNode::ROOT {
            self.read(node);
        } else if !self.asked.contains(&node) && self.glanced.insert(node) {
            self.waiting.push_back(node);
        }
    }

    /// Whether a node that is to be read need only be [glanced](crate::overlay::lookup::LookupConfig::glance) at. If it
    /// looks empty then, it does not count as read.
    pub fn is_glance(&self, node: TreeNode) -> bool {
        !self.asked.contains(&node)
    }

    /// What to do next; after [`Step::Wait`], poll again when an answer has come.
    pub fn poll(&mut self, wall: UnixMs) -> Step {
        if self.live(wall).count() >= self.wanted.count() {
            return Step::Done;
        }
        if self.waiting.is_empty() && self.under_way == 0 {
            self.go_on(wall);
        }
        if self.reads < MAX_READS
            && self.under_way < AT_A_TIME
            && let Some(node) = self.waiting.pop_front()
        {
            self.reads += 1;
            self.under_way += 1;
            return Step::Read(node);
        }
        if self.under_way > 0 { Step::Wait } else { Step::Done }
    }

    /// What was begun has been read, and was not enough.
    fn go_on(&mut self, wall: UnixMs) {
        if self.wanted != Wanted::All && self.retries < RETRIES {
            self.retries += 1;
            // Somewhere else every time, or all who go up from here would come from the same place.
            self.random = scatter(self.random.wrapping_add(GOLDEN));
            self.begin(self.wanted.count().saturating_sub(self.live(wall).count()));
        }
        while self.waiting.is_empty() {
            let Some(above) = self.top.and_then(TreeNode::parent) else { return };
            self.top = Some(above);
            self.glance(above);
        }
    }

    /// What looking a tree node up has come to.
    pub fn on_read(&mut self, node: TreeNode, outcome: LookupOutcome, wall: UnixMs) {
        self.under_way = self.under_way.saturating_sub(1);
        if self.is_glance(node) && outcome.reply.verdict == Verdict::Found {
            self.asked.insert(node);
        }
        self.unread += usize::from(outcome.reply.verdict == Verdict::NobodyToAsk && !self.is_glance(node));
        self.untrusted |= outcome.reply.verdict == Verdict::Untrusted;
        self.count(&outcome);
        for child in hiding(node, outcome.records.iter().chain(&outcome.removed), wall) {
            self.read(child);
        }
        for record in outcome.records.into_iter().chain(outcome.removed) {
            let known = self.newest.get(record.instance());
            if known.is_none_or(|known| known.sequence() < record.sequence()) {
                self.newest.insert(*record.instance(), record);
            }
        }
    }

    fn count(&mut self, outcome: &LookupOutcome) {
        let (totals, reply) = (&mut self.totals, &outcome.reply);
        totals.storers = totals.storers.max(reply.storers);
        totals.hops = totals.hops.max(reply.hops);
        totals.requests += reply.requests;
        totals.silent += reply.silent;
        totals.disagreeing += outcome.disagreeing;
        for rejected in &reply.rejected {
            if totals.rejected.len() < MAX_REJECTED && !totals.rejected.contains(rejected) {
                totals.rejected.push(rejected.clone());
            }
        }
        totals.trace.extend(outcome.trace.iter().cloned());
    }

    fn live(&self, wall: UnixMs) -> impl Iterator<Item = &VerifiedRecord> {
        self.newest.values().filter(move |record| !record.is_tombstone() && !record.is_expired(wall))
    }

    /// What the discovery has come to: for good once [`Discovery::poll`] is done, so far if the caller stops earlier.
    pub fn outcome(&self, took: Duration, wall: UnixMs) -> ServicesOutcome {
        let records: Vec<_> = self.live(wall).take(MAX_PROVIDERS).cloned().collect();
        let read = self.waiting.is_empty() && self.under_way == 0 && self.unread == 0;
        let complete = read && self.top == Some(TreeNode::ROOT) && records.len() < MAX_PROVIDERS;
        let verdict = match (records.is_empty(), complete) {
            (false, _) => Verdict::Found,
            (true, _) if self.untrusted => Verdict::Untrusted,
            (true, true) => Verdict::NotFound,
            (true, false) => Verdict::NobodyToAsk,
        };
        let totals = self.totals.clone();
        ServicesOutcome {
            complete,
            nodes: u32::try_from(self.reads).unwrap_or(u32::MAX),
            reply: LookupReply {
                verdict,
                envelopes: records.iter().map(|record| ByteBuf::from(record.envelope())).collect(),
                storers: totals.storers,
                requests: totals.requests,
                silent: totals.silent,
                hops: totals.hops,
                rejected: totals.rejected,
            },
            disagreeing: totals.disagreeing,
            trace: totals.trace,
            records,
            took,
        }
    }
}

/// How many providers a reader who wants so many expects of a tree node.
fn per_node(count: usize) -> usize {
    count.clamp(1, PER_NODE)
}

/// Where a reader begins who wants `count`, but for the levels that several take.
///
/// One level above the usual depth most nodes have a provider. But in a small overlay, where all know each other and so
/// storers alone bear the load, that level has so few nodes that whoever stores three of them is busy: who wants only
/// one begins on the usual depth itself, where every other node has none, which takes a glance to see.
fn level_for_one(count: usize, depth: Option<f64>, start: u8) -> f64 {
    let Some(depth) = depth else { return f64::from(start) };
    if count <= 1 && start < LARGE_OVERLAY { depth } else { depth - 1.0 }
}

/// How many levels above one where nodes have one provider they have so many.
fn levels(providers: usize) -> f64 {
    (providers as f64).log(BRANCHING as f64)
}

impl ServicesOutcome {
    /// The depth at which the providers found are usually listed, for [`Discovery::new`]; `None` if there are none.
    pub fn depth(&self) -> Option<f64> {
        let depth = |record: &VerifiedRecord| match record.body() {
            Body::Service(offer) => f64::from(offer.depth.min(MAX_LEVEL)),
            Body::User { .. } | Body::Removed => 0.0,
        };
        let mut depths: Vec<_> = self.records.iter().map(depth).collect();
        // The median: one liar does not send everybody to the bottom of the tree.
        depths.sort_unstable_by(f64::total_cmp);
        depths.get(depths.len() / 2).copied()
    }
}

impl From<ServicesOutcome> for LookupOutcome {
    /// A lookup of a service as a whole is a discovery of all its providers.
    fn from(outcome: ServicesOutcome) -> Self {
        Self {
            reply: outcome.reply,
            records: outcome.records,
            removed: Vec::new(),
            disagreeing: outcome.disagreeing,
            contested: false,
            trace: outcome.trace,
            took: outcome.took,
        }
    }
}

/// The nodes below this one that may list providers that this one does not.
///
/// By RFC 7374 §4.3 the first and the last of an interval are listed, so there may be others if there are two. One alone
/// may have been left behind by others that are gone meanwhile: it says itself how far down it met anybody.
fn hiding<'a>(
    node: TreeNode,
    records: impl Iterator<Item = &'a VerifiedRecord>,
    wall: UnixMs,
) -> impl Iterator<Item = TreeNode> {
    let mut intervals: BTreeMap<Interval, (usize, bool)> = BTreeMap::new();
    for record in records.filter(|record| !record.is_expired(wall)) {
        let (interval, deeper) = match record.body() {
            Body::Service(offer) => (node.interval_of(&offer.peer.position()), offer.depth > node.level()),
            Body::User { .. } | Body::Removed => (node.interval_of(&position_of(record)), true),
        };
        let (providers, down) = intervals.entry(interval).or_default();
        *providers += 1;
        *down |= deeper;
    }
    intervals
        .into_iter()
        .filter(|(_, (providers, down))| *down || *providers > 1)
        .filter_map(move |(interval, _)| node.child(interval))
}

/// Where the provider that has signed a record stands.
fn position_of(record: &VerifiedRecord) -> Position {
    record.signer().peer_id().position()
}
