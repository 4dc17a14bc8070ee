//! What this member offers to the overlay: registered in the service's tree, again and again, until it is withdrawn.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use tokio::sync::watch;

use super::{core::Core, sync::spread};
use crate::{
    client::{PutReply, Rejected},
    clock::UnixMs,
    identity::{Certificate, IdentityError, Policy, SecretKey},
    kind::Kind,
    name::{ResourceName, Service, ServiceNode, ServiceUri, TreeNode},
    overlay::redir::{Listing, Registration},
    record::{
        Body, Endpoint, MAX_LOAD, MAX_SERVICE_LIFETIME, Payload, RecordError, Refusal, ServiceOffer, TOMBSTONE_GRACE,
        seal,
    },
};

/// How many registrations apart a record expires: two of them may fail.
const LIFETIMES: u32 = 3;
/// A change of load that is worth a registration of its own.
const LOAD_STEP: u16 = MAX_LOAD / 10;
/// The least time between two registrations.
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// Pauses before the first registration is tried again: a newcomer, and those whom it asks, may not know each other's
/// neighbourhood yet.
const SETTLING: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];
/// How long storing the records of a withdrawal may take: a member that stops has not much more.
const WITHDRAWAL: Duration = Duration::from_millis(1500);

/// A service that a member offers: see [`Member::offer`](super::Member::offer).
#[derive(Debug, Clone)]
pub struct Offer {
    /// The service.
    pub service: Service,
    /// Where it is, for those that do not come over an overlay stream.
    pub endpoints: Vec<Endpoint>,
    /// What permits the member's key to offer it. `None`: the one in the member's home; an open overlay needs none.
    pub certificate: Option<Certificate>,
    /// Whether new users are taken.
    pub serving: bool,
    /// How busy it is, 0 to [`MAX_LOAD`].
    pub load: u16,
}

/// An offer that stands. It is renewed until it is withdrawn or the member stops; if the handle is dropped, it is left to
/// expire.
#[derive(Debug)]
pub struct OfferHandle {
    terms: watch::Sender<Terms>,
    status: watch::Receiver<OfferStatus>,
}

/// How an offer stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OfferStatus {
    /// The nodes of the service's tree on which the member is listed.
    pub nodes: Vec<TreeNode>,
    /// How many storers the node has that has fewest.
    pub storers: usize,
    /// The sequence of the records.
    pub sequence: u64,
    /// What the last registration came to if it failed; it is tried again.
    pub failure: Option<OfferError>,
}

/// Why a service is not offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// No certificate permits it.
    #[error("this member's key has no certificate for {service}; enrol it with p2p-enroll, naming {service}")]
    NotEnrolled {
        /// The service.
        service: ServiceUri,
    },
    /// The certificate in the home cannot be used.
    #[error("the certificate for {service} cannot be used: {why}")]
    Certificate {
        /// The service.
        service: ServiceUri,
        /// What is wrong with it.
        why: String,
        /// What sort of failure that is.
        kind: Kind,
    },
    /// The offer cannot be made into a record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The storers refuse it.
    #[error("the storers refuse the offer of {service}: {reason}")]
    Refused {
        /// The service.
        service: ServiceUri,
        /// The reason of one of them.
        reason: Box<Refusal>,
    },
    /// No storer answered.
    #[error("no storer could be reached to list the offer of {service}; it is tried again")]
    NobodyToAsk {
        /// The service.
        service: ServiceUri,
    },
}

impl OfferError {
    /// Whether it is likely to be over soon: everybody asked took others to be responsible.
    fn is_passing(&self) -> bool {
        matches!(self, Self::Refused { reason, .. } if **reason == Refusal::NotResponsible)
    }

    /// What sort of failure this is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::NotEnrolled { .. } => Kind::Usage,
            Self::Certificate { kind, .. } => *kind,
            Self::Record(error) => error.kind(),
            Self::Refused { reason, .. } => reason.kind(),
            Self::NobodyToAsk { .. } => Kind::Unreachable,
        }
    }
}

/// What may change of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Terms {
    serving: bool,
    load: u16,
    withdrawn: bool,
}

impl Terms {
    /// Whether users should hear of the change soon.
    const fn differs(self, published: Self) -> bool {
        self.serving != published.serving || self.load.abs_diff(published.load) >= LOAD_STEP
    }
}

impl OfferHandle {
    /// Tells how the service is. A change that matters is published within a second or two, others when the offer is
    /// renewed anyway.
    pub fn update(&self, serving: bool, load: u16) {
        self.terms.send_if_modified(|terms| {
            let new = Terms { serving, load: load.min(MAX_LOAD), withdrawn: terms.withdrawn };
            std::mem::replace(terms, new) != new
        });
    }

