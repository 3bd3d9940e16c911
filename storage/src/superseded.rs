//! Which rows a compaction may drop.

use std::sync::Arc;

use crate::encode::{PREFIX_BYTES, VERSION_BYTES};
use crate::version::{Hlc, Version};

/// Looks at the rows of one compaction, in order, and tells which are superseded.
///
/// The first row seen of a cell stays: it is the newest one in this compaction, and what other files hold of the cell
/// is either newer, which a later compaction sees first, or older. So the newest row of a cell is never dropped, be it
/// a tombstone or not. A row at or before its database's horizon may always go, since every read puts a tombstone of
/// the horizon's version in its place.
#[derive(Debug)]
pub(crate) struct Superseded {
    horizons: Arc<Vec<Version>>,
    cell: Vec<u8>,
}

impl Superseded {
    /// For a compaction that begins while `horizons` (by database number) are in force.
    pub(crate) fn new(horizons: Arc<Vec<Version>>) -> Superseded {
        Superseded { horizons, cell: Vec::new() }
    }

    /// Whether the row with this key may be dropped. What is not a row key is kept.
    pub(crate) fn drops(&mut self, row_key: &[u8]) -> bool {
        let Some((cell, version)) = row_key.split_last_chunk::<VERSION_BYTES>() else { return false };
        let Some(&db) = cell.get(PREFIX_BYTES) else { return false };
        if cell == self.cell {
            return true;
        }
        self.cell.clear();
        self.cell.extend_from_slice(cell);
        let horizon = self.horizons.get(usize::from(db)).copied().unwrap_or_default();
        horizon != Version::ZERO && version_of(version) <= horizon
    }
}

fn version_of(complement: &[u8; VERSION_BYTES]) -> Version {
    let ([hlc, node], _) = complement.as_chunks::<8>() else { return Version::ZERO };
    Version { hlc: Hlc(!u64::from_be_bytes(*hlc)), node: !u64::from_be_bytes(*node) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::put_row_key;
    use crate::key::KeyRef;
    use crate::row::{Body, Cell, Row};

    fn key(db: u8, key: &[u8], cell: Cell, hlc: u64) -> Vec<u8> {
        let version = Version { hlc: Hlc(hlc), node: 3 };
        let row = Row { key: KeyRef::new(db, key), cell, version, expiry: None, body: Body::Tombstone };
        let mut out = Vec::new();
        put_row_key(&mut out, &row);
        out
    }

    #[test]
    fn first_row_of_each_cell_stays_and_older_ones_go() {
        let mut filter = Superseded::new(Arc::default());
        let actor = |actor| Cell::Counter { actor };
        assert!(!filter.drops(&key(0, b"k", actor(1), 9)));
        assert!(filter.drops(&key(0, b"k", actor(1), 8)));
        assert!(!filter.drops(&key(0, b"k", actor(2), 7)));
        assert!(!filter.drops(&key(0, b"k", Cell::Register, 6)));
        assert!(filter.drops(&key(0, b"k", Cell::Register, 5)));
        assert!(!filter.drops(&key(1, b"k", Cell::Register, 4)));
        assert!(!filter.drops(&key(1, b"kk", Cell::Register, 3)));
    }

    #[test]
    fn rows_up_to_the_horizon_go() {
        let horizon = Version { hlc: Hlc(5), node: 3 };
        let mut filter = Superseded::new(Arc::new(vec![Version::ZERO, horizon]));
        assert!(!filter.drops(&key(0, b"a", Cell::Register, 4)));
        assert!(!filter.drops(&key(1, b"a", Cell::Register, 6)));
        assert!(filter.drops(&key(1, b"b", Cell::Register, 5)));
        assert!(!filter.drops(&key(2, b"b", Cell::Register, 5)));
    }

    #[test]
    fn what_is_no_row_key_stays() {
        let mut filter = Superseded::new(Arc::default());
        for length in 0..21 {
            assert!(!filter.drops(&vec![0; length]));
            assert!(!filter.drops(&vec![0; length]));
        }
    }
}
