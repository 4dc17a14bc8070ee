//! The messages of a call in the order in which they went over the wire, and the hops that they took.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use crate::sip::{Message, capture::Captured, transport::Remote};

/// A call flow: what `--ladder` draws.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct FlowView {
    /// Who took part, in the order of the columns; the first is this process.
    pub parties: Vec<PartyView>,
    /// What was said, in order.
    pub messages: Vec<MessageView>,
    /// The ways that messages took, in order.
    pub hops: Vec<HopView>,
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
        flow.messages.push(MessageView {
            at_ms: captured.at.saturating_duration_since(began).as_secs_f64() * 1e3,
            from,
            to,
            transport: captured.protocol.to_string(),
            what: what(message),
            status: message.status(),
            cseq: message.cseq().map(|cseq| format!("{} {}", cseq.number, cseq.method)).unwrap_or_default(),
            sdp: !message.body().is_empty() && is_sdp(message),
            again: !seen.insert(&captured.bytes),
            octets: captured.bytes.len(),
        });
    }
    flow
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
