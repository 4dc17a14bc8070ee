//! Proxy peers as the DNS has them and as the overlay has them, side by side (R18). No I/O.

use std::{collections::BTreeSet, net::IpAddr};

use serde::Serialize;

use crate::{
    clock::UnixMs,
    dns::publish::{Host, SipEndpoint, Snapshot, TRANSPORTS, Transport},
    name::PeerId,
    ops::outcome::OfferView,
};

/// How DNS and overlay differ, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Drift {
    /// The overlay has it and the DNS does not.
    NotInDns,
    /// The DNS has it and the overlay does not.
    NotInOverlay,
    /// They have it with other addresses or ports.
    Differs,
    /// Its lease is over, and its records are still there.
    LeaseOver,
    /// It has a lease and lacks an address or an SRV record.
    Incomplete,
}

impl Drift {
    /// The same for people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::NotInDns => "not in the DNS",
            Self::NotInOverlay => "not in the overlay",
            Self::Differs => "addresses or ports differ",
            Self::LeaseOver => "lease is over",
            Self::Incomplete => "records are missing",
        }
    }
}

/// What sort of lease a host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseState {
    /// It goes on.
    Live,
    /// It is over.
    Over,
    /// There is none: the records were written by hand.
    None,
}

/// One proxy peer.
#[derive(Debug, Clone, Serialize)]
pub struct ProxyView {
    /// Its domain name; `null` if it is not in the DNS.
    pub host: Option<String>,
    /// The addresses of that name.
    pub addresses: Vec<IpAddr>,
    /// Where SRV records lead, as `udp:5060`.
    pub servers: Vec<String>,
    /// Its lease.
    pub lease: LeaseState,
    /// How long the lease goes on; `null` without one.
    pub lease_in_ms: Option<u64>,
    /// The name of the key that wrote the lease.
    pub key: Option<String>,
    /// The member that it is, if lease or overlay say so.
    pub peer: Option<PeerId>,
    /// What the overlay says of it.
    pub offer: Option<OfferView>,
    /// How the two differ; `null` if they do not.
    pub drift: Option<Drift>,
}

/// A rule at the overlay identifier that is missing, or leads nowhere.
#[derive(Debug, Clone, Serialize)]
pub struct RuleView {
    /// The transport.
    pub transport: String,
    /// Whether it is there and should not be, rather than the reverse.
    pub dangling: bool,
}

/// Where one transport of an offer is.
pub(super) type Place = (Transport, IpAddr, u16);

/// Puts hosts and offers that are the same proxy peer into one row. Without offers only the DNS is judged.
pub(super) fn compare(zone: &Snapshot, offers: Option<&[OfferView]>, now: UnixMs) -> Vec<ProxyView> {
    let mut left: Vec<&OfferView> = offers.unwrap_or_default().iter().filter(|offer| is_expected(offer)).collect();
    let mut rows = Vec::new();
    for name in zone.hosts() {
        let host = zone.host(&name);
        if host.endpoints.is_empty() && !host.is_leased() {
            // A tombstone.
            continue;
        }
        let found = left.iter().position(|offer| is_same(&host, offer));
        let offer = found.map(|index| left.remove(index));
        rows.push(row(&host, offer, offers.is_some(), now));
    }
    for offer in left {
        rows.push(ProxyView {
            host: None,
            addresses: vec![],
            servers: vec![],
            lease: LeaseState::None,
            lease_in_ms: None,
            key: None,
            peer: Some(offer.peer),
            offer: Some(offer.clone()),
            drift: Some(Drift::NotInDns),
        });
    }
    rows
}

/// The rules that are missing or lead nowhere.
pub(super) fn rules(zone: &Snapshot) -> Vec<RuleView> {
    let wrong = TRANSPORTS.into_iter().filter_map(|transport| match zone.rule(transport) {
        (there, needed) if there != needed => Some(RuleView { transport: transport.to_string(), dangling: there }),
        _ => None,
    });
    wrong.collect()
}

/// Whether a proxy peer that offers this should be in the DNS: it serves, somewhere that others can be told of.
fn is_expected(offer: &OfferView) -> bool {
    offer.serving && !places(offer).is_empty()
}

fn row(host: &Host, offer: Option<&OfferView>, overlay_asked: bool, now: UnixMs) -> ProxyView {
    let lease = host.lease.as_ref().filter(|lease| lease.live);
    let state = match lease {
        None => LeaseState::None,
        Some(lease) if lease.has_ended(now) => LeaseState::Over,
        Some(_) => LeaseState::Live,
    };
    let drift = match (state, offer) {
        (LeaseState::Over, _) => Some(Drift::LeaseOver),
        (LeaseState::Live, _) if host.addresses.is_empty() || host.endpoints.is_empty() => Some(Drift::Incomplete),
        (_, None) if overlay_asked => Some(Drift::NotInOverlay),
        (_, Some(offer)) if published(host) != places(offer) => Some(Drift::Differs),
        _ => None,
    };
    ProxyView {
        host: Some(host.name.clone()),
        addresses: host.addresses.clone(),
        servers: host.endpoints.iter().map(|SipEndpoint { transport, port }| format!("{transport}:{port}")).collect(),
        lease: state,
        lease_in_ms: lease.map(|lease| lease.remaining_ms(now)),
        key: lease.map(|lease| lease.key.clone()),
        peer: lease.and_then(|lease| lease.peer).or_else(|| offer.map(|offer| offer.peer)),
        offer: offer.cloned(),
        drift,
    }
}

/// Whether host and offer are one proxy peer: the lease says so, or they have a place in common.
fn is_same(host: &Host, offer: &OfferView) -> bool {
    match host.lease.as_ref().filter(|lease| lease.live).and_then(|lease| lease.peer) {
        Some(peer) => peer == offer.peer,
        None => !published(host).is_disjoint(&places(offer)),
    }
}

fn published(host: &Host) -> BTreeSet<Place> {
    let at = |address: &IpAddr| {
        let address = *address;
        host.endpoints.iter().map(move |endpoint| (endpoint.transport, address, endpoint.port))
    };
    host.addresses.iter().flat_map(at).collect()
}

/// Where an offer takes SIP, as far as it says so by address.
pub(super) fn places(offer: &OfferView) -> BTreeSet<Place> {
    let place = |text: &String| {
        let (transport, rest) = text.split_once(':')?;
        let (host, port) = rest.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let transport = Transport::named(transport)?;
        Some((transport, host.parse().ok()?, port.parse().ok()?))
    };
    offer.endpoints.iter().filter_map(place).collect()
}
