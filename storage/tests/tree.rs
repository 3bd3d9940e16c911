//! Merkle trees: on each engine they equal what hashing everything anew gives, whatever happened before.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test that is wrong fails"
)]

mod common;

use common::{Disk, commit, contract, count, delete, expiring, in_db, set, version};
use gyre_storage::tree::{KeyState, PrefixRange, RangeSum};
use gyre_storage::{KeyRef, PREFIX_END, Record, Row, Store, Version};

contract!(
    sums_follow_every_kind_of_write,
    sums_of_parts_add_up_to_the_whole,
    replicas_that_got_rows_in_any_order_agree,
    void_counters_and_flushed_rows_do_not_count,
    horizon_is_counted_also_after_reopening,
    forgotten_rows_are_counted_no_more,
    deep_slots_are_cut_and_merged_again,
    refresh_goes_on_where_it_left_off,
    states_and_records_of_a_range_come_in_pages,
    trees_survive_reopening_without_hashing,
);

/// A store that has the same records, and has hashed them all at once.
fn recomputed(store: &Store) -> Store {
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
