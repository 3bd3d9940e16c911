//! The classic case: a cluster falls into two halves under load on both, at SLOPPY QUORUM; both keep serving; after
//! healing all replicas agree, and no hint is left.

use std::collections::BTreeMap;
use std::fmt;

use gyre_storage::Version;

use crate::history::{Action, End, Kind, Operation};
use crate::plan::Plan;
use crate::queue::{Micros, SECOND};
use crate::report::Report;
use crate::runner::Failure;
use crate::world::World;

/// When the cluster falls apart.
pub(crate) const SPLIT_AT: Micros = 20 * SECOND;
/// How long it stays so.
pub(crate) const SPLIT_FOR: Micros = 120 * SECOND;
/// By then both halves know: until then operations may fail.
const NOTICED_WITHIN: Micros = 30 * SECOND;

/// What one half did while the cluster was in two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Half {
    /// Operations that its nodes took.
    pub asked: u64,
    /// Those that were done.
    pub done: u64,
    /// Those that failed in the first half minute.
    pub failed_at_first: u64,
    /// Those that failed later.
    pub failed_later: u64,
}

/// How it went.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitReport {
    /// The run as a whole.
    pub run: Report,
    /// Both halves.
    pub halves: [Half; 2],
    /// Plain strings that both halves have set or deleted.
    pub contended: u64,
    /// Acknowledged writes to those in the half whose last write was the older one, and so lost to the other's.
    pub discarded: u64,
    /// All acknowledged writes to plain strings while the cluster was in two.
    pub written: u64,
    /// Counters that both halves added to. None of their increments is lost.
    pub counters: u64,
    /// Keys that both halves wrote with contexts, and all acknowledged writes to those. Each of them is there at the end,
    /// or was replaced by who had seen it.
    pub siblings: (u64, u64),
}

/// Splits `nodes` nodes in the middle under `seed`.
///
/// # Errors
/// [`Failure`] if a checker objects: among others if a replica misses a row once hints are replayed.
pub fn split(seed: u64, nodes: usize) -> Result<SplitReport, Failure> {
    let mut world = World::new(Plan::split(seed, nodes));
    let run = world.run().map_err(|what| Failure { seed, what })?;
    let half_of = |operation: &Operation| usize::from(operation.node >= nodes / 2);
    let split = SPLIT_AT..SPLIT_AT + SPLIT_FOR;
    let within = world.history.all().iter().filter(|operation| {
        operation.client.is_some() && operation.begun_at.is_some_and(|at| split.contains(&at))
    });
    let mut halves = [Half::default(); 2];
    let mut writes: BTreeMap<usize, [Vec<Version>; 2]> = BTreeMap::new();
    let mut counted: BTreeMap<usize, [bool; 2]> = BTreeMap::new();
    let mut siblings: BTreeMap<usize, [u64; 2]> = BTreeMap::new();
    for operation in within {
        let half = half_of(operation);
        halves[half].count(operation);
        let is_done = operation.end == End::Done;
        match (world.plan.keys[operation.key].kind, operation.action) {
            (Kind::Register, Action::Set { .. } | Action::Delete) if is_done => {
                writes.entry(operation.key).or_default()[half].extend(operation.version);
            }
            (Kind::Counter, Action::Add { .. }) if is_done => {
                counted.entry(operation.key).or_default()[half] = true;
            }
            (Kind::Siblings, Action::SetSibling { .. }) if is_done => {
                siblings.entry(operation.key).or_default()[half] += 1;
            }
            _ => {}
        }
    }
    let both = writes.values().filter(|[a, b]| !a.is_empty() && !b.is_empty());
    // The half whose newest write is older loses what it wrote; that it had overwritten some of it itself counts, too.
    let lost = |[a, b]: &[Vec<Version>; 2]| if a.iter().max() < b.iter().max() { a.len() } else { b.len() };
    Ok(SplitReport {
        run,
        halves,
        contended: both.clone().count() as u64,
        discarded: both.map(lost).sum::<usize>() as u64,
        written: writes.values().flatten().map(Vec::len).sum::<usize>() as u64,
        siblings: siblings
            .values()
            .filter(|halves| halves.iter().all(|writes| *writes > 0))
            .fold((0, 0), |(keys, writes), halves| (keys + 1, writes + halves[0] + halves[1])),
        counters: counted.values().filter(|halves| **halves == [true, true]).count() as u64,
    })
}

impl Half {
    fn count(&mut self, operation: &Operation) {
        self.asked += 1;
        let begun_at = operation.begun_at.unwrap_or_default();
        match operation.end {
            End::Done | End::Refused => self.done += 1,
            _ if begun_at < SPLIT_AT + NOTICED_WITHIN => self.failed_at_first += 1,
            _ => self.failed_later += 1,
        }
    }
}

impl fmt::Display for SplitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, half) in ["one half", "the other"].iter().zip(self.halves) {
            writeln!(
                f,
                "{name}: {} operations, {} done, {} failed in the first {} s, {} later",
                half.asked,
                half.done,
                half.failed_at_first,
                NOTICED_WITHIN / SECOND,
                half.failed_later
            )?;
        }
        writeln!(
            f,
            "last write wins: {} of {} acknowledged writes to plain strings were discarded, on {} keys that both halves \
             wrote; no increment of {} counters that both added to was, nor any of {} values of {} keys that both wrote \
             with contexts",
            self.discarded, self.written, self.contended, self.counters, self.siblings.1, self.siblings.0
        )?;
        write!(f, "{}", self.run)
    }
}
