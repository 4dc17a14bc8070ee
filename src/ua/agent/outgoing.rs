//! Requests of ours on their way: where each may go, what is tried next if that fails, and when nothing is left.

use std::{collections::VecDeque, time::Instant};

use bytes::Bytes;

use super::{
    super::{
        CallId, Failure, NextHop, Purpose,
        contact::{contact_at, is_secure},
    },
    Agent, Entry, Output,
};
use crate::sip::{
    Message, Method,
    edit::Edit,
    header::Name,
    transaction::{self, ClientId},
    transport::{Hop, Protocol, Source, Undelivered},
};

/// Next hops tried for one request.
const MAX_WAYS: usize = 16;

/// A next hop, and how we appear there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Where to send.
    pub hop: Hop,
    /// Our address as the hop may use it, `host:port`, for Via and Contact.
    pub sent_by: String,
}

/// A question for next hops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocateId(u64);

/// The last ACK of a 2xx, which no transaction repeats.
#[derive(Debug)]
pub(super) struct Acked {
    /// Without Via.
    request: Message,
    /// As it was sent.
    pub(super) sent: (Hop, Bytes),
    /// Where else it may go, if it cannot be sent there.
    others: VecDeque<Way>,
}

/// A request on its way.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    call: CallId,
    purpose: Purpose,
    /// Without Via.
    request: Message,
    ways: VecDeque<Way>,
    way: Option<Way>,
    /// Another next hop was tried in its stead.
    abandoned: bool,
}

impl Outgoing {
    pub(super) fn new(call: CallId, purpose: Purpose, request: Message) -> Self {
        Self { call, purpose, request, ways: VecDeque::new(), way: None, abandoned: false }
    }

    /// The request as it goes this way: with a Via, and with a Contact if it is an INVITE that has none of its own.
    fn over(&self, way: &Way, branch: &str) -> Bytes {
        let request = &self.request;
        let mut edit = Edit::new(request);
        edit.prepend(Name::Via, via(way, branch));
        if request.method() == Method::Invite && request.header(Name::Contact).is_none() {
            let from = request.from().map(|from| from.uri.as_str().to_owned()).unwrap_or_default();
            let secure = is_secure(request.request_uri().unwrap_or_default());
            edit.append(Name::Contact, contact_at(&from, way.hop.protocol, &way.sent_by, secure));
        }
        edit.finish()
    }
}

/// What is to be sent once it is known where to.
#[derive(Debug)]
pub(super) enum Waiting {
    Request(Outgoing),
    Ack { call: CallId, request: Message },
}

impl Agent {
    /// The next hops of a URI, the first to be tried first; or why there are none.
    pub fn located(&mut self, id: LocateId, ways: Result<Vec<Way>, String>, now: Instant) {
        let Some(waiting) = self.locating.remove(&id) else { return };
        match waiting {
            Waiting::Ack { call, request } => {
                self.send_ack(call, request, ways.unwrap_or_default().into());
            }
            Waiting::Request(mut outgoing) => {
                let fallback = self.calls.get(&outgoing.call).and_then(|entry| entry.way.clone());
                match (ways, fallback) {
                    (Ok(ways), _) if !ways.is_empty() => outgoing.ways = ways.into_iter().take(MAX_WAYS).collect(),
                    (_, Some(way)) => outgoing.ways = [way].into(),
                    (Err(why), None) => {
                        return self.fail(outgoing.call, outgoing.purpose, Failure::NotLocated(why), now);
                    }
                    (Ok(_), None) => {}
                }
                self.try_next(outgoing, Failure::NotLocated("it has no address".to_owned()), now);
            }
        }
        self.turn(now);
    }

    /// A response to a request of ours.
    pub(super) fn response(&mut self, client: ClientId, response: &Message, source: &Source, now: Instant) {
        let Some(outgoing) = self.clients.get(&client) else { return };
        let (id, purpose, abandoned) = (outgoing.call, outgoing.purpose, outgoing.abandoned);
        let status = response.status().unwrap_or_default();
        let is_success = (200..300).contains(&status);
        if status < 200 {
            // Somebody is there: no other next hop is tried any more.
            self.layer.set_deadline(client, None);
        }
        if status == 503 && !abandoned && !outgoing.ways.is_empty() {
            // RFC 3263 §4.3: as if it could not be reached.
            let outgoing = outgoing.clone();
            return self.try_next(outgoing, Failure::Transport("503".to_owned()), now);
        }
        if abandoned && !is_success {
            return;
        }
        if matches!(purpose, Purpose::Invite | Purpose::Register) && status >= 200 {
            let way = outgoing.way.clone();
            if let Some(entry) = self.calls.get_mut(&id) {
                entry.pending = None;
                entry.way = way.or(entry.way.take());
            }
        }
        self.with(id, now, |leg, token, out| leg.response(purpose, (response, source), now, token, out));
    }

    /// A next hop has failed: the next one is tried, if any is left.
    pub(super) fn failed(&mut self, client: ClientId, failure: Failure, now: Instant) {
        let Some(outgoing) = self.clients.get_mut(&client) else { return };
        if std::mem::replace(&mut outgoing.abandoned, true) {
            return;
        }
        let wanted = self.calls.get(&outgoing.call).is_some_and(|entry| entry.pending == Some(client));
        if outgoing.purpose == Purpose::Register && !wanted {
            // Nobody waits for it any more.
            return;
        }
        let outgoing = Outgoing { abandoned: false, ..outgoing.clone() };
        // It may have arrived all the same: whoever rings there is to stop.
        self.layer.cancel(client, now);
        self.try_next(outgoing, failure, now);
    }

