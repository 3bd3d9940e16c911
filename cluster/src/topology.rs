//! The topology: who belongs to the cluster, as a document that every node keeps and that merges.
//!
//! Merging takes the greatest entry and [lapse](Lapse) of each member and the greatest horizon of each database, so it
//! commutes, associates and is idempotent: however documents travel, nodes that have seen the same ones agree.
//!
//! ```text
//! format: u8 = 1, or 2 if there are lapses | cluster id: u128 | cluster name: text | replication factor: u8 | epoch: u64
//! members: u16 × { id, incarnation, revision: u64 | state: u8 | client address | peer address
//!                  | rack: option of text | vnodes: u32 | build: text }                    ascending by id
//! horizons: u16 × { database: u8 | hlc, node: u64 }                                        ascending by database
//! lapses: u16 × { id, incarnation, returned: u64 }                             in format 2 only, ascending by id
//! ```
//! Integers are little-endian; a text is its length (u16) and its bytes; an address a text and a port (u16); an
//! option a byte 0, or 1 and the item.

mod databases;
mod lapse;
mod member;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use gyre_storage::key::murmur3_128;
use gyre_storage::{Hlc, Version};

pub use self::databases::Databases;
pub use self::lapse::Lapse;
pub use self::member::{Endpoint, HOST_BYTES_MAX, LABEL_BYTES_MAX, Member, MemberState};
use crate::node::NodeId;
use crate::ring::Ring;
use crate::wire::{Malformed, Reader, put_count, put_text};

/// The most members of a cluster, those that left included.
pub const MEMBERS_MAX: usize = 10_000;
/// The most bytes of a cluster's name.
pub const CLUSTER_NAME_BYTES_MAX: usize = 64;
/// The greatest replication factor.
pub const REPLICATION_FACTOR_MAX: u8 = 15;

const FORMAT: u8 = 1;
/// The same with lapses behind.
const FORMAT_WITH_LAPSES: u8 = 2;

/// What a cluster is and who belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Random, chosen when the cluster formed; never zero. Keeps two clusters from merging by accident.
    pub cluster_id: u128,
    /// The configured name, for people.
    pub cluster_name: String,
    /// On how many nodes each key is kept, 1 to [`REPLICATION_FACTOR_MAX`].
    pub replication_factor: u8,
    /// Counts the changes of the ring.
    pub epoch: u64,
    /// Everyone who belongs or belonged to the cluster.
    pub members: BTreeMap<NodeId, Member>,
    /// For each flushed database the version at and below which its rows are deleted.
    pub horizons: BTreeMap<u8, Version>,
    /// The members whose data has lapsed at some time.
    pub lapses: BTreeMap<NodeId, Lapse>,
}

/// What a merge changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Some member's entry: an address, an incarnation, a state.
    pub members: bool,
    /// What the ring is built from. Implies `members`.
    pub ring: bool,
    /// A deletion horizon.
    pub horizons: bool,
    /// The epoch.
    pub epoch: bool,
    /// A lapse.
    pub lapses: bool,
}

impl Changed {
    /// Whether anything changed: the document is then to be persisted and passed on.
    #[must_use]
    pub const fn any(self) -> bool {
        self.members || self.ring || self.horizons || self.epoch || self.lapses
    }
}

