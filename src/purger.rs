//! Purging, on worker 0: carries out what [`gyre_cluster::purge::Purge`] decides, and looks now and then what this node
//! keeps for others.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gyre_cluster::gossip::TopologyMark;
use gyre_cluster::message::Message;
use gyre_cluster::node::NodeId;
use gyre_cluster::purge::kept::{self, Keeper};
use gyre_cluster::purge::{Effect, Purge, PurgeStatus, compared};
use gyre_cluster::topology::Topology;
use gyre_storage::{Hlc, StorageError};
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::node::Node;
use crate::worker::Worker;
use crate::worker::mailbox::Letter;
use crate::worker::turn::{blocking, blocking_timed};

/// Results that come within this time are looked at together.
const STEP_MIN: Duration = Duration::from_millis(2);
/// How often is looked whether the node has a time and the cluster has formed.
const BEGIN_CHECK: Duration = Duration::from_millis(200);
/// How often a node looks what it keeps for others, in parts of the grace period, and no oftener than that.
const FLOOR_PARTS: u32 = 24;
const FLOOR_EVERY_MIN: Duration = Duration::from_secs(5);
/// Leftovers of others that are older than this part of the grace period are forgotten, if nothing names them.
const FORGET_PARTS: u32 = 2;
/// How often the log says who holds purging up, if that has changed.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Purging as worker 0 holds it; `None` on others, and before it has begun.
#[derive(Default)]
pub struct PurgerState(RefCell<Option<Rc<Running>>>);

/// What the tasks share.
struct Running {
    worker: Rc<Worker>,
    core: RefCell<Purge>,
    /// Something has come: the core can go on.
    progress: Notify,
    said: RefCell<(Instant, Vec<NodeId>)>,
}

/// Purges for ever. Worker 0 only.
pub async fn run(worker: Rc<Worker>) {
    let node = Arc::clone(worker.node());
    while !node.clock.is_settled() || !node.has_formed() {
        // How old anything is only the time can tell.
        tokio::time::sleep(BEGIN_CHECK).await;
    }
    let (now, clock) = (worker.now(), node.clock.mark(worker.now().wall));
    let horizons = |slot| node.store.purge_horizon(slot);
    let core = Purge::new(node.id, grace(&node), node.ring.load_full(), horizons, now.mono, clock);
    let running = Rc::new(Running {
        worker: Rc::clone(&worker),
        core: RefCell::new(core),
        progress: Notify::new(),
        said: RefCell::new((Instant::now(), Vec::new())),
    });
    *worker.purger.0.borrow_mut() = Some(Rc::clone(&running));
    spawn_local(look_around(Rc::clone(&worker)));
    while node.store.poisoned().is_none() {
        let wait = running.step();
        // Either is a reason to look again.
        let _ = tokio::time::timeout(wait, running.progress.notified()).await;
        tokio::time::sleep(STEP_MIN).await;
    }
}

/// A statement has arrived at any worker: it is worker 0's.
pub fn hand_over(node: &Node, from: NodeId, bytes: &[u8]) {
    if let Some(mailbox) = node.mailboxes.first() {
        // Without worker 0 the node is stopping.
        let _ = mailbox.send(Letter::Purge { from, bytes: bytes.to_vec() });
    }
}

/// Takes a statement in. Worker 0 only.
pub fn receive(worker: &Rc<Worker>, from: NodeId, bytes: &[u8]) {
    let Some(running) = worker.purger.0.borrow().clone() else { return };
    let received = running.core.borrow_mut().receive(worker.now().mono, from, bytes);
    match received {
        Ok(()) => running.progress.notify_one(),
        Err(error) => tracing::warn!(peer = %from, %error, "a statement about purging is refused"),
    }
}

fn grace(node: &Node) -> Duration {
    Duration::from_secs(node.config.load().tombstone_grace_seconds)
}

/// Looks for ever what this node keeps for others, and lets gossip tell.
async fn look_around(worker: Rc<Worker>) {
    let node = Arc::clone(worker.node());
    let keeper = Keeper { node: node.id, actor: node.actor };
    while node.store.poisoned().is_none() {
        if !is_whole(&node) {
            tokio::time::sleep(FLOOR_EVERY_MIN).await;
            continue;
        }
        let (store, ring, grace) = (Arc::clone(&node.store), node.ring.load_full(), grace(&node));
        let clock = node.clock.mark(worker.now().wall);
        let old_ms = u64::try_from((grace / FORGET_PARTS).as_millis()).unwrap_or(u64::MAX);
        let forget_before = Hlc::from_millis(clock.millis().saturating_sub(old_ms));
        match blocking(move || kept::floor(&store, &ring, keeper, clock, forget_before)).await {
            Ok(floor) => node.keeps_nothing_before.store(floor.0, Ordering::Relaxed),
            Err(error) => tracing::error!(%error, "cannot look what this node keeps for others"),
        }
        tokio::time::sleep((grace / FLOOR_PARTS).max(FLOOR_EVERY_MIN)).await;
    }
}

