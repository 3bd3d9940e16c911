//! Peer messages: what nodes say to each other about keys, clocks and topology, and its encoding.
//!
//! A message is one byte of kind and then its fields; all integers are little-endian. Links put messages into
//! frames ([`crate::frame`]) and know where each ends, so a message carries no length of its own and what may be
//! long (a value, a record, a document) comes last and runs to the end. That lets a sender pass it on without
//! copying it into the message: [`Message::encode_head`] writes everything before it, [`Message::tail`] is it.
//!
//! | kind | message | fields |
//! |---|---|---|
//! | 1 | Apply | request, flags, key, version, [expiry], [count, hint targets], actor, base, sum ∣ value |
//! | 2 | Applied | request, 0 ∣ 1, digest |
//! | 3, 4 | Read, Digest | request, key |
//! | 5 | Found | request, record |
//! | 6 | Digested | request, digest |
//! | 7 | Repair | request, key, record |
//! | 8 | Modify | request, read level, write level and mode, key, modify |
//! | 9 | Modified | request, 0 reply ∣ 1 error |
//! | 10 | Failed | request, reason, needed, alive or acked |
//! | 11, 13 | Scan, Count | request, database, from, end, keys_max, [bytes_max] |
//! | 12 | Scanned | request, next, entries |
//! | 14 | Counted | request, next, keys |
//! | 15, 16 | ClockRead, ClockReply | request, [clock] |
//! | 17, 18 | Horizon, HorizonSet | request, [database, version] |
//! | 19, 20 | Topology, Forming | the document |
//! | 21 | Ping | nonce |
//! | 22 | Pong | nonce, then nothing or: wall clock u64, time: option of u64 |
//! | 23 | Gossip | the step |
//! | 24 | KeepHint | target, version missed, key |
//! | 25 | Exchange | the step |
//! | 26 | Entrust | request, request forwarded, reply, digest, then from its flags on as Apply |
//! | 40 | Purge | the statement |
//!
//! A key is its database (1 byte), its length (4 bytes) and its bytes. Kinds are never reused. A node meets kinds
//! it does not know while a cluster is upgraded node by node: [`DecodeError::UnknownKind`] tells them from damage.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

use gyre_storage::{Hlc, KeyRef, Record, Row, Version};

use crate::coordinator::REPLICAS_MAX;
use crate::level::{Consistency, Level, Quorums};
use crate::modify::{Modify, ModifyError, ModifyReply};
use crate::node::NodeId;
use crate::topology::Databases;

/// Names a request in its answer. Chosen by the asking node and meaningless to the answering one;
/// [`RequestId::NONE`] wants no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

impl RequestId {
    /// No answer is wanted.
    pub const NONE: RequestId = RequestId(0);
}

/// The levels of a connection and of a read-modify-write: of what it reads, and of what it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// How many replicas its read asks.
    pub read: Consistency,
    /// How many replicas its write must reach.
    pub write: Consistency,
    /// Whether stand-ins count, for both.
    pub quorums: Quorums,
}

impl Levels {
    /// The level of a read alone.
    #[must_use]
    pub const fn reading(self) -> Level {
        Level { consistency: self.read, quorums: self.quorums }
    }

    /// The level of a write alone.
    #[must_use]
    pub const fn writing(self) -> Level {
        Level { consistency: self.write, quorums: self.quorums }
    }
}

impl From<(Consistency, Consistency)> for Levels {
    fn from((read, write): (Consistency, Consistency)) -> Levels {
        Levels { read, write, quorums: Quorums::default() }
    }
}

/// The nodes that miss a row: whoever stores it keeps a hint for each. At most [`REPLICAS_MAX`], usually none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HintTargets<'a>(&'a [[u8; 8]]);

impl<'a> HintTargets<'a> {
    /// No node misses the row.
    pub const NONE: HintTargets<'static> = HintTargets(&[]);

    /// The nodes whose ids these are, little-endian; `None` if there are more than may be.
    #[must_use]
    pub fn new(ids: &'a [[u8; 8]]) -> Option<HintTargets<'a>> {
        (ids.len() <= REPLICAS_MAX).then_some(HintTargets(ids))
    }

    /// The nodes.
    pub fn iter(self) -> impl Iterator<Item = NodeId> + 'a {
        self.0.iter().map(|id| NodeId(u64::from_le_bytes(*id)))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn ids(self) -> &'a [[u8; 8]] {
        self.0
    }
}

/// Why a replica did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its store failed.
    Storage,
    /// It has too much in flight; it has done nothing.
    Overloaded,
    /// By its own ring it is no replica of the key; it has done nothing.
    NotReplica,
    /// As primary of a read-modify-write it saw too few replicas alive; it has done nothing.
    Unavailable {
        /// How many must be.
        needed: u8,
        /// How many are.
        alive: u8,
    },
    /// As primary of a read-modify-write it got too few answers; the write may have been applied.
    Timeout {
        /// How many must answer.
        needed: u8,
        /// How many have.
        acked: u8,
    },
}

