//! What the coordinator counts.

use crate::level::Consistency;
use crate::modify::Crowd;
use crate::outcome::{Failure, Outcome};

/// Kinds of operation, as far as statistics go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads.
    Read,
    /// Blind writes.
    Write,
    /// Read-modify-writes, counted where the client is.
    Modify,
    /// Scans, counts, FLUSHDB and the like.
    Admin,
}

impl Operation {
    /// All kinds.
    pub const ALL: [Operation; 4] = [Operation::Read, Operation::Write, Operation::Modify, Operation::Admin];

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::Modify => "modify",
            Operation::Admin => "admin",
        }
    }
}

/// How operations of one kind and level have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Done (a refusal by what was read is one, too).
    pub done: u64,
    /// [`Failure::Unavailable`].
    pub unavailable: u64,
    /// [`Failure::Timeout`].
    pub timed_out: u64,
    /// [`Failure::Overloaded`].
    pub overloaded: u64,
}

/// Counters since the coordinator was made. They only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    ends: [[Ends; 3]; 4],
    /// Reads whose replicas disagreed.
    pub digest_mismatches: u64,
    /// Repairs sent to replicas that had answered a read, which waited for them.
    pub repairs_blocking: u64,
    /// Repairs sent to replicas that were not asked.
    pub repairs_background: u64,
    /// Reads that asked a further replica because the first were slow.
    pub speculative_retries: u64,
    /// Increments done in a single round.
    pub counter_rounds_single: u64,
    /// Increments whose replicas disagreed, so that their records had to be fetched.
    pub counter_rounds_resolved: u64,
    /// Writes with a context that left as many siblings as an operator should hear of.
    pub siblings_many: u64,
    /// Writes with a context that kept only the newest sibling, since there were too many.
    pub siblings_merged: u64,
    /// Siblings that these dropped.
    pub siblings_dropped: u64,
    /// Read-modify-writes sent to the key's primary on another node.
    pub forwarded: u64,
    /// Rows written with nodes standing in for replicas that were down.
    pub stood_in: u64,
    /// Hints asked for because a replica that was alive did not acknowledge a row.
    pub hints_late: u64,
    /// Records that other nodes have taken over from this one for its hints.
    pub handed_off: u64,
    /// Requests served as a replica: rows applied, records and digests read, pages scanned, read-modify-writes.
    pub served: u64,
}

impl Statistics {
    /// How operations of this kind and level have ended.
    #[must_use]
    pub fn ends(&self, operation: Operation, level: Consistency) -> Ends {
        self.ends
            .get(operation as usize)
            .and_then(|levels| levels.get(level as usize))
            .copied()
            .unwrap_or_default()
    }

    pub(crate) fn count_crowd(&mut self, crowd: Crowd) {
        match crowd {
            Crowd::Many { .. } => self.siblings_many += 1,
            Crowd::Merged { dropped } => {
                self.siblings_merged += 1;
                self.siblings_dropped += dropped as u64;
            }
        }
    }

    pub(crate) fn count(&mut self, operation: Operation, level: Consistency, outcome: &Outcome) {
        let Some(ends) = self.ends.get_mut(operation as usize).and_then(|row| row.get_mut(level as usize))
        else {
            return;
        };
        match outcome {
            Outcome::Failed(Failure::Unavailable { .. } | Failure::ClockUnsettled) => ends.unavailable += 1,
            Outcome::Failed(Failure::Timeout { .. }) => ends.timed_out += 1,
            Outcome::Failed(Failure::Overloaded) => ends.overloaded += 1,
            _ => ends.done += 1,
        }
    }
}
