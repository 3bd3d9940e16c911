//! What sweeping does to a store, on every engine.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that is wrong fails"
)]

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{Disk, commit, contract, count, delete, expiring, in_db, set, version};
use gyre_storage::siblings::{Dot, Sibling, SiblingSet};
use gyre_storage::tree::PrefixRange;
use gyre_storage::{
    Body, Cell, KeyRef, PREFIX_END, Record, Row, Store, SweepPass, SweepStep, UnixMillis, Version, View,
};

const NOW: UnixMillis = UnixMillis(1_000);

contract! {
    expired_rows_become_tombstones_of_their_version,
    a_pass_goes_on_where_it_stopped,
    a_superseded_row_only_loses_its_entry,
    what_is_delivered_once_more_is_swept_once_more,
    counters_on_a_swept_register_stay_void,
    siblings_lose_their_values_one_by_one_and_nothing_else,
    siblings_of_all_actors_are_swept_and_replicas_agree_byte_for_byte,
    a_forgotten_sibling_row_leaves_no_entry,
    replicas_agree_byte_for_byte_without_talking,
    nothing_is_lost_while_keys_are_written_and_swept,
    a_swept_row_is_forgotten_like_any_other,
    a_poisoned_store_sweeps_nothing,
}

fn read(store: &Store, key: &[u8]) -> Record {
    store.read(KeyRef::new(0, key)).unwrap()
}

fn sweep(store: &Store) -> SweepStep {
    store.sweep(SweepPass::default(), NOW, 100).unwrap()
}

fn state(store: &Store) -> Vec<(u8, Vec<u8>, Record)> {
    store.scan(None, 0, PREFIX_END, usize::MAX, usize::MAX, true).unwrap().entries
}

fn swept(hlc: u64, at: u64) -> Record {
    Record::of_register(version(hlc, 1), Some(UnixMillis(at)), None)
}

fn expired_rows_become_tombstones_of_their_version(disk: &Disk) {
    let store = disk.open();
    commit(&store, &[expiring(b"a", 5, b"gone", 999), expiring(b"b", 6, b"going", 1_000)]);
    commit(&store, &[expiring(b"c", 7, b"later", 1_001), set(b"d", 8, b"never")]);
    commit(&store, &[in_db(3, expiring(b"a", 9, b"elsewhere", 10))]);
    let digests: Vec<u64> = state(&store).iter().map(|(_, _, record)| record.digest()).collect();
    let sums = store.tree_sums(&[PrefixRange::ALL]).unwrap();
    let step = sweep(&store);
    assert_eq!((step.due, step.swept, step.busy, step.next), (3, 3, 0, None));
    assert_eq!((step.bytes_freed, step.oldest), (4 + 5 + 9, Some(UnixMillis(10))));
    let check = |store: &Store| {
        assert_eq!(read(store, b"a"), swept(5, 999));
        assert_eq!(read(store, b"b"), swept(6, 1_000));
        assert_eq!(read(store, b"c").view(NOW), Some(View::Bytes(b"later")));
        assert_eq!(read(store, b"d").view(NOW), Some(View::Bytes(b"never")));
        assert_eq!(store.read(KeyRef::new(3, b"a")).unwrap(), swept(9, 10));
        assert_eq!(store.count_keys(0, 0, PREFIX_END, NOW).unwrap(), 2);
        let after: Vec<u64> = state(store).iter().map(|(_, _, record)| record.digest()).collect();
        assert_eq!(after, digests, "digests do not tell");
        assert_eq!(store.tree_sums(&[PrefixRange::ALL]).unwrap(), sums, "nor do trees");
    };
    check(&store);
    assert_eq!(sweep(&store), SweepStep::default(), "nothing is left that is due");
    assert_eq!(store.expired(UnixMillis(u64::MAX), 10).unwrap().len(), 1);
    drop(store);
    let store = disk.open();
    check(&store);
    store.compact().unwrap();
    check(&store);
}

fn a_pass_goes_on_where_it_stopped(disk: &Disk) {
    let store = disk.open();
    for number in 0..25u64 {
        commit(&store, &[expiring(format!("k{number}").as_bytes(), number + 1, b"v", 100 + number / 4)]);
    }
    let (mut pass, mut sizes) = (SweepPass::default(), Vec::new());
    loop {
        let step = store.sweep(pass, NOW, 10).unwrap();
        assert_eq!(step.oldest, Some(UnixMillis([100, 102, 105][sizes.len()])));
        sizes.push(step.swept);
        // What comes meanwhile and is due is for this pass or the next.
        commit(&store, &[expiring(b"early", 50 + sizes.len() as u64, b"v", 1)]);
        match step.next {
            Some(next) => pass = next,
            None => break,
        }
    }
    assert_eq!(sizes, [10, 10, 5]);
    let step = sweep(&store);
    assert_eq!((step.due, step.swept), (3, 1), "of the late ones only the newest is there");
}

