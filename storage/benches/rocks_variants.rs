//! What each way of setting RocksDB up costs: rows a second, and processor time per row, of raw batches.
//!
//! `cargo bench -p gyre-storage --features rocksdb --bench rocks_variants -- [seconds] [threads] [name part]`
//!
//! 64-byte values under random keys of a million, batches of 16, each batch one write and one hand-over of the log
//! to the operating system. (Unordered writes are not among them: with manual WAL flushes 11.8.1 waits for ever when it
//! switches memtables.) Processor time includes flushes and compactions: on a machine whose cores are all busy it
//! is what bounds the throughput.
#![allow(clippy::indexing_slicing, reason = "a benchmark that is wrong may stop")]

use std::time::{Duration, Instant};

use rocksdb::{DB, MemtableFactory, Options, SliceTransform, WriteBatch, WriteOptions};

const KEYS: u64 = 1_000_000;
const BATCH: u64 = 16;

type Tune = dyn Fn(&mut Options, &mut WriteOptions) + Sync;

/// One way of setting RocksDB up.
struct Variant {
    name: String,
    tune: Box<Tune>,
    flush_wal: bool,
    wal: bool,
}

fn variants() -> Vec<Variant> {
    let mut variants = vec![
        Variant { flush_wal: false, ..variant("automatic WAL flush", |_, _| {}) },
        variant("manual WAL flush", |_, _| {}),
        variant("insert hint per batch", |_, w| w.set_memtable_insert_hint_per_batch(true)),
        variant("no concurrent memtable writes", |o, _| o.set_allow_concurrent_memtable_write(false)),
        variant("no concurrent, bloom 0.02", |o, _| {
            o.set_allow_concurrent_memtable_write(false);
            o.set_memtable_prefix_bloom_ratio(0.02);
        }),
        variant("pipelined writes", |o, _| o.set_enable_pipelined_write(true)),
        variant("memtable bloom 0.02", |o, _| o.set_memtable_prefix_bloom_ratio(0.02)),
        variant("memtable 8 MiB", |o, _| o.set_write_buffer_size(8 << 20)),
        variant("memtable 16 MiB", |o, _| o.set_write_buffer_size(16 << 20)),
        variant("memtable 32 MiB", |o, _| o.set_write_buffer_size(32 << 20)),
        variant("memtable 256 MiB", |o, _| o.set_write_buffer_size(256 << 20)),
        variant("huge pages", |o, _| o.set_memtable_huge_page_size(2 << 20)),
        variant("hash skip list, 1 M buckets, height 4", |o, _| {
            o.set_allow_concurrent_memtable_write(false);
            o.set_memtable_factory(MemtableFactory::HashSkipList {
                bucket_count: 1 << 20,
                height: 4,
                branching_factor: 4,
            });
        }),
        variant("hash skip list, 256 k buckets, height 4", |o, _| {
            o.set_allow_concurrent_memtable_write(false);
            o.set_memtable_factory(MemtableFactory::HashSkipList {
                bucket_count: 1 << 18,
                height: 4,
                branching_factor: 4,
            });
        }),
        variant("hash skip list, 256 k buckets, height 2", |o, _| {
            o.set_allow_concurrent_memtable_write(false);
            o.set_memtable_factory(MemtableFactory::HashSkipList {
                bucket_count: 1 << 18,
                height: 2,
                branching_factor: 4,
            });
        }),
        variant("hash skip list, 64 k buckets, height 4", |o, _| {
            o.set_allow_concurrent_memtable_write(false);
            o.set_memtable_factory(MemtableFactory::HashSkipList {
                bucket_count: 1 << 16,
                height: 4,
                branching_factor: 4,
            });
        }),
        variant("hash linked list, 1 M buckets", |o, _| {
            o.set_allow_concurrent_memtable_write(false);
            o.set_memtable_factory(MemtableFactory::HashLinkList { bucket_count: 1 << 20 });
        }),
        variant("hash linked list, 256 k buckets", |o, _| {
            o.set_allow_concurrent_memtable_write(false);
            o.set_memtable_factory(MemtableFactory::HashLinkList { bucket_count: 1 << 18 });
        }),
        variant("hash linked list, 128 k buckets", |o, _| {
            o.set_allow_concurrent_memtable_write(false);
            o.set_memtable_factory(MemtableFactory::HashLinkList { bucket_count: 1 << 17 });
        }),
        variant("hash linked list, 64 k buckets", |o, _| {
            o.set_allow_concurrent_memtable_write(false);
            o.set_memtable_factory(MemtableFactory::HashLinkList { bucket_count: 1 << 16 });
        }),
        variant("hash linked list, 16 k buckets", |o, _| {
            o.set_allow_concurrent_memtable_write(false);
            o.set_memtable_factory(MemtableFactory::HashLinkList { bucket_count: 1 << 14 });
        }),
        variant("vector", |o, _| {
            o.set_allow_concurrent_memtable_write(false);
            o.set_memtable_factory(MemtableFactory::Vector);
        }),
        Variant { flush_wal: false, wal: false, ..variant("no WAL", |_, _| {}) },
    ];
    for (mib, parts) in [(16, 4), (8, 8), (4, 16), (2, 32)] {
        variants.push(in_parts(mib, parts, false));
        variants.push(in_parts(mib, parts, true));
    }
    variants
}

