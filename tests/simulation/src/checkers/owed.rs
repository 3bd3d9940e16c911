//! What hints owe: once they are replayed, every replica has a row that was acknowledged, read or not (the part of
//! invariant 6 that holds without anti-entropy).
//!
//! It holds of the newest row of a key, whatever became of older ones, unless a hint of it may have been lost in a way
//! that anti-entropy is for: its coordinator stopped before it could see who is silent; a message that asked for a hint
//! was lost; a hint was refused for want of room or became too old, or a store failed; a machine lost what it had not
//! synced.

use std::collections::BTreeSet;

use gyre_storage::Version;

use super::{Checkers, Verdict, ensure};
use crate::history::{End, History};
use crate::node::{Node, node_id};
use crate::plan::Plan;
use crate::queue::{Micros, SECOND};

/// So long after a row was stamped its coordinator may still have hints to give for it.
const HINTS_GIVEN_WITHIN: Micros = 10 * SECOND;

/// A hint in a batch on its way to the disk, or in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Promise {
    pub(crate) key: usize,
    pub(crate) version: Version,
    pub(crate) target: u64,
}

/// What has become of hints, as far as it excuses a replica that misses a row.
#[derive(Default)]
pub(crate) struct Owed {
    /// Asked for, and not stored yet.
    asked: BTreeSet<Promise>,
    /// Rows of which a hint was not kept.
    excused: BTreeSet<(usize, Version)>,
    /// When processes have stopped.
    stops: Vec<(usize, Micros)>,
    /// When a machine last lost rows, or hints became too old.
    lost_at: Option<Micros>,
}

impl Owed {
    /// A node asks another for a hint.
    pub(crate) fn ask(&mut self, promise: Promise) {
        self.asked.insert(promise);
    }

    /// A hint is stored.
    pub(crate) fn kept(&mut self, promise: Promise) {
        self.asked.remove(&promise);
    }

    /// A hint will not be.
    pub(crate) fn excuse(&mut self, key: usize, version: Version) {
        self.excused.insert((key, version));
    }

    pub(crate) fn stopped(&mut self, node: usize, now: Micros) {
        self.stops.push((node, now));
    }

    /// A machine has lost what it had not synced, or hints have become too old: what was written before may be missing.
    pub(crate) fn hints_gone(&mut self, now: Micros) {
        self.lost_at = Some(now);
    }

    /// Why a replica may miss the row, if it may.
    fn is_excused(&self, key: usize, version: Version, begun_at: Micros) -> bool {
        let first = Promise { key, version, target: 0 };
        let is_open = self.asked.range(first..).next().is_some_and(|p| (p.key, p.version) == (key, version));
        let is_stopped = |&(node, at): &(usize, Micros)| {
            node_id(node).0 == version.node && (begun_at..begun_at + HINTS_GIVEN_WITHIN).contains(&at)
        };
        is_open
            || self.excused.contains(&(key, version))
            || self.stops.iter().any(is_stopped)
            || self.lost_at.is_some_and(|at| at >= begun_at)
    }
}

impl Checkers {
    /// Every replica has the newest row of each key, where hints must have brought it. Answers of how many keys that
    /// could be demanded.
    pub(crate) fn check_owed(
        &self,
        plan: &Plan,
        nodes: &[Node],
        history: &History,
        owed: &Owed,
    ) -> Result<usize, String> {
        let mut demanded = 0;
        for (index, key) in plan.keys.iter().enumerate() {
            let replicas = &self.key(index).replicas;
            let versions: Vec<Version> =
                replicas.iter().map(|&node| nodes[node].holds(key.key_ref()).base()).collect();
            let newest = versions.iter().copied().max().unwrap_or_default();
            let writer = history.writer(index, newest).filter(|writer| writer.end == End::Done);
            let Some(begun_at) = writer.and_then(|writer| writer.begun_at) else { continue };
            if owed.is_excused(index, newest, begun_at) {
                continue;
            }
            demanded += 1;
            check_all(index, &versions, newest, replicas)?;
        }
        Ok(demanded)
    }
}

fn check_all(key: usize, versions: &[Version], newest: Version, replicas: &[usize]) -> Verdict {
    for (version, node) in versions.iter().zip(replicas) {
        ensure!(
            *version == newest,
            "hints have not brought {newest:?} of key {key} to node {node}, which has {version:?}"
        );
    }
    Ok(())
}
