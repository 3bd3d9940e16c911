//! A process dies at each step of mending a file: nothing acknowledged is lost, nothing deleted comes back, and the next
//! process ends what was begun.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rocksdb::LiveFile;

use super::PLACE;
use crate::engine::rocks::Rocks;
use crate::family::Family;
use crate::horizon::Horizons;
use crate::{
    Body, Cell, Hlc, KeyRef, PurgeHorizon, Row, SLOTS, StorageError, Store, StoreOptions, Version,
    tree::PrefixRange,
};

const DIR: &str = "GYRE_TEST_CRASH_DIR";
const PLACES: [&str; 9] = [
    "checkpoint",
    "stripped",
    "chunk saved",
    "saved",
    "distrusted",
    "tidied",
    "closed",
    "manifest edited",
    "opened",
];
const KEYS: u64 = 3_000;
const SIGABRT: i32 = 6;

fn options(dir: &Path) -> StoreOptions {
    // Reads go to the disk: little is cached.
    StoreOptions {
        row_cache_bytes: 0,
        block_cache_bytes: 1 << 10,
        memtable_bytes: 1 << 20,
        ..StoreOptions::new(dir)
    }
}

fn open(dir: &Path) -> Store {
    Store::open(&options(dir)).unwrap()
}

/// In which round a key was written last; those of a third are deleted.
fn newest(number: u64) -> Option<u64> {
    [None, Some(2), Some(1)][(number % 3) as usize]
}

fn put(store: &Store, numbers: impl Iterator<Item = u64>, round: u64) {
    let mut batch = store.batch();
    for number in numbers {
        let name = format!("key:{number}").into_bytes();
        let value: Vec<u8> = (0..30)
            .flat_map(|at| (((number << 8) + at * at * 13) * 40_503).to_be_bytes()[5..7].to_vec())
            .collect();
        batch.push(&Row {
            key: KeyRef::new(0, &name),
            cell: Cell::Register,
            version: Version { hlc: Hlc(round), node: 1 },
            expiry: None,
            body: Body::Value(&value),
        });
    }
    store.commit(&mut batch).unwrap();
}

fn read(store: &Store, number: u64) -> Result<Option<u64>, StorageError> {
    let record = store.read(KeyRef::new(0, format!("key:{number}").as_bytes()))?;
    Ok(record.register().map(|register| register.version.hlc.0))
}

/// A file of level 0 that deletes and replaces rows of the last level, with a damaged block. All of the latter were up
/// for purging. (Horizons lie in files of their own, without which no store opens.)
fn damage(dir: &Path) {
    let store = open(dir);
    put(&store, 0..KEYS, 1);
    let horizon = PurgeHorizon { hidden: Hlc(1), counted: Hlc(1), purged: Hlc(1) };
    store.raise_purge_horizons(&(0..SLOTS).map(|slot| (slot, horizon)).collect::<Vec<_>>()).unwrap();
    store.compact().unwrap();
    for number in (0..KEYS).filter(|number| newest(*number).is_none()) {
        let name = format!("key:{number}");
        let key = KeyRef::new(0, name.as_bytes());
        assert!(store.forget(key, &store.read(key).unwrap()).unwrap());
    }
    put(&store, (0..KEYS).filter(|number| newest(*number) == Some(2)), 2);
    drop(store);
    // What is opened anew writes its log to a file of level 0.
    let engine = Rocks::open(&options(dir), Horizons::default()).unwrap();
    let files = engine.database().unwrap().live_files().unwrap();
    let is_rows = |file: &&LiveFile| file.column_family_name == Family::Rows.name() && file.level == 0;
    let table = dir.join(files.iter().find(is_rows).unwrap().name.trim_start_matches('/'));
    drop(engine);
    let mut bytes = std::fs::read(&table).unwrap();
    let at = bytes.len() / 3;
    bytes[at] ^= 0x10;
    std::fs::write(&table, bytes).unwrap();
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// How many keys cannot be read; the others are what they must be.
fn failed(store: &Store) -> usize {
    let check = |number: &u64| match read(store, *number) {
        Ok(found) => {
            assert_eq!(found, newest(*number), "key {number}");
            false
        }
        Err(_) => true,
    };
    (0..KEYS).filter(check).count()
}

fn mend(store: &Store) {
    while store.mend(&|_| true).unwrap().is_some() {}
}

/// Not a test of its own: what dies.
#[test]
fn victim() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let store = open(Path::new(&dir));
    assert!(failed(&store) > 0);
    mend(&store);
}

#[test]
fn mending_is_ended_after_a_crash_at_any_step() {
    let master = tempfile::tempdir().unwrap();
    damage(master.path());
    for place in PLACES {
        let dir = tempfile::tempdir().unwrap();
        copy(master.path(), dir.path());
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["engine::rocks::crash::tests::victim", "--exact", "--nocapture"])
            .env(DIR, dir.path())
            .env(PLACE, place)
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(SIGABRT), "did not come to: {place}");

        let store = open(dir.path());
        let left = std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap);
        assert!(
            left.into_iter().all(|entry| entry.file_type().unwrap().is_file()),
            "{place}: hard links are left"
        );
        let lost = failed(&store);
        assert!((1..600).contains(&lost), "{place}: {lost}");
        mend(&store);
        assert!(!store.has_damage() && (1..600).contains(&failed(&store)), "{place}");

        // What another replica sends.
        put(&store, (0..KEYS).filter(|number| newest(*number) == Some(1)), 1);
        put(&store, (0..KEYS).filter(|number| newest(*number) == Some(2)), 2);
        store.clear_marks(&store.marked_slots().unwrap()).unwrap();
        assert_eq!((failed(&store), store.damage().unsound_ranges), (0, 0), "{place}");
        let sums = store.tree_sums(&[PrefixRange::ALL]).unwrap();
        let present = (0..KEYS).filter(|number| newest(*number).is_some()).count() as u64;
        assert_eq!(sums[0].keys, present, "{place}");
        drop(store);
        assert_eq!(failed(&open(dir.path())), 0, "{place}");
    }
}
