//! The engines of a proxy peer and what they share: each message goes to one of them, and what that wants is done.
//!
//! The table of transactions is sharded. An engine is a shard behind a lock of its own, so that whoever reads a message
//! handles it on the spot, whichever socket it came by. A request belongs to the shard of its Call-ID, as its
//! retransmissions, CANCEL and ACK do; a response to the shard that its branch names, which is the one that sent the
//! request. Nothing that waits is done under a lock.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{runtime::Handle, sync::Notify};

use super::{
    directory::{Directory, Found, Next, Reply, Waiting},
    servers,
    way_back::{self, WayBack},
};
use crate::{
    client::{ProxyStatus, Verdict, gatekeeper::PublicationStatus},
    dns::locate::Locator,
    member::{
        USUAL_AGE,
        adapter::Publisher,
        core::{Core, lock},
        gatekeeper::Inbox,
    },
    name::{Aor, InstanceId, PeerId, ResourceName, Service},
    overlay::redir::Wanted,
    proxy::{
        adapter::Adapter,
        engine::{self, Engine, Located, Output, Question, What},
        throttle::Throttle,
    },
    record::{Body, MAX_LOAD},
    sip::{
        Message,
        header::Name,
        tap::Tap,
        transaction::{Branch, Token, quoted_branch},
        transport::{DropReason, Event, Hop, Remote, SendError, Source, Transports, Undelivered},
    },
};

/// Engines that share the work. More than there are threads, so that these seldom meet at one.
const SHARDS: u8 = 16;
/// How long finding a user may take: less than the caller's patience for a first response.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);
/// Questions to the DNS at a time; each is a task.
const MAX_LOCATIONS: usize = 4_096;
/// Proxy peers that are tried for a request.
const MAX_PROXIES: usize = 4;
/// How long a proxy peer that could not be reached is tried last.
const AVOIDED: Duration = Duration::from_secs(60);

/// The engines, and what they share.
pub(in crate::member) struct Hub {
    shards: Box<[Mutex<Engine>]>,
    /// Which shard a Call-ID belongs to, so that nobody outside can choose.
    keys: RandomState,
    /// Transactions that there may be.
    most: usize,
    directory: Mutex<Directory>,
    /// When peers could not be reached.
    unreachable: Mutex<HashMap<PeerId, Instant>>,
    way_back: Mutex<WayBack>,
    /// How it stands with the DNS, if it means to be there.
    publication: Mutex<Option<PublicationStatus>>,
    surroundings: Surroundings,
    runtime: Handle,
    locations: AtomicUsize,
    lookups: AtomicU64,
    draining: AtomicBool,
    alarm: Alarm,
}

/// What the engines work with.
pub(super) struct Surroundings {
    pub(super) transports: Transports,
    pub(super) core: Arc<Core>,
    pub(super) locator: Locator,
    /// What writes the routing records of an adapter's phones.
    pub(super) publisher: Option<Arc<Publisher>>,
    /// Where the nonces of gatekeepers go.
    pub(super) inbox: Arc<Inbox>,
    pub(super) tap: Option<Tap>,
    /// Where the proxy peer is, as people read it.
    pub(super) endpoints: Vec<String>,
}

impl Hub {
    /// Engines of one configuration, on the current runtime. An adapter knows its phones in one place, so with one there
    /// is a single engine.
    pub(super) fn new(
        config: &engine::Config,
        adapter: Option<Adapter>,
        surroundings: Surroundings,
        now: Instant,
    ) -> Self {
        let throttle = Arc::new(Throttle::new(config.rate));
        let most = config.transactions.max_transactions;
        let shards = if adapter.is_some() { 1 } else { SHARDS };
        let engine = |shard| {
            let mut config = config.clone();
            config.transactions.shard = shard;
            config.transactions.max_transactions = most.div_ceil(usize::from(shards));
            Engine::sharing(config, throttle.clone(), now)
        };
        let shards: Box<[Mutex<Engine>]> = match adapter {
            Some(adapter) => Box::new([Mutex::new(engine(0).with_adapter(adapter))]),
            None => (0..shards).map(|shard| Mutex::new(engine(shard))).collect(),
        };
        Self {
            shards,
            keys: RandomState::new(),
            most,
            directory: Mutex::default(),
            unreachable: Mutex::default(),
            way_back: Mutex::default(),
            publication: Mutex::default(),
            surroundings,
            runtime: Handle::current(),
            locations: AtomicUsize::new(0),
            lookups: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            alarm: Alarm::new(now),
        }
    }

