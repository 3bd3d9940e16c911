//! Threads that commit, repair, read and scan at once: what was acknowledged before a read began is in its answer.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that is wrong fails")]

mod common;

use std::sync::atomic::{AtomicU64, Ordering};

use common::{Disk, set};
use gyre_storage::{KeyRef, PREFIX_END, Store};

const KEYS: usize = 300;
const WRITERS: u64 = 3;
const COMMITS: u64 = 3_000;

struct Shared {
    store: Store,
    names: Vec<Vec<u8>>,
    /// The greatest version acknowledged, by key.
    acknowledged: Vec<AtomicU64>,
    clock: AtomicU64,
    writers_left: AtomicU64,
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }
}

fn write(shared: &Shared, seed: u64) {
    let mut random = Random(seed);
    let mut batch = shared.store.batch();
    for _ in 0..COMMITS {
        let mut rows = Vec::new();
        for _ in 0..=random.below(4) {
            let key = random.below(KEYS);
            let now = shared.clock.fetch_add(1, Ordering::SeqCst) + 1;
            // Every third row is an old one that a repair brings.
            let version = if random.below(3) == 0 { now.saturating_sub(500).max(1) } else { now };
            batch.push(&set(&shared.names[key], version, &version.to_be_bytes()));
            rows.push((key, version));
        }
        shared.store.commit(&mut batch).unwrap();
        for (key, version) in rows {
            shared.acknowledged[key].fetch_max(version, Ordering::SeqCst);
        }
    }
    shared.writers_left.fetch_sub(1, Ordering::SeqCst);
}

fn read(shared: &Shared, seed: u64) {
    let mut random = Random(seed);
    let mut seen = vec![0; KEYS];
    while shared.writers_left.load(Ordering::SeqCst) > 0 {
        let key = random.below(KEYS);
        let floor = shared.acknowledged[key].load(Ordering::SeqCst).max(seen[key]);
        let placed = KeyRef::new(0, &shared.names[key]);
        let record = match shared.store.try_read(placed).unwrap() {
            Some(record) => record,
            None => shared.store.read(placed).unwrap(),
        };
        let found = record.base().hlc.0;
        assert!(found >= floor, "key {key}: read {found} after {floor}");
        seen[key] = found;
    }
}

fn scan(shared: &Shared) {
    while shared.writers_left.load(Ordering::SeqCst) > 0 {
        let floors: Vec<u64> = shared.acknowledged.iter().map(|a| a.load(Ordering::SeqCst)).collect();
        let (mut next, mut found) = (Some(0), std::collections::HashMap::new());
        while let Some(from) = next {
            let page = shared.store.scan(Some(0), from, PREFIX_END, 50, 1 << 20, true).unwrap();
            found.extend(page.entries.into_iter().map(|(_, key, record)| (key, record.base().hlc.0)));
            next = page.next;
        }
        for (name, floor) in shared.names.iter().zip(floors) {
            assert!(found.get(name).copied().unwrap_or(0) >= floor);
        }
    }
}

fn stress(disk: &Disk, row_cache_bytes: usize) {
    let shared = Shared {
        store: disk.open_with(|options| options.row_cache_bytes = row_cache_bytes).unwrap(),
        names: (0..KEYS).map(|key| format!("key:{key}").into_bytes()).collect(),
        acknowledged: (0..KEYS).map(|_| AtomicU64::new(0)).collect(),
        clock: AtomicU64::new(0),
        writers_left: AtomicU64::new(WRITERS),
    };
    std::thread::scope(|scope| {
        for seed in 1..=WRITERS {
            let shared = &shared;
            scope.spawn(move || write(shared, seed));
            scope.spawn(move || read(shared, seed + 100));
        }
        scope.spawn(|| scan(&shared));
    });
    for (name, acknowledged) in shared.names.iter().zip(&shared.acknowledged) {
        let record = shared.store.read(KeyRef::new(0, name)).unwrap();
        assert_eq!(record.base().hlc.0, acknowledged.load(Ordering::SeqCst));
    }
}

#[test]
fn nothing_acknowledged_is_missed_with_a_roomy_cache() {
    stress(&Disk::memory(), 8 << 20);
}

#[test]
fn nothing_acknowledged_is_missed_while_entries_are_evicted() {
    // Three entries or so in each stripe.
    stress(&Disk::memory(), 256 * 1_000);
}

#[cfg(feature = "rocksdb")]
#[test]
fn nothing_acknowledged_is_missed_on_rocksdb() {
    stress(&Disk::rocks(), 8 << 20);
    stress(&Disk::rocks(), 256 * 1_000);
    stress(&Disk::rocks(), 0);
}
