//! The store: one engine, the cache of newest rows before it, horizons, documents, and what happens on a bad disk.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::ahead::{self, Ahead};
use crate::batch::Batch;
use crate::cache::{Lookup, RowCache};
use crate::engine::memory::{Memory, MemoryDisk};
use crate::engine::{Engine, Tier};
use crate::error::StorageError;
use crate::expiry::{self, Due};
use crate::family::Family;
use crate::hints::Book;
use crate::horizon::{self, Horizons};
use crate::key::KeyRef;
use crate::options::{FsyncPolicy, StoreOptions};
use crate::purge::PurgeHorizons;
use crate::read;
use crate::record::Record;
use crate::scan::{self, Range, ScanPage};
use crate::stats::StoreStats;
use crate::tree::Tree;
use crate::unsound::Unsound;
use crate::version::{Hlc, UnixMillis, Version};

mod commit;
mod documents;
mod format;
mod handoff;
mod learn;
mod mend;
mod purge;
mod sweep;
mod tree;

use documents::META_CLOCK_MARK;
use learn::Learning;

pub use crate::cache::TOUCHED_MAX;
pub use format::FORMAT;
pub use mend::Mended;
pub use purge::PurgeStep;
pub use sweep::{SweepPass, SweepStep};

const META_HORIZONS: &str = "storage.horizons";

/// Versioned rows on disk. `Send + Sync`; the node's workers share one.
pub struct Store {
    engine: Box<dyn Engine>,
    cache: RowCache,
    horizons: Horizons,
    purge: PurgeHorizons,
    fsync: FsyncPolicy,
    poison: OnceLock<String>,
    /// No row in the engine has a greater clock. Kept durable by the batches that raise it.
    clock_mark: AtomicU64,
    /// Serialises what is written to the meta family from a state read before.
    documents: Mutex<()>,
    learning: Mutex<Learning>,
    hints: Book,
    tree: Tree,
    unsound: Unsound,
    /// Held while a damaged file is dropped: trees show nothing in between.
    mending: RwLock<()>,
    ahead: Ahead,
    /// Commits and raised horizons: begun, and done.
    writes_begun: AtomicU64,
    writes_done: AtomicU64,
    rows_committed: AtomicU64,
}

impl Store {
    /// Opens the store in `options.dir`, or makes one there.
    ///
    /// # Errors
    /// [`StorageError::InUse`] when another process has it open, [`StorageError::UnknownFormat`] when another version
    /// of Gyre wrote it, [`StorageError::Failed`] or [`StorageError::Damaged`] when it cannot be read.
    #[cfg(feature = "rocksdb")]
    pub fn open(options: &StoreOptions) -> Result<Store, StorageError> {
        let horizons = Horizons::default();
        let engine = crate::engine::rocks::Rocks::open(options, horizons.clone())?;
        Store::on_engine(Box::new(engine), horizons, options)
    }

    /// An empty store in memory, gone when dropped.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "an empty disk in memory has nothing to fail on")]
    #[expect(clippy::expect_used, reason = "see above")]
    pub fn in_memory() -> Store {
        Store::open_memory(&MemoryDisk::new(), &StoreOptions::new("")).expect("an empty disk opens")
    }

    /// Opens the store on a pretended disk; `options.dir` and the sizes of RocksDB's parts are not looked at.
    pub fn open_memory(disk: &MemoryDisk, options: &StoreOptions) -> Result<Store, StorageError> {
        let horizons = Horizons::default();
        let engine = Memory::new(disk.clone(), horizons.clone());
        Store::on_engine(Box::new(engine), horizons, options)
    }

