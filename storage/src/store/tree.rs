//! The store's part of Merkle trees: sums of ranges, hashing anew what is dirty, and the pages that an exchange reads.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::Store;
use crate::batch::Batch;
use crate::engine::Step;
use crate::error::StorageError;
use crate::family::Family;
use crate::key::{SLOTS, Slot};
use crate::tree::hashing::{self, Counted};
use crate::tree::leaves::{DEPTH_MAX, Head, Leaves, head_key, leaves_key};
use crate::tree::marks::{Mask, SEGMENTS_PER_SLOT, decode_mark, place_of};
use crate::tree::{KeyStates, PrefixRange, RangeSum, RecordPage, StaleSlots, TreeStats};

/// Segments that are hashed in one step, about: what a commit's generation is ended for, and one batch.
const STEP_SEGMENTS_MAX: usize = 1_024;
/// Keys that are hashed in one step, about, so that others who want sums do not wait long.
const STEP_KEYS_MAX: u64 = 100_000;
/// How often a step is repeated because a horizon rose while it was hashing.
const TRIES_MAX: usize = 3;

/// What was hashed in one step, to be stored.
struct Hashed {
    /// The horizons it was hashed under.
    counted: Counted,
    /// The sums, and the deletion of marks.
    batch: Batch,
    heads: Vec<(Slot, Head)>,
    /// Keys passed.
    keys: u64,
}

impl Store {
    /// The sum of each of `ranges`, after hashing anew what is dirty in them. May touch the disk: takes a time
    /// proportional to what is dirty, and for ends of a range that cut through a leaf to that leaf's keys.
    pub fn tree_sums(&self, ranges: &[PrefixRange]) -> Result<Vec<RangeSum>, StorageError> {
        let _whole = self.mending.read();
        let _exclusive = self.tree.hashing.lock();
        for _ in 0..TRIES_MAX {
            let dirty = self.dirty_of(ranges);
            if dirty.is_empty() {
                break;
            }
            for step in self.steps_of(dirty) {
                self.hash(&step)?;
            }
        }
        ranges.iter().map(|range| self.sum_of(*range)).collect()
    }

    /// The state of each key of `range`, in the order of the ring. A page ends on the border of a prefix once
    /// `keys_max` keys were passed; there is always progress. May touch the disk.
    pub fn key_states(&self, range: PrefixRange, keys_max: usize) -> Result<KeyStates, StorageError> {
        let _whole = self.mending.read();
        hashing::states(self.engine.as_ref(), &self.counted(), range, keys_max)
    }

    /// The records of the keys of `range` whose [`hash64`](crate::KeyRef::hash64) is among `hashes`, which must
    /// ascend. A page ends on the border of a prefix once its keys and records take `bytes_max` bytes; there is always
    /// progress. May touch the disk.
    pub fn records_of(
        &self,
        range: PrefixRange,
        hashes: &[u64],
        bytes_max: usize,
    ) -> Result<RecordPage, StorageError> {
        let _whole = self.mending.read();
        hashing::records(self.engine.as_ref(), &self.counted(), range, hashes, bytes_max)
    }

    /// Hashes up to `segments` dirty segments anew (a few more, to the end of a slot), going round the ring from call
    /// to call. Answers how many are left. May touch the disk. For tests, benchmarks and maintenance: a node hashes what it is
    /// [asked](Store::tree_sums) for.
    pub fn refresh_tree(&self, segments: usize) -> Result<usize, StorageError> {
        let mut left = segments;
        while left > 0 {
            let _whole = self.mending.read();
            let _exclusive = self.tree.hashing.lock();
            let step = self.next_step(left.min(STEP_SEGMENTS_MAX));
            if step.is_empty() {
                break;
            }
            self.hash(&step)?;
            left = left.saturating_sub(segments_in(&step));
        }
        Ok(usize::try_from(self.tree.marks.count()).unwrap_or(usize::MAX))
    }

