//! What the store costs: commits, cached reads, reads from the memtable and from the block cache, scans.
//!
//! `cargo bench -p gyre-storage --features rocksdb --bench store -- [seconds] [threads]`
#![allow(clippy::indexing_slicing, reason = "a benchmark that is wrong may stop")]

use std::time::{Duration, Instant};

use gyre_storage::{
    Body, Cell, FsyncPolicy, Hlc, KeyRef, PREFIX_END, Row, Store, StoreOptions, UnixMillis, Version,
};

const KEYS: u64 = 1_000_000;
const BATCH: u64 = 16;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn key(&mut self) -> [u8; 16] {
        name(self.next() % KEYS)
    }
}

fn name(number: u64) -> [u8; 16] {
    let mut key = *b"key:000000000000";
    let mut rest = number;
    for digit in key[4..].iter_mut().rev() {
        *digit = b"0123456789"[(rest % 10) as usize];
        rest /= 10;
    }
    key
}

fn options(dir: &std::path::Path) -> StoreOptions {
    StoreOptions { fsync: FsyncPolicy::EverySecond, ..StoreOptions::new(dir) }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let seconds = arguments.first().and_then(|s| s.parse().ok()).unwrap_or(5);
    let threads: u64 = arguments.get(1).and_then(|s| s.parse().ok()).unwrap_or(1);
    let time = Duration::from_secs(seconds);
    println!("{:44} {:>10} {:>12} {:>12}", "operation", "k/s", "wall ns", "cpu ns");

    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(&options(dir.path())).expect("a store");
    if arguments.get(2).is_some_and(|what| what == "hot") {
        fill(&store, 100_000);
        measure("placing keys alone", || placed_keys(time / 2));
        measure("read, row cache, warm 100 k keys", || hot_reads(&store, time));
        return;
    }
    if arguments.get(2).is_some_and(|what| what == "commit") {
        measure("commit, 16 rows of 64 B", || {
            on_threads(threads, |thread| commits(&store, thread, time, BATCH))
        });
        return;
    }
    measure("batch push alone", || push_alone(time / 4));
    measure("commit, 16 rows of 64 B", || on_threads(threads, |thread| commits(&store, thread, time, BATCH)));
    measure("commit, 1 row", || on_threads(threads, |thread| commits(&store, thread + 50, time / 2, 1)));
    println!("{:?}", store.stats());
    measure("read, row cache or engine, random", || reads(&store, time / 2));
    measure("read, row cache, warm 100 k keys", || hot_reads(&store, time / 2));
    drop(store);

    let cold = StoreOptions { row_cache_bytes: 0, ..options(dir.path()) };
    let store = Store::open(&cold).expect("a store");
    measure("read, engine, several level-0 files", || reads(&store, time / 2));
    measure("try_read, engine", || try_reads(&store, time / 2));
    measure("read of absent keys", || absent_reads(&store, time / 4));
    measure("count_keys", || store.count_keys(0, 0, PREFIX_END, UnixMillis(1)).expect("a count"));
    measure("scan, pages of 1000", || scan_all(&store, 1000, usize::MAX));
    measure("scan, pages of 10 (per key)", || scan_all(&store, 10, 300));
    measure("compact", || store.compact().map(|()| KEYS).expect("a compaction"));
    measure("read, engine, compacted", || reads(&store, time / 2));
    measure("count_keys, compacted", || store.count_keys(0, 0, PREFIX_END, UnixMillis(1)).expect("a count"));
    println!("{:?}", store.stats());
    drop(store);

    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(&StoreOptions { row_cache_bytes: 0, ..options(dir.path()) }).expect("a store");
    fill(&store, 200_000);
    measure("read, engine, all in the memtable", || memtable_reads(&store, time / 2, 200_000));
}

fn measure(name: &str, work: impl FnOnce() -> u64) {
    let (began, cpu) = (Instant::now(), cpu_nanos());
    let done = work().max(1);
    let (wall, cpu) = (nanos(began.elapsed()), cpu_nanos() - cpu);
    println!("{:44} {:>10.1} {:>12} {:>12}", name, done as f64 * 1e6 / wall as f64, wall / done, cpu / done);
}

fn on_threads(threads: u64, work: impl Fn(u64) -> u64 + Sync) -> u64 {
    std::thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker")).sum()
    })
}

