//! How a member is reached: directly, through a NAT that lets others in, or through relays.
//!
//! A member begins by telling its own addresses. If peers see it under another one, it is behind a NAT, and AutoNAT
//! has peers dial that address: if one gets through, the address is told as well; if none does, the member
//! withdraws its addresses, takes no part in routing and storing, and is reached through circuits that it reserves
//! with a few relays (libp2p's circuit relay v2). A connection over a circuit is then replaced by a direct one
//! where hole punching works (DCUtR).
//!
//! Sans-IO: the driver reports what it sees, does what [`Reachability::poll`] says, and calls it again at the time
//! that [`Reachability::wake`] gives. Addresses are multiaddrs as text, without the trailing `/p2p/` part.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::addresses;
use crate::{
    client::{PeerInfo, Reach, ReachView},
    name::PeerId,
};

/// Relays that a member behind a NAT holds places at: one may die.
const WANTED_RELAYS: usize = 2;
/// Relays remembered.
const MAX_RELAYS: usize = 32;
/// From the first failed test until it is believed: another peer may get through meanwhile.
const SETTLE: Duration = Duration::from_secs(2);
/// How long a relay that would not have us, or was lost, is left alone.
const AVOID: Duration = Duration::from_secs(30);
/// How long a reservation may take.
const RESERVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Addresses confirmed by others that are told of.
const MAX_CONFIRMED: usize = 4;

/// What the driver does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Tell others these addresses of ours from now on, and no others; none, if only circuits lead here.
    Advertise(Vec<String>),
    /// Ask this relay for a place.
    Reserve(PeerInfo),
    /// Give the places at relays up.
    Release,
}

/// A relay's standing with us.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// Known.
    Known,
    /// Asked for a place, at this time.
    Asked(Instant),
    /// We have a place; this is the address under which we are reached through it.
    Held(String),
    /// Not to be asked before this time.
    Avoided(Instant),
}

#[derive(Debug, Clone)]
struct Relay {
    info: PeerInfo,
    standing: Standing,
}

/// Watches how a member is reached. See the module's documentation.
#[derive(Debug, Default)]
pub struct Reachability {
    own: Vec<String>,
    /// Whether somebody has seen us under one of our own addresses.
    seen_as_is: bool,
    confirmed: Vec<String>,
    /// The first test that failed since the last success: when, and what came of it.
    failed: Option<(Instant, String)>,
    relays: BTreeMap<PeerId, Relay>,
    relayed: bool,
    advertised: Option<Vec<String>>,
}

impl Reachability {
    /// A member that listens at `own`.
    pub fn new(own: Vec<String>) -> Self {
        Self { own, ..Self::default() }
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
    }

    /// A peer has told under which address it sees us.
    pub fn on_observed(&mut self, address: &str) {
        self.seen_as_is |= self.own.iter().any(|own| own == address);
    }

    /// A peer has dialled an address of ours at our request, and got through.
    pub fn on_confirmed(&mut self, address: String) {
        self.failed = None;
        if !self.confirmed.contains(&address) && !self.own.contains(&address) {
            self.confirmed.truncate(MAX_CONFIRMED - 1);
            self.confirmed.insert(0, address);
        }
    }

    /// A peer has dialled an address of ours at our request, and `why` it did not get through.
    pub fn on_refuted(&mut self, address: &str, why: &str, now: Instant) {
        self.confirmed.retain(|confirmed| confirmed != address);
        if self.confirmed.is_empty() && self.failed.is_none() {
            self.failed = Some((now, format!("{address} was tried by a peer: {why}")));
        }
    }

    /// A peer serves as a relay and can be reached directly.
    pub fn on_relay(&mut self, info: PeerInfo) {
        if let Some(known) = self.relays.get_mut(&info.peer) {
            known.info = info;
        } else if self.relays.len() < MAX_RELAYS {
            self.relays.insert(info.peer, Relay { info, standing: Standing::Known });
        }
    }

    /// A relay has a place for us; `address` leads here through it.
    pub fn on_reserved(&mut self, relay: &PeerId, address: String) {
        if let Some(relay) = self.relays.get_mut(relay) {
            relay.standing = Standing::Held(address);
        }
    }

    /// A relay has no place for us, or no longer.
    pub fn on_lost(&mut self, relay: &PeerId, now: Instant) {
        if let Some(relay) = self.relays.get_mut(relay) {
            relay.standing = Standing::Avoided(now + AVOID);
        }
    }

