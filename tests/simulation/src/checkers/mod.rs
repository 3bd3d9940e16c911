//! Whether what clients saw could have happened. Numbers of invariants are those of `docs/simulation.md`.
//!
//! Operations are judged by when their node took them and when it ended them; that is stricter than what clients, who
//! learn of both a little later, could judge by.

pub(crate) mod convergence;
pub(crate) mod held;
pub(crate) mod journal;
mod modifies;
mod order;
pub(crate) mod owed;
mod siblings;

use std::sync::Arc;

use gyre_cluster::level::{Consistency, Quorums};
use gyre_cluster::modify::{ModifyError, ModifyReply};
use gyre_cluster::outcome::{Failure, Outcome};
use gyre_cluster::ring::Ring;
use gyre_storage::{FsyncPolicy, Record, Slot, UnixMillis, Version, View};

pub(crate) use held::Floor;
pub(crate) use siblings::SiblingFloor;

use crate::clock::truth_ms;
use crate::history::{Action, End, Key, Kind, Operation};
use crate::plan::Plan;
use crate::surroundings::Env;
use held::{Held, count};
use modifies::{LockWatch, LogWatch};
use order::OrderWatch;
use siblings::SiblingWatch;

/// How late a value may be read after its expiry while most clocks are right: as far as a node's time may be off.
const LATE_MS_MAX: u64 = 1_200;
/// How many words are appended to a log.
const LOG_WORDS_MAX: usize = 500;

/// What has been seen of one key.
pub(crate) struct KeyWatch {
    pub(crate) kind: Kind,
    index: usize,
    pub(crate) slot: Slot,
    /// The nodes of its preference list.
    pub(crate) replicas: Vec<usize>,
    held: Held,
    /// The greatest version acknowledged in whatever way: the end must not be older.
    acknowledged: Floor,
    /// The greatest version that two nodes at least had stored when it was acknowledged.
    durable: Version,
    /// The same, but for what one of the two has lost since.
    held_twice: Version,
    /// The versions of acknowledged writes.
    settled: Vec<Version>,
    /// The sum of all increments that were ever asked for.
    asked: i64,
    log: LogWatch,
    lock: LockWatch,
    order: OrderWatch,
    siblings: SiblingWatch,
}

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

impl KeyWatch {
    fn needed(&self, level: Consistency) -> usize {
        level.needed(self.replicas.len())
    }

    /// A write is over, well or not; a read says nothing of order.
    fn ended(&mut self, operation: &Operation) {
        if let (false, Some(at), Some(version)) =
            (operation.action.is_read(), operation.ended_at, operation.version)
        {
            self.order.ended(at, version);
        }
    }

    /// Invariants 1 to 5 and 7, as far as one read shows them.
    fn read(
        &mut self,
        operation: &mut Operation,
        record: &Record,
        env: &Env,
        wall: UnixMillis,
        clocks_are_close: bool,
    ) -> Verdict {
        operation.version = Some(record.base());
        let floor = operation.floor;
        ensure!(
            self.holds(record, floor.version, env),
            "a read saw {:?}, but {:?} was acknowledged or read before it began\n{operation}",
            record.base(),
            floor.version
        );
        self.check_zombie(record, env, operation)?;
        if record.view(wall).is_some() && !record.has_siblings() {
            let expiry_ms = env.journal.expiry_ms(operation.key, record.base());
            ensure!(
                expiry_ms.is_none_or(|at| at > wall.0),
                "a value that expired at {expiry_ms:?} was read at {wall:?}\n{operation}"
            );
            let truth_ms = truth_ms(env.queue.now());
            ensure!(
                expiry_ms.is_none_or(|at| at + LATE_MS_MAX > truth_ms) || !env.are_times_right(),
                "a value that expired at {expiry_ms:?} was read at {truth_ms}\n{operation}"
            );
        }
        let expired = record.siblings(wall).into_iter().find(|s| s.expiry.is_some_and(|at| at <= wall));
        ensure!(expired.is_none(), "a sibling that expired was read at {wall:?}: {expired:?}\n{operation}");
        let swept_early = record.register().filter(|r| r.is_swept() && r.expiry.is_some_and(|at| at > wall));
        ensure!(
            swept_early.is_none() || !clocks_are_close,
            "at {wall:?} it was swept already: {swept_early:?}\n{operation}"
        );
        let mut seen = Floor { version: record.base(), count: 0 };
        if self.kind == Kind::Counter {
            let value = count(record).ok_or_else(|| format!("a counter is {record:?}\n{operation}"))?;
            self.check_count(value, floor.count, operation)?;
            operation.count = Some(value);
            seen.count = value;
        }
        if self.kind == Kind::Siblings {
            let holders = operation.is_promise().then(|| self.needed(operation.levels.read));
            self.siblings.read(operation, record, wall, holders)?;
        }
        if let (Kind::Log, Some(View::Bytes(value))) = (self.kind, record.view(wall)) {
            self.log.read(value, operation)?;
        }
        if operation.is_promise() {
            let holders = self.needed(operation.levels.read);
            self.held.raise(holders, seen);
        }
        Ok(())
    }

