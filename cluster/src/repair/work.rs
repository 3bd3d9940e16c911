//! What one side of an exchange does with its store: each step by itself, without memory of the one before. The driver
//! does it for itself and asks the same of its peer.

use gyre_storage::tree::{KeyState, PrefixRange, RangeSum};
use gyre_storage::{Hlc, KeyRef, Record, Row, SLOTS, Slot, StorageError, Version};

use super::replica::ReplicaStore;
use super::slots::{SlotRun, slots_of};

/// Ranges that are compared in one step, before they are cut into parts.
pub(super) const SPLITS_MAX: usize = 128;
/// Parts that a range is cut into at most.
pub(super) const PARTS_MAX: u8 = 16;
/// Ranges whose keys are listed in one step.
pub(super) const LISTS_MAX: usize = 128;
/// Keys that are listed in one step, about: a list ends with the group of equal prefixes that reaches it.
pub(super) const KEYS_MAX: usize = 512;
/// Keys of one list that a peer is believed: groups of equal prefixes are small unless somebody makes them large.
pub(super) const KEYS_BELIEVED_MAX: usize = 64 * KEYS_MAX;
/// Records that are sent in one step.
pub(super) const RECORDS_MAX: usize = 256;
/// Slots that are marked in one step.
pub(super) const MARKS_MAX: usize = 1_024;
/// Bytes of records in one step, about: one longer record goes by itself.
pub(super) const BYTES_MAX: usize = 256 << 10;

/// A range, cut into equal parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// The range.
    pub range: PrefixRange,
    /// How many parts, at least 1.
    pub parts: u8,
}

impl Split {
    /// The parts, ascending: all of `range`.
    pub fn iter(self) -> impl Iterator<Item = PrefixRange> {
        parts_of(self.range, u64::from(self.parts.max(1)))
    }
}

/// `range`, cut into so many parts, ascending, as long as each other but for rounding.
pub(super) fn parts_of(range: PrefixRange, parts: u64) -> impl Iterator<Item = PrefixRange> {
    let length = range.end - range.from;
    let border = move |part: u64| range.from + length * part / parts;
    (0..parts).map(move |part| PrefixRange { from: border(part), end: border(part + 1) })
}

/// What a key list says of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    /// The hash of database and key.
    pub hash: u64,
    /// The digest of its state: equal for equal states.
    pub digest: u64,
    /// The newest version of any of its rows.
    pub newest: Version,
}

impl KeyEntry {
    fn of(state: &KeyState) -> KeyEntry {
        KeyEntry { hash: state.hash, digest: state.digest, newest: state.newest }
    }
}

/// Where in a list of ranges a page ends: everything before `prefix` of range `index` is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The range's place in the list.
    pub index: u16,
    /// The first prefix that is not in the page.
    pub prefix: u64,
}

/// Keys wanted of a range: their hashes, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Where they are.
    pub range: PrefixRange,
    /// Which.
    pub hashes: Vec<u64>,
}

/// A key with its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The database.
    pub db: u8,
    /// The key.
    pub key: Vec<u8>,
    /// The newest row of each of its cells.
    pub record: Record,
}

impl Entry {
    /// The key with its place on the ring.
    #[must_use]
    pub fn key(&self) -> KeyRef<'_> {
        KeyRef::new(self.db, &self.key)
    }

    /// Wants this very key.
    pub(super) fn want(&self) -> Want {
        let (key, prefix) = (self.key(), u64::from(self.key().prefix()));
        Want { range: PrefixRange { from: prefix, end: prefix + 1 }, hashes: vec![key.hash64()] }
    }

    /// Bytes of key and record.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.key.len() + self.record.encoded().len()
    }
}

/// One step of an exchange, on one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// The sums of the parts of these ranges.
    Sums(Vec<Split>),
    /// The keys of these ranges, up to a bounded number.
    Keys(Vec<PrefixRange>),
    /// The records of these keys, up to a bounded number of bytes.
    Fetch(Vec<Want>),
    /// Take these records in, and say of which keys this side has more.
    Merge(Vec<Entry>),
    /// Some node misses rows of these slots, up to these clocks: mark them.
    Mark(Vec<(Slot, Hlc)>),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A sum for each part, in order.
    Sums(Vec<RangeSum>),
    /// The keys of each range, and how far the lists go if not to the end.
    Keys {
        /// By range, ascending by hash.
        lists: Vec<Vec<KeyEntry>>,
        /// Where they end.
        next: Option<Place>,
    },
    /// Records, and how far they go if not to the end.
    Records {
        /// By range, then by prefix.
        entries: Vec<Entry>,
        /// Where they end.
        next: Option<Place>,
    },
    /// The records are stored; of those at these places this side has rows that the sender had not.
    Merged(Vec<u16>),
    /// The slots are marked.
    Marked,
}

