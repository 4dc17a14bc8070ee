//! The response context of one request (RFC 3261 §16.2): what was asked for it, tried for it and answered to it.

use std::{cmp::Reverse, time::Instant};

use super::{Client, Engine, Located, Open, Output, What};
use crate::{
    name::InstanceId,
    proxy::{
        fork::{Action, Failure, Fork, Place, Target, Verdict},
        route::{Next, Plan},
    },
    sip::{
        Message, Method,
        edit::Edit,
        header::Name,
        respond,
        transaction::{ClientId, ServerId},
        transport::{Hop, Source, response_target},
    },
};

/// What a response context asked the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Where the user is.
    User,
    /// The servers of a target's URI.
    Hops {
        /// The target.
        branch: usize,
    },
}

/// What is left of an INVITE that was answered with a 2xx: where to pass the 2xx on if it comes again.
#[derive(Debug)]
pub(super) struct Answered {
    /// The request's transaction.
    pub(super) server: ServerId,
    /// The way back, for when that is over.
    pub(super) back: Hop,
    /// What an adapter changes in it.
    pub(super) adapted: Option<Box<Adapted>>,
}

/// What an adapter changes in the responses of an attempt.
#[derive(Debug)]
pub(super) struct Adapted {
    /// The phone of ours that answers.
    pub(super) phone: Option<InstanceId>,
    /// The Record-Route for the phone of ours that calls.
    pub(super) record: Option<String>,
}

/// A request and what is tried for it.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) server: ServerId,
    pub(super) message: Message,
    pub(super) source: Source,
    pub(super) plan: Plan,
    pub(super) fork: Fork,
    /// The Request-URI of each target, where it is not the plan's.
    pub(super) uris: Vec<Option<std::sync::Arc<str>>>,
    /// The phone of ours that each target is.
    pub(super) targets: Vec<Option<InstanceId>>,
    /// The phone of ours that each attempt went to.
    pub(super) phones: Vec<Option<InstanceId>>,
    /// The client transaction of each attempt.
    clients: Vec<Option<ClientId>>,
    /// Questions that have not been answered.
    asked: usize,
    /// Whether the user was looked up a second time.
    again: bool,
    /// How many targets each target may try at a time (RFC 5393 §5.3.3).
    pub(super) breadth: u32,
    /// The time that was put on the heap last.
    pub(super) deadline: Option<Instant>,
}

impl Engine {
    /// Begins with a request that is to be passed on.
    pub(super) fn begin(&mut self, server: ServerId, message: Message, source: Source, plan: Plan, now: Instant) {
        let invite = message.method() == Method::Invite;
        if invite {
            // Locating may take longer than 200 ms (RFC 3261 §17.2.1).
            let trying = respond::respond(&message, 100, "", None).finish();
            let _ = self.layer.respond(server, trying, now);
        }
        self.counts.forwarded += 1;
        self.next += 1;
        let id = self.next;
        let user = matches!(plan.next, Next::User { .. } | Next::Proxy);
        let here = self.here(&plan, &source);
        let what = self.what(&plan, &source);
        let breadth = plan.breadth;
        let mut context = Context {
            server,
            message,
            source,
            plan,
            fork: Fork::new(invite, self.config.patience),
            uris: Vec::new(),
            targets: Vec::new(),
            phones: Vec::new(),
            clients: Vec::new(),
            asked: 0,
            again: false,
            breadth,
            deadline: None,
        };
        if let (false, What::Uri { uri, .. }) = (user, &what) {
            context.uris.push(None);
            context.fork.begin(vec![vec![Target { uri: None, place: Place::Uri(uri.clone()) }]], now);
        }
        self.contexts.insert(id, context);
        self.by_server.insert(server, id);
        match here {
            Some(located) => self.settle(id, Asked::User, located, now),
            None if user => self.ask_for(id, Asked::User, what, now),
            None => {}
        }
        self.follow(id, now);
    }

    /// Asks the driver on behalf of a context.
    fn ask_for(&mut self, id: u64, asked: Asked, what: What, now: Instant) {
        match self.ask(Open::Context(id, asked)) {
            Ok(question) => {
                if let Some(context) = self.contexts.get_mut(&id) {
                    context.asked += 1;
                }
                self.outputs.push_back(Output::Locate { question, what });
            }
            Err(_) => {
                self.counts.overloaded += 1;
                self.settle(id, asked, Located::Nowhere { status: 503, reason: "Overloaded" }, now);
            }
        }
    }

    /// The driver's answer to [`Engine::ask_for`].
    pub(super) fn context_located(&mut self, id: u64, asked: Asked, located: Located, now: Instant) {
        if let Some(context) = self.contexts.get_mut(&id) {
            context.asked = context.asked.saturating_sub(1);
        }
        self.settle(id, asked, located, now);
        self.follow(id, now);
        self.let_go(id);
    }

