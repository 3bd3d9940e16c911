//! What the other replicas have said, slot by slot, and what this one says to them.

use std::collections::BTreeMap;
use std::time::Duration;

use gyre_storage::{SLOTS, Slot};

use super::message::{PurgeMessage, Report, SlotReport};
use crate::node::NodeId;
use crate::ring::Ring;
use crate::time::MonoMicros;

/// For how long a statement is believed: as long as its node can hardly have restarted, and started to hold less.
pub(super) const TTL: Duration = Duration::from_secs(100);

/// What a peer has said.
#[derive(Debug, Default)]
struct Said {
    /// By ascending slots.
    reports: Vec<Report>,
    /// A sum over what it hides and has settled, which rises whenever one of them does.
    progress: u64,
    at: MonoMicros,
    /// The parts of a statement that is not complete yet, and its number.
    partial: Vec<Report>,
    number: u64,
    next_part: u16,
}

/// What all peers have said.
#[derive(Debug, Default)]
pub(super) struct Statements(BTreeMap<NodeId, Said>);

impl Statements {
    /// A part of a statement of `from` has arrived at `now`. Answers whether it was the last one, and tells that the peer
    /// hides or has settled more than before.
    pub(super) fn take(&mut self, now: MonoMicros, from: NodeId, message: PurgeMessage) -> bool {
        let PurgeMessage { number, part, is_last, reports } = message;
        let said = self.0.entry(from).or_default();
        if part == 0 {
            (said.number, said.next_part) = (number, 0);
            said.partial.clear();
        }
        let follows =
            said.partial.last().is_none_or(|last| reports.first().is_none_or(|next| last.last < next.first));
        if said.number != number || said.next_part != part || !follows {
            return false;
        }
        said.partial.extend(reports);
        said.next_part = part.saturating_add(1);
        if !is_last {
            return false;
        }
        said.reports = std::mem::take(&mut said.partial);
        said.at = now;
        let progress = progress(&said.reports);
        std::mem::replace(&mut said.progress, progress) != progress
    }

    /// What `peer` has said of `slot` lately.
    pub(super) fn of(&self, now: MonoMicros, peer: NodeId, slot: Slot) -> Option<SlotReport> {
        let said = self.0.get(&peer).filter(|said| now.since(said.at) <= TTL)?;
        let at = said.reports.partition_point(|report| report.last < slot);
        said.reports.get(at).filter(|report| report.first <= slot).map(|report| report.reached)
    }

    /// Forgets what `peer` has said.
    pub(super) fn forget(&mut self, peer: NodeId) {
        self.0.remove(&peer);
    }

    /// Forgets everyone who is not of `ring`.
    pub(super) fn keep_members(&mut self, ring: &Ring) {
        self.0.retain(|&peer, _| ring.contains(peer));
    }
}

fn progress(reports: &[Report]) -> u64 {
    let of = |report: &Report| {
        let slots = u64::from(report.last - report.first) + 1;
        report.reached.hidden.0.wrapping_add(report.reached.settled.0).wrapping_mul(slots)
    };
    reports.iter().map(of).fold(0, u64::wrapping_add)
}

/// What `node` says to each peer: what it has `reached` in the slots that both keep.
pub(super) fn reports(
    ring: &Ring,
    node: NodeId,
    reached: impl Fn(Slot) -> SlotReport,
) -> BTreeMap<NodeId, Vec<Report>> {
    let mut to: BTreeMap<NodeId, Vec<Report>> = BTreeMap::new();
    for slot in (0..SLOTS).filter(|&slot| ring.is_replica(node, slot)) {
        let reached = reached(slot);
        for &peer in ring.replicas(slot).iter().filter(|&&peer| peer != node) {
            let reports = to.entry(peer).or_default();
            match reports.last_mut() {
                Some(last) if last.last + 1 == slot && last.reached == reached => last.last = slot,
                _ => reports.push(Report { first: slot, last: slot, reached }),
            }
        }
    }
    to
}
