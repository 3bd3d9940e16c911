//! Directories that each on-disk format was written in, kept for ever: every later program must read them or refuse
//! them. Format 2 has Merkle trees, which are built when a directory of format 1 is opened.
//!
//! To write one anew (only ever for a new format, beside the old): `GYRE_FIXTURE_OUT=DIR cargo test -p gyre-storage
//! --release --features rocksdb --test fixture`.
#![cfg(feature = "rocksdb")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that is wrong fails")]

mod common;

use std::path::{Path, PathBuf};

use common::{commit, count, delete, expiring, in_db, recomputed, set, version};
use gyre_storage::tree::PrefixRange;
use gyre_storage::{
    FORMAT, KeyRef, PREFIX_END, Row, SLOTS, StorageError, Store, StoreOptions, UnixMillis, View,
};

fn fixture(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/format-{format}"))
}

fn rows_in_files() -> Vec<Row<'static>> {
    vec![
        set(b"plain", 5, b"value"),
        set(b"", 6, b"empty key"),
        delete(b"deleted", 7),
        set(b"number", 8, b"40"),
        count(b"number", 1, 9, version(8, 1), 3),
        in_db(9, set(b"plain", 10, b"elsewhere")),
        set(b"flushed", 11, b"under the horizon"),
    ]
}

fn rows_in_log() -> Vec<Row<'static>> {
    vec![
        count(b"number", 2, 12, version(8, 1), -1),
        expiring(b"expiring", 13, b"soon", 99_000),
        in_db(3, set(b"flushed", 14, b"gone")),
    ]
}

fn options(dir: &Path) -> StoreOptions {
    StoreOptions { memtable_bytes: 64 << 10, ..StoreOptions::new(dir) }
}

fn write_fixture(dir: &Path) {
    let store = Store::open(&options(dir)).unwrap();
    commit(&store, &rows_in_files());
    store.refresh_tree(usize::MAX).unwrap();
    store.compact().unwrap();
    commit(&store, &rows_in_log());
    store.set_horizons(&[version(0, 0), version(0, 0), version(0, 0), version(20, 1)]).unwrap();
    store.meta_put("document", b"bytes").unwrap();
}

fn check(dir: &Path) {
    let store = Store::open(&options(dir)).unwrap();
    let now = UnixMillis(50_000);
    let view = |db: u8, key: &[u8]| {
        let record = store.read(KeyRef::new(db, key)).unwrap();
        record.view(now).map(|view| match view {
            View::Bytes(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            View::Integer(integer) => format!("integer {integer}"),
        })
    };
    for (db, key, expected) in [
        (0, &b"plain"[..], Some("value")),
        (0, b"", Some("empty key")),
        (0, b"deleted", None),
        (0, b"number", Some("integer 42")),
        (9, b"plain", Some("elsewhere")),
        (0, b"flushed", Some("under the horizon")),
        (3, b"flushed", None),
        (0, b"expiring", Some("soon")),
        (0, b"nothing", None),
    ] {
        assert_eq!(view(db, key).as_deref(), expected, "{db} {key:?}");
    }
    assert_eq!(store.read(KeyRef::new(0, b"deleted")).unwrap().base(), version(7, 1));
    assert_eq!(store.scan(None, 0, PREFIX_END, 100, 10_000, true).unwrap().entries.len(), 7);
    assert_eq!(store.expired(UnixMillis(99_000), 10).unwrap().len(), 1);
    assert_eq!(store.horizon(3), version(20, 1));
    assert_eq!(store.meta_get("document").unwrap().as_deref(), Some(&b"bytes"[..]));
    assert!(store.clock_mark() >= version(14, 0).hlc);
}

fn copy_of(format: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture(format)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

fn check_trees(dir: &Path, stale_slots: u64) {
    let store = Store::open(&options(dir)).unwrap();
    assert_eq!(store.tree_stats().stale_slots, stale_slots);
    let slots: Vec<PrefixRange> = (0..SLOTS).map(PrefixRange::of_slot).collect();
    assert_eq!(store.tree_sums(&slots).unwrap(), recomputed(&store).tree_sums(&slots).unwrap());
    assert_eq!(store.tree_stats().keys, 7);
}

#[test]
fn directory_of_format_1_is_read_and_gets_trees() {
    let dir = copy_of(1);
    check(dir.path());
    check_trees(dir.path(), u64::from(SLOTS));
    check_trees(dir.path(), 0);
    check(dir.path());
}

#[test]
fn directory_of_format_2_is_read() {
    let dir = copy_of(2);
    check(dir.path());
    // Those that had keys when the horizon rose.
    check_trees(dir.path(), 5);
    check_trees(dir.path(), 0);
}

#[test]
fn this_program_writes_what_the_fixture_holds() {
    assert_eq!(FORMAT, 2, "a new format needs a fixture of its own");
    let dir = tempfile::tempdir().unwrap();
    let out = std::env::var("GYRE_FIXTURE_OUT").map_or_else(|_| dir.path().to_path_buf(), PathBuf::from);
    write_fixture(&out);
    if out == dir.path() {
        check(&out);
    }
}

#[test]
fn directory_of_a_later_format_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    {
        let mut options = rocksdb::Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        let families = ["default", "expiry", "meta", "what_came_later"];
        let db = rocksdb::DB::open_cf(&options, dir.path(), families).unwrap();
        db.put_cf(&db.cf_handle("meta").unwrap(), "storage.format", "3").unwrap();
    }
    let error = Store::open(&options(dir.path())).unwrap_err();
    assert_eq!(error, StorageError::UnknownFormat { found: "3".into(), supported: 2 });
    assert!(error.to_string().contains("format 3, this program supports format 2"));
}
