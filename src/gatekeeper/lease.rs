//! Whose lease ends when, and who is where: what a gatekeeper has last read in the zone or written there. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use super::Prefix;
use crate::{
    clock::UnixMs,
    dns::publish::{Host, Snapshot},
    name::PeerId,
};

/// A host with a lease or a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leased {
    /// The proxy peer, if the lease names it.
    pub peer: Option<PeerId>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// When the lease, or the tombstone, is over.
    pub until: UnixMs,
    /// Whether it is a lease, rather than a tombstone.
    pub live: bool,
}

impl Leased {
    /// What a host of the zone has; `None` for one that was entered by hand.
    pub fn of(host: &Host) -> Option<Self> {
        let lease = host.lease.as_ref()?;
        Some(Self {
            peer: lease.peer,
            addresses: host.addresses.clone(),
            until: UnixMs(lease.until.saturating_mul(1000)),
            live: lease.live,
        })
    }
}

#[derive(Debug, Clone)]
struct Entry {
    leased: Leased,
    /// When this was learnt.
    at: UnixMs,
    /// Not to be reaped before, because that has just failed.
    not_before: UnixMs,
}

/// All leases of an overlay.
#[derive(Debug, Default)]
pub struct Ledger {
    hosts: BTreeMap<String, Entry>,
}

impl Ledger {
    /// Takes over what was read in the zone from `began` on. What was learnt of a host since then is newer.
    pub fn read(&mut self, zone: &Snapshot, began: UnixMs) {
        let mut read = BTreeMap::new();
        for name in zone.hosts() {
            if let Some(leased) = Leased::of(&zone.host(&name)) {
                read.insert(name, leased);
            }
        }
        self.replace(read, began);
    }

    fn replace(&mut self, read: BTreeMap<String, Leased>, began: UnixMs) {
        self.hosts.retain(|name, entry| entry.at >= began || read.contains_key(name));
        for (name, leased) in read {
            match self.hosts.get_mut(&name) {
                Some(entry) if entry.at >= began => {}
                Some(entry) => (entry.leased, entry.at) = (leased, began),
                None => self.note(&name, Some(leased), began),
            }
        }
    }

    /// What a host has now; `None` for nothing.
    pub fn note(&mut self, host: &str, leased: Option<Leased>, now: UnixMs) {
        match leased {
            Some(leased) => {
                self.hosts.insert(host.to_owned(), Entry { leased, at: now, not_before: UnixMs(0) });
            }
            None => _ = self.hosts.remove(host),
        }
    }

    /// Leaves a host alone until then, because it could not be reaped.
    pub fn postpone(&mut self, host: &str, until: UnixMs) {
        if let Some(entry) = self.hosts.get_mut(host) {
            entry.not_before = until;
        }
    }

    /// The hosts whose lease or tombstone is over.
    pub fn due(&self, now: UnixMs) -> Vec<String> {
        self.hosts.iter().filter(|(_, entry)| entry.due() <= now).map(|(name, _)| name.clone()).collect()
    }

    /// When the next one will be.
    pub fn next_due(&self) -> Option<UnixMs> {
        self.hosts.values().map(Entry::due).min()
    }

    /// How many are in the DNS.
    pub fn live(&self) -> usize {
        self.hosts.values().filter(|entry| entry.leased.live).count()
    }

    /// Whether a host is in the DNS.
    pub fn holds(&self, host: &str) -> bool {
        self.hosts.get(host).is_some_and(|entry| entry.leased.live)
    }

    /// Whether a host is in the DNS with this address.
    pub fn holds_at(&self, host: &str, address: IpAddr) -> bool {
        self.hosts.get(host).is_some_and(|entry| entry.leased.live && entry.leased.addresses.contains(&address))
    }

    /// Whether a host is in the DNS with an address of this prefix.
    pub fn holds_in(&self, host: &str, prefix: Prefix) -> bool {
        self.hosts.get(host).is_some_and(|entry| entry.is_in(prefix))
    }

    /// How many hosts other than this one have an address of the prefix.
    pub fn others_in(&self, prefix: Prefix, host: &str) -> usize {
        self.hosts.iter().filter(|(name, entry)| *name != host && entry.is_in(prefix)).count()
    }
}

