//! Finding the peers that offer services: `p2p-discover`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Access, OpsError, ViaChoice,
    access::{Attached, Route, describe},
    locate::{Locations, expected},
    lookup,
    outcome::{DiscoverOutcome, DiscoverStatus, LocateStatus, ProviderView, RejectedView, ServiceView, Via},
    probe,
    race::{RACED, Worth, race},
    view,
};
use crate::{
    client::{PeerInfo, Rejected, Services, ServicesReply, Status, Verdict},
    clock::UnixMs,
    name::{OverlayId, PeerId, ResourceName, Service, ServiceUri},
    overlay::{
        drive::TreeReader,
        lookup::LookupConfig,
        redir::{Discovery, START_LEVEL, Wanted},
        swarm::{AskError, Network},
    },
    record::{Body, Trust, VerifiedRecord},
};

/// What to find.
#[derive(Debug, Clone)]
pub struct DiscoverRequest {
    /// The kinds of services, in the order in which they are asked for.
    pub services: Vec<Service>,
    /// How many providers, of all kinds together; all that there are if not given.
    pub wanted: Option<u32>,
    /// Whom to ask.
    pub via: ViaChoice,
    /// Whether proxy peers are compared with those that the DNS has (R18).
    pub compare: bool,
    /// Whether endpoints are asked if they answer, and the providers ranked by it.
    pub probe: bool,
}

/// Finds peers that offer services. That there are none, or too few, is an outcome and no error.
///
/// # Errors
/// [`OpsError`]: no way into the overlay, or nobody there answered.
pub async fn discover(access: &Access, request: &DiscoverRequest) -> Result<DiscoverOutcome, OpsError> {
    let started = Instant::now();
    let attached = access.attach(request.via).await?;
    let mut search = Search {
        access,
        via: request.via,
        overlay: attached.known.descriptor.overlay().clone(),
        trust: attached.known.trust(),
        attached,
        deadline: access.deadline(),
    };
    let (overlay, mut locations) = (search.overlay.clone(), Locations::new(access));
    let mut outcome = if request.compare && request.services.contains(&Service::Proxy) {
        let found = search.find(request);
        let (found, public) =
            locations.compare(&overlay, found, |found| found.as_ref().map_or_else(|_| vec![], offered)).await;
        let mut outcome = found?;
        outcome.public = public;
        mark(&mut outcome);
        outcome
    } else {
        search.find(request).await?
    };
    if request.probe {
        for service in &mut outcome.services {
            probe::probe(access, &mut locations, &overlay, service.service, &mut service.providers).await?;
            probe::rank(&mut service.providers);
        }
    }
    outcome.elapsed_ms = started.elapsed().as_secs_f64() * 1e3;
    Ok(outcome)
}

/// What the proxy peers that were found should have in the DNS.
fn offered(outcome: &DiscoverOutcome) -> Vec<String> {
    let proxies = outcome.services.iter().filter(|service| service.service == Service::Proxy);
    let proxies = proxies.flat_map(|service| &service.providers);
    expected(proxies.map(|provider| (provider.serving, provider.endpoints.as_slice())))
}

/// Notes which proxy peers the DNS has. Of a list that may go on, nothing is said to be missing in the overlay.
fn mark(outcome: &mut DiscoverOutcome) {
    let Some(public) = &mut outcome.public else { return };
    for service in outcome.services.iter_mut().filter(|service| service.service == Service::Proxy) {
        if !service.complete {
            public.only_in_dns.clear();
        }
        if public.status == LocateStatus::NobodyToAsk {
            continue;
        }
        for provider in &mut service.providers {
            let has = |endpoint: &String| public.endpoints.contains(endpoint);
            provider.in_dns = (!provider.endpoints.is_empty()).then(|| provider.endpoints.iter().any(has));
        }
    }
}

/// A search under way.
struct Search<'a> {
    access: &'a Access,
    via: ViaChoice,
    overlay: OverlayId,
    trust: Arc<Trust>,
    attached: Attached,
    deadline: Instant,
}

/// What was found of one service, and not believed.
struct Judged {
    view: ServiceView,
    rejected: Vec<RejectedView>,
}