    /// How the offer stands.
    pub fn status(&self) -> OfferStatus {
        self.status.borrow().clone()
    }

    /// Takes the offer back: tombstones are stored in its place. Returns when that is done, or was tried.
    pub async fn withdraw(mut self) {
        self.terms.send_modify(|terms| terms.withdrawn = true);
        // The task's end closes the channel.
        while self.status.changed().await.is_ok() {}
    }
}

/// One offer, and where it has left records.
pub(super) struct Publisher {
    core: Arc<Core>,
    key: Arc<SecretKey>,
    service: ServiceUri,
    endpoints: Vec<Endpoint>,
    certificate: Option<Certificate>,
    lifetime: Duration,
    timeout: Duration,
    published: Terms,
    sequence: u64,
    listing: Option<Listing>,
    /// Where in the tree it was alone the last time.
    depth: Option<u8>,
    /// The tree nodes that have a record of it, and until when.
    listed: BTreeMap<TreeNode, UnixMs>,
}

impl Publisher {
    /// Prepares an offer; nothing is sent yet.
    pub(super) fn new(
        core: Arc<Core>,
        key: Arc<SecretKey>,
        offer: Offer,
        every: Duration,
        timeout: Duration,
    ) -> Result<Self, OfferError> {
        let service = ServiceUri::new(offer.service, core.descriptor().overlay().clone());
        let certificate = match offer.certificate {
            Some(certificate) => Some(certificate),
            None => certificate_at_home(&core, &key, &service)?,
        };
        let longest = Duration::from_secs(core.descriptor().limits().max_lifetime_s.into());
        let published = Terms { serving: offer.serving, load: offer.load.min(MAX_LOAD), withdrawn: false };
        Ok(Self {
            core,
            key,
            service,
            endpoints: offer.endpoints,
            certificate,
            lifetime: (every * LIFETIMES).min(longest).min(MAX_SERVICE_LIFETIME),
            timeout,
            published,
            sequence: 0,
            listing: None,
            depth: None,
            listed: BTreeMap::new(),
        })
    }

    /// Registers for the first time, and returns what keeps the offer up and how to speak to it.
    pub(super) async fn begin(
        mut self,
        every: Duration,
        stopping: watch::Receiver<bool>,
    ) -> Result<(OfferHandle, impl Future<Output = ()> + Send), OfferError> {
        let mut status = self.publish(self.published, true).await;
        for pause in SETTLING {
            if !status.failure.as_ref().is_some_and(OfferError::is_passing) {
                break;
            }
            tokio::time::sleep(pause).await;
            status = self.publish(self.published, true).await;
        }
        if let Some(failure) = status.failure {
            return Err(failure);
        }
        let (terms, told) = watch::channel(self.published);
        let (reports, status) = watch::channel(status);
        Ok((OfferHandle { terms, status }, self.run(every, told, reports, stopping)))
    }

    async fn run(
        mut self,
        every: Duration,
        mut terms: watch::Receiver<Terms>,
        status: watch::Sender<OfferStatus>,
        mut stopping: watch::Receiver<bool>,
    ) {
        let mut last = Instant::now();
        let mut due = last + spread(every);
        loop {
            let waited = tokio::select! {
                () = tokio::time::sleep_until(due.into()) => true,
                told = terms.changed() => {
                    if told.is_err() {
                        return;
                    }
                    false
                }
                _ = stopping.changed() => {
                    self.withdraw().await;
                    return;
                }
            };
            let told = *terms.borrow_and_update();
            if told.withdrawn {
                self.withdraw().await;
                return;
            }
            if !waited {
                if told.differs(self.published) {
                    due = due.min(last + MIN_PAUSE);
                }
                continue;
            }
            // Where nothing but the terms has changed, the tree need not be looked at again.
            let renewed = last.elapsed() >= every / 2;
            let outcome = self.publish(told, renewed).await;
            if let Some(failure) = &outcome.failure {
                tracing::warn!("the offer of {} could not be renewed: {failure}", self.service);
            }
            last = Instant::now();
            due = last + spread(if outcome.failure.is_some() { every / 4 } else { every }).max(MIN_PAUSE.min(every));
            status.send_replace(outcome);
        }
    }

