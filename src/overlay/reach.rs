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
//! IPv4 and IPv6 are looked at apart: a host may be behind a NAT in one and not in the other.
//!
//! Sans-IO: the driver reports what it sees, does what [`Reachability::poll`] says, and calls it again at the time
//! that [`Reachability::wake`] gives. Addresses are multiaddrs as text, without the trailing `/p2p/` part.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::addresses::{best, ip, scope};
use crate::{
    client::{PeerInfo, Reach, ReachView},
    name::{PeerId, Position},
};

/// Relays that a member behind a NAT holds places at: one may die.
const WANTED_RELAYS: usize = 2;
/// Relays remembered.
const MAX_RELAYS: usize = 32;
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

/// A relay's standing with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Known.
    Known,
    /// Asked for a place, at this time.
    Asked(Instant),
    /// We have a place.
    Held,
    /// Not to be asked before this time.
    Avoided(Instant),
}

#[derive(Debug, Clone)]
struct Relay {
    info: PeerInfo,
    standing: Standing,
}

/// What peers see of us in one family of addresses.
#[derive(Debug, Default)]
struct Seen {
    /// The addresses of our own that they see.
    own: Vec<IpAddr>,
    /// The address of a NAT, as one saw it last.
    nat: Option<IpAddr>,
    /// Of those that came to us, and that we had never sent anything to, the one from farthest away.
    stranger: Option<IpAddr>,
}

impl Seen {
    /// Whether a stranger has come through the NAT; a neighbour on our side of it did not.
    fn is_visited(&self) -> bool {
        self.stranger.zip(self.nat).is_some_and(|(stranger, nat)| scope(stranger) <= scope(nat))
    }

    /// An address of our own that leads here from wherever the NAT's is seen; a neighbour on our side of the NAT sees
    /// one that does not.
    fn open(&self) -> Option<IpAddr> {
        self.own.iter().find(|own| self.nat.is_none_or(|nat| scope(**own) <= scope(nat))).copied()
    }

    /// The NAT that is between us and others.
    fn nat(&self) -> Option<IpAddr> {
        self.nat.filter(|_| self.open().is_none())
    }
}

/// Watches how a member is reached. See the module's documentation.
#[derive(Debug)]
pub struct Reachability {
    position: Position,
    own: Vec<String>,
    v4: Seen,
    v6: Seen,
    confirmed: Vec<String>,
    /// What came of the last test that failed, since the last one that did not.
    failed: Option<String>,
    relays: BTreeMap<PeerId, Relay>,
    relayed: bool,
    advertised: Option<(Vec<String>, bool)>,
}

