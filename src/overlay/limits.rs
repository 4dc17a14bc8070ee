//! What one peer may ask of a member: token buckets for requests, costly requests, stores and octets. Pure.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::name::PeerId;

/// Peers whose buckets are remembered; above it, the ones idle for longest go.
const MAX_PEERS: usize = 4096;

/// A rate and what may be used up at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Tokens that come back in a second.
    pub per_second: f64,
    /// Tokens in a full bucket.
    pub burst: f64,
}

/// The limits on one peer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Requests of any sort.
    pub requests: Rate,
    /// Requests that make the member walk through the overlay: `lookup`, `put` and `services`.
    pub walks: Rate,
    /// Records to be stored: each costs a check of signatures.
    pub stores: Rate,
    /// Octets of request bodies.
    pub octets: Rate,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            requests: Rate { per_second: 500.0, burst: 2000.0 },
            walks: Rate { per_second: 50.0, burst: 200.0 },
            stores: Rate { per_second: 200.0, burst: 2000.0 },
            octets: Rate { per_second: 1e6, burst: 8e6 },
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    used: f64,
}

impl Bucket {
    const EMPTY: Self = Self { used: 0.0 };

    fn refill(&mut self, rate: Rate, elapsed: Duration) {
        self.used = rate.per_second.mul_add(-elapsed.as_secs_f64(), self.used).max(0.0);
    }

    fn has_room(&self, rate: Rate, cost: f64) -> bool {
        self.used + cost <= rate.burst
    }
}

#[derive(Debug, Clone, Copy)]
struct Account {
    seen: Instant,
    requests: Bucket,
    walks: Bucket,
    stores: Bucket,
    octets: Bucket,
}

/// The accounts of all peers.
#[derive(Debug)]
pub struct Limits {
    rates: Rates,
    accounts: HashMap<PeerId, Account>,
}

impl Limits {
    /// No peer has used anything yet.
    pub fn new(rates: Rates) -> Self {
        Self { rates, accounts: HashMap::new() }
    }

    /// Whether `peer` may have this request served now; if so, it is charged for it.
    pub fn admit(&mut self, peer: PeerId, service: &str, octets: usize, now: Instant) -> bool {
        if self.accounts.len() >= MAX_PEERS && !self.accounts.contains_key(&peer) {
            self.evict(now);
        }
        let empty = Bucket::EMPTY;
        let account = self.accounts.entry(peer).or_insert(Account {
            seen: now,
            requests: empty,
            walks: empty,
            stores: empty,
            octets: empty,
        });
        let elapsed = now.saturating_duration_since(account.seen);
        account.seen = now;
        let walk = f64::from(u8::from(matches!(service, "lookup" | "put" | "services")));
        let store = f64::from(u8::from(matches!(service, "store" | "put" | "keep")));
        let octets = f64::from(u32::try_from(octets).unwrap_or(u32::MAX));
        let charges = [
            (&mut account.requests, self.rates.requests, 1.0),
            (&mut account.walks, self.rates.walks, walk),
            (&mut account.stores, self.rates.stores, store),
            (&mut account.octets, self.rates.octets, octets),
        ];
        let mut admitted = true;
        let mut charged = charges;
        for (bucket, rate, cost) in &mut charged {
            bucket.refill(*rate, elapsed);
            admitted &= bucket.has_room(*rate, *cost);
        }
        if admitted {
            for (bucket, _, cost) in charged {
                bucket.used += cost;
            }
        }
        admitted
    }

    /// Forgets the older half of the accounts. Whoever is forgotten starts with full buckets, so a flood of fresh
    /// peer ids gains nothing that fresh peer ids do not have anyway.
    fn evict(&mut self, now: Instant) {
        let mut ages: Vec<Duration> =
            self.accounts.values().map(|account| now.saturating_duration_since(account.seen)).collect();
        let middle = ages.len() / 2;
        let (_, median, _) = ages.select_nth_unstable(middle);
        let median = *median;
        self.accounts.retain(|_, account| now.saturating_duration_since(account.seen) < median);
        if self.accounts.len() >= MAX_PEERS {
            self.accounts.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u16) -> PeerId {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&n.to_be_bytes());
        PeerId::from_public_key(key)
    }

    fn rates() -> Rates {
        let rate = |burst| Rate { per_second: 10.0, burst };
        Rates {
            requests: rate(20.0),
            walks: rate(5.0),
            stores: rate(3.0),
            octets: Rate { per_second: 1e3, burst: 1e4 },
        }
    }

    fn admitted(limits: &mut Limits, service: &str, octets: usize, now: Instant, tries: usize) -> usize {
        (0..tries).filter(|_| limits.admit(peer(1), service, octets, now)).count()
    }

    #[test]
    fn each_sort_of_request_has_its_own_burst() {
        let now = Instant::now();
        assert_eq!(admitted(&mut Limits::new(rates()), "closest", 10, now, 100), 20);
        assert_eq!(admitted(&mut Limits::new(rates()), "lookup", 10, now, 100), 5);
        assert_eq!(admitted(&mut Limits::new(rates()), "store", 10, now, 100), 3);
        assert_eq!(admitted(&mut Limits::new(rates()), "fetch", 4000, now, 100), 2);
    }

    #[test]
    fn what_is_used_comes_back_with_time_and_peers_do_not_share() {
        let (mut limits, now) = (Limits::new(rates()), Instant::now());
        assert_eq!(admitted(&mut limits, "store", 0, now, 10), 3);
        assert!(limits.admit(peer(2), "store", 0, now));
        assert_eq!(admitted(&mut limits, "store", 0, now + Duration::from_millis(100), 10), 1);
        assert_eq!(admitted(&mut limits, "store", 0, now + Duration::from_secs(60), 10), 3);
    }

    #[test]
    fn a_flood_of_peer_ids_does_not_grow_the_accounts() {
        let (mut limits, now) = (Limits::new(rates()), Instant::now());
        for n in 0..20_000u16 {
            limits.admit(peer(n), "fetch", 0, now + Duration::from_millis(u64::from(n)));
            assert!(limits.accounts.len() <= MAX_PEERS);
        }
    }
}
