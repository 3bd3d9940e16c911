//! The shell of sweeping: carries out what the production core decides.

use std::time::Duration;

use gyre_cluster::clock::CLOCK_DRIFT_MS_MAX;
use gyre_cluster::sweep::{Sweep, Sweeper};
use gyre_cluster::time::MonoMicros;
use gyre_storage::{Body, Cell, KeyRef, Row, Store, SweepPass, SweepStep, UnixMillis, Version};

use crate::event::{Event, NodeLocal};
use crate::mutation::Mutation;
use crate::node::{Node, Process, node_id};
use crate::queue::{MS, Micros};
use crate::surroundings::Env;

/// How long a step takes.
const STEP_TIME: Duration = Duration::from_millis(1);

/// The sweeper of a process that starts at `now`.
pub(crate) fn sweeper(interval: Micros, now: MonoMicros) -> Sweeper {
    Sweeper::new(Duration::from_micros(interval), CLOCK_DRIFT_MS_MAX, now)
}

impl Node {
    /// Lets the sweeper go on, and comes again.
    pub(crate) fn sweep_and_wait(&mut self, env: &mut Env) {
        let now = self.now(env.queue.now());
        let Some(process) = &mut self.process else { return };
        if process.hlc.is_settled()
            && let Some(sweep) = process.sweeper.step(now)
        {
            let step = match env.mutation {
                Some(Mutation::SweptAnew) => sweep_anew(process, self.index, &sweep),
                _ => process.store.sweep(sweep.pass, sweep.until, sweep.limit).ok(),
            };
            env.swept += step.as_ref().map_or(0, |step| step.swept) as u64;
            process.sweeper.swept(now.mono, STEP_TIME, step);
        }
        let wait = process.sweeper.wait(now.mono).as_micros() as u64;
        let event = Event::Node { node: self.index, boot: self.boot, local: NodeLocal::Sweep };
        env.queue.after(wait.max(MS), event);
    }
}

/// Sweeps everything that has expired at `until`, in whatever many steps.
pub(crate) fn sweep_all(store: &Store, until: UnixMillis) {
    let mut pass = Some(SweepPass::default());
    while let Some(from) = pass {
        pass = store.sweep(from, until, 1_000).ok().and_then(|step| step.next);
    }
}

/// Under a mutation: an expired key is deleted, by a tombstone that the sweeping replica stamps.
fn sweep_anew(process: &mut Process, node: usize, sweep: &Sweep) -> Option<SweepStep> {
    let due = process.store.expired(sweep.until, sweep.limit).ok()?;
    let mut batch = process.store.batch();
    for due in due {
        let key = KeyRef::new(due.db, &due.key);
        let record = process.store.read(key).ok()?;
        let is_newest = record.register().is_some_and(|register| register.version == due.version);
        if due.cell == Cell::Register && is_newest {
            let version = Version { hlc: process.hlc.stamp(sweep.until), node: node_id(node).0 };
            batch.push(&Row { key, cell: Cell::Register, version, expiry: None, body: Body::Tombstone });
        }
    }
    process.store.commit(&mut batch).ok()?;
    process.store.sweep(SweepPass::default(), sweep.until, sweep.limit).ok()
}
