//! Which replicas have a connection's writes: what WAIT asks.

use std::collections::VecDeque;

use gyre_cluster::coordinator::{Coordinator, OpId};

/// Writes remembered at most; of those beyond, the oldest count as what they had when they were forgotten: their level.
const WRITES_MAX: usize = 4_096;

/// The writes of one connection that not every replica has acknowledged yet.
#[derive(Default)]
pub struct Acknowledgements {
    open: VecDeque<(u32, OpId)>,
    /// The fewest acknowledgements a write came to rest with; `None` before the first.
    fewest: Option<usize>,
}

impl Acknowledgements {
    /// Write `sequence` has begun, as operation `op`.
    pub fn started(&mut self, sequence: u32, op: OpId) {
        if self.open.len() >= WRITES_MAX {
            self.open.pop_front();
        }
        self.open.push_back((sequence, op));
    }

    /// Write `sequence` has come to rest with `acked` replicas.
    pub fn settled(&mut self, sequence: u32, acked: usize) {
        // Mostly the oldest.
        if let Some(at) = self.open.iter().position(|(open, _)| *open == sequence) {
            self.open.remove(at);
        }
        self.fewest = Some(self.fewest.map_or(acked, |fewest| fewest.min(acked)));
    }

    /// How many replicas have acknowledged every write of the connection; `None` if it has not written.
    pub fn count(&self, core: &Coordinator) -> Option<usize> {
        let open = self.open.iter().filter_map(|(_, op)| core.acknowledged(*op)).min();
        match (open, self.fewest) {
            (Some(open), Some(fewest)) => Some(open.min(fewest)),
            (open, fewest) => open.or(fewest),
        }
    }
}
