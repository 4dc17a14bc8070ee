//! What a gatekeeper changes in the zone: it enters what was proven, and takes out who leaves or whose lease is over.

use std::{net::IpAddr, time::Duration};

use super::{Desk, UPDATE, named};
use crate::{
    client::gatekeeper::{DenialCode, Denied, Entered, GateVerdict, LeaveReply},
    clock::UnixMs,
    dns::{
        DescriptorPointer, PublishError, descriptor_owner, dnsaddr_text,
        publish::{Done, Publication, Publisher, SipEndpoint, host_of},
    },
    gatekeeper::{Leased, Proof, Request},
    member::core::lock,
    name::PeerId,
};

/// How often a change is tried again that met another publisher's.
const TRIES: u32 = 3;
/// How long a host is left alone that could not be reaped.
const REAP_AGAIN: Duration = Duration::from_secs(2);
/// The most multiaddrs of one proxy peer that are published.
const MAX_DIALLED: usize = 8;

impl Desk {
    /// Enters what was proven.
    pub(super) async fn publish(&self, proof: Proof) -> Result<Entered, Denied> {
        let Proof { request, addresses, endpoints, notes } = proof;
        if addresses.is_empty() {
            let why = format!("nothing was proven: {}", notes.join("; "));
            return Err(Denied { code: DenialCode::Unproven, why, retry_ms: 5_000 });
        }
        let wanted = self.publication(&request, addresses, endpoints);
        let done = self.add(wanted.clone()).await.map_err(|error| self.not_published(&error))?;
        self.note_entered(&wanted, &done, &notes);
        Ok(Entered {
            host: wanted.host,
            addresses: wanted.addresses,
            endpoints: named::write(&wanted.endpoints),
            lease_ms: u64::from(wanted.lease) * 1000,
            notes,
        })
    }

    /// What is to be published of a proxy peer.
    fn publication(&self, request: &Request, addresses: Vec<IpAddr>, endpoints: Vec<SipEndpoint>) -> Publication {
        let lease = self.lease();
        Publication {
            overlay: self.publisher.zone().overlay.clone(),
            host: request.host.clone(),
            dialled: dialled(request, &addresses),
            addresses,
            endpoints,
            ttl: Publication::ttl_of(lease),
            lease,
            peer: Some(request.peer),
            descriptor: self.core.upgrade().map(|core| DescriptorPointer::from(&**core.descriptor())),
        }
    }

    /// Remembers a new or renewed lease, and writes down on which proof it was granted.
    fn note_entered(&self, entered: &Publication, done: &Done, notes: &[String]) {
        let now = UnixMs::now();
        let until = done.plan.lease.as_ref().map_or(now, |lease| UnixMs(lease.until.saturating_mul(1000)));
        let renewed = done.plan.before.lease.as_ref().is_some_and(|lease| lease.live && !lease.has_ended(now));
        let leased = Leased { peer: entered.peer, addresses: entered.addresses.clone(), until, live: true };
        let places = entered.endpoints.iter().map(|at| format!("{}:{}", at.transport, at.port)).collect::<Vec<_>>();
        let mut why = format!("{} proven for {} s", places.join(", "), entered.lease);
        for note in notes.iter().chain(&done.plan.warnings) {
            why = format!("{why}; {note}");
        }
        let verdict = {
            let mut state = lock(&self.state);
            state.ledger.note(&entered.host, Some(leased), now);
            if renewed {
                state.counts.renewed += 1;
                GateVerdict::Renewed
            } else {
                state.counts.entered += 1;
                GateVerdict::Entered
            }
        };
        self.note(verdict, entered.peer, entered.host.clone(), entered.addresses.clone(), why);
    }

    /// Changes the zone, once more if it met another publisher's change.
    async fn add(&self, mut wanted: Publication) -> Result<Done, PublishError> {
        let _permit = self.updates.acquire().await;
        let foreign = descriptor_owner(&wanted.overlay)?;
        let mut tries = 1;
        loop {
            match self.publisher.add(&wanted, false).await {
                // Which descriptor is the right one is for the operator to say; the proxy peer has no part in it.
                Err(PublishError::NotOurs { host, why }) if host == foreign && wanted.descriptor.is_some() => {
                    tracing::warn!("the descriptor at {host} is left as it is: {why}");
                    wanted.descriptor = None;
                }
                Err(PublishError::Conflict { .. }) if tries < TRIES => tries += 1,
                done => return done,
            }
        }
    }

    /// Takes a proxy peer out at its own wish.
    pub(super) async fn leave(&self, peer: PeerId) -> LeaveReply {
        let host = host_of(&peer, &self.publisher.zone().overlay);
        match self.remove(&peer, &host).await {
            Ok(true) => {
                lock(&self.state).counts.left += 1;
                self.note(GateVerdict::Left, Some(peer), host, Vec::new(), "at its own wish".to_owned());
                LeaveReply::Left
            }
            Ok(false) => LeaveReply::Left,
            Err(error) => {
                let denied = self.not_published(&error);
                LeaveReply::Refused(self.refused(peer, host, Vec::new(), denied))
            }
        }
    }

