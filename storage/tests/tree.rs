//! Merkle trees: on each engine they equal what hashing everything anew gives, whatever happened before.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test that is wrong fails"
)]

mod common;

use std::sync::atomic::{AtomicU64, Ordering};

use common::{Disk, commit, contract, count, delete, expiring, in_db, recomputed, set, version};
use gyre_storage::tree::{KeyState, PrefixRange, RangeSum};
use gyre_storage::{Body, Cell, KeyRef, PREFIX_END, Record, Row, Store, UnixMillis, Version};
use proptest::prelude::*;

contract!(
    sums_follow_every_kind_of_write,
    sums_of_parts_add_up_to_the_whole,
    replicas_that_got_rows_in_any_order_agree,
    void_counters_and_flushed_rows_do_not_count,
    horizon_is_counted_also_after_reopening,
    forgotten_rows_are_counted_no_more,
    deep_slots_are_cut_and_merged_again,
    single_rows_of_deep_slots_are_followed,
    refresh_goes_on_where_it_left_off,
    states_and_records_of_a_range_come_in_pages,
    trees_survive_reopening_without_hashing,
);

fn ranges() -> Vec<PrefixRange> {
    let slot = PrefixRange::of_slot(KeyRef::new(0, b"{t}").slot());
    let mut ranges = vec![PrefixRange::ALL, PrefixRange { from: 12_345_678, end: 3_987_654_321 }, slot];
    let step = PREFIX_END / 64;
    ranges.extend((0..64).map(|part| PrefixRange { from: part * step, end: (part + 1) * step }));
    for width in [1 << 14, 1 << 11, 1 << 9, 777] {
        let parts = (slot.from..slot.end).step_by(width);
        ranges.extend(parts.map(|from| PrefixRange { from, end: (from + width as u64).min(slot.end) }));
    }
    ranges
}

fn check(store: &Store) {
    let (own, expected) =
        (store.tree_sums(&ranges()).unwrap(), recomputed(store).tree_sums(&ranges()).unwrap());
    for ((range, own), expected) in ranges().iter().zip(own).zip(expected) {
        assert_eq!(own, expected, "{range:?}");
    }
    let stats = store.tree_stats();
    assert_eq!((stats.dirty_segments, stats.stale_slots), (0, 0));
}

fn total(store: &Store) -> RangeSum {
    store.tree_sums(&[PrefixRange::ALL]).unwrap()[0]
}

fn read(store: &Store, key: KeyRef<'_>) -> Record {
    store.read(key).unwrap()
}

