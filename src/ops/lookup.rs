//! Looking a name up: `p2p-lookup`.

use std::{sync::Arc, time::Instant};

use super::{
    Access, OpsError, ViaChoice,
    access::{Attached, Known, Route, describe},
    outcome::{LookupOutcome, LookupStatus, TraceView, Via},
    race::{RACED, Worth, race},
    view,
};
use crate::{
    client::{Lookup, LookupReply, PeerInfo, Rejected, Status, Verdict},
    clock::UnixMs,
    identity::{Descriptor, Policy},
    name::{PeerId, ResourceName},
    overlay::{
        drive::{self, TreeReader},
        lookup::LookupConfig,
        redir::{Discovery, Wanted},
        socket::SocketClient,
        swarm::{AskError, Network},
    },
    record::{Refusal, Trust, VerifiedRecord, contested},
};

/// A way into an overlay over which any number of names can be looked up.
pub struct Lookups {
    access: Access,
    via: ViaChoice,
    attached: Attached,
    trust: Arc<Trust>,
    started: Option<Instant>,
    /// What the running member has been asked already; its reply is still to be received.
    begun: Option<ResourceName>,
    /// Whether every request is told of.
    traced: bool,
    /// The member on this machine, if walks begin with the peers that it knows.
    guide: Option<SocketClient>,
}

/// What came back, how, and by which requests.
type Answered = (LookupReply, Via, Option<Vec<TraceView>>);

/// Looks one name up.
///
/// # Errors
/// [`OpsError`]: no way into the overlay, or nobody there answered. A negative answer is an outcome, not an error.
pub async fn lookup(access: &Access, name: &ResourceName, via: ViaChoice) -> Result<LookupOutcome, OpsError> {
    let started = Instant::now();
    let mut named = access.clone();
    named.overlay.get_or_insert_with(|| name.overlay().clone());
    let mut lookups = Lookups::attach(&named, via, name).await?;
    lookups.started = Some(started);
    lookups.lookup(name).await
}

impl Lookups {
    /// Finds a way into the overlay that `access` names, to look `first` up and then others.
    ///
    /// # Errors
    /// [`OpsError`].
    pub async fn attach(access: &Access, via: ViaChoice, first: &ResourceName) -> Result<Self, OpsError> {
        let mut begun = None;
        let attached = match access.socket(via).await? {
            Some(mut socket) => {
                // The member is at work while this process reads what the overlay is.
                socket.send(&call(first, access)).await?;
                match access.local_descriptor()? {
                    Some(known) => {
                        begun = Some(first.clone());
                        Attached { known, route: Route::Socket(socket) }
                    }
                    None => access.attach(via).await?,
                }
            }
            None => access.attach_to_peers(access.local_descriptor()?).await?,
        };
        Ok(Self { begun, ..Self::over(access, via, attached) })
    }

    /// The same, but believing keys that the user has not pinned.
    pub(super) async fn attach_without_pins(access: &Access, via: ViaChoice) -> Result<Self, OpsError> {
        let mut attached = access.attach(via).await?;
        attached.known.pins.keys.clear();
        Ok(Self::over(access, via, attached))
    }

    /// Finds a way into the overlay for walks of which every request is told in
    /// [`trace`](LookupOutcome::trace). They do not stop when they have enough, but ask every storer.
    ///
    /// # Errors
    /// [`OpsError`].
    pub async fn attach_traced(access: &Access) -> Result<Self, OpsError> {
        let (attached, guide) = access.attach_to_walk().await?;
        Ok(Self { traced: true, guide, ..Self::over(access, ViaChoice::Walk, attached) })
    }

    fn over(access: &Access, via: ViaChoice, attached: Attached) -> Self {
        let trust = attached.known.trust();
        Self { access: access.clone(), via, attached, trust, started: None, begun: None, traced: false, guide: None }
    }

    /// What the overlay is, and what this user trusts in it.
    pub(super) const fn known(&self) -> &Known {
        &self.attached.known
    }

