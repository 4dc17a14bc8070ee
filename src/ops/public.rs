//! Registering with a public SIP network: `p2p-register --public` (draft §4.2).

mod outcome;

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream::FuturesUnordered};

pub use self::outcome::{PublicOutcome, PublicStatus, Step, StepOutcome};
use super::{
    Access, OpsError, ViaChoice,
    finder::{Finder, Found, Inside},
    inside::overlay_port,
    invite::USER_AGENT,
    lookup::Lookups,
    outcome::{RegisterOutcome, RegisterStatus},
    phone::{CaptureRequest, Phone},
    presence::contacts_of,
    register::{Desk, RegisterRequest, Registrar},
};
use crate::{
    client::PeerInfo,
    dns::locate::{Locator, Options},
    identity::{Descriptor, SecretKey},
    kind::Kind,
    name::{Aor, PeerId, ResourceName},
    overlay::swarm::{AskError, Network},
    record::Contact,
    sip::{digest::User, tap::Tap, transport::Remote, uri::SipUri},
    ua::{AgentConfig, Binding, Failure, RegisterEvent, RegisterFault, RegisterPlan, registrar_of},
};

/// How long a public binding is to hold unless told otherwise: what RFC 3261 §10.2 suggests.
const EXPIRES: Duration = Duration::from_secs(3600);
/// After this time without a stream to one proxy peer the next one is tried as well.
const HEDGE: Duration = Duration::from_millis(500);
/// The pause before the overlay is asked again to take a record that it did not take.
const AGAIN: Duration = Duration::from_secs(30);
/// The preference of this process among the contacts of its user: it takes no calls, so it comes last.
const LAST: u16 = 0;

/// What is to be registered, and where.
#[derive(Debug, Clone)]
pub struct PublicRequest {
    /// The user of the overlay.
    pub aor: Aor,
    /// The public address of record, such as `sip:alice@example.org`.
    pub public: String,
    /// SIP URIs to bind the user to; none for what this device has registered, or else the member on this machine.
    pub contacts: Vec<String>,
    /// For how long both bindings are to hold; without it, the overlay's default, and an hour outside.
    pub expires: Option<Duration>,
    /// Who we are to those that challenge us.
    pub user: Option<User>,
    /// Take this device's binding out, and the public one if no other device needs it.
    pub remove: bool,
    /// Stay, and refresh both bindings.
    pub stay: bool,
    /// Who listens in, if anybody.
    pub tap: Option<Tap>,
}

impl PublicRequest {
    /// Checks what can be known to be wrong before anybody is asked.
    ///
    /// # Errors
    /// [`OpsError::PublicAor`]: no address of record, or one of the overlay itself.
    pub fn check(public: &str, aor: &Aor) -> Result<(), OpsError> {
        PublicAor::parse(public, aor).map(drop)
    }
}

/// What is told meanwhile.
#[derive(Debug, Clone)]
pub enum PublicReport {
    /// A step is done.
    Step(StepOutcome),
    /// The proxy peer is gone; another one is sought.
    Lost,
    /// What became of it; again after each refresh, if it stays.
    Outcome(Box<PublicOutcome>),
}

/// Registers in the overlay, and there in the public network; or removes both. With `stay` until `shutdown`.
///
/// # Errors
/// [`OpsError`]: no such address, nothing to bind to, no credentials, no way into the overlay. Being refused, and finding
/// nobody, are outcomes.
pub async fn register_public(
    access: &Access,
    request: &PublicRequest,
    report: &mut dyn FnMut(PublicReport),
    shutdown: impl Future<Output = ()>,
) -> Result<(), OpsError> {
    let began = Instant::now();
    let public = PublicAor::parse(&request.public, &request.aor)?;
    let inside = RegisterRequest {
        aor: request.aor.clone(),
        contacts: request.contacts.clone(),
        expires: request.expires,
        remove: request.remove,
        stay: request.stay,
    };
    tokio::pin!(shutdown);
    let mut session = tokio::select! {
        session = Session::open(access, request, &inside, public, began) => session?,
        () = &mut shutdown => return Ok(()),
    };
    // From here on the overlay knows of this process, and is told when it goes, whatever else happens.
    let result = session.run(report, shutdown).await;
    let left = session.close().await;
    result.and(left)
}

