//! The end of a turn: deliver, commit, flush.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gyre_cluster::coordinator::{Shell as _, Ticket};
use gyre_cluster::message::ScanRange;
use gyre_cluster::topology::Databases;
use gyre_storage::{KeyRef, ReadBack, Record, StorageError, Store, TOUCHED_MAX, UnixMillis};

use crate::worker::shell::{Applying, DiskRead, DiskScan, Receiver, session_of};
use crate::worker::{Turn, Worker};

/// How often a turn delivers and commits before it flushes, while answers make new requests go on.
const ROUNDS_MAX: usize = 64;
/// How much of the ring, in position prefixes, is counted in one go: a sixteenth.
const COUNTED_PREFIXES_MAX: u64 = 1 << 28;

impl Worker {
    /// Ends turns for ever.
    pub(super) async fn end_turns(self: Rc<Self>) {
        loop {
            self.turn.notified().await;
            // Else it has been ended already, as it was full.
            if self.turn_is_due.get() {
                self.end_turn();
            }
        }
    }

    /// Ends the turn at hand if it is full, so that others go on with what it has begun while this worker takes the rest.
    pub fn end_full_turn(self: &Rc<Self>) {
        if self.state.borrow().shell.is_full() {
            self.end_turn();
        }
    }

    fn end_turn(self: &Rc<Self>) {
        self.turn_is_due.set(false);
        for _ in 0..ROUNDS_MAX {
            self.within_turn(|turn| {
                self.deliver(turn);
                self.resume(turn);
                grant_locks(turn);
                read_together(turn);
                commit(turn);
            });
            if self.nothing_left() {
                break;
            }
        }
        if !self.nothing_left() {
            self.turn_due();
        }
        self.cover_clock();
        self.go_to_disk();
        self.flush();
        self.ticker.notify_one();
    }

    /// Before what was stamped is sent, the clock's durable mark has passed it, also if no row of it is stored here: so a
    /// restart stamps nothing below what was acknowledged. A poisoned store covers nothing: what its node stamps as a
    /// coordinator is passed, after the restart, by the time that most members agree on.
    fn cover_clock(&self) {
        if let Err(error) = self.node.store.cover(self.node.clock.now()) {
            tracing::debug!(%error, "cannot raise the clock's mark");
        }
    }

    fn nothing_left(&self) -> bool {
        self.resumable.borrow().is_empty() && self.state.borrow().shell.is_idle()
    }

    /// Hands outcomes to whom they are for.
    fn deliver(&self, turn: &mut Turn<'_>) {
        let mut finished = std::mem::take(&mut turn.shell.finished);
        for (tag, outcome) in finished.drain(..) {
            match turn.shell.receiver(tag) {
                Receiver::Session { index, sequence } => {
                    if let Some(connection) = self.connection(index) {
                        connection.session.borrow_mut().complete(sequence, &outcome, turn);
                        self.after_completion(&connection);
                    }
                }
                // A task that is gone needs no outcome.
                Receiver::Task(sender) => drop(sender.send(outcome)),
                Receiver::Gone => {}
            }
        }
        if turn.shell.finished.is_empty() {
            turn.shell.finished = finished;
        }
        for (tag, acked) in std::mem::take(&mut turn.shell.settled) {
            // Only WAIT, a session's command, wants to know; a task has its outcome, and its place may be another's.
            let Some((index, sequence)) = session_of(tag) else { continue };
            if let Some(connection) = self.connection(index) {
                connection.session.borrow_mut().settled(sequence, acked);
            }
        }
    }

    /// Lets connections go on whose next request was waiting.
    fn resume(&self, turn: &mut Turn<'_>) {
        let resumable = std::mem::take(&mut *self.resumable.borrow_mut());
        for index in resumable {
            let Some(connection) = self.connection(index) else { continue };
            connection.session.borrow_mut().pump(turn);
            self.mark_dirty(&connection);
            if !connection.session.borrow().is_stalled() {
                connection.wake_reader();
            }
        }
    }

    /// Starts on the blocking pool what this turn could not answer from memory.
    fn go_to_disk(self: &Rc<Self>) {
        let (reads, scans, horizons) = {
            let shell = &mut self.state.borrow_mut().shell;
            let shell = &mut *shell;
            (
                std::mem::take(&mut shell.disk_reads),
                std::mem::take(&mut shell.disk_scans),
                std::mem::take(&mut shell.horizons),
            )
        };
        for read in reads {
            tokio::task::spawn_local(read_from_disk(Rc::clone(self), read));
        }
        for scan in scans {
            tokio::task::spawn_local(scan_disk(Rc::clone(self), scan));
        }
        for (ticket, databases, version) in horizons {
            tokio::task::spawn_local(set_horizon(Rc::clone(self), ticket, databases, version));
        }
    }

    fn flush(self: &Rc<Self>) {
        let mut dirty = std::mem::take(&mut *self.dirty.borrow_mut());
        for index in dirty.drain(..) {
            if let Some(connection) = self.connection(index) {
                connection.flush(self);
            }
        }
        let dirty_now = &mut *self.dirty.borrow_mut();
        if dirty_now.is_empty() {
            *dirty_now = dirty;
        }
        let state = &mut *self.state.borrow_mut();
        state.shell.flush();
        self.metrics.publish(state.core.statistics());
    }
}