    /// What the overlay is.
    pub(super) const fn descriptor(&self) -> &Arc<Descriptor> {
        &self.attached.known.descriptor
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
        let (reply, via, trace) = self.ask(name).await?;
        let now = UnixMs::now();
        let mut records: Vec<VerifiedRecord> = Vec::new();
        let mut rejected = reply.rejected.clone();
        for envelope in &reply.envelopes {
            let verified = verify(&self.trust, envelope, name, now);
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
            trace,
            public: None,
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

    async fn ask(&mut self, name: &ResourceName) -> Result<Answered, OpsError> {
        let timeout = self.access.timeout;
        let call = call(name, &self.access);
        match &mut self.attached.route {
            Route::Socket(socket) => {
                // The member keeps to the time; the margin is for its answer.
                let begun = self.begun.take();
                let asking = async {
                    if begun.as_ref() == Some(name) {
                        return socket.receive::<Lookup>().await;
                    }
                    if begun.is_some() {
                        // That name was of another overlay, and nobody waits for the reply.
                        socket.receive::<Lookup>().await.ok();
                    }
                    socket.call(&call).await
                };
                let answer = tokio::time::timeout(timeout + timeout / 4, asking).await;
                let reply = answer.map_err(|_| self.access.timed_out("the member on this machine"))??;
                Ok((reply, Via::Socket, None))
            }
            Route::Peers { network, entries } => {
                let deadline = Instant::now() + timeout;
                if self.via != ViaChoice::Walk {
                    match ask_members(network, entries, &call, deadline).await {
                        // A member's word is enough for what carries its own proof; for anything else we look
                        // ourselves, unless told not to.
                        Ok(reply) if reply.verdict == Verdict::Found || self.via == ViaChoice::Peer => {
                            return Ok((reply, Via::Peer, None));
                        }
                        Ok(_) => {}
                        Err((entry, error)) if self.via == ViaChoice::Peer || network_is_gone(&error) => {
                            return Err(OpsError::Ask { peer: describe(&entry), error });
                        }
                        Err(_) => {}
                    }
                }
                if let Some(member) = &mut self.guide {
                    *entries = self.access.seeds(member, Some(name.position())).await?;
                }
                let remaining = deadline.saturating_duration_since(Instant::now());
                let limits = self.attached.known.descriptor.limits();
                let mut config = LookupConfig::for_overlay(limits).within(remaining);
                if self.traced {
                    config = config.exhaustive();
                }
                let trust = self.trust.clone();
                let walked = match name {
                    ResourceName::Service(service) => {
                        let reader = TreeReader { network, vicinity: entries, config, trust };
                        reader.discover(service, Discovery::new(Wanted::All, None, 0, 0)).await.into()
                    }
                    name => drive::lookup(network, name.clone(), entries.clone(), None, config, trust).await,
                };
                let trace = self.traced.then(|| walked.trace.iter().map(view::trace).collect());
                Ok((walked.reply, Via::Walk, trace))
            }
        }
    }
}

/// Verifies a record of the name, or if that is a service, of any node of its tree.
pub(super) fn verify(
    trust: &Trust,
    envelope: &[u8],
    name: &ResourceName,
    now: UnixMs,
) -> Result<VerifiedRecord, Refusal> {
    let ResourceName::Service(service) = name else { return trust.verify(envelope, Some(name), now) };
    let record = trust.verify(envelope, None, now)?;
    match record.name().service() {
        Some(found) if found == service => Ok(record),
        _ => Err(Refusal::WrongName { expected: name.clone(), found: record.name().clone() }),
    }
}

/// What a member is asked.
fn call(name: &ResourceName, access: &Access) -> Lookup {
    Lookup { name: name.clone(), timeout_ms: view::milliseconds(access.timeout) }
}

/// Whether asking others is as hopeless: no entry could be dialled, or all speak another protocol.
const fn network_is_gone(error: &AskError) -> bool {
    matches!(error, AskError::Dial(_) | AskError::OtherOverlay | AskError::Closed)
}

/// Asks a few members at once; the first that finds something wins, else one that does not.
async fn ask_members(
    network: &Network,
    entries: &[PeerInfo],
    call: &Lookup,
    deadline: Instant,
) -> Result<LookupReply, (PeerInfo, AskError)> {
    let mut negative = None;
    let found = race(network, entries, call, RACED, deadline, |_, reply| {
        if reply.verdict == Verdict::Found {
            return Worth::Good(reply);
        }
        negative = Some(reply);
        Worth::Fair
    });
    let failure = match found.await {
        Ok(reply) => return Ok(reply),
        Err(failure) => failure,
    };
    let nobody = || (PeerInfo { peer: network.peer(), addresses: vec![] }, AskError::Closed);
    negative.ok_or_else(|| failure.unwrap_or_else(nobody))
}
