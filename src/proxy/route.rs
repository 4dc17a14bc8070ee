//! What becomes of a request: a pure decision (RFC 3261 §16.3 to §16.6, draft §3.1).
//!
//! | the request | from outside | from a member |
//! |---|---|---|
//! | something essential is malformed | 400 | 400 |
//! | `Max-Forwards: 0` | 483 (OPTIONS: 200) | 483 (OPTIONS: 200) |
//! | it was here before, and nothing has changed | 482 | 482 |
//! | `Max-Breadth: 0` | 440 | 440 |
//! | `Proxy-Require` of anything | 420 | 420 |
//! | a Request-URI that is neither `sip:` nor `sips:`, and no Route to follow | 416 | 416 |
//! | a Route is left that is not ours | 403 | to that Route |
//! | REGISTER for the overlay | 405 | 405 |
//! | OPTIONS for `sip:OVERLAY` | 200 | 200 |
//! | anything else for `sip:OVERLAY` | 405 | 405 |
//! | for a user of the overlay | to the user's contacts | to the user's contacts |
//! | for another domain | 403 | by RFC 3263 |
//!
//! *From a member* is what came over an overlay stream whose peer is a contact in a live, verified routing record; if
//! the From is a user of the overlay, in that user's. An overlay stream that is not is answered 403 wherever it matters.
//!
//! The same core serves a conventional domain ([`Origin::Domain`]): as from outside, but REGISTER goes to the registrar,
//! and what is in a dialog that was routed through here goes on to wherever its Route leads.

use std::net::SocketAddr;

use crate::{
    name::{Aor, InstanceId, OverlayId},
    sip::{
        Message, Method, ParseError,
        header::{Contact, Name},
        transport::Protocol,
        uri::{Host, SipUri, Uri},
    },
};

/// What `Max-Breadth` is taken to be where a request has none (RFC 5393 §5.3.3.2).
pub const MAX_BREADTH: u32 = 60;
/// What `Max-Forwards` is set to where a request has none (RFC 3261 §16.6 step 3).
pub const MAX_FORWARDS: u8 = 70;
/// The methods that the overlay identifier itself answers, for `Allow`.
pub(super) const ALLOWED: &str = "OPTIONS";

/// What this proxy peer answers to.
#[derive(Debug, Clone)]
pub struct Realm {
    /// The overlay identifier: every Route and Request-URI with it is meant for us, whatever the port.
    pub overlay: OverlayId,
    /// The addresses that we write into Via, or are known by, each with what is served there.
    pub own: Vec<(Protocol, SocketAddr)>,
}

/// Where a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin<'a> {
    /// UDP, TCP or TLS: never a member, whoever it is.
    Public,
    /// An overlay stream; nobody has asked yet whether its peer is a member.
    Stream,
    /// An overlay stream whose peer is a contact of these users, by live and verified records. None: of nobody.
    Peer(&'a [Aor]),
    /// Anywhere, where this is the server of a conventional domain.
    Domain,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// A final response of our own.
    Reject(Rejection),
    /// 200: somebody asks whether we are there.
    Answer,
    /// It depends on whose peer the sender is: decide again with [`Origin::Peer`].
    Identify {
        /// The user that it claims to be, if it claims to be one of the overlay.
        claimed: Option<Aor>,
    },
    /// Hand it to the registrar of the domain that this is the server of.
    Register,
    /// Pass it on.
    Forward(Plan),
}

/// Why a request is not passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The status.
    pub status: u16,
    /// The reason phrase.
    pub reason: &'static str,
    /// A header that the status calls for.
    pub header: Option<(Name<'static>, String)>,
}

/// How a request is passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// How many Route values at the top are ours and go.
    pub strip: usize,
    /// Whether the last Route goes too: it became the Request-URI (RFC 3261 §16.4).
    pub strip_last: bool,
    /// The Request-URI, where it is not to be the one that came.
    pub request_uri: Option<String>,
    /// Whether Request-URI or topmost Route is `sips`: then no hop may be insecure, and the Record-Route is `sips` too.
    pub secure: bool,
    /// Where it goes.
    pub next: Next,
    /// How many targets may be tried at a time (RFC 5393 §5.3).
    pub breadth: u32,
    /// The phone that sent it, if one did.
    pub phone: Option<InstanceId>,
}

/// Where a request goes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// To the contacts of a user of the overlay.
    User {
        /// The user.
        aor: Aor,
        /// The only instance that will do, if the Request-URI names one (RFC 5627 §5.3).
        instance: Option<Instance>,
    },
    /// Out of the overlay, by any proxy peer, which gets a Route that names it.
    Proxy,
    /// To where RFC 3263 finds the Request-URI.
    RequestUri(String),
    /// To where RFC 3263 finds the topmost Route that is left.
    Route {
        /// Its URI.
        uri: String,
        /// Whether that is a strict router, which wants its own URI as the Request-URI (RFC 3261 §16.6 step 6).
        strict: bool,
    },
}

/// The value of a `gr` parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instance {
    /// A device.
    Id(InstanceId),
    /// Something that names no device, so none is there.
    Unknown,
}

