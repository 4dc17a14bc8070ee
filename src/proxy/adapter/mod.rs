//! The adapter: what makes an ordinary phone a user agent of the overlay. Pure.
//!
//! A phone registers here by digest, as with any registrar; it is one instance of its user, whose key the adapter
//! holds. Towards the overlay the phone's Contact is the overlay URL with the instance (`sip:alice@OVERLAY;gr=…`, RFC
//! 5627), so whatever comes later finds the way through any proxy peer; towards the phone a Record-Route of the adapter
//! keeps its requests coming here. Only the phone sees that one: it is added to what goes to the phone and taken out of
//! what comes from it. Which phone a request is from, and which one it is for, is read from these URIs, so the adapter
//! keeps state for registrations alone, none for a dialog.

mod registrar;
mod rewrite;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    net::SocketAddr,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use self::registrar::Line;
pub use self::registrar::{Answer, Change};
use super::{
    fork::{Place, Target},
    route::Realm,
    throttle::{Rate, Throttle},
};
use crate::{
    name::{Aor, InstanceId},
    sip::{
        Message, Method,
        digest::{Gate, Protected, Refusal, Secret, Terms},
        header::Name,
        transport::{Protocol, Remote, Source},
        uri::SipUri,
    },
};

/// The host of a From that tells nobody's name (RFC 3323 §4.1.1.3).
const ANONYMOUS: &str = "anonymous.invalid";

/// A phone that may register.
#[derive(Debug, Clone)]
pub struct Phone {
    /// Whose it is.
    pub aor: Aor,
    /// The name that it authenticates with, its own alone.
    pub user: String,
    /// What it proves to know.
    pub secret: Secret,
    /// The device that it is to the overlay.
    pub instance: InstanceId,
}

/// How an adapter behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who may register.
    pub phones: Vec<Phone>,
    /// The addresses that were bound for phones.
    pub listening: Vec<SocketAddr>,
    /// How phones are challenged.
    pub terms: Terms,
    /// Makes nonces; random.
    pub key: [u8; 32],
    /// How much one source may send.
    pub rate: Rate,
    /// For how long a phone may register: less is refused (423), more is shortened, so that a phone finds an adapter
    /// again that has been restarted.
    pub expires: RangeInclusive<Duration>,
    /// How long a routing record lives that nobody renews.
    pub record: Duration,
    /// Whether this process is no proxy peer besides: what leaves the overlay then goes to one.
    pub alone: bool,
}

/// What becomes of a request that a phone sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Nobody's in particular: as from anybody outside.
    Stranger,
    /// This phone's: the registrar answers it.
    Register(InstanceId),
    /// This phone's: it is passed on.
    Pass(InstanceId),
    /// Answered.
    Refuse {
        /// The status.
        status: u16,
        /// The reason phrase.
        reason: &'static str,
        /// Headers of the response.
        headers: Vec<(Name<'static>, String)>,
    },
}

impl Admission {
    const fn refuse(status: u16, reason: &'static str) -> Self {
        Self::Refuse { status, reason, headers: Vec::new() }
    }
}

/// The phones and what is known of them.
#[derive(Debug)]
pub struct Adapter {
    config: Config,
    gate: Gate,
    throttle: Throttle,
    lines: HashMap<InstanceId, Line>,
    by_user: HashMap<String, InstanceId>,
    by_aor: HashMap<Aor, Vec<InstanceId>>,
    /// Where phones can be reached: what comes from there is a phone's, on whatever port.
    remotes: HashMap<Remote, InstanceId>,
    deadlines: BinaryHeap<Reverse<(Instant, InstanceId)>>,
    changes: VecDeque<Change>,
    leaving: bool,
}

impl Adapter {
    /// No phone is registered yet. Of phones with the same user name or instance the last one counts.
    pub fn new(mut config: Config, now: Instant) -> Self {
        let mut adapter = Self {
            gate: Gate::new(config.terms.clone(), config.key, now),
            throttle: Throttle::new(config.rate),
            lines: HashMap::new(),
            by_user: HashMap::new(),
            by_aor: HashMap::new(),
            remotes: HashMap::new(),
            deadlines: BinaryHeap::new(),
            changes: VecDeque::new(),
            leaving: false,
            config: Config { phones: Vec::new(), ..config.clone() },
        };
        for phone in std::mem::take(&mut config.phones) {
            adapter.by_user.insert(phone.user.clone(), phone.instance);
            adapter.by_aor.entry(phone.aor.clone()).or_default().push(phone.instance);
            adapter.lines.insert(phone.instance, Line::new(phone));
        }
        adapter
    }

    /// Whether a message that came from there is a phone's, or somebody's who wants to be one.
    pub fn is_for_phones(&self, source: &Source) -> bool {
        source.protocol != Protocol::Overlay
            && (self.config.listening.iter().any(|own| own.port() == source.local.port())
                || self.remotes.contains_key(&source.remote))
    }

    /// Whether there is no proxy peer in this process.
    pub const fn is_alone(&self) -> bool {
        self.config.alone
    }

