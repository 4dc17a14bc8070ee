//! What a member knows and how it answers: shared by its swarm, its socket and its tasks.

mod keeping;
mod revocations;
mod stores;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak, atomic::Ordering},
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use serde_bytes::ByteBuf;

pub(super) use self::stores::Stores;
use self::stores::delete;
pub use self::stores::remembered;
use super::{MemberConfig, handlers, keep::Kept, proxy, services::Catalogue};
use crate::{
    bounded::Bounded,
    client::{Call, ErrorCode, ErrorReply, Event, PeerInfo, RequestFrame, ResponseFrame, StatusReply, StoreReply},
    clock::UnixMs,
    identity::{Descriptor, Home},
    name::{PeerId, Position, ResourceName},
    overlay::{
        Answer, Caller,
        drive::{self, TreeReader, Vicinity},
        lookup::{LookupConfig, LookupOutcome, TraceLine},
        persist::PersistError,
        storer::{Change, Storer},
        swarm::{AskError, Network},
    },
    record::{Refusal, Trust, VerifiedRecord},
};

/// Peers of the routing table that a walk starts from.
const SEEDS: usize = 20;
/// Names of which it is remembered who had their records.
const MAX_NAMES: usize = 256;
/// What answers the requests of a service that is not built in.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle(&self, caller: Caller, frame: RequestFrame) -> BoxFuture<'static, ResponseFrame>;
}

/// The state of a member.
pub(super) struct Core {
    descriptor: Arc<Descriptor>,
    trust: Arc<Trust>,
    storer: Mutex<Storer>,
    kept: Mutex<Kept>,
    stores: Stores,
    restored: u32,
    /// When the revocation list in the home was last seen to change.
    list_changed: Mutex<Option<SystemTime>>,
    /// The trouble with the disk that the log has told of.
    reported: Mutex<Option<PersistError>>,
    home: Option<Home>,
    network: Network,
    handlers: RwLock<HashMap<String, Arc<dyn Handler>>>,
    /// What has been found of services.
    catalogue: Catalogue,
    /// Where a record was refused because others stand closer, if that has not been looked into.
    doubted: Mutex<Option<Position>>,
    /// The storers that had the records of names looked up lately: the next walk there begins with those that are still
    /// connected. What they said is not remembered.
    storers: Mutex<Bounded<Position, Vec<PeerId>>>,
    /// What its proxy peer tells of itself, for as long as there is one.
    proxy: Mutex<Weak<proxy::Hub>>,
    request_timeout: Duration,
    started: UnixMs,
}

impl Core {
    /// Builds the state, verifying again every record that an earlier run left.
    pub(super) fn new(config: &MemberConfig, network: Network, mut stores: Stores) -> Self {
        let trust = Arc::new(Trust::new(config.descriptor.clone(), config.revocations.clone()));
        let now = UnixMs::now();
        let mut storer = Storer::new(trust.clone(), config.limits);
        let restored = storer.restore(std::mem::take(&mut stores.left), now);
        if let Some(store) = &stores.records {
            for key in &restored.obsolete {
                store.delete(*key);
            }
        }
        let mut kept = Kept::default();
        for (key, envelope) in std::mem::take(&mut stores.left_kept) {
            match (trust.verify(&envelope, None, now), &stores.kept) {
                (Ok(record), _) => _ = kept.insert(record),
                (Err(_), Some(store)) => store.delete(key),
                (Err(_), None) => {}
            }
        }
        Self {
            descriptor: config.descriptor.clone(),
            trust,
            storer: Mutex::new(storer),
            kept: Mutex::new(kept),
            stores,
            list_changed: Mutex::default(),
            reported: Mutex::default(),
            doubted: Mutex::default(),
            storers: Mutex::new(Bounded::new(MAX_NAMES)),
            proxy: Mutex::default(),
            restored: u32::try_from(restored.records).unwrap_or(u32::MAX),
            home: config.home.clone(),
            network,
            handlers: RwLock::default(),
            catalogue: Catalogue::default(),
            request_timeout: config.timing.request,
            started: now,
        }
    }

    /// The swarm.
    pub(super) const fn network(&self) -> &Network {
        &self.network
    }

    /// Registers what answers one more service.
    pub(super) fn register(&self, service: &str, handler: Arc<dyn Handler>) {
        self.handlers.write().unwrap_or_else(PoisonError::into_inner).insert(service.to_owned(), handler);
    }

    /// Answers a request: by a built-in service, or by a registered handler.
    pub(super) fn respond(core: &Arc<Self>, caller: Caller, frame: RequestFrame) -> Answer {
        if frame.version != crate::client::VERSION {
            let message = format!("this member speaks version {}, not {}", crate::client::VERSION, frame.version);
            return Answer::Now(ResponseFrame::Error(ErrorReply::new(ErrorCode::Version, message)));
        }
        if let Some(answer) = handlers::built_in(core, caller, &frame) {
            return answer;
        }
        let handler = core.handlers.read().unwrap_or_else(PoisonError::into_inner).get(&frame.service).cloned();
        match handler {
            Some(handler) => Answer::Later(handler.handle(caller, frame)),
            None => {
                let message = format!("this member has no service '{}'", frame.service);
                Answer::Now(ResponseFrame::Error(ErrorReply::new(ErrorCode::UnknownService, message)))
            }
        }
    }

