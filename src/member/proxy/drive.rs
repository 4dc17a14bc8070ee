//! The task that owns a proxy engine: hands it what comes, and does what it says.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    Command, Shared,
    directory::{Directory, Found, Next, Reply, Waiting},
    servers,
    way_back::{self, WayBack},
};
use crate::{
    client::{self, ProxyStatus},
    dns::locate::{Locator, Verdict},
    member::{OfferHandle, USUAL_AGE, adapter::Publisher, core::Core, gatekeeper::Inbox},
    name::{Aor, InstanceId, PeerId, ResourceName, Service},
    overlay::redir::Wanted,
    proxy::engine::{Engine, Located, Output, Question, What},
    record::{Body, Endpoint, MAX_LOAD},
    sip::{
        tap::Tap,
        transaction::{self, Token},
        transport::{Bound, Event, Hop, Remote, SendError, Transports},
    },
};

/// How long finding a user may take: less than the caller's patience for a first response.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);
/// Answers that wait for the engine.
const ANSWERS: usize = 1_024;
/// Questions to the DNS at a time; each is a task.
const MAX_LOCATIONS: usize = 4_096;
/// A change of load that is worth telling.
const LOAD_STEP: u16 = MAX_LOAD / 100;
/// Proxy peers that are tried for a request.
const MAX_PROXIES: usize = 4;
/// How long a proxy peer that could not be reached is tried last.
const AVOIDED: Duration = Duration::from_secs(60);
/// Events taken before outputs of others have their turn.
const TURN: usize = 64;

/// What a task of its own found out.
enum Answer {
    User(Aor, Found),
    Uri(Question, Located),
    Published(InstanceId, bool),
    Outside(Verdict),
}

/// The owner of an engine.
pub(super) struct Driver {
    engine: Engine,
    transports: Transports,
    events: mpsc::Receiver<Event>,
    core: Arc<Core>,
    locator: Locator,
    directory: Directory,
    way_back: WayBack,
    answers: (mpsc::Sender<Answer>, mpsc::Receiver<Answer>),
    locations: usize,
    lookups: u64,
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    /// What writes the routing records of an adapter's phones.
    publisher: Option<Arc<Publisher>>,
    /// When peers could not be reached.
    unreachable: HashMap<PeerId, Instant>,
    offer: Option<OfferHandle>,
    /// What the offer was told last.
    offered_load: u16,
    withdrawal: Option<BoxFuture<'static, ()>>,
    drained: Option<oneshot::Sender<()>>,
    draining: bool,
    tap: Option<Tap>,
}

impl Driver {
    pub(super) fn new(
        engine: Engine,
        bound: Bound,
        core: &Arc<Core>,
        locator: Locator,
        shared: Arc<Shared>,
        endpoints: &[Endpoint],
        tap: Option<Tap>,
    ) -> Self {
        let text = |endpoint: &Endpoint| {
            let host = &endpoint.host;
            let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            format!("{} {host}:{}", endpoint.transport, endpoint.port)
        };
        let driver = Self {
            engine,
            transports: bound.transports,
            events: bound.events,
            core: core.clone(),
            locator,
            directory: Directory::default(),
            way_back: WayBack::default(),
            answers: mpsc::channel(ANSWERS),
            locations: 0,
            lookups: 0,
            shared,
            inbox: Arc::default(),
            publisher: None,
            unreachable: HashMap::new(),
            offer: None,
            offered_load: 0,
            withdrawal: None,
            drained: None,
            draining: false,
            tap,
        };
        driver.shared.update(|status| status.endpoints = endpoints.iter().map(text).collect());
        driver
    }

    /// The same, keeping the nonces of gatekeepers there.
    pub(super) fn probed(self, inbox: Arc<Inbox>) -> Self {
        Self { inbox, ..self }
    }

    /// The driver of an engine with an adapter.
    pub(super) fn publishing(mut self, publisher: Option<Publisher>) -> Self {
        self.publisher = publisher.map(Arc::new);
        self
    }

