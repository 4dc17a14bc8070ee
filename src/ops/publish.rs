//! Publishing proxy peers in the DNS: `p2p-publish`.

pub mod drift;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Instant,
};

use serde::Serialize;

use self::drift::{Drift, LeaseState, ProxyView, RuleView, compare, places, rules};
use super::{
    Access, OpsError, ViaChoice,
    discover::{DiscoverRequest, discover},
    outcome::{DiscoverStatus, OfferView},
};
use crate::{
    client::gatekeeper::{Decision, Decisions, DecisionsReply},
    clock::UnixMs,
    dns::{
        DescriptorPointer, PublishError, TsigKey, dnsaddr_text,
        publish::{Plan, Publication, Publisher, SipEndpoint, Transport, ZoneAt, host_of, unreachable},
    },
    kind::Kind,
    name::{OverlayId, PeerId, Service},
    overlay::socket::SocketClient,
};

/// The most multiaddrs of one proxy peer that are published.
const MAX_DIALLED: usize = 8;

/// Where to publish, and by which right.
#[derive(Debug, Clone, Default)]
pub struct Desk {
    /// The zone's primary server; else the one that its SOA record names.
    pub server: Option<SocketAddr>,
    /// The file with the TSIG key.
    pub key: Option<PathBuf>,
    /// Publish what nobody outside can reach, and take over what is somebody else's.
    pub force: bool,
}

/// What is to be published of one proxy peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddRequest {
    /// Its host name: one label below the overlay identifier, or a full name.
    pub host: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Where it takes SIP.
    pub endpoints: Vec<(Transport, u16)>,
    /// The TTL; else the highest that goes with the lease.
    pub ttl: Option<u32>,
    /// The lease in seconds.
    pub lease: u32,
    /// Where it can be dialled as a member: multiaddrs that end in `/p2p/PEER`.
    pub dnsaddr: Vec<String>,
}

/// What was written, or would be.
#[derive(Debug, Clone, Serialize)]
pub struct ChangeOutcome {
    /// `added`, `renewed`, `removed`, or `planned`.
    pub status: &'static str,
    /// The overlay.
    pub overlay: OverlayId,
    /// The zone that holds its records.
    pub zone: String,
    /// The server that was asked.
    pub server: SocketAddr,
    /// The host.
    pub host: String,
    /// How long its lease goes on; that of the tombstone, if it was removed.
    pub lease_in_ms: Option<u64>,
    /// What was left out, and why.
    pub warnings: Vec<String>,
    /// What makes nsupdate do the same; only with a dry run.
    pub script: Option<String>,
    /// From start to having read it back.
    pub elapsed_ms: f64,
}

/// The proxy peers of DNS and overlay side by side.
#[derive(Debug, Clone, Serialize)]
pub struct ListOutcome {
    /// `in-step` or `drift`.
    pub status: &'static str,
    /// The overlay.
    pub overlay: OverlayId,
    /// The zone.
    pub zone: String,
    /// The server that was asked.
    pub server: SocketAddr,
    /// The proxy peers.
    pub proxies: Vec<ProxyView>,
    /// Rules at the identifier that are missing or lead nowhere.
    pub rules: Vec<RuleView>,
    /// Why the overlay was not asked; `null` if it was.
    pub overlay_unasked: Option<String>,
    /// Whether nobody outside finds a proxy peer (R8).
    pub unreachable: bool,
    /// From start to answer.
    pub elapsed_ms: f64,
}

/// What `sync` did.
#[derive(Debug, Clone, Serialize)]
pub struct SyncOutcome {
    /// `synced`, `incomplete`, or `planned`.
    pub status: &'static str,
    /// The overlay.
    pub overlay: OverlayId,
    /// The zone.
    pub zone: String,
    /// The server.
    pub server: SocketAddr,
    /// What was done.
    pub actions: Vec<ActionView>,
    /// What was left as it is, and why.
    pub warnings: Vec<String>,
    /// From start to end.
    pub elapsed_ms: f64,
    /// The exit code that the worst failure deserves.
    #[serde(skip)]
    pub worst: Option<Kind>,
}

/// One thing that `sync` did.
#[derive(Debug, Clone, Serialize)]
pub struct ActionView {
    /// `add`, `renew`, `remove`, `reap` or `mend`.
    pub action: &'static str,
    /// The host, or the overlay identifier.
    pub host: String,
    /// Why it failed; `null` if it did not.
    pub error: Option<String>,
    /// What makes nsupdate do the same; only with a dry run.
    pub script: Option<String>,
}

