//! From what a zone says and what it should say to one update that makes it so. No I/O.
//!
//! Every plan is for one host and has that host's lease as its prerequisite, so whoever else changes the host at the same time
//! makes the update fail as a whole. What hosts share (the NAPTR rules) is only taken away under the condition that nobody
//! else needs it.

use super::{
    Host, Lease, Publication, PublishError, Snapshot, TRANSPORTS,
    lease::TOMBSTONE,
    records::{index_owner, lease_owner, rule, seconds, srv_owner},
};
use crate::{
    clock::UnixMs,
    dns::{
        Change, Data, DataKind, DescriptorPointer, DnsRecord, Prerequisite, Update, data::readable, descriptor_owner,
        dnsaddr_owner,
    },
};

/// One update, and what its being made means.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The host.
    pub host: String,
    /// What is sent.
    pub update: Update,
    /// What the host's lease is afterwards; `None` if nothing is left of it.
    pub lease: Option<Lease>,
    /// What the host was before.
    pub before: Host,
    /// What was left out, and why.
    pub warnings: Vec<String>,
}

/// Who publishes, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Author<'a> {
    /// The name of the key.
    pub(super) key: &'a str,
    pub(super) now: UnixMs,
    /// Whether to take over what is somebody else's.
    pub(super) force: bool,
}

impl Plan {
    fn new(zone: &Snapshot, host: &str) -> Self {
        let before = zone.host(host);
        let update =
            Update { zone: zone.zone().to_owned(), prerequisites: vec![lease_is(zone, host)], changes: Vec::new() };
        Self { host: host.to_owned(), update, lease: None, before, warnings: Vec::new() }
    }

    fn change(&mut self, change: Change) {
        self.update.changes.push(change);
    }

    fn set_lease(&mut self, zone: &Snapshot, lease: Lease, ttl: u32) {
        let owner = lease_owner(&self.host);
        self.change(Change::DeleteAll(owner.clone(), DataKind::Txt));
        self.change(Change::Add(DnsRecord { name: owner, ttl, data: Data::text(lease.to_string()) }));
        let pointer = Data::Ptr(self.host.clone());
        self.change(Change::Add(DnsRecord { name: index_owner(zone.overlay()), ttl, data: pointer }));
        self.lease = Some(lease);
    }
}

/// Publishes a proxy peer, or renews and changes what is published of it.
pub(super) fn publish(zone: &Snapshot, wanted: &Publication, author: Author<'_>) -> Result<Plan, PublishError> {
    let mut plan = Plan::new(zone, &wanted.host);
    check_owner(zone, &plan.before, wanted, author)?;
    let fresh = !plan.before.is_leased();
    if fresh && !author.force {
        for kind in [DataKind::A, DataKind::Aaaa, DataKind::Cname] {
            plan.update.prerequisites.push(Prerequisite::Absent(wanted.host.clone(), kind));
        }
    }
    let mut records = wanted.records()?;
    if wanted.is_on_default_ports() {
        let foreign = zone.foreign_addresses();
        if !foreign.is_empty() {
            records.retain(|record| record.name != zone.overlay().as_str() || record.data.kind() == DataKind::Naptr);
            let shown = foreign.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            plan.warnings.push(format!(
                "{} has addresses of its own ({shown}), so those of {} were not added there",
                zone.overlay(),
                wanted.host
            ));
        }
    }
    if let Some(descriptor) = &wanted.descriptor {
        replace_descriptor(&mut plan, zone, descriptor, author.force)?;
    }
    withdraw(&mut plan, zone, &records);
    for kind in [DataKind::A, DataKind::Aaaa] {
        if !fresh || author.force {
            plan.change(Change::DeleteAll(wanted.host.clone(), kind));
        }
    }
    for record in records {
        plan.change(Change::Add(record));
    }
    let lease = Lease::new(true, seconds(wanted.lease), author.key, wanted.peer, author.now)?;
    plan.set_lease(zone, lease, wanted.ttl);
    Ok(plan)
}

/// Takes a host out of the zone. A tombstone stays.
pub(super) fn remove(zone: &Snapshot, host: &str, author: Author<'_>) -> Result<Plan, PublishError> {
    let mut plan = Plan::new(zone, host);
    match &plan.before.lease {
        Some(lease) if lease.live => {
            if !author.force && !lease.has_ended(author.now) && !lease.is_of(author.key, lease.peer.as_ref()) {
                return Err(not_ours(host, lease));
            }
        }
        _ if author.force && !plan.before.endpoints.is_empty() => {}
        None if !plan.before.endpoints.is_empty() => {
            let why = "it was not published with a lease; remove it by hand, or with --force".to_owned();
            return Err(PublishError::NotOurs { host: host.to_owned(), why });
        }
        _ => {
            return Err(PublishError::NotPublished { host: host.to_owned(), overlay: zone.overlay().to_string() });
        }
    }
    take_out(&mut plan, zone, author)?;
    Ok(plan)
}