/// Why a document or a member is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// The other node belongs to another cluster.
    #[error("the peer belongs to cluster {theirs:032x}, this node to {ours:032x}")]
    OtherCluster {
        /// This node's cluster id.
        ours: u128,
        /// The other's.
        theirs: u128,
    },
    /// The same cluster id under another name.
    #[error("the peer's cluster is named {theirs:?}, ours {ours:?}")]
    OtherName {
        /// This node's cluster name.
        ours: String,
        /// The other's.
        theirs: String,
    },
    /// The nodes were configured with different replication factors.
    #[error("the peer's replication factor is {theirs}, ours {ours}")]
    OtherReplicationFactor {
        /// This node's replication factor.
        ours: u8,
        /// The other's.
        theirs: u8,
    },
    /// The cluster would have more than [`MEMBERS_MAX`] members.
    #[error("a cluster has at most {MEMBERS_MAX} members")]
    TooManyMembers,
    /// A node asks for the seat of a member that left.
    #[error("node {id} was a member and has left; a node that comes back needs a new id")]
    IdTaken {
        /// The id.
        id: NodeId,
    },
    /// The node is no member.
    #[error("node {id} is not a member")]
    NotAMember {
        /// The id.
        id: NodeId,
    },
    /// The member's entry has parts out of bounds.
    #[error("node {id} describes itself with values out of bounds")]
    InvalidMember {
        /// The id.
        id: NodeId,
    },
    /// The bytes are no topology.
    #[error("malformed topology")]
    Malformed,
    /// The bytes are a topology of a format that this version of Gyre does not know.
    #[error("topology format {found} is not supported, only {FORMAT} and {FORMAT_WITH_LAPSES}")]
    UnsupportedFormat {
        /// The format found.
        found: u8,
    },
}

impl From<Malformed> for TopologyError {
    fn from(_: Malformed) -> TopologyError {
        TopologyError::Malformed
    }
}

impl Topology {
    /// The document of a cluster that forms with `members`, all of them Active.
    #[must_use]
    pub fn form(
        cluster_id: u128,
        cluster_name: &str,
        replication_factor: u8,
        members: impl IntoIterator<Item = Member>,
    ) -> Topology {
        let members = members
            .into_iter()
            .map(|member| (member.id, Member { state: MemberState::Active, ..member }))
            .collect();
        let cluster_name = cluster_name.to_owned();
        Topology {
            cluster_id,
            cluster_name,
            replication_factor,
            epoch: 1,
            members,
            horizons: BTreeMap::new(),
            lapses: BTreeMap::new(),
        }
    }

    /// Takes over what `other` knows better: of each member the greatest (incarnation, revision), of each database
    /// the greatest horizon. Commutes, associates, is idempotent.
    ///
    /// # Errors
    /// If `other` is of another cluster, name or replication factor, or there would be too many members. Nothing
    /// changes then.
    pub fn merge(&mut self, other: &Topology) -> Result<Changed, TopologyError> {
        self.check_same_cluster(other)?;
        let added = other.members.keys().filter(|id| !self.members.contains_key(id)).count();
        if self.members.len() + added > MEMBERS_MAX {
            return Err(TopologyError::TooManyMembers);
        }
        let mut changed = Changed { epoch: other.epoch > self.epoch, ..Changed::default() };
        self.epoch = self.epoch.max(other.epoch);
        for member in other.members.values() {
            self.put(member, &mut changed);
        }
        for (&db, &horizon) in &other.horizons {
            changed.horizons |= self.raise_horizon(db, horizon);
        }
        for (&id, &lapse) in &other.lapses {
            changed.lapses |= self.put_lapse(id, lapse);
        }
        Ok(changed)
    }

    /// Admits a node that holds no data of this cluster: as Joining; or, if it is an Active member that has lost its
    /// disk, back to its seat, of which it then is a later incarnation. Asking twice changes nothing.
    ///
    /// Who asks for an Active seat must ask for a later incarnation than the seat's; otherwise nothing changes, and the
    /// document tells it which one that is. So whatever the lost disk had written under the seat's name, nothing that is
    /// made after it has the same incarnation.
    ///
    /// # Errors
    /// [`TopologyError::IdTaken`] if a member of its id has left. [`TopologyError::TooManyMembers`],
    /// [`TopologyError::InvalidMember`].
    pub fn admit(&mut self, member: &Member) -> Result<Changed, TopologyError> {
        if !member.is_valid() {
            return Err(TopologyError::InvalidMember { id: member.id });
        }
        let mut admitted = Member { state: MemberState::Joining, ..member.clone() };
        match self.members.get(&member.id) {
            Some(known) if known.state == MemberState::Left => {
                return Err(TopologyError::IdTaken { id: member.id });
            }
            Some(known) if known.state == MemberState::Active => {
                if member.incarnation <= known.incarnation {
                    return Ok(Changed::default());
                }
                admitted = Member {
                    state: MemberState::Active,
                    rack: known.rack.clone(),
                    vnodes: known.vnodes,
                    ..admitted
                };
            }
            None if self.members.len() >= MEMBERS_MAX => return Err(TopologyError::TooManyMembers),
            _ => {}
        }
        let mut changed = Changed::default();
        self.put(&admitted, &mut changed);
        // It holds nothing.
        changed.lapses = self.return_empty(admitted.id, admitted.incarnation);
        Ok(changed)
    }