/// Whether this node has compared all that it keeps with all who keep it, since its disk was empty: before that it may lack
/// what it should hold, and says nothing of what it keeps.
fn is_whole(node: &Node) -> bool {
    compared(&node.verified.load(), &node.ring.load(), &node.lapsed(), node.id) > Hlc::ZERO
}

impl Running {
    /// Tells the core what has changed and carries out what it wants. Answers when to come again.
    fn step(self: &Rc<Self>) -> Duration {
        let (node, now) = (self.worker.node(), self.worker.now());
        let ring = node.ring.load_full();
        let mut effects = Vec::new();
        let mut core = self.core.borrow_mut();
        core.set_grace(grace(node));
        for (member, is_live) in self.worker.liveness(&ring) {
            if !is_live && member != node.id {
                core.peer_down(member);
            }
        }
        core.set_ring(ring);
        let topology = node.topology.load();
        let lapsed = topology.as_ref().as_ref().map(Topology::lapsed).unwrap_or_default();
        let refusing = topology.as_ref().as_ref().filter(|_| !lapsed.is_empty()).map(TopologyMark::of);
        core.set_lapsed(lapsed);
        core.step(now, &node.verified.load(), &floors(node, refusing), &mut effects);
        let wait = core.wait(now.mono);
        node.purging.store(Arc::new(core.status().clone()));
        self.say(core.status());
        drop(core);
        effects.into_iter().for_each(|effect| self.perform(effect));
        wait
    }

    fn perform(self: &Rc<Self>, effect: Effect) {
        let store = Arc::clone(&self.worker.node().store);
        match effect {
            Effect::Send { to, bytes } => self.worker.step(|turn| {
                let clock = turn.node.clock.now();
                // Without a link it is lost; the next statement says the same.
                turn.shell.outboxes.send(to, &Message::Purge { bytes: &bytes }, clock);
            }),
            Effect::Raise(raised) => {
                tracing::debug!(slots = raised.len(), "replicas have agreed on later purge horizons");
                self.then(
                    move || store.raise_purge_horizons(&raised),
                    |running, result, _| {
                        let now = running.worker.now();
                        let clock = running.worker.node().clock.mark(now.wall);
                        running.core.borrow_mut().raised(now.mono, clock, result.is_some());
                    },
                );
            }
            Effect::Purge { slots, keys } => {
                self.then(
                    move || store.purge_slots(&slots, keys),
                    |running, result, took| {
                        running.core.borrow_mut().purged(running.worker.now().mono, took, result);
                    },
                );
            }
        }
    }

    /// Runs `work` where it may wait for the disk, then gives its result, if it has one, and how long it took to `done`.
    fn then<T: Send + 'static>(
        self: &Rc<Self>,
        work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
        done: impl FnOnce(&Running, Option<T>, Duration) + 'static,
    ) {
        let running = Rc::clone(self);
        spawn_local(async move {
            let result = blocking_timed(work).await;
            let result = result.inspect_err(|error| tracing::error!(%error, "cannot purge"));
            let (result, took) = result.ok().unzip();
            done(&running, result, took.unwrap_or_default());
            running.progress.notify_one();
        });
    }

    /// Says who holds purging up, if that is another than a while ago.
    fn say(&self, status: &PurgeStatus) {
        let mut said = self.said.borrow_mut();
        let holding = status.held_up_by();
        if said.0.elapsed() < SAY_EVERY || said.1 == holding {
            return;
        }
        let nodes = holding.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ");
        if holding.is_empty() {
            tracing::info!("nothing holds up the purging of deletions any more");
        } else {
            tracing::info!(
                nodes,
                "deletions are not purged: these nodes are down, or keep something for others"
            );
        }
        *said = (Instant::now(), holding);
    }
}

/// What members say that they keep nothing for others before, this node's own word included. `refusing`: only those count that
/// have this document, and so refuse the same lapsed members as this node.
fn floors(node: &Node, refusing: Option<TopologyMark>) -> BTreeMap<NodeId, Hlc> {
    let own = Hlc(node.keeps_nothing_before.load(Ordering::Relaxed));
    let views = node.liveness.load();
    let said = views.iter().filter_map(|view| {
        let about = view.about.as_ref().filter(|about| refusing.is_none_or(|mark| about.topology == mark))?;
        Some((view.id, about.floor?))
    });
    said.chain([(node.id, own)]).collect()
}
