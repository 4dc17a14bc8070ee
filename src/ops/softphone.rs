//! A user agent that both answers and calls, as a phone on a desk does, for as long as its owner wants.
//!
//! `p2p-invite` and `p2p-answer` are processes of their own, each with a place of its own in the overlay; whoever is to
//! be called at the same place as it calls from needs one process for both.

use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{
    Access, OpsError,
    answer::{self, AnswerRequest},
    call::{CallOutcome, Tracker},
    inside,
    invite::{USER_AGENT, session_number},
    phone::{CaptureRequest, Phone},
    presence::Presence,
};
use crate::{
    kind::Kind,
    media::sdp::Local,
    name::OverlayId,
    sip::{digest::User, tap::Tap, transport::Protocol, uri::SipUri},
    ua::{CallId, CallPlan, RegisterEvent, RegisterPlan, registrar_of},
};

/// Calls that wait to be placed.
const COMMANDS: usize = 8;
/// How long answers are given again after the end, if the first ones were lost.
const LINGER: Duration = Duration::from_millis(100);
/// When a registration that failed is tried again.
const AGAIN: Duration = Duration::from_secs(30);
/// How long a binding with a domain is to hold.
const EXPIRES: Duration = Duration::from_secs(3_600);

/// What a softphone is to be.
#[derive(Debug, Clone)]
pub struct SoftphoneRequest {
    /// Whose it is: a user of the overlay, or with `listen` of any domain.
    pub user: String,
    /// Where to listen as an ordinary user agent, without the overlay.
    pub listen: Option<SocketAddr>,
    /// Who its owner is to the registrar of that domain.
    pub account: Option<User>,
    /// How long to ring before it answers.
    pub ring: Duration,
    /// Who listens in, if anybody.
    pub tap: Option<Tap>,
}

/// A running softphone. Dropping it ends it; [`Softphone::stop`] waits until it has.
#[derive(Debug)]
pub struct Softphone {
    listening: Vec<(Protocol, SocketAddr)>,
    commands: mpsc::Sender<Command>,
    task: JoinHandle<()>,
}

/// A call to be placed.
#[derive(Debug)]
struct Command {
    target: String,
    hold: Duration,
    ring: Duration,
    reply: oneshot::Sender<CallOutcome>,
}

impl Softphone {
    /// Begins to answer, registered from now on: in the overlay, or with the domain that there is an account for.
    ///
    /// # Errors
    /// [`OpsError`]: no way into the overlay, a registration that is refused, an address in use.
    pub async fn start(access: &Access, request: SoftphoneRequest) -> Result<Self, OpsError> {
        let answering = AnswerRequest {
            user: Some(request.user.clone()),
            listen: request.listen,
            ring: request.ring,
            status: 200,
            hold: None,
            count: None,
            capture: CaptureRequest { tap: request.tap.clone(), ..CaptureRequest::default() },
        };
        let (mut phone, stay) = answer::start(access, &answering).await?;
        let listening = phone.listening().to_vec();
        if let (Some(account), Some((_, address))) = (request.account, listening.first()) {
            enlist(&mut phone, &request.user, *address, account, access.timeout).await?;
        }
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let desk = Desk {
            phone,
            user: request.user,
            overlay: stay.as_ref().map(|stay| stay.presence.overlay().clone()),
            contact: stay.as_ref().map(|stay| stay.presence.gruu()),
            placed: BTreeMap::new(),
        };
        Ok(Self { listening, commands, task: tokio::spawn(desk.serve(stay, receiver)) })
    }

    /// The addresses of UDP and TCP.
    pub fn listening(&self) -> &[(Protocol, SocketAddr)] {
        &self.listening
    }

    /// Places a call, stays on the line for `hold`, and hangs up. `None` if the softphone has ended.
    pub async fn call(&self, target: &str, hold: Duration, ring: Duration) -> Option<CallOutcome> {
        let (reply, outcome) = oneshot::channel();
        self.commands.send(Command { target: target.to_owned(), hold, ring, reply }).await.ok()?;
        outcome.await.ok()
    }

    /// Ends calls, takes the registration back, and ends.
    pub fn stop(self) -> impl Future<Output = ()> {
        drop(self.commands);
        async move {
            // It has panicked, or has ended already.
            let _ = self.task.await;
        }
    }
}

