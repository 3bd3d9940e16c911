//! The replay of hints, on worker 0: carries out what [`gyre_cluster::hints::Handoff`] decides.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use gyre_cluster::hints::{Effect, Handed, Handoff, HandoffConfig};
use gyre_cluster::node::NodeId;
use gyre_cluster::outcome::Outcome;
use gyre_cluster::time::MonoMicros;
use gyre_storage::{Hint, StorageError, Store};
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::worker::Worker;
use crate::worker::turn::blocking;

/// Results that come within this time are looked at together.
const STEP_MIN: Duration = Duration::from_millis(2);

/// What the task and those it starts share.
struct Replay {
    worker: Rc<Worker>,
    core: RefCell<Handoff>,
    /// A result has come: the core can go on.
    progress: Notify,
}

/// Replays hints for ever.
pub async fn run(worker: Rc<Worker>) {
    let node = Arc::clone(worker.node());
    let timeout = Duration::from_millis(node.config.load().request_timeout_ms);
    let config = HandoffConfig { settle: timeout * 2, ..HandoffConfig::new(node.id, node.actor) };
    let core = Handoff::new(config, node.ring.load_full(), worker.now().mono);
    let replay = Rc::new(Replay { worker, core: RefCell::new(core), progress: Notify::new() });
    loop {
        let wait = replay.step();
        // Either is a reason to look again.
        let _ = tokio::time::timeout(wait, replay.progress.notified()).await;
        tokio::time::sleep(STEP_MIN).await;
    }
}

impl Replay {
    /// Tells the core what has changed and carries out what it wants. Answers when to come again.
    fn step(self: &Rc<Self>) -> Duration {
        let (node, now) = (self.worker.node(), self.worker.now());
        let mut core = self.core.borrow_mut();
        let config = node.config.load();
        // Hints hold the purging of deletions up: they must not wait for as long as those do.
        let window_seconds = config.hint_window_seconds.min(config.tombstone_grace_seconds / 2);
        core.set_limits(config.hint_replay_rate, Duration::from_secs(window_seconds));
        node.store.set_hint_bytes_max(config.max_hint_bytes as u64);
        let ring = node.ring.load_full();
        for (member, is_live) in self.worker.liveness(&ring) {
            if is_live {
                core.peer_up(member);
            } else {
                core.peer_down(now.mono, member);
            }
        }
        core.set_ring(ring);
        let stats = node.store.hint_stats();
        let mut effects = Vec::new();
        core.step(now, &stats, &mut effects);
        node.handoff.store(Arc::new(core.status(now, &stats)));
        let wait = core.wait();
        drop(core);
        for effect in effects {
            self.perform(effect);
        }
        wait
    }

    fn perform(self: &Rc<Self>, effect: Effect) {
        let store = Arc::clone(&self.worker.node().store);
        match effect {
            Effect::Close { target } => {
                tracing::warn!(%target, "down for longer than hint-window: no more hints are kept for it");
                store.close_hints(target.0, true);
            }
            Effect::Open { target } => store.close_hints(target.0, false),
            Effect::HandOff { target, hint } => {
                spawn_local(Rc::clone(self).hand_off(target, hint));
            }
            Effect::ReadPage { target, after, limit } => {
                let read = move || store.hints_page(target.0, after.as_ref(), limit);
                self.then(read, move |core, now, hints| core.page(now, target, hints));
            }
            Effect::Drop { target, handed } => {
                self.then(
                    move || drop_hints(&store, target, &handed),
                    move |core, _, _| core.dropped(target),
                );
            }
            Effect::Expire { pass, before, limit } => {
                let expire = move || store.expire_hints(pass, before, limit);
                self.then(expire, |core, now, pass| core.expired(now, pass.flatten()));
            }
        }
    }

    async fn hand_off(self: Rc<Self>, target: NodeId, hint: Hint) {
        let asked = self.worker.ask(|core, shell, now, tag| {
            core.hand_off(shell, now, tag, target, hint.key());
        });
        let record = match asked.await {
            Outcome::HandedOff(record) => Some(record),
            _ => None,
        };
        self.core.borrow_mut().handed(self.worker.now().mono, target, hint, record);
        self.progress.notify_one();
    }

    /// Runs `work` where it may wait for the disk, then gives its result, if it has one, to the core.
    fn then<T: Send + 'static>(
        self: &Rc<Self>,
        work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
        done: impl FnOnce(&mut Handoff, MonoMicros, Option<T>) + 'static,
    ) {
        let replay = Rc::clone(self);
        spawn_local(async move {
            let result = blocking(work).await;
            if let Err(error) = &result {
                tracing::error!(%error, "cannot read or remove hints");
            }
            done(&mut replay.core.borrow_mut(), replay.worker.now().mono, result.ok());
            replay.progress.notify_one();
        });
    }
}

/// Removes hints whose targets have the rows, then the rows that were only kept for others.
fn drop_hints(store: &Store, target: NodeId, handed: &[Handed]) -> Result<(), StorageError> {
    let hints: Vec<Hint> = handed.iter().map(|handed| handed.hint.clone()).collect();
    store.drop_hints(target.0, &hints)?;
    for Handed { hint, forget } in handed {
        if let Some(record) = forget {
            store.forget(hint.key(), record)?;
        }
    }
    Ok(())
}
