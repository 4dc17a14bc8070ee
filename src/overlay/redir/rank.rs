//! In which order providers are tried.

use crate::record::{Body, MAX_LOAD, VerifiedRecord};

/// How much more often a provider comes first that says it is idle than one that says it is full.
const FAVOUR: f64 = 4.0;

/// Puts providers into the order in which to try them: at random, so that the users of a service are spread, but those
/// with less load more often first; those that take nobody come last. `random` gives numbers from 0 to 1.
///
/// A load is its provider's own word, so it is a hint and no more: whoever claims to be idle gains a factor of four over
/// saying that it is full, and no claim keeps the others from being tried.
pub fn rank(records: &mut [VerifiedRecord], mut random: impl FnMut() -> f64) {
    // Weighted sampling without replacement: the larger u^(1/weight), the earlier (Efraimidis and Spirakis, 2006).
    records.sort_by_cached_key(|record| {
        let (serving, load) = match record.body() {
            Body::Service(offer) => (offer.serving, offer.load),
            Body::User { .. } | Body::Removed => (false, MAX_LOAD),
        };
        let idle = 1.0 - f64::from(load.min(MAX_LOAD)) / f64::from(MAX_LOAD);
        let weight = (FAVOUR - 1.0).mul_add(idle, 1.0);
        let key = random().clamp(0.0, 1.0).powf(1.0 / weight);
        // Keys lie between 0 and 1, where the bits of numbers are in the order of the numbers.
        (!serving, std::cmp::Reverse(key.to_bits()))
    });
}
