//! Looking a name up: `p2p-lookup`.

use std::{sync::Arc, time::Instant};

use futures::{StreamExt, stream::FuturesUnordered};

use super::{
    Access, OpsError, ViaChoice,
    access::{Attached, RACED, Route, describe},
    outcome::{LookupOutcome, LookupStatus, Via},
    view,
};
use crate::{
    client::{Lookup, LookupReply, PeerInfo, Rejected, Status, Verdict},
    clock::UnixMs,
    identity::Policy,
    name::{OverlayId, PeerId, ResourceName},
    overlay::{
        drive,
        lookup::LookupConfig,
        swarm::{AskError, Network},
    },
    record::{Trust, VerifiedRecord, contested},
};

/// A way into an overlay over which any number of names can be looked up.
pub struct Lookups {
    access: Access,
    via: ViaChoice,
    attached: Attached,
    trust: Arc<Trust>,
    started: Option<Instant>,
}

/// Looks one name up.
///
/// # Errors
/// [`OpsError`]: no way into the overlay, or nobody there answered. A negative answer is an outcome, not an error.
pub async fn lookup(access: &Access, name: &ResourceName, via: ViaChoice) -> Result<LookupOutcome, OpsError> {
    let started = Instant::now();
    let mut named = access.clone();
    named.overlay.get_or_insert_with(|| name.overlay().clone());
    let mut lookups = Lookups::attach(&named, via).await?;
    lookups.started = Some(started);
    lookups.lookup(name).await
}

impl Lookups {
    /// Finds a way into the overlay that `access` names.
    ///
    /// # Errors
    /// [`OpsError`].
    pub async fn attach(access: &Access, via: ViaChoice) -> Result<Self, OpsError> {
        Ok(Self::over(access, via, access.attach(via).await?))
    }

    /// The same, but believing keys that the user has not pinned.
    pub(super) async fn attach_without_pins(access: &Access, via: ViaChoice) -> Result<Self, OpsError> {
        let mut attached = access.attach(via).await?;
        attached.known.pins.keys.clear();
        Ok(Self::over(access, via, attached))
    }

    fn over(access: &Access, via: ViaChoice, attached: Attached) -> Self {
        let trust = attached.known.trust();
        Self { access: access.clone(), via, attached, trust, started: None }
    }

    /// The overlay in which names are looked up.
    pub fn overlay(&self) -> &OverlayId {
        self.attached.known.descriptor.overlay()
    }

    /// Whether a member on this machine is asked, over a connection that ends with it.
    pub const fn is_local(&self) -> bool {
        matches!(self.attached.route, Route::Socket(_))
    }

    /// Looks a name up. Whatever comes back is verified here once more, whoever has verified it before.
    ///
    /// # Errors
    /// [`OpsError`].
    pub async fn lookup(&mut self, name: &ResourceName) -> Result<LookupOutcome, OpsError> {
        let started = self.started.take().unwrap_or_else(Instant::now);
        let overlay = self.attached.known.descriptor.overlay().clone();
        name.check_overlay(&overlay)?;
        let (reply, via) = self.ask(name).await?;
        let now = UnixMs::now();
        let mut records: Vec<VerifiedRecord> = Vec::new();
        let mut rejected = reply.rejected.clone();
        for envelope in &reply.envelopes {
            let verified = self.trust.verify(envelope, Some(name), now);
            match verified.and_then(|record| self.trust.check_pin(&record).map(|()| record)) {
                Ok(record) if record.is_tombstone() => {}
                Ok(record) => records.push(record),
                Err(reason) => rejected.extend(self.entry_peer().await.map(|peer| Rejected { peer, reason })),
            }
        }
        let open = self.attached.known.descriptor.policy() == Policy::Open;
        let status = match reply.verdict {
            Verdict::Found if records.is_empty() => LookupStatus::Untrusted,
            Verdict::Found if open && contested(&records) => LookupStatus::Contested,
            Verdict::Found => LookupStatus::Found,
            Verdict::NotFound => LookupStatus::NotFound,
            Verdict::NobodyToAsk => LookupStatus::NobodyToAsk,
            Verdict::Untrusted => LookupStatus::Untrusted,
        };
        Ok(LookupOutcome {
            status,
            uri: name.to_string(),
            overlay,
            via,
            records: records.iter().map(|record| view::record(record, now)).collect(),
            rejected: rejected.iter().map(view::rejected).collect(),
            storers: reply.storers,
            requests: reply.requests,
            silent: reply.silent,
            hops: reply.hops,
            elapsed_ms: started.elapsed().as_secs_f64() * 1e3,
        })
    }

