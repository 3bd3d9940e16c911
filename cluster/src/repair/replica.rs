//! What anti-entropy needs of a replica's store.

use gyre_storage::{Hlc, KeyRef, Record, Row, Slot, StorageError, Version};

/// A half-open range of position prefixes, 0 to 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixRange {
    /// The first prefix.
    pub from: u64,
    /// The first prefix past the range.
    pub end: u64,
}

/// The sum over a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeSum {
    /// The wrapping sum of the hashes of its keys' states.
    pub sum: u64,
    /// How many keys.
    pub keys: u64,
}

/// The state of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyState {
    /// The hash of database and key.
    pub hash: u64,
    /// What the sums add up.
    pub digest: u64,
    /// The newest version of any of its rows.
    pub newest: Version,
    /// Whether it has a value.
    pub is_live: bool,
}

/// A page of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyStates {
    /// By prefix.
    pub states: Vec<KeyState>,
    /// Where the next page begins.
    pub next: Option<u64>,
}

/// A page of records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordPage {
    /// Database, key, record.
    pub entries: Vec<(u8, Vec<u8>, Record)>,
    /// Where the next page begins.
    pub next: Option<u64>,
}

/// A store with its tree. The server's is [`gyre_storage::Store`]; the simulation distorts it.
pub trait ReplicaStore {
    /// The sums of `ranges`, of all rows stored when it is called.
    fn sums(&self, ranges: &[PrefixRange]) -> Result<Vec<RangeSum>, StorageError>;
    /// The keys of `range`, about `keys_max` of them at most; a page ends on the border of a prefix.
    fn key_states(&self, range: PrefixRange, keys_max: usize) -> Result<KeyStates, StorageError>;
    /// The records of the keys of `range` whose hashes are in `hashes` (ascending), about `bytes_max` bytes of them.
    fn records_of(
        &self,
        range: PrefixRange,
        hashes: &[u64],
        bytes_max: usize,
    ) -> Result<RecordPage, StorageError>;
    /// The record of one key.
    fn read(&self, key: KeyRef<'_>) -> Result<Record, StorageError>;
    /// Stores rows, all or none.
    fn store(&self, rows: &[Row<'_>]) -> Result<(), StorageError>;
    /// Marks slots: some node misses rows of them up to these clocks.
    fn mark(&self, marks: &[(Slot, Hlc)]) -> Result<(), StorageError>;
}
