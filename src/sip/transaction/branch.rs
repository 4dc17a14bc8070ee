//! The branch parameter of our own requests (RFC 3261 §8.1.1.7, §16.6 step 8).
//!
//! `z9hG4bK` `SS` `RRRRRRRRRRRRRRRRRRRRRRRR` `MMMMMMMMMMMMMMMM`, in lower-case hexadecimal digits:
//! - S, the shard: whoever reads the socket hands a response to the layer that sent the request, without any table;
//! - R, 96 random bits: unique, and not to be guessed by whoever would forge a response;
//! - M, the mark of the TU, if it has one: a proxy recognises its own Via in a request that comes back, and tells a
//!   loop from a spiral by it.

use std::fmt;

/// What every branch of RFC 3261 begins with.
pub(super) const COOKIE: &[u8] = b"z9hG4bK";
const HEX: &[u8; 16] = b"0123456789abcdef";
const PLAIN: usize = 7 + 2 + 24;
const MARKED: usize = PLAIN + 16;

/// A branch of our own. [`Branch::as_str`] is the text to write into the Via.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Branch {
    text: [u8; MARKED],
    length: u8,
}

/// What a branch of our own says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BranchParts {
    /// Which layer of this process made it.
    pub shard: u8,
    /// The mark of the TU.
    pub mark: Option<u64>,
    pub(super) random: [u64; 2],
}

impl Branch {
    /// The branch of shard `shard` with 96 of these 128 random bits.
    pub(super) fn new(shard: u8, random: [u64; 2], mark: Option<u64>) -> Self {
        let mut text = [0; MARKED];
        let digits = [
            (u64::from(shard), 2),
            (random[0], 16),
            (random[1], 8),
            (mark.unwrap_or_default(), if mark.is_some() { 16 } else { 0 }),
        ];
        let digits = digits.into_iter().flat_map(|(value, count)| {
            (0..count).rev().map(move |digit| HEX.get((value >> (4 * digit)) as usize & 15).copied().unwrap_or(b'0'))
        });
        let mut length = 0;
        for (place, octet) in text.iter_mut().zip(COOKIE.iter().copied().chain(digits)) {
            *place = octet;
            length += 1;
        }
        Self { text, length }
    }

    /// What `branch`, the value of a Via's parameter, says, if it looks like one of ours. Anybody can write one: only
    /// what is found under it shows that we did.
    pub fn read(branch: &[u8]) -> Option<BranchParts> {
        let (cookie, rest) = branch.split_at_checked(COOKIE.len())?;
        if !cookie.eq_ignore_ascii_case(COOKIE) {
            return None;
        }
        let (shard, rest) = rest.split_at_checked(2)?;
        let (high, rest) = rest.split_at_checked(16)?;
        let (low, mark) = rest.split_at_checked(8)?;
        let mark = match mark.len() {
            0 => None,
            16 => Some(number(mark)?),
            _ => return None,
        };
        let random = [number(high)?, number(low)?];
        Some(BranchParts { shard: u8::try_from(number(shard)?).ok()?, mark, random })
    }

    /// The value of the Via's `branch` parameter.
    pub fn as_str(&self) -> &str {
        let text = self.text.get(..usize::from(self.length)).unwrap_or_default();
        std::str::from_utf8(text).unwrap_or_default()
    }
}

impl fmt::Display for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| Some(number << 4 | u64::from(char::from(*digit).to_digit(16)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read_in_any_case() {
        for (shard, random, mark) in
            [(0, [0, 0], None), (255, [u64::MAX, 0xffff_ffff], Some(u64::MAX)), (7, [1, 2], Some(0))]
        {
            let branch = Branch::new(shard, random, mark);
            let parts = Some(BranchParts { shard, mark, random });
            assert_eq!(Branch::read(branch.as_str().as_bytes()), parts);
            assert_eq!(Branch::read(branch.as_str().to_uppercase().as_bytes()), parts);
        }
        assert_eq!(Branch::new(18, [0xabcd, 5], None).to_string(), "z9hG4bK12000000000000abcd00000005");
    }

    #[test]
    fn branches_of_others_are_not_ours() {
        let own = Branch::new(1, [2, 3], Some(4)).to_string();
        for other in ["", "z9hG4bK", "z9hG4bK776asdhds", &own[1..], &own[..own.len() - 1], &format!("{own}0")] {
            assert_eq!(Branch::read(other.as_bytes()), None, "{other}");
        }
        assert_eq!(Branch::read(own.replace('2', "+").as_bytes()), None);
    }
}
