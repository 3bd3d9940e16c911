//! What can happen, and to which node.

use gyre_cluster::coordinator::{OpId, Tag, Ticket};
use gyre_cluster::message::ScanRange;
use gyre_cluster::repair::{self, Work};
use gyre_cluster::topology::Databases;
use gyre_storage::Version;

use crate::fault::FaultEvent;
use crate::network::{LinkIndex, Packet, WorkerAt};
use crate::queue::Queue;

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// A message arrives.
    Packet(Packet),
    /// A link that has carried nothing for long is given up by its owner, if it still carries nothing.
    LinkTimeout { link: LinkIndex, connection: u32 },
    /// The owner of a link learns that it is gone.
    LinkBroken { link: LinkIndex, connection: u32 },
    /// The owner of a link that is down dials.
    Dial { link: LinkIndex },
    /// Something of a worker's own; void if its node has restarted since.
    Worker { at: WorkerAt, boot: u32, local: Local },
    /// Something of a node's own; void if it has restarted since.
    Node { node: usize, boot: u32, local: NodeLocal },
    /// A client's operation reaches its node.
    Invoke { node: usize, tag: Tag },
    /// A client goes on.
    Client { client: usize },
    /// A client has waited long enough for an operation.
    Patience { tag: Tag },
    /// Something goes wrong, or is mended.
    Fault(FaultEvent),
    /// A database is flushed.
    Flush,
}

/// What a worker waits for.
#[derive(Debug)]
pub(crate) enum Local {
    /// Its batch has reached the disk.
    Commit,
    /// Under a mutation: whoever waits for the batch is told too early.
    EarlyAcknowledgement,
    /// A timer of its coordinator is due.
    Tick { at: u64 },
    /// A record was read from the disk.
    Record { ticket: Ticket, db: u8, key: Vec<u8> },
    /// A page was scanned.
    Page { ticket: Ticket, range: ScanRange },
    /// A page was counted.
    Count { ticket: Ticket, range: ScanRange },
    /// A deletion horizon was made durable.
    Horizon { ticket: Ticket, databases: Databases, version: Version },
    /// An operation has the lock it waited for.
    Locked { op: OpId, key_hash: u64 },
}

/// What a node does by itself.
#[derive(Debug)]
pub(crate) enum NodeLocal {
    /// Puts everything on stable storage.
    Sync,
    /// Replays hints.
    Handoff,
    /// Gossips.
    Gossip,
    /// Drops superseded rows.
    Compact,
    /// Compares clocks.
    Clock,
    /// Sweeps expired rows.
    Sweep,
    /// Removes what is dead.
    Purge,
    /// Looks who is away.
    Absences,
    /// Compares what it holds with others.
    Repair,
    /// Has done a step of that with its store.
    Work { ticket: repair::Ticket, work: Box<Work> },
}

impl Event {
    /// The node that must run for this to happen; a paused one gets it later.
    pub(crate) fn node(&self, nodes: usize) -> Option<usize> {
        match self {
            Event::Packet(packet) => Some(packet.receiver(nodes)),
            Event::LinkTimeout { link, .. } | Event::LinkBroken { link, .. } | Event::Dial { link } => {
                Some(link.owner(nodes).node)
            }
            Event::Worker { at, .. } => Some(at.node),
            Event::Node { node, .. } | Event::Invoke { node, .. } => Some(*node),
            Event::Client { .. } | Event::Patience { .. } | Event::Fault(_) | Event::Flush => None,
        }
    }

    /// Adds what happens to the hash of everything that has happened.
    pub(crate) fn fold_into<E>(&self, queue: &mut Queue<E>) {
        let (kind, detail) = match self {
            Event::Packet(packet) => {
                queue.fold_bytes(&packet.bytes);
                queue.fold(packet.clock.0);
                (1, u64::from(packet.link.0))
            }
            Event::LinkTimeout { link, .. } => (2, u64::from(link.0)),
            Event::LinkBroken { link, .. } => (3, u64::from(link.0)),
            Event::Dial { link } => (4, u64::from(link.0)),
            Event::Worker { at, local, .. } => (5, (at.node * 64 + at.worker * 32 + local.code()) as u64),
            Event::Node { node, .. } => (6, *node as u64),
            Event::Invoke { tag, .. } => (7, tag.0),
            Event::Client { client } => (8, *client as u64),
            Event::Patience { tag } => (9, tag.0),
            Event::Fault(_) => (10, 0),
            Event::Flush => (11, 0),
        };
        queue.fold(kind << 56 | detail);
    }
}

impl Local {
    fn code(&self) -> usize {
        match self {
            Local::Commit => 1,
            Local::Tick { .. } => 2,
            Local::Record { .. } => 3,
            Local::Page { .. } => 4,
            Local::Count { .. } => 5,
            Local::Horizon { .. } => 6,
            Local::Locked { .. } => 7,
            Local::EarlyAcknowledgement => 8,
        }
    }
}