/// A range of ring-position prefixes (`from` inclusive, `end` exclusive, 0 to 2^32) to scan, and the page's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanRange {
    /// The database.
    pub db: u8,
    /// The first position prefix.
    pub from: u64,
    /// The first position prefix past the range.
    pub end: u64,
    /// About how many keys a page may have: it ends with the group of equal prefixes that reaches this.
    pub keys_max: u32,
    /// About how many bytes of keys and records a page may have, likewise.
    pub bytes_max: u32,
}

/// One message between two nodes.
#[derive(Clone, Debug, PartialEq)]
pub enum Message<'a> {
    /// Store this row. Answered by [`Message::Applied`] or [`Message::Failed`].
    Apply {
        /// Names the answer.
        request: RequestId,
        /// The row.
        row: Row<'a>,
        /// Whether the answer shall carry the digest of the record as it stands then.
        want_digest: bool,
        /// Replicas that miss the row: the receiver keeps a hint for each, in the same batch.
        hints: HintTargets<'a>,
    },
    /// The row, or the repair, is in the store, as durable as its fsync policy makes it.
    Applied {
        /// The request answered.
        request: RequestId,
        /// The digest of the record afterwards, if it was asked for.
        digest: Option<u64>,
    },
    /// Send the record of this key. Answered by [`Message::Found`].
    Read {
        /// Names the answer.
        request: RequestId,
        /// The key.
        key: KeyRef<'a>,
    },
    /// The record of a key.
    Found {
        /// The request answered.
        request: RequestId,
        /// The record, perhaps absent.
        record: Record,
    },
    /// Send the digest of the record of this key. Answered by [`Message::Digested`].
    Digest {
        /// Names the answer.
        request: RequestId,
        /// The key.
        key: KeyRef<'a>,
    },
    /// The digest of the record of a key.
    Digested {
        /// The request answered.
        request: RequestId,
        /// [`Record::digest`].
        digest: u64,
    },
    /// Store these rows of a key, which another replica has and the receiver lacks. Answered by
    /// [`Message::Applied`], unless the request is [`RequestId::NONE`].
    Repair {
        /// Names the answer.
        request: RequestId,
        /// The key.
        key: KeyRef<'a>,
        /// The rows, as a record.
        record: Record,
    },
    /// Do this read-modify-write as the key's primary. Answered by [`Message::Modified`] or [`Message::Failed`].
    Modify {
        /// Names the answer.
        request: RequestId,
        /// The key.
        key: KeyRef<'a>,
        /// The levels of its read and its write.
        levels: Levels,
        /// What to do.
        modify: Modify<'a>,
    },
    /// Store this row of an increment that the receiver has forwarded, and which the sender, its primary, has stored.
    /// If the receiver's record then is the sender's, that is a quorum of two: the receiver may give its client the
    /// reply. Answered as a [`Message::Apply`] that wants a digest, by the link it came on.
    Entrust {
        /// Names the answer.
        request: RequestId,
        /// The receiver's own request, a [`Message::Modify`].
        forwarded: RequestId,
        /// What to answer the client.
        reply: i64,
        /// The digest of the sender's record with the row.
        digest: u64,
        /// The row.
        row: Row<'a>,
    },
    /// How a read-modify-write ended.
    Modified {
        /// The request answered.
        request: RequestId,
        /// Its reply, or why what it read refused it.
        result: Result<ModifyReply, ModifyError>,
    },
    /// The request was not done.
    Failed {
        /// The request answered.
        request: RequestId,
        /// Why.
        reason: Reason,
    },
    /// Send one page of the keys in this range. Answered by [`Message::Scanned`].
    Scan {
        /// Names the answer.
        request: RequestId,
        /// Range and bounds.
        range: ScanRange,
    },
    /// One page of keys.
    Scanned {
        /// The request answered.
        request: RequestId,
        /// Keys with their records (values left out), by ascending position; whole groups of equal prefixes.
        entries: Vec<(Vec<u8>, Record)>,
        /// The position prefix the next page begins at; `None` if the range is done.
        next: Option<u64>,
    },
    /// Count the live keys in this range, looking at about `keys_max` at most. Answered by [`Message::Counted`].
    Count {
        /// Names the answer.
        request: RequestId,
        /// Range and bounds.
        range: ScanRange,
    },
    /// How many live keys there are in one page of a range.
    Counted {
        /// The request answered.
        request: RequestId,
        /// Live keys seen.
        keys: u64,
        /// The position prefix the next page begins at; `None` if the range is done.
        next: Option<u64>,
    },
    /// Send your clock. Answered by [`Message::ClockReply`].
    ClockRead {
        /// Names the answer.
        request: RequestId,
    },
    /// The sender's clock, after every version it has stamped or seen.
    ClockReply {
        /// The request answered.
        request: RequestId,
        /// The clock.
        clock: Hlc,
    },
    /// Delete every row of `databases` up to `version`. Answered by [`Message::HorizonSet`].
    Horizon {
        /// Names the answer.
        request: RequestId,
        /// The databases.
        databases: Databases,
        /// The deletion horizon.
        version: Version,
    },
    /// The deletion horizon is durable.
    HorizonSet {
        /// The request answered.
        request: RequestId,
    },
    /// The sender's topology document ([`crate::topology`]). For the shell, not for the coordinator.
    Topology {
        /// The encoded document.
        bytes: &'a [u8],
    },
    /// A step of cluster formation ([`crate::forming`]). For the shell, not for the coordinator.
    Forming {
        /// The encoded step.
        bytes: &'a [u8],
    },
    /// A step of gossip ([`crate::gossip`]). For the shell, not for the coordinator.
    Gossip {
        /// The encoded step.
        bytes: &'a [u8],
    },
    /// A step of anti-entropy ([`crate::repair`]). For the shell, not for the coordinator.
    Exchange {
        /// The encoded step.
        bytes: &'a [u8],
    },
    /// What a replica says about purging ([`crate::purge`]). For the shell, not for the coordinator.
    Purge {
        /// The encoded statement.
        bytes: &'a [u8],
    },
    /// Are you there? For the shell, not for the coordinator.
    Ping {
        /// Comes back in the answer.
        nonce: u64,
    },
    /// I am, and so late is it here.
    Pong {
        /// The nonce of the ping.
        nonce: u64,
        /// The sender's clock; `None` from a node of an older version.
        reading: Option<ClockReading>,
    },
    /// Keep a hint: `target` misses a row of this key that you have. Not answered.
    KeepHint {
        /// The node that misses it.
        target: NodeId,
        /// The key.
        key: KeyRef<'a>,
        /// The row missed.
        missed: Version,
    },
}

