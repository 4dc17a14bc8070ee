//! What a proxy peer enters: where it is to be found; and whether the DNS shows it there.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{Applicant, Failure, Publish};
use crate::{
    client::{
        Reach, ReachView,
        gatekeeper::{Entered, PublicationState},
    },
    dns::{
        DescriptorPointer, dnsaddr_text,
        publish::{Host, Publication, Publisher, SipEndpoint, host_of, shown, unreachable},
    },
    member::gatekeeper::named,
};

/// How long the DNS may take to show what was entered, and how often it is asked.
const SHOWN: (Duration, Duration) = (Duration::from_secs(10), Duration::from_millis(200));
/// How long one question to the DNS may take.
const LOOK: Duration = Duration::from_secs(3);
/// How long it is waited for a better way to be reached, behind a NAT.
const NAT_PAUSE: Duration = Duration::from_secs(15);
/// The most addresses, transports and multiaddrs that are asked for.
pub(super) const MAX_EACH: usize = 8;

impl Applicant {
    /// The addresses to be found at.
    pub(super) fn addresses(&self) -> Result<Vec<IpAddr>, Failure> {
        let network = self.core.network();
        let own: Vec<IpAddr> = self.places.iter().map(|(_, at)| at.ip()).collect();
        addresses(&self.publish, &network.reach(), own, &network.addresses())
    }

    /// The transports and ports to be found at.
    pub(super) fn endpoints(&self) -> Vec<SipEndpoint> {
        let mut endpoints: Vec<SipEndpoint> = Vec::new();
        for (transport, at) in &self.places {
            let endpoint = SipEndpoint { transport: *transport, port: at.port() };
            if !endpoints.contains(&endpoint) && endpoints.len() < MAX_EACH {
                endpoints.push(endpoint);
            }
        }
        endpoints
    }

    /// What it enters with the key of the zone.
    pub(super) fn publication(&self, addresses: Vec<IpAddr>, lease: u32) -> Publication {
        let peer = self.core.network().peer();
        let own = self.core.network().addresses();
        let dialled = own.into_iter().filter(|address| dnsaddr_text(&peer, address).is_ok());
        Publication {
            overlay: self.overlay.clone(),
            host: host_of(&peer, &self.overlay),
            addresses,
            endpoints: self.endpoints(),
            ttl: Publication::ttl_of(lease),
            lease,
            peer: Some(peer),
            dialled: dialled.take(MAX_EACH).collect(),
            descriptor: Some(DescriptorPointer::from(&**self.core.descriptor())),
        }
    }

    /// Enters it with the key of the zone.
    pub(super) async fn enter_by_key(&self, publisher: &Publisher, wanted: &Publication) -> Result<Entered, Failure> {
        if !self.publish.force
            && let Some((address, why)) = wanted.addresses.iter().find_map(|ip| Some((ip, unreachable(ip)?)))
        {
            let why = format!("nobody outside reaches {address}: {why}; --publish-force enters it all the same");
            return Err(Failure { state: PublicationState::BehindNat, why, retry: Some(NAT_PAUSE) });
        }
        let done = publisher.add(wanted, false).await.map_err(|error| Failure::new(error.to_string()))?;
        Ok(Entered {
            host: wanted.host.clone(),
            addresses: wanted.addresses.clone(),
            endpoints: named::write(&wanted.endpoints),
            lease_ms: u64::from(wanted.lease) * 1000,
            notes: done.plan.warnings,
        })
    }

    /// Whether the DNS shows what was entered: nobody's word counts for that.
    pub(super) async fn read_back(&self, entered: &Entered) -> Result<(), String> {
        let deadline = Instant::now() + SHOWN.0;
        loop {
            let seen = shown(&self.publish.resolver, &self.overlay, &entered.host, LOOK).await;
            let why = match seen {
                Ok(host) if self.is_all_there(entered, &host) => return Ok(()),
                Ok(_) => format!("it was entered as {}, and the DNS does not show all of it", entered.host),
                Err(error) => error.to_string(),
            };
            if Instant::now() >= deadline {
                return Err(why);
            }
            tokio::time::sleep(SHOWN.1).await;
        }
    }

