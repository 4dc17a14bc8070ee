//! Where users of the overlay are: what lookups have found, for a few seconds, and who waits for one. Pure.
//!
//! A call needs several messages within a second, so looking a user up for each would ask the overlay the same thing
//! again and again. What is remembered here has been verified, and is forgotten as soon as a hop to it fails.
//!
//! A lookup is a walk through the overlay, which costs others more than its request costs whoever sends that. So each is
//! charged to its source, and given back if it led to somebody: a trunk that calls a thousand users a second is not
//! limited by it, and who makes names up is soon refused.

use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    client::Verdict,
    name::{Aor, InstanceId, PeerId},
    overlay::lookup::LookupOutcome,
    proxy::{
        engine::{Located, Question},
        fork::{Place, Target},
        route::Instance,
        throttle::{Rate, Throttle},
    },
    record::{Body, Contact},
    sip::transport::{Hop, Remote},
};

/// How long a user's contacts are believed without asking again.
const FRESH: Duration = Duration::from_secs(5);
/// How long it is believed that a user is not there. Also how long somebody who has just registered may not be reached
/// by those who were called in vain before.
const ABSENT: Duration = Duration::from_secs(2);
/// Lookups of one source that lead to nobody. At once half of all [`MAX_LOOKUPS`], so that others find room whatever
/// one source does; in a second as many walks as any peer may cause.
const IN_VAIN: Rate = Rate { per_second: 50.0, burst: 512.0 };
/// Users that are remembered.
const MAX_USERS: usize = 10_000;
/// Lookups at a time.
const MAX_LOOKUPS: usize = 1_024;
/// Questions that may wait for one lookup.
const MAX_WAITING: usize = 4_096;
/// Peers of which it is remembered whose they were.
const MAX_PEERS: usize = 10_000;
/// Users of one peer that are remembered.
const USERS_OF_PEER: usize = 8;
/// Contacts of one user that are tried.
const MAX_TARGETS: usize = 32;

/// What a lookup came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// The contacts, with the instance that each is of.
    Contacts(Vec<(InstanceId, Contact)>),
    /// Nobody is registered, and enough storers say so.
    Absent,
    /// There are records, and none can be believed, or too many can.
    Doubtful,
    /// Too few storers answered.
    NobodyToAsk,
    /// Nobody was asked: too many lookups are under way, or the source has caused too many.
    TooMany,
}

impl From<LookupOutcome> for Found {
    fn from(outcome: LookupOutcome) -> Self {
        if outcome.contested {
            return Self::Doubtful;
        }
        match outcome.reply.verdict {
            Verdict::NotFound => Self::Absent,
            Verdict::Untrusted => Self::Doubtful,
            Verdict::NobodyToAsk => Self::NobodyToAsk,
            Verdict::Found => Self::Contacts(
                outcome
                    .records
                    .iter()
                    .flat_map(|record| match record.body() {
                        Body::User { contacts } => {
                            contacts.iter().map(|contact| (*record.instance(), contact.clone())).collect()
                        }
                        Body::Service(_) | Body::Removed => Vec::new(),
                    })
                    .collect(),
            ),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Contacts(contacts) if contacts.len() == 1 => f.write_str("1 contact"),
            Self::Contacts(contacts) => write!(f, "{} contacts", contacts.len()),
            Self::Absent => f.write_str("nobody"),
            Self::Doubtful => f.write_str("nothing to be trusted"),
            Self::NobodyToAsk => f.write_str("no answer"),
            Self::TooMany => f.write_str("too many lookups"),
        }
    }
}

impl Found {
    /// Whether the peer is a contact.
    pub(super) fn has(&self, wanted: &PeerId) -> bool {
        let Self::Contacts(contacts) = self else { return false };
        contacts.iter().any(|(_, contact)| matches!(contact, Contact::Overlay { peer, .. } if peer == wanted))
    }

