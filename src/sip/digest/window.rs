//! Which nonce counts have been used: a bounded memory that never forgets in an attacker's favour.

use std::collections::BTreeMap;

/// When a nonce was made (milliseconds of its gate), and its salt: unique, and in order of age.
pub(super) type NonceId = (u64, u64);

/// How far counts of one nonce may overtake each other.
const WIDTH: u32 = 64;

/// The counts that were used of each nonce.
///
/// When there are too many nonces, the oldest go, and with them all that are as old: those count as expired from then
/// on. So forgetting costs a phone another challenge, and never lets a request pass twice.
#[derive(Debug)]
pub(super) struct Windows {
    nonces: BTreeMap<NonceId, Window>,
    capacity: usize,
    /// Nonces up to this one have been forgotten.
    floor: Option<NonceId>,
}

/// The counts of one nonce: the highest, and which of the 64 up to it were used (bit 0 is the highest).
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    highest: u32,
    used: u64,
}

impl Windows {
    pub(super) const fn new(capacity: usize) -> Self {
        Self { nonces: BTreeMap::new(), capacity, floor: None }
    }

    /// Notes that a nonce is used with this count; `false` if it was before, or may have been.
    pub(super) fn use_once(&mut self, nonce: NonceId, count: u32) -> bool {
        if self.floor.is_some_and(|floor| nonce <= floor) {
            return false;
        }
        let fresh = self.nonces.entry(nonce).or_default().use_once(count);
        while self.nonces.len() > self.capacity
            && let Some((oldest, _)) = self.nonces.pop_first()
        {
            self.floor = Some(oldest);
        }
        fresh
    }

    /// Forgets nonces made before this time, which nobody accepts any more.
    pub(super) fn expire(&mut self, before: u64) {
        while let Some(oldest) = self.nonces.first_entry()
            && oldest.key().0 < before
        {
            self.floor = Some(*oldest.key());
            oldest.remove();
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.nonces.len()
    }
}

impl Window {
    fn use_once(&mut self, count: u32) -> bool {
        if count == 0 {
            return false;
        }
        if count > self.highest {
            let ahead = count - self.highest;
            self.used = if ahead < WIDTH { self.used << ahead } else { 0 } | 1;
            self.highest = count;
            return true;
        }
        let behind = self.highest - count;
        let bit = if behind < WIDTH { 1_u64 << behind } else { return false };
        let fresh = self.used & bit == 0;
        self.used |= bit;
        fresh
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counts_may_overtake_each_other_but_never_come_twice() {
        let mut windows = Windows::new(8);
        let mut used = |count| windows.use_once((1, 7), count);
        assert!(used(1) && used(3) && used(2) && used(66));
        assert!(!used(1) && !used(2) && !used(3) && !used(66), "each only once");
        assert!(used(4), "not used before, and 62 behind");
        assert!(!used(0), "counts begin at 1 (RFC 7616 §3.4)");
    }

    #[test]
    fn nonces_that_were_forgotten_are_expired() {
        let mut windows = Windows::new(2);
        for made in 1..=3 {
            assert!(windows.use_once((made, 0), 1));
        }
        assert_eq!(windows.len(), 2);
        assert!(!windows.use_once((1, 0), 2), "forgotten");
        assert!(!windows.use_once((0, 9), 1), "never seen, and as old");
        windows.expire(3);
        assert!(!windows.use_once((2, 0), 2));
        assert!(windows.use_once((3, 0), 2));
    }

    proptest! {
        #[test]
        fn nothing_passes_twice(uses in proptest::collection::vec((0_u64..6, 0_u32..100), 0..300), capacity in 0_usize..5) {
            let mut windows = Windows::new(capacity);
            let mut passed = HashSet::new();
            for (nonce, count) in uses {
                if windows.use_once((nonce, 0), count) {
                    prop_assert!(passed.insert((nonce, count)));
                }
                prop_assert!(windows.len() <= capacity);
            }
        }
    }
}
