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

/// The verified times of one node: by peer, in the longest runs of neighbouring slots of one time, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified(BTreeMap<NodeId, Vec<(SlotRun, Hlc)>>);

impl Verified {
    /// Notes that `peer` and this node agree on `runs` as of `clock`.
    pub fn note(&mut self, peer: NodeId, runs: &[SlotRun], clock: Hlc) {
        let known = self.0.entry(peer).or_default();
        for &run in runs {
            raise(known, run, clock);
        }
    }

    /// As of when this node and `peer` agree on `slot`; [`Hlc::ZERO`] if never.
    #[must_use]
    pub fn with(&self, slot: Slot, peer: NodeId) -> Hlc {
        let runs = self.0.get(&peer).map(Vec::as_slice).unwrap_or_default();
        let at = runs.partition_point(|(run, _)| run.last < slot);
        runs.get(at).filter(|(run, _)| run.first <= slot).map_or(Hlc::ZERO, |&(_, clock)| clock)
    }

    /// What `node` knows of `slot`; `None` if it is no replica of it.
    #[must_use]
    pub fn slot(&self, ring: &Ring, node: NodeId, slot: Slot) -> Option<VerifiedSlot> {
        let others = ring.replicas(slot).iter().copied().filter(|&other| other != node);
        let with = others.map(|other| (other, self.with(slot, other))).collect();
        ring.is_replica(node, slot).then_some(VerifiedSlot { with })
    }

    /// The slots that are verified with `peer` as of `clock` or later.
    #[must_use]
    pub fn since(&self, peer: NodeId, clock: Hlc) -> SlotSet {
        let runs = self.0.get(&peer).map(Vec::as_slice).unwrap_or_default();
        let late = runs.iter().filter(|(_, of)| *of >= clock);
        SlotSet::of(&late.map(|&(run, _)| run).collect::<Vec<SlotRun>>())
    }

    /// The longest ago that one of `slots` was verified with `peer`, and which.
    #[must_use]
    pub fn oldest(&self, peer: NodeId, slots: &SlotSet) -> Option<(Hlc, Slot)> {
        let mut never = slots.clone();
        never.subtract(&self.since(peer, Hlc::ZERO));
        if let Some(slot) = never.iter().next() {
            return Some((Hlc::ZERO, slot));
        }
        let runs = self.0.get(&peer).map(Vec::as_slice).unwrap_or_default();
        let first = |run: SlotRun| run.iter().find(|&slot| slots.contains(slot));
        runs.iter().filter_map(|&(run, clock)| Some((clock, first(run)?))).min()
    }

    /// Forgets nodes that `node` shares no slot with any more: what they hold once they are back, they have to show.
    pub fn keep_replicas(&mut self, ring: &Ring, node: NodeId) {
        for (&peer, runs) in &mut self.0 {
            let mut kept = Vec::new();
            for (slot, clock) in
                runs.iter().flat_map(|&(run, clock)| run.iter().map(move |slot| (slot, clock)))
            {
                if ring.is_replica(node, slot) && ring.is_replica(peer, slot) {
                    push(&mut kept, u32::from(slot), u32::from(slot), clock);
                }
            }
            *runs = kept;
        }
        self.0.retain(|_, runs| !runs.is_empty());
    }

    /// The document's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let count: usize = self.0.values().map(Vec::len).sum();
        let mut out = Vec::with_capacity(5 + count * ENTRY_BYTES);
        out.push(VERSION);
        out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
        for (peer, runs) in &self.0 {
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

/// Raises the time of `run` to `clock` where it is less.
fn raise(runs: &mut Vec<(SlotRun, Hlc)>, run: SlotRun, clock: Hlc) {
    let (first, last) = (u32::from(run.first), u32::from(run.last));
    // The first slot of the run that is not in `raised` yet.
    let mut next = first;
    let mut raised = Vec::with_capacity(runs.len() + 2);
    for (own, known) in std::mem::take(runs) {
        let (own_first, own_last) = (u32::from(own.first), u32::from(own.last));
        if own_first < first {
            push(&mut raised, own_first, own_last.min(first - 1), known);
        }
        if own_last >= first && next <= last {
            if next < own_first {
                push(&mut raised, next, last.min(own_first - 1), clock);
                next = own_first;
            }
            push(&mut raised, next, last.min(own_last), known.max(clock));
            next = next.max(last.min(own_last) + 1);
        }
        push(&mut raised, own_first.max(last + 1), own_last, known);
    }
    push(&mut raised, next, last, clock);
    *runs = raised;
}

/// Adds `first..=last`, if that is not empty, behind all others.
fn push(runs: &mut Vec<(SlotRun, Hlc)>, first: u32, last: u32, clock: Hlc) {
    let (Ok(first), Ok(last)) = (Slot::try_from(first), Slot::try_from(last)) else { return };
    if first > last {
        return;
    }
    match runs.last_mut() {
        Some((run, of)) if *of == clock && u32::from(run.last) + 1 == u32::from(first) => run.last = last,
        _ => runs.push((SlotRun { first, last }, clock)),
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
        fn runs_are_what_a_map_of_slots_would_be(
            notes in prop::collection::vec((0..60u16, 0..20u16, 1..6u64), 0..12),
            asked in 0..7u64,
        ) {
            let (mut verified, mut model, peer) = (Verified::default(), BTreeMap::new(), NodeId(2));
            for (first, length, clock) in notes {
                verified.note(peer, &[run(first, first + length)], Hlc(clock));
                for slot in first..=first + length {
                    let known = model.entry(slot).or_insert(Hlc::ZERO);
                    *known = Hlc(clock).max(*known);
                }
            }
            let known = |slot: Slot| model.get(&slot).copied().unwrap_or_default();
            for slot in 0..90 {
                prop_assert_eq!(verified.with(slot, peer), known(slot), "{}", slot);
            }
            let late: Vec<Slot> = model.iter().filter(|(_, of)| **of >= Hlc(asked)).map(|(slot, _)| *slot).collect();
            prop_assert_eq!(verified.since(peer, Hlc(asked)).iter().collect::<Vec<_>>(), late);
            let slots = SlotSet::of(&[run(10, 30)]);
            let oldest = slots.iter().map(|slot| (known(slot), slot)).min();
            prop_assert_eq!(verified.oldest(peer, &slots), oldest);
            let runs = verified.0.get(&peer).cloned().unwrap_or_default();
            prop_assert!(runs.windows(2).all(|pair| {
                let ((a, of), (b, other)) = (pair[0], pair[1]);
                a.last < b.first && (a.last + 1 < b.first || of != other)
            }), "in the longest runs: {:?}", runs);
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
        let slot =
            (0..SLOTS).find(|&slot| small.is_replica(NodeId(1), slot) && small.is_replica(NodeId(2), slot));
        let slot = slot.unwrap();
        let mut verified = Verified::default();
        verified.note(NodeId(2), &[run(slot, slot)], Hlc(7));
        verified.note(NodeId(3), &[run(slot, slot)], Hlc(7));
        verified.keep_replicas(&small, NodeId(1));
        assert_eq!([2, 3].map(|peer| verified.with(slot, NodeId(peer))), [Hlc(7), Hlc::ZERO]);
    }
}
