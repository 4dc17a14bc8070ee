//! Publishing proxy peers in the DNS: `p2p-publish`.

pub mod drift;
mod outcome;
mod sync;
mod wanted;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Instant,
};

use self::{
    drift::{ProxyView, compare, rules},
    wanted::{full_name, of_offer, publication},
};
pub use self::{
    outcome::{ActionView, ChangeOutcome, ListOutcome, PendingOutcome, SyncOutcome},
    sync::sync,
};
use super::{
    Access, OpsError, ViaChoice,
    discover::{DiscoverRequest, discover},
    outcome::{DiscoverStatus, OfferView},
};
use crate::{
    client::gatekeeper::{Decisions, DecisionsReply},
    clock::{UnixMs, ms},
    dns::{
        TsigKey,
        publish::{Plan, Publisher, Transport, ZoneAt},
    },
    name::{OverlayId, Service},
    overlay::socket::SocketClient,
};

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
        elapsed_ms: ms(started.elapsed()),
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
        elapsed_ms: ms(started.elapsed()),
    }
}
