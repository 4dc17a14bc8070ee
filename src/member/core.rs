//! What a member knows and how it answers: shared by its swarm, its socket and its tasks.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak, atomic::Ordering},
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use serde_bytes::ByteBuf;

use super::{
    MemberConfig, MemberError, handlers,
    keep::{Inserted, Kept, is_superseded},
    proxy,
    services::Catalogue,
};
use crate::{
    client::{
        Call, ErrorCode, ErrorReply, Event, Keep, PeerInfo, Put, PutReply, RequestFrame, ResponseFrame, StatusReply,
        StoreReply,
    },
    clock::UnixMs,
    identity::{Descriptor, Home, RevocationList},
    name::{PeerId, Position, ResourceName},
    overlay::{
        Answer, Caller,
        drive::{self, TreeReader, Vicinity},
        lookup::{LookupConfig, LookupOutcome},
        persist::{Persist, PersistError, RecordKey, SetAside},
        placement::PlacementConfig,
        storer::{Change, Storer},
        swarm::{AskError, Network},
    },
    record::{Refusal, Trust, VerifiedRecord},
};

/// Other members that are asked to keep a client's record alive too.
const KEEPERS: usize = 2;
/// Peers of the routing table that a walk starts from.
const SEEDS: usize = 20;
/// How long a stopping member waits until its store is on disk.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// The file of the records kept for clients.
const KEPT: &str = "kept.redb";
/// The file of the members met.
const PEERS: &str = "peers.json";

/// What answers the requests of a service that is not built in.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle(&self, caller: Caller, frame: RequestFrame) -> BoxFuture<'static, ResponseFrame>;
}

/// The stores of a member, opened, and what an earlier run left in them.
#[derive(Default)]
pub(super) struct Stores {
    records: Option<Persist>,
    kept: Option<Persist>,
    left: Vec<(RecordKey, Vec<u8>)>,
    left_kept: Vec<(RecordKey, Vec<u8>)>,
    /// The files that were damaged.
    pub(super) set_aside: Vec<SetAside>,
}

impl Stores {
    /// Opens the stores of `home`. What they hold is verified only when a [`Core`] takes it.
    pub(super) fn open(home: Option<&Home>) -> Result<Self, MemberError> {
        let Some(home) = home else { return Ok(Self::default()) };
        let now = UnixMs::now();
        let (records, held) = Persist::open(&home.records_path(), now)?;
        let (kept, held_kept) = Persist::open(&home.folder().join(KEPT), now)?;
        Ok(Self {
            records: Some(records),
            kept: Some(kept),
            left: held.records,
            left_kept: held_kept.records,
            set_aside: held.set_aside.into_iter().chain(held_kept.set_aside).collect(),
        })
    }
}

