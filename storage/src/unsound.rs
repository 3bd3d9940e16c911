//! Ranges of the ring whose rows may be lost here.
//!
//! After a damaged file was dropped, what is left of its unreadable parts may be older than what this node has
//! acknowledged. Until other replicas have sent what they hold, such a range is *unsound*: a read that has to ask the engine
//! fails, so that coordinators ask others. The mark of its slot has anti-entropy compare it with every other replica; with the
//! mark the unsound ranges of the slot go.
//!
//! ```text
//! "storage.unsound" = { first prefix u32 BE | last prefix u32 BE } by ascending prefix      in the meta family
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;

use crate::batch::Batch;
use crate::engine::Engine;
use crate::error::StorageError;
use crate::family::Family;
use crate::key::Slot;
use crate::scan::PREFIX_END;
use crate::tree::PrefixRange;

const META_UNSOUND: &str = "storage.unsound";
/// More ranges than this are widened to whole slots: at most one for each then.
const RANGES_MAX: usize = 4_096;
const SLOT_SHIFT: u32 = 18;

/// Ascending, apart, and none empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<(u32, u32)>);

/// The unsound ranges of a store.
#[derive(Debug, Default)]
pub(crate) struct Unsound {
    /// Spares reads a look at the list.
    is_any: AtomicBool,
    ranges: ArcSwap<Ranges>,
}

impl Unsound {
    /// What `engine` holds.
    pub(crate) fn open(engine: &dyn Engine) -> Result<Unsound, StorageError> {
        let stored = engine.get(Family::Meta, META_UNSOUND.as_bytes())?;
        let ranges = Ranges::decode(&stored.unwrap_or_default())
            .ok_or_else(|| StorageError::damaged("the list of unsound ranges does not parse"))?;
        let unsound = Unsound::default();
        unsound.store(ranges);
        Ok(unsound)
    }

    /// Fails if rows of prefixes `from..end` may be lost.
    pub(crate) fn check(&self, from: u64, end: u64) -> Result<(), StorageError> {
        if self.is_any.load(Ordering::Acquire) && self.ranges.load().overlaps(from, end) {
            return Err(StorageError::damaged(
                "rows were lost here and have not come back from other replicas yet",
            ));
        }
        Ok(())
    }

    pub(crate) fn all(&self) -> Arc<Ranges> {
        self.ranges.load_full()
    }

    /// Puts `ranges` in force; they are stored.
    pub(crate) fn store(&self, ranges: Ranges) {
        let is_any = !ranges.0.is_empty();
        self.ranges.store(Arc::new(ranges));
        self.is_any.store(is_any, Ordering::Release);
    }
}

impl Ranges {
    /// With `added` as well.
    pub(crate) fn with(&self, added: &[PrefixRange]) -> Ranges {
        let mut all = self.0.clone();
        all.extend(added.iter().filter(|range| !range.is_empty()).filter_map(|range| {
            let last = range.end.min(PREFIX_END) - 1;
            Some((u32::try_from(range.from).ok()?, u32::try_from(last).ok()?))
        }));
        let merged = merged(all);
        if merged.len() <= RANGES_MAX {
            return Ranges(merged);
        }
        let rest = (1 << SLOT_SHIFT) - 1;
        Ranges(self::merged(merged.into_iter().map(|(first, last)| (first & !rest, last | rest)).collect()))
    }

    /// Without the parts in `slot`.
    pub(crate) fn without_slot(&self, slot: Slot) -> Ranges {
        let begin = u32::from(slot) << SLOT_SHIFT;
        let end = begin | ((1 << SLOT_SHIFT) - 1);
        let mut left = Vec::new();
        for &(first, last) in &self.0 {
            if last < begin || first > end {
                left.push((first, last));
                continue;
            }
            if first < begin {
                left.push((first, begin - 1));
            }
            if last > end {
                left.push((end + 1, last));
            }
        }
        Ranges(left)
    }

