//! The request as it leaves (RFC 3261 §16.6): Request-URI, Max-Forwards, Record-Route, Route and Via.

use std::{
    hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState},
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Instant,
};

use bytes::Bytes;

use super::{Context, Engine, Located, Open, Output, What};
use crate::{
    name::InstanceId,
    proxy::{
        fork::{Place, Target},
        route::{MAX_FORWARDS, Next, Plan},
    },
    sip::{
        Message, Method,
        edit::Edit,
        header::Name,
        transaction::{Branch, ClientId},
        transport::{Hop, Protocol, Remote, Source},
        uri::SipUri,
    },
};

impl Engine {
    /// Sends a context's request to one hop; `None` if it cannot be.
    pub(super) fn forward(&mut self, id: u64, branch: usize, hop: Hop, now: Instant) -> Option<ClientId> {
        let context = self.contexts.get(&id)?;
        if context.plan.secure && !matches!(hop.protocol, Protocol::Tls | Protocol::Overlay) {
            return None;
        }
        let own = self.layer.new_branch(Some(mark(&context.message)));
        let Context { message, source, plan, uris, targets, breadth, .. } = context;
        let uri = uris.get(branch).and_then(Option::as_deref);
        let phone = targets.get(branch).copied().flatten();
        let from_inside = source.protocol == Protocol::Overlay || plan.phone.is_some();
        let is_outgoing = from_inside && !self.domain && self.is_recorded(message, source, plan);
        let bytes = self.rewritten(message, source, plan, uri, phone, *breadth, &hop, &own)?;
        let client = self.layer.request(&own, message.method(), bytes, hop, now).ok()?;
        self.counts.outgoing += u64::from(is_outgoing);
        Some(client)
    }

    /// Passes the ACK of a 2xx on, without any state. It goes to one place: the first, if there are several.
    pub(super) fn pass_ack(
        &mut self,
        message: Message,
        source: Source,
        plan: Plan,
        uri: Option<Arc<str>>,
        located: Located,
    ) {
        let (located, phones) = match located {
            Located::Groups(groups) => self.with_phones(groups, &plan),
            other => (other, Vec::new()),
        };
        let phone = phones.first().copied().flatten();
        let (uri, hop) = match located {
            Located::Hops(hops) => (uri, hops.into_iter().next()),
            Located::Groups(groups) => match groups.into_iter().flatten().next() {
                Some(Target { uri, place: Place::Hops(hops) }) => (uri, hops.into_iter().next()),
                Some(Target { uri: contact, place: Place::Uri(uri) }) => {
                    let what = What::Uri { uri, secure: plan.secure };
                    match self.ask(Open::Ack { message, source, plan, uri: contact }) {
                        Ok(question) => self.outputs.push_back(Output::Locate { question, what }),
                        Err(_) => self.counts.overloaded += 1,
                    }
                    return;
                }
                None => (None, None),
            },
            Located::Nowhere { .. } => (None, None),
        };
        let own = self.layer.new_branch(Some(mark(&message)));
        let bytes =
            hop.as_ref().and_then(|hop| self.rewritten(&message, &source, &plan, uri.as_deref(), phone, 0, hop, &own));
        match (hop, bytes) {
            (Some(hop), Some(bytes)) => {
                self.counts.acks += 1;
                self.layer.send(hop, bytes);
            }
            _ => self.counts.dropped += 1,
        }
    }

    /// The request as it goes to `hop`.
    #[allow(clippy::too_many_arguments)]
    fn rewritten(
        &self,
        message: &Message,
        source: &Source,
        plan: &Plan,
        uri: Option<&str>,
        phone: Option<InstanceId>,
        breadth: u32,
        hop: &Hop,
        own: &Branch,
    ) -> Option<Bytes> {
        let mut edit = Edit::new(message);
        let forwards = message.max_forwards().ok()?.map_or(MAX_FORWARDS, |left| left.saturating_sub(1));
        edit.set(Name::MaxForwards, forwards.to_string());
        // Every request that is passed on has one (RFC 5393 §5.3.3), but for ACK, which is never forked.
        if breadth > 0 && message.max_breadth() != Ok(Some(breadth)) {
            edit.set(Name::MaxBreadth, breadth.to_string());
        }
        // It was for us, and for nobody else (RFC 3325 §5).
        edit.remove_all(Name::PPreferredIdentity);
        self.route(&mut edit, message, plan, uri);
        if self.is_recorded(message, source, plan) {
            let scheme = if plan.secure { "sips" } else { "sip" };
            edit.prepend(Name::RecordRoute, format!("<{scheme}:{};lr>", self.config.realm.overlay));
        }
        self.dress(&mut edit, message, plan, phone, hop);
        let rport = if hop.protocol == Protocol::Udp { ";rport" } else { "" };
        let via = format!("SIP/2.0/{} {};branch={}{rport}", hop.protocol.token(), self.sent_by(hop)?, own.as_str());
        edit.prepend(Name::Via, via);
        Some(edit.finish())
    }

