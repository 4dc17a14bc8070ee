//! Dialogs (RFC 3261 §12): what two user agents share, from the response that begins one to the BYE.
//!
//! Pure: messages in, the parts of requests out. A dialog is early until a 2xx confirms it; a UAC may have several
//! early ones for one INVITE, told apart by the tag of To.

use super::{
    Message, Method, ParseError,
    compose::Request,
    header::{Contact, Name, NameAddr},
    uri::{SipUri, Uri},
};

/// Most proxies on the way of a dialog; RFC 3261 lets a request take 70 hops.
const MAX_ROUTES: usize = 70;
/// What a request of our own may take (RFC 3261 §8.1.1.6).
const MAX_FORWARDS: &str = "70";

/// What names a dialog (RFC 3261 §12).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialogId {
    /// The Call-ID.
    pub call_id: String,
    /// Our own tag.
    pub local_tag: String,
    /// The other side's tag; empty for one that is older than RFC 3261.
    pub remote_tag: String,
}

impl DialogId {
    /// The dialog that a request belongs to which we received.
    ///
    /// # Errors
    /// [`ParseError`]: no Call-ID, From or To.
    pub fn of_received(request: &Message) -> Result<Self, ParseError> {
        let (from, to) = (request.from()?, request.to()?);
        Ok(Self { call_id: request.call_id()?.to_owned(), local_tag: tag(&to), remote_tag: tag(&from) })
    }
}

/// One side of a dialog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialog {
    id: DialogId,
    /// The From of our requests, and the To, each with its tag.
    local: Vec<u8>,
    remote: Vec<u8>,
    local_cseq: u32,
    remote_cseq: Option<u32>,
    /// Values of Route, the first to be visited first.
    routes: Vec<String>,
    /// The other side's Contact.
    target: String,
    confirmed: bool,
}

/// Why there is no dialog, or a request does not fit into it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialogError {
    /// A header field that is missing or malformed.
    #[error(transparent)]
    Malformed(#[from] ParseError),
    /// Nobody knows where to send the next request.
    #[error("it has no Contact that is a SIP URI")]
    NoContact,
    /// More proxies than a request may visit.
    #[error("it has more than {MAX_ROUTES} values of Record-Route")]
    TooManyRoutes,
    /// A request that is older than one already seen: answer it with 500 (RFC 3261 §12.2.2).
    #[error("its CSeq {got} is not above {last}")]
    OutOfOrder {
        /// The last one's number.
        last: u32,
        /// This one's.
        got: u32,
    },
}

impl Dialog {
    /// The caller's side, from its request and a response above 100 that has a tag (RFC 3261 §12.1.2).
    ///
    /// # Errors
    /// [`DialogError`]. A provisional response without Contact is no error of anybody's: it has no dialog.
    pub fn of_caller(request: &Message, response: &Message) -> Result<Self, DialogError> {
        let (from, to) = (request.from()?, response.to()?);
        let id = DialogId { call_id: request.call_id()?.to_owned(), local_tag: tag(&from), remote_tag: tag(&to) };
        Ok(Self {
            id,
            local: header(request, Name::From),
            remote: header(response, Name::To),
            local_cseq: request.cseq()?.number,
            remote_cseq: None,
            routes: record_routes(response, true)?,
            target: contact(response)?,
            confirmed: response.status().is_some_and(|status| status >= 200),
        })
    }

    /// The callee's side, from the request and the tag that its responses carry (RFC 3261 §12.1.1).
    ///
    /// # Errors
    /// [`DialogError`]: answer the request with 400.
    pub fn of_callee(request: &Message, local_tag: &str) -> Result<Self, DialogError> {
        let (from, to) = (request.from()?, request.to()?);
        let mut local = header(request, Name::To);
        if to.tag().is_none() {
            local.extend(format!(";tag={local_tag}").bytes());
        }
        let id = DialogId {
            call_id: request.call_id()?.to_owned(),
            local_tag: to.tag().unwrap_or(local_tag).to_owned(),
            remote_tag: tag(&from),
        };
        Ok(Self {
            id,
            local,
            remote: header(request, Name::From),
            local_cseq: 0,
            remote_cseq: Some(request.cseq()?.number),
            routes: record_routes(request, false)?,
            target: contact(request)?,
            confirmed: false,
        })
    }

