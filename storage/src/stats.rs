//! What the store counts, for `/metrics` and `INFO`.

use crate::tree::TreeStats;

/// Counters and gauges of an engine. Counters run from the opening of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Rows in the store, old versions included, estimated.
    pub rows_estimated: u64,
    /// Bytes in all memtables.
    pub memtable_bytes: u64,
    /// Bytes in live table files.
    pub table_bytes: u64,
    /// Bytes in the block cache.
    pub block_cache_bytes: u64,
    /// Bytes of indexes and filters outside the block cache.
    pub table_readers_bytes: u64,
    /// Table files at each level, from level 0 down.
    pub files_at_level: Vec<u64>,
    /// Bytes that compactions still have to rewrite, estimated.
    pub compaction_pending_bytes: u64,
    /// Compactions running now.
    pub compactions_running: u64,
    /// Flushes running now.
    pub flushes_running: u64,
    /// Bytes a second that writes are slowed to; 0 is not at all.
    pub delayed_write_rate: u64,
    /// Whether the engine has stopped accepting writes until compaction catches up.
    pub write_stopped: bool,
    /// Errors of flushes and compactions.
    pub background_errors: u64,
}

/// Damage on disk: bytes that do not match their checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DamageStats {
    /// Reads and compactions that have met it.
    pub errors: u64,
    /// Files with damage that are to be mended.
    pub files_waiting: u64,
    /// Files that were dropped after what could be read of them was saved.
    pub files_mended: u64,
    /// Files that cannot be mended.
    pub files_given_up: u64,
    /// Ranges of position prefixes whose rows may be lost here, and are not read until other replicas have sent theirs.
    pub unsound_ranges: u64,
}

/// Counters and gauges of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Batches committed.
    pub commits: u64,
    /// Rows committed.
    pub rows_committed: u64,
    /// Reads answered by the row cache.
    pub cache_hits: u64,
    /// Reads of keys that were known to be absent.
    pub cache_absent: u64,
    /// Reads that went on to the engine.
    pub cache_misses: u64,
    /// Keys in the row cache.
    pub cache_entries: u64,
    /// Bytes in the row cache.
    pub cache_bytes: u64,
    /// Of the Merkle trees.
    pub tree: TreeStats,
    /// Of damage on disk.
    pub damage: DamageStats,
    /// The engine's own.
    pub engine: EngineStats,
}
