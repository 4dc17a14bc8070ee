//! Where a SIP URI is: in the overlay, at a proxy peer, or wherever RFC 3263 says.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tokio::sync::Mutex;

use super::{
    OpsError,
    lookup::Lookups,
    outcome::{LookupOutcome, LookupStatus, RecordView},
};
use crate::{
    dns::locate::{Host, Locator, Query, Target, Transport, Verdict, Via},
    kind::Kind,
    name::{Aor, OverlayId, PeerId, ResourceName, Service, ServiceUri},
    sip::{
        tap::Tap,
        transport::{Hop, Protocol, Remote},
        uri::SipUri,
    },
};

/// How long a place in the overlay is believed without asking again.
const FRESH: Duration = Duration::from_secs(5);

/// A next hop, and how it was found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) hop: Hop,
    /// What to call it.
    pub(super) name: String,
    /// Why it is the one.
    pub(super) how: String,
}

/// Why there is no next hop.
#[derive(Debug, Clone)]
pub(super) struct NotFound {
    pub(super) kind: Kind,
    pub(super) why: String,
}

/// Finds next hops.
pub(super) struct Finder {
    overlay: Option<Inside>,
    locator: Locator,
    /// Where requests that begin a dialog go, whomever they are for.
    outbound: Option<String>,
    timeout: Duration,
    tap: Option<Tap>,
}

/// The overlay as this process knows it.
pub(super) struct Inside {
    pub(super) overlay: OverlayId,
    lookups: Mutex<Lookups>,
    /// This process, which never calls itself.
    own: PeerId,
    /// What was found lately, by URI.
    recent: Mutex<HashMap<String, (Instant, Vec<Found>)>>,
}

impl Inside {
    pub(super) fn new(overlay: OverlayId, lookups: Lookups, own: PeerId) -> Self {
        Self { overlay, lookups: Mutex::new(lookups), own, recent: Mutex::default() }
    }
}

impl Finder {
    pub(super) const fn new(
        overlay: Option<Inside>,
        locator: Locator,
        outbound: Option<String>,
        timeout: Duration,
    ) -> Self {
        Self { overlay, locator, outbound, timeout, tap: None }
    }

    /// The same, but somebody listens in.
    pub(super) fn watched(self, tap: Option<Tap>) -> Self {
        Self { tap, ..self }
    }

    /// The next hops of a URI, the best first.
    pub(super) async fn find(&self, uri: &str, outbound: bool) -> Result<Vec<Found>, NotFound> {
        let uri = self.outbound.as_deref().filter(|_| outbound).unwrap_or(uri);
        let uri = SipUri::parse(uri).map_err(|error| not_found(Kind::Usage, format!("{uri}: {error}")))?;
        match &self.overlay {
            Some(inside) if uri.host.is_name(inside.overlay.as_str()) && uri.port.is_none() => {
                self.inside(inside, &uri).await
            }
            _ => self.outside(&uri).await,
        }
    }

    /// Tries this hop first as long as what was found for the URI is believed.
    pub(super) async fn prefer(&self, uri: &str, remote: Remote) {
        let Some(inside) = &self.overlay else { return };
        if let Some((_, found)) = inside.recent.lock().await.get_mut(uri) {
            found.sort_by_key(|found| found.hop.remote != remote);
        }
    }

    /// As [`Finder::look_up`], or as it was a moment ago: a call asks the same several times.
    async fn inside(&self, inside: &Inside, uri: &SipUri<'_>) -> Result<Vec<Found>, NotFound> {
        let mut recent = inside.recent.lock().await;
        recent.retain(|_, (at, _)| at.elapsed() < FRESH);
        if let Some((_, found)) = recent.get(uri.as_str()) {
            return Ok(found.clone());
        }
        let found = self.look_up(inside, uri).await?;
        recent.insert(uri.as_str().to_owned(), (Instant::now(), found.clone()));
        Ok(found)
    }

    async fn look_up(&self, inside: &Inside, uri: &SipUri<'_>) -> Result<Vec<Found>, NotFound> {
        let name = match uri.user {
            None => ResourceName::Service(ServiceUri::new(Service::Proxy, inside.overlay.clone())),
            Some(_) => {
                ResourceName::User(Aor::parse(uri.as_str()).map_err(|error| not_found(Kind::Usage, error.to_string()))?)
            }
        };
        let began = Instant::now();
        let outcome = inside.lookups.lock().await.lookup(&name).await.map_err(|error| failed(&error))?;
        if let Some(tap) = &self.tap {
            tap.asked("overlay", &outcome.uri, answer(&outcome, uri.user.is_some()), began);
        }
        check(&outcome)?;
        let mut found = Vec::new();
        for record in &outcome.records {
            match uri.user {
                None => found.extend(proxy(record, inside.own)),
                Some(user) => {
                    if uri.gr().is_some_and(|instance| instance != record.instance.to_string()) {
                        continue;
                    }
                    for contact in &record.contacts {
                        let how = format!("routing record of {}", outcome.uri);
                        match contact.peer {
                            Some(peer) if peer == inside.own => {}
                            Some(peer) => {
                                let hop = Hop::peer(peer, contact.addresses.clone());
                                found.push((contact.q, Found { hop, name: user.to_owned(), how }));
                            }
                            None => {
                                let Ok(uri) = SipUri::parse(&contact.uri) else { continue };
                                let ways = self.outside(&uri).await.unwrap_or_default();
                                let ways =
                                    ways.into_iter().map(|way| Found { how: format!("{how}, {}", way.how), ..way });
                                found.extend(ways.map(|way| (contact.q, way)));
                            }
                        }
                    }
                }
            }
        }
        found.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        if found.is_empty() {
            let why = match uri.user {
                None => format!("no proxy peer of {} says that it serves; start one: p2p-join --proxy", inside.overlay),
                Some(_) => format!("{} has no contact that could be called", outcome.uri),
            };
            return Err(not_found(if uri.user.is_none() { Kind::Unreachable } else { Kind::Negative }, why));
        }
        Ok(found.into_iter().map(|(_, found)| found).collect())
    }

