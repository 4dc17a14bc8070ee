//! Publication of proxy peers in the DNS: what is written, under which conditions, and how it is read back.
//!
//! The zone is the truth and the only state. A [`Publisher`] reads it from the primary server, plans one update, sends it,
//! and believes what it then reads back and nothing else. A plan is all or nothing (RFC 2136 §3.2), and
//! conditional on the host's [lease](Lease), so publishers who know nothing of each other share a zone.

mod error;
mod lease;
mod plan;
mod primary;
mod records;
mod seen;
mod snapshot;
#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, RecordType},
};

pub use error::PublishError;
pub use lease::{Lease, TOMBSTONE};
pub use plan::Plan;
pub use records::{
    LEASES, MAX_TTL, Publication, SipEndpoint, TRANSPORTS, host_of, lease_owner, srv_owner, unreachable,
};

pub use super::locate::Transport;
pub use seen::shown;
pub use snapshot::{Host, Snapshot};

use self::{
    plan::Author,
    primary::{Exchange, Sent, random_id},
};
use super::{
    Change, Data, DataKind, DnsError, Resolver, TsigKey, Update,
    rrset::{canonical, parse_name, type_name},
    update::{Judgement, Refusal},
};
use crate::{clock::UnixMs, name::OverlayId};

/// How many questions are asked at once.
const QUESTIONS: usize = 32;
/// How many updates are on their way at once, when many hosts are changed.
const UPDATES: usize = 16;
/// How often an update is sent, if it is not known whether it was made.
const SENDS: usize = 3;
/// How often an update is planned again because what several hosts share has changed meanwhile.
const PLANS: u32 = 12;
/// How often it is looked again whether addresses at the overlay identifier are nobody's.
const FOREIGN_LOOKS: u32 = 3;
/// The longest pause before it is planned again, for each time before; the pause is random.
const PAUSE_MS: u32 = 15;

/// The primary name server of an overlay's zone, and the key with which it is changed.
#[derive(Debug, Clone)]
pub struct Publisher {
    zone: ZoneAt,
    key: TsigKey,
    timeout: Duration,
}

/// Where the zone of an overlay is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneAt {
    /// The overlay.
    pub overlay: OverlayId,
    /// The zone's name: the overlay identifier, or a name above it.
    pub zone: String,
    /// The primary server.
    pub server: SocketAddr,
}

/// What was done to one host.
#[derive(Debug)]
pub struct Done {
    /// What was sent, and what there was before.
    pub plan: Plan,
}

/// How much of the zone is read.
#[derive(Clone, Copy)]
enum Scope<'a> {
    /// One host, and what all hosts share.
    Host(&'a str),
    /// Everything.
    All,
}