    fn settle(&mut self, id: u64, asked: Asked, located: Located, now: Instant) {
        let Some(context) = self.contexts.get(&id) else { return };
        let (located, phones) = match located {
            Located::Groups(groups) => self.with_phones(groups, &context.plan),
            other => (other, Vec::new()),
        };
        let Some(context) = self.contexts.get_mut(&id) else { return };
        if asked == Asked::User {
            context.targets = phones;
        }
        match (asked, located) {
            (Asked::User, Located::Groups(groups)) => {
                // RFC 5393 §5.3: no more targets at a time than Max-Breadth; they share it.
                let most = usize::try_from(context.plan.breadth).unwrap_or(usize::MAX).max(1);
                let groups: Vec<Vec<Target>> =
                    groups.iter().flat_map(|group| group.chunks(most)).map(<[Target]>::to_vec).collect();
                let widest = groups.iter().map(Vec::len).max().unwrap_or(1).max(1);
                context.breadth = (context.plan.breadth / u32::try_from(widest).unwrap_or(u32::MAX)).max(1);
                context.uris = groups.iter().flatten().map(|target| target.uri.clone()).collect();
                context.fork.begin(groups, now);
            }
            (Asked::User, Located::Hops(hops)) => {
                context.uris = vec![None];
                context.fork.begin(vec![vec![Target { uri: None, place: Place::Hops(hops) }]], now);
            }
            (Asked::User, Located::Nowhere { status, reason }) => {
                // As a target that answers so, which keeps CANCEL and the like in one place.
                context.uris = vec![None];
                let nowhere = Target { uri: None, place: Place::Uri("".into()) };
                context.fork.begin(vec![vec![nowhere]], now);
                // What follows from it is left for `follow`. A fork that was cancelled meanwhile begins nothing.
                if let Some(Action::Locate { branch, .. }) = context.fork.poll() {
                    context.fork.located(branch, Err((status, reason)), now);
                }
            }
            (Asked::Hops { branch }, Located::Hops(hops)) => context.fork.located(branch, Ok(hops), now),
            (Asked::Hops { branch }, Located::Nowhere { status, reason }) => {
                context.fork.located(branch, Err((status, reason)), now);
            }
            (Asked::Hops { branch }, Located::Groups(_)) => {
                context.fork.located(branch, Err((500, "No Next Hop")), now);
            }
        }
    }

    /// The caller has given up.
    pub(super) fn cancel(&mut self, id: u64, now: Instant) {
        if let Some(context) = self.contexts.get_mut(&id) {
            context.fork.cancel(now);
            self.follow(id, now);
        }
    }

    /// A client transaction came to nothing.
    pub(super) fn failed(&mut self, client: ClientId, failure: Failure, now: Instant) {
        if let Some(&Client::Of(id, attempt)) = self.by_client.get(&client)
            && let Some(context) = self.contexts.get_mut(&id)
        {
            context.fork.failed(attempt, failure, now);
            self.follow(id, now);
        }
    }

    /// Does what a context's fork wants, and notes when to look again.
    pub(super) fn follow(&mut self, id: u64, now: Instant) {
        while let Some(action) = self.contexts.get_mut(&id).and_then(|context| context.fork.poll()) {
            match action {
                Action::Locate { branch, uri } => {
                    let secure = self.contexts.get(&id).is_some_and(|context| context.plan.secure);
                    self.ask_for(id, Asked::Hops { branch }, What::Uri { uri, secure }, now);
                }
                Action::Try { branch, attempt, hop } => self.attempt(id, branch, attempt, hop, now),
                Action::Cancel { attempt } => {
                    let client = self.contexts.get(&id).and_then(|context| *context.clients.get(attempt)?);
                    if let Some(client) = client {
                        self.layer.cancel(client, now);
                    }
                }
                Action::Learned { hop, health } => self.outputs.push_back(Output::Learned { hop, health }),
                Action::Pass(response) => self.pass_for(id, &response, &[], now),
                Action::Finish(verdict) => self.finish(id, verdict, now),
            }
        }
        let Some(context) = self.contexts.get_mut(&id) else { return };
        let deadline = context.fork.deadline();
        if let Some(at) = deadline
            && context.deadline.is_none_or(|noted| at < noted)
        {
            context.deadline = Some(at);
            self.deadlines.push(Reverse((at, id)));
        }
        self.let_go(id);
    }

    /// Sends the request to one hop.
    fn attempt(&mut self, id: u64, branch: usize, attempt: usize, hop: crate::sip::transport::Hop, now: Instant) {
        let sent = self.forward(id, branch, hop, now);
        let Some(context) = self.contexts.get_mut(&id) else { return };
        context.clients.resize(attempt + 1, None);
        context.phones.resize(attempt + 1, None);
        if let Some(place) = context.phones.get_mut(attempt) {
            *place = context.targets.get(branch).copied().flatten();
        }
        match sent {
            Some(client) => {
                if let Some(place) = context.clients.get_mut(attempt) {
                    *place = Some(client);
                }
                self.by_client.insert(client, Client::Of(id, attempt));
            }
            None => context.fork.failed(attempt, Failure::Transport, now),
        }
    }

