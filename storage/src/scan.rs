//! Walking the keys of a range of the ring.

use crate::encode::{RowKey, decode_row_key, decode_row_value};
use crate::engine::{Engine, Step};
use crate::error::StorageError;
use crate::family::Family;
use crate::horizon::Horizons;
use crate::read::Found;
use crate::record::Record;
use crate::version::UnixMillis;

/// One past the last position prefix.
pub const PREFIX_END: u64 = 1 << 32;

/// One page of a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanPage {
    /// Database, key and record of every key found, by row key. Tombstones and expired keys are among them.
    pub entries: Vec<(u8, Vec<u8>, Record)>,
    /// The position prefix to go on from; `None` when the range is done.
    pub next: Option<u64>,
}

/// What to walk over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    /// Only this database; all if `None`.
    pub(crate) db: Option<u8>,
    /// First position prefix.
    pub(crate) from: u64,
    /// One past the last position prefix, at most [`PREFIX_END`].
    pub(crate) end: u64,
    /// Whether values are wanted.
    pub(crate) with_values: bool,
}

/// One page of `range`: ends, on the border of a prefix, once `keys_max` keys (of any database, dead ones included)
/// or `bytes_max` bytes were seen. There is always progress.
pub(crate) fn page(
    engine: &dyn Engine,
    horizons: &Horizons,
    range: Range,
    keys_max: usize,
    bytes_max: usize,
) -> Result<ScanPage, StorageError> {
    let mut page = ScanPage::default();
    let mut bytes = 0;
    page.next = each_key(engine, range, &|_, _| true, &mut |seen| {
        if let Some((db, key, record)) = seen.found {
            let record = record.under_horizon(horizons.of(db));
            bytes += key.len() + record.encoded().len();
            // A key that the horizon leaves nothing of is what an absent key looks like.
            if record != Record::ABSENT.under_horizon(horizons.of(db)) {
                page.entries.push((db, key.to_vec(), record));
            }
        }
        seen.keys < keys_max && bytes < bytes_max
    })?;
    Ok(page)
}

/// How many keys of `db` live at `now` in the range.
pub(crate) fn count(
    engine: &dyn Engine,
    horizons: &Horizons,
    range: Range,
    now: UnixMillis,
) -> Result<u64, StorageError> {
    let mut count = 0;
    each_key(engine, range, &|_, _| true, &mut |seen| {
        if let Some((db, _, record)) = seen.found
            && record.under_horizon(horizons.of(db)).view(now).is_some()
        {
            count += 1;
        }
        true
    })?;
    Ok(count)
}

/// What [`each_key`] shows: a key that is looked for, or only that another one was passed.
pub(crate) struct Seen<'a> {
    /// Database and key, not hashed: scans and counts pass many and need no hash.
    pub(crate) found: Option<(u8, &'a [u8], Record)>,
    /// How many sibling cells the key has, those that its record leaves out included.
    pub(crate) sibling_cells: usize,
    /// How many keys were passed, wanted or not.
    pub(crate) keys: usize,
}

/// Shows every key of `range` that is `wanted` with its record. When `visit` answers false, stops at the end of the
/// prefix and gives the next one.
pub(crate) fn each_key(
    engine: &dyn Engine,
    range: Range,
    wanted: &dyn Fn(u8, &[u8]) -> bool,
    visit: &mut dyn FnMut(Seen<'_>) -> bool,
) -> Result<Option<u64>, StorageError> {
    let end = range.end.min(PREFIX_END);
    let Ok(from) = u32::try_from(range.from) else { return Ok(None) };
    if range.from >= end {
        return Ok(None);
    }
    let end_key = u32::try_from(end).ok().map(u32::to_be_bytes);
    let mut walker = Walker { range, wanted, visit, current: None, keys: 0, enough: false, next: None };
    let mut on_row = |key: &[u8], value: &[u8]| walker.row(key, value);
    engine.walk_range(
        Family::Rows,
        &from.to_be_bytes(),
        end_key.as_ref().map(|end| &end[..]),
        &mut on_row,
    )?;
    walker.leave_key();
    Ok(walker.next)
}

struct Walker<'a> {
    range: Range,
    wanted: &'a dyn Fn(u8, &[u8]) -> bool,
    visit: &'a mut dyn FnMut(Seen<'_>) -> bool,
    current: Option<Current>,
    keys: usize,
    enough: bool,
    next: Option<u64>,
}

/// The key whose rows are being passed.
struct Current {
    /// What its rows share.
    shared: Vec<u8>,
    prefix: u32,
    db: u8,
    key_at: usize,
    found: Option<Found>,
}

impl Walker<'_> {
    fn row(&mut self, row_key: &[u8], row_value: &[u8]) -> Result<Step, StorageError> {
        let parts = decode_row_key(row_key)?;
        if !self.current.as_ref().is_some_and(|current| current.is_of(row_key)) {
            self.leave_key();
            let prefix_changes = self.current.as_ref().is_some_and(|current| current.prefix != parts.prefix);
            if self.enough && prefix_changes {
                self.next = Some(u64::from(parts.prefix));
                return Ok(Step::Stop);
            }
            self.enter_key(&parts, row_key);
        }
        let Some(found) = self.current.as_mut().and_then(|current| current.found.as_mut()) else {
            return Ok(Step::NextCell);
        };
        if !found.is_complete() {
            found.take(&parts, &decode_row_value(row_value)?, self.range.with_values)?;
        }
        Ok(Step::NextCell)
    }

    fn enter_key(&mut self, parts: &RowKey<'_>, row_key: &[u8]) {
        let mut shared = self.current.take().map(|current| current.shared).unwrap_or_default();
        shared.clear();
        shared.extend_from_slice(row_key.get(..parts.key_bytes).unwrap_or_default());
        let wanted = self.range.db.is_none_or(|db| db == parts.db) && (self.wanted)(parts.db, parts.key);
        self.current = Some(Current {
            shared,
            prefix: parts.prefix,
            db: parts.db,
            key_at: parts.key_bytes - parts.key.len(),
            found: wanted.then(Found::default),
        });
    }

    /// Shows the key that ended, if there was one.
    fn leave_key(&mut self) {
        let Some(current) = self.current.as_mut() else { return };
        self.keys += 1;
        let key = current.shared.get(current.key_at..).unwrap_or_default();
        let sibling_cells = current.found.as_ref().map_or(0, Found::sibling_cells);
        let found = current.found.take().map(|found| (current.db, key, found.into_record()));
        if !(self.visit)(Seen { found, sibling_cells, keys: self.keys }) {
            self.enough = true;
        }
    }
}

impl Current {
    /// Whether `row_key` is one of this key's rows. The length before the key makes the shared part prefix-free.
    fn is_of(&self, row_key: &[u8]) -> bool {
        row_key.starts_with(&self.shared)
    }
}
