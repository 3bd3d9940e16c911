//! A simulated machine, and the process that may run on it: the production store, clock and coordinators, and what
//! the server's shell would do around them.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use gyre_cluster::clock::HybridClock;
use gyre_cluster::coordinator::{Coordinator, CoordinatorConfig, OpId};
use gyre_cluster::message::Message;
use gyre_cluster::node::NodeId;
use gyre_cluster::purge::kept::Keeper;
use gyre_cluster::repair::Repair;
use gyre_cluster::ring::Ring;
use gyre_cluster::sweep::Sweeper;
use gyre_cluster::time::{MonoMicros, Now};
use gyre_storage::key::murmur3_128;
use gyre_storage::{FsyncPolicy, KeyRef, MemoryDisk, Record, Store, StoreOptions};

use crate::clock::WallClock;
use crate::commit::Pending;
use crate::event::{Event, Local, NodeLocal};
use crate::gossip::Membership;
use crate::handoff::{self, Replay};
use crate::lapse::Document;
use crate::mutation::{Distortion, Mutation};
use crate::network::{LinkIndex, Network, Packet, WORKERS, WorkerAt};
use crate::purge::Purging;
use crate::queue::{MS, Micros, SECOND};
use crate::repair;
use crate::shell::SimShell;
use crate::surroundings::Env;
use crate::sweep;
use crate::time::Time;

/// How often a node syncs under `everysec`.
pub(crate) const SYNC_EVERY: Micros = SECOND;

/// How often it has started.
pub(crate) const META_INCARNATION: &str = "incarnation";
/// How often it drops superseded rows.
const COMPACT_EVERY: Range<Micros> = 20 * SECOND..90 * SECOND;

/// A machine: it has a disk and a clock, and runs a process or not.
pub(crate) struct Node {
    pub(crate) index: usize,
    pub(crate) disk: MemoryDisk,
    pub(crate) clock: WallClock,
    pub(crate) options: StoreOptions,
    /// How often it has started or stopped.
    pub(crate) boot: u32,
    /// Its latest incarnation, as the other nodes know it from the topology document.
    pub(crate) incarnation: u64,
    pub(crate) process: Option<Process>,
    pub(crate) is_paused: bool,
    /// Somebody has seen that its store accepts nothing any more.
    pub(crate) is_noticed: bool,
    /// What happened to it while it was paused.
    pub(crate) backlog: Vec<Event>,
    /// How many times slower its disk is.
    pub(crate) disk_slowness: u64,
    /// The latest time it has gone by, in Unix milliseconds.
    pub(crate) latest_ms: u64,
}

/// What a process knows: gone when it stops.
pub(crate) struct Process {
    pub(crate) store: Store,
    pub(crate) hlc: Arc<HybridClock>,
    pub(crate) time: Time,
    pub(crate) locks: Locks,
    pub(crate) distortion: Distortion,
    pub(crate) replay: Replay,
    pub(crate) membership: Membership,
    pub(crate) sweeper: Sweeper,
    pub(crate) repair: Repair,
    pub(crate) ring: Arc<Ring>,
    /// Which rows it goes on from itself.
    pub(crate) keeper: Keeper,
    pub(crate) purging: Option<Purging>,
    pub(crate) document: Option<Document>,
    pub(crate) workers: Vec<Worker>,
}

/// A worker: a coordinator and the rows of its turn.
pub(crate) struct Worker {
    pub(crate) core: Coordinator,
    pub(crate) pending: Pending,
    pub(crate) alarm_at: Option<u64>,
}

/// The keys locked on a node, each with whoever holds it, then those that wait.
#[derive(Default)]
pub(crate) struct Locks(BTreeMap<u64, VecDeque<(usize, OpId)>>);

impl Locks {
    pub(crate) fn lock(&mut self, key_hash: u64, worker: usize, op: OpId) -> bool {
        let queue = self.0.entry(key_hash).or_default();
        queue.push_back((worker, op));
        queue.len() == 1
    }

    /// Gives a lock back, to the one that is returned if somebody waits.
    pub(crate) fn unlock(&mut self, key_hash: u64) -> Option<(usize, OpId)> {
        let queue = self.0.get_mut(&key_hash).expect("only a held lock is given back");
        queue.pop_front();
        let next = queue.front().copied();
        if next.is_none() {
            self.0.remove(&key_hash);
        }
        next
    }

    pub(crate) fn held(&self) -> usize {
        self.0.len()
    }
}

/// The id of node `index`: scattered, as random ids are, so that the ring is.
pub(crate) fn node_id(index: usize) -> NodeId {
    NodeId(crate::random::mix(index as u64 + 1) | 1)
}

