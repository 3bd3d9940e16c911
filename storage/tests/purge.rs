//! Purging: what is dead at a slot's horizon is hidden, then removed, and replicas that have and have not agree.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test that is wrong fails"
)]

mod common;

use common::{Disk, commit, contract, count, delete, expiring, set, version};
use gyre_storage::siblings::{Dot, PLAIN, Sibling, SiblingSet, VersionVector};
use gyre_storage::tree::{PrefixRange, RangeSum};
use gyre_storage::{
    Body, Cell, Hlc, KeyRef, PREFIX_END, PurgeHorizon, PurgeStep, Record, Row, Slot, Store, SweepPass,
    UnixMillis, Version, View,
};
use proptest::prelude::*;

/// Clocks of these tests count milliseconds.
fn ms(ms: u64) -> u64 {
    ms << 16
}

const fn at(ms: u64) -> Hlc {
    Hlc(ms << 16)
}

fn horizon(hidden: u64, counted: u64, purged: u64) -> PurgeHorizon {
    PurgeHorizon { hidden: at(hidden), counted: at(counted), purged: at(purged) }
}

contract! {
    the_steps_hide_and_then_remove,
    horizons_are_durable_and_never_fall_nor_overtake,
    what_lives_or_is_newer_stays,
    all_rows_of_a_dead_key_go_at_once,
    counters_that_begin_at_nothing_live_beside_what_is_dead,
    void_counter_cells_of_live_keys_go,
    siblings_that_are_all_deleted_or_expired_are_dead,
    void_sibling_cells_go_and_what_counts_stays,
    siblings_of_a_key_that_is_dead_live_wherever_it_is_hidden,
    trees_do_not_tell_who_has_purged,
    a_key_with_a_hint_is_left_alone,
    pages_go_through_a_slot,
    a_step_goes_from_slot_to_slot_until_it_has_looked_at_enough,
    a_crash_brings_back_a_whole_key_or_nothing,
}

fn slot(key: &[u8]) -> Slot {
    KeyRef::new(0, key).slot()
}

fn read(store: &Store, key: &[u8]) -> Record {
    store.read(KeyRef::new(0, key)).unwrap()
}

fn raise(store: &Store, keys: &[&[u8]], to: PurgeHorizon) {
    let raised: Vec<_> = keys.iter().map(|key| (slot(key), to)).collect();
    store.raise_purge_horizons(&raised).unwrap();
}

fn purge(store: &Store, key: &[u8]) -> PurgeStep {
    store.purge(slot(key), None, 1_000).unwrap()
}

fn keys_on_disk(store: &Store) -> usize {
    store.scan(None, 0, PREFIX_END, usize::MAX, usize::MAX, true).unwrap().entries.len()
}

fn sum(store: &Store) -> RangeSum {
    store.tree_sums(&[PrefixRange::ALL]).unwrap()[0]
}

fn the_steps_hide_and_then_remove(disk: &Disk) {
    let store = disk.open();
    commit(&store, &[set(b"k", ms(5), b"v"), delete(b"k", ms(6)), set(b"other", ms(1), b"w")]);
    assert_eq!(read(&store, b"k").base(), version(ms(6), 1));
    assert_eq!(purge(&store, b"k"), PurgeStep::default(), "without a horizon nothing is looked at");
    raise(&store, &[b"k"], horizon(6, 0, 0));
    let ghost = read(&store, b"k");
    assert!(ghost.is_ghost() && ghost.rows(KeyRef::new(0, b"k")).next().is_none());
    assert_eq!(ghost.digest(), Record::ABSENT.digest());
    assert!(ghost.register().unwrap().is_expired(UnixMillis(0)), "an increment begins a new register");
    raise(&store, &[b"k"], horizon(6, 6, 0));
    assert!(read(&store, b"k").is_absent(), "an increment begins at nothing");
    assert_eq!(purge(&store, b"k").rows, 0);
    raise(&store, &[b"k"], horizon(6, 6, 6));
    assert_eq!(keys_on_disk(&store), 2);
    let step = purge(&store, b"k");
    assert_eq!((step.keys, step.rows, step.busy, step.next), (1, 2, 0, None));
    assert_eq!(keys_on_disk(&store), 1);
    // A late repair brings the tombstone once more: it is hidden, and goes with the next pass.
    commit(&store, &[delete(b"k", ms(6))]);
    assert!(read(&store, b"k").is_absent());
    assert_eq!(purge(&store, b"k").keys, 1);
    commit(&store, &[set(b"k", ms(9), b"again")]);
    assert_eq!(read(&store, b"k").view(UnixMillis(0)), Some(View::Bytes(b"again")));
}

