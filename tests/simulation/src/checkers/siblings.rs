//! Invariant 8: a key whose writes have contexts shows exactly the causal maxima, none lost, none false.
//!
//! Judged by what clients have seen alone: which values a read showed, and so what a write with that read's context has
//! replaced. Versions, dots and vectors are not looked at (only to find out what is left once a machine has lost rows).
//!
//! - *None lost*: a read that must know a write shows it, unless a write has been asked for whose context showed it.
//! - *None false*: a read that must know a write shows nothing that this write's context had shown, nor anything that
//!   those had replaced before; nor does it show two values of which one has replaced the other.
//! - What a read must know follows from levels that overlap, as for all other kinds of key (`held.rs`). What it must know
//!   and does not show is gone, and stays gone.

use std::collections::{BTreeMap, BTreeSet};

use gyre_storage::siblings::Dot;
use gyre_storage::{Record, UnixMillis, View};

use super::journal::last_word;
use super::{Promised, Verdict, ensure};
use crate::history::{Action, Operation};

/// How many writes with a context are made to a key: every read copies what is known of them.
const WRITES_MAX: usize = 400;

/// What a read must know.
#[derive(Clone, Debug, Default)]
pub(crate) struct SiblingFloor {
    /// Writes and deletions, by their operations.
    known: BTreeSet<u64>,
    /// Writes that have been replaced.
    gone: BTreeSet<u64>,
}

/// What has been seen of one key.
pub(crate) struct SiblingWatch {
    /// When each write that was ever asked for expires, if it does.
    asked: BTreeMap<u64, Option<u64>>,
    /// What each read has shown.
    shown: BTreeMap<u64, BTreeSet<u64>>,
    /// What each write and deletion has replaced, directly or through others.
    past: BTreeMap<u64, BTreeSet<u64>>,
    /// Writes that some write or deletion was asked to replace.
    replaced: BTreeSet<u64>,
    /// At `h - 1`: what at least h replicas know.
    by_holders: Vec<SiblingFloor>,
    /// What was acknowledged in whatever way: the end must know it.
    acknowledged: BTreeSet<u64>,
    /// What two nodes at least had stored when it was acknowledged.
    durable: BTreeSet<u64>,
    /// The same, but for what one of the two has lost since.
    held_twice: BTreeSet<u64>,
    /// A write had to merge too many siblings: values may be lost.
    is_merged: bool,
}

impl SiblingWatch {
    pub(crate) fn new(replicas: usize) -> SiblingWatch {
        SiblingWatch {
            asked: BTreeMap::new(),
            shown: BTreeMap::new(),
            past: BTreeMap::new(),
            replaced: BTreeSet::new(),
            by_holders: vec![SiblingFloor::default(); replicas],
            acknowledged: BTreeSet::new(),
            durable: BTreeSet::new(),
            held_twice: BTreeSet::new(),
            is_merged: false,
        }
    }

    /// Whether enough writes were made.
    pub(crate) fn is_full(&self) -> bool {
        self.past.len() >= WRITES_MAX
    }

    /// A node takes an operation.
    pub(crate) fn begin(&mut self, operation: &Operation) {
        let tag = operation.tag.0;
        let from = match operation.action {
            Action::SetSibling { from, .. } => {
                self.asked.insert(tag, operation.expiry_ms);
                from
            }
            Action::DeleteSiblings { from } => Some(from),
            _ => return,
        };
        let shown = from.and_then(|from| self.shown.get(&from.0)).cloned().unwrap_or_default();
        let mut past = shown.clone();
        shown.iter().filter_map(|write| self.past.get(write)).for_each(|older| past.extend(older));
        self.past.insert(tag, past);
        self.replaced.extend(shown);
    }

    /// What a read that asks `needed` replicas must know.
    pub(crate) fn floor(&self, needed: usize) -> SiblingFloor {
        let holders = self.by_holders.len().checked_sub(needed);
        holders.and_then(|at| self.by_holders.get(at)).cloned().unwrap_or_default()
    }

    /// A read has ended: could it show `record` at `wall`? `holders` replicas then hold what it shows, if that is a
    /// promise.
    pub(crate) fn read(
        &mut self,
        operation: &Operation,
        record: &Record,
        wall: UnixMillis,
        holders: Option<usize>,
    ) -> Verdict {
        let shown = self.values(record, wall).map_err(|what| format!("{what}\n{operation}"))?;
        let floor = operation.siblings.as_deref().cloned().unwrap_or_default();
        self.check(&shown, &floor).map_err(|what| format!("{what}\n{operation}"))?;
        if let Some(holders) = holders {
            // What expires may be gone by one clock and not by another.
            let is_gone = |write: &&u64| !shown.contains(write) && !self.expires(write);
            let missing: Vec<u64> = floor.known.iter().filter(is_gone).copied().collect();
            for floor in self.by_holders.iter_mut().take(holders) {
                floor.known.extend(&shown);
                floor.gone.extend(&missing);
            }
        }
        self.shown.insert(operation.tag.0, shown);
        Ok(())
    }

    /// A write or a deletion was acknowledged: `holders` replicas know it.
    pub(crate) fn acknowledge(&mut self, operation: &Operation, holders: usize) {
        let tag = operation.tag.0;
        if operation.is_tainted {
            return;
        }
        if operation.is_binding {
            for floor in self.by_holders.iter_mut().take(holders) {
                floor.known.insert(tag);
            }
        }
        self.acknowledged.insert(tag);
        if holders >= 2 {
            self.durable.insert(tag);
            self.held_twice.insert(tag);
        }
    }

