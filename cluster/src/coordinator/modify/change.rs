//! What a read-modify-write is to do, kept while it waits.

use crate::modify::Modify;

/// A read-modify-write that outlives the buffer it came in. Increments need no allocation.
#[derive(Debug)]
pub(super) enum Change {
    Add(i64),
    /// With a context.
    Siblings(Vec<u8>),
    Other(Vec<u8>),
}

impl Change {
    pub(super) fn of(modify: &Modify<'_>) -> Change {
        if let Modify::Add { delta } = *modify {
            return Change::Add(delta);
        }
        let mut encoded = Vec::new();
        modify.encode(&mut encoded);
        if modify.has_context() { Change::Siblings(encoded) } else { Change::Other(encoded) }
    }

    /// Whether it may write a cell that only this node writes, from what this node holds.
    pub(super) fn writes_own_cell(&self) -> bool {
        !matches!(self, Change::Other(_))
    }

    pub(super) fn modify(&self) -> Modify<'_> {
        match self {
            Change::Add(delta) => Modify::Add { delta: *delta },
            Change::Siblings(encoded) | Change::Other(encoded) => {
                Modify::decode(encoded).expect("a read-modify-write reads back what it wrote")
            }
        }
    }
}