fn row<'a>(key: &'a [u8], value: &'a [u8], hlc: u64, node: u64) -> Row<'a> {
    Row {
        key: KeyRef::new(0, key),
        cell: Cell::Register,
        version: Version { hlc: Hlc(hlc), node },
        expiry: None,
        body: Body::Value(value),
    }
}

fn push_alone(time: Duration) -> u64 {
    let mut batch = gyre_storage::Batch::default();
    let mut random = Random(7);
    let (began, mut rows) = (Instant::now(), 0);
    while began.elapsed() < time {
        for _ in 0..BATCH {
            rows += 1;
            batch.push(&row(&random.key(), &[b'x'; 64], rows, 1));
        }
        batch.clear();
    }
    rows
}

fn commits(store: &Store, thread: u64, time: Duration, batch_rows: u64) -> u64 {
    let mut random = Random(0x9e37_79b9 + thread);
    let mut batch = store.batch();
    let (began, mut rows) = (Instant::now(), 0);
    // Versions rise over the runs of the program's one process; each thread is a coordinator.
    let start = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| nanos(since) / 1_000_000) << 16;
    while began.elapsed() < time {
        for _ in 0..batch_rows {
            rows += 1;
            batch.push(&row(&random.key(), &[b'x'; 64], start + rows, thread));
        }
        store.commit(&mut batch).expect("a commit");
    }
    rows
}

fn fill(store: &Store, keys: u64) {
    let mut batch = store.batch();
    for number in 0..keys {
        batch.push(&row(&name(number), &[b'x'; 64], number + 1, 1));
        if batch.len() == 16 {
            store.commit(&mut batch).expect("a commit");
        }
    }
    store.commit(&mut batch).expect("a commit");
}

fn repeat(time: Duration, mut once: impl FnMut()) -> u64 {
    let (began, mut done) = (Instant::now(), 0);
    while began.elapsed() < time {
        for _ in 0..64 {
            once();
        }
        done += 64;
    }
    done
}

fn reads(store: &Store, time: Duration) -> u64 {
    let mut random = Random(3);
    repeat(time, || {
        std::hint::black_box(store.read(KeyRef::new(0, &random.key())).expect("a read"));
    })
}

fn try_reads(store: &Store, time: Duration) -> u64 {
    let mut random = Random(5);
    let mut missed = 0;
    let done = repeat(time, || {
        let found = store.try_read(KeyRef::new(0, &random.key())).expect("a read");
        missed += u64::from(found.is_none());
    });
    println!("  of {done} reads {missed} would touch the disk");
    done
}

fn hot_reads(store: &Store, time: Duration) -> u64 {
    let mut random = Random(3);
    for number in 0..100_000 {
        store.read(KeyRef::new(0, &name(number))).expect("a read");
    }
    repeat(time, || {
        let key = name(random.next() % 100_000);
        std::hint::black_box(store.read(KeyRef::new(0, &key)).expect("a read"));
    })
}

fn placed_keys(time: Duration) -> u64 {
    let mut random = Random(3);
    repeat(time, || {
        let key = name(random.next() % 100_000);
        std::hint::black_box(KeyRef::new(0, &key));
    })
}

fn memtable_reads(store: &Store, time: Duration, keys: u64) -> u64 {
    let mut random = Random(3);
    repeat(time, || {
        let key = name(random.next() % keys);
        std::hint::black_box(store.read(KeyRef::new(0, &key)).expect("a read"));
    })
}

fn absent_reads(store: &Store, time: Duration) -> u64 {
    let mut random = Random(3);
    repeat(time, || {
        let mut key = random.key();
        key[0] = b'x';
        std::hint::black_box(store.read(KeyRef::new(0, &key)).expect("a read"));
    })
}

fn scan_all(store: &Store, keys_max: usize, pages_max: usize) -> u64 {
    let (mut next, mut keys, mut pages) = (Some(0), 0, 0);
    while let Some(from) = next
        && pages < pages_max
    {
        let page = store.scan(Some(0), from, PREFIX_END, keys_max, 1 << 20, true).expect("a page");
        keys += page.entries.len() as u64;
        next = page.next;
        pages += 1;
    }
    keys
}

/// Processor time of this process, user and system, from /proc (ticks of ten milliseconds).
fn cpu_nanos() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) * 10_000_000
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