fn horizons_are_durable_and_never_fall_nor_overtake(disk: &Disk) {
    let store = disk.open();
    let of = |store: &Store| store.purge_horizon(slot(b"k"));
    raise(&store, &[b"k"], horizon(5, 9, 7));
    assert_eq!(of(&store), horizon(5, 5, 5));
    raise(&store, &[b"k"], horizon(8, 3, 1));
    assert_eq!(of(&store), horizon(8, 5, 5));
    assert_eq!(store.purge_horizon(slot(b"other")), PurgeHorizon::default());
    store.raise_purge_horizons(&[(gyre_storage::SLOTS, horizon(1, 1, 1))]).unwrap();
    drop(store);
    let store = disk.open();
    assert_eq!(of(&store), horizon(8, 5, 5));
    store
        .raise_purge_horizons(&[(0, horizon(1, 1, 1)), (gyre_storage::SLOTS - 1, horizon(2, 2, 2))])
        .unwrap();
    drop(store);
    let store = disk.open();
    assert_eq!(store.purge_horizon(gyre_storage::SLOTS - 1), horizon(2, 2, 2));
    assert_eq!(store.purge_horizon(0), horizon(1, 1, 1));
}

fn what_lives_or_is_newer_stays(disk: &Disk) {
    let store = disk.open();
    let keys: [&[u8]; 6] = [b"live", b"later", b"expires", b"counter", b"on-tombstone", b"expired"];
    commit(
        &store,
        &[set(b"live", ms(1), b"v"), delete(b"later", ms(21)), expiring(b"expires", ms(1), b"v", 21)],
    );
    commit(&store, &[count(b"counter", 1, ms(1), Version::ZERO, 3)]);
    commit(&store, &[delete(b"on-tombstone", ms(1)), count(b"on-tombstone", 1, ms(2), version(ms(1), 1), 4)]);
    commit(&store, &[expiring(b"expired", ms(1), b"v", 20)]);
    let before = keys.map(|key| read(&store, key));
    raise(&store, &keys, horizon(20, 20, 20));
    for (key, before) in keys.iter().zip(&before).take(5) {
        assert_eq!(&read(&store, key), before, "{}", String::from_utf8_lossy(key));
        assert_eq!(purge(&store, key).rows, 0);
    }
    assert!(read(&store, b"expired").is_absent());
    assert_eq!(purge(&store, b"expired").keys, 1, "whether it was swept or not");
    assert!(store.expired(UnixMillis(20), 9).unwrap().is_empty(), "its entry goes with it");
    assert_eq!(store.expired(UnixMillis(21), 9).unwrap().len(), 1);
}

fn all_rows_of_a_dead_key_go_at_once(disk: &Disk) {
    let store = disk.open();
    commit(&store, &[set(b"k", ms(1), b"1"), set(b"k", ms(2), b"2"), expiring(b"k", ms(3), b"3", 50)]);
    commit(
        &store,
        &[count(b"k", 7, ms(4), version(ms(2), 1), 9), count(b"k", 8, ms(5), version(ms(3), 1), 9)],
    );
    commit(&store, &[delete(b"k", ms(6))]);
    raise(&store, &[b"k"], horizon(9, 9, 9));
    let step = purge(&store, b"k");
    assert_eq!((step.keys, step.rows), (1, 6), "older rows, void cells, the tombstone");
    assert_eq!(keys_on_disk(&store), 0);
    store.compact().unwrap();
    drop(store);
    assert_eq!(keys_on_disk(&disk.open()), 0);
}

fn counters_that_begin_at_nothing_live_beside_what_is_dead(disk: &Disk) {
    let [purged, hiding] = [disk.open(), Disk::memory().open()];
    for store in [&purged, &hiding] {
        commit(
            store,
            &[set(b"n", ms(1), b"100"), count(b"n", 1, ms(2), Version::ZERO, 50), delete(b"n", ms(3))],
        );
        raise(store, &[b"n"], horizon(5, 5, 5));
    }
    purge(&purged, b"n");
    for store in [&purged, &hiding] {
        commit(store, &[count(b"n", 2, ms(8), Version::ZERO, 7)]);
        assert_eq!(read(store, b"n").view(UnixMillis(0)), Some(View::Integer(7)));
    }
    assert_eq!(read(&purged, b"n"), read(&hiding, b"n"));
    assert_eq!(sum(&purged), sum(&hiding));
    // A replica that lags shows a ghost, or nothing: the merge counts all the same.
    let ghost = Record::of_row(&delete(b"n", ms(3))).without_dead(at(5));
    for lagging in [ghost, Record::ABSENT] {
        let merged = [lagging.merge(&read(&purged, b"n")), read(&purged, b"n").merge(&lagging)];
        assert_eq!(merged, [read(&purged, b"n"), read(&purged, b"n")]);
    }
    assert_eq!(purge(&hiding, b"n").rows, 3, "what is dead goes, the cell stays");
    assert_eq!(read(&hiding, b"n").view(UnixMillis(0)), Some(View::Integer(7)));
}

