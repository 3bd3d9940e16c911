//! Keeping this worker's link to every member alive, and, until the cluster has formed, to every seed.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gyre_cluster::handshake::HandshakeError;
use gyre_cluster::node::NodeId;
use gyre_cluster::topology::MemberState;
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use crate::peer::greet::{self, GreetError};
use crate::peer::link::{self, Link};
use crate::peer::membership;
use crate::peer::receive::{Direction, read_frames};
use crate::worker::Worker;

const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// How long to wait before the first try after a failure; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Dials and redials.
pub struct Dialer {
    worker: Rc<Worker>,
    members: RefCell<HashSet<NodeId>>,
}

/// Whom a task dials.
pub enum Target {
    /// A seed, by its place in the settings.
    Seed(usize),
    /// A member, by the address in the topology document.
    Member(NodeId),
    /// A fresh node that a seed knows, by the address it gave.
    Fresh(NodeId, String),
}

impl Dialer {
    /// Begins to dial whom `worker` should have a link to.
    pub fn start(worker: &Rc<Worker>) -> Dialer {
        let dialer = Dialer { worker: Rc::clone(worker), members: RefCell::default() };
        // Cluster formation is worker 0's business.
        if worker.index == 0 {
            membership::start(worker);
            for seed in 0..worker.config().seeds.len() {
                spawn_local(keep(Rc::clone(worker), Target::Seed(seed)));
            }
        }
        dialer.dial_members();
        dialer
    }

    /// Begins to dial members that are not dialled yet.
    pub fn dial_members(&self) {
        let own = self.worker.node().id;
        let topology = self.worker.node().topology.load();
        let Some(topology) = topology.as_ref() else { return };
        for member in topology.members.values() {
            let wanted = member.id != own && member.state != MemberState::Left;
            if wanted && self.members.borrow_mut().insert(member.id) {
                spawn_local(keep(Rc::clone(&self.worker), Target::Member(member.id)));
            }
        }
    }
}

/// Keeps a link to `target` for as long as it is wanted.
pub async fn keep(worker: Rc<Worker>, target: Target) {
    let mut retry = RETRY_MIN;
    let mut last_error = String::new();
    while let Some(address) = address(&worker, &target) {
        if worker.node().stopping.load(Ordering::Acquire) {
            return;
        }
        let is_linked =
            matches!(target, Target::Member(id) | Target::Fresh(id, _) if worker.is_connected(id));
        if !is_linked {
            match connect(&worker, &address, &target).await {
                Ok(()) => (retry, last_error) = (RETRY_MIN, String::new()),
                Err(GreetError::Handshake(HandshakeError::SelfConnection)) => {
                    if let Target::Seed(seed) = target {
                        membership::seed_is_self(&worker, seed);
                    }
                    return;
                }
                Err(error) => {
                    // Once for each new reason, not once for each try.
                    let text = error.to_string();
                    if text != last_error {
                        tracing::info!(address, error = %text, "no link to a peer yet, trying on");
                        last_error = text;
                    }
                }
            }
        }
        pause(&worker, &target, retry).await;
        retry = (retry * 2).min(RETRY_MAX);
    }
}

/// Waits before the next try: `at_most` long, or until the peer greets us, which it does as soon as it is back.
async fn pause(worker: &Worker, target: &Target, at_most: Duration) {
    let greetings = || match target {
        Target::Member(id) | Target::Fresh(id, _) => worker.node().peers.greetings(*id),
        Target::Seed(_) => 0,
    };
    let (before, mut waited) = (greetings(), Duration::ZERO);
    while waited < at_most && greetings() == before {
        let step = RETRY_MIN.min(at_most - waited);
        tokio::time::sleep(step).await;
        waited += step;
    }
}

/// Where to find `target`; `None` once it is not to be dialled any more.
fn address(worker: &Worker, target: &Target) -> Option<String> {
    let node = worker.node();
    match target {
        Target::Seed(index) if !node.has_formed() => {
            worker.config().seeds.get(*index).map(|seed| format!("{}:{}", seed.host, seed.port))
        }
        Target::Fresh(_, address) if !node.has_formed() => Some(address.clone()),
        Target::Seed(_) | Target::Fresh(..) => None,
        Target::Member(id) => {
            let topology = node.topology.load();
            let member = topology.as_ref().as_ref()?.members.get(id)?;
            (member.state != MemberState::Left).then(|| member.peer_addr.to_string())
        }
    }
}

/// Connects, greets, and reads answers until the link ends.
async fn connect(worker: &Rc<Worker>, address: &str, target: &Target) -> Result<(), GreetError> {
    let connecting = TcpStream::connect(address);
    let mut stream =
        tokio::time::timeout(CONNECT_TIME_MAX, connecting).await.map_err(|_| GreetError::Silent)??;
    stream.set_nodelay(true)?;
    link::end_when_unheard(&stream)?;
    let (peer, rest) = greet::dialled(&mut stream, worker.node(), worker.index).await?;
    let id = peer.identity.node;
    if worker.node().has_lapsed(peer.identity.node, peer.identity.incarnation) {
        return Err(GreetError::Lapsed);
    }
    let (read, write) = stream.into_split();
    let link = Link::to(&peer, write, &worker.node().peers);
    let number = worker.step(|turn| {
        if turn.shell.outboxes.connect(Rc::clone(&link)) {
            // The answers that were to come by the older link are lost.
            turn.core.peer_down(turn.shell, turn.now, id);
        }
        turn.core.peer_up(id);
        turn.shell.outboxes.number(Rc::clone(&link))
    });
    membership::linked(worker, &peer, target);
    if worker.node().peers.connected(id, peer.identity.instance) {
        tracing::info!(peer = %id, address, "peer is up");
    }
    let reason = read_frames(worker, read, rest, &peer, Direction::Ours(number)).await;
    link.close();
    worker.step(|turn| {
        turn.shell.outboxes.forget(number);
        if turn.shell.outboxes.disconnect(&link) {
            turn.core.peer_down(turn.shell, turn.now, id);
        }
    });
    membership::unlinked(worker, target);
    if worker.node().peers.disconnected(id) && !worker.node().stopping.load(Ordering::Acquire) {
        tracing::warn!(peer = %id, address, reason, "peer is down");
    }
    Ok(())
}
