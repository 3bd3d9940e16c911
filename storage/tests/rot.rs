//! Bits that flip on disk: noticed, answered with an error and never with something older, mended without losing what can
//! be read, and well again once the rows that were lost have come back.
#![cfg(feature = "rocksdb")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that is wrong fails"
)]

mod common;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::{commit, recomputed, set};
use gyre_storage::tree::PrefixRange;
use gyre_storage::{KeyRef, Row, StorageError, Store, StoreOptions, UnixMillis, View};
use proptest::prelude::*;

const KEYS: u64 = 4_000;

fn open(dir: &Path) -> Store {
    try_open(dir).unwrap()
}

fn try_open(dir: &Path) -> Result<Store, StorageError> {
    // Reads go to the disk: little is cached.
    Store::open(&StoreOptions {
        row_cache_bytes: 0,
        block_cache_bytes: 1 << 10,
        memtable_bytes: 1 << 20,
        ..StoreOptions::new(dir)
    })
}

fn key(number: u64) -> Vec<u8> {
    format!("key:{number}").into_bytes()
}

fn value(number: u64, round: u64) -> Vec<u8> {
    // Does not compress, so that blocks hold few rows.
    (0..60).map(|at| (number * 31 + round * 7 + at * at * 13) as u8 ^ (number >> (at % 13)) as u8).collect()
}

fn put(store: &Store, numbers: impl Iterator<Item = u64>, round: u64) {
    let rows: Vec<(Vec<u8>, Vec<u8>)> = numbers.map(|number| (key(number), value(number, round))).collect();
    for rows in rows.chunks(100) {
        let rows: Vec<Row<'_>> = rows.iter().map(|(key, value)| set(key, round, value)).collect();
        commit(store, &rows);
    }
}

/// A store's files, the largest first.
fn tables(dir: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut tables: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "sst")).collect();
    tables.sort_by_key(|path| (std::cmp::Reverse(path.metadata().unwrap().len()), path.clone()));
    tables
}

/// Whether rows are in it, and not what another family keeps: there a key can be read.
fn has_rows(table: &Path) -> bool {
    std::fs::read(table).unwrap().windows(4).any(|bytes| bytes == b"key:")
}

fn flip(file: &Path, at: u64) {
    let opened = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    opened.read_exact_at(&mut byte, at).unwrap();
    opened.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

/// What a read of each key gives: the round it was written in, nothing, or an error.
fn read_all(store: &Store) -> BTreeMap<u64, Result<Option<u64>, StorageError>> {
    let read = |number| {
        let record = store.read(KeyRef::new(0, &key(number)))?;
        let round = record.register().map(|register| register.version.hlc.0);
        if let Some(round) = round {
            assert_eq!(record.view(UnixMillis(0)), Some(View::Bytes(&value(number, round))));
        }
        Ok(round)
    };
    (0..KEYS).map(|number| (number, read(number))).collect()
}

fn failed(all: &BTreeMap<u64, Result<Option<u64>, StorageError>>) -> Vec<u64> {
    all.iter().filter(|(_, found)| found.is_err()).map(|(number, _)| *number).collect()
}

fn mend_all(store: &Store) -> usize {
    let mut files = 0;
    while store.mend(&|_| true).unwrap().is_some() {
        files += 1;
        assert!(files < 20);
    }
    files
}

/// Sends all rows once more, as another replica would, and clears the marks, as anti-entropy would.
fn heal(store: &Store, newest: impl Fn(u64) -> u64) {
    for number in 0..KEYS {
        let (key, value) = (key(number), value(number, newest(number)));
        commit(store, &[set(&key, newest(number), &value)]);
    }
    store.clear_marks(&store.marked_slots().unwrap()).unwrap();
}

fn check_healed(store: &Store, newest: impl Fn(u64) -> u64) {
    for (number, found) in read_all(store) {
        assert_eq!(found, Ok(Some(newest(number))));
    }
    assert_eq!(store.damage().unsound_ranges, 0);
    let slots: Vec<PrefixRange> = (0..gyre_storage::SLOTS).map(PrefixRange::of_slot).collect();
    assert_eq!(store.tree_sums(&slots).unwrap(), recomputed(store).tree_sums(&slots).unwrap());
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Level0,
    LastLevel,
}

fn filled(dir: &Path, place: Place) -> Store {
    let store = open(dir);
    put(&store, 0..KEYS, 1);
    store.refresh_tree(usize::MAX).unwrap();
    if place == Place::LastLevel {
        store.compact().unwrap();
        return store;
    }
    // What is opened anew writes its log to a file of level 0.
    drop(store);
    let store = open(dir);
    assert!(store.stats().engine.files_at_level[0] > 0);
    store
}

#[test]
fn damage_where_the_first_row_is_keeps_no_store_from_being_opened_nor_from_learning_its_keys() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path(), Place::LastLevel));
    for file in tables(dir.path()) {
        // In its first block.
        flip(&file, 100);
    }
    let store =
        Store::open(&StoreOptions { block_cache_bytes: 1 << 10, ..StoreOptions::new(dir.path()) }).unwrap();
    assert!(!store.knows_all_keys());
    let mut steps = 0;
    while store.learn_keys(100).is_err() {
        steps += 1;
        assert!(steps < 20 && mend_all(&store) > 0, "what cannot be read is mended");
    }
    while store.learn_keys(100).unwrap() {}
    assert!(store.knows_all_keys());
    heal(&store, |_| 2);
    check_healed(&store, |_| 2);
}

