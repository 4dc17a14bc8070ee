//! A proxy peer that asks for its place in the DNS, keeps it there, and takes it back when it leaves.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_bytes::ByteBuf;
use tokio::sync::oneshot;

use super::Inbox;
use crate::{
    client::{
        PeerInfo, Reach, ReachView, Verdict,
        gatekeeper::{
            DenialCode, Denied, Enter, EnterReply, Entered, Leave, LeaveReply, Prove, ProveReply, PublicationState,
            RequestId, statement,
        },
    },
    clock::UnixMs,
    dns::{
        DescriptorPointer, PublishError, Resolver, dnsaddr_text,
        publish::{Publication, Publisher, SipEndpoint, TRANSPORTS, Transport, host_of, shown, unreachable},
    },
    identity::{Certificate, SecretKey},
    member::{Member, core::Core, proxy::Hub},
    name::{OverlayId, PeerId, ResourceName, Service, ServiceUri},
    overlay::redir::Wanted,
    record::Body,
    sip::transport::Protocol,
};

/// Gatekeepers that are asked, one after the other, before a pause.
const GATEKEEPERS: usize = 3;
/// How long finding gatekeepers may take.
const FIND: Duration = Duration::from_secs(3);
/// How long one call may take; a gatekeeper changes the zone meanwhile.
const CALL: Duration = Duration::from_secs(5);
/// How long the call to leave may take: the process is about to end.
const LEAVE: Duration = Duration::from_secs(2);
/// How long the DNS may take to show what was entered, and how often it is asked.
const SHOWN: (Duration, Duration) = (Duration::from_secs(10), Duration::from_millis(200));
/// How long one question to the DNS may take.
const LOOK: Duration = Duration::from_secs(3);
/// The pauses after failures: the first one, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A lease is renewed when so much of it has passed.
const RENEW_AFTER: u32 = 3;
/// How long it is waited for a better way to be reached, behind a NAT.
const NAT_PAUSE: Duration = Duration::from_secs(15);
/// The most addresses, transports and multiaddrs that are asked for.
const MAX_EACH: usize = 8;

/// How a proxy peer enters the DNS.
pub struct Publish {
    /// By whose key.
    pub by: PublishBy,
    /// The name servers that are to show it: those that others ask, too.
    pub resolver: Resolver,
    /// The addresses at which the public network reaches it, if not those where it listens.
    pub addresses: Vec<IpAddr>,
    /// Whether to enter although it is behind a NAT (R11).
    pub force: bool,
}

/// Who changes the zone.
pub enum PublishBy {
    /// A gatekeeper, found in the overlay.
    Gatekeeper,
    /// The proxy peer itself, which has the zone's key. No probe proves then that it can be reached.
    Key {
        /// The key, and the zone.
        publisher: Box<Publisher>,
        /// The lease, in seconds.
        lease: u32,
    },
}

/// Why it is not in the DNS.
struct Failure {
    state: PublicationState,
    why: String,
    retry: Option<Duration>,
}

impl Failure {
    fn new(why: impl Into<String>) -> Self {
        Self { state: PublicationState::Refused, why: why.into(), retry: None }
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        let state = match denied.code {
            DenialCode::BehindNat => PublicationState::BehindNat,
            _ => PublicationState::Refused,
        };
        Self { state, why: denied.why, retry: Some(Duration::from_millis(denied.retry_ms)) }
    }
}

/// What has been entered, and by whom.
struct Standing {
    entered: Entered,
    gatekeeper: Option<PeerInfo>,
    until: Instant,
}

/// The task of one proxy peer.
pub(in crate::member) struct Applicant {
    core: Arc<Core>,
    key: Arc<SecretKey>,
    overlay: OverlayId,
    publish: Publish,
    certificate: Option<Certificate>,
    /// Where it takes SIP.
    places: Vec<(Transport, SocketAddr)>,
    inbox: Arc<Inbox>,
    hub: Arc<Hub>,
    standing: Option<Standing>,
    /// Whoever may have entered it: the last gatekeeper that was given a proof.
    proven_to: Option<PeerInfo>,
    failures: u32,
    /// What was last said, so that it is not said again.
    said: String,
}

