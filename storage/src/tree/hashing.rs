//! Hashing keys: from the rows of a range to its sums.

use std::sync::Arc;

use crate::engine::Engine;
use crate::error::StorageError;
use crate::key::KeyRef;
use crate::purge::PurgeHorizon;
use crate::record::{Record, mix};
use crate::scan::{self, Range};
use crate::tree::{KeyState, KeyStates, PrefixRange, RangeSum, RecordPage};
use crate::version::{UnixMillis, Version};

/// What of a database's rows counts.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    /// By database number.
    pub(crate) horizons: Arc<Vec<Version>>,
    /// By slot; empty if no slot has one.
    pub(crate) purge: Arc<Vec<PurgeHorizon>>,
}

impl Counted {
    fn horizon(&self, db: u8) -> Version {
        self.horizons.get(usize::from(db)).copied().unwrap_or_default()
    }

    /// Whether no horizon has risen from `other` to this.
    pub(crate) fn is(&self, other: &Counted) -> bool {
        Arc::ptr_eq(&self.horizons, &other.horizons) && Arc::ptr_eq(&self.purge, &other.purge)
    }

    /// What of `record` counts, but for its database's horizon.
    fn alive(&self, key: KeyRef<'_>, record: Record) -> Record {
        match self.purge.get(usize::from(key.slot())) {
            Some(horizon) => record.without_dead(horizon.hidden),
            None => record,
        }
    }

    /// The state of `key`, if it counts.
    fn state(&self, key: KeyRef<'_>, record: Record) -> Option<KeyState> {
        let record = self.alive(key, record);
        let horizon = self.horizon(key.db);
        let digest = record.state_digest(horizon)?;
        let is_live = record.under_horizon(horizon).view(UnixMillis(0)).is_some();
        Some(KeyState { hash: key.hash64(), digest, newest: record.newest_version(), is_live })
    }
}

/// Shows the hash of every key of `range` that counts, with its prefix, in order.
pub(crate) fn each_hash(
    engine: &dyn Engine,
    counted: &Counted,
    range: PrefixRange,
    mut visit: impl FnMut(u32, u64),
) -> Result<(), StorageError> {
    each_key(engine, range, false, &|_, _| true, &mut |key, record, _| {
        if let Some(digest) = counted.alive(key, record).state_digest(counted.horizon(key.db)) {
            visit(key.prefix(), mix(mix(0, key.hash64()), digest));
        }
        true
    })?;
    Ok(())
}

/// The sum of `range`.
pub(crate) fn sum_of(
    engine: &dyn Engine,
    counted: &Counted,
    range: PrefixRange,
) -> Result<RangeSum, StorageError> {
    let mut total = RangeSum::default();
    each_hash(engine, counted, range, |_, hash| total += RangeSum { sum: hash, keys: 1 })?;
    Ok(total)
}

/// One page of the states of `range`: ends, on the border of a prefix, once `keys_max` keys were passed, those that do
/// not count included.
pub(crate) fn states(
    engine: &dyn Engine,
    counted: &Counted,
    range: PrefixRange,
    keys_max: usize,
) -> Result<KeyStates, StorageError> {
    let mut states = Vec::new();
    let next = each_key(engine, range, true, &|_, _| true, &mut |key, record, keys| {
        states.extend(counted.state(key, record));
        keys < keys_max
    })?;
    Ok(KeyStates { states, next })
}

/// One page of the records of the keys of `range` whose hash is among `hashes`, ascending: ends, on the border of a
/// prefix, once they take `bytes_max` bytes.
pub(crate) fn records(
    engine: &dyn Engine,
    counted: &Counted,
    range: PrefixRange,
    hashes: &[u64],
    bytes_max: usize,
) -> Result<RecordPage, StorageError> {
    let mut entries = Vec::new();
    let mut bytes = 0;
    let wanted = |db, key: &[u8]| hashes.binary_search(&KeyRef::new(db, key).hash64()).is_ok();
    let next = each_key(engine, range, true, &wanted, &mut |key, record, _| {
        let horizon = counted.horizon(key.db);
        let record = counted.alive(key, record);
        if record.state_digest(horizon).is_some() {
            let record = record.under_horizon(horizon);
            bytes += key.key.len() + record.encoded().len();
            entries.push((key.db, key.key.to_vec(), record));
        }
        bytes < bytes_max
    })?;
    Ok(RecordPage { entries, next })
}

/// Shows each key of `range` that is `wanted`, with its record and how many keys were passed, until `visit` answers false.
fn each_key(
    engine: &dyn Engine,
    range: PrefixRange,
    with_values: bool,
    wanted: &dyn Fn(u8, &[u8]) -> bool,
    visit: &mut dyn FnMut(KeyRef<'_>, Record, usize) -> bool,
) -> Result<Option<u64>, StorageError> {
    let range = Range { db: None, from: range.from, end: range.end, with_values };
    scan::each_key(engine, range, wanted, &mut |seen| {
        let Some((db, key, record)) = seen.found else { return true };
        visit(KeyRef::new(db, key), record, seen.keys)
    })
}
