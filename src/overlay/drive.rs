//! Runs the pure machines of [`lookup`](super::lookup), [`placement`] and [`redir`] over a [`Network`].

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use serde_bytes::ByteBuf;

use super::{
    lookup::{LookupConfig, LookupMachine, LookupOutcome},
    placement::{self, PlacementConfig, PlacementMachine},
    redir::{self, Discovery, Listing, Registration, ServicesOutcome},
    swarm::{AskError, Network},
    walk::{Failure, Outcome, Step},
};
use crate::{
    client::{Fetch, FetchReply, LookupReply, PeerInfo, PutReply, Store, StoreReply, Verdict},
    clock::UnixMs,
    name::{PeerId, Position, ResourceName, ServiceNode, ServiceUri, TreeNode},
    record::{Trust, VerifiedRecord},
};

/// How long to wait before each further walk into an overlay that has lost many peers at once, in milliseconds.
const PAUSES_MS: [u64; 4] = [50, 100, 200, 400];
/// Peers of the routing table that a further walk starts from.
const SEEDS: usize = 20;

/// Looks `name` up, beginning with `seeds`. `own` is what this process itself holds, if it is one of the storers.
///
/// Where many of those asked are gone, a walk may end before it has reached the storers that are left. The tables
/// mend within a second, so it is begun again then, as long as the time allows.
pub async fn lookup(
    network: &Network,
    name: ResourceName,
    mut seeds: Vec<PeerInfo>,
    own: Option<Vec<ByteBuf>>,
    mut config: LookupConfig,
    trust: Arc<Trust>,
) -> LookupOutcome {
    let deadline = Instant::now() + config.walk.timeout;
    let mut outcome =
        lookup_once(network, name.clone(), seeds.clone(), own.clone(), config.clone(), trust.clone()).await;
    // Who glances is going to look elsewhere.
    let mut again = !config.glance && is_doubtful(&outcome.reply);
    for pause in PAUSES_MS.map(Duration::from_millis) {
        if !again || deadline.saturating_duration_since(Instant::now()) <= pause {
            break;
        }
        let answered = |seed: &PeerInfo| {
            let visit = outcome.trace.iter().find(|line| line.visit.peer == seed.peer);
            visit.is_some_and(|line| matches!(line.visit.outcome, Outcome::Answered { .. }))
        };
        seeds.retain(answered);
        tokio::time::sleep(pause).await;
        for known in network.closest(&name.position(), SEEDS) {
            if seeds.iter().all(|seed| seed.peer != known.peer) {
                seeds.push(known);
            }
        }
        if seeds.is_empty() {
            break;
        }
        config.walk.timeout = deadline.saturating_duration_since(Instant::now());
        let (requests, silent, took) = (outcome.reply.requests, outcome.reply.silent, outcome.took);
        outcome = lookup_once(network, name.clone(), seeds.clone(), own.clone(), config.clone(), trust.clone()).await;
        again = is_doubtful(&outcome.reply);
        outcome.reply.requests += requests;
        outcome.reply.silent += silent;
        outcome.took += took + pause;
    }
    outcome
}

/// What a process knows by itself of the surroundings of a position.
pub trait Vicinity: Sync {
    /// The peers to begin a walk with.
    fn seeds(&self, position: &Position) -> Vec<PeerInfo>;
    /// What it holds there itself, if it is one of the storers.
    fn own(&self, position: &Position) -> Option<Vec<ByteBuf>>;
}

/// Who only asks knows the same few peers wherever it goes.
impl Vicinity for Vec<PeerInfo> {
    fn seeds(&self, _: &Position) -> Vec<PeerInfo> {
        self.clone()
    }

    fn own(&self, _: &Position) -> Option<Vec<ByteBuf>> {
        None
    }
}

/// How the nodes of services' trees are looked up.
pub struct TreeReader<'a> {
    /// Who asks.
    pub network: &'a Network,
    /// What it knows by itself.
    pub vicinity: &'a dyn Vicinity,
    /// The limits of each lookup; its timeout is that of all together.
    pub config: LookupConfig,
    /// What to believe.
    pub trust: Arc<Trust>,
}

