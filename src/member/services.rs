//! What this member has found of services, and remembers for a while.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_bytes::ByteBuf;

use super::core::{Core, lock};
use crate::{
    client::{ServicesReply, Verdict},
    clock::UnixMs,
    name::{Position, Service, ServiceUri},
    overlay::redir::{self, Discovery, ServicesOutcome, Wanted},
    record::VerifiedRecord,
};

/// How old what a member remembers of services may be, for those who look for a provider in passing.
pub const USUAL_AGE: Duration = Duration::from_secs(30);
/// How much of what was known of a tree's depth outlasts one more discovery.
const INERTIA: f64 = 0.75;
/// How long it is remembered that a service has no provider: one may come at any time.
const ABSENCE_AGE: Duration = Duration::from_secs(5);

/// Providers of a service, as [`Member::services`](super::Member::services) has found or remembered them.
#[derive(Debug, Clone)]
pub struct Services {
    /// What was found; the records are in the order in which to try them ([`redir::rank`]).
    pub outcome: ServicesOutcome,
    /// How long ago.
    pub age: Duration,
}

/// What a member remembers of services.
#[derive(Debug, Default)]
pub(super) struct Catalogue(Mutex<BTreeMap<Service, Arc<Shelf>>>);

/// What it remembers of one service.
#[derive(Debug, Default)]
struct Shelf {
    last: Mutex<Option<(Instant, ServicesOutcome)>>,
    /// How far down the tree its providers were last listed.
    depth: Mutex<Option<f64>>,
    /// Held by whoever is looking; the others wait for what comes of it.
    looking: tokio::sync::Mutex<()>,
}

impl Catalogue {
    fn shelf(&self, service: Service) -> Arc<Shelf> {
        lock(&self.0).entry(service).or_default().clone()
    }
}

impl Shelf {
    /// What is remembered, if it is young enough and has enough providers that still count.
    fn recall(&self, wanted: Wanted, max_age: Duration, counts: impl Fn(&VerifiedRecord) -> bool) -> Option<Services> {
        let last = lock(&self.last);
        let (at, outcome) = last.as_ref()?;
        let (age, mut outcome) = (at.elapsed(), outcome.clone());
        outcome.records.retain(counts);
        let limit = if outcome.records.is_empty() { max_age.min(ABSENCE_AGE) } else { max_age };
        let enough = outcome.complete || outcome.records.len() >= wanted.count();
        (age < limit && enough).then_some(Services { outcome, age })
    }

    fn remember(&self, at: Instant, outcome: &ServicesOutcome) {
        // That nobody could be asked says nothing about the providers.
        if outcome.reply.verdict == Verdict::NobodyToAsk {
            return;
        }
        if let Some(depth) = outcome.depth() {
            // A few providers may be listed deeper or less deep than most.
            let mut known = lock(&self.depth);
            *known = Some(known.map_or(depth, |known| INERTIA.mul_add(known - depth, depth)));
        }
        let mut remembered = outcome.clone();
        // What it has cost is of interest once.
        (remembered.trace, remembered.reply.envelopes) = (Vec::new(), Vec::new());
        *lock(&self.last) = Some((at, remembered));
    }
}

impl Core {
    /// Finds providers of a service. What was found at most `max_age` ago will do; whoever accepts that waits for a
    /// search that is under way rather than to begin another.
    pub(super) async fn services(
        &self,
        service: Service,
        wanted: Wanted,
        max_age: Duration,
        timeout: Duration,
    ) -> Services {
        let began = Instant::now();
        let shelf = self.catalogue().shelf(service);
        let now = UnixMs::now();
        let counts = |record: &VerifiedRecord| {
            !record.is_expired(now) && !record.serial().is_some_and(|serial| self.trust().is_revoked(serial))
        };
        let recall = || shelf.recall(wanted, max_age, counts);
        let mut found = recall();
        let waits = found.is_none() && !max_age.is_zero();
        let _looking = if waits { tokio::time::timeout(timeout, shelf.looking.lock()).await.ok() } else { None };
        if waits {
            found = recall();
        }
        let mut found = match found {
            Some(found) => found,
            None => {
                let uri = ServiceUri::new(service, self.descriptor().overlay().clone());
                let depth = *lock(&shelf.depth);
                let discovery = Discovery::new(wanted, depth, self.start_level(), random());
                let left = timeout.saturating_sub(began.elapsed());
                let outcome = self.tree_reader(left).discover(&uri, discovery).await;
                shelf.remember(Instant::now(), &outcome);
                Services { outcome, age: Duration::ZERO }
            }
        };
        redir::rank(&mut found.outcome.records, || random() as f64 / u64::MAX as f64);
        found
    }

    /// Finds all providers of a service, now.
    pub(super) async fn discover_all(&self, service: &ServiceUri, timeout: Duration) -> ServicesOutcome {
        let discovery = Discovery::new(Wanted::All, None, 0, 0);
        let outcome = self.tree_reader(timeout).discover(service, discovery).await;
        if service.overlay() == self.descriptor().overlay() {
            self.catalogue().shelf(service.service()).remember(Instant::now(), &outcome);
        }
        outcome
    }

    /// The level of a service's tree to begin with, as long as nothing is known of its providers.
    pub(super) fn start_level(&self) -> u8 {
        let own = self.network().peer().position();
        let closest = self.network().table().closest_met(&own, redir::NEIGHBOURS);
        let closest: Vec<Position> = closest.iter().map(|info| info.peer.position()).collect();
        redir::start_level(&own, &closest)
    }
}

impl From<Services> for ServicesReply {
    fn from(services: Services) -> Self {
        let Services { outcome, age } = services;
        let mut found = outcome.reply;
        found.envelopes = outcome.records.iter().map(|record| ByteBuf::from(record.envelope())).collect();
        if found.envelopes.is_empty() && found.verdict == Verdict::Found {
            // All of what is remembered has expired meanwhile, and it was all there was.
            found.verdict = Verdict::NotFound;
        }
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        Self { found, complete: outcome.complete, nodes: outcome.nodes, age_ms }
    }
}

/// Any 64 bits. Without randomness everybody begins at the same place, which is a pity and no fault.
fn random() -> u64 {
    let mut octets = [0; 8];
    let _ = getrandom::fill(&mut octets);
    u64::from_be_bytes(octets)
}
