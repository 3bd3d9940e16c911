//! What must hold once faults have stopped and everything has come to rest (invariant 6, and the ends of 1 and 7).

use gyre_storage::{Cell, KeyRef, Record, UnixMillis};

use super::held::count;
use super::{Checkers, Verdict, ensure};
use crate::history::{Key, Kind};
use crate::node::Node;
use crate::surroundings::Env;

/// What the replicas of all keys hold, compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Keys on which all replicas agree cell for cell.
    pub equal: usize,
    /// Keys on which they do not.
    pub different: usize,
}

impl Checkers {
    /// The end of `key`: `record` is what a read at ALL shows.
    pub(crate) fn check_end(&self, key: usize, record: &Record, wall: UnixMillis, env: &Env) -> Verdict {
        let watch = self.key(key);
        if watch.kind == Kind::Siblings {
            watch.siblings.check_end(record, wall)?;
        }
        ensure!(
            watch.holds(record, watch.acknowledged.version, env),
            "key {key} ended with {:?}, but {:?} was acknowledged",
            record.base(),
            watch.acknowledged.version
        );
        if watch.kind == Kind::Counter {
            let value = count(record).unwrap_or(i64::MIN);
            ensure!(
                (watch.acknowledged.count..=watch.asked).contains(&value),
                "counter {key} ended as {value}; {} was acknowledged, {} asked for",
                watch.acknowledged.count,
                watch.asked
            );
        }
        Ok(())
    }

    /// Compares the replicas of every key.
    pub(crate) fn agreement(&self, keys: &[Key], nodes: &[Node], env: &Env) -> Agreement {
        let mut agreement = Agreement::default();
        for (index, key) in keys.iter().enumerate() {
            match self.check_equal(index, key, nodes, env) {
                Ok(()) => agreement.equal += 1,
                Err(_) => agreement.different += 1,
            }
        }
        agreement
    }

    /// All replicas of `key` hold the same.
    pub(crate) fn check_equal(&self, index: usize, key: &Key, nodes: &[Node], env: &Env) -> Verdict {
        let hidden = env.hidden(key.key_ref().slot());
        let mut first: Option<(usize, Record)> = None;
        for &node in &self.key(index).replicas {
            // Not all replicas hide it at the same moment.
            let record = nodes[node].holds(key.key_ref()).without_dead(hidden);
            match &first {
                None => first = Some((node, record)),
                Some((other, expected)) => ensure!(
                    meaning(expected, key.key_ref()) == meaning(&record, key.key_ref()),
                    "key {} differs: node {other} has {expected:?}, node {node} has {record:?}",
                    String::from_utf8_lossy(&key.name)
                ),
            }
        }
        Ok(())
    }
}

/// A record without the cells that its register has voided for ever: a replica need not know them.
pub(crate) fn meaning(record: &Record, key: KeyRef<'_>) -> Record {
    let base = record.base();
    let void: Vec<u64> = record.counters().filter(|cell| cell.base < base).map(|cell| cell.actor).collect();
    let mut builder = gyre_storage::RecordBuilder::default();
    for row in record.rows(key) {
        let is_void = match row.cell {
            Cell::Register => false,
            Cell::Counter { actor } => void.contains(&actor),
            Cell::Siblings { actor } => record.sibling_cells().all(|cell| cell.actor != actor),
        };
        if !is_void {
            builder.add(&row);
        }
    }
    builder.build()
}
