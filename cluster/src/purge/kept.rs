//! What a node keeps for others, and of how old: before that nothing may be purged anywhere, or it would come back.
//!
//! Hints name keys of which others miss rows. Marks say that others miss rows that no hint names. And rows of slots that a
//! node is no replica of may be left when neither does: because they could not be forgotten at that moment, or because the
//! node itself counts on them. The first kind is forgotten here, the second for the life of the process.

use gyre_storage::{Hlc, KeyRef, SLOTS, Slot, StorageError, Store};

use crate::hints::goes_on_from;
use crate::node::NodeId;
use crate::ring::Ring;

/// Keys and bytes of a page.
const PAGE_KEYS: usize = 256;
const PAGE_BYTES: usize = 256 << 10;
/// Bits of a position prefix below its slot.
const SLOT_SHIFT: u32 = 18;

/// Whose rows are looked for.
#[derive(Clone, Copy, Debug)]
pub struct Keeper {
    /// The node.
    pub node: NodeId,
    /// The actor of the cells that its process writes.
    pub actor: u64,
}

/// Before which clock `keeper` keeps nothing for others: at most `clock`, its hybrid clock when this begins. Leftovers of
/// before `forget_before` that nothing names are forgotten on the way. [`Hlc::ZERO`] while something is kept of which is not
/// known how old it is. Walks all rows that the node is no replica of: for a thread that may block.
///
/// # Errors
/// [`StorageError`] from the store.
pub fn floor(
    store: &Store,
    ring: &Ring,
    keeper: Keeper,
    clock: Hlc,
    forget_before: Hlc,
) -> Result<Hlc, StorageError> {
    let is_foreign = |slot: Slot| !ring.is_replica(keeper.node, slot);
    if store.marked_slots()?.iter().any(|&(slot, _)| is_foreign(slot)) {
        return Ok(Hlc::ZERO);
    }
    let mut floor = store.hint_stats().iter().map(|stats| stats.oldest).fold(clock, Hlc::min);
    let mut slot = 0;
    while slot < SLOTS {
        let end = (slot..SLOTS).find(|&at| is_foreign(at) != is_foreign(slot)).unwrap_or(SLOTS);
        if is_foreign(slot) {
            floor = floor.min(leftovers(store, keeper, slot..end, forget_before)?);
        }
        slot = end;
    }
    Ok(floor)
}

/// The oldest row that is left in `slots`.
fn leftovers(
    store: &Store,
    keeper: Keeper,
    slots: std::ops::Range<Slot>,
    forget_before: Hlc,
) -> Result<Hlc, StorageError> {
    let (mut from, end) = (u64::from(slots.start) << SLOT_SHIFT, u64::from(slots.end) << SLOT_SHIFT);
    let mut floor = Hlc(u64::MAX);
    loop {
        let page = store.scan(None, from, end, PAGE_KEYS, PAGE_BYTES, false)?;
        for (db, name, record) in &page.entries {
            let key = KeyRef::new(*db, name);
            let is_old = record.newest_version().hlc < forget_before;
            let is_gone = is_old && !goes_on_from(record, keeper.actor) && store.forget(key, record)?;
            if !is_gone {
                floor = record.rows(key).map(|row| row.version.hlc).fold(floor, Hlc::min);
            }
        }
        match page.next {
            Some(next) => from = next,
            None => return Ok(floor),
        }
    }
}
