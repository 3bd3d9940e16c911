//! Workers: one thread each, with its own connections, its own coordinator and its own link to every peer.
//!
//! A worker works in *turns*. Tasks that found their socket readable take requests and messages in and start them;
//! when all that was ready has been taken, the turn ends: answers are delivered, the turn's rows are committed as one
//! batch, and every link and client is written to once. So batches grow by themselves with the load, and nothing on
//! the way of a request is locked or handed to another thread.

pub mod locks;
pub mod mailbox;
pub mod reads;
pub mod shell;
mod start;
pub mod turn;

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{self, Poll};

use gyre_cluster::coordinator::{Coordinator, Tag};
use gyre_cluster::node::NodeId;
use gyre_cluster::outcome::{Failure, Outcome};
use gyre_cluster::ring::Ring;
use gyre_cluster::time::Now;
use gyre_protocol::Reply;
use slab::Slab;
use tokio::sync::{Notify, oneshot};

use crate::config::Config;
use crate::execute::Arguments;
use crate::metrics::{CommandIndex, WorkerMetrics};
use crate::node::Node;
use crate::peer::gossip::GossipState;
use crate::peer::membership::Membership;
use crate::purger::PurgerState;
use crate::repair::RepairState;
use crate::session::connection::Connection;
use crate::session::registry::ClientEntry;
use crate::slowlog;
use crate::worker::shell::Shell;

pub use shell::tag_of;
pub use start::start;

/// One worker. Lives on its thread; everybody there holds it by `Rc`.
pub struct Worker {
    /// Its number, from 0.
    pub index: usize,
    node: Arc<Node>,
    state: RefCell<State>,
    connections: RefCell<Slab<Rc<Connection>>>,
    /// Connections that have something to send.
    dirty: RefCell<Vec<u32>>,
    /// Connections whose next request was waiting and may go on.
    resumable: RefCell<Vec<u32>>,
    metrics: WorkerMetrics,
    /// Wakes the task that ends turns.
    turn: Notify,
    turn_is_due: Cell<bool>,
    /// Wakes the task that lets time pass for the coordinator.
    ticker: Notify,
    /// Cluster formation, on worker 0.
    pub membership: Membership,
    /// Gossip, on worker 0.
    pub gossip: GossipState,
    /// Anti-entropy, on worker 0.
    pub repair: RepairState,
    /// Purging, on worker 0.
    pub purger: PurgerState,
}

/// The outcome of an operation, once it has ended.
pub struct Asked(oneshot::Receiver<Outcome>);

impl Future for Asked {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Outcome> {
        // Only a stopping worker drops the sending side.
        Pin::new(&mut self.0).poll(cx).map(|outcome| outcome.unwrap_or(Outcome::Failed(Failure::Overloaded)))
    }
}

struct State {
    core: Coordinator,
    shell: Shell,
}

/// What may be done in the course of a turn.
pub struct Turn<'a> {
    /// The coordinator.
    pub core: &'a mut Coordinator,
    /// Its surroundings.
    pub shell: &'a mut Shell,
    /// The time at which this step began.
    pub now: Now,
    /// The worker.
    pub worker: &'a Rc<Worker>,
    /// Its number.
    pub worker_index: usize,
    /// The node.
    pub node: &'a Node,
    /// The settings.
    pub config: &'a Config,
}

impl Turn<'_> {
    /// Takes the end of a command into the statistics. Answers how many microseconds it took.
    pub fn record(&self, command: CommandIndex, started_us: u64) -> u64 {
        let micros = self.now.mono.0.saturating_sub(started_us);
        self.worker.metrics.record(command, micros);
        let threshold_ms = self.config.latency_monitor_threshold_ms;
        self.node.metrics.latency.record(threshold_ms, "command", micros, self.now.wall.0 / 1_000);
        micros
    }

    /// Takes a command into SLOWLOG if it took long.
    pub fn note_slow(&self, micros: u64, arguments: &Arguments, client: &ClientEntry) {
        if slowlog::is_slow(self.config, micros) {
            self.log_slow(micros, arguments.from(0), client);
        }
    }

    /// Takes a hot command into SLOWLOG if it took long. Its arguments are gone: to keep them would cost every one of
    /// these commands time, and few are slow.
    pub fn note_slow_by_name(&self, micros: u64, command: CommandIndex, client: &ClientEntry) {
        if slowlog::is_slow(self.config, micros) {
            let words = [command.name().to_uppercase().into_bytes(), slowlog::NOT_KEPT.to_vec()];
            self.log_slow(micros, words.iter().map(Vec::as_slice), client);
        }
    }

    #[cold]
    fn log_slow<'w>(
        &self,
        micros: u64,
        words: impl ExactSizeIterator<Item = &'w [u8]>,
        client: &ClientEntry,
    ) {
        let name = client.settings.lock().name.clone();
        let (entries_max, seconds) = (self.config.slowlog_max_len, self.now.wall.0 / 1_000);
        self.node.slowlog.record(entries_max, micros, seconds, words, client.address, &name);
    }

    /// Takes a command into the statistics that answered an error (INFO errorstats, commandstats).
    pub fn count_failure(&self, command: CommandIndex, text: &str) {
        self.worker.metrics.count_failed(command);
        self.node.metrics.count_error(text);
    }

    /// Takes an error reply into the statistics that no command made (INFO errorstats).
    pub fn count_error(&self, text: &str) {
        self.node.metrics.count_error(text);
    }
}