/// A public address of record.
struct PublicAor {
    /// Without parameters: for To and From.
    uri: String,
    registrar: String,
    secure: bool,
}

impl PublicAor {
    fn parse(text: &str, user: &Aor) -> Result<Self, OpsError> {
        let wrong = |why: String| OpsError::PublicAor { text: text.to_owned(), why };
        let uri = SipUri::parse(text).map_err(|error| wrong(error.to_string()))?;
        let Some(name) = uri.user else { return Err(wrong("it has no user part".to_owned())) };
        if uri.headers.is_some() || uri.password.is_some() {
            return Err(wrong("it has a password or headers".to_owned()));
        }
        if uri.host.is_name(user.host().as_str()) {
            let why = format!("{} is the overlay itself, where p2p-register without --public registers", uri.host);
            return Err(wrong(why));
        }
        let scheme = if uri.secure { "sips" } else { "sip" };
        let port = uri.port.map(|port| format!(":{port}")).unwrap_or_default();
        Ok(Self {
            uri: format!("{scheme}:{name}@{}{port}", uri.host),
            registrar: registrar_of(&uri),
            secure: uri.secure,
        })
    }
}

/// A registration under way.
struct Session<'a> {
    access: &'a Access,
    request: &'a PublicRequest,
    public: PublicAor,
    /// The overlay URL, as the registrar is to have it (no `gr`: it stands for every device of the user).
    contact: String,
    registrar: Registrar<'a>,
    descriptor: Arc<Descriptor>,
    /// This process's key in the overlay, unless it is a member already.
    key: SecretKey,
    finder: Arc<Finder>,
    other_devices: u32,
    /// Whether the overlay has a record that names this process.
    visiting: bool,
    /// Whether the record in the overlay is to go.
    removed: bool,
    began: Instant,
    steps: Vec<StepOutcome>,
}

