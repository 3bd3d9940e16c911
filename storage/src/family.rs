//! The key spaces of a store, which RocksDB calls column families.

/// The key spaces of a store. The number is the column family's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    /// Rows, by row key.
    Rows = 0,
    /// One entry for each row with an expiry, by time.
    Expiry = 1,
    /// Small documents by name.
    Meta = 2,
    /// Keys of which other nodes miss rows, by node.
    Hints = 3,
    /// The leaves of Merkle trees, by slot.
    Tree = 4,
    /// Which segments have rows that their tree does not count yet.
    Dirty = 5,
}

impl Family {
    pub(crate) const ALL: [Family; 6] =
        [Family::Rows, Family::Expiry, Family::Meta, Family::Hints, Family::Tree, Family::Dirty];

    /// The column family's name.
    #[cfg(feature = "rocksdb")]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Family::Rows => "default",
            Family::Expiry => "expiry",
            Family::Meta => "meta",
            Family::Hints => "hints",
            Family::Tree => "tree",
            Family::Dirty => "dirty",
        }
    }
}
