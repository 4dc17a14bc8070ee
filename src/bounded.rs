//! A map that forgets.

use std::{
    borrow::Borrow,
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// A map of so many entries at the most: the one that came first goes first.
#[derive(Debug)]
pub struct Bounded<K, V> {
    values: HashMap<K, V>,
    /// In the order of their arrival.
    order: VecDeque<K>,
    limit: usize,
}

impl<K: Clone + Eq + Hash, V> Bounded<K, V> {
    /// An empty map for `limit` entries.
    pub fn new(limit: usize) -> Self {
        Self { values: HashMap::new(), order: VecDeque::new(), limit }
    }

    /// What is known of `key`.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.values.get(key)
    }

    /// Remembers `value`; a key that is known keeps its place in the order.
    pub fn insert(&mut self, key: K, value: V) {
        if self.values.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > self.limit {
            if let Some(oldest) = self.order.pop_front() {
                self.values.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first_and_each_has_one_place() {
        let mut bounded = Bounded::new(3);
        for nth in 0..5 {
            bounded.insert(nth, nth);
            bounded.insert(nth, nth + 10);
        }
        assert_eq!([0, 1, 2, 3, 4].map(|nth| bounded.get(&nth).copied()), [None, None, Some(12), Some(13), Some(14)]);
        assert_eq!((bounded.values.len(), bounded.order.len()), (3, 3));
    }
}
