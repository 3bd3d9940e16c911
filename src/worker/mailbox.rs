//! Messages to a worker from other threads: rare events only, never requests.

use std::net::TcpStream;

use gyre_cluster::coordinator::OpId;
use gyre_cluster::forming::Event;
use gyre_cluster::gossip::{Cause, GossipMessage};
use gyre_cluster::node::NodeId;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::repair::Wanted;

/// What another thread tells a worker.
pub enum Letter {
    /// A client has connected and is this worker's from now on.
    Client(TcpStream),
    /// A peer has connected and is this worker's from now on.
    Peer(TcpStream),
    /// Close the client connection of this id.
    Kill(u64),
    /// An operation that waited for a key has its lock.
    Locked {
        /// The operation.
        op: OpId,
        /// The lock.
        key_hash: u64,
    },
    /// Something happened that concerns cluster formation: to worker 0.
    Forming(Box<Event>),
    /// A message of gossip: to worker 0.
    Gossip {
        /// Who sent it.
        from: NodeId,
        /// What it says.
        message: Box<GossipMessage>,
    },
    /// A message of anti-entropy: to worker 0.
    Exchange {
        /// Who sent it.
        from: NodeId,
        /// What it says.
        bytes: Vec<u8>,
    },
    /// A statement about purging: to worker 0.
    Purge {
        /// Who sent it.
        from: NodeId,
        /// What it says.
        bytes: Vec<u8>,
    },
    /// An operator wants replicas compared: to worker 0.
    Repair(Wanted),
    /// Gossip has judged whether a peer lives.
    Liveness {
        /// The peer.
        peer: NodeId,
        /// Why it is down, if it is.
        down: Option<Cause>,
    },
    /// This node's store has failed: serve without it.
    StoreFailed,
    /// The topology has changed: take the new ring over and dial new members.
    TopologyChanged,
    /// Close everything and end.
    Stop,
}

/// The sending side of a worker's mailbox. Unbounded, yet its content is bounded: by `maxclients`, by the peers, and
/// by the operations in flight; of anti-entropy a peer has one step or two under way.
pub type Mailbox = UnboundedSender<Letter>;

/// A mailbox and the side that the worker reads.
pub fn mailbox() -> (Mailbox, UnboundedReceiver<Letter>) {
    unbounded_channel()
}