impl TreeReader<'_> {
    /// Runs a discovery of providers of `service`.
    pub async fn discover(&self, service: &ServiceUri, mut discovery: Discovery) -> ServicesOutcome {
        let (began, mut asked) = (Instant::now(), FuturesUnordered::new());
        let deadline = began + self.config.walk.timeout;
        loop {
            match discovery.poll(UnixMs::now()) {
                redir::Step::Read(node) => {
                    asked.push(self.read(service, node, discovery.is_glance(node), deadline));
                }
                redir::Step::Wait => match next_before(&mut asked, deadline).await {
                    Some((node, outcome)) => discovery.on_read(node, outcome, UnixMs::now()),
                    None => break,
                },
                redir::Step::Done => break,
            }
        }
        discovery.outcome(began.elapsed(), UnixMs::now())
    }

    /// Runs the walk of a provider of `service` that registers.
    pub async fn list(&self, service: &ServiceUri, mut registration: Registration) -> Listing {
        let deadline = Instant::now() + self.config.walk.timeout;
        let mut asked = FuturesUnordered::new();
        loop {
            while let Some(node) = registration.poll() {
                asked.push(self.read(service, node, false, deadline));
            }
            if asked.is_empty() {
                return registration.listing();
            }
            match next_before(&mut asked, deadline).await {
                Some((node, outcome)) if outcome.reply.verdict == Verdict::NobodyToAsk => registration.on_failure(node),
                Some((node, outcome)) => registration.on_read(node, &outcome.records),
                None => return registration.listing(),
            }
        }
    }

    async fn read(
        &self,
        service: &ServiceUri,
        node: TreeNode,
        glance: bool,
        deadline: Instant,
    ) -> (TreeNode, LookupOutcome) {
        let name = ResourceName::from(ServiceNode::new(service.clone(), node));
        let position = name.position();
        let config = self.config.clone().within(deadline.saturating_duration_since(Instant::now()));
        let config = config.of_tree_node(glance, random());
        let (seeds, own) = (self.vicinity.seeds(&position), self.vicinity.own(&position));
        (node, lookup(self.network, name, seeds, own, config, self.trust.clone()).await)
    }
}

/// 64 bits; where the system has none to give, everybody begins with the same storers.
fn random() -> u64 {
    getrandom::u64().unwrap_or(0)
}

/// Whether nothing was found, and a good part of those asked did not answer.
const fn is_doubtful(reply: &LookupReply) -> bool {
    matches!(reply.verdict, Verdict::NotFound | Verdict::NobodyToAsk)
        && reply.silent > 0
        && 3 * reply.silent >= reply.requests
}

/// One walk to `name`.
async fn lookup_once(
    network: &Network,
    name: ResourceName,
    seeds: Vec<PeerInfo>,
    own: Option<Vec<ByteBuf>>,
    config: LookupConfig,
    trust: Arc<Trust>,
) -> LookupOutcome {
    let fetch = Fetch { target: name.position(), closer: count(config.walk.per_reply) };
    let timeout = config.walk.request_timeout;
    // Whether or not it holds anything: nobody asks himself over the network.
    let local = Some(network.peer());
    let mut machine = LookupMachine::new(name, seeds, local, config, trust, Instant::now());
    if let Some(envelopes) = own {
        let held = FetchReply { envelopes, closer: Vec::new() };
        machine.on_local(&held, Instant::now(), UnixMs::now());
    }
    let mut asked = FuturesUnordered::new();
    loop {
        match machine.poll(Instant::now(), UnixMs::now()) {
            Step::Ask(ask) => {
                let fetch = &fetch;
                asked.push(async move {
                    let reply = network.call(&ask.peer, fetch, timeout).await;
                    (ask.peer.peer, reply)
                });
            }
            Step::Wait(until) => {
                if let Some((peer, reply)) = next_before(&mut asked, until).await {
                    let now = Instant::now();
                    match reply {
                        Ok(reply) => machine.on_reply(&peer, reply, now, UnixMs::now()),
                        Err(error) => machine.on_failure(&peer, failure(&error), now),
                    }
                }
            }
            Step::Done(_) => return machine.outcome(Instant::now(), UnixMs::now()),
        }
    }
}

