//! What the engine holds in memory stays within bounds, whatever is written.
#![cfg(feature = "rocksdb")]
#![allow(clippy::unwrap_used, reason = "a test that is wrong fails")]

mod common;

use common::{commit, set};
use gyre_storage::{Store, StoreOptions};

const MEMTABLE_BYTES: usize = 4 << 20;
const VALUE_BYTES: usize = 16 << 20;

#[test]
fn values_larger_than_a_memtable_wait_until_earlier_ones_are_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        StoreOptions { row_cache_bytes: 0, memtable_bytes: MEMTABLE_BYTES, ..StoreOptions::new(dir.path()) };
    let store = Store::open(&options).unwrap();
    // Does not compress, so that to flush it takes longer than to write it.
    let mut state = 1_u64;
    let mut value: Vec<u8> = Vec::with_capacity(VALUE_BYTES);
    while value.len() < VALUE_BYTES {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        value.extend_from_slice(&state.rotate_left(29).wrapping_mul(state).to_le_bytes());
    }
    let mut most = 0;
    for version in 1..=30 {
        commit(&store, &[set(b"large", version, &value)]);
        most = most.max(store.stats().engine.memtable_bytes);
    }
    // Sixteen flushes, and one value that came when they were not full yet.
    let bound = (16 * MEMTABLE_BYTES + VALUE_BYTES + MEMTABLE_BYTES) as u64;
    assert!(most <= bound, "{most} bytes in memtables, {bound} allowed");
}
