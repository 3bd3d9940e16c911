//! The store's part of hinted handoff: keeping hints, paging through them, removing them, and forgetting the rows that
//! were kept for others.

use std::sync::atomic::Ordering;

use super::Store;
use crate::batch::Batch;
use crate::encode::{decode_row_key, decode_row_value, put_expiry_key, put_key, row_of};
use crate::engine::{Engine, Step, Tier};
use crate::error::StorageError;
use crate::family::Family;
use crate::hints::{self, ExpiryPass, Hint, HintCounts, HintStats};
use crate::key::{KeyRef, Slot};
use crate::record::Record;
use crate::row::Row;
use crate::unsound::Ranges;
use crate::version::{Hlc, Version};

/// How often forgetting looks for a moment without commits of its key's slot of the cache.
pub(super) const QUIET_TRIES_MAX: usize = 10_000;
/// The same of purging and sweeping, which leave a key to their next pass.
pub(super) const PASS_TRIES_MAX: usize = 200;

impl Store {
    /// Adds a hint to `batch`: node `target` misses the row of `key` of version `missed`. If the hints take as much as
    /// they may, or `target` is [closed](Store::close_hints), counts it as dropped and marks the slot instead. Answers
    /// whether the hint is kept. Reads nothing.
    pub fn hint(&self, batch: &mut Batch, target: u64, key: KeyRef<'_>, missed: Version) -> bool {
        self.hints.stage(batch, target, key, missed)
    }

    /// Up to `limit` hints of `target` behind `after` (from the first on, if that is `None`), in order of position. May
    /// touch the disk.
    pub fn hints_page(
        &self,
        target: u64,
        after: Option<&Hint>,
        limit: usize,
    ) -> Result<Vec<Hint>, StorageError> {
        hints::page(self.engine.as_ref(), target, after, limit)
    }

    /// Removes those of `replayed` that are still what they were: one that was kept anew meanwhile stays. Answers how
    /// many went. May touch the disk.
    pub fn drop_hints(&self, target: u64, replayed: &[Hint]) -> Result<usize, StorageError> {
        self.check_poison()?;
        let _order = self.hints.order.write();
        let (mut batch, mut gone, mut name) = (Batch::default(), Vec::new(), Vec::new());
        for hint in replayed {
            name.clear();
            hints::put_key(&mut name, target, hint.key());
            let value = self.engine.get(Family::Hints, &name)?;
            if value.as_deref() == Some(&Hint::value(hint.missed, hint.stamp)[..]) {
                batch.delete(Family::Hints, &name);
                gone.push((target, hint.clone()));
            }
        }
        self.write_removal(&mut batch)?;
        self.hints.note_removed(&gone, false);
        Ok(gone.len())
    }

    /// Looks at the next `limit` hints of a pass over all and removes those of rows older than `before`, marking their
    /// slots in the same batch. `None` when the pass is complete: begin the next one with [`ExpiryPass::default`].
    pub fn expire_hints(
        &self,
        mut pass: ExpiryPass,
        before: Hlc,
        limit: usize,
    ) -> Result<Option<ExpiryPass>, StorageError> {
        self.check_poison()?;
        let _order = self.hints.order.write();
        let hints = hints::next_of_pass(self.engine.as_ref(), &mut pass, limit)?;
        let is_last = hints.len() < limit;
        let (mut batch, mut gone) = (Batch::default(), Vec::new());
        for (target, hint) in hints {
            if hint.missed >= before {
                pass.keep(target, hint.missed);
                continue;
            }
            let mut name = Vec::new();
            hints::put_key(&mut name, target, hint.key());
            batch.delete(Family::Hints, &name);
            batch.mark(hint.key().slot(), hint.missed);
            gone.push((target, hint));
        }
        self.write_removal(&mut batch)?;
        self.hints.note_removed(&gone, true);
        if is_last {
            self.hints.note_oldest(pass.oldest());
        }
        Ok((!is_last).then_some(pass))
    }

    /// From now on no hint is kept for `target` (or is again): it is down for longer than hints are good for.
    pub fn close_hints(&self, target: u64, is_closed: bool) {
        self.hints.set_closed(target, is_closed);
    }

    /// How many bytes hints may take, about, from now on.
    pub fn set_hint_bytes_max(&self, bytes_max: u64) {
        self.hints.set_bytes_max(bytes_max);
    }

    /// The nodes that there are hints for, by id.
    #[must_use]
    pub fn hint_stats(&self) -> Vec<HintStats> {
        self.hints.stats()
    }

    /// What has become of hints.
    #[must_use]
    pub fn hint_counts(&self) -> HintCounts {
        self.hints.counts()
    }

    /// The slots of which some node may miss rows that no hint names, ascending, each with the clock of the newest such
    /// row: for anti-entropy.
    pub fn marked_slots(&self) -> Result<Vec<(Slot, Hlc)>, StorageError> {
        hints::marks(self.engine.as_ref())
    }