impl Work {
    /// Does it. May touch the disk.
    ///
    /// # Errors
    /// Whatever the store says.
    pub fn run(&self, store: &impl ReplicaStore) -> Result<Answer, StorageError> {
        match self {
            Work::Sums(splits) => {
                let parts: Vec<PrefixRange> = splits.iter().flat_map(|split| split.iter()).collect();
                store.sums(&parts).map(Answer::Sums)
            }
            Work::Keys(ranges) => keys(store, ranges),
            Work::Fetch(wants) => fetch(store, wants),
            Work::Merge(entries) => merge(store, entries).map(Answer::Merged),
            Work::Mark(marks) => store.mark(marks).map(|()| Answer::Marked),
        }
    }

    /// Whether all of it lies in slots for which `may` says so.
    pub(super) fn lies_within(&self, may: impl Fn(SlotRun) -> bool) -> bool {
        let is_within = |range: PrefixRange| slots_of(range).is_some_and(&may);
        match self {
            Work::Sums(splits) => splits.iter().all(|split| is_within(split.range)),
            Work::Keys(ranges) => ranges.iter().all(|&range| is_within(range)),
            Work::Fetch(wants) => wants.iter().all(|want| is_within(want.range)),
            Work::Merge(entries) => entries.iter().all(|entry| may(one(entry.key().slot()))),
            Work::Mark(marks) => marks.iter().all(|&(slot, _)| slot < SLOTS && may(one(slot))),
        }
    }

    /// Records that are sent or stored for it.
    pub(super) fn records(&self) -> usize {
        match self {
            Work::Fetch(wants) => keys_of(wants),
            Work::Merge(entries) => entries.len(),
            _ => 0,
        }
    }
}

/// How many keys are wanted.
pub(super) fn keys_of(wants: &[Want]) -> usize {
    wants.iter().map(|want| want.hashes.len()).sum()
}

/// How many rows these records have.
pub(super) fn rows_of(entries: &[Entry]) -> u64 {
    entries.iter().map(|entry| entry.record.rows(entry.key()).count() as u64).sum()
}

fn one(slot: Slot) -> SlotRun {
    SlotRun { first: slot, last: slot }
}

fn keys(store: &impl ReplicaStore, ranges: &[PrefixRange]) -> Result<Answer, StorageError> {
    let (mut lists, mut left) = (Vec::new(), KEYS_MAX);
    for (index, &range) in (0..).zip(ranges) {
        if left == 0 {
            return Ok(Answer::Keys { lists, next: Some(Place { index, prefix: range.from }) });
        }
        let page = store.key_states(range, left)?;
        left = left.saturating_sub(page.states.len());
        let mut list: Vec<KeyEntry> = page.states.iter().map(KeyEntry::of).collect();
        list.sort_unstable_by_key(|entry| entry.hash);
        // A group of so many keys with one prefix is made on purpose; those with the greatest hashes stay uncompared.
        list.truncate(KEYS_BELIEVED_MAX - KEYS_MAX);
        lists.push(list);
        if let Some(prefix) = page.next {
            return Ok(Answer::Keys { lists, next: Some(Place { index, prefix }) });
        }
    }
    Ok(Answer::Keys { lists, next: None })
}

fn fetch(store: &impl ReplicaStore, wants: &[Want]) -> Result<Answer, StorageError> {
    let (mut entries, mut left) = (Vec::new(), BYTES_MAX);
    for (index, want) in (0..).zip(wants) {
        if left == 0 {
            return Ok(Answer::Records { entries, next: Some(Place { index, prefix: want.range.from }) });
        }
        let page = store.records_of(want.range, &want.hashes, left)?;
        let found = page.entries.into_iter().map(|(db, key, record)| Entry { db, key, record });
        // Two keys of one hash are both found.
        for entry in found.take(RECORDS_MAX - entries.len().min(RECORDS_MAX)) {
            left = left.saturating_sub(entry.bytes());
            entries.push(entry);
        }
        if let Some(prefix) = page.next {
            return Ok(Answer::Records { entries, next: Some(Place { index, prefix }) });
        }
    }
    Ok(Answer::Records { entries, next: None })
}

/// Stores what is missing here, blindly of what is written at the same time: rows commute.
fn merge(store: &impl ReplicaStore, entries: &[Entry]) -> Result<Vec<u16>, StorageError> {
    let own: Vec<Record> = entries.iter().map(|entry| store.read(entry.key())).collect::<Result<_, _>>()?;
    let mut rows: Vec<Row<'_>> = Vec::new();
    let mut surplus = Vec::new();
    for ((index, entry), own) in (0..).zip(entries).zip(&own) {
        rows.extend(entry.record.rows_missing_in(own, entry.key()));
        if own.rows_missing_in(&entry.record, entry.key()).next().is_some() {
            surplus.push(index);
        }
    }
    if !rows.is_empty() {
        store.store(&rows)?;
    }
    Ok(surplus)
}
