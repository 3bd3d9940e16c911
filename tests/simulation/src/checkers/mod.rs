//! Whether what clients saw could have happened. Numbers of invariants are those of `docs/simulation.md`.
//!
//! Operations are judged by when their node took them and when it ended them; that is stricter than what clients, who
//! learn of both a little later, could judge by.

pub(crate) mod convergence;
pub(crate) mod held;
pub(crate) mod journal;
mod key;
mod modifies;
mod order;
pub(crate) mod owed;
mod siblings;

use std::sync::Arc;

use gyre_cluster::level::{Consistency, Quorums};
use gyre_cluster::modify::{ModifyError, ModifyReply};
use gyre_cluster::outcome::{Failure, Outcome};
use gyre_cluster::ring::Ring;
use gyre_storage::{FsyncPolicy, Record, UnixMillis, Version};

pub(crate) use held::Floor;
pub(crate) use key::KeyWatch;
pub(crate) use siblings::SiblingFloor;

use crate::history::{Action, End, Key, Kind, Operation};
use crate::plan::Plan;
use crate::surroundings::Env;
use held::Held;
use modifies::{LockWatch, LogWatch};
use order::OrderWatch;
use siblings::SiblingWatch;

/// How many words are appended to a log.
const LOG_WORDS_MAX: usize = 500;

/// The level of all flushes.
pub(crate) const FLUSH_LEVEL: Consistency = Consistency::Quorum;

/// All checkers that look at operations.
pub(crate) struct Checkers {
    keys: Vec<KeyWatch>,
    /// Whether all wall clocks stay within the allowed drift of each other.
    clocks_are_close: bool,
    /// Acknowledged writes over which earlier ones won, since most clocks were wrong, or a node began among too few.
    pub(crate) overtaken: u64,
    /// Whether the ring is stable and every node reachable all the time, so that read-modify-writes are serial.
    is_serial: bool,
}

type Verdict = Result<(), String>;

/// How a machine has lost rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// It lost power, and with it what it had not synced.
    Power,
    /// It lost its disk.
    Disk,
}

/// What must still be somewhere when a machine has lost rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promised {
    /// What two nodes had when it was acknowledged, and had until now.
    HeldTwice,
    /// What two nodes had stored when it was acknowledged: no two lose rows of the same second.
    Durable,
    Nothing,
}

fn promised_by(loss: Loss, fsync: FsyncPolicy) -> Promised {
    match (loss, fsync) {
        (Loss::Disk, _) => Promised::HeldTwice,
        (Loss::Power, FsyncPolicy::No) => Promised::Nothing,
        (Loss::Power, _) => Promised::Durable,
    }
}

/// Fails with a message unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}
pub(crate) use ensure;

impl Checkers {
    pub(crate) fn new(plan: &Plan, ring: &Arc<Ring>, env: &Env) -> Checkers {
        let watch = |(index, key): (usize, &Key)| {
            let ids = ring.replicas(key.key_ref().slot());
            let replicas: Vec<usize> = ids.iter().map(|id| env.names[id]).collect();
            KeyWatch {
                kind: key.kind,
                index,
                slot: key.key_ref().slot(),
                settled: Vec::new(),
                held: Held::new(replicas.len()),
                siblings: SiblingWatch::new(replicas.len()),
                replicas,
                acknowledged: Floor::default(),
                flushed: Version::ZERO,
                durable: Version::ZERO,
                held_twice: Version::ZERO,
                asked: 0,
                log: LogWatch::default(),
                lock: LockWatch::default(),
                order: OrderWatch::default(),
            }
        };
        Checkers {
            keys: plan.keys.iter().enumerate().map(watch).collect(),
            clocks_are_close: plan.clocks_are_close(),
            overtaken: 0,
            is_serial: plan.is_calm(),
        }
    }

    pub(crate) fn key(&self, key: usize) -> &KeyWatch {
        &self.keys[key]
    }

    /// Whether there were so many operations of this kind that there should be no more: each row of a log holds all of it,
    /// and what must be known of siblings grows with each write.
    pub(crate) fn is_full(&self, key: usize, action: Action) -> bool {
        let watch = &self.keys[key];
        match action {
            Action::Append => watch.kind == Kind::Log && watch.log.asked >= LOG_WORDS_MAX,
            Action::SetSibling { .. } | Action::DeleteSiblings { .. } => watch.siblings.is_full(),
            _ => false,
        }
    }

    /// What is known to be written of the keys of database `db`: what a flush that begins now deletes.
    pub(crate) fn known(&self, keys: &[Key], db: u8) -> Vec<(usize, Version)> {
        let is_there = |key: &usize| keys[*key].db == db;
        let known =
            |key: usize| (key, self.keys[key].held.seen_by(self.keys[key].needed(FLUSH_LEVEL)).version);
        (0..keys.len()).filter(is_there).map(known).collect()
    }

    /// What was `known` when a flush began was deleted by it, and it was acknowledged.
    pub(crate) fn flushed(&mut self, known: Vec<(usize, Version)>) {
        for (key, version) in known {
            let flushed = &mut self.keys[key].flushed;
            *flushed = version.max(*flushed);
        }
    }

