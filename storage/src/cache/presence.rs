//! Which keys the engine may have rows of, so that most reads of keys that are not there ask nobody.
//!
//! A blocked Bloom filter (Putze, Sanders, Singler, "Cache-, Hash- and Space-Efficient Bloom Filters", 2007) whose blocks
//! are single machine words: a look is one load, an entry one atomic instruction. The price is accuracy: at 13 bits a key
//! about 3 % of the keys that are not there look as if they were, at 6 bits about 13 %; those are read from the engine,
//! as all are where no filter is. A key stays when its rows go.
//!
//! The filter is of use once every key of the engine is in it: from the beginning if the engine was empty, otherwise
//! after [`crate::Store::learn_keys`] has passed over all of them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bits of a key in its word.
const BITS: u32 = 4;
/// Below so many bits a key the filter tells too little to be worth the pass over all keys.
const BITS_A_KEY_MIN: usize = 4;

/// A set of key hashes that may also claim to have others.
pub(super) struct Presence {
    /// A power of two of them, or none.
    words: Box<[AtomicU64]>,
    is_complete: AtomicBool,
}

impl Presence {
    /// An empty filter of at most `bytes_max` bytes; incomplete.
    pub(super) fn new(bytes_max: usize) -> Presence {
        let words = bytes_max / size_of::<AtomicU64>();
        let words = if words == 0 { 0 } else { 1 << words.ilog2() };
        // Zeroed by the system, page by page as they are used.
        let words: Vec<AtomicU64> = std::iter::repeat_with(AtomicU64::default).take(words).collect();
        Presence { words: words.into_boxed_slice(), is_complete: AtomicBool::new(false) }
    }

    /// Whether every key of the engine is in.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete.load(Ordering::SeqCst)
    }

    /// Says whether every key of the engine is in.
    pub(super) fn set_complete(&self, is_complete: bool) {
        self.is_complete.store(is_complete && !self.words.is_empty(), Ordering::SeqCst);
    }

    /// For how many keys it is of use.
    pub(super) fn keys_max(&self) -> usize {
        self.words.len() * 64 / BITS_A_KEY_MIN
    }

    /// Whether the engine may have rows of a key with `hash`.
    pub(super) fn may_have(&self, hash: u64) -> bool {
        !self.is_complete() || self.has(hash)
    }

    /// Whether the bits of `hash` are set.
    pub(super) fn has(&self, hash: u64) -> bool {
        let (word, mask) = self.place(hash);
        word.is_none_or(|word| word.load(Ordering::SeqCst) & mask == mask)
    }

    /// Sets the bits of `hash`. Answers whether they were set.
    pub(super) fn insert(&self, hash: u64) -> bool {
        let (word, mask) = self.place(hash);
        word.is_none_or(|word| word.fetch_or(mask, Ordering::SeqCst) & mask == mask)
    }

    fn place(&self, hash: u64) -> (Option<&AtomicU64>, u64) {
        // The cache takes its stripes from other bits of the hash; here all of them count.
        let mixed =
            hash.wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let mask = (0..BITS).fold(0, |mask, bit| mask | 1 << (mixed >> (6 * bit) & 63));
        let index = (mixed >> 32) as usize & self.words.len().wrapping_sub(1);
        (self.words.get(index), mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyRef;

    fn hash(number: u64) -> u64 {
        KeyRef::new(0, &number.to_le_bytes()).hash64()
    }

    #[test]
    fn what_was_put_in_is_there_and_little_else() {
        let presence = Presence::new(1 << 20);
        presence.set_complete(true);
        for (bits, wrong_max) in [(12, 400), (6, 1_600)] {
            let keys = (8 << 20) / bits;
            for key in 0..keys {
                presence.insert(hash(key));
            }
            assert!((0..keys).all(|key| presence.may_have(hash(key))));
            let wrong = (0..10_000).filter(|key| presence.may_have(hash((1 << 40) + key))).count();
            assert!(wrong < wrong_max, "{wrong} of 10,000 at {bits} bits a key");
        }
    }

    #[test]
    fn first_of_a_key_is_told() {
        let presence = Presence::new(1 << 10);
        assert!(!presence.insert(hash(1)));
        assert!(presence.insert(hash(1)));
    }

    #[test]
    fn incomplete_or_empty_filter_excludes_nothing() {
        let presence = Presence::new(1 << 10);
        assert!(presence.may_have(hash(1)));
        presence.set_complete(true);
        assert!(!presence.may_have(hash(1)));
        presence.set_complete(false);
        assert!(presence.may_have(hash(1)));
        let none = Presence::new(0);
        none.set_complete(true);
        assert!(none.may_have(hash(1)) && none.insert(hash(1)));
        assert_eq!(none.keys_max(), 0);
    }
}
