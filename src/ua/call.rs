//! The caller's side (RFC 3261 §13.2): INVITE, provisional responses, challenge, ACK, hold, re-INVITE, BYE or CANCEL.

use std::time::{Duration, Instant};

use super::{
    ALLOW, Action, Event, Failure, NextHop, Pace, Purpose, SDP, Side,
    contact::{is_secure, secured},
    session::{Heard, Patience, Session, refusal},
};
use crate::{
    media::sdp::{self, Local},
    sip::{
        Message, Method, ParseError,
        compose::Request,
        dialog::{Dialog, DialogId},
        digest::{Asker, Keyring, Protected, User},
        header::{Contact, Name, NameAddr},
        transaction::ServerId,
    },
};

/// Early dialogs kept of one INVITE: branches of a fork that ring.
const MAX_EARLY: usize = 8;
/// Challenges met for one request: every proxy on the way may have one, and a nonce may be stale.
const MAX_CHALLENGES: u32 = 5;

/// A call to be placed.
#[derive(Debug, Clone)]
pub struct CallPlan {
    /// The Request-URI.
    pub target: String,
    /// The caller's URI, for From.
    pub from: String,
    /// Our Contact URI; without one it is made of the caller's user part and the address that we send from.
    pub contact: Option<String>,
    /// Values of Route of the INVITE.
    pub routes: Vec<String>,
    /// Who we are to those that challenge us.
    pub user: Option<User>,
    /// How long to stay on the line; without a limit until the other side hangs up.
    pub hold: Option<Duration>,
    /// How long it may ring.
    pub ring: Duration,
    /// When to refresh the session once, counted from the answer.
    pub reinvite: Option<Duration>,
    /// Our side of the session.
    pub media: Local,
    /// For User-Agent.
    pub user_agent: String,
}

/// How long a call that is given up waits for a first response, without which there is no CANCEL (RFC 3261 §9.1).
const SILENCE: Duration = Duration::from_secs(1);

/// Where the call is.
#[derive(Debug)]
enum State {
    /// No final response yet; `provisional` if there was any other.
    Calling {
        give_up: Instant,
    },
    /// A CANCEL is on its way, or waits for a first response; `until` is set if there has been none.
    Cancelling {
        by: Option<Side>,
        until: Option<Instant>,
    },
    Talking {
        hang_up: Option<Instant>,
        reinvite: Option<Instant>,
        refreshing: bool,
    },
    /// A BYE is on its way.
    Ending {
        fault: Option<String>,
    },
    Over,
}

/// One call of ours.
#[derive(Debug)]
pub(super) struct Call {
    plan: CallPlan,
    pace: Pace,
    keyring: Option<Keyring>,
    call_id: String,
    tag: String,
    cseq: u32,
    challenges: u32,
    /// Whether anybody has said anything.
    responded: bool,
    /// The INVITE as it was sent last, without Via.
    invite: Option<Message>,
    early: Vec<Dialog>,
    session: Option<Session>,
    state: State,
}

impl Call {
    /// A call that has not begun; [`Call::start`] does. `call_id` and `tag` are unique tokens.
    pub fn new(mut plan: CallPlan, call_id: String, tag: String, pace: Pace, now: Instant) -> Self {
        let secure = is_secure(&plan.target);
        plan.contact = plan.contact.map(|contact| secured(&contact, secure));
        Self {
            keyring: plan.user.clone().map(Keyring::new),
            call_id,
            tag,
            cseq: 0,
            challenges: 0,
            responded: false,
            invite: None,
            early: Vec::new(),
            session: None,
            state: State::Calling { give_up: now + plan.ring },
            plan,
            pace,
        }
    }