    /// What to do now; nothing, if the picture has not changed.
    pub fn poll(&mut self, now: Instant) -> Option<Action> {
        let relayed = self.failed.as_ref().is_some_and(|(since, _)| now >= *since + SETTLE);
        if self.relayed && !relayed {
            self.relayed = false;
            for relay in self.relays.values_mut() {
                relay.standing = Standing::Known;
            }
            return Some(Action::Release);
        }
        self.relayed = relayed;
        let addresses: Vec<String> = if relayed { Vec::new() } else { self.addresses() };
        if self.advertised.as_ref() != Some(&addresses) {
            self.advertised = Some(addresses.clone());
            return Some(Action::Advertise(addresses));
        }
        if relayed { self.next_relay(now).map(Action::Reserve) } else { None }
    }

    /// When to poll again, if nothing comes before.
    pub fn wake(&self) -> Option<Instant> {
        let settled = self.failed.as_ref().filter(|_| !self.relayed).map(|(since, _)| *since + SETTLE);
        let relays = self.relays.values().filter(|_| self.relayed).filter_map(|relay| match relay.standing {
            Standing::Asked(since) => Some(since + RESERVE_TIMEOUT),
            Standing::Avoided(until) => Some(until),
            Standing::Known | Standing::Held(_) => None,
        });
        relays.chain(settled).min()
    }

    fn next_relay(&mut self, now: Instant) -> Option<PeerInfo> {
        let mut places = 0;
        for relay in self.relays.values_mut() {
            match relay.standing {
                Standing::Asked(since) if now >= since + RESERVE_TIMEOUT => {
                    relay.standing = Standing::Avoided(now + AVOID);
                }
                Standing::Avoided(until) if now >= until => relay.standing = Standing::Known,
                Standing::Asked(_) | Standing::Held(_) => places += 1,
                Standing::Known | Standing::Avoided(_) => {}
            }
        }
        if places >= WANTED_RELAYS {
            return None;
        }
        let free = self.relays.values_mut().find(|relay| relay.standing == Standing::Known)?;
        free.standing = Standing::Asked(now);
        Some(free.info.clone())
    }

    /// The addresses under which others reach us, best first.
    pub fn addresses(&self) -> Vec<String> {
        if self.relayed {
            self.circuits().map(|(_, address)| address).collect()
        } else {
            addresses::best(self.confirmed.iter().chain(&self.own).cloned())
        }
    }

