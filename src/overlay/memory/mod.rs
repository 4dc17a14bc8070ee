//! A whole overlay in memory: every member with its routing table and its store, under a clock of its own.
//!
//! It runs the same machines as the real overlay does, so what is tested and measured here is the protocol and not a
//! model of it; only the network and the routing tables are made up. Everything follows from a seed: the same seed,
//! the same run. Time is virtual, so that a second of silence costs nothing. Members can be gone, hang, or lie
//! ([`Conduct`]).
//!
//! ```
//! # use std::sync::Arc;
//! # use p2psip::{clock::UnixMs, identity::{Descriptor, Limits, Policy}, name::OverlayId};
//! use p2psip::{client::Verdict, name::ResourceName, overlay::memory::{MemoryConfig, MemoryOverlay, Vantage}};
//!
//! # let overlay = OverlayId::parse("p2psip.org")?;
//! let descriptor = Arc::new(Descriptor::new(overlay, false, Policy::Open, None, Limits::default())?);
//! let mut overlay = MemoryOverlay::new(descriptor, MemoryConfig { members: 32, ..MemoryConfig::default() }, UnixMs::now());
//! let outcome = overlay.lookup(&Vantage::Member(0), &ResourceName::parse("sip:nobody@p2psip.org")?);
//! assert_eq!(outcome.reply.verdict, Verdict::NotFound);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod drive;
mod member;
mod rng;
#[cfg(test)]
mod service_tests;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use member::Member;
use rng::Rng;

use super::{
    Overlay, OverlayError,
    lookup::{LookupConfig, LookupOutcome},
    placement::PlacementConfig,
    redir::{self, Discovery, Listing, Registration, ServicesOutcome, Wanted},
};
use crate::{
    client::{Lookup, LookupReply, PeerInfo, Put, PutReply},
    clock::UnixMs,
    identity::{Descriptor, SecretKey},
    name::{PeerId, Position, ResourceName, ServiceNode, ServiceUri},
    record::{Body, Payload, Refusal, ServiceOffer, Trust, seal},
};

/// How many peers that do not exist the liars can choose from: enough for some of them to stand closer to any position
/// than all members of an overlay of some hundred.
const GHOSTS: usize = 1 << 12;

/// What a [`MemoryOverlay`] is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Members at the start.
    pub members: usize,
    /// What all that is random follows from.
    pub seed: u64,
    /// Peers that a member knows at each distance, as in a Kademlia bucket; its closest neighbours it always knows.
    pub bucket: usize,
    /// How long a message takes one way.
    pub latency: RangeInclusive<Duration>,
    /// How many of a thousand requests get lost.
    pub loss_permille: u64,
}

impl Default for MemoryConfig {
    /// 64 members, full buckets, 5 to 20 ms one way, nothing lost.
    fn default() -> Self {
        Self {
            members: 64,
            seed: 1,
            bucket: 20,
            latency: Duration::from_millis(5)..=Duration::from_millis(20),
            loss_permille: 0,
        }
    }
}

/// How a member behaves towards others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Conduct {
    /// By the rules.
    Honest,
    /// It has left, and connections to it are refused.
    Gone,
    /// It has left, and nothing comes back.
    Hanging,
    /// It tells of peers that do not exist and stand closer to the target than anybody.
    Ghosts,
    /// As [`Conduct::Ghosts`], and those answer: that they hold nothing, and tell of others like them.
    Eclipse,
    /// It tells of the right peers at wrong addresses.
    WrongAddresses,
    /// It acknowledges what it is to store, and has nothing.
    Withholding,
    /// It keeps the first record of each instance, and returns it for good.
    Stale,
    /// It returns records whose signatures do not hold.
    Forging,
}

/// From where an operation is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vantage {
    /// By this member.
    Member(usize),
    /// By a client that knows these members.
    Client(Vec<usize>),
}

/// An overlay in memory. See the module's documentation.
#[derive(Debug)]
pub struct MemoryOverlay {
    config: MemoryConfig,
    trust: Arc<Trust>,
    /// The limits and timers of lookups; may be changed at will.
    pub lookup_config: LookupConfig,
    /// The limits and timers of placements by members; may be changed at will.
    pub placement_config: PlacementConfig,
    members: Vec<Member>,
    by_peer: BTreeMap<PeerId, usize>,
    ghosts: Vec<(Position, PeerId)>,
    ghost_peers: BTreeSet<PeerId>,
    /// Who of them stands closest to a position; found once.
    ghosts_near: BTreeMap<Position, Vec<PeerId>>,
    rng: Rng,
    origin: (Instant, UnixMs),
    elapsed: Duration,
}

