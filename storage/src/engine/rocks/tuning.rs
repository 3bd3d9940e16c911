//! How RocksDB is set up. Figures behind the choices: ARCHITECTURE.md and `storage/benches`.

use std::ffi::CStr;

use rocksdb::compaction_filter::{CompactionFilter, Decision};
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};
use rocksdb::{
    BlockBasedOptions, Cache, CompactionDecision, DBCompressionType, DBRecoveryMode, Options, SliceTransform,
};

use super::memtable::in_buckets;
use crate::encode::PREFIX_BYTES;
use crate::family::Family;
use crate::horizon::Horizons;
use crate::options::StoreOptions;
use crate::superseded::Superseded;

/// Bits of bloom filter per key: about one false positive in a thousand. A false positive sends the read of an absent key
/// to the disk, and a read passes several files; with ten bits one INCR of a new counter in fifteen went there.
const BLOOM_BITS: f64 = 15.0;
/// Memtables of rarely written families.
const SMALL_MEMTABLE_BYTES: usize = 4 << 20;
/// The memtable of the rows is made of up to so many small ones, merged when they are flushed: an insert finds its place in
/// what the processor's cache holds, and the file that comes out is as large as if it were one. Each part begins a file of
/// the log.
const MEMTABLE_PARTS_MAX: usize = 32;
/// A part is no smaller than this.
const MEMTABLE_PART_BYTES_MIN: usize = 1 << 20;
/// Memtables of rows, in multiples of a flush, that may wait before writes stop.
const FLUSHES_WAITING_MAX: usize = 3;
/// What the parts may hold together, in multiples of a flush: RocksDB counts them, but values larger than a part make them
/// as large.
const HELD_FLUSHES_MAX: u64 = 16;
/// Level-0 files before they are merged, before writes slow down, and before they stop. Each merge rewrites a level as large
/// as these files, or all of small data; a read that must pass them looks at one filter for each.
const LEVEL0_FILES: [i32; 3] = [8, 24, 48];
/// The share of a memtable that its filter takes: about 20 bits per row of 100 bytes.
const MEMTABLE_BLOOM_SHARE: f64 = 0.02;
/// A file of the expiry index is compacted if, of so many entries in a row, so many are deletions.
const DELETIONS_WINDOW: usize = 4_096;
const DELETIONS_TRIGGER: usize = 2_048;
const BLOCK_BYTES: usize = 8 << 10;
/// Level 0 and the first level below it, which small data lives in and each merge rewrites; then the larger ones, where data
/// comes to rest and space counts more than time.
const COMPRESSION: [DBCompressionType; 3] =
    [DBCompressionType::Lz4, DBCompressionType::Lz4, DBCompressionType::Zstd];
/// Bytes after which the kernel is asked to write dirty pages out, so that a sync does not find gigabytes.
const SYNC_STEP_BYTES: u64 = 1 << 20;
/// RocksDB's own text log.
const LOG_BYTES_MAX: usize = 8 << 20;
const LOG_FILES_MAX: usize = 4;

/// Options for the database and its families.
pub(super) struct Tuned {
    pub(super) database: Options,
    memtable_bytes: usize,
    cache: Cache,
    horizons: Horizons,
}

impl Tuned {
    pub(super) fn new(options: &StoreOptions, horizons: Horizons) -> Tuned {
        let memtable_bytes = options.memtable_bytes;
        Tuned {
            database: database(options),
            memtable_bytes,
            cache: Cache::new_hyper_clock_cache(options.block_cache_bytes, 0),
            horizons,
        }
    }

    /// From so many bytes in memtables on, a write of large values waits until they are flushed.
    pub(super) fn memtables_bytes_max(&self) -> u64 {
        self.memtable_bytes as u64 * HELD_FLUSHES_MAX
    }

    /// Options for the column family `name`.
    pub(super) fn family(&self, name: &str) -> Options {
        match name {
            _ if name == Family::Rows.name() => self.rows(),
            _ if name == Family::Expiry.name() => self.expiry(),
            _ => self.small(),
        }
    }