fn sums_follow_every_kind_of_write(disk: &Disk) {
    let store = disk.open();
    assert_eq!(total(&store), RangeSum::default());
    let steps: &[&[Row<'_>]] = &[
        &[set(b"a", 1, b"1"), set(b"b", 2, b"2")],
        &[set(b"a", 3, b"3"), set(b"a", 2, b"late")],
        &[delete(b"b", 4)],
        &[count(b"n", 7, 5, version(0, 0), 3)],
        &[count(b"n", 7, 6, version(0, 0), 4), count(b"n", 8, 6, version(0, 0), 1)],
        &[set(b"n", 7, b"10"), count(b"n", 7, 8, version(7, 1), 1)],
        &[expiring(b"e", 9, b"soon", 1_000)],
        &[expiring(b"e", 10, b"later", 2_000), in_db(3, set(b"a", 11, b"elsewhere"))],
    ];
    let mut seen = vec![total(&store)];
    for rows in steps {
        commit(&store, rows);
        check(&store);
        assert!(!seen.contains(&total(&store)), "a write changes the sum: {rows:?}");
        seen.push(total(&store));
    }
    assert_eq!(total(&store).keys, 5);
    commit(&store, &[set(b"a", 2, b"late")]);
    check(&store);
    assert_eq!(seen.last(), Some(&total(&store)), "a superseded row changes nothing");
}

fn sums_of_parts_add_up_to_the_whole(disk: &Disk) {
    let store = disk.open();
    let keys: Vec<String> =
        (0..2_000).map(|n| format!("{}{n}", if n % 2 == 0 { "{t}" } else { "" })).collect();
    let rows: Vec<Row<'_>> = keys.iter().map(|key| set(key.as_bytes(), 5, b"v")).collect();
    commit(&store, &rows);
    let slot = PrefixRange::of_slot(KeyRef::new(0, b"{t}").slot());
    for (whole, width) in
        [(PrefixRange::ALL, 1 << 24), (slot, 1 << 14), (slot, 1 << 10), (slot, 999), (slot, 1 << 17)]
    {
        let parts: Vec<PrefixRange> = (whole.from..whole.end)
            .step_by(width)
            .map(|from| PrefixRange { from, end: (from + width as u64).min(whole.end) })
            .collect();
        let sums = store.tree_sums(&parts).unwrap();
        assert_eq!(sums.into_iter().sum::<RangeSum>(), store.tree_sums(&[whole]).unwrap()[0]);
    }
    assert!(store.tree_sums(&[slot]).unwrap()[0].keys >= 1_000);
    let nothing = [PrefixRange { from: 9, end: 9 }, PrefixRange { from: PREFIX_END, end: PREFIX_END + 9 }];
    assert_eq!(store.tree_sums(&nothing).unwrap(), [RangeSum::default(); 2]);
    check(&store);
}

fn replicas_that_got_rows_in_any_order_agree(disk: &Disk) {
    let rows = [
        set(b"a", 1, b"1"),
        set(b"a", 2, b"2"),
        delete(b"b", 4),
        set(b"b", 3, b"3"),
        count(b"c", 1, 5, version(0, 0), 1),
        set(b"c", 6, b"0"),
        count(b"c", 1, 7, version(6, 1), 1),
        count(b"c", 2, 8, version(6, 1), 1),
        expiring(b"d", 9, b"v", 70),
    ];
    let store = disk.open();
    commit(&store, &rows);
    for start in 0..rows.len() {
        let other = Store::in_memory();
        for step in 0..rows.len() {
            commit(&other, &[rows[(start + step * 5) % rows.len()]]);
            total(&other);
        }
        assert_eq!(other.tree_sums(&ranges()).unwrap(), store.tree_sums(&ranges()).unwrap());
    }
}

fn void_counters_and_flushed_rows_do_not_count(disk: &Disk) {
    let (store, other) = (disk.open(), Store::in_memory());
    for replica in [&store, &other] {
        commit(replica, &[set(b"n", 9, b"1"), set(b"flushed", 5, b"1"), set(b"kept", 25, b"1")]);
    }
    let before = total(&other);
    commit(&store, &[count(b"n", 3, 8, version(4, 1), 7)]);
    assert_eq!(total(&store), before, "a cell on an older base is void");
    // A cell that came after the flush, and counts on a base from before it.
    commit(&store, &[count(b"alone", 3, 21, version(4, 1), 7)]);
    for replica in [&store, &other] {
        replica.set_horizons(&[version(20, 1)]).unwrap();
    }
    assert_eq!(total(&store), total(&other));
    assert_eq!(total(&store).keys, 1);
    check(&store);
    store.compact().unwrap();
    check(&store);
    assert_eq!(total(&store), total(&other));
}

fn horizon_is_counted_also_after_reopening(disk: &Disk) {
    let store = disk.open();
    commit(&store, &[set(b"a", 5, b"1"), in_db(1, set(b"a", 5, b"1")), set(b"b", 25, b"1")]);
    assert_eq!(total(&store).keys, 3);
    store.set_horizons(&[version(20, 1)]).unwrap();
    assert!(store.tree_stats().dirty_segments > 0);
    drop(store);
    let store = disk.open();
    assert_eq!(total(&store).keys, 2);
    check(&store);
}

fn forgotten_rows_are_counted_no_more(disk: &Disk) {
    let store = disk.open();
    commit(&store, &[set(b"a", 5, b"1"), set(b"b", 6, b"1"), set(b"a", 4, b"0")]);
    let both = total(&store);
    let key = KeyRef::new(0, b"a");
    assert!(store.forget(key, &read(&store, key)).unwrap());
    assert_eq!(total(&store).keys, both.keys - 1);
    check(&store);
    commit(&store, &[set(b"a", 5, b"1")]);
    assert_eq!(total(&store), both);
}

fn deep_slots_are_cut_and_merged_again(disk: &Disk) {
    let store = disk.open();
    let keys: Vec<String> = (0..6_000).map(|n| format!("{{t}}{n}")).collect();
    let mut leaves = Vec::new();
    for part in keys.chunks(500) {
        let rows: Vec<Row<'_>> = part.iter().map(|key| set(key.as_bytes(), 5, b"v")).collect();
        commit(&store, &rows);
        check(&store);
        leaves.push(store.tree_stats().leaves);
    }
    assert!(leaves.is_sorted() && *leaves.last().unwrap() == 128, "{leaves:?}");
    for (number, key) in keys.iter().enumerate() {
        let key = KeyRef::new(0, key.as_bytes());
        if number % 64 != 0 {
            assert!(store.forget(key, &read(&store, key)).unwrap());
        }
        if number % 1_000 == 999 {
            check(&store);
        }
    }
    check(&store);
    assert_eq!(total(&store).keys, 94);
    assert!(store.tree_stats().leaves <= 4, "{:?}", store.tree_stats());
}

fn single_rows_of_deep_slots_are_followed(disk: &Disk) {
    for keys in [150, 1_500, 3_000] {
        let store = disk.open();
        let names: Vec<String> = (0..keys).map(|n| format!("{{t}}{n}")).collect();
        let rows: Vec<Row<'_>> = names.iter().map(|key| set(key.as_bytes(), 5, b"v")).collect();
        commit(&store, &rows);
        check(&store);
        for change in 0..12u64 {
            let name = names[change as usize * 37 % names.len()].as_bytes();
            let hashed = store.tree_stats().segments_hashed;
            match change % 3 {
                0 => commit(&store, &[set(name, 10_000 * keys + change, b"w")]),
                1 => {
                    let key = KeyRef::new(0, name);
                    assert!(store.forget(key, &read(&store, key)).unwrap());
                }
                _ => commit(&store, &[count(name, 9, 10_000 * keys + change, version(5, 1), 1)]),
            }
            check(&store);
            assert_eq!(store.tree_stats().segments_hashed, hashed + 1);
        }
    }
}

fn refresh_goes_on_where_it_left_off(disk: &Disk) {
    let store = disk.open();
    let keys: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    let rows: Vec<Row<'_>> = keys.iter().map(|key| set(key.as_bytes(), 5, b"v")).collect();
    commit(&store, &rows);
    let dirty = store.tree_stats().dirty_segments as usize;
    assert!(dirty > 400);
    assert_eq!(store.refresh_tree(0).unwrap(), dirty);
    assert_eq!(store.refresh_tree(100).unwrap(), dirty - 100);
    assert_eq!(store.refresh_tree(50).unwrap(), dirty - 150);
    assert_eq!(store.tree_stats().segments_hashed, 150);
    commit(&store, &rows);
    assert_eq!(store.tree_stats().dirty_segments as usize, dirty, "the same segments are dirty again");
    assert_eq!(store.refresh_tree(usize::MAX).unwrap(), 0);
    check(&store);
}

fn states_and_records_of_a_range_come_in_pages(disk: &Disk) {
    let store = disk.open();
    let keys: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    for (number, key) in keys.iter().enumerate() {
        let (key, hlc) = (key.as_bytes(), number as u64 + 10);
        let row = if number % 3 == 0 { delete(key, hlc) } else { set(key, hlc, b"value") };
        commit(&store, &[row, in_db(2, set(key, 5, b"other"))]);
    }
    store.set_horizons(&[Version::ZERO, Version::ZERO, version(7, 1)]).unwrap();
    let (mut states, mut from, mut pages): (Vec<KeyState>, _, _) = (Vec::new(), Some(0), 0);
    while let Some(at) = from {
        let page = store.key_states(PrefixRange { from: at, end: PREFIX_END }, 50).unwrap();
        assert!(!page.states.is_empty() || page.next.is_none());
        states.extend(page.states);
        from = page.next;
        pages += 1;
    }
    assert_eq!(states.len(), 300, "what was flushed is not among them");
    assert!(pages >= 12, "each page passes 50 keys of 600: {pages}");
    assert_eq!(states.iter().filter(|state| state.is_live).count(), 200);
    let mut wanted: Vec<u64> =
        states.iter().filter(|state| state.newest >= version(260, 0)).map(|state| state.hash).collect();
    assert_eq!(wanted.len(), 50);
    wanted.sort_unstable();
    let (mut entries, mut from) = (Vec::new(), Some(0));
    while let Some(at) = from {
        let page = store.records_of(PrefixRange { from: at, end: PREFIX_END }, &wanted, 200).unwrap();
        assert!(page.entries.len() <= 10);
        entries.extend(page.entries);
        from = page.next;
    }
    assert_eq!(entries.len(), 50);
    for (db, key, record) in entries {
        let key = KeyRef::new(db, &key);
        assert_eq!(record, read(&store, key));
        let state = states.iter().find(|state| state.hash == key.hash64()).unwrap();
        assert_eq!(Some(state.digest), record.state_digest(Version::ZERO));
    }
}

fn trees_survive_reopening_without_hashing(disk: &Disk) {
    let store = disk.open();
    let keys: Vec<String> = (0..3_000).map(|n| format!("{{{}}}{n}", n % 9)).collect();
    let rows: Vec<Row<'_>> = keys.iter().map(|key| set(key.as_bytes(), 5, b"v")).collect();
    commit(&store, &rows);
    let sums = store.tree_sums(&ranges()).unwrap();
    commit(&store, &[set(b"{1}dirty", 6, b"v")]);
    drop(store);
    let store = disk.open();
    let stats = store.tree_stats();
    assert_eq!((stats.dirty_segments, stats.stale_slots, stats.keys), (1, 0, 3_000));
    let key = KeyRef::new(0, b"{1}dirty");
    assert!(store.forget(key, &read(&store, key)).unwrap());
    assert_eq!(store.tree_sums(&ranges()).unwrap(), sums);
    assert_eq!(store.tree_stats().segments_hashed, 1);
}

/// Something that happens to a store.
#[derive(Clone, Debug)]
enum Event {
    Commit(Vec<Row<'static>>),
    /// As a hinted write, and the forgetting of the key once the hint is gone.
    HintAndForget(Row<'static>, bool),
    Horizon(u8, u64),
    Refresh(usize),
    Sums(PrefixRange),
    Compact,
    /// The process is killed; on a pretended disk power fails, and so many of the batches not synced survive.
    Crash(usize),
    Sync,
}

fn any_key() -> impl Strategy<Value = KeyRef<'static>> {
    const KEYS: [&[u8]; 12] =
        [b"", b"a", b"aa", b"{a}b", b"\xff", b"{a}c", b"{a}d", b"{a}e", b"{a}f", b"{a}g", b"{a}h", b"{a}i"];
    (0..2u8, 0..KEYS.len()).prop_map(|(db, key)| KeyRef::new(db, KEYS[key]))
}

/// A random row. Its version follows from its content, so that equal versions are the same row.
fn any_row() -> impl Strategy<Value = Row<'static>> {
    (any_key(), 0..4u64, 0..12u64, 0..3u64).prop_map(|(key, kind, hlc, node)| {
        let expiry = (hlc % 3 == 0 && kind == 1).then_some(UnixMillis(hlc * 100));
        let plain = Row { key, version: version(hlc + 1, 4 * node + kind), expiry, ..set(b"", 0, b"") };
        match kind {
            0 => Row { body: Body::Tombstone, ..plain },
            1 => plain,
            actor => {
                let body = Body::Counter { base: version(hlc / 2, 1), sum: hlc as i64 - 5 };
                Row { cell: Cell::Counter { actor }, body, ..plain }
            }
        }
    })
}

fn any_range() -> impl Strategy<Value = PrefixRange> {
    let slot = PrefixRange::of_slot(KeyRef::new(0, b"a").slot());
    let inside = |width: u64| slot.from..slot.from + width;
    prop_oneof![
        Just(PrefixRange::ALL),
        Just(slot),
        (inside(1 << 18), 1..1u64 << 15).prop_map(|(from, width)| PrefixRange { from, end: from + width }),
        (0..PREFIX_END, 1..1u64 << 31).prop_map(|(from, width)| PrefixRange { from, end: from + width }),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => prop::collection::vec(any_row(), 1..6).prop_map(Event::Commit),
        2 => (any_row(), any::<bool>()).prop_map(|(row, forgets)| Event::HintAndForget(row, forgets)),
        1 => (0..2u8, 0..12u64).prop_map(|(db, hlc)| Event::Horizon(db, hlc)),
        2 => (0..20usize).prop_map(Event::Refresh),
        3 => any_range().prop_map(Event::Sums),
        1 => Just(Event::Compact),
        2 => (0..6usize).prop_map(Event::Crash),
        1 => Just(Event::Sync),
    ]
}

fn take(disk: &Disk, store: Store, event: &Event) -> Store {
    match event {
        Event::Commit(rows) => commit(&store, rows),
        Event::HintAndForget(row, forgets) => {
            let mut batch = store.batch();
            batch.push(row);
            store.hint(&mut batch, 7, row.key, row.version);
            store.commit(&mut batch).unwrap();
            if *forgets {
                store.drop_hints(7, &store.hints_page(7, None, 100).unwrap()).unwrap();
                store.forget(row.key, &read(&store, row.key)).unwrap();
            }
        }
        Event::Horizon(db, hlc) => {
            let mut horizons = [Version::ZERO; 2];
            horizons[usize::from(*db)] = version(*hlc, 0);
            store.set_horizons(&horizons).unwrap();
        }
        Event::Refresh(segments) => _ = store.refresh_tree(*segments).unwrap(),
        Event::Sums(range) => {
            let sum = store.tree_sums(&[*range]).unwrap();
            assert_eq!(sum, recomputed(&store).tree_sums(&[*range]).unwrap(), "{range:?}");
        }
        Event::Compact => store.compact().unwrap(),
        Event::Sync => store.sync().unwrap(),
        Event::Crash(kept) => {
            drop(store);
            disk.crash(*kept);
            return disk.open();
        }
    }
    store
}

fn run(disk: &Disk, events: &[Event]) {
    let mut store = disk.open();
    for event in events {
        store = take(disk, store, event);
    }
    check(&store);
    drop(store);
    check(&disk.open());
}

fn history() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(any_event(), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn tree_equals_a_full_recomputation_after_any_history(events in history()) {
        run(&Disk::memory(), &events);
    }

    #[test]
    fn replicas_with_the_same_rows_have_equal_trees(
        (rows, shuffled) in prop::collection::vec(any_row(), 1..60)
            .prop_flat_map(|rows| (Just(rows.clone()), Just(rows).prop_shuffle())),
        cuts in 1..9usize,
        horizon in 0..12u64,
    ) {
        let (one, other) = (Store::in_memory(), Store::in_memory());
        for rows in rows.chunks(cuts) {
            commit(&one, rows);
            total(&one);
        }
        other.set_horizons(&[version(horizon, 0)]).unwrap();
        for rows in shuffled.chunks(3) {
            commit(&other, rows);
        }
        one.set_horizons(&[version(horizon, 0)]).unwrap();
        other.compact().unwrap();
        prop_assert_eq!(one.tree_sums(&ranges()).unwrap(), other.tree_sums(&ranges()).unwrap());
    }
}

#[cfg(feature = "rocksdb")]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn tree_equals_a_full_recomputation_on_rocksdb(events in history()) {
        run(&Disk::rocks(), &events);
    }
}

