//! Asks a resolver what a location wants to know.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::timeout_at;

use super::{
    Answer, BadTargets, Failure, Finding, Locate, Next, Options, Query, Question, Random, Step, Target, Transport,
    Verdict,
};
use crate::dns::{
    DnsError, Origin, Resolver, RrSet,
    resolver::{Additional, Fetched, Found},
};

/// Locates servers, and remembers which of them have failed. Clones share that memory.
#[derive(Debug, Clone)]
pub struct Locator(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    resolver: Resolver,
    options: Options,
    bad: Mutex<BadTargets>,
    random: Mutex<Random>,
}

/// All targets at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Where to try, in this order.
    pub targets: Vec<Target>,
    /// What led there.
    pub path: Vec<Step>,
    /// What it has come to.
    pub verdict: Verdict,
}

/// The first target, how many more there are, and what the DNS was asked for: `udp 192.0.2.1:5060 (+1) by NAPTR, SRV`.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kinds = Vec::new();
        for step in &self.path {
            if let Step::Asked { question, .. } = step
                && !kinds.contains(&question.kind)
            {
                kinds.push(question.kind);
            }
        }
        match self.targets.split_first() {
            None => f.write_str("nothing")?,
            Some((first, [])) => write!(f, "{} {}", first.transport, first.address)?,
            Some((first, rest)) => write!(f, "{} {} (+{})", first.transport, first.address, rest.len())?,
        }
        for (nth, kind) in kinds.iter().enumerate() {
            write!(f, "{}{kind}", if nth == 0 { " by " } else { ", " })?;
        }
        Ok(())
    }
}

/// A location whose targets are looked for one at a time.
pub struct Search {
    locator: Locator,
    machine: Locate,
    running: FuturesUnordered<BoxFuture<'static, (Question, Answer)>>,
}

impl Locator {
    /// Locates by asking this resolver.
    pub fn new(resolver: Resolver, options: Options) -> Self {
        let mut seed = [0; 8];
        // Without a seed, load is spread less well, and that is all.
        let _ = getrandom::fill(&mut seed);
        Self::seeded(resolver, options, u64::from_le_bytes(seed))
    }

    /// The same, with weights that fall as the seed says.
    pub fn seeded(resolver: Resolver, options: Options, seed: u64) -> Self {
        let (bad, random) = (Mutex::default(), Mutex::new(Random::seeded(seed)));
        Self(Arc::new(Shared { resolver, options, bad, random }))
    }

    /// Begins to look for targets. Nothing is asked before the first one is wanted.
    ///
    /// # Errors
    /// As [`Locate::new`].
    pub fn search(&self, query: &Query) -> Result<Search, DnsError> {
        let random = lock(&self.0.random).fork();
        let machine = Locate::new(query, self.0.options.clone(), random)?;
        Ok(Search { locator: self.clone(), machine, running: FuturesUnordered::new() })
    }

    /// The target of a query whose host is an address, at once. `None` of any other query, and of one without a target.
    pub fn of_address(&self, query: &Query) -> Option<Target> {
        Locate::of_address(query, &self.0.options)
    }

    /// Looks for all targets.
    ///
    /// # Errors
    /// As [`Locate::new`]. That there are none is a [`Verdict`].
    pub async fn locate(&self, query: &Query, deadline: Instant) -> Result<Location, DnsError> {
        let mut search = self.search(query)?;
        let mut targets = Vec::new();
        while let Some(target) = search.next(deadline).await {
            targets.push(target);
        }
        let verdict = search.verdict();
        Ok(Location { targets, path: search.machine.into_path(), verdict })
    }

    /// Remembers that a target has failed; it is tried last for a while.
    pub fn failed(&self, transport: Transport, address: SocketAddr, failure: Failure) {
        lock(&self.0.bad).failed((transport, address), failure, Instant::now());
    }

    /// Forgets that a target had failed: it has answered.
    pub fn worked(&self, transport: Transport, address: SocketAddr) {
        lock(&self.0.bad).worked((transport, address));
    }
}

impl Search {
    /// The next target to try. What the DNS has not answered by the deadline counts as unanswered for good. Safe to
    /// drop and call again.
    pub async fn next(&mut self, deadline: Instant) -> Option<Target> {
        loop {
            let next = self.machine.poll(&lock(&self.locator.0.bad), Instant::now());
            match next {
                Next::Target(target) => return Some(target),
                Next::Done(_) => return None,
                Next::Ask(question) if Instant::now() >= deadline => self.machine.answer(&question, no_time()),
                Next::Ask(question) => {
                    let resolver = self.locator.0.resolver.clone();
                    self.running.push(async move { ask(&resolver, question, deadline).await }.boxed());
                }
                Next::Wait => {
                    // The resolver keeps to the deadline by itself; the margin is for a question from before that had
                    // a later one.
                    let until = deadline + Duration::from_millis(50);
                    match timeout_at(until.into(), self.running.next()).await {
                        Ok(Some((question, answer))) => self.machine.answer(&question, answer),
                        Ok(None) | Err(_) => return None,
                    }
                }
            }
        }
    }

    /// The steps so far.
    pub fn path(&self) -> &[Step] {
        self.machine.path()
    }

    /// What it has come to so far.
    pub const fn verdict(&self) -> Verdict {
        self.machine.verdict()
    }
}

impl std::fmt::Debug for Search {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Search").field("machine", &self.machine).finish_non_exhaustive()
    }
}

async fn ask(resolver: &Resolver, question: Question, deadline: Instant) -> (Question, Answer) {
    let Fetched { result, origin, took } = resolver.fetch(&question.name, question.kind, deadline).await;
    let (finding, additional) = match result {
        Ok(found) => {
            let Found { data, additional } = &*found;
            // What came along may hold for less time than the answer that is cached.
            let now = Instant::now();
            let holds = |extra: &&Additional| origin != Origin::Cache || extra.until > now;
            let sets = additional
                .iter()
                .filter(holds)
                .map(|extra| (Question { name: extra.name.clone(), kind: extra.kind }, extra.set.clone()));
            (Finding::Records(RrSet::from_rdata(question.kind, data.iter())), sets.collect())
        }
        Err(error) => (unfound(&error), Vec::new()),
    };
    (question, Answer { finding, additional, origin, took })
}

fn unfound(error: &DnsError) -> Finding {
    match error {
        DnsError::NxDomain { .. } => Finding::NoName,
        // A name that cannot be written has no records either.
        DnsError::NoData { .. } | DnsError::Invalid { .. } => Finding::NoRecords,
        DnsError::NoServer { servers, .. } => {
            let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
            Finding::Unanswered(format!("no answer from {}", servers.join(", ")))
        }
        DnsError::ServerFailure { server, code, .. } => Finding::Unanswered(format!("{server} answered {code}")),
        DnsError::Malformed { server, why, .. } => Finding::Unanswered(format!("{server} answered nonsense: {why}")),
        other => Finding::Unanswered(other.to_string()),
    }
}

fn no_time() -> Answer {
    Answer {
        finding: Finding::Unanswered("no time left".to_owned()),
        additional: Vec::new(),
        origin: Origin::Nobody,
        took: Duration::ZERO,
    }
}

/// Whether the system has no route to an address (RFC 6724 §6, rule 1). Nothing is sent.
pub fn has_no_route(address: IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    // The port counts for nothing; 9 is that of the discard service.
    UdpSocket::bind((local, 0)).and_then(|socket| socket.connect(SocketAddr::new(address, 9))).is_err()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
