//! The messages of a call in the order in which they went over the wire, and the hops that they took.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use serde::Serialize;

use crate::clock::ms;
use crate::sip::{
    Message,
    capture::Captured,
    tap::{Heard, Inquiry},
    transport::{Protocol, Remote},
};

/// A call flow: what `--ladder` draws.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct FlowView {
    /// Who took part, in the order of the columns; the first is this process.
    pub parties: Vec<PartyView>,
    /// What was said, in order.
    pub messages: Vec<MessageView>,
    /// The ways that messages took, in order.
    pub hops: Vec<HopView>,
    /// What was asked on the way, in order: of a call that is seen from all ends.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<AskedView>,
}

/// One end of a hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartyView {
    /// What to call it.
    pub name: String,
    /// Its address: `IP:PORT`, or a peer id.
    pub address: String,
}

/// A message on the wire.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MessageView {
    /// When, counted from the first message.
    pub at_ms: f64,
    /// The sender, as an index into the parties.
    pub from: usize,
    /// The receiver, as an index into the parties.
    pub to: usize,
    /// `UDP`, `TCP`, `TLS` or `OVERLAY`.
    pub transport: String,
    /// The method, or status and reason.
    pub what: String,
    /// The status of a response.
    pub status: Option<u16>,
    /// The CSeq: which request it is, or is answered.
    pub cseq: String,
    /// Whether it carries a session description.
    pub sdp: bool,
    /// Whether the same message has gone the same way before.
    pub again: bool,
    /// Its length.
    pub octets: usize,
}

/// A question about where somebody is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AskedView {
    /// When the answer was there, counted from the first message or answer.
    pub at_ms: f64,
    /// Who asked, as an index into the parties.
    pub by: usize,
    /// Who was asked: `overlay` or `DNS`.
    pub whom: &'static str,
    /// For what.
    pub question: String,
    /// What came back.
    pub answer: String,
    /// How long that took.
    pub took_ms: f64,
}

/// A way that messages took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HopView {
    /// Who sent the first request.
    pub from: String,
    /// Who received it.
    pub to: String,
    /// `UDP`, `TCP`, `TLS` or `OVERLAY`.
    pub transport: String,
    /// Where it went: `IP:PORT`, or a peer id with its multiaddr.
    pub address: String,
    /// How that was found out: a routing record, the DNS, an option.
    pub found: String,
}

/// The messages of one call, as its own end saw them. `names` holds what is known of the parties: what to call them, and
/// how they were found.
pub(super) fn view(
    captured: &[Captured],
    call_id: &str,
    own_name: &str,
    names: &HashMap<Remote, (String, String)>,
) -> FlowView {
    let of_call = captured.iter().filter_map(|captured| {
        let message = Message::parse(captured.bytes.clone()).ok()?;
        (message.call_id() == Ok(call_id)).then_some((captured, message))
    });
    let of_call = of_call.collect::<Vec<_>>();
    let Some((first, _)) = of_call.first() else { return FlowView::default() };
    let began = first.at;
    let own = if first.sent { first.from } else { first.to };
    let mut flow = FlowView {
        parties: vec![PartyView { name: own_name.to_owned(), address: own.to_string() }],
        ..FlowView::default()
    };
    let (mut others, mut seen): (Vec<Remote>, HashSet<&[u8]>) = (Vec::new(), HashSet::new());
    for (captured, message) in &of_call {
        let remote = if captured.sent { captured.to } else { captured.from };
        let nth = others.iter().position(|known| *known == remote).unwrap_or(others.len());
        if nth == others.len() {
            others.push(remote);
            let name = names.get(&remote).map(|(name, _)| name.clone());
            let name = name.unwrap_or_else(|| party(message, captured.sent));
            if message.is_request() {
                flow.hops.extend(if captured.sent { Vec::new() } else { hops_before(message) });
                let found = match (captured.sent, names.get(&remote)) {
                    (true, Some((_, found))) => found.clone(),
                    (true, None) => "the dialog".to_owned(),
                    (false, _) => "it came from there".to_owned(),
                };
                let (from, to) = if captured.sent {
                    (own_name.to_owned(), name.clone())
                } else {
                    (name.clone(), own_name.to_owned())
                };
                let transport = captured.protocol.to_string();
                flow.hops.push(HopView { from, to, transport, address: remote.to_string(), found });
            }
            flow.parties.push(PartyView { name, address: remote.to_string() });
        }
        let (from, to) = if captured.sent { (0, nth + 1) } else { (nth + 1, 0) };
        let at_ms = ms(captured.at.saturating_duration_since(began));
        let again = !seen.insert(&captured.bytes);
        flow.messages.push(view_of(message, at_ms, (from, to), captured.protocol, again));
    }
    flow
}

