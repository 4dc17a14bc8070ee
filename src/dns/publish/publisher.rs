//! What is done to the hosts of a zone: they are added, renewed, removed and reaped, and their rules mended.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};

use super::{
    Publication, PublishError,
    carry_out::{Made, PLANS, pause},
    plan::{self, Author, Plan},
    records::{MAX_TTL, lease_owner},
    snapshot::Snapshot,
    zone::{Scope, ZoneAt, enter_all},
};
use crate::{
    clock::UnixMs,
    dns::{Change, Data, TsigKey},
};

/// How many updates are on their way at once, when many hosts are changed.
const UPDATES: usize = 16;
/// How often it is looked again whether addresses at the overlay identifier are nobody's.
const FOREIGN_LOOKS: u32 = 3;

/// The primary name server of an overlay's zone, and the key with which it is changed.
#[derive(Debug, Clone)]
pub struct Publisher {
    pub(super) zone: ZoneAt,
    pub(super) key: TsigKey,
    timeout: Duration,
}

/// What was done to one host.
#[derive(Debug)]
pub struct Done {
    /// What was sent, and what there was before.
    pub plan: Plan,
}

impl Publisher {
    /// A publisher that changes `zone` with `key` and gives each operation `timeout`.
    pub const fn new(zone: ZoneAt, key: TsigKey, timeout: Duration) -> Self {
        Self { zone, key, timeout }
    }

    /// Where it publishes.
    pub const fn zone(&self) -> &ZoneAt {
        &self.zone
    }

