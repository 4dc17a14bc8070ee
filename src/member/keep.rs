//! Records that clients handed in are stored again and again until they expire: a one-shot tool is gone by then.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;

use super::{Timing, core::Core, sync::spread};
use crate::{
    clock::UnixMs,
    name::{InstanceId, Position},
    record::VerifiedRecord,
};

/// Records kept for clients, at the most.
const MAX_KEPT: usize = 50_000;

/// The records that a member keeps alive.
#[derive(Debug, Default)]
pub(super) struct Kept(BTreeMap<(Position, InstanceId), VerifiedRecord>);

impl Kept {
    /// Keeps a record from now on, unless a newer one of its instance is kept already. False: there is no room.
    pub(super) fn insert(&mut self, record: VerifiedRecord) -> bool {
        let key = (*record.position(), *record.instance());
        match self.0.get(&key) {
            Some(held) if held.sequence() >= record.sequence() => true,
            None if self.0.len() >= MAX_KEPT => false,
            _ => {
                self.0.insert(key, record);
                true
            }
        }
    }

    /// How many records are kept.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether this very instance's record is kept.
    pub(super) fn contains(&self, position: &Position, instance: &InstanceId) -> bool {
        self.0.contains_key(&(*position, *instance))
    }

    /// Drops what has expired, and returns it.
    pub(super) fn purge(&mut self, now: UnixMs) -> Vec<VerifiedRecord> {
        let (expired, kept) = std::mem::take(&mut self.0).into_iter().partition(|(_, record)| record.expires() <= now);
        self.0 = kept;
        let expired: BTreeMap<_, _> = expired;
        expired.into_values().collect()
    }

    /// Every record kept.
    pub(super) fn all(&self) -> Vec<VerifiedRecord> {
        self.0.values().cloned().collect()
    }
}

/// Refreshes what is kept, until the member stops.
pub(super) async fn run(core: Arc<Core>, timing: Timing, mut stopping: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(spread(timing.keep)) => {}
            _ = stopping.changed() => return,
        }
        core.purge_kept();
        for record in core.kept() {
            tokio::select! {
                reply = core.place(record.clone(), timing.request * 2) => {
                    if reply.stored.is_empty() {
                        tracing::warn!(name = %record.name(), silent = reply.silent, "could not refresh a kept record");
                    }
                }
                _ = stopping.changed() => return,
            }
        }
    }
}
