//! What Merkle trees cost: bytes, building them from nothing, hashing what is dirty, commits while that goes on.
//!
//! `cargo bench -p gyre-storage --features rocksdb --bench tree -- [seconds] [all | size | commits]`
//!
//! A million keys spread over the ring are what a small node has (61 keys in a slot); a million keys in sixteen slots are
//! a sample, 16 of 16,384 slots, of a node with a thousand million keys.
#![allow(clippy::indexing_slicing, reason = "a benchmark that is wrong may stop")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gyre_storage::tree::PrefixRange;
use gyre_storage::{
    Body, Cell, FsyncPolicy, Hlc, KeyRef, Row, SLOTS, Slot, Store, StoreOptions, Version, key::slot_of,
};

const KEYS: u64 = 1_000_000;
const VALUE_BYTES: usize = 64;
const BATCH: usize = 16;
const SEGMENTS: u64 = SLOTS as u64 * 16;
/// What a node hashes in a second if every segment gets dirty in each `anti-entropy-interval`.
const SEGMENTS_PER_SECOND: u64 = SEGMENTS / 600;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn value(&mut self) -> [u8; VALUE_BYTES] {
        std::array::from_fn(|_| self.next().to_le_bytes()[3])
    }
}

fn spread(number: u64) -> Vec<u8> {
    format!("key:{number:012}").into_bytes()
}

/// Keys of the same length, by their tags in sixteen slots.
fn crowded(number: u64) -> Vec<u8> {
    format!("{{{:02}}}:{:011}", number % 16, number / 16).into_bytes()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let seconds = arguments.first().and_then(|s| s.parse().ok()).unwrap_or(5);
    let what = arguments.get(1).map_or("all", String::as_str);
    if what != "commits" {
        size("1 M keys over 16,384 slots", spread);
        size("1 M keys in 16 slots", crowded);
    }
    if what != "size" {
        commits_beside_hashing(Duration::from_secs(seconds));
    }
}

fn open(dir: &std::path::Path) -> Store {
    Store::open(&StoreOptions { fsync: FsyncPolicy::EverySecond, ..StoreOptions::new(dir) }).expect("a store")
}

fn put(store: &Store, keys: impl Iterator<Item = Vec<u8>>, hlc: u64) {
    let (mut batch, mut random) = (store.batch(), Random(hlc + 7));
    for (number, key) in keys.enumerate() {
        batch.push(&Row {
            key: KeyRef::new(0, &key),
            cell: Cell::Register,
            version: Version { hlc: Hlc((hlc << 32) + number as u64 + 1), node: 1 },
            expiry: None,
            body: Body::Value(&random.value()),
        });
        if batch.len() == BATCH {
            store.commit(&mut batch).expect("a commit");
        }
    }
    store.commit(&mut batch).expect("a commit");
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = work();
    println!("  {what:56} {:>10.1} ms", began.elapsed().as_secs_f64() * 1e3);
    result
}