    /// A write had to merge siblings.
    pub(crate) fn merged(&mut self) {
        self.is_merged = true;
    }

    /// The end: `record` is what a read at ALL shows.
    pub(crate) fn check_end(&self, record: &Record, wall: UnixMillis) -> Verdict {
        let shown = self.values(record, wall)?;
        let floor = SiblingFloor { known: self.acknowledged.clone(), gone: BTreeSet::new() };
        self.check(&shown, &floor)
    }

    /// A replica has lost rows: replicas now hold what `records` say, all nodes what `anywhere` does.
    pub(crate) fn rows_lost(
        &mut self,
        records: &[Record],
        anywhere: &[&Record],
        promised: Promised,
        dots: &BTreeMap<u64, Dot>,
    ) -> Verdict {
        for holders in 1..=self.by_holders.len() {
            let count =
                |holds: &dyn Fn(&Record) -> bool| records.iter().filter(|record| holds(record)).count();
            let mut floor = std::mem::take(&mut self.by_holders[holders - 1]);
            floor.known.retain(|&tag| count(&|record| self.knows(record, tag, dots)) >= holders);
            floor.gone.retain(|&write| count(&|record| is_gone(record, write, dots)) >= holders);
            self.by_holders[holders - 1] = floor;
        }
        let all = anywhere.iter().fold(Record::ABSENT, |all, record| all.merge(record));
        let is_left = |tag: &u64| self.knows(&all, *tag, dots);
        let lost = match promised {
            Promised::HeldTwice => self.held_twice.iter().find(|tag| !is_left(tag)),
            Promised::Durable => self.durable.iter().find(|tag| !is_left(tag)),
            Promised::Nothing => None,
        };
        ensure!(
            lost.is_none(),
            "one node has lost rows, and with them write #{lost:?}, which two had acknowledged"
        );
        let is_twice =
            |tag: &u64| anywhere.iter().filter(|record| self.knows(record, *tag, dots)).count() >= 2;
        let kept = |tags: &BTreeSet<u64>, is_kept: &dyn Fn(&u64) -> bool| {
            tags.iter().filter(|tag| is_kept(tag)).copied().collect()
        };
        let acknowledged: BTreeSet<u64> = kept(&self.acknowledged, &is_left);
        let durable: BTreeSet<u64> = kept(&self.durable, &is_left);
        self.held_twice = kept(&self.held_twice, &is_twice);
        (self.acknowledged, self.durable) = (acknowledged, durable);
        Ok(())
    }

    /// Whether `record` comes of a state that knew the write or deletion `tag`.
    fn knows(&self, record: &Record, tag: u64, dots: &BTreeMap<u64, Dot>) -> bool {
        if let Some(dot) = dots.get(&tag) {
            return record.sibling_state().set.seen().covers(*dot);
        }
        // It was a deletion, or had expired when it was done: all it did was to replace.
        self.past.get(&tag).is_some_and(|past| past.iter().all(|write| is_gone(record, *write, dots)))
    }

    /// The writes whose values `record` shows.
    fn values(&self, record: &Record, wall: UnixMillis) -> Result<BTreeSet<u64>, String> {
        let mut shown = BTreeSet::new();
        for sibling in record.siblings(wall) {
            let word = if let View::Bytes(value) = sibling.value { last_word(value) } else { None };
            let write = word.filter(|word| self.asked.contains_key(word));
            let write = write.ok_or_else(|| format!("a value that nobody wrote: {sibling:?}"))?;
            ensure!(shown.insert(write), "write #{write} is shown twice");
        }
        Ok(shown)
    }

    /// Whether a value goes by itself, or there is none.
    fn expires(&self, write: &u64) -> bool {
        self.asked.get(write).is_none_or(Option::is_some)
    }

    fn check(&self, shown: &BTreeSet<u64>, floor: &SiblingFloor) -> Verdict {
        for write in floor.known.iter().filter(|write| !shown.contains(write)) {
            // Deletions are not shown, and what expires goes by itself, on some node a little earlier.
            ensure!(
                self.replaced.contains(write) || self.expires(write) || self.is_merged,
                "write #{write} is lost: nobody has replaced it, and shown are {shown:?}"
            );
        }
        for write in floor.known.iter().chain(shown) {
            let past = self.past.get(write);
            if let Some(replaced) = past.and_then(|past| past.iter().find(|older| shown.contains(older))) {
                return Err(format!("write #{replaced} is shown, which #{write} has replaced: {shown:?}"));
            }
        }
        if let Some(back) = floor.gone.iter().find(|write| shown.contains(write)) {
            return Err(format!("write #{back} has come back: {shown:?}"));
        }
        Ok(())
    }
}

/// Whether `record` comes of a state that knew `write` to be replaced.
fn is_gone(record: &Record, write: u64, dots: &BTreeMap<u64, Dot>) -> bool {
    let state = record.sibling_state();
    dots.get(&write).is_some_and(|dot| {
        let is_live = state.set.siblings().iter().any(|sibling| sibling.dot == *dot);
        state.set.seen().covers(*dot) && !is_live
    })
}