    /// Request-URI and Route (RFC 3261 §16.4, §16.6 steps 2 and 6).
    fn route(&self, edit: &mut Edit<'_>, message: &Message, plan: &Plan, uri: Option<&str>) {
        let uri = uri.or(plan.request_uri.as_deref());
        let strict = match &plan.next {
            Next::Route { uri, strict: true } => Some(uri),
            _ => None,
        };
        if !plan.strip_last && strict.is_none() {
            for _ in 0..plan.strip {
                edit.remove_first_value(Name::Route);
            }
        } else {
            let routes: Vec<&[u8]> = message.values(Name::Route).collect();
            let end = routes.len() - usize::from(plan.strip_last).min(routes.len());
            let start = (plan.strip + usize::from(strict.is_some())).min(end);
            let mut left: Vec<Vec<u8>> =
                routes.get(start..end).unwrap_or_default().iter().map(|route| route.to_vec()).collect();
            if strict.is_some()
                && let Some(uri) = uri.or(message.request_uri())
            {
                left.push(format!("<{uri}>").into_bytes());
            }
            edit.remove_all(Name::Route);
            if !left.is_empty() {
                edit.append(Name::Route, left.join(&b", "[..]));
            }
        }
        if plan.next == Next::Proxy {
            let scheme = if plan.secure { "sips" } else { "sip" };
            edit.prepend(Name::Route, format!("<{scheme}:{};lr>", self.config.realm.overlay));
        }
        if let Some(uri) = strict.map(String::as_str).or(uri) {
            edit.set_request_uri(uri);
        }
    }

    /// Whether the path is recorded: of what may form a dialog and crosses the boundary (design: one Record-Route, for
    /// both sides resolve it; RFC 3261 §16.6 step 4; none on REGISTER: Table 3).
    fn is_recorded(&self, message: &Message, source: &Source, plan: &Plan) -> bool {
        let from_inside = source.protocol == Protocol::Overlay || plan.phone.is_some();
        let to_inside = match &plan.next {
            Next::User { .. } | Next::Proxy => true,
            Next::RequestUri(uri) | Next::Route { uri, .. } => {
                SipUri::parse(uri).is_ok_and(|uri| uri.host.is_name(self.config.realm.overlay.as_str()))
            }
        };
        (self.domain || from_inside != to_inside) && may_form_a_dialog(message)
    }

    /// Our sent-by towards a hop: the address that the other side sees, or the peer id on overlay streams.
    pub(super) fn sent_by(&self, hop: &Hop) -> Option<String> {
        let Remote::Socket(remote) = hop.remote else { return Some(self.via_host.clone()) };
        // Of the first that fits in most respects. Without a TLS port of our own, responses come on the connection. The
        // port that the hop is left from tells phones from others.
        let fit = |(protocol, own): &(Protocol, SocketAddr)| {
            let port = hop.local.is_some_and(|local| local.port() == own.port());
            let by_scope = own.ip().is_loopback() == remote.ip().is_loopback();
            (*protocol == hop.protocol, hop.local == Some(*own), port, by_scope)
        };
        let mut usable = self.config.realm.own.iter().filter(|(_, own)| own.is_ipv4() == remote.is_ipv4());
        let first = usable.next()?;
        let best = usable.fold(first, |best, own| if fit(own) > fit(best) { own } else { best });
        Some(best.1.to_string())
    }

    /// Whether the request was here before, and nothing that routes it has changed since (RFC 3261 §16.3 step 4, RFC
    /// 5393 §4.2). One that has changed is a spiral, and in order.
    pub(super) fn is_looping(&self, message: &Message) -> bool {
        message.vias().filter_map(Result::ok).any(|via| {
            let ours =
                via.host.is_name(&self.via_host)
                    || self.config.realm.own.iter().any(|(_, own)| {
                        via.host.ip() == Some(own.ip()) && via.port.is_none_or(|port| port == own.port())
                    });
            let marked =
                || via.branch().and_then(|branch| Branch::read(branch.as_bytes())).and_then(|parts| parts.mark);
            ours && marked() == Some(mark(message))
        })
    }
}

/// Whether a request may form a dialog, and is not in one.
pub(super) fn may_form_a_dialog(message: &Message) -> bool {
    let forms_none = matches!(
        message.method(),
        Method::Register | Method::Ack | Method::Cancel | Method::Bye | Method::Options | Method::Message
    );
    !forms_none && message.to().is_ok_and(|to| to.tag().is_none())
}

/// What routes a request, as a number that only this process can make: the second half of our branches.
fn mark(message: &Message) -> u64 {
    static KEYS: OnceLock<RandomState> = OnceLock::new();
    let mut hasher = KEYS.get_or_init(RandomState::new).build_hasher();
    message.request_uri().hash(&mut hasher);
    for name in [Name::Route, Name::ProxyRequire, Name::ProxyAuthorization, Name::CallId, Name::From, Name::CSeq] {
        for value in message.values(name) {
            value.hash(&mut hasher);
        }
        hasher.write_u8(0);
    }
    hasher.finish()
}
