//! In which order records are used: the DNS sends them in any.

use std::net::IpAddr;

use super::MAX_ADDRESSES;
use crate::dns::{Naptr, Srv};

/// Random numbers that follow from a seed: SplitMix64 (Steele, Lea and Flood, 2014). They spread load, no more.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The numbers of a seed.
    pub const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A source of its own for one location.
    pub(super) const fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// A number from 0 to `limit`, both included. The bias is below one in 2³² for the sums of weights.
    fn up_to(&mut self, limit: u64) -> u64 {
        self.next().checked_rem(limit.saturating_add(1)).unwrap_or(0)
    }
}

/// Sorts rules by order, then preference (RFC 3403 §4.1).
pub(super) fn sort_rules(rules: &mut [Naptr]) {
    rules.sort_by_key(|rule| (rule.order, rule.preference));
}

/// Sorts servers by priority, and those of one priority by the lot that their weights are for (RFC 2782, "Weight").
pub(super) fn sort_servers(mut servers: Vec<Srv>, random: &mut Random) -> Vec<Srv> {
    // Those without weight come first within their priority, so that the lot falls on them only if it is 0.
    servers.sort_by_key(|srv| (srv.priority, srv.weight != 0));
    let mut sorted = Vec::with_capacity(servers.len());
    while let Some(priority) = servers.first().map(|srv| srv.priority) {
        let others = servers.iter().position(|srv| srv.priority != priority).unwrap_or(servers.len());
        let mut equal: Vec<Srv> = servers.drain(..others).collect();
        while !equal.is_empty() {
            let sum: u64 = equal.iter().map(|srv| u64::from(srv.weight)).sum();
            // Among servers without weight the rule would always take the first; the lot is fairer.
            let chosen = if sum == 0 {
                usize::try_from(random.up_to(equal.len() as u64 - 1)).unwrap_or(0)
            } else {
                let lot = random.up_to(sum);
                let mut running = 0;
                let reaches = |srv: &Srv| {
                    running += u64::from(srv.weight);
                    running >= lot
                };
                equal.iter().position(reaches).unwrap_or(0)
            };
            sorted.push(equal.remove(chosen));
        }
    }
    sorted
}

/// Sorts the addresses of one host by the rules of RFC 6724 §6 that need no look at our own addresses, and takes the
/// families in turn (RFC 7984 §3, RFC 8305 §4), so that one that does not work costs one attempt.
pub(super) fn sort_addresses(addresses: Vec<IpAddr>, unreachable: fn(IpAddr) -> bool) -> Vec<IpAddr> {
    let (mut reachable, mut last): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| !unreachable(*address));
    for part in [&mut reachable, &mut last] {
        part.sort_by_key(|address| std::cmp::Reverse(precedence(*address)));
        *part = in_turn(std::mem::take(part));
    }
    reachable.append(&mut last);
    reachable
}

fn in_turn(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let first_is_v4 = addresses.first().is_some_and(IpAddr::is_ipv4);
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv4() == first_is_v4);
    let (mut first, mut second) = (first.into_iter().take(MAX_ADDRESSES), second.into_iter().take(MAX_ADDRESSES));
    let mut turns = Vec::new();
    loop {
        match (first.next(), second.next()) {
            (None, None) => return turns,
            (a, b) => turns.extend(a.into_iter().chain(b)),
        }
    }
}

/// The default policy table (RFC 6724 §2.1).
fn precedence(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 35,
        IpAddr::V6(v6) => match v6.segments() {
            [0, 0, 0, 0, 0, 0, 0, 1] => 50,
            [0x2002, ..] => 30,
            [0x2001, 0, ..] => 5,
            [a, ..] if a & 0xfe00 == 0xfc00 => 3,
            [a, ..] if a & 0xffc0 == 0xfec0 => 1,
            [0x3ffe, ..] => 1,
            [0, 0, 0, 0, 0, 0, ..] => 1,
            _ => 40,
        },
    }
}
