//! A worker's thread: its runtime, its mailbox, its tasks.

use std::net::TcpStream as StdTcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gyre_cluster::coordinator::{Coordinator, CoordinatorConfig};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{LocalSet, spawn_local};

use crate::absence;
use crate::handoff;
use crate::learner;
use crate::mender;
use crate::node::Node;
use crate::peer;
use crate::purger;
use crate::rejoin;
use crate::repair;
use crate::session::Session;
use crate::session::connection::{Connection, serve};
use crate::session::registry::Accepted;
use crate::session::settings::{ReplyMode, SessionSettings};
use crate::sweeper;
use crate::timekeeping;
use crate::worker::Worker;
use crate::worker::mailbox::Letter;

/// How often the coordinator's deadlines are looked at while operations are under way.
const TICK: Duration = Duration::from_millis(5);
/// How often connections are looked through for idle ones.
const IDLE_CHECK: Duration = Duration::from_secs(1);
/// Threads of a worker that may wait for the disk.
const DISK_THREADS_MAX: usize = 16;
/// How long commands under way may take to end once the node stops.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// Runs worker `index` of `node` on this thread until it is told to stop.
pub fn start(index: usize, node: Arc<Node>, letters: UnboundedReceiver<Letter>) -> std::io::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(DISK_THREADS_MAX)
        .thread_name(format!("gyre-disk-{index}"))
        .build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, run(index, node, letters));
    runtime.shutdown_timeout(STOP_WAIT);
    Ok(())
}

async fn run(index: usize, node: Arc<Node>, mut letters: UnboundedReceiver<Letter>) {
    let config = node.config.load_full();
    let timeout = Duration::from_millis(config.request_timeout_ms);
    let core_config = CoordinatorConfig { timeout, ..CoordinatorConfig::new(node.id, node.actor) };
    let core = Coordinator::new(core_config, Arc::clone(&node.clock), node.ring.load_full());
    let worker = Worker::new(index, node, core);
    spawn_local(Rc::clone(&worker).end_turns());
    spawn_local(tick(Rc::clone(&worker)));
    spawn_local(close_idle(Rc::clone(&worker)));
    if index == 0 {
        spawn_local(handoff::run(Rc::clone(&worker)));
        spawn_local(peer::gossip::run(Rc::clone(&worker)));
        spawn_local(timekeeping::run(Rc::clone(&worker)));
        spawn_local(sweeper::run(Rc::clone(&worker)));
        spawn_local(repair::run(Rc::clone(&worker)));
        spawn_local(mender::run(Rc::clone(&worker)));
        spawn_local(purger::run(Rc::clone(&worker)));
        spawn_local(absence::run(Rc::clone(&worker)));
        spawn_local(learner::run(Rc::clone(&worker)));
    }
    let peers = peer::Dialer::start(&worker);
    while let Some(letter) = letters.recv().await {
        match letter {
            Letter::Client(stream) => {
                if let Err(error) = accept(&worker, stream) {
                    tracing::debug!(%error, "a client is gone before it was served");
                }
            }
            Letter::Peer(stream) => peer::accept(&worker, stream),
            Letter::Kill(id) => kill(&worker, id),
            Letter::Locked { op, key_hash } => {
                worker.step(|turn| turn.core.locked(turn.shell, turn.now, op, key_hash));
            }
            Letter::TopologyChanged => {
                timekeeping::compare(worker.node());
                rejoin::look(&worker);
                worker.step(|turn| turn.core.set_ring(turn.node.ring.load_full()));
                peers.dial_members();
                peer::gossip::topology_changed(&worker);
                peer::membership::broadcast(&worker);
            }
            Letter::Gossip { from, message } => peer::gossip::receive(&worker, from, &message),
            Letter::Exchange { from, bytes } => repair::receive(&worker, from, &bytes),
            Letter::Purge { from, bytes } => purger::receive(&worker, from, &bytes),
            Letter::Repair(wanted) => repair::request(&worker, &wanted),
            Letter::Liveness { peer, down } => peer::gossip::apply(&worker, peer, down),
            Letter::StoreFailed => {
                worker.step(|turn| turn.core.set_failed());
                peer::gossip::announce(&worker);
            }
            Letter::Forming(event) => peer::membership::take(&worker, *event),
            Letter::Stop => break,
        }
    }
    stop(&worker).await;
}

