//! Every row ever stamped. No row may come from nowhere, change, or be stamped twice, and stamps must respect what their
//! node has stamped or shown before.

use std::collections::{BTreeMap, BTreeSet};

use gyre_cluster::clock::CLOCK_DRIFT_MS_MAX;
use gyre_storage::siblings::{Dot, Sibling, SiblingSet};
use gyre_storage::{Body, Cell, Hlc, KeyRef, Record, Row, UnixMillis, Version};

use crate::history::Key;
use crate::node::node_id;
use crate::plan::Plan;
use crate::random::mix;

/// How far the durable clock mark may stand ahead of the newest row; a restart begins there.
const CLOCK_MARK_LEAD_MS: u64 = 400;

/// What is known of a row.
#[derive(Clone, Copy, Debug)]
struct Fact {
    content: u64,
    expiry_ms: Option<u64>,
    is_tombstone: bool,
    is_sibling: bool,
}

#[derive(Default)]
struct KeyRows {
    /// By actor (`None`: the register) and version.
    rows: BTreeMap<(Option<u64>, Version), Fact>,
    /// The version of the first row whose value ends with an operation's word.
    by_word: BTreeMap<u64, Version>,
    /// The dot under which an operation's value is among the siblings.
    dots: BTreeMap<u64, Dot>,
    /// Each sibling's value.
    siblings: BTreeMap<Dot, u64>,
}

/// All rows, by key.
pub(crate) struct Journal {
    keys: Vec<KeyRows>,
    /// For each node and key, the greatest version it has stamped or shown since it started.
    known: BTreeMap<(usize, usize), Version>,
    /// For each node and key, the greatest version it has stamped and acknowledged, before this start too.
    acknowledged: BTreeMap<(usize, usize), Version>,
    /// Whether every node has gone by about the right time all the while.
    are_times_right: bool,
    violation: Option<String>,
    stamps: u64,
    /// The horizons of flushes, which stand for tombstones of all keys.
    horizons: BTreeSet<Version>,
}

impl Journal {
    pub(crate) fn new(plan: &Plan) -> Journal {
        Journal {
            keys: std::iter::repeat_with(KeyRows::default).take(plan.keys.len()).collect(),
            known: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            are_times_right: plan.are_most_clocks_right(),
            violation: None,
            stamps: 0,
            horizons: BTreeSet::new(),
        }
    }

    /// `node`, whose wall clock has shown `latest_wall_ms` at most, sends or stores a row as a coordinator: one it stamps
    /// now, or a repair with one that is known.
    pub(crate) fn stamped(&mut self, row: &Row<'_>, node: usize, latest_wall_ms: u64) {
        let Some(key) = Key::index_of(row.key.key).filter(|_| !self.is_flush(row)) else { return };
        let place = (actor(row.cell), row.version);
        if self.keys[key].rows.contains_key(&place) {
            return self.received(row);
        }
        let name = || String::from_utf8_lossy(row.key.key);
        if row.version.node != node_id(node).0 {
            return self.violated(format!("node {node} made up a row of {}: {row:?}", name()));
        }
        let bound_ms = latest_wall_ms + CLOCK_DRIFT_MS_MAX + CLOCK_MARK_LEAD_MS;
        if self.are_times_right && row.version.hlc.millis() > bound_ms {
            return self.violated(format!("node {node} stamped {row:?}, but its clock allows {bound_ms}"));
        }
        let known = self.known.entry((node, key)).or_default();
        if row.version <= *known {
            let what = format!("node {node} stamped {row:?} though it had stamped or shown {known:?} before");
            return self.violated(what);
        }
        *known = row.version;
        self.stamps += 1;
        let rows = &mut self.keys[key];
        rows.rows.insert(
            place,
            Fact {
                content: content(row),
                expiry_ms: row.expiry.map(|at| at.0),
                is_tombstone: row.body == Body::Tombstone,
                is_sibling: matches!(row.cell, Cell::Siblings { .. }),
            },
        );
        if let Body::Value(value) = row.body
            && let Some(word) = last_word(value)
        {
            rows.by_word.entry(word).or_insert(row.version);
        }
        if let Body::Siblings { set, .. } = row.body {
            let set = SiblingSet::decode(set).expect("a row that is sent can be decoded");
            for sibling in set.siblings() {
                if let Some(word) = last_word(sibling.value) {
                    rows.dots.entry(word).or_insert(sibling.dot);
                }
                rows.siblings.entry(sibling.dot).or_insert(hash_of(sibling.value));
            }
            self.check_siblings(key, row);
        }
    }

