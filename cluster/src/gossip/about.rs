//! What a node says of itself, and how that is cut into versioned entries.

use gyre_storage::{Hlc, UnixMillis};

use super::entry::{Entries, Entry};
use crate::node::NodeId;
use crate::purge::absence::{VOTES_MAX, Vote};
use crate::topology::{Endpoint, LABEL_BYTES_MAX, Topology};
use crate::wire::{Malformed, Reader, put_count, put_option, put_text};

/// Kinds of entries. Never reused; a node passes on kinds that it does not know, and always publishes all of these.
mod kind {
    pub(super) const STATUS: u8 = 1;
    pub(super) const CLIENT_ADDR: u8 = 2;
    pub(super) const PEER_ADDR: u8 = 3;
    pub(super) const RACK: u8 = 4;
    pub(super) const WEIGHT: u8 = 5;
    pub(super) const TOPOLOGY: u8 = 6;
    pub(super) const BUILD: u8 = 7;
    pub(super) const LOAD: u8 = 8;
    pub(super) const OLDEST_HINT: u8 = 9;
    pub(super) const FLOOR: u8 = 10;
    pub(super) const HAS_FAILED: u8 = 11;
    pub(super) const AWAY: u8 = 12;
}

/// What a node is doing, in its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeStatus {
    /// It coordinates requests and owns nothing yet.
    Joining,
    /// It owns its share of the ring.
    Active,
    /// It is about to end its process: peers count it as down at once.
    Stopping,
    /// It has left the cluster for good.
    Left,
}

/// Which topology document a node has: enough to see whether two nodes have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopologyMark {
    /// [`Topology::epoch`].
    pub epoch: u64,
    /// [`Topology::digest`].
    pub digest: u64,
}

impl TopologyMark {
    /// The mark of `topology`.
    #[must_use]
    pub fn of(topology: &Topology) -> TopologyMark {
        TopologyMark { epoch: topology.epoch, digest: topology.digest() }
    }
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// What it is doing.
    pub status: NodeStatus,
    /// Its store has failed: it runs, and can neither store nor answer for what it has. Peers count it as down at once.
    pub has_failed: bool,
    /// Where Redis clients dial it.
    pub client_addr: Endpoint,
    /// Where peers dial it.
    pub peer_addr: Endpoint,
    /// What fails together with it.
    pub rack: Option<String>,
    /// Its weight on the ring, in vnodes.
    pub weight: u32,
    /// The topology document it has. [`Gossip`](super::Gossip) fills it in for its own node.
    pub topology: TopologyMark,
    /// The version of Gyre it runs.
    pub build: String,
    /// How much it has to do, in a unit that all nodes share. Spreads at leisure.
    pub load: u64,
    /// Since when the oldest hint that it keeps for another node has been waiting. That there is one spreads at once,
    /// the time at leisure.
    pub oldest_hint: Option<UnixMillis>,
    /// It keeps no row for another node of before this clock, hinted or not ([`crate::purge::kept`]); `None` if it does not
    /// know yet. Spreads at leisure.
    pub floor: Option<Hlc>,
    /// Whom it has seen down for longer than the grace period ([`crate::purge::absence`]); at most [`VOTES_MAX`].
    pub away: Vec<Vote>,
}

impl About {
    /// The entries, ascending by kind.
    pub(super) fn values(&self) -> [(u8, Vec<u8>); 12] {
        let endpoint = |endpoint: &Endpoint| {
            let mut out = Vec::new();
            endpoint.encode(&mut out);
            out
        };
        let text = |text: &str| {
            let mut out = Vec::new();
            put_text(&mut out, text);
            out
        };
        let (mut rack, mut topology, mut oldest_hint) = (Vec::new(), Vec::new(), Vec::new());
        put_option(&mut rack, self.rack.as_deref(), put_text);
        topology.extend_from_slice(&self.topology.epoch.to_le_bytes());
        topology.extend_from_slice(&self.topology.digest.to_le_bytes());
        put_option(&mut oldest_hint, self.oldest_hint, |out, at| out.extend_from_slice(&at.0.to_le_bytes()));
        let mut floor = Vec::new();
        put_option(&mut floor, self.floor, |out, clock| out.extend_from_slice(&clock.0.to_le_bytes()));
        let mut away = Vec::new();
        put_count(&mut away, self.away.len().min(VOTES_MAX));
        for Vote { member, incarnation } in self.away.iter().take(VOTES_MAX) {
            away.extend_from_slice(&member.0.to_le_bytes());
            away.extend_from_slice(&incarnation.to_le_bytes());
        }
        let status = match self.status {
            NodeStatus::Joining => 0,
            NodeStatus::Active => 1,
            NodeStatus::Stopping => 2,
            NodeStatus::Left => 3,
        };
        [
            (kind::STATUS, vec![status]),
            (kind::CLIENT_ADDR, endpoint(&self.client_addr)),
            (kind::PEER_ADDR, endpoint(&self.peer_addr)),
            (kind::RACK, rack),
            (kind::WEIGHT, self.weight.to_le_bytes().to_vec()),
            (kind::TOPOLOGY, topology),
            (kind::BUILD, text(&self.build)),
            (kind::LOAD, self.load.to_le_bytes().to_vec()),
            (kind::OLDEST_HINT, oldest_hint),
            (kind::FLOOR, floor),
            (kind::HAS_FAILED, vec![u8::from(self.has_failed)]),
            (kind::AWAY, away),
        ]
    }