    fn on_engine(
        engine: Box<dyn Engine>,
        horizons: Horizons,
        options: &StoreOptions,
    ) -> Result<Store, StorageError> {
        format::check(engine.as_ref())?;
        if let Some(bytes) = engine.get(Family::Meta, META_HORIZONS.as_bytes())? {
            horizons.store(horizon::decode(&bytes)?);
        }
        let clock_mark = match engine.get(Family::Meta, META_CLOCK_MARK.as_bytes())? {
            Some(bytes) => Hlc(u64::from_be_bytes(
                bytes.try_into().map_err(|_| StorageError::damaged("the clock mark does not parse"))?,
            )),
            None => Hlc::ZERO,
        };
        let mark =
            if clock_mark == Hlc::ZERO { Version::ZERO } else { Version { hlc: clock_mark, node: u64::MAX } };
        let hints = Book::open(engine.as_ref(), options.hint_bytes_max)?;
        let tree = Tree::open(engine.as_ref())?;
        let unsound = Unsound::open(engine.as_ref())?;
        let purge = PurgeHorizons::open(engine.as_ref())?;
        let store = Store {
            engine,
            hints,
            tree,
            unsound,
            mending: RwLock::default(),
            cache: RowCache::new(options.row_cache_bytes, mark),
            horizons,
            purge,
            fsync: options.fsync,
            poison: OnceLock::new(),
            clock_mark: AtomicU64::new(clock_mark.0),
            documents: Mutex::new(()),
            learning: Mutex::new(Learning::anew()),
            ahead: Ahead::default(),
            writes_begun: AtomicU64::default(),
            writes_done: AtomicU64::default(),
            rows_committed: AtomicU64::default(),
        };
        // All keys of an empty engine are learnt at once. Damage keeps no store from being opened: the next step meets it.
        let _ = store.learn_keys(0);
        Ok(store)
    }

    /// A batch to push rows into. Reuse it: [`Store::commit`] clears it.
    #[must_use]
    pub fn batch(&self) -> Batch {
        Batch::default()
    }

    /// What is known of `key` from memory: row cache, memtables, block cache. `None` when the disk must be asked.
    pub fn try_read(&self, key: KeyRef<'_>) -> Result<Option<Record>, StorageError> {
        self.read_tier(key, Tier::Memory)
    }

