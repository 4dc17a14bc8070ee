//! A binding at a registrar (RFC 3261 §10.2): made, answered for when challenged, refreshed, and removed.
//!
//! Draft §4.2: what is bound is the overlay URL, and every REGISTER goes through a proxy peer. The machine knows neither
//! transactions nor transports; when the connection by which the last response came ends, it asks to be bound again,
//! because whatever a registrar has noted of the proxy peer at its other end is void then.

use std::time::{Duration, Instant};

use super::{
    Action, Failure, NextHop, Purpose,
    call::{authorized, text},
    contact::is_secure,
};
use crate::sip::{
    Message, Method,
    compose::Request,
    digest::{Algorithm, Asker, Challenge, DigestError, Keyring, User},
    header::{Contact, Name},
    transport::{FlowId, Remote, Source},
    uri::{SipUri, Uri},
};

/// Challenges met in one attempt: each proxy may have one, and a nonce may be stale.
const MAX_CHALLENGES: u32 = 4;
/// Redirections followed in one attempt.
const MAX_REDIRECTS: u32 = 3;
/// How long before its end a binding is refreshed, or else halfway.
const MARGIN: Duration = Duration::from_secs(60);
/// The pause before another attempt; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest such pause, unless the registrar asks for more.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// What a registrar may ask for with Retry-After.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(600);
/// Bindings of the address of record that are told of.
const MAX_BINDINGS: usize = 64;

/// What to bind, and where.
#[derive(Debug, Clone)]
pub struct RegisterPlan {
    /// The address of record, for To and From.
    pub aor: String,
    /// The registrar, for the Request-URI: the domain of the address of record (RFC 3261 §10.2).
    pub registrar: String,
    /// What it is bound to: the overlay URL.
    pub contact: String,
    /// Values of Route.
    pub routes: Vec<String>,
    /// Who we are to those that challenge us.
    pub user: Option<User>,
    /// For how long it is to hold; rounded down to seconds.
    pub expires: Duration,
    /// Whether to refresh it before it ends, and to try again what was in vain.
    pub keep: bool,
    /// How long one attempt may take.
    pub patience: Duration,
    /// For User-Agent.
    pub user_agent: String,
}

/// What a registrar has bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// For how long.
    pub granted: Duration,
    /// Everything that the address of record is bound to: the URI of each Contact.
    pub contacts: Vec<String>,
    /// Who passed the answer on.
    pub by: Remote,
    /// Where the registrar's redirection led, if it sent one.
    pub redirected: Option<String>,
}

/// What happens to a binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegisterEvent {
    /// Somebody asks who we are, and is answered.
    Challenged {
        /// Its realm.
        realm: String,
        /// The hash.
        algorithm: Algorithm,
    },
    /// It is made, or refreshed.
    Bound(Binding),
    /// It is gone.
    Removed {
        /// What the address of record is still bound to.
        contacts: Vec<String>,
    },
    /// The connection to the proxy peer has ended; another attempt begins.
    Lost,
    /// An attempt was in vain.
    Failed {
        /// Why.
        fault: RegisterFault,
        /// When there will be another one.
        again: Option<Duration>,
    },
}

