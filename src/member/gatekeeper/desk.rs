//! What a gatekeeper does about each request: asks the pure cores, sends probes, changes the zone, writes down why.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock, Weak},
    time::{Duration, Instant, SystemTime},
};

use futures::{FutureExt as _, future::BoxFuture};
use tokio::sync::{Notify, Semaphore};

use super::{
    UPDATE,
    probing::{Prober, RESENDS},
};
use crate::{
    client::{
        Call, ErrorCode, ErrorReply, Event, RequestFrame, ResponseFrame,
        gatekeeper::{
            Decision, Decisions, DecisionsReply, DenialCode, Denied, Enter, EnterReply, Entered, GateVerdict, Leave,
            LeaveReply, Prove, ProveReply,
        },
    },
    clock::UnixMs,
    dns::{
        DescriptorPointer, PublishError, descriptor_owner, dnsaddr_text,
        publish::{Done, Publication, Publisher, SipEndpoint, TRANSPORTS, Transport, host_of, unreachable},
    },
    gatekeeper::{
        Applicant, Config, Journal, Leased, Ledger, Probe, Probes, Proof, Request, judge, policy::Rules, probe::WINDOW,
    },
    member::{
        Handler, Member,
        core::{Core, lock},
    },
    name::{PeerId, ResourceName, Service, ServiceUri},
    overlay::Caller,
};

/// How long the answer of a place is waited for whose nonce has come back already.
const ANSWER: Duration = Duration::from_millis(800);
/// Changes of the zone that are under way at a time; others wait.
const UPDATES: usize = 16;
/// How often a change is tried again that met another publisher's.
const TRIES: u32 = 3;
/// How long a host is left alone that could not be reaped.
const REAP_AGAIN: Duration = Duration::from_secs(2);
/// The most multiaddrs of one proxy peer that are published.
const MAX_DIALLED: usize = 8;

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

/// What the member's handlers know of a gatekeeper.
pub(super) struct Door(pub(super) Weak<Desk>);

impl Handler for Door {
    fn handle(&self, caller: Caller, frame: RequestFrame) -> BoxFuture<'static, ResponseFrame> {
        let desk = self.0.upgrade();
        async move {
            let Some(desk) = desk else {
                let gone = ErrorReply::new(ErrorCode::Unavailable, "this member is no gatekeeper any more");
                return ResponseFrame::Error(gone);
            };
            match (frame.service.as_str(), caller) {
                (Decisions::SERVICE, Caller::Local) => answer::<Decisions>(&frame, async |_| desk.decisions()).await,
                (Decisions::SERVICE, Caller::Peer(_)) => {
                    let message = "a gatekeeper tells its decisions to its own user, over its unix socket";
                    ResponseFrame::Error(ErrorReply::new(ErrorCode::LocalOnly, message))
                }
                (Enter::SERVICE, Caller::Peer(peer)) => {
                    answer::<Enter>(&frame, async |call| desk.enter(peer, call)).await
                }
                (Prove::SERVICE, Caller::Peer(peer)) => {
                    answer::<Prove>(&frame, async |call| desk.prove(peer, call).await).await
                }
                (Leave::SERVICE, Caller::Peer(peer)) => answer::<Leave>(&frame, async |_| desk.leave(peer).await).await,
                _ => {
                    let message = "a gatekeeper is asked over the overlay, where a stream says who asks";
                    ResponseFrame::Error(ErrorReply::new(ErrorCode::Unavailable, message))
                }
            }
        }
        .boxed()
    }
}

