//! Looking a public SIP URI up: whose it is, and where its servers are (RFC 3263).

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use super::{
    Access, OpsError, ViaChoice,
    outcome::{AnswerStatus, LocateOutcome, LocateStatus, PublicView, StepKind, StepView, TargetView},
};
use crate::{
    client::Status,
    clock::ms,
    dns::{
        self, Origin, Resolver,
        locate::{Finding, Host, Location, Locator, Options, Query, Step, Target, Transport, Verdict, has_no_route},
    },
    name::{NameError, OverlayId, ResourceName},
    sip::uri::{self, SipUri},
};

/// How long the overlay's answer waits for that of the DNS, which only goes beside it.
const BESIDE: Duration = Duration::from_millis(500);

/// What URIs are taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// Whatever they turn out to be.
    #[default]
    Auto,
    /// Names in an overlay.
    Overlay,
    /// URIs of conventional SIP networks.
    Public,
}

/// A `sip:` or `sips:` URI that the DNS may know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUri {
    text: String,
    query: Query,
    /// Why it can be no name in an overlay, if that was asked.
    no_name: Option<NameError>,
}

impl PublicUri {
    /// Reads a URI.
    ///
    /// # Errors
    /// [`OpsError::PublicUri`]: no SIP URI, or one with a transport that cannot be located.
    pub fn parse(text: &str) -> Result<Self, OpsError> {
        let invalid = |why: String| OpsError::PublicUri { text: text.to_owned(), why };
        let uri = SipUri::parse(text).map_err(|error| invalid(error.to_string()))?;
        let transport = match uri.transport().map(str::to_ascii_lowercase).as_deref() {
            None => None,
            Some("udp") => Some(Transport::Udp),
            Some("tcp") => Some(Transport::Tcp),
            Some("tls") => Some(Transport::Tls),
            Some(_) => return Err(invalid("its transport is not udp, tcp or tls".to_owned())),
        };
        let host = |host: uri::Host<'_>| match host.ip() {
            Some(address) => Host::Address(address),
            None => Host::parse(host.name().unwrap_or_default()),
        };
        if uri.params.has("maddr") && uri.maddr().is_none() {
            return Err(invalid("its maddr is not a host".to_owned()));
        }
        let query =
            Query { secure: uri.secure, host: host(uri.host), port: uri.port, transport, maddr: uri.maddr().map(host) };
        Ok(Self { text: text.to_owned(), query, no_name: None })
    }

    /// What is to be located.
    pub(super) const fn query(&self) -> &Query {
        &self.query
    }
}

/// What a URI on a command line may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Something in an overlay.
    Overlay(ResourceName),
    /// Something outside.
    Public(PublicUri),
    /// One or the other: it depends on whose the domain is.
    Open {
        /// What it is in an overlay.
        name: ResourceName,
        /// What it is outside.
        uri: PublicUri,
    },
}

impl Subject {
    /// What it is called in messages.
    pub fn text(&self) -> String {
        match self {
            Self::Overlay(name) | Self::Open { name, .. } => name.to_string(),
            Self::Public(uri) => uri.text.clone(),
        }
    }

    /// Reads a URI as what `scope` says.
    ///
    /// # Errors
    /// [`OpsError::Name`], or outside [`OpsError::PublicUri`].
    pub fn parse(text: &str, scope: Scope) -> Result<Self, OpsError> {
        let name = || ResourceName::parse(text);
        match scope {
            Scope::Overlay => Ok(Self::Overlay(name()?)),
            Scope::Public => PublicUri::parse(text).map(Self::Public),
            Scope::Auto => match (name(), PublicUri::parse(text)) {
                (Ok(name), Ok(uri)) => Ok(Self::Open { name, uri }),
                (Ok(name), Err(_)) => Ok(Self::Overlay(name)),
                (Err(error), Ok(uri)) => Ok(Self::Public(PublicUri { no_name: Some(error), ..uri })),
                (Err(error), Err(_)) => Err(error.into()),
            },
        }
    }
}

/// Locates any number of URIs with one cache.
pub struct Locations {
    access: Access,
    asking: Option<(Resolver, Locator)>,
    /// Found out when it matters first.
    ours: Option<Ours>,
}

impl Locations {
    /// Locates with the name servers that `access` names.
    pub fn new(access: &Access) -> Self {
        Self { access: access.clone(), asking: None, ours: None }
    }