fn void_counter_cells_of_live_keys_go(disk: &Disk) {
    let store = disk.open();
    commit(&store, &[count(b"n", 1, ms(1), Version::ZERO, 5), count(b"n", 2, ms(2), Version::ZERO, 6)]);
    commit(&store, &[set(b"n", ms(3), b"10"), count(b"n", 2, ms(4), version(ms(3), 1), 1)]);
    raise(&store, &[b"n"], horizon(5, 5, 5));
    let step = purge(&store, b"n");
    assert_eq!((step.keys, step.rows), (0, 2));
    let left = read(&store, b"n");
    assert_eq!((left.counters().count(), left.view(UnixMillis(0))), (1, Some(View::Integer(11))));
}

/// The row of `actor`'s sibling cell: it has seen `seen` and holds `values`, with their expiries.
fn siblings(
    actor: u64,
    hlc: u64,
    base: Version,
    seen: &[(u64, u64)],
    values: &[(u64, Option<u64>)],
) -> Row<'static> {
    let mut context = VersionVector::default();
    seen.iter().for_each(|&(actor, event)| context.see(Dot { event, actor }));
    let mut known = SiblingSet::default();
    known.discard(&context);
    for &(event, expiry) in values {
        known.put(Sibling::new(Dot { event, actor }, expiry.map(UnixMillis), b"v"));
    }
    let mut bytes = Vec::new();
    known.encode(&mut bytes);
    let body = Body::Siblings { base, set: Vec::leak(bytes) };
    Row { cell: Cell::Siblings { actor }, body, ..set(b"k", hlc, b"") }
}

fn siblings_that_are_all_deleted_or_expired_are_dead(disk: &Disk) {
    let store = disk.open();
    let base = version(ms(1), 1);
    commit(&store, &[set(b"k", ms(1), b"v"), siblings(1, ms(2), base, &[], &[(ms(2), Some(4))])]);
    raise(&store, &[b"k"], horizon(9, 9, 9));
    assert_eq!(purge(&store, b"k").keys, 0, "nobody has seen the plain value replaced");
    assert_eq!(read(&store, b"k").view(UnixMillis(99)), Some(View::Bytes(b"v")));
    commit(&store, &[siblings(1, ms(5), base, &[(PLAIN, ms(1))], &[(ms(5), Some(7))])]);
    assert!(read(&store, b"k").is_absent());
    let step = purge(&store, b"k");
    assert_eq!((step.keys, step.rows, keys_on_disk(&store)), (1, 3, 0));
    assert_eq!(sum(&store).keys, 0);
}

fn void_sibling_cells_go_and_what_counts_stays(disk: &Disk) {
    let store = disk.open();
    commit(&store, &[siblings(1, ms(2), Version::ZERO, &[], &[(ms(2), None)])]);
    commit(&store, &[siblings(2, ms(3), Version::ZERO, &[], &[(ms(3), None)])]);
    let seen = [(1, ms(2)), (2, ms(3))];
    commit(&store, &[siblings(3, ms(4), Version::ZERO, &seen, &[(ms(4), None)])]);
    let before = (read(&store, b"k"), sum(&store));
    raise(&store, &[b"k"], horizon(2, 2, 2));
    assert_eq!(purge(&store, b"k").rows, 1, "only what the horizon has passed");
    raise(&store, &[b"k"], horizon(9, 9, 9));
    let step = purge(&store, b"k");
    assert_eq!((step.keys, step.rows), (0, 1));
    assert_eq!((read(&store, b"k"), sum(&store)), before);
    assert_eq!(read(&store, b"k").sibling_cells().count(), 1);
}