impl<'a> Message<'a> {
    /// The key that is read at once to serve the message. (A read-modify-write puts its read off.)
    #[must_use]
    pub fn key_read(&self) -> Option<KeyRef<'a>> {
        match self {
            Message::Read { key, .. } | Message::Digest { key, .. } => Some(*key),
            _ => None,
        }
    }
}

/// What a node says of its clock, in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// Its wall clock.
    pub wall_us: u64,
    /// The time that it stamps by ([`crate::clock::agreement`]), once it has one.
    pub time_us: Option<u64>,
}

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A kind this node does not know: skip it, the sender may be of a newer version.
    #[error("unknown message kind {0}")]
    UnknownKind(u8),
    /// The bytes are damaged or hostile: close the link.
    #[error("malformed message")]
    Malformed,
}

pub(crate) mod kind {
    pub(crate) const APPLY: u8 = 1;
    pub(crate) const APPLIED: u8 = 2;
    pub(crate) const READ: u8 = 3;
    pub(crate) const DIGEST: u8 = 4;
    pub(crate) const FOUND: u8 = 5;
    pub(crate) const DIGESTED: u8 = 6;
    pub(crate) const REPAIR: u8 = 7;
    pub(crate) const MODIFY: u8 = 8;
    pub(crate) const MODIFIED: u8 = 9;
    pub(crate) const FAILED: u8 = 10;
    pub(crate) const SCAN: u8 = 11;
    pub(crate) const SCANNED: u8 = 12;
    pub(crate) const COUNT: u8 = 13;
    pub(crate) const COUNTED: u8 = 14;
    pub(crate) const CLOCK_READ: u8 = 15;
    pub(crate) const CLOCK_REPLY: u8 = 16;
    pub(crate) const HORIZON: u8 = 17;
    pub(crate) const HORIZON_SET: u8 = 18;
    pub(crate) const TOPOLOGY: u8 = 19;
    pub(crate) const FORMING: u8 = 20;
    pub(crate) const PING: u8 = 21;
    pub(crate) const PONG: u8 = 22;
    pub(crate) const GOSSIP: u8 = 23;
    pub(crate) const KEEP_HINT: u8 = 24;
    pub(crate) const EXCHANGE: u8 = 25;
    pub(crate) const ENTRUST: u8 = 26;
    pub(crate) const PURGE: u8 = 40;
}

/// Flags of an Apply.
pub(crate) mod flag {
    pub(crate) const WANT_DIGEST: u8 = 1;
    pub(crate) const EXPIRY: u8 = 2;
    pub(crate) const TOMBSTONE: u8 = 4;
    pub(crate) const COUNTER: u8 = 8;
    pub(crate) const HINT: u8 = 16;
    pub(crate) const SIBLINGS: u8 = 32;
}

/// Codes of a [`Reason`].
pub(crate) mod reason {
    pub(crate) const STORAGE: u8 = 1;
    pub(crate) const OVERLOADED: u8 = 2;
    pub(crate) const NOT_REPLICA: u8 = 3;
    pub(crate) const UNAVAILABLE: u8 = 4;
    pub(crate) const TIMEOUT: u8 = 5;
}
