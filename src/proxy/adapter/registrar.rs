//! Phones' registrations (RFC 3261 §10.3), and the routing records that follow from them.
//!
//! A phone has one contact, that of its last REGISTER. While it has one, its routing record is kept: written when it
//! registers, renewed in time, taken out when it unregisters or does not come back. A REGISTER is answered when its
//! record is stored; one that only refreshes touches nothing but the phone's own deadline, however often it comes.

use std::{
    cmp::Reverse,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Adapter, Phone};
use crate::{
    name::InstanceId,
    proxy::route::Realm,
    sip::{
        Message,
        header::{Contact, Name},
        transaction::ServerId,
        transport::{Hop, Protocol, Source},
        uri::{SipUri, Uri},
    },
};

/// REGISTERs of a phone that may wait for its record.
const MAX_WAITING: usize = 8;
/// The longest Contact URI.
const MAX_URI: usize = 512;
/// When a record that could not be stored is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// A phone and how things are with it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) phone: Phone,
    pub(super) binding: Option<Binding>,
    record: Record,
    /// REGISTERs that are answered once the record is as they want it.
    waiting: Vec<(ServerId, Message)>,
    /// The deadline that was noted last.
    noted: Option<Instant>,
}

/// Where a phone is.
#[derive(Debug)]
pub(super) struct Binding {
    /// Its Contact, which is the Request-URI that it gets.
    pub(super) uri: Arc<str>,
    /// How to get there.
    pub(super) hops: Vec<Hop>,
    /// Where it registered from.
    pub(super) ip: IpAddr,
    expires: Instant,
    /// Of the last REGISTER (RFC 3261 §10.3 step 7).
    call_id: String,
    sequence: u32,
}

/// What the overlay has of a phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Record {
    /// Nothing.
    Absent,
    /// A record is being written; `before`: in place of another one.
    Writing { before: bool },
    /// A record that is to be renewed at that time.
    Present { renew: Instant },
    /// A record is being taken out.
    Removing,
}

/// What an adapter wants done.
#[derive(Debug, Clone)]
pub enum Change {
    /// Answer a REGISTER.
    Answer(Answer),
    /// Write a phone's routing record, or take it out, and say [`Adapter::published`].
    Publish {
        /// The phone.
        instance: InstanceId,
        /// Whether it is there.
        present: bool,
    },
}

/// A final response to a REGISTER.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The transaction.
    pub server: ServerId,
    /// The request.
    pub message: Message,
    /// The status.
    pub status: u16,
    /// The reason phrase; the usual one if it is empty.
    pub reason: &'static str,
    /// Headers.
    pub headers: Vec<(Name<'static>, String)>,
}

/// What a REGISTER asks for.
enum Wish {
    /// To be told what there is.
    Query,
    /// To be there.
    Bind(Binding),
    /// To be gone.
    Remove,
}

/// Why a REGISTER is refused.
type Refused = (u16, &'static str, Vec<(Name<'static>, String)>);

impl Line {
    pub(super) const fn new(phone: Phone) -> Self {
        Self { phone, binding: None, record: Record::Absent, waiting: Vec::new(), noted: None }
    }

    /// When something is due.
    fn deadline(&self) -> Option<Instant> {
        let renew = match self.record {
            Record::Present { renew } => Some(renew),
            _ => None,
        };
        self.binding.as_ref().map(|binding| binding.expires).into_iter().chain(renew).min()
    }
}

impl Adapter {
    /// Takes a REGISTER of a phone.
    pub fn register(
        &mut self,
        instance: InstanceId,
        server: ServerId,
        message: Message,
        source: &Source,
        realm: &Realm,
        now: Instant,
    ) {
        let result = self.consider(&instance, &message, source, realm, now);
        let result = result.map(|wish| match wish {
            Wish::Query => {}
            Wish::Remove => self.bind(instance, None),
            Wish::Bind(binding) => self.bind(instance, Some(binding)),
        });
        let Some(line) = self.lines.get_mut(&instance) else { return };
        let refused = match result {
            Ok(()) => {
                let settled = matches!(
                    (&line.binding, line.record),
                    (Some(_), Record::Present { .. } | Record::Writing { before: true }) | (None, Record::Absent)
                );
                if settled {
                    None
                } else if line.waiting.len() < MAX_WAITING {
                    line.waiting.push((server, message));
                    self.follow(instance, now);
                    return;
                } else {
                    Some((503, "Too Many at Once", vec![(Name::RetryAfter, "5".to_owned())]))
                }
            }
            Err(refused) => Some(refused),
        };
        let answer = match refused {
            Some((status, reason, headers)) => Answer { server, message, status, reason, headers },
            None => line.granted(server, message, now),
        };
        self.changes.push_back(Change::Answer(answer));
        self.follow(instance, now);
    }