/// Binds an ordinary phone at the registrar of its domain, and keeps it bound.
async fn enlist(
    phone: &mut Phone,
    aor: &str,
    address: SocketAddr,
    account: User,
    patience: Duration,
) -> Result<(), OpsError> {
    let refused = |why: String| OpsError::NotRegistered { aor: aor.to_owned(), why, kind: Kind::Negative };
    let uri = SipUri::parse(aor).map_err(|error| refused(error.to_string()))?;
    let plan = RegisterPlan {
        aor: aor.to_owned(),
        registrar: registrar_of(&uri),
        contact: format!("sip:{}@{address}", uri.user.unwrap_or_default()),
        routes: Vec::new(),
        user: Some(account),
        expires: EXPIRES,
        keep: true,
        patience,
        user_agent: USER_AGENT.to_owned(),
    };
    phone.agent().register(plan, Instant::now());
    loop {
        match phone.next_registration().await {
            RegisterEvent::Bound(_) => return Ok(()),
            RegisterEvent::Failed { fault, .. } => return Err(refused(fault.to_string())),
            RegisterEvent::Challenged { .. } | RegisterEvent::Removed { .. } | RegisterEvent::Lost => {}
        }
    }
}

/// What the softphone's task owns.
struct Desk {
    phone: Phone,
    user: String,
    overlay: Option<OverlayId>,
    contact: Option<String>,
    placed: BTreeMap<CallId, (Tracker, oneshot::Sender<CallOutcome>)>,
}

impl Desk {
    async fn serve(mut self, mut stay: Option<inside::Stay>, mut commands: mpsc::Receiver<Command>) {
        let mut refresh = Instant::now() + Presence::refresh_after();
        loop {
            while let Some(event) = self.phone.take_registration() {
                if let RegisterEvent::Failed { fault, .. } = event {
                    tracing::warn!("{} is not registered with its domain: {fault}; trying again", self.user);
                }
            }
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.place(command),
                    None => break,
                },
                happened = self.phone.next() => {
                    let Ok((id, event)) = happened else { break };
                    let now = Instant::now();
                    let failure = if event.is_last() { self.phone.take_failure() } else { None };
                    if let Some((tracker, _)) = self.placed.get_mut(&id) {
                        tracker.event(&event, failure, now);
                    }
                    if event.is_last() && let Some((tracker, reply)) = self.placed.remove(&id) {
                        // Whoever wanted to know may have lost patience.
                        let _ = reply.send(tracker.finish(None, now));
                    }
                }
                () = tokio::time::sleep_until(refresh.into()), if stay.is_some() => {
                    refresh = Instant::now() + Presence::refresh_after();
                    if let Some(stay) = &mut stay && let Err(error) = stay.presence.refresh().await {
                        tracing::warn!("{error}; trying again");
                        refresh = Instant::now() + AGAIN;
                    }
                }
            }
        }
        self.phone.agent().hang_up_all(Instant::now());
        self.phone.settle(Instant::now() + LINGER).await;
        drop(self.phone);
        if let Some(stay) = stay
            && let Err(error) = stay.presence.end().await
        {
            tracing::debug!("the routing record of {} stays until it expires: {error}", self.user);
        }
    }

    fn place(&mut self, command: Command) {
        let Command { target, hold, ring, reply } = command;
        let now = Instant::now();
        let away = |overlay: &&OverlayId| SipUri::parse(&target).is_ok_and(|uri| !uri.host.is_name(overlay.as_str()));
        let plan = CallPlan {
            target: target.clone(),
            from: self.user.clone(),
            contact: self.contact.clone(),
            // Whatever is outside is reached through a proxy peer (draft §3.1).
            routes: self.overlay.iter().filter(away).map(|overlay| format!("<sip:{overlay};lr>")).collect(),
            user: None,
            hold: Some(hold),
            ring,
            reinvite: None,
            media: Local::without_media(session_number()),
            user_agent: USER_AGENT.to_owned(),
        };
        let id = self.phone.agent().call(plan, now);
        let call_id = self.phone.agent().call_id(id).unwrap_or_default().to_owned();
        self.placed.insert(id, (Tracker::new(1, "outgoing", &target, &self.user, &call_id, now), reply));
    }
}