#[test]
fn flipped_bit_costs_one_block_of_one_replica_for_a_while() {
    for place in [Place::Level0, Place::LastLevel] {
        let dir = tempfile::tempdir().unwrap();
        let store = filled(dir.path(), place);
        let table = tables(dir.path()).remove(0);
        flip(&table, table.metadata().unwrap().len() / 3);
        let before = read_all(&store);
        let unreadable = failed(&before);
        assert!((1..400).contains(&unreadable.len()), "{} keys", unreadable.len());
        assert!(store.has_damage() && store.damage().errors as usize >= unreadable.len());

        let mended = store.mend(&|_| true).unwrap().unwrap();
        assert!(!table.exists() && !store.has_damage());
        assert_eq!(mended.rows_saved, KEYS - unreadable.len() as u64, "all that could be read");
        assert!(!mended.slots.is_empty());
        assert_eq!(store.marked_slots().unwrap().len(), mended.slots.len());
        let after = read_all(&store);
        for (number, found) in &after {
            match found {
                Ok(found) => assert_eq!(*found, Some(1), "key {number}"),
                // At the ends of the gap neighbours share the prefix, hardly ever.
                Err(StorageError::Damaged { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            assert!(before[number].is_err() <= found.is_err(), "key {number} was lost, and is not missed");
        }
        assert!(failed(&after).len() <= unreadable.len() + 4);
        assert!(store.scan(Some(0), 0, 1 << 32, 10_000, 1 << 30, false).is_err());
        let lost = KeyRef::new(0, b"key:0");
        assert!(store.read_held(lost).is_ok(), "anti-entropy may look");

        drop(store);
        let store = open(dir.path());
        assert_eq!(failed(&read_all(&store)), failed(&after), "also after a restart");
        heal(&store, |_| 1);
        check_healed(&store, |_| 1);
        store.compact().unwrap();
        check_healed(&store, |_| 1);
        let stats = store.damage();
        assert_eq!((stats.files_waiting, stats.files_given_up), (0, 0));
    }
}

#[test]
fn compaction_that_meets_the_damage_stops_no_write() {
    for place in [Place::Level0, Place::LastLevel] {
        let dir = tempfile::tempdir().unwrap();
        let store = filled(dir.path(), place);
        let table = tables(dir.path()).remove(0);
        flip(&table, table.metadata().unwrap().len() / 2);
        store.compact().unwrap();
        put(&store, 0..100, 2);
        assert!(store.has_damage() && store.poisoned().is_none());
        assert_eq!(mend_all(&store), 1);
        put(&store, 100..200, 2);
        let newest = |number| if number < 200 { 2 } else { 1 };
        for (number, found) in read_all(&store) {
            assert!(found.is_err() || found == Ok(Some(newest(number))), "{number}: {found:?}");
        }
        store.compact().unwrap();
        put(&store, 0..1, 2);
        assert!(!store.has_damage(), "compactions run again");
        heal(&store, newest);
        check_healed(&store, newest);
    }
}

#[test]
fn file_that_cannot_even_be_opened_loses_its_range() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path(), Place::LastLevel);
    let table = tables(dir.path()).remove(0);
    let length = table.metadata().unwrap().len();
    // Everything but the last bytes, by which RocksDB may already know the file.
    (0..length / 4_000).for_each(|block| flip(&table, block * 4_000));
    assert_eq!(failed(&read_all(&store)).len() as u64, KEYS);
    let mended = store.mend(&|_| true).unwrap().unwrap();
    assert_eq!(mended.rows_saved, 0);
    assert_eq!(failed(&read_all(&store)).len() as u64, KEYS);
    heal(&store, |_| 1);
    check_healed(&store, |_| 1);
}

#[test]
fn damaged_tree_is_built_anew_without_touching_a_row() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = filled(dir.path(), Place::LastLevel);
        put(&store, 0..3_000, 2);
        let deep: Vec<Vec<u8>> = (0..3_000).map(|number| format!("{{deep}}{number}").into_bytes()).collect();
        deep.chunks(100).for_each(|keys| {
            commit(&store, &keys.iter().map(|key| set(key, 3, b"v")).collect::<Vec<_>>());
        });
        store.refresh_tree(usize::MAX).unwrap();
    }
    drop(open(dir.path()));
    // Wherever the tree is, some of these bits hit it and no row.
    let slot = PrefixRange::of_slot(KeyRef::new(0, b"{deep}").slot());
    let half = PrefixRange { end: slot.from + (1 << 17) + 1, ..slot };
    let expected = recomputed(&open(dir.path())).tree_sums(&[slot, half]).unwrap();
    let mut hits = 0;
    let all = tables(dir.path());
    for (table, part) in all.iter().flat_map(|table| [0.1, 0.5, 0.75].map(|part| (table, part))) {
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
            }
        }
        let damaged = copy.path().join(table.file_name().unwrap());
        flip(&damaged, (damaged.metadata().unwrap().len() as f64 * part) as u64);
        // Other families may be hit, too, without which a store does not open.
        let Ok(store) = try_open(copy.path()) else { continue };
        if !failed(&read_all(&store)).is_empty() {
            continue;
        }
        let first = store.tree_sums(&[slot, half]);
        assert!(first.is_err() || first.as_ref() == Ok(&expected));
        if !store.has_damage() {
            continue;
        }
        hits += 1;
        assert_eq!(mend_all(&store), 1);
        assert!(store.marked_slots().unwrap().is_empty());
        assert_eq!(store.tree_sums(&[slot, half]).unwrap(), expected);
        check_healed(&store, |number| if number < 3_000 { 2 } else { 1 });
    }
    assert!(hits > 0, "no tree was hit");
}

