//! Whether what the overlay offers answers, and how fast: the probes of `p2p-discover`.
//!
//! A proxy peer is asked for its OPTIONS (RFC 3261 §11), at each of its endpoints. Any response shows that it is there.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;

use super::{
    Access, OpsError,
    locate::{Locations, PublicUri},
    outcome::{ProbeStatus, ProbeView, ProviderView},
    phone::{any_port, route_to},
};
use crate::{
    clock::ms,
    dns::locate::Locator,
    name::{OverlayId, Service},
    sip::{
        Message, Method,
        compose::Request,
        header::Name,
        transaction::{self, ClientId, Layer, Output},
        transport::{Bound, Config, Event, Hop, Protocol, Remote, TransportError, Transports},
    },
};

/// How long an endpoint may take to answer: a retransmission over UDP included (RFC 3261 §17.1.2).
const PATIENCE: Duration = Duration::from_secs(2);
/// Endpoints of one service that are probed.
const MAX_PROBED: usize = 1_000;

/// Asks each endpoint of the providers whether it answers, all at once, and notes it there. What cannot be asked is left
/// without probes.
///
/// # Errors
/// [`OpsError::Sip`]: this process has no sockets for it.
pub(super) async fn probe(
    access: &Access,
    locations: &mut Locations,
    overlay: &OverlayId,
    service: Service,
    providers: &mut [ProviderView],
) -> Result<(), OpsError> {
    let endpoints: Vec<String> =
        providers.iter().flat_map(|provider| provider.endpoints.iter().cloned()).take(MAX_PROBED).collect();
    if endpoints.is_empty() {
        return Ok(());
    }
    let mut probes = match service {
        Service::Proxy => options(access, locations, overlay, &endpoints).await?.into_iter(),
        // To ask a relay takes an allocation.
        _ => return Ok(()),
    };
    for provider in providers {
        provider.probes = probes.by_ref().take(provider.endpoints.len()).collect();
        let answered = provider.probes.iter().filter_map(|probe| probe.rtt_ms);
        provider.rtt_ms = answered.min_by(f64::total_cmp);
    }
    Ok(())
}

/// Puts those that answer fast first; then those that were not asked, then those that take nobody, and at last those
/// that were asked and are silent. Equals stay in their order.
pub(super) fn rank(providers: &mut [ProviderView]) {
    providers.sort_by(|one, other| {
        let class = |provider: &ProviderView| match (provider.probes.is_empty(), provider.rtt_ms) {
            (false, None) => 3,
            _ if !provider.serving => 2,
            (true, _) => 1,
            (false, Some(_)) => 0,
        };
        let rtt = |provider: &ProviderView| provider.rtt_ms.unwrap_or(f64::MAX);
        class(one).cmp(&class(other)).then(rtt(one).total_cmp(&rtt(other)))
    });
}

/// Sends OPTIONS to each endpoint. The answers are in the same order.
async fn options(
    access: &Access,
    locations: &mut Locations,
    overlay: &OverlayId,
    endpoints: &[String],
) -> Result<Vec<ProbeView>, OpsError> {
    // Numbers need no name server.
    let locator = locations.locator();
    let deadline = Instant::now() + PATIENCE.min(access.timeout);
    let hops = join_all(endpoints.iter().map(|endpoint| hop(&locator, overlay, endpoint, deadline))).await;
    let listen = any_port(access.family).into_iter().filter(|(protocol, _)| *protocol == Protocol::Udp).collect();
    let Bound { transports, events, udp } = Transports::bind(Config { listen, ..Config::default() })?;
    transports.serve_udp(&udp).map_err(|why| TransportError::Listen {
        protocol: Protocol::Udp,
        address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        why: Arc::new(why),
    })?;
    let now = Instant::now();
    let mut asking = Asking {
        layer: Layer::new(transaction::Config::default(), now),
        transports,
        asked: HashMap::new(),
        sent: HashMap::new(),
        failures: HashMap::new(),
        probes: endpoints.iter().map(|endpoint| view(endpoint, ProbeStatus::Silent)).collect(),
    };
    for (index, hop) in hops.into_iter().enumerate() {
        match hop {
            Ok(hop) => asking.ask(index, hop, overlay),
            Err(why) => asking.failed(index, why),
        }
    }
    asking.run(events, now + PATIENCE.min(access.timeout)).await;
    Ok(asking.probes)
}

