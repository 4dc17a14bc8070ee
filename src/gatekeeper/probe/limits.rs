//! How many probes a gatekeeper sends: by the site that they go to, by who asks, and to strangers in all.

use std::{net::IpAddr, time::Instant};

use crate::{
    client::gatekeeper::{DenialCode, Denied},
    gatekeeper::{
        Prefix,
        buckets::Buckets,
        policy::{Quotas, denied},
    },
    name::PeerId,
};

/// Requests of one peer in a minute: a short lease is renewed often.
pub(super) const PEER_REQUESTS: u32 = 60;
/// Probes in a minute to sites where nobody is entered, all of them together.
const STRANGERS: u32 = 6_000;

/// What is left of each share.
#[derive(Debug)]
pub(super) struct Limits {
    peers: Buckets<PeerId>,
    /// Probes to sites, by requests of those who are entered there, and by others.
    known: Buckets<Prefix>,
    unknown: Buckets<Prefix>,
    strangers: Buckets<()>,
}

impl Limits {
    pub(super) fn new(quotas: &Quotas) -> Self {
        Self {
            peers: Buckets::new(PEER_REQUESTS),
            known: Buckets::new(quotas.probes_per_minute),
            unknown: Buckets::new(quotas.probes_per_minute),
            strangers: Buckets::new(STRANGERS),
        }
    }

    /// Counts a request of a peer.
    pub(super) fn ask(&mut self, peer: PeerId, now: Instant) -> Result<(), Denied> {
        if !self.peers.has(peer, 1, now) {
            return Err(throttled("this peer has asked too often".to_owned()));
        }
        self.peers.charge(peer, 1, now);
        Ok(())
    }

    /// Counts `each` probes to every one of these addresses, if there is room for all of them. `known` says at which
    /// ones the peer is entered already.
    pub(super) fn send(
        &mut self,
        addresses: &[IpAddr],
        each: usize,
        known: impl Fn(IpAddr) -> bool,
        now: Instant,
    ) -> Result<(), Denied> {
        let mut strangers = 0;
        for address in addresses {
            let prefix = Prefix::of(*address);
            let site = addresses.iter().filter(|other| Prefix::of(**other) == prefix).count() * each;
            if !self.sites(known(*address)).has(prefix, site, now) {
                return Err(throttled(format!("{prefix} is being probed too often")));
            }
            strangers += if known(*address) { 0 } else { each };
        }
        if strangers > 0 && !self.strangers.has((), strangers, now) {
            return Err(throttled("too many newcomers ask at a time".to_owned()));
        }
        self.strangers.charge((), strangers, now);
        for address in addresses {
            self.sites(known(*address)).charge(Prefix::of(*address), each, now);
        }
        Ok(())
    }

    const fn sites(&mut self, known: bool) -> &mut Buckets<Prefix> {
        if known { &mut self.known } else { &mut self.unknown }
    }
}

pub(super) fn throttled(why: String) -> Denied {
    denied(DenialCode::Throttled, why)
}