    /// Sends a request to its next way; `failure` is what came of the one before.
    fn try_next(&mut self, mut outgoing: Outgoing, failure: Failure, now: Instant) {
        let Some(way) = outgoing.ways.pop_front() else {
            return self.fail(outgoing.call, outgoing.purpose, failure, now);
        };
        let branch = self.layer.new_branch(None);
        let bytes = outgoing.over(&way, branch.as_str());
        let hop = way.hop.clone();
        outgoing.way = Some(way);
        match self.layer.request(&branch, outgoing.request.method(), bytes, hop, now) {
            Ok(client) => {
                let patience = match (outgoing.ways.is_empty(), outgoing.purpose) {
                    (false, _) => Some(self.config.hop_timeout),
                    (true, Purpose::Invite) => self.config.patience,
                    (true, _) => None,
                };
                if let Some(patience) = patience {
                    self.layer.set_deadline(client, Some(now + patience));
                }
                if matches!(outgoing.purpose, Purpose::Invite | Purpose::Register)
                    && let Some(entry) = self.calls.get_mut(&outgoing.call)
                {
                    entry.pending = Some(client);
                }
                self.clients.insert(client, outgoing);
            }
            Err(error) => self.fail(outgoing.call, outgoing.purpose, Failure::Transport(error.to_string()), now),
        }
    }

    /// Nothing is left to try.
    fn fail(&mut self, id: CallId, purpose: Purpose, failure: Failure, now: Instant) {
        self.with(id, now, |leg, _, out| leg.failed(purpose, failure, now, out));
    }

    /// Sends the ACK of a 2xx to the first of these ways.
    fn send_ack(&mut self, call: CallId, request: Message, mut others: VecDeque<Way>) {
        let Some(entry) = self.calls.get_mut(&call) else { return };
        // Whoever cannot be found is sought where the INVITE found somebody.
        let Some(way) = others.pop_front().or_else(|| entry.way.clone()) else { return };
        let branch = self.layer.new_branch(None);
        let mut edit = Edit::new(&request);
        edit.prepend(Name::Via, via(&way, branch.as_str()));
        let sent = (way.hop.clone(), edit.finish());
        self.layer.send(way.hop, sent.1.clone());
        entry.ack = Some(Acked { request, sent, others });
    }

    /// ACKs that went to this hop go to the next one: a proxy peer may be gone, and any other one will do.
    pub(super) fn ack_failed(&mut self, hop: &Hop) {
        let at_hop = |entry: &Entry| {
            let to = entry.ack.as_ref().filter(|ack| !ack.others.is_empty()).map(|ack| &ack.sent.0);
            to.is_some_and(|to| (to.protocol, to.remote) == (hop.protocol, hop.remote))
        };
        let failed: Vec<CallId> = self.calls.iter().filter(|(_, entry)| at_hop(entry)).map(|(id, _)| *id).collect();
        for id in failed {
            if let Some(ack) = self.calls.get_mut(&id).and_then(|entry| entry.ack.take()) {
                self.send_ack(id, ack.request, ack.others);
            }
        }
    }

    /// As [`transaction::Layer::undelivered`], for the ACK of a 2xx.
    pub(super) fn ack_undelivered(&mut self, undelivered: &Undelivered) -> bool {
        let Undelivered { remote, quoted, .. } = undelivered;
        let hop = Hop::socket(Protocol::Udp, *remote);
        let sent = |ack: &Acked| ack.sent.0.remote == hop.remote && ack.sent.1.starts_with(quoted);
        let known = transaction::quoted_branch(quoted).is_some()
            && self.calls.values().any(|entry| entry.ack.as_ref().is_some_and(sent));
        if known {
            self.ack_failed(&hop);
        }
        known
    }

    /// Cancels the INVITE of a call, wherever it is on its way.
    pub(super) fn cancel(&mut self, id: CallId, now: Instant) {
        let invite = self.calls.get(&id).and_then(|entry| entry.pending);
        if invite.is_some_and(|client| self.layer.cancel(client, now)) {
            // No other next hop is wanted any more.
            if let Some(outgoing) = invite.and_then(|client| self.clients.get_mut(&client)) {
                outgoing.ways.clear();
            }
            return;
        }
        // It was never sent.
        self.locating.retain(|_, waiting| !matches!(waiting, Waiting::Request(outgoing) if outgoing.call == id));
        self.fail(id, Purpose::Invite, Failure::Timeout, now);
    }

    /// Asks where something is to be sent.
    pub(super) fn locate(&mut self, next_hop: NextHop, waiting: Waiting) {
        let id = LocateId(self.next_id());
        self.locating.insert(id, waiting);
        let (uri, outbound) = match next_hop {
            NextHop::Outbound(uri) => (uri, true),
            NextHop::Uri(uri) => (uri, false),
        };
        self.outputs.push_back(Output::Locate { id, uri, outbound });
    }
}

fn via(way: &Way, branch: &str) -> String {
    let protocol = way.hop.protocol;
    let rport = if protocol == Protocol::Overlay { "" } else { ";rport" };
    format!("SIP/2.0/{protocol} {};branch={branch}{rport}", way.sent_by)
}
