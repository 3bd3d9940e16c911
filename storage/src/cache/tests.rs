//! Writers, repairs, readers and evictions interleaved, against a model.

//! The cache against a model: what it answers is the newest record or nothing.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::row::Body;
use crate::siblings::{Dot, Sibling, SiblingSet};
use crate::version::{Hlc, UnixMillis};

/// What an engine would hold: every row written, merged.
#[derive(Default)]
struct Model {
    written: HashMap<usize, Record>,
    finished: HashMap<usize, Record>,
    /// Deleted rows that may still be shown, until their forgetting ends.
    leaving: HashMap<usize, Record>,
    /// How often each key was forgotten.
    forgotten: HashMap<usize, u64>,
}

/// What an actor of the interleaving is in the middle of.
enum Doing {
    Write {
        rows: Vec<(usize, Row<'static>)>,
        begun: Vec<Begun>,
        engine_done: bool,
        finished: usize,
    },
    Read {
        key: usize,
        ticket: Ticket,
        floor: [Record; 2],
        record: Option<Record>,
        forgotten: u64,
    },
    Forget {
        key: usize,
        record: Record,
        engine_done: bool,
    },
    /// Puts a tombstone of the same version in the place of what the engine has: no reader may notice.
    Sweep {
        key: usize,
    },
}

/// The rows of `record` that `covering` does not cover.
fn minus(record: &Record, covering: &Record) -> Record {
    let mut left = RecordBuilder::default();
    record.rows(KeyRef::new(0, b"")).filter(|row| !covering.covers(row)).for_each(|row| left.add(&row));
    left.build()
}

const KEYS: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];

fn row(key: usize, cell: Cell, hlc: u64, base: u64) -> Row<'static> {
    let version = Version { hlc: Hlc(hlc), node: 1 };
    let body = match cell {
        Cell::Register => Body::Value(b"value"),
        Cell::Counter { .. } => {
            Body::Counter { base: Version { hlc: Hlc(base), node: 1 }, sum: hlc.cast_signed() }
        }
        Cell::Siblings { actor } => {
            // Each replaces the one before it, on a base that never falls.
            let mut set = SiblingSet::default();
            set.put(Sibling::new(Dot { event: hlc, actor }, None, b"value"));
            let mut bytes = Vec::new();
            set.encode(&mut bytes);
            let base = Version { hlc: Hlc(hlc / 64 * 32 + key as u64 * 4), node: 1 };
            Body::Siblings { base, set: Vec::leak(bytes) }
        }
    };
    Row { key: KeyRef::new(0, KEYS[key]), cell, version, expiry: Some(UnixMillis(9)), body }
}

/// All keys share one slot, so that they disturb each other as much as they can.
fn hash(key: usize) -> u64 {
    77 + key as u64
}

/// Whether `record` holds, of every cell that matters, at least the row that `other` has.
fn covers(record: &Record, other: &Record) -> bool {
    other.rows(KeyRef::new(0, b"")).all(|row| record.covers(&row))
}

struct World {
    cache: RowCache,
    model: Model,
    doing: Vec<Doing>,
    scratch: Vec<u8>,
    /// What a client has been shown of each key: reads may not go back.
    shown: HashMap<usize, Record>,
}

impl World {
    fn new(bytes_max: usize) -> World {
        World {
            cache: RowCache::new(bytes_max, Version::ZERO),
            model: Model::default(),
            doing: Vec::new(),
            scratch: Vec::new(),
            shown: HashMap::new(),
        }
    }

