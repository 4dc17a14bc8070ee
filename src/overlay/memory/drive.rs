//! Runs the machines of one operation: carries their messages under virtual time.

use std::{collections::BTreeMap, time::Duration};

use super::{MemoryOverlay, Vantage, member::Delivery};
use crate::{
    client::{FetchReply, PeerInfo, PutReply, StoreReply, Verdict},
    name::{PeerId, Position, ResourceName, ServiceNode, ServiceUri, TreeNode},
    overlay::{
        lookup::{LookupConfig, LookupMachine, LookupOutcome},
        placement::{self, PlacementConfig, PlacementMachine},
        redir::{self, Discovery, Listing, Registration, ServicesOutcome},
        walk::{self, Failure},
    },
    record::Refusal,
};

/// What comes back to whoever runs the operation.
enum Message {
    Fetched(FetchReply),
    Stored(StoreReply),
    ReadBack(FetchReply),
    Failed(Failure),
}

/// Messages under way, by the time of their arrival and the order of their sending.
#[derive(Default)]
struct Mail {
    sent: usize,
    under_way: BTreeMap<(Duration, usize), (PeerId, Message)>,
}

pub(super) fn lookup(
    overlay: &mut MemoryOverlay,
    from: &Vantage,
    name: &ResourceName,
    config: LookupConfig,
) -> LookupOutcome {
    let closer = config.walk.per_reply;
    let target = name.position();
    let (local, seeds) = overlay.start(from, &target, closer);
    let trust = overlay.trust.clone();
    let mut machine = LookupMachine::new(name.clone(), seeds, local, config, trust, overlay.now());
    if let Some(own) = overlay.own_answer(from, &target) {
        machine.on_local(&own, overlay.now(), overlay.wall());
    }
    let mut mail = Mail::default();
    loop {
        let until = match machine.poll(overlay.now(), overlay.wall()) {
            walk::Step::Ask(ask) => {
                overlay.send_fetch(&mut mail, &ask.peer, &target, closer, Message::Fetched);
                continue;
            }
            walk::Step::Wait(until) => until.saturating_duration_since(overlay.origin.0),
            walk::Step::Done(_) => return machine.outcome(overlay.now(), overlay.wall()),
        };
        match overlay.receive(&mut mail, until) {
            Some((peer, Message::Fetched(reply))) => machine.on_reply(&peer, reply, overlay.now(), overlay.wall()),
            Some((peer, Message::Failed(why))) => machine.on_failure(&peer, why, overlay.now()),
            _ => {}
        }
    }
}

/// Runs a discovery. Tree nodes that it reads at a time are looked up one after the other, each from the same moment on.
pub(super) fn discover(
    overlay: &mut MemoryOverlay,
    from: &Vantage,
    service: &ServiceUri,
    mut discovery: Discovery,
    config: &LookupConfig,
) -> ServicesOutcome {
    let began = overlay.elapsed;
    loop {
        let mut nodes = Vec::new();
        let step = loop {
            match discovery.poll(overlay.wall()) {
                redir::Step::Read(node) => nodes.push((node, discovery.is_glance(node))),
                step => break step,
            }
        };
        if step == redir::Step::Done {
            return discovery.outcome(overlay.elapsed - began, overlay.wall());
        }
        for (node, outcome) in read(overlay, from, service, &nodes, config) {
            discovery.on_read(node, outcome, overlay.wall());
        }
    }
}

/// Runs the walk of a provider that registers, as [`discover`] does.
pub(super) fn list(
    overlay: &mut MemoryOverlay,
    from: &Vantage,
    service: &ServiceUri,
    mut registration: Registration,
    config: &LookupConfig,
) -> Listing {
    loop {
        let nodes: Vec<_> = std::iter::from_fn(|| registration.poll()).map(|node| (node, false)).collect();
        if nodes.is_empty() {
            return registration.listing();
        }
        for (node, outcome) in read(overlay, from, service, &nodes, config) {
            match outcome.reply.verdict {
                Verdict::NobodyToAsk => registration.on_failure(node),
                _ => registration.on_read(node, &outcome.records),
            }
        }
    }
}

fn read(
    overlay: &mut MemoryOverlay,
    from: &Vantage,
    service: &ServiceUri,
    nodes: &[(TreeNode, bool)],
    config: &LookupConfig,
) -> Vec<(TreeNode, LookupOutcome)> {
    let (now, mut last) = (overlay.elapsed, overlay.elapsed);
    let mut outcomes = Vec::new();
    for (node, glance) in nodes {
        overlay.elapsed = now;
        let name = ServiceNode::new(service.clone(), *node).into();
        let config = config.clone().of_tree_node(*glance, overlay.rng.next());
        outcomes.push((*node, lookup(overlay, from, &name, config)));
        last = last.max(overlay.elapsed);
    }
    overlay.elapsed = last;
    outcomes
}