    /// Runs until the transports end or the task is aborted. `offer` is what the driver tells its load, once it stands.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>, offer: oneshot::Receiver<OfferHandle>) {
        let mut offer = offer.fuse();
        loop {
            let due = self.engine.poll_timeout();
            tokio::select! {
                event = self.events.recv() => {
                    let Some(event) = event else { return };
                    self.on_event(event);
                    for _ in 1..TURN {
                        let Ok(event) = self.events.try_recv() else { break };
                        self.on_event(event);
                    }
                }
                Some(answer) = self.answers.1.recv() => self.on_answer(answer),
                Ok(offer) = &mut offer => self.offer = Some(offer),
                Some(Command::Drain(drained)) = commands.recv() => {
                    self.engine.drain(now());
                    (self.draining, self.drained) = (true, Some(drained));
                    self.withdrawal = self.offer.take().map(|offer| offer.withdraw().boxed());
                }
                () = done(&mut self.withdrawal) => self.withdrawal = None,
                () = sleep_until(due) => self.engine.handle_timeout(now()),
            }
            self.perform();
            if self.way_back.is_due(self.engine.counts().outgoing, now()) {
                self.look_outside();
            }
            let load = self.report();
            if load.abs_diff(self.offered_load) >= LOAD_STEP
                && let Some(offer) = &self.offer
            {
                self.offered_load = load;
                offer.update(true, load);
            }
            if self.draining
                && self.withdrawal.is_none()
                && self.engine.is_idle()
                && let Some(drained) = self.drained.take()
            {
                // Whoever waited may have lost patience.
                let _ = drained.send(());
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Message { message, source } => self.engine.receive(message, source, now()),
            Event::Failed { token, error } => self.on_failure(Token::of_number(token), &error),
            Event::Closed { .. } => {}
        }
        self.perform();
    }

    fn on_failure(&mut self, token: Token, error: &SendError) {
        tracing::debug!(%error, "a SIP message was not sent");
        if let Remote::Peer(peer) = error.hop().remote {
            self.directory.failed(&peer);
            self.unreachable.retain(|_, at| at.elapsed() < AVOIDED);
            self.unreachable.insert(peer, Instant::now());
        }
        self.engine.transport_failed(token, now());
    }

    fn on_answer(&mut self, answer: Answer) {
        match answer {
            Answer::User(aor, found) => {
                for reply in self.directory.found(&aor, &found, now()) {
                    self.tell(reply);
                }
            }
            Answer::Uri(question, located) => {
                self.locations = self.locations.saturating_sub(1);
                self.engine.located(question, located, now());
            }
            Answer::Published(instance, done) => self.engine.published(instance, done, now()),
            Answer::Outside(verdict) => self.way_back.found(self.core.descriptor().overlay(), verdict),
        }
    }

    fn tell(&mut self, reply: Reply) {
        match reply {
            Reply::Located(question, located) => self.engine.located(question, located, now()),
            Reply::Identified(question, users) => self.engine.identified(question, &users, now()),
        }
    }