    fn circuits(&self) -> impl Iterator<Item = (PeerId, String)> + '_ {
        self.relays.iter().filter_map(|(peer, relay)| match &relay.standing {
            Standing::Held(address) => Some((*peer, address.clone())),
            _ => None,
        })
    }

    /// How it stands, and why, for people.
    pub fn view(&self) -> ReachView {
        let relays: Vec<PeerId> = self.circuits().map(|(peer, _)| peer).collect();
        let (reach, why) = match (&self.failed, self.relayed, self.confirmed.first()) {
            (Some((_, why)), true, _) if relays.is_empty() => {
                (Reach::Not, format!("behind a NAT ({why}), and no relay has a place yet"))
            }
            (Some((_, why)), true, _) => (Reach::Relayed, format!("behind a NAT: {why}")),
            (_, _, Some(address)) => (Reach::Mapped, format!("behind a NAT; a peer got through to {address}")),
            _ if self.seen_as_is => (Reach::Direct, "peers see it under its own address".to_owned()),
            _ => (Reach::Unknown, "no peer has told yet how it sees this member".to_owned()),
        };
        ReachView { reach, why, relays }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn info(seed: u8) -> PeerInfo {
        let address = format!("/ip4/198.51.100.{seed}/tcp/4001");
        PeerInfo { peer: PeerId::from_public_key([seed; 32]), addresses: vec![address] }
    }

    fn actions(reachability: &mut Reachability, now: Instant) -> Vec<Action> {
        std::iter::from_fn(|| reachability.poll(now)).take(20).collect()
    }

    fn begin() -> (Reachability, Instant) {
        let mut reachability = Reachability::new(vec!["/ip4/10.1.0.2/tcp/4001".to_owned()]);
        let now = Instant::now();
        let own = Action::Advertise(vec!["/ip4/10.1.0.2/tcp/4001".to_owned()]);
        assert_eq!(actions(&mut reachability, now), [own]);
        (reachability, now)
    }

    /// A member whose address nobody could reach, and the time at which it believes so.
    fn behind_nat() -> (Reachability, Instant) {
        let (mut reachability, now) = begin();
        reachability.on_refuted("/ip4/198.51.100.101/tcp/4001", "connection refused", now);
        assert_eq!(actions(&mut reachability, now), [], "another peer may get through");
        assert_eq!(reachability.wake(), Some(now + SETTLE));
        (reachability, now + SETTLE)
    }

    #[test]
    fn who_is_seen_under_the_own_address_needs_nobody() {
        let (mut reachability, now) = begin();
        assert_eq!(reachability.view().reach, Reach::Unknown);
        reachability.on_observed("/ip4/10.1.0.2/tcp/4001");
        reachability.on_relay(info(1));
        assert_eq!(actions(&mut reachability, now), []);
        assert_eq!((reachability.view().reach, reachability.wake()), (Reach::Direct, None));
    }

    #[test]
    fn an_address_that_a_peer_got_through_to_is_told_first() {
        let (mut reachability, now) = begin();
        reachability.on_confirmed("/ip4/198.51.100.101/udp/4001/quic-v1".to_owned());
        let both = ["/ip4/198.51.100.101/udp/4001/quic-v1", "/ip4/10.1.0.2/tcp/4001"].map(str::to_owned);
        assert_eq!(actions(&mut reachability, now), [Action::Advertise(both.to_vec())]);
        assert_eq!(reachability.addresses(), both);
        assert_eq!(reachability.view().reach, Reach::Mapped);
        // One transport being shut does not matter then.
        reachability.on_refuted("/ip4/198.51.100.101/tcp/4001", "timeout", now);
        assert_eq!(actions(&mut reachability, now + 60 * SECOND), []);
    }

    #[test]
    fn who_cannot_be_reached_withdraws_and_takes_two_relays() {
        let (mut reachability, now) = behind_nat();
        (1..=3).for_each(|seed| reachability.on_relay(info(seed)));
        let all = actions(&mut reachability, now);
        assert!(
            matches!(&all[..], [Action::Advertise(none), Action::Reserve(_), Action::Reserve(_)] if none.is_empty()),
            "{all:?}"
        );
        assert_eq!(reachability.view().reach, Reach::Not);
        let asked: Vec<PeerInfo> = all
            .into_iter()
            .filter_map(|action| if let Action::Reserve(info) = action { Some(info) } else { None })
            .collect();
        reachability.on_reserved(&asked[0].peer, "circuit".to_owned());
        assert_eq!((reachability.addresses(), actions(&mut reachability, now)), (vec!["circuit".to_owned()], vec![]));
        assert_eq!((reachability.view().reach, reachability.view().relays), (Reach::Relayed, vec![asked[0].peer]));

        // The other one never answers; the third takes its place, and is the last.
        assert_eq!(reachability.wake(), Some(now + RESERVE_TIMEOUT));
        let later = now + RESERVE_TIMEOUT;
        let third = actions(&mut reachability, later);
        assert!(matches!(&third[..], [Action::Reserve(info)] if !asked.contains(info)), "{third:?}");
        reachability.on_lost(&asked[0].peer, later);
        assert_eq!(actions(&mut reachability, later), []);
        assert_eq!(reachability.addresses(), Vec::<String>::new());
        // After a while the lost ones are tried again.
        assert_eq!(actions(&mut reachability, later + AVOID).len(), 2);
    }

    #[test]
    fn who_turns_out_to_be_reachable_gives_the_relays_up() {
        let (mut reachability, now) = behind_nat();
        reachability.on_relay(info(1));
        actions(&mut reachability, now);
        reachability.on_reserved(&info(1).peer, "circuit".to_owned());
        reachability.on_confirmed("/ip4/198.51.100.101/udp/4001/quic-v1".to_owned());
        let all = actions(&mut reachability, now);
        assert!(matches!(&all[..], [Action::Release, Action::Advertise(two)] if two.len() == 2), "{all:?}");
    }

    #[test]
    fn what_is_remembered_has_a_limit() {
        let (mut reachability, now) = behind_nat();
        (0..=255).for_each(|seed| reachability.on_relay(info(seed)));
        assert_eq!(reachability.relays.len(), MAX_RELAYS);
        (0..20).for_each(|port| reachability.on_confirmed(format!("/ip4/192.0.2.1/tcp/{port}")));
        assert_eq!(reachability.confirmed.len(), MAX_CONFIRMED);
        assert!(actions(&mut reachability, now).len() < 5);
    }
}
