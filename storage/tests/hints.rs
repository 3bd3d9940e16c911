//! Hints: a set of keys per target, committed with their rows, removed only if unchanged; marks; forgetting.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that is wrong fails"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use common::{Disk, commit, contract, count, delete, expiring, set, version};
use gyre_storage::{
    ExpiryPass, Hint, HintStats, Hlc, KeyRef, MemoryDisk, Record, Row, Store, StoreOptions, UnixMillis,
    Version,
};
use proptest::prelude::*;

contract!(
    hints_are_a_set_of_keys_with_the_last_row_missed,
    pages_go_through_one_target_in_order,
    only_an_unchanged_hint_is_removed,
    a_hint_alone_is_a_commit,
    hints_survive_reopening_with_their_statistics,
    over_the_bound_a_hint_becomes_a_mark_and_the_row_is_stored,
    a_closed_target_gets_marks_instead_of_hints,
    marks_are_cleared_only_as_they_were_listed,
    old_hints_expire_with_a_mark_in_bounded_steps,
    forgetting_removes_every_row_the_record_covers_and_nothing_newer,
    a_key_with_a_hint_is_not_forgotten,
    a_forgotten_key_leaves_cache_scans_and_the_expiry_index,
    odd_keys_and_targets_pass,
);

fn write(store: &Store, row: &Row<'_>, targets: &[u64]) {
    let mut batch = store.batch();
    batch.push(row);
    for &target in targets {
        store.hint(&mut batch, target, row.key, row.version);
    }
    store.commit(&mut batch).unwrap();
}

fn all(store: &Store, target: u64) -> Vec<Hint> {
    store.hints_page(target, None, usize::MAX).unwrap()
}

fn names(hints: &[Hint]) -> BTreeSet<String> {
    hints.iter().map(|hint| String::from_utf8(hint.key.clone()).unwrap()).collect()
}

fn stats(store: &Store, target: u64) -> (u64, u64, Hlc) {
    let stat = store.hint_stats().into_iter().find(|stat: &HintStats| stat.target == target);
    stat.map_or((0, 0, Hlc::ZERO), |stat| (stat.keys, stat.bytes, stat.oldest))
}

fn key(name: &[u8]) -> KeyRef<'_> {
    KeyRef::new(0, name)
}

fn hints_are_a_set_of_keys_with_the_last_row_missed(disk: &Disk) {
    let store = disk.open();
    for hlc in 5..1_000 {
        write(&store, &set(b"a", hlc, b"v"), &[7]);
    }
    write(&store, &set(b"b", 3, b"v"), &[7, 8]);
    let hints = all(&store, 7);
    assert_eq!(names(&hints), ["a", "b"].map(String::from).into());
    assert!(hints.iter().any(|hint| hint.key == b"a" && hint.missed == Hlc(999)));
    assert_eq!(names(&all(&store, 8)), ["b".to_owned()].into());
    let (keys, bytes, oldest) = stats(&store, 7);
    assert_eq!((keys, oldest), (2, Hlc(3)));
    assert_eq!(store.hint_counts().kept, 997);
    assert_eq!(store.hint_counts().bytes, bytes + stats(&store, 8).1);
}

fn pages_go_through_one_target_in_order(disk: &Disk) {
    let store = disk.open();
    for n in 0..50u64 {
        write(&store, &set(format!("key-{n}").as_bytes(), n + 1, b"v"), &[n % 2, 2]);
    }
    for (target, expected) in [(0, 25), (1, 25), (2, 50), (3, 0)] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = store.hints_page(target, after.as_ref(), 7).unwrap();
            assert!(page.len() <= 7);
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            found.extend(page);
        }
        assert_eq!((found.len(), names(&found).len()), (expected, expected));
        assert!(found.is_sorted_by_key(|hint| hint.key().prefix()));
    }
}

