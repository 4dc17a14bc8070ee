//! The registrar and location service of a conventional domain (RFC 3261 §10.3): bindings of users who know their
//! password. Pure.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::sip::{
    Message,
    digest::{Gate, Protected, Refusal, Secret, Terms},
    header::{Contact, Name},
    respond::{Response, respond},
    uri::Uri,
};

/// The longest time for which a binding holds, and that of one which asks for none.
const MAX_EXPIRES: u32 = 3_600;
/// Bindings of one user.
const MAX_BINDINGS: usize = 8;

/// A user of a domain.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) user: &'static str,
    pub(super) password: String,
}

/// Where a user is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Binding {
    uri: String,
    q: u16,
    call_id: String,
    cseq: u32,
    until: Instant,
}

/// The users of a domain and where they are.
#[derive(Debug)]
pub(super) struct Registrar {
    domain: String,
    gate: Gate,
    users: HashMap<String, (Secret, Vec<Binding>)>,
}

impl Registrar {
    /// A registrar that knows these users. `key` is random.
    pub(super) fn new(domain: &str, accounts: &[Account], key: [u8; 32], now: Instant) -> Self {
        let secret = |account: &Account| Secret::of_password(account.user, domain, &account.password);
        let users = accounts.iter().map(|account| (account.user.to_owned(), (secret(account), Vec::new())));
        Self { domain: domain.to_owned(), gate: Gate::new(Terms::new(domain), key, now), users: users.collect() }
    }

    /// The contacts of a user, the most preferred first, each with its preference; `None` if there is no such user.
    pub(super) fn contacts(&self, user: &str, now: Instant) -> Option<Vec<(u16, String)>> {
        let (_, bindings) = self.users.get(user)?;
        let live = bindings.iter().filter(|binding| binding.until > now);
        let mut contacts = live.map(|binding| (binding.q, binding.uri.clone())).collect::<Vec<_>>();
        contacts.sort_by_key(|(q, _)| std::cmp::Reverse(*q));
        Some(contacts)
    }

    /// Answers a REGISTER. `random` is to be guessed by nobody.
    pub(super) fn register(&mut self, request: &Message, random: u64, now: Instant) -> Bytes {
        let tag = format!("{random:016x}");
        let reply = |status| respond(request, status, "", Some(&tag));
        match self.decide(request, random, now, &reply) {
            Ok(response) | Err(response) => response.finish(),
        }
    }

    // Either way it is the response.
    #[allow(clippy::result_large_err)]
    fn decide(
        &mut self,
        request: &Message,
        random: u64,
        now: Instant,
        reply: &dyn Fn(u16) -> Response,
    ) -> Result<Response, Response> {
        if let Err(fault) = request.check_at_end() {
            return Err(reply(fault.status));
        }
        let required = request.tokens(Name::Require).map(String::from_utf8_lossy).collect::<Vec<_>>();
        if !required.is_empty() {
            return Err(reply(420).header(Name::Unsupported, required.join(", ")));
        }
        let user = self.authenticate(request, random, now, reply)?;
        let to = request.to().map_err(|_| reply(400))?;
        let owns = |uri: &Uri<'_>| {
            uri.sip().is_some_and(|uri| uri.user == Some(user.as_str()) && uri.host.is_name(&self.domain))
        };
        if !owns(&to.uri) {
            return Err(reply(403));
        }
        let (_, bindings) = self.users.get_mut(&user).ok_or_else(|| reply(404))?;
        bindings.retain(|binding| binding.until > now);
        *bindings = changed(bindings.clone(), request, now).map_err(reply)?;
        let mut response = reply(200);
        for Binding { uri, q, until, .. } in bindings {
            let left = until.saturating_duration_since(now).as_secs_f64().ceil();
            let q = f64::from(*q) / 1_000.0;
            response = response.header(Name::Contact, format!("<{uri}>;q={q};expires={left}"));
        }
        Ok(response)
    }

    #[allow(clippy::result_large_err)]
    fn authenticate(
        &mut self,
        request: &Message,
        random: u64,
        now: Instant,
        reply: &dyn Fn(u16) -> Response,
    ) -> Result<String, Response> {
        let uri = request.request_uri().unwrap_or_default();
        let protected = Protected { method: "REGISTER", uri, body: request.body() };
        let users = &self.users;
        let secret = |user: &str| users.get(user).map(|(secret, _)| secret);
        self.gate.check(request.values(Name::Authorization), &protected, secret, now).map_err(|refusal| {
            if let Refusal::Malformed(_) = refusal {
                return reply(400);
            }
            let challenges = self.gate.challenges(refusal.is_stale(), random, now);
            challenges.iter().fold(reply(401), |response, value| response.header(Name::WwwAuthenticate, value))
        })
    }
}

