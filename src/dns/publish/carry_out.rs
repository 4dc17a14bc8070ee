//! Carries a plan out: sends its update until it is known what became of it, and plans again while others are at work.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use super::{
    Publication, PublishError, Publisher,
    plan::{self, Plan},
    primary::{Sent, random_id},
    records::lease_owner,
    snapshot::Snapshot,
    zone::{Scope, ask},
};
use crate::{
    clock::UnixMs,
    dns::{
        Data, DataKind, Update,
        update::{Judgement, Refusal},
    },
};

/// How often an update is sent, if it is not known whether it was made.
const SENDS: usize = 3;
/// How often an update is planned again because what several hosts share has changed meanwhile.
pub(super) const PLANS: u32 = 12;
/// The longest pause before it is planned again, for each time before; the pause is random.
const PAUSE_MS: u32 = 15;

/// Whether an update was made.
pub(super) enum Made {
    Yes,
    /// A prerequisite does not hold.
    Unmet,
}

impl Publisher {
    /// Plans, sends, and plans again while only what several hosts share has changed.
    pub(super) async fn carry_out(
        &self,
        mut zone: Cow<'_, Snapshot>,
        deadline: Instant,
        planned: impl Fn(&Snapshot) -> Result<Plan, PublishError>,
    ) -> Result<Plan, PublishError> {
        for round in 1..=PLANS {
            let plan = planned(&zone)?;
            let host = plan.host.as_str();
            let wanted = plan.lease.as_ref().map(|lease| Data::text(lease.to_string()));
            let made = || async {
                let exchange = self.zone.exchange(deadline);
                let (set, _) = ask(exchange, &(lease_owner(host), DataKind::Txt)).await?;
                Ok(set.first() == wanted.as_ref() && set.len() == wanted.iter().len())
            };
            match self.send(&plan.update, deadline, made).await? {
                Made::Yes => return Ok(plan),
                Made::Unmet => {}
            }
            pause(round).await?;
            let before = zone.lease_set(host).to_vec();
            let everything = zone.hosts().len() > 1 && plan.update.additions().next().is_some();
            zone = Cow::Owned(self.zone.read_until(Scope::Host(host), deadline).await?);
            if zone.lease_set(host) != before {
                return Err(PublishError::Conflict { host: host.to_owned() });
            }
            if everything && !zone.foreign_addresses().is_empty() {
                zone = Cow::Owned(self.zone.read_until(Scope::All, deadline).await?);
            }
        }
        Err(PublishError::Conflict { host: planned(&zone)?.host })
    }

    /// Sends an update until it is known whether it was made. `made` reads back whether it was.
    pub(super) async fn send<F: Future<Output = Result<bool, PublishError>>>(
        &self,
        update: &Update,
        deadline: Instant,
        made: impl Fn() -> F,
    ) -> Result<Made, PublishError> {
        let exchange = self.zone.exchange(deadline);
        let mut unknown = None;
        for attempt in 0..SENDS {
            let signed = update.sign(&self.key, random_id()?, UnixMs::now().0 / 1000)?;
            match exchange.send(&signed, &self.key, attempt == 0).await {
                Sent::Answered(Judgement::Done) => return Ok(Made::Yes),
                Sent::Answered(Judgement::Unmet(_)) => {
                    // Perhaps by our own update, whose response was lost.
                    return Ok(if unknown.is_some() && made().await? { Made::Yes } else { Made::Unmet });
                }
                Sent::Answered(Judgement::Refused(refusal)) => return Err(self.refused(refusal)),
                Sent::Answered(Judgement::Ignore(why)) => unknown = Some(why.to_owned()),
                Sent::Unknown(why) => {
                    unknown = Some(why);
                    if Instant::now() >= deadline {
                        break;
                    }
                    if made().await? {
                        return Ok(Made::Yes);
                    }
                }
            }
        }
        Err(exchange.no_server(unknown.unwrap_or_default()))
    }

    fn refused(&self, refusal: Refusal) -> PublishError {
        PublishError::Refused { server: self.zone.server, zone: self.zone.zone.clone(), refusal }
    }

    pub(super) fn dropped(&self, missing: String) -> PublishError {
        PublishError::Dropped { server: self.zone.server, zone: self.zone.zone.clone(), missing }
    }

    /// Undoes an update of which the server has dropped a part.
    pub(super) async fn put_back(
        &self,
        zone: &Snapshot,
        plan: &Plan,
        failed: &Publication,
        deadline: Instant,
    ) -> Result<(), PublishError> {
        let author = self.author(true);
        let undo = |zone: &Snapshot| match plan::as_before(zone, &plan.before, failed, author.now) {
            Some(before) => plan::publish(zone, &before, author),
            None => plan::remove(zone, &failed.host, author),
        };
        self.carry_out(Cow::Borrowed(zone), deadline, undo).await.map(|_| ())
    }
}

/// Waits for a random time, so that publishers who have met do not meet again.
pub(super) async fn pause(round: u32) -> Result<(), PublishError> {
    let share = u32::from(random_id()?);
    let milliseconds = PAUSE_MS * round * share / u32::from(u16::MAX);
    tokio::time::sleep(Duration::from_millis(milliseconds.into())).await;
    Ok(())
}