    pub fn call_id(&self) -> &str {
        &self.call_id
    }

    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Sends the INVITE.
    pub fn start(&mut self, out: &mut Vec<Action>) {
        self.cseq += 1;
        let plan = &self.plan;
        let mut request = Request::new(Method::Invite, &plan.target);
        for route in &plan.routes {
            request = request.header(Name::Route, route);
        }
        request = request
            .header(Name::MaxForwards, "70")
            .header(Name::From, format!("<{}>;tag={}", plan.from, self.tag))
            .header(Name::To, format!("<{}>", plan.target))
            .header(Name::CallId, &self.call_id)
            .header(Name::CSeq, format!("{} INVITE", self.cseq));
        if let Some(contact) = &plan.contact {
            request = request.header(Name::Contact, format!("<{contact}>"));
        }
        request = request.header(Name::Allow, ALLOW).header(Name::UserAgent, &plan.user_agent);
        let body = match sdp::offer(&plan.media) {
            Ok(body) => body,
            Err(error) => return self.fail(Failure::Malformed(error.to_string()), out),
        };
        let request = authorized(&mut self.keyring, request, "INVITE", &plan.target, &body);
        let request = match request.body(SDP, body).finish() {
            Ok(request) => request,
            Err(error) => return self.fail(Failure::Malformed(error.to_string()), out),
        };
        self.invite = Some(request.clone());
        let first = self.plan.routes.first().and_then(|route| route.strip_prefix('<')?.split('>').next());
        let next_hop = NextHop::Outbound(first.unwrap_or(&self.plan.target).to_owned());
        out.push(Action::Request { purpose: Purpose::Invite, request, next_hop });
    }

    /// A response to one of our requests. `cnonce` is a token that nobody can guess.
    pub fn response(
        &mut self,
        purpose: Purpose,
        response: &Message,
        now: Instant,
        cnonce: &str,
        out: &mut Vec<Action>,
    ) {
        let Some(status) = response.status() else { return };
        match (purpose, status) {
            (Purpose::Invite, ..200) => self.provisional(response, status, out),
            (Purpose::Invite, 200..300) => self.success(response, now, out),
            (_, ..200) | (Purpose::Surplus | Purpose::Register, _) => {}
            (_, 401 | 407) if self.may_answer_challenge() => self.challenged(purpose, response, cnonce, out),
            (Purpose::Invite, _) => self.rejected(response, status, out),
            (Purpose::Reinvite, _) => self.reinvited(response, status, out),
            (Purpose::Bye, _) => self.ended(Side::Us, None, out),
        }
    }

    /// A request of ours has come to nothing.
    pub fn failed(&mut self, purpose: Purpose, failure: Failure, out: &mut Vec<Action>) {
        match (purpose, &self.state) {
            (Purpose::Surplus | Purpose::Register, _) | (_, State::Over) => {}
            (Purpose::Invite, State::Cancelling { by, .. }) => self.given_up(*by, out),
            (Purpose::Invite, State::Calling { .. }) => self.fail(failure, out),
            (Purpose::Invite, _) => {}
            // A dialog whose other side is gone is over (RFC 3261 §12.2.1.2).
            (Purpose::Reinvite, _) => self.bye(Some(format!("the re-INVITE failed: {failure}")), out),
            (Purpose::Bye, _) => self.ended(Side::Us, Some(format!("the BYE failed: {failure}")), out),
        }
    }

    /// A request of the other side in one of this call's dialogs.
    pub fn request(&mut self, server: ServerId, request: &Message, now: Instant, out: &mut Vec<Action>) {
        let id = DialogId::of_received(request).ok();
        let session = self.session.as_mut().filter(|session| id.as_ref() == Some(session.dialog.id()));
        let Some(session) = session else {
            // An early dialog has nothing to answer with but that it is known; nobody else is.
            let known = self.early.iter().any(|dialog| Some(dialog.id()) == id.as_ref());
            let status = if known { 405 } else { 481 };
            return super::session::answer(server, refusal(request, status, None).header(Name::Allow, ALLOW), out);
        };
        if session.receive(server, request, now, out) == Heard::Bye && !matches!(self.state, State::Ending { .. }) {
            self.ended(Side::Them, None, out);
        }
    }