    /// Marks slots: some node misses rows of them up to these clocks, as another node knows.
    pub fn mark_slots(&self, marks: &[(Slot, Hlc)]) -> Result<(), StorageError> {
        self.check_poison()?;
        let mut batch = Batch::default();
        marks.iter().for_each(|(slot, clock)| batch.mark(*slot, *clock));
        let _order = self.hints.order.read();
        self.write_removal(&mut batch)
    }

    /// Removes marks, as they were listed, after their slots were exchanged; one that was set anew meanwhile, by a
    /// commit that is done, stays. Whatever was lost of these slots has come back: they can be read again.
    pub fn clear_marks(&self, marks: &[(Slot, Hlc)]) -> Result<(), StorageError> {
        self.check_poison()?;
        let _order = self.hints.order.write();
        let mut batch = Batch::default();
        let unsound = self.unsound.all();
        let mut left = Ranges::clone(&unsound);
        for (slot, clock) in marks {
            let name = hints::mark_name(*slot);
            let value = self.engine.get(Family::Meta, name.as_bytes())?;
            if value.as_deref() == Some(&clock.0.to_be_bytes()[..]) {
                batch.delete(Family::Meta, name.as_bytes());
                left = left.without_slot(*slot);
            }
        }
        if left == *unsound {
            return self.write_removal(&mut batch);
        }
        left.put(&mut batch);
        self.write_removal(&mut batch)?;
        self.unsound.store(left);
        Ok(())
    }

    /// Removes the rows of `key` that `record` covers (those in it and the older ones of its cells), with their entries
    /// in the expiry index. Rows that are newer than `record` stay. Nothing is done while there is still a hint of the
    /// key, or in the rare case that commits leave no moment for it. Answers whether rows were removed. May touch the
    /// disk.
    ///
    /// For rows that this node has kept for others, once these have them.
    pub fn forget(&self, key: KeyRef<'_>, record: &Record) -> Result<bool, StorageError> {
        self.check_poison()?;
        let _order = self.hints.order.write();
        if self.hints.has_any(key.hash64()) {
            return Ok(false);
        }
        if !self.begin_alone(key.hash64(), QUIET_TRIES_MAX) {
            return Ok(false);
        }
        let result = self.delete_covered(key, record);
        self.cache.remove(key.hash64(), key);
        if matches!(result, Ok(true)) {
            self.hints.note_forgotten();
        }
        result
    }

    /// Waits, for a bounded time, until no commit of the key's neighbours in the cache is under way. `true`: the key is
    /// begun.
    pub(super) fn begin_alone(&self, hash: u64, tries: usize) -> bool {
        (0..tries).any(|_| {
            let is_begun = self.cache.begin_alone(hash);
            if !is_begun {
                std::hint::spin_loop();
            }
            is_begun
        })
    }

    fn delete_covered(&self, key: KeyRef<'_>, record: &Record) -> Result<bool, StorageError> {
        let mut batch = Batch::default();
        delete_rows(self.engine.as_ref(), key, &mut batch, |row| record.covers(row))?;
        if batch.is_empty() {
            return Ok(false);
        }
        let marking = self.tree.begin(&mut batch);
        self.write_row_removal(&mut batch)?;
        marking.written();
        Ok(true)
    }

    /// As [`Store::write_removal`], of rows: whoever has read ahead reads them anew.
    pub(super) fn write_row_removal(&self, batch: &mut Batch) -> Result<(), StorageError> {
        self.writes_begun.fetch_add(1, Ordering::SeqCst);
        self.write_removal(batch)?;
        self.writes_done.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Writes deletions. They need not be durable: what they removed may come back and is then removed again.
    pub(super) fn write_removal(&self, batch: &mut Batch) -> Result<(), StorageError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.engine.write(batch.encoded(), false).map_err(|error| self.fail(&error))
    }
}

/// Adds the deletion of every row of `key` that `is_doomed`, and of its entry in the expiry index, to `batch`. Answers how
/// many rows these are.
pub(super) fn delete_rows(
    engine: &dyn Engine,
    key: KeyRef<'_>,
    batch: &mut Batch,
    is_doomed: impl Fn(&Row<'_>) -> bool,
) -> Result<usize, StorageError> {
    let mut start = Vec::new();
    put_key(&mut start, key);
    let mut rows = 0;
    engine.walk_key(&start, Tier::Disk, &mut |row_key, value| {
        let parts = decode_row_key(row_key)?;
        let row = row_of(key, &parts, &decode_row_value(value)?);
        if parts.key_bytes == start.len() && is_doomed(&row) {
            rows += 1;
            batch.delete(Family::Rows, row_key);
            if let Some(at) = row.due_at() {
                let mut entry = Vec::new();
                put_expiry_key(&mut entry, at, &row);
                batch.delete(Family::Expiry, &entry);
            }
        }
        Ok(Step::Next)
    })?;
    Ok(rows)
}
