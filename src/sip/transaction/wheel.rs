//! A hierarchical timing wheel: at most one timer for each of many slots, set, moved and stopped in constant time.
//!
//! The timers are doubly linked lists through one array, so that a stopped one leaves nothing behind: a table of
//! transactions that end early does not gather dead timers, as a heap with lazy deletion would. Times are ticks since
//! the wheel began; what a tick is, is the layer's business.

/// A point in time, in ticks.
pub(super) type Tick = u64;

/// log2 of the buckets of a level.
const BITS: u32 = 6;
const BUCKETS: usize = 1 << BITS;
const LEVELS: usize = 6;
/// How far the wheel reaches; later timers wait in the last level until they come into reach.
const REACH: Tick = (BUCKETS as Tick - 1) << (BITS * (LEVELS as u32 - 1));
/// No slot.
const NONE: u32 = u32::MAX;
/// No bucket: the timer is not set.
const IDLE: u16 = u16::MAX;

/// The timers, by slot.
#[derive(Debug)]
pub(super) struct Wheel {
    now: Tick,
    /// Which buckets of a level are not empty.
    occupied: [u64; LEVELS],
    heads: Vec<u32>,
    nodes: Vec<Node>,
    set: usize,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    at: Tick,
    previous: u32,
    next: u32,
    bucket: u16,
}

impl Wheel {
    pub fn new() -> Self {
        Self { now: 0, occupied: [0; LEVELS], heads: vec![NONE; BUCKETS * LEVELS], nodes: Vec::new(), set: 0 }
    }

