//! Hints: which keys other nodes miss rows of, and the marks of slots where that is no longer known key by key.
//!
//! ```text
//! hint key    target u64 BE | prefix u32 BE | db u8 | key        in the hints family, written blindly
//! hint value  clock of the row missed u64 BE | stamp u64 BE
//! mark        "storage.mark.NNNNN" (slot) = clock, u64 BE        in the meta family, written blindly
//! ```
//!
//! Hints are a set of keys per target, not a log: a key written a thousand times is one hint. They are committed with the
//! row they are of. What is kept of them in memory, the *book*, is what a commit needs to stay blind: per target the
//! hashes of its keys (so that counts and bytes are right without reading), and the oldest clock.
//!
//! A hint goes only if its value is still the one that was replayed. Every time a hint is kept it gets a new stamp, so an
//! equal value means that nothing was missed since, also where hints of older rows come later. So that this can be looked up and deleted as one
//! step, removals and the forgetting of rows exclude all commits that carry hints, which among themselves may overlap.
//! Commits without hints take no lock.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::batch::{Batch, StagedHint};
use crate::engine::{Engine, Step};
use crate::error::StorageError;
use crate::family::Family;
use crate::key::{KeyRef, SLOTS, Slot};
use crate::version::{Hlc, Version};

/// Bytes of a hint's value.
pub(crate) const VALUE_BYTES: usize = 16;
/// Bytes before the key in a hint's key.
const HEAD_BYTES: usize = 8 + 4 + 1;
/// What a hint costs beside its key: the rest of its entry, the engine's own, and the hash in the book.
const OVERHEAD_BYTES: u64 = 64;
const MARK_PREFIX: &str = "storage.mark.";

/// A key that a node misses rows of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hint {
    /// The key's database.
    pub db: u8,
    /// The key.
    pub key: Vec<u8>,
    /// The clock of the row missed, of several the last that was told.
    pub missed: Hlc,
    /// Tells it from a hint of the key kept before or after.
    pub stamp: u64,
}

impl Hint {
    /// What is stored of a hint beside its key.
    pub(crate) fn value(missed: Hlc, stamp: u64) -> [u8; VALUE_BYTES] {
        (u128::from(missed.0) << 64 | u128::from(stamp)).to_be_bytes()
    }

    /// The key with its place on the ring.
    #[must_use]
    pub fn key(&self) -> KeyRef<'_> {
        KeyRef::new(self.db, &self.key)
    }
}

/// What hints there are for one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HintStats {
    /// The node that misses the rows.
    pub target: u64,
    /// Its keys.
    pub keys: u64,
    /// The bytes they take, about.
    pub bytes: u64,
    /// No hint is of an older row; exact as of the last pass of [`crate::Store::expire_hints`].
    pub oldest: Hlc,
    /// All hints of the node kept from now on have this stamp or a greater one.
    pub next_stamp: u64,
}

/// What has become of hints since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HintCounts {
    /// Bytes that all hints take now, about.
    pub bytes: u64,
    /// Committed, those of a key that had one already included.
    pub kept: u64,
    /// Removed after their target had the rows.
    pub replayed: u64,
    /// Not kept, for want of room or because the target is gone too long; the slots are marked.
    pub dropped: u64,
    /// Removed because they had become too old; the slots are marked.
    pub expired: u64,
    /// Keys whose rows were removed after their owners had them.
    pub forgotten: u64,
}

/// How far [`crate::Store::expire_hints`] has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpiryPass {
    /// The last hint looked at; empty at the beginning.
    after: Vec<u8>,
    /// The oldest hint seen of each target.
    oldest: BTreeMap<u64, Hlc>,
}

/// Appends the key of a hint.
pub(crate) fn put_key(out: &mut Vec<u8>, target: u64, key: KeyRef<'_>) {
    out.extend_from_slice(&target.to_be_bytes());
    out.extend_from_slice(&key.prefix().to_be_bytes());
    out.push(key.db);
    out.extend_from_slice(key.key);
}

/// How many bytes [`put_key`] appends.
pub(crate) fn key_bytes(key: KeyRef<'_>) -> usize {
    HEAD_BYTES + key.key.len()
}

/// The name of the mark of `slot`.
pub(crate) fn mark_name(slot: Slot) -> String {
    format!("{MARK_PREFIX}{slot:05}")
}

/// Target and hint of an entry.
fn decode(key: &[u8], value: &[u8]) -> Result<(u64, Hint), StorageError> {
    let parts = key.split_first_chunk::<8>().and_then(|(target, rest)| {
        let (_prefix, rest) = rest.split_first_chunk::<4>()?;
        let (&db, key) = rest.split_first()?;
        let (missed, stamp) = value.split_first_chunk::<8>()?;
        let (missed, stamp) = (Hlc(u64::from_be_bytes(*missed)), u64::from_be_bytes(stamp.try_into().ok()?));
        Some((u64::from_be_bytes(*target), Hint { db, key: key.to_vec(), missed, stamp }))
    });
    parts.ok_or_else(|| StorageError::damaged("a hint does not parse"))
}