    /// Takes what came in a datagram.
    pub(super) fn on_datagram(self: &Arc<Self>, message: Message, source: Source) {
        if let Some(tap) = &self.surroundings.tap {
            tap.received(message.bytes());
        }
        self.receive(message, source);
    }

    /// Takes what is known of a datagram that did not arrive.
    pub(super) fn on_undelivered(self: &Arc<Self>, undelivered: &Undelivered) {
        let Some(branch) = quoted_branch(&undelivered.quoted) else { return };
        tracing::debug!(error = %undelivered, "a SIP message did not arrive");
        self.with(branch.shard, |engine, now| engine.undelivered(undelivered, now));
    }

    fn receive(self: &Arc<Self>, message: Message, source: Source) {
        self.with(self.shard_of(&message), |engine, now| engine.receive(message, source, now));
    }

    /// Takes what the transports report.
    pub(super) fn on_event(self: &Arc<Self>, event: Event) {
        match event {
            Event::Message { message, source } => self.receive(message, source),
            Event::Failed { token, error } => {
                let token = Token::of_number(token);
                self.with(token.shard(), |engine, now| self.failed(engine, token, &error, now));
            }
            Event::Undelivered(undelivered) => self.on_undelivered(&undelivered),
            // Whoever closes a stream may be about to appear elsewhere.
            Event::Closed { remote: Remote::Peer(peer), .. } => lock(&self.directory).failed(&peer),
            Event::Closed { .. } => {}
        }
    }

    /// Lets all timers fire that are due; says when to come again, if ever.
    pub(super) fn on_timeout(self: &Arc<Self>) -> Option<Instant> {
        self.alarm.reset();
        let dues = (0..self.shards.len()).filter_map(|shard| self.run(shard as u8, Engine::handle_timeout));
        let first = dues.min();
        self.alarm.settle(first)
    }

    /// Waits until a timer is to fire sooner than [`Hub::on_timeout`] has said.
    pub(super) async fn hurried(&self) {
        self.alarm.hurry.notified().await;
    }

    /// Begins nothing new from now on.
    pub(super) fn drain(self: &Arc<Self>) {
        self.draining.store(true, Ordering::Relaxed);
        for shard in 0..self.shards.len() {
            self.with(shard as u8, Engine::drain);
        }
    }

    /// Whether no request waits for its final response.
    pub(super) fn is_idle(&self) -> bool {
        self.shards.iter().all(|shard| lock(shard).is_idle())
    }

    /// How it is.
    pub(in crate::member) fn status(&self) -> ProxyStatus {
        let (spared, lookups_refused) = {
            let directory = lock(&self.directory);
            (directory.spared, directory.refused)
        };
        let mut status = ProxyStatus {
            endpoints: self.surroundings.endpoints.clone(),
            draining: self.draining.load(Ordering::Relaxed),
            load: 0,
            transactions: 0,
            forwarded: 0,
            answered: 0,
            acks: 0,
            throttled: 0,
            overloaded: 0,
            loops: 0,
            dropped: 0,
            lookups: self.lookups.load(Ordering::Relaxed),
            spared,
            lookups_refused,
            unlisted: lock(&self.way_back).is_missing,
            publication: lock(&self.publication).clone(),
        };
        for shard in &self.shards {
            let engine = lock(shard);
            let counts = engine.counts();
            status.transactions += u32::try_from(engine.len()).unwrap_or(u32::MAX);
            status.forwarded += counts.forwarded;
            status.answered += counts.answered.iter().sum::<u64>();
            status.acks += counts.acks;
            status.throttled += counts.throttled;
            status.overloaded += counts.overloaded;
            status.loops += counts.loops;
            status.dropped += counts.dropped;
        }
        let load = (status.transactions as usize).saturating_mul(usize::from(MAX_LOAD)) / self.most.max(1);
        status.load = u16::try_from(load).unwrap_or(MAX_LOAD).min(MAX_LOAD);
        status
    }

