//! Seeded randomness, for picking peers and for orders that must not agree: SplitMix64 (Steele, Lea and Flood 2014).
//! Not for secrets.

/// A stream of random numbers that its seed determines.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Any number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // Multiply and shift (Lemire 2019) without its rejection: the bias is below bound / 2^64.
        let scaled = u128::from(self.next()) * (bound as u128);
        usize::try_from(scaled >> 64).unwrap_or(0)
    }

    /// Whether an event of probability `numerator / denominator` happens; a probability above 1 counts as 1.
    pub(crate) fn chance(&mut self, numerator: usize, denominator: usize) -> bool {
        self.below(denominator) < numerator
    }

    /// Moves `count` items picked at random to the front of `items`, and answers them: all, if there are no more.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a mut [T], count: usize) -> &'a [T] {
        let count = count.min(items.len());
        for at in 0..count {
            let other = at + self.below(items.len() - at);
            items.swap(at, other);
        }
        items.split_at(count).0
    }

    /// Puts `items` into an order picked at random.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        self.pick(items, items.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_are_distinct_and_even() {
        let mut random = Random::new(7);
        let mut picked = [0u32; 10];
        for _ in 0..10_000 {
            let mut items: Vec<usize> = (0..10).collect();
            let picks = random.pick(&mut items, 3).to_vec();
            assert!(picks[0] != picks[1] && picks[1] != picks[2] && picks[0] != picks[2]);
            picks.iter().for_each(|&at| picked[at] += 1);
        }
        assert!(picked.iter().all(|count| (2_800..3_200).contains(count)), "{picked:?}");
    }

    #[test]
    fn a_pick_takes_all_there_are() {
        let mut random = Random::new(7);
        assert_eq!(random.pick(&mut [1], 3), &[1]);
        assert!(random.pick::<u8>(&mut [], 3).is_empty());
    }

    #[test]
    fn chances_are_what_they_say() {
        let mut random = Random::new(7);
        let happened = (0..10_000).filter(|_| random.chance(1, 4)).count();
        assert!((2_300..2_700).contains(&happened), "{happened}");
        assert!(random.chance(2, 1) && !random.chance(0, 1));
        assert!(!random.chance(0, 0));
    }
}
