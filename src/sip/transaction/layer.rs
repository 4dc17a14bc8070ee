//! The transaction layer: all machines, and which message goes to which.

use std::{
    collections::{HashSet, VecDeque},
    hash::BuildHasherDefault,
    time::Instant,
};

use bytes::Bytes;

use super::{
    Branch, RequestError, RespondError, Timers,
    event::{ClientId, Event, Id, Metrics, Output, ServerId, Token},
    key::{Key, KeyHasher, Keys},
    machine::{Context, Input, Kind, Packet, State, Step, Tell},
    quote,
    table::{Cancel, Extra, Fired, Table, Transaction},
    timers::Timer,
};
use crate::sip::{
    Message, Method, derive, respond,
    transport::{Hop, Protocol, Remote, Source, Undelivered, response_target},
};

/// How a layer behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// The base values of all timers.
    pub timers: Timers,
    /// How many transactions there may be. CANCELs, of which an INVITE has one at most, come on top.
    pub max_transactions: usize,
    /// What the branches of this layer begin with, for whoever distributes responses over several.
    pub shard: u8,
    /// Whether to recognise copies of a request that took different paths, for a UAS.
    pub detect_merged: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { timers: Timers::default(), max_transactions: 500_000, shard: 0, detect_merged: false }
    }
}

/// All transactions of a proxy or UA; see the [module](super).
#[derive(Debug)]
pub struct Layer {
    config: Config,
    keys: Keys,
    table: Table,
    /// What the copies of a request have in common, for each request of a transaction that belongs to no dialog.
    merged: HashSet<Key, BuildHasherDefault<KeyHasher>>,
    outputs: VecDeque<Output>,
    metrics: Metrics,
}

impl Layer {
    /// An empty layer. No time that it is ever told may be before `now`.
    pub fn new(config: Config, now: Instant) -> Self {
        Self {
            config,
            keys: Keys::new(),
            table: Table::new(now),
            merged: HashSet::default(),
            outputs: VecDeque::new(),
            metrics: Metrics::default(),
        }
    }

    /// How many transactions there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no transaction.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How often things happened.
    pub const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The branch for a request that is about to be sent. `mark` can be read back with [`Branch::read`] from the Via of a
    /// request that comes by again.
    pub fn new_branch(&mut self, mark: Option<u64>) -> Branch {
        Branch::new(self.config.shard, self.keys.random(), mark)
    }

    /// Sends a request other than ACK in a client transaction. Its topmost Via is ours, and has `branch`.
    ///
    /// # Errors
    /// If the table is full, or the request cannot have a transaction.
    pub fn request(
        &mut self,
        branch: &Branch,
        method: Method<'_>,
        bytes: Bytes,
        hop: Hop,
        now: Instant,
    ) -> Result<ClientId, RequestError> {
        debug_assert!(
            memchr::memmem::find(&bytes, branch.as_str().as_bytes()).is_some(),
            "the request does not have its branch"
        );
        if self.table.len() >= self.config.max_transactions {
            self.metrics.refused += 1;
            return Err(RequestError::Full);
        }
        let parts = Branch::read(branch.as_str().as_bytes()).ok_or(RequestError::NoTransaction)?;
        let kind = match method {
            Method::Ack => return Err(RequestError::NoTransaction),
            Method::Invite => Kind::InviteClient,
            _ => Kind::Client,
        };
        let key = self.keys.client(parts.random, method);
        let extra = Extra::Client { cancel: Cancel::No };
        let id = self.start(Transaction::new(kind, key, hop, bytes, extra), now);
        id.map(ClientId).ok_or(RequestError::NoTransaction)
    }

    /// Cancels an INVITE that has no final response: with a CANCEL as soon as there is a provisional response
    /// (RFC 3261 §9.1), which needs no further attention. The INVITE's final response is still to come, or
    /// [`Event::Timeout`] 64*T1 after the CANCEL. Says whether there is anything to cancel.
    pub fn cancel(&mut self, client: ClientId, now: Instant) -> bool {
        let Some(transaction) = self.table.get_mut(client.0) else { return false };
        let Transaction { kind: Kind::InviteClient, state: State::Calling | State::Proceeding, extra, .. } =
            transaction
        else {
            return false;
        };
        if matches!(extra, Extra::Client { cancel: Cancel::No }) {
            *extra = Extra::Client { cancel: Cancel::Wanted };
            self.cancel_if_wanted(client.0, now);
        }
        true
    }