    /// Whether there was something to be removed.
    async fn remove(&self, peer: &PeerId, host: &str) -> Result<bool, PublishError> {
        let _permit = self.updates.acquire().await;
        let mut tries = 1;
        loop {
            let before = self.publisher.zone().read_host(host, UPDATE).await?;
            // The name is the peer's own; what was entered there by hand or for another one stays.
            if !before.lease.is_some_and(|lease| lease.live && lease.peer.as_ref() == Some(peer)) {
                return Ok(false);
            }
            match self.publisher.remove(host, false).await {
                Ok(done) => {
                    self.gone(host, &done);
                    return Ok(true);
                }
                Err(PublishError::NotPublished { .. }) => return Ok(false),
                Err(PublishError::Conflict { .. }) if tries < TRIES => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads the whole zone.
    pub(in super::super) async fn sweep(&self) -> Result<(), PublishError> {
        let began = UnixMs::now();
        let zone = self.publisher.zone().read(UPDATE * 2).await?;
        lock(&self.state).ledger.read(&zone, began);
        Ok(())
    }

    /// The hosts whose lease or tombstone is over.
    pub(in super::super) fn due(&self, now: UnixMs) -> Vec<String> {
        lock(&self.state).ledger.due(now)
    }

    /// Takes hosts out whose lease is over, unless it turns out that somebody has renewed it.
    pub(in super::super) async fn reap(&self, hosts: Vec<String>) {
        let reaped = Publisher::each(hosts, async |host| {
            let result = self.reap_one(&host).await;
            (host, result)
        });
        for (host, result) in reaped.await {
            if let Err(error) = result {
                tracing::warn!("the lease of {host} is over, and it could not be taken out: {error}");
                lock(&self.state).ledger.postpone(&host, UnixMs::now().after(REAP_AGAIN));
            }
        }
    }

    async fn reap_one(&self, host: &str) -> Result<(), PublishError> {
        let _permit = self.updates.acquire().await;
        let Some(done) = self.publisher.reap(host).await? else {
            let there = self.publisher.zone().read_host(host, UPDATE).await?;
            lock(&self.state).ledger.note(host, Leased::of(&there), UnixMs::now());
            return Ok(());
        };
        self.gone(host, &done);
        let before = &done.plan.before;
        if let Some(lease) = before.lease.as_ref().filter(|lease| lease.live) {
            lock(&self.state).counts.reaped += 1;
            let why = "its lease was not renewed".to_owned();
            self.note(GateVerdict::Reaped, lease.peer, host.to_owned(), before.addresses.clone(), why);
        }
        Ok(())
    }

    /// Notes what is left of a host: its tombstone, if anything.
    fn gone(&self, host: &str, done: &Done) {
        let tombstone = done.plan.lease.as_ref().map(|lease| Leased {
            peer: lease.peer,
            addresses: Vec::new(),
            until: UnixMs(lease.until.saturating_mul(1000)),
            live: false,
        });
        lock(&self.state).ledger.note(host, tombstone, UnixMs::now());
    }

    /// Why the zone was not changed, for a peer: the server's address is not its business.
    fn not_published(&self, error: &PublishError) -> Denied {
        tracing::warn!("the zone was not changed: {error}");
        let why = match error {
            PublishError::NoServer { .. } => "the zone's name server does not answer".to_owned(),
            PublishError::Refused { refusal, .. } => format!("the zone's name server refuses it: {refusal}"),
            PublishError::Dropped { missing, .. } => format!("the zone's name server took it without {missing}"),
            other => other.to_string(),
        };
        Denied { code: DenialCode::Dns, why, retry_ms: 3_000 }
    }
}

/// Where the proxy peer can be dialled, at addresses that it has proven: others would have members dial a stranger.
fn dialled(request: &Request, proven: &[IpAddr]) -> Vec<String> {
    let is_proven = |text: &&String| {
        let mut parts = text.split('/').skip(1);
        let ip = match (parts.next(), parts.next()) {
            (Some("ip4" | "ip6"), Some(ip)) => ip.parse::<IpAddr>().ok(),
            _ => None,
        };
        let relayed = text.contains("/p2p-circuit");
        !relayed && ip.is_some_and(|ip| proven.contains(&ip)) && dnsaddr_text(&request.peer, text).is_ok()
    };
    request.dialled.iter().filter(is_proven).take(MAX_DIALLED).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::gatekeeper::RequestId;

    #[test]
    fn only_proven_addresses_are_dialled() {
        let peer = PeerId::from_public_key([1; 32]);
        let text = |text: &str| text.to_owned();
        let request = Request {
            peer,
            id: RequestId::new([0; 16]),
            host: String::new(),
            addresses: vec![],
            endpoints: vec![],
            dialled: vec![
                text("/ip4/192.0.2.1/tcp/4001"),
                text("/ip4/198.51.100.1/tcp/4001"),
                text("/dns4/victim.example/tcp/4001"),
                text("nonsense"),
                text(""),
            ],
        };
        assert_eq!(dialled(&request, &["192.0.2.1".parse().unwrap()]), ["/ip4/192.0.2.1/tcp/4001"]);
    }
}
