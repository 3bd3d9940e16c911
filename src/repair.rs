//! Anti-entropy, on worker 0: carries out what [`gyre_cluster::repair::Repair`] decides.
//!
//! Steps run where they may wait for the disk, and after each this node rests several times as long as it took, so that
//! comparing much leaves the processor to clients: hashing anew what was written since the last exchange is the one step
//! that may take long, and the one that the core cannot pace.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gyre_cluster::message::Message;
use gyre_cluster::node::NodeId;
use gyre_cluster::repair::{Effect, Moved, Repair, RepairConfig, SlotSet, Trouble, Verified};
use gyre_cluster::time::MonoMicros;
use gyre_storage::{Hlc, StorageError, Store};
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::node::Node;
use crate::worker::Worker;
use crate::worker::mailbox::Letter;
use crate::worker::turn::blocking;

/// Results that come within this time are looked at together.
const STEP_MIN: Duration = Duration::from_millis(2);
/// How many times as long as a step took this node rests afterwards, if it took so long at all.
const REST_TIMES: u32 = 4;
const REST_AFTER: Duration = Duration::from_millis(2);
/// How often what goes on is shown anew.
const SHOW_EVERY: Duration = Duration::from_millis(500);
const META_VERIFIED: &str = "verified";

/// Anti-entropy as worker 0 holds it; `None` on others, and before it has begun.
#[derive(Default)]
pub struct RepairState(RefCell<Option<Rc<Running>>>);

/// What the task and those it starts share.
struct Running {
    worker: Rc<Worker>,
    core: RefCell<Repair>,
    /// Something has come: the core can go on.
    progress: Notify,
    shown_at: RefCell<Option<Instant>>,
}

/// What an operator wants compared.
pub enum Wanted {
    /// All slots of this node, with every peer.
    Own,
    /// These slots, by all of their replicas.
    Everywhere(SlotSet),
}

/// The verified times that the store keeps; none if they cannot be read, which costs an exchange.
pub fn stored(store: &Store) -> Verified {
    match store.meta_get(META_VERIFIED) {
        Ok(Some(bytes)) => Verified::decode(&bytes).unwrap_or_else(|error| {
            tracing::warn!(%error, "the stored times of anti-entropy are damaged: everything is compared anew");
            Verified::default()
        }),
        Ok(None) => Verified::default(),
        Err(error) => {
            tracing::error!(%error, "cannot read the stored times of anti-entropy");
            Verified::default()
        }
    }
}

/// Compares what replicas hold for ever. Worker 0 only.
pub async fn run(worker: Rc<Worker>) {
    let node = worker.node();
    let config = RepairConfig::new(node.id, node.actor, node.actor);
    let verified = Verified::clone(&node.verified.load());
    let core = Repair::new(config, node.ring.load_full(), verified, worker.now().mono);
    let (core, progress) = (RefCell::new(core), Notify::new());
    let running =
        Rc::new(Running { worker: Rc::clone(&worker), core, progress, shown_at: RefCell::default() });
    *worker.repair.0.borrow_mut() = Some(Rc::clone(&running));
    loop {
        let wait = running.step();
        // Either is a reason to look again.
        let _ = tokio::time::timeout(wait, running.progress.notified()).await;
        tokio::time::sleep(STEP_MIN).await;
    }
}

/// A message has arrived at any worker: it is worker 0's.
pub fn hand_over(node: &Node, from: NodeId, bytes: &[u8]) {
    if let Some(mailbox) = node.mailboxes.first() {
        // Without worker 0 the node is stopping.
        let _ = mailbox.send(Letter::Exchange { from, bytes: bytes.to_vec() });
    }
}

/// Takes a message in. Worker 0 only.
pub fn receive(worker: &Rc<Worker>, from: NodeId, bytes: &[u8]) {
    let Some(running) = worker.repair.0.borrow().clone() else { return };
    let (now, clock) = running.time();
    let mut effects = Vec::new();
    let result = running.core.borrow_mut().receive(now, clock, from, bytes, &mut effects);
    if let Err(error) = result {
        tracing::warn!(peer = %from, %error, "a message of anti-entropy is refused");
    }
    running.perform(effects);
}

/// Begins soon with what an operator wants. Worker 0 only.
pub fn request(worker: &Rc<Worker>, wanted: &Wanted) {
    let Some(running) = worker.repair.0.borrow().clone() else { return };
    let mut effects = Vec::new();
    {
        let mut core = running.core.borrow_mut();
        match wanted {
            Wanted::Own => core.request(&SlotSet::all()),
            Wanted::Everywhere(slots) => core.request_everywhere(slots, &mut effects),
        };
    }
    running.perform(effects);
    *running.shown_at.borrow_mut() = None;
    running.step();
}

impl Running {
    fn time(&self) -> (MonoMicros, Hlc) {
        let now = self.worker.now();
        (now.mono, self.worker.node().clock.mark(now.wall))
    }