/// The messages of a call as all its parties saw them, and what they asked on the way. `parties` has the columns, each by
/// what it is called by those who listened; others are added behind them. Messages and questions keep their order.
pub fn between(parties: &[(&str, PartyView)], heard: &[Heard], inquiries: &[Inquiry]) -> FlowView {
    let mut names: Vec<&str> = parties.iter().map(|(name, _)| *name).collect();
    let said = heard.iter().flat_map(|heard| [&*heard.from, &*heard.to]);
    for name in said.chain(inquiries.iter().map(|inquiry| &*inquiry.by)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let column = |name: &str| names.iter().position(|known| *known == name).unwrap_or_default();
    let began = heard.iter().map(|heard| heard.at).chain(inquiries.iter().map(|inquiry| inquiry.at)).min();
    let since = |at: Instant| ms(at.saturating_duration_since(began.unwrap_or(at)));
    let mut seen: HashSet<&[u8]> = HashSet::new();
    let messages = heard.iter().filter_map(|heard| {
        let message = Message::parse(heard.bytes.clone()).ok()?;
        let hop = (column(&heard.from), column(&heard.to));
        Some(view_of(&message, since(heard.at), hop, heard.protocol, !seen.insert(&heard.bytes)))
    });
    let messages = messages.collect();
    let asked = inquiries.iter().map(|inquiry| AskedView {
        at_ms: since(inquiry.at),
        by: column(&inquiry.by),
        whom: inquiry.whom,
        question: inquiry.question.clone(),
        answer: inquiry.answer.clone(),
        took_ms: ms(inquiry.took),
    });
    let view = |name: &&str| match parties.iter().find(|(known, _)| known == name) {
        Some((_, view)) => view.clone(),
        None => PartyView { name: (*name).to_owned(), address: String::new() },
    };
    FlowView { parties: names.iter().map(view).collect(), messages, hops: Vec::new(), asked: asked.collect() }
}

/// A message as it is shown; `hop` are sender and receiver, as indices into the parties.
fn view_of(message: &Message, at_ms: f64, hop: (usize, usize), protocol: Protocol, again: bool) -> MessageView {
    MessageView {
        at_ms,
        from: hop.0,
        to: hop.1,
        transport: protocol.to_string(),
        what: what(message),
        status: message.status(),
        cseq: message.cseq().map(|cseq| format!("{} {}", cseq.number, cseq.method)).unwrap_or_default(),
        sdp: !message.body().is_empty() && is_sdp(message),
        again,
        octets: message.bytes().len(),
    }
}

fn what(message: &Message) -> String {
    match message.status() {
        Some(status) => format!("{status} {}", String::from_utf8_lossy(message.reason())),
        None => message.method().to_string(),
    }
}

fn is_sdp(message: &Message) -> bool {
    message
        .header(crate::sip::header::Name::ContentType)
        .is_some_and(|value| value.get(..15).is_some_and(|kind| kind.eq_ignore_ascii_case(b"application/sdp")))
}

/// What to call a party of which nothing is known but a message: the user part of its side.
fn party(message: &Message, sent: bool) -> String {
    let side = if sent == message.is_request() { message.to() } else { message.from() };
    let user = side.ok().and_then(|side| side.uri.sip().and_then(|uri| uri.user).map(str::to_owned));
    user.unwrap_or_else(|| "?".to_owned())
}

/// The hops that a request took before the last one, as its Vias tell (RFC 3261 §18.2.1): nobody vouches for them.
fn hops_before(request: &Message) -> Vec<HopView> {
    let vias = request.vias().filter_map(Result::ok).collect::<Vec<_>>();
    let place = |via: &crate::sip::header::Via<'_>| match via.port {
        Some(port) => format!("{}:{port}", via.host),
        None => via.host.to_string(),
    };
    let pairs = vias.windows(2).rev().filter_map(|pair| match pair {
        [upper, lower] => Some(HopView {
            from: place(lower),
            to: place(upper),
            transport: lower.transport.to_owned(),
            address: lower.received().map_or_else(|| place(lower), |ip| ip.to_string()),
            found: "Via".to_owned(),
        }),
        _ => None,
    });
    pairs.collect()
}