    /// What the trees consist of.
    #[must_use]
    pub fn tree_stats(&self) -> TreeStats {
        self.tree.stats()
    }

    fn counted(&self) -> Counted {
        Counted { horizons: self.horizons.all(), purge: self.purge.all() }
    }

    /// The dirty segments that have a part in `ranges`.
    fn dirty_of(&self, ranges: &[PrefixRange]) -> Vec<(Slot, Mask)> {
        let stale = self.tree.stale.lock();
        let mut dirty: BTreeMap<Slot, Mask> = BTreeMap::new();
        for (slot, from, end) in ranges.iter().flat_map(|range| range.slots()) {
            let mask = self.dirty_in(slot, &stale, touched(from, end));
            if mask != 0 {
                *dirty.entry(slot).or_default() |= mask;
            }
        }
        dirty.into_iter().collect()
    }

    /// The dirty segments among `asked` of `slot`. A stale slot is taken whole: only then is it stale no more.
    fn dirty_in(&self, slot: Slot, stale: &StaleSlots, asked: Mask) -> Mask {
        if stale.has(slot) { Mask::MAX } else { self.tree.marks.of(slot) & asked }
    }

    /// Cuts what is to be hashed into steps.
    fn steps_of(&self, dirty: Vec<(Slot, Mask)>) -> Vec<Vec<(Slot, Mask)>> {
        let mut steps: Vec<Vec<(Slot, Mask)>> = vec![Vec::new()];
        let (mut segments, mut keys) = (0, 0);
        for (slot, mask) in dirty {
            if segments >= STEP_SEGMENTS_MAX || keys >= STEP_KEYS_MAX {
                steps.push(Vec::new());
                (segments, keys) = (0, 0);
            }
            segments += mask.count_ones() as usize;
            keys += self.keys_in(slot, mask);
            if let Some(step) = steps.last_mut() {
                step.push((slot, mask));
            }
        }
        steps
    }

    /// How many keys segments of a slot have, about.
    fn keys_in(&self, slot: Slot, mask: Mask) -> u64 {
        self.tree.head(slot).sum.keys * u64::from(mask.count_ones()) / u64::from(SEGMENTS_PER_SLOT)
    }

    /// The next dirty segments around the ring, of whole slots, until there are `segments_max` or many keys.
    fn next_step(&self, segments_max: usize) -> Vec<(Slot, Mask)> {
        let start = self.tree.hand.load(Ordering::Relaxed);
        let stale = self.tree.stale.lock();
        let (mut step, mut segments, mut keys) = (Vec::new(), 0, 0);
        for offset in 0..u32::from(SLOTS) {
            let Ok(slot) = Slot::try_from((start + offset) % u32::from(SLOTS)) else { continue };
            let mask = self.dirty_in(slot, &stale, Mask::MAX);
            if mask == 0 {
                continue;
            }
            step.push((slot, mask));
            segments += mask.count_ones() as usize;
            keys += self.keys_in(slot, mask);
            if segments >= segments_max || keys >= STEP_KEYS_MAX {
                break;
            }
        }
        if let Some((last, _)) = step.last() {
            self.tree.hand.store((u32::from(*last) + 1) % u32::from(SLOTS), Ordering::Relaxed);
        }
        step.sort_unstable();
        step
    }

    /// Hashes `wanted`, dirty segments by ascending slot, and stores the sums. Nothing is changed, and all of it stays
    /// dirty, if that fails or if a horizon rises meanwhile. Needs the lock on hashing.
    fn hash(&self, wanted: &[(Slot, Mask)]) -> Result<(), StorageError> {
        self.check_poison()?;
        let ended = self.tree.marks.take(wanted);
        let result = self.hash_taken(wanted).and_then(|mut hashed| {
            self.delete_marks(wanted, ended, &mut hashed.batch)?;
            self.store_sums(wanted, hashed)
        });
        if !matches!(result, Ok(true)) {
            self.tree.marks.set(wanted.iter().copied());
        }
        result.map(|_| ())
    }