/// Threads that commit, forget and flush while others hash; afterwards, and after reopening, nothing is missed.
fn stress(disk: &Disk) {
    const COMMITS: u64 = 1_500;
    let store = disk.open();
    let names: Vec<Vec<u8>> = (0..900).map(|n| format!("{{{}}}{n}", n % 13).into_bytes()).collect();
    let writers_left = AtomicU64::new(3);
    std::thread::scope(|scope| {
        let (store, names, left) = (&store, &names, &writers_left);
        for writer in 1..=3u64 {
            scope.spawn(move || {
                let (mut batch, mut seed) = (store.batch(), writer);
                let mut below = |end: u64| {
                    seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ writer;
                    seed % end
                };
                for commit in 0..COMMITS {
                    for _ in 0..=below(4) {
                        let key = &names[below(900) as usize];
                        batch
                            .push(&Row { version: version(commit + below(50), writer), ..set(key, 0, b"v") });
                    }
                    store.commit(&mut batch).unwrap();
                    if below(20) == 0 {
                        let key = KeyRef::new(0, &names[below(900) as usize]);
                        store.forget(key, &read(store, key)).unwrap();
                    }
                    if below(400) == 0 {
                        store.set_horizons(&[version(commit / 2, 0)]).unwrap();
                    }
                }
                left.fetch_sub(1, Ordering::SeqCst);
            });
        }
        scope.spawn(move || {
            while left.load(Ordering::SeqCst) > 0 {
                store.refresh_tree(3).unwrap();
            }
        });
        scope.spawn(move || {
            for slot in names.iter().cycle().map(|name| KeyRef::new(0, name).slot()) {
                let range = PrefixRange::of_slot(slot);
                let half = PrefixRange { end: range.from + (1 << 17), ..range };
                store.tree_sums(&[range, half]).unwrap();
                if left.load(Ordering::SeqCst) == 0 {
                    break;
                }
            }
        });
    });
    drop(store);
    let store = disk.open();
    check(&store);
}

#[test]
fn no_row_is_missed_under_concurrent_commits() {
    stress(&Disk::memory());
}

#[cfg(feature = "rocksdb")]
#[test]
fn no_row_is_missed_under_concurrent_commits_on_rocksdb() {
    for _ in 0..3 {
        stress(&Disk::rocks());
    }
}
