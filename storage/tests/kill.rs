//! A process that is killed with SIGKILL in mid-load loses nothing it acknowledged.
//!
//! The test binary starts itself again as the victim, which commits numbered rows and prints each number once its
//! commit has returned. Everything the parent read before and after the kill must be there when it reopens the store.
//! The victim also hashes its trees all the time: they must be right again once what is marked as dirty is hashed.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test that is wrong fails"
)]
#![cfg(feature = "rocksdb")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use common::{recomputed, set};
use gyre_storage::tree::PrefixRange;
use gyre_storage::{FsyncPolicy, KeyRef, SLOTS, Store, StoreOptions, UnixMillis, View};

const DIR: &str = "GYRE_TEST_KILL_DIR";
const POLICY: &str = "GYRE_TEST_KILL_POLICY";
const ROWS_PER_COMMIT: u64 = 8;
/// The victim stops by itself here, should the parent die first.
const COMMITS_MAX: u64 = 2_000_000;

fn options(dir: &Path, fsync: FsyncPolicy) -> StoreOptions {
    // Small memtables, so that the kill also meets flushes and compactions.
    StoreOptions { fsync, memtable_bytes: 1 << 20, ..StoreOptions::new(dir) }
}

fn key(commit: u64, row: u64) -> Vec<u8> {
    // Each commit also rewrites keys of earlier ones.
    format!("key:{}:{row}", commit % 5_000).into_bytes()
}

/// Not a test of its own: what the parent starts.
#[test]
fn victim() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let always = std::env::var(POLICY).is_ok_and(|policy| policy == "always");
    let fsync = if always { FsyncPolicy::Always } else { FsyncPolicy::EverySecond };
    let store = Store::open(&options(Path::new(&dir), fsync)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| while store.refresh_tree(100).is_ok() {});
        commit_rows(&store);
    });
}

fn commit_rows(store: &Store) {
    let mut batch = store.batch();
    let mut out = std::io::stdout().lock();
    for commit in 1..COMMITS_MAX {
        for row in 0..ROWS_PER_COMMIT {
            let value = format!("{commit}");
            batch.push(&set(&key(commit, row), commit, value.as_bytes()));
        }
        store.commit(&mut batch).unwrap();
        writeln!(out, "acknowledged {commit}").unwrap();
        out.flush().unwrap();
    }
}

/// Kills a victim after about `commits` acknowledgements; gives the number of the last one.
fn kill_after(dir: &Path, policy: &str, commits: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["victim", "--exact", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .env(POLICY, policy)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut last = 0;
    let take = |line: String| line.rsplit_once("acknowledged ").and_then(|(_, number)| number.parse().ok());
    while last < commits {
        let line = lines.next().expect("the victim lives").unwrap();
        last = take(line).unwrap_or(last);
    }
    child.kill().unwrap();
    // What it had printed before it died counts as acknowledged too; a torn last line does not.
    for line in lines.map_while(Result::ok) {
        last = take(line).filter(|number| *number == last + 1).unwrap_or(last);
    }
    child.wait().unwrap();
    last
}

fn check(dir: &Path, acknowledged: u64) {
    let store = Store::open(&options(dir, FsyncPolicy::EverySecond)).unwrap();
    let oldest = acknowledged.saturating_sub(4_999).max(1);
    for commit in oldest..=acknowledged {
        for row in 0..ROWS_PER_COMMIT {
            let record = store.read(KeyRef::new(0, &key(commit, row))).unwrap();
            // The commit under way at the kill may be there as well.
            let Some(View::Bytes(value)) = record.view(UnixMillis(0)) else { panic!("{commit}: lost") };
            let value: u64 = std::str::from_utf8(value).unwrap().parse().unwrap();
            assert!(value >= commit, "acknowledged {commit}, found {value}");
        }
    }
    check_trees(&store);
}

fn check_trees(store: &Store) {
    let before = store.tree_stats();
    let slots: Vec<PrefixRange> = (0..SLOTS).map(PrefixRange::of_slot).collect();
    assert_eq!(store.tree_sums(&slots).unwrap(), recomputed(store).tree_sums(&slots).unwrap(), "{before:?}");
    assert_eq!(before.stale_slots, 0, "marks say what is dirty");
}

#[test]
fn kill_loses_nothing_acknowledged_under_everysec() {
    let dir = tempfile::tempdir().unwrap();
    for commits in [1, 500, 20_000] {
        let acknowledged = kill_after(dir.path(), "everysec", commits);
        assert!(acknowledged >= commits);
        check(dir.path(), acknowledged);
    }
}

#[test]
fn kill_loses_nothing_acknowledged_under_always() {
    let dir = tempfile::tempdir().unwrap();
    for commits in [1, 200] {
        let acknowledged = kill_after(dir.path(), "always", commits);
        assert!(acknowledged >= commits);
        check(dir.path(), acknowledged);
    }
}

#[test]
fn trees_are_right_after_kills_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    for kill in 0..25 {
        kill_after(dir.path(), if kill % 5 == 4 { "always" } else { "everysec" }, 1 + kill * 37 % 700);
        check_trees(&Store::open(&options(dir.path(), FsyncPolicy::EverySecond)).unwrap());
    }
}
