//! Lapses: whose data the others count on no more, because it was away for longer than deletions are remembered.
//!
//! Replicas forget a deletion once all of them have it and it is older than the grace period. A member that is away for
//! longer would hold that up for ever; so the others go on without it, and what it holds has *lapsed*: a deletion it has
//! missed may be forgotten, and then what was deleted would come back from it. The document says so, since whoever purges
//! without a member must be sure that everybody else refuses what it holds.

use std::collections::BTreeSet;

use super::{MemberState, Topology};
use crate::node::NodeId;
use crate::wire::{Malformed, Reader};

/// A member whose data has lapsed. Of two lapses of one member the later incarnation counts, then the later return.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lapse {
    /// The member's incarnation when the others gave it up; never zero.
    pub incarnation: u64,
    /// The incarnation as which it has come back with nothing, greater than `incarnation`; zero while it has not.
    pub returned: u64,
}

impl Lapse {
    /// Whether what the member holds as `incarnation` has lapsed.
    ///
    /// While it has not come back that is whatever process shows itself, since a start counts the incarnation up without
    /// emptying the disk.
    #[must_use]
    pub const fn covers(self, incarnation: u64) -> bool {
        self.returned == 0 || incarnation < self.returned
    }

    pub(super) fn is_sound(self) -> bool {
        self.incarnation > 0 && (self.returned == 0 || self.returned > self.incarnation)
    }

    pub(super) fn encode(self, id: NodeId, out: &mut Vec<u8>) {
        for number in [id.0, self.incarnation, self.returned] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<(NodeId, Lapse), Malformed> {
        let id = NodeId(reader.u64()?);
        Ok((id, Lapse { incarnation: reader.u64()?, returned: reader.u64()? }))
    }
}

impl Topology {
    /// The others go on without what `member` holds, of which `incarnation` is the latest that they know. Answers whether
    /// that is new; nothing is changed for a member that is not Active, or has come back as a later incarnation.
    pub fn lapse(&mut self, member: NodeId, incarnation: u64) -> bool {
        let is_member = self.members.get(&member).is_some_and(|known| {
            known.state == MemberState::Active && known.incarnation == incarnation && incarnation > 0
        });
        is_member
            && !self.has_lapsed(member, incarnation)
            && self.put_lapse(member, Lapse { incarnation, returned: 0 })
    }

    /// `member`, whose data has lapsed, comes back with nothing as `incarnation`. Answers whether that is new.
    pub fn return_empty(&mut self, member: NodeId, incarnation: u64) -> bool {
        let Some(lapse) = self.lapses.get(&member).filter(|lapse| lapse.covers(incarnation)) else {
            return false;
        };
        let returned = Lapse { returned: incarnation, ..*lapse };
        returned.is_sound() && self.put_lapse(member, returned)
    }

    /// Whether what `member` holds as `incarnation` has lapsed: nobody may take it.
    #[must_use]
    pub fn has_lapsed(&self, member: NodeId, incarnation: u64) -> bool {
        self.lapses.get(&member).is_some_and(|lapse| lapse.covers(incarnation))
    }

    /// The members whose data has lapsed and that have not come back.
    #[must_use]
    pub fn lapsed(&self) -> BTreeSet<NodeId> {
        self.lapses.iter().filter(|(_, lapse)| lapse.returned == 0).map(|(&id, _)| id).collect()
    }

    /// Keeps the greater of `lapse` and what is known. Answers whether that is `lapse`, and new.
    pub(super) fn put_lapse(&mut self, member: NodeId, lapse: Lapse) -> bool {
        let known = self.lapses.entry(member).or_default();
        let is_later = lapse > *known;
        *known = lapse.max(*known);
        is_later
    }
}
