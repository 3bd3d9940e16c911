//! Mending: getting rid of a table file with a block that does not match its checksum, and of nothing else.
//!
//! RocksDB answers reads of such a block with an error, and a compaction that meets it stops all writes until the
//! database is opened again. So:
//!
//! 1. *Noting*: each error of a read, and a write that is refused because of a compaction, names the file. The latter
//!    has the database closed and opened again without compactions; the write is then repeated.
//! 2. *Saving* ([`Rocks::salvage`]): a checkpoint (hard links) is stripped of all other files and opened beside the
//!    database: whatever can be read of the damaged file is there. An entry that the database still shows is put anew.
//!    What could not be read are *gaps* between keys that could.
//! 3. *Dropping* ([`Rocks::drop_file`]): the database is closed, the file taken out of its manifest, and opened
//!    again. Nobody reads or writes for that moment.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{ColumnFamilyDescriptor, DB, DBRawIterator, LiveFile, Options, ReadOptions, WriteBatch};

use super::manifest::{self, TableFile};
use super::{Rocks, failed};
use crate::batch::Family;
use crate::encode::PREFIX_BYTES;
use crate::engine::Salvage;
use crate::error::StorageError;
use crate::stats::DamageStats;
use crate::tree::PrefixRange;

/// Entries that are put anew in one go, while nobody else reads or writes.
const CHUNK_ENTRIES: usize = 256;
const CHUNK_BYTES: usize = 1 << 20;
/// A damaged block is passed in steps of this part of the mean distance of keys, so that no block is skipped with it.
const STEPS_PER_KEY: u64 = 8;
/// The directory of the checkpoint, in that of the database.
const SCRATCH: &str = "mend";

/// What is known of damaged files.
#[derive(Debug, Default)]
pub(super) struct Damage {
    waiting: BTreeSet<u64>,
    given_up: BTreeSet<u64>,
    stats: DamageStats,
}

/// The number of the table file that an error speaks of.
pub(super) fn file_in(text: &str) -> Option<u64> {
    let before = text.get(..text.find(".sst")?)?;
    let digits = before.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
    before.get(digits..)?.parse().ok()
}

fn number_of(file: &LiveFile) -> Option<u64> {
    file_in(&file.name)
}

fn family_of(file: &LiveFile) -> Option<Family> {
    Family::ALL.into_iter().find(|family| family.name() == file.column_family_name)
}

fn table_file(file: &LiveFile) -> Option<TableFile> {
    Some(TableFile {
        family: family_of(file)? as usize,
        level: usize::try_from(file.level).ok()?,
        number: number_of(file)?,
    })
}

fn prefix_of(key: &[u8]) -> u32 {
    key.first_chunk::<PREFIX_BYTES>().map_or(0, |prefix| u32::from_be_bytes(*prefix))
}

impl Damage {
    /// Takes an error in that says that something is damaged.
    pub(super) fn note(&mut self, text: &str) {
        self.stats.errors += 1;
        if let Some(file) = file_in(text).filter(|file| !self.given_up.contains(file)) {
            self.waiting.insert(file);
        }
    }

    pub(super) fn next(&self) -> Option<u64> {
        self.waiting.first().copied()
    }

    pub(super) fn give_up(&mut self, file: u64) {
        self.waiting.remove(&file);
        self.given_up.insert(file);
    }

    fn mended(&mut self, file: u64) {
        self.waiting.remove(&file);
        self.stats.files_mended += 1;
    }

    pub(super) fn stats(&self) -> DamageStats {
        DamageStats {
            files_waiting: self.waiting.len() as u64,
            files_given_up: self.given_up.len() as u64,
            ..self.stats
        }
    }
}