/// Reads the members met in an earlier run; a file that cannot be read counts as none.
pub fn remembered(home: &Home) -> Vec<PeerInfo> {
    std::fs::read(home.folder().join(PEERS))
        .ok()
        .and_then(|json| serde_json::from_slice(&json).ok())
        .unwrap_or_default()
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

    /// Verifies a record, whose it may be.
    pub(super) fn verify(&self, envelope: &[u8]) -> Result<VerifiedRecord, Refusal> {
        self.trust.verify(envelope, None, UnixMs::now())
    }

    /// Verifies and stores a record.
    pub(super) fn accept(&self, envelope: &[u8], from: Option<PeerId>) -> StoreReply {
        let now = UnixMs::now();
        let result = self.trust.verify(envelope, None, now).and_then(|record| {
            if self.is_responsible(record.position()) { self.insert(record, now) } else { Err(Refusal::NotResponsible) }
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
        self.delete(&stored.removed);
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

    /// Says once that records do not reach the disk, and once that they do again. A full disk stops nobody: memory is
    /// authoritative, and the writer tries again.
    pub(super) fn report_trouble(&self) {
        let stores = [&self.stores.records, &self.stores.kept];
        let trouble = stores.into_iter().flatten().find_map(Persist::trouble);
        let mut reported = lock(&self.reported);
        match &trouble {
            Some(trouble) if reported.as_ref() != Some(trouble) => {
                tracing::error!("records are held in memory only for now: {trouble}");
            }
            None if reported.is_some() => tracing::warn!("records are written to disk again"),
            _ => {}
        }
        *reported = trouble;
    }

    /// Removes what `remove` removes, from the file as well, and says how much that is.
    fn remove(&self, remove: impl FnOnce(&mut Storer) -> Vec<VerifiedRecord>) -> usize {
        let mut storer = lock(&self.storer);
        let removed = remove(&mut storer);
        self.delete(&removed);
        removed.len()
    }

    fn delete(&self, records: &[VerifiedRecord]) {
        if let Some(store) = &self.stores.records {
            for record in records {
                store.delete(record.into());
            }
        }
    }

    /// Looks a name up in the overlay.
    pub(super) async fn lookup(&self, name: ResourceName, timeout: Duration) -> LookupOutcome {
        if let ResourceName::Service(service) = &name {
            return self.discover_all(service, timeout).await.into();
        }
        let position = name.position();
        let (seeds, own) = (self.seeds(&position), self.own(&position));
        drive::lookup(self.network(), name, seeds, own, self.lookup_config(timeout), self.trust.clone()).await
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

    /// Stores a client's record at those responsible, and keeps it alive here and at two of them.
    pub(super) async fn put(&self, put: Put) -> PutReply {
        let record = match self.trust.verify(&put.envelope, None, UnixMs::now()) {
            Ok(record) => record,
            Err(reason) => {
                self.publish(Event::Refused { peer: None, reason: reason.clone() });
                return PutReply {
                    refused: vec![crate::client::Rejected { peer: self.network.peer(), reason }],
                    ..Default::default()
                };
            }
        };
        let mut reply = self.place(record.clone(), Duration::from_millis(put.timeout_ms)).await;
        if reply.stored.is_empty() {
            return reply;
        }
        if self.keep(record) {
            reply.keepers.push(self.network.peer());
        }
        let others = reply.stored.iter().filter(|peer| **peer != self.network.peer()).take(KEEPERS);
        let others: Vec<PeerInfo> = others.map(|peer| PeerInfo { peer: *peer, addresses: vec![] }).collect();
        let keep = Keep { envelope: put.envelope };
        let asked = others.iter().map(|other| self.network.call(other, &keep, self.request_timeout));
        let replies = futures::future::join_all(asked).await;
        for (other, answer) in others.iter().zip(replies) {
            if answer == Ok(StoreReply::Stored) {
                reply.keepers.push(other.peer);
            }
        }
        reply
    }

    /// Stores a record at those responsible. If they hold a newer one of its instance, it is no longer kept here.
    pub(super) async fn place(&self, record: VerifiedRecord, timeout: Duration) -> PutReply {
        let seeds = self.seeds(record.position());
        let mut config =
            PlacementConfig::for_overlay(self.descriptor.limits(), self.network.is_for_all()).within(timeout);
        config.request_timeout = self.request_timeout.min(timeout);
        config.walk.request_timeout = self.request_timeout.min(timeout);
        let store_here = |envelope: &[u8]| self.accept(envelope, None);
        let reply = drive::place(&self.network, record.clone(), seeds, config, self.trust.clone(), &store_here).await;
        if is_superseded(&record, &reply) && self.stop_keeping(|kept| kept.supersede(&record)) > 0 {
            tracing::info!(name = %record.name(), "a kept record was superseded elsewhere");
        }
        reply
    }

    /// Keeps a record alive from now on, unless a newer one of its instance is kept already. False: there is no room, or
    /// the certificate has been revoked since the record was verified.
    pub(super) fn keep(&self, record: VerifiedRecord) -> bool {
        let mut kept = lock(&self.kept);
        if record.serial().is_some_and(|serial| self.trust.is_revoked(serial)) {
            return false;
        }
        let inserted = kept.insert(record.clone());
        if inserted == Inserted::Kept
            && let Some(store) = &self.stores.kept
        {
            // Under the lock, as in `insert`.
            store.put(&record);
        }
        inserted != Inserted::Full
    }

    /// Stops keeping what `remove` removes, and says how much that is.
    fn stop_keeping(&self, remove: impl FnOnce(&mut Kept) -> Vec<VerifiedRecord>) -> usize {
        let mut kept = lock(&self.kept);
        let removed = remove(&mut kept);
        if let Some(store) = &self.stores.kept {
            for record in &removed {
                store.delete(record.into());
            }
        }
        removed.len()
    }

    /// Verifies a record and keeps it alive from now on.
    pub(super) fn keep_for(&self, envelope: &[u8]) -> StoreReply {
        match self.trust.verify(envelope, None, UnixMs::now()) {
            Ok(record) if self.keep(record.clone()) => StoreReply::Stored,
            Ok(_) => StoreReply::Refused(Refusal::StoreFull),
            Err(reason) => StoreReply::Refused(reason),
        }
    }

    /// The records kept for clients.
    pub(super) fn kept(&self) -> Vec<VerifiedRecord> {
        lock(&self.kept).all()
    }

    /// Whether this very record is still kept, and has not expired.
    pub(super) fn keeps(&self, record: &VerifiedRecord) -> bool {
        !record.is_expired(UnixMs::now()) && lock(&self.kept).holds(record)
    }

    /// Stops keeping what has expired.
    pub(super) fn purge_kept(&self) {
        self.stop_keeping(|kept| kept.purge(UnixMs::now()));
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

    /// The sequence of the revocation list; 0 without one.
    pub(super) fn revocations_sequence(&self) -> u64 {
        self.trust.revocations().map_or(0, |list| list.sequence())
    }

    /// The signed revocation list.
    pub(super) fn revocations(&self) -> Option<Vec<u8>> {
        self.trust.revocations().map(|list| list.envelope().to_vec())
    }

    /// Takes a revocation list if the CA has signed it and it is newer, and drops the records that it covers.
    pub(super) fn take_revocations(&self, signed: &[u8]) -> StoreReply {
        let Some(ca) = self.descriptor.ca() else { return StoreReply::Refused(Refusal::UnknownAuthority) };
        let Ok(list) = RevocationList::decode(signed, self.descriptor.overlay(), ca) else {
            return StoreReply::Refused(Refusal::BadSignature);
        };
        if list.sequence() == self.revocations_sequence() {
            return StoreReply::Stored;
        }
        if !self.trust.set_revocations(list.clone()) {
            return StoreReply::Refused(Refusal::Older { held: self.revocations_sequence() });
        }
        let records = self.remove(Storer::remove_revoked);
        let kept = self.stop_keeping(|kept| kept.remove_revoked(&list));
        if let Some(home) = &self.home
            && let Err(error) = home.set_revocations(&list)
        {
            tracing::error!(%error, "the revocation list is held in memory only");
        }
        tracing::info!(records, kept, "took a newer revocation list");
        StoreReply::Stored
    }

    /// Takes the revocation list of the home if somebody has put a newer one there: `p2p-enroll revoke` or `install`.
    pub(super) fn reread_revocations(&self) {
        let Some(home) = &self.home else { return };
        let changed = std::fs::metadata(home.revocations_path()).and_then(|file| file.modified()).ok();
        if changed.is_none() || std::mem::replace(&mut *lock(&self.list_changed), changed) == changed {
            return;
        }
        match home.revocations() {
            Ok(Some(list)) if list.sequence() > self.revocations_sequence() => {
                self.take_revocations(list.envelope());
            }
            Ok(_) => {}
            Err(error) => tracing::error!("the revocation list in the home is left alone: {error}"),
        }
    }

    /// Writes down the members met, for the next start.
    pub(super) fn remember(&self, peers: &[PeerInfo]) {
        let Some(home) = &self.home else { return };
        let written = serde_json::to_vec(peers).map_err(std::io::Error::other);
        if let Err(error) = written.and_then(|json| std::fs::write(home.folder().join(PEERS), json)) {
            tracing::warn!(%error, "cannot write down the members met");
        }
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

    /// Waits until what is held is on disk.
    pub(super) async fn flush(self: &Arc<Self>) {
        let core = self.clone();
        let flushed = tokio::task::spawn_blocking(move || {
            for store in [&core.stores.records, &core.stores.kept].into_iter().flatten() {
                if let Err(error) = store.flush(FLUSH_TIMEOUT) {
                    tracing::error!(%error, "records may be lost");
                }
            }
        });
        // A panic in there has been reported already.
        let _ = flushed.await;
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

/// A lock. What it guards is whole even if a holder has panicked: it is changed by single calls only.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An answer that is ready.
pub(super) fn now<C: Call>(reply: &C::Reply) -> Answer {
    Answer::Now(ResponseFrame::of::<C>(Ok(reply)))
}
