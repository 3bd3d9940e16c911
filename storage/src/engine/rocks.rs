//! The RocksDB engine.

mod apart;
pub(crate) mod crash;
mod flushing;
mod kept;
mod manifest;
mod memtable;
mod mend;
mod tuning;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use rocksdb::{
    AsColumnFamilyRef, ColumnFamilyDescriptor, DB, DBRawIterator, ErrorKind, Options, ReadOptions,
    WriteBatch, WriteOptions, properties,
};

use crate::engine::rocks::flushing::flushing;
use crate::engine::rocks::kept::KeptIterators;
use crate::engine::{Cursor, Engine, Salvage, Tier, Visit, Walk, walk};
use crate::error::StorageError;
use crate::family::Family;
use crate::horizon::Horizons;
use crate::options::StoreOptions;
use crate::stats::{DamageStats, EngineStats};
use crate::tree::PrefixRange;

/// How many levels `stats` reports.
const LEVELS: usize = 7;
/// A batch of this size or more holds large values, or thousands of rows: the time for a look at the memtables is nothing.
const LARGE_BATCH_BYTES: usize = 1 << 20;

/// The engine on a RocksDB database.
pub(crate) struct Rocks {
    // Before the database, so that they are dropped first.
    kept: KeptIterators,
    /// Held for writing while a damaged file is dropped; `None` if the database could not be opened again after that.
    open: RwLock<Option<Arc<DB>>>,
    /// How often it was closed.
    closed: AtomicU64,
    dir: PathBuf,
    tuned: tuning::Tuned,
    damage: Mutex<mend::Damage>,
    to_os: WriteOptions,
    to_disk: WriteOptions,
}

/// The database while it stays open.
type Open<'a> = MappedRwLockReadGuard<'a, Arc<DB>>;

impl Rocks {
    /// Opens the database in `options.dir`, or makes one. The compaction filter looks at `horizons`.
    pub(crate) fn open(options: &StoreOptions, horizons: Horizons) -> Result<Rocks, StorageError> {
        let dir = options.dir.clone();
        std::fs::create_dir_all(&dir)
            .map_err(|error| StorageError::Failed { what: format!("{}: {error}", dir.display()) })?;
        // A process that died while it mended has left one: it holds on to files.
        drop(apart::Scratch::new(&dir)?);
        let tuned = tuning::Tuned::new(options, horizons);
        let db = tuned.open(&dir, true)?;
        let mut to_disk = WriteOptions::default();
        to_disk.set_sync(true);
        Ok(Rocks {
            kept: KeptIterators::new(),
            open: RwLock::new(Some(Arc::new(db))),
            closed: AtomicU64::default(),
            dir,
            tuned,
            damage: Mutex::default(),
            to_os: WriteOptions::default(),
            to_disk,
        })
    }

    fn database(&self) -> Result<Open<'_>, StorageError> {
        RwLockReadGuard::try_map(self.open.read(), Option::as_ref).map_err(|_| closed())
    }

    fn epoch(&self) -> u64 {
        self.closed.load(Ordering::SeqCst)
    }

    fn close(&self, open: &mut RwLockWriteGuard<'_, Option<Arc<DB>>>) {
        self.closed.fetch_add(1, Ordering::SeqCst);
        self.kept.close();
        **open = None;
    }

    /// What went wrong; damage is noted.
    fn failed(&self, error: rocksdb::Error) -> StorageError {
        let error = failed(error);
        self.note(&error);
        error
    }

    fn note(&self, error: &StorageError) {
        if let StorageError::Damaged { what } = error {
            self.damage.lock().note(what);
        }
    }

    fn write_once(&self, batch: &[u8], sync: bool) -> Result<(), StorageError> {
        let db = self.database()?;
        if batch.len() >= LARGE_BATCH_BYTES {
            self.make_room(&db)?;
        }
        let batch = WriteBatch::from_data(batch);
        if sync {
            return db.write_opt(batch, &self.to_disk).map_err(|error| self.failed(error));
        }
        db.write_opt(batch, &self.to_os).map_err(|error| self.failed(error))?;
        db.flush_wal(false).map_err(|error| self.failed(error))
    }

    /// Waits until the memtables are flushed if they hold too much.
    fn make_room(&self, db: &DB) -> Result<(), StorageError> {
        if integer(db, properties::CUR_SIZE_ALL_MEM_TABLES) <= self.tuned.memtables_bytes_max() {
            return Ok(());
        }
        flushing(db, || db.flush()).map_err(|error| self.failed(error))
    }
}

fn closed() -> StorageError {
    StorageError::Failed { what: "the database is closed".into() }
}

fn family(db: &DB, family: Family) -> Result<impl AsColumnFamilyRef + '_, StorageError> {
    db.cf_handle(family.name())
        .ok_or_else(|| StorageError::damaged(format!("column family {} is missing", family.name())))
}

fn integer(db: &DB, name: &rocksdb::properties::PropName) -> u64 {
    db.property_int_value(name).ok().flatten().unwrap_or_default()
}