    /// A member's process has started again: takes over its incarnation, addresses and version from `current`. State
    /// stays; rack and vnodes stay too once the member is Active, since changing them moves data.
    ///
    /// # Errors
    /// [`TopologyError::NotAMember`], [`TopologyError::InvalidMember`].
    pub fn renew(&mut self, current: &Member) -> Result<Changed, TopologyError> {
        if !current.is_valid() {
            return Err(TopologyError::InvalidMember { id: current.id });
        }
        let Some(known) = self.members.get(&current.id) else {
            return Err(TopologyError::NotAMember { id: current.id });
        };
        let mut renewed = Member { state: known.state, ..current.clone() };
        if known.state != MemberState::Joining {
            (renewed.rack, renewed.vnodes) = (known.rack.clone(), known.vnodes);
        }
        renewed.incarnation = renewed.incarnation.max(known.incarnation);
        let is_same_process = renewed.incarnation == known.incarnation;
        renewed.revision = if is_same_process { known.revision } else { 0 };
        let mut changed = Changed::default();
        if is_same_process && renewed != *known {
            renewed.revision += 1;
        }
        self.put(&renewed, &mut changed);
        Ok(changed)
    }

    /// Moves the deletion horizon of database `db` forward to `horizon`. Answers whether it was behind.
    pub fn raise_horizon(&mut self, db: u8, horizon: Version) -> bool {
        let is_behind = self.horizon(db) < horizon;
        if is_behind {
            self.horizons.insert(db, horizon);
        }
        is_behind
    }

    /// Moves the deletion horizon of each of `databases` forward to `horizon`.
    pub fn raise_horizons(&mut self, databases: Databases, horizon: Version) {
        for db in databases.iter() {
            self.raise_horizon(db, horizon);
        }
    }

    /// The deletion horizon of database `db`: [`Version::ZERO`] if it was never flushed.
    #[must_use]
    pub fn horizon(&self, db: u8) -> Version {
        self.horizons.get(&db).copied().unwrap_or_default()
    }

    /// The deletion horizons of all databases up to the last one that was flushed, by database.
    #[must_use]
    pub fn horizons_by_database(&self) -> Vec<Version> {
        let last = self.horizons.keys().next_back().copied();
        last.map_or_else(Vec::new, |last| (0..=last).map(|db| self.horizon(db)).collect())
    }

    /// The ring of the Active members.
    #[must_use]
    pub fn ring(&self) -> Ring {
        let active = self.members.values().filter(|member| member.state == MemberState::Active);
        let active: Vec<_> = active.map(Member::ring_member).collect();
        Ring::build(&active, usize::from(self.replication_factor))
    }

    /// A hash of the whole document: equal on nodes that agree.
    #[must_use]
    pub fn digest(&self) -> u64 {
        // The low half of the hash.
        u64::try_from(murmur3_128(&self.encode()) & u128::from(u64::MAX)).unwrap_or_default()
    }

