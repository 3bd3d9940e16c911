//! VC.SET and VC.DEL: writes with a context, each into the sibling cell of the actor that serves it.
//!
//! The actor takes all that it and the replicas it has read know, drops what the context has seen, adds the new value
//! under a new dot, and writes the result as its own cell. A row so written descends from the actor's earlier ones: the
//! caller must see to it that `record` has the newest of them.

use gyre_storage::siblings::{Dot, PLAIN, Sibling, SiblingSet};
use gyre_storage::{Cell, Hlc, Record, UnixMillis, Version};

use super::context::CausalContext;
use super::{Change, Crowd, ModifyError, ModifyReply, NewBody, NewRow};

/// From so many siblings on the operator is told: whoever writes does not merge.
pub const SIBLINGS_WARNED: usize = 25;
/// A write that would leave so many siblings keeps only the newest.
pub const SIBLINGS_MAX: usize = 100;
/// The longest value of VC.SET. All siblings of a key are written together.
pub const SIBLING_BYTES_MAX: usize = 8 << 20;
/// A write that would leave more bytes of siblings keeps only the newest.
pub const SIBLINGS_BYTES_MAX: usize = 32 << 20;
/// A key that so many actors have written moves to a new base, without the actors of which nothing is left.
pub const ACTORS_FOLDED: usize = 256;

/// VC.SET: a value whose time has passed at `now` only replaces.
pub(super) fn set(
    record: &Record,
    now: UnixMillis,
    dot: Dot,
    context: &[u8],
    value: &[u8],
    expiry: Option<UnixMillis>,
) -> Result<Change, ModifyError> {
    if value.len() > SIBLING_BYTES_MAX {
        return Err(ModifyError::SiblingTooLong);
    }
    let mut known = Known::of(record, now, context)?;
    known.discard();
    if expiry.is_none_or(|at| at > now) {
        known.set.put(Sibling::new(dot, expiry, value));
    }
    let (row, crowd) = known.into_row(dot);
    Ok(Change { row: Some(row), reply: ModifyReply::Done, crowd })
}

/// VC.DEL: answers how many values it has deleted. Writes nothing if the context has seen nothing that is not known to
/// be replaced already.
pub(super) fn delete(
    record: &Record,
    now: UnixMillis,
    dot: Dot,
    context: &[u8],
) -> Result<Change, ModifyError> {
    let mut known = Known::of(record, now, context)?;
    let is_current = known.base == record.sibling_state().base;
    let seen = &known.context.seen;
    let live = record.siblings(now).iter().filter(|sibling| is_current && seen.covers(sibling.dot)).count();
    let reply = ModifyReply::Integer(i64::try_from(live).unwrap_or(i64::MAX));
    if live == 0 && known.set.seen().descends(seen) {
        return Ok(Change::none(reply));
    }
    known.discard();
    let (row, crowd) = known.into_row(dot);
    Ok(Change { row: Some(row), reply, crowd })
}

/// See [`super::seen_in_context`].
pub(super) fn seen(record: &Record, context: &[u8]) -> Result<Version, ModifyError> {
    let context = CausalContext::decode(context).map_err(|_| ModifyError::BadContext)?;
    // Sets know of events whose rows are void, too.
    let state = record.sibling_state();
    let event = state.set.seen().newest().max(context.seen.newest());
    let event = Version { hlc: Hlc(event), node: u64::MAX };
    Ok(record.newest_version().max(state.base).max(context.base).max(event))
}

/// What is known of a key when it is written with a context.
struct Known<'a> {
    base: Version,
    set: SiblingSet<'a>,
    /// The value that was written without a context, if no context has seen it.
    plain: Option<Dot>,
    context: CausalContext,
}

impl<'a> Known<'a> {
    fn of(record: &'a Record, now: UnixMillis, context: &[u8]) -> Result<Known<'a>, ModifyError> {
        let mut context = CausalContext::decode(context).map_err(|_| ModifyError::BadContext)?;
        let state = record.sibling_state();
        let base = state.base.max(context.base);
        if context.base != base {
            // Of the value without a context another one was seen. Dots of siblings are never repeated, on no base.
            context.seen.retain(|actor| actor != PLAIN);
        }
        // The context has seen the key set or deleted, and this node has not: all that is known here was replaced.
        let is_replaced = base > state.base;
        let mut set = if is_replaced { SiblingSet::default() } else { state.set };
        set.retain(|sibling| sibling.is_live(now));
        let plain = state.plain.filter(|&plain| !is_replaced && !set.seen().covers(plain));
        Ok(Known { base, set, plain, context })
    }

    fn discard(&mut self) {
        self.set.discard(&self.context.seen);
        self.plain = self.plain.filter(|&plain| !self.set.seen().covers(plain));
    }

    /// The row to write, within all bounds.
    fn into_row(mut self, dot: Dot) -> (NewRow, Option<Crowd>) {
        let crowd = self.merge_crowd();
        if self.set.seen().len() > ACTORS_FOLDED {
            self.base = Version { hlc: Hlc(dot.event), node: 0 };
            self.set.forget_others(dot.actor);
        }
        let mut set = Vec::new();
        self.set.encode(&mut set);
        let body = NewBody::Siblings { base: self.base, set };
        (NewRow { cell: Cell::Siblings { actor: dot.actor }, body, expiry: None }, crowd)
    }

    /// Keeps only the newest sibling if there are too many; says how many there are if they are many.
    fn merge_crowd(&mut self) -> Option<Crowd> {
        let siblings = self.set.siblings().len() + usize::from(self.plain.is_some());
        let bytes: usize = self.set.siblings().iter().map(|sibling| sibling.value.len()).sum();
        if siblings < SIBLINGS_MAX && bytes <= SIBLINGS_BYTES_MAX {
            return (siblings >= SIBLINGS_WARNED).then_some(Crowd::Many { siblings });
        }
        let newest = self.set.siblings().iter().map(|sibling| sibling.dot).max();
        self.set.retain(|sibling| Some(sibling.dot) == newest);
        if let Some(plain) = self.plain {
            self.set.see(plain);
        }
        Some(Crowd::Merged { dropped: siblings - 1 })
    }
}

#[cfg(test)]
mod tests;
