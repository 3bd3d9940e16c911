//! Mending: getting rid of a table file with a block that does not match its checksum, and of nothing else.
//!
//! RocksDB answers reads of such a block with an error, and a compaction that meets it stops all writes until the
//! database is opened again. So:
//!
//! 1. *Noting*: each error of a read, and a write that is refused because of a compaction, names the file. The latter
//!    has the database closed and opened again without compactions; the write is then repeated.
//! 2. *Saving* ([`Rocks::salvage_file`]): a checkpoint (hard links) is stripped of all other files and opened beside the
//!    database ([`apart`](super::apart)): whatever can be read of the damaged file is there. An entry that the database
//!    still shows is put anew. What could not be read are *gaps* between keys that could.
//!    Deletions cannot be read, but what they delete can: it is in a checkpoint stripped of the damaged file alone, and
//!    the database does not show it. It is deleted anew.
//! 3. *Dropping* ([`Rocks::drop_damaged`]): the database is closed, the file taken out of its manifest, and opened
//!    again. Nobody reads or writes for that moment.
//!
//! A crash at any moment leaves the file there, with some of its entries put twice, or gone, with all of them saved.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::sync::Arc;

use rocksdb::{DB, LiveFile, WriteBatch, properties};

use super::apart::{Passage, range_of};
use super::crash;
use super::manifest::{self, TableFile};
use super::{Rocks, failed};
use crate::engine::{Salvage, Step, Visit};
use crate::error::StorageError;
use crate::family::Family;
use crate::scan::PREFIX_END;
use crate::stats::DamageStats;
use crate::tree::PrefixRange;

/// Entries that are put anew in one go, while nobody else reads or writes.
const CHUNK_ENTRIES: usize = 256;
const CHUNK_BYTES: usize = 1 << 20;
const AGGREGATED_TABLE_PROPERTIES: &CStr = c"rocksdb.aggregated-table-properties";

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

pub(super) fn number_of(file: &LiveFile) -> Option<u64> {
    file_in(&file.name)
}

fn family_of(file: &LiveFile) -> Option<Family> {
    Family::ALL.into_iter().find(|family| family.name() == file.column_family_name)
}

