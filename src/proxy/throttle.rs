//! How many requests one source may send: a token bucket for each address prefix or peer. Pure.
//!
//! A source above its rate is told so and never banned: it may be many users, or its address may be forged.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use crate::{name::PeerId, sip::transport::Remote};

/// Buckets that are remembered, twice; above it, those that were not used lately go.
const MAX_BUCKETS: usize = 16_384;

/// A rate and what may be used up at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Requests that come back in a second.
    pub per_second: f64,
    /// Requests that a source may send at once.
    pub burst: f64,
}

impl Default for Rate {
    /// Six thousand calls a second of one trunk: an INVITE, an ACK and a BYE each.
    fn default() -> Self {
        Self { per_second: 20_000.0, burst: 40_000.0 }
    }
}

/// Whose bucket it is: an IPv4 address, an IPv6 /56 (what one site gets, RFC 6177), or a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Prefix {
    V4([u8; 4]),
    V6([u8; 7]),
    Peer(PeerId),
}

impl Prefix {
    fn of(remote: &Remote) -> Self {
        match remote {
            Remote::Peer(peer) => Self::Peer(*peer),
            Remote::Socket(address) => match address.ip() {
                IpAddr::V4(ip) => Self::V4(ip.octets()),
                IpAddr::V6(ip) => {
                    let [a, b, c, d, e, f, g, ..] = ip.octets();
                    Self::V6([a, b, c, d, e, f, g])
                }
            },
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    seen: Instant,
}

/// The buckets of all sources; one for all engines of a process.
#[derive(Debug)]
pub struct Throttle {
    rate: Rate,
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    young: HashMap<Prefix, Bucket>,
    old: HashMap<Prefix, Bucket>,
}

impl Throttle {
    /// Every bucket is full.
    pub fn new(rate: Rate) -> Self {
        Self { rate, buckets: Mutex::default() }
    }

    /// Gives a source back what it was charged for one request.
    pub fn give_back(&self, remote: &Remote) {
        let prefix = Prefix::of(remote);
        let Buckets { young, old } = &mut *self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = young.get_mut(&prefix).or_else(|| old.get_mut(&prefix)) {
            bucket.tokens = (bucket.tokens + 1.0).min(self.rate.burst);
        }
    }

    /// Whether a request from there may be served now; if so, its source is charged for it.
    pub fn admit(&self, remote: &Remote, now: Instant) -> bool {
        let prefix = Prefix::of(remote);
        // Whole even if a holder has panicked: no call leaves it half changed.
        let Buckets { young, old } = &mut *self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if young.len() >= MAX_BUCKETS && !young.contains_key(&prefix) {
            *old = std::mem::take(young);
        }
        let full = Bucket { tokens: self.rate.burst, seen: now };
        let bucket = young.entry(prefix).or_insert_with(|| old.remove(&prefix).unwrap_or(full));
        let elapsed = now.saturating_duration_since(bucket.seen).as_secs_f64();
        bucket.tokens = self.rate.per_second.mul_add(elapsed, bucket.tokens).min(self.rate.burst);
        bucket.seen = now;
        let admitted = bucket.tokens >= 1.0;
        if admitted {
            bucket.tokens -= 1.0;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RATE: Rate = Rate { per_second: 2.0, burst: 3.0 };

    fn remote(address: &str) -> Remote {
        Remote::socket(address.parse().unwrap())
    }

    #[test]
    fn a_source_above_its_rate_waits_and_is_served_again() {
        let (throttle, start) = (Throttle::new(RATE), Instant::now());
        let source = remote("192.0.2.1:5060");
        let served = |throttle: &Throttle, at| (0..9).filter(|_| throttle.admit(&source, at)).count();
        assert_eq!(served(&throttle, start), 3);
        assert_eq!(served(&throttle, start + Duration::from_secs(1)), 2);
        assert_eq!(served(&throttle, start + Duration::from_secs(60)), 3);
        assert!(throttle.admit(&remote("192.0.2.2:5060"), start), "others are not concerned");
    }

    #[test]
    fn what_is_given_back_can_be_used_again_and_is_no_profit() {
        let (throttle, now) = (Throttle::new(RATE), Instant::now());
        let source = remote("192.0.2.1:5060");
        throttle.give_back(&source);
        for _ in 0..9 {
            assert!(throttle.admit(&source, now));
            throttle.give_back(&source);
        }
        throttle.give_back(&source);
        assert_eq!((0..9).filter(|_| throttle.admit(&source, now)).count(), 3);
    }

    #[test]
    fn ports_and_hosts_of_one_site_share_a_bucket() {
        for (one, other) in [("192.0.2.1:1", "192.0.2.1:2"), ("[2001:db8::1]:1", "[2001:db8:0:ff::2]:1")] {
            let (throttle, now) = (Throttle::new(RATE), Instant::now());
            while throttle.admit(&remote(one), now) {}
            assert!(!throttle.admit(&remote(other), now), "{other}");
        }
    }

    #[test]
    fn a_flood_of_sources_fills_no_memory_and_frees_nobody_who_is_active() {
        let (throttle, now) = (Throttle::new(RATE), Instant::now());
        let busy = remote("192.0.2.1:5060");
        while throttle.admit(&busy, now) {}
        for n in 0..100_000_u32 {
            throttle.admit(&Remote::socket((std::net::Ipv4Addr::from(n), 5060).into()), now);
            assert!(n % 1000 != 0 || !throttle.admit(&busy, now));
        }
        let buckets = throttle.buckets.lock().unwrap();
        assert!(buckets.young.len() + buckets.old.len() <= 2 * MAX_BUCKETS);
    }
}
