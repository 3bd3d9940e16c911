//! Sweeping: expired rows become tombstones of the same version, and their values are freed.
//!
//! The expiry index has an entry for each row that was written with an expiry, in order of time, so a pass touches what
//! is due and nothing else. An entry goes in the batch that settles it:
//!
//! - the row is the newest of its cell: a tombstone of the same version and expiry takes its place, under the same row
//!   key. Every replica does so for itself and comes to the same bytes;
//! - the row holds siblings: those that have expired lose their values, and the row stays as it is otherwise. The next of
//!   them that expires gives it an entry again;
//! - it is superseded, or no longer there: nothing else to do;
//! - it was swept before (its value was delivered once more and swept in between): nothing else to do.
//!
//! A batch that puts a value with an expiry puts its entry, so however deliveries and sweeps are interleaved, a value in
//! the engine has an entry and will be swept. For readers the tombstone and the expired value are the same, and so they
//! are for digests, which cover versions only. Sweeps need not be durable: what a crash undoes is done again.

use std::collections::BTreeSet;

use super::Store;
use super::handoff::PASS_TRIES_MAX;
use crate::batch::Batch;
use crate::encode::{decode_row_key, decode_row_value, put_key, row_of};
use crate::engine::{Step, Tier};
use crate::error::StorageError;
use crate::expiry::{self, Due};
use crate::family::Family;
use crate::key::KeyRef;
use crate::row::{Body, Row};
use crate::siblings::SiblingSet;
use crate::version::{UnixMillis, Version};

/// How far a pass over the due part of the expiry index has come. [`SweepPass::default`] begins one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepPass {
    /// The last entry that was looked at; empty at the beginning.
    after: Vec<u8>,
}

/// What one step of a pass came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepStep {
    /// Index entries that were due.
    pub due: usize,
    /// Rows that became tombstones, or of which siblings were swept.
    pub swept: usize,
    /// Bytes of the values that were freed.
    pub bytes_freed: u64,
    /// Entries left to the next pass, since their keys were being written.
    pub busy: usize,
    /// When the first of the entries expired.
    pub oldest: Option<UnixMillis>,
    /// Where to go on; `None` when nothing that is due is left of the pass.
    pub next: Option<SweepPass>,
}

impl Store {
    /// Looks at the next `limit` entries of the expiry index that are due at `now` and sweeps them, in one batch. For a
    /// thread that may block, one call at a time.
    ///
    /// `now` should lie behind the wall clock by as much as clocks may differ: a reader whose clock is slow may still be
    /// shown what is not swept.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`], [`StorageError::Failed`] or [`StorageError::Damaged`] from the engine.
    pub fn sweep(&self, pass: SweepPass, now: UnixMillis, limit: usize) -> Result<SweepStep, StorageError> {
        self.check_poison()?;
        let (due, after) = expiry::due(self.engine.as_ref(), pass.after, now, limit)?;
        let mut step = SweepStep {
            due: due.len(),
            oldest: due.first().map(|due| due.expiry),
            next: (due.len() >= limit).then_some(SweepPass { after }),
            ..SweepStep::default()
        };
        let begun: Vec<&Due> = self.begin_sweeping(&due);
        step.busy = due.len() - begun.len();
        let result = self.sweep_begun(&begun, now, &mut step);
        for due in begun {
            let key = KeyRef::new(due.db, &due.key);
            self.cache.remove(key.hash64(), key);
        }
        result.map(|()| step)
    }

    /// Those of `due` whose place in the cache could be had alone, so that nothing else of their keys is being removed.
    fn begin_sweeping<'a>(&self, due: &'a [Due]) -> Vec<&'a Due> {
        let mut held = BTreeSet::new();
        let begins = |due: &&Due| {
            let hash = KeyRef::new(due.db, &due.key).hash64();
            let place = self.cache.place(hash);
            if held.contains(&place) {
                self.cache.begin(hash, true);
                return true;
            }
            let is_begun = self.begin_alone(hash, PASS_TRIES_MAX);
            if is_begun {
                held.insert(place);
            }
            is_begun
        };
        due.iter().filter(begins).collect()
    }

    fn sweep_begun(&self, begun: &[&Due], now: UnixMillis, step: &mut SweepStep) -> Result<(), StorageError> {
        let mut batch = Batch::default();
        for due in begun {
            // Before the row, which may put the next one.
            let mut entry = Vec::new();
            expiry::put_due(&mut entry, due);
            batch.delete(Family::Expiry, &entry);
            if let Some(freed) = self.sweep_row(due, now, &mut batch)? {
                step.swept += 1;
                step.bytes_freed += freed;
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.write_row_removal(&mut batch)
    }

    /// Adds what is left of the row of `due` at `now` to `batch`, if that is the newest of its cell and has a value that
    /// expired and was not swept. Answers how many bytes that frees.
    fn sweep_row(&self, due: &Due, now: UnixMillis, batch: &mut Batch) -> Result<Option<u64>, StorageError> {
        let key = KeyRef::new(due.db, &due.key);
        let mut start = Vec::new();
        put_key(&mut start, key);
        let mut freed = None;
        self.engine.walk_key(&start, Tier::Disk, &mut |row_key, row_value| {
            let parts = decode_row_key(row_key)?;
            if parts.cell != due.cell {
                return Ok(Step::NextCell);
            }
            let row = row_of(key, &parts, &decode_row_value(row_value)?);
            if row.version != due.version {
                return Ok(Step::Stop);
            }
            match row.body {
                Body::Value(bytes) => {
                    batch.sweep(&Row { body: Body::Tombstone, ..row });
                    freed = Some(bytes.len() as u64);
                }
                Body::Siblings { base, set } => freed = sweep_siblings(&row, base, set, now, batch)?,
                Body::Tombstone | Body::Counter { .. } => {}
            }
            Ok(Step::Stop)
        })?;
        Ok(freed)
    }
}

/// Adds `row`, a sibling row, without the values that have expired at `now`.
fn sweep_siblings(
    row: &Row<'_>,
    base: Version,
    set: &[u8],
    now: UnixMillis,
    batch: &mut Batch,
) -> Result<Option<u64>, StorageError> {
    let mut set =
        SiblingSet::decode(set).map_err(|_| StorageError::damaged("a row's siblings do not parse"))?;
    let Some(freed) = set.sweep(now) else { return Ok(None) };
    let mut left = Vec::new();
    set.encode(&mut left);
    batch.sweep(&Row { body: Body::Siblings { base, set: &left }, ..*row });
    Ok(Some(freed as u64))
}
