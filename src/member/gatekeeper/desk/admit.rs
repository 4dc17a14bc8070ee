//! Whether a request is worth probes: what the gatekeeper knows of who asks, put to the policy.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    time::Instant,
};

use super::{Desk, State, named};
use crate::{
    client::gatekeeper::{DenialCode, Denied, Enter},
    clock::UnixMs,
    dns::publish::unreachable,
    gatekeeper::{Applicant, Probe, Request, judge, policy::Rules},
    member::core::{Core, lock},
    name::{PeerId, ResourceName, Service, ServiceUri},
};

impl Desk {
    /// Begins a request that may pass; returns the probes to be sent.
    pub(super) fn begin(&self, peer: PeerId, host: String, call: Enter) -> Result<(Request, Vec<Probe>), Denied> {
        let denied = |code, why: &str| Denied { code, why: why.to_owned(), retry_ms: 5_000 };
        let core = self.core.upgrade().ok_or_else(|| denied(DenialCode::Dns, "the gatekeeper is leaving"))?;
        let endpoints = named::read(&call.endpoints);
        let endpoints =
            endpoints.ok_or_else(|| denied(DenialCode::Unfit, "a transport is none of udp, tcp and tls"))?;
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in call.addresses.iter().map(IpAddr::to_canonical) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let enrolled = is_enrolled(&core, &peer, call.certificate.as_ref().map(|der| der.as_slice()));
        let seen = core.network().seen_at(&peer);
        let applicant = Applicant {
            peer,
            host: &host,
            enrolled,
            addresses: &addresses,
            endpoints: &endpoints,
            seen: &seen,
            force: call.force,
        };
        let own = core.network().addresses();
        let file = self.file();
        let mut state = lock(&self.state);
        let State { ledger, probes, .. } = &mut *state;
        let rules = Rules {
            admission: &file.admission,
            quotas: &file.quotas,
            allow_private: file.allow_private,
            ledger,
            blind: &|address| blind(address, &own),
        };
        judge(&applicant, &rules)?;
        let request = Request { peer, id: call.id, host: host.clone(), addresses, endpoints, dialled: call.dialled };
        let known = |address| ledger.holds_at(&host, address);
        // A failing source of entropy is no reason to send what can be guessed.
        let mut entropy = true;
        let random = || {
            let mut octets = [0; 16];
            entropy &= getrandom::fill(&mut octets).is_ok();
            octets
        };
        let sent = probes.begin(request.clone(), known, Instant::now(), random)?;
        if !entropy {
            probes.take(&peer, &request.id);
            return Err(denied(DenialCode::Dns, "the gatekeeper has no random numbers"));
        }
        Ok((request, sent))
    }
}

/// Whether a certificate permits a peer to be a proxy peer of the overlay; why not, if not.
fn is_enrolled(core: &Core, peer: &PeerId, certificate: Option<&[u8]>) -> Result<(), String> {
    let name = ResourceName::from(ServiceUri::new(Service::Proxy, core.descriptor().overlay().clone()));
    let der = certificate.ok_or_else(|| format!("it shows no certificate for {name}"))?;
    let permitted = core.trust().permits(der, peer, &name, UnixMs::now());
    permitted.map(|_| ()).map_err(|refusal| refusal.to_string())
}

/// Why this machine does not see an address as the public network does: packets to it would leave from an address that
/// is nobody's outside, and peers outside know none of ours.
fn blind(address: IpAddr, own: &[String]) -> Option<String> {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let leaves_from = || {
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((address, 5060)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let Some(from) = leaves_from() else { return Some("there is no route to it".to_owned()) };
    let why = unreachable(&from)?;
    let public = |text: &String| {
        let ip = text.split('/').nth(2).and_then(|ip| ip.parse::<IpAddr>().ok());
        ip.is_some_and(|ip| ip.is_ipv4() == address.is_ipv4() && unreachable(&ip).is_none())
    };
    if own.iter().any(public) {
        return None;
    }
    Some(format!("it would be asked from {from}, and {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_public_address_is_blind_unless_peers_reach_it_at_one() {
        let loopback = "127.0.0.9".parse().unwrap();
        assert!(blind(loopback, &[]).unwrap().contains("loopback"));
        assert!(blind(loopback, &["/ip4/10.0.0.1/tcp/1".to_owned()]).is_some());
        assert!(blind(loopback, &["/ip6/2001:db8::1/tcp/1".to_owned()]).is_some());
        assert_eq!(blind(loopback, &["/ip4/192.0.2.1/tcp/1".to_owned()]), None);
    }
}