    /// Datagrams of which ICMP has said that they did not arrive.
    pub(super) fn undelivered(&self) -> u64 {
        self.surroundings.transports.counters().dropped(DropReason::Undelivered)
    }

    /// How it stands with the DNS has changed.
    pub(in crate::member) fn set_publication(&self, change: impl FnOnce(&mut PublicationStatus)) {
        change(lock(&self.publication).get_or_insert_default());
    }

    /// Finds out whether others find the overlay, if calls have gone out: that is their way back in a dialog.
    pub(super) fn look_outside(self: &Arc<Self>) {
        let outgoing = self.shards.iter().map(|shard| lock(shard).counts().outgoing).sum();
        if !lock(&self.way_back).is_due(outgoing, Instant::now()) {
            return;
        }
        let (hub, locator) = (Arc::downgrade(self), self.surroundings.locator.clone());
        let overlay = self.surroundings.core.descriptor().overlay().clone();
        self.runtime.spawn(async move {
            let verdict = way_back::look(&locator, &overlay).await;
            let Some(hub) = hub.upgrade() else { return };
            lock(&hub.way_back).found(&overlay, verdict);
        });
    }

    fn shard_of(&self, message: &Message) -> u8 {
        let shards = self.shards.len() as u64;
        if message.status().is_some() {
            let via = message.top_via().ok();
            let parts = via.and_then(|via| Branch::read(via.branch()?.as_bytes()));
            // Of what is no branch of ours, any shard may say that nobody has asked for it.
            return parts.map(|parts| parts.shard).filter(|shard| u64::from(*shard) < shards).unwrap_or(0);
        }
        let hash = self.keys.hash_one(message.header(Name::CallId).unwrap_or_default());
        u8::try_from(hash % shards).unwrap_or(0)
    }

    /// Tells an engine something, and does what it wants then.
    fn with(self: &Arc<Self>, shard: u8, tell: impl FnOnce(&mut Engine, Instant)) {
        if let Some(due) = self.run(shard, tell) {
            self.alarm.set(due);
        }
    }

    /// As [`Hub::with`]; the engine's next timer is left to the caller.
    fn run(self: &Arc<Self>, shard: u8, tell: impl FnOnce(&mut Engine, Instant)) -> Option<Instant> {
        let shard = self.shards.get(usize::from(shard))?;
        // What is sent under the lock leaves in the order in which the engine wants it.
        let mut engine = lock(shard);
        let now = Instant::now();
        tell(&mut engine, now);
        self.perform(&mut engine, now);
        engine.poll_timeout()
    }

    /// Does everything that an engine wants done.
    fn perform(self: &Arc<Self>, engine: &mut Engine, now: Instant) {
        while let Some(output) = engine.poll_output() {
            match output {
                Output::Send { to, bytes, token } => self.send(engine, &to, bytes, token, now),
                Output::Locate { question, what: What::User { aor, instance, source } } => {
                    self.ask(engine, &aor, Waiting::Contacts(question, instance), &source, now);
                }
                Output::Locate { question, what: What::Uri { uri, secure } } => {
                    self.locate(engine, question, uri, secure, now);
                }
                Output::Locate { question, what: What::Proxy } => self.find_proxies(question),
                Output::Identify { question, peer, claimed } => self.identify(engine, question, peer, claimed, now),
                Output::Publish { instance, present } => self.publish(instance, present),
                Output::Probed(probe) => self.surroundings.inbox.deposit(&probe),
                Output::Learned { hop, health } => servers::learn(&self.surroundings.locator, &hop, health),
                // Only the engine of a domain says so.
                Output::Register { .. } => {}
            }
        }
    }

    fn send(&self, engine: &mut Engine, to: &Hop, bytes: Bytes, token: Token, now: Instant) {
        if let Err(error) = self.surroundings.transports.send(to, bytes, token.number()) {
            self.failed(engine, token, &error, now);
        }
    }

    fn failed(&self, engine: &mut Engine, token: Token, error: &SendError, now: Instant) {
        tracing::debug!(%error, "a SIP message was not sent");
        if let Remote::Peer(peer) = error.hop().remote {
            lock(&self.directory).failed(&peer);
            let mut unreachable = lock(&self.unreachable);
            unreachable.retain(|_, at| now.saturating_duration_since(*at) < AVOIDED);
            unreachable.insert(peer, now);
        }
        engine.transport_failed(token, now);
    }