fn only_an_unchanged_hint_is_removed(disk: &Disk) {
    let store = disk.open();
    write(&store, &set(b"a", 1, b"v"), &[7, 8]);
    write(&store, &set(b"b", 2, b"v"), &[7]);
    let seen = all(&store, 7);
    write(&store, &set(b"a", 3, b"v"), &[7]);
    assert_eq!(store.drop_hints(7, &seen).unwrap(), 1);
    assert_eq!(all(&store, 7)[0].missed, Hlc(3));
    assert_eq!(store.drop_hints(7, &seen).unwrap(), 0);
    // Another node's row of the same clock; the hint of an older row that comes late; that very hint once more.
    for late in [Row { version: version(3, 2), ..set(b"a", 3, b"w") }, set(b"a", 1, b"v"), set(b"a", 1, b"v")]
    {
        let seen = all(&store, 7);
        write(&store, &late, &[7]);
        assert_eq!(store.drop_hints(7, &seen).unwrap(), 0);
    }
    assert_eq!(store.drop_hints(7, &all(&store, 7)).unwrap(), 1);
    assert_eq!((stats(&store, 7).0, stats(&store, 8).0, store.hint_counts().replayed), (0, 1, 2));
}

fn a_hint_alone_is_a_commit(disk: &Disk) {
    let store = disk.open();
    let mut batch = store.batch();
    assert!(store.hint(&mut batch, 7, key(b"a"), version(1, 1)));
    assert_eq!((batch.is_empty(), batch.len()), (false, 0), "no row, and yet something");
    store.commit(&mut batch).unwrap();
    assert!(batch.is_empty());
    assert_eq!(all(&store, 7).len(), 1);
}

fn hints_survive_reopening_with_their_statistics(disk: &Disk) {
    let store = disk.open();
    for n in 0..20u64 {
        write(&store, &set(format!("key-{n}").as_bytes(), n + 5, b"v"), &[7]);
    }
    let (hints, before) = (all(&store, 7), stats(&store, 7));
    drop(store);
    let store = disk.open();
    assert_eq!((all(&store, 7), stats(&store, 7)), (hints.clone(), before));
    assert_eq!(store.hint_counts().bytes, before.1);
    store.drop_hints(7, &hints).unwrap();
    drop(store);
    assert!(all(&disk.open(), 7).is_empty());
}

fn over_the_bound_a_hint_becomes_a_mark_and_the_row_is_stored(disk: &Disk) {
    let store = disk.open_with(|options| options.hint_bytes_max = 1).unwrap();
    write(&store, &set(b"a", 1, b"v"), &[7]);
    write(&store, &set(b"b", 2, b"v"), &[7, 8]);
    write(&store, &set(b"a", 3, b"v"), &[7]);
    assert_eq!(all(&store, 7).len(), 1, "what has a hint may have it renewed");
    assert_eq!(all(&store, 7)[0].missed, Hlc(3));
    assert!(!store.read(key(b"b")).unwrap().is_absent());
    assert_eq!(store.marked_slots().unwrap(), [(key(b"b").slot(), Hlc(2))]);
    assert_eq!((store.hint_counts().dropped, store.hint_counts().kept), (2, 2));
    store.drop_hints(7, &all(&store, 7)).unwrap();
    write(&store, &set(b"b", 4, b"v"), &[7]);
    assert_eq!(names(&all(&store, 7)), ["b".to_owned()].into(), "there is room again");
}

fn a_closed_target_gets_marks_instead_of_hints(disk: &Disk) {
    let store = disk.open();
    store.close_hints(7, true);
    write(&store, &set(b"a", 1, b"v"), &[7, 8]);
    assert_eq!((all(&store, 7).len(), all(&store, 8).len()), (0, 1));
    assert_eq!(store.marked_slots().unwrap().len(), 1);
    store.close_hints(7, false);
    write(&store, &set(b"a", 2, b"v"), &[7]);
    assert_eq!(all(&store, 7).len(), 1);
}

fn marks_are_cleared_only_as_they_were_listed(disk: &Disk) {
    let store = disk.open();
    let mut batch = store.batch();
    batch.drop_hint(key(b"a"), version(1, 1));
    batch.drop_hint(key(b"b"), version(2, 1));
    store.commit(&mut batch).unwrap();
    let listed = store.marked_slots().unwrap();
    assert_eq!(listed.len(), 2);
    batch.drop_hint(key(b"a"), version(3, 1));
    store.commit(&mut batch).unwrap();
    store.clear_marks(&listed).unwrap();
    drop(store);
    assert_eq!(disk.open().marked_slots().unwrap(), [(key(b"a").slot(), Hlc(3))]);
}

