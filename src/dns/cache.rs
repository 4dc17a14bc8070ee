//! A bounded map whose entries expire: what name servers have said, for as long as they have said it holds.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    time::Instant,
};

/// Keeps at most as many entries as its capacity; the one that would expire first makes room.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    capacity: usize,
    entries: HashMap<K, Entry<V>>,
    /// The same entries by when they expire; the number tells those of one instant apart.
    expiries: BTreeMap<(Instant, u64), K>,
    inserted: u64,
}

#[derive(Debug)]
struct Entry<V> {
    expiry: (Instant, u64),
    value: V,
}

impl<K: Clone + Eq + Hash, V> Cache<K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, entries: HashMap::new(), expiries: BTreeMap::new(), inserted: 0 }
    }

    /// The value that has not expired.
    pub(super) fn get(&self, key: &K, now: Instant) -> Option<&V> {
        self.entries.get(key).filter(|entry| entry.expiry.0 > now).map(|entry| &entry.value)
    }

    /// Keeps a value until it expires, in place of the one that the key has had.
    pub(super) fn insert(&mut self, key: K, value: V, until: Instant, now: Instant) {
        self.remove(&key);
        if until <= now || self.capacity == 0 {
            return;
        }
        while let Some(first) = self.expiries.first_entry() {
            if self.entries.len() < self.capacity && first.key().0 > now {
                break;
            }
            self.entries.remove(&first.remove());
        }
        let expiry = (until, self.inserted);
        self.inserted = self.inserted.wrapping_add(1);
        self.expiries.insert(expiry, key.clone());
        self.entries.insert(key, Entry { expiry, value });
    }

    pub(super) fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.expiries.remove(&entry.expiry);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.entries.len(), self.expiries.len());
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn entries_expire_and_are_replaced() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut cache = Cache::new(4);
        cache.insert("a", 1, now + second, now);
        assert_eq!(cache.get(&"a", now), Some(&1));
        assert_eq!(cache.get(&"a", now + second), None);
        cache.insert("a", 2, now + 2 * second, now);
        assert_eq!((cache.get(&"a", now + second), cache.len()), (Some(&2), 1));
        cache.insert("a", 3, now, now);
        assert_eq!((cache.get(&"a", now), cache.len()), (None, 0), "what expires at once is not kept");
    }

    #[test]
    fn a_full_cache_forgets_what_would_expire_first() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut cache = Cache::new(3);
        for (key, seconds) in [("soon", 1), ("later", 9), ("last", 20), ("new", 5)] {
            cache.insert(key, (), now + seconds * second, now);
        }
        assert_eq!(cache.len(), 3);
        assert!(cache.get(&"soon", now).is_none() && cache.get(&"new", now).is_some());
        // Those that have expired all go at the next occasion.
        let later = now + 10 * second;
        cache.insert("newest", (), later + second, later);
        assert_eq!(cache.len(), 2);
    }
}