    /// What [`add`](Self::add) would send now.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub async fn plan_add(&self, wanted: &Publication, force: bool) -> Result<Plan, PublishError> {
        let zone = self.read_for(wanted, self.deadline()).await?;
        plan::publish(&zone, wanted, self.author(force))
    }

    /// Publishes a proxy peer; if it is published already, renews its lease and changes what has changed.
    ///
    /// # Errors
    /// [`PublishError::NotOurs`] for a host that somebody else has, unless `force`; [`PublishError::Conflict`] if another
    /// publisher changed the host at the same time; [`PublishError::Refused`]; [`PublishError::Dropped`]. After all of
    /// them the host is what it was, or what the other publisher made of it.
    pub async fn add(&self, wanted: &Publication, force: bool) -> Result<Done, PublishError> {
        wanted.check()?;
        let deadline = self.deadline();
        let zone = Cow::Owned(self.read_for(wanted, deadline).await?);
        self.add_to(zone, wanted, force, deadline).await
    }

    /// As [`add`](Self::add), by what was read before of the whole zone: if that has changed meanwhile it is read again.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub async fn add_as_read(&self, zone: &Snapshot, wanted: &Publication, force: bool) -> Result<Done, PublishError> {
        wanted.check()?;
        self.add_to(Cow::Borrowed(zone), wanted, force, self.deadline()).await
    }

    async fn add_to(
        &self,
        zone: Cow<'_, Snapshot>,
        wanted: &Publication,
        force: bool,
        deadline: Instant,
    ) -> Result<Done, PublishError> {
        let zone = self.sure_of_foreigners(zone, wanted, deadline).await?;
        let plan = self.carry_out(zone, deadline, |zone| plan::publish(zone, wanted, self.author(force))).await?;
        let after = self.zone.read_until(Scope::Host(&wanted.host), deadline).await?;
        let missing = plan.update.additions().filter(|record| after.lacks(record)).collect::<Vec<_>>();
        let owner = lease_owner(&wanted.host);
        if missing.iter().any(|record| record.name == owner) {
            return Err(PublishError::Conflict { host: wanted.host.clone() });
        }
        let Some(first) = missing.first() else {
            self.tidy(&plan, deadline).await?;
            return Ok(Done { plan });
        };
        let missing = match missing.len() {
            1 => first.to_string(),
            more => format!("{first} and {} more", more - 1),
        };
        self.put_back(&after, &plan, wanted, deadline).await?;
        Err(self.dropped(missing))
    }

    /// Reads again what seems to say that the overlay identifier has addresses of nobody: the addresses and the hosts that
    /// have them are read one after the other, and somebody may have come or gone in between.
    async fn sure_of_foreigners<'z>(
        &self,
        mut zone: Cow<'z, Snapshot>,
        wanted: &Publication,
        deadline: Instant,
    ) -> Result<Cow<'z, Snapshot>, PublishError> {
        for round in 1..=FOREIGN_LOOKS {
            if !wanted.is_on_default_ports() || zone.foreign_addresses().is_empty() {
                break;
            }
            pause(round).await?;
            zone = Cow::Owned(self.read_for(wanted, deadline).await?);
        }
        Ok(zone)
    }

    /// What [`remove`](Self::remove) would send now.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    pub async fn plan_remove(&self, host: &str, force: bool) -> Result<Plan, PublishError> {
        let zone = self.zone.read_until(Scope::Host(host), self.deadline()).await?;
        plan::remove(&zone, host, self.author(force))
    }

    /// Takes a host out of the zone; a tombstone stays for [`TOMBSTONE`](super::TOMBSTONE).
    ///
    /// # Errors
    /// [`PublishError::NotPublished`]; else as [`add`](Self::add).
    pub async fn remove(&self, host: &str, force: bool) -> Result<Done, PublishError> {
        let deadline = self.deadline();
        let zone = self.zone.read_until(Scope::Host(host), deadline).await?;
        let zone = Cow::Owned(zone);
        let plan = self.carry_out(zone, deadline, |zone| plan::remove(zone, host, self.author(force))).await?;
        self.tidy(&plan, deadline).await?;
        let after = self.zone.read_until(Scope::Host(host), deadline).await?.host(host);
        if after.lease != plan.lease {
            return Err(PublishError::Conflict { host: host.to_owned() });
        }
        if !after.addresses.is_empty() || !after.endpoints.is_empty() {
            let missing = format!("deleting all records of {host}");
            return Err(self.dropped(missing));
        }
        Ok(Done { plan })
    }

    /// What would be done about hosts whose leases are over, and about tombstones that nobody needs any more.
    ///
    /// # Errors
    /// [`PublishError::NoEntropy`].
    pub fn plan_reap(&self, zone: &Snapshot) -> Result<Vec<Plan>, PublishError> {
        let author = self.author(false);
        zone.hosts().iter().filter_map(|host| plan::reap(zone, host, author).transpose()).collect()
    }

    /// Takes one host out if its lease is over, and its tombstone if that is; `None` if neither is so (any more).
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    pub async fn reap(&self, host: &str) -> Result<Option<Done>, PublishError> {
        let deadline = self.deadline();
        let zone = self.zone.read_until(Scope::Host(host), deadline).await?;
        let done = self.reap_from(Cow::Owned(zone), host, deadline).await?;
        if let Some(done) = &done {
            self.tidy(&done.plan, deadline).await?;
        }
        Ok(done)
    }

    /// As [`reap`](Self::reap), by what was read before of the whole zone, for many hosts at once. The rules that they
    /// share are left for [`mend`](Self::mend).
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    pub async fn reap_as_read(&self, zone: &Snapshot, host: &str) -> Result<Option<Done>, PublishError> {
        self.reap_from(Cow::Borrowed(zone), host, self.deadline()).await
    }

    async fn reap_from(
        &self,
        zone: Cow<'_, Snapshot>,
        host: &str,
        deadline: Instant,
    ) -> Result<Option<Done>, PublishError> {
        let overlay = zone.overlay().to_string();
        let absent = || PublishError::NotPublished { host: host.to_owned(), overlay: overlay.clone() };
        let planned = |zone: &Snapshot| plan::reap(zone, host, self.author(false))?.ok_or_else(absent);
        match self.carry_out(zone, deadline, planned).await {
            Ok(plan) => Ok(Some(Done { plan })),
            // Somebody else has reaped or renewed it.
            Err(PublishError::NotPublished { .. } | PublishError::Conflict { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Mends the rules that all hosts share; says whether there was something to mend.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub async fn mend(&self) -> Result<bool, PublishError> {
        self.mend_rules(Some(MAX_TTL), self.deadline()).await
    }

    /// Takes away the rules that lead nowhere since the last server of their transport has gone. The update that takes a
    /// server out does so itself if it sees that it is the last; of several that go at once none may.
    async fn tidy(&self, plan: &Plan, deadline: Instant) -> Result<(), PublishError> {
        let takes_out = |change: &Change| matches!(change, Change::Delete(_, Data::Srv(_)));
        if plan.update.changes.iter().any(takes_out) {
            self.mend_rules(None, deadline).await?;
        }
        Ok(())
    }

    async fn mend_rules(&self, missing: Option<u32>, deadline: Instant) -> Result<bool, PublishError> {
        let overlay = &self.zone.overlay;
        for round in 1..=PLANS {
            let exchange = self.zone.exchange(deadline);
            let mut zone = Snapshot::new(overlay.clone(), self.zone.zone.clone());
            enter_all(&mut zone, exchange, Snapshot::rule_questions(overlay)).await?;
            let Some(update) = plan::mend(&zone, missing) else { return Ok(round > 1) };
            match self.send(&update, deadline, || async { Ok(false) }).await? {
                Made::Yes => return Ok(true),
                Made::Unmet => pause(round).await?,
            }
        }
        Err(PublishError::Conflict { host: overlay.to_string() })
    }

    /// Runs several operations at once, as many as a server takes well; the results are in the order of the items.
    pub async fn each<T, R, F: Future<Output = R>>(items: Vec<T>, run: impl Fn(T) -> F) -> Vec<R> {
        stream::iter(items).map(run).buffered(UPDATES).collect().await
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    pub(super) fn author(&self, force: bool) -> Author<'_> {
        Author { key: self.key.name(), now: UnixMs::now(), force }
    }

    /// Reads what publishing takes: all hosts only if addresses are to be added at the identifier and some are there that
    /// may be somebody else's.
    async fn read_for(&self, wanted: &Publication, deadline: Instant) -> Result<Snapshot, PublishError> {
        let zone = self.zone.read_until(Scope::Host(&wanted.host), deadline).await?;
        if !wanted.is_on_default_ports() || zone.foreign_addresses().is_empty() {
            return Ok(zone);
        }
        let mut all = self.zone.read_until(Scope::All, deadline).await?;
        let exchange = self.zone.exchange(deadline);
        enter_all(&mut all, exchange, Snapshot::host_questions(&wanted.host).to_vec()).await?;
        Ok(all)
    }
}
