//! The laws of `apply`, on whole stores and random histories: rows may arrive in any order, more than once, in any
//! batches, and every engine ends with the same records.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test that is wrong fails"
)]

mod common;

use common::{Disk, commit, set, version};
use gyre_storage::siblings::{Dot, Sibling, SiblingSet, VersionVector};
use gyre_storage::{
    Body, Cell, KeyRef, PREFIX_END, Record, Row, Store, SweepPass, UnixMillis, Version, View,
};
use proptest::prelude::*;

const KEYS: [&[u8]; 5] = [b"", b"a", b"aa", b"{a}b", b"\xff"];
const VALUES: [&[u8]; 4] = [b"", b"1", b"27", b"text"];

/// When everything that expires has expired.
const LATE: UnixMillis = UnixMillis(10_000);

/// A random row. Its version follows from its content, so that equal versions are the same row; but it may come swept, as
/// it does from a replica that has swept it.
fn any_row() -> impl Strategy<Value = Row<'static>> {
    (unswept_row(), any::<bool>()).prop_map(|(row, is_swept)| if is_swept { swept(row) } else { row })
}

/// `row` as a replica holds it that has swept it.
fn swept(row: Row<'static>) -> Row<'static> {
    match (row.expiry, row.body) {
        (Some(_), _) => Row { body: Body::Tombstone, ..row },
        (None, Body::Siblings { base, set }) => {
            Row { body: Body::Siblings { base, set: without_expired(set) }, ..row }
        }
        _ => row,
    }
}

fn unswept_row() -> impl Strategy<Value = Row<'static>> {
    (0..2u8, 0..KEYS.len(), 0..5u64, 0..12u64, 0..3u64).prop_map(|(db, key, kind, hlc, node)| {
        let version = version(hlc + 1, 5 * node + kind);
        let expiry = (hlc % 3 == 0).then_some(UnixMillis(hlc * 100));
        let plain = Row { key: KeyRef::new(db, KEYS[key]), version, ..set(b"", 0, b"") };
        match kind {
            0 => Row { body: Body::Tombstone, ..plain },
            1 => Row { body: Body::Value(VALUES[hlc as usize % 4]), expiry, ..plain },
            4 => siblings(plain, node + 1, hlc + 1),
            actor => {
                let base = common::version(hlc / 2, 1);
                let body = Body::Counter { base, sum: hlc as i64 - 5 };
                Row { cell: Cell::Counter { actor }, body, ..plain }
            }
        }
    })
}

/// `set` without the values that ever expire.
fn without_expired(set: &[u8]) -> &'static [u8] {
    let set = SiblingSet::decode(set).unwrap();
    let mut swept = SiblingSet::default();
    for sibling in set.siblings() {
        let is_swept = sibling.expiry.is_some();
        swept.put(Sibling { is_swept, value: if is_swept { b"" } else { sibling.value }, ..*sibling });
    }
    set.seen().iter().for_each(|dot| swept.see(dot));
    let mut bytes = Vec::new();
    swept.encode(&mut bytes);
    Vec::leak(bytes)
}