    /// The contacts as targets, in groups of the same preference, the most preferred first (RFC 3261 §16.6).
    fn targets(&self, instance: Option<Instance>) -> Located {
        let nowhere = |status, reason| Located::Nowhere { status, reason };
        let contacts = match self {
            Self::Contacts(contacts) => contacts,
            // RFC 5627 §5.3: a device that is gone may come back.
            Self::Absent if instance.is_some() => return nowhere(480, "Device Gone"),
            Self::Absent => return nowhere(404, "Not Found"),
            Self::Doubtful => return nowhere(480, "No Trustworthy Registration"),
            Self::NobodyToAsk => return nowhere(503, "Overlay Unreachable"),
            Self::TooMany => return nowhere(503, "Too Many Lookups"),
        };
        let wanted = |id: &InstanceId| match instance {
            None => true,
            Some(Instance::Id(wanted)) => *id == wanted,
            Some(Instance::Unknown) => false,
        };
        let mut contacts: Vec<&Contact> =
            contacts.iter().filter(|(id, _)| wanted(id)).map(|(_, contact)| contact).collect();
        contacts.sort_by_key(|contact| std::cmp::Reverse(contact.q()));
        // One process may have several devices of the user, and knows itself which are meant.
        let mut met = std::collections::HashSet::new();
        contacts.retain(|contact| match contact {
            Contact::Overlay { peer, .. } => met.insert(*peer),
            Contact::Sip { .. } => true,
        });
        contacts.truncate(MAX_TARGETS);
        if contacts.is_empty() {
            return nowhere(480, if instance.is_some() { "Device Gone" } else { "Temporarily Unavailable" });
        }
        let groups = contacts.chunk_by(|one, other| one.q() == other.q());
        Located::Groups(groups.map(|group| group.iter().map(|contact| target(contact)).collect()).collect())
    }
}

fn target(contact: &Contact) -> Target {
    match contact {
        Contact::Overlay { peer, addresses, .. } => {
            Target { uri: None, place: Place::Hops(vec![Hop::peer(*peer, addresses.clone())]) }
        }
        Contact::Sip { uri, .. } => {
            let uri: Arc<str> = uri.as_str().into();
            Target { uri: Some(uri.clone()), place: Place::Uri(uri) }
        }
    }
}

/// Somebody who waits for a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    /// Where do requests for the user go?
    Contacts(Question, Option<Instance>),
    /// Is this peer the user's?
    Membership(Question, PeerId),
}

impl Waiting {
    /// Whether what is remembered answers the question. That a peer is not the user's does not: a user agent calls as
    /// soon as it has registered. How often a source may ask is limited elsewhere.
    fn is_settled_by(&self, found: &Found) -> bool {
        match self {
            Self::Contacts(..) => true,
            Self::Membership(_, peer) => found.has(peer),
        }
    }

    /// Whether what a lookup has found is what it was for.
    fn is_served_by(&self, found: &Found) -> bool {
        match self {
            Self::Contacts(..) => matches!(found, Found::Contacts(_)),
            Self::Membership(_, peer) => found.has(peer),
        }
    }

    fn reply(self, aor: &Aor, found: &Found) -> Reply {
        match self {
            Self::Contacts(question, instance) => Reply::Located(question, found.targets(instance)),
            Self::Membership(question, peer) => {
                Reply::Identified(question, if found.has(&peer) { vec![aor.clone()] } else { Vec::new() })
            }
        }
    }
}

/// What a question got.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Located(Question, Located),
    Identified(Question, Vec<Aor>),
}

#[derive(Debug)]
enum Entry {
    Known(Found, Instant),
    /// Who waits, the one who caused the lookup first, and who was charged for it.
    LookedUp(Vec<Waiting>, Remote),
}

/// What is to be done about a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is answered.
    Answer(Reply),
    /// The user is to be looked up, and [`Directory::found`] to be told.
    LookUp,
    /// A lookup that is under way will answer it.
    Wait,
}

/// What is known of users.
#[derive(Debug)]
pub(super) struct Directory {
    users: HashMap<Aor, Entry>,
    lookups: usize,
    /// What the sources of lookups may cause in vain.
    throttle: Throttle,
    /// Whose a peer was when somebody last asked: where to look, never what to believe.
    peers: HashMap<PeerId, Vec<Aor>>,
    /// Questions that were answered from memory.
    pub(super) spared: u64,
    /// Questions that were not answered for the sake of others: too many lookups in vain of one source, or in all.
    pub(super) refused: u64,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            users: HashMap::new(),
            lookups: 0,
            throttle: Throttle::new(IN_VAIN),
            peers: HashMap::new(),
            spared: 0,
            refused: 0,
        }
    }
}