impl Rejection {
    /// A rejection without a header of its own.
    pub const fn new(status: u16, reason: &'static str) -> Self {
        Self { status, reason, header: None }
    }

    fn with(status: u16, reason: &'static str, name: Name<'static>, value: impl Into<String>) -> Self {
        Self { status, reason, header: Some((name, value.into())) }
    }
}

impl From<Rejection> for Decision {
    fn from(rejection: Rejection) -> Self {
        Self::Reject(rejection)
    }
}

impl Realm {
    /// Whether a URI's host is this proxy peer, by the overlay's name or by an address of its own.
    pub(super) fn is_ours(&self, uri: &SipUri<'_>) -> bool {
        self.serves(&uri.host, uri)
    }

    /// As [`Realm::is_ours`], for another host with the port of the URI.
    fn serves(&self, host: &Host<'_>, uri: &SipUri<'_>) -> bool {
        let default = if uri.secure { Protocol::Tls } else { Protocol::Udp }.default_port();
        let port = uri.port.unwrap_or(default);
        let at = |(_, own): &(Protocol, SocketAddr)| host.ip() == Some(own.ip()) && port == own.port();
        host.is_name(self.overlay.as_str()) || self.own.iter().any(at)
    }

    /// The user of the overlay that a URI names; `Err` if it names somebody who cannot be one.
    pub(super) fn user(&self, uri: &SipUri<'_>) -> Option<Result<Aor, ()>> {
        let user = uri.user.filter(|_| self.is_ours(uri))?;
        Some(Aor::parse(&format!("sip:{user}@{}", self.overlay)).map_err(|_| ()))
    }

    /// Who a message's sender says to be: by From, which is settled then; or by Contact, in the dialogs and
    /// registrations of users who are known outside by another name; or by P-Preferred-Identity (RFC 3325).
    fn claimed(&self, message: &Message) -> Option<Aor> {
        let of = |uri: &Uri<'_>| uri.sip().and_then(|uri| self.user(uri)).and_then(Result::ok);
        let contacts = message.contacts().filter_map(|contact| match contact {
            Ok(Contact::Address(address)) => of(&address.uri),
            _ => None,
        });
        let preferred = message.values(Name::PPreferredIdentity).filter_map(|value| {
            let text = std::str::from_utf8(value).ok()?;
            let uri = text.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or(text, |(uri, _)| uri);
            of(&Uri::parse(uri).ok()?)
        });
        message.from().ok().and_then(|from| of(&from.uri)).into_iter().chain(contacts).chain(preferred).next()
    }
}

/// Decides what becomes of a request.
///
/// Whether it was here before is not decided here: that takes what only this process knows.
pub fn decide(message: &Message, origin: Origin<'_>, realm: &Realm) -> Decision {
    consider(message, origin, realm).unwrap_or_else(|decision| decision)
}