    /// The member whose word the reply is.
    async fn entry_peer(&mut self) -> Option<PeerId> {
        match &mut self.attached.route {
            Route::Socket(socket) => {
                let status = tokio::time::timeout(self.access.timeout, socket.call(&Status {})).await;
                Some(status.ok()?.ok()?.peer)
            }
            Route::Peers { entries, .. } => entries.first().map(|entry| entry.peer),
        }
    }

    async fn ask(&mut self, name: &ResourceName) -> Result<(LookupReply, Via), OpsError> {
        let timeout = self.access.timeout;
        let call = Lookup { name: name.clone(), timeout_ms: view::milliseconds(timeout) };
        match &mut self.attached.route {
            Route::Socket(socket) => {
                // The member keeps to the time; the margin is for its answer.
                let answer = tokio::time::timeout(timeout + timeout / 4, socket.call(&call)).await;
                let reply = answer.map_err(|_| self.access.timed_out("the member on this machine"))??;
                Ok((reply, Via::Socket))
            }
            Route::Peers { network, entries } => {
                let deadline = Instant::now() + timeout;
                if self.via != ViaChoice::Walk {
                    match race(network, entries, &call, deadline).await {
                        // A member's word is enough for what carries its own proof; for anything else we look
                        // ourselves, unless told not to.
                        Ok(reply) if reply.verdict == Verdict::Found || self.via == ViaChoice::Peer => {
                            return Ok((reply, Via::Peer));
                        }
                        Ok(_) => {}
                        Err((entry, error)) if self.via == ViaChoice::Peer || network_is_gone(&error) => {
                            return Err(OpsError::Ask { peer: describe(&entry), error });
                        }
                        Err(_) => {}
                    }
                }
                let remaining = deadline.saturating_duration_since(Instant::now());
                let limits = self.attached.known.descriptor.limits();
                let config = LookupConfig::for_overlay(limits).within(remaining);
                let trust = self.trust.clone();
                let walked = drive::lookup(network, name.clone(), entries.clone(), None, config, trust).await;
                Ok((walked.reply, Via::Walk))
            }
        }
    }
}

/// Whether asking others is as hopeless: no entry could be dialled, or all speak another protocol.
const fn network_is_gone(error: &AskError) -> bool {
    matches!(error, AskError::Dial(_) | AskError::OtherOverlay | AskError::Closed)
}

/// Asks a few entries at once; the first that finds something wins, else the last answer or failure counts.
async fn race(
    network: &Network,
    entries: &[PeerInfo],
    call: &Lookup,
    deadline: Instant,
) -> Result<LookupReply, (PeerInfo, AskError)> {
    let timeout = deadline.saturating_duration_since(Instant::now());
    let mut waiting = entries.iter();
    let mut asked: FuturesUnordered<_> = waiting
        .by_ref()
        .take(RACED)
        .map(|entry| async move { (entry, network.call(entry, call, timeout).await) })
        .collect();
    let mut negative = None;
    let mut failure = None;
    while let Some((entry, result)) = asked.next().await {
        match result {
            Ok(reply) if reply.verdict == Verdict::Found => return Ok(reply),
            Ok(reply) => negative = Some(reply),
            Err(error) => failure = Some((entry.clone(), error)),
        }
    }
    match (negative, failure) {
        (Some(reply), _) => Ok(reply),
        (None, Some(failure)) => Err(failure),
        (None, None) => Err((PeerInfo { peer: network.peer(), addresses: vec![] }, AskError::Closed)),
    }
}
