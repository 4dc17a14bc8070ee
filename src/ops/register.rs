//! Registering in the overlay: `p2p-register` (draft §4.1).

use std::{
    future::Future,
    time::{Duration, Instant},
};

use super::{
    Access, OpsError, ViaChoice,
    access::{Route, describe},
    join::{self, JoinRequest, Running},
    outcome::{RegisterOutcome, RegisterStatus, Via},
    race::{Worth, race},
    view,
};
use crate::{
    client::{PeerInfo, Put, PutReply, Status},
    clock::{UnixMs, ms},
    identity::{Certificate, Descriptor, Home, Policy, SecretKey},
    name::{Aor, ResourceName},
    overlay::{socket::SocketClient, swarm::Network},
    record::{Body, Contact, MAX_CONTACTS, MAX_Q, Payload, TOMBSTONE_GRACE, seal},
};

/// What is to be registered.
#[derive(Debug, Clone)]
pub struct RegisterRequest {
    /// The user.
    pub aor: Aor,
    /// SIP URIs to bind to; none for the member that runs on this machine.
    pub contacts: Vec<String>,
    /// For how long; the descriptor's default if not given.
    pub expires: Option<Duration>,
    /// Take this device's binding out instead.
    pub remove: bool,
    /// Stay and refresh the registration before it expires.
    pub stay: bool,
}

/// Registers or removes a binding; `report` is called once, and again after each refresh with `stay`.
///
/// # Errors
/// [`OpsError`]: nothing to bind to, no credentials, no way into the overlay. Being refused is an outcome.
pub async fn register(
    access: &Access,
    request: &RegisterRequest,
    report: &mut dyn FnMut(RegisterOutcome),
    shutdown: impl Future<Output = ()>,
) -> Result<(), OpsError> {
    tokio::pin!(shutdown);
    let mut registrar = tokio::select! {
        registrar = Registrar::new(access, request, Vec::new()) => registrar?,
        () = &mut shutdown => return Ok(()),
    };
    let mut started = Instant::now();
    loop {
        let outcome = tokio::select! {
            outcome = registrar.store(request.remove, started) => outcome?,
            () = &mut shutdown => break,
        };
        // Halfway leaves time for a second try before the binding is lost (RFC 3261 §10.2.4 leaves it to the UA).
        let next = Duration::from_millis(outcome.expires_in_ms / 2);
        let again = request.stay && !request.remove;
        let failed = matches!(outcome.status, RegisterStatus::Refused | RegisterStatus::NobodyToAsk);
        report(outcome);
        if !again {
            break;
        }
        let next = if failed { next.min(Duration::from_secs(30)) } else { next };
        tokio::select! {
            () = tokio::time::sleep(next) => started = Instant::now(),
            () = &mut shutdown => break,
        }
    }
    registrar.stop().await;
    Ok(())
}

/// Where records are handed in.
pub(super) enum Desk {
    Socket(SocketClient),
    Peers { network: Network, entries: Vec<PeerInfo> },
    Member(Box<Running>),
}

impl From<Route> for Desk {
    fn from(route: Route) -> Self {
        match route {
            Route::Socket(socket) => Self::Socket(socket),
            Route::Peers { network, entries } => Self::Peers { network, entries },
        }
    }
}

impl Desk {
    /// The member on this machine, as others see it, if that is who takes the records.
    async fn member(&mut self, access: &Access) -> Result<Option<PeerInfo>, OpsError> {
        match self {
            Self::Socket(socket) => {
                let status = tokio::time::timeout(access.timeout, socket.call(&Status {})).await;
                let status = status.map_err(|_| access.timed_out("the member on this machine"))??;
                Ok(Some(PeerInfo { peer: status.peer, addresses: status.addresses }))
            }
            Self::Member(running) => Ok(Some(running.member.info())),
            Self::Peers { .. } => Ok(None),
        }
    }