    fn identify(
        self: &Arc<Self>,
        engine: &mut Engine,
        question: Question,
        peer: PeerId,
        claimed: Option<Aor>,
        now: Instant,
    ) {
        // Who says no name is looked for under the one that the peer had last; whether it still has it, the records say.
        match claimed.or_else(|| lock(&self.directory).users_of(&peer).first().cloned()) {
            Some(aor) => self.ask(engine, &aor, Waiting::Membership(question, peer), &Remote::Peer(peer), now),
            None => engine.identified(question, &[], now),
        }
    }

    fn ask(self: &Arc<Self>, engine: &mut Engine, aor: &Aor, who: Waiting, source: &Remote, now: Instant) {
        let next = lock(&self.directory).ask(aor, who, source, now);
        match next {
            Next::Answer(reply) => {
                if let Some(tap) = &self.surroundings.tap {
                    tap.asked("overlay", aor.to_string(), "remembered", now);
                }
                tell(engine, reply, now);
            }
            Next::Wait => {}
            Next::LookUp => {
                self.lookups.fetch_add(1, Ordering::Relaxed);
                let (hub, core, aor) = (Arc::downgrade(self), self.surroundings.core.clone(), aor.clone());
                let tap = self.surroundings.tap.clone();
                self.runtime.spawn(async move {
                    let began = Instant::now();
                    let found = Found::from(core.lookup(ResourceName::User(aor.clone()), LOOKUP_TIMEOUT).await);
                    if let Some(tap) = tap {
                        tap.asked("overlay", aor.to_string(), found.to_string(), began);
                    }
                    on_found(&hub, &aor, &found);
                });
            }
        }
    }

    fn locate(self: &Arc<Self>, engine: &mut Engine, question: Question, uri: Arc<str>, secure: bool, now: Instant) {
        if let Some(located) = servers::at_once(&self.surroundings.locator, &uri, secure) {
            return engine.located(question, located, now);
        }
        if self.locations.fetch_add(1, Ordering::Relaxed) >= MAX_LOCATIONS {
            self.locations.fetch_sub(1, Ordering::Relaxed);
            return engine.located(question, Located::Nowhere { status: 503, reason: "Overloaded" }, now);
        }
        let (hub, locator) = (Arc::downgrade(self), self.surroundings.locator.clone());
        let tap = self.surroundings.tap.clone();
        self.runtime.spawn(async move {
            let located = servers::locate(&locator, &uri, secure, tap.as_ref()).await;
            on_located(&hub, question, located);
        });
    }

    /// Finds proxy peers, those last that could not be reached a moment ago. Otherwise the order is always the same, and
    /// another one at each member: an ACK, which has one try, goes the way of its INVITE.
    fn find_proxies(self: &Arc<Self>, question: Question) {
        self.locations.fetch_add(1, Ordering::Relaxed);
        let (hub, core) = (Arc::downgrade(self), self.surroundings.core.clone());
        let unreachable = lock(&self.unreachable).clone();
        self.runtime.spawn(async move {
            let wanted = Wanted::Some(MAX_PROXIES);
            let found = core.services(Service::Proxy, wanted, USUAL_AGE, LOOKUP_TIMEOUT).await;
            let own = core.network().peer();
            let mut hops: Vec<Hop> = Vec::new();
            for record in &found.outcome.records {
                if let Body::Service(offer) = record.body()
                    && offer.serving
                    && offer.peer != own
                {
                    hops.push(Hop::peer(offer.peer, offer.addresses.clone()));
                }
            }
            let failed = |hop: &Hop| {
                hop.remote.peer().and_then(|peer| unreachable.get(&peer)).is_some_and(|at| at.elapsed() < AVOIDED)
            };
            let distance = |hop: &Hop| hop.remote.peer().map(|peer| own.position().distance(&peer.position()));
            hops.sort_by_cached_key(|hop| (failed(hop), distance(hop)));
            hops.truncate(MAX_PROXIES);
            let located = match (hops.is_empty(), found.outcome.reply.verdict) {
                (false, _) => Located::Hops(hops),
                (true, Verdict::NobodyToAsk) => Located::Nowhere { status: 503, reason: "Overlay Unreachable" },
                (true, _) => Located::Nowhere { status: 480, reason: "No Proxy Peer" },
            };
            on_located(&hub, question, located);
        });
    }