    /// Says that these keys are about to be read, at most [`TOUCHED_MAX`] at a time: they then wait for memory together
    /// instead of one after the other. Changes nothing but the time that takes.
    pub fn touch<'a>(&self, keys: impl Iterator<Item = KeyRef<'a>> + Clone) {
        self.cache.touch(keys.map(|key| key.hash64()));
    }

    /// The newest row of each cell of `key`. May touch the disk.
    pub fn read(&self, key: KeyRef<'_>) -> Result<Record, StorageError> {
        Ok(self.read_tier(key, Tier::Disk)?.unwrap_or_default())
    }

    fn read_tier(&self, key: KeyRef<'_>, tier: Tier) -> Result<Option<Record>, StorageError> {
        let record = match self.cache.get(key) {
            Lookup::Hit(record) => record,
            Lookup::Absent => {
                self.check_sound(key)?;
                Record::ABSENT
            }
            Lookup::Miss(ticket) => {
                let Some(record) = read::newest(self.engine.as_ref(), key, tier)? else { return Ok(None) };
                self.check_sound(key)?;
                self.cache.fill(key, ticket, record)
            }
        };
        Ok(Some(self.under_horizon(key.db, self.hide_dead(key, record))))
    }

    /// To be called after `key` was read: rows are lost only after their range was declared unsound.
    fn check_sound(&self, key: KeyRef<'_>) -> Result<(), StorageError> {
        let prefix = u64::from(key.prefix());
        self.unsound.check(prefix, prefix + 1)
    }

    fn under_horizon(&self, db: u8, record: Record) -> Record {
        let horizon = self.horizons.of(db);
        if horizon == Version::ZERO { record } else { record.under_horizon(horizon) }
    }

    /// A page of the keys of database `db` (all databases if `None`) whose position prefix is in `from..end`, with
    /// their records; `end` at most [`scan::PREFIX_END`]. May touch the disk.
    ///
    /// A page ends on the border of a prefix once `keys_max` keys or `bytes_max` bytes were passed, keys of other
    /// databases and dead keys included, so its time is bounded; there is always progress. Without `with_values` a
    /// string's value is left empty (unless counters stand on it).
    pub fn scan(
        &self,
        db: Option<u8>,
        from: u64,
        end: u64,
        keys_max: usize,
        bytes_max: usize,
        with_values: bool,
    ) -> Result<ScanPage, StorageError> {
        let range = Range { db, from, end, with_values };
        let writes = self.writes_begun.load(Ordering::SeqCst);
        if let Some(page) = self.ahead.page(range, keys_max, bytes_max, writes) {
            return Ok(page);
        }
        let walk = |keys, bytes| {
            let page = scan::page(self.engine.as_ref(), &self.horizons, range, keys, bytes)?;
            self.unsound.check(from, page.next.unwrap_or(end))?;
            Ok(page)
        };
        let is_quiet = self.writes_done.load(Ordering::SeqCst) == writes;
        if !is_quiet || keys_max >= ahead::KEYS {
            return walk(keys_max, bytes_max);
        }
        let page = walk(ahead::KEYS, bytes_max.max(ahead::BYTES))?;
        let asked = ahead::cut(&page, from, keys_max, bytes_max);
        self.ahead.keep(range, writes, page);
        Ok(asked)
    }

    /// How many keys of `db` live at `now` with a position prefix in `from..end`. Walks the range: for big ones call
    /// it on a thread that may block.
    pub fn count_keys(&self, db: u8, from: u64, end: u64, now: UnixMillis) -> Result<u64, StorageError> {
        let range = Range { db: Some(db), from, end, with_values: false };
        let count = scan::count(self.engine.as_ref(), &self.horizons, range, now)?;
        self.unsound.check(from, end)?;
        Ok(count)
    }

    /// Up to `limit` entries of the expiry index that are due at `now`, earliest first: what [`Store::sweep`] would look
    /// at. An entry names a row that was written with that expiry; newer rows of the cell may have replaced it since.
    pub fn expired(&self, now: UnixMillis, limit: usize) -> Result<Vec<Due>, StorageError> {
        Ok(expiry::due(self.engine.as_ref(), Vec::new(), now, limit)?.0)
    }

    /// Up to which version database `db` was flushed; [`Version::ZERO`] if never.
    #[must_use]
    pub fn horizon(&self, db: u8) -> Version {
        self.horizons.of(db)
    }

    /// Raises the horizon of each database to the one given for it, by database number. Durable on return, and in
    /// force for every read and scan from then on. Horizons never fall.
    pub fn set_horizons(&self, horizons: &[Version]) -> Result<(), StorageError> {
        let _exclusive = self.documents.lock();
        let Some(merged) = self.horizons.merged_with(horizons) else { return Ok(()) };
        self.writes_begun.fetch_add(1, Ordering::SeqCst);
        let mut batch = Batch::default();
        batch.put_meta(META_HORIZONS, &horizon::encode(&merged));
        self.tree.make_stale(&self.tree.slots_with_keys(), batch, |batch| {
            self.write_document(batch)?;
            self.horizons.store(merged);
            Ok(())
        })?;
        self.writes_done.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Puts everything committed so far on stable storage.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`] when that failed; the store accepts nothing more.
    pub fn sync(&self) -> Result<(), StorageError> {
        self.check_poison()?;
        self.engine.sync().map_err(|error| self.fail(&error))
    }

    /// To be called about once a second: lets go of files and memory that reads keep for the next one and did not use.
    pub fn tend(&self) {
        self.engine.release();
    }

    /// Why the store accepts no more writes, if it does not.
    #[must_use]
    pub fn poisoned(&self) -> Option<StorageError> {
        self.poison.get().map(|reason| StorageError::Poisoned { reason: reason.clone() })
    }

    /// What the store counts.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let [cache_hits, cache_absent, cache_misses, cache_entries, cache_bytes] = self.cache.counts();
        StoreStats {
            commits: self.writes_done.load(Ordering::Relaxed),
            rows_committed: self.rows_committed.load(Ordering::Relaxed),
            cache_hits,
            cache_absent,
            cache_misses,
            cache_entries,
            cache_bytes,
            tree: self.tree.stats(),
            damage: self.damage(),
            engine: self.engine.stats(),
        }
    }

    /// Writes memory to files and merges all files, dropping superseded rows. Slow; for maintenance.
    pub fn compact(&self) -> Result<(), StorageError> {
        self.engine.compact()
    }

    fn check_poison(&self) -> Result<(), StorageError> {
        self.poisoned().map_or(Ok(()), Err)
    }

    fn fail(&self, error: &StorageError) -> StorageError {
        let reason = self.poison.get_or_init(|| error.to_string()).clone();
        StorageError::Poisoned { reason }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("fsync", &self.fsync)
            .field("poison", &self.poison)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
