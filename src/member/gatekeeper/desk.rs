//! What a gatekeeper does about each request: asks the pure cores, sends probes, changes the zone, writes down why.

mod admit;
mod door;
mod zone;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock, Weak},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::{Notify, Semaphore};

pub(super) use self::door::Door;
use super::{
    UPDATE, named,
    probing::{Prober, RESENDS},
};
use crate::{
    client::{
        Event,
        gatekeeper::{Decision, DecisionsReply, DenialCode, Denied, Enter, EnterReply, GateVerdict, Prove, ProveReply},
    },
    clock::UnixMs,
    dns::publish::{Publisher, Transport, host_of},
    gatekeeper::{Config, Journal, Ledger, Probe, Probes, Request, probe::WINDOW},
    member::{
        Member,
        core::{Core, lock},
    },
    name::PeerId,
};

/// How long the answer of a place is waited for whose nonce has come back already.
const ANSWER: Duration = Duration::from_millis(800);
/// Changes of the zone that are under way at a time; others wait.
const UPDATES: usize = 16;

/// What a gatekeeper has done, and who is there.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) live: usize,
    pub(super) pending: usize,
    pub(super) probes: u64,
    pub(super) entered: u64,
    pub(super) renewed: u64,
    pub(super) refused: u64,
    pub(super) left: u64,
    pub(super) reaped: u64,
}

struct State {
    ledger: Ledger,
    probes: Probes,
    journal: Journal,
    counts: Counts,
}

/// A gatekeeper at work.
pub(super) struct Desk {
    /// The member holds the handlers, and they this: not the other way round, or neither would ever go.
    core: Weak<Core>,
    peer: PeerId,
    file: RwLock<Arc<Config>>,
    /// Where it was read, and when that file was last changed.
    path: Option<PathBuf>,
    changed: Mutex<Option<SystemTime>>,
    publisher: Publisher,
    prober: Prober,
    state: Mutex<State>,
    /// A place has answered.
    answered: Notify,
    updates: Semaphore,
}

impl Desk {
    pub(super) fn new(
        member: &Member,
        (file, path): (Config, Option<PathBuf>),
        publisher: Publisher,
        prober: Prober,
    ) -> Self {
        let changed = Mutex::new(path.as_deref().and_then(modified));
        let probes = Probes::new(&file.quotas);
        let state = State { ledger: Ledger::default(), probes, journal: Journal::default(), counts: Counts::default() };
        Self {
            core: Arc::downgrade(&member.core),
            peer: member.peer(),
            file: RwLock::new(Arc::new(file)),
            path,
            changed,
            publisher,
            prober,
            state: Mutex::new(state),
            answered: Notify::new(),
            updates: Semaphore::new(UPDATES),
        }
    }