impl Engine for Rocks {
    fn write(&self, batch: &[u8], sync: bool) -> Result<(), StorageError> {
        let epoch = self.epoch();
        match self.write_once(batch, sync) {
            // A write reads no table: a compaction has met the damage, and nothing of the batch is written.
            Err(StorageError::Damaged { what }) if mend::file_in(&what).is_some() => {
                self.reopen_without_compactions(epoch)?;
                self.write_once(batch, sync)
            }
            result => result,
        }
    }

    fn walk_key(&self, key: &[u8], tier: Tier, visit: &mut Visit<'_>) -> Result<Walk, StorageError> {
        let db = self.database()?;
        let walked = if tier == Tier::Memory {
            self.kept.with(&db, |iterator| walk_prefix(iterator, key, visit))
        } else {
            let mut options = ReadOptions::default();
            options.set_prefix_same_as_start(true);
            walk_prefix(&mut db.raw_iterator_opt(options), key, visit)
        };
        walked.inspect_err(|error| self.note(error))
    }

    fn walk_range(
        &self,
        family: Family,
        start: &[u8],
        end: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), StorageError> {
        let db = self.database()?;
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        if let Some(end) = end {
            options.set_iterate_upper_bound(end);
        }
        let mut iterator = match family {
            Family::Rows => db.raw_iterator_opt(options),
            other => db.raw_iterator_cf_opt(&self::family(&db, other)?, options),
        };
        walk(&mut RocksCursor(&mut iterator), start, |_| true, visit)?;
        iterator.status().map_err(|error| self.failed(error))
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        let db = self.database()?;
        db.get_cf(&self::family(&db, family)?, key).map_err(|error| self.failed(error))
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.database()?.flush_wal(true).map_err(failed)
    }

    fn release(&self) {
        self.kept.release();
    }

    /// Batches name families by number; RocksDB numbers them in the order of their creation,
    /// those that came later after those of a directory that was made before there were any.
    fn check(&self) -> Result<(), StorageError> {
        let db = self.database()?;
        for family in Family::ALL.into_iter().filter(|family| *family != Family::Rows) {
            let mut probe = WriteBatch::default();
            probe.put_cf(&self::family(&db, family)?, [], []);
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
        let Ok(db) = self.database() else { return EngineStats::default() };
        let files = |level| {
            let name = properties::num_files_at_level(level);
            db.property_value(&name).ok().flatten().and_then(|text| text.parse().ok()).unwrap_or_default()
        };
        EngineStats {
            rows_estimated: integer(&db, properties::ESTIMATE_NUM_KEYS),
            memtable_bytes: integer(&db, properties::CUR_SIZE_ALL_MEM_TABLES),
            table_bytes: integer(&db, properties::LIVE_SST_FILES_SIZE),
            block_cache_bytes: integer(&db, properties::BLOCK_CACHE_USAGE),
            table_readers_bytes: integer(&db, properties::ESTIMATE_TABLE_READERS_MEM),
            files_at_level: (0..LEVELS).map(files).collect(),
            compaction_pending_bytes: integer(&db, properties::ESTIMATE_PENDING_COMPACTION_BYTES),
            compactions_running: integer(&db, properties::NUM_RUNNING_COMPACTIONS),
            flushes_running: integer(&db, properties::NUM_RUNNING_FLUSHES),
            delayed_write_rate: integer(&db, properties::ACTUAL_DELAYED_WRITE_RATE),
            write_stopped: integer(&db, properties::IS_WRITE_STOPPED) != 0,
            background_errors: integer(&db, properties::BACKGROUND_ERRORS),
        }
    }

    fn compact(&self) -> Result<(), StorageError> {
        let db = self.database()?;
        let mut options = rocksdb::CompactOptions::default();
        options.set_bottommost_level_compaction(rocksdb::BottommostLevelCompaction::ForceOptimized);
        flushing(&db, || {
            db.flush().map_err(failed)?;
            // It flushes what was written since.
            db.compact_range_opt(None::<&[u8]>, None::<&[u8]>, &options);
            Ok(())
        })
    }

    fn damage(&self) -> DamageStats {
        self.damage.lock().stats()
    }

    fn damaged_file(&self) -> Option<u64> {
        self.damage.lock().next()
    }

    fn first_to_go(&self, file: u64) -> Result<u64, StorageError> {
        self.first_unopenable(file)
    }

    fn salvage(&self, file: u64) -> Result<Option<Salvage>, StorageError> {
        self.salvage_file(file)
    }

    fn walk_without(&self, file: u64, range: PrefixRange, visit: &mut Visit<'_>) -> Result<(), StorageError> {
        crash::point("distrusted");
        self.walk_others(file, range, visit)
    }

    fn drop_file(&self, file: u64) -> Result<(), StorageError> {
        self.drop_damaged(file)
    }

    fn give_up(&self, file: u64) {
        self.damage.lock().give_up(file);
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

impl tuning::Tuned {
    /// Opens the database in `dir`, or makes one.
    fn open(&self, dir: &Path, with_compactions: bool) -> Result<DB, StorageError> {
        let families = family_names(dir).into_iter().map(|name| {
            let mut options = self.family(&name);
            options.set_disable_auto_compactions(!with_compactions);
            ColumnFamilyDescriptor::new(name, options)
        });
        DB::open_cf_descriptors(&self.database, dir, families).map_err(|error| opening_failed(&error, dir))
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