fn a_superseded_row_only_loses_its_entry(disk: &Disk) {
    let store = disk.open();
    commit(&store, &[expiring(b"set", 5, b"old", 900), expiring(b"deleted", 5, b"old", 900)]);
    commit(&store, &[expiring(b"prolonged", 5, b"old", 900)]);
    commit(
        &store,
        &[set(b"set", 6, b"new"), delete(b"deleted", 6), expiring(b"prolonged", 6, b"new", 5_000)],
    );
    let before = state(&store);
    let step = sweep(&store);
    assert_eq!((step.due, step.swept, step.bytes_freed), (3, 0, 0));
    assert_eq!(state(&store), before);
    assert_eq!(
        store.expired(UnixMillis(u64::MAX), 10).unwrap().len(),
        1,
        "that of the row that still expires"
    );
    assert_eq!(read(&store, b"prolonged").expiry(NOW), Some(UnixMillis(5_000)));
}

fn what_is_delivered_once_more_is_swept_once_more(disk: &Disk) {
    let store = disk.open();
    let row = expiring(b"k", 5, b"value", 900);
    commit(&store, &[row]);
    sweep(&store);
    for is_cached in [false, true] {
        if is_cached {
            assert_eq!(read(&store, b"k"), swept(5, 900));
        }
        commit(&store, &[row]);
        assert_eq!(read(&store, b"k").view(NOW), None, "a hint or a repair revives nothing");
        assert_eq!(sweep(&store).swept, 1);
        assert_eq!(read(&store, b"k"), swept(5, 900));
    }
    // A replica that has swept it sends it swept.
    commit(&store, &[row, Row { body: Body::Tombstone, ..row }]);
    assert_eq!(read(&store, b"k").view(NOW), None);
    let step = sweep(&store);
    assert_eq!((step.due, step.swept), (1, 0));
    assert_eq!(state(&store)[0].2, swept(5, 900));
    assert!(store.expired(UnixMillis(u64::MAX), 10).unwrap().is_empty());
}

fn counters_on_a_swept_register_stay_void(disk: &Disk) {
    let store = disk.open();
    commit(&store, &[expiring(b"n", 5, b"10", 900), count(b"n", 1, 6, version(5, 1), 3)]);
    assert_eq!(read(&store, b"n").view(UnixMillis(899)), Some(View::Integer(13)));
    assert_eq!(sweep(&store).swept, 1);
    for now in [0, 899, 900] {
        assert_eq!(read(&store, b"n").view(UnixMillis(now)), None);
    }
    commit(&store, &[count(b"n", 2, 7, version(5, 1), 4)]);
    assert_eq!(read(&store, b"n").view(NOW), None);
    commit(&store, &[set(b"n", 8, b"1")]);
    assert_eq!(read(&store, b"n").view(NOW), Some(View::Bytes(b"1")));
}

/// The row of `actor`'s sibling cell of key k: values of 100 bytes by event, with their expiries.
fn siblings(actor: u64, hlc: u64, values: &[(u64, Option<u64>)]) -> Row<'static> {
    let mut known = SiblingSet::default();
    for &(event, at) in values {
        known.put(Sibling::new(Dot { event, actor }, at.map(UnixMillis), &[b'x'; 100]));
    }
    let mut bytes = Vec::new();
    known.encode(&mut bytes);
    let body = Body::Siblings { base: Version::ZERO, set: Vec::leak(bytes) };
    Row { cell: Cell::Siblings { actor }, body, ..set(b"k", hlc, b"") }
}

/// The events of the values that a record holds, and whether each was swept.
fn held(record: &Record) -> Vec<(u64, bool)> {
    let set = record.sibling_state().set;
    set.siblings().iter().map(|sibling| (sibling.dot.event, sibling.is_swept)).collect()
}