pub(super) fn put(
    overlay: &mut MemoryOverlay,
    from: &Vantage,
    envelope: &[u8],
    mut config: PlacementConfig,
) -> Result<PutReply, Refusal> {
    let record = overlay.trust.verify(envelope, None, overlay.wall())?;
    let closer = config.walk.per_reply;
    let target = *record.position();
    let (local, seeds) = overlay.start(from, &target, closer);
    config.local_stores &= local.is_some();
    let trust = overlay.trust.clone();
    let mut machine = PlacementMachine::new(record, seeds, local, config, trust, overlay.now());
    let mut mail = Mail::default();
    loop {
        let until = match machine.poll(overlay.now()) {
            placement::Step::Fetch(ask) => {
                overlay.send_fetch(&mut mail, &ask.peer, &target, closer, Message::Fetched);
                continue;
            }
            placement::Step::Store(peer) => {
                let delivery = overlay.on_store(&peer, envelope);
                overlay.post(&mut mail, peer.peer, delivery, Message::Stored);
                continue;
            }
            placement::Step::StoreLocal(peer) => {
                if let Vantage::Member(index) = from {
                    let reply = overlay.store_at(*index, envelope);
                    machine.on_stored(&peer, reply);
                }
                continue;
            }
            placement::Step::ReadBack(peer) => {
                overlay.send_fetch(&mut mail, &peer, &target, 0, Message::ReadBack);
                continue;
            }
            placement::Step::Wait(until) => until.saturating_duration_since(overlay.origin.0),
            placement::Step::Done => return Ok(machine.outcome(overlay.now())),
        };
        match overlay.receive(&mut mail, until) {
            Some((peer, Message::Fetched(reply))) => machine.on_fetched(&peer, reply, overlay.now(), overlay.wall()),
            Some((peer, Message::Stored(reply))) => machine.on_stored(&peer, reply),
            Some((peer, Message::ReadBack(reply))) => machine.on_read_back(&peer, &reply, overlay.wall()),
            Some((peer, Message::Failed(why))) => machine.on_failure(&peer, why, overlay.now()),
            None => {}
        }
    }
}

impl MemoryOverlay {
    /// Who asks, and whom it knows.
    fn start(&self, from: &Vantage, target: &Position, count: usize) -> (Option<PeerId>, Vec<PeerInfo>) {
        match from {
            Vantage::Member(index) => match self.members.get(*index) {
                Some(member) => (Some(member.peer), self.known_near(member, target, count)),
                None => (None, Vec::new()),
            },
            Vantage::Client(bootstrap) => (None, bootstrap.iter().filter_map(|index| self.info(*index)).collect()),
        }
    }

    /// What the member that asks holds itself.
    fn own_answer(&self, from: &Vantage, target: &Position) -> Option<FetchReply> {
        let Vantage::Member(index) = from else { return None };
        let held = self.members.get(*index)?.storer.fetch(target, self.wall());
        let envelopes = held.iter().map(|envelope| serde_bytes::ByteBuf::from(&**envelope)).collect();
        Some(FetchReply { envelopes, closer: Vec::new() })
    }

    fn send_fetch(
        &mut self,
        mail: &mut Mail,
        to: &PeerInfo,
        target: &Position,
        closer: usize,
        wrap: fn(FetchReply) -> Message,
    ) {
        let delivery = self.on_fetch(to, target, closer);
        self.post(mail, to.peer, delivery, wrap);
    }

    /// Posts the answer to a request that is sent now.
    fn post<T>(&mut self, mail: &mut Mail, peer: PeerId, delivery: Delivery<T>, wrap: fn(T) -> Message) {
        let message = match delivery {
            Delivery::Answer(answer) => wrap(answer),
            Delivery::Unreachable => Message::Failed(Failure::Unreachable),
            Delivery::Lost => return,
        };
        let arrival = self.elapsed + self.latency() + self.latency();
        mail.sent += 1;
        mail.under_way.insert((arrival, mail.sent), (peer, message));
    }

    fn latency(&mut self) -> Duration {
        let (least, most) = self.config.latency.clone().into_inner();
        let spread = u64::try_from(most.saturating_sub(least).as_micros()).unwrap_or(0);
        least + Duration::from_micros(self.rng.below(spread + 1))
    }

    /// The next message that arrives until then, to which the clock moves.
    fn receive(&mut self, mail: &mut Mail, until: Duration) -> Option<(PeerId, Message)> {
        let next = mail.under_way.first_entry().filter(|entry| entry.key().0 <= until);
        self.elapsed = next.as_ref().map_or(until, |entry| entry.key().0).max(self.elapsed);
        next.map(|entry| entry.remove())
    }
}