/// [`decide`], with every decision but the last one as an early return.
// An early return is the answer itself, once a request: a box would be an allocation and nothing else.
#[allow(clippy::result_large_err)]
fn consider(message: &Message, origin: Origin<'_>, realm: &Realm) -> Result<Decision, Decision> {
    let uri = message.uri().map_err(malformed)?;
    let method = message.method();
    if message.max_forwards().map_err(malformed)? == Some(0) {
        // RFC 3261 §16.3 step 3: so that a path can be traced with OPTIONS.
        let rejection = Rejection::new(483, "Too Many Hops");
        return Ok(if method == Method::Options { Decision::Answer } else { rejection.into() });
    }
    let breadth = message.max_breadth().map_err(malformed)?.unwrap_or(MAX_BREADTH);
    if breadth == 0 {
        return Err(Rejection::new(440, "Max-Breadth Exceeded").into());
    }
    let required = message.tokens(Name::ProxyRequire).map(String::from_utf8_lossy).collect::<Vec<_>>();
    if !required.is_empty() && method != Method::Ack {
        return Err(Rejection::with(420, "Bad Extension", Name::Unsupported, required.join(", ")).into());
    }

    let routes = message.routes().collect::<Result<Vec<_>, _>>().map_err(malformed)?;
    // What a strict router made of our Record-Route (RFC 3261 §16.4).
    let recovered = match (uri.sip(), routes.split_last()) {
        (Some(own), Some((last, _))) if realm.is_ours(own) && own.user.is_none() && own.is_loose_router() => {
            Some(last.uri)
        }
        _ => None,
    };
    let uri = recovered.unwrap_or(uri);
    let routes = routes.get(..routes.len() - usize::from(recovered.is_some())).unwrap_or_default();
    let ours = |uri: &Uri<'_>| uri.sip().is_some_and(|uri| realm.is_ours(uri));
    let strip = routes.iter().take_while(|route| ours(&route.uri)).count();
    let mut plan = Plan {
        strip,
        strip_last: recovered.is_some(),
        request_uri: recovered.map(|uri| uri.as_str().to_owned()),
        secure: uri.sip().is_some_and(|uri| uri.secure),
        next: Next::RequestUri(uri.as_str().to_owned()),
        breadth,
        phone: None,
    };

    if let Some(route) = routes.get(strip) {
        let next = route.uri.sip().ok_or_else(unsupported_scheme)?;
        plan.secure |= next.secure;
        plan.next = Next::Route { uri: next.as_str().to_owned(), strict: !next.is_loose_router() };
        admit(message, origin, realm, !is_on_its_way(message, origin, strip))?;
        return Ok(Decision::Forward(plan));
    }
    let uri = uri.sip().ok_or_else(unsupported_scheme)?;
    let maddr = uri.maddr().map(|maddr| realm.serves(&maddr, uri));
    if maddr == Some(false) || maddr.is_none() && !realm.is_ours(uri) {
        admit(message, origin, realm, !is_on_its_way(message, origin, strip))?;
        return Ok(Decision::Forward(plan));
    }
    if !realm.is_ours(uri) {
        // RFC 3261 §16.4: a maddr that is ours has done its work.
        let uri = without_maddr(uri);
        (plan.request_uri, plan.next) = (Some(uri.clone()), Next::RequestUri(uri));
        admit(message, origin, realm, true)?;
        return Ok(Decision::Forward(plan));
    }
    if method == Method::Register && origin == Origin::Domain {
        return Ok(Decision::Register);
    }
    if method == Method::Register {
        // Inside, users register in the overlay itself (draft §4.1).
        return Err(Rejection::with(405, "Register in the Overlay", Name::Allow, ALLOWED).into());
    }
    let Some(user) = realm.user(uri) else {
        let rejection = Rejection::with(405, "Method Not Allowed", Name::Allow, ALLOWED);
        return Ok(if method == Method::Options { Decision::Answer } else { rejection.into() });
    };
    // Who cannot be a user of an overlay is proven not to be there.
    let aor = user.map_err(|()| Rejection::new(404, "Not Found"))?;
    admit(message, origin, realm, false)?;
    if !uri.host.is_name(realm.overlay.as_str()) || maddr.is_some() {
        let scheme = if uri.secure { "sips" } else { "sip" };
        let gr = uri.gr().map(|gr| format!(";gr={gr}")).unwrap_or_default();
        plan.request_uri = Some(format!("{scheme}:{}@{}{gr}", aor.user(), realm.overlay));
    }
    let instance =
        uri.params.has("gr").then(|| uri.gr().and_then(|gr| gr.parse().ok()).map_or(Instance::Unknown, Instance::Id));
    plan.next = Next::User { aor, instance };
    Ok(Decision::Forward(plan))
}

/// Whether this is in a dialog whose path a domain's server has recorded: then it goes on, whoever sends it.
fn is_on_its_way(message: &Message, origin: Origin<'_>, own_routes: usize) -> bool {
    origin == Origin::Domain && own_routes > 0 && message.to().is_ok_and(|to| to.tag().is_some())
}

/// Whether the sender may have this passed on; `leaves`: to another domain.
#[allow(clippy::result_large_err)]
fn admit(message: &Message, origin: Origin<'_>, realm: &Realm, leaves: bool) -> Result<(), Decision> {
    let from = message.from().map_err(malformed)?;
    let from = from.uri.sip().and_then(|from| realm.user(from));
    let refusal = match (origin, from) {
        (Origin::Public, _) if leaves => "Relaying Is for Members",
        (Origin::Domain, _) if leaves => "Relaying Denied",
        (Origin::Public | Origin::Domain, _) => return Ok(()),
        (Origin::Stream, from) if leaves || from.is_some() => {
            return Err(Decision::Identify { claimed: realm.claimed(message) });
        }
        (Origin::Stream, _) => return Ok(()),
        (Origin::Peer([]), _) => "Relaying Is for Members",
        (Origin::Peer(aors), Some(Ok(from))) if !aors.contains(&from) => "From Is Not Yours",
        (Origin::Peer(_), Some(Err(()))) => "From Is Not Yours",
        (Origin::Peer(_), _) => return Ok(()),
    };
    Err(Rejection::new(403, refusal).into())
}

fn malformed(error: ParseError) -> Decision {
    Rejection { status: 400, reason: "Bad Request", header: Some((Name::Warning, warning(&error.to_string()))) }.into()
}

/// A Warning (RFC 3261 §20.43) for people: what is wrong here.
pub(super) fn warning(text: &str) -> String {
    let quoted: String = text.chars().filter(|c| !matches!(c, '"' | '\\') && !c.is_control()).collect();
    format!("399 p2psip \"{quoted}\"")
}

fn unsupported_scheme() -> Decision {
    Rejection::new(416, "Unsupported URI Scheme").into()
}

/// The URI without `maddr`, `transport` and port.
fn without_maddr(uri: &SipUri<'_>) -> String {
    let mut text = String::from(if uri.secure { "sips:" } else { "sip:" });
    if let Some(user) = uri.user {
        text = text + user + "@";
    }
    text += &uri.host.to_string();
    for (name, value) in uri.params.iter() {
        if !["maddr", "transport"].iter().any(|gone| name.eq_ignore_ascii_case(gone)) {
            text = text + ";" + name + &value.map(|value| format!("={value}")).unwrap_or_default();
        }
    }
    text
}

#[cfg(test)]
mod tests;