fn variant(name: &str, tune: impl Fn(&mut Options, &mut WriteOptions) + Sync + 'static) -> Variant {
    Variant { name: name.into(), tune: Box::new(tune), flush_wal: true, wal: true }
}

/// A memtable of so many small ones, of `mib` MiB each, that are merged when they are flushed.
fn in_parts(mib: usize, parts: i32, is_hashed: bool) -> Variant {
    let kind = if is_hashed { "hash linked list" } else { "skip list" };
    variant(&format!("{kind}, {mib} MiB, {parts} merged"), move |options, _| {
        options.set_allow_concurrent_memtable_write(false);
        if is_hashed {
            options.set_memtable_factory(MemtableFactory::HashLinkList { bucket_count: mib << 11 });
        }
        options.set_write_buffer_size(mib << 20);
        options.set_max_write_buffer_number(parts * 3);
        options.set_min_write_buffer_number_to_merge(parts);
    })
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let seconds = arguments.first().and_then(|s| s.parse().ok()).unwrap_or(4);
    let threads = arguments.get(1).and_then(|s| s.parse().ok()).unwrap_or(1);
    let part = arguments.get(2).cloned().unwrap_or_default();
    println!("{:32} {:>10} {:>12} {:>12}", "variant", "k rows/s", "wall ns/row", "cpu ns/row");
    for variant in variants().iter().filter(|variant| variant.name.contains(&part)) {
        measure(variant, threads, Duration::from_secs(seconds));
    }
}

fn measure(variant: &Variant, threads: u64, time: Duration) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut options = Options::default();
    let mut write = WriteOptions::default();
    options.create_if_missing(true);
    options.set_write_buffer_size(64 << 20);
    options.set_max_write_buffer_number(4);
    options.set_manual_wal_flush(variant.flush_wal);
    options.set_prefix_extractor(SliceTransform::create_fixed_prefix(4));
    write.disable_wal(!variant.wal);
    (variant.tune)(&mut options, &mut write);
    let db = DB::open(&options, dir.path()).expect("a database");
    let began = Instant::now();
    let cpu = cpu_nanos();
    let rows: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn({
                    let db = &db;
                    let write = &write;
                    move || work(db, write, variant, thread, time)
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker")).sum()
    });
    let wall = nanos(began.elapsed());
    let cpu = cpu_nanos() - cpu;
    println!("{:32} {:>10} {:>12} {:>12}", variant.name, rows * 1_000_000 / wall, wall / rows, cpu / rows);
}

fn work(db: &DB, write: &WriteOptions, variant: &Variant, thread: u64, time: Duration) -> u64 {
    let began = Instant::now();
    let mut random = 0x9e37_79b9_7f4a_7c15 ^ (thread + 1);
    let mut rows = 0u64;
    let value = [b'x'; 65];
    while began.elapsed() < time {
        let mut batch = WriteBatch::default();
        for _ in 0..BATCH {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let number = random % KEYS;
            let mut key = [b'0'; 39];
            let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            key[..4].copy_from_slice(&hash.to_be_bytes()[..4]);
            key[6..14].copy_from_slice(&number.to_be_bytes());
            key[23..31].copy_from_slice(&(!rows).to_be_bytes());
            key[31..39].copy_from_slice(&thread.to_be_bytes());
            batch.put(key, value);
            rows += 1;
        }
        db.write_opt(batch, write).expect("a write");
        if variant.flush_wal {
            db.flush_wal(false).expect("a hand-over");
        }
    }
    rows
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
