//! Why operations were refused with nothing sent.

use std::fmt;

use gyre_cluster::level::Quorums;

use crate::history::{End, Operation};
use crate::node::Node;

/// How many operations were refused, by why. Clients go to nodes that they do not know to be down, as often as to others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// No process ran on their node: nobody took the connection.
    pub stopped: u64,
    /// Their node had started and not compared its clock with others' yet.
    pub settling: u64,
    /// The store of their node had failed.
    pub failed: u64,
    /// STRICT, and too few replicas were known to be alive.
    pub strict: u64,
    /// SLOPPY, and too few nodes were; or a read-modify-write that no replica could lead.
    pub sloppy: u64,
    /// Their node had too much to do.
    pub overloaded: u64,
}

impl Refusals {
    /// Counts `operation`, which was refused by `node`.
    pub(crate) fn count(&mut self, operation: &Operation, node: &Node) {
        let counter = match (&node.process, operation.levels.quorums) {
            _ if operation.end == End::Overloaded => &mut self.overloaded,
            (None, _) => &mut self.stopped,
            (Some(process), _) if !process.hlc.is_settled() => &mut self.settling,
            (Some(process), _) if process.store.poisoned().is_some() => &mut self.failed,
            (Some(_), Quorums::Strict) => &mut self.strict,
            (Some(_), Quorums::Sloppy) => &mut self.sloppy,
        };
        *counter += 1;
    }

    /// Adds those of another run.
    pub(crate) fn add(&mut self, other: &Refusals) {
        self.stopped += other.stopped;
        self.settling += other.settling;
        self.failed += other.failed;
        self.strict += other.strict;
        self.sloppy += other.sloppy;
        self.overloaded += other.overloaded;
    }
}

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusals { stopped, settling, failed, strict, sloppy, overloaded } = self;
        write!(
            f,
            "unavailable: {stopped} on nodes that did not run, {settling} on nodes that compared clocks, {failed} on nodes whose \
             disk had failed, {strict} STRICT and {sloppy} SLOPPY for want of live nodes, {overloaded} on nodes with too much to do"
        )
    }
}
