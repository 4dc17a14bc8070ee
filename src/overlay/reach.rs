//! How a member is reached: directly, through a NAT that lets others in, or through relays.
//!
//! A member begins by telling its own addresses. A peer that sees it under one of them is no proof that it is behind
//! no NAT, for that peer may be on its side of it; but a peer that sees it under a stranger's address is proof that
//! there is a NAT, unless others see an address of its own that leads as far. Whoever is behind a NAT reserves circuits
//! with a few relays at once (libp2p's circuit relay v2) and withdraws its addresses: it takes no part in routing and
//! storing. A connection over a circuit is then replaced by a direct one where hole punching works (DCUtR).
//!
//! Meanwhile AutoNAT has peers dial the NAT's address. If one gets through, that address is told to callers as well, but
//! no more than that: a NAT may let in those peers alone that it has seen traffic to, as it has to AutoNAT's. Only when a
//! stranger has got in, the member takes part in routing again: one that most cannot reach would cost each lookup a
//! timeout.
//!
//! Sans-IO: the driver reports what it sees, does what [`Reachability::poll`] says, and calls it again at the time
//! that [`Reachability::wake`] gives. Addresses are multiaddrs as text, without the trailing `/p2p/` part.

mod relays;
mod seen;
#[cfg(test)]
mod tests;

use std::{net::IpAddr, time::Instant};

use self::{relays::Relays, seen::Seen};
use super::addresses::{best, ip};
use crate::{
    client::{PeerInfo, Reach, ReachView},
    name::{PeerId, Position},
};

/// Addresses confirmed by others that are told of.
const MAX_CONFIRMED: usize = 4;

/// What the driver does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Tell others these addresses of ours from now on, and no others; none, if only circuits lead here.
    Advertise {
        /// The addresses, the best first.
        addresses: Vec<String>,
        /// Whether to be a relay for others, which takes addresses that anybody can reach.
        relay: bool,
    },
    /// Ask this relay for a place.
    Reserve(PeerInfo),
    /// Give the places at relays up.
    Release,
}

/// Watches how a member is reached. See the module's documentation.
#[derive(Debug)]
pub struct Reachability {
    position: Position,
    own: Vec<String>,
    seen: Seen,
    confirmed: Vec<String>,
    /// What came of the last test that failed, since the last one that did not.
    failed: Option<String>,
    relays: Relays,
    relayed: bool,
    advertised: Option<(Vec<String>, bool)>,
}

impl Reachability {
    /// The member `peer`, which listens at `own`.
    pub fn new(peer: PeerId, own: Vec<String>) -> Self {
        Self {
            position: peer.position(),
            own,
            seen: Seen::default(),
            confirmed: Vec::new(),
            failed: None,
            relays: Relays::default(),
            relayed: false,
            advertised: None,
        }
    }

    /// A further address of our own, of an interface that has come up.
    pub fn on_listening(&mut self, address: String) {
        if !self.own.contains(&address) {
            self.own.push(address);
        }
    }

    /// An address of our own is gone.
    pub fn on_not_listening(&mut self, address: &str) {
        self.own.retain(|own| own != address);
        self.seen.retain_own(|seen| self.own.iter().any(|own| ip(own) == Some(seen)));
    }

    /// A peer has told under which address it sees us. The port does not matter: a connection that we have made may
    /// come from any.
    pub fn on_observed(&mut self, address: &str) {
        let Some(observed) = ip(address) else { return };
        if self.own.iter().any(|own| ip(own) == Some(observed)) {
            self.seen.under_own(observed);
        } else if let Some(before) = self.seen.behind(observed) {
            // What led through the NAT that we were behind leads here no longer.
            self.confirmed.retain(|confirmed| ip(confirmed) != Some(before));
        }
    }

    /// A peer has dialled an address of ours and got through: at our request, or as a stranger.
    pub fn on_confirmed(&mut self, address: String) {
        self.failed = None;
        if !self.confirmed.contains(&address) && !self.own.contains(&address) {
            self.confirmed.truncate(MAX_CONFIRMED - 1);
            self.confirmed.insert(0, address);
        }
    }

    /// A peer has dialled an address of ours at our request, and `why` it did not get through.
    pub fn on_refuted(&mut self, address: &str, why: &str) {
        self.confirmed.retain(|confirmed| confirmed != address);
        if self.confirmed.is_empty() {
            self.failed = Some(format!("a peer that dialled {address} did not get through ({why})"));
        }
    }