/// Takes a client connection over.
fn accept(worker: &Rc<Worker>, stream: StdTcpStream) -> std::io::Result<()> {
    let (address, local_address) = (stream.peer_addr()?, stream.local_addr()?);
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&stream);
    let config = worker.config();
    let node = worker.node();
    let settings = SessionSettings {
        id: node.clients.next_id(),
        db: 0,
        resp: gyre_protocol::Resp::Two,
        authenticated: config.requirepass.is_empty(),
        name: Vec::new(),
        library_name: Vec::new(),
        library_version: Vec::new(),
        levels: config.levels(),
        levels_before_readonly: None,
        reply_mode: ReplyMode::On,
        no_evict: false,
        no_touch: false,
        close_after_reply: false,
    };
    let stream = TcpStream::from_std(stream)?;
    let mailbox = node.mailboxes.get(worker.index).cloned().ok_or(std::io::ErrorKind::NotFound)?;
    let accepted = Accepted { address, local_address, descriptor, mailbox, now: worker.now().wall };
    let entry = node.clients.insert(settings.clone(), accepted);
    let (read, write) = stream.into_split();
    let connection = worker.add(|index| Connection::new(index, Session::new(index, settings, entry), write));
    spawn_local(serve(Rc::clone(worker), connection, read));
    Ok(())
}

fn kill(worker: &Worker, id: u64) {
    for connection in worker.connections() {
        if connection.session.borrow().settings.id == id {
            connection.close();
        }
    }
}

/// Lets time pass for the coordinator while it has operations under way.
async fn tick(worker: Rc<Worker>) {
    loop {
        if worker.operations() == 0 {
            worker.ticker.notified().await;
        }
        tokio::time::sleep(TICK).await;
        worker.step(|turn| turn.core.tick(turn.shell, turn.now));
    }
}

/// Closes clients that have been silent for longer than `timeout`.
async fn close_idle(worker: Rc<Worker>) {
    loop {
        tokio::time::sleep(IDLE_CHECK).await;
        let limit_ms = worker.config().timeout_seconds.saturating_mul(1_000);
        if limit_ms == 0 {
            continue;
        }
        let now = worker.now().wall.0;
        for connection in worker.connections() {
            let session = connection.session.borrow();
            let silent_ms = now.saturating_sub(session.entry.last_active_ms.load(Ordering::Relaxed));
            if silent_ms > limit_ms && session.pipeline.waiting() == 0 {
                drop(session);
                connection.close();
            }
        }
    }
}

/// Lets the commands under way end, for a bounded time, and closes everything.
async fn stop(worker: &Rc<Worker>) {
    // Others ask nothing more of this node, and what they have asked is answered yet.
    peer::gossip::announce(worker);
    let connections = worker.connections();
    connections.iter().for_each(|connection| connection.session.borrow_mut().end());
    // Those of clients, and those that peers have forwarded here, which their clients wait for.
    let is_waiting =
        || connections.iter().any(|c| !c.is_closed() && c.session.borrow().pipeline.waiting() > 0);
    let ended = async {
        while is_waiting() || worker.operations() > 0 {
            tokio::time::sleep(TICK).await;
        }
    };
    if tokio::time::timeout(STOP_WAIT, ended).await.is_err() {
        tracing::warn!(worker = worker.index, "commands were still under way when the node stopped");
    }
    // One more turn sends the last replies.
    worker.step(|_| ());
    tokio::task::yield_now().await;
    connections.iter().for_each(|connection| connection.close());
    worker.step(|turn| turn.shell.outboxes.close_all());
}