    /// Stores the records of the offer; with `walk`, where the tree wants them now.
    async fn publish(&mut self, terms: Terms, walk: bool) -> OfferStatus {
        let listing = match self.listing.take().filter(|_| !walk) {
            Some(listing) => listing,
            None => {
                let start = self.depth.unwrap_or_else(|| self.core.start_level());
                let registration = Registration::new(self.key.peer_id(), start);
                self.core.tree_reader(self.timeout).list(&self.service, registration).await
            }
        };
        let now = UnixMs::now();
        self.sequence = now.0.max(self.sequence + 1);
        let expires = UnixMs(self.sequence).after(self.lifetime);
        let body = Body::Service(ServiceOffer {
            peer: self.key.peer_id(),
            addresses: self.core.network().addresses(),
            endpoints: self.endpoints.clone(),
            serving: terms.serving,
            load: terms.load,
            depth: listing.depth,
        });
        let stored = self.store(&listing.nodes, &body, expires, self.timeout).await;
        self.listed.retain(|_, until| *until > now);
        let storers = |reply: &PutReply| reply.stored.len();
        let mut status = OfferStatus {
            nodes: Vec::new(),
            storers: 0,
            sequence: self.sequence,
            failure: match &stored {
                Err(error) => Some(error.clone()),
                Ok(replies) => self.failure(replies),
            },
        };
        if let Ok(replies) = stored {
            for (node, reply) in listing.nodes.iter().zip(&replies) {
                if !reply.stored.is_empty() {
                    self.listed.insert(*node, expires);
                    status.nodes.push(*node);
                }
            }
            status.storers = replies.iter().map(storers).filter(|storers| *storers > 0).min().unwrap_or(0);
        }
        self.published = terms;
        self.depth = Some(listing.depth);
        self.listing = Some(listing);
        status
    }

    /// Stores a tombstone wherever there is a record.
    async fn withdraw(&mut self) {
        let now = UnixMs::now();
        self.sequence = now.0.max(self.sequence + 1);
        let nodes: Vec<_> = self.listed.iter().filter(|(_, until)| **until > now).map(|(node, _)| *node).collect();
        let last = self.listed.values().max().copied().unwrap_or(now);
        // It has to outlive what it removes.
        let expires = last.after(Duration::from_secs(1)).max(UnixMs(self.sequence).after(TOMBSTONE_GRACE));
        let stored = self.store(&nodes, &Body::Removed, expires, WITHDRAWAL).await;
        match stored.map(|replies| self.failure(&replies)) {
            Ok(None) => tracing::info!("withdrew the offer of {}", self.service),
            Ok(Some(failure)) | Err(failure) => {
                tracing::warn!("the offer of {} is left to expire: {failure}", self.service);
            }
        }
        self.listed.clear();
    }

    async fn store(
        &self,
        nodes: &[TreeNode],
        body: &Body,
        expires: UnixMs,
        timeout: Duration,
    ) -> Result<Vec<PutReply>, OfferError> {
        let mut records = Vec::new();
        for node in nodes {
            let name = ResourceName::from(ServiceNode::new(self.service.clone(), *node));
            let payload = Payload { name, sequence: self.sequence, expires, body: body.clone() };
            let envelope = seal(&payload, &self.key, self.certificate.as_ref())?;
            let refused = |reason| OfferError::Refused { service: self.service.clone(), reason: Box::new(reason) };
            records.push(self.core.verify(&envelope).map_err(refused)?);
        }
        Ok(join_all(records.into_iter().map(|record| self.core.place(record, timeout))).await)
    }

    /// Why nobody has stored anything, if so.
    fn failure(&self, replies: &[PutReply]) -> Option<OfferError> {
        if replies.is_empty() || replies.iter().any(|reply| !reply.stored.is_empty()) {
            return None;
        }
        let service = self.service.clone();
        let refused = replies.iter().flat_map(|reply| &reply.refused).next();
        Some(match refused {
            Some(Rejected { reason, .. }) => OfferError::Refused { service, reason: Box::new(reason.clone()) },
            None => OfferError::NobodyToAsk { service },
        })
    }
}

/// The certificate that permits this member's key to offer the service; an open overlay asks for none.
fn certificate_at_home(core: &Core, key: &SecretKey, service: &ServiceUri) -> Result<Option<Certificate>, OfferError> {
    if core.descriptor().policy() == Policy::Open {
        return Ok(None);
    }
    let unusable = |error: IdentityError| {
        let kind = error.kind();
        OfferError::Certificate { service: service.clone(), why: error.to_string(), kind }
    };
    let name = ResourceName::from(service.clone());
    let home = core.home().map(|home| home.certificate_for(&key.public(), &name, UnixMs::now()));
    match home.transpose().map_err(unusable)?.flatten() {
        Some(certificate) => Ok(Some(certificate)),
        None => Err(OfferError::NotEnrolled { service: service.clone() }),
    }
}
