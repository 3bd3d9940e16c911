//! The messages of gossip and their bytes.
//!
//! ```text
//! step: u8 = 1 SYN | 2 ACK | 3 ACK2
//! topology: epoch: varint | digest: u64
//! digests: u16 × { id | incarnation, counter, version: varint }
//! deltas: u16 × { id | incarnation, after: varint
//!                 | entries: u8 × { kind: u8 | version: varint | length: varint | value } }
//! ```
//! A varint is in LEB128. An id is the varint of its difference (modulo 2^64) to the id before it in the same message,
//! the first to 0: in a large cluster, whose members come in ascending runs, that is one or two bytes less. Fixed
//! integers are little-endian. The values of entries are those of the [topology](crate::topology)'s members: an address,
//! an option of text, and so on.

use std::sync::Arc;

use super::about::TopologyMark;
use super::entry::{ENTRIES_MAX, Entry, is_bounded};
use super::peer::{Heartbeat, Peer};
use crate::node::NodeId;
use crate::wire::{Malformed, Reader, put_count, put_varint, varint_bytes};

/// The most bytes of a message, whatever the membership. A digest takes 13 to 15 in a large cluster, so about 2,300
/// members fit into a SYN.
pub const MESSAGE_BYTES_MAX: usize = 32 * 1_024;
/// How many of them the digests of an ACK take at most, so that there is room for entries.
const ACK_DIGESTS_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 4 * 3;
/// Step, topology and the two counts.
const HEAD_BYTES_MAX: usize = 1 + 10 + 8 + 2 + 2;
/// The fewest bytes of a digest: no message has more of them than fit.
const DIGEST_BYTES_MIN: usize = 4;
/// About as many digests as fit into a message of a large cluster.
const DIGESTS_LIKELY_MAX: usize = 2_600;
/// The most bytes of a digest.
pub(super) const DIGEST_BYTES_MAX: usize = 40;

/// Where in an exchange a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// "This is how much I know": begins an exchange.
    Syn,
    /// The answer: what the other lacks, and how much the answerer knows where the other knows more.
    Ack,
    /// The answer to that: what the answerer lacked.
    Ack2,
}

/// How much the sender knows of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The member.
    pub id: NodeId,
    /// Its last heartbeat. The default if the sender has never heard of it.
    pub heartbeat: Heartbeat,
    /// The greatest version of its entries, all lower ones included; 0 for none.
    pub version: u64,
}

/// Entries of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// The member.
    pub id: NodeId,
    /// Its incarnation that made them.
    pub incarnation: u64,
    /// These are all its entries of a greater version, as far as the sender knows.
    pub after: u64,
    /// The entries, ascending by kind.
    pub entries: Arc<[Entry]>,
}

/// A step of an exchange between two nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GossipMessage {
    /// Which step.
    pub step: Step,
    /// Which topology document the sender has.
    pub topology: TopologyMark,
    /// What the sender knows of members; of itself first.
    pub digests: Vec<Digest>,
    /// What the receiver lacks.
    pub deltas: Vec<Delta>,
}

