//! What clients did and saw, and whether it could have happened.

use std::collections::HashMap;

use gyre_cluster::coordinator::Tag;
use gyre_cluster::modify::ModifyReply;
use gyre_cluster::outcome::Outcome;
use gyre_storage::{Record, UnixMillis, Version, View, parse_integer};

const LOOSE_COUNTER: usize = 3;
/// The keys from here on see every kind of write.
pub(crate) const REGISTERS_FROM: usize = LOOSE_COUNTER + 1;

/// What a client asked for. All at QUORUM unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    Get,
    GetOne,
    GetAll,
    Set { version: Option<Version> },
    SetOne,
    Delete { version: Option<Version> },
    Add { delta: i64 },
    AddOne { delta: i64 },
    Append,
}

#[derive(Debug)]
struct Pending {
    key: usize,
    action: Action,
    started: u64,
    /// What earlier completed operations guarantee this one to see.
    version_floor: Version,
    value_floor: i64,
    /// What earlier flushes guarantee this one not to see.
    flushed: Version,
}

/// The history of one key.
#[derive(Debug, Default)]
struct KeyHistory {
    /// No QUORUM read may go behind it any more.
    version_floor: Version,
    newest_acked: Version,
    /// An acknowledged flush has deleted this and everything older.
    flushed: Version,
    /// For counters: sums of increments.
    acked: i64,
    invoked: i64,
    /// The greatest counter value a completed operation has shown.
    seen: i64,
}

/// The history of a cluster.
#[derive(Default)]
pub(crate) struct Checker {
    keys: HashMap<usize, KeyHistory>,
    pending: HashMap<Tag, Pending>,
    /// Flushes under way, with what is known to be written of each key when they began.
    flushes: HashMap<Tag, Vec<(usize, Version)>>,
    /// Whether quorums need not overlap: then only what must hold in the end is checked.
    sloppy: bool,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
}

impl Checker {
    pub(crate) fn new(sloppy: bool) -> Checker {
        Checker { sloppy, ..Checker::default() }
    }

    /// The newest acknowledged write of each key.
    pub(crate) fn acknowledged(&self) -> impl Iterator<Item = (usize, Version)> {
        self.keys.iter().map(|(key, history)| (*key, history.newest_acked))
    }

    /// An operation begins.
    pub(crate) fn start(&mut self, tag: Tag, key: usize, action: Action, now: u64) {
        let history = self.keys.entry(key).or_default();
        if let Action::Add { delta } | Action::AddOne { delta } = action {
            history.invoked += delta;
        }
        let (version_floor, value_floor) = match self.sloppy {
            true => (Version::ZERO, i64::MIN / 2),
            false => (history.version_floor, history.acked.max(history.seen)),
        };
        let flushed = history.flushed;
        let pending = Pending { key, action, started: now, version_floor, value_floor, flushed };
        assert!(self.pending.insert(tag, pending).is_none(), "tags are not reused");
    }

    /// The version that a blind write was stamped with.
    pub(crate) fn stamped(&mut self, tag: Tag, stamped: Option<Version>) {
        if let Some(Pending { action: Action::Set { version } | Action::Delete { version }, .. }) =
            self.pending.get_mut(&tag)
        {
            *version = stamped;
        }
    }

    /// A flush begins.
    pub(crate) fn start_flush(&mut self, tag: Tag) {
        let known =
            |(key, history): (&usize, &KeyHistory)| (*key, history.version_floor.max(history.newest_acked));
        self.flushes.insert(tag, self.keys.iter().map(known).collect());
    }

    /// Whether the operation was a flush, which has ended.
    fn has_flushed(&mut self, tag: Tag, outcome: &Outcome) -> bool {
        let Some(known) = self.flushes.remove(&tag) else { return false };
        match outcome {
            Outcome::Failed(_) => self.failed += 1,
            Outcome::Written => {
                for (key, version) in known {
                    let history = self.keys.entry(key).or_default();
                    history.flushed = history.flushed.max(version);
                }
                self.succeeded += 1;
            }
            other => panic!("a flush ended in {other:?}"),
        }
        true
    }

    /// Nobody will tell how the operation ended: its node has crashed.
    pub(crate) fn abandon(&mut self, tag: Tag) {
        self.pending.remove(&tag);
        self.flushes.remove(&tag);
    }