impl ZoneAt {
    /// Finds the zone of an overlay on its primary server.
    ///
    /// # Errors
    /// [`PublishError::NoZone`] if the server is not authoritative for it; [`PublishError::NoServer`].
    pub async fn on(server: SocketAddr, overlay: &OverlayId, timeout: Duration) -> Result<Self, PublishError> {
        records::check_overlay(overlay)?;
        let exchange = Exchange { server, deadline: Instant::now() + timeout };
        let reply = exchange.ask(&parse_name(overlay.as_str())?, RecordType::SOA, false).await?;
        let no_zone = |why: String| PublishError::NoZone { name: overlay.to_string(), server, why };
        let code = reply.metadata.response_code;
        if !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
            return Err(no_zone(format!("it answers {}", code_name(code))));
        }
        if !reply.metadata.authoritative {
            return Err(no_zone("it is not authoritative for that name".to_owned()));
        }
        match start_of_authority(&reply, overlay) {
            Some((zone, _)) => Ok(Self { overlay: overlay.clone(), zone, server }),
            None => Err(no_zone("it shows no SOA record".to_owned())),
        }
    }

    /// Finds the primary server by the zone's SOA record (RFC 2136 §4.1), and the zone there.
    ///
    /// # Errors
    /// As [`on`](Self::on), and [`PublishError::Dns`] if the name servers of `resolver` do not know.
    pub async fn find(resolver: &Resolver, overlay: &OverlayId, timeout: Duration) -> Result<Self, PublishError> {
        records::check_overlay(overlay)?;
        let deadline = Instant::now() + timeout;
        let mut failure = None;
        for server in resolver.servers() {
            let exchange = Exchange { server, deadline };
            let reply = match exchange.ask(&parse_name(overlay.as_str())?, RecordType::SOA, true).await {
                Ok(reply) => reply,
                Err(error) => {
                    failure.get_or_insert(error);
                    continue;
                }
            };
            let no_zone = |why: String| PublishError::NoZone { name: overlay.to_string(), server, why };
            let Some((_, primary)) = start_of_authority(&reply, overlay) else {
                failure.get_or_insert(no_zone(format!(
                    "it answers {} and shows no SOA record",
                    code_name(reply.metadata.response_code)
                )));
                continue;
            };
            // A server that holds the zone need not be looked for. It may be on another port than 53, too.
            if reply.metadata.authoritative {
                let timeout = deadline.saturating_duration_since(Instant::now());
                return Self::on(server, overlay, timeout).await;
            }
            let addresses = resolver.addresses(&primary, super::Family::Any, deadline).await?;
            let address = addresses.values.first().copied();
            let address = address.ok_or_else(|| no_zone(format!("its primary server {primary} has no address")))?;
            let timeout = deadline.saturating_duration_since(Instant::now());
            return Self::on(SocketAddr::new(address, 53), overlay, timeout).await;
        }
        Err(failure
            .unwrap_or_else(|| DnsError::NotConfigured { why: "the list of servers is empty".to_owned() }.into()))
    }

    /// Reads everything that concerns the overlay's proxy peers.
    ///
    /// # Errors
    /// [`PublishError::NoServer`]; [`PublishError::Dns`] if the server answers with an error.
    pub async fn read(&self, timeout: Duration) -> Result<Snapshot, PublishError> {
        self.read_until(Scope::All, Instant::now() + timeout).await
    }

    /// Reads one host.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn read_host(&self, host: &str, timeout: Duration) -> Result<Host, PublishError> {
        Ok(self.read_until(Scope::Host(host), Instant::now() + timeout).await?.host(host))
    }

    async fn read_until(&self, scope: Scope<'_>, deadline: Instant) -> Result<Snapshot, PublishError> {
        let exchange = Exchange { server: self.server, deadline };
        let mut snapshot = Snapshot::new(self.overlay.clone(), self.zone.clone());
        let mut questions = Snapshot::shared_questions(&self.overlay);
        if let Scope::Host(host) = scope {
            questions.extend(Snapshot::host_questions(host));
        }
        enter_all(&mut snapshot, exchange, questions).await?;
        if let Scope::All = scope {
            let hosts = snapshot.hosts();
            enter_all(&mut snapshot, exchange, hosts.iter().flat_map(|host| Snapshot::host_questions(host)).collect())
                .await?;
        }
        Ok(snapshot)
    }
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
        Err(PublishError::Dropped { server: self.zone.server, zone: self.zone.zone.clone(), missing })
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

    /// Takes a host out of the zone; a tombstone stays for [`TOMBSTONE`].
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
            return Err(PublishError::Dropped { server: self.zone.server, zone: self.zone.zone.clone(), missing });
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
            let exchange = Exchange { server: self.zone.server, deadline };
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

    fn author(&self, force: bool) -> Author<'_> {
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
        let exchange = Exchange { server: self.zone.server, deadline };
        enter_all(&mut all, exchange, Snapshot::host_questions(&wanted.host).to_vec()).await?;
        Ok(all)
    }

    /// Plans, sends, and plans again while only what several hosts share has changed.
    async fn carry_out(
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
                let exchange = Exchange { server: self.zone.server, deadline };
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
    async fn send<F: Future<Output = Result<bool, PublishError>>>(
        &self,
        update: &Update,
        deadline: Instant,
        made: impl Fn() -> F,
    ) -> Result<Made, PublishError> {
        let exchange = Exchange { server: self.zone.server, deadline };
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

    /// Undoes an update of which the server has dropped a part.
    async fn put_back(
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

/// Whether an update was made.
enum Made {
    Yes,
    /// A prerequisite does not hold.
    Unmet,
}

/// Waits for a random time, so that publishers who have met do not meet again.
async fn pause(round: u32) -> Result<(), PublishError> {
    let share = u32::from(random_id()?);
    let milliseconds = PAUSE_MS * round * share / u32::from(u16::MAX);
    tokio::time::sleep(Duration::from_millis(milliseconds.into())).await;
    Ok(())
}

/// Asks many questions and enters the answers.
async fn enter_all(
    snapshot: &mut Snapshot,
    exchange: Exchange,
    questions: Vec<(String, DataKind)>,
) -> Result<(), PublishError> {
    let asked = stream::iter(questions).map(|question| async move {
        let (set, alias) = ask(exchange, &question).await?;
        Ok::<_, PublishError>((question, set, alias))
    });
    let answers: Vec<_> = asked.buffer_unordered(QUESTIONS).try_collect().await?;
    for (question, set, alias) in answers {
        snapshot.enter(question, set, alias);
    }
    Ok(())
}

/// Asks for one record set; none is an answer too. Says as well whether the name is an alias.
async fn ask(exchange: Exchange, (name, kind): &(String, DataKind)) -> Result<(Vec<Data>, bool), PublishError> {
    let owner = parse_name(name)?;
    let reply = exchange.ask(&owner, kind.record_type(), false).await?;
    let code = reply.metadata.response_code;
    if !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
        // SRV records may lead to hosts that the server knows nothing of.
        if code == ResponseCode::Refused {
            return Ok((Vec::new(), false));
        }
        return Err(DnsError::ServerFailure {
            name: name.clone(),
            record: type_name(kind.record_type()),
            server: exchange.server,
            code: code_name(code),
            meaning: "it did not answer the question",
        }
        .into());
    }
    let own = reply.answers.iter().filter(|record| record.name == owner);
    let alias = own.clone().any(|record| record.record_type() == RecordType::CNAME);
    let set = own.filter_map(|record| Data::from_rdata(&record.data)).filter(|data| data.kind() == *kind).collect();
    Ok((set, alias))
}

/// The zone that a name lies in and its primary server, by the SOA record in a response.
fn start_of_authority(reply: &Message, overlay: &OverlayId) -> Option<(String, String)> {
    let name = parse_name(overlay.as_str()).ok()?;
    let mut records = reply.answers.iter().chain(&reply.authorities);
    records.find_map(|record| match &record.data {
        RData::SOA(soa) if record.name.zone_of(&name) => Some((canonical(&record.name), canonical(&soa.mname))),
        _ => None,
    })
}

/// A response code's mnemonic.
fn code_name(code: ResponseCode) -> String {
    match code {
        ResponseCode::NoError => "NOERROR".to_owned(),
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        ResponseCode::NotAuth => "NOTAUTH".to_owned(),
        other => format!("RCODE {}", u16::from(other)),
    }
}