    /// The document as bytes, for disk and peers. Equal documents have equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Versions that know no lapses can read a document without any.
        let mut out = vec![if self.lapses.is_empty() { FORMAT } else { FORMAT_WITH_LAPSES }];
        out.extend_from_slice(&self.cluster_id.to_le_bytes());
        put_text(&mut out, &self.cluster_name);
        out.push(self.replication_factor);
        out.extend_from_slice(&self.epoch.to_le_bytes());
        put_count(&mut out, self.members.len());
        self.members.values().for_each(|member| member.encode(&mut out));
        put_count(&mut out, self.horizons.len());
        for (db, horizon) in &self.horizons {
            out.push(*db);
            out.extend_from_slice(&horizon.hlc.0.to_le_bytes());
            out.extend_from_slice(&horizon.node.to_le_bytes());
        }
        if !self.lapses.is_empty() {
            put_count(&mut out, self.lapses.len());
            self.lapses.iter().for_each(|(&id, lapse)| lapse.encode(id, &mut out));
        }
        out
    }

    /// Reads a document, all of `bytes`.
    ///
    /// # Errors
    /// [`TopologyError::UnsupportedFormat`], [`TopologyError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Topology, TopologyError> {
        let mut reader = Reader::new(bytes);
        let found = reader.u8()?;
        if ![FORMAT, FORMAT_WITH_LAPSES].contains(&found) {
            return Err(TopologyError::UnsupportedFormat { found });
        }
        let (cluster_id, cluster_name) = (reader.u128()?, reader.text(CLUSTER_NAME_BYTES_MAX)?);
        let (replication_factor, epoch) = (reader.u8()?, reader.u64()?);
        let members = reader.list(MEMBERS_MAX, Member::decode)?;
        let horizons = reader.list(256, |reader| {
            Ok((reader.u8()?, Version { hlc: Hlc(reader.u64()?), node: reader.u64()? }))
        })?;
        let has_lapses = found == FORMAT_WITH_LAPSES;
        let lapses = if has_lapses { reader.list(MEMBERS_MAX, Lapse::decode)? } else { Vec::new() };
        reader.end()?;
        let is_sound = cluster_id != 0
            && (1..=REPLICATION_FACTOR_MAX).contains(&replication_factor)
            && members.is_sorted_by(|a, b| a.id < b.id)
            && horizons.is_sorted_by(|a, b| a.0 < b.0)
            && horizons.iter().all(|&(_, horizon)| horizon > Version::ZERO)
            && has_lapses != lapses.is_empty()
            && lapses.is_sorted_by(|a, b| a.0 < b.0)
            && lapses.iter().all(|&(_, lapse)| lapse.is_sound());
        if !is_sound {
            return Err(TopologyError::Malformed);
        }
        let members = members.into_iter().map(|member| (member.id, member)).collect();
        let horizons = horizons.into_iter().collect();
        let lapses = lapses.into_iter().collect();
        Ok(Topology { cluster_id, cluster_name, replication_factor, epoch, members, horizons, lapses })
    }

    fn check_same_cluster(&self, other: &Topology) -> Result<(), TopologyError> {
        if self.cluster_id != other.cluster_id {
            return Err(TopologyError::OtherCluster { ours: self.cluster_id, theirs: other.cluster_id });
        }
        if self.cluster_name != other.cluster_name {
            let (ours, theirs) = (self.cluster_name.clone(), other.cluster_name.clone());
            return Err(TopologyError::OtherName { ours, theirs });
        }
        if self.replication_factor != other.replication_factor {
            let (ours, theirs) = (self.replication_factor, other.replication_factor);
            return Err(TopologyError::OtherReplicationFactor { ours, theirs });
        }
        Ok(())
    }

    /// Keeps the greater of `member` and what is known of it.
    fn put(&mut self, member: &Member, changed: &mut Changed) {
        match self.members.entry(member.id) {
            Entry::Vacant(vacant) => {
                changed.members = true;
                changed.ring |= member.state == MemberState::Active;
                vacant.insert(member.clone());
            }
            Entry::Occupied(mut known) if member > known.get() => {
                changed.members = true;
                changed.ring |= member.places_differently(known.get());
                known.insert(member.clone());
            }
            Entry::Occupied(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
