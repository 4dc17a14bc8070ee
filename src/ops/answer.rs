//! Answering test calls: `p2p-answer`.

use std::{
    collections::BTreeMap,
    future::Future,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::sync::watch;

use super::{
    Access, OpsError,
    call::{CallOutcome, CallProgress, Tracker},
    finder::Finder,
    inside,
    invite::{USER_AGENT, session_number},
    phone::{CaptureRequest, Phone, any_port},
    presence::Presence,
};
use crate::{
    dns::locate::{Locator, Options, has_no_route},
    media::sdp::Local,
    name::{Aor, PeerId},
    overlay::swarm::Reached,
    sip::{transport::Protocol, uri::SipUri},
    ua::{AgentConfig, AnswerPlan, CallId, Event},
};

/// How long answers are given again after the last call, if the first ones were lost.
const LINGER: Duration = Duration::from_millis(300);
/// Tries to find a port that is free for UDP and for TCP.
const PORTS: usize = 20;

/// What to answer, and how.
#[derive(Debug, Clone)]
pub struct AnswerRequest {
    /// Who answers: a user of the overlay, or with `listen` any user, or everybody.
    pub user: Option<String>,
    /// Where to listen as an ordinary user agent, without the overlay.
    pub listen: Option<SocketAddr>,
    /// How long to ring.
    pub ring: Duration,
    /// The final response: 200, or 300 to 699.
    pub status: u16,
    /// When to hang up; without it the caller does.
    pub hold: Option<Duration>,
    /// How many calls to answer; without it, until `shutdown`.
    pub count: Option<u64>,
    /// What to capture.
    pub capture: CaptureRequest,
}

/// That calls are waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListeningOutcome {
    /// Always `listening`.
    pub status: &'static str,
    /// Who answers; `null` for everybody.
    pub user: Option<String>,
    /// The peer id under which SIP streams are taken; `null` outside the overlay.
    pub peer: Option<PeerId>,
    /// Where SIP is taken: `UDP 192.0.2.1:5060`; multiaddrs of streams.
    pub addresses: Vec<String>,
}

/// What is told while calls are answered.
#[derive(Debug, Clone)]
pub enum AnswerReport {
    /// Calls are waited for.
    Listening(ListeningOutcome),
    /// Something happened.
    Progress(CallProgress),
    /// A call is over.
    Call(Box<CallOutcome>),
}

/// Answers calls until `shutdown` or until there were enough; running ones are ended first.
///
/// # Errors
/// [`OpsError`]: no way into the overlay, an address in use, a capture that cannot be written.
pub async fn answer(
    access: &Access,
    request: &AnswerRequest,
    report: &mut dyn FnMut(AnswerReport),
    shutdown: impl Future<Output = ()>,
) -> Result<(), OpsError> {
    tokio::pin!(shutdown);
    let starting = start(access, request);
    let Some((mut phone, mut stay)) = inside::begin(starting, &mut shutdown, |(_, stay)| stay).await? else {
        return Ok(());
    };
    report(AnswerReport::Listening(listening(&phone, stay.as_ref(), request)));
    let result = serve(&mut phone, stay.as_mut(), request, report, shutdown).await;
    drop(phone);
    if let Some(stay) = stay {
        let left = stay.leave().await;
        if let (Ok(()), Err(error)) = (&result, left) {
            tracing::warn!("the routing record stays until it expires: {error}");
        }
    }
    result
}

/// A user agent that answers as requested, and how it is registered if it is in the overlay.
pub(super) async fn start(access: &Access, request: &AnswerRequest) -> Result<(Phone, Option<inside::Stay>), OpsError> {
    let options = Options { family: access.family, unreachable: has_no_route, ..Options::default() };
    let locator = Locator::new(access.resolver()?, options);
    let plan = AnswerPlan {
        ring: request.ring,
        status: request.status,
        hold: request.hold,
        media: Local::without_media(session_number()),
        user_agent: USER_AGENT.to_owned(),
    };
    let mut config = AgentConfig { answer: Some(plan), ..AgentConfig::default() };
    if let Some(address) = request.listen {
        config.user = user_part(request.user.as_deref())?;
        let finder = Finder::new(None, locator, None, access.timeout).watched(request.capture.tap.clone());
        return Ok((Phone::start(config, both(address), None, finder, &request.capture)?, None));
    }
    let text = request.user.clone().unwrap_or_default();
    let aor = Aor::parse(&text)?;
    let (stay, inside, port) = inside::enter(access, &aor, true).await?;
    (config.user, config.contact) = (Some(aor.user().to_owned()), Some(stay.presence.gruu()));
    let finder = Finder::new(Some(inside), locator, None, access.timeout).watched(request.capture.tap.clone());
    match Phone::start(config, any_port(access.family), Some(port), finder, &request.capture) {
        Ok(phone) => Ok((phone, Some(stay))),
        Err(error) => {
            // That it cannot begin is what to tell of; the record expires.
            let _ = stay.leave().await;
            Err(error)
        }
    }
}

