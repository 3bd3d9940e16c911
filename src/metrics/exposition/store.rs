//! What `/metrics` tells of the store: the row cache, RocksDB, Merkle trees and damaged files.

use gyre_storage::tree::TreeStats;
use gyre_storage::{DamageStats, StoreStats};

use super::Families;

/// Adds the families.
pub(super) fn add(out: &mut Families, stats: &StoreStats) {
    let StoreStats {
        commits,
        rows_committed,
        cache_hits,
        cache_absent,
        cache_misses,
        cache_entries,
        cache_bytes,
        tree,
        damage,
        engine,
    } = stats;
    trees(out, tree);
    damages(out, damage);
    out.counter("gyre_store_commits_total", "Batches committed.", *commits);
    out.counter("gyre_store_rows_committed_total", "Rows committed.", *rows_committed);
    out.counter("gyre_row_cache_hits_total", "Reads answered by the row cache.", *cache_hits);
    out.counter("gyre_row_cache_absent_total", "Reads of keys that were known to be absent.", *cache_absent);
    out.counter("gyre_row_cache_misses_total", "Reads that went on to the engine.", *cache_misses);
    out.gauge("gyre_row_cache_entries", "Keys in the row cache.", *cache_entries);
    out.gauge("gyre_row_cache_bytes", "Bytes in the row cache.", *cache_bytes);
    out.gauge("gyre_rocksdb_rows", "Rows, old versions included, estimated.", engine.rows_estimated);
    out.gauge("gyre_rocksdb_memtable_bytes", "Bytes in memtables.", engine.memtable_bytes);
    out.gauge("gyre_rocksdb_table_bytes", "Bytes in live table files.", engine.table_bytes);
    out.gauge("gyre_rocksdb_block_cache_bytes", "Bytes in the block cache.", engine.block_cache_bytes);
    let readers = engine.table_readers_bytes;
    out.gauge("gyre_rocksdb_table_readers_bytes", "Bytes of indexes and filters beside the cache.", readers);
    let levels: Vec<(String, u64)> =
        engine.files_at_level.iter().enumerate().map(|(level, files)| (level.to_string(), *files)).collect();
    let levels: Vec<_> = levels.iter().map(|(level, files)| ([("level", level.as_str())], *files)).collect();
    out.gauges(
        "gyre_rocksdb_files",
        "Table files by level.",
        levels.iter().map(|(labels, files)| (&labels[..], *files)),
    );
    let pending = engine.compaction_pending_bytes;
    out.gauge("gyre_rocksdb_compaction_pending_bytes", "Bytes compactions have to rewrite.", pending);
    out.gauge("gyre_rocksdb_compactions_running", "Compactions running.", engine.compactions_running);
    out.gauge("gyre_rocksdb_flushes_running", "Flushes running.", engine.flushes_running);
    let slowed = engine.delayed_write_rate;
    out.gauge(
        "gyre_rocksdb_delayed_write_rate_bytes",
        "Bytes a second writes are slowed to; 0 is not.",
        slowed,
    );
    let stopped = u64::from(engine.write_stopped);
    out.gauge("gyre_rocksdb_write_stopped", "1 while writes wait for compaction.", stopped);
    let errors = engine.background_errors;
    out.counter("gyre_rocksdb_background_errors_total", "Errors of flushes and compactions.", errors);
}

fn trees(out: &mut Families, tree: &TreeStats) {
    out.gauge("gyre_tree_keys", "Keys that the Merkle trees count, deleted ones included.", tree.keys);
    out.gauge("gyre_tree_leaves", "Leaves of the Merkle trees.", tree.leaves);
    out.gauge("gyre_tree_bytes", "Bytes of the Merkle trees on disk, before compression.", tree.bytes);
    let dirty = tree.dirty_segments;
    out.gauge("gyre_tree_dirty_segments", "Segments (sixteenths of slots) to be hashed anew.", dirty);
    let stale = tree.stale_slots;
    out.gauge("gyre_tree_stale_slots", "Slots without a tree that can be used, to be hashed whole.", stale);
    let marks = tree.marks_written;
    out.counter("gyre_tree_marks_total", "Marks of dirty segments that commits have written.", marks);
    let segments = tree.segments_hashed;
    out.counter("gyre_tree_hashed_segments_total", "Segments that were hashed anew.", segments);
    out.counter("gyre_tree_hashed_keys_total", "Keys that were hashed anew.", tree.keys_hashed);
}

fn damages(out: &mut Families, damage: &DamageStats) {
    let errors = damage.errors;
    out.counter("gyre_damage_errors_total", "Reads and compactions that met a checksum mismatch.", errors);
    let waiting = damage.files_waiting;
    out.gauge("gyre_damage_files_waiting", "Damaged files that are to be mended.", waiting);
    let mended = damage.files_mended;
    out.counter("gyre_damage_files_mended_total", "Damaged files that were saved from and dropped.", mended);
    let given_up = damage.files_given_up;
    out.gauge("gyre_damage_files_given_up", "Damaged files that cannot be mended, and stay.", given_up);
    let unsound = damage.unsound_ranges;
    out.gauge("gyre_damage_unsound_ranges", "Ranges whose lost rows have not come back yet.", unsound);
}
