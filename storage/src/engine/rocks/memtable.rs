//! The memtable of the rows, `memtable/rows.cc`, as an option of RocksDB.

use rocksdb::Options;

/// A bucket for so many bytes: about one for a small row.
const BUCKET_BYTES: usize = 256;

/// Options whose memtable, of so many `bytes`, is the one of `memtable/rows.cc`. The database must not allow concurrent writes
/// to memtables.
///
/// It needs keys that begin with four evenly spread bytes; any others are kept in order as well, at the price of a skip
/// list.
#[expect(clippy::expect_used, reason = "what is linked into the program is there")]
pub(super) fn in_buckets(bytes: usize) -> Options {
    // Rounded up to a power of two there.
    let buckets = bytes / BUCKET_BYTES;
    Options::default()
        .get_options_from_string(format!("memtable_factory={{id=GyreRows;buckets={buckets}}}"))
        .expect("the memtable is part of the program")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that is wrong fails")]

    use std::collections::BTreeMap;
    use std::fs;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use proptest::prelude::*;
    use rocksdb::{DB, DBRawIterator, properties};
    use tempfile::TempDir;

    use super::*;

    const FLUSHED_NEVER: usize = 64 << 20;

    fn open(memtable_bytes: usize) -> (TempDir, DB) {
        let dir = tempfile::tempdir().unwrap();
        let mut options = in_buckets(memtable_bytes);
        options.create_if_missing(true);
        options.set_write_buffer_size(FLUSHED_NEVER);
        options.set_allow_concurrent_memtable_write(false);
        let db = DB::open(&options, dir.path()).unwrap();
        (dir, db)
    }

    fn item(iterator: &DBRawIterator<'_>) -> Option<(Vec<u8>, Vec<u8>)> {
        iterator.item().map(|(key, value)| (key.to_vec(), value.to_vec()))
    }

    /// All entries, from the first to the last and back again.
    fn both_ways(db: &DB) -> [Vec<(Vec<u8>, Vec<u8>)>; 2] {
        let mut iterator = db.raw_iterator();
        let mut forward = Vec::new();
        iterator.seek_to_first();
        while let Some(entry) = item(&iterator) {
            forward.push(entry);
            iterator.next();
        }
        let mut backward = Vec::new();
        iterator.seek_to_last();
        while let Some(entry) = item(&iterator) {
            backward.push(entry);
            iterator.prev();
        }
        backward.reverse();
        [forward, backward]
    }

    #[test]
    fn rocksdb_says_that_it_is_in_use() {
        let (dir, _db) = open(2 << 20);
        let options = fs::read_dir(dir.path())
            .unwrap()
            .map(|file| file.unwrap().path())
            .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("OPTIONS"))
            .unwrap();
        assert!(
            fs::read_to_string(options).unwrap().contains("memtable_factory={id=GyreRows;buckets=8192;}")
        );
    }

    /// A few positions, near each other and far apart, so that buckets hold one entry, many, or none.
    fn any_key() -> impl Strategy<Value = Vec<u8>> {
        let position = prop_oneof![
            6 => Just(0x4000_0000_u32),
            2 => 0x4000_0000_u32..0x4000_0010,
            1 => Just(0),
            1 => Just(u32::MAX),
            3 => any::<u32>(),
        ];
        let long = (position, prop::collection::vec(0..4_u8, 0..4));
        prop_oneof![
            9 => long.prop_map(|(position, rest)| [&position.to_be_bytes(), rest.as_slice()].concat()),
            1 => prop::collection::vec(any::<u8>(), 0..4),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn it_keeps_what_an_ordered_map_keeps(
            bytes in prop_oneof![Just(0), Just(16 << 10), Just(2_usize << 20)],
            writes in prop::collection::vec((any_key(), prop::option::weighted(0.9, any::<u16>())), 0..300),
            probes in prop::collection::vec(any_key(), 20),
        ) {
            let (_dir, db) = open(bytes);
            let mut model = BTreeMap::new();
            for (key, value) in &writes {
                if let Some(value) = value {
                    db.put(key, value.to_be_bytes()).unwrap();
                    model.insert(key.clone(), value.to_be_bytes().to_vec());
                } else {
                    db.delete(key).unwrap();
                    model.remove(key);
                }
            }
            let all: Vec<_> = model.clone().into_iter().collect();
            prop_assert_eq!(both_ways(&db), [all.clone(), all]);
            let owned = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
            let mut iterator = db.raw_iterator();
            for probe in writes.iter().map(|(key, _)| key).chain(&probes) {
                prop_assert_eq!(db.get(probe).unwrap(), model.get(probe).cloned());
                iterator.seek(probe);
                prop_assert_eq!(item(&iterator), model.range(probe.clone()..).next().map(owned));
                iterator.seek_for_prev(probe);
                prop_assert_eq!(item(&iterator), model.range(..=probe.clone()).next_back().map(owned));
            }
            prop_assert_eq!(db.property_int_value(properties::NUM_ENTRIES_ACTIVE_MEM_TABLE).unwrap(), Some(writes.len() as u64));
        }
    }

    const WRITERS: u32 = 4;
    const KEYS_EACH: u32 = 50_000;

    /// Half of the keys share a bucket, which becomes a skip list under the reader's eyes; the others are spread.
    fn key_of(writer: u32, number: u32) -> Vec<u8> {
        let mixed = (number * WRITERS + writer).wrapping_mul(0x9e37_79b1);
        let position = if number.is_multiple_of(2) { 7 } else { mixed };
        [position.to_be_bytes(), mixed.to_be_bytes()].concat()
    }

    #[test]
    fn many_write_while_one_reads() {
        let (_dir, db) = open(1 << 20);
        let written: [AtomicU32; WRITERS as usize] = Default::default();
        thread::scope(|scope| {
            for (writer, written) in (0_u32..).zip(&written) {
                let db = &db;
                scope.spawn(move || {
                    for number in 0..KEYS_EACH {
                        db.put(key_of(writer, number), []).unwrap();
                        written.store(number + 1, Ordering::Release);
                    }
                });
            }
            let counts =
                || -> Vec<u32> { written.iter().map(|count| count.load(Ordering::Acquire)).collect() };
            loop {
                let before = counts();
                let [forward, backward] = both_ways(&db);
                assert!(forward.is_sorted_by(|a, b| a.0 < b.0));
                assert!(
                    forward.len() >= before.iter().sum::<u32>() as usize,
                    "{} of {before:?}",
                    forward.len()
                );
                assert_eq!(forward, backward, "one iterator shows one moment");
                for (writer, count) in (0..).zip(&before).filter(|(_, count)| **count > 0) {
                    let last = key_of(writer, count - 1);
                    assert!(db.get(&last).unwrap().is_some());
                    assert!(forward.binary_search_by(|(key, _)| key.cmp(&last)).is_ok());
                }
                if before.iter().all(|count| *count == KEYS_EACH) {
                    break;
                }
            }
        });
        let mut expected: Vec<_> = (0..WRITERS)
            .flat_map(|writer| (0..KEYS_EACH).map(move |number| key_of(writer, number)))
            .collect();
        expected.sort();
        expected.dedup();
        let found: Vec<_> = both_ways(&db)[0].iter().map(|(key, _)| key.clone()).collect();
        assert!(found == expected, "{} of {}", found.len(), expected.len());
    }
}