    /// The ACK of a 2xx that we sent to a re-INVITE.
    pub fn ack(&mut self, ack: &Message) {
        if let Some(session) = &mut self.session {
            session.acknowledged(ack);
        }
    }

    /// The user wants no more: CANCEL or BYE, whichever it takes.
    pub fn hang_up(&mut self, now: Instant, out: &mut Vec<Action>) {
        match self.state {
            State::Calling { .. } => self.cancel(Some(Side::Us), now, out),
            State::Talking { .. } => self.bye(None, out),
            State::Cancelling { .. } | State::Ending { .. } | State::Over => {}
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = match &self.state {
            State::Calling { give_up } => Some(*give_up),
            State::Cancelling { until, .. } => *until,
            State::Talking { hang_up, reinvite, refreshing } => {
                // Who wants to know how a re-INVITE ends does not hang up before it has.
                hang_up.iter().filter(|_| !refreshing).chain(reinvite).min().copied()
            }
            _ => None,
        };
        own.into_iter().chain(self.session.as_ref().and_then(Session::poll_timeout)).min()
    }

    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Action>) {
        if let Some(session) = &mut self.session
            && session.handle_timeout(now, out) == Patience::Lost
        {
            return self.bye(Some("an answer of ours was never acknowledged".to_owned()), out);
        }
        match &mut self.state {
            State::Calling { give_up } if now >= *give_up => self.cancel(None, now, out),
            // Nobody is there who could be told.
            State::Cancelling { by, until: Some(until) } if now >= *until => {
                let by = *by;
                self.given_up(by, out);
            }
            State::Talking { hang_up: Some(at), refreshing: false, .. } if now >= *at => self.bye(None, out),
            State::Talking { reinvite, refreshing, .. } if reinvite.is_some_and(|at| now >= at) => {
                (*reinvite, *refreshing) = (None, true);
                self.send_reinvite(out);
            }
            _ => {}
        }
    }

    fn provisional(&mut self, response: &Message, status: u16, out: &mut Vec<Action>) {
        self.responded = true;
        if let State::Cancelling { until, .. } = &mut self.state {
            // The CANCEL goes now, and has an answer.
            *until = None;
        }
        if status == 100 || !matches!(self.state, State::Calling { .. }) {
            return;
        }
        if let Some(invite) = &self.invite
            && let Ok(dialog) = Dialog::of_caller(invite, response)
            && self.early.len() < MAX_EARLY
            && !self.early.iter().any(|known| known.id() == dialog.id())
        {
            self.early.push(dialog);
        }
        out.push(Action::Event(Event::Progress { status, reason: text(response.reason()) }));
    }

    /// A 2xx: acknowledged always; the first one is the call, another one's dialog is ended at once (RFC 3261 §13.2.2.4).
    fn success(&mut self, response: &Message, now: Instant, out: &mut Vec<Action>) {
        let Some(invite) = &self.invite else { return };
        let mut dialog = match Dialog::of_caller(invite, response) {
            Ok(dialog) => dialog,
            Err(error) => return self.fail(Failure::Malformed(format!("the 2xx cannot be used: {error}")), out),
        };
        if let Some(session) = &self.session {
            if session.dialog.id() == dialog.id() {
                out.push(Action::AckAgain);
                return;
            }
            let acknowledged = acknowledge(&dialog, invite, out);
            if let (Ok(()), Ok(request)) = (acknowledged, dialog.request(Method::Bye).finish()) {
                let next_hop = NextHop::Uri(dialog.next_hop().to_owned());
                out.push(Action::Request { purpose: Purpose::Surplus, request, next_hop });
            }
            return;
        }
        if let Err(error) = acknowledge(&dialog, invite, out) {
            return self.fail(Failure::Malformed(format!("the 2xx cannot be used: {error}")), out);
        }
        let contact = dialog.target().to_owned();
        let wanted = self.plan.contact.as_ref().map(|contact| format!("<{contact}>"));
        self.session = Some(Session::new(dialog, self.plan.media.clone(), wanted, self.pace));
        self.early.clear();
        if let State::Cancelling { by, .. } = self.state {
            // It was answered before the CANCEL arrived.
            let fault = by.is_none().then(|| "it was answered when nobody waited any more".to_owned());
            return self.bye(fault, out);
        }
        out.push(Action::Event(Event::Answered { contact }));
        self.state = State::Talking {
            hang_up: self.plan.hold.map(|hold| now + hold),
            reinvite: self.plan.reinvite.map(|after| now + after),
            refreshing: false,
        };
        if let Err(error) = sdp::read(response.body()) {
            self.bye(Some(format!("the answer cannot be used: {error}")), out);
        }
    }

