//! What sweeping costs: by how much is due, whatever else there is; and the space it gives back.
//!
//! `cargo bench -p gyre-storage --features rocksdb --bench sweep`

use std::time::{Duration, Instant};

use gyre_storage::{
    Body, Cell, FsyncPolicy, Hlc, KeyRef, Row, Store, StoreOptions, SweepPass, UnixMillis, Version,
};

/// Entries a step, as the server takes them.
const STEP: usize = 64;
const VALUE_BYTES: usize = 256;
const SOON: UnixMillis = UnixMillis(1_000);
const LATE: UnixMillis = UnixMillis(1_000_000);

fn main() {
    // The harness is asked whether it runs at all.
    if std::env::args().any(|argument| argument == "--test") {
        return case(1_000, 1_000);
    }
    println!(
        "| keys due | keys that expire later | swept in | per key | a pass with nothing due | MB before, after, merged |"
    );
    println!("|---|---|---|---|---|---|");
    for (due, later) in [(10_000, 0), (10_000, 1_000_000), (100_000, 0), (100_000, 1_000_000), (1_000_000, 0)]
    {
        case(due, later);
    }
}

fn case(due: u64, later: u64) {
    let dir = tempfile::tempdir().expect("a directory");
    let options = StoreOptions { fsync: FsyncPolicy::EverySecond, ..StoreOptions::new(dir.path()) };
    let store = Store::open(&options).expect("a store");
    put(&store, b'l', later, LATE);
    put(&store, b's', due, SOON);
    store.compact().expect("a compaction");
    let before = store.stats().engine.table_bytes;
    let (swept, took) = sweep(&store);
    assert_eq!(swept as u64, due, "all that is due is swept");
    let (_, idle) = sweep(&store);
    let unmerged = store.stats().engine.table_bytes;
    store.compact().expect("a compaction");
    let merged = store.stats().engine.table_bytes;
    let mb = [before, unmerged, merged].map(|bytes| format!("{:.1}", bytes as f64 / 1e6)).join(", ");
    let each = took.as_secs_f64() * 1e6 / due as f64;
    println!(
        "| {due} | {later} | {:.2} s | {each:.1} µs | {} µs | {mb} |",
        took.as_secs_f64(),
        idle.as_micros()
    );
}

fn sweep(store: &Store) -> (usize, Duration) {
    let (started, mut swept, mut pass) = (Instant::now(), 0, Some(SweepPass::default()));
    while let Some(from) = pass {
        let step = store.sweep(from, SOON, STEP).expect("a step");
        swept += step.swept;
        pass = step.next;
    }
    (swept, started.elapsed())
}

fn put(store: &Store, kind: u8, keys: u64, expiry: UnixMillis) {
    let mut batch = store.batch();
    let mut random = 88_172_645_463_325_252_u64;
    for number in 0..keys {
        let key = [&[kind][..], &number.to_be_bytes()].concat();
        let value: [u8; VALUE_BYTES] = std::array::from_fn(|_| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random.to_le_bytes()[3]
        });
        batch.push(&Row {
            key: KeyRef::new(0, &key),
            cell: Cell::Register,
            version: Version { hlc: Hlc(number + 1), node: u64::from(kind) },
            expiry: Some(expiry),
            body: Body::Value(&value),
        });
        if batch.len() == 64 {
            store.commit(&mut batch).expect("a commit");
        }
    }
    store.commit(&mut batch).expect("a commit");
}