    fn publish(self: &Arc<Self>, instance: InstanceId, present: bool) {
        let (hub, publisher) = (Arc::downgrade(self), self.surroundings.publisher.clone());
        self.runtime.spawn(async move {
            let done = match publisher {
                Some(publisher) => publisher.publish(instance, present).await,
                None => false,
            };
            let Some(hub) = hub.upgrade() else { return };
            hub.with(0, |engine, now| engine.published(instance, done, now));
        });
    }
}

/// Where a request goes; nowhere, if the proxy peer has ended meanwhile.
fn on_located(hub: &Weak<Hub>, question: Question, located: Located) {
    let Some(hub) = hub.upgrade() else { return };
    hub.locations.fetch_sub(1, Ordering::Relaxed);
    hub.with(question.shard(), |engine, now| engine.located(question, located, now));
}

/// What a lookup has found goes to all who wait for it; to nobody, if the proxy peer has ended meanwhile.
fn on_found(hub: &Weak<Hub>, aor: &Aor, found: &Found) {
    let Some(hub) = hub.upgrade() else { return };
    let replies = lock(&hub.directory).found(aor, found, Instant::now());
    for reply in replies {
        let (Reply::Located(question, _) | Reply::Identified(question, _)) = &reply;
        hub.with(question.shard(), |engine, now| tell(engine, reply, now));
    }
}

fn tell(engine: &mut Engine, reply: Reply, now: Instant) {
    match reply {
        Reply::Located(question, located) => engine.located(question, located, now),
        Reply::Identified(question, users) => engine.identified(question, &users, now),
    }
}

/// When the first timer of all engines is due.
struct Alarm {
    began: Instant,
    /// In microseconds since then; `u64::MAX` for never.
    at: AtomicU64,
    hurry: Notify,
}

impl Alarm {
    fn new(began: Instant) -> Self {
        Self { began, at: AtomicU64::new(u64::MAX), hurry: Notify::new() }
    }

    /// To be called before the engines are asked anew; what they say meanwhile is not lost.
    fn reset(&self) {
        self.at.store(u64::MAX, Ordering::SeqCst);
    }

    /// All engines have been asked: `first` is what they have said.
    fn settle(&self, first: Option<Instant>) -> Option<Instant> {
        if let Some(first) = first {
            self.at.fetch_min(self.micros(first), Ordering::SeqCst);
        }
        match self.at.load(Ordering::SeqCst) {
            u64::MAX => None,
            at => self.began.checked_add(Duration::from_micros(at)),
        }
    }

    /// An engine has something to do at that time.
    fn set(&self, due: Instant) {
        let due = self.micros(due);
        // Mostly there is something to do sooner, and nobody to be woken.
        if due < self.at.load(Ordering::SeqCst) && due < self.at.fetch_min(due, Ordering::SeqCst) {
            self.hurry.notify_one();
        }
    }

    fn micros(&self, due: Instant) -> u64 {
        u64::try_from(due.saturating_duration_since(self.began).as_micros()).unwrap_or(u64::MAX - 1)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn only_a_sooner_timer_wakes_the_keeper_of_time() {
        let began = Instant::now();
        let alarm = Alarm::new(began);
        let at = |seconds| began + Duration::from_secs(seconds);
        let woken = || alarm.hurry.notified().now_or_never().is_some();
        alarm.reset();
        assert_eq!((alarm.settle(Some(at(5))), woken()), (Some(at(5)), false), "what the keeper asks wakes nobody");
        alarm.set(at(6));
        assert!(!woken());
        alarm.set(at(2));
        assert!(woken() && !woken());
        // What is said while the keeper asks is not lost.
        alarm.reset();
        alarm.set(at(3));
        assert_eq!((alarm.settle(Some(at(4))), woken()), (Some(at(3)), true));
        alarm.reset();
        assert_eq!(alarm.settle(None), None);
    }
}