    /// A flush has stamped its horizon.
    pub(crate) fn flushed(&mut self, horizon: Version) {
        self.horizons.insert(horizon);
    }

    /// Whether `row` is what a flush has made of a key.
    fn is_flush(&self, row: &Row<'_>) -> bool {
        row.cell == Cell::Register && row.body == Body::Tombstone && self.horizons.contains(&row.version)
    }

    /// The dots of all siblings of a key, by the operations that wrote them.
    pub(crate) fn dots(&self, key: usize) -> &BTreeMap<u64, Dot> {
        &self.keys[key].dots
    }

    /// A row reaches a replica.
    pub(crate) fn received(&mut self, row: &Row<'_>) {
        let Some(key) = Key::index_of(row.key.key).filter(|_| !self.is_flush(row)) else { return };
        let fact = self.keys[key].rows.get(&(actor(row.cell), row.version));
        let is_swept = |fact: &Fact| {
            matches!(row.body, Body::Tombstone)
                && fact.expiry_ms.is_some_and(|at| row.expiry == Some(UnixMillis(at)))
        };
        if fact.is_none_or(|fact| fact.content != content(row) && !is_swept(fact)) {
            self.violated(format!(
                "a row that nobody wrote: {row:?} of {}",
                String::from_utf8_lossy(row.key.key)
            ));
        }
        self.check_siblings(key, row);
    }

    /// The siblings of a row have the values that were written, or none if they expired and were swept.
    fn check_siblings(&mut self, key: usize, row: &Row<'_>) {
        let Body::Siblings { set, .. } = row.body else { return };
        let set = SiblingSet::decode(set).expect("a row that is sent can be decoded");
        let values = &self.keys[key].siblings;
        let is_known = |sibling: &Sibling<'_>| {
            values.get(&sibling.dot).is_some_and(|hash| sibling.is_swept || *hash == hash_of(sibling.value))
        };
        if !set.siblings().iter().all(is_known) {
            self.violated(format!("siblings that nobody wrote: {set:?} of {row:?}"));
        }
    }

    /// A client of `node` was shown `record`.
    pub(crate) fn shown(&mut self, key_ref: KeyRef<'_>, record: &Record, node: usize) {
        let Some(key) = Key::index_of(key_ref.key) else { return };
        record.rows(key_ref).for_each(|row| self.received(&row));
        let known = self.known.entry((node, key)).or_default();
        *known = record.newest_version().max(*known);
    }

    /// A write that `node` has stamped as `version` was acknowledged.
    pub(crate) fn acknowledged(&mut self, node: usize, key: usize, version: Version) {
        if version.node == node_id(node).0 {
            let acknowledged = self.acknowledged.entry((node, key)).or_default();
            *acknowledged = version.max(*acknowledged);
        }
    }

    /// A node has stopped: what it has shown to others need not be in its store. What it has acknowledged must be below
    /// whatever it stamps from now on.
    pub(crate) fn stopped(&mut self, node: usize) {
        self.known.retain(|(of, _), _| *of != node);
        self.known.extend(self.acknowledged.iter().filter(|((of, _), _)| *of == node));
    }

    /// A node has lost what it had not synced, perhaps also how far its clock was.
    pub(crate) fn clock_lost(&mut self, node: usize) {
        self.known.retain(|(of, _), _| *of != node);
        self.acknowledged.retain(|(of, _), _| *of != node);
    }

    /// A node goes by a wrong time, for a reason that no node could see through.
    pub(crate) fn strayed(&mut self) {
        self.are_times_right = false;
    }

    /// The version of the row that operation `word` wrote, if it wrote a value.
    pub(crate) fn version_of(&self, key: usize, word: u64) -> Option<Version> {
        self.keys[key].by_word.get(&word).copied()
    }

    /// The expiry of a register row.
    pub(crate) fn expiry_ms(&self, key: usize, version: Version) -> Option<u64> {
        self.keys[key].rows.get(&(None, version))?.expiry_ms
    }

    /// Whether the register row of `version`, or one after it, is a deletion that is over and done with at `horizon`, or
    /// may have been deleted among siblings.
    pub(crate) fn is_dead(&self, key: usize, version: Version, horizon: Hlc) -> bool {
        let is_over = |fact: &Fact| {
            fact.is_tombstone || fact.is_sibling || fact.expiry_ms.is_some_and(|at| at <= horizon.millis())
        };
        let rows = self.keys[key].rows.iter();
        let mut later = rows.filter(|((_, at), _)| *at >= version && at.hlc <= horizon);
        version.hlc <= horizon && later.any(|(_, fact)| is_over(fact))
    }

    /// How many rows were stamped.
    pub(crate) fn stamps(&self) -> u64 {
        self.stamps
    }

    /// Something is wrong with a node.
    pub(crate) fn violated(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// What was found to be wrong first.
    pub(crate) fn violation(&mut self) -> Option<String> {
        self.violation.take()
    }
}