fn siblings_lose_their_values_one_by_one_and_nothing_else(disk: &Disk) {
    let store = disk.open();
    let row = siblings(7, 9, &[(1, Some(900)), (2, Some(1_500)), (3, None), (4, Some(800))]);
    commit(&store, &[row]);
    let before = read(&store, b"k");
    let (digest, sums) = (before.digest(), store.tree_sums(&[PrefixRange::ALL]).unwrap());
    let shown = before.siblings(NOW);
    assert_eq!(shown.iter().map(|sibling| sibling.dot.event).collect::<Vec<_>>(), [3, 2]);
    let step = sweep(&store);
    assert_eq!((step.due, step.swept, step.bytes_freed, step.oldest), (1, 1, 200, Some(UnixMillis(800))));
    let check = |store: &Store, expected: &[(u64, bool)]| {
        let record = read(store, b"k");
        assert_eq!(held(&record), expected);
        assert_eq!(record.siblings(NOW), shown, "what was shown is shown");
        // A reader whose clock is far behind is not shown an empty value.
        let swept = expected.iter().filter(|(_, is_swept)| *is_swept).count();
        assert_eq!(record.siblings(UnixMillis(0)).len(), expected.len() - swept);
        assert_eq!((record.digest(), store.tree_sums(&[PrefixRange::ALL]).unwrap()), (digest, sums.clone()));
    };
    let after = [(1, true), (2, false), (3, false), (4, true)];
    check(&store, &after);
    assert_eq!(sweep(&store).due, 0, "until the next expires");
    for is_cached in [false, true] {
        if is_cached {
            check(&store, &after);
        }
        commit(&store, &[row]);
        assert_eq!(held(&read(&store, b"k")).len(), 4);
        assert_eq!(sweep(&store).swept, 1, "what is delivered once more is swept once more");
        check(&store, &after);
    }
    store.compact().unwrap();
    check(&store, &after);
    let step = store.sweep(SweepPass::default(), UnixMillis(2_000), 10).unwrap();
    assert_eq!((step.due, step.swept, step.bytes_freed), (1, 1, 100));
    assert_eq!(held(&read(&store, b"k")), [(1, true), (2, true), (3, false), (4, true)]);
    assert!(store.expired(UnixMillis(u64::MAX), 10).unwrap().is_empty());
}

fn siblings_of_all_actors_are_swept_and_replicas_agree_byte_for_byte(disk: &Disk) {
    let [one, other] = [disk.open(), Disk::memory().open()];
    // Neither has seen what the other has; a third row of the second actor is superseded.
    let rows = [siblings(7, 5, &[(1, Some(300)), (2, Some(900))]), siblings(8, 6, &[(3, Some(300))])];
    commit(&one, &rows);
    commit(&one, &[siblings(8, 4, &[(3, Some(200))])]);
    commit(&other, &[rows[1]]);
    assert_eq!(other.sweep(SweepPass::default(), UnixMillis(300), 10).unwrap().swept, 1);
    // It comes half swept, from a replica that was at it.
    let third = Disk::memory().open();
    commit(&third, &rows[..1]);
    third.sweep(SweepPass::default(), UnixMillis(300), 10).unwrap();
    let half = read(&third, b"k");
    commit(&other, &half.rows(KeyRef::new(0, b"k")).collect::<Vec<_>>());
    let merged = read(&one, b"k").merge(&half);
    assert_eq!(merged, half.merge(&read(&one, b"k")));
    assert_eq!(merged, read(&one, b"k"), "of a row and the same half swept the whole one stays");
    let step = sweep(&one);
    assert_eq!((step.due, step.swept, step.bytes_freed), (3, 2, 300));
    assert_eq!(sweep(&other).swept, 1);
    assert_eq!(state(&one), state(&other));
    assert_eq!(read(&one, b"k").view(UnixMillis(0)), None);
}

fn a_forgotten_sibling_row_leaves_no_entry(disk: &Disk) {
    let store = disk.open();
    commit(&store, &[siblings(7, 5, &[(1, Some(900)), (2, Some(5_000))])]);
    sweep(&store);
    let record = read(&store, b"k");
    assert!(store.forget(KeyRef::new(0, b"k"), &record).unwrap());
    assert!(store.expired(UnixMillis(u64::MAX), 10).unwrap().is_empty() && state(&store).is_empty());
}

fn replicas_agree_byte_for_byte_without_talking(disk: &Disk) {
    let [one, other] = [disk.open(), Disk::memory().open()];
    let rows = [expiring(b"a", 5, b"x", 100), expiring(b"b", 6, b"y", 200), set(b"a", 4, b"z")];
    commit(&one, &rows);
    sweep(&one);
    // The other one gets what the first has swept in place of the value, or late, or twice.
    commit(&other, &[Row { body: Body::Tombstone, ..rows[0] }, rows[2]]);
    commit(&other, &[rows[1], rows[0]]);
    sweep(&other);
    assert_eq!(state(&one), state(&other));
}