/// Takes a host out whose lease is over; long after that, its lease and tombstone too. `None` if there is nothing to do.
pub(super) fn reap(zone: &Snapshot, host: &str, author: Author<'_>) -> Result<Option<Plan>, PublishError> {
    let mut plan = Plan::new(zone, host);
    let Some(lease) = &plan.before.lease else { return Ok(None) };
    if !lease.has_ended(author.now) {
        return Ok(None);
    }
    // Whatever was signed while the lease went on is no longer accepted.
    let buried = !lease.live || UnixMs(lease.until.saturating_mul(1000)).after(TOMBSTONE) <= author.now;
    if lease.live {
        if !buried {
            take_out(&mut plan, zone, author)?;
            return Ok(Some(plan));
        }
        withdraw_all(&mut plan, zone);
    }
    plan.change(Change::DeleteAll(lease_owner(host), DataKind::Txt));
    plan.change(Change::Delete(index_owner(zone.overlay()), Data::Ptr(host.to_owned())));
    Ok(Some(plan))
}

/// Takes away rules that lead nowhere and, if `missing` says with which TTL, adds those that are missing. `None` if there is
/// nothing to mend.
pub(super) fn mend(zone: &Snapshot, missing: Option<u32>) -> Option<Update> {
    let mut update = Update { zone: zone.zone().to_owned(), ..Update::default() };
    for transport in TRANSPORTS {
        let (name, rule) = (zone.overlay().to_string(), Data::Naptr(rule(transport, zone.overlay())));
        let owner = srv_owner(transport, zone.overlay());
        match (zone.rule(transport), missing) {
            ((false, true), Some(ttl)) => {
                let servers = zone.set(&owner, DataKind::Srv).to_vec();
                update.prerequisites.push(Prerequisite::Exactly(owner, servers));
                update.changes.push(Change::Add(DnsRecord { name, ttl, data: rule }));
            }
            ((true, false), _) => {
                update.prerequisites.push(Prerequisite::Absent(owner, DataKind::Srv));
                update.changes.push(Change::Delete(name, rule));
            }
            ((true, true) | (false, _), _) => {}
        }
    }
    (!update.changes.is_empty()).then_some(update)
}

/// Refuses what is somebody else's, unless told otherwise.
fn check_owner(zone: &Snapshot, before: &Host, wanted: &Publication, author: Author<'_>) -> Result<(), PublishError> {
    let refuse = |why: String| Err(PublishError::NotOurs { host: wanted.host.clone(), why });
    if zone.is_alias(&wanted.host) {
        return refuse("it is an alias (CNAME), which cannot have addresses; choose another name".to_owned());
    }
    if author.force {
        return Ok(());
    }
    match (&before.lease, zone.lease_set(&wanted.host)) {
        (Some(lease), _) if lease.live => {
            if !lease.has_ended(author.now) && !lease.is_of(author.key, wanted.peer.as_ref()) {
                return Err(not_ours(&wanted.host, lease));
            }
            Ok(())
        }
        (None, [Data::Txt(text), ..]) => {
            let why = format!("the text at its lease is none of ours ('{}'); --force replaces it", readable(text));
            refuse(why)
        }
        _ if !before.addresses.is_empty() => {
            refuse("it has addresses that were not published with a lease; --force takes it over".to_owned())
        }
        _ => Ok(()),
    }
}

fn not_ours(host: &str, lease: &Lease) -> PublishError {
    let holder = match &lease.peer {
        Some(peer) => format!("the key {} for {peer}", lease.key),
        None => format!("the key {}", lease.key),
    };
    let why = format!("its lease is held by {holder}; wait for its end, or take it over with --force");
    PublishError::NotOurs { host: host.to_owned(), why }
}

/// The lease is what was read: its exact value, or that there is none.
fn lease_is(zone: &Snapshot, host: &str) -> Prerequisite {
    match zone.lease_set(host) {
        [] => Prerequisite::Absent(lease_owner(host), DataKind::Txt),
        set => Prerequisite::Exactly(lease_owner(host), set.to_vec()),
    }
}

fn take_out(plan: &mut Plan, zone: &Snapshot, author: Author<'_>) -> Result<(), PublishError> {
    withdraw_all(plan, zone);
    let peer = plan.before.lease.as_ref().and_then(|lease| lease.peer);
    let tombstone = Lease::new(false, TOMBSTONE, author.key, peer, author.now)?;
    plan.set_lease(zone, tombstone, super::MAX_TTL);
    Ok(())
}

