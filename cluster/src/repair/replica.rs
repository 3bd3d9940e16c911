//! What anti-entropy needs of a replica's store.

use gyre_storage::tree::{KeyStates, PrefixRange, RangeSum, RecordPage};
use gyre_storage::{Hlc, KeyRef, Record, Row, Slot, StorageError, Store};

/// A store with its tree. The server's is [`Store`]; the simulation distorts it.
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

impl ReplicaStore for Store {
    fn sums(&self, ranges: &[PrefixRange]) -> Result<Vec<RangeSum>, StorageError> {
        self.tree_sums(ranges)
    }

    fn key_states(&self, range: PrefixRange, keys_max: usize) -> Result<KeyStates, StorageError> {
        Store::key_states(self, range, keys_max)
    }

    fn records_of(
        &self,
        range: PrefixRange,
        hashes: &[u64],
        bytes_max: usize,
    ) -> Result<RecordPage, StorageError> {
        Store::records_of(self, range, hashes, bytes_max)
    }

    fn read(&self, key: KeyRef<'_>) -> Result<Record, StorageError> {
        // Also where rows were lost: they come back by this.
        Store::read_held(self, key)
    }

    fn store(&self, rows: &[Row<'_>]) -> Result<(), StorageError> {
        let mut batch = self.batch();
        rows.iter().for_each(|row| batch.push(row));
        self.commit(&mut batch)
    }

    fn mark(&self, marks: &[(Slot, Hlc)]) -> Result<(), StorageError> {
        self.mark_slots(marks)
    }
}
