//! Batches: the rows of one turn, encoded once, in the form RocksDB writes to its log.
//!
//! ```text
//! sequence u64 (zero; RocksDB fills it in) | count u32 LE
//! count × { 1 | varint | key | varint | value                    a put in the row family
//!           5 | family varint | varint | key | varint | value    a put in another family
//!           0 | varint | key                                       a deletion in the row family
//!           4 | family varint | varint | key }                     a deletion in another family
//! ```
//! This is the representation of `rocksdb::WriteBatch` (db/write_batch.cc), so that engine takes it as it is.

mod changes;

use crate::cache::{Begun, RowCache};
use crate::encode::{
    PREFIX_BYTES, put_expiry_key, put_row_key, put_row_value, put_varint, row_key_bytes, row_value_bytes,
};
use crate::family::Family;
use crate::hints::{self, Hint};
use crate::key::{KeyRef, Slot};
use crate::record::Record;
use crate::row::Row;
use crate::version::{Hlc, Version};

pub(crate) use changes::changes;

/// What a batch keeps allocated when it is cleared.
const RETAINED_BYTES_MAX: usize = 1 << 20;
const HEADER_BYTES: usize = 12;
const TAG_PUT: u8 = 1;
const TAG_PUT_FAMILY: u8 = 5;
const TAG_DELETE: u8 = 0;
const TAG_DELETE_FAMILY: u8 = 4;

/// Where a row of the batch stands in its bytes.
#[derive(Clone, Copy, Debug)]
struct Staged {
    hash: u64,
    is_known: bool,
    is_asking: bool,
    begun: Begun,
    key_at: usize,
    key_end: usize,
    value_at: usize,
    end: usize,
}

/// A hint of the batch, for the book that is kept of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StagedHint {
    pub(crate) target: u64,
    /// The hash of its key.
    pub(crate) hash: u64,
    pub(crate) key_len: usize,
    pub(crate) missed: Hlc,
}

/// A row of a batch, encoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StagedRow<'a> {
    /// The hash of its key.
    pub(crate) hash: u64,
    /// What the cache knew when it began.
    pub(crate) begun: Begun,
    /// Whether it is to be read back.
    pub(crate) is_asking: bool,
    /// Its row key.
    pub(crate) key: &'a [u8],
    /// Its row value.
    pub(crate) value: &'a [u8],
}

/// What a key holds after the commit of a row that was pushed with [`Batch::push_asking`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadBack {
    /// Its record.
    Record(Record),
    /// The memory does not know: read this key.
    Unknown {
        /// The database.
        db: u8,
        /// The key.
        key: Vec<u8>,
    },
}

/// Rows to be committed together. A worker owns one and reuses it turn after turn.
#[derive(Debug)]
pub struct Batch {
    data: Vec<u8>,
    staged: Vec<Staged>,
    /// The position prefixes of rows deleted.
    deleted: Vec<u32>,
    hints: Vec<StagedHint>,
    /// How many hints there was no room for.
    hints_dropped: u64,
    count: u32,
    newest: Hlc,
    /// What the rows that ask were told by the last commit, in their order.
    read_back: Vec<ReadBack>,
    /// Where cache entries are put together, so that a commit allocates nothing else.
    scratch: Vec<u8>,
}

impl Default for Batch {
    fn default() -> Self {
        Batch {
            data: vec![0; HEADER_BYTES],
            staged: Vec::new(),
            deleted: Vec::new(),
            hints: Vec::new(),
            hints_dropped: 0,
            count: 0,
            newest: Hlc::ZERO,
            read_back: Vec::new(),
            scratch: Vec::new(),
        }
    }
}

impl Batch {
    /// Adds `row`, and its entry in the expiry index if it, or one of its siblings, expires and is not swept.
    pub fn push(&mut self, row: &Row<'_>) {
        self.stage(row, false);
    }