/// Up to `limit` hints of `target` behind `after` (from the first on, if that is `None`), in order of position.
pub(crate) fn page(
    engine: &dyn Engine,
    target: u64,
    after: Option<&Hint>,
    limit: usize,
) -> Result<Vec<Hint>, StorageError> {
    let mut start = Vec::new();
    match after {
        Some(hint) => {
            put_key(&mut start, target, hint.key());
            start.push(0);
        }
        None => start.extend_from_slice(&target.to_be_bytes()),
    }
    let end = target.checked_add(1).map(u64::to_be_bytes);
    let mut hints = Vec::new();
    engine.walk_range(Family::Hints, &start, end.as_ref().map(|end| &end[..]), &mut |key, value| {
        if hints.len() >= limit {
            return Ok(Step::Stop);
        }
        hints.push(decode(key, value)?.1);
        Ok(Step::Next)
    })?;
    Ok(hints)
}

/// The marked slots, ascending, with the clock up to which rows may be missing.
pub(crate) fn marks(engine: &dyn Engine) -> Result<Vec<(Slot, Hlc)>, StorageError> {
    let end = mark_name(SLOTS);
    let mut marks = Vec::new();
    engine.walk_range(Family::Meta, MARK_PREFIX.as_bytes(), Some(end.as_bytes()), &mut |name, value| {
        let slot = name.get(MARK_PREFIX.len()..).and_then(|digits| str::from_utf8(digits).ok()?.parse().ok());
        let clock = value.try_into().ok().map(|bytes| Hlc(u64::from_be_bytes(bytes)));
        let (Some(slot), Some(clock)) = (slot, clock) else {
            return Err(StorageError::damaged("the mark of a slot does not parse"));
        };
        marks.push((slot, clock));
        Ok(Step::Next)
    })?;
    Ok(marks)
}

/// What is known in memory of one target's hints.
#[derive(Debug, Default)]
struct Tally {
    keys: HashSet<u64>,
    bytes: u64,
    oldest: Hlc,
}

impl Tally {
    /// Takes a hint in. Answers how many bytes it adds.
    fn add(&mut self, hash: u64, key_len: usize, missed: Hlc) -> u64 {
        self.oldest = if self.keys.is_empty() { missed } else { self.oldest.min(missed) };
        if !self.keys.insert(hash) {
            return 0;
        }
        let bytes = bytes_of(key_len);
        self.bytes += bytes;
        bytes
    }

    /// Takes a hint out. Answers how many bytes that frees.
    fn remove(&mut self, hash: u64, key_len: usize) -> u64 {
        if !self.keys.remove(&hash) {
            return 0;
        }
        let bytes = bytes_of(key_len).min(self.bytes);
        self.bytes -= bytes;
        bytes
    }
}

fn bytes_of(key_len: usize) -> u64 {
    key_len as u64 + OVERHEAD_BYTES
}

/// What the store knows of its hints without reading them.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// Shared by commits that carry hints, exclusive for removals.
    pub(crate) order: RwLock<()>,
    tallies: Mutex<BTreeMap<u64, Tally>>,
    /// Targets that no hints are kept for.
    closed: RwLock<BTreeSet<u64>>,
    /// The stamp of the next hint.
    stamp: AtomicU64,
    bytes: AtomicU64,
    bytes_max: AtomicU64,
    kept: AtomicU64,
    replayed: AtomicU64,
    dropped: AtomicU64,
    expired: AtomicU64,
    forgotten: AtomicU64,
}

impl Book {
    /// The book of the hints in `engine`, all of which are read.
    pub(crate) fn open(engine: &dyn Engine, bytes_max: u64) -> Result<Book, StorageError> {
        let mut tallies: BTreeMap<u64, Tally> = BTreeMap::new();
        let (mut bytes, mut newest_stamp) = (0, 0);
        engine.walk_range(Family::Hints, &[], None, &mut |key, value| {
            let (target, hint) = decode(key, value)?;
            let tally = tallies.entry(target).or_default();
            bytes += tally.add(hint.key().hash64(), hint.key.len(), hint.missed);
            newest_stamp = newest_stamp.max(hint.stamp);
            Ok(Step::Next)
        })?;
        let (tallies, bytes) = (Mutex::new(tallies), AtomicU64::new(bytes));
        let stamp = AtomicU64::new(newest_stamp.saturating_add(1));
        Ok(Book { tallies, bytes, stamp, bytes_max: AtomicU64::new(bytes_max), ..Book::default() })
    }