    /// Hashes segments that were taken.
    fn hash_taken(&self, wanted: &[(Slot, Mask)]) -> Result<Hashed, StorageError> {
        let mut hashed =
            Hashed { counted: self.counted(), batch: Batch::default(), heads: Vec::new(), keys: 0 };
        for (slot, mask) in wanted {
            let leaves = self.hash_slot(*slot, *mask, &hashed.counted, &mut hashed.keys)?;
            hashed.heads.push((*slot, put_slot(&mut hashed.batch, *slot, &leaves)));
        }
        Ok(hashed)
    }

    /// Writes the sums and the deletion of the marks. Answers false, with nothing written, if a horizon rose meanwhile.
    fn store_sums(&self, wanted: &[(Slot, Mask)], mut hashed: Hashed) -> Result<bool, StorageError> {
        let mut stale = self.tree.stale.lock();
        if !self.counted().is(&hashed.counted) {
            return Ok(false);
        }
        let mut fresh = stale.clone();
        let whole = wanted.iter().filter(|(_, mask)| *mask == Mask::MAX);
        if whole.fold(false, |changed, (slot, _)| fresh.remove(*slot) | changed) {
            fresh.put(&mut hashed.batch);
        }
        self.check_poison()?;
        self.engine.write(hashed.batch.encoded(), false).map_err(|error| self.fail(&error))?;
        *stale = fresh;
        self.tree.set_heads(hashed.heads);
        self.tree.note_hashed(segments_in(wanted) as u64, hashed.keys);
        Ok(true)
    }

    fn hash_slot(
        &self,
        slot: Slot,
        mask: Mask,
        counted: &Counted,
        keys: &mut u64,
    ) -> Result<Leaves, StorageError> {
        if mask != Mask::MAX
            && let Some(leaves) = self.hash_part(slot, mask, counted, keys)?
        {
            return Ok(leaves);
        }
        // Every prefix that has keys: at most 2^18 of them.
        let mut prefixes: Vec<(u32, RangeSum)> = Vec::new();
        let whole = PrefixRange::of_slot(slot);
        hashing::each_hash(self.engine.as_ref(), counted, whole, |prefix, hash| {
            let offset = offset_of(prefix);
            let sum = RangeSum { sum: hash, keys: 1 };
            match prefixes.last_mut().filter(|last| last.0 == offset) {
                Some(last) => last.1 += sum,
                None => prefixes.push((offset, sum)),
            }
            *keys += 1;
        })?;
        Ok(Leaves::of_prefixes(&prefixes))
    }