fn old_hints_expire_with_a_mark_in_bounded_steps(disk: &Disk) {
    let store = disk.open();
    for n in 0..30u64 {
        write(&store, &set(format!("key-{n}").as_bytes(), n + 1, b"v"), &[7, 8]);
    }
    let (mut pass, mut steps) = (Some(ExpiryPass::default()), 0);
    while let Some(at) = pass {
        pass = store.expire_hints(at, Hlc(21), 7).unwrap();
        steps += 1;
    }
    assert_eq!(steps, 9, "sixty hints, seven at a time");
    assert_eq!((all(&store, 7).len(), all(&store, 8).len()), (10, 10));
    assert_eq!((stats(&store, 7).2, store.hint_counts().expired), (Hlc(21), 40));
    let slots: BTreeSet<u16> = (0..20).map(|n| key(format!("key-{n}").as_bytes()).slot()).collect();
    let marked: BTreeSet<u16> = store.marked_slots().unwrap().into_iter().map(|(slot, _)| slot).collect();
    assert_eq!(marked, slots);
}

fn forgetting_removes_every_row_the_record_covers_and_nothing_newer(disk: &Disk) {
    for cache in [0, 8 << 20] {
        let store = disk.open_with(|options| options.row_cache_bytes = cache).unwrap();
        for hlc in 1..20 {
            commit(&store, &[set(b"k", hlc, b"v"), set(b"kk", hlc, b"v")]);
        }
        commit(&store, &[count(b"k", 1, 21, version(19, 1), 3), count(b"k", 2, 22, version(5, 1), 3)]);
        let handed = store.read(key(b"k")).unwrap();
        commit(&store, &[count(b"k", 3, 23, version(19, 1), 4)]);
        assert!(store.forget(key(b"k"), &handed).unwrap());
        let left = store.read(key(b"k")).unwrap();
        assert_eq!(left, Record::of_row(&count(b"k", 3, 23, version(19, 1), 4)), "only what is newer");
        assert!(!store.read(key(b"kk")).unwrap().is_absent());
        assert!(store.forget(key(b"k"), &left).unwrap());
        assert!(store.read(key(b"k")).unwrap().is_absent());
        assert!(!store.forget(key(b"k"), &left).unwrap(), "nothing is left to forget");
        store.compact().unwrap();
        assert!(store.read(key(b"k")).unwrap().is_absent());
        commit(&store, &[set(b"k", 19, b"v")]);
        assert_eq!(store.read(key(b"k")).unwrap().base(), version(19, 1), "a row may come back");
        store.forget(key(b"k"), &handed).unwrap();
    }
}

fn a_key_with_a_hint_is_not_forgotten(disk: &Disk) {
    let store = disk.open();
    write(&store, &set(b"k", 1, b"v"), &[7, 8]);
    let record = store.read(key(b"k")).unwrap();
    for target in [7, 8] {
        assert!(!store.forget(key(b"k"), &record).unwrap());
        store.drop_hints(target, &all(&store, target)).unwrap();
    }
    assert!(store.forget(key(b"k"), &record).unwrap());
    assert_eq!(store.hint_counts().forgotten, 1);
}

fn a_forgotten_key_leaves_cache_scans_and_the_expiry_index(disk: &Disk) {
    let store = disk.open();
    commit(&store, &[expiring(b"k", 1, b"v", 50), expiring(b"k", 2, b"w", 60), expiring(b"l", 1, b"v", 70)]);
    let scan = |store: &Store| store.scan(Some(0), 0, gyre_storage::PREFIX_END, 10, 1_000, true).unwrap();
    assert_eq!(scan(&store).entries.len(), 2);
    let record = store.read(key(b"k")).unwrap();
    assert!(store.forget(key(b"k"), &record).unwrap());
    assert_eq!(scan(&store).entries.len(), 1, "not even from what was read ahead");
    assert!(store.read(key(b"k")).unwrap().is_absent());
    assert_eq!(store.expired(UnixMillis(1_000), 10).unwrap().len(), 1);
    drop(store);
    assert!(disk.open().read(key(b"k")).unwrap().is_absent());
}