    fn consider(
        &self,
        instance: &InstanceId,
        message: &Message,
        source: &Source,
        realm: &Realm,
        now: Instant,
    ) -> Result<Wish, Refused> {
        let refuse = |status, reason| (status, reason, Vec::new());
        let line = self.lines.get(instance).ok_or_else(|| refuse(403, "Forbidden"))?;
        let to = message.to().map_err(|_| refuse(400, "Bad To"))?;
        let user = to.uri.sip().and_then(|uri| realm.user(uri));
        if user != Some(Ok(line.phone.aor.clone())) {
            return Err(refuse(403, "Not Your Address of Record"));
        }
        let cseq = message.cseq().map_err(|_| refuse(400, "Bad CSeq"))?;
        let call_id = message.call_id().map_err(|_| refuse(400, "Bad Call-ID"))?;
        if let Some(binding) = &line.binding
            && binding.expires > now
            && binding.call_id == call_id
            && binding.sequence >= cseq.number
        {
            return Err(refuse(500, "Out of Order"));
        }
        let (shortest, longest) = (*self.config.expires.start(), *self.config.expires.end());
        let general = message.expires().map_err(|_| refuse(400, "Bad Expires"))?;
        let mut wish = Wish::Query;
        for contact in message.contacts() {
            let contact = match contact.map_err(|_| refuse(400, "Bad Contact"))? {
                // RFC 3261 §10.3 step 6.
                Contact::All if general == Some(0) && message.count(Name::Contact) == 1 => return Ok(Wish::Remove),
                Contact::All => return Err(refuse(400, "Bad Contact")),
                Contact::Address(contact) => contact,
            };
            let expires = contact.expires().or(general).map_or(longest, |s| Duration::from_secs(s.into()));
            if expires.is_zero() {
                let is_bound =
                    |binding: &Binding| Uri::parse(&binding.uri).is_ok_and(|bound| bound.is_equivalent(&contact.uri));
                if matches!(wish, Wish::Query) && line.binding.as_ref().is_none_or(is_bound) {
                    wish = Wish::Remove;
                }
                continue;
            }
            if expires < shortest {
                let header = (Name::MinExpires, shortest.as_secs().max(1).to_string());
                return Err((423, "Interval Too Brief", vec![header]));
            }
            let uri = contact.uri.sip().ok_or_else(|| refuse(400, "Contact Is Not a SIP URI"))?;
            if uri.as_str().len() > MAX_URI || realm.is_ours(uri) {
                return Err(refuse(400, "Contact Cannot Be Reached"));
            }
            // A phone has one: the first that it names.
            if !matches!(wish, Wish::Bind(_)) {
                wish = Wish::Bind(Binding {
                    uri: uri.as_str().into(),
                    hops: hops(uri, source),
                    ip: source.remote.ip().ok_or_else(|| refuse(403, "Forbidden"))?,
                    expires: now + expires.min(longest),
                    call_id: call_id.to_owned(),
                    sequence: cseq.number,
                });
            }
        }
        Ok(wish)
    }

    /// What became of a record that was to be written or taken out.
    pub fn published(&mut self, instance: InstanceId, done: bool, now: Instant) {
        let record = self.config.record;
        let Some(line) = self.lines.get_mut(&instance) else { return };
        match line.record {
            Record::Writing { .. } if done => line.record = Record::Present { renew: now + record / 2 },
            Record::Writing { before: true } => line.record = Record::Present { renew: now + RETRY.min(record / 4) },
            Record::Writing { before: false } => {
                // Nobody could reach the phone, so it is not registered; it will try again.
                line.record = Record::Absent;
                let waiting = std::mem::take(&mut line.waiting);
                self.bind(instance, None);
                for (server, message) in waiting {
                    let headers = vec![(Name::RetryAfter, RETRY.as_secs().to_string())];
                    let answer = Answer { server, message, status: 503, reason: "Overlay Unreachable", headers };
                    self.changes.push_back(Change::Answer(answer));
                }
            }
            // One that could not be taken out expires.
            Record::Removing => line.record = Record::Absent,
            Record::Absent | Record::Present { .. } => {}
        }
        self.follow(instance, now);
    }