    /// Adds a hint to `batch` if there is room for it, else a mark. Answers whether it is a hint.
    pub(crate) fn stage(&self, batch: &mut Batch, target: u64, key: KeyRef<'_>, missed: Version) -> bool {
        let is_full = self.bytes.load(Ordering::Relaxed) >= self.bytes_max.load(Ordering::Relaxed);
        let has_room = !self.closed.read().contains(&target) && (!is_full || self.has(target, key.hash64()));
        if has_room {
            batch.hint(target, key, missed.hlc, self.stamp.fetch_add(1, Ordering::Relaxed));
        } else {
            batch.drop_hint(key, missed);
        }
        has_room
    }

    fn has(&self, target: u64, hash: u64) -> bool {
        self.tallies.lock().get(&target).is_some_and(|tally| tally.keys.contains(&hash))
    }

    /// Whether any target has a hint of the key with `hash`.
    pub(crate) fn has_any(&self, hash: u64) -> bool {
        self.tallies.lock().values().any(|tally| tally.keys.contains(&hash))
    }

    /// The hints of a batch are committed.
    pub(crate) fn note_kept(&self, hints: &[StagedHint]) {
        let mut tallies = self.tallies.lock();
        for hint in hints {
            let tally = tallies.entry(hint.target).or_default();
            let bytes = tally.add(hint.hash, hint.key_len, hint.missed);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        self.kept.fetch_add(hints.len() as u64, Ordering::Relaxed);
    }

    /// Hints there was no room for are marked.
    pub(crate) fn note_dropped(&self, hints: u64) {
        self.dropped.fetch_add(hints, Ordering::Relaxed);
    }

    /// Hints are removed: replayed ones, or too old.
    pub(crate) fn note_removed(&self, hints: &[(u64, Hint)], is_expiry: bool) {
        let mut tallies = self.tallies.lock();
        for (target, hint) in hints {
            let Some(tally) = tallies.get_mut(target) else { continue };
            let bytes = tally.remove(hint.key().hash64(), hint.key.len());
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        let counter = if is_expiry { &self.expired } else { &self.replayed };
        counter.fetch_add(hints.len() as u64, Ordering::Relaxed);
    }

    /// The rows of a key were removed.
    pub(crate) fn note_forgotten(&self) {
        self.forgotten.fetch_add(1, Ordering::Relaxed);
    }

    /// A pass over all hints has found these to be the oldest. Hints that came meanwhile are younger than the pass.
    pub(crate) fn note_oldest(&self, oldest: &BTreeMap<u64, Hlc>) {
        for (target, tally) in self.tallies.lock().iter_mut() {
            if let Some(&seen) = oldest.get(target) {
                tally.oldest = seen;
            }
        }
    }

    /// The targets that have hints, by id.
    pub(crate) fn stats(&self) -> Vec<HintStats> {
        let next_stamp = self.stamp.load(Ordering::Relaxed);
        let tallies = self.tallies.lock();
        let some = tallies.iter().filter(|(_, tally)| !tally.keys.is_empty());
        some.map(|(&target, tally)| {
            let (keys, bytes) = (tally.keys.len() as u64, tally.bytes);
            HintStats { target, keys, bytes, oldest: tally.oldest, next_stamp }
        })
        .collect()
    }

    pub(crate) fn counts(&self) -> HintCounts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HintCounts {
            bytes: load(&self.bytes),
            kept: load(&self.kept),
            replayed: load(&self.replayed),
            dropped: load(&self.dropped),
            expired: load(&self.expired),
            forgotten: load(&self.forgotten),
        }
    }

    pub(crate) fn set_bytes_max(&self, bytes_max: u64) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    pub(crate) fn set_closed(&self, target: u64, is_closed: bool) {
        let mut closed = self.closed.write();
        if is_closed {
            closed.insert(target);
        } else {
            closed.remove(&target);
        }
    }
}

/// The next `limit` hints of a pass, of all targets.
pub(crate) fn next_of_pass(
    engine: &dyn Engine,
    pass: &mut ExpiryPass,
    limit: usize,
) -> Result<Vec<(u64, Hint)>, StorageError> {
    let mut start = pass.after.clone();
    if !start.is_empty() {
        start.push(0);
    }
    let mut hints = Vec::new();
    engine.walk_range(Family::Hints, &start, None, &mut |key, value| {
        if hints.len() >= limit {
            return Ok(Step::Stop);
        }
        hints.push(decode(key, value)?);
        pass.after.clear();
        pass.after.extend_from_slice(key);
        Ok(Step::Next)
    })?;
    Ok(hints)
}

impl ExpiryPass {
    /// Takes a hint in that stays.
    pub(crate) fn keep(&mut self, target: u64, missed: Hlc) {
        let oldest = self.oldest.entry(target).or_insert(missed);
        *oldest = missed.min(*oldest);
    }

    pub(crate) fn oldest(&self) -> &BTreeMap<u64, Hlc> {
        &self.oldest
    }
}