impl Search<'_> {
    /// Asks for one service after the other, until enough has been found.
    async fn find(&mut self, request: &DiscoverRequest) -> Result<DiscoverOutcome, OpsError> {
        let mut outcome = DiscoverOutcome {
            status: DiscoverStatus::NotFound,
            overlay: self.overlay.clone(),
            via: Via::Socket,
            wanted: request.wanted,
            found: 0,
            complete: true,
            services: Vec::new(),
            public: None,
            rejected: Vec::new(),
            tree_nodes: 0,
            requests: 0,
            silent: 0,
            elapsed_ms: 0.0,
        };
        let mut verdicts = Vec::new();
        for service in &request.services {
            let left = request.wanted.map(|wanted| wanted.saturating_sub(outcome.found));
            if left == Some(0) {
                outcome.complete = false;
                break;
            }
            let (reply, via) = self.ask(*service, left).await?;
            outcome.via = via;
            outcome.tree_nodes += reply.nodes;
            outcome.requests += reply.found.requests;
            outcome.silent += reply.found.silent;
            let found = self.judge(*service, &reply).await;
            verdicts.push(if found.view.providers.is_empty() && reply.found.verdict == Verdict::Found {
                Verdict::Untrusted
            } else {
                reply.found.verdict
            });
            outcome.found += u32::try_from(found.view.providers.len()).unwrap_or(u32::MAX);
            outcome.complete &= found.view.complete;
            outcome.rejected.extend(found.rejected);
            outcome.services.push(found.view);
        }
        outcome.status = match (outcome.found, request.wanted) {
            (0, _) if verdicts.contains(&Verdict::Untrusted) => DiscoverStatus::Untrusted,
            (0, _) if verdicts.contains(&Verdict::NobodyToAsk) => DiscoverStatus::NobodyToAsk,
            (0, _) => DiscoverStatus::NotFound,
            (found, Some(wanted)) if found < wanted => DiscoverStatus::Fewer,
            _ => DiscoverStatus::Found,
        };
        Ok(outcome)
    }

    async fn ask(&mut self, service: Service, wanted: Option<u32>) -> Result<(ServicesReply, Via), OpsError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let call = Services {
            service,
            wanted: wanted.unwrap_or(0),
            timeout_ms: view::milliseconds(left),
            // Whoever asks wants to know how things are.
            max_age_ms: 0,
        };
        match &mut self.attached.route {
            Route::Socket(socket) => {
                // The member keeps to the time; the margin is for its answer.
                let answer = tokio::time::timeout(left + ANSWER_MARGIN, socket.call(&call)).await;
                Ok((answer.map_err(|_| self.access.timed_out("the member on this machine"))??, Via::Socket))
            }
            Route::Peers { network, entries } => {
                if self.via != ViaChoice::Walk {
                    match ask_members(network, entries, &call, self.deadline).await {
                        Ok(reply) => return Ok((reply, Via::Peer)),
                        // Whether there is no more is not for one member to say, unless only members are to be asked.
                        Err((Some(reply), _)) if self.via == ViaChoice::Peer => return Ok((reply, Via::Peer)),
                        Err((None, Some((entry, error))))
                            if self.via == ViaChoice::Peer || error == AskError::OtherOverlay =>
                        {
                            return Err(OpsError::Ask { peer: describe(&entry), error });
                        }
                        Err(_) => {}
                    }
                }
                let limits = self.attached.known.descriptor.limits();
                let config =
                    LookupConfig::for_overlay(limits).within(self.deadline.saturating_duration_since(Instant::now()));
                let reader = TreeReader { network, vicinity: entries, config, trust: self.trust.clone() };
                let wanted = wanted.map_or(Wanted::All, |count| Wanted::Some(count as usize));
                // Where it begins matters to nobody who asks once; that not everybody begins there does.
                let random = network.peer().position().leading();
                let uri = ServiceUri::new(service, self.overlay.clone());
                let outcome = reader.discover(&uri, Discovery::new(wanted, None, START_LEVEL, random)).await;
                let (found, complete, nodes) = (outcome.reply, outcome.complete, outcome.nodes);
                Ok((ServicesReply { found, complete, nodes, age_ms: 0 }, Via::Walk))
            }
        }
    }

    /// Verifies what came back once more, whoever has verified it before.
    async fn judge(&mut self, service: Service, reply: &ServicesReply) -> Judged {
        let uri = ServiceUri::new(service, self.overlay.clone());
        let (name, now) = (ResourceName::from(uri.clone()), UnixMs::now());
        let mut rejected = reply.found.rejected.clone();
        let mut providers = Vec::new();
        for envelope in &reply.found.envelopes {
            match lookup::verify(&self.trust, envelope, &name, now) {
                Ok(record) => providers.extend(provider(&record, now)),
                Err(reason) => rejected.extend(self.entry_peer().await.map(|peer| Rejected { peer, reason })),
            }
        }
        // One a provider, whatever the member says.
        let mut seen = std::collections::BTreeSet::new();
        providers.retain(|provider: &ProviderView| seen.insert(provider.peer));
        let view = ServiceView { service, uri: uri.to_string(), complete: reply.complete, providers };
        Judged { view, rejected: rejected.iter().map(view::rejected).collect() }
    }

    /// The member whose word the reply is.
    async fn entry_peer(&mut self) -> Option<PeerId> {
        match &mut self.attached.route {
            Route::Socket(socket) => {
                let status = tokio::time::timeout(self.access.timeout, socket.call(&Status {})).await;
                Some(status.ok()?.ok()?.peer)
            }
            Route::Peers { entries, .. } => entries.first().map(|entry| entry.peer),
        }
    }
}

/// How much longer than a member may take is waited for its answer.
const ANSWER_MARGIN: Duration = Duration::from_millis(500);

/// Asks a few members at once; the first that finds enough wins. `Err`: none does; the best that one has said, and the
/// last failure.
async fn ask_members(
    network: &Network,
    entries: &[PeerInfo],
    call: &Services,
    deadline: Instant,
) -> Result<ServicesReply, (Option<ServicesReply>, Option<(PeerInfo, AskError)>)> {
    let mut best: Option<ServicesReply> = None;
    let found = race(network, entries, call, RACED, deadline, |_, reply| {
        let found = reply.found.envelopes.len();
        if found > 0 && (reply.complete || call.wanted > 0 && found >= call.wanted as usize) {
            return Worth::Good(reply);
        }
        if best.as_ref().is_none_or(|best| best.found.envelopes.len() < found) {
            best = Some(reply);
        }
        Worth::Fair
    });
    found.await.map_err(|failure| (best, failure))
}

fn provider(record: &VerifiedRecord, now: UnixMs) -> Option<ProviderView> {
    let Body::Service(offer) = record.body() else { return None };
    let offer = view::offer(offer);
    Some(ProviderView {
        peer: offer.peer,
        addresses: offer.addresses,
        endpoints: offer.endpoints,
        serving: offer.serving,
        load: offer.load,
        expires_at_ms: record.expires(),
        expires_in_ms: view::milliseconds(record.expires().since(now)),
        certificate: record.serial().map(str::to_owned),
        probes: Vec::new(),
        rtt_ms: None,
        in_dns: None,
    })
}