/// Where an endpoint is. A host name is looked up.
async fn hop(
    locator: &Result<Locator, OpsError>,
    overlay: &OverlayId,
    endpoint: &str,
    deadline: Instant,
) -> Result<Hop, String> {
    let unusable = || "this transport is not spoken here".to_owned();
    let (transport, at) = endpoint.split_once(':').ok_or_else(unusable)?;
    let protocol = Protocol::from_token(transport.as_bytes()).filter(|protocol| *protocol != Protocol::Overlay);
    let protocol = protocol.ok_or_else(unusable)?;
    let hop = match at.parse::<SocketAddr>() {
        Ok(address) => Hop::socket(protocol, address),
        Err(_) => {
            let uri =
                PublicUri::parse(&format!("sip:{at};transport={transport}")).map_err(|error| error.to_string())?;
            let locator = locator.as_ref().map_err(ToString::to_string)?;
            let location = locator.locate(uri.query(), deadline).await.map_err(|error| error.to_string())?;
            let first = location.targets.first().ok_or_else(|| "its host name leads nowhere".to_owned())?;
            Hop::socket(protocol, first.address)
        }
    };
    // RFC 5922 §4: whoever serves the domain has a certificate of the domain.
    Ok(if protocol == Protocol::Tls { hop.named(overlay.as_str()) } else { hop })
}

fn view(endpoint: &str, status: ProbeStatus) -> ProbeView {
    ProbeView { endpoint: endpoint.to_owned(), status, code: None, rtt_ms: None, why: None }
}

/// OPTIONS under way.
struct Asking {
    layer: Layer,
    transports: Transports,
    /// Which endpoint each request is for, and when it left.
    asked: HashMap<ClientId, (usize, Hop, Instant)>,
    /// Where what has a token was sent.
    sent: HashMap<u64, (Protocol, Remote)>,
    failures: HashMap<(Protocol, Remote), String>,
    probes: Vec<ProbeView>,
}

impl Asking {
    fn ask(&mut self, index: usize, hop: Hop, overlay: &OverlayId) {
        let branch = self.layer.new_branch(None);
        let request = request(overlay, &hop, &self.sent_by(&hop), branch.as_str());
        let now = Instant::now();
        let sent = request.map_err(|error| error.to_string()).and_then(|message| {
            let bytes = message.bytes().clone();
            self.layer.request(&branch, Method::Options, bytes, hop.clone(), now).map_err(|error| error.to_string())
        });
        match sent {
            Ok(client) => _ = self.asked.insert(client, (index, hop, now)),
            Err(why) => self.failed(index, why),
        }
    }

    /// Our address as the other side sees it; responses come back to where the request came from all the same (RFC 3581).
    fn sent_by(&self, hop: &Hop) -> String {
        let Remote::Socket(remote) = hop.remote else { return "localhost".to_owned() };
        let own = self.transports.listening().iter().find(|(_, own)| own.is_ipv4() == remote.is_ipv4());
        SocketAddr::new(route_to(remote), own.map_or(5060, |(_, own)| own.port())).to_string()
    }

