//! Placing test calls: `p2p-invite`.

use std::{
    collections::BTreeMap,
    future::Future,
    time::{Duration, Instant},
};

use super::{
    Access, OpsError, ViaChoice,
    call::{CallOutcome, CallProgress, Tracker},
    finder::Finder,
    inside,
    phone::{CaptureRequest, Phone, any_port},
};
use crate::{
    dns::locate::{Locator, Options, has_no_route},
    media::sdp::Local,
    name::Aor,
    sip::{digest::User, uri::SipUri},
    ua::{AgentConfig, CallId, CallPlan, Event, Failure, Side},
};

/// How we name ourselves.
pub(super) const USER_AGENT: &str = concat!("p2psip/", env!("CARGO_PKG_VERSION"));
/// How long a BYE of the other side is answered again if the answer was lost.
const LINGER: Duration = Duration::from_millis(300);
/// Who calls when nobody says who does (RFC 3323 §4.1.1.3).
const ANONYMOUS: &str = "sip:anonymous@anonymous.invalid";

/// On which side of the boundary this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum World {
    /// In the overlay if the caller is a user of the one that is configured.
    #[default]
    Auto,
    /// In the overlay.
    Overlay,
    /// In the public SIP network.
    Public,
}

/// The calls to place.
#[derive(Debug, Clone)]
pub struct InviteRequest {
    /// Whom to call.
    pub target: String,
    /// Who calls; a user of the overlay to call from within it.
    pub from: Option<String>,
    /// Where we are.
    pub world: World,
    /// The outbound proxy, as a SIP URI.
    pub proxy: Option<String>,
    /// How long to stay on the line.
    pub hold: Duration,
    /// How long it may ring.
    pub ring: Duration,
    /// How long to wait for a first response; without it, as long as RFC 3261 does (§17.1.1.2, Timer B).
    pub patience: Option<Duration>,
    /// How many calls.
    pub count: u64,
    /// From the beginning of one call to that of the next; without it, one after the other.
    pub interval: Option<Duration>,
    /// Who we are to those that challenge us.
    pub user: Option<User>,
    /// When to refresh the session, counted from the answer.
    pub reinvite: Option<Duration>,
    /// What to capture.
    pub capture: CaptureRequest,
}

/// What is told while calls are placed.
#[derive(Debug, Clone)]
pub enum InviteReport {
    /// Something happened.
    Progress(CallProgress),
    /// A call is over.
    Call(Box<CallOutcome>),
}

/// Places the calls and reports each; on `shutdown`, running ones are ended first and no others placed.
///
/// # Errors
/// [`OpsError`]: no way into the overlay, no socket, a capture that cannot be written. That a call fails is an outcome.
pub async fn invite(
    access: &Access,
    request: &InviteRequest,
    report: &mut dyn FnMut(InviteReport),
    shutdown: impl Future<Output = ()>,
) -> Result<(), OpsError> {
    tokio::pin!(shutdown);
    let starting = Caller::start(access, request);
    let Some(caller) = inside::begin(starting, &mut shutdown, |caller| caller.stay).await? else { return Ok(()) };
    let Caller { mut phone, stay, plan } = caller;
    let result = place(&mut phone, &plan, request, report, shutdown).await;
    drop(phone);
    if let Some(stay) = stay {
        let left = stay.leave().await;
        if let (Ok(()), Err(error)) = (&result, left) {
            tracing::warn!("the routing record of this call stays until it expires: {error}");
        }
    }
    result
}

/// A user agent that is ready to call.
struct Caller {
    phone: Phone,
    stay: Option<inside::Stay>,
    plan: CallPlan,
}

impl Caller {
    async fn start(access: &Access, request: &InviteRequest) -> Result<Self, OpsError> {
        let not_callable = |why: String| OpsError::NotCallable { text: request.target.clone(), why };
        let target = SipUri::parse(&request.target).map_err(|error| not_callable(error.to_string()))?;
        if target.headers.is_some() {
            return Err(not_callable("it has headers".to_owned()));
        }
        let options = Options { family: access.family, unreachable: has_no_route, ..Options::default() };
        let locator = Locator::new(access.resolver()?, options);
        let mut plan = CallPlan {
            target: request.target.clone(),
            from: request.from.clone().unwrap_or_else(|| ANONYMOUS.to_owned()),
            contact: None,
            routes: Vec::new(),
            user: request.user.clone(),
            hold: Some(request.hold),
            ring: request.ring,
            reinvite: request.reinvite,
            media: Local::without_media(session_number()),
            user_agent: USER_AGENT.to_owned(),
        };
        let (stay, inside, port) = match caller_inside(access, request).await? {
            None => (None, None, None),
            Some(aor) => {
                let (stay, inside, port) = inside::enter(access, &aor, false).await?;
                (plan.from, plan.contact) = (aor.to_string(), Some(stay.presence.gruu()));
                if !target.host.is_name(inside.overlay.as_str()) {
                    // Whatever is outside is reached through a proxy peer (draft §3.1).
                    plan.routes = vec![format!("<sip:{};lr>", inside.overlay)];
                }
                (Some(stay), Some(inside), Some(port))
            }
        };
        let finder = Finder::new(inside, locator, request.proxy.clone(), access.timeout);
        let finder = finder.watched(request.capture.tap.clone());
        let config = AgentConfig { patience: request.patience, ..AgentConfig::default() };
        match (Phone::start(config, any_port(access.family), port, finder, &request.capture), stay) {
            (Ok(phone), stay) => Ok(Self { phone, stay, plan }),
            (Err(error), stay) => {
                if let Some(stay) = stay {
                    // That it cannot begin is what to tell of; the record expires.
                    let _ = stay.leave().await;
                }
                Err(error)
            }
        }
    }
}

