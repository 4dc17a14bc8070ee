//! Token buckets, one a key, in bounded memory; and the address prefixes that are keys. Pure.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Instant,
};

/// Buckets that are remembered, twice; above it, those that were not used lately go.
const MAX_BUCKETS: usize = 8_192;

/// What one site has: an IPv4 /24, an IPv6 /56 (RFC 6177).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(IpAddr);

impl Prefix {
    /// The prefix that an address lies in.
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Ipv4Addr::new(a, b, c, 0).into()
            }
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !((1 << 72) - 1)).into(),
        })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, if self.0.is_ipv4() { 24 } else { 56 })
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    seen: Instant,
}

/// Buckets of one size, which fill up again within a minute.
#[derive(Debug)]
pub(super) struct Buckets<K> {
    per_minute: f64,
    young: HashMap<K, Bucket>,
    old: HashMap<K, Bucket>,
}

impl<K: Eq + Hash + Copy> Buckets<K> {
    /// Every bucket is full, with what comes back in a minute.
    pub(super) fn new(per_minute: u32) -> Self {
        Self { per_minute: f64::from(per_minute), young: HashMap::new(), old: HashMap::new() }
    }

    /// Whether a key has so many tokens now.
    pub(super) fn has(&mut self, key: K, cost: usize, now: Instant) -> bool {
        self.bucket(key, now).tokens >= tokens(cost)
    }

    /// Takes tokens away.
    pub(super) fn charge(&mut self, key: K, cost: usize, now: Instant) {
        self.bucket(key, now).tokens -= tokens(cost);
    }

    fn bucket(&mut self, key: K, now: Instant) -> &mut Bucket {
        if self.young.len() >= MAX_BUCKETS && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        let (old, per_minute) = (&mut self.old, self.per_minute);
        let full = Bucket { tokens: per_minute, seen: now };
        let bucket = self.young.entry(key).or_insert_with(|| old.remove(&key).unwrap_or(full));
        let elapsed = now.saturating_duration_since(bucket.seen).as_secs_f64();
        bucket.tokens = (per_minute / 60.0).mul_add(elapsed, bucket.tokens).min(per_minute);
        bucket.seen = now;
        bucket
    }
}

fn tokens(cost: usize) -> f64 {
    f64::from(u32::try_from(cost).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_site_is_one_prefix() {
        for (address, prefix) in [
            ("192.0.2.77", "192.0.2.0/24"),
            ("::ffff:192.0.2.77", "192.0.2.0/24"),
            ("2001:db8:1:2ff:3::4", "2001:db8:1:200::/56"),
        ] {
            assert_eq!(Prefix::of(address.parse().unwrap()).to_string(), prefix);
        }
    }

    #[test]
    fn what_is_used_comes_back_within_a_minute() {
        let (mut buckets, now) = (Buckets::new(6), Instant::now());
        assert!(buckets.has(1, 6, now) && !buckets.has(1, 7, now));
        buckets.charge(1, 6, now);
        assert!(!buckets.has(1, 1, now) && buckets.has(2, 6, now));
        assert!(buckets.has(1, 1, now + Duration::from_secs(11)));
        assert!(buckets.has(1, 6, now + Duration::from_secs(61)));
    }

    #[test]
    fn a_flood_of_keys_fills_no_memory() {
        let (mut buckets, now) = (Buckets::new(6), Instant::now());
        for key in 0..50_000_u32 {
            buckets.charge(key, 1, now);
        }
        assert!(buckets.young.len() + buckets.old.len() <= 2 * MAX_BUCKETS);
    }
}