    fn rejected(&mut self, response: &Message, status: u16, out: &mut Vec<Action>) {
        match (&self.state, status) {
            (State::Cancelling { by: Some(by), .. }, _) => self.given_up(Some(*by), out),
            (State::Cancelling { by: None, .. }, 487) => self.given_up(None, out),
            (State::Calling { .. } | State::Cancelling { .. }, _) => {
                self.finish(Event::Rejected { status, reason: text(response.reason()) }, out);
            }
            _ => {}
        }
    }

    fn reinvited(&mut self, response: &Message, status: u16, out: &mut Vec<Action>) {
        let repeated = match &mut self.state {
            State::Talking { refreshing, .. } => !std::mem::take(refreshing),
            _ => false,
        };
        let Some(session) = &mut self.session else { return };
        if status < 300 {
            if repeated {
                return out.push(Action::AckAgain);
            }
            session.dialog.refreshed_by(response);
            let number = response.cseq().map(|cseq| cseq.number).unwrap_or_default();
            let next_hop = session.dialog.next_hop().to_owned();
            match session.dialog.ack(number).finish() {
                Ok(request) => out.push(Action::Ack { request, next_hop }),
                Err(error) => return self.bye(Some(format!("the answer cannot be acknowledged: {error}")), out),
            }
        }
        if matches!(self.state, State::Talking { .. }) {
            out.push(Action::Event(Event::Reinvited { status }));
            // The other side knows nothing of the dialog, or is gone (RFC 3261 §12.2.1.2).
            if matches!(status, 408 | 481) {
                self.bye(Some(format!("the re-INVITE was answered with {status}")), out);
            }
        }
    }

    fn may_answer_challenge(&self) -> bool {
        self.keyring.is_some()
            && self.challenges < MAX_CHALLENGES
            && matches!(self.state, State::Calling { .. } | State::Talking { .. } | State::Ending { .. })
    }

    fn challenged(&mut self, purpose: Purpose, response: &Message, cnonce: &str, out: &mut Vec<Action>) {
        self.challenges += 1;
        let Some(keyring) = &mut self.keyring else { return };
        let asker = if response.status() == Some(407) { Asker::Proxy } else { Asker::Server };
        let name = if asker == Asker::Proxy { Name::ProxyAuthenticate } else { Name::WwwAuthenticate };
        if let Err(error) = keyring.challenged(asker, response.values(name), cnonce) {
            return self.failed(purpose, error.into(), out);
        }
        match purpose {
            Purpose::Bye => self.send_bye(out),
            Purpose::Reinvite => self.send_reinvite(out),
            Purpose::Invite | Purpose::Surplus | Purpose::Register => self.start(out),
        }
    }

    fn send_bye(&mut self, out: &mut Vec<Action>) {
        let Some(session) = &mut self.session else { return };
        let bye = session.bye(&self.plan.user_agent);
        let bye = authorized(&mut self.keyring, bye, "BYE", session.dialog.target(), &[]);
        match bye.finish() {
            Ok(bye) => session.send(Purpose::Bye, bye, out),
            Err(error) => self.ended(Side::Us, Some(format!("no BYE: {error}")), out),
        }
    }