/// Writers and redelivery beside the sweeper: in the end every expired value is swept and every live one is there.
fn nothing_is_lost_while_keys_are_written_and_swept(disk: &Disk) {
    const KEYS: u64 = 40;
    let store = disk.open();
    let (clock, is_over) = (AtomicU64::new(1), AtomicBool::new(false));
    let newest: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2u64)
            .map(|writer| {
                let (store, clock, newest) = (&store, &clock, &newest);
                scope.spawn(move || {
                    for step in 0..1_500u64 {
                        let at = (step * 7 + writer * 13) % KEYS;
                        let hlc = clock.fetch_add(1, Ordering::SeqCst);
                        let name = at.to_be_bytes();
                        let row = row_of(&name, hlc);
                        commit(store, &[row]);
                        newest[at as usize].fetch_max(hlc, Ordering::SeqCst);
                        if step % 3 == 0 {
                            commit(store, &[row]);
                        }
                        let seen = store.read(KeyRef::new(0, &name)).unwrap();
                        assert!(seen.base() >= row.version, "reads do not go back");
                    }
                })
            })
            .collect();
        let sweeper = scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                store.sweep(SweepPass::default(), NOW, 16).unwrap();
            }
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        is_over.store(true, Ordering::SeqCst);
        sweeper.join().unwrap();
    });
    while !store.expired(NOW, 1).unwrap().is_empty() {
        store.sweep(SweepPass::default(), NOW, 100).unwrap();
    }
    let expected = |at: u64| {
        let hlc = newest[at as usize].load(Ordering::SeqCst);
        let row = Record::of_row(&row_of(&at.to_be_bytes(), hlc));
        if row.view(NOW).is_some() { row } else { swept(hlc, 500) }
    };
    let state = state(&store);
    assert_eq!(state.len() as u64, KEYS);
    for (_, key, record) in state {
        let at = u64::from_be_bytes(key[..].try_into().unwrap());
        assert_eq!(record, expected(at));
        assert_eq!(read(&store, &key), expected(at));
    }
}

/// Every other row has expired.
fn row_of(key: &[u8], hlc: u64) -> Row<'_> {
    expiring(key, hlc, b"some value", if hlc.is_multiple_of(2) { 500 } else { 5_000 })
}

fn a_swept_row_is_forgotten_like_any_other(disk: &Disk) {
    let store = disk.open();
    commit(&store, &[expiring(b"k", 5, b"v", 900), expiring(b"k", 4, b"u", 800)]);
    sweep(&store);
    let record = read(&store, b"k");
    assert!(store.forget(KeyRef::new(0, b"k"), &record).unwrap());
    assert!(read(&store, b"k").is_absent() && state(&store).is_empty());
    assert!(record.newest_version() > Version::ZERO);
}

fn a_poisoned_store_sweeps_nothing(disk: &Disk) {
    #[allow(irrefutable_let_patterns, reason = "there may be one engine only")]
    let Disk::Memory(memory) = disk else { return };
    let store = disk.open();
    commit(&store, &[expiring(b"k", 5, b"v", 900)]);
    memory.fail_writes(true);
    store.sweep(SweepPass::default(), NOW, 10).unwrap_err();
    memory.fail_writes(false);
    assert_eq!(store.sweep(SweepPass::default(), NOW, 10).unwrap_err(), store.poisoned().unwrap());
    assert_eq!(read(&store, b"k").view(UnixMillis(0)), Some(View::Bytes(b"v")));
    assert_eq!(disk.open().sweep(SweepPass::default(), NOW, 10).unwrap().swept, 1);
}

/// Whether the bytes of expired values are given back, and the index with them: on a real disk, after a compaction.
#[cfg(feature = "rocksdb")]
#[test]
fn space_comes_back_after_compaction() {
    let disk = Disk::rocks();
    let store = disk.open_with(|options| options.memtable_bytes = 1 << 20).unwrap();
    let value: Vec<u8> =
        (0..20_000u32).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    for number in 0..5_000u64 {
        let at = (number as usize * 13) % 70_000;
        commit(&store, &[expiring(&number.to_be_bytes(), number + 1, &value[at..at + 4_000], 500)]);
    }
    store.compact().unwrap();
    let before = store.stats().engine.table_bytes;
    let mut pass = Some(SweepPass::default());
    while let Some(from) = pass {
        pass = store.sweep(from, NOW, 128).unwrap().next;
    }
    store.compact().unwrap();
    let after = store.stats().engine.table_bytes;
    assert!(before > 5_000 * 1_000, "{before} bytes before");
    assert!(after * 10 < before, "{before} bytes before, {after} after");
    assert_eq!(state(&store).len(), 5_000);
}
