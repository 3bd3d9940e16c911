//! Commits and hashing interleaved step by step, and a crash behind every write: the tree never misses a row.

use super::*;
use crate::engine::memory::MemoryDisk;
use crate::key::KeyRef;
use crate::options::StoreOptions;
use crate::row::{Body, Cell, Row};
use crate::tree::Marking;
use crate::version::{Hlc, Version};

/// Two of one segment, then two of one of another slot.
const KEYS: [&[u8]; 4] = [b"{slot}0", b"{slot}30", b"{other}1", b"{other}6"];

#[test]
fn keys_stand_where_the_tests_need_them() {
    let segments = KEYS.map(|key| crate::tree::marks::segment_of(KeyRef::new(0, key).prefix()));
    assert_eq!((segments[0], segments[2]), (segments[1], segments[3]));
    assert_ne!(segments[0] / SEGMENTS_PER_SLOT, segments[2] / SEGMENTS_PER_SLOT);
}

fn row(key: &'static [u8], hlc: u64) -> Row<'static> {
    let version = Version { hlc: Hlc(hlc), node: 1 };
    let key = KeyRef::new(0, key);
    Row { key, cell: Cell::Register, version, expiry: None, body: Body::Value(b"v") }
}

fn open(disk: &MemoryDisk) -> Store {
    Store::open_memory(disk, &StoreOptions::new("")).unwrap()
}

fn slot() -> Slot {
    KeyRef::new(0, KEYS[0]).slot()
}

/// The tree's answer, once what is known to be dirty is hashed, is what hashing everything gives.
fn check(store: &Store, what: &[Step]) {
    for key in [KEYS[0], KEYS[2]] {
        let range = PrefixRange::of_slot(KeyRef::new(0, key).slot());
        let sum = store.tree_sums(&[range]).unwrap()[0];
        let expected = hashing::sum_of(store.engine.as_ref(), &store.counted(), range).unwrap();
        assert_eq!(sum, expected, "after {what:?}");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Begin(usize),
    Write(usize),
    Done(usize),
    EndGeneration,
    CarryOver,
    Hash,
    DeleteMarks,
    Store,
}

/// Two commits of a row in each segment, and one step of hashing, at some point.
struct World<'a> {
    store: &'a Store,
    commits: Vec<(Batch, Option<Marking<'a>>)>,
    wanted: Vec<(Slot, Mask)>,
    ended: u64,
    hashed: Option<Hashed>,
}

impl<'a> World<'a> {
    fn new(store: &'a Store) -> World<'a> {
        let commits = [0, 1].map(|commit| {
            let mut batch = Batch::default();
            batch.push(&row(KEYS[commit], 10));
            batch.push(&row(KEYS[commit + 2], 10));
            (batch, None)
        });
        World { store, commits: commits.into(), wanted: Vec::new(), ended: 0, hashed: None }
    }

    /// Takes a step. Answers false where a thread would have to wait for another one's.
    fn step(&mut self, step: Step) -> bool {
        let marks = &self.store.tree.marks;
        match step {
            Step::Begin(commit) => {
                let (batch, marking) = &mut self.commits[commit];
                *marking = Some(self.store.tree.begin(batch));
            }
            Step::Write(commit) => {
                self.store.engine.write(self.commits[commit].0.encoded(), false).unwrap();
            }
            Step::Done(commit) => self.commits[commit].1.take().unwrap().written(),
            Step::EndGeneration => {
                self.wanted = self.store.dirty_of(&[PrefixRange::ALL]);
                self.ended = marks.end_generation(&self.wanted);
            }
            Step::CarryOver if !marks.is_quiet(self.ended) => return false,
            Step::CarryOver => marks.carry_over(self.ended, &self.wanted),
            Step::Hash => self.hashed = Some(self.store.hash_taken(&self.wanted).unwrap()),
            Step::DeleteMarks => {
                let batch = &mut self.hashed.as_mut().unwrap().batch;
                self.store.delete_marks(&self.wanted, self.ended, batch).unwrap();
            }
            Step::Store => {
                assert!(self.store.store_sums(&self.wanted, self.hashed.take().unwrap()).unwrap());
            }
        }
        true
    }
}

/// Every order of the steps of three threads, each in its own order.
fn orders(threads: &[&[Step]]) -> Vec<Vec<Step>> {
    if threads.iter().all(|thread| thread.is_empty()) {
        return vec![Vec::new()];
    }
    let mut orders_found = Vec::new();
    for at in 0..threads.len() {
        let Some((first, rest)) = threads[at].split_first() else { continue };
        let mut left = threads.to_vec();
        left[at] = rest;
        for mut order in orders(&left) {
            order.insert(0, *first);
            orders_found.push(order);
        }
    }
    orders_found
}

/// A disk on which the first segment is hashed and the second one dirty.
fn disk_before() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let store = open(&disk);
    for key in KEYS {
        let mut batch = store.batch();
        batch.push(&row(key, 1));
        store.commit(&mut batch).unwrap();
    }
    store.refresh_tree(usize::MAX).unwrap();
    let mut batch = store.batch();
    batch.push(&row(KEYS[2], 2));
    store.commit(&mut batch).unwrap();
    store.sync().unwrap();
    disk
}

/// Runs `steps` on a new disk, loses power keeping `kept` of the batches since, and checks what is there after that.
/// Answers how many batches there were, or `None` if the order is one that waits.
fn run(steps: &[Step], kept: Option<usize>) -> Option<usize> {
    let disk = disk_before();
    let store = open(&disk);
    let mut world = World::new(&store);
    for step in steps {
        if !world.step(*step) {
            return None;
        }
    }
    let batches = disk.unsynced_batches();
    match kept {
        Some(kept) => {
            drop(world);
            drop(store);
            disk.crash(kept);
            check(&open(&disk), steps);
        }
        None => check(&store, steps),
    }
    Some(batches)
}

#[test]
fn no_order_of_steps_and_no_crash_makes_the_tree_miss_a_row() {
    let commit = |commit| [Step::Begin(commit), Step::Write(commit), Step::Done(commit)];
    let hash = [Step::EndGeneration, Step::CarryOver, Step::Hash, Step::DeleteMarks, Step::Store];
    let (first, second) = (commit(0), commit(1));
    let (mut ran, mut crashes) = (0, 0);
    let mut prefixes_seen = std::collections::HashSet::new();
    let begins = |order: &[Step], step| order.iter().position(|other| *other == step);
    for order in orders(&[&first, &second, &hash]) {
        // The commits are alike: one of them begins first.
        if begins(&order, Step::Begin(0)) > begins(&order, Step::Begin(1)) {
            continue;
        }
        if run(&order, None).is_none() {
            continue;
        }
        ran += 1;
        for end in 1..=order.len() {
            let is_write = matches!(order[end - 1], Step::Write(_) | Step::Store);
            if !is_write || !prefixes_seen.insert(format!("{:?}", &order[..end])) {
                continue;
            }
            let batches = run(&order[..end], Some(usize::MAX)).unwrap();
            for kept in 0..batches {
                run(&order[..end], Some(kept)).unwrap();
            }
            crashes += batches + 1;
        }
    }
    assert!(ran > 500 && crashes > 1_500, "{ran} orders, {crashes} crashes");
}

#[test]
fn generation_ends_only_after_its_commits() {
    let store = Store::in_memory();
    let mut batch = store.batch();
    batch.push(&row(KEYS[0], 1));
    let marking = store.tree.begin(&mut batch);
    let is_taken = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            store.tree.marks.take(&[]);
            is_taken.store(true, Ordering::SeqCst);
        });
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(!is_taken.load(Ordering::SeqCst));
        // One of the next generation does not hold it up.
        let later = store.tree.begin(&mut store.batch());
        marking.written();
        while !is_taken.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        later.written();
    });
    assert_eq!(store.tree.marks.count(), 1, "what it has marked is carried over");
}