    /// Whether `record` shows the row of `version` or a newer one, or that row is a deletion that is over and done with.
    pub(crate) fn holds(&self, record: &Record, version: Version, env: &Env) -> bool {
        let is_gone = || env.journal.is_dead(self.index, version, env.hidden(self.slot));
        record.base() >= version || record.base() == Version::ZERO && is_gone()
    }

    /// What all replicas have agreed to have is seen by every read, at whatever level: nothing older comes back
    /// (invariant 4).
    fn check_zombie(&self, record: &Record, env: &Env, operation: &Operation) -> Verdict {
        let hidden = env.hidden(self.slot);
        let settled = self.settled.iter().filter(|version| version.hlc <= hidden).max();
        let shown = record.register().filter(|register| register.value.is_some());
        ensure!(
            settled.is_none_or(|settled| shown.is_none_or(|shown| shown.version >= *settled)),
            "a read saw {shown:?}, but its replicas had agreed on {settled:?} or later\n{operation}"
        );
        Ok(())
    }

    fn check_count(&self, value: i64, at_least: i64, operation: &Operation) -> Verdict {
        ensure!(
            value >= at_least,
            "a counter was {value}, but {at_least} was acknowledged or read before\n{operation}"
        );
        ensure!(
            value <= self.asked,
            "a counter was {value}, but only {} was ever asked for\n{operation}",
            self.asked
        );
        Ok(())
    }

    fn written(&mut self, operation: &mut Operation, env: &Env) -> Verdict {
        let Some(version) = operation.version else {
            return Err(format!("a write was acknowledged that was never sent\n{operation}"));
        };
        let expiry_ms = env.journal.expiry_ms(operation.key, version);
        ensure!(
            expiry_ms == operation.expiry_ms,
            "a row expires at {expiry_ms:?}, not at {:?}\n{operation}",
            operation.expiry_ms
        );
        self.acknowledge(operation, version);
        Ok(())
    }

    /// A row of `version` is where its level says.
    fn acknowledge(&mut self, operation: &Operation, version: Version) {
        if operation.is_tainted {
            return;
        }
        let holders = self.needed(operation.levels.write);
        if operation.is_binding {
            self.held.raise(holders, Floor { version, count: 0 });
        }
        self.acknowledged.version = self.acknowledged.version.max(version);
        self.settled.push(version);
        if holders >= 2 {
            self.durable = self.durable.max(version);
            self.held_twice = self.held_twice.max(version);
        }
    }

    fn modified(&mut self, operation: &mut Operation, reply: &ModifyReply, env: &Env) -> Verdict {
        match (operation.action, reply) {
            (Action::Add { delta }, ModifyReply::Integer(value)) if self.kind == Kind::Counter => {
                operation.count = Some(*value);
                self.check_count(*value, operation.floor.count + delta, operation)?;
                if operation.is_promise() {
                    let (read, write) = (operation.levels.read, operation.levels.write);
                    self.held.add(self.needed(write), delta);
                    let seen = Floor { version: Version::ZERO, count: *value };
                    self.held.raise(self.needed(read), seen);
                }
                if !operation.is_tainted {
                    self.acknowledged.count += delta;
                }
            }
            (Action::SetSibling { .. }, _) if self.kind == Kind::Siblings => {
                let holders = self.needed(operation.levels.write);
                self.siblings.acknowledge(operation, holders);
            }
            (Action::DeleteSiblings { .. }, _) if self.kind == Kind::Siblings => {
                // If it found nothing to delete it need not have written.
                let (read, write) = (operation.levels.read, operation.levels.write);
                let holders = self.needed(read).min(self.needed(write));
                self.siblings.acknowledge(operation, holders);
            }
            (Action::Append | Action::Acquire, ModifyReply::Integer(_) | ModifyReply::Done) => {
                let version = env.journal.version_of(operation.key, operation.tag.0);
                ensure!(version.is_some(), "it was acknowledged, but no row was written\n{operation}");
                operation.version = version;
                self.acknowledge(operation, version.unwrap_or_default());
            }
            _ => {}
        }
        Ok(())
    }

    /// What holds besides while read-modify-writes are serial.
    fn serial(&mut self, operation: &Operation, outcome: &Outcome) -> Verdict {
        match (self.kind, operation.action, outcome) {
            (Kind::Log, Action::Append, Outcome::Modified(_)) => self.log.appended(operation),
            (Kind::Log, Action::Get, Outcome::Record(record)) => self.log.must_have_all(record, operation)?,
            (Kind::Lock, Action::Acquire, Outcome::Modified(ModifyReply::Done)) => {
                self.lock.acquired(operation)?;
            }
            _ => {}
        }
        Ok(())
    }
}