    /// Does everything that the engine wants done.
    fn perform(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Send { to, bytes, token } => self.send(&to, bytes, token),
                Output::Locate { question, what: What::User { aor, instance } } => {
                    self.ask(&aor, Waiting::Contacts(question, instance));
                }
                Output::Locate { question, what: What::Uri { uri, secure } } => self.locate(question, &uri, secure),
                Output::Probed(probe) => self.inbox.deposit(&probe),
                Output::Locate { question, what: What::Proxy } => self.find_proxies(question),
                Output::Identify { question, peer, claimed } => self.identify(question, peer, claimed),
                Output::Publish { instance, present } => self.publish(instance, present),
                // Only the engine of a domain says so.
                Output::Register { .. } => {}
                Output::Learned { hop, health } => servers::learn(&self.locator, &hop, health),
            }
        }
    }

    fn send(&mut self, to: &Hop, bytes: bytes::Bytes, token: Token) {
        if let Err(error) = self.transports.send(to, bytes, token.number()) {
            self.on_failure(token, &error);
        }
    }

    fn identify(&mut self, question: Question, peer: PeerId, claimed: Option<Aor>) {
        // Who says no name is looked for under the one that the peer had last; whether it still has it, the records say.
        match claimed.or_else(|| self.directory.users_of(&peer).first().cloned()) {
            Some(aor) => self.ask(&aor, Waiting::Membership(question, peer)),
            None => self.engine.identified(question, &[], now()),
        }
    }

    fn ask(&mut self, aor: &Aor, who: Waiting) {
        match self.directory.ask(aor, who, now()) {
            Next::Answer(reply) => {
                if let Some(tap) = &self.tap {
                    tap.asked("overlay", aor.to_string(), "remembered", now());
                }
                self.tell(reply);
            }
            Next::Wait => {}
            Next::LookUp => {
                self.lookups += 1;
                let (core, aor, answers) = (self.core.clone(), aor.clone(), self.answers.0.clone());
                let tap = self.tap.clone();
                tokio::spawn(async move {
                    let began = std::time::Instant::now();
                    let found = Found::from(core.lookup(ResourceName::User(aor.clone()), LOOKUP_TIMEOUT).await);
                    if let Some(tap) = tap {
                        tap.asked("overlay", aor.to_string(), found.to_string(), began);
                    }
                    // The proxy peer has ended meanwhile, if nobody takes it.
                    let _ = answers.send(Answer::User(aor, found)).await;
                });
            }
        }
    }

    fn locate(&mut self, question: Question, uri: &Arc<str>, secure: bool) {
        if self.locations >= MAX_LOCATIONS {
            let full = Located::Nowhere { status: 503, reason: "Overloaded" };
            return self.engine.located(question, full, now());
        }
        self.locations += 1;
        let (locator, uri, answers) = (self.locator.clone(), uri.clone(), self.answers.0.clone());
        let tap = self.tap.clone();
        tokio::spawn(async move {
            let located = servers::locate(&locator, &uri, secure, tap.as_ref()).await;
            let _ = answers.send(Answer::Uri(question, located)).await;
        });
    }

    /// Finds proxy peers, those last that could not be reached a moment ago.
    fn find_proxies(&mut self, question: Question) {
        self.locations += 1;
        let (core, answers, unreachable) = (self.core.clone(), self.answers.0.clone(), self.unreachable.clone());
        tokio::spawn(async move {
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
            hops.sort_by_key(failed);
            hops.truncate(MAX_PROXIES);
            let located = match (hops.is_empty(), found.outcome.reply.verdict) {
                (false, _) => Located::Hops(hops),
                (true, client::Verdict::NobodyToAsk) => Located::Nowhere { status: 503, reason: "Overlay Unreachable" },
                (true, _) => Located::Nowhere { status: 480, reason: "No Proxy Peer" },
            };
            let _ = answers.send(Answer::Uri(question, located)).await;
        });
    }

    fn publish(&self, instance: InstanceId, present: bool) {
        let (publisher, answers) = (self.publisher.clone(), self.answers.0.clone());
        tokio::spawn(async move {
            let done = match publisher {
                Some(publisher) => publisher.publish(instance, present).await,
                None => false,
            };
            let _ = answers.send(Answer::Published(instance, done)).await;
        });
    }

    /// Finds out whether others find the overlay; that is their way back in a dialog.
    fn look_outside(&self) {
        let (locator, core, answers) = (self.locator.clone(), self.core.clone(), self.answers.0.clone());
        tokio::spawn(async move {
            let verdict = way_back::look(&locator, core.descriptor().overlay()).await;
            let _ = answers.send(Answer::Outside(verdict)).await;
        });
    }

    /// Tells the member's status how things are; returns the load.
    fn report(&self) -> u16 {
        let counts = self.engine.counts();
        let limit = transaction::Config::default().max_transactions.max(1);
        let load = self.engine.len().saturating_mul(usize::from(MAX_LOAD)) / limit;
        let load = u16::try_from(load).unwrap_or(MAX_LOAD).min(MAX_LOAD);
        self.shared.update(|status| {
            *status = ProxyStatus {
                endpoints: std::mem::take(&mut status.endpoints),
                publication: status.publication.take(),
                draining: self.draining,
                load,
                transactions: u32::try_from(self.engine.len()).unwrap_or(u32::MAX),
                forwarded: counts.forwarded,
                answered: counts.answered.iter().sum(),
                acks: counts.acks,
                throttled: counts.throttled,
                overloaded: counts.overloaded,
                loops: counts.loops,
                dropped: counts.dropped,
                lookups: self.lookups,
                spared: self.directory.spared,
                unlisted: self.way_back.is_missing,
            };
        });
        load
    }
}

fn now() -> std::time::Instant {
    std::time::Instant::now()
}

async fn done(work: &mut Option<BoxFuture<'static, ()>>) {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(due: Option<std::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(Instant::from_std(due)).await,
        None => std::future::pending().await,
    }
}
