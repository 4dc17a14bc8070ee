//! Makes the DNS say what the overlay says: `p2p-publish sync`.

use std::time::Instant;

use super::{
    Desk,
    drift::{Drift, LeaseState, ProxyView, compare},
    offers,
    outcome::{ActionView, SyncOutcome},
    overlay_of, publisher,
    wanted::of_offer,
};
use crate::{
    clock::{UnixMs, ms},
    dns::{
        PublishError,
        publish::{Publication, Publisher, Snapshot, ZoneAt},
    },
    kind::Kind,
    name::OverlayId,
    ops::{Access, OpsError},
};

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
    let mut warnings = Vec::new();
    let mut jobs: Vec<Job> = Vec::new();
    for proxy in compare(&snapshot, offers.as_deref(), UnixMs::now()) {
        jobs.extend(job(&proxy, desk, &overlay, lease, &mut warnings));
    }
    // Tombstones that nobody needs any more are in no row.
    let busy = |host: &str| jobs.iter().any(|job| job.host() == host);
    let due = publisher.plan_reap(&snapshot)?.into_iter().map(|plan| plan.host).filter(|host| !busy(host));
    let due = due.map(Job::Reap).collect::<Vec<_>>();
    jobs.extend(due);
    let (mut actions, worst) = run_all(jobs, &publisher, &snapshot, desk.force, dry_run).await;
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
        elapsed_ms: ms(started.elapsed()),
        worst,
    })
}

/// Does all jobs at once; says what came of each, and how bad the worst failure is.
async fn run_all(
    jobs: Vec<Job>,
    publisher: &Publisher,
    zone: &Snapshot,
    force: bool,
    dry_run: bool,
) -> (Vec<ActionView>, Option<Kind>) {
    let done = Publisher::each(jobs, |job| async move {
        let result = job.run(publisher, zone, force, dry_run).await;
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
    (actions, worst)
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
        zone: &Snapshot,
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
