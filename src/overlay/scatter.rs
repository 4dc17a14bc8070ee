//! Numbers that lie close together, scattered: the parts of SplitMix64 (Steele, Lea and Flood, 2014).

/// 2^64 divided by the golden ratio: multiples of it are spread evenly, however many they are.
pub(super) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Other 64 bits for these, the same each time and different for each; half of them change if one does.
pub(super) const fn scatter(bits: u64) -> u64 {
    let mut mixed = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_splitmix64() {
        // The first numbers of the generator whose seed is 0.
        let numbers = [1, 2, 3].map(|nth: u64| scatter(GOLDEN.wrapping_mul(nth)));
        assert_eq!(numbers, [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]);
    }
}