impl Entry {
    fn due(&self) -> UnixMs {
        self.leased.until.max(self.not_before)
    }

    fn is_in(&self, prefix: Prefix) -> bool {
        self.leased.live && self.leased.addresses.iter().any(|address| Prefix::of(*address) == prefix)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leased(address: &str, until: u64, live: bool) -> Leased {
        Leased { peer: None, addresses: vec![address.parse().unwrap()], until: UnixMs(until), live }
    }

    #[test]
    fn what_ends_is_due_and_what_was_renewed_is_not() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.next_due(), None);
        ledger.note("a", Some(leased("192.0.2.1", 10, true)), UnixMs(1));
        ledger.note("b", Some(leased("192.0.2.2", 20, false)), UnixMs(1));
        assert_eq!((ledger.next_due(), ledger.due(UnixMs(9))), (Some(UnixMs(10)), vec![]));
        assert_eq!(ledger.due(UnixMs(10)), ["a"]);
        assert_eq!(ledger.due(UnixMs(20)), ["a", "b"]);
        assert_eq!(ledger.live(), 1, "a tombstone is nobody");
        ledger.note("a", Some(leased("192.0.2.1", 40, true)), UnixMs(11));
        assert_eq!(ledger.due(UnixMs(20)), ["b"]);
        ledger.postpone("b", UnixMs(25));
        assert_eq!((ledger.due(UnixMs(24)), ledger.due(UnixMs(25))), (vec![], vec!["b".to_owned()]));
        ledger.note("b", None, UnixMs(25));
        assert_eq!(ledger.next_due(), Some(UnixMs(40)));
    }

    #[test]
    fn sites_are_counted_without_the_one_who_asks() {
        let mut ledger = Ledger::default();
        for (host, address) in [("a", "192.0.2.1"), ("b", "192.0.2.200"), ("c", "192.0.3.1")] {
            ledger.note(host, Some(leased(address, 10, true)), UnixMs(0));
        }
        let site = Prefix::of("192.0.2.9".parse().unwrap());
        assert_eq!((ledger.others_in(site, "a"), ledger.others_in(site, "c")), (1, 2));
        assert!(ledger.holds_in("a", site) && !ledger.holds_in("c", site));
        assert!(ledger.holds_at("a", "192.0.2.1".parse().unwrap()));
        assert!(!ledger.holds_at("a", "192.0.2.2".parse().unwrap()));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Note(u8, u64),
        Forget(u8),
        Read(Vec<(u8, u64)>, u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..4_u8, 0..100_u64).prop_map(|(host, until)| Step::Note(host, until)),
            (0..4_u8).prop_map(Step::Forget),
            (prop::collection::vec((0..4_u8, 0..100_u64), 0..4), 0..3_u64)
                .prop_map(|(read, age)| Step::Read(read, age)),
        ]
    }

    proptest! {
        /// A reading that began before something was written never takes that back, and every lease ends.
        #[test]
        fn what_was_written_outlasts_an_older_reading(steps in prop::collection::vec(step(), 1..40)) {
            let mut ledger = Ledger::default();
            for (now, step) in steps.into_iter().enumerate() {
                let now = UnixMs(10 + now as u64);
                match step {
                    Step::Note(host, until) => {
                        ledger.note(&host.to_string(), Some(leased("192.0.2.1", until, true)), now);
                        ledger.replace(BTreeMap::new(), UnixMs(now.0));
                        prop_assert!(ledger.holds(&host.to_string()));
                    }
                    Step::Forget(host) => ledger.note(&host.to_string(), None, now),
                    Step::Read(read, age) => {
                        let read = read.into_iter().map(|(host, until)| (host.to_string(), leased("192.0.2.1", until, true)));
                        ledger.replace(read.collect(), UnixMs(now.0 - age));
                    }
                }
                prop_assert_eq!(ledger.due(UnixMs(100)).len(), ledger.live());
                prop_assert_eq!(ledger.next_due().is_none(), ledger.live() == 0);
            }
        }
    }
}
