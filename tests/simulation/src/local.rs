//! What a node and its workers do by themselves when the time has come.

use gyre_cluster::coordinator::ScannedPage;
use gyre_cluster::message::ScanRange;
use gyre_storage::{KeyRef, Store};

use crate::event::{Local, NodeLocal};
use crate::node::Node;
use crate::surroundings::Env;

impl Node {
    /// Does what a worker was waiting for.
    pub(crate) fn local(&mut self, env: &mut Env, worker: usize, local: Local) {
        match local {
            Local::Commit => self.commit(env, worker),
            Local::EarlyAcknowledgement => self.acknowledge_early(env, worker),
            Local::Tick { at } => {
                if let Some(process) = &mut self.process
                    && process.workers[worker].alarm_at == Some(at)
                {
                    process.workers[worker].alarm_at = None;
                    self.step(env, worker, |core, shell, now| core.tick(shell, now));
                }
            }
            Local::Record { ticket, db, key } => {
                self.step(env, worker, |core, shell, now| {
                    let record = shell.read_store(KeyRef::new(db, &key));
                    core.local_record(shell, now, ticket, record);
                });
            }
            Local::Page { ticket, range } => {
                self.step(env, worker, |core, shell, now| {
                    let page = page(shell.store, &range);
                    core.scanned(shell, now, ticket, page);
                });
            }
            Local::Count { ticket, range } => {
                self.step(env, worker, |core, shell, now| {
                    let count = shell.store.count_keys(range.db, range.from, range.end, now.wall);
                    core.counted(shell, now, ticket, count.ok().map(|keys| (keys, None)));
                });
            }
            Local::Horizon { ticket, databases, version } => {
                let is_stored = self.raise_horizons(env, databases, version);
                self.step(env, worker, |core, shell, now| core.applied(shell, now, ticket, is_stored));
            }
            Local::Locked { op, key_hash } => {
                self.step(env, worker, |core, shell, now| core.locked(shell, now, op, key_hash));
            }
        }
    }

    /// Does what the node does by itself.
    pub(crate) fn node_local(&mut self, env: &mut Env, local: &NodeLocal) {
        match local {
            NodeLocal::Sync => {
                if let Some(process) = &self.process {
                    // A failure poisons the store, which the world sees.
                    let _ = process.store.sync();
                }
                self.schedule_sync(env);
            }
            NodeLocal::Compact => {
                if let Some(process) = &self.process
                    && process.store.sync().is_ok()
                {
                    // RocksDB merges files, which are on stable storage; so must be what this merges.
                    let _ = process.store.compact();
                }
                self.schedule_compaction(env);
            }
            NodeLocal::Gossip => self.gossip_and_wait(env),
            NodeLocal::Clock => self.compare_clocks_and_wait(env),
            NodeLocal::Handoff => self.replay_and_wait(env),
            NodeLocal::Sweep => self.sweep_and_wait(env),
            NodeLocal::Purge => self.purge_and_wait(env),
            NodeLocal::Absences => self.watch_absences_and_wait(env),
            NodeLocal::Repair => self.compare_and_wait(env),
            NodeLocal::Work { ticket, work } => self.work(env, *ticket, work),
        }
    }
}

fn page(store: &Store, range: &ScanRange) -> Option<ScannedPage> {
    let (keys_max, bytes_max) = (range.keys_max as usize, range.bytes_max as usize);
    let page = store.scan(Some(range.db), range.from, range.end, keys_max, bytes_max, false).ok()?;
    Some((page.entries.into_iter().map(|(_, key, record)| (key, record)).collect(), page.next))
}
