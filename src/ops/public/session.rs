//! A registration under way: first in the overlay, then through a proxy peer with the registrar.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    PublicOutcome, PublicReport, PublicRequest, PublicStatus, Step, StepOutcome, aor::PublicAor, reach::reach,
    verdict::status_of,
};
use crate::{
    clock::ms,
    dns::locate::{Locator, Options},
    identity::{Descriptor, SecretKey},
    name::ResourceName,
    ops::{
        Access, OpsError, ViaChoice,
        finder::{Finder, Found, Inside},
        inside::overlay_port,
        invite::USER_AGENT,
        lookup::Lookups,
        outcome::{RegisterOutcome, RegisterStatus},
        phone::{CaptureRequest, Phone},
        presence::contacts_of,
        register::{Desk, RegisterRequest, Registrar},
    },
    overlay::swarm::Network,
    record::Contact,
    sip::transport::Remote,
    ua::{AgentConfig, RegisterEvent, RegisterPlan},
};

/// How long a public binding is to hold unless told otherwise: what RFC 3261 §10.2 suggests.
const EXPIRES: Duration = Duration::from_secs(3600);
/// The pause before the overlay is asked again to take a record that it did not take.
const AGAIN: Duration = Duration::from_secs(30);
/// The preference of this process among the contacts of its user: it takes no calls, so it comes last.
const LAST: u16 = 0;

/// A registration under way.
pub(super) struct Session<'a> {
    pub(super) access: &'a Access,
    pub(super) request: &'a PublicRequest,
    pub(super) public: PublicAor,
    /// The overlay URL, as the registrar is to have it (no `gr`: it stands for every device of the user).
    pub(super) contact: String,
    registrar: Registrar<'a>,
    descriptor: Arc<Descriptor>,
    /// This process's key in the overlay, unless it is a member already.
    key: SecretKey,
    finder: Arc<Finder>,
    pub(super) other_devices: u32,
    /// Whether the overlay has a record that names this process.
    visiting: bool,
    /// Whether the record in the overlay is to go.
    removed: bool,
    pub(super) began: Instant,
    pub(super) steps: Vec<StepOutcome>,
}

impl<'a> Session<'a> {
    /// Enters the overlay. Nothing is written yet.
    pub(super) async fn open(
        access: &'a Access,
        request: &'a PublicRequest,
        inside: &'a RegisterRequest,
        public: PublicAor,
        began: Instant,
    ) -> Result<Self, OpsError> {
        let mut named = access.clone();
        named.overlay.get_or_insert_with(|| request.aor.host().clone());
        let name = ResourceName::User(request.aor.clone());
        let mut lookups = Lookups::attach(&named, ViaChoice::Auto, &name).await?;
        let descriptor = lookups.descriptor().clone();
        request.aor.check_overlay(descriptor.overlay())?;
        let known = lookups.lookup(&name).await?;
        let device = access.own_home()?.instance_key()?.instance();
        let (own, others): (Vec<_>, Vec<_>) = known.records.iter().partition(|record| record.instance == device);
        let mut kept = own.first().map(|record| contacts_of(record)).unwrap_or_default();
        kept.retain(|contact| !is_guest(contact));
        let mut registrar = Registrar::new(access, inside, kept).await?;
        let key = SecretKey::generate()?;
        let peer = match &registrar.desk {
            Desk::Member(running) => running.member.peer(),
            Desk::Socket(_) | Desk::Peers { .. } => {
                // Nobody dials it: what it asks is answered on the streams that it opens.
                registrar.guest = Some(Contact::Overlay { peer: key.peer_id(), addresses: Vec::new(), q: LAST });
                key.peer_id()
            }
        };
        let inside = Inside::new(descriptor.overlay().clone(), lookups, peer);
        let locator = Locator::new(access.resolver()?, Options::default());
        let scheme = if public.secure { "sips" } else { "sip" };
        Ok(Self {
            access,
            request,
            contact: format!("{scheme}:{}@{}", request.aor.user(), request.aor.host()),
            public,
            registrar,
            descriptor,
            key,
            finder: Arc::new(Finder::new(Some(inside), locator, None, access.timeout).watched(request.tap.clone())),
            other_devices: u32::try_from(others.len()).unwrap_or(u32::MAX),
            visiting: false,
            removed: false,
            began,
            steps: Vec::new(),
        })
    }