impl MemoryOverlay {
    /// An overlay of members that hold nothing yet, and whose wall clocks show `wall`.
    pub fn new(descriptor: Arc<Descriptor>, config: MemoryConfig, wall: UnixMs) -> Self {
        let mut rng = Rng::new(config.seed);
        let trust = Arc::new(Trust::new(Arc::clone(&descriptor), None));
        let members: Vec<_> =
            (0..config.members).map(|index| Member::new(SecretKey::from_seed(&rng.octets()), index, &trust)).collect();
        let mut overlay = Self {
            lookup_config: LookupConfig::for_overlay(descriptor.limits()),
            placement_config: PlacementConfig::for_overlay(descriptor.limits(), true),
            trust,
            by_peer: members.iter().enumerate().map(|(index, member)| (member.peer, index)).collect(),
            members,
            ghosts: Vec::new(),
            ghost_peers: BTreeSet::new(),
            ghosts_near: BTreeMap::new(),
            rng,
            origin: (Instant::now(), wall),
            elapsed: Duration::ZERO,
            config,
        };
        overlay.fill_tables();
        overlay
    }

    /// Fills all routing tables anew from the members that are there. Until then, those that have left stay in them.
    pub fn fill_tables(&mut self) {
        let present = |member: &Member| !matches!(member.conduct, Conduct::Gone | Conduct::Hanging);
        let others: Vec<_> = self
            .members
            .iter()
            .enumerate()
            .filter(|(_, other)| present(other))
            .map(|(index, other)| (other.position.leading(), index))
            .collect();
        let replication = self.replication();
        for (index, member) in self.members.iter_mut().enumerate() {
            let own = member.position.leading();
            let mut others: Vec<_> = others.iter().copied().filter(|(_, other)| *other != index).collect();
            let neighbours = replication.max(self.config.bucket).min(others.len());
            if neighbours < others.len() {
                others.select_nth_unstable_by_key(neighbours, |(leading, _)| leading ^ own);
            }
            let mut rest = others.split_off(neighbours);
            member.table = others;
            self.rng.shuffle(&mut rest);
            let mut buckets = [0; 64];
            for (leading, other) in rest {
                if let Some(bucket) = buckets.get_mut((leading ^ own).leading_zeros() as usize)
                    && *bucket < self.config.bucket
                {
                    *bucket += 1;
                    member.table.push((leading, other));
                }
            }
        }
    }