fn size(name: &str, key: fn(u64) -> Vec<u8>) {
    println!("{name}");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path());
    put(&store, (0..KEYS).map(key), 1);
    timed("hash all, rows in memtables and level 0", || store.refresh_tree(usize::MAX)).expect("hashing");
    store.compact().expect("a compaction");
    let (tree, rows) = (store.tree_stats(), store.stats().engine.table_bytes);
    let user = KEYS * (key(0).len() + VALUE_BYTES) as u64;
    let share = |whole: u64| 100.0 * tree.bytes as f64 / whole as f64;
    println!(
        "  {} leaves, {} bytes: {:.3} % of {user} bytes of keys and values, {:.3} % of {rows} in files",
        tree.leaves,
        tree.bytes,
        share(user),
        share(rows)
    );
    // Every slot with keys is stale after this, and nothing else has changed.
    store.set_horizons(&[Version { hlc: Hlc(1), node: 0 }]).expect("a horizon");
    let before = store.tree_stats();
    timed("build from nothing, rows compacted", || store.refresh_tree(usize::MAX)).expect("hashing");
    let after = store.tree_stats();
    println!("  ({} keys in {} slots)", after.keys_hashed - before.keys_hashed, before.stale_slots);
    timed("sum of the ring, nothing dirty", || store.tree_sums(&[PrefixRange::ALL])).expect("sums");
    let slots: Vec<Slot> = {
        let mut slots: Vec<Slot> = (0..256).map(|number| slot_of(&key(number))).collect();
        slots.sort_unstable();
        slots.dedup();
        slots
    };
    let parts: Vec<PrefixRange> = slots.iter().flat_map(|slot| sixteenths(*slot)).collect();
    timed(&format!("{} sums of sixteenths of slots, nothing dirty", parts.len()), || {
        store.tree_sums(&parts).expect("sums")
    });
    put(&store, (0..1_000).map(|number| key(number * 997 % KEYS)), 2);
    let dirty = store.tree_stats();
    timed(&format!("hash {} segments, dirty after 1,000 SETs", dirty.dirty_segments), || {
        store.refresh_tree(usize::MAX)
    })
    .expect("hashing");
    println!("  ({} keys)", store.tree_stats().keys_hashed - dirty.keys_hashed);
    drop(store);
    timed("open, trees there", || drop(open(dir.path())));
}

fn sixteenths(slot: Slot) -> impl Iterator<Item = PrefixRange> {
    let whole = PrefixRange::of_slot(slot);
    let width = (whole.end - whole.from) / 16;
    (0..16).map(move |part| PrefixRange {
        from: whole.from + part * width,
        end: whole.from + (part + 1) * width,
    })
}

/// Overwrites random keys at full speed on one thread while another hashes: not, as fast as needed, as fast as it can.
fn commits_beside_hashing(time: Duration) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path());
    put(&store, (0..KEYS).map(spread), 1);
    store.refresh_tree(usize::MAX).expect("hashing");
    let mut hlc = 2;
    for round in 0..3 {
        for (name, pace) in [
            ("no hashing", Some(0)),
            ("all segments in 10 min", Some(SEGMENTS_PER_SECOND)),
            ("all the time", None),
        ] {
            let before = store.tree_stats();
            let rows = commits(&store, time, hlc, pace);
            hlc += 1;
            let after = store.tree_stats();
            println!(
                "round {round}, commits of {BATCH} rows, hashing {name:24} {:>8.1} k rows/s, {:>7} marks, {:>9} keys hashed",
                rows as f64 / time.as_secs_f64() / 1e3,
                after.marks_written - before.marks_written,
                after.keys_hashed - before.keys_hashed
            );
        }
    }
}

fn commits(store: &Store, time: Duration, hlc: u64, segments_per_second: Option<u64>) -> u64 {
    const STEPS_PER_SECOND: u64 = 10;
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) && segments_per_second != Some(0) {
                let segments = segments_per_second.map_or(1_024, |pace| pace.div_ceil(STEPS_PER_SECOND));
                store.refresh_tree(usize::try_from(segments).unwrap_or(1)).expect("hashing");
                if segments_per_second.is_some() {
                    std::thread::sleep(Duration::from_millis(1_000 / STEPS_PER_SECOND));
                }
            }
        });
        let (mut random, mut rows, began) = (Random(hlc * 31), 0, Instant::now());
        let mut batch = store.batch();
        while began.elapsed() < time {
            for _ in 0..BATCH {
                rows += 1;
                let key = spread(random.next() % KEYS);
                let version = Version { hlc: Hlc((hlc << 32) + rows), node: 1 };
                batch.push(&Row {
                    key: KeyRef::new(0, &key),
                    cell: Cell::Register,
                    version,
                    expiry: None,
                    body: Body::Value(&[b'x'; VALUE_BYTES]),
                });
            }
            store.commit(&mut batch).expect("a commit");
        }
        is_done.store(true, Ordering::Relaxed);
        rows
    })
}