/// A file says of rows below it that they are deleted. That must not be forgotten with the file.
#[test]
fn deleted_rows_do_not_come_back_with_the_file_that_deleted_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path(), Place::LastLevel);
    let is_forgotten = |number: u64| number.is_multiple_of(3);
    for number in (0..KEYS).filter(|number| is_forgotten(*number)) {
        let name = key(number);
        let name = KeyRef::new(0, &name);
        assert!(store.forget(name, &store.read(name).unwrap()).unwrap());
    }
    put(&store, (0..KEYS).filter(|number| number % 3 == 1), 2);
    drop(store);
    let before: Vec<PathBuf> = tables(dir.path());
    let store = open(dir.path());
    let mut fresh = tables(dir.path());
    fresh.retain(|table| !before.contains(table));
    let table = fresh.remove(0);
    flip(&table, table.metadata().unwrap().len() / 3);
    assert!(!failed(&read_all(&store)).is_empty());
    // Of whatever other nodes do not have, nothing in a gap is thrown away.
    let mended = store.mend(&|_| false).unwrap().unwrap();
    assert!(mended.rows_saved > 1_000 && !table.exists());
    let after = read_all(&store);
    assert!((1..400).contains(&failed(&after).len()));
    for (number, found) in after {
        let expected = [None, Some(2), Some(1)][(number % 3) as usize];
        assert!(found.is_err() || found == Ok(expected), "{number}: {found:?}");
    }
}

/// A file that was opened while it was sound, and could not be opened now: it goes before the store is closed for another.
#[test]
fn file_that_could_not_be_opened_again_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path(), Place::LastLevel));
    let store = open(dir.path());
    put(&store, 0..KEYS / 2, 2);
    drop(store);
    let store = open(dir.path());
    let [deep, flat] = [0, 1].map(|at| tables(dir.path()).swap_remove(at));
    // Its properties: not read again while it is open.
    flip(&deep, deep.metadata().unwrap().len() * 997 / 1_000);
    flip(&flat, flat.metadata().unwrap().len() / 3);
    let newest = |number| if number < KEYS / 2 { 2 } else { 1 };
    assert!(!failed(&read_all(&store)).is_empty());
    assert_eq!(mend_all(&store), 2);
    assert!(!deep.exists() && !flat.exists());
    for (number, found) in read_all(&store) {
        assert!(found.is_err() || found == Ok(Some(newest(number))), "{number}: {found:?}");
    }
    heal(&store, newest);
    check_healed(&store, newest);
}