    fn rows(&self) -> Options {
        let parts = (self.memtable_bytes / MEMTABLE_PART_BYTES_MIN).clamp(1, MEMTABLE_PARTS_MAX);
        let part_bytes = self.memtable_bytes / parts;
        let mut options = self.common(in_buckets(part_bytes));
        options.set_write_buffer_size(part_bytes);
        options.set_min_write_buffer_number_to_merge(count(parts));
        options.set_max_write_buffer_number(count(parts * FLUSHES_WAITING_MAX));
        options
            .set_max_bytes_for_level_base(self.memtable_bytes as u64 * LEVEL0_FILES[0].unsigned_abs() as u64);
        options.set_target_file_size_base(self.memtable_bytes as u64);
        // The position prefix (slot and 18 bits of the key's hash) is nearly unique per key, and of fixed length:
        // a filter on it works like one on whole keys without calling back into Rust.
        options.set_prefix_extractor(SliceTransform::create_fixed_prefix(PREFIX_BYTES));
        // Most first touches of a key find that it is not there: the filter spares them the walk along a bucket.
        options.set_memtable_prefix_bloom_ratio(MEMTABLE_BLOOM_SHARE);
        options.set_compaction_filter_factory(FilterFactory(self.horizons.clone()));
        options
    }

    /// The expiry index is a queue: entries go at the front as fast as they came at the back. What has gone would be
    /// stepped over by every pass until it is compacted, so files with many deletions in a row are compacted soon.
    fn expiry(&self) -> Options {
        let mut options = self.small();
        options.add_compact_on_deletion_collector_factory(DELETIONS_WINDOW, DELETIONS_TRIGGER, 0.0);
        options
    }

    fn small(&self) -> Options {
        let mut options = self.common(Options::default());
        options.set_write_buffer_size(SMALL_MEMTABLE_BYTES);
        options
    }

    /// `options` with what all families have.
    fn common(&self, mut options: Options) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        table.set_block_size(BLOCK_BYTES);
        table.set_bloom_filter(BLOOM_BITS, false);
        table.set_whole_key_filtering(false);
        table.set_cache_index_and_filter_blocks(true);
        table.set_cache_index_and_filter_blocks_with_high_priority(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        table.set_format_version(6);
        options.set_block_based_table_factory(&table);
        options.set_level_zero_file_num_compaction_trigger(LEVEL0_FILES[0]);
        options.set_level_zero_slowdown_writes_trigger(LEVEL0_FILES[1]);
        options.set_level_zero_stop_writes_trigger(LEVEL0_FILES[2]);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_compression_per_level(&COMPRESSION);
        options
    }
}

fn database(options: &StoreOptions) -> Options {
    let mut database = Options::default();
    database.create_if_missing(true);
    database.create_missing_column_families(true);
    database.set_max_background_jobs(count(options.background_jobs.max(2)));
    // The log is handed to the operating system once per commit, by `Rocks::write`.
    database.set_manual_wal_flush(true);
    // The memtable of the rows has one writer at a time.
    database.set_allow_concurrent_memtable_write(false);
    // What a killed process or a power failure may leave torn is the log's tail; anything else is damage.
    database.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // A family that is hardly written must not keep old logs alive for ever.
    database.set_max_total_wal_size(options.memtable_bytes as u64 * 6);
    database.set_bytes_per_sync(SYNC_STEP_BYTES);
    database.set_max_log_file_size(LOG_BYTES_MAX);
    database.set_keep_log_file_num(LOG_FILES_MAX);
    database
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Makes a filter for each compaction, with the horizons then in force.
struct FilterFactory(Horizons);

impl CompactionFilterFactory for FilterFactory {
    type Filter = Filter;

    fn create(&mut self, _context: CompactionFilterContext) -> Filter {
        Filter(Superseded::new(self.0.all()))
    }

    fn name(&self) -> &CStr {
        c"gyre.superseded"
    }
}

struct Filter(Superseded);

impl CompactionFilter for Filter {
    fn filter(&mut self, _level: u32, key: &[u8], _value: &[u8]) -> CompactionDecision {
        if self.0.drops(key) { Decision::Remove } else { Decision::Keep }
    }

    fn name(&self) -> &CStr {
        c"gyre.superseded"
    }
}