    /// How many timers are set.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.set
    }

    /// Lets the timer of `slot` fire at `at`, or at the next tick if that has passed; its former time is forgotten.
    pub fn set(&mut self, slot: u32, at: Tick) {
        self.stop(slot);
        let index = slot as usize;
        if index >= self.nodes.len() {
            self.nodes.resize(index + 1, Node { at: 0, previous: NONE, next: NONE, bucket: IDLE });
        }
        self.link(slot, at.max(self.now + 1));
    }

    /// Stops the timer of `slot`, if it is set.
    pub fn stop(&mut self, slot: u32) {
        let Some(node) = self.nodes.get_mut(slot as usize).filter(|node| node.bucket != IDLE) else { return };
        let Node { previous, next, bucket, .. } = *node;
        node.bucket = IDLE;
        self.set -= 1;
        match self.nodes.get_mut(previous as usize) {
            Some(previous) => previous.next = next,
            None => self.set_head(bucket, next),
        }
        if let Some(next) = self.nodes.get_mut(next as usize) {
            next.previous = previous;
        }
    }

    /// When [`Wheel::expire`] has something to do next: when a timer fires, or, if it is far off, some time before.
    pub fn next(&self) -> Option<Tick> {
        self.next_bucket().map(|(_, at)| at)
    }

    /// Takes a timer that is due at `now`, or moves the wheel's time to `now` if there is none.
    pub fn expire(&mut self, now: Tick) -> Option<u32> {
        while let Some((bucket, at)) = self.next_bucket() {
            if at > now {
                break;
            }
            self.now = at;
            if bucket < BUCKETS {
                return self.pop(bucket).map(|(slot, _)| slot);
            }
            // What comes into reach of a finer level goes there, all of the bucket before anything else happens.
            while let Some((slot, at)) = self.pop(bucket) {
                self.link(slot, at);
            }
        }
        self.now = self.now.max(now);
        None
    }

    /// The first bucket that is not empty, and the tick at which it begins.
    fn next_bucket(&self) -> Option<(usize, Tick)> {
        // All of a finer level comes before all of a coarser one: it lies in the bucket of the latter that `now` is in.
        let level = self.occupied.iter().position(|occupied| *occupied != 0)?;
        let occupied = self.occupied.get(level).copied()?;
        let shift = BITS * level as u32;
        let current = (self.now >> shift) & (BUCKETS as Tick - 1);
        let ahead = Tick::from(occupied.rotate_right(current as u32).trailing_zeros());
        let at = ((self.now >> shift) + ahead) << shift;
        let bucket = ((current + ahead) & (BUCKETS as Tick - 1)) as usize;
        Some((level * BUCKETS + bucket, at))
    }

    fn pop(&mut self, bucket: usize) -> Option<(u32, Tick)> {
        let slot = *self.heads.get(bucket)?;
        let at = self.nodes.get(slot as usize)?.at;
        self.stop(slot);
        Some((slot, at))
    }

    fn link(&mut self, slot: u32, at: Tick) {
        // Not so far that it would share the last level's bucket with the present.
        let reach = at.min(self.now + REACH);
        // The level is that of the highest digit in which `reach` and `now` differ.
        let level = (((self.now ^ reach) | 1).ilog2() / BITS).min(LEVELS as u32 - 1);
        let index = (reach >> (BITS * level)) as usize % BUCKETS;
        let bucket = level as usize * BUCKETS + index;
        let head = self.heads.get(bucket).copied().unwrap_or(NONE);
        if let Some(node) = self.nodes.get_mut(slot as usize) {
            *node = Node { at, previous: NONE, next: head, bucket: bucket as u16 };
            self.set += 1;
        }
        if let Some(head) = self.nodes.get_mut(head as usize) {
            head.previous = slot;
        }
        self.set_head(bucket as u16, slot);
    }

    fn set_head(&mut self, bucket: u16, slot: u32) {
        let (level, index) = (usize::from(bucket) / BUCKETS, usize::from(bucket) % BUCKETS);
        if let Some(head) = self.heads.get_mut(usize::from(bucket)) {
            *head = slot;
        }
        if let Some(occupied) = self.occupied.get_mut(level) {
            if slot == NONE {
                *occupied &= !(1 << index);
            } else {
                *occupied |= 1 << index;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn due(wheel: &mut Wheel, now: Tick) -> Vec<u32> {
        std::iter::from_fn(|| wheel.expire(now)).collect()
    }

    #[test]
    fn a_timer_fires_at_its_tick_and_not_before() {
        for at in [1, 2, 63, 64, 65, 4095, 4096, 262_144, REACH - 1, REACH, REACH + 1, 3 * REACH + 7] {
            let mut wheel = Wheel::new();
            wheel.set(7, at);
            assert!(wheel.next().unwrap() <= at, "{at}");
            assert_eq!(due(&mut wheel, at - 1), Vec::<u32>::new(), "{at}");
            assert_eq!(due(&mut wheel, at), vec![7], "{at}");
            assert_eq!((wheel.next(), wheel.len()), (None, 0));
        }
    }

    #[test]
    fn a_stopped_timer_leaves_nothing() {
        let mut wheel = Wheel::new();
        for slot in 0..100 {
            wheel.set(slot, 50);
        }
        for slot in (0..100).rev().step_by(2).chain((0..100).step_by(2)) {
            wheel.stop(slot);
            wheel.stop(slot);
        }
        assert_eq!((wheel.len(), wheel.next()), (0, None));
        wheel.stop(4_000);
    }

    #[test]
    fn what_is_late_fires_at_the_next_tick() {
        let mut wheel = Wheel::new();
        assert_eq!(due(&mut wheel, 1000), Vec::<u32>::new());
        wheel.set(1, 3);
        assert_eq!(due(&mut wheel, 1000), Vec::<u32>::new());
        assert_eq!(wheel.next(), Some(1001));
        assert_eq!(due(&mut wheel, 1001), vec![1]);
    }

    proptest! {
        /// Against a sorted map: the same timers at the same times, whatever is set, moved and stopped.
        #[test]
        fn it_does_what_a_sorted_map_does(
            steps in prop::collection::vec((0u32..40, 0u64..3, prop_oneof![0u64..200, 0u64..100_000, 0..4 * REACH]), 1..200)
        ) {
            let (mut wheel, mut model, mut now) = (Wheel::new(), BTreeMap::new(), 0);
            for (slot, what, span) in steps {
                match what {
                    0 => {
                        wheel.set(slot, now + span);
                        model.insert(slot, (now + span).max(now + 1));
                    }
                    1 => {
                        wheel.stop(slot);
                        model.remove(&slot);
                    }
                    _ => {
                        now += span;
                        let mut fired = due(&mut wheel, now);
                        fired.sort_unstable();
                        let expected: Vec<u32> =
                            model.iter().filter(|(_, at)| **at <= now).map(|(slot, _)| *slot).collect();
                        model.retain(|_, at| *at > now);
                        prop_assert_eq!(fired, expected);
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                let first = model.values().min().copied();
                prop_assert_eq!(wheel.next().is_some(), first.is_some());
                prop_assert!(wheel.next() <= first && wheel.next().is_none_or(|next| next > now));
            }
        }

        /// Waking when told to reaches each timer at exactly its tick.
        #[test]
        fn waking_when_told_is_enough(ats in prop::collection::vec(1u64..3_000_000, 1..50)) {
            let mut wheel = Wheel::new();
            for (slot, at) in ats.iter().enumerate() {
                wheel.set(slot as u32, *at);
            }
            let mut fired = 0;
            while let Some(next) = wheel.next() {
                for slot in due(&mut wheel, next) {
                    prop_assert_eq!(ats[slot as usize], next);
                    fired += 1;
                }
            }
            prop_assert_eq!(fired, ats.len());
        }
    }
}