/// The caller, if it calls from within the overlay.
async fn caller_inside(access: &Access, request: &InviteRequest) -> Result<Option<Aor>, OpsError> {
    let from = request.from.as_deref();
    match request.world {
        World::Public => Ok(None),
        World::Overlay => {
            let from = from.ok_or_else(|| OpsError::NotCallable {
                text: request.target.clone(),
                why: "calls within the overlay need a caller; give --from, or set P2PSIP_AOR".to_owned(),
            })?;
            Ok(Some(Aor::parse(from)?))
        }
        World::Auto if request.proxy.is_some() => Ok(None),
        World::Auto => {
            let Some(aor) = from.and_then(|from| Aor::parse(from).ok()) else { return Ok(None) };
            let overlay = match (&access.overlay, access.local_descriptor()?) {
                (Some(overlay), _) => Some(overlay.clone()),
                (None, Some(known)) => Some(known.descriptor.overlay().clone()),
                (None, None) if access.socket(ViaChoice::Auto).await?.is_some() => access.find_overlay().await.ok(),
                (None, None) => None,
            };
            Ok(overlay.filter(|overlay| aor.check_overlay(overlay).is_ok()).map(|_| aor))
        }
    }
}

async fn place(
    phone: &mut Phone,
    plan: &CallPlan,
    request: &InviteRequest,
    report: &mut dyn FnMut(InviteReport),
    shutdown: impl Future<Output = ()>,
) -> Result<(), OpsError> {
    tokio::pin!(shutdown);
    let own_name = SipUri::parse(&plan.from).ok().and_then(|uri| uri.user).unwrap_or("caller").to_owned();
    let mut running: BTreeMap<CallId, Tracker> = BTreeMap::new();
    let (mut placed, mut next, mut ending, mut linger) = (0_u64, Instant::now(), false, false);
    loop {
        let may_start = !ending && placed < request.count && (request.interval.is_some() || running.is_empty());
        if !may_start && running.is_empty() {
            break;
        }
        tokio::select! {
            biased;
            () = &mut shutdown, if !ending => {
                ending = true;
                phone.agent().hang_up_all(Instant::now());
            }
            () = tokio::time::sleep_until(next.into()), if may_start => {
                placed += 1;
                next += request.interval.unwrap_or_default();
                let now = Instant::now();
                let mut plan = plan.clone();
                plan.media.session = plan.media.session.wrapping_add(placed);
                let id = phone.agent().call(plan, now);
                let call_id = phone.agent().call_id(id).unwrap_or_default().to_owned();
                let from = request.from.as_deref().unwrap_or(ANONYMOUS);
                running.insert(id, Tracker::new(placed, "outgoing", &request.target, from, &call_id, now));
            }
            happened = phone.next() => {
                let (id, event) = happened?;
                let now = Instant::now();
                let failure = if event.is_last() { phone.take_failure() } else { None };
                let Some(tracker) = running.get_mut(&id) else { continue };
                if let Some(progress) = tracker.event(&event, failure, now) {
                    report(InviteReport::Progress(progress));
                }
                if let (Event::Failed(Failure::Timeout), Some(hop)) = (&event, phone.last_hop()) {
                    tracker.silent(hop);
                }
                linger |= matches!(event, Event::Ended { by: Side::Them, .. });
                if event.is_last()
                    && let Some(tracker) = running.remove(&id)
                {
                    let flow = request.capture.flow.then(|| phone.flow(tracker.call_id(), &own_name));
                    report(InviteReport::Call(Box::new(tracker.finish(flow, now))));
                }
            }
        }
    }
    if linger {
        phone.settle(Instant::now() + LINGER).await;
    }
    Ok(())
}

/// A number for our sessions that differs from run to run (RFC 8866 §5.2 suggests the time).
pub(super) fn session_number() -> u64 {
    crate::clock::UnixMs::now().0
}