    /// What names it.
    pub const fn id(&self) -> &DialogId {
        &self.id
    }

    /// Whether a 2xx has been seen.
    pub const fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// The number of our last request.
    pub const fn local_cseq(&self) -> u32 {
        self.local_cseq
    }

    /// The other side's Contact.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The values of Route that requests carry, unless the first is a strict router.
    pub fn routes(&self) -> &[String] {
        &self.routes
    }

    /// The callee sends the 2xx.
    pub const fn confirm(&mut self) {
        self.confirmed = true;
    }

    /// A 2xx to the INVITE that began it: route set and target as it says (RFC 3261 §13.2.2.4).
    ///
    /// # Errors
    /// [`DialogError`].
    pub fn confirmed_by(&mut self, response: &Message) -> Result<(), DialogError> {
        let (routes, target) = (record_routes(response, true)?, contact(response)?);
        (self.routes, self.target, self.confirmed) = (routes, target, true);
        Ok(())
    }

    /// The next request of ours in the dialog, numbered (RFC 3261 §12.2.1.1).
    pub fn request(&mut self, method: Method<'_>) -> Request {
        self.local_cseq = self.local_cseq.saturating_add(1);
        self.numbered(method, self.local_cseq)
    }

    /// The ACK of a 2xx to our INVITE with this number (RFC 3261 §13.2.2.4).
    pub fn ack(&self, invite: u32) -> Request {
        self.numbered(Method::Ack, invite)
    }

    fn numbered(&self, method: Method<'_>, number: u32) -> Request {
        let (uri, routes) = self.path();
        let mut request = Request::new(method, uri);
        for route in routes {
            request = request.header(Name::Route, route);
        }
        request
            .header(Name::MaxForwards, MAX_FORWARDS)
            .header(Name::From, &self.local)
            .header(Name::To, &self.remote)
            .header(Name::CallId, &self.id.call_id)
            .header(Name::CSeq, format!("{number} {method}"))
    }

    /// Where the next request goes first: the first Route, else the target (RFC 3261 §8.1.2).
    pub fn next_hop(&self) -> &str {
        self.routes.first().and_then(|route| uri_of(route)).unwrap_or(&self.target)
    }

    /// The Request-URI, and the values of Route: a strict router takes the Request-URI for itself (RFC 3261 §12.2.1.1).
    fn path(&self) -> (&str, Vec<String>) {
        match self.routes.split_first() {
            Some((first, rest)) if !is_loose(first) => {
                let own = uri_of(first).unwrap_or(first);
                (own, rest.iter().cloned().chain([format!("<{}>", self.target)]).collect())
            }
            _ => (&self.target, self.routes.clone()),
        }
    }

    /// A request of the other side in the dialog: takes its number and, of one that refreshes it, the target
    /// (RFC 3261 §12.2.2).
    ///
    /// # Errors
    /// [`DialogError::OutOfOrder`].
    pub fn received(&mut self, request: &Message) -> Result<(), DialogError> {
        let got = request.cseq()?.number;
        if matches!(request.method(), Method::Ack | Method::Cancel) {
            return Ok(());
        }
        match self.remote_cseq {
            Some(last) if got <= last => return Err(DialogError::OutOfOrder { last, got }),
            _ => self.remote_cseq = Some(got),
        }
        if matches!(request.method(), Method::Invite | Method::Update) {
            self.retarget(request);
        }
        Ok(())
    }

    /// The 2xx to a request of ours that refreshes the target (RFC 3261 §12.2.1.2).
    pub fn refreshed_by(&mut self, response: &Message) {
        self.retarget(response);
    }

