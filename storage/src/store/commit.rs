//! Commits: rows go to the engine in one batch, then into the row cache.

use std::sync::atomic::Ordering;

use super::Store;
use crate::batch::{Batch, ReadBack};
use crate::cache;
use crate::encode::{decode_row_key, decode_row_value, row_of};
use crate::error::StorageError;
use crate::key::KeyRef;
use crate::options::FsyncPolicy;

impl Store {
    /// Writes the rows of `batch`, all or none, without reading anything, and clears it.
    ///
    /// On return the rows are in the operating system's hands (on stable storage under [`FsyncPolicy::Always`]) and
    /// every read sees them. Several threads may commit at once.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`] when the write failed, or one before it. Whether the rows are stored is then
    /// unknown; nothing of them may be acknowledged.
    pub fn commit(&self, batch: &mut Batch) -> Result<(), StorageError> {
        let result = self.write(batch);
        batch.clear();
        result
    }

    fn write(&self, batch: &mut Batch) -> Result<(), StorageError> {
        self.check_poison()?;
        if batch.is_empty() {
            return Ok(());
        }
        if batch.hints().is_empty() && batch.hints_dropped() == 0 {
            return self.write_marked(batch);
        }
        // Removals look hints up before they delete them. Shared: commits with hints may overlap.
        let _order = self.hints.order.read();
        self.write_marked(batch)?;
        self.hints.note_kept(batch.hints());
        self.hints.note_dropped(batch.hints_dropped());
        Ok(())
    }

    /// Writes `batch`, and the clock mark with it if it must be raised.
    fn write_marked(&self, batch: &mut Batch) -> Result<(), StorageError> {
        if batch.newest().0 > self.clock_mark.load(Ordering::Acquire) {
            return self.write_with_mark(batch);
        }
        self.write_rows(batch)
    }

    /// As [`Store::write_rows`], raising the durable clock mark in the same batch.
    fn write_with_mark(&self, batch: &mut Batch) -> Result<(), StorageError> {
        let newest = batch.newest();
        self.raise_clock_mark(newest, batch, |batch| self.write_rows(batch))
    }

    fn write_rows(&self, batch: &mut Batch) -> Result<(), StorageError> {
        self.writes_begun.fetch_add(1, Ordering::SeqCst);
        batch.begin(&self.cache);
        let marking = self.tree.begin(batch);
        let sync = self.fsync == FsyncPolicy::Always;
        self.engine.write(batch.encoded(), sync).map_err(|error| self.fail(&error))?;
        marking.written();
        self.writes_done.fetch_add(1, Ordering::SeqCst);
        self.rows_committed.fetch_add(batch.len() as u64, Ordering::Relaxed);
        self.finish(batch);
        Ok(())
    }

    /// Takes the rows of `batch`, which are written, into the row cache, and reads back those that ask for it.
    fn finish(&self, batch: &mut Batch) {
        let mut read_back = Vec::new();
        let (scratch, chunks) = batch.staged(cache::TOUCHED_MAX);
        for chunk in chunks {
            self.cache.touch(chunk.clone().map(|staged| staged.hash));
            for staged in chunk {
                // The batch encoded these itself.
                let (Ok(parts), Ok(value)) = (decode_row_key(staged.key), decode_row_value(staged.value))
                else {
                    continue;
                };
                let position = u64::from(parts.prefix) << 32;
                let key = KeyRef { db: parts.db, key: parts.key, position };
                self.cache.finish(staged.hash, staged.begun, &row_of(key, &parts, &value), scratch);
                if staged.is_asking {
                    read_back.push(self.read_back(key, staged.hash));
                }
            }
        }
        batch.put_read_back(read_back);
    }

    /// What `key`, of which a row was just committed, holds. It hashes to `hash`; of its position the prefix is enough.
    fn read_back(&self, key: KeyRef<'_>, hash: u64) -> ReadBack {
        if let Some(record) = self.cache.peek(key, hash) {
            return ReadBack::Record(self.under_horizon(key.db, self.hide_dead(key, record)));
        }
        // Whoever reads it from disk meets the error again.
        match self.try_read(KeyRef::new(key.db, key.key)) {
            Ok(Some(record)) => ReadBack::Record(record),
            Ok(None) | Err(_) => ReadBack::Unknown { db: key.db, key: key.key.to_vec() },
        }
    }
}