/// What the gatekeeper on this machine has decided lately.
#[derive(Debug, Clone, Serialize)]
pub struct PendingOutcome {
    /// `pending`, or `none` if nobody waits.
    pub status: &'static str,
    /// Those whose proof is waited for, and those who were refused and have not entered since; the newest first.
    pub pending: Vec<Decision>,
    /// All decisions, the newest first.
    pub decisions: Vec<Decision>,
}

/// Asks the gatekeeper on this machine who waits to enter the DNS, and why.
///
/// # Errors
/// [`OpsError`]: no member runs here, or it is no gatekeeper.
pub async fn pending(access: &Access) -> Result<PendingOutcome, OpsError> {
    let mut socket = SocketClient::connect(&access.socket_path()).await?;
    let answer = tokio::time::timeout(access.timeout, socket.call(&Decisions {})).await;
    let DecisionsReply { pending, decisions } =
        answer.map_err(|_| access.timed_out("the member on this machine"))??;
    let status = if pending.is_empty() { "none" } else { "pending" };
    Ok(PendingOutcome { status, pending, decisions })
}

/// Publishes a proxy peer, or renews it; with `dry_run` says what would be sent.
///
/// # Errors
/// [`OpsError`].
pub async fn add(access: &Access, desk: &Desk, request: &AddRequest, dry_run: bool) -> Result<ChangeOutcome, OpsError> {
    let started = Instant::now();
    let overlay = overlay_of(access).await?;
    let wanted = publication(access, desk, &overlay, request)?;
    wanted.check()?;
    let publisher = publisher(access, desk, &overlay).await?;
    if dry_run {
        let plan = publisher.plan_add(&wanted, desk.force).await?;
        return Ok(changed("planned", &publisher, &plan, true, started));
    }
    let done = publisher.add(&wanted, desk.force).await?;
    let status = if done.plan.before.is_leased() { "renewed" } else { "added" };
    Ok(changed(status, &publisher, &done.plan, false, started))
}

/// Takes a proxy peer out of the DNS.
///
/// # Errors
/// [`OpsError`].
pub async fn remove(access: &Access, desk: &Desk, host: &str, dry_run: bool) -> Result<ChangeOutcome, OpsError> {
    let started = Instant::now();
    let overlay = overlay_of(access).await?;
    let host = full_name(host, &overlay);
    let publisher = publisher(access, desk, &overlay).await?;
    if dry_run {
        let plan = publisher.plan_remove(&host, desk.force).await?;
        return Ok(changed("planned", &publisher, &plan, true, started));
    }
    let done = publisher.remove(&host, desk.force).await?;
    Ok(changed("removed", &publisher, &done.plan, false, started))
}

/// Compares the DNS with the overlay, if that can be asked and `dns_only` does not say otherwise.
///
/// # Errors
/// [`OpsError`] about the DNS.
pub async fn list(access: &Access, desk: &Desk, dns_only: bool) -> Result<ListOutcome, OpsError> {
    let started = Instant::now();
    let overlay = overlay_of(access).await?;
    let zone = zone(access, desk, &overlay).await?;
    let asked = async {
        if dns_only {
            Err("--dns-only".to_owned())
        } else {
            offers(access, &overlay).await.map_err(|error| error.to_string())
        }
    };
    let (snapshot, offers) = futures::future::join(zone.read(access.timeout), asked).await;
    let snapshot = snapshot?;
    let proxies = compare(&snapshot, offers.as_deref().ok(), UnixMs::now());
    let rules = rules(&snapshot);
    let drifts = !rules.is_empty() || proxies.iter().any(|proxy| proxy.drift.is_some());
    let found = |proxy: &ProxyView| !proxy.addresses.is_empty() && !proxy.servers.is_empty();
    Ok(ListOutcome {
        status: if drifts { "drift" } else { "in-step" },
        unreachable: !proxies.iter().any(found) && snapshot.addresses(overlay.as_str()).is_empty(),
        overlay,
        zone: zone.zone,
        server: zone.server,
        proxies,
        rules,
        overlay_unasked: offers.err(),
        elapsed_ms: started.elapsed().as_secs_f64() * 1e3,
    })
}