    /// As [`Batch::push`], and the commit reads the row's key back: see [`Batch::take_read_back`].
    pub fn push_asking(&mut self, row: &Row<'_>) {
        self.stage(row, true);
    }

    fn stage(&mut self, row: &Row<'_>, is_asking: bool) {
        let key_len = row_key_bytes(row);
        let value_len = row_value_bytes(row);
        self.data.reserve(key_len + value_len + 16);
        self.data.push(TAG_PUT);
        put_varint(&mut self.data, key_len);
        let key_at = self.data.len();
        put_row_key(&mut self.data, row);
        let key_end = self.data.len();
        put_varint(&mut self.data, value_len);
        let value_at = self.data.len();
        put_row_value(&mut self.data, row);
        let end = self.data.len();
        self.count += 1;
        let (hash, is_known, begun) = (row.key.hash64(), false, Begun::default());
        self.staged.push(Staged { hash, is_known, is_asking, begun, key_at, key_end, value_at, end });
        self.newest = self.newest.max(row.version.hlc);
        self.put_due(row);
    }

    /// Puts `swept` in the place of the row of its version, and its entry in the expiry index if there is more to sweep
    /// later. The row is not among those of [`Batch::staged`]: the cache is told otherwise.
    pub(crate) fn sweep(&mut self, swept: &Row<'_>) {
        self.data.push(TAG_PUT);
        put_varint(&mut self.data, row_key_bytes(swept));
        put_row_key(&mut self.data, swept);
        put_varint(&mut self.data, row_value_bytes(swept));
        put_row_value(&mut self.data, swept);
        self.count += 1;
        self.put_due(swept);
    }

    fn put_due(&mut self, row: &Row<'_>) {
        let Some(at) = row.due_at() else { return };
        self.open_put(Family::Expiry, 8 + row_key_bytes(row));
        put_expiry_key(&mut self.data, at, row);
        put_varint(&mut self.data, 0);
    }

    /// Adds a hint: node `target` misses a row of `key` of clock `missed`. Replaces an earlier hint of that key.
    pub(crate) fn hint(&mut self, target: u64, key: KeyRef<'_>, missed: Hlc, stamp: u64) {
        self.open_put(Family::Hints, hints::key_bytes(key));
        hints::put_key(&mut self.data, target, key);
        put_varint(&mut self.data, hints::VALUE_BYTES);
        self.data.extend_from_slice(&Hint::value(missed, stamp));
        self.hints.push(StagedHint { target, hash: key.hash64(), key_len: key.key.len(), missed });
    }

    /// Adds that a hint of `key` was dropped: its slot is marked for anti-entropy.
    pub fn drop_hint(&mut self, key: KeyRef<'_>, missed: Version) {
        self.mark(key.slot(), missed.hlc);
        self.hints_dropped += 1;
    }

    /// Adds a mark of `slot`: some node misses a row of it up to clock `missed`, and no hint says which.
    pub(crate) fn mark(&mut self, slot: Slot, missed: Hlc) {
        self.put_meta(&hints::mark_name(slot), &missed.0.to_be_bytes());
    }

    /// What the keys of the rows that asked hold, in the order they were pushed, as the last commit found them. Empty if
    /// it failed.
    pub fn take_read_back(&mut self) -> Vec<ReadBack> {
        std::mem::take(&mut self.read_back)
    }

    pub(crate) fn put_read_back(&mut self, read_back: Vec<ReadBack>) {
        self.read_back = read_back;
    }