impl Rocks {
    /// Puts whatever can be read of `file` anew; see the [module](self). `None` if the file is not there any more.
    pub(super) fn salvage_file(&self, file: u64) -> Result<Option<Salvage>, StorageError> {
        let Some(damaged) = self.live_file(file)? else {
            self.damage.lock().mended(file);
            return Ok(None);
        };
        let Some(family) = family_of(&damaged) else {
            return Err(StorageError::damaged(format!("file {file} is of an unknown column family")));
        };
        let mut salvage = Salvage { family, gaps: Vec::new(), entries: 0 };
        if family != Family::Rows {
            // What follows from the rows is built anew.
            return Ok(Some(salvage));
        }
        let epoch = self.epoch();
        let scratch = match self.checkpoint() {
            // A compaction has stopped flushes, too.
            Err(StorageError::Damaged { .. }) => {
                self.reopen_without_compactions(epoch)?;
                self.checkpoint()?
            }
            made => made?,
        };
        match self.open_alone(&scratch.0, file) {
            Ok(alone) => self.save_entries(&alone, &damaged, &mut salvage)?,
            // Its index, or what else is needed to open it, is damaged.
            Err(StorageError::Damaged { .. }) => salvage.gaps.push(whole(&damaged)),
            Err(error) => return Err(error),
        }
        self.database()?.flush_wal(true).map_err(failed)?;
        Ok(Some(salvage))
    }

    fn live_file(&self, file: u64) -> Result<Option<LiveFile>, StorageError> {
        let files = self.database()?.live_files().map_err(failed)?;
        Ok(files.into_iter().find(|live| number_of(live) == Some(file)))
    }

    fn checkpoint(&self) -> Result<Scratch, StorageError> {
        let scratch = Scratch::new(self.dir.join(SCRATCH))?;
        let db = self.database()?;
        let checkpoint = Checkpoint::new(&db).map_err(failed)?;
        checkpoint.create_checkpoint(&scratch.0).map_err(failed)?;
        Ok(scratch)
    }

    /// Opens the checkpoint in `dir` with no table file but `file`.
    fn open_alone(&self, dir: &Path, file: u64) -> Result<DB, StorageError> {
        let others: Vec<TableFile> = {
            let whole = self.open_read_only(dir)?;
            let files = whole.live_files().map_err(failed)?;
            files.iter().filter(|live| number_of(live) != Some(file)).filter_map(table_file).collect()
        };
        manifest::remove_files(dir, &others)?;
        self.open_read_only(dir)
    }

    fn open_read_only(&self, dir: &Path) -> Result<DB, StorageError> {
        let families = Family::ALL
            .map(|family| ColumnFamilyDescriptor::new(family.name(), self.tuned.family(family.name())));
        DB::open_cf_descriptors_read_only(&Options::default(), dir, families, false).map_err(failed)
    }

    /// Goes through the entries of the damaged file, which `alone` holds nothing but.
    fn save_entries(&self, alone: &DB, file: &LiveFile, salvage: &mut Salvage) -> Result<(), StorageError> {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        let mut saved = 0;
        let mut keep = |key: &[u8], value: &[u8]| {
            bytes += key.len() + value.len();
            chunk.push((key.to_vec(), value.to_vec()));
            if chunk.len() >= CHUNK_ENTRIES || bytes >= CHUNK_BYTES {
                saved += self.put_anew(&std::mem::take(&mut chunk))?;
                bytes = 0;
            }
            Ok(())
        };
        salvage.gaps = walk_readable(alone, file, &mut keep)?;
        salvage.entries = saved + self.put_anew(&chunk)?;
        Ok(())
    }

