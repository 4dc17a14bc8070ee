//! How a member takes what peers tell of how they reach it.

use super::{
    relays::{AVOID, MAX_RELAYS, RESERVE_TIMEOUT},
    *,
};

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