    /// Sends the final response upstream.
    fn finish(&mut self, id: u64, verdict: Verdict, now: Instant) {
        match verdict {
            Verdict::Response { response, challenges } => self.pass_for(id, &response, &challenges, now),
            Verdict::Local { status, reason } => {
                let Some(context) = self.contexts.get(&id) else { return };
                let (server, message) = (context.server, context.message.clone());
                let retry = (status == 503).then(|| (Name::RetryAfter, super::RETRY_AFTER.to_owned()));
                self.reject(server, &message, status, reason, retry, now);
            }
            Verdict::Unreachable => self.unreachable(id, now),
            Verdict::Silence => {}
        }
    }

    /// Nobody could be sent the request. A user may have moved since the contacts were found, so the driver, which
    /// knows what failed, is asked once more.
    fn unreachable(&mut self, id: u64, now: Instant) {
        let Some(context) = self.contexts.get_mut(&id) else { return };
        let user = matches!(context.plan.next, Next::User { .. });
        if user && !context.again {
            context.again = true;
            context.fork = Fork::new(context.message.method() == Method::Invite, self.config.patience);
            context.uris.clear();
            context.targets.clear();
            context.phones.clear();
            context.clients.clear();
            let (plan, source) = (context.plan.clone(), context.source.clone());
            return self.ask_for(id, Asked::User, self.what(&plan, &source), now);
        }
        // A user without a way there is not available for now (as in RFC 5626, where flows fail). Any other next hop
        // is this proxy's business, and it is not overloaded (RFC 3261 §16.7 step 6, §16.9).
        let (status, reason) = if user { (480, "Device Unreachable") } else { (500, "Next Hop Unreachable") };
        let (server, message) = (context.server, context.message.clone());
        self.reject(server, &message, status, reason, None, now);
    }

    fn pass_for(&mut self, id: u64, response: &Message, challenges: &[Message], now: Instant) {
        let Some(context) = self.contexts.get(&id) else { return };
        let (server, message, source) = (context.server, context.message.clone(), context.source.clone());
        let record = self.record_for_phone(context);
        self.pass(server, response, challenges, record.as_deref(), now, || {
            message.top_via().ok().map(|via| response_target(&via, &source))
        });
    }

    /// Sends a response upstream, without our own Via (RFC 3261 §16.7 step 3), and with `record` as a Record-Route if
    /// it may form a dialog. `back` is the way if the server transaction is over.
    pub(super) fn pass(
        &mut self,
        server: ServerId,
        response: &Message,
        challenges: &[Message],
        record: Option<&str>,
        now: Instant,
        back: impl FnOnce() -> Option<Hop>,
    ) {
        let mut edit = Edit::new(response);
        edit.remove_first_value(Name::Via);
        for name in [Name::WwwAuthenticate, Name::ProxyAuthenticate] {
            for value in challenges.iter().flat_map(|other| other.headers()).filter(|header| header.name == name) {
                edit.append(name, value.value);
            }
        }
        if let Some(record) = record.filter(|_| response.status().is_some_and(|status| (101..300).contains(&status))) {
            edit.append(Name::RecordRoute, record);
        }
        let bytes = edit.finish();
        if self.layer.respond(server, bytes.clone(), now).is_err()
            && response.status().is_some_and(|status| (200..300).contains(&status))
            && let Some(back) = back()
        {
            // The server transaction is over, and yet there is a dialog that the caller has to end (RFC 3261 §16.7
            // step 5).
            self.layer.send(back, bytes);
        }
    }

    /// Forgets a context whose request is answered for good. Its transactions live on for half a minute, which is most
    /// of what a busy proxy remembers: of all that led to the answer they need nothing but the way back of a 2xx.
    fn let_go(&mut self, id: u64) {
        let over = |context: &Context| context.asked == 0 && context.fork.is_over();
        if !self.contexts.get(&id).is_some_and(over) {
            return;
        }
        let Some(context) = self.contexts.remove(&id) else { return };
        self.by_server.remove(&context.server);
        let invite = context.message.method() == Method::Invite;
        for (attempt, client) in context.clients.iter().enumerate() {
            let Some(client) = client else { continue };
            let via = context.message.top_via().ok();
            match via.filter(|_| invite && context.fork.is_answered(attempt)) {
                Some(via) => {
                    let back = response_target(&via, &context.source);
                    let phone = context.phones.get(attempt).copied().flatten();
                    let record = self.record_for_phone(&context);
                    let adapted = (phone.is_some() || record.is_some()).then(|| Box::new(Adapted { phone, record }));
                    let answered = Answered { server: context.server, back, adapted };
                    if let Some(found) = self.by_client.get_mut(client) {
                        *found = Client::Answered(Box::new(answered));
                    }
                }
                None => _ = self.by_client.remove(client),
            }
        }
    }
}
