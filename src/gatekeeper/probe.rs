//! The proof that a proxy peer is where it says: nonces that went there, and came back by another way. Pure.
//!
//! A request names places: each address with each transport. To each goes an OPTIONS request with a nonce of its own in
//! a header that nobody copies into a response. A place is proven if its nonce comes back over the overlay, signed by
//! the proxy peer, *and* the place has answered the OPTIONS request. So an innocent server named as the address proves
//! nothing (it answers, but tells nobody the nonce), and neither does who can only read what arrives there.
//!
//! Probes are limited by the site that they go to, so that nobody has a gatekeeper flood somebody else. Who is in the
//! DNS at that place already has a share of its own, so that a flood of requests there keeps nobody from renewing.

mod limits;
mod proof;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

pub use self::proof::Proof;
use self::{
    limits::{Limits, throttled},
    proof::proof,
};
use super::policy::{Quotas, denied};
use crate::{
    client::gatekeeper::{DenialCode, Denied, Nonce, RequestId, statement},
    dns::publish::SipEndpoint,
    identity::PublicKey,
    name::{OverlayId, PeerId},
};

/// How long a proxy peer has to bring the nonces back.
pub const WINDOW: Duration = Duration::from_secs(3);
/// How long a request is remembered: the window, and what messages may be under way.
const LIFETIME: Duration = Duration::from_secs(8);
/// Requests that are under way at a time.
const MAX_PENDING: usize = 1_024;

/// What a proxy peer asks for, as far as it has been let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who asks.
    pub peer: PeerId,
    /// What its probes carry.
    pub id: RequestId,
    /// Its host name.
    pub host: String,
    /// The addresses that it wants to be found at.
    pub addresses: Vec<IpAddr>,
    /// Its transports.
    pub endpoints: Vec<SipEndpoint>,
    /// Where it can be dialled.
    pub dialled: Vec<String>,
}

/// One OPTIONS request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Where it goes.
    pub address: IpAddr,
    /// By which transport and to which port.
    pub endpoint: SipEndpoint,
    /// What it carries, and nothing else tells.
    pub nonce: Nonce,
    /// What its response carries.
    pub branch: String,
}

#[derive(Debug)]
struct Sent {
    probe: Probe,
    /// The response to it.
    status: Option<u16>,
    returned: bool,
}

impl Sent {
    /// Whether the place has answered that it is there, rather than that it has nothing to do with it.
    fn answered(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }
}

#[derive(Debug)]
struct Pending {
    request: Request,
    sent: Vec<Sent>,
    until: Instant,
}

/// The requests that are under way.
#[derive(Debug)]
pub struct Probes {
    pending: HashMap<PeerId, Pending>,
    by_branch: HashMap<String, PeerId>,
    limits: Limits,
}

impl Probes {
    /// No request is under way.
    pub fn new(quotas: &Quotas) -> Self {
        Self { pending: HashMap::new(), by_branch: HashMap::new(), limits: Limits::new(quotas) }
    }

    /// Begins a request, in place of an older one of its peer; returns the probes to be sent. `known` says at which
    /// addresses the peer is entered already; `random` yields octets that nobody can guess.
    ///
    /// # Errors
    /// [`DenialCode::Throttled`].
    pub fn begin(
        &mut self,
        request: Request,
        known: impl Fn(IpAddr) -> bool,
        now: Instant,
        mut random: impl FnMut() -> [u8; 16],
    ) -> Result<Vec<Probe>, Denied> {
        let peer = request.peer;
        self.limits.ask(peer, now)?;
        self.forget(&peer);
        if self.pending.len() >= MAX_PENDING {
            return Err(throttled("too many requests are under way".to_owned()));
        }
        self.limits.send(&request.addresses, request.endpoints.len(), known, now)?;
        let mut sent = Vec::new();
        for address in &request.addresses {
            for endpoint in &request.endpoints {
                let branch = format!("z9hG4bK{}", data_encoding::HEXLOWER.encode(&random()));
                self.by_branch.insert(branch.clone(), peer);
                let probe = Probe { address: *address, endpoint: *endpoint, nonce: Nonce::new(random()), branch };
                sent.push(Sent { probe, status: None, returned: false });
            }
        }
        let probes = sent.iter().map(|sent| sent.probe.clone()).collect();
        self.pending.insert(peer, Pending { request, sent, until: now + LIFETIME });
        Ok(probes)
    }

