//! What has been seen of one key, and whether the next thing seen of it could be.

use gyre_cluster::level::Consistency;
use gyre_cluster::modify::ModifyReply;
use gyre_cluster::outcome::Outcome;
use gyre_storage::{Record, Slot, UnixMillis, Version, View};

use super::held::{Floor, Held, count};
use super::modifies::{LockWatch, LogWatch};
use super::order::OrderWatch;
use super::siblings::SiblingWatch;
use super::{Verdict, ensure};
use crate::clock::truth_ms;
use crate::history::{Action, Kind, Operation};
use crate::surroundings::Env;

/// How late a value may be read after its expiry while most clocks are right: as far as a node's time may be off.
const LATE_MS_MAX: u64 = 1_200;

/// What has been seen of one key.
pub(crate) struct KeyWatch {
    pub(crate) kind: Kind,
    pub(super) index: usize,
    pub(crate) slot: Slot,
    /// The nodes of its preference list.
    pub(crate) replicas: Vec<usize>,
    pub(super) held: Held,
    /// The greatest version acknowledged in whatever way: the end must not be older.
    pub(super) acknowledged: Floor,
    /// An acknowledged flush has deleted this and everything older.
    pub(super) flushed: Version,
    /// The greatest version that two nodes at least had stored when it was acknowledged.
    pub(super) durable: Version,
    /// The same, but for what one of the two has lost since.
    pub(super) held_twice: Version,
    /// The versions of acknowledged writes.
    pub(super) settled: Vec<Version>,
    /// The sum of all increments that were ever asked for.
    pub(super) asked: i64,
    pub(super) log: LogWatch,
    pub(super) lock: LockWatch,
    pub(super) order: OrderWatch,
    pub(super) siblings: SiblingWatch,
}

impl KeyWatch {
    pub(super) fn needed(&self, level: Consistency) -> usize {
        level.needed(self.replicas.len())
    }

    /// A write is over, well or not; a read says nothing of order.
    pub(super) fn ended(&mut self, operation: &Operation) {
        if let (false, Some(at), Some(version)) =
            (operation.action.is_read(), operation.ended_at, operation.version)
        {
            self.order.ended(at, version);
        }
    }

    /// Invariants 1 to 5 and 7, as far as one read shows them.
    pub(super) fn read(
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
        ensure!(
            operation.flushed == Version::ZERO || record.base() > operation.flushed,
            "a read saw {:?}, but everything up to {:?} was flushed before it began\n{operation}",
            record.base(),
            operation.flushed
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

    pub(super) fn written(&mut self, operation: &mut Operation, env: &Env) -> Verdict {
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

    pub(super) fn modified(&mut self, operation: &mut Operation, reply: &ModifyReply, env: &Env) -> Verdict {
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
    pub(super) fn serial(&mut self, operation: &Operation, outcome: &Outcome) -> Verdict {
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