pub(super) fn table_file(file: &LiveFile) -> Option<TableFile> {
    Some(TableFile {
        family: family_of(file)? as usize,
        level: usize::try_from(file.level).ok()?,
        number: number_of(file)?,
    })
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
    /// `file`, if the database can be opened again without it. A file that was opened while it was sound may have lost what
    /// it takes to open it since; then that one, if its going is enough.
    pub(super) fn first_unopenable(&self, file: u64) -> Result<u64, StorageError> {
        let rehearse = |file| self.open_apart(&self.checkpoint()?, |number| number != file).map(drop);
        let Err(error) = rehearse(file) else { return Ok(file) };
        let other = match &error {
            StorageError::Damaged { what } => file_in(what).filter(|other| *other != file),
            _ => None,
        };
        let other = other.ok_or(error)?;
        rehearse(other).map(|()| other)
    }

    /// Puts whatever can be read of `file` anew; see the [module](self). `None` if the file is not there any more.
    pub(super) fn salvage_file(&self, file: u64) -> Result<Option<Salvage>, StorageError> {
        let Some(damaged) = self.live_file(file)? else {
            self.damage.lock().mended(file);
            return Ok(None);
        };
        let Some(family) = family_of(&damaged) else {
            return Err(StorageError::damaged(format!("file {file} is of an unknown column family")));
        };
        let path = self.dir.join(damaged.name.trim_start_matches('/')).display().to_string();
        let mut salvage = Salvage { path, family, gaps: Vec::new(), entries: 0 };
        if family != Family::Rows {
            // What follows from the rows is built anew.
            return Ok(Some(salvage));
        }
        let scratch = self.checkpoint()?;
        match self.open_apart(&scratch, |number| number == file) {
            Ok(alone) => {
                salvage.gaps = self.save_entries(&alone, &damaged, &mut salvage.entries)?;
                if may_delete(&alone) {
                    drop((alone, scratch));
                    self.save_deletions(&damaged)?;
                }
            }
            // Its index, or what else is needed to open it, is damaged.
            Err(StorageError::Damaged { .. }) => salvage.gaps.push(range_of(&damaged)),
            Err(error) => return Err(error),
        }
        self.database()?.flush_wal(true).map_err(failed)?;
        crash::point("saved");
        Ok(Some(salvage))
    }

    fn live_file(&self, file: u64) -> Result<Option<LiveFile>, StorageError> {
        let files = self.database()?.live_files().map_err(failed)?;
        Ok(files.into_iter().find(|live| number_of(live) == Some(file)))
    }

    /// Puts the entries of the damaged file anew, which `alone` holds nothing but. Answers the gaps.
    fn save_entries(
        &self,
        alone: &DB,
        file: &LiveFile,
        saved: &mut u64,
    ) -> Result<Vec<PrefixRange>, StorageError> {
        let mut chunk = Chunk::default();
        let gaps = Passage::new(alone, range_of(file), file.num_entries).walk(&mut |key, value| {
            if chunk.push(key, value) {
                *saved += self.put_anew(&chunk.take())?;
                crash::point("chunk saved");
            }
            Ok(Step::Next)
        })?;
        *saved += self.put_anew(&chunk.take())?;
        Ok(gaps)
    }

    /// Puts those of `entries` anew that the database shows, while nobody else reads or writes.
    fn put_anew(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<u64, StorageError> {
        self.write_alone(|db, batch| {
            for (key, value) in entries {
                // Deleted since, or put anew: the damaged file's entry is superseded. One that cannot be told is kept.
                if db.get_pinned(key).map_or(true, |shown| shown.as_deref() == Some(value)) {
                    batch.put(key, value);
                }
            }
        })
    }

    /// Deletes anew what other files hold and the database does not show, in the range of the damaged `file`.
    fn save_deletions(&self, file: &LiveFile) -> Result<(), StorageError> {
        let Some(number) = number_of(file) else { return Ok(()) };
        let mut chunk = Chunk::default();
        self.walk_others(number, range_of(file), &mut |key, _| {
            let is_hidden = matches!(self.database()?.get_pinned(key), Ok(None));
            if is_hidden && chunk.push(key, &[]) {
                self.delete_anew(&chunk.take())?;
            }
            Ok(Step::Next)
        })?;
        self.delete_anew(&chunk.take())?;
        Ok(())
    }

    fn delete_anew(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<u64, StorageError> {
        self.write_alone(|db, batch| {
            for (key, _) in entries {
                if matches!(db.get_pinned(key), Ok(None)) {
                    batch.delete(key);
                }
            }
        })
    }

    /// Writes what `fill` makes of the database while nobody else reads or writes; answers how many entries.
    fn write_alone(&self, fill: impl Fn(&DB, &mut WriteBatch)) -> Result<u64, StorageError> {
        let write = || {
            let guard = self.open.write();
            let db = guard.as_ref().ok_or_else(super::closed)?;
            let mut batch = WriteBatch::default();
            fill(db, &mut batch);
            let written = batch.len() as u64;
            db.write_opt(batch, &self.to_os).map_err(failed)?;
            db.flush_wal(false).map_err(failed)?;
            Ok(written)
        };
        let epoch = self.epoch();
        match write() {
            // As in `Engine::write`.
            Err(StorageError::Damaged { .. }) => {
                self.reopen_without_compactions(epoch)?;
                write()
            }
            result => result,
        }
    }

    /// Shows what the database would hold of the rows in `range` without `file`, as far as it can be read.
    pub(super) fn walk_others(
        &self,
        file: u64,
        range: PrefixRange,
        visit: &mut Visit<'_>,
    ) -> Result<(), StorageError> {
        let scratch = self.checkpoint()?;
        let others = self.open_apart(&scratch, |number| number != file)?;
        let keys =
            others.property_int_value(properties::ESTIMATE_NUM_KEYS).ok().flatten().unwrap_or_default();
        Passage::new(&others, PrefixRange { from: 0, end: PREFIX_END }, keys).within(range).walk(visit)?;
        Ok(())
    }

    /// Takes `file` out of the database, if it is still there, once everything that was written is on stable storage.
    pub(super) fn drop_damaged(&self, file: u64) -> Result<(), StorageError> {
        crash::point("tidied");
        let mut guard = self.open.write();
        let db = guard.as_ref().ok_or_else(super::closed)?;
        db.flush_wal(true).map_err(failed)?;
        // From here on no file moves to another level: a manifest that removes a file from where it is not cannot be
        // read any more.
        db.cancel_all_background_work(true);
        let files = db.live_files().map_err(failed)?;
        let found = files.iter().find(|live| number_of(live) == Some(file)).and_then(table_file);
        self.close(&mut guard);
        crash::point("closed");
        let removed = found.map_or(Ok(()), |found| manifest::remove_files(&self.dir, &[found]));
        crash::point("manifest edited");
        *guard = Some(Arc::new(self.tuned.open(&self.dir, true)?));
        crash::point("opened");
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

/// Whether a database may hold deletions.
fn may_delete(db: &DB) -> bool {
    let totals = db.property_value(AGGREGATED_TABLE_PROPERTIES).ok().flatten().unwrap_or_default();
    !totals.split(';').any(|total| total.trim() == "# deletions=0")
}

/// Entries to be written in one go.
#[derive(Default)]
struct Chunk {
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
}

impl Chunk {
    /// Answers whether it is full.
    fn push(&mut self, key: &[u8], value: &[u8]) -> bool {
        self.bytes += key.len() + value.len();
        self.entries.push((key.to_vec(), value.to_vec()));
        self.entries.len() >= CHUNK_ENTRIES || self.bytes >= CHUNK_BYTES
    }

    fn take(&mut self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.bytes = 0;
        std::mem::take(&mut self.entries)
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
