//! Flushes: now and then a node deletes all of a database.

use gyre_cluster::coordinator::Tag;
use gyre_cluster::level::Level;
use gyre_cluster::outcome::Outcome;
use gyre_cluster::topology::Databases;
use gyre_storage::Version;

use crate::checkers::FLUSH_LEVEL;
use crate::event::Event;
use crate::network::WORKERS;
use crate::node::{Node, Process};
use crate::plan::FLUSHED_DATABASE;
use crate::surroundings::Env;
use crate::world::World;

/// Distinguishes flushes from operations on keys.
const FLUSH: u64 = 1 << 62;

/// Keys, and of each the newest version that is known to be on so many replicas that a flush deletes it.
pub(crate) type Known = Vec<(usize, Version)>;

impl World {
    /// Flushes, and comes again.
    pub(crate) fn flush_and_wait(&mut self) {
        let Some(gap) = self.plan.flush_gap.clone() else { return };
        let delay = self.env.random.within(gap);
        self.env.queue.after(delay, Event::Flush);
        let node = self.env.random.index(self.plan.nodes);
        let worker = self.env.random.index(WORKERS);
        if self.is_resting || !self.nodes[node].is_running() {
            return;
        }
        let tag = Tag(FLUSH | self.report.flushes);
        self.report.flushes += 1;
        self.flushes.insert(tag.0, self.checkers.known(&self.plan.keys, FLUSHED_DATABASE));
        let (databases, level) = (Databases::one(FLUSHED_DATABASE), Level::strict(FLUSH_LEVEL));
        self.nodes[node].step(&mut self.env, worker, |core, shell, now| {
            core.flush(shell, now, tag, databases, level);
        });
    }

    /// A flush has ended.
    pub(crate) fn flushed(&mut self, tag: Tag, outcome: &Outcome) {
        let known = self.flushes.remove(&tag.0).unwrap_or_default();
        match outcome {
            Outcome::Written => {
                self.report.flushed += 1;
                self.checkers.flushed(known);
            }
            Outcome::Failed(_) => {}
            other => self.violated(Err(format!("a flush ended in {other:?}"))),
        }
    }
}

impl Node {
    /// Raises the horizon of `databases`, as its topology document says from then on. Answers whether the disk took it.
    pub(crate) fn raise_horizons(&mut self, env: &mut Env, databases: Databases, version: Version) -> bool {
        let Some(Process { document: Some(document), .. }) = &self.process else { return false };
        let mut topology = document.topology.clone();
        topology.raise_horizons(databases, version);
        self.install(env, topology)
    }
}
