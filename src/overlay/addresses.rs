//! Which of its addresses a member tells of, where there is room for few: a host with many interfaces has dozens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::record::MAX_ADDRESSES;

/// From how far an address can be reached; the farther the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    Public,
    Private,
    LinkLocal,
    Loopback,
    /// Not an IP address: nothing that this overlay dials.
    Unknown,
}

/// The best of a member's addresses, at most [`MAX_ADDRESSES`]: public ones before private ones before link-local ones
/// before loopback, and otherwise in the order given.
///
/// Where not all have room, IPv4 and IPv6, TCP and QUIC get equal shares of it, so that nobody who has only one of them
/// is left without an address.
pub fn best(addresses: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut ranked: Vec<(Scope, Sort, String)> = Vec::new();
    for address in addresses {
        if !ranked.iter().any(|(.., known)| *known == address) {
            let ip = ip(&address);
            ranked.push((ip.map_or(Scope::Unknown, scope), Sort::of(ip, &address), address));
        }
    }
    ranked.sort_by_key(|(scope, ..)| *scope);
    if ranked.len() > MAX_ADDRESSES {
        // Whose turn it is: the first of every sort, then the second of every sort, and so on.
        let turn = |at: usize, sort: Sort| ranked.iter().take(at).filter(|(_, other, _)| *other == sort).count();
        let mut turns: Vec<(usize, usize)> =
            ranked.iter().enumerate().map(|(at, (_, sort, _))| (turn(at, *sort), at)).collect();
        turns.sort_unstable();
        let mut chosen: Vec<usize> = turns.into_iter().take(MAX_ADDRESSES).map(|(_, at)| at).collect();
        chosen.sort_unstable();
        let mut at = 0..;
        ranked.retain(|_| at.next().is_some_and(|at| chosen.binary_search(&at).is_ok()));
    }
    ranked.into_iter().map(|(.., address)| address).collect()
}

/// What a dialler must have to use an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sort {
    ipv6: bool,
    quic: bool,
}

impl Sort {
    fn of(ip: Option<IpAddr>, address: &str) -> Self {
        Self { ipv6: ip.is_some_and(|ip| ip.is_ipv6()), quic: address.contains("/udp/") }
    }
}

/// The IP address that a multiaddr begins with, if it begins with one.
pub(super) fn ip(address: &str) -> Option<IpAddr> {
    let mut parts = address.split('/').skip(1);
    match (parts.next()?, parts.next()?) {
        ("ip4", ip) => ip.parse().ok().map(IpAddr::V4),
        ("ip6", ip) => ip.parse().ok().map(IpAddr::V6),
        _ => None,
    }
}

/// From how far an address can be reached.
pub(super) fn scope(ip: IpAddr) -> Scope {
    match ip {
        ip if ip.is_loopback() || ip.is_unspecified() => Scope::Loopback,
        IpAddr::V4(ip) => scope_v4(ip),
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or_else(|| scope_v6(ip), scope_v4),
    }
}

const fn scope_v4(ip: Ipv4Addr) -> Scope {
    let [a, b, ..] = ip.octets();
    match () {
        () if ip.is_link_local() => Scope::LinkLocal,
        // RFC 1918, and what providers put between their customers and their own NATs (RFC 6598).
        () if ip.is_private() || (a == 100 && b & 0xc0 == 64) => Scope::Private,
        () => Scope::Public,
    }
}

const fn scope_v6(ip: Ipv6Addr) -> Scope {
    match () {
        () if ip.is_unicast_link_local() => Scope::LinkLocal,
        () if ip.is_unique_local() => Scope::Private,
        () => Scope::Public,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn both(ip: &str) -> [String; 2] {
        let family = if ip.contains(':') { "ip6" } else { "ip4" };
        [format!("/{family}/{ip}/tcp/4001"), format!("/{family}/{ip}/udp/4001/quic-v1")]
    }

    fn of(ips: &[&str]) -> Vec<String> {
        best(ips.iter().flat_map(|ip| both(ip)))
    }

    #[test]
    fn the_farther_an_address_reaches_the_earlier_it_is_told() {
        let ips = ["::1", "127.0.0.1", "fe80::1", "169.254.1.1", "fd00::2", "100.64.0.1", "10.0.0.1", "203.0.113.7"];
        let tcp = |ip: &str| both(ip)[0].clone();
        let told = best(ips.iter().map(|ip| tcp(ip)));
        let order = ["203.0.113.7", "fd00::2", "100.64.0.1", "10.0.0.1", "fe80::1", "169.254.1.1", "::1", "127.0.0.1"];
        assert_eq!(told, order.map(tcp));
    }

    #[test]
    fn few_addresses_are_all_told_once_and_in_their_order() {
        let told = of(&["192.0.2.2", "2001:db8::2", "192.0.2.2", "192.0.2.3"]);
        assert_eq!(told, ["192.0.2.2", "2001:db8::2", "192.0.2.3"].map(both).concat());
        assert_eq!(best([]), Vec::<String>::new());
    }

    #[test]
    fn a_host_with_many_interfaces_keeps_both_families_and_both_transports() {
        let docker: Vec<String> = (17..32).map(|n| format!("172.{n}.0.1")).collect();
        let mut ips: Vec<&str> = docker.iter().map(String::as_str).collect();
        ips.extend(["127.0.0.1", "::1", "203.0.113.7", "fe80::1", "fd00::2"]);
        let told = of(&ips);
        assert_eq!(told, ["203.0.113.7", "172.17.0.1", "fd00::2", "fe80::1"].map(both).concat());
    }

    #[test]
    fn what_one_sort_leaves_free_goes_to_the_others() {
        let many: Vec<String> = (1..20).map(|n| format!("/ip4/10.0.0.{n}/tcp/4001")).collect();
        assert_eq!(best(many.clone()), many[..MAX_ADDRESSES]);
        let told = best(many.clone().into_iter().chain(["/ip6/2001:db8::1/tcp/4001".to_owned()]));
        assert_eq!((told.len(), &*told[0], &told[1..]), (MAX_ADDRESSES, "/ip6/2001:db8::1/tcp/4001", &many[..7]));
    }

    proptest! {
        #[test]
        fn the_choice_is_bounded_stable_and_made_of_what_was_given(texts in prop::collection::vec(
            prop_oneof!["/ip4/(10|127|8)\\.0\\.0\\.[1-9]/(tcp|udp)/1", "/ip6/(::1|fe80::[1-3]|2001:db8::[1-3])/tcp/1", ".{0,9}"],
            0..40,
        )) {
            let told = best(texts.clone());
            prop_assert!(told.len() <= MAX_ADDRESSES);
            prop_assert!(told.iter().all(|address| texts.contains(address)));
            prop_assert_eq!(best(told.clone()), told);
        }
    }
}