#[test]
fn horizon_that_rises_while_a_slot_is_hashed_makes_it_dirty_again() {
    let store = Store::in_memory();
    for key in KEYS {
        let mut batch = store.batch();
        batch.push(&row(key, 5));
        store.commit(&mut batch).unwrap();
    }
    let wanted = store.dirty_of(&[PrefixRange::ALL]);
    let ended = store.tree.marks.take(&wanted);
    let mut hashed = store.hash_taken(&wanted).unwrap();
    store.delete_marks(&wanted, ended, &mut hashed.batch).unwrap();
    store.set_horizons(&[Version { hlc: Hlc(7), node: 1 }]).unwrap();
    assert!(!store.store_sums(&wanted, hashed).unwrap());
    store.tree.marks.set(wanted);
    check(&store, &[]);
    assert_eq!(store.tree_sums(&[PrefixRange::ALL]).unwrap(), [RangeSum::default()]);
}

#[test]
fn damaged_entries_of_a_tree_are_built_anew() {
    let many: Vec<Vec<u8>> = (0..500).map(|number| format!("{{slot}}{number}").into_bytes()).collect();
    let range = PrefixRange::of_slot(slot());
    let half = PrefixRange { end: (range.from + range.end) / 2 + 1, ..range };
    let damages: [fn(&mut Batch); 4] = [
        |batch| batch.put(Family::Tree, &head_key(slot()), b"\xff"),
        |batch| batch.put(Family::Tree, &leaves_key(slot()), b"\x01"),
        |batch| batch.delete(Family::Tree, &leaves_key(slot())),
        |batch| batch.put_meta("storage.tree", b"\xffwhat is this"),
    ];
    for damage in damages {
        let disk = MemoryDisk::new();
        let store = open(&disk);
        let mut batch = store.batch();
        for (number, key) in many.iter().enumerate() {
            batch.push(&Row { key: KeyRef::new(0, key), ..row(KEYS[0], number as u64 + 1) });
        }
        store.commit(&mut batch).unwrap();
        let expected = store.tree_sums(&[range, half]).unwrap();
        assert!(expected[0].keys > expected[1].keys && expected[1].keys > 0);
        damage(&mut batch);
        store.engine.write(batch.encoded(), true).unwrap();
        drop(store);
        for _ in 0..2 {
            let store = open(&disk);
            assert_eq!(store.tree_sums(&[half, range]).unwrap(), [expected[1], expected[0]]);
            disk.crash(usize::MAX);
        }
        let store = open(&disk);
        assert_eq!(store.refresh_tree(usize::MAX).unwrap(), 0);
        drop(store);
        let stats = open(&disk).tree_stats();
        assert_eq!((stats.stale_slots, stats.dirty_segments, stats.keys), (0, 0, 500));
    }
}
