//! The messages of cluster formation and their bytes.
//!
//! ```text
//! type: u8 | 1 STATUS    member | seq: u64 | replication factor: u8 | ended: u64
//!                        seeds: u16 × { address | option of node: u64 } | known: u16 × { node: u64 | address }
//!          | 2 PROPOSE   ballot | address | replication factor: u8
//!          | 3 ACCEPT    ballot
//!          | 4 BUSY      ballot | holder: u64
//!          | 5 FORMED    cluster id: u128
//!          | 6 ADMIT     member | replication factor: u8
//!          | 7 DOCUMENT  topology
//!          | 8 REFUSED   code: u8 | …
//! ballot = proposer, incarnation, attempt: u64 | cluster id: u128
//! ```
//! Integers, texts, addresses, members and topologies are written as in the [topology](crate::topology).

use crate::node::NodeId;
use crate::topology::{CLUSTER_NAME_BYTES_MAX, Endpoint, Member, Topology, TopologyError};
use crate::wire::{Malformed, Reader, put_count, put_option, put_text};

/// The most seeds a node may have.
pub const SEEDS_MAX: usize = 64;
/// The most fresh nodes that form a cluster together; more join it once it has formed.
pub const FORMING_NODES_MAX: usize = 1_024;

/// One try of one proposer to form a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ballot {
    /// Who proposes.
    pub proposer: NodeId,
    /// The proposer's incarnation.
    pub incarnation: u64,
    /// Counts the tries of that incarnation, from 1.
    pub attempt: u64,
    /// The id the cluster is to have; of this try only, never zero.
    pub cluster_id: u128,
}

/// A seed as the node that was given it sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedView {
    /// The address it was given.
    pub addr: Endpoint,
    /// The node that answers there now; `None` while none does.
    pub node: Option<NodeId>,
}

/// What a fresh node says of itself, again and again, to everyone it can reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The entry it would have in a topology.
    pub member: Member,
    /// Counts the statuses of this incarnation: an overtaken one is ignored.
    pub seq: u64,
    /// The replication factor it was configured with.
    pub replication_factor: u8,
    /// All its attempts up to this number are over, without a cluster.
    pub ended: u64,
    /// Its seeds.
    pub seeds: Vec<SeedView>,
    /// The fresh nodes that it hears.
    pub known: Vec<(NodeId, Endpoint)>,
}

/// What fresh nodes, and members with fresh nodes, say to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormingMessage {
    /// "I am fresh, and this is what I see."
    Status(Box<Status>),
    /// "Promise me not to form any other cluster."
    Propose {
        /// The try.
        ballot: Ballot,
        /// Where peers dial the proposer.
        addr: Endpoint,
        /// The replication factor of the cluster.
        replication_factor: u8,
    },
    /// "Promised, and on disk."
    Accept {
        /// The try.
        ballot: Ballot,
    },
    /// "I am bound to another proposer."
    Busy {
        /// The try that is turned down for now.
        ballot: Ballot,
        /// Who holds the promise.
        holder: NodeId,
    },
    /// "I belong to a cluster, and you do not yet: ask to be admitted."
    Formed {
        /// The cluster.
        cluster_id: u128,
    },
    /// "Admit me."
    Admit {
        /// The entry of the node that asks.
        member: Box<Member>,
        /// The replication factor it was configured with.
        replication_factor: u8,
    },
    /// "This is the cluster that you belong to."
    Document(Box<Topology>),
    /// "You cannot be admitted."
    Refused(Refusal),
}

/// Why a node is not admitted: for its operator to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The node's id belongs to a member that is alive, or to one that left.
    #[error(
        "node id {id} is that of another process of the cluster, or of a member that left; give this node another one \
         (change or remove --node-id, and remove its data directory)"
    )]
    IdTaken {
        /// The id.
        id: NodeId,
    },
    /// The node was configured with another replication factor than the cluster.
    #[error("the cluster's replication factor is {cluster}, this node was configured with {node}")]
    ReplicationFactor {
        /// The cluster's.
        cluster: u8,
        /// The node's.
        node: u8,
    },
    /// The node was configured with another cluster name.
    #[error("the cluster is named {cluster:?}, this node was configured for {node:?}")]
    ClusterName {
        /// The cluster's.
        cluster: String,
        /// The node's.
        node: String,
    },
    /// The cluster has as many members as it can.
    #[error("the cluster is full")]
    Full,
}

impl Ballot {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.proposer.0, self.incarnation, self.attempt] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.cluster_id.to_le_bytes());
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Ballot, Malformed> {
        let (proposer, incarnation, attempt) = (node(reader)?, reader.u64()?, reader.u64()?);
        let cluster_id = reader.u128()?;
        if cluster_id == 0 {
            Err(Malformed)
        } else {
            Ok(Ballot { proposer, incarnation, attempt, cluster_id })
        }
    }
}

