//! What an asynchronous command may do: read, write, modify and scan keys through the worker's coordinator.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gyre_cluster::modify::{Modify, ModifyReply};
use gyre_cluster::node::NodeId;
use gyre_cluster::outcome::{Failure, Outcome, ReplicaState};
use gyre_cluster::topology::Databases;
use gyre_storage::{KeyRef, Record, UnixMillis};

use crate::execute::CommandError;
use crate::node::Node;
use crate::session::settings::Levels;
use crate::worker::Worker;

/// How often WAIT looks at what has been acknowledged.
const ACKNOWLEDGEMENT_POLL: Duration = Duration::from_millis(2);

/// The surroundings of one executing command. Cheap to clone; stays on its worker's thread.
#[derive(Clone)]
pub struct Context {
    worker: Rc<Worker>,
    db: u8,
    levels: Levels,
    session: u64,
}

/// One page of a scan over the keys of the cluster.
pub struct KeysPage {
    /// Keys with their newest record. Deleted and expired ones are left out.
    pub keys: Vec<(Vec<u8>, Record)>,
    /// Where the next page begins, `None` at the end of the ring.
    pub next: Option<u64>,
}

impl Context {
    /// The surroundings of a command of session `session`, which is on database `db` and at `levels`.
    pub fn new(worker: Rc<Worker>, db: u8, levels: Levels, session: u64) -> Context {
        Context { worker, db, levels, session }
    }

    /// The connection's database number.
    pub fn db(&self) -> u8 {
        self.db
    }

    /// The connection's consistency levels.
    pub fn levels(&self) -> Levels {
        self.levels
    }

    /// The id of the client connection (`CLIENT ID`).
    pub fn session(&self) -> u64 {
        self.session
    }

    /// The node this command runs on.
    pub fn node(&self) -> &Arc<Node> {
        self.worker.node()
    }

    /// The wall clock.
    pub fn now(&self) -> UnixMillis {
        self.worker.now().wall
    }

    /// The newest record of `key` in database `db`, at the connection's read level.
    pub async fn read(&self, db: u8, key: &[u8]) -> Result<Record, CommandError> {
        let outcome = self.worker.ask(|core, shell, now, tag| {
            core.read(shell, now, tag, KeyRef::new(db, key), self.levels.reading());
        });
        match outcome.await {
            Outcome::Record(record) => Ok(record),
            other => Err(unexpected(other)),
        }
    }

    /// A blind write at the connection's write level: a string value, or `None` for a tombstone.
    pub async fn write(
        &self,
        db: u8,
        key: &[u8],
        value: Option<&[u8]>,
        expiry: Option<UnixMillis>,
    ) -> Result<(), CommandError> {
        let outcome = self.worker.ask(|core, shell, now, tag| {
            core.write(shell, now, tag, KeyRef::new(db, key), value, expiry, self.levels.writing());
        });
        match outcome.await {
            Outcome::Written => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// A read-modify-write, serialised on the key's first live replica, at the connection's levels.
    pub async fn modify(&self, db: u8, key: &[u8], modify: &Modify<'_>) -> Result<ModifyReply, CommandError> {
        let outcome = self.worker.ask(|core, shell, now, tag| {
            core.modify(shell, now, tag, KeyRef::new(db, key), modify, self.levels);
        });
        match outcome.await {
            Outcome::Modified(reply) => Ok(reply),
            other => Err(unexpected(other)),
        }
    }

    /// One page of the keys of database `db` from ring position prefix `from` (0 to 2^32) on, at the read level,
    /// at most about `keys_max` of them: a page ends between two positions, never within one. A page may be empty
    /// and yet not be the last.
    pub async fn scan(&self, db: u8, from: u64, end: u64, keys_max: usize) -> Result<KeysPage, CommandError> {
        let outcome = self.worker.ask(|core, shell, now, tag| {
            core.scan(shell, now, tag, db, from, end, keys_max, self.levels.reading());
        });
        match outcome.await {
            Outcome::Scanned { entries, next } => {
                let now = self.now();
                let keys = entries.into_iter().filter(|(_, record)| record.view(now).is_some()).collect();
                Ok(KeysPage { keys, next })
            }
            other => Err(unexpected(other)),
        }
    }

    /// What each replica of `key` in database `db` holds, the primary first.
    pub async fn replicas(&self, db: u8, key: &[u8]) -> Result<Vec<(NodeId, ReplicaState)>, CommandError> {
        let outcome =
            self.worker.ask(|core, shell, now, tag| core.replicas(shell, now, tag, KeyRef::new(db, key)));
        match outcome.await {
            Outcome::Replicas(states) => Ok(states),
            other => Err(unexpected(other)),
        }
    }

    /// How many live keys database `db` has, asking one replica of each range.
    pub async fn count(&self, db: u8) -> Result<u64, CommandError> {
        match self.worker.ask(|core, shell, now, tag| core.count(shell, now, tag, db)).await {
            Outcome::Counted(keys) => Ok(keys),
            other => Err(unexpected(other)),
        }
    }

    /// How many replicas have acknowledged every write of this connection, as soon as that are `wanted`, or after
    /// `within`. Waits no longer than answers to its writes can come; without a write all live replicas count.
    pub async fn acknowledged(&self, wanted: usize, within: Option<Duration>) -> usize {
        let answers_end =
            Duration::from_millis(self.node().config.load().request_timeout_ms.saturating_mul(2));
        let deadline = Instant::now() + within.unwrap_or(answers_end).min(answers_end);
        let mut connections = self.worker.connections().into_iter();
        let own = connections.find(|connection| connection.session.borrow().settings.id == self.session);
        drop(connections);
        loop {
            let count = own.as_ref().and_then(|own| {
                self.worker.step(|turn| own.session.borrow().acknowledgements.count(turn.core))
            });
            let acked = count.unwrap_or_else(|| self.live_replicas());
            if acked >= wanted || Instant::now() >= deadline {
                return acked;
            }
            tokio::time::sleep(ACKNOWLEDGEMENT_POLL).await;
        }
    }

    /// How many replicas a key has now, at most.
    fn live_replicas(&self) -> usize {
        let ring = self.node().ring.load();
        let live = ring.members().iter().filter(|id| self.node().peers.is_up(**id)).count();
        live.min(ring.replicas_per_slot())
    }

    /// Syncs this node's write-ahead log. Answers whether the disk took it.
    pub async fn sync(&self) -> bool {
        let store = Arc::clone(&self.node().store);
        matches!(tokio::task::spawn_blocking(move || store.sync()).await, Ok(Ok(())))
    }

    /// Deletes every key of `databases` by a deletion horizon.
    pub async fn flush(&self, databases: Databases) -> Result<(), CommandError> {
        let outcome = self.worker.ask(|core, shell, now, tag| {
            core.flush(shell, now, tag, databases, self.levels.writing());
        });
        match outcome.await {
            Outcome::Written => Ok(()),
            other => Err(unexpected(other)),
        }
    }
}

fn unexpected(outcome: Outcome) -> CommandError {
    match outcome {
        Outcome::Failed(failure) => CommandError::Cluster(failure),
        Outcome::Refused(error) => CommandError::Modify(error),
        other => {
            debug_assert!(false, "the coordinator answered with another kind of outcome: {other:?}");
            CommandError::Cluster(Failure::Overloaded)
        }
    }
}