    /// Puts those of `entries` anew that the database shows, while nobody else reads or writes.
    fn put_anew(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<u64, StorageError> {
        let guard = self.open.write();
        let db = guard.as_ref().ok_or_else(super::closed)?;
        let mut batch = WriteBatch::default();
        for (key, value) in entries {
            // Deleted since, or put anew: the damaged file's entry is superseded. One that cannot be told is kept.
            if db.get_pinned(key).map_or(true, |shown| shown.as_deref() == Some(value)) {
                batch.put(key, value);
            }
        }
        let saved = batch.len() as u64;
        db.write_opt(batch, &self.to_os).map_err(failed)?;
        db.flush_wal(false).map_err(failed)?;
        Ok(saved)
    }

    /// Takes `file` out of the database, if it is still there.
    pub(super) fn drop_damaged(&self, file: u64) -> Result<(), StorageError> {
        let mut guard = self.open.write();
        let db = guard.as_ref().ok_or_else(super::closed)?;
        let files = db.live_files().map_err(failed)?;
        let found = files.iter().find(|live| number_of(live) == Some(file)).and_then(table_file);
        self.close(&mut guard);
        let removed = found.map_or(Ok(()), |found| manifest::remove_files(&self.dir, &[found]));
        *guard = Some(Arc::new(self.tuned.open(&self.dir, true)?));
        removed?;
        self.damage.lock().mended(file);
        Ok(())
    }

    /// A compaction has stopped all writes, when the database had been opened for the `epoch`-th time: opens it again,
    /// without compactions, unless that was done meanwhile.
    pub(super) fn reopen_without_compactions(&self, epoch: u64) -> Result<(), StorageError> {
        let mut guard = self.open.write();
        if self.epoch() == epoch {
            self.close(&mut guard);
            *guard = Some(Arc::new(self.tuned.open(&self.dir, false)?));
        }
        Ok(())
    }
}

/// The whole range of a file.
fn whole(file: &LiveFile) -> PrefixRange {
    let first = file.start_key.as_deref().map_or(0, prefix_of);
    let last = file.end_key.as_deref().map_or(u32::MAX, prefix_of);
    PrefixRange { from: u64::from(first), end: u64::from(last) + 1 }
}

/// Shows every entry that can be read of the database `alone`, which holds only `file`. Answers the gaps: ranges that hold
/// the prefix of every entry that could not be.
fn walk_readable(
    alone: &DB,
    file: &LiveFile,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), StorageError>,
) -> Result<Vec<PrefixRange>, StorageError> {
    let whole = whole(file);
    let step = ((whole.end - whole.from) / file.num_entries.max(1) / STEPS_PER_KEY).max(1);
    let options = || {
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        options.fill_cache(false);
        options
    };
    let (mut forward, mut backward) = (alone.raw_iterator_opt(options()), alone.raw_iterator_opt(options()));
    let mut gaps: Vec<PrefixRange> = Vec::new();
    let mut last: Vec<u8> = Vec::new();
    forward.seek_to_first();
    loop {
        while let Some((key, value)) = forward.item() {
            visit(key, value)?;
            last.clear();
            last.extend_from_slice(key);
            forward.next();
        }
        if forward.status().is_ok() {
            return Ok(gaps);
        }
        let from = if last.is_empty() { whole.from } else { u64::from(prefix_of(&last)) };
        let found = seek_behind(&mut forward, from + step, whole.end, step);
        let behind = found.map(|at| entries_before(&mut backward, at, &last)).unwrap_or_default();
        let first = behind.last().map(|(key, _)| key.as_slice()).or_else(|| forward.key());
        let end = first.filter(|_| found.is_some()).map_or(whole.end, |key| u64::from(prefix_of(key)) + 1);
        gaps.push(PrefixRange { from, end });
        for (key, value) in behind.iter().rev() {
            visit(key, value)?;
        }
        if found.is_none() {
            return Ok(gaps);
        }
    }
}

/// Moves `iterator` to the first prefix from `at` on, in steps, that can be sought. `None` if none before `end` can.
fn seek_behind(iterator: &mut DBRawIterator<'_>, at: u64, end: u64, step: u64) -> Option<u64> {
    let mut at = at;
    while let Some(prefix) = u32::try_from(at).ok().filter(|_| at < end) {
        iterator.seek(prefix.to_be_bytes());
        if iterator.status().is_ok() {
            return Some(at);
        }
        at += step;
    }
    None
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

/// A directory that is gone when this is.
struct Scratch(PathBuf);

impl Scratch {
    fn new(dir: PathBuf) -> Result<Scratch, StorageError> {
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StorageError::Failed { what: format!("{}: {error}", dir.display()) })
            }
            _ => Ok(Scratch(dir)),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_their_file() {
        let text = "Corruption: block checksum mismatch: stored(context removed) = 7, computed = 8, type = 4  in \
                    /data/x/000123.sst offset 77 size 4096";
        assert_eq!(file_in(text), Some(123));
        assert_eq!(file_in("/000010.sst"), Some(10));
        assert_eq!(file_in("Corruption: bad entry in block"), None);
        assert_eq!(file_in("x.sst"), None);
    }
}