    /// What it goes by at present.
    fn file(&self) -> Arc<Config> {
        self.file.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The lease that it grants, in seconds.
    pub(super) fn lease(&self) -> u32 {
        self.file().lease
    }

    /// Reads the file again if it has changed. Zone, key and certificates stay what they were at the start; a file that
    /// cannot be used leaves everything as it is.
    pub(super) fn reread(&self) {
        let Some(path) = &self.path else { return };
        let changed = modified(path);
        if std::mem::replace(&mut *lock(&self.changed), changed) == changed {
            return;
        }
        match Config::load(path) {
            Ok(file) => {
                tracing::info!("the gatekeeper's file has changed, and holds from now on");
                *self.file.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(file);
            }
            Err(error) => tracing::error!("what the gatekeeper's file said before still holds: {error}"),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let state = lock(&self.state);
        Counts { live: state.ledger.live(), pending: state.probes.waiting().count(), ..state.counts }
    }

    /// Sends probes, if the request is worth them.
    fn enter(self: &Arc<Self>, peer: PeerId, call: Enter) -> EnterReply {
        let host = host_of(&peer, &self.publisher.zone().overlay);
        let (addresses, shown) = (call.addresses.clone(), host.clone());
        match self.begin(peer, host, call) {
            Ok((request, probes)) => {
                lock(&self.state).counts.probes += probes.len() as u64;
                tracing::debug!(%peer, ?addresses, "probes a proxy peer");
                for probe in &probes {
                    self.prober.send(&request.id, probe);
                }
                let reply = EnterReply::Probing {
                    probes: u32::try_from(probes.len()).unwrap_or(u32::MAX),
                    within_ms: u64::try_from(WINDOW.as_millis()).unwrap_or(u64::MAX),
                };
                tokio::spawn(resend(Arc::downgrade(self), request, probes));
                reply
            }
            Err(denied) => EnterReply::Refused(self.refused(peer, shown, addresses, denied)),
        }
    }

    /// Takes a proof, and enters what was proven.
    async fn prove(&self, peer: PeerId, call: Prove) -> ProveReply {
        let host = host_of(&peer, &self.publisher.zone().overlay);
        let proven = {
            let overlay = &self.publisher.zone().overlay;
            let mut state = lock(&self.state);
            state.probes.prove(overlay, &self.peer, &peer, &call.id, &call.nonces, &call.signature)
        };
        if let Err(denied) = proven {
            return ProveReply::Refused(self.refused(peer, host, Vec::new(), denied));
        }
        self.settle(&peer).await;
        let Some(proof) = lock(&self.state).probes.take(&peer, &call.id) else {
            let denied = Denied { code: DenialCode::Stale, why: "the request is over".to_owned(), retry_ms: 1_000 };
            return ProveReply::Refused(self.refused(peer, host, Vec::new(), denied));
        };
        let asked = proof.request.addresses.clone();
        match self.publish(proof).await {
            Ok(entered) => ProveReply::Entered(entered),
            Err(denied) => ProveReply::Refused(self.refused(peer, host, asked, denied)),
        }
    }

    /// Waits for the answers of places whose nonces have come back: the two ways are raced.
    async fn settle(&self, peer: &PeerId) {
        let settled = async {
            loop {
                let answered = self.answered.notified();
                tokio::pin!(answered);
                answered.as_mut().enable();
                if lock(&self.state).probes.is_settled(peer) {
                    return;
                }
                answered.await;
            }
        };
        // What has not answered by then is not proven.
        let _ = tokio::time::timeout(ANSWER, settled).await;
    }

    /// A place has answered a probe.
    pub(super) fn answered(&self, branch: &str, status: u16, source: Option<SocketAddr>) {
        if lock(&self.state).probes.answered(branch, status, source) {
            self.answered.notify_waiters();
        }
    }

    /// Ends requests whose proof never came.
    pub(super) fn expire(&self) {
        let over = lock(&self.state).probes.expire(Instant::now());
        for Request { peer, host, addresses, .. } in over {
            let why = "no proof came back: the probes reached somebody else, or nobody".to_owned();
            self.refused(peer, host, addresses, Denied { code: DenialCode::Unproven, why, retry_ms: 5_000 });
        }
    }

    fn decisions(&self) -> DecisionsReply {
        let state = lock(&self.state);
        let now = UnixMs::now();
        let probing = state.probes.waiting().map(|request| Decision {
            at_ms: now,
            verdict: GateVerdict::Probing,
            peer: Some(request.peer),
            host: request.host.clone(),
            addresses: request.addresses.clone(),
            why: "its proof is waited for".to_owned(),
        });
        DecisionsReply {
            pending: probing.chain(state.journal.refused()).collect(),
            decisions: state.journal.decisions().cloned().collect(),
        }
    }

    /// Writes a refusal down, and hands it on.
    fn refused(&self, peer: PeerId, host: String, addresses: Vec<IpAddr>, denied: Denied) -> Denied {
        lock(&self.state).counts.refused += 1;
        self.note(GateVerdict::Refused, Some(peer), host, addresses, denied.why.clone());
        denied
    }

    fn note(&self, verdict: GateVerdict, peer: Option<PeerId>, host: String, addresses: Vec<IpAddr>, why: String) {
        let shown = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let who = peer.map_or_else(|| "a proxy peer".to_owned(), |peer| peer.to_string());
        match verdict {
            GateVerdict::Renewed | GateVerdict::Probing => {
                tracing::debug!(%host, "{} {who} ({shown}): {why}", verdict.word())
            }
            _ => tracing::info!(%host, "{} {who} ({shown}): {why}", verdict.word()),
        }
        if let Some(core) = self.core.upgrade().filter(|_| verdict != GateVerdict::Renewed) {
            core.publish(Event::Gatekeeper { verdict, peer, host: host.clone(), why: why.clone() });
        }
        lock(&self.state).journal.note(Decision { at_ms: UnixMs::now(), verdict, peer, host, addresses, why });
    }
}

/// Sends datagrams again that have not been answered.
async fn resend(desk: Weak<Desk>, request: Request, probes: Vec<Probe>) {
    for pause in RESENDS {
        tokio::time::sleep(pause).await;
        let Some(desk) = desk.upgrade() else { return };
        for probe in probes.iter().filter(|probe| probe.endpoint.transport == Transport::Udp) {
            if lock(&desk.state).probes.awaits(&probe.branch) {
                desk.prober.send(&request.id, probe);
            }
        }
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|file| file.modified()).ok()
}