fn odd_keys_and_targets_pass(disk: &Disk) {
    let store = disk.open();
    let long = vec![0xff; 70_000];
    for target in [0, 1, u64::MAX - 1, u64::MAX] {
        for name in [&b""[..], b"\0", b"\xff\xff", &long] {
            write(&store, &delete(name, 5), &[target]);
        }
    }
    for target in [0, 1, u64::MAX - 1, u64::MAX] {
        let hints = all(&store, target);
        assert_eq!(hints.len(), 4);
        assert_eq!(store.drop_hints(target, &hints).unwrap(), 4);
    }
    assert_eq!((store.hint_stats(), store.hint_counts().bytes), (Vec::new(), 0));
}

#[test]
fn a_crash_keeps_a_hint_exactly_if_it_keeps_its_row() {
    for kept in 0..4 {
        let disk = MemoryDisk::new();
        let store = Store::open_memory(&disk, &StoreOptions::new("")).unwrap();
        store.sync().unwrap();
        let names: [&[u8]; 3] = [b"a", b"b", b"c"];
        for (hlc, name) in names.iter().enumerate() {
            write(&store, &set(name, hlc as u64 + 1, b"v"), &[7]);
        }
        drop(store);
        disk.crash(kept);
        let store = Store::open_memory(&disk, &StoreOptions::new("")).unwrap();
        for name in names {
            let has_row = !store.read(key(name)).unwrap().is_absent();
            let has_hint = all(&store, 7).iter().any(|hint| hint.key == name);
            assert_eq!(has_row, has_hint, "{name:?} with {kept} batches kept");
        }
    }
}

#[test]
fn a_failing_disk_poisons_whatever_was_written() {
    let disk = MemoryDisk::new();
    let store = Store::open_memory(&disk, &StoreOptions::new("")).unwrap();
    write(&store, &set(b"a", 1, b"v"), &[7]);
    let hints = all(&store, 7);
    disk.fail_writes(true);
    store.drop_hints(7, &hints).unwrap_err();
    assert!(store.poisoned().is_some());
    assert_eq!(stats(&store, 7).0, 1, "what was not removed still counts");
}

/// Writers that miss rows and a replayer that hands over and removes at once: when all is quiet, whatever the target
/// was not given still has its hint.
fn race(store: &Store) {
    const KEYS: usize = 20;
    let names: Vec<Vec<u8>> = (0..KEYS).map(|n| format!("key-{n}").into_bytes()).collect();
    let clock = AtomicU64::new(1);
    let writers = AtomicU64::new(3);
    let held: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    let write_all = |seed: u64| {
        for n in 0..1_500u64 {
            let at = (n * 7 + seed) as usize % KEYS;
            let hlc = clock.fetch_add(1, Ordering::SeqCst);
            write(store, &set(&names[at], hlc, b"v"), &[7]);
        }
        writers.fetch_sub(1, Ordering::SeqCst);
    };
    let replay = || {
        for hint in all(store, 7) {
            let at = names.iter().position(|name| *name == hint.key).unwrap();
            let record = store.read(hint.key()).unwrap();
            held[at].fetch_max(record.base().hlc.0, Ordering::SeqCst);
            store.drop_hints(7, std::slice::from_ref(&hint)).unwrap();
            store.forget(hint.key(), &record).unwrap();
        }
    };
    std::thread::scope(|scope| {
        let write_all = &write_all;
        (0..3).for_each(|seed| drop(scope.spawn(move || write_all(seed))));
        scope.spawn(|| {
            while writers.load(Ordering::SeqCst) > 0 {
                replay();
            }
        });
    });
    replay();
    assert!(all(store, 7).is_empty() && store.hint_stats().is_empty());
    let last = held.iter().map(|held| held.load(Ordering::SeqCst)).max().unwrap();
    assert_eq!(last, clock.load(Ordering::SeqCst) - 1, "the very last row was handed over");
    for name in &names {
        assert!(store.read(key(name)).unwrap().is_absent(), "and everything was forgotten");
    }
}

#[test]
fn no_row_is_lost_between_a_hint_and_its_removal() {
    race(&Disk::memory().open());
}

#[cfg(feature = "rocksdb")]
#[test]
fn no_row_is_lost_between_a_hint_and_its_removal_on_rocksdb() {
    race(&Disk::rocks().open());
}

