//! What the storage tests share: disks to open stores on, and rows.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test that is wrong fails"
)]
#![allow(dead_code, reason = "each test binary uses its part")]

use gyre_storage::{
    Body, Cell, Hlc, KeyRef, MemoryDisk, PREFIX_END, Row, StorageError, Store, StoreOptions, UnixMillis,
    Version,
};

/// Makes each claim, a function of a [`Disk`], one test for each engine.
#[allow(unused_macros, reason = "each test binary uses its part")]
macro_rules! contract {
    ($($claim:ident),* $(,)?) => {
        mod memory {
            $(#[test] fn $claim() { super::$claim(&super::Disk::memory()); })*
        }
        #[cfg(feature = "rocksdb")]
        mod rocks {
            $(#[test] fn $claim() { super::$claim(&super::Disk::rocks()); })*
        }
    };
}
#[allow(unused_imports, reason = "each test binary uses its part")]
pub(crate) use contract;

/// Somewhere a store can be opened, closed and opened again.
pub(crate) enum Disk {
    Memory(MemoryDisk),
    #[cfg(feature = "rocksdb")]
    Rocks(tempfile::TempDir),
}

impl Disk {
    pub(crate) fn memory() -> Disk {
        Disk::Memory(MemoryDisk::new())
    }

    #[cfg(feature = "rocksdb")]
    pub(crate) fn rocks() -> Disk {
        Disk::Rocks(tempfile::tempdir().unwrap())
    }

    /// After every store on it is closed: the process was killed, and on a pretended disk power failed and of the
    /// batches not synced the first `kept` survive.
    pub(crate) fn crash(&self, kept: usize) {
        match self {
            Disk::Memory(disk) => disk.crash(kept),
            #[cfg(feature = "rocksdb")]
            Disk::Rocks(_) => {}
        }
    }

    pub(crate) fn open(&self) -> Store {
        self.try_open().unwrap()
    }

    pub(crate) fn try_open(&self) -> Result<Store, StorageError> {
        self.open_with(|_| {})
    }

    pub(crate) fn open_with(&self, change: impl Fn(&mut StoreOptions)) -> Result<Store, StorageError> {
        let mut options = StoreOptions::new("");
        options.row_cache_bytes = 8 << 20;
        change(&mut options);
        match self {
            Disk::Memory(disk) => Store::open_memory(disk, &options),
            #[cfg(feature = "rocksdb")]
            Disk::Rocks(dir) => Store::open(&StoreOptions { dir: dir.path().to_path_buf(), ..options }),
        }
    }
}

pub(crate) fn version(hlc: u64, node: u64) -> Version {
    Version { hlc: Hlc(hlc), node }
}

pub(crate) fn set<'a>(key: &'a [u8], hlc: u64, value: &'a [u8]) -> Row<'a> {
    Row {
        key: KeyRef::new(0, key),
        cell: Cell::Register,
        version: version(hlc, 1),
        expiry: None,
        body: Body::Value(value),
    }
}

pub(crate) fn delete(key: &[u8], hlc: u64) -> Row<'_> {
    Row { body: Body::Tombstone, ..set(key, hlc, b"") }
}

pub(crate) fn count(key: &[u8], actor: u64, hlc: u64, base: Version, sum: i64) -> Row<'_> {
    Row { cell: Cell::Counter { actor }, body: Body::Counter { base, sum }, ..set(key, hlc, b"") }
}

pub(crate) fn expiring<'a>(key: &'a [u8], hlc: u64, value: &'a [u8], at: u64) -> Row<'a> {
    Row { expiry: Some(UnixMillis(at)), ..set(key, hlc, value) }
}

pub(crate) fn in_db(db: u8, row: Row<'_>) -> Row<'_> {
    Row { key: KeyRef::new(db, row.key.key), ..row }
}

pub(crate) fn commit(store: &Store, rows: &[Row<'_>]) {
    let mut batch = store.batch();
    for row in rows {
        batch.push(row);
    }
    assert_eq!(batch.len(), rows.len());
    store.commit(&mut batch).unwrap();
    assert!(batch.is_empty(), "a commit clears the batch");
}

/// A store that has the same records, and has hashed them all at once.
pub(crate) fn recomputed(store: &Store) -> Store {
    let fresh = Store::in_memory();
    let horizons: Vec<Version> = (0..=u8::MAX).map(|db| store.horizon(db)).collect();
    fresh.set_horizons(&horizons).unwrap();
    let mut next = Some(0);
    while let Some(from) = next {
        let page = store.scan(None, from, PREFIX_END, 1_000, usize::MAX, true).unwrap();
        for (db, key, record) in &page.entries {
            commit(&fresh, &record.rows(KeyRef::new(*db, key)).collect::<Vec<_>>());
        }
        next = page.next;
    }
    fresh
}