/// Why there is no binding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterFault {
    /// A final response that ends it.
    #[error("{status} {reason}")]
    Refused {
        /// 400 to 699.
        status: u16,
        /// Its reason phrase.
        reason: String,
    },
    /// A challenge, and nobody to answer as.
    #[error("the realm '{0}' asks for a password; give one with --password-file")]
    NoPassword(String),
    /// A challenge that cannot be met; a wrong password.
    #[error("{0}")]
    Digest(#[from] DigestError),
    /// Challenges without an end.
    #[error("it asks for a password again and again, last for the realm '{0}'")]
    Challenges(String),
    /// The registrar's 200 does not have the binding.
    #[error("the registrar says 200 and has not bound {0}")]
    NotBound(String),
    /// The registrar's 200 to a removal still has the binding.
    #[error("the registrar says 200 and has {0} bound still")]
    StillBound(String),
    /// A redirection that leads nowhere, or on and on.
    #[error("it is redirected: {0}")]
    Redirected(String),
    /// No response, or none that could be used.
    #[error("{0}")]
    Failure(#[from] Failure),
}

impl RegisterFault {
    /// Whether it may go better another time with nothing changed.
    pub const fn is_temporary(&self) -> bool {
        match self {
            Self::Failure(failure) => !matches!(failure, Failure::Challenge(_)),
            // The proxy peer, its search for the registrar, or the registrar itself could not.
            Self::Refused { status, .. } => matches!(status, 408 | 480 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }
}

/// An attempt under way.
#[derive(Debug)]
struct Attempt {
    until: Instant,
    /// The Request-URI.
    target: String,
    /// Seconds asked for.
    expires: u32,
    challenges: u32,
    redirects: u32,
    /// Whether the registrar's Min-Expires is met already.
    raised: bool,
}

#[derive(Debug)]
enum State {
    Trying(Attempt),
    /// Bound, or waiting for another attempt at this time.
    Waiting(Option<Instant>),
}

/// One binding of ours.
#[derive(Debug)]
pub(super) struct Registration {
    plan: RegisterPlan,
    keyring: Option<Keyring>,
    call_id: String,
    tag: String,
    cseq: u32,
    state: State,
    /// What the last response came on.
    flow: Option<FlowId>,
    /// Attempts in vain since the last good one.
    failures: u32,
}

impl Registration {
    /// A binding that is not asked for yet; [`Registration::start`] does. `call_id` and `tag` are unique tokens.
    pub fn new(plan: RegisterPlan, call_id: String, tag: String) -> Self {
        let keyring = plan.user.clone().map(Keyring::new);
        Self { plan, keyring, call_id, tag, cseq: 0, state: State::Waiting(None), flow: None, failures: 0 }
    }

    pub fn tag(&self) -> &str {
        &self.tag
    }

    pub fn call_id(&self) -> &str {
        &self.call_id
    }

    /// Begins an attempt.
    pub fn start(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.state = State::Trying(Attempt {
            until: now + self.plan.patience,
            target: self.plan.registrar.clone(),
            expires: u32::try_from(self.plan.expires.as_secs()).unwrap_or(u32::MAX),
            challenges: 0,
            redirects: 0,
            raised: false,
        });
        self.send(now, out);
    }

    /// Removes the binding instead of refreshing it.
    pub fn remove(&mut self, now: Instant, out: &mut Vec<Action>) {
        (self.plan.expires, self.plan.keep) = (Duration::ZERO, false);
        self.start(now, out);
    }

    /// Whether a connection is the one by which the last response came.
    pub fn uses(&self, flow: FlowId) -> bool {
        self.flow == Some(flow)
    }

    /// The connection to the proxy peer has ended while nothing was under way.
    pub fn lost(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.flow = None;
        if self.plan.keep && matches!(self.state, State::Waiting(Some(_))) {
            out.push(Action::Registration(RegisterEvent::Lost));
            self.start(now, out);
        }
    }

    /// A response to our REGISTER. `cnonce` is a token that nobody can guess.
    pub fn response(&mut self, response: &Message, source: &Source, now: Instant, cnonce: &str, out: &mut Vec<Action>) {
        let State::Trying(attempt) = &mut self.state else { return };
        if response.cseq().map(|cseq| cseq.number) != Ok(self.cseq) {
            return;
        }
        self.flow = Some(source.flow);
        let status = response.status().unwrap_or_default();
        let fault = match status {
            ..200 => return,
            200..300 => return self.success(response, source, now, out),
            300..=399 => match redirection(response, attempt) {
                Ok(target) => {
                    (attempt.target, attempt.redirects) = (target, attempt.redirects + 1);
                    return self.send(now, out);
                }
                Err(why) => RegisterFault::Redirected(why),
            },
            401 | 407 => match self.challenged(response, cnonce) {
                Ok((realm, algorithm)) => {
                    out.push(Action::Registration(RegisterEvent::Challenged { realm, algorithm }));
                    return self.send(now, out);
                }
                Err(fault) => fault,
            },
            423 if !attempt.raised && attempt.expires > 0 => match response.min_expires() {
                Ok(Some(least)) if least > attempt.expires => {
                    (attempt.expires, attempt.raised) = (least, true);
                    return self.send(now, out);
                }
                _ => refused(response, status),
            },
            _ => refused(response, status),
        };
        let asked = response.retry_after().ok().flatten().map(|after| Duration::from_secs(after.seconds.into()));
        self.fail(fault, asked, now, out);
    }

    /// The request has come to nothing.
    pub fn failed(&mut self, failure: Failure, now: Instant, out: &mut Vec<Action>) {
        if matches!(self.state, State::Trying(_)) {
            self.fail(failure.into(), None, now, out);
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Trying(attempt) => Some(attempt.until),
            State::Waiting(until) => *until,
        }
    }

    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Action>) {
        match &self.state {
            State::Trying(attempt) if now >= attempt.until => self.fail(Failure::Timeout.into(), None, now, out),
            State::Waiting(Some(until)) if now >= *until => self.start(now, out),
            _ => {}
        }
    }

    /// Sends the REGISTER of the attempt.
    fn send(&mut self, now: Instant, out: &mut Vec<Action>) {
        let State::Trying(attempt) = &self.state else { return };
        self.cseq += 1;
        let plan = &self.plan;
        let mut request = Request::new(Method::Register, &attempt.target);
        for route in &plan.routes {
            request = request.header(Name::Route, route);
        }
        request = request
            .header(Name::MaxForwards, "70")
            .header(Name::From, format!("<{}>;tag={}", plan.aor, self.tag))
            .header(Name::To, format!("<{}>", plan.aor))
            .header(Name::CallId, &self.call_id)
            .header(Name::CSeq, format!("{} REGISTER", self.cseq))
            .header(Name::Contact, format!("<{}>", plan.contact))
            .header(Name::Expires, attempt.expires.to_string())
            .header(Name::UserAgent, &plan.user_agent);
        let request = authorized(&mut self.keyring, request, "REGISTER", &attempt.target, &[]);
        let first = plan.routes.first().and_then(|route| route.strip_prefix('<')?.split('>').next());
        let next_hop = NextHop::Uri(first.unwrap_or(&attempt.target).to_owned());
        match request.finish() {
            Ok(request) => out.push(Action::Request { purpose: Purpose::Register, request, next_hop }),
            Err(error) => self.fail(Failure::Malformed(error.to_string()).into(), None, now, out),
        }
    }

    fn success(&mut self, response: &Message, source: &Source, now: Instant, out: &mut Vec<Action>) {
        let State::Trying(attempt) = &self.state else { return };
        let (asked, redirected) = (attempt.expires, attempt.redirects > 0);
        let mut contacts = Vec::new();
        let mut granted = None;
        for contact in response.contacts().take(MAX_BINDINGS) {
            let Ok(Contact::Address(address)) = contact else { continue };
            contacts.push(address.uri.as_str().to_owned());
            if Uri::parse(&self.plan.contact).is_ok_and(|own| own.is_equivalent(&address.uri)) {
                // RFC 3261 §10.2.4: the Contact's own, else the header's, else what was asked for. What is still listed
                // after a removal without any time is still bound.
                let seconds = address.expires().or_else(|| response.expires().ok().flatten());
                granted = Some(seconds.unwrap_or(asked.max(1)));
            }
        }
        let fault = match (granted, asked) {
            (None | Some(0), 0) => {
                (self.state, self.failures) = (State::Waiting(None), 0);
                return out.push(Action::Registration(RegisterEvent::Removed { contacts }));
            }
            (Some(_), 0) => RegisterFault::StillBound(self.plan.contact.clone()),
            (None | Some(0), _) => RegisterFault::NotBound(self.plan.contact.clone()),
            (Some(seconds), _) => {
                let granted = Duration::from_secs(seconds.into());
                let redirected = redirected.then(|| attempt.target.clone());
                let next = self.plan.keep.then(|| now + granted - MARGIN.min(granted / 2));
                (self.state, self.failures) = (State::Waiting(next), 0);
                let binding = Binding { granted, contacts, by: source.remote, redirected };
                return out.push(Action::Registration(RegisterEvent::Bound(binding)));
            }
        };
        self.fail(fault, None, now, out);
    }

    /// Takes a challenge up; says whose it is.
    fn challenged(&mut self, response: &Message, cnonce: &str) -> Result<(String, Algorithm), RegisterFault> {
        let State::Trying(attempt) = &mut self.state else { return Err(Failure::Timeout.into()) };
        attempt.challenges += 1;
        let asker = if response.status() == Some(407) { Asker::Proxy } else { Asker::Server };
        let name = if asker == Asker::Proxy { Name::ProxyAuthenticate } else { Name::WwwAuthenticate };
        // The one that will be answered, if any can be.
        let strongest = response.values(name).filter_map(|value| Challenge::parse(value).ok());
        let strongest = strongest.max_by_key(Challenge::algorithm);
        let realm = strongest.as_ref().map(|challenge| challenge.realm().to_owned()).unwrap_or_default();
        let Some(keyring) = &mut self.keyring else { return Err(RegisterFault::NoPassword(realm)) };
        if attempt.challenges > MAX_CHALLENGES {
            return Err(RegisterFault::Challenges(realm));
        }
        keyring.challenged(asker, response.values(name), cnonce)?;
        Ok((realm, strongest.map_or(Algorithm::Md5, |challenge| challenge.algorithm())))
    }

    /// The attempt was in vain.
    fn fail(&mut self, fault: RegisterFault, asked: Option<Duration>, now: Instant, out: &mut Vec<Action>) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(5)).min(LONGEST_PAUSE);
        let pause = pause.max(asked.unwrap_or_default().min(LONGEST_RETRY_AFTER));
        let again = (self.plan.keep && fault.is_temporary()).then_some(pause);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting(again.map(|after| now + after));
        out.push(Action::Registration(RegisterEvent::Failed { fault, again }));
    }
}