    /// Puts the entries together again. `None` while any is missing: nothing of the node has arrived yet.
    pub(super) fn of(entries: &Entries) -> Option<About> {
        fn read<'a, T>(
            entries: &'a Entries,
            kind: u8,
            value: impl FnOnce(&mut Reader<'a>) -> Result<T, Malformed>,
        ) -> Option<T> {
            value(&mut Reader::new(entries.value(kind)?)).ok()
        }
        Some(About {
            status: read(entries, kind::STATUS, status)?,
            has_failed: has_failed(entries),
            client_addr: read(entries, kind::CLIENT_ADDR, Endpoint::decode)?,
            peer_addr: read(entries, kind::PEER_ADDR, Endpoint::decode)?,
            rack: read(entries, kind::RACK, rack)?,
            weight: read(entries, kind::WEIGHT, Reader::u32)?,
            topology: read(entries, kind::TOPOLOGY, mark)?,
            build: read(entries, kind::BUILD, label)?,
            load: read(entries, kind::LOAD, Reader::u64)?,
            oldest_hint: read(entries, kind::OLDEST_HINT, oldest_hint)?,
            // Unknown to older versions.
            floor: read(entries, kind::FLOOR, floor).flatten(),
            away: read(entries, kind::AWAY, votes).unwrap_or_default(),
        })
    }
}

/// Whether the node says that it is about to end.
pub(super) fn is_stopping(entries: &Entries) -> bool {
    entries.value(kind::STATUS).is_some_and(|value| value == [2])
}

/// Whether the node says that its store has failed. Nodes of older versions say nothing of it.
pub(super) fn has_failed(entries: &Entries) -> bool {
    entries.value(kind::HAS_FAILED).is_some_and(|value| value == [1])
}

/// Whether a change of such an entry may wait for the next regular publication: it comes often and nobody acts on it.
/// `old` is the value published last.
pub(super) fn may_wait(kind: u8, old: &[u8], new: &[u8]) -> bool {
    // That there is a hint is its first byte.
    matches!(kind, kind::LOAD | kind::FLOOR) || (kind == kind::OLDEST_HINT && old.first() == new.first())
}

/// Whether a change of such an entry is passed on with every message for a while, ahead of its turn.
pub(super) fn is_news(kind: u8) -> bool {
    !matches!(kind, kind::LOAD | kind::OLDEST_HINT | kind::FLOOR | kind::TOPOLOGY)
}

/// Refuses the value of a known kind that is not what it should be.
pub(super) fn check(entry: &Entry) -> Result<(), Malformed> {
    let mut reader = Reader::new(&entry.value);
    match entry.kind {
        kind::STATUS => status(&mut reader).map(|_| ())?,
        kind::CLIENT_ADDR | kind::PEER_ADDR => Endpoint::decode(&mut reader).map(|_| ())?,
        kind::RACK => rack(&mut reader).map(|_| ())?,
        kind::WEIGHT => reader.u32().map(|_| ())?,
        kind::TOPOLOGY => mark(&mut reader).map(|_| ())?,
        kind::BUILD => label(&mut reader).map(|_| ())?,
        kind::LOAD => reader.u64().map(|_| ())?,
        kind::OLDEST_HINT => oldest_hint(&mut reader).map(|_| ())?,
        kind::FLOOR => floor(&mut reader).map(|_| ())?,
        kind::HAS_FAILED => flag(&mut reader)?,
        kind::AWAY => votes(&mut reader).map(|_| ())?,
        _ => return Ok(()),
    }
    reader.end()
}

fn status(reader: &mut Reader<'_>) -> Result<NodeStatus, Malformed> {
    match reader.u8()? {
        0 => Ok(NodeStatus::Joining),
        1 => Ok(NodeStatus::Active),
        2 => Ok(NodeStatus::Stopping),
        3 => Ok(NodeStatus::Left),
        _ => Err(Malformed),
    }
}

fn flag(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    if reader.u8()? <= 1 { Ok(()) } else { Err(Malformed) }
}

fn label(reader: &mut Reader<'_>) -> Result<String, Malformed> {
    reader.text(LABEL_BYTES_MAX)
}

fn rack(reader: &mut Reader<'_>) -> Result<Option<String>, Malformed> {
    reader.option(label)
}

fn mark(reader: &mut Reader<'_>) -> Result<TopologyMark, Malformed> {
    Ok(TopologyMark { epoch: reader.u64()?, digest: reader.u64()? })
}

fn oldest_hint(reader: &mut Reader<'_>) -> Result<Option<UnixMillis>, Malformed> {
    reader.option(|reader| reader.u64().map(UnixMillis))
}

fn votes(reader: &mut Reader<'_>) -> Result<Vec<Vote>, Malformed> {
    reader.list(VOTES_MAX, |reader| Ok(Vote { member: NodeId(reader.u64()?), incarnation: reader.u64()? }))
}

fn floor(reader: &mut Reader<'_>) -> Result<Option<Hlc>, Malformed> {
    reader.option(|reader| reader.u64().map(Hlc))
}