impl Directory {
    /// Answers a question about a user, which has come from `source`, or says what has to happen first.
    pub(super) fn ask(&mut self, aor: &Aor, who: Waiting, source: &Remote, now: Instant) -> Next {
        match self.users.get_mut(aor) {
            Some(Entry::Known(found, until)) if *until > now && who.is_settled_by(found) => {
                self.spared += 1;
                let reply = who.reply(aor, found);
                self.remember(aor, who, &reply);
                return Next::Answer(reply);
            }
            Some(Entry::LookedUp(waiting, _)) if waiting.len() < MAX_WAITING => {
                waiting.push(who);
                return Next::Wait;
            }
            Some(Entry::LookedUp(..)) => return Next::Answer(self.refuse(aor, who)),
            Some(Entry::Known(..)) | None => {}
        }
        if self.lookups >= MAX_LOOKUPS || !self.has_room(aor, now) || !self.throttle.admit(source, now) {
            return Next::Answer(self.refuse(aor, who));
        }
        self.lookups += 1;
        self.users.insert(aor.clone(), Entry::LookedUp(vec![who], *source));
        Next::LookUp
    }

    /// What a lookup came to; answers everybody who has waited for it.
    pub(super) fn found(&mut self, aor: &Aor, found: &Found, now: Instant) -> Vec<Reply> {
        let Some(Entry::LookedUp(waiting, source)) = self.users.remove(aor) else { return Vec::new() };
        self.lookups = self.lookups.saturating_sub(1);
        if waiting.first().is_some_and(|who| who.is_served_by(found)) {
            self.throttle.give_back(&source);
        }
        let fresh = match found {
            Found::Contacts(_) => FRESH,
            Found::Absent | Found::Doubtful => ABSENT,
            Found::NobodyToAsk | Found::TooMany => Duration::ZERO,
        };
        if !fresh.is_zero() {
            self.users.insert(aor.clone(), Entry::Known(found.clone(), now + fresh));
        }
        let replies = waiting.into_iter().map(|who| {
            let reply = who.reply(aor, found);
            self.remember(aor, who, &reply);
            reply
        });
        replies.collect()
    }

    fn refuse(&mut self, aor: &Aor, who: Waiting) -> Reply {
        self.refused += 1;
        who.reply(aor, &Found::TooMany)
    }

    /// Forgets what led to a peer that could not be reached: it may have moved.
    pub(super) fn failed(&mut self, peer: &PeerId) {
        self.users.retain(|_, entry| !matches!(entry, Entry::Known(found, _) if found.has(peer)));
    }

    /// The users whose a peer was when it last was anybody's.
    pub(super) fn users_of(&self, peer: &PeerId) -> &[Aor] {
        self.peers.get(peer).map_or(&[], Vec::as_slice)
    }

