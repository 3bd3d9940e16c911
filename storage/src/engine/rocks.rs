//! The RocksDB engine.

mod kept;
mod tuning;

use std::path::Path;
use std::sync::Arc;

use rocksdb::{
    AsColumnFamilyRef, ColumnFamilyDescriptor, DB, DBRawIterator, ErrorKind, Options, ReadOptions,
    WriteBatch, WriteOptions, properties,
};

use crate::batch::Family;
use crate::engine::rocks::kept::KeptIterators;
use crate::engine::{Cursor, Engine, Tier, Visit, Walk, walk};
use crate::error::StorageError;
use crate::horizon::Horizons;
use crate::options::StoreOptions;
use crate::stats::EngineStats;

/// How many levels `stats` reports.
const LEVELS: usize = 7;

/// The engine on a RocksDB database.
pub(crate) struct Rocks {
    // Before the database, so that they are dropped first.
    kept: KeptIterators,
    db: Arc<DB>,
    to_os: WriteOptions,
    to_disk: WriteOptions,
}

impl Rocks {
    /// Opens the database in `options.dir`, or makes one. The compaction filter looks at `horizons`.
    pub(crate) fn open(options: &StoreOptions, horizons: Horizons) -> Result<Rocks, StorageError> {
        let dir = &options.dir;
        std::fs::create_dir_all(dir)
            .map_err(|error| StorageError::Failed { what: format!("{}: {error}", dir.display()) })?;
        let tuned = tuning::Tuned::new(options, horizons);
        let families = family_names(dir).into_iter().map(|name| {
            let options = tuned.family(&name);
            ColumnFamilyDescriptor::new(name, options)
        });
        let db = DB::open_cf_descriptors(&tuned.database, dir, families)
            .map_err(|error| opening_failed(&error, dir))?;
        let mut to_disk = WriteOptions::default();
        to_disk.set_sync(true);
        Ok(Rocks { kept: KeptIterators::new(), db: Arc::new(db), to_os: WriteOptions::default(), to_disk })
    }

    fn family(&self, family: Family) -> Result<impl AsColumnFamilyRef + '_, StorageError> {
        self.db
            .cf_handle(family.name())
            .ok_or_else(|| StorageError::damaged(format!("column family {} is missing", family.name())))
    }

    fn integer(&self, name: &rocksdb::properties::PropName) -> u64 {
        self.db.property_int_value(name).ok().flatten().unwrap_or_default()
    }
}

impl Engine for Rocks {
    fn write(&self, batch: &[u8], sync: bool) -> Result<(), StorageError> {
        let batch = WriteBatch::from_data(batch);
        if sync {
            return self.db.write_opt(batch, &self.to_disk).map_err(failed);
        }
        self.db.write_opt(batch, &self.to_os).map_err(failed)?;
        self.db.flush_wal(false).map_err(failed)
    }

    fn walk_key(&self, key: &[u8], tier: Tier, visit: &mut Visit<'_>) -> Result<Walk, StorageError> {
        if tier == Tier::Memory {
            return self.kept.with(&self.db, |iterator| walk_prefix(iterator, key, visit));
        }
        let mut options = ReadOptions::default();
        options.set_prefix_same_as_start(true);
        walk_prefix(&mut self.db.raw_iterator_opt(options), key, visit)
    }

    fn walk_range(
        &self,
        family: Family,
        start: &[u8],
        end: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), StorageError> {
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        if let Some(end) = end {
            options.set_iterate_upper_bound(end);
        }
        let mut iterator = match family {
            Family::Rows => self.db.raw_iterator_opt(options),
            family => self.db.raw_iterator_cf_opt(&self.family(family)?, options),
        };
        walk(&mut RocksCursor(&mut iterator), start, |_| true, visit)?;
        iterator.status().map_err(failed)
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.db.get_cf(&self.family(family)?, key).map_err(failed)
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.db.flush_wal(true).map_err(failed)
    }

    fn release(&self) {
        self.kept.release();
    }