    /// Asks a member that may be this one itself.
    pub(super) async fn call<C: Call>(
        self: &Arc<Self>,
        to: &PeerInfo,
        call: &C,
        timeout: Duration,
    ) -> Result<C::Reply, AskError> {
        if to.peer != self.network.peer() {
            return self.network.call(to, call, timeout).await;
        }
        let response = match Self::respond(self, Caller::Peer(to.peer), RequestFrame::of(call)?) {
            Answer::Now(response) => response,
            Answer::Later(later) => tokio::time::timeout(timeout, later).await.map_err(|_| AskError::Timeout)?,
        };
        response.reply::<C>().map_err(AskError::Refused)
    }

    /// The descriptor.
    pub(super) fn descriptor(&self) -> &Arc<Descriptor> {
        &self.descriptor
    }

    /// How many storers a record has.
    pub(super) fn replication(&self) -> usize {
        usize::from(self.descriptor.limits().replication)
    }

    /// The members that, with this one, ought to hold what lives at `position`.
    pub(super) fn storers(&self, position: &Position) -> Vec<PeerInfo> {
        self.network.table().closest_met(position, self.replication())
    }

    /// The peers of the routing table closest to `target`.
    pub(super) fn closest(&self, target: &Position, count: u8) -> Vec<PeerInfo> {
        self.network.table().closest(target, usize::from(count.min(32)))
    }

    /// The envelopes held at `position`.
    pub(super) fn envelopes(&self, position: &Position) -> Vec<Arc<[u8]>> {
        lock(&self.storer).fetch(position, UnixMs::now())
    }

    /// The fingerprint of each dictionary held.
    pub(super) fn fingerprints(&self) -> Vec<(Position, u64)> {
        lock(&self.storer).digest(|_| true, UnixMs::now())
    }

    /// Whether a record at `position` is this member's business: at most so many members stand closer to it.
    /// Twice the replication leaves room for tables that differ.
    fn is_responsible(&self, position: &Position) -> bool {
        self.network.table().rank(position) < 2 * self.replication()
    }

    /// The members that keep this one from being responsible for a position, for all that it knows, if somebody saw that
    /// otherwise since this was asked last.
    pub(super) fn take_doubted(&self) -> Vec<PeerInfo> {
        let Some(position) = lock(&self.doubted).take() else { return Vec::new() };
        self.network.table().closest_met(&position, 2 * self.replication())
    }

    /// Verifies a record, whose it may be.
    pub(super) fn verify(&self, envelope: &[u8]) -> Result<VerifiedRecord, Refusal> {
        self.trust.verify(envelope, None, UnixMs::now())
    }

    /// Verifies and stores a record.
    pub(super) fn accept(&self, envelope: &[u8], from: Option<PeerId>) -> StoreReply {
        let now = UnixMs::now();
        let result = self.trust.verify(envelope, None, now).and_then(|record| {
            if self.is_responsible(record.position()) {
                return self.insert(record, now);
            }
            *lock(&self.doubted) = Some(*record.position());
            Err(Refusal::NotResponsible)
        });
        match result {
            Ok(()) => StoreReply::Stored,
            Err(reason) => {
                self.publish(Event::Refused { peer: from, reason: reason.clone() });
                StoreReply::Refused(reason)
            }
        }
    }

    fn insert(&self, record: VerifiedRecord, now: UnixMs) -> Result<(), Refusal> {
        // The file changes under the lock: in the same order as what is in memory.
        let mut storer = lock(&self.storer);
        let stored = storer.insert(record, now)?;
        if stored.change == Change::Same {
            return Ok(());
        }
        let record = stored.record;
        if let Some(store) = &self.stores.records {
            store.put(&record);
        }
        delete(self.stores.records.as_ref(), &stored.removed);
        drop(storer);
        self.publish(Event::Stored {
            name: record.name().clone(),
            instance: *record.instance(),
            sequence: record.sequence(),
            tombstone: record.is_tombstone(),
        });
        Ok(())
    }

    /// Drops what has expired.
    pub(super) fn purge(&self) {
        self.remove(|storer| storer.purge(UnixMs::now()));
    }

    /// Removes what `remove` removes, from the file as well, and says how much that is.
    fn remove(&self, remove: impl FnOnce(&mut Storer) -> Vec<VerifiedRecord>) -> usize {
        let mut storer = lock(&self.storer);
        let removed = remove(&mut storer);
        delete(self.stores.records.as_ref(), &removed);
        removed.len()
    }