/// The row of `actor`'s sibling cell at clock `hlc`, in a history in which everyone writes with what others have written
/// until three ticks before, on bases that rise. Some values expire.
fn siblings(plain: Row<'static>, actor: u64, hlc: u64) -> Row<'static> {
    let mut seen = VersionVector::default();
    (1..4).for_each(|other| seen.see(Dot { event: hlc.saturating_sub(3), actor: other }));
    let mut set = SiblingSet::default();
    set.discard(&seen);
    let value = VALUES[hlc as usize % 4];
    let expiry = hlc.is_multiple_of(2).then_some(UnixMillis(hlc * 100));
    set.put(Sibling::new(Dot { event: hlc, actor }, expiry, value));
    let mut bytes = Vec::new();
    set.encode(&mut bytes);
    let body = Body::Siblings { base: version(hlc / 2, 1), set: Vec::leak(bytes) };
    Row { cell: Cell::Siblings { actor }, body, ..plain }
}

fn apply(store: &Store, rows: &[Row<'_>], cuts: usize) {
    for batch in rows.chunks(cuts.max(1)) {
        commit(store, batch);
    }
}

fn state(store: &Store) -> Vec<(u8, Vec<u8>, Record)> {
    let page = store.scan(None, 0, PREFIX_END, usize::MAX, usize::MAX, true).unwrap();
    assert_eq!(page.next, None);
    page.entries
}

/// Database, key, what trees hash of it, and what a reader sees late.
type Late<'a> = (u8, &'a [u8], Option<u64>, Option<View<'a>>);

fn late(state: &[(u8, Vec<u8>, Record)]) -> Vec<Late<'_>> {
    state
        .iter()
        .map(|(db, key, record)| (*db, &key[..], record.state_digest(Version::ZERO), record.view(LATE)))
        .collect()
}

/// Sweeps everything that ever expires, a few entries at a time.
fn sweep(store: &Store) {
    let mut pass = Some(SweepPass::default());
    while let Some(from) = pass {
        pass = store.sweep(from, LATE, 3).unwrap().next;
    }
}

/// Reads must give what a scan gives, but for counter cells that the register has voided.
fn reads_agree_with_the_scan(store: &Store) {
    let state = state(store);
    for db in 0..2 {
        for key in KEYS {
            let scanned = state.iter().find(|(d, k, _)| *d == db && k == key).map(|(_, _, record)| record);
            let read = store.read(KeyRef::new(db, key)).unwrap();
            let horizon = store.horizon(db);
            let scanned = scanned.cloned().unwrap_or_default().under_horizon(horizon);
            assert_eq!(read.digest(), scanned.digest(), "{read:?} beside {scanned:?}");
            assert_eq!(read.view(LATE), scanned.view(LATE));
        }
    }
}

fn laws(rows: &[Row<'static>], shuffled: &[Row<'static>], cuts: usize, disk: impl Fn() -> Disk) {
    let [first, second, third] = [disk(), disk(), disk()];
    let straight = first.open();
    apply(&straight, rows, cuts);
    let expected = state(&straight);
    let commuted = second.open();
    apply(&commuted, shuffled, cuts + 1);
    assert_eq!(late(&state(&commuted)), late(&expected), "apply commutes and associates");
    let repeated = third.open();
    apply(&repeated, shuffled, 2);
    sweep(&repeated);
    apply(&repeated, rows, 3);
    assert_eq!(late(&state(&repeated)), late(&expected), "apply is idempotent, whatever is swept in between");
    for store in [&straight, &commuted, &repeated] {
        reads_agree_with_the_scan(store);
        sweep(store);
        assert!(store.expired(LATE, 1).unwrap().is_empty());
    }
    let expected = state(&straight);
    for store in [&straight, &commuted, &repeated] {
        assert_eq!(state(store), expected, "who has swept has the same, byte for byte");
        reads_agree_with_the_scan(store);
        store.compact().unwrap();
        assert_eq!(state(store), expected, "compaction changes nothing");
    }
}

fn history() -> impl Strategy<Value = (Vec<Row<'static>>, Vec<Row<'static>>, usize)> {
    prop::collection::vec(any_row(), 1..40)
        .prop_flat_map(|rows| (Just(rows.clone()), Just(rows).prop_shuffle(), 1..6usize))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn apply_commutes_associates_and_is_idempotent((rows, shuffled, cuts) in history()) {
        laws(&rows, &shuffled, cuts, Disk::memory);
    }

    #[test]
    fn merge_of_records_commutes_associates_and_is_idempotent(rows in prop::collection::vec(any_row(), 3..12)) {
        let record = |part: &[Row<'static>]| {
            part.iter().fold(Record::ABSENT, |record, row| record.merge(&Record::of_row(row)))
        };
        let third = rows.len() / 3;
        // The third has swept what the first has.
        let last: Vec<Row<'static>> =
            rows[2 * third..].iter().copied().chain(rows[..third].iter().copied().map(swept)).collect();
        let [a, b, c] = [&rows[..third], &rows[third..2 * third], &last].map(record);
        prop_assert_eq!(a.merge(&b), b.merge(&a));
        prop_assert_eq!(a.merge(&c), c.merge(&a));
        prop_assert_eq!(a.merge(&b).merge(&c), a.merge(&b.merge(&c)));
        prop_assert_eq!(&a.merge(&a), &a);
        let horizon = version(6, 0);
        prop_assert_eq!(
            a.merge(&b).under_horizon(horizon),
            a.under_horizon(horizon).merge(&b.under_horizon(horizon)),
            "horizons distribute over merges"
        );
    }
}

#[cfg(feature = "rocksdb")]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn laws_hold_on_rocksdb((rows, shuffled, cuts) in history()) {
        laws(&rows, &shuffled, cuts, Disk::rocks);
    }

    #[test]
    fn engines_agree_on_random_histories((rows, _, cuts) in history(), horizon in 0..12u64) {
        let [memory, rocks] = [Disk::memory(), Disk::rocks()];
        let stores = [memory.open(), rocks.open()];
        let half = rows.len() / 2;
        for store in &stores {
            apply(store, &rows[..half], cuts);
            store.set_horizons(&[version(horizon, 0)]).unwrap();
            store.compact().unwrap();
            apply(store, &rows[half..], cuts);
        }
        prop_assert_eq!(state(&stores[0]), state(&stores[1]));
        let now = UnixMillis(500);
        prop_assert_eq!(
            stores[0].count_keys(0, 0, PREFIX_END, now).unwrap(),
            stores[1].count_keys(0, 0, PREFIX_END, now).unwrap()
        );
        prop_assert_eq!(stores[0].expired(now, 100).unwrap(), stores[1].expired(now, 100).unwrap());
        for store in &stores {
            reads_agree_with_the_scan(store);
        }
        drop(stores);
        prop_assert_eq!(state(&memory.open()), state(&rocks.open()));
    }
}
