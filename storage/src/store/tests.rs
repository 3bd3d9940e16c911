//! Poisoning, durability, the clock mark and horizons, on a pretended disk.

use super::*;
use crate::row::{Body, Cell, Row};

fn row(key: &'static [u8], hlc: u64, body: Body<'static>) -> Row<'static> {
    Row {
        key: KeyRef::new(0, key),
        cell: Cell::Register,
        version: Version { hlc: Hlc(hlc), node: 1 },
        expiry: None,
        body,
    }
}

fn commit(store: &Store, rows: &[Row<'_>]) -> Result<(), StorageError> {
    let mut batch = store.batch();
    for row in rows {
        batch.push(row);
    }
    store.commit(&mut batch)
}

#[test]
fn failed_write_poisons_the_store() {
    let disk = MemoryDisk::new();
    let store = Store::open_memory(&disk, &StoreOptions::new("")).unwrap();
    disk.fail_writes(true);
    let first = commit(&store, &[row(b"k", 1, Body::Value(b"v"))]).unwrap_err();
    assert!(matches!(first, StorageError::Poisoned { .. }), "{first}");
    disk.fail_writes(false);
    assert_eq!(commit(&store, &[row(b"k", 2, Body::Value(b"v"))]), Err(first.clone()));
    assert_eq!(store.meta_put("name", b"x"), Err(first.clone()));
    assert_eq!(store.sync(), Err(first.clone()));
    assert_eq!(store.poisoned(), Some(first));
}

#[test]
fn failed_sync_poisons_the_store() {
    let disk = MemoryDisk::new();
    let store = Store::open_memory(&disk, &StoreOptions::new("")).unwrap();
    disk.fail_syncs(true);
    store.sync().unwrap_err();
    disk.fail_syncs(false);
    commit(&store, &[row(b"k", 1, Body::Value(b"v"))]).unwrap_err();
}

#[test]
fn failed_fsync_of_a_commit_poisons_under_always() {
    let disk = MemoryDisk::new();
    let options = StoreOptions { fsync: FsyncPolicy::Always, ..StoreOptions::new("") };
    let store = Store::open_memory(&disk, &options).unwrap();
    disk.fail_syncs(true);
    commit(&store, &[row(b"k", 1, Body::Value(b"v"))]).unwrap_err();
    assert!(store.poisoned().is_some());
}

#[test]
fn a_full_disk_poisons_the_store_and_keeps_what_it_had() {
    let disk = MemoryDisk::new();
    let store = Store::open_memory(&disk, &StoreOptions::new("")).unwrap();
    commit(&store, &[row(b"a", 1, Body::Value(b"1"))]).unwrap();
    disk.set_room(Some(20));
    commit(&store, &[row(b"a", 2, Body::Value(b"2"))]).unwrap_err();
    disk.set_room(None);
    commit(&store, &[row(b"a", 3, Body::Value(b"3"))]).unwrap_err();
    assert!(store.poisoned().is_some());
    let store = Store::open_memory(&disk, &StoreOptions::new("")).unwrap();
    assert_eq!(store.read(KeyRef::new(0, b"a")).unwrap().base().hlc, Hlc(1));
    commit(&store, &[row(b"a", 4, Body::Value(b"4"))]).unwrap();
}

#[test]
fn crash_forgets_only_what_was_not_synced() {
    let disk = MemoryDisk::new();
    let store = Store::open_memory(&disk, &StoreOptions::new("")).unwrap();
    commit(&store, &[row(b"a", 1, Body::Value(b"1"))]).unwrap();
    store.sync().unwrap();
    commit(&store, &[row(b"a", 2, Body::Value(b"2")), row(b"b", 3, Body::Value(b"3"))]).unwrap();
    drop(store);
    disk.crash(0);
    let store = Store::open_memory(&disk, &StoreOptions::new("")).unwrap();
    assert_eq!(store.read(KeyRef::new(0, b"a")).unwrap().base().hlc, Hlc(1));
    assert!(store.read(KeyRef::new(0, b"b")).unwrap().is_absent());
}

#[test]
fn what_others_store_is_covered_by_the_clock_mark_too() {
    let disk = MemoryDisk::new();
    let store = Store::open_memory(&disk, &StoreOptions::new("")).unwrap();
    let stamp = Hlc::from_millis(7_000);
    store.cover(stamp).unwrap();
    let mark = store.clock_mark();
    assert!(mark >= stamp);
    store.cover(mark).unwrap();
    assert_eq!(store.clock_mark(), mark, "it was covered");
    drop(store);
    let store = Store::open_memory(&disk, &StoreOptions::new("")).unwrap();
    assert_eq!(store.clock_mark(), mark);
}

#[test]
fn clock_mark_is_never_behind_a_stored_row() {
    let disk = MemoryDisk::new();
    let store = Store::open_memory(&disk, &StoreOptions::new("")).unwrap();
    assert_eq!(store.clock_mark(), Hlc::ZERO);
    for hlc in [5, 1 << 40, 3, 1 << 50] {
        commit(&store, &[row(b"a", hlc, Body::Value(b"1"))]).unwrap();
        let reopened = Store::open_memory(&disk, &StoreOptions::new("")).unwrap();
        assert!(reopened.clock_mark() >= Hlc(hlc));
    }
}

#[test]
fn read_that_would_touch_the_disk_answers_none() {
    let disk = MemoryDisk::new();
    let store = Store::open_memory(&disk, &StoreOptions::new("")).unwrap();
    commit(&store, &[row(b"a", 1, Body::Value(b"1"))]).unwrap();
    disk.set_cold(true);
    let cold = Store::open_memory(&disk, &StoreOptions::new("")).unwrap();
    let key = KeyRef::new(0, b"a");
    assert_eq!(cold.try_read(key).unwrap(), None);
    let record = cold.read(key).unwrap();
    assert_eq!(cold.try_read(key).unwrap(), Some(record), "the read has filled the cache");
}

#[test]
fn horizons_are_durable_and_never_fall() {
    let disk = MemoryDisk::new();
    let store = Store::open_memory(&disk, &StoreOptions::new("")).unwrap();
    let version = |hlc| Version { hlc: Hlc(hlc), node: 9 };
    store.set_horizons(&[version(10)]).unwrap();
    store.set_horizons(&[version(4), version(7)]).unwrap();
    disk.crash(0);
    let store = Store::open_memory(&disk, &StoreOptions::new("")).unwrap();
    assert_eq!(
        [store.horizon(0), store.horizon(1), store.horizon(2)],
        [version(10), version(7), Version::ZERO]
    );
    commit(&store, &[row(b"a", 9, Body::Value(b"old")), row(b"b", 11, Body::Value(b"new"))]).unwrap();
    let now = UnixMillis(0);
    assert_eq!(store.read(KeyRef::new(0, b"a")).unwrap().view(now), None);
    assert!(store.read(KeyRef::new(0, b"b")).unwrap().view(now).is_some());
    assert_eq!(store.count_keys(0, 0, scan::PREFIX_END, now).unwrap(), 1);
    assert_eq!(store.scan(Some(0), 0, scan::PREFIX_END, 10, 1000, true).unwrap().entries.len(), 1);
}
