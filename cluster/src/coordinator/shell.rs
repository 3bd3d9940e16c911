//! What the coordinator asks of its surroundings, and the names they use for things between them.

use gyre_storage::{KeyRef, Record, Row, Version};

use crate::message::{Message, RequestId, ScanRange};
use crate::modify::Crowd;
use crate::node::NodeId;
use crate::outcome::Outcome;
use crate::topology::Databases;

/// The shell's name for an operation it started; comes back with the outcome. Means nothing to the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(pub u64);

/// The shell's name for a link, ours or a peer's, by which a request of a peer came and its answer goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// The coordinator's name for an operation in flight. Never reused while an answer could still be under way: 32 bits
/// of generation stand beside the 24 of the index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OpId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl OpId {
    /// How many operations can be told apart at a time.
    pub(crate) const INDEX_MAX: u32 = (1 << 24) - 1;

    /// The operation and its round of messages, as one number for the wire.
    pub(crate) fn request(self, round: u8) -> RequestId {
        RequestId(
            u64::from(self.generation) << 32
                | u64::from(self.index & OpId::INDEX_MAX) << 8
                | u64::from(round),
        )
    }

    /// Takes a number of [`OpId::request`] apart again.
    pub(crate) fn of_request(request: RequestId) -> (OpId, u8) {
        let [round, a, b, c, rest @ ..] = request.0.to_le_bytes();
        (OpId { index: u32::from_le_bytes([a, b, c, 0]), generation: u32::from_le_bytes(rest) }, round)
    }
}

/// Names something the shell does for the coordinator, in the call that brings the result. Opaque to the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticket {
    /// For an operation of this coordinator.
    Op(RequestId),
    /// For a peer's request: the result is its answer.
    Peer {
        /// Where the answer goes.
        link: LinkId,
        /// The request to answer.
        request: RequestId,
        /// Which message answers.
        answer: PeerAnswer,
    },
    /// For nobody: no result is wanted (bringing one does no harm).
    Nobody,
}

/// Which message answers a peer's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAnswer {
    /// [`Message::Applied`] without a digest.
    Applied,
    /// [`Message::Applied`] with the digest of the record.
    AppliedWithDigest,
    /// [`Message::HorizonSet`].
    HorizonSet,
    /// [`Message::Found`].
    Found,
    /// [`Message::Digested`].
    Digested,
    /// [`Message::Scanned`].
    Scanned,
    /// [`Message::Counted`].
    Counted,
}

/// What the coordinator asks of its surroundings. No method may call back into the coordinator: results of later
/// come by its own methods ([`applied`](super::Coordinator::applied) and so on), in this turn or another.
pub trait Shell {
    /// Queues `message` on this worker's link to peer `to`. `false`: it is not sent and never will be (no link, a full
    /// queue); the coordinator then counts the peer's answer as failed.
    fn send(&mut self, to: NodeId, message: &Message<'_>) -> bool;

    /// Queues `message`, an answer, on the very link `link`. Dropped if the link is gone.
    fn respond(&mut self, link: LinkId, message: &Message<'_>);

    /// Adds `row` to this turn's batch. [`applied`](super::Coordinator::applied) follows once the batch is committed
    /// (or has failed), unless the ticket is [`Ticket::Nobody`]. Rows of one turn are committed together or in order.
    fn apply(&mut self, ticket: Ticket, row: &Row<'_>);

    /// As [`apply`](Shell::apply), but what follows the commit is [`local_record`](super::Coordinator::local_record)
    /// with what the row's key then holds ([`applied`](super::Coordinator::applied) only if the commit has failed).
    fn apply_and_read(&mut self, ticket: Ticket, row: &Row<'_>);

    /// Adds a hint to this turn's batch, so that it is stored together with the rows added before it: `target` misses
    /// the row of `key` of version `missed`. The store may have no room for it (then it does what
    /// [`drop_hint`](Shell::drop_hint) does), and that fails nothing.
    fn hint(&mut self, target: NodeId, key: KeyRef<'_>, missed: Version);

    /// A node misses the row of `key` of version `missed` and no hint can be kept of it: counts that, and marks the key's
    /// slot, durably with this turn's batch, for anti-entropy.
    fn drop_hint(&mut self, key: KeyRef<'_>, missed: Version);

    /// Whether this node's store still accepts rows: not once its disk has failed it.
    fn accepts_rows(&self) -> bool {
        true
    }

    /// The record of `key` in this node's store, from memory. `None`: it needs the disk, and
    /// [`local_record`](super::Coordinator::local_record) follows. Rows not yet committed need not be in it.
    fn read(&mut self, ticket: Ticket, key: KeyRef<'_>) -> Option<Record>;

    /// As [`read`](Shell::read), but may be put off until other inputs of the turn were taken in, so that many reads wait for
    /// memory together: `None` then means that, too.
    fn read_soon(&mut self, ticket: Ticket, key: KeyRef<'_>) -> Option<Record> {
        self.read(ticket, key)
    }

    /// Reads one page of keys, values left out; [`scanned`](super::Coordinator::scanned) follows.
    fn scan(&mut self, ticket: Ticket, range: &ScanRange);

    /// Counts the live keys of one page; [`counted`](super::Coordinator::counted) follows.
    fn count(&mut self, ticket: Ticket, range: &ScanRange);

    /// Makes the deletion horizon of `databases` at least `version`, durably (and puts it into the topology
    /// document); [`applied`](super::Coordinator::applied) follows.
    fn set_horizon(&mut self, ticket: Ticket, databases: Databases, version: Version);

    /// Takes the lock of all keys that hash to `key_hash`, shared by the workers of this node. `false`: another
    /// operation has it, and [`locked`](super::Coordinator::locked) follows when it is this one's turn (first come,
    /// first served; also when the operation has ended meanwhile).
    fn lock(&mut self, key_hash: u64, op: OpId) -> bool;

    /// Gives the lock back.
    fn unlock(&mut self, key_hash: u64);

    /// The operation started with `tag` has ended. May come before the call that starts it returns.
    fn finish(&mut self, tag: Tag, outcome: Outcome);

    /// A write of `key` with a context has left many siblings, or merged too many: the operator should know.
    fn crowded(&mut self, key: KeyRef<'_>, crowd: Crowd) {
        let _ = (key, crowd);
    }

    /// No replica of the finished write `tag` will answer any more: `acked` of them have it, stand-ins included (they
    /// hold the row durably and hand it on). What WAIT counts;
    /// [`acknowledged`](super::Coordinator::acknowledged) tells the count before.
    fn settled(&mut self, tag: Tag, acked: usize) {
        let _ = (tag, acked);
    }
}
