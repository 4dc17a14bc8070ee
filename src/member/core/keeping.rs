//! The records that a member stores for its clients, at those responsible, and keeps alive until they expire.

use std::time::Duration;

use super::{Core, lock, stores::delete};
use crate::{
    client::{Event, Keep, PeerInfo, Put, PutReply, Rejected, StoreReply},
    clock::UnixMs,
    member::keep::{Inserted, Kept, is_superseded},
    overlay::{
        drive::{self, Vicinity as _},
        placement::PlacementConfig,
    },
    record::{Refusal, VerifiedRecord},
};

/// Other members that are asked to keep a client's record alive too.
const KEEPERS: usize = 2;

impl Core {
    /// Stores a client's record at those responsible, and keeps it alive here and at two of them.
    pub(in crate::member) async fn put(&self, put: Put) -> PutReply {
        let record = match self.trust.verify(&put.envelope, None, UnixMs::now()) {
            Ok(record) => record,
            Err(reason) => {
                self.publish(Event::Refused { peer: None, reason: reason.clone() });
                return PutReply {
                    refused: vec![Rejected { peer: self.network.peer(), reason }],
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
    pub(in crate::member) async fn place(&self, record: VerifiedRecord, timeout: Duration) -> PutReply {
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
    pub(in crate::member) fn keep(&self, record: VerifiedRecord) -> bool {
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
    pub(super) fn stop_keeping(&self, remove: impl FnOnce(&mut Kept) -> Vec<VerifiedRecord>) -> usize {
        let mut kept = lock(&self.kept);
        let removed = remove(&mut kept);
        delete(self.stores.kept.as_ref(), &removed);
        removed.len()
    }

    /// Verifies a record and keeps it alive from now on.
    pub(in crate::member) fn keep_for(&self, envelope: &[u8]) -> StoreReply {
        match self.trust.verify(envelope, None, UnixMs::now()) {
            Ok(record) if self.keep(record.clone()) => StoreReply::Stored,
            Ok(_) => StoreReply::Refused(Refusal::StoreFull),
            Err(reason) => StoreReply::Refused(reason),
        }
    }

    /// The records kept for clients.
    pub(in crate::member) fn kept(&self) -> Vec<VerifiedRecord> {
        lock(&self.kept).all()
    }

    /// Whether this very record is still kept, and has not expired.
    pub(in crate::member) fn keeps(&self, record: &VerifiedRecord) -> bool {
        !record.is_expired(UnixMs::now()) && lock(&self.kept).holds(record)
    }

    /// Stops keeping what has expired.
    pub(in crate::member) fn purge_kept(&self) {
        self.stop_keeping(|kept| kept.purge(UnixMs::now()));
    }
}