    /// When to call [`Adapter::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.peek().map(|Reverse((at, _))| *at)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(Reverse((at, instance))) = self.deadlines.peek().copied()
            && at <= now
        {
            self.deadlines.pop();
            if let Some(line) = self.lines.get_mut(&instance) {
                line.noted = None;
            }
            self.follow(instance, now);
        }
    }

    /// The next thing to do.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// Takes all records out: the adapter ends.
    pub fn leave(&mut self, now: Instant) {
        self.leaving = true;
        let instances: Vec<InstanceId> = self.lines.keys().copied().collect();
        for instance in instances {
            self.bind(instance, None);
            self.follow(instance, now);
        }
    }

    /// Whether nothing is under way, and if it is leaving, no record is left.
    pub fn is_idle(&self) -> bool {
        let busy = |line: &Line| match line.record {
            Record::Writing { .. } | Record::Removing => true,
            Record::Present { .. } => self.leaving,
            Record::Absent => false,
        };
        self.changes.is_empty() && !self.lines.values().any(busy)
    }

    /// Does what a phone's line needs now, and notes when to look again.
    fn follow(&mut self, instance: InstanceId, now: Instant) {
        let is_over = |line: &Line| line.binding.as_ref().is_some_and(|binding| binding.expires <= now);
        if self.lines.get(&instance).is_some_and(is_over) {
            self.bind(instance, None);
        }
        let Some(line) = self.lines.get_mut(&instance) else { return };
        match (line.record, &line.binding) {
            (Record::Absent, Some(_)) => line.record = Record::Writing { before: false },
            (Record::Present { renew }, Some(_)) if renew <= now => line.record = Record::Writing { before: true },
            (Record::Present { .. }, None) => line.record = Record::Removing,
            // What is settled, or is under way.
            (before, _) => {
                if matches!(before, Record::Absent | Record::Present { .. }) {
                    for (server, message) in std::mem::take(&mut line.waiting) {
                        let answer = line.granted(server, message, now);
                        self.changes.push_back(Change::Answer(answer));
                    }
                }
                self.note(instance);
                return;
            }
        }
        let present = line.binding.is_some();
        self.changes.push_back(Change::Publish { instance, present });
        self.note(instance);
    }

    /// Notes when a phone's line needs something next.
    fn note(&mut self, instance: InstanceId) {
        let Some(line) = self.lines.get_mut(&instance) else { return };
        if let Some(at) = line.deadline()
            && line.noted.is_none_or(|noted| at < noted)
        {
            line.noted = Some(at);
            self.deadlines.push(Reverse((at, instance)));
        }
    }

    /// Puts another binding in the place of a phone's.
    fn bind(&mut self, instance: InstanceId, binding: Option<Binding>) {
        let Some(line) = self.lines.get_mut(&instance) else { return };
        for hop in line.binding.iter().flat_map(|old| &old.hops) {
            self.remotes.remove(&hop.remote);
        }
        for hop in binding.iter().flat_map(|new| &new.hops) {
            self.remotes.insert(hop.remote, instance);
        }
        line.binding = binding;
    }
}

impl Line {
    /// The answer that says what there is.
    fn granted(&self, server: ServerId, message: Message, now: Instant) -> Answer {
        let contact = self.binding.iter().map(|binding| {
            let left = binding.expires.saturating_duration_since(now).as_secs_f64().ceil();
            (Name::Contact, format!("<{}>;expires={left}", binding.uri))
        });
        Answer { server, message, status: 200, reason: "", headers: contact.collect() }
    }
}

/// How to get to a phone: over the connection that it registered on; to its Contact if that has the address it came
/// from; otherwise, behind a NAT, to where it came from.
fn hops(uri: &SipUri<'_>, source: &Source) -> Vec<Hop> {
    let back = source.way_back();
    let named = match uri.transport() {
        Some(token) => Protocol::from_token(token.as_bytes()),
        None if uri.secure => Some(Protocol::Tls),
        None => Some(Protocol::Udp),
    };
    let protocol = named.filter(|protocol| *protocol != Protocol::Overlay).unwrap_or(source.protocol);
    let direct = uri.host.ip().filter(|ip| source.remote.ip() == Some(*ip)).map(|ip| Hop {
        local: Some(source.local),
        ..Hop::socket(protocol, (ip, uri.port.unwrap_or(protocol.default_port())).into())
    });
    match direct {
        Some(direct) if source.protocol.is_reliable() && direct.protocol == source.protocol => vec![back, direct],
        Some(direct) => vec![direct],
        None => vec![back],
    }
}