    /// Notes whose a peer has proved to be.
    fn remember(&mut self, aor: &Aor, who: Waiting, reply: &Reply) {
        let (Waiting::Membership(_, peer), Reply::Identified(_, users)) = (who, reply) else { return };
        if users.is_empty() {
            return;
        }
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&peer) {
            self.peers.clear();
        }
        let users = self.peers.entry(peer).or_default();
        users.retain(|user| user != aor);
        users.insert(0, aor.clone());
        users.truncate(USERS_OF_PEER);
    }

    /// Makes room for one more user, if there is none, by forgetting what is stale, or else those who are not there, or
    /// else all who are not being looked up.
    fn has_room(&mut self, aor: &Aor, now: Instant) -> bool {
        if self.users.len() < MAX_USERS || self.users.contains_key(aor) {
            return true;
        }
        self.users.retain(|_, entry| !matches!(entry, Entry::Known(_, until) if *until <= now));
        if self.users.len() >= MAX_USERS {
            self.users.retain(|_, entry| matches!(entry, Entry::LookedUp(..) | Entry::Known(Found::Contacts(_), _)));
        }
        if self.users.len() >= MAX_USERS {
            self.users.retain(|_, entry| matches!(entry, Entry::LookedUp(..)));
        }
        self.users.len() < MAX_USERS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::MAX_Q;

    fn aor(user: impl fmt::Display) -> Aor {
        Aor::parse(&format!("sip:{user}@p2psip.org")).unwrap()
    }

    fn remote(ip: u8) -> Remote {
        Remote::socket(([192, 0, 2, ip], 5060).into())
    }

    fn there(peer: u8) -> Found {
        let peer = PeerId::from_public_key([peer; 32]);
        Found::Contacts(vec![(InstanceId::of_key(&[1; 32]), Contact::Overlay { peer, addresses: vec![], q: MAX_Q })])
    }

    const fn call() -> Waiting {
        Waiting::Contacts(Question::new(0, 1), None)
    }

    fn status(next: Next) -> Option<u16> {
        match next {
            Next::Answer(Reply::Located(_, Located::Nowhere { status, .. })) => Some(status),
            Next::Answer(_) => Some(200),
            Next::LookUp | Next::Wait => None,
        }
    }

    #[test]
    fn who_makes_names_up_is_refused_and_others_are_served() {
        let (mut directory, now) = (Directory::default(), Instant::now());
        let burst = IN_VAIN.burst as u32;
        for n in 0..burst {
            assert_eq!(directory.ask(&aor(n), call(), &remote(1), now), Next::LookUp, "{n}");
            directory.found(&aor(n), &Found::Absent, now);
        }
        assert_eq!(status(directory.ask(&aor("x"), call(), &remote(1), now)), Some(503));
        assert_eq!(status(directory.ask(&aor(0), call(), &remote(1), now)), Some(404), "what is known costs nothing");
        assert_eq!(directory.ask(&aor("x"), call(), &remote(2), now), Next::LookUp);
        assert_eq!(directory.ask(&aor("x"), call(), &remote(1), now), Next::Wait);
        assert_eq!((directory.refused, directory.spared), (1, 1));
        // A member that says to be others is no better.
        let claim = Waiting::Membership(Question::new(0, 2), PeerId::from_public_key([9; 32]));
        for n in 0..burst {
            assert_eq!(directory.ask(&aor(n), claim, &remote(3), now), Next::LookUp, "{n}");
            directory.found(&aor(n), &there(1), now);
        }
        let refused = Next::Answer(Reply::Identified(Question::new(0, 2), Vec::new()));
        assert_eq!(directory.ask(&aor("y"), claim, &remote(3), now), refused);
        let later = now + Duration::from_secs(1);
        assert_eq!(directory.ask(&aor("y"), call(), &remote(1), later), Next::LookUp);
    }

    #[test]
    fn a_source_has_half_of_the_lookups_at_a_time_and_gets_back_those_that_find_somebody() {
        let (mut directory, now) = (Directory::default(), Instant::now());
        let burst = IN_VAIN.burst as u32;
        assert!(burst as usize <= MAX_LOOKUPS / 2);
        for n in 0..10 * burst {
            assert_eq!(directory.ask(&aor(n), call(), &remote(1), now), Next::LookUp, "{n}");
            if n >= burst - 1 {
                directory.found(&aor(n + 1 - burst), &there(1), now);
            }
        }
    }

    #[test]
    fn that_somebody_is_not_there_is_believed_for_two_seconds() {
        let (mut directory, now) = (Directory::default(), Instant::now());
        directory.ask(&aor("bob"), call(), &remote(1), now);
        directory.found(&aor("bob"), &Found::Absent, now);
        let after = |millis| now + Duration::from_millis(millis);
        assert_eq!(status(directory.ask(&aor("bob"), call(), &remote(2), after(1_999))), Some(404));
        assert_eq!(directory.ask(&aor("bob"), call(), &remote(2), after(2_000)), Next::LookUp);
    }

    #[test]
    fn a_flood_of_names_drives_nobody_out_who_is_there() {
        let (mut directory, now) = (Directory::default(), Instant::now());
        directory.ask(&aor("bob"), call(), &remote(1), now);
        directory.found(&aor("bob"), &there(1), now);
        for n in 0..2 * MAX_USERS {
            // Each from another source.
            let source = Remote::socket((std::net::Ipv4Addr::from(n as u32), 5060).into());
            directory.ask(&aor(n), call(), &source, now);
            directory.found(&aor(n), &Found::Absent, now);
            assert!(directory.users.len() <= MAX_USERS);
        }
        assert_eq!(status(directory.ask(&aor("bob"), call(), &remote(1), now)), Some(200));
    }
}
