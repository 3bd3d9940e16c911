//! Rows: the immutable, versioned unit that replicas store and exchange.

use crate::key::KeyRef;
use crate::siblings::SiblingSet;
use crate::version::{UnixMillis, Version};

/// Which cell of a key a row belongs to. A read takes the newest row of each cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cell {
    /// The key's string value (later: a collection's head).
    Register,
    /// One actor's share of a counter. Only that actor writes it.
    Counter {
        /// The node incarnation that owns the cell.
        actor: u64,
    },
    /// The values of the key as one actor knows them ([`crate::siblings`]). Only that actor writes it.
    Siblings {
        /// The node incarnation that owns the cell.
        actor: u64,
    },
}

/// What a row says about its cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// The cell was deleted.
    Tombstone,
    /// A string value. Only in a [`Cell::Register`].
    Value(&'a [u8]),
    /// What the actor has added, in sum, to the register row of version `base`
    /// ([`Version::ZERO`] when there was none). Only in a [`Cell::Counter`].
    Counter {
        /// The register version the sum counts from; sums on any other base are void.
        base: Version,
        /// Sum of the actor's increments on that base, modulo 2^64.
        sum: i64,
    },
    /// A sibling set on top of the register row of version `base` ([`Version::ZERO`] when there was none). Only in a
    /// [`Cell::Siblings`].
    Siblings {
        /// The register version that the set stands on; sets on an older base than another's are void. No greater than
        /// the row's own version.
        base: Version,
        /// The encoded [`crate::siblings::SiblingSet`]. Each row of the cell descends from those before it.
        set: &'a [u8],
    },
}

/// One immutable version of one cell, borrowing its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// The key the cell belongs to.
    pub key: KeyRef<'a>,
    /// The cell.
    pub cell: Cell,
    /// Its place in the total order.
    pub version: Version,
    /// From when on the row counts as deleted; `None` never.
    pub expiry: Option<UnixMillis>,
    /// Its content.
    pub body: Body<'a>,
}

impl Row<'_> {
    /// When the row is to be swept: when its value expires, or the first of its siblings that was not swept. `None` if
    /// there is nothing to sweep.
    pub(crate) fn due_at(&self) -> Option<UnixMillis> {
        match self.body {
            Body::Value(_) => self.expiry,
            Body::Siblings { set, .. } => SiblingSet::decode(set).ok()?.due_at(),
            Body::Tombstone | Body::Counter { .. } => None,
        }
    }

    /// Bytes of the row's value, and no fewer than its record takes beside them.
    pub(crate) fn bytes(&self) -> usize {
        const RECORD_HEAD_BYTES: usize = 27;
        RECORD_HEAD_BYTES
            + match self.body {
                Body::Value(bytes) | Body::Siblings { set: bytes, .. } => bytes.len(),
                Body::Tombstone | Body::Counter { .. } => 0,
            }
    }
}