    /// How many rows were pushed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.staged.len()
    }

    /// How many bytes a commit writes to the log, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Forgets everything; keeps a bounded part of the memory.
    pub fn clear(&mut self) {
        self.data.truncate(HEADER_BYTES);
        self.data.shrink_to(RETAINED_BYTES_MAX);
        self.staged.clear();
        self.staged.shrink_to(RETAINED_BYTES_MAX / size_of::<Staged>());
        self.deleted.clear();
        self.deleted.shrink_to(RETAINED_BYTES_MAX / size_of::<u32>());
        self.hints.clear();
        self.hints.shrink_to(RETAINED_BYTES_MAX / size_of::<StagedHint>());
        self.hints_dropped = 0;
        self.scratch.clear();
        self.scratch.shrink_to(RETAINED_BYTES_MAX);
        self.count = 0;
        self.newest = Hlc::ZERO;
    }

    /// Adds a document to the meta family.
    pub(crate) fn put_meta(&mut self, name: &str, bytes: &[u8]) {
        self.put(Family::Meta, name.as_bytes(), bytes);
    }

    /// Adds the deletion of an entry.
    pub(crate) fn delete(&mut self, family: Family, key: &[u8]) {
        if family == Family::Rows {
            self.deleted.extend(prefix_of(key));
            self.data.push(TAG_DELETE);
        } else {
            self.data.push(TAG_DELETE_FAMILY);
            put_varint(&mut self.data, family as usize);
        }
        put_varint(&mut self.data, key.len());
        self.data.extend_from_slice(key);
        self.count += 1;
    }

    /// Adds an entry.
    pub(crate) fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        self.open_put(family, key.len());
        self.data.extend_from_slice(key);
        put_varint(&mut self.data, value.len());
        self.data.extend_from_slice(value);
    }

    /// The position prefix of each row that is put or deleted.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = u32> + '_ {
        let put = self.staged.iter().filter_map(|staged| prefix_of(self.data.get(staged.key_at..)?));
        put.chain(self.deleted.iter().copied())
    }

    /// The hints added.
    pub(crate) fn hints(&self) -> &[StagedHint] {
        &self.hints
    }

    /// How many hints there was no room for.
    pub(crate) fn hints_dropped(&self) -> u64 {
        self.hints_dropped
    }

    /// The greatest clock of any row pushed.
    pub(crate) fn newest(&self) -> Hlc {
        self.newest
    }

    /// Fills the header in and gives the whole encoding.
    pub(crate) fn encoded(&mut self) -> &[u8] {
        if let Some(count) = self.data.get_mut(8..HEADER_BYTES) {
            count.copy_from_slice(&self.count.to_le_bytes());
        }
        &self.data
    }

    /// Begins each row in `cache`.
    pub(crate) fn begin(&mut self, cache: &RowCache) {
        self.read_back.clear();
        for staged in &mut self.staged {
            staged.is_known = cache.knows(staged.hash);
        }
        for staged in &mut self.staged {
            staged.begun = cache.begin(staged.hash, staged.is_known);
        }
    }

    /// Working memory, and the rows as they were encoded, some at a time.
    pub(crate) fn staged(
        &mut self,
        at_a_time: usize,
    ) -> (&mut Vec<u8>, impl Iterator<Item = impl Iterator<Item = StagedRow<'_>> + Clone>) {
        let data = &self.data;
        let row = move |staged: &Staged| {
            let key = data.get(staged.key_at..staged.key_end).unwrap_or_default();
            let value = data.get(staged.value_at..staged.end).unwrap_or_default();
            StagedRow { hash: staged.hash, begun: staged.begun, is_asking: staged.is_asking, key, value }
        };
        (&mut self.scratch, self.staged.chunks(at_a_time).map(move |rows| rows.iter().map(row)))
    }

    fn open_put(&mut self, family: Family, key_len: usize) {
        self.data.push(TAG_PUT_FAMILY);
        put_varint(&mut self.data, family as usize);
        put_varint(&mut self.data, key_len);
        self.count += 1;
    }
}

/// The position prefix at the beginning of a row key.
fn prefix_of(row_key: &[u8]) -> Option<u32> {
    row_key.first_chunk::<PREFIX_BYTES>().map(|prefix| u32::from_be_bytes(*prefix))
}

#[cfg(test)]
mod tests;