    /// Registers, and stays if that is wanted.
    pub(super) async fn run(
        &mut self,
        report: &mut dyn FnMut(PublicReport),
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), OpsError> {
        tokio::pin!(shutdown);
        if self.request.remove && self.other_devices > 0 {
            return self.remove_inside(PublicStatus::Kept, None, report).await;
        }
        let mut phone = tokio::select! {
            prepared = self.prepare(report) => match prepared? {
                Ok(phone) => phone,
                Err(outcome) => {
                    report(PublicReport::Outcome(outcome));
                    return Ok(());
                }
            },
            () = &mut shutdown => return Ok(()),
        };
        let stays = self.request.stay && !self.request.remove;
        let mut asked = Instant::now();
        phone.agent().register(self.plan(stays), asked);
        let mut answered: Option<(String, &'static str)> = None;
        let mut challenges = 0;
        let mut refresh = Instant::now() + self.registrar.lifetime / 2;
        loop {
            let event = tokio::select! {
                event = phone.next_registration() => event,
                () = tokio::time::sleep_until(refresh.into()), if stays => {
                    refresh = Instant::now() + self.refresh_inside().await;
                    continue;
                }
                () = &mut shutdown => return Ok(()),
            };
            let mut outcome = match event {
                RegisterEvent::Challenged { realm, algorithm } => {
                    answered = Some((realm, algorithm.as_str()));
                    challenges += 1;
                    continue;
                }
                RegisterEvent::Lost => {
                    asked = Instant::now();
                    report(PublicReport::Lost);
                    continue;
                }
                RegisterEvent::Bound(binding) => {
                    self.done(Step::Register, format!("bound to {}", self.contact), asked, report);
                    self.bound(binding)
                }
                RegisterEvent::Removed { contacts } => {
                    self.done(Step::Register, format!("{} is bound no longer", self.contact), asked, report);
                    return self.remove_inside(PublicStatus::Removed, Some(contacts), report).await;
                }
                RegisterEvent::Failed { fault, again } => {
                    self.done(Step::Register, fault.to_string(), asked, report);
                    self.failed(&fault, again, phone.take_failure())
                }
            };
            (outcome.realm, outcome.algorithm) = answered.clone().unzip();
            outcome.challenges = challenges;
            let goes_on = stays && (outcome.kind().is_none() || outcome.again_in_ms.is_some());
            let outcome = self.finish(outcome);
            report(PublicReport::Outcome(Box::new(outcome)));
            if !goes_on {
                return Ok(());
            }
            // What follows is told of by itself.
            (self.began, asked, challenges) = (Instant::now(), Instant::now(), 0);
        }
    }

    /// The first three steps. `Err`: it ends there, and how.
    async fn prepare(
        &mut self,
        report: &mut dyn FnMut(PublicReport),
    ) -> Result<Result<Phone, Box<PublicOutcome>>, OpsError> {
        let stored = self.registrar.store(false, self.began).await?;
        self.visiting = self.registrar.guest.is_some();
        self.done(Step::OverlayRegistration, storers(&stored), self.began, report);
        if let Some(outcome) = self.not_stored(&stored) {
            return Ok(Err(Box::new(self.finish(outcome))));
        }

        let (began, uri) = (Instant::now(), format!("sip:{}", self.request.aor.host()));
        let found = match self.finder.find(&uri, false).await {
            Ok(found) => found,
            Err(not_found) => {
                self.done(Step::ProxyLookup, not_found.why.clone(), began, report);
                return Ok(Err(Box::new(self.nobody(status_of(not_found.kind), not_found.why))));
            }
        };
        self.done(Step::ProxyLookup, format!("{} found", found.len()), began, report);

        let began = Instant::now();
        let network = self.network(&found).await?;
        match reach(&network, &found, self.access.timeout).await {
            Ok(peer) => {
                self.finder.prefer(&uri, Remote::Peer(peer)).await;
                self.done(Step::OutboundProxy, peer.to_string(), began, report);
            }
            Err(error) => {
                let why = match error {
                    Some(error) => format!("no proxy peer can be reached: the last one {error}"),
                    None => "no proxy peer has a peer id".to_owned(),
                };
                self.done(Step::OutboundProxy, why.clone(), began, report);
                return Ok(Err(Box::new(self.nobody(PublicStatus::Unreachable, why))));
            }
        }
        let port = Some((network.peer(), overlay_port(&network).await?));
        let capture = CaptureRequest { tap: self.request.tap.clone(), ..CaptureRequest::default() };
        Phone::start(AgentConfig::default(), Vec::new(), port, self.finder.clone(), &capture).map(Ok)
    }

    /// What opens streams to proxy peers. QUIC is set up only if one of them has nothing else, or others may have.
    async fn network(&self, proxies: &[Found]) -> Result<Network, OpsError> {
        if let Desk::Member(running) = &self.registrar.desk {
            return Ok(running.member.network().clone());
        }
        let only_quic = |found: &Found| found.hop.addresses.iter().all(|address| address.contains("/quic-v1"));
        let quic = self.request.stay || proxies.iter().any(only_quic);
        self.access.visitor(&self.descriptor, &self.key, quic).await
    }

    fn plan(&self, keep: bool) -> RegisterPlan {
        RegisterPlan {
            aor: self.public.uri.clone(),
            registrar: self.public.registrar.clone(),
            contact: self.contact.clone(),
            routes: vec![format!("<sip:{};lr>", self.request.aor.host())],
            user: self.request.user.clone(),
            expires: if self.request.remove { Duration::ZERO } else { self.asked() },
            keep,
            patience: self.access.timeout,
            user_agent: USER_AGENT.to_owned(),
        }
    }

    /// For how long the public binding is asked to hold.
    pub(super) fn asked(&self) -> Duration {
        self.request.expires.unwrap_or(EXPIRES)
    }

    /// Takes the record of this device out of the overlay, and says so.
    async fn remove_inside(
        &mut self,
        status: PublicStatus,
        bindings: Option<Vec<String>>,
        report: &mut dyn FnMut(PublicReport),
    ) -> Result<(), OpsError> {
        let began = Instant::now();
        let stored = self.registrar.store(true, began).await?;
        self.removed = stored.status == RegisterStatus::Removed;
        self.visiting &= !self.removed;
        self.done(Step::OverlayRemoval, storers(&stored), began, report);
        let outcome = self.not_stored(&stored).unwrap_or_else(|| self.outcome(status));
        let outcome = PublicOutcome { bindings: bindings.unwrap_or_default(), ..outcome };
        report(PublicReport::Outcome(Box::new(self.finish(outcome))));
        Ok(())
    }

    /// Stores the record once more; says when to do so again.
    async fn refresh_inside(&mut self) -> Duration {
        let half = self.registrar.lifetime / 2;
        match self.registrar.store(false, Instant::now()).await {
            Ok(stored) if stored.status == RegisterStatus::Registered => return half,
            Ok(stored) => tracing::warn!("the overlay did not take the record of {}: {}", stored.aor, storers(&stored)),
            Err(error) => tracing::warn!("{error}; trying again"),
        }
        AGAIN.min(half)
    }

    /// Leaves the overlay: the record names this process no longer.
    pub(super) async fn close(mut self) -> Result<(), OpsError> {
        let mut left = Ok(());
        if self.visiting {
            self.registrar.guest = None;
            let empty = self.registrar.contacts.is_empty();
            left = self.registrar.store(empty, Instant::now()).await.map(drop);
        }
        self.registrar.stop().await;
        left
    }

    /// A step is done.
    fn done(&mut self, step: Step, result: String, began: Instant, report: &mut dyn FnMut(PublicReport)) {
        let step = StepOutcome { step, result, took_ms: ms(began.elapsed()) };
        report(PublicReport::Step(step.clone()));
        self.steps.push(step);
    }
}

/// Whether a contact is a process like this one, which was killed before it could take itself out.
fn is_guest(contact: &Contact) -> bool {
    matches!(contact, Contact::Overlay { addresses, q: LAST, .. } if addresses.is_empty())
}

fn storers(outcome: &RegisterOutcome) -> String {
    format!("stored by {}, read back from {}", outcome.stored.len(), outcome.read_back)
}