fn siblings_of_a_key_that_is_dead_live_wherever_it_is_hidden(disk: &Disk) {
    let [hiding, showing, gone] = [disk.open(), Disk::memory().open(), Disk::memory().open()];
    for store in [&hiding, &showing] {
        commit(store, &[set(b"k", ms(1), b"v"), delete(b"k", ms(2))]);
    }
    raise(&hiding, &[b"k"], horizon(5, 0, 0));
    // Whoever hides the deletion must not begin at nothing, where those that do not would take it for deleted.
    let ghost = read(&hiding, b"k");
    let base = ghost.sibling_state().base;
    assert!(ghost.is_ghost() && base > read(&showing, b"k").base());
    let row = siblings(1, ms(9), base, &[], &[(ms(9), None)]);
    for store in [&hiding, &showing, &gone] {
        commit(store, &[row]);
        assert_eq!(read(store, b"k").view(UnixMillis(0)), Some(View::Bytes(b"v")));
    }
    // Where all hide it, one begins at nothing.
    let store = Disk::memory().open();
    commit(&store, &[set(b"k", ms(1), b"v"), delete(b"k", ms(2))]);
    raise(&store, &[b"k"], horizon(5, 5, 0));
    assert!(read(&store, b"k").is_absent());
    commit(&store, &[siblings(1, ms(9), Version::ZERO, &[], &[(ms(9), None)])]);
    let shown = read(&store, b"k");
    assert_eq!(shown.view(UnixMillis(0)), Some(View::Bytes(b"v")));
    raise(&store, &[b"k"], horizon(5, 5, 5));
    assert_eq!(purge(&store, b"k").rows, 2);
    assert_eq!(read(&store, b"k"), shown);
}

fn trees_do_not_tell_who_has_purged(disk: &Disk) {
    let [one, other] = [disk.open(), Disk::memory().open()];
    let rows =
        [delete(b"a", ms(1)), set(b"b", ms(2), b"v"), expiring(b"c", ms(1), b"v", 3), delete(b"d", ms(9))];
    for store in [&one, &other] {
        commit(store, &rows);
    }
    let before = sum(&one);
    assert_eq!(before.keys, 4);
    for store in [&one, &other] {
        raise(store, &[b"a", b"b", b"c", b"d"], horizon(5, 5, 5));
    }
    for key in [b"a", b"c"] {
        assert_eq!(purge(&one, key).keys, 1);
    }
    assert_eq!((sum(&one), sum(&one).keys), (sum(&other), 2));
    assert_eq!(one.key_states(PrefixRange::ALL, 9).unwrap(), other.key_states(PrefixRange::ALL, 9).unwrap());
}

fn a_key_with_a_hint_is_left_alone(disk: &Disk) {
    let store = disk.open();
    let mut batch = store.batch();
    batch.push(&delete(b"k", ms(1)));
    store.hint(&mut batch, 9, KeyRef::new(0, b"k"), version(ms(1), 1));
    store.commit(&mut batch).unwrap();
    raise(&store, &[b"k"], horizon(5, 5, 5));
    assert_eq!((purge(&store, b"k").busy, keys_on_disk(&store)), (1, 1));
    store.drop_hints(9, &store.hints_page(9, None, 9).unwrap()).unwrap();
    assert_eq!((purge(&store, b"k").keys, keys_on_disk(&store)), (1, 0));
}