    /// Whether a user has phones here, registered or not.
    pub fn serves(&self, aor: &Aor) -> bool {
        self.by_aor.contains_key(aor)
    }

    /// Whether this device is a phone of the user here, registered or not.
    pub fn has(&self, aor: &Aor, instance: &InstanceId) -> bool {
        self.by_aor.get(aor).is_some_and(|phones| phones.contains(instance))
    }

    /// How many phones are registered.
    pub fn registered(&self) -> usize {
        self.lines.values().filter(|line| line.binding.is_some()).count()
    }

    /// Whether a request from there may be served now; if so, its source is charged for it.
    pub fn has_room(&mut self, remote: &Remote, now: Instant) -> bool {
        self.throttle.admit(remote, now)
    }

    /// Where the phones of a user are that are registered here: all of them, or one.
    pub fn targets(&self, aor: &Aor, instance: Option<&InstanceId>) -> Vec<(InstanceId, Target)> {
        let phones = self.by_aor.get(aor).map_or(&[][..], Vec::as_slice);
        let wanted = phones.iter().filter(|phone| instance.is_none_or(|wanted| wanted == *phone));
        let target = |phone: &InstanceId| {
            let binding = self.lines.get(phone)?.binding.as_ref()?;
            let target = Target { uri: Some(binding.uri.clone()), place: Place::Hops(binding.hops.clone()) };
            Some((*phone, target))
        };
        wanted.filter_map(target).collect()
    }

    /// Decides who sent a request. `salt` is random, for a challenge.
    ///
    /// REGISTER and what is outside of a dialog need credentials. In a dialog it is enough to come from the address that
    /// the phone registered from, by the Record-Route that names it: an ACK cannot be challenged.
    pub fn admit(&mut self, message: &Message, source: &Source, realm: &Realm, salt: u64, now: Instant) -> Admission {
        let Ok(uri) = message.uri() else { return Admission::Stranger };
        let ours = uri.sip().is_some_and(|uri| realm.is_ours(uri));
        let registers = message.method() == Method::Register;
        if message.method() == Method::Options && ours && uri.sip().is_some_and(|uri| uri.user.is_none()) {
            return Admission::Stranger;
        }
        let in_dialog = message.to().is_ok_and(|to| to.tag().is_some());
        if in_dialog
            && !registers
            && let Some(instance) = self.named_by_route(message, source, realm)
        {
            return Admission::Pass(instance);
        }
        let (asks, answers, status, reason) = if registers {
            (Name::WwwAuthenticate, Name::Authorization, 401, "Unauthorized")
        } else {
            (Name::ProxyAuthenticate, Name::ProxyAuthorization, 407, "Proxy Authentication Required")
        };
        let request = Protected {
            method: message.method().as_str(),
            uri: message.request_uri().unwrap_or_default(),
            body: message.body(),
        };
        let (lines, by_user) = (&self.lines, &self.by_user);
        let secret_of =
            |user: &str| by_user.get(user).and_then(|phone| lines.get(phone)).map(|line| &line.phone.secret);
        let user = match self.gate.check(message.values(answers), &request, secret_of, now) {
            Ok(user) => user,
            Err(Refusal::Malformed(_)) => return Admission::refuse(400, "Malformed Credentials"),
            Err(refusal) => {
                let challenges = self.gate.challenges(refusal.is_stale(), salt, now);
                let headers = challenges.into_iter().map(|challenge| (asks, challenge)).collect();
                return Admission::Refuse { status, reason, headers };
            }
        };
        let Some((instance, line)) = self.by_user.get(&user).and_then(|id| Some((*id, self.lines.get(id)?))) else {
            return Admission::refuse(403, "Forbidden");
        };
        if registers {
            return if ours {
                Admission::Register(instance)
            } else {
                Admission::refuse(403, "Not the Registrar of That")
            };
        }
        let from = message.from().ok().and_then(|from| from.uri.sip().copied());
        let is_own = |from: &SipUri<'_>| realm.user(from) == Some(Ok(line.phone.aor.clone()));
        if !from.is_some_and(|from| is_own(&from) || from.host.is_name(ANONYMOUS)) {
            return Admission::refuse(403, "From Is Not Yours");
        }
        // Nobody in the overlay takes anything from somebody without a routing record, nor could answer in a dialog.
        if line.binding.is_none() {
            return Admission::refuse(403, "Register First");
        }
        Admission::Pass(instance)
    }

    /// The phone that a Record-Route of ours named, if the request comes from where it registered.
    fn named_by_route(&self, message: &Message, source: &Source, realm: &Realm) -> Option<InstanceId> {
        let route = message.routes().next()?.ok()?;
        let uri = route.uri.sip().filter(|uri| realm.is_ours(uri))?;
        let instance: InstanceId = uri.user?.parse().ok()?;
        let binding = self.lines.get(&instance)?.binding.as_ref()?;
        (source.remote.ip() == Some(binding.ip)).then_some(instance)
    }

    /// Whose phone it is.
    pub fn aor(&self, instance: &InstanceId) -> Option<&Aor> {
        self.lines.get(instance).map(|line| &line.phone.aor)
    }
}