    /// A write to `key` had to merge siblings.
    pub(crate) fn merged_siblings(&mut self, key: usize) {
        self.keys[key].siblings.merged();
    }

    /// A node takes an operation.
    pub(crate) fn begin(&mut self, operation: &mut Operation) {
        let is_binding = self.is_serial || operation.levels.quorums == Quorums::Strict;
        let key = &mut self.keys[operation.key];
        operation.is_binding = is_binding;
        if is_binding {
            let needed = operation.levels.read.needed(key.held.replicas());
            operation.floor = key.held.seen_by(needed);
            if needed + key.needed(FLUSH_LEVEL) > key.replicas.len() {
                operation.flushed = key.flushed;
            }
            if key.kind == Kind::Siblings && operation.action.is_read() {
                operation.siblings = Some(Box::new(key.siblings.floor(needed)));
            }
        }
        if key.kind == Kind::Siblings {
            key.siblings.begin(operation);
        }
        match operation.action {
            Action::Add { delta } => key.asked += delta,
            Action::Append => key.log.asked += 1,
            Action::Release { holder } => key.lock.release(holder),
            _ => {}
        }
    }

    /// An operation has ended: could it, with this outcome? `wall` is its node's clock.
    pub(crate) fn end(
        &mut self,
        operation: &mut Operation,
        outcome: &Outcome,
        env: &Env,
        wall: UnixMillis,
    ) -> Verdict {
        let key = &mut self.keys[operation.key];
        operation.end = match outcome {
            Outcome::Failed(Failure::Unavailable { .. } | Failure::ClockUnsettled) => End::Unavailable,
            Outcome::Failed(Failure::Overloaded) => End::Overloaded,
            Outcome::Failed(_) => End::TimedOut,
            Outcome::Refused(_) | Outcome::Modified(ModifyReply::Nil) => End::Refused,
            _ => End::Done,
        };
        match outcome {
            Outcome::Failed(_) => {
                key.ended(operation);
                return Ok(());
            }
            Outcome::Record(record) => key.read(operation, record, env, wall, self.clocks_are_close)?,
            Outcome::Written => {
                key.written(operation, env)?;
                let version = operation.version.unwrap_or_default();
                let is_overtaken = key.order.is_overtaken(operation, version, self.clocks_are_close);
                self.overtaken += u64::from(is_overtaken);
                ensure!(
                    !is_overtaken || !env.are_times_right(),
                    "it was stamped {version:?}, but a write that ended long before has a greater one\n{operation}"
                );
            }
            Outcome::Modified(reply) => key.modified(operation, reply, env)?,
            // Where a clock was wrong, and just after a restart.
            Outcome::Refused(ModifyError::ContextAhead) => {}
            Outcome::Refused(_) => {
                ensure!(key.kind == Kind::Mixed, "a {:?} key refused {operation}", key.kind);
            }
            other => return Err(format!("{operation} ended in {other:?}")),
        }
        key.ended(operation);
        if self.is_serial { key.serial(operation, outcome) } else { Ok(()) }
    }

    /// A replica of `key` has lost rows. `records` gives what each replica holds now, `anywhere` what each node holds.
    ///
    /// What two nodes had acknowledged must still be somewhere: after the loss of a disk in any case, if until then two
    /// held it; after that of power unless under `appendfsync no` (the plan does not let two machines lose rows of the
    /// same second).
    pub(crate) fn rows_lost(
        &mut self,
        key: usize,
        records: &[Record],
        anywhere: &[&Record],
        loss: Loss,
        fsync: FsyncPolicy,
        env: &Env,
    ) -> Verdict {
        let watch = &mut self.keys[key];
        if watch.kind == Kind::Siblings {
            watch.siblings.rows_lost(records, anywhere, promised_by(loss, fsync), env.journal.dots(key))?;
        }
        watch.held.cap(records);
        watch.settled.clear();
        if loss == Loss::Disk {
            watch.flushed = Version::ZERO;
        }
        let left = Floor::of(&anywhere.iter().fold(Record::ABSENT, |all, record| all.merge(record)));
        watch.acknowledged.version = watch.acknowledged.version.min(left.version);
        watch.acknowledged.count = watch.acknowledged.count.min(left.count);
        let promised = match promised_by(loss, fsync) {
            Promised::HeldTwice => watch.held_twice,
            Promised::Durable => watch.durable,
            Promised::Nothing => Version::ZERO,
        };
        let is_gone = env.journal.is_dead(key, promised, env.hidden(watch.slot));
        ensure!(
            promised <= left.version || left.version == Version::ZERO && is_gone,
            "one node has lost rows ({loss:?}), and with them key {key} lost {promised:?}, which two had acknowledged"
        );
        watch.durable = watch.durable.min(left.version);
        let mut versions: Vec<Version> = anywhere.iter().map(|record| record.base()).collect();
        versions.sort_unstable();
        let held_twice = versions.iter().rev().nth(1).copied().unwrap_or_default();
        watch.held_twice = watch.held_twice.min(held_twice);
        Ok(())
    }
}