fn pages_go_through_a_slot(disk: &Disk) {
    let store = disk.open();
    for number in 0..100 {
        commit(&store, &[delete(format!("{{tag}}{number}").as_bytes(), ms(1))]);
    }
    raise(&store, &[b"{tag}"], horizon(5, 5, 5));
    let (mut from, mut keys, mut steps) = (None, 0, 0);
    loop {
        let step = store.purge(slot(b"tag"), from, 30).unwrap();
        assert!(step.looked_at <= 31);
        keys += step.keys;
        steps += 1;
        from = step.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!((keys, steps, keys_on_disk(&store)), (100, 4, 0));
}

fn a_step_goes_from_slot_to_slot_until_it_has_looked_at_enough(disk: &Disk) {
    let store = disk.open();
    for number in 0..40 {
        for tag in ["a", "b", "c"] {
            commit(&store, &[delete(format!("{{{tag}}}{number}").as_bytes(), ms(1))]);
        }
    }
    raise(&store, &[b"a", b"b", b"c"], horizon(5, 5, 5));
    let slots = [b"a", b"b", b"c"].map(|tag| (slot(tag), None));
    let steps = store.purge_slots(&slots, 60).unwrap();
    assert_eq!(steps.len(), 2, "it does not come to the third");
    assert_eq!((steps[0].keys, steps[0].next), (40, None));
    assert!(steps[1].keys >= 20 && steps[1].next.is_some(), "{steps:?}");
    let rest = store.purge_slots(&[(slot(b"b"), steps[1].next), (slot(b"c"), None)], 100).unwrap();
    assert_eq!((rest.len(), keys_on_disk(&store)), (2, 0));
}

fn a_crash_brings_back_a_whole_key_or_nothing(disk: &Disk) {
    #[allow(irrefutable_let_patterns, reason = "there may be one engine only")]
    let Disk::Memory(memory) = disk else { return };
    let store = disk.open();
    for key in [b"a", b"b"] {
        commit(&store, &[set(key, ms(1), b"v"), delete(key, ms(2))]);
    }
    raise(&store, &[b"a", b"b"], horizon(5, 5, 5));
    purge(&store, b"a");
    purge(&store, b"b");
    drop(store);
    memory.crash(1);
    let store = disk.open();
    assert_eq!(store.purge_horizon(slot(b"a")), horizon(5, 5, 5), "horizons are synced");
    assert_eq!(keys_on_disk(&store), 1);
    // Were only the tombstone gone, the value would be back.
    store.compact().unwrap();
    assert!([b"a", b"b"].iter().all(|key| read(&store, *key).is_absent()));
}

/// A random row of one of a few keys of one slot. Its version follows from its content.
fn any_row() -> impl Strategy<Value = Row<'static>> {
    const KEYS: [&[u8]; 3] = [b"{t}a", b"{t}b", b"{t}c"];
    (0..KEYS.len(), 0..4u64, 1..12u64, any::<bool>()).prop_map(|(key, kind, time, is_swept)| {
        let version = version(ms(time), 4 + kind);
        let plain = Row { key: KeyRef::new(0, KEYS[key]), version, ..set(b"", 0, b"") };
        match kind {
            0 => Row { body: Body::Tombstone, ..plain },
            1 if time.is_multiple_of(2) => {
                let body = if is_swept { Body::Tombstone } else { Body::Value(b"5") };
                Row { body, expiry: Some(UnixMillis(time + 2)), ..plain }
            }
            1 => Row { body: Body::Value(b"7"), ..plain },
            actor => {
                // One actor has never seen a register, the other ever newer ones: an actor's bases do not fall. (Those
                // that nobody wrote are left out below.)
                let base = if actor == 2 { Version::ZERO } else { common::version(ms(time / 2), 4) };
                Row { cell: Cell::Counter { actor }, body: Body::Counter { base, sum: time as i64 }, ..plain }
            }
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Replicas that have the same rows up to the horizon stay equal, whoever purges when, whatever comes later.
    #[test]
    fn who_purges_when_makes_no_difference(
        rows in prop::collection::vec(any_row(), 1..25),
        limit in 1..12u64,
        order in any::<bool>(),
    ) {
        let keys: [&[u8]; 3] = [b"{t}a", b"{t}b", b"{t}c"];
        // Who counts on a register has seen it, and it was written.
        let is_known = |base: Version, key: &[u8]| {
            base == Version::ZERO
                || rows.iter().any(|row| {
                    row.cell == Cell::Register && row.version == base && row.key.key == key
                })
        };
        let rows: Vec<_> = rows.iter().copied().filter(|row| match row.body {
            Body::Counter { base, .. } => is_known(base, row.key.key),
            _ => true,
        }).collect();
        let stores: Vec<Store> = (0..3).map(|_| Disk::memory().open()).collect();
        let (old, new): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.version.hlc <= at(limit));
        // Nobody counts any more on a register that is dead at the horizon.
        let dead: Vec<Version> = keys.iter().filter_map(|key| {
            let of_key = old.iter().filter(|row| row.key.key == *key);
            let record = of_key.fold(Record::ABSENT, |all, row| all.merge(&Record::of_row(row)));
            record.is_dead_at(at(limit)).then(|| record.base())
        }).collect();
        let new: Vec<_> = new.into_iter().filter(|row| match row.body {
            Body::Counter { base, .. } => !dead.contains(&base),
            _ => true,
        }).collect();
        for (index, store) in stores.iter().enumerate() {
            commit(store, &old);
            if index == 2 && order {
                commit(store, &new);
            }
            raise(store, &keys, horizon(limit, limit, if index > 0 { limit } else { 0 }));
            store.purge(slot(b"t"), None, 100).unwrap();
            commit(store, &new);
            if index == 1 {
                store.purge(slot(b"t"), None, 1).unwrap();
                store.sweep(SweepPass::default(), UnixMillis(20), 100).unwrap();
            }
        }
        for key in keys {
            let records: Vec<Record> = stores.iter().map(|store| read(store, key)).collect();
            for record in &records {
                prop_assert_eq!(record.digest(), records[0].digest(), "{:?}", &records);
                prop_assert_eq!(record.view(UnixMillis(99)), records[0].view(UnixMillis(99)));
            }
        }
        prop_assert_eq!(sum(&stores[0]), sum(&stores[1]));
        prop_assert_eq!(sum(&stores[0]), sum(&stores[2]));
    }
}