impl Applicant {
    pub(in crate::member) fn new(
        member: &Member,
        publish: Publish,
        certificate: Option<Certificate>,
        reachable: &[(Protocol, SocketAddr)],
        inbox: Arc<Inbox>,
        hub: Arc<Hub>,
    ) -> Self {
        let overlay = member.core.descriptor().overlay().clone();
        let place = |(protocol, at): &(Protocol, SocketAddr)| match protocol {
            Protocol::Udp => Some((Transport::Udp, *at)),
            Protocol::Tcp => Some((Transport::Tcp, *at)),
            Protocol::Tls => Some((Transport::Tls, *at)),
            Protocol::Overlay => None,
        };
        hub.set_publication(|_| {});
        Self {
            core: member.core.clone(),
            key: member.key.clone(),
            publish,
            certificate,
            places: reachable.iter().filter_map(place).collect(),
            inbox,
            hub,
            standing: None,
            proven_to: None,
            failures: 0,
            said: String::new(),
            overlay,
        }
    }

    /// Enters, renews, and leaves when `leave` says so.
    pub(in crate::member) async fn run(mut self, mut leave: oneshot::Receiver<()>) {
        loop {
            let pause = tokio::select! {
                pause = self.round() => pause,
                _ = &mut leave => return self.leave().await,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = &mut leave => return self.leave().await,
            }
        }
    }

    /// Enters or renews once; returns how long to wait before the next time.
    async fn round(&mut self) -> Duration {
        let began = Instant::now();
        match self.enter().await {
            Ok(()) => {
                self.failures = 0;
                let lease = self.standing.as_ref().map_or(Duration::ZERO, |standing| lease(&standing.entered));
                (lease / RENEW_AFTER).saturating_sub(began.elapsed()).max(PAUSES.0)
            }
            Err(failure) => {
                self.failures += 1;
                let pause = self.pause(&failure);
                self.tell_failure(&failure);
                pause
            }
        }
    }

    fn pause(&mut self, failure: &Failure) -> Duration {
        let doubled = PAUSES.0 * (1 << self.failures.min(7).saturating_sub(1));
        let pause = failure.retry.unwrap_or(doubled).max(PAUSES.0).min(PAUSES.1);
        // While the lease goes on, it is worth more haste.
        match self.standing.as_ref().map(|standing| standing.until.saturating_duration_since(Instant::now())) {
            Some(left) if !left.is_zero() => pause.min((left / 4).max(PAUSES.0)),
            _ => {
                self.standing = None;
                pause
            }
        }
    }

    async fn enter(&mut self) -> Result<(), Failure> {
        let addresses = self.addresses()?;
        let began = Instant::now();
        let (entered, gatekeeper) = match &self.publish.by {
            PublishBy::Key { publisher, lease } => {
                (self.enter_by_key(publisher, &self.publication(addresses, *lease)).await?, None)
            }
            PublishBy::Gatekeeper => {
                let (entered, gatekeeper) = self.ask_gatekeepers(addresses).await?;
                (entered, Some(gatekeeper))
            }
        };
        let renewed = self.standing.is_some();
        let standing = Standing { until: began + lease(&entered), entered, gatekeeper };
        let until = UnixMs::now().after(standing.until.saturating_duration_since(Instant::now()));
        let host = standing.entered.host.clone();
        for note in &standing.entered.notes {
            tracing::warn!("left out of the DNS: {note}");
        }
        let (entered, gatekeeper) = (standing.entered.clone(), standing.gatekeeper.as_ref().map(|asked| asked.peer));
        // From here on there is something to be taken back, whatever the DNS shows.
        self.standing = Some(standing);
        let (state, why) = match self.read_back(&entered).await {
            Ok(()) => (PublicationState::Shown, format!("the DNS shows {host}")),
            Err(why) => (PublicationState::Unseen, why),
        };
        self.hub.set_publication(|publication| {
            publication.renewals += u64::from(renewed);
            (publication.state, publication.why) = (state, why.clone());
            (publication.host, publication.until_ms) = (Some(host.clone()), Some(until));
            publication.gatekeeper = gatekeeper;
        });
        match state {
            PublicationState::Shown => {
                if self.said != host {
                    tracing::info!("in the DNS as {host}, {:.0} ms after asking", began.elapsed().as_secs_f64() * 1e3);
                }
                self.said = host;
            }
            _ => self.say(&why),
        }
        Ok(())
    }

    /// The addresses to be found at.
    fn addresses(&self) -> Result<Vec<IpAddr>, Failure> {
        let network = self.core.network();
        let own: Vec<IpAddr> = self.places.iter().map(|(_, at)| at.ip()).collect();
        addresses(&self.publish, &network.reach(), own, &network.addresses())
    }

    fn endpoints(&self) -> Vec<SipEndpoint> {
        let mut endpoints: Vec<SipEndpoint> = Vec::new();
        for (transport, at) in &self.places {
            let endpoint = SipEndpoint { transport: *transport, port: at.port() };
            if !endpoints.contains(&endpoint) && endpoints.len() < MAX_EACH {
                endpoints.push(endpoint);
            }
        }
        endpoints
    }