    fn send_reinvite(&mut self, out: &mut Vec<Action>) {
        let Some(session) = &mut self.session else { return };
        let body = match sdp::offer(&session.media) {
            Ok(body) => body,
            Err(error) => return self.bye(Some(error.to_string()), out),
        };
        let reinvite = session.reinvite(&self.plan.user_agent);
        let reinvite = authorized(&mut self.keyring, reinvite, "INVITE", session.dialog.target(), &body);
        match reinvite.body(SDP, body).finish() {
            Ok(reinvite) => session.send(Purpose::Reinvite, reinvite, out),
            Err(error) => self.bye(Some(format!("no re-INVITE: {error}")), out),
        }
    }

    /// Gives up: the user wants no more, or it has rung long enough.
    fn cancel(&mut self, by: Option<Side>, now: Instant, out: &mut Vec<Action>) {
        self.state = State::Cancelling { by, until: (!self.responded).then(|| now + SILENCE) };
        out.push(Action::Cancel);
    }

    fn given_up(&mut self, by: Option<Side>, out: &mut Vec<Action>) {
        match by {
            Some(by) => self.finish(Event::Cancelled(by), out),
            None => self.finish(Event::Failed(Failure::Timeout), out),
        }
    }

    fn bye(&mut self, fault: Option<String>, out: &mut Vec<Action>) {
        if matches!(self.state, State::Ending { .. } | State::Over) {
            return;
        }
        self.state = State::Ending { fault };
        self.send_bye(out);
    }

    fn ended(&mut self, by: Side, fault: Option<String>, out: &mut Vec<Action>) {
        let earlier = match &mut self.state {
            State::Ending { fault } => fault.take(),
            State::Over => return,
            _ => None,
        };
        self.finish(Event::Ended { by, fault: earlier.or(fault) }, out);
    }

    fn fail(&mut self, failure: Failure, out: &mut Vec<Action>) {
        self.finish(Event::Failed(failure), out);
    }

    fn finish(&mut self, event: Event, out: &mut Vec<Action>) {
        self.state = State::Over;
        out.push(Action::Event(event));
    }
}

/// The ACK of a 2xx, with the credentials of the INVITE (RFC 3261 §22.1, §13.2.2.4).
fn acknowledge(dialog: &Dialog, invite: &Message, out: &mut Vec<Action>) -> Result<(), ParseError> {
    let mut ack = dialog.ack(invite.cseq()?.number);
    for name in [Name::Authorization, Name::ProxyAuthorization] {
        for value in invite.values(name) {
            ack = ack.header(name, value);
        }
    }
    out.push(Action::Ack { request: ack.finish()?, next_hop: dialog.next_hop().to_owned() });
    Ok(())
}

/// The request with credentials for everybody who has asked for some.
pub(super) fn authorized(
    keyring: &mut Option<Keyring>,
    mut request: Request,
    method: &str,
    uri: &str,
    body: &[u8],
) -> Request {
    let Some(keyring) = keyring else { return request };
    for (asker, value) in keyring.credentials(&Protected { method, uri, body }) {
        let name = match asker {
            Asker::Server => Name::Authorization,
            Asker::Proxy => Name::ProxyAuthorization,
        };
        request = request.header(name, value);
    }
    request
}

/// A reason phrase as text.
pub(super) fn text(reason: &[u8]) -> String {
    String::from_utf8_lossy(reason).into_owned()
}

/// The URI of the first Contact, if any.
pub(super) fn contact_of(message: &Message) -> Option<String> {
    match message.contacts().next()? {
        Ok(Contact::Address(NameAddr { uri, .. })) => Some(uri.as_str().to_owned()),
        _ => None,
    }
}