fn refused(response: &Message, status: u16) -> RegisterFault {
    RegisterFault::Refused { status, reason: text(response.reason()) }
}

/// Where a 3xx leads (RFC 3261 §8.1.3.4): the URI of its first Contact, without user part and headers as a registrar's
/// is.
fn redirection(response: &Message, attempt: &Attempt) -> Result<String, String> {
    let status = response.status().unwrap_or_default();
    if attempt.redirects >= MAX_REDIRECTS {
        return Err(format!("{status}, more than {MAX_REDIRECTS} times"));
    }
    let target = response.contacts().find_map(|contact| match contact {
        Ok(Contact::Address(address)) => address.uri.sip().map(registrar_of),
        _ => None,
    });
    let target = target.ok_or_else(|| format!("{status} does not say where to"))?;
    if is_secure(&attempt.target) && !is_secure(&target) {
        return Err(format!("{status} leads from sips to {target}"));
    }
    Ok(target)
}

/// The registrar of an address of record: the same URI without the user part (RFC 3261 §10.2) and without headers.
pub fn registrar_of(uri: &SipUri<'_>) -> String {
    let scheme = if uri.secure { "sips" } else { "sip" };
    let port = uri.port.map(|port| format!(":{port}")).unwrap_or_default();
    let params = uri.params.iter().map(|(name, value)| match value {
        Some(value) => format!(";{name}={value}"),
        None => format!(";{name}"),
    });
    format!("{scheme}:{}{port}{}", uri.host, params.collect::<String>())
}

#[cfg(test)]
mod tests;
