//! How far replicas are known to agree: per slot and other replica, a time before which everything that either of the
//! two held is held by both.
//!
//! ```text
//! document   version u8 = 1 | count u32 × { node u64 | first slot u16 | last slot u16 | clock u64 }
//! ```
//!
//! A time is a hybrid clock; it is the lesser of what the clocks of both showed when the exchange over the slot began,
//! before either looked at its rows. It says nothing of rows that had not arrived at either by then, old as their
//! versions may be: hints and writes under way.

use std::collections::BTreeMap;

use gyre_storage::{Hlc, SLOTS, Slot};

use super::slots::{SlotRun, SlotSet};
use crate::node::NodeId;
use crate::ring::Ring;
use crate::wire::{Malformed, Reader};

const VERSION: u8 = 1;
/// Bytes of one entry of the document.
const ENTRY_BYTES: usize = 8 + 2 + 2 + 8;

/// What is verified of one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedSlot {
    /// The other replicas of the slot, each with the time before which all that this node or the other held is held by
    /// both; [`Hlc::ZERO`] if they never compared it.
    pub with: Vec<(NodeId, Hlc)>,
}

impl VerifiedSlot {
    /// The time up to which this node has compared the slot with every other replica. [`Hlc::ZERO`] if one is missing;
    /// the greatest clock if there is no other replica.
    #[must_use]
    pub fn before(&self) -> Hlc {
        self.with.iter().map(|&(_, clock)| clock).min().unwrap_or(Hlc(u64::MAX))
    }
}

/// The verified times of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified(BTreeMap<(Slot, NodeId), Hlc>);

impl Verified {
    /// Notes that `peer` and this node agree on `runs` as of `clock`.
    pub fn note(&mut self, peer: NodeId, runs: &[SlotRun], clock: Hlc) {
        for slot in runs.iter().flat_map(|run| run.iter()) {
            let known = self.0.entry((slot, peer)).or_default();
            *known = clock.max(*known);
        }
    }

    /// As of when this node and `peer` agree on `slot`; [`Hlc::ZERO`] if never.
    #[must_use]
    pub fn with(&self, slot: Slot, peer: NodeId) -> Hlc {
        self.0.get(&(slot, peer)).copied().unwrap_or_default()
    }

    /// What `node` knows of `slot`, which it must be a replica of.
    #[must_use]
    pub fn slot(&self, ring: &Ring, node: NodeId, slot: Slot) -> Option<VerifiedSlot> {
        let others = ring.replicas(slot).iter().copied().filter(|&other| other != node);
        let with = others.map(|other| (other, self.with(slot, other))).collect();
        ring.is_replica(node, slot).then_some(VerifiedSlot { with })
    }

    /// Those of `slots` that are verified with `peer` as of `clock` or later.
    #[must_use]
    pub fn since(&self, peer: NodeId, slots: &SlotSet, clock: Hlc) -> SlotSet {
        let mut since = SlotSet::default();
        slots.iter().filter(|&slot| self.with(slot, peer) >= clock).for_each(|slot| since.insert(slot));
        since
    }

    /// The longest ago that one of `slots` was verified with `peer`, and which.
    #[must_use]
    pub fn oldest(&self, peer: NodeId, slots: &SlotSet) -> Option<(Hlc, Slot)> {
        slots.iter().map(|slot| (self.with(slot, peer), slot)).min()
    }

    /// Forgets nodes that `node` shares no slot with any more: what they hold once they are back, they have to show.
    pub fn keep_replicas(&mut self, ring: &Ring, node: NodeId) {
        self.0.retain(|&(slot, peer), _| ring.is_replica(node, slot) && ring.is_replica(peer, slot));
    }