/// Makes the DNS say what the overlay says: adds, renews and changes what is offered, removes what is not, reaps leases
/// that are over. With `dns_only` the overlay is not asked, and only the last is done.
///
/// # Errors
/// [`OpsError`] if DNS or overlay cannot be asked. What fails for one host is in the outcome.
pub async fn sync(
    access: &Access,
    desk: &Desk,
    lease: u32,
    dns_only: bool,
    dry_run: bool,
) -> Result<SyncOutcome, OpsError> {
    let started = Instant::now();
    let overlay = overlay_of(access).await?;
    let publisher = publisher(access, desk, &overlay).await?;
    let offers = if dns_only { None } else { Some(offers(access, &overlay).await?) };
    let snapshot = publisher.zone().read(access.timeout).await?;
    let now = UnixMs::now();
    let mut warnings = Vec::new();
    let mut jobs: Vec<Job> = Vec::new();
    for proxy in compare(&snapshot, offers.as_deref(), now) {
        jobs.extend(job(&proxy, desk, &overlay, lease, &mut warnings));
    }
    // Tombstones that nobody needs any more are in no row.
    let busy = |host: &str| jobs.iter().any(|job| job.host() == host);
    let due = publisher.plan_reap(&snapshot)?.into_iter().map(|plan| plan.host).filter(|host| !busy(host));
    let due = due.map(Job::Reap).collect::<Vec<_>>();
    jobs.extend(due);
    let (publisher_ref, snapshot_ref, force) = (&publisher, &snapshot, desk.force);
    let done = Publisher::each(jobs, |job| async move {
        let result = job.run(publisher_ref, snapshot_ref, force, dry_run).await;
        (job, result)
    });
    let mut worst: Option<Kind> = None;
    let mut actions = Vec::new();
    for (job, result) in done.await {
        let (script, error) = match result {
            Ok(script) => (script, None),
            Err(error) => {
                worst = worst.into_iter().chain([error.kind()]).max_by_key(|kind| kind.exit_code());
                (None, Some(error.to_string()))
            }
        };
        actions.push(ActionView { action: job.action(), host: job.host().to_owned(), error, script });
    }
    if !dry_run && publisher.mend().await? {
        actions.push(ActionView { action: "mend", host: overlay.to_string(), error: None, script: None });
    }
    let ZoneAt { zone, server, .. } = publisher.zone().clone();
    Ok(SyncOutcome {
        status: match (dry_run, worst) {
            (true, _) => "planned",
            (false, None) => "synced",
            (false, Some(_)) => "incomplete",
        },
        overlay,
        zone,
        server,
        actions,
        warnings,
        elapsed_ms: started.elapsed().as_secs_f64() * 1e3,
        worst,
    })
}