    /// The slots with a part in them, ascending.
    pub(crate) fn slots(&self) -> Vec<Slot> {
        let runs = self.0.iter().flat_map(|(first, last)| first >> SLOT_SHIFT..=last >> SLOT_SHIFT);
        let mut slots: Vec<Slot> = runs.filter_map(|slot| Slot::try_from(slot).ok()).collect();
        slots.dedup();
        slots
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn overlaps(&self, from: u64, end: u64) -> bool {
        let at = self.0.partition_point(|(_, last)| u64::from(*last) < from);
        self.0.get(at).is_some_and(|(first, _)| u64::from(*first) < end)
    }

    /// Adds the document to `batch`.
    pub(crate) fn put(&self, batch: &mut Batch) {
        let bytes: Vec<u8> = self
            .0
            .iter()
            .flat_map(|(first, last)| [first.to_be_bytes(), last.to_be_bytes()])
            .flatten()
            .collect();
        batch.put_meta(META_UNSOUND, &bytes);
    }

    fn decode(bytes: &[u8]) -> Option<Ranges> {
        let (entries, rest) = bytes.as_chunks::<8>();
        let ranges: Vec<(u32, u32)> = entries
            .iter()
            .filter_map(|entry| {
                let (first, last) = entry.split_first_chunk::<4>()?;
                Some((u32::from_be_bytes(*first), u32::from_be_bytes(last.try_into().ok()?)))
            })
            .collect();
        let are_whole = ranges.iter().all(|(first, last)| first <= last);
        let are_apart = ranges.windows(2).all(|pair| matches!(pair, [a, b] if a.1 < b.0));
        (rest.is_empty() && are_whole && are_apart).then_some(Ranges(ranges))
    }
}

/// `ranges` in order, those that touch made one.
fn merged(mut ranges: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut().filter(|before| first <= before.1.saturating_add(1)) {
            Some(before) => before.1 = before.1.max(last),
            None => merged.push((first, last)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(pairs: &[(u64, u64)]) -> Ranges {
        let pairs: Vec<PrefixRange> = pairs.iter().map(|&(from, end)| PrefixRange { from, end }).collect();
        Ranges::default().with(&pairs)
    }

    #[test]
    fn ranges_that_touch_become_one_and_come_back() {
        let all = ranges(&[(10, 20), (30, 40), (20, 25), (5, 11), (7, 7), (PREFIX_END - 1, PREFIX_END + 5)]);
        assert_eq!(all.0, [(5, 24), (30, 39), (u32::MAX, u32::MAX)]);
        let mut batch = Batch::default();
        all.put(&mut batch);
        let stored = crate::batch::changes(batch.encoded()).next().unwrap().unwrap().value.unwrap().to_vec();
        assert_eq!(Ranges::decode(&stored), Some(all));
        assert_eq!(Ranges::decode(&stored[1..]), None);
        assert_eq!(Ranges::decode(&[0, 0, 0, 2, 0, 0, 0, 1]), None);
    }

    #[test]
    fn overlap_is_told_at_every_border() {
        let all = ranges(&[(10, 20), (30, 40)]);
        let overlaps = |from, end| all.overlaps(from, end);
        assert!(!overlaps(0, 10) && overlaps(0, 11) && overlaps(19, 20) && !overlaps(20, 30));
        assert!(overlaps(39, 40) && !overlaps(40, PREFIX_END) && overlaps(0, PREFIX_END));
        assert!(!Ranges::default().overlaps(0, PREFIX_END));
    }

    #[test]
    fn slots_go_one_by_one() {
        let width = 1u64 << SLOT_SHIFT;
        let all = ranges(&[(width - 5, 3 * width + 5), (9 * width, 9 * width + 1)]);
        assert_eq!(all.slots(), [0, 1, 2, 3, 9]);
        let left = all.without_slot(2);
        assert_eq!(left.slots(), [0, 1, 3, 9]);
        assert_eq!(left.without_slot(0).without_slot(1).without_slot(3).without_slot(9), Ranges::default());
        assert_eq!(left.without_slot(5), left);
    }

    #[test]
    fn too_many_ranges_are_widened() {
        let width = 1u64 << SLOT_SHIFT;
        let many: Vec<(u64, u64)> = (0..5_000).map(|number| (number * 40, number * 40 + 1)).collect();
        assert_eq!(ranges(&many), ranges(&[(0, width)]));
    }
}