/// What a peer answered to one step of a placement.
enum Answer {
    Fetched(PeerId, Result<FetchReply, AskError>),
    Stored(PeerId, Result<StoreReply, AskError>),
    ReadBack(PeerId, Result<FetchReply, AskError>),
}

/// Stores `record` at the peers responsible for it, beginning with `seeds`. `store_here` keeps it at this process,
/// should it be one of them.
pub async fn place(
    network: &Network,
    record: VerifiedRecord,
    seeds: Vec<PeerInfo>,
    config: PlacementConfig,
    trust: Arc<Trust>,
    store_here: &(dyn Fn(&[u8]) -> StoreReply + Sync),
) -> PutReply {
    let fetch = Fetch { target: *record.position(), closer: count(config.walk.per_reply) };
    let read = Fetch { target: *record.position(), closer: 0 };
    let store = Store { envelope: record.envelope().to_vec().into() };
    let (walking, storing) = (config.walk.request_timeout, config.request_timeout);
    let local = config.local_stores.then(|| network.peer());
    let mut machine = PlacementMachine::new(record.clone(), seeds, local, config, trust, Instant::now());
    let mut asked: FuturesUnordered<BoxFuture<'_, Answer>> = FuturesUnordered::new();
    loop {
        match machine.poll(Instant::now()) {
            placement::Step::Fetch(ask) => {
                let fetch = &fetch;
                asked.push(Box::pin(async move {
                    Answer::Fetched(ask.peer.peer, network.call(&ask.peer, fetch, walking).await)
                }));
            }
            placement::Step::Store(to) => {
                let store = &store;
                asked.push(Box::pin(async move { Answer::Stored(to.peer, network.call(&to, store, storing).await) }));
            }
            placement::Step::StoreLocal(peer) => machine.on_stored(&peer, store_here(record.envelope())),
            placement::Step::ReadBack(from) => {
                let read = &read;
                asked.push(Box::pin(
                    async move { Answer::ReadBack(from.peer, network.call(&from, read, storing).await) },
                ));
            }
            placement::Step::Wait(until) => {
                if let Some(answer) = next_before(&mut asked, until).await {
                    on_answer(&mut machine, answer);
                }
            }
            placement::Step::Done => return machine.outcome(Instant::now()),
        }
    }
}

fn on_answer(machine: &mut PlacementMachine, answer: Answer) {
    let (now, wall) = (Instant::now(), UnixMs::now());
    match answer {
        Answer::Fetched(peer, Ok(reply)) => machine.on_fetched(&peer, reply, now, wall),
        Answer::Stored(peer, Ok(reply)) => machine.on_stored(&peer, reply),
        Answer::ReadBack(peer, Ok(reply)) => machine.on_read_back(&peer, &reply, wall),
        Answer::Fetched(peer, Err(error)) | Answer::Stored(peer, Err(error)) | Answer::ReadBack(peer, Err(error)) => {
            machine.on_failure(&peer, failure(&error), now);
        }
    }
}

/// The next answer, or `None` when `until` comes first.
async fn next_before<F: Future>(asked: &mut FuturesUnordered<F>, until: Instant) -> Option<F::Output> {
    tokio::select! {
        biased;
        Some(answer) = asked.next(), if !asked.is_empty() => Some(answer),
        () = tokio::time::sleep_until(until.into()) => None,
    }
}

const fn failure(error: &AskError) -> Failure {
    match error {
        AskError::Dial(_) | AskError::Closed => Failure::Unreachable,
        AskError::Timeout => Failure::Silent,
        AskError::Refused(_) | AskError::OtherOverlay | AskError::NoSip => Failure::Refused,
        AskError::Connection(_) | AskError::Codec(_) => Failure::Malformed,
    }
}

fn count(peers: usize) -> u8 {
    u8::try_from(peers).unwrap_or(u8::MAX)
}