    /// Looks a name up in the overlay.
    pub(super) async fn lookup(&self, name: ResourceName, timeout: Duration) -> LookupOutcome {
        if let ResourceName::Service(service) = &name {
            return self.discover_all(service, timeout).await.into();
        }
        let position = name.position();
        let (mut seeds, own) = (self.seeds(&position), self.own(&position));
        for peer in self.storers_met(&position) {
            if seeds.iter().all(|seed| seed.peer != peer) {
                seeds.push(PeerInfo { peer, addresses: Vec::new() });
            }
        }
        let config = self.lookup_config(timeout);
        let outcome = drive::lookup(self.network(), name, seeds, own, config, self.trust.clone()).await;
        let was_right = |line: &&TraceLine| line.storer && !line.held.is_empty() && line.differences.is_empty();
        let right: Vec<_> = outcome.trace.iter().filter(was_right).map(|line| line.visit.peer).collect();
        if !right.is_empty() {
            lock(&self.storers).insert(position, right);
        }
        outcome
    }

    /// The storers that had the records there at the last lookup and are still connected.
    fn storers_met(&self, position: &Position) -> Vec<PeerId> {
        let mut storers = lock(&self.storers).get(position).cloned().unwrap_or_default();
        storers.retain(|peer| !self.network.seen_at(peer).is_empty());
        storers
    }

    /// How this member reads the nodes of services' trees.
    pub(super) fn tree_reader(&self, timeout: Duration) -> TreeReader<'_> {
        let config = self.lookup_config(timeout);
        TreeReader { network: self.network(), vicinity: self, config, trust: self.trust.clone() }
    }

    /// What is remembered of services.
    pub(super) const fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// What this member believes.
    pub(super) const fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// Its home, if it has one.
    pub(super) const fn home(&self) -> Option<&Home> {
        self.home.as_ref()
    }

    fn lookup_config(&self, timeout: Duration) -> LookupConfig {
        let mut config = LookupConfig::for_overlay(self.descriptor.limits()).within(timeout);
        config.walk.request_timeout = self.request_timeout.min(timeout);
        // Whoever has met others and knows nobody any more is cut off.
        config.founder = !self.network().table().has_met_anybody();
        config
    }

    /// Records that came back from an earlier run.
    pub(super) const fn restored(&self) -> u32 {
        self.restored
    }

    /// Runs `read` on the store and on what is kept.
    pub(super) fn with_storer<T>(&self, read: impl FnOnce(&Storer, &Kept) -> T) -> T {
        let storer = lock(&self.storer);
        read(&storer, &lock(&self.kept))
    }

    /// How this member is.
    pub(super) fn status(&self) -> StatusReply {
        let (names, records, kept) = self.with_storer(|storer, kept| {
            let counts = storer.counts();
            (counts.names, counts.records, kept.len())
        });
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let traffic = self.network.traffic();
        StatusReply {
            peer: self.network.peer(),
            overlay: self.descriptor.overlay().clone(),
            descriptor: self.descriptor.hash().to_string(),
            policy: self.descriptor.policy().to_string(),
            addresses: self.network.addresses(),
            peers: count(self.network.table().len()),
            connections: u32::try_from(traffic.connections.load(Ordering::Relaxed)).unwrap_or(u32::MAX),
            names: count(names),
            records: count(records),
            kept: count(kept),
            started_ms: self.started,
            served: traffic.served.load(Ordering::Relaxed),
            throttled: traffic.throttled.load(Ordering::Relaxed),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            reach: self.network.reach(),
            buckets: self.network.table().buckets().into_iter().map(|(bits, peers)| (bits, count(peers))).collect(),
            proxy: lock(&self.proxy).upgrade().map(|proxy| proxy.status()),
        }
    }

    /// Tells of a proxy peer in the status from now on, until it ends.
    pub(super) fn set_proxy(&self, hub: &Arc<proxy::Hub>) {
        *lock(&self.proxy) = Arc::downgrade(hub);
    }

    pub(super) fn publish(&self, event: Event) {
        // An error means that nobody follows.
        let _ = self.network.events().send(event);
    }
}

impl Vicinity for Core {
    fn seeds(&self, position: &Position) -> Vec<PeerInfo> {
        let mut seeds = self.network.table().closest(position, SEEDS);
        // Whoever makes up peers next to a name must not fill the seeds of every walk there.
        for met in self.network.table().closest_met(position, SEEDS / 2) {
            if !seeds.contains(&met) {
                seeds.push(met);
            }
        }
        seeds
    }

    fn own(&self, position: &Position) -> Option<Vec<ByteBuf>> {
        let held = || self.envelopes(position).iter().map(|envelope| envelope.to_vec().into()).collect();
        (self.network.is_for_all() && self.is_responsible(position)).then(held)
    }
}

/// A lock. What it guards is used on even if a holder has panicked: it is changed by single calls only, and an engine that
/// has lost one request serves the others.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An answer that is ready.
pub(super) fn now<C: Call>(reply: &C::Reply) -> Answer {
    Answer::Now(ResponseFrame::of::<C>(Ok(reply)))
}