    fn is_all_there(&self, entered: &Entered, host: &Host) -> bool {
        let peer = self.core.network().peer();
        let endpoints = named::read(&entered.endpoints);
        host.lease.as_ref().is_some_and(|lease| lease.live && lease.peer == Some(peer))
            && entered.addresses.iter().all(|address| host.addresses.contains(address))
            && endpoints.is_some_and(|all| all.iter().all(|endpoint| host.endpoints.contains(endpoint)))
    }
}

/// The addresses to be found at: those that were given, or else the best sort that it listens at. `told` are the
/// multiaddrs that it tells others. Behind a NAT there are none that it should be found at (R11).
fn addresses(
    publish: &Publish,
    reach: &ReachView,
    mut own: Vec<IpAddr>,
    told: &[String],
) -> Result<Vec<IpAddr>, Failure> {
    if !publish.force && matches!(reach.reach, Reach::Mapped | Reach::Relayed | Reach::Not) {
        let why = format!("it is behind a NAT ({}); --publish-force enters it all the same", reach.why);
        return Err(Failure { state: PublicationState::BehindNat, why, retry: Some(NAT_PAUSE) });
    }
    if !publish.addresses.is_empty() {
        return Ok(publish.addresses.clone());
    }
    if reach.reach == Reach::Mapped {
        own.extend(told.iter().filter_map(|text| text.split('/').nth(2)?.parse::<IpAddr>().ok()));
    }
    // Public ones, or else those of a network, or else those of this machine alone.
    let rank = |address: &IpAddr| match unreachable(address) {
        None => 0,
        Some(_) if !address.is_loopback() => 1,
        Some(_) => 2,
    };
    let best = own.iter().map(rank).min();
    let mut addresses = Vec::new();
    for address in own {
        if Some(rank(&address)) == best && !addresses.contains(&address) && addresses.len() < MAX_EACH {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dns::Resolver, member::gatekeeper::PublishBy};

    #[test]
    fn only_the_best_addresses_are_entered_and_none_behind_a_nat() {
        let resolver = Resolver::new(&["127.0.0.1:53".parse().unwrap()]).unwrap();
        let found = |reach, force, given: &[&str], own: &[&str]| {
            let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
            let (by, resolver) = (PublishBy::Gatekeeper, resolver.clone());
            let publish = Publish { by, resolver, addresses: ips(given), force };
            let reach = ReachView { reach, why: "seen elsewhere".to_owned(), relays: vec![] };
            let told = ["/ip4/198.51.100.1/tcp/4001".to_owned()];
            addresses(&publish, &reach, ips(own), &told).map(|found| found.iter().map(ToString::to_string).collect())
        };
        let is = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let wild = ["192.0.2.1", "127.0.0.1", "10.0.0.1", "192.0.2.1", "2001:db8::1"];
        let ok = |found: Result<Vec<String>, Failure>| found.ok().unwrap();
        assert_eq!(ok(found(Reach::Direct, false, &[], &wild)), is(&["192.0.2.1", "2001:db8::1"]));
        assert_eq!(ok(found(Reach::Unknown, false, &[], &["127.0.0.1", "10.0.0.1"])), is(&["10.0.0.1"]));
        assert_eq!(ok(found(Reach::Unknown, false, &[], &["127.0.0.1"])), is(&["127.0.0.1"]));
        assert_eq!(ok(found(Reach::Direct, false, &["203.0.113.1"], &wild)), is(&["203.0.113.1"]));
        for reach in [Reach::Mapped, Reach::Relayed, Reach::Not] {
            let failure = found(reach, false, &["203.0.113.1"], &wild).err().unwrap();
            assert_eq!(failure.state, PublicationState::BehindNat);
            assert!(failure.why.contains("behind a NAT (seen elsewhere)"), "{}", failure.why);
        }
        // Who insists is found where the NAT lets others in.
        assert_eq!(ok(found(Reach::Mapped, true, &[], &["10.0.0.1"])), is(&["198.51.100.1"]));
        assert_eq!(ok(found(Reach::Relayed, true, &["203.0.113.1"], &["10.0.0.1"])), is(&["203.0.113.1"]));
    }
}