    /// An operation ends: could it?
    pub(crate) fn finish(&mut self, tag: Tag, outcome: &Outcome, now: u64) {
        if self.has_flushed(tag, outcome) {
            return;
        }
        let pending = self.pending.remove(&tag).expect("every operation ends at most once");
        let history = self.keys.get_mut(&pending.key).expect("it was started");
        match (&pending.action, outcome) {
            (_, Outcome::Failed(_)) => {
                self.failed += 1;
                return;
            }
            (Action::Get, Outcome::Record(record)) => {
                assert!(
                    record.base() >= pending.version_floor,
                    "key {}: read of {}..{now} saw {:?}, but {:?} was acknowledged or read before",
                    pending.key,
                    pending.started,
                    record.base(),
                    pending.version_floor
                );
                assert!(
                    is_after(record, pending.flushed),
                    "key {}: read of {}..{now} saw {:?}, but {:?} was flushed before",
                    pending.key,
                    pending.started,
                    record.base(),
                    pending.flushed
                );
                history.version_floor = history.version_floor.max(record.base());
                if is_counter(pending.key) {
                    history.see(number(record), &pending);
                }
            }
            (Action::Set { version } | Action::Delete { version }, Outcome::Written) => {
                let version = version.expect("an acknowledged write was sent");
                history.version_floor = history.version_floor.max(version);
                history.newest_acked = history.newest_acked.max(version);
            }
            (Action::Add { delta }, Outcome::Modified(ModifyReply::Integer(value))) => {
                if is_counter(pending.key) {
                    assert!(
                        *value >= pending.value_floor + delta,
                        "key {}: an increment of {}..{now} answered {value}, but {} was there before",
                        pending.key,
                        pending.started,
                        pending.value_floor
                    );
                    history.see(*value, &pending);
                    history.acked += delta;
                }
            }
            (Action::AddOne { delta }, Outcome::Modified(ModifyReply::Integer(_))) => history.acked += delta,
            (Action::Add { .. }, Outcome::Refused(_)) => assert!(!is_counter(pending.key)),
            (Action::Append, Outcome::Modified(ModifyReply::Integer(_))) => {}
            (Action::GetOne | Action::GetAll, Outcome::Record(_)) | (Action::SetOne, Outcome::Written) => {}
            other => panic!("wrong kind of outcome: {other:?}"),
        }
        self.succeeded += 1;
    }

    /// After everything has come to rest, a read at QUORUM, and at ALL: nothing acknowledged is lost. What was counted
    /// at ONE may be on any replica alone.
    pub(crate) fn final_read(&self, key: usize, record: &Record, is_all: bool) {
        let newest = self.keys.get(&key).map_or(Version::ZERO, |history| history.newest_acked);
        assert!(!is_all || record.base() >= newest, "key {key}: {record:?} lost {newest:?}");
        let flushed = self.keys.get(&key).map_or(Version::ZERO, |history| history.flushed);
        assert!(is_after(record, flushed), "key {key}: {record:?} was flushed, as all up to {flushed:?}");
        let is_exact = is_counter(key) || (is_loose_counter(key) && is_all);
        if let Some(history) = self.keys.get(&key).filter(|_| is_exact) {
            let value = number(record);
            assert!(
                (history.acked.max(history.seen)..=history.invoked).contains(&value),
                "counter {key} is {value}, but {} was acknowledged, {} seen, {} tried",
                history.acked,
                history.seen,
                history.invoked
            );
        }
    }
}

impl KeyHistory {
    fn see(&mut self, value: i64, pending: &Pending) {
        assert!(
            (pending.value_floor..=self.invoked).contains(&value),
            "counter {} was {value}, but at least {} and at most {} is possible",
            pending.key,
            pending.value_floor,
            self.invoked
        );
        self.seen = self.seen.max(value);
    }
}

/// Whether nothing of `record` is from before a flush of all up to `flushed`.
fn is_after(record: &Record, flushed: Version) -> bool {
    flushed == Version::ZERO || record.base() > flushed
}

/// The first keys are only incremented, at QUORUM; the others see every kind of write.
pub(crate) fn is_counter(key: usize) -> bool {
    key < 3
}

/// One key is only incremented at ONE, by both sides of every partition.
pub(crate) fn is_loose_counter(key: usize) -> bool {
    key == LOOSE_COUNTER
}

fn number(record: &Record) -> i64 {
    match record.view(UnixMillis(0)) {
        None => 0,
        Some(View::Integer(number)) => number,
        Some(View::Bytes(bytes)) => parse_integer(bytes).expect("counters are numbers"),
    }
}