fn actor(cell: Cell) -> Option<u64> {
    match cell {
        Cell::Register => None,
        Cell::Counter { actor } => Some(actor),
        // Another cell than the same actor's counter.
        Cell::Siblings { actor } => Some(!actor),
    }
}

fn content(row: &Row<'_>) -> u64 {
    let expiry = row.expiry.map_or(0, |at| at.0 + 1);
    match row.body {
        Body::Tombstone => mix(1),
        Body::Value(value) => mix(expiry ^ 2) ^ hash_of(value),
        // All but the values, which may be swept one by one.
        Body::Siblings { base, set } => {
            let set = SiblingSet::decode(set).expect("a row that is sent can be decoded");
            let seen = set.seen().iter().map(|dot| (dot, 0));
            let held = set.siblings().iter().map(|s| (s.dot, 1 + s.expiry.map_or(0, |at| at.0 + 1)));
            seen.chain(held).fold(mix(4 ^ base.hlc.0) ^ base.node, |hash, (dot, about)| {
                mix(mix(mix(hash ^ dot.actor) ^ dot.event) ^ about)
            })
        }
        Body::Counter { base, sum } => mix(mix(mix(3 ^ base.hlc.0) ^ base.node) ^ sum as u64),
    }
}

fn hash_of(value: &[u8]) -> u64 {
    value.chunks(8).fold(mix(value.len() as u64), |hash, chunk| {
        let word = chunk.iter().fold(0, |word, &byte| word << 8 | u64::from(byte));
        mix(hash.rotate_left(9) ^ word)
    })
}

/// The word that operation `tag` writes into a value.
pub(crate) fn word(tag: u64) -> String {
    format!("#{tag};")
}

/// The operation whose word stands last in `value`.
pub(crate) fn last_word(value: &[u8]) -> Option<u64> {
    let start = value.iter().rposition(|&byte| byte == b'#')? + 1;
    let end = start + value[start..].iter().position(|&byte| byte == b';')?;
    std::str::from_utf8(&value[start..end]).ok()?.parse().ok()
}

/// All operations whose words stand in `value`, in order.
pub(crate) fn words(value: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(value);
    text.split('#').skip(1).filter_map(|word| word.split(';').next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_again() {
        let value = format!("{}{}{}...", word(4), word(19), word(7)).into_bytes();
        assert_eq!(last_word(&value), Some(7));
        assert_eq!(words(&value), [4, 19, 7]);
        assert_eq!((last_word(b"12"), words(b"12").len()), (None, 0));
    }
}