impl Reachability {
    /// The member `peer`, which listens at `own`.
    pub fn new(peer: PeerId, own: Vec<String>) -> Self {
        Self {
            position: peer.position(),
            own,
            v4: Seen::default(),
            v6: Seen::default(),
            confirmed: Vec::new(),
            failed: None,
            relays: BTreeMap::new(),
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
        for seen in [&mut self.v4, &mut self.v6] {
            seen.own.retain(|gone| self.own.iter().any(|own| ip(own) == Some(*gone)));
        }
    }

    /// A peer has told under which address it sees us. The port does not matter: a connection that we have made may
    /// come from any.
    pub fn on_observed(&mut self, address: &str) {
        let Some(observed) = ip(address) else { return };
        let seen = if observed.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        if self.own.iter().any(|own| ip(own) == Some(observed)) {
            if !seen.own.contains(&observed) {
                seen.own.push(observed);
            }
        } else if let Some(before) = seen.nat.replace(observed).filter(|before| *before != observed) {
            // What led through the NAT that we were behind leads here no longer.
            seen.stranger = None;
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
        let seen = if from.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        if seen.stranger.is_none_or(|before| scope(from) < scope(before)) {
            seen.stranger = Some(from);
        }
    }

    /// A peer serves as a relay and can be reached directly at these addresses, at the first of them by ourselves.
    pub fn on_relay(&mut self, info: PeerInfo) {
        if let Some(known) = self.relays.get_mut(&info.peer) {
            known.info = info;
        } else if self.relays.len() < MAX_RELAYS {
            self.relays.insert(info.peer, Relay { info, standing: Standing::Known });
        }
    }

    /// A relay has a place for us.
    pub fn on_reserved(&mut self, relay: &PeerId) {
        if let Some(relay) = self.relays.get_mut(relay) {
            relay.standing = Standing::Held;
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
        let relayed = self.nat().is_some();
        if self.relayed && !relayed {
            self.relayed = false;
            for relay in self.relays.values_mut() {
                relay.standing = Standing::Known;
            }
            return Some(Action::Release);
        }
        self.relayed = relayed;
        let advertised = (if self.is_for_all() { self.direct() } else { Vec::new() }, !relayed);
        if self.advertised.as_ref() != Some(&advertised) {
            let (addresses, relay) = advertised.clone();
            self.advertised = Some(advertised);
            return Some(Action::Advertise { addresses, relay });
        }
        if relayed { self.next_relay(now).map(Action::Reserve) } else { None }
    }

    /// When to poll again, if nothing comes before.
    pub fn wake(&self) -> Option<Instant> {
        let relays = self.relays.values().filter(|_| self.relayed).filter_map(|relay| match relay.standing {
            Standing::Asked(since) => Some(since + RESERVE_TIMEOUT),
            Standing::Avoided(until) => Some(until),
            Standing::Known | Standing::Held => None,
        });
        relays.min()
    }

    /// The next relay to be asked: the closest to us in the overlay, so that members spread over the relays.
    fn next_relay(&mut self, now: Instant) -> Option<PeerInfo> {
        let mut places = 0;
        for relay in self.relays.values_mut() {
            match relay.standing {
                Standing::Asked(since) if now >= since + RESERVE_TIMEOUT => {
                    relay.standing = Standing::Avoided(now + AVOID);
                }
                Standing::Avoided(until) if now >= until => relay.standing = Standing::Known,
                Standing::Asked(_) | Standing::Held => places += 1,
                Standing::Known | Standing::Avoided(_) => {}
            }
        }
        if places >= WANTED_RELAYS {
            return None;
        }
        let free = self.relays.values_mut().filter(|relay| relay.standing == Standing::Known);
        let closest = free.min_by_key(|relay| self.position.distance(&relay.info.peer.position()))?;
        closest.standing = Standing::Asked(now);
        Some(closest.info.clone())
    }

    /// The NAT that we are behind, in one family at least.
    fn nat(&self) -> Option<IpAddr> {
        self.v4.nat().or_else(|| self.v6.nat())
    }

    fn is_visited(&self) -> bool {
        self.v4.is_visited() || self.v6.is_visited()
    }

    /// Whether a NAT is between us and everybody else.
    fn is_shut_in(&self) -> bool {
        self.nat().is_some() && self.v4.open().is_none() && self.v6.open().is_none()
    }

    /// Whether everybody gets here without a relay, for all we know: then the member takes part in routing and storing.
    pub fn is_for_all(&self) -> bool {
        !self.is_shut_in() || (self.is_visited() && self.mapped().next().is_some())
    }

    /// The addresses that lead through the NAT that we are behind. Whatever else somebody says to have dialled would be
    /// his to choose.
    fn mapped(&self) -> impl Iterator<Item = &String> + '_ {
        let nats = [self.v4.nat(), self.v6.nat()];
        self.confirmed.iter().filter(move |confirmed| ip(confirmed).is_some_and(|ip| nats.contains(&Some(ip))))
    }

    /// The addresses that lead here without a relay, the best first.
    fn direct(&self) -> Vec<String> {
        let hidden = self.is_shut_in() && self.mapped().next().is_none();
        if hidden { Vec::new() } else { best(self.mapped().chain(&self.own).cloned()) }
    }

    /// The addresses under which others reach us, best first.
    pub fn addresses(&self) -> Vec<String> {
        let circuits = self
            .places()
            .flat_map(|info| info.addresses.iter().map(|address| format!("{address}/p2p/{}/p2p-circuit", info.peer)));
        best(self.direct().into_iter().chain(circuits))
    }

    fn places(&self) -> impl Iterator<Item = &PeerInfo> + '_ {
        let held = |relay: &&Relay| relay.standing == Standing::Held;
        self.relays.values().filter(held).map(|relay| &relay.info)
    }

    /// How it stands, and why, for people.
    pub fn view(&self) -> ReachView {
        let relays: Vec<PeerId> = self.places().map(|info| info.peer).collect();
        let open = self.v4.open().or_else(|| self.v6.open());
        let (reach, why) = match (self.nat(), self.mapped().next(), open) {
            (nat, _, Some(open)) => {
                let but = nat.map(|nat| format!(", and others through a NAT at {nat}")).unwrap_or_default();
                (Reach::Direct, format!("peers see it under its own address {open}{but}"))
            }
            (Some(nat), Some(address), None) => {
                let stranger = if self.is_visited() { ", and so did a stranger" } else { "" };
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

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "/ip4/10.1.0.2/tcp/4001";
    const NAT: &str = "/ip4/198.51.100.101/tcp/4001";
    const MAPPED: &str = "/ip4/198.51.100.101/udp/4001/quic-v1";

    fn info(seed: u8) -> PeerInfo {
        let address = format!("/ip4/198.51.100.{seed}/tcp/4001");
        PeerInfo { peer: PeerId::from_public_key([seed; 32]), addresses: vec![address] }
    }

    fn circuit(seed: u8) -> String {
        format!("{}/p2p/{}/p2p-circuit", info(seed).addresses[0], info(seed).peer)
    }

    fn advertise(addresses: &[&str], relay: bool) -> Action {
        Action::Advertise { addresses: addresses.iter().map(|&address| address.to_owned()).collect(), relay }
    }

    fn actions(reachability: &mut Reachability, now: Instant) -> Vec<Action> {
        std::iter::from_fn(|| reachability.poll(now)).take(20).collect()
    }

    fn begin(own: &[&str]) -> (Reachability, Instant) {
        let addresses = own.iter().map(|&address| address.to_owned()).collect();
        let mut reachability = Reachability::new(PeerId::from_public_key([200; 32]), addresses);
        let now = Instant::now();
        assert_eq!(actions(&mut reachability, now), [advertise(own, true)]);
        (reachability, now)
    }

    /// A member that peers see under the address of a NAT.
    fn behind_nat() -> (Reachability, Instant) {
        let (mut reachability, now) = begin(&[OWN]);
        reachability.on_observed("/ip4/198.51.100.101/tcp/61001");
        (reachability, now)
    }

    #[test]
    fn who_is_seen_under_the_own_address_needs_nobody() {
        let (mut reachability, now) = begin(&[OWN]);
        assert_eq!(reachability.view().reach, Reach::Unknown);
        reachability.on_observed("/ip4/10.1.0.2/tcp/50000");
        reachability.on_relay(info(1));
        assert_eq!(actions(&mut reachability, now), []);
        assert_eq!((reachability.view().reach, reachability.wake()), (Reach::Direct, None));
    }

    #[test]
    fn what_no_address_can_be_read_from_tells_nothing() {
        let (mut reachability, now) = begin(&[OWN]);
        for observed in ["", "/p2p-circuit", "/dns4/nat.example/tcp/1", "/ip4/300.1.1.1/tcp/1"] {
            reachability.on_observed(observed);
        }
        assert_eq!((actions(&mut reachability, now), reachability.view().reach), (vec![], Reach::Unknown));
    }

    #[test]
    fn who_is_behind_a_nat_withdraws_at_once_and_takes_two_relays() {
        let (mut reachability, now) = behind_nat();
        (1..=3).for_each(|seed| reachability.on_relay(info(seed)));
        let all = actions(&mut reachability, now);
        assert_eq!(all[0], advertise(&[], false));
        assert!(matches!(&all[1..], [Action::Reserve(_), Action::Reserve(_)]), "{all:?}");
        assert_eq!(reachability.view().reach, Reach::Not);
        let asked: Vec<PeerInfo> = all
            .into_iter()
            .filter_map(|action| if let Action::Reserve(info) = action { Some(info) } else { None })
            .collect();
        reachability.on_reserved(&asked[0].peer);
        let told = vec![circuit((1..=3).find(|seed| info(*seed) == asked[0]).unwrap())];
        assert_eq!((reachability.addresses(), actions(&mut reachability, now)), (told, vec![]));
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
    fn an_address_that_a_peer_got_through_to_is_told_to_callers_beside_the_circuits() {
        let (mut reachability, now) = behind_nat();
        reachability.on_relay(info(1));
        assert_eq!(actions(&mut reachability, now), [advertise(&[], false), Action::Reserve(info(1))]);
        reachability.on_reserved(&info(1).peer);
        reachability.on_confirmed(MAPPED.to_owned());
        // Whether everybody gets through is not known.
        assert_eq!(actions(&mut reachability, now), []);
        assert_eq!(reachability.addresses(), [MAPPED, &circuit(1), OWN]);
        assert_eq!(reachability.view().reach, Reach::Mapped);
        // A neighbour does not come through the NAT; a stranger does.
        reachability.on_stranger([10, 1, 0, 3].into());
        assert_eq!(actions(&mut reachability, now), []);
        reachability.on_stranger([203, 0, 113, 9].into());
        assert_eq!(actions(&mut reachability, now), [advertise(&[MAPPED, OWN], false)]);
        // One transport being shut does not matter then.
        reachability.on_refuted(NAT, "timeout");
        assert_eq!(actions(&mut reachability, now), []);
        assert_eq!(reachability.view().reach, Reach::Mapped);
        reachability.on_refuted(MAPPED, "timeout");
        assert_eq!(actions(&mut reachability, now), [advertise(&[], false)]);
        assert_eq!(reachability.view().reach, Reach::Relayed);
        assert!(reachability.view().why.contains("timeout"), "{:?}", reachability.view());
    }

    #[test]
    fn who_is_reached_through_a_forwarded_port_hears_of_the_nat_from_a_stranger() {
        let (mut reachability, now) = begin(&[OWN]);
        reachability.on_stranger([203, 0, 113, 9].into());
        reachability.on_observed(MAPPED);
        reachability.on_confirmed(MAPPED.to_owned());
        assert_eq!(actions(&mut reachability, now), [advertise(&[MAPPED, OWN], false)]);
        assert_eq!((reachability.view().reach, reachability.is_for_all()), (Reach::Mapped, true));
    }

    #[test]
    fn what_a_stranger_makes_up_is_not_told_by_who_is_open() {
        let (mut reachability, now) = begin(&["/ip4/203.0.113.7/tcp/4001"]);
        reachability.on_observed("/ip4/203.0.113.7/tcp/4001");
        reachability.on_stranger([192, 0, 2, 66].into());
        reachability.on_observed("/ip4/192.0.2.1/tcp/80");
        reachability.on_confirmed("/ip4/192.0.2.1/tcp/80".to_owned());
        assert_eq!(actions(&mut reachability, now), []);
        assert_eq!(reachability.addresses(), ["/ip4/203.0.113.7/tcp/4001"]);
    }

    #[test]
    fn a_refuted_address_does_not_make_a_member_withdraw_that_has_one_of_its_own() {
        let (mut reachability, now) = begin(&["/ip4/203.0.113.7/tcp/4001", OWN]);
        // Some see its public interface, others it through the NAT behind its private one.
        for first_seen in [NAT, "/ip4/203.0.113.7/tcp/4001", NAT] {
            reachability.on_observed(first_seen);
        }
        reachability.on_refuted(NAT, "timeout");
        reachability.on_relay(info(1));
        assert_eq!(actions(&mut reachability, now), []);
        let view = reachability.view();
        assert_eq!(view.reach, Reach::Direct);
        assert!(view.why.contains("203.0.113.7"), "{view:?}");

        // When that interface is gone, there is the NAT alone.
        reachability.on_not_listening("/ip4/203.0.113.7/tcp/4001");
        assert_eq!(actions(&mut reachability, now), [advertise(&[], false), Action::Reserve(info(1))]);
    }

    #[test]
    fn a_neighbour_behind_the_same_nat_proves_nothing() {
        let (mut reachability, now) = behind_nat();
        reachability.on_observed(OWN);
        assert_eq!(actions(&mut reachability, now), [advertise(&[], false)]);
        assert_eq!(reachability.view().reach, Reach::Not);
    }

    #[test]
    fn who_is_open_over_ipv6_alone_stays_and_is_relayed_to_the_others() {
        let (mut reachability, now) = begin(&["/ip6/2001:db8::2/tcp/4001", OWN]);
        reachability.on_observed("/ip6/2001:db8::2/tcp/4001");
        reachability.on_observed(NAT);
        reachability.on_relay(info(1));
        let both = ["/ip6/2001:db8::2/tcp/4001", OWN];
        assert_eq!(actions(&mut reachability, now), [advertise(&both, false), Action::Reserve(info(1))]);
        reachability.on_reserved(&info(1).peer);
        assert_eq!(reachability.addresses(), [both[0], &circuit(1), OWN]);
        assert_eq!(reachability.view().reach, Reach::Direct);
    }

    #[test]
    fn who_comes_out_from_behind_a_nat_gives_the_relays_up() {
        let (mut reachability, now) = behind_nat();
        reachability.on_relay(info(1));
        actions(&mut reachability, now);
        reachability.on_reserved(&info(1).peer);
        let public = "/ip4/203.0.113.7/tcp/4001";
        reachability.on_listening(public.to_owned());
        reachability.on_observed(public);
        assert_eq!(actions(&mut reachability, now), [Action::Release, advertise(&[public, OWN], true)]);
        assert_eq!(reachability.addresses(), [public, OWN]);
    }

    #[test]
    fn what_led_through_another_nat_is_told_no_longer() {
        let (mut reachability, now) = behind_nat();
        reachability.on_confirmed(MAPPED.to_owned());
        reachability.on_stranger([203, 0, 113, 10].into());
        assert_eq!(actions(&mut reachability, now), [advertise(&[MAPPED, OWN], false)]);
        reachability.on_observed("/ip4/203.0.113.9/tcp/4001");
        assert_eq!(actions(&mut reachability, now), [advertise(&[], false)]);
    }

    #[test]
    fn what_is_remembered_has_a_limit() {
        let (mut reachability, now) = behind_nat();
        (0..=255).for_each(|seed| reachability.on_relay(info(seed)));
        assert_eq!(reachability.relays.len(), MAX_RELAYS);
        (0..20).for_each(|port| reachability.on_confirmed(format!("/ip4/198.51.100.101/tcp/{port}")));
        assert_eq!(reachability.confirmed.len(), MAX_CONFIRMED);
        assert!(actions(&mut reachability, now).len() < 5);
    }
}