/// The lines of a zone file for one proxy peer, or for all that the overlay has.
///
/// # Errors
/// [`OpsError`].
pub async fn export(access: &Access, desk: &Desk, request: Option<&AddRequest>) -> Result<Vec<String>, OpsError> {
    let overlay = overlay_of(access).await?;
    let publications = match request {
        Some(request) => vec![publication(access, desk, &overlay, request)?],
        None => {
            let mut warnings = Vec::new();
            let offers = offers(access, &overlay).await?;
            let made = offers.iter().filter_map(|offer| of_offer(offer, None, desk, &overlay, 3600, &mut warnings));
            let made = made.collect();
            for warning in warnings {
                tracing::warn!("{warning}");
            }
            made
        }
    };
    let mut lines: Vec<String> = Vec::new();
    for publication in publications {
        for line in publication.zone_lines()? {
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    Ok(lines)
}

/// Something that `sync` does to one host.
enum Job {
    Add(Box<Publication>),
    Renew(Box<Publication>),
    Remove(String),
    Reap(String),
}

impl Job {
    const fn action(&self) -> &'static str {
        match self {
            Self::Add(_) => "add",
            Self::Renew(_) => "renew",
            Self::Remove(_) => "remove",
            Self::Reap(_) => "reap",
        }
    }

    fn host(&self) -> &str {
        match self {
            Self::Add(wanted) | Self::Renew(wanted) => &wanted.host,
            Self::Remove(host) | Self::Reap(host) => host,
        }
    }

    /// Does it, or returns the script that would.
    async fn run(
        &self,
        publisher: &Publisher,
        zone: &crate::dns::publish::Snapshot,
        force: bool,
        dry_run: bool,
    ) -> Result<Option<String>, PublishError> {
        let server = publisher.zone().server;
        Ok(match self {
            Self::Add(wanted) | Self::Renew(wanted) if dry_run => {
                Some(publisher.plan_add(wanted, force).await?.update.script(server))
            }
            Self::Remove(host) if dry_run => Some(publisher.plan_remove(host, force).await?.update.script(server)),
            Self::Reap(host) if dry_run => {
                let plans = publisher.plan_reap(zone)?;
                plans.iter().find(|plan| plan.host == *host).map(|plan| plan.update.script(server))
            }
            Self::Add(wanted) | Self::Renew(wanted) => {
                publisher.add_as_read(zone, wanted, force).await.map(|_| None)?
            }
            Self::Remove(host) => publisher.remove(host, force).await.map(|_| None)?,
            Self::Reap(host) => publisher.reap_as_read(zone, host).await.map(|_| None)?,
        })
    }
}

/// What is to be done about one proxy peer, if anything.
fn job(proxy: &ProxyView, desk: &Desk, overlay: &OverlayId, lease: u32, warnings: &mut Vec<String>) -> Option<Job> {
    let named = |job: fn(String) -> Job| proxy.host.clone().map(job);
    // Half of the lease leaves time for a second try.
    let is_due = proxy.lease == LeaseState::Live && proxy.lease_in_ms < Some(u64::from(lease) * 500);
    match (&proxy.offer, proxy.drift) {
        (_, Some(_)) | (Some(_), None) if proxy.lease == LeaseState::None && proxy.host.is_some() => {
            if let (Some(drift), Some(host)) = (proxy.drift, &proxy.host) {
                warnings
                    .push(format!("{host} is left as it is ({}): it was not published with a lease", drift.words()));
            }
            None
        }
        (Some(offer), Some(_)) => {
            let wanted = of_offer(offer, proxy.host.as_deref(), desk, overlay, lease, warnings)?;
            Some(if proxy.host.is_some() { Job::Renew(Box::new(wanted)) } else { Job::Add(Box::new(wanted)) })
        }
        (Some(offer), None) if is_due => of_offer(offer, proxy.host.as_deref(), desk, overlay, lease, warnings)
            .map(|wanted| Job::Renew(Box::new(wanted))),
        (None, Some(Drift::LeaseOver)) => named(Job::Reap),
        (None, Some(Drift::NotInOverlay)) => named(Job::Remove),
        (None, Some(Drift::Incomplete)) => {
            let host = proxy.host.as_deref().unwrap_or_default();
            warnings.push(format!("{host} lacks records, and the overlay does not say which; add it again"));
            None
        }
        _ => None,
    }
}

/// What is to be published of a proxy peer that offers itself in the overlay; `None`, with a warning, if nobody outside
/// could reach it.
fn of_offer(
    offer: &OfferView,
    host: Option<&str>,
    desk: &Desk,
    overlay: &OverlayId,
    lease: u32,
    warnings: &mut Vec<String>,
) -> Option<Publication> {
    let places = places(offer);
    if !offer.serving || places.is_empty() {
        return None;
    }
    let mut addresses: Vec<IpAddr> = places.iter().map(|(_, address, _)| *address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let mut endpoints: Vec<SipEndpoint> =
        places.iter().map(|&(transport, _, port)| SipEndpoint { transport, port }).collect();
    endpoints.sort_unstable();
    endpoints.dedup();
    if !desk.force
        && let Some((address, why)) = addresses.iter().find_map(|address| Some((address, unreachable(address)?)))
    {
        warnings.push(format!("{} at {address} is not published: {why}", offer.peer));
        return None;
    }
    let dialled = offer.addresses.iter().filter(|address| dnsaddr_text(&offer.peer, address).is_ok());
    Some(Publication {
        overlay: overlay.clone(),
        host: host.map_or_else(|| host_of(&offer.peer, overlay), str::to_owned),
        addresses,
        endpoints,
        ttl: Publication::ttl_of(lease),
        lease,
        peer: Some(offer.peer),
        dialled: dialled.take(MAX_DIALLED).cloned().collect(),
        descriptor: None,
    })
}

/// The records that a request asks for.
fn publication(
    access: &Access,
    desk: &Desk,
    overlay: &OverlayId,
    request: &AddRequest,
) -> Result<Publication, OpsError> {
    if !desk.force {
        for address in &request.addresses {
            if let Some(why) = unreachable(address) {
                let why = format!("{why}, so nobody outside reaches it; --force publishes it all the same");
                return Err(PublishError::Unfit { what: address.to_string(), why }.into());
            }
        }
    }
    let mut peer: Option<PeerId> = None;
    let mut dialled = Vec::new();
    for text in &request.dnsaddr {
        let invalid = |why: String| OpsError::PeerAddress { text: text.clone(), why };
        let (address, named) = text.rsplit_once("/p2p/").ok_or_else(|| invalid("it has no /p2p/ part".to_owned()))?;
        let named: PeerId = named.parse().map_err(|error| invalid(format!("{error}")))?;
        if peer.replace(named).is_some_and(|before| before != named) {
            return Err(invalid("all of them must be of one peer".to_owned()));
        }
        dialled.push(address.to_owned());
    }
    let known = access.local_descriptor()?.filter(|known| !known.descriptor.is_local());
    let descriptor =
        known.map(|known| DescriptorPointer { hash: known.descriptor.hash(), policy: Some(known.descriptor.policy()) });
    Ok(Publication {
        overlay: overlay.clone(),
        host: full_name(&request.host, overlay),
        addresses: request.addresses.clone(),
        endpoints: request.endpoints.iter().map(|&(transport, port)| SipEndpoint { transport, port }).collect(),
        ttl: request.ttl.unwrap_or_else(|| Publication::ttl_of(request.lease)),
        lease: request.lease,
        peer,
        dialled,
        descriptor,
    })
}

/// A host's full name: one label is below the overlay identifier.
fn full_name(host: &str, overlay: &OverlayId) -> String {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    if name.contains('.') || name.is_empty() { name } else { format!("{name}.{overlay}") }
}

async fn overlay_of(access: &Access) -> Result<OverlayId, OpsError> {
    match (&access.overlay, access.local_descriptor()?) {
        (Some(overlay), _) => Ok(overlay.clone()),
        (None, Some(known)) => Ok(known.descriptor.overlay().clone()),
        (None, None) => access.find_overlay().await,
    }
}

async fn zone(access: &Access, desk: &Desk, overlay: &OverlayId) -> Result<ZoneAt, OpsError> {
    Ok(match desk.server {
        Some(server) => ZoneAt::on(server, overlay, access.timeout).await?,
        None => ZoneAt::find(&access.resolver()?, overlay, access.timeout).await?,
    })
}

async fn publisher(access: &Access, desk: &Desk, overlay: &OverlayId) -> Result<Publisher, OpsError> {
    let path = desk.key.as_ref().ok_or(OpsError::NoKey)?;
    let key = TsigKey::load(path)?;
    Ok(Publisher::new(zone(access, desk, overlay).await?, key, access.timeout))
}

/// What the proxy peers offer in the overlay: all of them, for what is not offered is taken out of the DNS.
async fn offers(access: &Access, overlay: &OverlayId) -> Result<Vec<OfferView>, OpsError> {
    let access = Access { overlay: Some(overlay.clone()), ..access.clone() };
    let services = vec![Service::Proxy];
    let request = DiscoverRequest { services, wanted: None, via: ViaChoice::Auto, compare: false, probe: false };
    let outcome = discover(&access, &request).await?;
    match outcome.status {
        DiscoverStatus::Found | DiscoverStatus::NotFound if outcome.complete => {
            Ok(outcome.services.into_iter().flat_map(|service| service.providers).map(OfferView::from).collect())
        }
        _ => {
            let why = "the search for proxy peers says neither which there are nor that there are none".to_owned();
            Err(OpsError::NobodyToAsk { overlay: overlay.clone(), why })
        }
    }
}

fn changed(status: &'static str, publisher: &Publisher, plan: &Plan, dry_run: bool, started: Instant) -> ChangeOutcome {
    let ZoneAt { overlay, zone, server } = publisher.zone().clone();
    ChangeOutcome {
        status,
        overlay,
        zone,
        server,
        host: plan.host.clone(),
        lease_in_ms: plan.lease.as_ref().map(|lease| lease.remaining_ms(UnixMs::now())),
        warnings: plan.warnings.clone(),
        script: dry_run.then(|| plan.update.script(server)),
        elapsed_ms: started.elapsed().as_secs_f64() * 1e3,
    }
}
