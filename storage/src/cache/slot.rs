//! Slots of the row cache: what counts the rows under way, and where keys stand.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::version::{Hlc, Version};

pub(super) const STRIPES: usize = 256;
pub(super) const SLOTS_PER_STRIPE: usize = 256;

/// What is known of the rows of a slot: in one place, since whoever looks waits for memory.
pub(super) struct Slot {
    pub(super) begun: AtomicU64,
    /// Changes only under the stripe's lock.
    pub(super) done: AtomicU64,
    /// The greatest version done, its clock and its node. Read and written only under the stripe's lock.
    mark: [AtomicU64; 2],
}

impl Slot {
    pub(super) fn new(mark: Version) -> Slot {
        let mark = [AtomicU64::new(mark.hlc.0), AtomicU64::new(mark.node)];
        Slot { begun: AtomicU64::default(), done: AtomicU64::default(), mark }
    }

    /// Raises the mark to `version`. Answers whether that is above it.
    pub(super) fn raise_mark(&self, version: Version) -> bool {
        let [hlc, node] = &self.mark;
        let mark = Version { hlc: Hlc(hlc.load(Ordering::Relaxed)), node: node.load(Ordering::Relaxed) };
        let is_above = version > mark;
        if is_above {
            hlc.store(version.hlc.0, Ordering::Relaxed);
            node.store(version.node, Ordering::Relaxed);
        }
        is_above
    }
}

/// Which stripe, and which slot of all.
pub(super) struct Place {
    pub(super) stripe: usize,
    pub(super) slot: usize,
}

impl Place {
    pub(super) fn of(hash: u64) -> Place {
        // The table takes its bucket from the low bits and its tag from the top seven.
        let bits = (hash >> 40) as usize;
        let stripe = bits % STRIPES;
        Place { stripe, slot: stripe * SLOTS_PER_STRIPE + (bits / STRIPES) % SLOTS_PER_STRIPE }
    }
}
