//! What a request has proven, once its time is up or its nonces are back.

use std::net::{IpAddr, SocketAddr};

use super::{Pending, Request, Sent};
use crate::dns::publish::SipEndpoint;

/// What was proven of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The request.
    pub request: Request,
    /// The addresses at which all of `endpoints` were proven; empty if nothing was.
    pub addresses: Vec<IpAddr>,
    /// The transports that were proven at all of `addresses`.
    pub endpoints: Vec<SipEndpoint>,
    /// What was not proven, for people.
    pub notes: Vec<String>,
}

/// What a request has proven. An SRV record leads to all addresses of a host, so the transports are those that were
/// proven at every address; an address that has fewer than the best one is left out.
pub(super) fn proof(pending: Pending) -> Proof {
    let Pending { request, sent, .. } = pending;
    let proven_at = |address: &IpAddr| {
        let good = |sent: &&Sent| sent.probe.address == *address && sent.answered() && sent.returned;
        sent.iter().filter(good).map(|sent| sent.probe.endpoint).collect::<Vec<_>>()
    };
    // The first of the best, for the proxy peer puts the address first that it likes best.
    let best = request.addresses.iter().map(proven_at).rev().max_by_key(Vec::len).unwrap_or_default();
    let covers = |address: &&IpAddr| {
        let proven = proven_at(address);
        !best.is_empty() && best.iter().all(|endpoint| proven.contains(endpoint))
    };
    let addresses: Vec<IpAddr> = request.addresses.iter().filter(covers).copied().collect();
    let mut notes = Vec::new();
    for sent in &sent {
        let Sent { probe, status, returned } = sent;
        let place = SocketAddr::new(probe.address, probe.endpoint.port);
        let entered = addresses.contains(&probe.address) && best.contains(&probe.endpoint);
        let what = match (status, returned) {
            (Some(_), true) if entered => continue,
            (Some(_), true) if sent.answered() => "was proven, but other addresses or transports were not".to_owned(),
            (Some(status), _) => format!("answers {status}, but not as this proxy peer"),
            (None, true) => "takes SIP, but its answer did not come back".to_owned(),
            (None, false) => "did not answer".to_owned(),
        };
        notes.push(format!("{} {place} {what}", probe.endpoint.transport));
    }
    Proof { request, addresses, endpoints: best, notes }
}
