//! A copy of a database without some of its files, beside it: how a damaged file is looked at by itself, and what others
//! hold without it.

use std::fs;
use std::path::{Path, PathBuf};

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{ColumnFamilyDescriptor, DB, DBRawIterator, LiveFile, Options, ReadOptions};

use super::flushing::flushing;
use super::mend::{number_of, table_file};
use super::{Rocks, crash, failed, manifest};
use crate::encode::PREFIX_BYTES;
use crate::engine::{Step, Visit};
use crate::error::StorageError;
use crate::family::Family;
use crate::tree::PrefixRange;

/// A damaged block is passed in steps of this part of the mean distance of keys, so that no block is skipped with it.
const STEPS_PER_KEY: u64 = 8;
/// The directory of the checkpoint, in that of the database.
const SCRATCH: &str = "mend";

/// A directory that is gone when this is.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// The place for one in the database's directory `dir`, with nothing there.
    pub(super) fn new(dir: &Path) -> Result<Scratch, StorageError> {
        let dir = dir.join(SCRATCH);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StorageError::Failed { what: format!("{}: {error}", dir.display()) })
            }
            _ => Ok(Scratch(dir)),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Rocks {
    /// Hard links to all files of the database as it is now.
    pub(super) fn checkpoint(&self) -> Result<Scratch, StorageError> {
        let scratch = Scratch::new(&self.dir)?;
        let epoch = self.epoch();
        match self.checkpoint_in(&scratch) {
            // A compaction has stopped flushes, too.
            Err(StorageError::Damaged { .. }) => {
                self.reopen_without_compactions(epoch)?;
                let _ = fs::remove_dir_all(&scratch.0);
                self.checkpoint_in(&scratch)?;
            }
            made => made?,
        }
        crash::point("checkpoint");
        Ok(scratch)
    }

    fn checkpoint_in(&self, scratch: &Scratch) -> Result<(), StorageError> {
        let db = self.database()?;
        let checkpoint = Checkpoint::new(&db).map_err(failed)?;
        flushing(&db, || checkpoint.create_checkpoint(&scratch.0)).map_err(failed)
    }

    /// Opens a checkpoint with no table files but those whose number `is_kept`. It goes before the checkpoint does.
    pub(super) fn open_apart(
        &self,
        scratch: &Scratch,
        is_kept: impl Fn(u64) -> bool,
    ) -> Result<DB, StorageError> {
        let others: Vec<_> = {
            // Only to list its files; one that cannot be opened is no reason to fail.
            let whole = self.open_read_only(&scratch.0, false)?;
            let files = whole.live_files().map_err(failed)?;
            let is_other = |live: &&LiveFile| number_of(live).is_some_and(|number| !is_kept(number));
            files.iter().filter(is_other).filter_map(table_file).collect()
        };
        manifest::remove_files(&scratch.0, &others)?;
        crash::point("stripped");
        self.open_read_only(&scratch.0, true)
    }

    fn open_read_only(&self, dir: &Path, with_checks: bool) -> Result<DB, StorageError> {
        let mut options = Options::default();
        options.set_paranoid_checks(with_checks);
        let families = Family::ALL
            .map(|family| ColumnFamilyDescriptor::new(family.name(), self.tuned.family(family.name())));
        DB::open_cf_descriptors_read_only(&options, dir, families, false).map_err(failed)
    }
}

fn prefix_of(key: &[u8]) -> u32 {
    key.first_chunk::<PREFIX_BYTES>().map_or(0, |prefix| u32::from_be_bytes(*prefix))
}

/// The prefixes of a file of rows.
pub(super) fn range_of(file: &LiveFile) -> PrefixRange {
    let first = file.start_key.as_deref().map_or(0, prefix_of);
    let last = file.end_key.as_deref().map_or(u32::MAX, prefix_of);
    PrefixRange { from: u64::from(first), end: u64::from(last) + 1 }
}

/// A walk over the rows of a database that passes what cannot be read.
pub(super) struct Passage<'db> {
    db: &'db DB,
    range: PrefixRange,
    step: u64,
}

impl Passage<'_> {
    /// Over `range`, which has about so many `keys`.
    pub(super) fn new(db: &DB, range: PrefixRange, keys: u64) -> Passage<'_> {
        let step = ((range.end - range.from) / keys.max(1) / STEPS_PER_KEY).max(1);
        Passage { db, range, step }
    }

    /// Over a part of it only.
    pub(super) fn within(self, range: PrefixRange) -> Self {
        Passage { range, ..self }
    }

    fn iterator(&self) -> DBRawIterator<'_> {
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        options.fill_cache(false);
        self.db.raw_iterator_opt(options)
    }

    /// Shows every entry that can be read. Answers the gaps: ranges that hold the prefix of every entry that could not be.
    pub(super) fn walk(&self, visit: &mut Visit<'_>) -> Result<Vec<PrefixRange>, StorageError> {
        let PrefixRange { from, end } = self.range;
        let mut gaps: Vec<PrefixRange> = Vec::new();
        let Ok(first) = u32::try_from(from) else { return Ok(gaps) };
        let (mut forward, mut backward) = (self.iterator(), self.iterator());
        let mut last = first.to_be_bytes().to_vec();
        forward.seek(&last);
        loop {
            while let Some((key, value)) = forward.item().filter(|(key, _)| u64::from(prefix_of(key)) < end) {
                if visit(key, value)? == Step::Stop {
                    return Ok(gaps);
                }
                last.clear();
                last.extend_from_slice(key);
                forward.next();
            }
            if forward.status().is_ok() {
                return Ok(gaps);
            }
            let from = u64::from(prefix_of(&last));
            let found = self.seek_behind(&mut forward, from + self.step);
            let behind = found.map(|at| entries_before(&mut backward, at, &last)).unwrap_or_default();
            let first = behind.last().map(|(key, _)| key.as_slice()).or_else(|| forward.key());
            let until = first.filter(|_| found.is_some()).map_or(end, |key| u64::from(prefix_of(key)) + 1);
            gaps.push(PrefixRange { from, end: until.min(end) });
            for (key, value) in behind.iter().rev() {
                if visit(key, value)? == Step::Stop {
                    return Ok(gaps);
                }
            }
            if found.is_none() {
                return Ok(gaps);
            }
        }
    }

    /// Moves `iterator` to the first prefix from `at` on, in steps, that can be sought. `None` if there is none.
    fn seek_behind(&self, iterator: &mut DBRawIterator<'_>, at: u64) -> Option<u64> {
        let mut at = at;
        while let Some(prefix) = u32::try_from(at).ok().filter(|_| at < self.range.end) {
            iterator.seek(prefix.to_be_bytes());
            if iterator.status().is_ok() {
                return Some(at);
            }
            at += self.step;
        }
        None
    }
}

/// The entries before prefix `at` that can be read going backwards, as far as those behind `last`, in that order.
fn entries_before(iterator: &mut DBRawIterator<'_>, at: u64, last: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let Ok(prefix) = u32::try_from(at) else { return found };
    iterator.seek_for_prev(prefix.to_be_bytes());
    while let Some((key, value)) = iterator.item().filter(|(key, _)| *key > last) {
        found.push((key.to_vec(), value.to_vec()));
        iterator.prev();
    }
    found
}