    /// Hands a record in, and waits for what became of it.
    pub(super) async fn hand_in(&mut self, access: &Access, put: Put) -> Result<(PutReply, Via), OpsError> {
        let timeout = access.timeout;
        // Whoever stores for us keeps to the time; the margin is for the answer.
        let patience = timeout + timeout / 4;
        match self {
            Self::Socket(socket) => {
                let answer = tokio::time::timeout(patience, socket.call(&put)).await;
                let reply = answer.map_err(|_| access.timed_out("the member on this machine"))??;
                Ok((reply, Via::Socket))
            }
            Self::Member(running) => Ok((running.member.put(put).await, Via::Socket)),
            Self::Peers { network, entries } => {
                // One at a time: each that is asked stores the record and keeps it alive.
                let answer = race(network, entries, &put, 1, Instant::now() + patience, |_, reply| Worth::Good(reply));
                let reply = answer.await.map_err(|failure| match failure {
                    Some((entry, error)) => OpsError::Ask { peer: describe(&entry), error },
                    None => access.timed_out("the overlay"),
                })?;
                Ok((reply, Via::Peer))
            }
        }
    }
}

/// Everything that a registration needs.
pub(super) struct Registrar<'a> {
    access: &'a Access,
    request: &'a RegisterRequest,
    home: Home,
    key: SecretKey,
    certificate: Option<Certificate>,
    descriptor: std::sync::Arc<Descriptor>,
    /// What the device is bound to.
    pub(super) contacts: Vec<Contact>,
    /// Whether that is the member on this machine.
    needs_member: bool,
    /// What it is bound to for as long as this process runs.
    pub(super) guest: Option<Contact>,
    pub(super) lifetime: Duration,
    pub(super) desk: Desk,
}

impl<'a> Registrar<'a> {
    /// Finds who takes the record, and what goes into it: the contacts that are given, else those to be `kept`, else the
    /// member on this machine.
    pub(super) async fn new(
        access: &'a Access,
        request: &'a RegisterRequest,
        kept: Vec<Contact>,
    ) -> Result<Self, OpsError> {
        let mut contacts = request.contacts.iter().map(|text| sip_contact(text)).collect::<Result<Vec<_>, _>>()?;
        if contacts.is_empty() {
            contacts = kept;
        }
        // What can be known to be wrong is said before anybody is asked: first another overlay's name, then the rest.
        match (&access.overlay, access.local_descriptor()?) {
            (_, Some(known)) => request.aor.check_overlay(known.descriptor.overlay())?,
            (Some(overlay), None) => request.aor.check_overlay(overlay)?,
            (None, None) => {}
        }
        let needs_member = contacts.is_empty() && !request.remove;
        let (descriptor, desk) = open_desk(access, request, needs_member).await?;
        request.aor.check_overlay(descriptor.overlay())?;
        let lifetime = lifetime(request, &descriptor)?;
        let home = access.own_home()?;
        let key = home.instance_key()?;
        let certificate = credentials(access, &home, &key, &descriptor, &request.aor)?;
        let guest = None;
        Ok(Self { access, request, home, key, certificate, descriptor, contacts, needs_member, guest, lifetime, desk })
    }

    /// Makes a record, or one that removes it, has it stored, and says what became of it.
    pub(super) async fn store(&mut self, remove: bool, started: Instant) -> Result<RegisterOutcome, OpsError> {
        if self.needs_member && !remove {
            // Asked each time: how it is reached may have changed.
            let Some(info) = self.desk.member(self.access).await? else {
                return Err(OpsError::NoContact { aor: self.request.aor.to_string() });
            };
            self.contacts = vec![Contact::Overlay { peer: info.peer, addresses: info.addresses, q: MAX_Q }];
        }
        let now = UnixMs::now();
        let sequence = self.home.next_sequence(now)?;
        let contacts = if remove {
            Vec::new()
        } else {
            let room = MAX_CONTACTS - usize::from(self.guest.is_some());
            self.contacts.iter().take(room).chain(&self.guest).cloned().collect()
        };
        let (body, expires) = if remove {
            // It has to outlive whatever it removes, at storers that were absent too.
            let longest = Duration::from_secs(u64::from(self.descriptor.limits().max_lifetime_s));
            (Body::Removed, UnixMs(sequence).after(longest + TOMBSTONE_GRACE))
        } else {
            (Body::User { contacts: contacts.clone() }, UnixMs(sequence).after(self.lifetime))
        };
        let name = ResourceName::User(self.request.aor.clone());
        let envelope = seal(&Payload { name, sequence, expires, body }, &self.key, self.certificate.as_ref())?;
        let put = Put { envelope: envelope.into(), timeout_ms: view::milliseconds(self.access.timeout) };
        let (reply, via) = self.desk.hand_in(self.access, put).await?;
        let status = match (&reply, remove) {
            (reply, false) if !reply.stored.is_empty() => RegisterStatus::Registered,
            (reply, true) if !reply.stored.is_empty() => RegisterStatus::Removed,
            (reply, _) if !reply.refused.is_empty() => RegisterStatus::Refused,
            _ => RegisterStatus::NobodyToAsk,
        };
        let instance = self.key.instance();
        Ok(RegisterOutcome {
            status,
            aor: self.request.aor.to_string(),
            instance,
            gruu: view::gruu(&self.request.aor, &instance),
            sequence,
            expires_at_ms: expires,
            expires_in_ms: view::milliseconds(expires.since(now)),
            contacts: contacts.iter().map(|contact| view::contact(contact, &self.request.aor, &instance)).collect(),
            via,
            stored: reply.stored,
            refused: reply.refused.iter().map(view::rejected).collect(),
            silent: reply.silent,
            read_back: reply.read_back,
            kept_by: reply.keepers,
            elapsed_ms: ms(started.elapsed()),
        })
    }