impl GossipMessage {
    /// Appends the message's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self.step {
            Step::Syn => 1,
            Step::Ack => 2,
            Step::Ack2 => 3,
        });
        put_varint(out, self.topology.epoch);
        out.extend_from_slice(&self.topology.digest.to_le_bytes());
        let mut previous = 0u64;
        let mut put_id = |out: &mut Vec<u8>, id: NodeId| {
            put_varint(out, id.0.wrapping_sub(previous));
            previous = id.0;
        };
        put_count(out, self.digests.len());
        for digest in &self.digests {
            put_id(out, digest.id);
            put_varint(out, digest.heartbeat.incarnation);
            put_varint(out, digest.heartbeat.counter);
            put_varint(out, digest.version);
        }
        put_count(out, self.deltas.len());
        for delta in &self.deltas {
            put_id(out, delta.id);
            put_varint(out, delta.incarnation);
            put_varint(out, delta.after);
            out.push(u8::try_from(delta.entries.len()).expect("a node has few entries"));
            delta.entries.iter().for_each(|entry| entry.encode(out));
        }
    }

    /// How many bytes [`GossipMessage::encode`] appends.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        let mut previous = NodeId(0);
        let mut bytes = 1 + varint_bytes(self.topology.epoch) + 8 + 2 + 2;
        for digest in &self.digests {
            bytes += digest_bytes(digest, previous);
            previous = digest.id;
        }
        for delta in &self.deltas {
            bytes += delta_head_bytes(delta, previous);
            bytes += delta.entries.iter().map(Entry::encoded_bytes).sum::<usize>();
            previous = delta.id;
        }
        bytes
    }

    /// Reads a message, all of `bytes`.
    ///
    /// # Errors
    /// [`Malformed`]; also for more than [`MESSAGE_BYTES_MAX`] bytes.
    pub fn decode(bytes: &[u8]) -> Result<GossipMessage, Malformed> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(Malformed);
        }
        let mut reader = Reader::new(bytes);
        let step = match reader.u8()? {
            1 => Step::Syn,
            2 => Step::Ack,
            3 => Step::Ack2,
            _ => return Err(Malformed),
        };
        let topology = TopologyMark { epoch: reader.varint()?, digest: reader.u64()? };
        let mut previous = 0u64;
        let mut id = |reader: &mut Reader<'_>| {
            previous = previous.wrapping_add(reader.varint()?);
            NodeId::new(previous).ok_or(Malformed)
        };
        let digests = reader.list(MESSAGE_BYTES_MAX / DIGEST_BYTES_MIN, |reader| {
            Ok(Digest {
                id: id(reader)?,
                heartbeat: Heartbeat { incarnation: reader.varint()?, counter: reader.varint()? },
                version: reader.varint()?,
            })
        })?;
        let deltas = reader.list(MESSAGE_BYTES_MAX / DIGEST_BYTES_MIN, |reader| {
            let id = id(reader)?;
            let (incarnation, after) = (reader.varint()?, reader.varint()?);
            let count = usize::from(reader.u8()?);
            if count > ENTRIES_MAX {
                return Err(Malformed);
            }
            let entries = (0..count).map(|_| Entry::decode(reader)).collect::<Result<Arc<[Entry]>, _>>()?;
            let is_sound = is_bounded(&entries)
                && entries.is_sorted_by(|a, b| a.kind < b.kind)
                && entries.iter().all(|entry| entry.version > after);
            if is_sound { Ok(Delta { id, incarnation, after, entries }) } else { Err(Malformed) }
        })?;
        reader.end()?;
        Ok(GossipMessage { step, topology, digests, deltas })
    }
}

/// A message in the making, which takes no more than fits.
pub(super) struct Draft {
    message: GossipMessage,
    /// How many bytes are left.
    room: usize,
    previous: NodeId,
}

impl Draft {
    /// A message that will have about so many digests, or as many as fit.
    pub(super) fn new(step: Step, topology: TopologyMark, digests: usize) -> Draft {
        let digests = Vec::with_capacity(digests.min(DIGESTS_LIKELY_MAX));
        let message = GossipMessage { step, topology, digests, deltas: Vec::new() };
        Draft { message, room: MESSAGE_BYTES_MAX - HEAD_BYTES_MAX, previous: NodeId(0) }
    }

    /// How many bytes are left.
    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// Adds a digest. Answers whether it fitted.
    pub(super) fn digest(&mut self, digest: Digest) -> bool {
        let bytes = digest_bytes(&digest, self.previous);
        let kept = if self.message.step == Step::Syn { 0 } else { MESSAGE_BYTES_MAX - ACK_DIGESTS_BYTES_MAX };
        if bytes + kept > self.room {
            return false;
        }
        self.room -= bytes;
        self.previous = digest.id;
        self.message.digests.push(digest);
        true
    }

    /// Adds all entries of `peer` after version `after`. Answers whether they fitted.
    pub(super) fn delta(&mut self, peer: &Peer, after: u64) -> bool {
        let entries = peer.entries.newer_than(after);
        let delta = Delta { id: peer.id, incarnation: peer.heartbeat.incarnation, after, entries };
        let bytes = delta_head_bytes(&delta, self.previous)
            + delta.entries.iter().map(Entry::encoded_bytes).sum::<usize>();
        if bytes > self.room {
            return false;
        }
        self.room -= bytes;
        self.previous = delta.id;
        self.message.deltas.push(delta);
        true
    }

    /// Whether any entries were added.
    pub(super) fn has_deltas(&self) -> bool {
        !self.message.deltas.is_empty()
    }

    pub(super) fn finish(self) -> GossipMessage {
        self.message
    }
}

fn id_bytes(id: NodeId, previous: NodeId) -> usize {
    varint_bytes(id.0.wrapping_sub(previous.0))
}

fn digest_bytes(digest: &Digest, previous: NodeId) -> usize {
    let Heartbeat { incarnation, counter } = digest.heartbeat;
    id_bytes(digest.id, previous)
        + varint_bytes(incarnation)
        + varint_bytes(counter)
        + varint_bytes(digest.version)
}

/// What a delta takes besides its entries.
fn delta_head_bytes(delta: &Delta, previous: NodeId) -> usize {
    id_bytes(delta.id, previous) + varint_bytes(delta.incarnation) + varint_bytes(delta.after) + 1
}