    /// Lets [`Event::Deadline`] happen at `at` if there is no final response by then: a proxy's Timer C (RFC 3261
    /// §16.6 step 11), or a UAC's patience. Another time replaces the former one.
    pub fn set_deadline(&mut self, client: ClientId, at: Option<Instant>) {
        let state = self.table.get(client.0).map(|transaction| transaction.state);
        if matches!(state, Some(State::Calling | State::Trying | State::Proceeding)) {
            self.table.set_deadline(client.0, at);
        }
    }

    /// Answers a request.
    ///
    /// A 100 Trying to a request other than INVITE is held back until RFC 4320 §4.1 allows it, and is then our own.
    ///
    /// # Errors
    /// If the transaction is over or has its final response (a further 2xx to an INVITE is sent for as long as the
    /// transaction lives), or no such response may be sent. A proxy sends a late 2xx with [`Layer::send`].
    pub fn respond(&mut self, server: ServerId, response: Bytes, now: Instant) -> Result<(), RespondError> {
        let status = status(&response).ok_or(RespondError::NoResponse)?;
        let id = server.0;
        let transaction = self.table.get(id).ok_or(RespondError::Late)?;
        if transaction.kind == Kind::Server {
            if status == 408 || (101..200).contains(&status) {
                return Err(RespondError::Forbidden);
            }
            let reliable = transaction.hop.protocol.is_reliable();
            if status == 100 && !reliable && transaction.waits_for(Timer::Trying) {
                return Ok(());
            }
        }
        let step = self.step(id, Input::of_status(status)).ok_or(RespondError::Late)?;
        if step.send.is_none() {
            return Err(RespondError::Late);
        }
        let by_tag = matches!(transaction.extra, Extra::Server { tag: Some(_), .. });
        let to_tag = by_tag.then(|| Message::parse(response.clone()).ok()).flatten().map(|response| {
            let to = response.to().ok();
            self.keys.tag(to.as_ref().and_then(|to| to.tag()))
        });
        if let Some(transaction) = self.table.get_mut(id) {
            transaction.packet = response;
            if let Extra::Server { request, tag, .. } = &mut transaction.extra {
                *request = None;
                *tag = to_tag.or(*tag);
            }
        }
        self.apply(id, step, None, now);
        Ok(())
    }

    /// Sends a message outside of any transaction: the ACK of a 2xx, a response or request that is forwarded or made
    /// statelessly.
    pub fn send(&mut self, to: Hop, bytes: Bytes) {
        self.outputs.push_back(Output::Send { to, bytes, token: Token::STATELESS });
    }

    /// Takes a message from the network. The topmost Via of a request has `received` and `rport` as RFC 3261 §18.2.1 and
    /// RFC 3581 §4 want it.
    pub fn receive(&mut self, message: Message, source: Source, now: Instant) {
        match message.status() {
            Some(status) => self.receive_response(status, message, source, now),
            None => self.receive_request(message, source, now),
        }
    }

    /// Whether a request belongs to a server transaction that is there: it is a copy of its request, its CANCEL or the
    /// ACK of its failure.
    pub fn knows(&mut self, message: &Message) -> bool {
        let Ok(via) = message.top_via() else { return false };
        let method = match message.method() {
            Method::Ack | Method::Cancel => Method::Invite,
            method => method,
        };
        let to_tag = if via.unique_branch().is_some() { None } else { message.to().ok().and_then(|to| to.tag()) };
        let key = self.keys.server(message, &via, method, to_tag);
        self.table.find(key).is_some()
    }

    /// What was sent with this token could not be delivered.
    pub fn transport_failed(&mut self, token: Token, now: Instant) {
        if let Some((id, step)) = token.id.and_then(|id| Some((id, self.step(id, Input::TransportError)?))) {
            self.metrics.transport_errors += 1;
            self.apply(id, step, None, now);
        }
    }

