//! The store's small documents: those of its users, by name, and its clock mark.

use std::sync::atomic::Ordering;

use super::Store;
use crate::batch::Batch;
use crate::error::StorageError;
use crate::family::Family;
use crate::options::FsyncPolicy;
use crate::version::Hlc;

pub(super) const META_CLOCK_MARK: &str = "storage.clock_mark";
/// Documents of the store's users carry this, so that they cannot meet the store's own.
const META_USER_PREFIX: &str = "user.";

/// How far the clock mark is put ahead of the rows that push it: once in so many milliseconds a commit moves it.
const CLOCK_MARK_LEAD_MS: u64 = 400;

impl Store {
    /// The document `name`, if it was ever put.
    pub fn meta_get(&self, name: &str) -> Result<Option<Vec<u8>>, StorageError> {
        self.engine.get(Family::Meta, [META_USER_PREFIX, name].concat().as_bytes())
    }

    /// Puts the document `name`, on stable storage before it returns. For small things: identity, topology, clock.
    pub fn meta_put(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        self.put_document(&[META_USER_PREFIX, name].concat(), bytes)
    }

    fn put_document(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        let mut batch = Batch::default();
        batch.put_meta(name, bytes);
        self.write_document(&mut batch)
    }

    pub(super) fn write_document(&self, batch: &mut Batch) -> Result<(), StorageError> {
        self.check_poison()?;
        self.engine.write(batch.encoded(), true).map_err(|error| self.fail(&error))
    }

    /// Sees to it that the clock mark is not behind `hlc`, as durably as a commit makes a row: for what this node has
    /// stamped and others store. Writes only if it is behind, so a few times a second at most.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn cover(&self, hlc: Hlc) -> Result<(), StorageError> {
        if hlc <= self.clock_mark() {
            return Ok(());
        }
        self.check_poison()?;
        let sync = self.fsync == FsyncPolicy::Always;
        self.raise_clock_mark(hlc, &mut Batch::default(), |batch| {
            self.engine.write(batch.encoded(), sync).map_err(|error| self.fail(&error))
        })
    }

    /// A clock value that no row in the store exceeds, less than half a second ahead of the newest. A node that stamps only
    /// later ones never repeats a version, whatever its wall clock does.
    #[must_use]
    pub fn clock_mark(&self) -> Hlc {
        Hlc(self.clock_mark.load(Ordering::Acquire))
    }

    /// Puts a clock mark ahead of `hlc` into `batch`; it holds once `write` has written that.
    pub(super) fn raise_clock_mark(
        &self,
        hlc: Hlc,
        batch: &mut Batch,
        write: impl FnOnce(&mut Batch) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let _exclusive = self.documents.lock();
        let mark = hlc.0.saturating_add(CLOCK_MARK_LEAD_MS << 16).max(self.clock_mark().0);
        batch.put_meta(META_CLOCK_MARK, &mark.to_be_bytes());
        write(batch)?;
        self.clock_mark.store(mark, Ordering::Release);
        Ok(())
    }
}