    /// Where the servers of a URI are.
    ///
    /// # Errors
    /// [`OpsError::Dns`]: the URI leads nowhere, or there is no name server to ask. That the DNS has no server, or is
    /// silent, is an outcome. [`OpsError::Name`]: it is one of the overlay that this machine has to do with, and names
    /// nothing there (R17).
    pub async fn locate(&mut self, uri: &PublicUri) -> Result<LocateOutcome, OpsError> {
        let started = Instant::now();
        if let (Some(error), Host::Name(host)) = (&uri.no_name, &uri.query.host)
            && let Ok(overlay) = OverlayId::parse(host)
            && matches!(self.ours().await?, Ours::This(own) if *own == overlay)
        {
            return Err(error.clone().into());
        }
        let (_, locator) = self.asking()?;
        let location = locator.locate(&uri.query, self.access.deadline()).await?;
        Ok(outcome(uri, &location, started.elapsed()))
    }

    /// What locates, for whoever sends to what it finds.
    pub(super) fn locator(&mut self) -> Result<Locator, OpsError> {
        self.asking().map(|(_, locator)| locator)
    }

    /// Finds out whose a URI is, and where its servers are if it is public; `None` means that it is an overlay's: the
    /// configured one's or the attached one's, or that of a domain that publishes one.
    ///
    /// # Errors
    /// As [`Locations::locate`], and what is wrong with the home.
    pub async fn settle(&mut self, name: &ResourceName, uri: &PublicUri) -> Result<Option<LocateOutcome>, OpsError> {
        if self.is_ours(name.overlay()).await? {
            return Ok(None);
        }
        let (resolver, _) = self.asking()?;
        let deadline = self.access.deadline();
        // Most URIs are not an overlay's, so both are asked at once.
        let mut published = pin!(is_published(&resolver, name.overlay(), deadline));
        let mut located = pin!(self.locate(uri));
        tokio::select! {
            biased;
            is_overlay = &mut published => if is_overlay { Ok(None) } else { located.await.map(Some) },
            outcome = &mut located => if published.await { Ok(None) } else { outcome.map(Some) },
        }
    }

    /// Whether an overlay is the one that is configured, or that of the member on this machine.
    async fn is_ours(&mut self, overlay: &OverlayId) -> Result<bool, OpsError> {
        Ok(match self.ours().await? {
            Ours::This(own) => own == overlay,
            Ours::Whichever => true,
            Ours::Unknown => false,
        })
    }

    async fn ours(&mut self) -> Result<&Ours, OpsError> {
        match &mut self.ours {
            Some(ours) => Ok(ours),
            unknown => Ok(unknown.insert(find_ours(&self.access).await?)),
        }
    }

    /// How the outside finds an overlay, and how that differs from the endpoints that its proxy peers offer inside.
    /// Gives up soon after `inside` is known.
    pub async fn compare<T>(
        &mut self,
        overlay: &OverlayId,
        inside: impl Future<Output = T>,
        endpoints: impl FnOnce(&T) -> Vec<String>,
    ) -> (T, Option<PublicView>) {
        let asking = self.asking().ok().filter(|_| overlay.is_fqdn());
        let Some((_, locator)) = asking else { return (inside.await, None) };
        let query = Query::of_host(Host::Name(overlay.to_string()));
        let deadline = self.access.deadline();
        let (mut inside, mut outside) = (pin!(inside), pin!(locator.locate(&query, deadline)));
        let (inside, outside) = tokio::select! {
            inside = &mut inside => (inside, tokio::time::timeout(BESIDE, outside).await.ok()),
            outside = &mut outside => (inside.await, Some(outside)),
        };
        let view = match outside {
            Some(Ok(location)) => Some(public_view(&location, &endpoints(&inside))),
            Some(Err(_)) => None,
            None => Some(PublicView {
                status: LocateStatus::NobodyToAsk,
                endpoints: Vec::new(),
                only_in_overlay: Vec::new(),
                only_in_dns: Vec::new(),
            }),
        };
        (inside, view)
    }

    fn asking(&mut self) -> Result<(Resolver, Locator), OpsError> {
        if let Some(asking) = &self.asking {
            return Ok(asking.clone());
        }
        let resolver = self.access.resolver()?;
        let options = Options { family: self.access.family, unreachable: has_no_route, ..Options::default() };
        let asking = (resolver.clone(), Locator::new(resolver, options));
        self.asking = Some(asking.clone());
        Ok(asking)
    }
}