    /// The document's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut runs: BTreeMap<NodeId, Vec<(SlotRun, Hlc)>> = BTreeMap::new();
        for (&(slot, peer), &clock) in &self.0 {
            let runs = runs.entry(peer).or_default();
            match runs.last_mut() {
                Some((run, of)) if run.last + 1 == slot && *of == clock => run.last = slot,
                _ => runs.push((SlotRun { first: slot, last: slot }, clock)),
            }
        }
        let count: usize = runs.values().map(Vec::len).sum();
        let mut out = Vec::with_capacity(5 + count * ENTRY_BYTES);
        out.push(VERSION);
        out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
        for (peer, runs) in runs {
            for (run, clock) in runs {
                out.extend_from_slice(&peer.0.to_le_bytes());
                out.extend_from_slice(&run.first.to_le_bytes());
                out.extend_from_slice(&run.last.to_le_bytes());
                out.extend_from_slice(&clock.0.to_le_bytes());
            }
        }
        out
    }

    /// Reads a document, all of `bytes`.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Verified, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Malformed);
        }
        let count = reader.u32()?;
        let mut verified = Verified::default();
        for _ in 0..count {
            let peer = NodeId(reader.u64()?);
            let run = SlotRun { first: reader.u16()?, last: reader.u16()? };
            if run.first > run.last || run.last >= SLOTS {
                return Err(Malformed);
            }
            verified.note(peer, &[run], Hlc(reader.u64()?));
        }
        reader.end()?;
        Ok(verified)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ring::RingMember;

    fn run(first: Slot, last: Slot) -> SlotRun {
        SlotRun { first, last }
    }

    fn ring(nodes: u64, factor: usize) -> Ring {
        let member = |id| RingMember { id: NodeId(id), rack: None, vnodes: 8 };
        Ring::build(&(1..=nodes).map(member).collect::<Vec<_>>(), factor)
    }

    proptest! {
        #[test]
        fn every_document_is_read_back(
            notes in prop::collection::vec((1u64..4, 0..SLOTS, 0u16..500, any::<u64>()), 0..20),
        ) {
            let mut verified = Verified::default();
            for (peer, first, length, clock) in notes {
                verified.note(NodeId(peer), &[run(first, first.saturating_add(length).min(SLOTS - 1))], Hlc(clock));
            }
            prop_assert_eq!(Verified::decode(&verified.encode()), Ok(verified));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Verified::decode(&bytes);
        }
    }

    #[test]
    fn equal_times_of_neighbours_are_one_entry() {
        let mut verified = Verified::default();
        verified.note(NodeId(2), &[run(0, SLOTS - 1)], Hlc(7));
        verified.note(NodeId(3), &[run(0, SLOTS - 1)], Hlc(7));
        assert_eq!(verified.encode().len(), 5 + 2 * ENTRY_BYTES);
    }

    #[test]
    fn times_never_fall_and_a_missing_replica_counts_as_never() {
        let (ring, node) = (ring(3, 3), NodeId(1));
        let mut verified = Verified::default();
        verified.note(NodeId(2), &[run(5, 9)], Hlc(7));
        verified.note(NodeId(2), &[run(9, 9)], Hlc(3));
        assert_eq!((verified.with(9, NodeId(2)), verified.with(4, NodeId(2))), (Hlc(7), Hlc::ZERO));
        assert_eq!(verified.slot(&ring, node, 9).unwrap().before(), Hlc::ZERO);
        verified.note(NodeId(3), &[run(9, 9)], Hlc(5));
        assert_eq!(verified.slot(&ring, node, 9).unwrap().before(), Hlc(5));
        assert_eq!(verified.slot(&ring, NodeId(4), 9), None, "no replica");
    }

    #[test]
    fn what_a_new_ring_separates_is_forgotten() {
        let small = ring(3, 2);
        let slot = (0..SLOTS).find(|&slot| small.is_replica(NodeId(1), slot) && small.is_replica(NodeId(2), slot));
        let slot = slot.unwrap();
        let mut verified = Verified::default();
        verified.note(NodeId(2), &[run(slot, slot)], Hlc(7));
        verified.note(NodeId(3), &[run(slot, slot)], Hlc(7));
        verified.keep_replicas(&small, NodeId(1));
        assert_eq!([2, 3].map(|peer| verified.with(slot, NodeId(peer))), [Hlc(7), Hlc::ZERO]);
    }
}