    /// Takes the Contact of a message over, if it has one.
    fn retarget(&mut self, message: &Message) {
        if let Ok(target) = contact(message) {
            self.target = target;
        }
    }
}

fn tag(address: &NameAddr<'_>) -> String {
    address.tag().unwrap_or_default().to_owned()
}

fn header(message: &Message, name: Name<'_>) -> Vec<u8> {
    message.header(name).unwrap_or_default().to_vec()
}

/// The values of Record-Route; a caller visits them in reverse.
fn record_routes(message: &Message, reversed: bool) -> Result<Vec<String>, DialogError> {
    let mut routes = Vec::new();
    for value in message.values(Name::RecordRoute) {
        if routes.len() == MAX_ROUTES {
            return Err(DialogError::TooManyRoutes);
        }
        routes.push(String::from_utf8_lossy(value).into_owned());
    }
    // Each of them is read once: what is no address cannot be routed to.
    message.record_routes().try_for_each(|route| route.map(drop))?;
    if reversed {
        routes.reverse();
    }
    Ok(routes)
}

fn contact(message: &Message) -> Result<String, DialogError> {
    match message.contacts().next().transpose()? {
        Some(Contact::Address(NameAddr { uri: Uri::Sip(uri), .. })) => {
            // Headers have no place here (RFC 3261 §19.1.1 Table 1), nor in the Request-URI that this becomes.
            let headers = uri.headers.map_or(0, |headers| headers.len() + 1);
            Ok(uri.as_str().get(..uri.as_str().len() - headers).unwrap_or(uri.as_str()).to_owned())
        }
        _ => Err(DialogError::NoContact),
    }
}

/// The URI of a value of Route.
fn uri_of(route: &str) -> Option<&str> {
    NameAddr::parse(route.as_bytes()).ok().map(|address| address.uri.as_str())
}

