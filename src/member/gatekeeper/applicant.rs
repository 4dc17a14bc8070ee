//! A proxy peer that asks for its place in the DNS, keeps it there, and takes it back when it leaves.

mod ask;
mod place;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::Inbox;
use crate::{
    client::{
        PeerInfo,
        gatekeeper::{DenialCode, Denied, Entered, PublicationState},
    },
    clock::{UnixMs, ms},
    dns::{
        PublishError, Resolver,
        publish::{Publisher, Transport, host_of},
    },
    identity::{Certificate, SecretKey},
    member::{Member, core::Core, proxy::Hub},
    name::OverlayId,
    sip::transport::Protocol,
};

/// The pauses after failures: the first one, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A lease is renewed when so much of it has passed.
const RENEW_AFTER: u32 = 3;

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
        for note in &entered.notes {
            tracing::warn!("left out of the DNS: {note}");
        }
        let standing = Standing { until: began + lease(&entered), entered: entered.clone(), gatekeeper };
        // From here on there is something to be taken back, whatever the DNS shows.
        let renewed = self.standing.replace(standing).is_some();
        let seen = self.read_back(&entered).await;
        self.tell_entered(&entered.host, renewed, seen, began);
        Ok(())
    }

    /// Tells that it has been entered, and whether the DNS shows it.
    fn tell_entered(&mut self, host: &str, renewed: bool, seen: Result<(), String>, began: Instant) {
        let (state, why) = match &seen {
            Ok(()) => (PublicationState::Shown, format!("the DNS shows {host}")),
            Err(why) => (PublicationState::Unseen, why.clone()),
        };
        let standing = self.standing.as_ref();
        let left = standing.map(|standing| standing.until.saturating_duration_since(Instant::now()));
        let gatekeeper = standing.and_then(|standing| standing.gatekeeper.as_ref()).map(|asked| asked.peer);
        self.hub.set_publication(|publication| {
            publication.renewals += u64::from(renewed);
            (publication.state, publication.why) = (state, why);
            publication.host = Some(host.to_owned());
            publication.until_ms = left.map(|left| UnixMs::now().after(left));
            publication.gatekeeper = gatekeeper;
        });
        match seen {
            Ok(()) => {
                if self.said != host {
                    tracing::info!("in the DNS as {host}, {:.0} ms after asking", ms(began.elapsed()));
                }
                host.clone_into(&mut self.said);
            }
            Err(why) => self.say(&why),
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

fn lease(entered: &Entered) -> Duration {
    Duration::from_millis(entered.lease_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_asked_again_when_the_gatekeeper_says() {
        let denied = Denied { code: DenialCode::Quota, why: "full".to_owned(), retry_ms: 60_000 };
        let failure = Failure::from(denied.clone());
        assert_eq!((failure.state, failure.retry), (PublicationState::Refused, Some(Duration::from_secs(60))));
        let nat = Failure::from(Denied { code: DenialCode::BehindNat, ..denied });
        assert_eq!(nat.state, PublicationState::BehindNat);
    }
}