    /// ICMP says that a datagram did not arrive (RFC 3261 §18.4): as if its request could not have been sent. Says whether
    /// it is one of ours that waits for an answer.
    ///
    /// Anybody can send ICMP, and a forged message must end no call. So it has to quote the request with its branch, which
    /// nobody can guess, and to come from where the request went. What quotes less changes nothing: timers see to it.
    /// Neither does what is said of a response: that its transaction goes on is right if the sender of the request
    /// comes back, and ends by itself otherwise.
    pub fn undelivered(&mut self, undelivered: &Undelivered, now: Instant) -> bool {
        let Some((method, branch)) = quote::request(&undelivered.quoted) else { return false };
        let remote = Remote::Socket(undelivered.remote);
        let key = self.keys.client(branch.random, method);
        let Some(id) = self.table.find(key).filter(|id| {
            self.table.get(*id).is_some_and(|found| {
                let waits = matches!(found.state, State::Calling | State::Trying | State::Proceeding);
                found.kind.is_client() && waits && (found.hop.protocol, found.hop.remote) == (Protocol::Udp, remote)
            })
        }) else {
            return false;
        };
        self.transport_failed(Token::new(self.config.shard, id), now);
        true
    }

    /// When to call [`Layer::handle_timeout`] next, if nothing else happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.table.poll_timeout()
    }

    /// Lets all timers fire that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((id, fired)) = self.table.expire(now) {
            match fired {
                Fired::Deadline => self.event(Event::Deadline { client: ClientId(id) }),
                Fired::Timer(timer) => {
                    if let Some(step) = self.step(id, Input::Fired(timer)) {
                        self.count_fired(timer);
                        self.apply(id, step, None, now);
                    }
                }
            }
        }
    }

    /// The next thing to do, in the order in which they came up. To be called until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// That nothing is left: no transaction, no timer, no trace of merged requests.
    #[cfg(test)]
    pub(super) fn assert_empty(&self) {
        assert_eq!((self.table.len(), self.table.timers(), self.merged.len()), (0, 0, 0));
        assert_eq!((self.poll_timeout(), self.outputs.len()), (None, 0));
    }

    fn receive_response(&mut self, status: u16, message: Message, source: Source, now: Instant) {
        let Ok(via) = message.top_via() else {
            self.metrics.malformed += 1;
            return;
        };
        let parts = via.branch().and_then(|branch| Branch::read(branch.as_bytes()));
        let key = parts.map(|parts| self.keys.client(parts.random, message.method()));
        let Some((id, step)) = key.and_then(|key| {
            let id = self.table.find(key).filter(|id| self.kind(*id).is_some_and(Kind::is_client))?;
            Some((id, self.step(id, Input::of_status(status))?))
        }) else {
            self.metrics.strays += 1;
            return self.event(Event::StrayResponse { message, source });
        };
        if let Some(transaction) = self.table.get_mut(id) {
            if matches!(transaction.state, State::Completed | State::Accepted) {
                self.metrics.response_repeats += u64::from(status >= 200);
                self.metrics.requests_resent += u64::from(step.send.is_some());
            } else if step.send == Some(Packet::Ack) {
                let invite = Message::parse(std::mem::take(&mut transaction.packet));
                transaction.packet = invite.map_or_else(|_| Bytes::new(), |invite| derive::ack_for(&invite, &message));
            }
        }
        self.apply(id, step, Some((message, source)), now);
        self.cancel_if_wanted(id, now);
    }

    fn receive_request(&mut self, message: Message, source: Source, now: Instant) {
        let Ok(via) = message.top_via() else {
            self.metrics.malformed += 1;
            return;
        };
        let method = message.method();
        let unique = via.unique_branch().is_some();
        let to_tag = if unique { None } else { message.to().ok().and_then(|to| to.tag()) };
        if method == Method::Ack {
            let key = self.keys.server(&message, &via, Method::Invite, to_tag);
            let mut id = self.table.find(key);
            if !unique {
                // An INVITE that begins a dialog has no To tag, but the response that we sent has (§17.2.3).
                let first = self.keys.server(&message, &via, Method::Invite, None);
                let tag = self.keys.tag(to_tag);
                id = id.or_else(|| self.table.find(first)).filter(|id| self.sent_tag(*id) == Some(tag));
            }
            return self.receive_ack(id, message, source, now);
        }
        let key = self.keys.server(&message, &via, method, to_tag);
        if let Some(id) = self.table.find(key) {
            self.metrics.request_repeats += 1;
            if let Some(step) = self.step(id, Input::Request) {
                let answered = self.table.get(id).is_some_and(|transaction| !transaction.packet.is_empty());
                self.metrics.responses_resent += u64::from(step.send.is_some() && answered);
                self.apply(id, step, None, now);
            }
            return;
        }
        let mut invite = None;
        if method == Method::Cancel {
            let key = self.keys.server(&message, &via, Method::Invite, to_tag);
            invite = self.table.find(key).map(ServerId);
            if invite.is_none() {
                self.metrics.strays += 1;
                return self.event(Event::StrayCancel { message, source });
            }
        } else if self.table.len() >= self.config.max_transactions {
            self.metrics.refused += 1;
            return self.event(Event::Overload { message, source });
        }
        let kind = if method == Method::Invite { Kind::InviteServer } else { Kind::Server };
        let common = if self.config.detect_merged && invite.is_none() { self.keys.merged(&message) } else { None };
        let merged = common.is_some_and(|key| self.merged.contains(&key));
        let extra = Extra::Server {
            request: Some(Box::new(message.clone())),
            merged: common.filter(|_| !merged).map(Box::new),
            tag: if unique { None } else { Some(self.keys.tag(None)) },
        };
        let transaction = Transaction::new(kind, key, response_target(&via, &source), Bytes::new(), extra);
        let Some(id) = self.start(transaction, now) else { return };
        if let Some(key) = common.filter(|_| !merged) {
            self.merged.insert(key);
        }
        let server = ServerId(id);
        self.event(match invite {
            Some(invite) => Event::Cancel { server, invite, message, source },
            None => Event::Request { server, message, source, merged },
        });
    }

    fn receive_ack(&mut self, id: Option<Id>, message: Message, source: Source, now: Instant) {
        match id.and_then(|id| Some((id, self.step(id, Input::Ack)?))) {
            Some((id, step)) => {
                self.metrics.request_repeats += u64::from(self.state(id) == Some(State::Confirmed));
                self.apply(id, step, Some((message, source)), now);
            }
            None => {
                self.metrics.strays += 1;
                self.event(Event::Ack { invite: None, message, source });
            }
        }
    }

    /// Puts a transaction into the table and takes its first step.
    fn start(&mut self, transaction: Transaction, now: Instant) -> Option<Id> {
        let kind = transaction.kind;
        let reliable = transaction.hop.protocol.is_reliable();
        let id = self.table.insert(transaction)?;
        *(if kind.is_client() { &mut self.metrics.clients } else { &mut self.metrics.servers }) += 1;
        let timers = &self.config.timers;
        let step = kind.start(Context { timers, reliable, interval: timers.t1 });
        self.apply(id, step, None, now);
        Some(id)
    }

    /// What an input would do to a transaction.
    fn step(&self, id: Id, input: Input) -> Option<Step> {
        let transaction = self.table.get(id)?;
        let reliable = transaction.hop.protocol.is_reliable();
        let context = Context { timers: &self.config.timers, reliable, interval: transaction.interval() };
        Some(transaction.kind.step(transaction.state, input, context))
    }

    /// Does what a step asks for. `passed` is the message that caused it.
    fn apply(&mut self, id: Id, step: Step, passed: Option<(Message, Source)>, now: Instant) {
        if let Some(packet) = step.send {
            self.transmit(id, packet, now);
        }
        let Some(transaction) = self.table.get_mut(id) else { return };
        let kind = transaction.kind;
        let quiet = matches!(transaction.extra, Extra::Quiet);
        transaction.state = step.next;
        if !sends_again(kind, step.next) {
            transaction.packet = Bytes::new();
        }
        self.table.set_timers(id, step.resend, step.life, now);
        if kind.is_client() && !matches!(step.next, State::Calling | State::Trying | State::Proceeding) {
            self.table.set_deadline(id, None);
        }
        if let Some(tell) = step.tell.filter(|_| !quiet) {
            self.tell(id, kind, tell, passed);
        }
        if step.next == State::Terminated {
            self.end(id, quiet);
        }
    }

    fn transmit(&mut self, id: Id, packet: Packet, now: Instant) {
        let Some(transaction) = self.table.get_mut(id) else { return };
        match (packet, &mut transaction.extra) {
            (Packet::Cancel, _) => return self.send_cancel(id, now),
            (Packet::Trying, Extra::Server { request, .. }) => {
                let Some(request) = request.take() else { return };
                transaction.packet = respond::respond(&request, 100, "Trying", None).finish();
            }
            _ => {}
        }
        // A request that came again before the TU said anything.
        if transaction.packet.is_empty() {
            return;
        }
        let (to, bytes) = (transaction.hop.clone(), transaction.packet.clone());
        self.outputs.push_back(Output::Send { to, bytes, token: Token::new(self.config.shard, id) });
    }

    fn tell(&mut self, id: Id, kind: Kind, tell: Tell, passed: Option<(Message, Source)>) {
        let (client, server) = (ClientId(id), ServerId(id));
        self.event(match (tell, kind.is_client(), passed) {
            (Tell::Response, _, Some((message, source))) => Event::Response { client, message, source },
            (Tell::Ack, _, Some((message, source))) => Event::Ack { invite: Some(server), message, source },
            (Tell::Timeout, true, _) => Event::Timeout { client },
            (Tell::Timeout, false, _) => Event::NotAcknowledged { server },
            (Tell::TransportError, true, _) => Event::TransportError { client },
            (Tell::TransportError, false, _) => Event::ResponseFailed { server },
            (Tell::Response | Tell::Ack, _, None) => return,
        });
    }

    fn end(&mut self, id: Id, quiet: bool) {
        let Some(transaction) = self.table.remove(id) else { return };
        if let Extra::Server { merged: Some(key), .. } = transaction.extra {
            self.merged.remove(&key);
        }
        if transaction.kind.is_client() {
            if !quiet {
                self.event(Event::ClientEnded { client: ClientId(id) });
            }
        } else {
            self.event(Event::ServerEnded { server: ServerId(id) });
        }
    }

    /// Sends the CANCEL that the TU wants, if this is the time.
    fn cancel_if_wanted(&mut self, id: Id, now: Instant) {
        let Some(transaction) = self.table.get_mut(id) else { return };
        if let Extra::Client { cancel: cancel @ Cancel::Wanted } = &mut transaction.extra
            && transaction.state == State::Proceeding
        {
            *cancel = Cancel::Sent;
            if let Some(step) = self.step(id, Input::Cancel) {
                self.apply(id, step, None, now);
            }
        }
    }

    fn send_cancel(&mut self, invite: Id, now: Instant) {
        let Some(transaction) = self.table.get(invite) else { return };
        let Ok(request) = Message::parse(transaction.packet.clone()) else { return };
        let random = request.top_via().ok().and_then(|via| Some(Branch::read(via.branch()?.as_bytes())?.random));
        let (bytes, hop) = (derive::cancel_for(&request), transaction.hop.clone());
        if let Some(random) = random {
            let key = self.keys.client(random, Method::Cancel);
            self.start(Transaction::new(Kind::Client, key, hop, bytes, Extra::Quiet), now);
        }
    }

    fn count_fired(&mut self, timer: Timer) {
        let counter = match timer {
            Timer::A | Timer::E => &mut self.metrics.requests_resent,
            Timer::G => &mut self.metrics.responses_resent,
            Timer::B | Timer::F | Timer::Cancelled => &mut self.metrics.timeouts,
            Timer::H => &mut self.metrics.not_acknowledged,
            _ => return,
        };
        *counter += 1;
    }

    fn kind(&self, id: Id) -> Option<Kind> {
        self.table.get(id).map(|transaction| transaction.kind)
    }

    fn state(&self, id: Id) -> Option<State> {
        self.table.get(id).map(|transaction| transaction.state)
    }

    fn sent_tag(&self, id: Id) -> Option<u64> {
        match self.table.get(id)?.extra {
            Extra::Server { tag, .. } => tag,
            _ => None,
        }
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}

impl Input {
    const fn of_status(status: u16) -> Self {
        match status {
            ..200 => Self::Provisional,
            200..300 => Self::Success,
            _ => Self::Failure,
        }
    }
}

/// Whether a state has anything to send again, or to derive an ACK or CANCEL from.
const fn sends_again(kind: Kind, state: State) -> bool {
    match state {
        State::Calling | State::Trying | State::Proceeding => true,
        State::Completed => !matches!(kind, Kind::Client),
        State::Confirmed | State::Accepted | State::Terminated => false,
    }
}

/// The status code of a response.
fn status(response: &[u8]) -> Option<u16> {
    let digits = response.strip_prefix(b"SIP/2.0 ")?.get(..3)?;
    let status = digits
        .iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u16::from(digit - b'0')))?;
    (100..700).contains(&status).then_some(status)
}
