//! Sets of slots, and the ranges of ring positions they are.

use gyre_storage::tree::PrefixRange;
use gyre_storage::{SLOTS, Slot};

/// Position prefixes of one slot: a prefix is 14 bits of slot and 18 of hash.
pub(super) const SLOT_PREFIXES: u64 = 1 << 18;
const WORDS: usize = SLOTS as usize / 64;

/// Neighbouring slots, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotRun {
    /// The first slot.
    pub first: Slot,
    /// The last slot; not below the first.
    pub last: Slot,
}

impl SlotRun {
    /// The position prefixes of the slots.
    #[must_use]
    pub fn prefixes(self) -> PrefixRange {
        let (first, last) = (u64::from(self.first), u64::from(self.last));
        PrefixRange { from: first * SLOT_PREFIXES, end: (last + 1) * SLOT_PREFIXES }
    }

    /// The slots.
    pub fn iter(self) -> impl Iterator<Item = Slot> {
        self.first..=self.last
    }

    /// How many slots these are.
    #[must_use]
    pub fn count(self) -> usize {
        usize::from(self.last - self.first) + 1
    }
}

/// The slots that `range` touches; `None` if it is empty or leaves the ring.
pub(super) fn slots_of(range: PrefixRange) -> Option<SlotRun> {
    if range.from >= range.end || range.end > u64::from(SLOTS) * SLOT_PREFIXES {
        return None;
    }
    let slot = |prefix: u64| Slot::try_from(prefix / SLOT_PREFIXES).ok();
    Some(SlotRun { first: slot(range.from)?, last: slot(range.end - 1)? })
}

/// A set of slots, 2 KiB.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotSet(Box<[u64; WORDS]>);

impl Default for SlotSet {
    fn default() -> SlotSet {
        SlotSet(Box::new([0; WORDS]))
    }
}

impl std::fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ranges = self.runs();
        f.debug_list().entries(ranges.iter().map(|run| (run.first, run.last))).finish()
    }
}

impl SlotSet {
    /// All slots.
    #[must_use]
    pub fn all() -> SlotSet {
        SlotSet(Box::new([u64::MAX; WORDS]))
    }

    /// The slots of `runs`.
    #[must_use]
    pub fn of(runs: &[SlotRun]) -> SlotSet {
        let mut set = SlotSet::default();
        runs.iter().flat_map(|run| run.iter()).for_each(|slot| set.insert(slot));
        set
    }

    /// Adds `slot`.
    pub fn insert(&mut self, slot: Slot) {
        if let Some(word) = self.0.get_mut(usize::from(slot) / 64) {
            *word |= 1 << (slot % 64);
        }
    }

    /// Takes `slot` out.
    pub fn remove(&mut self, slot: Slot) {
        if let Some(word) = self.0.get_mut(usize::from(slot) / 64) {
            *word &= !(1 << (slot % 64));
        }
    }

    /// Whether `slot` is in it.
    #[must_use]
    pub fn contains(&self, slot: Slot) -> bool {
        self.0.get(usize::from(slot) / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    /// Whether all slots of `run` are in it.
    #[must_use]
    pub fn contains_run(&self, run: SlotRun) -> bool {
        run.iter().all(|slot| self.contains(slot))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    /// Adds those of `other`.
    pub fn add(&mut self, other: &SlotSet) {
        self.0.iter_mut().zip(other.0.iter()).for_each(|(word, other)| *word |= other);
    }

    /// Keeps those that are in `other`, too.
    pub fn keep(&mut self, other: &SlotSet) {
        self.0.iter_mut().zip(other.0.iter()).for_each(|(word, other)| *word &= other);
    }

    /// Takes those of `other` out.
    pub fn subtract(&mut self, other: &SlotSet) {
        self.0.iter_mut().zip(other.0.iter()).for_each(|(word, other)| *word &= !other);
    }

    /// The slots, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        self.0.iter().enumerate().flat_map(|(index, &word)| {
            let first = Slot::try_from(index * 64).unwrap_or(SLOTS);
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| first + bit)
        })
    }

    /// The longest runs of neighbours, ascending.
    #[must_use]
    pub fn runs(&self) -> Vec<SlotRun> {
        let mut runs: Vec<SlotRun> = Vec::new();
        for slot in self.iter() {
            match runs.last_mut() {
                Some(run) if run.last + 1 == slot => run.last = slot,
                _ => runs.push(SlotRun { first: slot, last: slot }),
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_and_sets_are_the_same(slots in prop::collection::btree_set(0..SLOTS, 0..200)) {
            let mut set = SlotSet::default();
            slots.iter().for_each(|&slot| set.insert(slot));
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), slots.iter().copied().collect::<Vec<_>>());
            prop_assert!(SlotSet::of(&set.runs()) == set);
            prop_assert_eq!(set.len(), slots.len());
        }
    }

    #[test]
    fn a_run_of_slots_is_a_range_of_prefixes_and_back() {
        for (first, last) in [(0, 0), (7, 7), (7, 9), (0, SLOTS - 1)] {
            let run = SlotRun { first, last };
            assert_eq!(slots_of(run.prefixes()), Some(run));
        }
        let all = SlotRun { first: 0, last: SLOTS - 1 }.prefixes();
        assert_eq!((all.from, all.end), (0, gyre_storage::PREFIX_END));
        assert_eq!(slots_of(PrefixRange { from: 5, end: 5 }), None);
        assert_eq!(slots_of(PrefixRange { from: 5, end: all.end + 1 }), None);
    }
}