    /// Hashes the leaves that `mask` touches. `None` if the slot must be hashed as a whole: it is one leaf, it needs
    /// more of them, or what is stored is damaged.
    fn hash_part(
        &self,
        slot: Slot,
        mask: Mask,
        counted: &Counted,
        keys: &mut u64,
    ) -> Result<Option<Leaves>, StorageError> {
        let head = self.tree.head(slot);
        if head.depth == 0 {
            return Ok(None);
        }
        let mut leaves = match self.leaves(slot, head) {
            Ok(leaves) => leaves,
            Err(StorageError::Damaged { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        for (from, end) in leaves.empty_touched(mask) {
            hashing::each_hash(self.engine.as_ref(), counted, part(slot, from, end), |prefix, hash| {
                leaves.add(offset_of(prefix), RangeSum { sum: hash, keys: 1 });
                *keys += 1;
            })?;
        }
        leaves.shrink();
        Ok((!leaves.is_too_shallow()).then_some(leaves))
    }

    fn leaves(&self, slot: Slot, head: Head) -> Result<Leaves, StorageError> {
        let stored = if head.depth > 0 { self.engine.get(Family::Tree, &leaves_key(slot))? } else { None };
        Leaves::decode(head, stored.as_deref())
    }

    /// Adds the deletion of the marks of `wanted` up to generation `ended`.
    fn delete_marks(
        &self,
        wanted: &[(Slot, Mask)],
        ended: u64,
        batch: &mut Batch,
    ) -> Result<(), StorageError> {
        let (Some((first, _)), Some((last, _))) = (wanted.first(), wanted.last()) else { return Ok(()) };
        let start = u32::from(*first) * SEGMENTS_PER_SLOT;
        let end = (u32::from(*last) + 1) * SEGMENTS_PER_SLOT;
        let (start, end) = (start.to_be_bytes(), end.to_be_bytes());
        self.engine.walk_range(Family::Dirty, &start, Some(&end), &mut |key, _| {
            let (segment, generation) = decode_mark(key)?;
            let (slot, bit) = place_of(segment);
            let is_taken = wanted
                .binary_search_by_key(&slot, |(slot, _)| *slot)
                .is_ok_and(|at| wanted.get(at).is_some_and(|(_, mask)| mask & bit != 0));
            if is_taken && generation <= ended {
                batch.delete(Family::Dirty, key);
            }
            Ok(Step::Next)
        })
    }

    fn sum_of(&self, range: PrefixRange) -> Result<RangeSum, StorageError> {
        let mut total = RangeSum::default();
        for (slot, from, end) in range.slots() {
            let head = self.tree.head(slot);
            total += if (from, end) == (0, 1 << DEPTH_MAX) || head.sum.keys == 0 {
                head.sum
            } else {
                self.sum_of_part(slot, head, from, end)?
            };
        }
        Ok(total)
    }

    fn sum_of_part(&self, slot: Slot, head: Head, from: u32, end: u32) -> Result<RangeSum, StorageError> {
        let leaves = match self.leaves(slot, head) {
            Ok(leaves) => leaves,
            Err(StorageError::Damaged { .. }) => {
                self.tree.make_stale(&[slot], Batch::default(), |batch| self.write_document(batch))?;
                self.hash(&[(slot, Mask::MAX)])?;
                self.leaves(slot, self.tree.head(slot))?
            }
            Err(error) => return Err(error),
        };
        let (mut sum, cut) = leaves.sum_of(from, end);
        for (from, end) in cut {
            sum += hashing::sum_of(self.engine.as_ref(), &self.counted(), part(slot, from, end))?;
        }
        Ok(sum)
    }
}

/// Adds the entries of a slot's tree to `batch`, or their deletion if it is empty.
fn put_slot(batch: &mut Batch, slot: Slot, leaves: &Leaves) -> Head {
    let (head, leaves) = leaves.encode();
    let (head_key, leaves_key) = (head_key(slot), leaves_key(slot));
    if head.sum.keys == 0 {
        batch.delete(Family::Tree, &head_key);
        batch.delete(Family::Tree, &leaves_key);
        return Head::default();
    }
    let mut value = Vec::new();
    head.encode(&mut value);
    batch.put(Family::Tree, &head_key, &value);
    if head.depth > 0 {
        batch.put(Family::Tree, &leaves_key, &leaves);
    } else {
        batch.delete(Family::Tree, &leaves_key);
    }
    head
}

/// The segments of a slot that have a part in `from..end` of its offsets.
fn touched(from: u32, end: u32) -> Mask {
    let width = (1u32 << DEPTH_MAX) / SEGMENTS_PER_SLOT;
    (from / width..end.div_ceil(width)).fold(0, |mask, segment| mask | 1 << segment)
}

fn segments_in(step: &[(Slot, Mask)]) -> usize {
    step.iter().map(|(_, mask)| mask.count_ones() as usize).sum()
}

fn offset_of(prefix: u32) -> u32 {
    prefix & ((1 << DEPTH_MAX) - 1)
}

fn part(slot: Slot, from: u32, end: u32) -> PrefixRange {
    let first = PrefixRange::of_slot(slot).from;
    PrefixRange { from: first + u64::from(from), end: first + u64::from(end) }
}

#[cfg(test)]
mod tests;