impl Node {
    pub(crate) fn new(index: usize, options: StoreOptions) -> Node {
        Node {
            index,
            disk: MemoryDisk::new(),
            clock: WallClock::default(),
            options,
            boot: 0,
            incarnation: 0,
            process: None,
            is_paused: false,
            is_noticed: false,
            backlog: Vec::new(),
            disk_slowness: 1,
            latest_ms: 0,
        }
    }

    /// Whether it answers.
    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some() && !self.is_paused
    }

    /// Starts the process. `false` if the disk does not allow it.
    pub(crate) fn start(&mut self, env: &mut Env, ring: &Arc<Ring>) -> bool {
        let Ok(store) = Store::open_memory(&self.disk, &self.options) else { return false };
        let Some((incarnation, own_count)) = next_incarnation(&store, self.incarnation) else { return false };
        self.boot += 1;
        self.incarnation = incarnation;
        let id = node_id(self.index);
        let hlc = Arc::new(HybridClock::default());
        if env.mutation != Some(Mutation::ClockMarkForgotten) {
            hlc.raise_to(store.clock_mark());
        }
        hlc.set_settled(false);
        // The server draws it at random.
        let start = if env.mutation == Some(Mutation::ActorReused) { own_count } else { incarnation };
        let actor = murmur3_128(&[id.0.to_be_bytes(), start.to_be_bytes()].concat()) >> 64;
        let worker = |_| Worker {
            core: Coordinator::new(
                CoordinatorConfig::new(id, actor as u64),
                Arc::clone(&hlc),
                Arc::clone(ring),
            ),
            pending: Pending::default(),
            alarm_at: None,
        };
        let workers = (0..WORKERS).map(worker).collect();
        if env.mutation == Some(Mutation::HintLostInCrash) {
            handoff::lose_hints(&store);
        }
        let now = MonoMicros(env.queue.now());
        let replay = Replay::new(id, actor as u64, Arc::clone(ring), now, env.grace);
        let (locks, distortion) = (Locks::default(), Distortion::new(env.mutation));
        let Some(document) = Document::open(&store, self.index, incarnation, env) else { return false };
        if let Some(document) = &document {
            document.topology.horizons.values().for_each(|horizon| hlc.raise_to(horizon.hlc));
        }
        let membership = Membership::new(self.index, incarnation, document.as_ref(), env);
        let sweeper = sweep::sweeper(env.sweep_interval, now);
        let repair = repair::core(id, actor as u64, &store, ring, env.compare_interval, now);
        let keeper = Keeper { node: id, actor: actor as u64 };
        let time = Time::new(now);
        self.process = Some(Process {
            store,
            hlc,
            time,
            locks,
            distortion,
            replay,
            membership,
            sweeper,
            repair,
            ring: Arc::clone(ring),
            keeper,
            purging: None,
            document,
            workers,
        });
        env.incarnations[self.index] = incarnation;
        self.purge_and_wait(env);
        self.watch_absences_and_wait(env);
        self.compare_clocks_and_wait(env);
        self.sweep_and_wait(env);
        self.compare_and_wait(env);
        self.gossip_and_wait(env);
        self.replay_and_wait(env);
        self.dial_all(env);
        self.schedule_sync(env);
        self.schedule_compaction(env);
        true
    }

    fn dial_all(&self, env: &mut Env) {
        for peer in (0..env.network.nodes).filter(|&peer| peer != self.index) {
            for worker in 0..WORKERS {
                let owner = WorkerAt { node: self.index, worker };
                let link = LinkIndex::of(owner, peer, env.network.nodes);
                let delay = env.random.below(100 * MS);
                env.queue.after(delay, Event::Dial { link });
            }
        }
    }

    pub(crate) fn schedule_sync(&self, env: &mut Env) {
        let delay = match self.options.fsync {
            FsyncPolicy::Always => return,
            FsyncPolicy::EverySecond => SYNC_EVERY,
            FsyncPolicy::No => env.random.within(5 * SECOND..30 * SECOND),
        };
        let event = Event::Node { node: self.index, boot: self.boot, local: NodeLocal::Sync };
        env.queue.after(delay, event);
    }

    pub(crate) fn schedule_compaction(&self, env: &mut Env) {
        let delay = env.random.within(COMPACT_EVERY);
        let event = Event::Node { node: self.index, boot: self.boot, local: NodeLocal::Compact };
        env.queue.after(delay, event);
    }

    /// The process is gone; the disk stays as the system has it. Gives what had been waiting for a paused one.
    pub(crate) fn stop(&mut self) -> Vec<Event> {
        self.boot += 1;
        self.process = None;
        (self.is_paused, self.is_noticed) = (false, false);
        std::mem::take(&mut self.backlog)
    }

    /// The machine, which is off, gets a disk with nothing on it.
    pub(crate) fn lose_disk(&mut self, is_cold: bool) {
        self.disk = MemoryDisk::new();
        self.disk.set_cold(is_cold);
    }

    /// The monotonic clock, and the time that the node goes by.
    pub(crate) fn now(&mut self, now: Micros) -> Now {
        let wall =
            self.process.as_ref().map_or_else(|| self.clock.read(now), |process| process.time.read(now));
        self.latest_ms = self.latest_ms.max(wall.0);
        Now { mono: MonoMicros(now), wall }
    }

    /// Calls a coordinator. `None` if no process runs.
    pub(crate) fn step<R>(
        &mut self,
        env: &mut Env,
        worker: usize,
        call: impl FnOnce(&mut Coordinator, &mut SimShell<'_>, Now) -> R,
    ) -> Option<R> {
        let now = self.now(env.queue.now());
        let at = WorkerAt { node: self.index, worker };
        let Process { store, hlc, locks, distortion, workers, .. } = self.process.as_mut()?;
        let Worker { core, pending, alarm_at } = &mut workers[worker];
        let (boot, disk_slowness) = (self.boot, self.disk_slowness);
        let latest_wall_ms = self.latest_ms;
        let mut shell = SimShell {
            at,
            boot,
            latest_wall_ms,
            store,
            hlc,
            locks,
            distortion,
            pending,
            disk_slowness,
            stamped: None,
            env,
        };
        let result = call(core, &mut shell, now);
        if let Some(deadline) = core.next_deadline()
            && alarm_at.is_none_or(|at| at > deadline.0)
        {
            *alarm_at = Some(deadline.0);
            let local = Local::Tick { at: deadline.0 };
            env.queue.at(deadline.0, Event::Worker { at, boot, local });
        }
        Some(result)
    }

    /// A message has arrived. `false`: the link is to be closed.
    pub(crate) fn receive(&mut self, env: &mut Env, packet: &Packet) -> bool {
        let nodes = env.network.nodes;
        let wall = self.now(env.queue.now()).wall;
        let (owner, peer) = (packet.link.owner(nodes), packet.link.peer(nodes));
        let (from, worker) = if packet.is_answer {
            (peer, owner.worker)
        } else {
            (owner.node, Network::serving_worker(packet, nodes))
        };
        let Some(process) = &self.process else { return true };
        if self.refuses(env, from) {
            return false;
        }
        let message = Message::decode(&packet.bytes).expect("what was encoded can be decoded");
        let is_of_clocks = matches!(message, Message::Ping { .. } | Message::Pong { .. });
        if env.mutation != Some(Mutation::ClockNotMerged)
            && !is_of_clocks
            && process.hlc.observe(packet.clock, wall).is_err()
        {
            return false;
        }
        self.heard_from(MonoMicros(env.queue.now()), node_id(from));
        match message {
            Message::Gossip { bytes } => self.hear(env, node_id(from), bytes),
            Message::Exchange { bytes } => self.heed(env, node_id(from), bytes),
            Message::Ping { nonce } => self.tell_clock(env, packet, nonce),
            Message::Pong { nonce, reading } => {
                self.hear_clock(env, node_id(from), nonce, reading, packet.clock);
            }
            Message::Topology { bytes } => self.told_document(env, bytes),
            Message::Purge { bytes } => self.told_of_purging(env, node_id(from), bytes),
            _ => self.serve(env, worker, from, packet, message),
        }
        true
    }

    fn serve(&mut self, env: &mut Env, worker: usize, from: usize, packet: &Packet, message: Message<'_>) {
        let link = Network::link_id(packet);
        self.step(env, worker, |core, shell, now| core.receive(shell, now, node_id(from), link, message));
    }

    /// Whether its store accepts nothing any more.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.store.poisoned().is_some())
    }

    /// What its disk holds of `key`, whether a process runs or not.
    pub(crate) fn holds(&self, key: KeyRef<'_>) -> Record {
        match &self.process {
            Some(process) => process.store.read(key).unwrap_or_default(),
            None => self.with_store(|store| store.read(key).unwrap_or_default()),
        }
    }

    /// Looks at the store, which is opened for it if no process runs.
    pub(crate) fn with_store<R>(&self, look: impl FnOnce(&Store) -> R) -> R {
        match &self.process {
            Some(process) => look(&process.store),
            None => {
                let options = StoreOptions { row_cache_bytes: 0, ..self.options.clone() };
                look(&Store::open_memory(&self.disk, &options).expect("a disk in memory can be read"))
            }
        }
    }
}

/// Counts the starts of a node, durably, as the server does: from what the store knows, or if that is less, from
/// `known`, which the other nodes tell a node that has lost its disk. Also what the store alone makes of it.
fn next_incarnation(store: &Store, known: u64) -> Option<(u64, u64)> {
    let last = store
        .meta_get(META_INCARNATION)
        .ok()?
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_be_bytes);
    let next = last.max(known) + 1;
    store.meta_put(META_INCARNATION, &next.to_be_bytes()).ok()?;
    Some((next, last + 1))
}