fn grant_locks(turn: &mut Turn<'_>) {
    for (op, key_hash) in std::mem::take(&mut turn.shell.locked) {
        turn.core.locked(turn.shell, turn.now, op, key_hash);
    }
}

/// Does the reads that were put off, some at a time.
fn read_together(turn: &mut Turn<'_>) {
    let mut reads = std::mem::take(&mut turn.shell.soon_reads);
    for chunk in reads.chunks(TOUCHED_MAX) {
        turn.node.store.touch(chunk.clone().map(|(_, key)| key));
        for (ticket, key) in chunk {
            // Otherwise it comes from the disk.
            if let Some(record) = turn.shell.read(ticket, key) {
                turn.core.local_record(turn.shell, turn.now, ticket, Some(record));
            }
        }
    }
    reads.clear();
    if turn.shell.soon_reads.is_empty() {
        turn.shell.soon_reads = reads;
    }
}

/// Commits the turn's rows as one batch and tells the coordinator.
fn commit(turn: &mut Turn<'_>) {
    if turn.shell.applying.is_empty() {
        return;
    }
    let result = turn.node.store.commit(&mut turn.shell.batch);
    if let Err(error) = &result {
        tracing::error!(%error, "cannot commit: this node no longer acknowledges writes");
        turn.node.store_failed();
    }
    let mut read_back = turn.shell.batch.take_read_back().into_iter();
    let mut applying = std::mem::take(&mut turn.shell.applying);
    for Applying { ticket, is_asking } in applying.drain(..) {
        match is_asking.then(|| read_back.next()).flatten() {
            Some(ReadBack::Record(record)) => {
                turn.core.local_record(turn.shell, turn.now, ticket, Some(record));
            }
            Some(ReadBack::Unknown { db, key }) => turn.shell.disk_reads.push(DiskRead { ticket, db, key }),
            None => turn.core.applied(turn.shell, turn.now, ticket, result.is_ok()),
        }
    }
    if turn.shell.applying.is_empty() {
        turn.shell.applying = applying;
    }
}

async fn read_from_disk(worker: Rc<Worker>, read: DiskRead) {
    let store = Arc::clone(&worker.node().store);
    let DiskRead { ticket, db, key } = read;
    let record = noted(blocking(move || store.read(KeyRef::new(db, &key))).await, "read from disk");
    worker.step(|turn| turn.core.local_record(turn.shell, turn.now, ticket, record));
}

async fn scan_disk(worker: Rc<Worker>, scan: DiskScan) {
    let store = Arc::clone(&worker.node().store);
    let now = worker.now().wall;
    let DiskScan { ticket, range, count_only } = scan;
    if count_only {
        let counted = noted(blocking(move || count(&store, &range, now)).await, "count keys");
        worker.step(|turn| turn.core.counted(turn.shell, turn.now, ticket, counted));
    } else {
        let page = noted(blocking(move || page(&store, &range)).await, "scan keys");
        worker.step(|turn| turn.core.scanned(turn.shell, turn.now, ticket, page));
    }
}

/// Keys with their records, and where the next page begins.
type Page = (Vec<(Vec<u8>, Record)>, Option<u64>);

fn page(store: &Store, range: &ScanRange) -> Result<Page, StorageError> {
    let (keys_max, bytes_max) = (range.keys_max as usize, range.bytes_max as usize);
    let page = store.scan(Some(range.db), range.from, range.end, keys_max, bytes_max, false)?;
    Ok((page.entries.into_iter().map(|(_, key, record)| (key, record)).collect(), page.next))
}

/// Counts up to [`COUNTED_PREFIXES_MAX`] prefixes at a time.
fn count(store: &Store, range: &ScanRange, now: UnixMillis) -> Result<(u64, Option<u64>), StorageError> {
    let end = range.end.min(range.from + COUNTED_PREFIXES_MAX);
    let keys = store.count_keys(range.db, range.from, end, now)?;
    Ok((keys, (end < range.end).then_some(end)))
}

/// The value of `result`, or its error in the log.
fn noted<T>(result: Result<T, StorageError>, what: &'static str) -> Option<T> {
    result.inspect_err(|error| tracing::error!(%error, "cannot {what}")).ok()
}

async fn set_horizon(
    worker: Rc<Worker>,
    ticket: Ticket,
    databases: Databases,
    version: gyre_storage::Version,
) {
    let node = Arc::clone(worker.node());
    let stored =
        noted(blocking(move || node.raise_horizons(databases, version)).await, "store the deletion horizon");
    worker.step(|turn| turn.core.applied(turn.shell, turn.now, ticket, stored.is_some()));
}

/// As [`blocking`], for work that is paced: also answers how long it took. Waiting for a thread is no work: it is not to be
/// made up for by resting.
pub async fn blocking_timed<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<(T, Duration), StorageError> {
    blocking(move || {
        let started = Instant::now();
        work().map(|result| (result, started.elapsed()))
    })
    .await
}

/// Runs `work` on a thread that may wait for the disk.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