    fn start_write(&mut self, rows: Vec<(usize, Row<'static>)>) {
        let known: Vec<bool> = rows.iter().map(|(key, _)| self.cache.knows(hash(*key))).collect();
        let begin = |((key, _), known): (&(usize, _), _)| self.cache.begin(hash(*key), known);
        let begun = rows.iter().zip(known).map(begin).collect();
        self.doing.push(Doing::Write { rows, begun, engine_done: false, finished: 0 });
    }

    fn start_read(&mut self, key: usize) {
        let finished = self.model.finished.entry(key).or_default().clone();
        let shown = self.shown.entry(key).or_default().clone();
        // What is being forgotten may be shown or not: one reader has the deleted rows, the next one has not.
        let leaving = self.model.leaving.entry(key).or_default();
        let floor = [finished, shown].map(|known| minus(&known, leaving));
        match self.cache.get_hashed(KeyRef::new(0, KEYS[key]), hash(key)) {
            Lookup::Hit(record) => self.show(key, &record, &floor),
            Lookup::Absent => self.show(key, &Record::ABSENT, &floor),
            Lookup::Miss(ticket) => {
                let forgotten = self.forgotten(key);
                self.doing.push(Doing::Read { key, ticket, floor, record: None, forgotten });
            }
        }
    }

    fn forgotten(&self, key: usize) -> u64 {
        self.model.forgotten.get(&key).copied().unwrap_or_default()
    }

    /// Forgets all that the key has, if no row is under way.
    fn start_forget(&mut self, key: usize) {
        if self.cache.begin_alone(hash(key)) {
            let record = self.model.written.get(&key).cloned().unwrap_or_default();
            self.doing.push(Doing::Forget { key, record, engine_done: false });
        } else {
            let is_quiet = self.doing.iter().all(|doing| matches!(doing, Doing::Read { .. }));
            assert!(!is_quiet, "nothing is under way");
        }
    }

    fn start_sweep(&mut self, key: usize) {
        if self.cache.begin_alone(hash(key)) {
            self.doing.push(Doing::Sweep { key });
        }
    }

    /// From now on nobody need see what `record` covers.
    fn lower_floors(&mut self, at: usize, record: &Record) {
        for known in [&mut self.model.finished, &mut self.shown] {
            let lower = minus(known.entry(at).or_default(), record);
            known.insert(at, lower);
        }
        for doing in &mut self.doing {
            if let Doing::Read { key, floor, .. } = doing
                && *key == at
            {
                floor.iter_mut().for_each(|floor| *floor = minus(floor, record));
            }
        }
    }

    /// A client is shown `record`: it holds no unwritten row, and every row that was finished, or had been shown to
    /// someone, when the read began.
    fn show(&mut self, key: usize, record: &Record, floor: &[Record; 2]) {
        let written = self.model.written.entry(key).or_default().clone();
        let written = written.merge(self.model.leaving.entry(key).or_default());
        assert!(covers(&written, record), "invented: {record:?} beside {written:?}");
        for older in floor {
            assert!(covers(record, older), "stale: {record:?} lacks of {older:?}");
        }
        let shown = self.shown.entry(key).or_default();
        *shown = shown.merge(record);
    }

    /// Takes the next step of one thing under way.
    fn step(&mut self, at: usize) {
        if self.doing.is_empty() {
            return;
        }
        let at = at % self.doing.len();
        let done = match self.doing.remove(at) {
            Doing::Write { rows, begun, engine_done: false, .. } => {
                for (key, row) in &rows {
                    let merged = self.model.written.entry(*key).or_default().merge(&Record::of_row(row));
                    self.model.written.insert(*key, merged);
                }
                Some(Doing::Write { rows, begun, engine_done: true, finished: 0 })
            }
            Doing::Write { rows, begun, finished, .. } => {
                let (key, row) = rows[finished];
                self.cache.finish(hash(key), begun[finished], &row, &mut self.scratch);
                let record = Record::of_row(&row);
                // A row that was forgotten before it was finished need not be seen.
                if covers(self.model.written.entry(key).or_default(), &record) {
                    let merged = self.model.finished.entry(key).or_default().merge(&record);
                    self.model.finished.insert(key, merged);
                }
                (finished + 1 < rows.len()).then_some(Doing::Write {
                    rows,
                    begun,
                    engine_done: true,
                    finished: finished + 1,
                })
            }
            Doing::Read { key, ticket, floor, record: None, forgotten } => {
                let record = self.model.written.entry(key).or_default().clone();
                Some(Doing::Read { key, ticket, floor, record: Some(record), forgotten })
            }
            Doing::Read { key, ticket, floor, record: Some(record), forgotten } => {
                let shown =
                    self.cache.fill_hashed(KeyRef::new(0, KEYS[key]), hash(key), ticket, record.clone());
                // What was read before the key was forgotten may be shown once more, but no longer stays.
                if forgotten == self.forgotten(key) || shown != record {
                    self.show(key, &shown, &floor);
                }
                None
            }
            Doing::Forget { key, record, engine_done: false } => {
                let written = self.model.written.entry(key).or_default();
                *written = minus(written, &record);
                self.model.leaving.insert(key, record.clone());
                self.lower_floors(key, &record);
                Some(Doing::Forget { key, record, engine_done: true })
            }
            Doing::Forget { key, record, .. } => {
                self.cache.remove(hash(key), KeyRef::new(0, KEYS[key]));
                self.model.leaving.remove(&key);
                *self.model.forgotten.entry(key).or_default() += 1;
                self.lower_floors(key, &record);
                None
            }
            Doing::Sweep { key } => {
                self.cache.remove(hash(key), KeyRef::new(0, KEYS[key]));
                None
            }
        };
        self.doing.extend(done);
    }
}

fn any_row() -> impl Strategy<Value = (usize, Row<'static>)> {
    (0..KEYS.len(), prop_oneof![3 => Just(None), 1 => (1..4u64).prop_map(Some)], 1..40u64, 0..40u64).prop_map(
        |(key, actor, hlc, base)| {
            let cell = match actor {
                None => Cell::Register,
                // Low bits tell the cells apart; two actors have siblings.
                Some(3) => Cell::Siblings { actor: 1 + base % 2 },
                Some(actor) => Cell::Counter { actor },
            };
            let hlc = if actor == Some(3) { hlc * 2 + base % 2 } else { hlc * 2 };
            // One version names one row: the low bits tell key and cell apart.
            let unique = hlc * 16 + key as u64 * 4 + actor.unwrap_or(0);
            // An actor counts on ever later bases.
            (key, row(key, cell, unique, base.min(hlc) * 16 + key as u64 * 4))
        },
    )
}

#[derive(Clone, Debug)]
enum Move {
    Write(Vec<(usize, Row<'static>)>),
    Read(usize),
    Step(usize),
    Crowd(u64),
    Forget(usize),
    Sweep(usize),
    /// All keys are in the filter all the time: it may be said at any time whether they are.
    Learnt(bool),
}

fn any_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        2 => prop::collection::vec(any_row(), 1..4).prop_map(Move::Write),
        3 => (0..KEYS.len()).prop_map(Move::Read),
        8 => any::<usize>().prop_map(Move::Step),
        1 => any::<u64>().prop_map(Move::Crowd),
        1 => (0..KEYS.len()).prop_map(Move::Forget),
        1 => (0..KEYS.len()).prop_map(Move::Sweep),
        1 => any::<bool>().prop_map(Move::Learnt),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Writers (new rows and repairs with old ones), readers, evictions, forgetting and sweeping, interleaved step by step.
    #[test]
    fn readers_never_see_stale_rows(knows in any::<bool>(), moves in prop::collection::vec(any_move(), 1..60)) {
        // Room for about two entries in the stripe.
        let mut world = World::new(STRIPES * 1_500);
        world.cache.set_all_learnt(knows);
        for step in moves {
            match step {
                Move::Write(rows) => world.start_write(rows),
                Move::Read(key) => world.start_read(key),
                Move::Step(at) => world.step(at),
                Move::Forget(key) => world.start_forget(key),
                Move::Sweep(key) => world.start_sweep(key),
                Move::Learnt(are_all) => world.cache.set_all_learnt(are_all),
                Move::Crowd(seed) => {
                    // Other keys of the stripe push entries out.
                    let key = seed.to_be_bytes();
                    let key = KeyRef::new(1, &key);
                    let hash = hash(0).wrapping_add((seed | 1) << 48);
                    if let Lookup::Miss(ticket) = world.cache.get_hashed(key, hash) {
                        let value = [0; 80];
                        let record = Record::of_register(Version::ZERO, None, Some(&value));
                        world.cache.fill_hashed(key, hash, ticket, record);
                    }
                }
            }
        }
    }
}

#[test]
fn write_above_the_mark_enters_and_one_below_does_not() {
    let mut world = World::new(1 << 20);
    let is_cached = |world: &World, key: usize| {
        matches!(world.cache.get_hashed(KeyRef::new(0, KEYS[key]), hash(key)), Lookup::Hit(_))
    };
    for (key, hlc, cached) in [(0, 5, true), (1, 4, false), (2, 6, true)] {
        world.start_write(vec![(key, row(key, Cell::Register, hlc, 0))]);
        world.step(0);
        world.step(0);
        assert_eq!(is_cached(&world, key), cached, "key {key}");
    }
    world.start_write(vec![(3, row(3, Cell::Counter { actor: 1 }, 9, 0))]);
    world.step(0);
    world.step(0);
    assert!(!is_cached(&world, 3), "a counter's other cells are unknown");
}

#[test]
fn first_row_of_a_key_enters_if_nothing_came_between() {
    let counter = |key: usize, hlc| row(key, Cell::Counter { actor: 1 }, hlc, 0);
    let is_cached = |world: &World, key: usize| {
        matches!(world.cache.get_hashed(KeyRef::new(0, KEYS[key]), hash(key)), Lookup::Hit(_))
    };
    let mut world = World::new(1 << 20);
    world.cache.set_all_learnt(true);
    world.start_write(vec![(0, counter(0, 9))]);
    world.step(0);
    world.step(0);
    assert!(is_cached(&world, 0));
    // Another of the slot is under way when it begins, or begins before it ends.
    world.start_write(vec![(1, counter(1, 9))]);
    world.start_write(vec![(2, counter(2, 9))]);
    while !world.doing.is_empty() {
        world.step(0);
    }
    assert!(!is_cached(&world, 1) && !is_cached(&world, 2));
    // A second row of a key, whose first left no entry.
    world.start_write(vec![(1, counter(1, 10))]);
    world.step(0);
    world.step(0);
    assert!(!is_cached(&world, 1));
}

#[test]
fn cache_stays_within_its_bytes() {
    let cache = RowCache::new(STRIPES * 8 * 1_024, Version::ZERO);
    let mut scratch = Vec::new();
    for number in 0..100_000u64 {
        let key = number.to_be_bytes();
        let value = vec![0; (number % 700) as usize];
        let row = Row {
            key: KeyRef::new(0, &key),
            cell: Cell::Register,
            version: Version { hlc: Hlc(number + 1), node: 1 },
            expiry: None,
            body: Body::Value(&value),
        };
        let begun = cache.begin(row.key.hash64(), true);
        cache.finish(row.key.hash64(), begun, &row, &mut scratch);
    }
    let [.., entries, bytes] = cache.counts();
    assert!(bytes <= (STRIPES * 8 * 1_024) as u64, "{bytes}");
    assert!(bytes > (STRIPES * 6 * 1_024) as u64, "the room is used: {bytes}");
    assert!(entries > 3_000, "{entries}");
}

#[test]
fn entry_that_outgrows_its_share_leaves() {
    let cache = RowCache::new(STRIPES * 4_096, Version::ZERO);
    let key = KeyRef::new(0, b"k");
    let mut scratch = Vec::new();
    for (hlc, length, cached) in [(1, 10, true), (2, 4_000, false), (3, 10, true), (4, 11, true)] {
        let value = vec![b'x'; length];
        let version = Version { hlc: Hlc(hlc), node: 1 };
        let row = Row { key, cell: Cell::Register, version, expiry: None, body: Body::Value(&value) };
        let begun = cache.begin(key.hash64(), false);
        cache.finish(key.hash64(), begun, &row, &mut scratch);
        match cache.get(key) {
            Lookup::Hit(record) => assert!(cached && record == Record::of_row(&row)),
            Lookup::Miss(_) | Lookup::Absent => assert!(!cached, "version {hlc}"),
        }
    }
}

#[test]
fn reader_keeps_its_record_while_the_entry_changes() {
    let cache = RowCache::new(1 << 20, Version::ZERO);
    let mut scratch = Vec::new();
    let key = KeyRef::new(0, b"k");
    let mut seen = Vec::new();
    for hlc in 1..4 {
        let version = Version { hlc: Hlc(hlc), node: 1 };
        let row = Row { key, cell: Cell::Register, version, expiry: None, body: Body::Value(b"same length") };
        let begun = cache.begin(key.hash64(), false);
        cache.finish(key.hash64(), begun, &row, &mut scratch);
        let Lookup::Hit(record) = cache.get(key) else { panic!("not cached") };
        seen.push(record);
    }
    let versions: Vec<u64> = seen.iter().map(|record| record.base().hlc.0).collect();
    assert_eq!(versions, [1, 2, 3]);
}

#[test]
fn touching_waits_for_nobody_and_changes_nothing() {
    let cache = RowCache::new(1 << 20, Version::ZERO);
    let (mut scratch, key) = (Vec::new(), KeyRef::new(0, b"k"));
    let version = Version { hlc: Hlc(1), node: 1 };
    let row = Row { key, cell: Cell::Register, version, expiry: None, body: Body::Value(b"v") };
    let begun = cache.begin(key.hash64(), false);
    cache.finish(key.hash64(), begun, &row, &mut scratch);
    let before = cache.counts();
    // One key often, one whose stripe another thread has, more than are touched at a time.
    let other = (0..)
        .map(|number| number << 40)
        .find(|hash| Place::of(*hash).stripe != Place::of(key.hash64()).stripe);
    let other = other.unwrap();
    let held = cache.stripes[Place::of(other).stripe].lock();
    cache.touch([key.hash64(), other].into_iter().cycle().take(3 * TOUCHED_MAX));
    cache.touch(std::iter::empty());
    drop(held);
    assert_eq!(cache.counts(), before);
    assert!(matches!(cache.get(key), Lookup::Hit(_)), "its lock is free again");
}