    /// A peer has come without a relay, from an address to which we have never sent anything.
    pub fn on_stranger(&mut self, from: IpAddr) {
        self.seen.visited(from);
    }

    /// A peer serves as a relay and can be reached directly at these addresses, at the first of them by ourselves.
    pub fn on_relay(&mut self, info: PeerInfo) {
        self.relays.learn(info);
    }

    /// A relay has a place for us.
    pub fn on_reserved(&mut self, relay: &PeerId) {
        self.relays.reserved(relay);
    }

    /// A relay has no place for us, or no longer.
    pub fn on_lost(&mut self, relay: &PeerId, now: Instant) {
        self.relays.lost(relay, now);
    }

    /// What to do now; nothing, if the picture has not changed.
    pub fn poll(&mut self, now: Instant) -> Option<Action> {
        let relayed = self.seen.nat().is_some();
        if self.relayed && !relayed {
            self.relayed = false;
            self.relays.release();
            return Some(Action::Release);
        }
        self.relayed = relayed;
        let advertised = (if self.is_for_all() { self.direct() } else { Vec::new() }, !relayed);
        if self.advertised.as_ref() != Some(&advertised) {
            let (addresses, relay) = advertised.clone();
            self.advertised = Some(advertised);
            return Some(Action::Advertise { addresses, relay });
        }
        if relayed { self.relays.next(&self.position, now).map(Action::Reserve) } else { None }
    }

    /// When to poll again, if nothing comes before.
    pub fn wake(&self) -> Option<Instant> {
        if self.relayed { self.relays.wake() } else { None }
    }

    /// Whether everybody gets here without a relay, for all we know: then the member takes part in routing and storing.
    pub fn is_for_all(&self) -> bool {
        !self.seen.is_shut_in() || (self.seen.is_visited() && self.mapped().next().is_some())
    }

    /// The addresses that lead through the NAT that we are behind. Whatever else somebody says to have dialled would be
    /// his to choose.
    fn mapped(&self) -> impl Iterator<Item = &String> + '_ {
        let nats = self.seen.nats();
        self.confirmed.iter().filter(move |confirmed| ip(confirmed).is_some_and(|ip| nats.contains(&Some(ip))))
    }

    /// The addresses that lead here without a relay, the best first.
    fn direct(&self) -> Vec<String> {
        let hidden = self.seen.is_shut_in() && self.mapped().next().is_none();
        if hidden { Vec::new() } else { best(self.mapped().chain(&self.own).cloned()) }
    }

    /// The addresses under which others reach us, best first.
    pub fn addresses(&self) -> Vec<String> {
        let circuits = self
            .relays
            .held()
            .flat_map(|info| info.addresses.iter().map(|address| format!("{address}/p2p/{}/p2p-circuit", info.peer)));
        best(self.direct().into_iter().chain(circuits))
    }

    /// How it stands, and why, for people.
    pub fn view(&self) -> ReachView {
        let relays: Vec<PeerId> = self.relays.held().map(|info| info.peer).collect();
        let open = self.seen.open();
        let (reach, why) = match (self.seen.nat(), self.mapped().next(), open) {
            (nat, _, Some(open)) => {
                let but = nat.map(|nat| format!(", and others through a NAT at {nat}")).unwrap_or_default();
                (Reach::Direct, format!("peers see it under its own address {open}{but}"))
            }
            (Some(nat), Some(address), None) => {
                let stranger = if self.seen.is_visited() { ", and so did a stranger" } else { "" };
                (Reach::Mapped, format!("behind a NAT at {nat}; a peer that dialled {address} got through{stranger}"))
            }
            (Some(nat), None, None) => {
                let tested = self.failed.as_deref().unwrap_or("no peer has got through it yet");
                let (reach, but) = match relays.is_empty() {
                    true => (Reach::Not, ", and no relay has a place yet"),
                    false => (Reach::Relayed, ""),
                };
                (reach, format!("behind a NAT at {nat}: {tested}{but}"))
            }
            (None, ..) => (Reach::Unknown, "no peer has told yet how it sees this member".to_owned()),
        };
        ReachView { reach, why, relays }
    }
}