impl<'a> Session<'a> {
    /// Enters the overlay. Nothing is written yet.
    async fn open(
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

    async fn run(
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

    fn asked(&self) -> Duration {
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
        match self.registrar.store(false, Instant::now()).await {
            Ok(stored) if stored.status == RegisterStatus::Registered => self.registrar.lifetime / 2,
            Ok(stored) => {
                tracing::warn!("the overlay did not take the record of {}: {}", stored.aor, storers(&stored));
                AGAIN.min(self.registrar.lifetime / 2)
            }
            Err(error) => {
                tracing::warn!("{error}; trying again");
                AGAIN.min(self.registrar.lifetime / 2)
            }
        }
    }

    /// Leaves the overlay: the record names this process no longer.
    async fn close(mut self) -> Result<(), OpsError> {
        let mut left = Ok(());
        if self.visiting {
            self.registrar.guest = None;
            let empty = self.registrar.contacts.is_empty();
            left = self.registrar.store(empty, Instant::now()).await.map(drop);
        }
        self.registrar.stop().await;
        left
    }

    fn done(&mut self, step: Step, result: String, began: Instant, report: &mut dyn FnMut(PublicReport)) {
        let step = StepOutcome { step, result, took_ms: milliseconds(began.elapsed()) };
        report(PublicReport::Step(step.clone()));
        self.steps.push(step);
    }

    /// An outcome of which nothing else is known.
    fn outcome(&self, status: PublicStatus) -> PublicOutcome {
        PublicOutcome {
            status,
            aor: self.public.uri.clone(),
            contact: self.contact.clone(),
            registrar: self.public.registrar.clone(),
            proxy: None,
            code: None,
            reason: None,
            realm: None,
            algorithm: None,
            challenges: 0,
            expires_in_ms: None,
            shortened: false,
            bindings: Vec::new(),
            redirected_to: None,
            other_devices: self.other_devices,
            again_in_ms: None,
            steps: Vec::new(),
            elapsed_ms: 0.0,
        }
    }

    fn finish(&mut self, outcome: PublicOutcome) -> PublicOutcome {
        let steps = std::mem::take(&mut self.steps);
        PublicOutcome { steps, elapsed_ms: milliseconds(self.began.elapsed()), ..outcome }
    }

    fn nobody(&mut self, status: PublicStatus, why: String) -> PublicOutcome {
        let outcome = PublicOutcome { reason: Some(why), ..self.outcome(status) };
        self.finish(outcome)
    }

    /// What it comes to that the overlay did not take a record; `None` if it did.
    fn not_stored(&self, stored: &RegisterOutcome) -> Option<PublicOutcome> {
        let (status, why) = match stored.status {
            RegisterStatus::Registered | RegisterStatus::Removed => return None,
            RegisterStatus::NobodyToAsk => (PublicStatus::Unreachable, "no storer of the overlay answered".to_owned()),
            RegisterStatus::Refused => {
                let untrusted = stored.refused.iter().any(|by| by.untrusted);
                let why = stored.refused.first().map(|by| by.reason.clone()).unwrap_or_default();
                let status = if untrusted { PublicStatus::Untrusted } else { PublicStatus::Refused };
                (status, format!("the overlay refuses the record of {}: {why}", stored.aor))
            }
        };
        Some(PublicOutcome { reason: Some(why), ..self.outcome(status) })
    }

    fn bound(&self, binding: Binding) -> PublicOutcome {
        PublicOutcome {
            proxy: binding.by.peer(),
            code: Some(200),
            expires_in_ms: Some(super::view::milliseconds(binding.granted)),
            shortened: binding.granted < Duration::from_secs(self.asked().as_secs()),
            bindings: binding.contacts,
            redirected_to: binding.redirected,
            ..self.outcome(PublicStatus::Registered)
        }
    }

    fn failed(&self, fault: &RegisterFault, again: Option<Duration>, failure: Option<Kind>) -> PublicOutcome {
        let status = match (fault, failure) {
            (RegisterFault::Failure(Failure::NotLocated(_) | Failure::Transport(_)), Some(kind)) => status_of(kind),
            (fault, _) if fault.is_temporary() => PublicStatus::Unreachable,
            _ => PublicStatus::Refused,
        };
        let code = match fault {
            RegisterFault::Refused { status, .. } => Some(*status),
            RegisterFault::NoPassword(_) | RegisterFault::Digest(_) | RegisterFault::Challenges(_) => Some(401),
            _ => None,
        };
        let reason = match fault {
            RegisterFault::Refused { reason, .. } => reason.clone(),
            RegisterFault::Failure(Failure::Timeout) => {
                format!("no answer from the registrar within {} s", self.access.timeout.as_secs_f64())
            }
            fault => fault.to_string(),
        };
        let again_in_ms = again.map(super::view::milliseconds);
        PublicOutcome { code, reason: Some(reason), again_in_ms, ..self.outcome(status) }
    }
}

/// Whether a contact is a process like this one, which was killed before it could take itself out.
fn is_guest(contact: &Contact) -> bool {
    matches!(contact, Contact::Overlay { addresses, q: LAST, .. } if addresses.is_empty())
}

/// The first proxy peer to which there is a stream. One that hangs does not hold up the others.
async fn reach(network: &Network, found: &[Found], timeout: Duration) -> Result<PeerId, Option<AskError>> {
    let infos = found.iter().filter_map(|found| {
        let addresses = found.hop.addresses.to_vec();
        found.hop.remote.peer().map(|peer| PeerInfo { peer, addresses })
    });
    let mut waiting = infos.collect::<Vec<_>>().into_iter();
    let open = |info: PeerInfo| async move { network.open_sip(&info, timeout).await.map(|_| info.peer) };
    let mut opening: FuturesUnordered<_> = waiting.next().into_iter().map(open).collect();
    let mut failure = None;
    loop {
        let opened = tokio::select! {
            opened = opening.next() => opened,
            () = tokio::time::sleep(HEDGE), if !waiting.as_slice().is_empty() => {
                opening.extend(waiting.next().map(open));
                continue;
            }
        };
        match opened {
            Some(Ok(peer)) => return Ok(peer),
            Some(Err(error)) => {
                failure = Some(error);
                opening.extend(waiting.next().map(open));
            }
            None => return Err(failure),
        }
    }
}

const fn status_of(kind: Kind) -> PublicStatus {
    match kind {
        // That nobody serves is no word of a registrar.
        Kind::Negative | Kind::Unreachable => PublicStatus::Unreachable,
        Kind::Untrusted => PublicStatus::Untrusted,
        Kind::Local | Kind::Usage => PublicStatus::LocalFailure,
    }
}

fn storers(outcome: &RegisterOutcome) -> String {
    format!("stored by {}, read back from {}", outcome.stored.len(), outcome.read_back)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