    /// Ends the member of our own, if there is one.
    pub(super) async fn stop(self) {
        if let Desk::Member(running) = self.desk {
            running.member.stop().await;
        }
    }
}

/// Finds who takes the record: the running member, a member of our own for as long as we stay, or a remote one.
async fn open_desk(
    access: &Access,
    request: &RegisterRequest,
    needs_member: bool,
) -> Result<(std::sync::Arc<Descriptor>, Desk), OpsError> {
    let mut access = access.clone();
    access.overlay.get_or_insert_with(|| request.aor.host().clone());
    let via = if needs_member { ViaChoice::Socket } else { ViaChoice::Auto };
    let absent = match access.attach(via).await {
        Ok(attached) => {
            return Ok((attached.known.descriptor, Desk::from(attached.route)));
        }
        Err(OpsError::Socket(crate::overlay::socket::SocketError::Absent { .. }))
            if needs_member && access.socket.is_none() =>
        {
            OpsError::NoContact { aor: request.aor.to_string() }
        }
        Err(error) => return Err(error),
    };
    if !request.stay {
        return Err(absent);
    }
    let running = join::start(&access, &JoinRequest::default()).await?;
    Ok((running.known.descriptor.clone(), Desk::Member(Box::new(running))))
}

fn lifetime(request: &RegisterRequest, descriptor: &Descriptor) -> Result<Duration, OpsError> {
    let limits = descriptor.limits();
    let lifetime = request.expires.unwrap_or(Duration::from_secs(u64::from(limits.default_lifetime_s)));
    let max_seconds = u64::from(limits.max_lifetime_s);
    if lifetime > Duration::from_secs(max_seconds) {
        let overlay = descriptor.overlay().clone();
        return Err(OpsError::TooLong { overlay, seconds: lifetime.as_secs(), max_seconds });
    }
    Ok(lifetime)
}

/// The certificate that lets this device register the AOR; none is needed in an open overlay.
pub(super) fn credentials(
    access: &Access,
    home: &Home,
    key: &SecretKey,
    descriptor: &Descriptor,
    aor: &Aor,
) -> Result<Option<Certificate>, OpsError> {
    if descriptor.policy() == Policy::Open {
        return Ok(None);
    }
    let name = ResourceName::User(aor.clone());
    match home.certificate_for(&key.public(), &name, UnixMs::now())? {
        Some(certificate) => Ok(Some(certificate)),
        None => Err(OpsError::NoCredentials { home: access.home.clone(), name: name.to_string() }),
    }
}

/// A SIP contact given by hand: only for UAs that themselves show the overlay URL as Contact.
fn sip_contact(text: &str) -> Result<Contact, OpsError> {
    let contact = Contact::Sip { uri: text.to_owned(), q: MAX_Q };
    let scheme = text.split_once(':').map(|(scheme, _)| scheme);
    if !scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("sip") || scheme.eq_ignore_ascii_case("sips")) {
        let why = "its scheme is not sip: or sips:".to_owned();
        return Err(OpsError::Contact { text: text.to_owned(), why });
    }
    contact.validate().map_err(|refusal| OpsError::Contact { text: text.to_owned(), why: refusal.to_string() })?;
    Ok(contact)
}