impl FormingMessage {
    /// Appends the message's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            FormingMessage::Status(status) => {
                out.push(1);
                status.encode(out);
            }
            FormingMessage::Propose { ballot, addr, replication_factor } => {
                out.push(2);
                ballot.encode(out);
                addr.encode(out);
                out.push(*replication_factor);
            }
            FormingMessage::Accept { ballot } => {
                out.push(3);
                ballot.encode(out);
            }
            FormingMessage::Busy { ballot, holder } => {
                out.push(4);
                ballot.encode(out);
                out.extend_from_slice(&holder.0.to_le_bytes());
            }
            FormingMessage::Formed { cluster_id } => {
                out.push(5);
                out.extend_from_slice(&cluster_id.to_le_bytes());
            }
            FormingMessage::Admit { member, replication_factor } => {
                out.push(6);
                member.encode(out);
                out.push(*replication_factor);
            }
            FormingMessage::Document(topology) => {
                out.push(7);
                out.extend_from_slice(&topology.encode());
            }
            FormingMessage::Refused(refusal) => {
                out.push(8);
                refusal.encode(out);
            }
        }
    }

    /// Reads a message, all of `bytes`.
    ///
    /// # Errors
    /// [`Malformed`]; for a topology of an unknown format too, since the handshake has agreed on a version.
    pub fn decode(bytes: &[u8]) -> Result<FormingMessage, Malformed> {
        if let Some((7, document)) = bytes.split_first() {
            let topology = Topology::decode(document).map_err(|_| Malformed)?;
            return Ok(FormingMessage::Document(Box::new(topology)));
        }
        let mut reader = Reader::new(bytes);
        let message = match reader.u8()? {
            1 => FormingMessage::Status(Box::new(Status::decode(&mut reader)?)),
            2 => FormingMessage::Propose {
                ballot: Ballot::decode(&mut reader)?,
                addr: Endpoint::decode(&mut reader)?,
                replication_factor: reader.u8()?,
            },
            3 => FormingMessage::Accept { ballot: Ballot::decode(&mut reader)? },
            4 => FormingMessage::Busy { ballot: Ballot::decode(&mut reader)?, holder: node(&mut reader)? },
            5 => FormingMessage::Formed { cluster_id: reader.u128()? },
            6 => FormingMessage::Admit {
                member: Box::new(Member::decode(&mut reader)?),
                replication_factor: reader.u8()?,
            },
            8 => FormingMessage::Refused(Refusal::decode(&mut reader)?),
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok(message)
    }
}

impl Status {
    fn encode(&self, out: &mut Vec<u8>) {
        self.member.encode(out);
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.push(self.replication_factor);
        out.extend_from_slice(&self.ended.to_le_bytes());
        put_count(out, self.seeds.len());
        for seed in &self.seeds {
            seed.addr.encode(out);
            put_option(out, seed.node, |out, node| out.extend_from_slice(&node.0.to_le_bytes()));
        }
        put_count(out, self.known.len());
        for (node, addr) in &self.known {
            out.extend_from_slice(&node.0.to_le_bytes());
            addr.encode(out);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Status, Malformed> {
        Ok(Status {
            member: Member::decode(reader)?,
            seq: reader.u64()?,
            replication_factor: reader.u8()?,
            ended: reader.u64()?,
            seeds: reader.list(SEEDS_MAX, |reader| {
                Ok(SeedView { addr: Endpoint::decode(reader)?, node: reader.option(node)? })
            })?,
            known: reader.list(FORMING_NODES_MAX, |reader| Ok((node(reader)?, Endpoint::decode(reader)?)))?,
        })
    }
}

impl Refusal {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Refusal::IdTaken { id } => {
                out.push(1);
                out.extend_from_slice(&id.0.to_le_bytes());
            }
            Refusal::ReplicationFactor { cluster, node } => out.extend_from_slice(&[2, *cluster, *node]),
            Refusal::ClusterName { cluster, node } => {
                out.push(3);
                put_text(out, cluster);
                put_text(out, node);
            }
            Refusal::Full => out.push(4),
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Refusal, Malformed> {
        Ok(match reader.u8()? {
            1 => Refusal::IdTaken { id: node(reader)? },
            2 => Refusal::ReplicationFactor { cluster: reader.u8()?, node: reader.u8()? },
            3 => Refusal::ClusterName {
                cluster: reader.text(CLUSTER_NAME_BYTES_MAX)?,
                node: reader.text(CLUSTER_NAME_BYTES_MAX)?,
            },
            4 => Refusal::Full,
            _ => return Err(Malformed),
        })
    }
}

impl From<TopologyError> for Refusal {
    /// Why [`Topology::admit`] refused a member that was decoded, and so is within its bounds.
    fn from(error: TopologyError) -> Refusal {
        match error {
            TopologyError::IdTaken { id } => Refusal::IdTaken { id },
            _ => Refusal::Full,
        }
    }
}

fn node(reader: &mut Reader<'_>) -> Result<NodeId, Malformed> {
    NodeId::new(reader.u64()?).ok_or(Malformed)
}