/// The bindings after a request (RFC 3261 §10.3 steps 6 and 7): all of it, or nothing and the status that says why.
fn changed(mut bindings: Vec<Binding>, request: &Message, now: Instant) -> Result<Vec<Binding>, u16> {
    let (call_id, cseq) = (request.call_id().map_err(|_| 400_u16)?, request.cseq().map_err(|_| 400_u16)?.number);
    let expires = request.expires().map_err(|_| 400_u16)?;
    let is_late = |binding: &Binding| binding.call_id == call_id && binding.cseq >= cseq;
    for contact in request.contacts() {
        let contact = match contact.map_err(|_| 400_u16)? {
            Contact::Address(contact) => contact,
            Contact::All if expires == Some(0) && request.contacts().count() == 1 => {
                return if bindings.iter().any(is_late) { Err(500) } else { Ok(Vec::new()) };
            }
            Contact::All => return Err(400),
        };
        let same = |binding: &Binding| Uri::parse(&binding.uri).is_ok_and(|uri| uri.is_equivalent(&contact.uri));
        if let Some(at) = bindings.iter().position(same) {
            if bindings.get(at).is_some_and(is_late) {
                return Err(500);
            }
            bindings.remove(at);
        }
        let seconds = contact.expires().or(expires).unwrap_or(MAX_EXPIRES).min(MAX_EXPIRES);
        if seconds > 0 {
            bindings.push(Binding {
                uri: contact.uri.as_str().to_owned(),
                q: contact.q(),
                call_id: call_id.to_owned(),
                cseq,
                until: now + Duration::from_secs(seconds.into()),
            });
        }
    }
    if bindings.len() > MAX_BINDINGS { Err(503) } else { Ok(bindings) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::digest::{Asker, Keyring, User};

    const CONTACT: &str = "Contact: <sip:bob@192.0.2.7:5070>\r\n";

    fn registrar(now: Instant) -> Registrar {
        Registrar::new("example.com", &[Account { user: "bob", password: "secret".to_owned() }], [7; 32], now)
    }

    fn request(cseq: u32, to: &str, more: &str) -> Message {
        let text = format!(
            "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7:5070;branch=z9hG4bK{cseq}\r\n\
             Max-Forwards: 70\r\nFrom: <{to}>;tag=1\r\nTo: <{to}>\r\nCall-ID: c\r\nCSeq: {cseq} REGISTER\r\n\
             {more}Content-Length: 0\r\n\r\n"
        );
        Message::parse(text.into()).unwrap()
    }

    /// Registers as a user who knows the password, challenge and all.
    fn registered(registrar: &mut Registrar, cseq: u32, to: &str, more: &str, now: Instant) -> Message {
        let challenge = Message::parse(registrar.register(&request(cseq, to, more), cseq.into(), now)).unwrap();
        assert_eq!(challenge.status(), Some(401));
        let user = User { name: "bob".to_owned(), password: "secret".to_owned() };
        let mut keyring = Keyring::new(user);
        keyring.challenged(Asker::Server, challenge.values(Name::WwwAuthenticate), "cnonce").unwrap();
        let protected = Protected { method: "REGISTER", uri: "sip:example.com", body: b"" };
        let (_, value) = keyring.credentials(&protected).remove(0);
        let again = request(cseq + 1, to, &format!("{more}Authorization: {value}\r\n"));
        Message::parse(registrar.register(&again, 0, now)).unwrap()
    }

    #[test]
    fn a_user_with_the_password_is_bound_until_it_expires() {
        let now = Instant::now();
        let mut registrar = registrar(now);
        let ok = registered(&mut registrar, 1, "sip:bob@example.com", &format!("{CONTACT}Expires: 60\r\n"), now);
        assert_eq!(ok.status(), Some(200));
        assert_eq!(ok.header(Name::Contact), Some(b"<sip:bob@192.0.2.7:5070>;q=1;expires=60".as_slice()));
        let bound = |registrar: &Registrar, after: u64| registrar.contacts("bob", now + Duration::from_secs(after));
        assert_eq!(bound(&registrar, 59), Some(vec![(1_000, "sip:bob@192.0.2.7:5070".to_owned())]));
        assert_eq!(bound(&registrar, 60), Some(vec![]));
        assert_eq!(registrar.contacts("carol", now), None);
        let removed = registered(&mut registrar, 3, "sip:bob@example.com", "Contact: *\r\nExpires: 0\r\n", now);
        assert_eq!((removed.status(), bound(&registrar, 0)), (Some(200), Some(vec![])));
    }

    #[test]
    fn nobody_registers_somebody_else_or_twice_with_one_number() {
        let now = Instant::now();
        let mut registrar = registrar(now);
        for (to, status) in [("sip:carol@example.com", 403), ("sip:bob@example.org", 403)] {
            assert_eq!(registered(&mut registrar, 1, to, CONTACT, now).status(), Some(status), "{to}");
        }
        assert_eq!(registered(&mut registrar, 5, "sip:bob@example.com", CONTACT, now).status(), Some(200));
        assert_eq!(registered(&mut registrar, 4, "sip:bob@example.com", CONTACT, now).status(), Some(500));
        let wrong = request(9, "sip:bob@example.com", "Contact: *\r\n");
        assert_eq!(Message::parse(registrar.register(&wrong, 3, now)).unwrap().status(), Some(401));
    }
}