    fn publication(&self, addresses: Vec<IpAddr>, lease: u32) -> Publication {
        let descriptor = self.core.descriptor();
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
            descriptor: Some(DescriptorPointer { hash: descriptor.hash(), policy: Some(descriptor.policy()) }),
        }
    }

    async fn enter_by_key(&self, publisher: &Publisher, wanted: &Publication) -> Result<Entered, Failure> {
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
            endpoints: wanted.endpoints.iter().map(|at| (at.transport.to_string(), at.port)).collect(),
            lease_ms: u64::from(wanted.lease) * 1000,
            notes: done.plan.warnings,
        })
    }

    /// Asks gatekeepers until one enters us: first the one that did so the last time.
    async fn ask_gatekeepers(&mut self, addresses: Vec<IpAddr>) -> Result<(Entered, PeerInfo), Failure> {
        let mut failure = None;
        if let Some(last) = self.standing.as_ref().and_then(|standing| standing.gatekeeper.clone()) {
            match self.ask(&last, &addresses).await {
                Ok(entered) => return Ok((entered, last)),
                Err(why) => failure = Some(why),
            }
        }
        let asked = self.standing.as_ref().and_then(|standing| standing.gatekeeper.as_ref()).map(|last| last.peer);
        let (gatekeepers, verdict) = self.gatekeepers(asked).await;
        for gatekeeper in gatekeepers {
            match self.ask(&gatekeeper, &addresses).await {
                Ok(entered) => return Ok((entered, gatekeeper)),
                // What one of them refuses for a reason of ours, the others refuse too; the first reason is told.
                Err(why) => failure = Some(failure.unwrap_or(why)),
            }
        }
        Err(failure.unwrap_or_else(|| match verdict {
            Verdict::NobodyToAsk => Failure::new("nobody in the overlay could be asked for a gatekeeper"),
            _ => Failure::new(format!("{} has no gatekeeper; p2p-publish enters it by hand", self.overlay)),
        }))
    }

    async fn ask(&mut self, gatekeeper: &PeerInfo, addresses: &[IpAddr]) -> Result<Entered, Failure> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Failure::new(format!("the gatekeeper {} {what}: {error}", gatekeeper.peer))
        };
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| Failure::new(format!("no random numbers: {error}")))?;
        let id = RequestId::new(id);
        self.inbox.expect(id);
        let enter = Enter {
            id,
            addresses: addresses.to_vec(),
            endpoints: self.endpoints().iter().map(|at| (at.transport.to_string(), at.port)).collect(),
            dialled: self.core.network().addresses().into_iter().take(MAX_EACH).collect(),
            certificate: self.certificate().map(|certificate| ByteBuf::from(certificate.der())),
            force: self.publish.force,
        };
        let reply =
            self.core.call(gatekeeper, &enter, CALL).await.map_err(|error| failed("cannot be asked", &error))?;
        let (probes, within) = match reply {
            EnterReply::Probing { probes, within_ms } => (probes as usize, Duration::from_millis(within_ms).min(CALL)),
            EnterReply::Refused(denied) => return Err(denied.into()),
        };
        let nonces = self.inbox.collect(probes, within).await;
        let signature = self.key.sign(&statement(&self.overlay, &gatekeeper.peer, &id, &nonces));
        self.proven_to = Some(gatekeeper.clone());
        let prove = Prove { id, nonces, signature: ByteBuf::from(signature.to_vec()) };
        match self.core.call(gatekeeper, &prove, CALL).await.map_err(|error| failed("took no proof", &error))? {
            ProveReply::Entered(entered) => Ok(entered),
            ProveReply::Refused(denied) => Err(denied.into()),
        }
    }

    /// The certificate that permits it to be a proxy peer; that in the home may have been renewed meanwhile.
    fn certificate(&self) -> Option<Certificate> {
        let name = ResourceName::from(ServiceUri::new(Service::Proxy, self.overlay.clone()));
        let at_home =
            |core: &Core| core.home()?.certificate_for(&self.key.public(), &name, UnixMs::now()).ok().flatten();
        self.certificate.clone().or_else(|| at_home(&self.core))
    }

    /// Whether the DNS shows what was entered: nobody's word counts for that.
    async fn read_back(&self, entered: &Entered) -> Result<(), String> {
        let deadline = Instant::now() + SHOWN.0;
        loop {
            let missing = match shown(&self.publish.resolver, &self.overlay, &entered.host, LOOK).await {
                Err(error) => Some(error.to_string()),
                Ok(host) => {
                    let peer = self.core.network().peer();
                    let leased = host.lease.as_ref().is_some_and(|lease| lease.live && lease.peer == Some(peer));
                    let endpoint = |(name, port): &(String, u16)| {
                        let transport = TRANSPORTS.into_iter().find(|transport| transport.to_string() == *name);
                        transport
                            .is_some_and(|transport| host.endpoints.contains(&SipEndpoint { transport, port: *port }))
                    };
                    let all = leased
                        && entered.addresses.iter().all(|address| host.addresses.contains(address))
                        && entered.endpoints.iter().all(endpoint);
                    (!all).then(|| format!("it was entered as {}, and the DNS does not show all of it", entered.host))
                }
            };
            match missing {
                None => return Ok(()),
                Some(why) if Instant::now() >= deadline => return Err(why),
                Some(_) => tokio::time::sleep(SHOWN.1).await,
            }
        }
    }

    /// Takes it out of the DNS.
    async fn leave(&mut self) {
        let host = host_of(&self.core.network().peer(), &self.overlay);
        let left = match (&self.publish.by, &self.proven_to) {
            (PublishBy::Key { publisher, .. }, _) => match publisher.remove(&host, false).await {
                Ok(_) => Ok(()),
                Err(PublishError::NotPublished { .. }) => return,
                Err(error) => Err(error.to_string()),
            },
            (PublishBy::Gatekeeper, Some(gatekeeper)) => self.ask_to_leave(gatekeeper).await,
            (PublishBy::Gatekeeper, None) => return,
        };
        self.standing = None;
        match left {
            Ok(()) => {
                tracing::info!("{host} left the DNS");
                self.hub.set_publication(|publication| {
                    (publication.state, publication.why) = (PublicationState::Left, "on leaving".to_owned());
                    publication.until_ms = None;
                });
            }
            Err(why) => tracing::warn!("{host} is left to its lease in the DNS: {why}"),
        }
    }

    /// Asks the gatekeeper that entered it to take it out; if that one is gone, any other.
    async fn ask_to_leave(&self, last: &PeerInfo) -> Result<(), String> {
        let ask = async |gatekeeper: &PeerInfo| match self.core.call(gatekeeper, &Leave {}, LEAVE).await {
            Ok(LeaveReply::Left) => Ok(()),
            Ok(LeaveReply::Refused(denied)) => Err(denied.why),
            Err(error) => Err(error.to_string()),
        };
        let mut result = ask(last).await;
        if result.is_err() {
            for other in self.gatekeepers(Some(last.peer)).await.0 {
                match ask(&other).await {
                    Ok(()) => return Ok(()),
                    Err(why) => result = Err(why),
                }
            }
        }
        result
    }

    /// The gatekeepers that the overlay has, but for one; and what the search came to.
    async fn gatekeepers(&self, but: Option<PeerId>) -> (Vec<PeerInfo>, Verdict) {
        let found = self.core.services(Service::Gatekeeper, Wanted::Some(GATEKEEPERS), Duration::ZERO, FIND).await;
        let gatekeepers = found.outcome.records.iter().filter_map(|record| match record.body() {
            Body::Service(offer) if offer.serving && Some(offer.peer) != but => {
                Some(PeerInfo { peer: offer.peer, addresses: offer.addresses.clone() })
            }
            _ => None,
        });
        (gatekeepers.take(GATEKEEPERS).collect(), found.outcome.reply.verdict)
    }

    fn tell_failure(&mut self, failure: &Failure) {
        self.hub.set_publication(|publication| {
            (publication.state, publication.why) = (failure.state, failure.why.clone());
            publication.failures += 1;
            if self.standing.is_none() {
                publication.until_ms = None;
            }
        });
        self.say(&format!("this proxy peer was not entered into the DNS: {}", failure.why));
    }

    /// Says something once, until it changes.
    fn say(&mut self, what: &str) {
        if self.said != what {
            tracing::warn!("{what}");
            what.clone_into(&mut self.said);
        }
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

fn lease(entered: &Entered) -> Duration {
    Duration::from_millis(entered.lease_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_refusal_is_asked_again_when_the_gatekeeper_says() {
        let denied = Denied { code: DenialCode::Quota, why: "full".to_owned(), retry_ms: 60_000 };
        let failure = Failure::from(denied.clone());
        assert_eq!((failure.state, failure.retry), (PublicationState::Refused, Some(Duration::from_secs(60))));
        let nat = Failure::from(Denied { code: DenialCode::BehindNat, ..denied });
        assert_eq!(nat.state, PublicationState::BehindNat);
    }
}