/// Which overlay this machine has to do with.
enum Ours {
    This(OverlayId),
    /// Whoever names peers and no overlay means the overlay of what is looked up there.
    Whichever,
    Unknown,
}

async fn find_ours(access: &Access) -> Result<Ours, OpsError> {
    if let Some(configured) = &access.overlay {
        return Ok(Ours::This(configured.clone()));
    }
    if let Some(known) = access.local_descriptor()? {
        return Ok(Ours::This(known.descriptor.overlay().clone()));
    }
    if !access.peers.is_empty() {
        return Ok(Ours::Whichever);
    }
    let Some(mut socket) = access.socket(ViaChoice::Auto).await? else { return Ok(Ours::Unknown) };
    let status = tokio::time::timeout(access.timeout, socket.call(&Status {})).await;
    Ok(status.ok().and_then(Result::ok).map_or(Ours::Unknown, |status| Ours::This(status.overlay)))
}

/// Whether a domain says that it is an overlay's. No answer is no such word.
async fn is_published(resolver: &Resolver, overlay: &OverlayId, deadline: Instant) -> bool {
    let (Ok(descriptor), Ok(peers)) = (dns::descriptor_owner(overlay), dns::dnsaddr_owner(overlay)) else {
        return false;
    };
    let (descriptor, peers) = tokio::join!(resolver.txt(&descriptor, deadline), resolver.txt(&peers, deadline));
    descriptor.is_ok() || peers.is_ok()
}

/// The endpoints that the DNS should have, each once: of those providers that take new users.
pub fn expected<'a>(offers: impl Iterator<Item = (bool, &'a [String])>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for endpoint in offers.filter(|(serving, _)| *serving).flat_map(|(_, endpoints)| endpoints) {
        if !all.contains(endpoint) {
            all.push(endpoint.clone());
        }
    }
    all
}

fn public_view(location: &Location, inside: &[String]) -> PublicView {
    let outside: Vec<String> = location.targets.iter().map(endpoint).collect();
    let missing = |from: &[String], all: &[String]| all.iter().filter(|one| !from.contains(one)).cloned().collect();
    // What the overlay names by a host name cannot be compared with addresses.
    let comparable: Vec<String> = inside.iter().filter(|text| is_address(text)).cloned().collect();
    PublicView {
        status: status(location.verdict),
        only_in_overlay: if location.verdict == Verdict::Unanswered {
            Vec::new()
        } else {
            missing(&outside, &comparable)
        },
        only_in_dns: missing(inside, &outside),
        endpoints: outside,
    }
}

/// As the overlay's records write endpoints.
fn endpoint(target: &Target) -> String {
    format!("{}:{}", target.transport, target.address)
}

fn is_address(endpoint: &str) -> bool {
    endpoint.split_once(':').is_some_and(|(_, at)| at.parse::<std::net::SocketAddr>().is_ok())
}

const fn status(verdict: Verdict) -> LocateStatus {
    match verdict {
        Verdict::Found => LocateStatus::Found,
        Verdict::NoDomain => LocateStatus::NoDomain,
        Verdict::NoServer => LocateStatus::NoServer,
        Verdict::Unanswered => LocateStatus::NobodyToAsk,
    }
}

fn outcome(uri: &PublicUri, location: &Location, took: Duration) -> LocateOutcome {
    LocateOutcome {
        status: status(location.verdict),
        uri: uri.text.clone(),
        domain: uri.query.host.to_string(),
        targets: location.targets.iter().map(target).collect(),
        path: location.path.iter().map(step).collect(),
        elapsed_ms: ms(took),
    }
}

fn target(target: &Target) -> TargetView {
    TargetView {
        transport: target.transport.to_string(),
        address: target.address.ip().to_string(),
        port: target.address.port(),
        endpoint: endpoint(target),
        tls_name: (target.transport == Transport::Tls).then(|| target.name.clone()),
        because: target.via.to_string(),
    }
}