impl Worker {
    /// Worker `index` of `node`, without connections.
    pub fn new(index: usize, node: Arc<Node>, core: Coordinator) -> Rc<Worker> {
        Rc::new(Worker {
            index,
            state: RefCell::new(State { core, shell: Shell::new(index, Arc::clone(&node)) }),
            connections: RefCell::default(),
            dirty: RefCell::default(),
            resumable: RefCell::default(),
            metrics: node.metrics.worker(index),
            turn: Notify::new(),
            turn_is_due: Cell::new(false),
            ticker: Notify::new(),
            membership: Membership::default(),
            gossip: GossipState::default(),
            repair: RepairState::default(),
            purger: PurgerState::default(),
            node,
        })
    }

    /// The node.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The settings at this moment.
    pub fn config(&self) -> arc_swap::Guard<Arc<Config>> {
        self.node.config.load()
    }

    /// This worker's share of the statistics.
    pub fn metrics(&self) -> &WorkerMetrics {
        &self.metrics
    }

    /// The time, by both clocks.
    pub fn now(&self) -> Now {
        self.node.time.now()
    }

    /// Runs one step of a turn, and sees to it that the turn will end.
    pub fn step<R>(self: &Rc<Self>, work: impl FnOnce(&mut Turn<'_>) -> R) -> R {
        let result = self.within_turn(work);
        self.turn_due();
        result
    }

    fn within_turn<R>(self: &Rc<Self>, work: impl FnOnce(&mut Turn<'_>) -> R) -> R {
        let mut state = self.state.borrow_mut();
        let State { core, shell } = &mut *state;
        let config = self.node.config.load();
        work(&mut Turn {
            core,
            shell,
            now: self.now(),
            worker: self,
            worker_index: self.index,
            node: &self.node,
            config: &config,
        })
    }

    fn turn_due(&self) {
        if !self.turn_is_due.replace(true) {
            self.turn.notify_one();
        }
    }

    /// Starts an operation for a task, which awaits its outcome.
    pub fn ask(self: &Rc<Self>, start: impl FnOnce(&mut Coordinator, &mut Shell, Now, Tag)) -> Asked {
        let outcome = self.step(|turn| {
            let (tag, outcome) = turn.shell.task_tag();
            start(turn.core, turn.shell, turn.now, tag);
            outcome
        });
        Asked(outcome)
    }

    /// Takes the requests in `connection`'s buffer.
    pub fn pump(self: &Rc<Self>, connection: &Rc<Connection>) {
        self.step(|turn| connection.session.borrow_mut().pump(turn));
        self.mark_dirty(connection);
        self.end_full_turn();
    }

    /// Hands in the reply of an asynchronous command.
    pub fn complete_reply(self: &Rc<Self>, index: u32, sequence: u32, reply: &Reply, arguments: &Arguments) {
        let Some(connection) = self.connection(index) else { return };
        self.step(|turn| {
            let mut session = connection.session.borrow_mut();
            session.complete_reply(sequence, reply, arguments, turn);
        });
        self.after_completion(&connection);
    }

    /// Pumps the connection at `index` again before the turn ends.
    pub fn resume_later(&self, index: u32) {
        self.resumable.borrow_mut().push(index);
        self.turn_due();
    }

    /// Lists a new connection; `build` is told its place.
    pub fn add(&self, build: impl FnOnce(u32) -> Connection) -> Rc<Connection> {
        let mut connections = self.connections.borrow_mut();
        let entry = connections.vacant_entry();
        let index = u32::try_from(entry.key()).unwrap_or(u32::MAX);
        Rc::clone(entry.insert(Rc::new(build(index))))
    }

    /// Takes a closed connection off the list, as soon as nothing is under way for it: its place, which is part of
    /// its operations' tags, must not be another's before.
    pub fn remove(&self, connection: &Connection) {
        let mut session = connection.session.borrow_mut();
        session.end();
        self.node.clients.remove(session.settings.id);
        if session.pipeline.waiting() == 0 {
            self.connections.borrow_mut().try_remove(connection.index as usize);
        }
    }

    /// Whether this worker has a link to `peer`.
    pub fn is_connected(&self, peer: NodeId) -> bool {
        self.state.borrow().shell.outboxes.is_connected(peer)
    }

    /// The peers that this worker has a link to.
    pub fn linked_peers(&self) -> Vec<NodeId> {
        self.state.borrow().shell.outboxes.connected()
    }

    /// The members that own something, and which of them are peers that count as alive for this worker.
    pub fn liveness(&self, ring: &Ring) -> Vec<(NodeId, bool)> {
        let state = self.state.borrow();
        let live = state.core.live_peers();
        ring.members().iter().map(|&member| (member, live.binary_search(&member).is_ok())).collect()
    }

    /// How many operations this worker's coordinator has under way.
    pub fn operations(&self) -> usize {
        self.state.borrow().core.in_flight()
    }

    /// All connections of this worker.
    pub fn connections(&self) -> Vec<Rc<Connection>> {
        self.connections.borrow().iter().map(|(_, connection)| Rc::clone(connection)).collect()
    }

    fn connection(&self, index: u32) -> Option<Rc<Connection>> {
        self.connections.borrow().get(index as usize).map(Rc::clone)
    }

    fn mark_dirty(&self, connection: &Connection) {
        if !connection.dirty.replace(true) {
            self.dirty.borrow_mut().push(connection.index);
        }
    }

    /// A command of `connection` was answered: send the reply, let the next request go on.
    fn after_completion(&self, connection: &Connection) {
        if connection.is_closed() {
            if connection.session.borrow().pipeline.waiting() == 0 {
                self.connections.borrow_mut().try_remove(connection.index as usize);
            }
            return;
        }
        self.mark_dirty(connection);
        if connection.session.borrow().is_stalled() {
            self.resumable.borrow_mut().push(connection.index);
        }
    }
}