    /// A response to a probe has come, from `source` if it came in a datagram. True: it counts.
    pub fn answered(&mut self, branch: &str, status: u16, source: Option<SocketAddr>) -> bool {
        let pending = self.by_branch.get(branch).and_then(|peer| self.pending.get_mut(peer));
        let Some(sent) = pending.and_then(|pending| pending.sent.iter_mut().find(|sent| sent.probe.branch == branch))
        else {
            return false;
        };
        let place = SocketAddr::new(sent.probe.address, sent.probe.endpoint.port);
        if status < 200 || source.is_some_and(|source| source != place) {
            return false;
        }
        sent.status = Some(status);
        sent.answered()
    }

    /// Whether a probe still waits for its response, so that it is worth being sent again.
    pub fn awaits(&self, branch: &str) -> bool {
        let pending = self.by_branch.get(branch).and_then(|peer| self.pending.get(peer));
        pending
            .is_some_and(|pending| pending.sent.iter().any(|sent| sent.probe.branch == branch && sent.status.is_none()))
    }

    /// A proxy peer brings nonces back. `gatekeeper` is who sent them.
    ///
    /// # Errors
    /// [`DenialCode::Stale`]: no such request is under way, a wrong signature, a nonce that was never sent. The request
    /// goes on then.
    pub fn prove(
        &mut self,
        overlay: &OverlayId,
        gatekeeper: &PeerId,
        peer: &PeerId,
        id: &RequestId,
        nonces: &[Nonce],
        signature: &[u8],
    ) -> Result<(), Denied> {
        let stale = |why: &str| Err(denied(DenialCode::Stale, why.to_owned()));
        let Some(pending) = self.pending.get_mut(peer).filter(|pending| pending.request.id == *id) else {
            return stale("no such request is under way here; ask again");
        };
        let key = PublicKey::from_octets(*peer.public_key());
        if !key.verify(&statement(overlay, gatekeeper, id, nonces), signature) {
            return stale("the signature is wrong");
        }
        let is_ours = |nonce: &Nonce| pending.sent.iter().any(|sent| sent.probe.nonce == *nonce);
        if !nonces.iter().all(is_ours) {
            return stale("a nonce was never sent");
        }
        for sent in &mut pending.sent {
            sent.returned |= nonces.contains(&sent.probe.nonce);
        }
        Ok(())
    }

    /// Whether each place whose nonce came back has also answered.
    pub fn is_settled(&self, peer: &PeerId) -> bool {
        self.pending
            .get(peer)
            .is_none_or(|pending| pending.sent.iter().all(|sent| sent.status.is_some() || !sent.returned))
    }

    /// Ends a request and says what it has proven; `None` if it is over already. Its nonces are worth nothing any more.
    pub fn take(&mut self, peer: &PeerId, id: &RequestId) -> Option<Proof> {
        self.pending.get(peer).filter(|pending| pending.request.id == *id)?;
        self.forget(peer).map(proof)
    }

    /// Ends the requests whose time is up; they have proven nothing.
    pub fn expire(&mut self, now: Instant) -> Vec<Request> {
        let over = self.pending.iter().filter(|(_, pending)| pending.until <= now).map(|(peer, _)| *peer);
        let over: Vec<PeerId> = over.collect();
        over.iter().filter_map(|peer| self.forget(peer)).map(|pending| pending.request).collect()
    }

    /// The requests that are under way.
    pub fn waiting(&self) -> impl Iterator<Item = &Request> {
        self.pending.values().map(|pending| &pending.request)
    }

    fn forget(&mut self, peer: &PeerId) -> Option<Pending> {
        let pending = self.pending.remove(peer)?;
        for sent in &pending.sent {
            self.by_branch.remove(&sent.probe.branch);
        }
        Some(pending)
    }
}