    /// Batches name families by number; RocksDB numbers them in the order of their creation,
    /// those that came later after those of a directory that was made before there were any.
    fn check(&self) -> Result<(), StorageError> {
        for family in Family::ALL.into_iter().filter(|family| *family != Family::Rows) {
            let mut probe = WriteBatch::default();
            probe.put_cf(&self.family(family)?, [], []);
            // Twelve bytes of header, the tag, then the number.
            if probe.data().get(13).copied().map(usize::from) != Some(family as usize) {
                return Err(StorageError::damaged(format!(
                    "column family {} has an unexpected number",
                    family.name()
                )));
            }
        }
        Ok(())
    }

    fn stats(&self) -> EngineStats {
        let files = |level| {
            let name = properties::num_files_at_level(level);
            self.db
                .property_value(&name)
                .ok()
                .flatten()
                .and_then(|text| text.parse().ok())
                .unwrap_or_default()
        };
        EngineStats {
            rows_estimated: self.integer(properties::ESTIMATE_NUM_KEYS),
            memtable_bytes: self.integer(properties::CUR_SIZE_ALL_MEM_TABLES),
            table_bytes: self.integer(properties::LIVE_SST_FILES_SIZE),
            block_cache_bytes: self.integer(properties::BLOCK_CACHE_USAGE),
            table_readers_bytes: self.integer(properties::ESTIMATE_TABLE_READERS_MEM),
            files_at_level: (0..LEVELS).map(files).collect(),
            compaction_pending_bytes: self.integer(properties::ESTIMATE_PENDING_COMPACTION_BYTES),
            compactions_running: self.integer(properties::NUM_RUNNING_COMPACTIONS),
            flushes_running: self.integer(properties::NUM_RUNNING_FLUSHES),
            delayed_write_rate: self.integer(properties::ACTUAL_DELAYED_WRITE_RATE),
            write_stopped: self.integer(properties::IS_WRITE_STOPPED) != 0,
            background_errors: self.integer(properties::BACKGROUND_ERRORS),
        }
    }

    fn compact(&self) -> Result<(), StorageError> {
        self.db.flush().map_err(failed)?;
        let mut options = rocksdb::CompactOptions::default();
        options.set_bottommost_level_compaction(rocksdb::BottommostLevelCompaction::ForceOptimized);
        self.db.compact_range_opt(None::<&[u8]>, None::<&[u8]>, &options);
        Ok(())
    }
}

/// Walks the entries that begin with `key`, all of which have its prefix.
fn walk_prefix(
    iterator: &mut DBRawIterator<'_>,
    key: &[u8],
    visit: &mut Visit<'_>,
) -> Result<Walk, StorageError> {
    walk(&mut RocksCursor(iterator), key, |at| at.starts_with(key), visit)?;
    match iterator.status() {
        Ok(()) => Ok(Walk::Done),
        Err(error) if error.kind() == ErrorKind::Incomplete => Ok(Walk::Incomplete),
        Err(error) => Err(failed(error)),
    }
}

struct RocksCursor<'c, 'db>(&'c mut DBRawIterator<'db>);

impl Cursor for RocksCursor<'_, '_> {
    fn seek(&mut self, key: &[u8]) {
        self.0.seek(key);
    }

    fn advance(&mut self) {
        if self.0.valid() {
            self.0.next();
        }
    }

    fn entry(&self) -> Option<(&[u8], &[u8])> {
        self.0.item()
    }
}

/// Ours in the order of their numbers, then those that another version of the program made: RocksDB opens all or
/// none, and the format must be read before it can be refused.
fn family_names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = Family::ALL.iter().map(|family| family.name().to_owned()).collect();
    for other in DB::list_cf(&Options::default(), dir).unwrap_or_default() {
        if !names.contains(&other) {
            names.push(other);
        }
    }
    names
}

fn opening_failed(error: &rocksdb::Error, dir: &Path) -> StorageError {
    let text = error.to_string();
    if text.contains("While lock file") || text.contains("lock hold by current process") {
        return StorageError::InUse { dir: dir.to_path_buf() };
    }
    match error.kind() {
        ErrorKind::Corruption => StorageError::damaged(text),
        _ => StorageError::Failed { what: text },
    }
}

fn failed(error: rocksdb::Error) -> StorageError {
    match error.kind() {
        ErrorKind::Corruption => StorageError::damaged(error.into_string()),
        _ => StorageError::Failed { what: error.into_string() },
    }
}