    /// Waits for the answers, until `deadline` at the latest.
    async fn run(&mut self, mut events: tokio::sync::mpsc::Receiver<Event>, deadline: Instant) {
        loop {
            self.drain();
            if self.asked.is_empty() || Instant::now() >= deadline {
                return;
            }
            let due = self.layer.poll_timeout().map_or(deadline, |at| at.min(deadline));
            tokio::select! {
                Some(event) = events.recv() => match event {
                    Event::Message { message, source } if !message.is_request() => {
                        self.layer.receive(message, source, Instant::now());
                    }
                    Event::Failed { token, error } => self.not_sent(token, error.to_string()),
                    Event::Undelivered(undelivered) => {
                        let to = (Protocol::Udp, Remote::Socket(undelivered.remote));
                        self.failures.insert(to, undelivered.to_string());
                        self.layer.undelivered(&undelivered, Instant::now());
                    }
                    // Nobody asks us anything that is to be answered.
                    Event::Message { .. } | Event::Closed { .. } => {}
                },
                () = tokio::time::sleep_until(due.into()) => self.layer.handle_timeout(Instant::now()),
            }
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.layer.poll_output() {
            match output {
                Output::Send { to, bytes, token } => {
                    self.sent.insert(token.number(), (to.protocol, to.remote));
                    if let Err(error) = self.transports.send(&to, bytes, token.number()) {
                        self.not_sent(token.number(), error.to_string());
                    }
                }
                Output::Event(transaction::Event::Response { client, message, .. }) => self.answered(client, &message),
                Output::Event(transaction::Event::TransportError { client }) => {
                    if let Some((index, hop, _)) = self.asked.remove(&client) {
                        let why = self.failures.get(&(hop.protocol, hop.remote)).cloned();
                        self.failed(index, why.unwrap_or_else(|| format!("cannot send to {hop}")));
                    }
                }
                Output::Event(transaction::Event::Timeout { client }) => _ = self.asked.remove(&client),
                Output::Event(_) => {}
            }
        }
    }

    fn answered(&mut self, client: ClientId, message: &Message) {
        let Some(status) = message.status().filter(|status| *status >= 200) else { return };
        let Some((index, _, asked)) = self.asked.remove(&client) else { return };
        if let Some(probe) = self.probes.get_mut(index) {
            (probe.status, probe.code) = (ProbeStatus::Answered, Some(status));
            probe.rtt_ms = Some(ms(asked.elapsed()));
        }
    }

    fn not_sent(&mut self, token: u64, why: String) {
        if let Some(to) = self.sent.get(&token) {
            self.failures.insert(*to, why);
        }
        self.layer.transport_failed(transaction::Token::of_number(token), Instant::now());
    }

    fn failed(&mut self, index: usize, why: String) {
        if let Some(probe) = self.probes.get_mut(index) {
            (probe.status, probe.why) = (ProbeStatus::Unreachable, Some(why));
        }
    }
}

/// An OPTIONS of the overlay identifier, of nobody in particular (RFC 3323 §4.1.1.3).
fn request(overlay: &OverlayId, hop: &Hop, sent_by: &str, branch: &str) -> Result<Message, crate::sip::ParseError> {
    let uri = format!("sip:{overlay}");
    let random = format!("{:016x}", getrandom::u64().unwrap_or_default());
    Request::new(Method::Options, &uri)
        .header(Name::Via, format!("SIP/2.0/{} {sent_by};branch={branch};rport", hop.protocol.token()))
        .header(Name::MaxForwards, "70")
        .header(Name::From, format!("<sip:anonymous@anonymous.invalid>;tag={random}"))
        .header(Name::To, format!("<{uri}>"))
        .header(Name::CallId, &random)
        .header(Name::CSeq, "1 OPTIONS")
        .header(Name::Accept, "application/sdp")
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::UnixMs, name::PeerId};

    fn provider(n: u8, serving: bool, rtt: Option<Option<f64>>) -> ProviderView {
        let probe = |rtt: Option<f64>| ProbeView {
            rtt_ms: rtt,
            ..view("udp:192.0.2.1:5060", if rtt.is_some() { ProbeStatus::Answered } else { ProbeStatus::Silent })
        };
        ProviderView {
            peer: PeerId::from_public_key([n; 32]),
            addresses: Vec::new(),
            endpoints: Vec::new(),
            serving,
            load: 0.0,
            expires_at_ms: UnixMs(0),
            expires_in_ms: 0,
            certificate: None,
            probes: rtt.into_iter().map(probe).collect(),
            rtt_ms: rtt.flatten(),
            in_dns: None,
        }
    }

    #[test]
    fn who_answers_fast_comes_first_and_who_does_not_at_last() {
        let mut providers = vec![
            provider(1, true, Some(None)),
            provider(2, false, Some(Some(0.1))),
            provider(3, true, None),
            provider(4, true, Some(Some(9.0))),
            provider(5, true, None),
            provider(6, true, Some(Some(2.0))),
        ];
        rank(&mut providers);
        let order: Vec<_> = providers.iter().map(|provider| provider.peer).collect();
        assert_eq!(order, [6, 4, 3, 5, 2, 1].map(|n| PeerId::from_public_key([n; 32])));
    }

    #[test]
    fn a_probe_is_a_request_that_any_proxy_understands() {
        let overlay = OverlayId::parse("p2psip.org").unwrap();
        let hop = Hop::socket(Protocol::Tcp, "192.0.2.1:5060".parse().unwrap());
        let message = request(&overlay, &hop, "192.0.2.9:5070", "z9hG4bK1").unwrap();
        assert!(message.check().is_ok());
        assert_eq!((message.method(), message.request_uri()), (Method::Options, Some("sip:p2psip.org")));
        let via = message.top_via().unwrap();
        assert_eq!((via.branch(), via.port), (Some("z9hG4bK1"), Some(5070)));
    }
}