/// What nothing brings back: whoever meets it is told which file it is, and the file stays.
#[test]
fn damage_that_is_not_mended_is_told_by_the_name_of_its_file() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = filled(dir.path(), Place::LastLevel);
        for number in 0..2_000 {
            let (key, value) = (key(number), value(number, 2));
            let row = Row { expiry: Some(UnixMillis(1 << 40)), ..set(&key, 2, &value) };
            commit(&store, &[row]);
        }
        store.refresh_tree(usize::MAX).unwrap();
        store.meta_put("document", &[7; 100]).unwrap();
    }
    drop(open(dir.path()));
    let (mut refused, mut given_up) = (0, 0);
    for table in tables(dir.path()) {
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        let damaged = copy.path().join(table.file_name().unwrap());
        flip(&damaged, damaged.metadata().unwrap().len() / 3);
        let path = damaged.display().to_string();
        let store = match try_open(copy.path()) {
            Ok(store) => store,
            Err(error) => {
                assert!(error.to_string().contains(&path), "{error}");
                refused += 1;
                continue;
            }
        };
        let _ = (read_all(&store), store.expired(UnixMillis(1 << 41), 10_000));
        let Err(error) = store.mend(&|_| true) else { continue };
        assert!(error.to_string().contains(&path), "{error}");
        let damage = store.damage();
        assert!(
            (damage.files_given_up, damage.files_waiting) == (1, 0)
                && damaged.exists()
                && !store.has_damage()
        );
        given_up += 1;
    }
    assert!(refused > 0 && given_up > 0, "{refused} {given_up}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Rows in several files and levels, any bits of any files flipped: no read gives anything but the newest row or an
    /// error, what could be read can still be read after mending, and then the rest comes back.
    #[test]
    fn nothing_readable_is_lost_and_nothing_old_is_read(
        rounds in prop::collection::vec((0..3u8, 0..KEYS, 1..KEYS), 2..5),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0.0..1.0f64), 1..4),
        is_compacted in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut newest = vec![1; KEYS as usize];
        let mut store = open(dir.path());
        put(&store, 0..KEYS, 1);
        for (round, (what, first, count)) in (2..).zip(rounds) {
            let numbers = (first..first + count).map(|number| number % KEYS);
            numbers.clone().for_each(|number| newest[number as usize] = round);
            put(&store, numbers, round);
            match what {
                0 => store.compact().unwrap(),
                1 => {
                    drop(store);
                    store = open(dir.path());
                }
                _ => {}
            }
        }
        drop(store);
        let store = open(dir.path());
        let mut tables = tables(dir.path());
        tables.retain(|table| table.metadata().unwrap().len() > 64 << 10 && has_rows(table));
        let newest = |number: u64| newest[number as usize];
        for (table, part) in &flips {
            let table = table.get(&tables);
            flip(table, (table.metadata().unwrap().len() as f64 * part) as u64);
        }
        if is_compacted {
            let _ = store.compact();
        }
        let before = read_all(&store);
        for (number, found) in &before {
            prop_assert!(found.is_err() || *found == Ok(Some(newest(*number))), "{}: {:?}", number, found);
        }
        let mut files = 0;
        let unmended = loop {
            match store.mend(&|_| true) {
                Ok(Some(_)) => files += 1,
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        let after = read_all(&store);
        for (number, found) in &after {
            prop_assert!(found.is_err() || *found == Ok(Some(newest(*number))), "{}: {:?}", number, found);
        }
        if let Some(error) = unmended {
            // What holds the store together is damaged: as when it is met at the start.
            drop(store);
            prop_assert!(try_open(dir.path()).is_err(), "{}", error);
            return Ok(());
        }
        // A second damaged file may lie behind the first.
        while let Ok(Some(_)) = store.mend(&|_| true) {
            files += 1;
        }
        prop_assert!(files > 0 || failed(&before).is_empty());
        if store.damage().files_given_up == 0 {
            heal(&store, newest);
            check_healed(&store, newest);
        }
    }
}
