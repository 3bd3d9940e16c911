//! How an operation ended, as the shell learns it.

use gyre_storage::Record;

use crate::modify::{ModifyError, ModifyReply};
use crate::node::NodeId;

/// How an operation ended. Each operation that was started ends in exactly one of these.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// A write, or a FLUSHDB, is on as many replicas as its level asked for.
    Written,
    /// A read: the newest record, perhaps absent, deleted or expired ([`Record::view`] decides).
    Record(Record),
    /// A read-modify-write was done.
    Modified(ModifyReply),
    /// A read-modify-write was refused by what it read (a value that is no integer, an overflow). Nothing written.
    Refused(ModifyError),
    /// One page of a scan.
    Scanned {
        /// Keys with their newest record, in ring order; deleted and expired ones included. Values are left out.
        entries: Vec<(Vec<u8>, Record)>,
        /// The position prefix where the next page begins; `None` at the end of what was asked for.
        next: Option<u64>,
    },
    /// How many live keys there are.
    Counted(u64),
    /// What each replica of a key holds, in order of the preference list (`GYRE REPLICAS`).
    Replicas(Vec<(NodeId, ReplicaState)>),
    /// The node that missed it holds this record now (absent: there was nothing to hand over).
    HandedOff(Record),
    /// It could not be done.
    Failed(Failure),
}

/// What one replica answered to `GYRE REPLICAS`.
#[derive(Clone, Debug, PartialEq)]
pub enum ReplicaState {
    /// Its record of the key.
    Holds(Record),
    /// It is down, or did not answer in time.
    Silent,
}

/// Why an operation could not be done. The variants differ in what the caller may do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// Too few replicas are alive. Nothing was sent: safe to repeat elsewhere or later.
    #[error("UNAVAILABLE needed {needed} alive {alive}")]
    Unavailable {
        /// How many replicas must answer.
        needed: usize,
        /// How many are alive, as this node sees it.
        alive: usize,
    },
    /// Too few replicas answered in time, or too many failed on the way. A write may have been applied.
    #[error("TIMEOUT needed {needed} acknowledged {acked}")]
    Timeout {
        /// How many replicas had to answer.
        needed: usize,
        /// How many had answered.
        acked: usize,
    },
    /// The node has just started and has not compared its clock with the others' yet. Nothing was sent.
    #[error("UNAVAILABLE this node compares its clock with the others' first")]
    ClockUnsettled,
    /// The node has as many operations in flight as it allows. Nothing was sent.
    #[error("ERR too many operations in flight, try again")]
    Overloaded,
}
