//! What a member has on disk: the records that it holds and those that it keeps for clients, and the members it met.

use std::{sync::Arc, time::Duration};

use super::{Core, lock};
use crate::{
    client::PeerInfo,
    clock::UnixMs,
    identity::Home,
    member::MemberError,
    overlay::persist::{Persist, RecordKey, SetAside},
    record::VerifiedRecord,
};

/// How long a stopping member waits until its store is on disk.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// The file of the records kept for clients.
const KEPT: &str = "kept.redb";
/// The file of the members met.
const PEERS: &str = "peers.json";

/// The stores of a member, opened, and what an earlier run left in them.
#[derive(Default)]
pub(in crate::member) struct Stores {
    pub(super) records: Option<Persist>,
    pub(super) kept: Option<Persist>,
    pub(super) left: Vec<(RecordKey, Vec<u8>)>,
    pub(super) left_kept: Vec<(RecordKey, Vec<u8>)>,
    /// The files that were damaged.
    pub(in crate::member) set_aside: Vec<SetAside>,
}

impl Stores {
    /// Opens the stores of `home`. What they hold is verified only when a [`Core`] takes it.
    pub(in crate::member) fn open(home: Option<&Home>) -> Result<Self, MemberError> {
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

/// Takes records out of a store, if there is one.
pub(super) fn delete(store: Option<&Persist>, records: &[VerifiedRecord]) {
    let Some(store) = store else { return };
    for record in records {
        store.delete(record.into());
    }
}

impl Core {
    /// Says once that records do not reach the disk, and once that they do again. A full disk stops nobody: memory is
    /// authoritative, and the writer tries again.
    pub(in crate::member) fn report_trouble(&self) {
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

    /// Writes down the members met, for the next start.
    pub(in crate::member) fn remember(&self, peers: &[PeerInfo]) {
        let Some(home) = &self.home else { return };
        let written = serde_json::to_vec(peers).map_err(std::io::Error::other);
        if let Err(error) = written.and_then(|json| std::fs::write(home.folder().join(PEERS), json)) {
            tracing::warn!(%error, "cannot write down the members met");
        }
    }

    /// Waits until what is held is on disk and the files are free for whoever wants them next, although tasks that end
    /// may still hold on to this.
    pub(in crate::member) async fn close_stores(self: &Arc<Self>) {
        let core = self.clone();
        let closed = tokio::task::spawn_blocking(move || {
            for store in [&core.stores.records, &core.stores.kept].into_iter().flatten() {
                if let Err(error) = store.close(FLUSH_TIMEOUT) {
                    tracing::error!(%error, "records may be lost");
                }
            }
        });
        // A panic in there has been reported already.
        let _ = closed.await;
    }
}
