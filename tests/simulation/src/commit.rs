//! Commits: the rows of a worker's turn on their way to the disk, and who is told then.

use gyre_cluster::coordinator::{Shell as _, Ticket};
use gyre_storage::{Batch, KeyRef, ReadBack, Record};

use crate::checkers::owed::Promise;
use crate::node::Node;
use crate::queue::Micros;
use crate::surroundings::Env;

/// Rows on their way to the disk, in one batch, and whom to tell.
#[derive(Default)]
pub(crate) struct Pending {
    pub(crate) batch: Batch,
    pub(crate) waiting: Vec<Waiting>,
    /// The same rows once more, for a mutation that needs them.
    pub(crate) rows: Vec<(Vec<u8>, Record)>,
    /// The hints in the batch.
    pub(crate) hints: Vec<Promise>,
    /// Whether its commit is scheduled.
    pub(crate) is_open: bool,
    pub(crate) last_commit_at: Micros,
}

/// Who waits for a row.
pub(crate) struct Waiting {
    pub(crate) ticket: Ticket,
    /// The row's database and key, if what it then holds is wanted.
    pub(crate) asks: Option<(u8, Vec<u8>)>,
}

impl Node {
    /// The batch of a worker's turn goes to the disk, and whoever waits for it is told.
    pub(crate) fn commit(&mut self, env: &mut Env, worker: usize) {
        let Some(process) = &mut self.process else { return };
        let pending = &mut process.workers[worker].pending;
        let waiting = std::mem::take(&mut pending.waiting);
        let rows = std::mem::take(&mut pending.rows);
        let hints = std::mem::take(&mut pending.hints);
        pending.is_open = false;
        let is_stored = process.store.commit(&mut pending.batch).is_ok();
        let read_back = pending.batch.take_read_back();
        for hint in hints {
            if is_stored { env.owed.kept(hint) } else { env.owed.excuse(hint.key, hint.version) }
        }
        process.distortion.committed(rows);
        env.commits += 1;
        self.tell_applied(env, worker, waiting, is_stored, read_back);
    }

    fn tell_applied(
        &mut self,
        env: &mut Env,
        worker: usize,
        waiting: Vec<Waiting>,
        is_stored: bool,
        read_back: Vec<ReadBack>,
    ) {
        let mut read_back = read_back.into_iter();
        self.step(env, worker, |core, shell, now| {
            for Waiting { ticket, asks } in waiting {
                let Some((db, key)) = asks.filter(|_| is_stored) else {
                    core.applied(shell, now, ticket, is_stored);
                    continue;
                };
                let key = KeyRef::new(db, &key);
                let record = match read_back.next() {
                    Some(ReadBack::Record(record)) => Some(shell.distortion.read(key, record)),
                    Some(ReadBack::Unknown { .. }) | None => shell.read(ticket, key),
                };
                // Otherwise it comes from the disk.
                if record.is_some() {
                    core.local_record(shell, now, ticket, record);
                }
            }
        });
    }

    /// Under a mutation: whoever waits for the batch is told before it is on the disk.
    pub(crate) fn acknowledge_early(&mut self, env: &mut Env, worker: usize) {
        let Some(process) = &mut self.process else { return };
        let waiting = std::mem::take(&mut process.workers[worker].pending.waiting);
        self.tell_applied(env, worker, waiting, true, Vec::new());
    }
}