    /// The members, by index.
    pub fn peers(&self) -> impl ExactSizeIterator<Item = PeerId> + '_ {
        self.members.iter().map(|member| member.peer)
    }

    /// Changes how a member behaves from now on; an index beyond the members is ignored.
    pub fn set_conduct(&mut self, index: usize, conduct: Conduct) {
        if matches!(conduct, Conduct::Ghosts | Conduct::Eclipse) && self.ghosts.is_empty() {
            let ghosts = (0..GHOSTS).map(|_| PeerId::from_public_key(self.rng.octets()));
            self.ghosts = ghosts.map(|peer| (peer.position(), peer)).collect();
            self.ghost_peers = self.ghosts.iter().map(|(_, peer)| *peer).collect();
        }
        if let Some(member) = self.members.get_mut(index) {
            member.conduct = conduct;
        }
    }

    /// How a member behaves.
    pub fn conduct(&self, index: usize) -> Option<Conduct> {
        self.members.get(index).map(|member| member.conduct)
    }

    /// The members closest to a position, nearest first, whatever their conduct.
    pub fn closest(&self, target: &Position, count: usize) -> Vec<usize> {
        let mut indices: Vec<_> = (0..self.members.len()).collect();
        indices.sort_by_cached_key(|index| self.members.get(*index).map(|member| member.position.distance(target)));
        indices.truncate(count);
        indices
    }

    /// The requests that each member has served, by index.
    pub fn served(&self) -> impl ExactSizeIterator<Item = u64> + '_ {
        self.members.iter().map(|member| member.served)
    }

    /// How many members hold a record at a position.
    pub fn holders(&self, target: &Position) -> usize {
        let wall = self.wall();
        self.members.iter().filter(|member| !member.storer.fetch(target, wall).is_empty()).count()
    }

    /// What the members believe.
    pub const fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// The time that has passed here.
    pub const fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// What the members' clocks show.
    pub fn wall(&self) -> UnixMs {
        self.origin.1.after(self.elapsed)
    }

    /// Lets time pass.
    pub fn advance(&mut self, span: Duration) {
        self.elapsed = self.elapsed.saturating_add(span);
    }

    /// Runs operations, and sets the clock back to when they began: whatever comes next happens at the same time.
    pub fn meanwhile<T>(&mut self, operations: impl FnOnce(&mut Self) -> T) -> T {
        let began = self.elapsed;
        let outcome = operations(self);
        self.elapsed = began;
        outcome
    }

    /// Looks a name up.
    pub fn lookup(&mut self, from: &Vantage, name: &ResourceName) -> LookupOutcome {
        let config = self.lookup_config.clone();
        match name {
            ResourceName::Service(service) => self.discover_all(from, service, &config).into(),
            name => drive::lookup(self, from, name, config),
        }
    }

    fn discover_all(&mut self, from: &Vantage, service: &ServiceUri, config: &LookupConfig) -> ServicesOutcome {
        drive::discover(self, from, service, Discovery::new(Wanted::All, None, 0, 0), config)
    }

    /// Finds providers of a service: see [`Discovery::new`], which begins at a random place here.
    pub fn discover(
        &mut self,
        from: &Vantage,
        service: &ServiceUri,
        wanted: Wanted,
        depth: Option<f64>,
    ) -> ServicesOutcome {
        let discovery = Discovery::new(wanted, depth, self.start_level(from), self.rng.next());
        drive::discover(self, from, service, discovery, &self.lookup_config.clone())
    }

    /// Has a member offer a service, which an overlay of open policy permits, and says where it is listed. It begins at
    /// the depth of the last time, if there was one.
    ///
    /// # Errors
    /// The [`Refusal`] of the first record that cannot be stored.
    pub fn offer(
        &mut self,
        index: usize,
        service: &ServiceUri,
        depth: Option<u8>,
        lifetime: Duration,
    ) -> Result<Listing, Refusal> {
        let from = Vantage::Member(index);
        let start = depth.unwrap_or_else(|| self.start_level(&from));
        let Some(key) = self.members.get(index).map(|member| member.key.clone()) else {
            return Err(Refusal::NotResponsible);
        };
        let peer = key.peer_id();
        let registration = Registration::new(peer, start);
        let listing = drive::list(self, &from, service, registration, &self.lookup_config.clone());
        let (sequence, depth) = (self.wall(), listing.depth);
        let offer = ServiceOffer { peer, addresses: vec![], endpoints: vec![], serving: true, load: 0, depth };
        for node in &listing.nodes {
            let payload = Payload {
                name: ServiceNode::new(service.clone(), *node).into(),
                sequence: sequence.0,
                expires: sequence.after(lifetime),
                body: Body::Service(offer.clone()),
            };
            let envelope = seal(&payload, &key, None).map_err(|error| Refusal::malformed(error.to_string()))?;
            self.put(&from, &envelope)?;
        }
        Ok(listing)
    }

    fn start_level(&self, from: &Vantage) -> u8 {
        let Vantage::Member(index) = from else { return redir::START_LEVEL };
        let Some(member) = self.members.get(*index) else { return redir::START_LEVEL };
        let closest = self.known_near(member, &member.position, redir::NEIGHBOURS);
        let closest: Vec<_> = closest.iter().map(|info| info.peer.position()).collect();
        redir::start_level(&member.position, &closest)
    }

    /// Has a record stored.
    ///
    /// # Errors
    /// The [`Refusal`] of the record by whoever is asked to place it.
    pub fn put(&mut self, from: &Vantage, envelope: &[u8]) -> Result<PutReply, Refusal> {
        drive::put(self, from, envelope, self.placement_config.clone())
    }

    fn now(&self) -> Instant {
        self.origin.0 + self.elapsed
    }

    fn replication(&self) -> usize {
        self.trust.descriptor().limits().replication.into()
    }

    fn info(&self, index: usize) -> Option<PeerInfo> {
        self.members.get(index).map(|member| PeerInfo { peer: member.peer, addresses: vec![member.address.clone()] })
    }
}

/// A member of an overlay in memory, as the program above it sees one.
#[derive(Debug, Clone)]
pub struct MemoryMember {
    overlay: Arc<Mutex<MemoryOverlay>>,
    index: usize,
}

impl MemoryMember {
    /// The member with this index.
    pub const fn new(overlay: Arc<Mutex<MemoryOverlay>>, index: usize) -> Self {
        Self { overlay, index }
    }

    fn overlay(&self) -> MutexGuard<'_, MemoryOverlay> {
        self.overlay.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Overlay for MemoryMember {
    async fn put(&self, put: Put) -> Result<PutReply, OverlayError> {
        let mut overlay = self.overlay();
        let config = overlay.placement_config.clone().within(Duration::from_millis(put.timeout_ms));
        drive::put(&mut overlay, &Vantage::Member(self.index), &put.envelope, config).map_err(OverlayError::Refused)
    }

    async fn lookup(&self, lookup: Lookup) -> Result<LookupReply, OverlayError> {
        let mut overlay = self.overlay();
        let config = overlay.lookup_config.clone().within(Duration::from_millis(lookup.timeout_ms));
        let from = Vantage::Member(self.index);
        Ok(match &lookup.name {
            ResourceName::Service(service) => overlay.discover_all(&from, service, &config).reply,
            name => drive::lookup(&mut overlay, &from, name, config).reply,
        })
    }
}
