//! What goes into the machine of formation, and what comes out.

use super::{Ballot, FormingMessage, Refusal};
use crate::node::NodeId;
use crate::topology::{Endpoint, Member, Topology};
use crate::wire::{Malformed, Reader};

/// What a node knows when it starts.
#[derive(Clone, Debug)]
pub struct FormingOptions {
    /// The entry it would have in a topology, with the incarnation of this start. Its state does not matter.
    pub member: Member,
    /// The configured name of the cluster.
    pub cluster_name: String,
    /// The configured replication factor.
    pub replication_factor: u8,
    /// The configured seeds; those past [`SEEDS_MAX`](super::SEEDS_MAX) are ignored. May name the node itself.
    pub seeds: Vec<Endpoint>,
    /// How long everything must stay the same before a cluster is proposed, in milliseconds.
    pub settle_ms: u64,
    /// Random bits: the cluster's id, if this node forms it.
    pub random: u128,
}

/// What the node has on disk when it starts.
#[derive(Clone, Debug)]
pub enum Saved {
    /// Nothing of the two below.
    Nothing,
    /// What [`Effect::SavePromise`] saved last.
    Promise(Promise),
    /// The topology of the cluster it belongs to.
    Topology(Topology),
}

/// A promise given: kept on disk until the node belongs to a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// To whom, and for which try.
    pub ballot: Ballot,
    /// Where peers dial the proposer.
    pub addr: Endpoint,
}

impl Promise {
    const FORMAT: u8 = 1;

    /// The promise as bytes, for disk.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![Promise::FORMAT];
        self.ballot.encode(&mut out);
        self.addr.encode(&mut out);
        out
    }

    /// Reads a promise, all of `bytes`.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Promise, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != Promise::FORMAT {
            return Err(Malformed);
        }
        let promise = Promise { ballot: Ballot::decode(&mut reader)?, addr: Endpoint::decode(&mut reader)? };
        reader.end()?;
        Ok(promise)
    }
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The handshake with the seed of this index is done: `node` answers there.
    SeedResolved {
        /// Which of [`FormingOptions::seeds`].
        seed: usize,
        /// Who answers there.
        node: NodeId,
    },
    /// The seed of this index turned out to be this node itself.
    SeedIsSelf {
        /// Which of [`FormingOptions::seeds`].
        seed: usize,
    },
    /// The connection to the seed of this index is lost.
    SeedLost {
        /// Which of [`FormingOptions::seeds`].
        seed: usize,
    },
    /// A message from an authenticated peer.
    Message {
        /// The peer.
        from: NodeId,
        /// What it says.
        message: FormingMessage,
    },
    /// Time has passed. Expected every 100 ms or so.
    Tick,
}

/// What is to be done, in this order: what is to be saved must be durable before any later effect is begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Save the promise durably, instead of an earlier one.
    SavePromise(Promise),
    /// Send the message over any link to the node; drop it if there is none.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: FormingMessage,
    },
    /// See to it that there is a link to the node. Given again and again; nothing is to be done if there is one.
    Dial {
        /// The node.
        node: NodeId,
        /// Where it can be dialled.
        addr: Endpoint,
    },
    /// The node belongs to this cluster from now on: save all of this durably, then act on it. The last that this
    /// machine decides; messages of fresh nodes are from now on answered by [`greet`](super::greet).
    Join {
        /// The cluster.
        topology: Topology,
        /// The node's incarnation: that of its options, or a later one.
        incarnation: u64,
        /// The node's seat is that of a member with data, which this disk does not hold.
        has_lost_its_disk: bool,
    },
    /// The node cannot be admitted as it is configured: tell the operator and stop.
    Refused(Refusal),
}

/// Why no cluster has formed yet: one line for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Waiting {
    /// Nothing is awaited: the node belongs to a cluster.
    #[error("done: this node belongs to a cluster")]
    Done,
    /// A seed cannot be reached.
    #[error("seed {addr}, named by node {named_by:?}, cannot be reached")]
    Seed {
        /// The seed.
        addr: Endpoint,
        /// Whose seed it is.
        named_by: NodeId,
    },
    /// A node that must take part is not heard.
    #[error("node {node:?} is connected to the seeds but does not answer here")]
    Silent {
        /// The node.
        node: NodeId,
    },
    /// A node that must take part was configured with another replication factor.
    #[error("node {node:?} is configured with replication factor {theirs}, this node with {ours}")]
    ReplicationFactor {
        /// The node.
        node: NodeId,
        /// This node's.
        ours: u8,
        /// The other's.
        theirs: u8,
    },
    /// The node is bound to a proposer whose outcome it does not know.
    #[error("node {:?} at {} proposed a cluster; waiting for its outcome", .0.ballot.proposer, .0.addr)]
    Promise(Box<Promise>),
    /// The seeds form the cluster among themselves and invite or admit this node.
    #[error("waiting for the seeds to form the cluster")]
    Invitation,
    /// Another node is to propose.
    #[error("waiting for node {from:?} to propose the cluster")]
    Proposal {
        /// The proposer to be.
        from: NodeId,
    },
    /// Everyone is there; more may come.
    #[error("{nodes} nodes are ready to form a cluster")]
    Settling {
        /// How many, this one included.
        nodes: usize,
    },
    /// This node proposes and waits for promises.
    #[error("waiting for {missing} nodes to agree")]
    Agreement {
        /// How many have not promised.
        missing: usize,
    },
}
