//! The store's part of purging: horizons, hiding what is dead, and removing it.

use super::Store;
use super::handoff::{PASS_TRIES_MAX, delete_rows};
use crate::batch::Batch;
use crate::engine::Tier;
use crate::error::StorageError;
use crate::key::{KeyRef, Slot};
use crate::purge::PurgeHorizon;
use crate::record::Record;
use crate::row::{Body, Cell, Row};
use crate::scan::{self, Range};
use crate::tree::PrefixRange;
use crate::version::Hlc;

/// What a step of purging came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PurgeStep {
    /// Keys passed.
    pub looked_at: usize,
    /// Dead keys removed.
    pub keys: usize,
    /// Rows removed, void counter and sibling cells of live keys included.
    pub rows: usize,
    /// Keys left alone, since they were being written or have hints.
    pub busy: usize,
    /// The prefix to go on from; `None` when the slot is done.
    pub next: Option<u64>,
}

impl Store {
    /// How far the purging of `slot` has come.
    #[must_use]
    pub fn purge_horizon(&self, slot: Slot) -> PurgeHorizon {
        self.purge.of(slot)
    }

    /// Raises the horizons of slots: durable on return, and in force for every read from then on. No part of one ever
    /// falls, and none passes the step before it. The trees of slots that hide more are hashed anew.
    pub fn raise_purge_horizons(&self, raised: &[(Slot, PurgeHorizon)]) -> Result<(), StorageError> {
        let _exclusive = self.documents.lock();
        let mut batch = Batch::default();
        let Some((merged, hiding)) = self.purge.merged_with(raised, &mut batch) else { return Ok(()) };
        self.tree.make_stale(&hiding, batch, |batch| {
            self.write_document(batch)?;
            self.purge.store(merged);
            Ok(())
        })
    }

    /// `record` of `key` as it is shown: what is dead at the slot's horizon is hidden.
    pub(super) fn hide_dead(&self, key: KeyRef<'_>, record: Record) -> Record {
        // Reads of what lives, which are most, do not look at horizons.
        if !record.may_be_dead() {
            return record;
        }
        let horizon = self.purge.of(key.slot());
        let shown = record.without_dead(horizon.hidden);
        // Until all replicas hide it a ghost is shown: an increment must not begin at nothing.
        if shown.is_ghost() && record.is_dead_at(horizon.counted) { Record::ABSENT } else { shown }
    }

    /// Removes what is dead at the slot's horizon: of about `keys_max` keys from the prefix `from` on (the slot's first
    /// if `None`), all rows of those that are dead, in one batch; and counter and sibling cells that are void.
    /// To go on, call it with [`PurgeStep::next`]. For a thread that may block, one call at a time.
    pub fn purge(&self, slot: Slot, from: Option<u64>, keys_max: usize) -> Result<PurgeStep, StorageError> {
        self.check_poison()?;
        let horizon = self.purge.of(slot).purged;
        let whole = PrefixRange::of_slot(slot);
        let from = from.map_or(whole.from, |from| from.max(whole.from));
        if horizon == Hlc::ZERO || from >= whole.end {
            return Ok(PurgeStep::default());
        }
        let range = Range { db: None, from, end: whole.end, with_values: false };
        let mut step = PurgeStep::default();
        let mut doomed: Vec<(u8, Vec<u8>)> = Vec::new();
        step.next = scan::each_key(self.engine.as_ref(), range, &|_, _| true, &mut |seen| {
            step.looked_at = seen.keys;
            if let Some((db, key, record)) = seen.found
                && has_purgeable(&record, seen.sibling_cells, horizon)
            {
                doomed.push((db, key.to_vec()));
            }
            seen.keys < keys_max
        })?;
        self.purge_keys(&doomed, horizon, &mut step)?;
        Ok(step)
    }

    /// Purges in slot after slot, each from its prefix on, until about `keys_max` keys were looked at. Answers what came of
    /// those that it came to. For a thread that may block, one call at a time.
    ///
    /// # Errors
    /// As [`Store::purge`], if that is so of the first slot; another one ends the step.
    pub fn purge_slots(
        &self,
        slots: &[(Slot, Option<u64>)],
        keys_max: usize,
    ) -> Result<Vec<PurgeStep>, StorageError> {
        let (mut steps, mut keys) = (Vec::new(), 0);
        for &(slot, from) in slots {
            if keys >= keys_max {
                break;
            }
            match self.purge(slot, from, keys_max - keys) {
                Ok(step) => {
                    keys += step.looked_at;
                    steps.push(step);
                }
                Err(error) if steps.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(steps)
    }

    fn purge_keys(
        &self,
        doomed: &[(u8, Vec<u8>)],
        horizon: Hlc,
        step: &mut PurgeStep,
    ) -> Result<(), StorageError> {
        for (db, name) in doomed {
            let key = KeyRef::new(*db, name);
            let hash = key.hash64();
            let _order = self.hints.order.write();
            if self.hints.has_any(hash) || !self.begin_alone(hash, PASS_TRIES_MAX) {
                step.busy += 1;
                continue;
            }
            let result = self.purge_key(key, horizon, step);
            self.cache.remove(hash, key);
            result?;
        }
        Ok(())
    }

    /// Removes the rows of `key` that are dead, or void, at `horizon`. The key's rows are all finished.
    fn purge_key(&self, key: KeyRef<'_>, horizon: Hlc, step: &mut PurgeStep) -> Result<(), StorageError> {
        let Some(record) = crate::read::newest(self.engine.as_ref(), key, Tier::Disk)? else { return Ok(()) };
        let is_dead = record.is_dead_at(horizon);
        let mut batch = Batch::default();
        let rows = delete_rows(self.engine.as_ref(), key, &mut batch, |row| {
            row.version.hlc <= horizon && (is_dead || is_void(row, &record))
        })?;
        if batch.is_empty() {
            return Ok(());
        }
        self.write_row_removal(&mut batch)?;
        step.rows += rows;
        step.keys += usize::from(is_dead);
        Ok(())
    }
}

/// Whether purging has something to do with a key of `record`.
fn has_purgeable(record: &Record, sibling_cells: usize, horizon: Hlc) -> bool {
    let base = record.base();
    record.is_dead_at(horizon)
        || sibling_cells > record.kept_sibling_cells()
        || record.counters().any(|cell| cell.base < base && cell.version.hlc <= horizon)
}

/// Whether `row` is of a cell that says nothing beside the rest of the key's `record`: of a counter that counts on an
/// older register, or of siblings that newer ones have replaced or seen. (Whoever owns such a cell stamps its next row
/// after any horizon, and finds what it must go on from in the cells that made it void.)
fn is_void(row: &Row<'_>, record: &Record) -> bool {
    match (row.cell, row.body) {
        (Cell::Counter { .. }, Body::Counter { base, .. }) => base < record.base(),
        (Cell::Siblings { actor }, _) => !record.keeps_siblings_of(actor),
        _ => false,
    }
}