fn withdraw_all(plan: &mut Plan, zone: &Snapshot) {
    withdraw(plan, zone, &[]);
    for kind in [DataKind::A, DataKind::Aaaa] {
        plan.change(Change::DeleteAll(plan.host.clone(), kind));
    }
}

/// Deletes what the zone says of a host elsewhere than at the host itself, but for the records to be kept.
fn withdraw(plan: &mut Plan, zone: &Snapshot, keep: &[DnsRecord]) {
    let overlay = zone.overlay();
    let kept = |name: &str, data: &Data| keep.iter().any(|record| record.name == name && record.data == *data);
    for transport in TRANSPORTS {
        let owner = srv_owner(transport, overlay);
        let all = zone.set(&owner, DataKind::Srv);
        let is_ours = |data: &Data| matches!(data, Data::Srv(server) if server.target == plan.host);
        let gone = all.iter().filter(|data| is_ours(data) && !kept(&owner, data)).cloned().collect::<Vec<_>>();
        let rule = Data::Naptr(rule(transport, overlay));
        let still_needed = keep.iter().any(|record| record.name == owner) || all.len() > gone.len();
        if !gone.is_empty() && !still_needed && zone.has(overlay.as_str(), &rule) {
            // Whoever adds a server meanwhile changes the set, and this update fails; whoever comes later adds the rule.
            plan.update.prerequisites.push(Prerequisite::Exactly(owner.clone(), all.to_vec()));
            plan.change(Change::Delete(overlay.to_string(), rule));
        }
        for data in gone {
            plan.change(Change::Delete(owner.clone(), data));
        }
    }
    if plan.before.is_on_default_ports() {
        for address in plan.before.addresses.clone() {
            let data = Data::address(address);
            if zone.has(overlay.as_str(), &data) && !kept(overlay.as_str(), &data) {
                plan.change(Change::Delete(overlay.to_string(), data));
            }
        }
    }
    let peer = plan.before.lease.as_ref().and_then(|lease| lease.peer);
    if let (Some(peer), Ok(owner)) = (peer, dnsaddr_owner(overlay)) {
        let end = format!("/p2p/{peer}");
        for data in zone.set(&owner, DataKind::Txt) {
            if matches!(data, Data::Txt(text) if text.ends_with(end.as_bytes())) && !kept(&owner, data) {
                plan.change(Change::Delete(owner.clone(), data.clone()));
            }
        }
    }
}

/// Makes room for a descriptor's hash. Another one is only replaced by force: it says whom the whole overlay trusts.
fn replace_descriptor(
    plan: &mut Plan,
    zone: &Snapshot,
    wanted: &DescriptorPointer,
    force: bool,
) -> Result<(), PublishError> {
    let owner = descriptor_owner(zone.overlay())?;
    for data in zone.set(&owner, DataKind::Txt) {
        let Data::Txt(text) = data else { continue };
        if !text.starts_with(b"v=P2PSIP1") || *text == wanted.to_string().into_bytes() {
            continue;
        }
        if !force {
            let why = format!("another descriptor is published ('{}'); --force replaces it", readable(text));
            return Err(PublishError::NotOurs { host: owner, why });
        }
        plan.change(Change::Delete(owner.clone(), data.clone()));
    }
    Ok(())
}

/// What would bring a host back to what it was, after a server has dropped part of an update. `None` if it was not
/// published: then it is removed.
pub(super) fn as_before(zone: &Snapshot, before: &Host, failed: &Publication, now: UnixMs) -> Option<Publication> {
    let lease = before.lease.as_ref().filter(|lease| lease.live)?;
    let peer = lease.peer;
    let end = peer.map(|peer| format!("/p2p/{peer}")).unwrap_or_default();
    let owner = dnsaddr_owner(zone.overlay()).ok()?;
    let dialled = zone.set(&owner, DataKind::Txt).iter().filter_map(|data| match data {
        Data::Txt(text) if peer.is_some() => {
            let text = std::str::from_utf8(text).ok()?.strip_prefix("dnsaddr=")?;
            Some(text.strip_suffix(&end)?.to_owned())
        }
        _ => None,
    });
    let remaining = u32::try_from(lease.remaining_ms(now) / 1000).unwrap_or(u32::MAX);
    let lease = remaining.clamp(*super::LEASES.start(), *super::LEASES.end());
    Some(Publication {
        host: before.name.clone(),
        addresses: before.addresses.clone(),
        endpoints: before.endpoints.clone(),
        ttl: failed.ttl.min(Publication::ttl_of(lease)),
        lease,
        peer,
        dialled: dialled.collect(),
        descriptor: None,
        overlay: failed.overlay.clone(),
    })
}