/// The user part of a URI, or a bare user part.
fn user_part(text: Option<&str>) -> Result<Option<String>, OpsError> {
    let Some(text) = text else { return Ok(None) };
    let uri = SipUri::parse(text);
    let uri = uri.map_err(|error| OpsError::NotCallable { text: text.to_owned(), why: error.to_string() })?;
    Ok(uri.user.map(str::to_owned))
}

/// UDP and TCP at an address; a port that is free for both if any will do.
fn both(address: SocketAddr) -> Vec<(Protocol, SocketAddr)> {
    let address = if address.port() == 0 { SocketAddr::new(address.ip(), free_port(address.ip())) } else { address };
    vec![(Protocol::Udp, address), (Protocol::Tcp, address)]
}

/// A port that is free for UDP and for TCP; 0 if there seems to be none.
pub(crate) fn free_port(ip: IpAddr) -> u16 {
    let candidate = || {
        let udp = UdpSocket::bind((ip, 0)).ok()?;
        let port = udp.local_addr().ok()?.port();
        TcpListener::bind((ip, port)).ok().map(|_| port)
    };
    (0..PORTS).find_map(|_| candidate()).unwrap_or(0)
}

/// What the callee is called in its own ladder.
fn name_of(uri: &str) -> String {
    SipUri::parse(uri).ok().and_then(|uri| uri.user).unwrap_or("callee").to_owned()
}

fn listening(phone: &Phone, stay: Option<&inside::Stay>, request: &AnswerRequest) -> ListeningOutcome {
    let addresses = match stay {
        Some(stay) => stay.network.myself().addresses,
        None => phone.listening().iter().map(|(protocol, address)| format!("{protocol} {address}")).collect(),
    };
    let peer = stay.map(|stay| stay.network.peer());
    ListeningOutcome { status: "listening", user: request.user.clone(), peer, addresses }
}

/// Waits until others reach this process in another way, and tells where.
async fn moved(reached: &mut Option<watch::Receiver<Reached>>) -> Vec<String> {
    if let Some(reached) = reached
        && reached.changed().await.is_ok()
    {
        return reached.borrow_and_update().addresses.clone();
    }
    std::future::pending().await
}

async fn serve(
    phone: &mut Phone,
    mut stay: Option<&mut inside::Stay>,
    request: &AnswerRequest,
    report: &mut dyn FnMut(AnswerReport),
    shutdown: impl Future<Output = ()>,
) -> Result<(), OpsError> {
    tokio::pin!(shutdown);
    let mut running: BTreeMap<CallId, Tracker> = BTreeMap::new();
    let (mut taken, mut over, mut ending) = (0_u64, 0_u64, false);
    let mut refresh = Instant::now() + Presence::refresh_after();
    let mut reached = stay.as_ref().map(|stay| stay.network.reached());
    while !(ending && running.is_empty()) && request.count.is_none_or(|count| over < count) {
        tokio::select! {
            biased;
            () = &mut shutdown, if !ending => {
                ending = true;
                phone.agent().hang_up_all(Instant::now());
            }
            happened = phone.next() => {
                let (id, event) = happened?;
                let now = Instant::now();
                if let Event::Incoming { from, uri, call_id } = &event {
                    taken += 1;
                    running.insert(id, Tracker::new(taken, "incoming", uri, from, call_id, now));
                }
                let failure = if event.is_last() { phone.take_failure() } else { None };
                let Some(tracker) = running.get_mut(&id) else { continue };
                if let Some(progress) = tracker.event(&event, failure, now) {
                    report(AnswerReport::Progress(progress));
                }
                if event.is_last()
                    && let Some(tracker) = running.remove(&id)
                {
                    over += 1;
                    let flow = request.capture.flow.then(|| phone.flow(tracker.call_id(), &name_of(tracker.uri())));
                    report(AnswerReport::Call(Box::new(tracker.finish(flow, now))));
                }
            }
            addresses = moved(&mut reached) => {
                // Callers dial what the record names.
                if stay.as_mut().is_some_and(|stay| stay.presence.move_to(&addresses)) {
                    refresh = Instant::now();
                }
            }
            () = tokio::time::sleep_until(refresh.into()), if stay.is_some() => {
                refresh = Instant::now() + Presence::refresh_after();
                if let Some(stay) = &mut stay
                    && let Err(error) = stay.presence.refresh().await
                {
                    tracing::warn!("{error}; trying again");
                    refresh = Instant::now() + Duration::from_secs(30);
                }
            }
        }
    }
    phone.settle(Instant::now() + LINGER).await;
    Ok(())
}
