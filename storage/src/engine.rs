//! What the store asks of an engine, and how it walks the rows of one.

pub(crate) mod memory;
#[cfg(feature = "rocksdb")]
pub(crate) mod rocks;

use crate::encode::VERSION_BYTES;
use crate::error::StorageError;
use crate::family::Family;
use crate::stats::{DamageStats, EngineStats};
use crate::tree::PrefixRange;

/// How deep a read may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    /// Memtables and the block cache; stops where the disk would be touched.
    Memory,
    /// All the way.
    Disk,
}

/// What a walk does after a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Goes on with the following entry.
    Next,
    /// Goes on behind the older versions of this row's cell.
    NextCell,
    /// Ends.
    Stop,
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walk {
    /// At its end or at the visitor's word.
    Done,
    /// Where the disk would have been touched ([`Tier::Memory`] only).
    Incomplete,
}

/// Looks at one entry (key, value) and says how to go on. It must not call the engine: that might wait for itself.
pub(crate) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<Step, StorageError> + 'a;

/// What could be saved of a damaged file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Salvage {
    /// Where the file is.
    pub(crate) path: String,
    /// Whose file it is.
    pub(crate) family: Family,
    /// Ranges that hold the prefix of every row that could not be read. Of the row family only.
    pub(crate) gaps: Vec<PrefixRange>,
    /// Entries that were put anew.
    pub(crate) entries: u64,
}

/// A sorted, durable map with atomic batches.
///
/// Every write is blind. A batch written is seen by every walk that starts later. One walk sees a batch whole or,
/// if it is written meanwhile, possibly not at all.
pub(crate) trait Engine: Send + Sync {
    /// Writes an encoded [`crate::Batch`]: in the operating system's hands on return, on stable storage if `sync`.
    fn write(&self, batch: &[u8], sync: bool) -> Result<(), StorageError>;

    /// Walks the entries of the row family that begin with `key`, which is the shared part of one key's rows.
    fn walk_key(&self, key: &[u8], tier: Tier, visit: &mut Visit<'_>) -> Result<Walk, StorageError>;

    /// Walks the entries of `family` from `start` to before `end` (to the last one if that is `None`), in order.
    fn walk_range(
        &self,
        family: Family,
        start: &[u8],
        end: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), StorageError>;

    /// The value of one entry.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError>;

    /// Puts everything written so far on stable storage.
    fn sync(&self) -> Result<(), StorageError>;

    /// Lets go of what reads keep for the next one and did not use since the last call.
    fn release(&self);

    /// Whether batches will reach the families they name. Asked before the first one is written.
    fn check(&self) -> Result<(), StorageError> {
        Ok(())
    }

    /// What the engine counts.
    fn stats(&self) -> EngineStats;

    /// What is known of damage on disk.
    fn damage(&self) -> DamageStats {
        DamageStats::default()
    }

    /// A file with damage in it that was met.
    fn damaged_file(&self) -> Option<u64> {
        None
    }

    /// Which file must go before a damaged one can: that one itself, or another without which alone the rest can be
    /// opened again.
    fn first_to_go(&self, file: u64) -> Result<u64, StorageError> {
        Ok(file)
    }

    /// Puts what can be read of a damaged file anew, durably, so that the file can be dropped. `None` if it is gone.
    fn salvage(&self, _file: u64) -> Result<Option<Salvage>, StorageError> {
        Ok(None)
    }

    /// Walks the rows in `range` as they would be without a damaged file, as far as they can be read.
    fn walk_without(
        &self,
        _file: u64,
        range: PrefixRange,
        visit: &mut Visit<'_>,
    ) -> Result<(), StorageError> {
        let start = u32::try_from(range.from).unwrap_or(u32::MAX).to_be_bytes();
        let end = u32::try_from(range.end).ok().map(u32::to_be_bytes);
        self.walk_range(Family::Rows, &start, end.as_ref().map(|end| &end[..]), visit)
    }

    /// Drops a damaged file with all that is in it, after everything written was put on stable storage.
    fn drop_file(&self, _file: u64) -> Result<(), StorageError> {
        Ok(())
    }

    /// Leaves a damaged file as it is.
    fn give_up(&self, _file: u64) {}

    /// Writes memory to files and merges them all, dropping superseded rows. For tests and maintenance.
    fn compact(&self) -> Result<(), StorageError>;
}

/// A position in a sorted map.
pub(crate) trait Cursor {
    /// Goes to the first entry at or after `key`.
    fn seek(&mut self, key: &[u8]);
    /// Goes to the following entry.
    fn advance(&mut self);
    /// The entry here, `None` past the last one.
    fn entry(&self) -> Option<(&[u8], &[u8])>;
}

/// How many older versions are stepped over before a seek is cheaper (a step costs about a tenth of a seek).
const STEPS_BEFORE_SEEK: usize = 8;

/// Walks `cursor` from `start` while `within` holds of the keys.
pub(crate) fn walk(
    cursor: &mut impl Cursor,
    start: &[u8],
    within: impl Fn(&[u8]) -> bool,
    visit: &mut Visit<'_>,
) -> Result<(), StorageError> {
    cursor.seek(start);
    let mut cell = Vec::new();
    while let Some((key, value)) = cursor.entry() {
        if !within(key) {
            break;
        }
        match visit(key, value)? {
            Step::Stop => break,
            Step::Next => cursor.advance(),
            Step::NextCell => {
                cell.clear();
                let shared = key.len().saturating_sub(VERSION_BYTES);
                cell.extend_from_slice(key.get(..shared).unwrap_or_default());
                leave_cell(cursor, &mut cell);
            }
        }
    }
    Ok(())
}

/// Goes to the first entry that does not begin with `cell`.
fn leave_cell(cursor: &mut impl Cursor, cell: &mut Vec<u8>) {
    for _ in 0..STEPS_BEFORE_SEEK {
        cursor.advance();
        if !cursor.entry().is_some_and(|(key, _)| key.starts_with(cell)) {
            return;
        }
    }
    // Behind the oldest version there can be: all ones, then one byte more.
    cell.extend_from_slice(&[0xff; VERSION_BYTES]);
    cell.push(0);
    cursor.seek(cell);
}
