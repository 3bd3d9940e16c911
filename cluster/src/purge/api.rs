//! What purging wants done, and how it stands.

use gyre_storage::{Hlc, PurgeHorizon, Slot};

use crate::node::NodeId;

/// What the shell shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send this message, without waiting for anything.
    Send {
        /// To whom.
        to: NodeId,
        /// The encoded [`PurgeMessage`](super::PurgeMessage).
        bytes: Vec<u8>,
    },
    /// Raise these horizons ([`gyre_storage::Store::raise_purge_horizons`]); answered by
    /// [`Purge::raised`](super::Purge::raised).
    Raise(Vec<(Slot, PurgeHorizon)>),
    /// Take a step of purging ([`gyre_storage::Store::purge_slots`]); answered by [`Purge::purged`](super::Purge::purged).
    Purge {
        /// Which slots, each from which prefix on.
        slots: Vec<(Slot, Option<u64>)>,
        /// How many keys to look at, in all of them.
        keys: usize,
    },
}

/// What purging has done since it started, and how it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PurgeStatus {
    /// Keys looked at.
    pub looked_at: u64,
    /// Dead keys removed.
    pub keys: u64,
    /// Rows removed.
    pub rows: u64,
    /// Slots whose dead rows are still to be removed.
    pub slots_waiting: usize,
    /// The least horizon of this node's slots up to which dead keys are hidden; [`Hlc::ZERO`] if some slot has none.
    pub oldest_horizon: Hlc,
    /// The replicas that have not said lately what they have reached: no horizon moves where they are.
    pub silent: Vec<NodeId>,
    /// The members that keep something for others, or may, of before the grace period: no horizon moves past that.
    pub keeping: Vec<NodeId>,
}

impl PurgeStatus {
    /// Everyone whom horizons wait for, ascending.
    #[must_use]
    pub fn held_up_by(&self) -> Vec<NodeId> {
        let mut nodes = [self.silent.as_slice(), self.keeping.as_slice()].concat();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }
}
