//! The operations in flight.

use slab::Slab;

use super::flush::FlushOp;
use super::forward::ForwardOp;
use super::handoff::HandOffOp;
use super::inspect::InspectOp;
use super::modify::ModifyOp;
use super::read::ReadOp;
use super::scan::ScanOp;
use super::shell::{LinkId, OpId, Tag};
use super::statistics::Operation;
use super::write::WriteOp;
use crate::level::Consistency;
use crate::message::RequestId;
use crate::time::MonoMicros;

/// Who waits for an operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    /// A client of this node.
    Client(Tag),
    /// A peer that forwarded a read-modify-write here.
    Peer { link: LinkId, request: RequestId },
    /// Nobody: the node that forwarded it has told its client.
    Nobody,
}

/// An operation, by its kind. The larger ones are boxed: every operation is moved in and out with room for the largest, which
/// reads would double. A write is not: that would be an allocation for every SET.
#[derive(Debug)]
pub(crate) enum Kind {
    Read(Box<ReadOp>),
    Write(WriteOp),
    Modify(Box<ModifyOp>),
    Forward(ForwardOp),
    Scan(Box<ScanOp>),
    Flush(Box<FlushOp>),
    Inspect(Box<InspectOp>),
    HandOff(Box<HandOffOp>),
}

/// An operation with what is common to all.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) generation: u32,
    pub(crate) origin: Origin,
    pub(crate) operation: Operation,
    pub(crate) level: Consistency,
    /// When it is over; alarms for an earlier time are out of date.
    pub(crate) deadline: MonoMicros,
    /// It has ended for whoever waits, and stays only for late answers.
    pub(crate) is_lingering: bool,
    pub(crate) kind: Kind,
}

/// All operations, by their id.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    slots: Slab<Slot>,
    generation: u32,
    lingering: usize,
}

impl Operations {
    /// How many have not ended.
    pub(crate) fn unfinished(&self) -> usize {
        self.slots.len() - self.lingering
    }

    /// How many stay for late answers.
    pub(crate) fn lingering(&self) -> usize {
        self.lingering
    }

    /// The id that the next [`insert`](Operations::insert) must be given.
    pub(crate) fn next_id(&mut self) -> OpId {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        let index = u32::try_from(self.slots.vacant_key()).unwrap_or(u32::MAX);
        assert!(index <= OpId::INDEX_MAX, "operations are bounded far below what an id can tell apart");
        OpId { index, generation: self.generation }
    }

    /// Keeps an operation under the id that [`next_id`](Operations::next_id) gave last.
    pub(crate) fn insert(&mut self, slot: Slot) {
        self.slots.insert(slot);
    }

    /// Operation `op`, unless it has ended.
    pub(crate) fn get_mut(&mut self, op: OpId) -> Option<&mut Slot> {
        self.slots.get_mut(op.index as usize).filter(|slot| slot.generation == op.generation)
    }

    /// Operation `op`, unless it has ended.
    pub(crate) fn get(&self, op: OpId) -> Option<&Slot> {
        self.slots.get(op.index as usize).filter(|slot| slot.generation == op.generation)
    }

    /// Marks `op` as ended for whoever waits.
    pub(crate) fn linger(&mut self, op: OpId) {
        if let Some(slot) = self.get_mut(op) {
            assert!(!slot.is_lingering, "an operation ends once");
            slot.is_lingering = true;
            self.lingering += 1;
        }
    }

    /// Takes `op` out.
    pub(crate) fn remove(&mut self, op: OpId) -> Option<Slot> {
        self.get(op)?;
        let slot = self.slots.try_remove(op.index as usize)?;
        self.lingering -= usize::from(slot.is_lingering);
        Some(slot)
    }

    /// The ids of all.
    pub(crate) fn ids(&self) -> Vec<OpId> {
        let id = |(index, slot): (usize, &Slot)| OpId {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            generation: slot.generation,
        };
        self.slots.iter().map(id).collect()
    }
}