/// Reads a call and answers it.
async fn answer<C: Call>(frame: &RequestFrame, work: impl AsyncFnOnce(C) -> C::Reply) -> ResponseFrame {
    match frame.call::<C>() {
        Ok(call) => ResponseFrame::of::<C>(Ok(&work(call).await)),
        Err(error) => ResponseFrame::Error(error),
    }
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

    fn begin(&self, peer: PeerId, host: String, call: Enter) -> Result<(Request, Vec<Probe>), Denied> {
        let denied = |code, why: &str| Denied { code, why: why.to_owned(), retry_ms: 5_000 };
        let core = self.core.upgrade().ok_or_else(|| denied(DenialCode::Dns, "the gatekeeper is leaving"))?;
        let endpoints = endpoints(&call.endpoints);
        let endpoints =
            endpoints.ok_or_else(|| denied(DenialCode::Unfit, "a transport is none of udp, tcp and tls"))?;
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in call.addresses.iter().map(IpAddr::to_canonical) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let name = ResourceName::from(ServiceUri::new(Service::Proxy, core.descriptor().overlay().clone()));
        let enrolled = match &call.certificate {
            None => Err(format!("it shows no certificate for {name}")),
            Some(der) => {
                let permitted = core.trust().permits(der, &peer, &name, UnixMs::now());
                permitted.map(|_| ()).map_err(|refusal| refusal.to_string())
            }
        };
        let seen = core.network().seen_at(&peer);
        let applicant = Applicant {
            peer,
            host: &host,
            enrolled,
            addresses: &addresses,
            endpoints: &endpoints,
            seen: &seen,
            force: call.force,
        };
        let own = core.network().addresses();
        let file = self.file();
        let mut state = lock(&self.state);
        let State { ledger, probes, .. } = &mut *state;
        let rules = Rules {
            admission: &file.admission,
            quotas: &file.quotas,
            allow_private: file.allow_private,
            ledger,
            blind: &|address| blind(address, &own),
        };
        judge(&applicant, &rules)?;
        let request = Request { peer, id: call.id, host: host.clone(), addresses, endpoints, dialled: call.dialled };
        let known = |address| ledger.holds_at(&host, address);
        // A failing source of entropy is no reason to send what can be guessed.
        let mut entropy = true;
        let random = || {
            let mut octets = [0; 16];
            entropy &= getrandom::fill(&mut octets).is_ok();
            octets
        };
        let sent = probes.begin(request.clone(), known, Instant::now(), random)?;
        if !entropy {
            probes.take(&peer, &request.id);
            return Err(denied(DenialCode::Dns, "the gatekeeper has no random numbers"));
        }
        Ok((request, sent))
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

    /// Enters what was proven.
    async fn publish(&self, proof: Proof) -> Result<Entered, Denied> {
        let Proof { request, addresses, endpoints, notes } = proof;
        if addresses.is_empty() {
            let why = format!("nothing was proven: {}", notes.join("; "));
            return Err(Denied { code: DenialCode::Unproven, why, retry_ms: 5_000 });
        }
        let core = self.core.upgrade();
        let descriptor = core
            .map(|core| DescriptorPointer { hash: core.descriptor().hash(), policy: Some(core.descriptor().policy()) });
        let lease = self.lease();
        let wanted = Publication {
            overlay: self.publisher.zone().overlay.clone(),
            host: request.host.clone(),
            dialled: dialled(&request, &addresses),
            addresses,
            endpoints,
            ttl: Publication::ttl_of(lease),
            lease,
            peer: Some(request.peer),
            descriptor,
        };
        let done = self.add(wanted.clone()).await.map_err(|error| self.not_published(&error))?;
        let now = UnixMs::now();
        let until = done.plan.lease.as_ref().map_or(now, |lease| UnixMs(lease.until.saturating_mul(1000)));
        let renewed = done.plan.before.lease.as_ref().is_some_and(|lease| lease.live && !lease.has_ended(now));
        let leased = Leased { peer: Some(request.peer), addresses: wanted.addresses.clone(), until, live: true };
        let verdict = if renewed { GateVerdict::Renewed } else { GateVerdict::Entered };
        let places = wanted.endpoints.iter().map(|at| format!("{}:{}", at.transport, at.port)).collect::<Vec<_>>();
        let mut why = format!("{} proven for {lease} s", places.join(", "));
        for note in notes.iter().chain(&done.plan.warnings) {
            why = format!("{why}; {note}");
        }
        {
            let mut state = lock(&self.state);
            state.ledger.note(&request.host, Some(leased), now);
            match renewed {
                true => state.counts.renewed += 1,
                false => state.counts.entered += 1,
            }
        }
        self.note(verdict, Some(request.peer), request.host.clone(), wanted.addresses.clone(), why);
        Ok(Entered {
            host: request.host,
            addresses: wanted.addresses,
            endpoints: wanted.endpoints.iter().map(|at| (at.transport.to_string(), at.port)).collect(),
            lease_ms: u64::from(lease) * 1000,
            notes,
        })
    }

    /// Changes the zone, once more if it met another publisher's change.
    async fn add(&self, mut wanted: Publication) -> Result<Done, PublishError> {
        let _permit = self.updates.acquire().await;
        let foreign = descriptor_owner(&wanted.overlay)?;
        let mut tries = 1;
        loop {
            match self.publisher.add(&wanted, false).await {
                // Which descriptor is the right one is for the operator to say; the proxy peer has no part in it.
                Err(PublishError::NotOurs { host, why }) if host == foreign && wanted.descriptor.is_some() => {
                    tracing::warn!("the descriptor at {host} is left as it is: {why}");
                    wanted.descriptor = None;
                }
                Err(PublishError::Conflict { .. }) if tries < TRIES => tries += 1,
                done => return done,
            }
        }
    }

    /// Takes a proxy peer out at its own wish.
    async fn leave(&self, peer: PeerId) -> LeaveReply {
        let host = host_of(&peer, &self.publisher.zone().overlay);
        match self.remove(&peer, &host).await {
            Ok(true) => {
                lock(&self.state).counts.left += 1;
                self.note(GateVerdict::Left, Some(peer), host, Vec::new(), "at its own wish".to_owned());
                LeaveReply::Left
            }
            Ok(false) => LeaveReply::Left,
            Err(error) => {
                let denied = self.not_published(&error);
                LeaveReply::Refused(self.refused(peer, host, Vec::new(), denied))
            }
        }
    }

    /// Whether there was something to be removed.
    async fn remove(&self, peer: &PeerId, host: &str) -> Result<bool, PublishError> {
        let _permit = self.updates.acquire().await;
        let mut tries = 1;
        loop {
            let before = self.publisher.zone().read_host(host, UPDATE).await?;
            // The name is the peer's own; what was entered there by hand or for another one stays.
            if !before.lease.is_some_and(|lease| lease.live && lease.peer.as_ref() == Some(peer)) {
                return Ok(false);
            }
            match self.publisher.remove(host, false).await {
                Ok(done) => {
                    self.gone(host, &done);
                    return Ok(true);
                }
                Err(PublishError::NotPublished { .. }) => return Ok(false),
                Err(PublishError::Conflict { .. }) if tries < TRIES => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads the whole zone.
    pub(super) async fn sweep(&self) -> Result<(), PublishError> {
        let began = UnixMs::now();
        let zone = self.publisher.zone().read(UPDATE * 2).await?;
        lock(&self.state).ledger.read(&zone, began);
        Ok(())
    }

    /// The hosts whose lease or tombstone is over.
    pub(super) fn due(&self, now: UnixMs) -> Vec<String> {
        lock(&self.state).ledger.due(now)
    }

    /// Takes hosts out whose lease is over, unless it turns out that somebody has renewed it.
    pub(super) async fn reap(&self, hosts: Vec<String>) {
        let reaped = Publisher::each(hosts, async |host| {
            let result = self.reap_one(&host).await;
            (host, result)
        });
        for (host, result) in reaped.await {
            if let Err(error) = result {
                tracing::warn!("the lease of {host} is over, and it could not be taken out: {error}");
                lock(&self.state).ledger.postpone(&host, UnixMs::now().after(REAP_AGAIN));
            }
        }
    }

    async fn reap_one(&self, host: &str) -> Result<(), PublishError> {
        let _permit = self.updates.acquire().await;
        let Some(done) = self.publisher.reap(host).await? else {
            let there = self.publisher.zone().read_host(host, UPDATE).await?;
            lock(&self.state).ledger.note(host, Leased::of(&there), UnixMs::now());
            return Ok(());
        };
        self.gone(host, &done);
        let before = &done.plan.before;
        if let Some(lease) = before.lease.as_ref().filter(|lease| lease.live) {
            lock(&self.state).counts.reaped += 1;
            let why = "its lease was not renewed".to_owned();
            self.note(GateVerdict::Reaped, lease.peer, host.to_owned(), before.addresses.clone(), why);
        }
        Ok(())
    }

    /// Notes what is left of a host: its tombstone, if anything.
    fn gone(&self, host: &str, done: &Done) {
        let tombstone = done.plan.lease.as_ref().map(|lease| Leased {
            peer: lease.peer,
            addresses: Vec::new(),
            until: UnixMs(lease.until.saturating_mul(1000)),
            live: false,
        });
        lock(&self.state).ledger.note(host, tombstone, UnixMs::now());
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

    /// Why the zone was not changed, for a peer: the server's address is not its business.
    fn not_published(&self, error: &PublishError) -> Denied {
        tracing::warn!("the zone was not changed: {error}");
        let why = match error {
            PublishError::NoServer { .. } => "the zone's name server does not answer".to_owned(),
            PublishError::Refused { refusal, .. } => format!("the zone's name server refuses it: {refusal}"),
            PublishError::Dropped { missing, .. } => format!("the zone's name server took it without {missing}"),
            other => other.to_string(),
        };
        Denied { code: DenialCode::Dns, why, retry_ms: 3_000 }
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

/// The transports of a request, each once; `None` if one of them is unknown.
fn endpoints(named: &[(String, u16)]) -> Option<Vec<SipEndpoint>> {
    let mut endpoints = Vec::new();
    for (name, port) in named {
        let transport = TRANSPORTS.into_iter().find(|transport| transport.to_string() == *name)?;
        let endpoint = SipEndpoint { transport, port: *port };
        if !endpoints.contains(&endpoint) {
            endpoints.push(endpoint);
        }
    }
    Some(endpoints)
}

/// Where the proxy peer can be dialled, at addresses that it has proven: others would have members dial a stranger.
fn dialled(request: &Request, proven: &[IpAddr]) -> Vec<String> {
    let is_proven = |text: &&String| {
        let mut parts = text.split('/').skip(1);
        let ip = match (parts.next(), parts.next()) {
            (Some("ip4" | "ip6"), Some(ip)) => ip.parse::<IpAddr>().ok(),
            _ => None,
        };
        let relayed = text.contains("/p2p-circuit");
        !relayed && ip.is_some_and(|ip| proven.contains(&ip)) && dnsaddr_text(&request.peer, text).is_ok()
    };
    request.dialled.iter().filter(is_proven).take(MAX_DIALLED).cloned().collect()
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|file| file.modified()).ok()
}

/// Why this machine does not see an address as the public network does: packets to it would leave from an address that
/// is nobody's outside, and peers outside know none of ours.
fn blind(address: IpAddr, own: &[String]) -> Option<String> {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let leaves_from = || {
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((address, 5060)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let Some(from) = leaves_from() else { return Some("there is no route to it".to_owned()) };
    let why = unreachable(&from)?;
    let public = |text: &String| {
        let ip = text.split('/').nth(2).and_then(|ip| ip.parse::<IpAddr>().ok());
        ip.is_some_and(|ip| ip.is_ipv4() == address.is_ipv4() && unreachable(&ip).is_none())
    };
    if own.iter().any(public) {
        return None;
    }
    Some(format!("it would be asked from {from}, and {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::gatekeeper::RequestId;

    #[test]
    fn a_machine_without_a_public_address_is_blind_unless_peers_reach_it_at_one() {
        let loopback = "127.0.0.9".parse().unwrap();
        assert!(blind(loopback, &[]).unwrap().contains("loopback"));
        assert!(blind(loopback, &["/ip4/10.0.0.1/tcp/1".to_owned()]).is_some());
        assert!(blind(loopback, &["/ip6/2001:db8::1/tcp/1".to_owned()]).is_some());
        assert_eq!(blind(loopback, &["/ip4/192.0.2.1/tcp/1".to_owned()]), None);
    }

    #[test]
    fn only_proven_addresses_are_dialled() {
        let peer = PeerId::from_public_key([1; 32]);
        let text = |text: &str| text.to_owned();
        let request = Request {
            peer,
            id: RequestId::new([0; 16]),
            host: String::new(),
            addresses: vec![],
            endpoints: vec![],
            dialled: vec![
                text("/ip4/192.0.2.1/tcp/4001"),
                text("/ip4/198.51.100.1/tcp/4001"),
                text("/dns4/victim.example/tcp/4001"),
                text("nonsense"),
                text(""),
            ],
        };
        assert_eq!(dialled(&request, &["192.0.2.1".parse().unwrap()]), ["/ip4/192.0.2.1/tcp/4001"]);
    }

    #[test]
    fn transports_have_names() {
        let named =
            |names: &[&str]| endpoints(&names.iter().map(|name| ((*name).to_owned(), 5060)).collect::<Vec<_>>());
        assert_eq!(named(&["udp", "tls", "udp"]).unwrap().len(), 2);
        assert_eq!(named(&["udp", "sctp"]), None);
    }
}