fn step(step: &Step) -> StepView {
    let plain =
        |step, text: String, answer| StepView { step, text, source: None, outcome: None, answer, took_ms: None };
    match step {
        Step::Decided(what) => plain(StepKind::Rule, what.clone(), Vec::new()),
        Step::Ignored { record, why } => plain(StepKind::Ignored, record.clone(), vec![(*why).to_owned()]),
        Step::Asked { question, finding, origin, took } => {
            let (outcome, answer) = match finding {
                Finding::Records(set) => (AnswerStatus::Records, set.texts()),
                Finding::NoRecords => (AnswerStatus::NoRecords, Vec::new()),
                Finding::NoName => (AnswerStatus::NoName, Vec::new()),
                Finding::Unanswered(why) => (AnswerStatus::Unanswered, vec![why.clone()]),
            };
            StepView {
                step: StepKind::Question,
                text: question.to_string(),
                source: source(*origin),
                outcome: Some(outcome),
                answer,
                took_ms: Some(ms(*took)),
            }
        }
    }
}

fn source(origin: Origin) -> Option<String> {
    match origin {
        Origin::Server(address) => Some(address.to_string()),
        Origin::Additional => Some("additional".to_owned()),
        Origin::Cache => Some("cache".to_owned()),
        Origin::Local => Some("local".to_owned()),
        Origin::Nobody => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_may_be_an_overlays_or_public_or_both() {
        let auto = |text| Subject::parse(text, Scope::Auto);
        assert!(matches!(auto("sip:bob@example.com"), Ok(Subject::Open { .. })));
        assert!(matches!(auto("sip:example.com"), Ok(Subject::Open { .. })));
        assert!(matches!(auto("turn:example.com"), Ok(Subject::Overlay(_))));
        for text in
            ["sip:bob@192.0.2.1", "sip:bob@example.com:5070", "sips:example.com", "sip:example.com;transport=tcp"]
        {
            assert!(matches!(auto(text), Ok(Subject::Public(_))), "{text}");
        }
        for text in ["bob@example.com", "tel:+1", "sip:@example.com", "sip:"] {
            assert!(auto(text).is_err(), "{text}");
        }
        assert!(matches!(Subject::parse("sip:bob@example.com", Scope::Overlay), Ok(Subject::Overlay(_))));
        assert!(Subject::parse("sip:example.com:5070", Scope::Overlay).is_err());
        assert!(matches!(Subject::parse("sip:bob@example.com", Scope::Public), Ok(Subject::Public(_))));
    }

    #[test]
    fn the_parts_that_count_are_taken_from_a_public_uri() {
        let query = |text| PublicUri::parse(text).unwrap().query;
        let full = query("sips:bob:secret@Example.com:5071;transport=TCP;maddr=[2001:db8::1]?Subject=x");
        assert_eq!((full.secure, full.host, full.port), (true, Host::Name("example.com".to_owned()), Some(5071)));
        assert_eq!((full.transport, full.maddr), (Some(Transport::Tcp), Some(Host::parse("2001:db8::1"))));
        assert_eq!(query("sip:[::ffff:192.0.2.1]").host, Host::parse("192.0.2.1"));
        for text in ["sip:a@b.org;transport=sctp", "sip:a@b.org;maddr=a_..b", "im:a@b.org", "sip:a@b.org:70000"] {
            assert!(matches!(PublicUri::parse(text), Err(OpsError::PublicUri { .. })), "{text}");
        }
    }

    #[test]
    fn drift_is_what_only_one_side_has() {
        let at = |transport, address: &str| Target {
            transport,
            address: address.parse().unwrap(),
            name: "p2psip.org".to_owned(),
            via: dns::locate::Via::Literal,
        };
        let targets = vec![at(Transport::Udp, "192.0.2.1:5060"), at(Transport::Tls, "[2001:db8::1]:5061")];
        let location = Location { targets, path: Vec::new(), verdict: Verdict::Found };
        let inside = ["udp:192.0.2.1:5060", "tcp:192.0.2.1:5060", "tcp:proxy.p2psip.org:5060"].map(str::to_owned);
        let view = public_view(&location, &inside);
        assert_eq!(view.only_in_overlay, ["tcp:192.0.2.1:5060"]);
        assert_eq!(view.only_in_dns, ["tls:[2001:db8::1]:5061"]);
        // Silence is no drift.
        let silent = Location { targets: Vec::new(), path: Vec::new(), verdict: Verdict::Unanswered };
        assert!(public_view(&silent, &inside).only_in_overlay.is_empty());
    }
}