    /// RFC 3263.
    async fn outside(&self, uri: &SipUri<'_>) -> Result<Vec<Found>, NotFound> {
        let transport = match uri.transport().map(|name| Protocol::from_token(name.as_bytes())) {
            None => None,
            Some(Some(Protocol::Udp)) => Some(Transport::Udp),
            Some(Some(Protocol::Tcp)) => Some(Transport::Tcp),
            Some(Some(Protocol::Tls)) => Some(Transport::Tls),
            Some(Some(Protocol::Overlay) | None) => {
                return Err(not_found(Kind::Usage, format!("{uri}: its transport is not spoken here")));
            }
        };
        let host = |host: &crate::sip::uri::Host<'_>| Host::parse(&host.to_string());
        let query = Query {
            secure: uri.secure,
            host: host(&uri.host),
            port: uri.port,
            transport,
            maddr: uri.maddr().as_ref().map(host),
        };
        let began = Instant::now();
        let located = self.locator.locate(&query, began + self.timeout).await;
        let located = located.map_err(|error| not_found(error.kind(), error.to_string()))?;
        if let (Some(tap), Host::Name(name)) = (&self.tap, &query.host) {
            tap.asked("DNS", name, located.to_string(), began);
        }
        if located.targets.is_empty() {
            let domain = &query.host;
            let (kind, why) = match located.verdict {
                // Whoever calls from within an overlay knows what is outside of it.
                Verdict::NoDomain if self.overlay.is_none() => (
                    Kind::Negative,
                    format!(
                        "{domain} does not exist in the DNS; check its spelling, or if it is an overlay, say so with \
                         --overlay {domain} and call as one of its users, --from AOR"
                    ),
                ),
                Verdict::NoDomain => (Kind::Negative, format!("{domain} does not exist in the DNS")),
                Verdict::Found | Verdict::NoServer => {
                    (Kind::Negative, format!("{domain} has no SIP server that could be used"))
                }
                Verdict::Unanswered => (Kind::Unreachable, format!("no name server answers for {domain}")),
            };
            return Err(not_found(kind, why));
        }
        Ok(located.targets.iter().map(|target| found(target, uri)).collect())
    }
}

fn found(target: &Target, uri: &SipUri<'_>) -> Found {
    let protocol = match target.transport {
        Transport::Udp => Protocol::Udp,
        Transport::Tcp => Protocol::Tcp,
        Transport::Tls => Protocol::Tls,
    };
    let mut hop = Hop::socket(protocol, target.address);
    if protocol == Protocol::Tls {
        hop = hop.named(target.name.as_str());
    }
    // At an address there is the user; at a domain, a server of it.
    let name = uri.user.filter(|_| target.via == Via::Literal).unwrap_or(&target.name).to_owned();
    Found { hop, name, how: target.via.to_string() }
}

/// A proxy peer that serves, the better the less load it has.
fn proxy(record: &RecordView, own: PeerId) -> Option<(f64, Found)> {
    let offer = record.offer.as_ref().filter(|offer| offer.serving && offer.peer != own)?;
    let hop = Hop::peer(offer.peer, offer.addresses.clone());
    let how = "service record of a proxy peer".to_owned();
    Some((1.0 - offer.load, Found { hop, name: "proxy peer".to_owned(), how }))
}

fn check(outcome: &LookupOutcome) -> Result<(), NotFound> {
    let uri = &outcome.uri;
    match outcome.status {
        LookupStatus::Found => Ok(()),
        LookupStatus::NotFound => Err(not_found(Kind::Negative, "nobody has registered it in the overlay".to_owned())),
        LookupStatus::NobodyToAsk => {
            Err(not_found(Kind::Unreachable, format!("nobody in the overlay could say where {uri} is")))
        }
        LookupStatus::Untrusted | LookupStatus::Contested => {
            Err(not_found(Kind::Untrusted, format!("what the overlay has for {uri} is not to be trusted")))
        }
    }
}

/// What a lookup found, in a few words.
fn answer(outcome: &LookupOutcome, user: bool) -> String {
    let (number, what) = if user {
        (outcome.records.iter().map(|record| record.contacts.len()).sum::<usize>(), "contact")
    } else {
        (outcome.records.len(), "proxy peer")
    };
    match number {
        0 => "nobody".to_owned(),
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

fn failed(error: &OpsError) -> NotFound {
    not_found(error.kind(), error.to_string())
}

const fn not_found(kind: Kind, why: String) -> NotFound {
    NotFound { kind, why }
}