    /// Tells the core what has changed and carries out what it wants. Answers when to come again.
    fn step(self: &Rc<Self>) -> Duration {
        let (node, (now, clock)) = (self.worker.node(), self.time());
        let mut effects = Vec::new();
        let mut core = self.core.borrow_mut();
        let config = node.config.load();
        let interval = Duration::from_secs(config.anti_entropy_interval_seconds);
        core.set_limits(now, interval, config.anti_entropy_rate);
        let ring = node.ring.load_full();
        for (member, is_live) in self.worker.liveness(&ring) {
            if is_live {
                core.peer_up(member);
            } else {
                core.peer_down(now, member, &mut effects);
            }
        }
        core.set_ring(now, ring, &mut effects);
        core.set_lapsed(node.lapsed());
        core.step(now, clock, &mut effects);
        let wait = core.wait();
        let mut shown_at = self.shown_at.borrow_mut();
        if shown_at.is_none_or(|at| at.elapsed() >= SHOW_EVERY) {
            *shown_at = Some(Instant::now());
            node.repair.store(Arc::new(core.status(now)));
        }
        drop((core, shown_at));
        self.perform(effects);
        wait
    }

    fn perform(self: &Rc<Self>, effects: Vec<Effect>) {
        for effect in effects {
            let store = Arc::clone(&self.worker.node().store);
            match effect {
                Effect::Send { to, bytes } => self.worker.step(|turn| {
                    let clock = turn.node.clock.now();
                    // Without a link it is lost, and missed in time.
                    turn.shell.outboxes.send(to, &Message::Exchange { bytes: &bytes }, clock);
                }),
                Effect::Work { ticket, work } => {
                    let work = move || work.run(store.as_ref());
                    self.then(work, REST_TIMES, move |core, now, clock, answer, effects| {
                        core.worked(now, clock, ticket, answer, effects);
                    });
                }
                Effect::ReadMarks => {
                    self.then(
                        move || store.marked_slots(),
                        0,
                        |core, now, clock, marks, effects| {
                            core.marked(now, clock, marks, effects);
                        },
                    );
                }
                Effect::ClearMarks(marks) => {
                    self.then(move || store.clear_marks(&marks), 0, |_, _, _, _, _| {});
                }
                Effect::Forget(entries) => {
                    let forget = move || {
                        entries
                            .iter()
                            .try_for_each(|entry| store.forget(entry.key(), &entry.record).map(drop))
                    };
                    self.then(forget, 0, |_, _, _, _, _| {});
                }
                Effect::Save(bytes) => self.save(bytes),
                Effect::Ended { peer, moved, trouble } => log_end(peer, &moved, trouble),
            }
        }
    }

    fn save(self: &Rc<Self>, bytes: Vec<u8>) {
        let node = Arc::clone(self.worker.node());
        let save = move || node.store.meta_put(META_VERIFIED, &bytes);
        let node = Arc::clone(self.worker.node());
        self.then(save, 0, move |core, _, _, saved, _| {
            core.saved(saved.is_some());
            node.verified.store(Arc::clone(core.verified()));
        });
    }

    /// Runs `work` where it may wait for the disk, rests `rest_times` as long as it took if that was long, and gives its
    /// result, if it has one, to the core.
    fn then<T: Send + 'static>(
        self: &Rc<Self>,
        work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
        rest_times: u32,
        done: impl FnOnce(&mut Repair, MonoMicros, Hlc, Option<T>, &mut Vec<Effect>) + 'static,
    ) {
        let running = Rc::clone(self);
        spawn_local(async move {
            let timed = move || {
                let started = Instant::now();
                work().map(|result| (result, started.elapsed()))
            };
            let result = match blocking(timed).await {
                Ok((result, took)) => {
                    if took >= REST_AFTER {
                        tokio::time::sleep(took * rest_times).await;
                    }
                    Some(result)
                }
                Err(error) => {
                    tracing::error!(%error, "anti-entropy cannot read or write the store");
                    None
                }
            };
            let (now, clock) = running.time();
            let mut effects = Vec::new();
            done(&mut running.core.borrow_mut(), now, clock, result, &mut effects);
            running.perform(effects);
            running.progress.notify_one();
        });
    }
}

fn log_end(peer: NodeId, moved: &Moved, trouble: Option<Trouble>) {
    let (pulled, pushed) = (moved.rows_pulled, moved.rows_pushed);
    match trouble {
        None if pulled + pushed > 0 => {
            tracing::info!(%peer, pulled, pushed, "anti-entropy has made replicas equal");
        }
        None => tracing::debug!(%peer, "anti-entropy found replicas equal"),
        Some(Trouble::PeerLost | Trouble::RingChanged) => {
            tracing::debug!(%peer, ?trouble, pulled, pushed, "an exchange was broken off");
        }
        Some(trouble) => {
            tracing::warn!(%peer, %trouble, pulled, pushed, "an exchange was broken off, and will go on later");
        }
    }
}