/// What a script of hint operations does, against a model.
#[derive(Clone, Debug)]
enum Act {
    Write { key: usize, target: u64 },
    Drop { target: u64, skip: usize },
    Remember { target: u64 },
    DropRemembered,
    Forget { key: usize },
    Reopen,
    Expire { before: u64 },
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..6usize, 0..3u64).prop_map(|(key, target)| Act::Write { key, target }),
        1 => (0..3u64, 0..3usize).prop_map(|(target, skip)| Act::Drop { target, skip }),
        2 => (0..3u64).prop_map(|target| Act::Remember { target }),
        2 => Just(Act::DropRemembered),
        2 => (0..6usize).prop_map(|key| Act::Forget { key }),
        1 => Just(Act::Reopen),
        1 => (0..60u64).prop_map(|before| Act::Expire { before }),
    ]
}

fn follows_the_model(disk: &Disk, script: &[Act]) {
    let name = |key: usize| format!("key-{key}").into_bytes();
    let mut store = disk.open();
    let mut hints: BTreeMap<(u64, Vec<u8>), Hlc> = BTreeMap::new();
    let mut rows: BTreeMap<Vec<u8>, Version> = BTreeMap::new();
    let mut remembered: (u64, Vec<Hint>) = (0, Vec::new());
    for (at, act) in script.iter().enumerate() {
        let hlc = at as u64 + 1;
        match *act {
            Act::Write { key, target } => {
                write(&store, &set(&name(key), hlc, b"v"), &[target]);
                hints.insert((target, name(key)), Hlc(hlc));
                rows.insert(name(key), version(hlc, 1));
            }
            Act::Drop { target, skip } => {
                let page: Vec<Hint> = all(&store, target).into_iter().skip(skip).collect();
                assert_eq!(store.drop_hints(target, &page).unwrap(), page.len());
                for hint in page {
                    hints.remove(&(target, hint.key));
                }
            }
            Act::Remember { target } => remembered = (target, all(&store, target)),
            Act::DropRemembered => {
                let (target, page) = &remembered;
                store.drop_hints(*target, page).unwrap();
                for hint in page {
                    let entry = (*target, hint.key.clone());
                    if hints.get(&entry) == Some(&hint.missed) {
                        hints.remove(&entry);
                    }
                }
            }
            Act::Forget { key } => {
                let record = store.read(KeyRef::new(0, &name(key))).unwrap();
                let is_free = !hints.keys().any(|(_, hinted)| *hinted == name(key));
                let expected = is_free && rows.contains_key(&name(key));
                assert_eq!(store.forget(KeyRef::new(0, &name(key)), &record).unwrap(), expected);
                if is_free {
                    rows.remove(&name(key));
                }
            }
            Act::Reopen => {
                drop(store);
                store = disk.open();
            }
            Act::Expire { before } => {
                let mut pass = Some(ExpiryPass::default());
                while let Some(at) = pass {
                    pass = store.expire_hints(at, Hlc(before), 2).unwrap();
                }
                hints.retain(|_, missed| *missed >= Hlc(before));
                for stat in store.hint_stats() {
                    let of_target = hints.iter().filter(|((target, _), _)| *target == stat.target);
                    let oldest = of_target.map(|(_, missed)| *missed).min();
                    assert_eq!(Some(stat.oldest), oldest, "exact after a pass");
                }
            }
        }
        for target in 0..3 {
            let found: BTreeMap<_, _> =
                all(&store, target).into_iter().map(|hint| ((target, hint.key), hint.missed)).collect();
            let expected: BTreeMap<_, _> = hints
                .range((target, Vec::new())..(target + 1, Vec::new()))
                .map(|(entry, missed)| (entry.clone(), *missed))
                .collect();
            assert_eq!(stats(&store, target).0, found.len() as u64);
            assert_eq!(found, expected);
        }
        for key in 0..6 {
            let record = store.read(KeyRef::new(0, &name(key))).unwrap();
            assert_eq!(record.base(), rows.get(&name(key)).copied().unwrap_or_default());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn hints_follow_the_model(script in prop::collection::vec(any_act(), 1..60)) {
        follows_the_model(&Disk::memory(), &script);
    }
}

#[cfg(feature = "rocksdb")]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn hints_follow_the_model_on_rocksdb(script in prop::collection::vec(any_act(), 1..60)) {
        follows_the_model(&Disk::rocks(), &script);
    }
}