fn is_loose(route: &str) -> bool {
    uri_of(route).and_then(|uri| SipUri::parse(uri).ok()).is_none_or(|uri| uri.is_loose_router())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn message(text: &str) -> Message {
        Message::parse(Bytes::from(text.replace('\n', "\r\n"))).unwrap()
    }

    fn invite(extra: &str) -> Message {
        message(&format!(
            "INVITE sip:bob@example.com SIP/2.0\nVia: SIP/2.0/UDP a.example.org;branch=z9hG4bKa\nMax-Forwards: 70\n\
             From: \"Alice\" <sip:alice@p2psip.org>;tag=a1\nTo: <sip:bob@example.com>\nCall-ID: c1\nCSeq: 7 INVITE\n\
             Contact: <sip:alice@p2psip.org;gr=i1>\n{extra}\n"
        ))
    }

    fn response(status: u16, extra: &str) -> Message {
        message(&format!(
            "SIP/2.0 {status} X\nVia: SIP/2.0/UDP a.example.org;branch=z9hG4bKa\n\
             From: \"Alice\" <sip:alice@p2psip.org>;tag=a1\nTo: <sip:bob@example.com>;tag=b1\nCall-ID: c1\n\
             CSeq: 7 INVITE\n{extra}\n"
        ))
    }

    fn written(request: Request) -> Message {
        request.finish().unwrap()
    }

    fn routes(message: &Message) -> Vec<String> {
        message.routes().map(|route| route.unwrap().uri.as_str().to_owned()).collect()
    }

    #[test]
    fn a_caller_visits_record_routes_in_reverse_and_a_callee_in_order() {
        let recorded =
            "Record-Route: <sip:p2.example.com;lr>, <sip:p1.example.com;lr>\nRecord-Route: <sip:p2psip.org;lr>\n";
        let answered = response(200, &format!("Contact: <sip:bob@192.0.2.4:5070>\n{recorded}"));
        let mut caller = Dialog::of_caller(&invite(""), &answered).unwrap();
        assert!(caller.is_confirmed());
        assert_eq!(caller.next_hop(), "sip:p2psip.org;lr");
        let ack = written(caller.ack(7));
        assert_eq!(ack.request_uri(), Some("sip:bob@192.0.2.4:5070"));
        assert_eq!(routes(&ack), ["sip:p2psip.org;lr", "sip:p1.example.com;lr", "sip:p2.example.com;lr"]);
        assert_eq!((ack.cseq().unwrap().number, ack.method()), (7, Method::Ack));
        let bye = written(caller.request(Method::Bye));
        assert_eq!(bye.cseq().unwrap().number, 8);
        assert_eq!(bye.from().unwrap().tag(), Some("a1"));
        assert_eq!(bye.to().unwrap().tag(), Some("b1"));

        let mut callee = Dialog::of_callee(&invite(recorded), "b1").unwrap();
        let bye = written(callee.request(Method::Bye));
        assert_eq!(bye.request_uri(), Some("sip:alice@p2psip.org;gr=i1"));
        assert_eq!(routes(&bye), ["sip:p2.example.com;lr", "sip:p1.example.com;lr", "sip:p2psip.org;lr"]);
        assert_eq!((bye.from().unwrap().tag(), bye.to().unwrap().tag()), (Some("b1"), Some("a1")));
        assert_eq!(DialogId::of_received(&bye).unwrap(), *caller.id(), "both sides mean the same dialog");
    }

    #[test]
    fn a_strict_router_gets_the_request_uri() {
        let recorded = "Record-Route: <sip:lr.example.com;lr>\nRecord-Route: <sip:strict.example.com>\n";
        let mut dialog =
            Dialog::of_caller(&invite(""), &response(200, &format!("Contact: <sip:bob@192.0.2.4>\n{recorded}")))
                .unwrap();
        let bye = written(dialog.request(Method::Bye));
        assert_eq!(bye.request_uri(), Some("sip:strict.example.com"));
        assert_eq!(routes(&bye), ["sip:lr.example.com;lr", "sip:bob@192.0.2.4"]);
    }

    #[test]
    fn requests_that_come_late_are_refused_and_reinvites_move_the_target() {
        let mut dialog = Dialog::of_callee(&invite(""), "b1").unwrap();
        let again = dialog.received(&invite(""));
        assert_eq!(again, Err(DialogError::OutOfOrder { last: 7, got: 7 }));
        let text = String::from_utf8(invite("").bytes().to_vec()).unwrap();
        let moved = text.replace("7 INVITE", "9 INVITE").replace("sip:alice@p2psip.org;gr=i1", "sip:alice@192.0.2.9");
        dialog.received(&Message::parse(Bytes::from(moved)).unwrap()).unwrap();
        assert_eq!(dialog.target(), "sip:alice@192.0.2.9");
    }

    #[test]
    fn an_early_dialog_is_confirmed_with_the_routes_of_the_2xx() {
        let mut dialog = Dialog::of_caller(&invite(""), &response(183, "Contact: <sip:early@192.0.2.4>\n")).unwrap();
        assert!(!dialog.is_confirmed());
        let answered = "Contact: <sip:bob@192.0.2.5>\nRecord-Route: <sip:p2psip.org;lr>\n";
        dialog.confirmed_by(&response(200, answered)).unwrap();
        assert!(dialog.is_confirmed());
        assert_eq!((dialog.target(), dialog.next_hop()), ("sip:bob@192.0.2.5", "sip:p2psip.org;lr"));
    }

    #[test]
    fn nobody_can_be_called_back_without_a_contact() {
        assert_eq!(Dialog::of_caller(&invite(""), &response(180, "")), Err(DialogError::NoContact));
        let many = "Record-Route: <sip:p.example.com;lr>\n".repeat(MAX_ROUTES + 1);
        let answered = response(200, &format!("Contact: <sip:bob@192.0.2.5>\n{many}"));
        assert_eq!(Dialog::of_caller(&invite(""), &answered), Err(DialogError::TooManyRoutes));
    }
}
