//! The ring: which nodes hold each slot. One function of membership, the same on every node.
//!
//! Consistent hashing with virtual nodes as in Dynamo (DeCandia et al. 2007, section 4.2) and Cassandra, cut at the
//! slots of Redis Cluster: every vnode is moved clockwise to the end of the slot it falls in, so that each slot has
//! exactly one preference list and routing is one array index.
//!
//! Vnodes that fall into the same slot keep the order of their full 128-bit tokens, then of their node ids. Ordering
//! them by node id alone hands every contested slot to the lower id: measured, the busiest node then is primary of
//! 1.33 times the mean at 50 nodes (1.19 by token), and at 1,000 nodes 406 are no slot's primary at all.
//!
//! Racks: the list takes the first node of every rack first, then fills up clockwise, as Cassandra's
//! `NetworkTopologyStrategy` does. A node without a rack counts as a rack of its own.

use std::collections::{BTreeMap, BTreeSet};

use gyre_storage::key::murmur3_128;
use gyre_storage::{SLOTS, Slot};

use crate::node::NodeId;

/// How many vnodes a node has unless configured otherwise.
pub const VNODES_DEFAULT: u32 = 150;
/// The most vnodes a node may have.
pub const VNODES_MAX: u32 = 4_096;

/// A member as the ring sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingMember {
    /// The node.
    pub id: NodeId,
    /// Its rack: what fails together. `None` stands for a rack of its own.
    pub rack: Option<String>,
    /// Its weight; more than [`VNODES_MAX`] count as that, 0 owns nothing.
    pub vnodes: u32,
}

/// A majority of `n` replicas, by membership, never by who happens to be alive.
#[must_use]
pub const fn quorum(n: usize) -> usize {
    n / 2 + 1
}

/// A run of neighbouring slots, both ends included, with the preference list of its first slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRange<'a> {
    /// The first slot.
    pub first: Slot,
    /// The last slot.
    pub last: Slot,
    /// The preference list of `first`.
    pub replicas: &'a [NodeId],
}

impl SlotRange<'_> {
    /// The primary of the first slot (of all slots, in [`Ring::primary_ranges`]).
    #[must_use]
    pub fn primary(&self) -> Option<NodeId> {
        self.replicas.first().copied()
    }
}

/// What a node holds of the ring, in slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// How many slots have the node as their primary.
    pub primary_slots: u32,
    /// How many slots have the node in their preference list.
    pub replica_slots: u32,
}

impl Ownership {
    /// The primary slots as a share of the ring, 0.0 to 1.0.
    #[must_use]
    pub fn primary_share(&self) -> f64 {
        f64::from(self.primary_slots) / f64::from(SLOTS)
    }

    /// The slots held as a share of the ring, 0.0 to 1.0.
    #[must_use]
    pub fn replica_share(&self) -> f64 {
        f64::from(self.replica_slots) / f64::from(SLOTS)
    }
}

/// A vnode: where it stands, and the index of its node among the sorted members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Vnode {
    /// The unrounded token; its top 14 bits are the last slot that the vnode covers.
    token: u128,
    member: u32,
}

impl Vnode {
    fn slot(self) -> Slot {
        // 14 bits always fit.
        Slot::try_from(self.token >> 114).unwrap_or(SLOTS - 1)
    }
}

/// The preference lists of all slots. Immutable: rebuilt when the membership changes, shared by the workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    /// The members that own something, ascending by id.
    members: Vec<NodeId>,
    /// All vnodes, ascending by token.
    vnodes: Vec<Vnode>,
    /// For each slot, the index of the first vnode clockwise from it.
    starts: Vec<u32>,
    /// For each slot, the number of its preference list. So the processor's cache has room for all of it: slots have few
    /// different lists.
    list_of: Vec<u16>,
    /// The different preference lists, one after the other, each of `list_len` nodes.
    lists: Vec<NodeId>,
    list_len: usize,
}

impl Ring {
    /// Builds the ring of `members`, whatever their order, with up to `replication_factor` replicas of each slot.
    ///
    /// With fewer members than the replication factor the lists name all of them. A member named twice counts once,
    /// as first named. About 20 ms for 50 members on one core in the `dev` profile of this workspace.
    #[must_use]
    pub fn build(members: &[RingMember], replication_factor: usize) -> Ring {
        let mut by_id: BTreeMap<NodeId, &RingMember> = BTreeMap::new();
        for member in members.iter().filter(|member| member.vnodes > 0) {
            by_id.entry(member.id).or_insert(member);
        }
        let ids: Vec<NodeId> = by_id.keys().copied().collect();
        let racks = rack_numbers(by_id.values().copied());
        let vnodes = place(by_id.values().copied());
        let list_len = replication_factor.min(ids.len());
        let (list_of, lists) = (Vec::new(), Vec::new());
        let mut ring = Ring { members: ids, starts: starts(&vnodes), vnodes, list_of, lists, list_len };
        ring.make_lists(&racks);
        ring
    }

    /// A ring without members: every list is empty.
    #[must_use]
    pub fn empty() -> Ring {
        Ring::build(&[], 0)
    }

    /// The preference list of `slot`, primary first: `min(replication factor, members)` distinct nodes.
    /// Empty for a slot that does not exist.
    #[must_use]
    pub fn replicas(&self, slot: Slot) -> &[NodeId] {
        let Some(&list) = self.list_of.get(usize::from(slot)) else { return &[] };
        let start = usize::from(list) * self.list_len;
        self.lists.get(start..start + self.list_len).unwrap_or_default()
    }

    /// The first node of the preference list of `slot`; `None` without members.
    #[must_use]
    pub fn primary(&self, slot: Slot) -> Option<NodeId> {
        self.replicas(slot).first().copied()
    }

    /// Whether `node` is in the preference list of `slot`.
    #[must_use]
    pub fn is_replica(&self, node: NodeId, slot: Slot) -> bool {
        self.replicas(slot).contains(&node)
    }

    /// The nodes that stand in for unreachable replicas of `slot`: all other members, in clockwise order.
    pub fn fallbacks(&self, slot: Slot) -> impl Iterator<Item = NodeId> + '_ {
        let mut seen: BTreeSet<NodeId> = self.replicas(slot).iter().copied().collect();
        let wanted = self.members.len() - seen.len();
        self.walk(slot).filter(move |&(_, node)| seen.insert(node)).map(|(_, node)| node).take(wanted)
    }

    /// The members that own something, ascending by id.
    #[must_use]
    pub fn members(&self) -> &[NodeId] {
        &self.members
    }

    /// Whether `node` owns something.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.members.binary_search(&node).is_ok()
    }

    /// How long each preference list is: `min(replication factor, members)`.
    #[must_use]
    pub fn replicas_per_slot(&self) -> usize {
        self.list_len
    }

    /// The ring cut into the longest runs of slots with one primary, ascending, for CLUSTER SLOTS and NODES.
    #[must_use]
    pub fn primary_ranges(&self) -> Vec<SlotRange<'_>> {
        self.runs(|left, right| left.first() == right.first())
    }

    /// The ring cut into the longest runs of slots whose replicas are the same nodes in whatever order, ascending:
    /// the fewest requests that scan all keys. With at most as many members as replicas it is one run.
    #[must_use]
    pub fn replica_set_ranges(&self) -> Vec<SlotRange<'_>> {
        self.runs(|left, right| left.iter().all(|node| right.contains(node)))
    }

    /// How much of the ring `node` holds.
    #[must_use]
    pub fn ownership(&self, node: NodeId) -> Ownership {
        let mut owned = Ownership::default();
        for slot in 0..SLOTS {
            owned.primary_slots += u32::from(self.primary(slot) == Some(node));
            owned.replica_slots += u32::from(self.is_replica(node, slot));
        }
        owned
    }

    fn runs(&self, alike: impl Fn(&[NodeId], &[NodeId]) -> bool) -> Vec<SlotRange<'_>> {
        let mut runs: Vec<SlotRange<'_>> = Vec::new();
        for slot in 0..SLOTS {
            let replicas = self.replicas(slot);
            match runs.last_mut() {
                Some(run) if alike(run.replicas, replicas) => run.last = slot,
                _ if replicas.is_empty() => {}
                _ => runs.push(SlotRange { first: slot, last: slot, replicas }),
            }
        }
        runs
    }

    /// The vnodes clockwise from `slot`, once around: member index and node. A node appears once per vnode.
    fn walk(&self, slot: Slot) -> impl Iterator<Item = (usize, NodeId)> + '_ {
        let start = self.starts.get(usize::from(slot)).map_or(0, |&start| start as usize);
        let (before, after) = self.vnodes.split_at_checked(start).unwrap_or((&[], &self.vnodes));
        after.iter().chain(before).filter_map(|vnode| {
            let member = vnode.member as usize;
            self.members.get(member).map(|&node| (member, node))
        })
    }

    /// Makes the preference lists of all slots, each different one once.
    fn make_lists(&mut self, racks: &[u32]) {
        let racks_total = racks.iter().collect::<BTreeSet<_>>().len();
        let mut numbers: BTreeMap<Vec<NodeId>, u16> = BTreeMap::new();
        for slot in 0..SLOTS {
            let list = self.list(slot, racks, racks_total.min(self.list_len));
            // There are no more lists than slots, whose numbers are of 14 bits.
            let next = u16::try_from(numbers.len()).unwrap_or(u16::MAX);
            let number = *numbers.entry(list).or_insert_with_key(|list| {
                self.lists.extend(list);
                next
            });
            self.list_of.push(number);
        }
    }

    /// The preference list of `slot`: the first nodes clockwise of `racks_wanted` distinct racks, then the nodes passed
    /// over on the way or found after it, in clockwise order.
    fn list(&self, slot: Slot, racks: &[u32], racks_wanted: usize) -> Vec<NodeId> {
        let (mut chosen, mut racks_seen, mut passed) = (Vec::new(), Vec::new(), Vec::new());
        for (member, node) in self.walk(slot) {
            if chosen.contains(&node) || passed.contains(&node) {
                continue;
            }
            match racks.get(member) {
                Some(rack) if !racks_seen.contains(rack) && racks_seen.len() < racks_wanted => {
                    racks_seen.push(*rack);
                    chosen.push(node);
                }
                _ => passed.push(node),
            }
            let racks_left = racks_wanted - racks_seen.len();
            if racks_left == 0 && chosen.len() + passed.len() >= self.list_len {
                break;
            }
        }
        chosen.extend(passed);
        chosen.truncate(self.list_len);
        chosen
    }
}

/// The rack of each member as a number; members without a rack get one each.
fn rack_numbers<'a>(members: impl Iterator<Item = &'a RingMember>) -> Vec<u32> {
    let mut named: BTreeMap<&str, u32> = BTreeMap::new();
    let mut next = 0u32;
    let mut number = |rack: Option<&'a str>| {
        let fresh = next;
        let assigned = rack.map_or(fresh, |name| *named.entry(name).or_insert(fresh));
        next += u32::from(assigned == fresh);
        assigned
    };
    members.map(|member| number(member.rack.as_deref())).collect()
}

/// The vnodes of `members`, ascending by token: `murmur3_x64_128(node id ‖ i)`, both big-endian (u64, u32).
fn place<'a>(members: impl Iterator<Item = &'a RingMember>) -> Vec<Vnode> {
    let mut vnodes = Vec::new();
    for (member, index) in members.zip(0u32..) {
        for i in 0..member.vnodes.min(VNODES_MAX) {
            let mut seed = [0u8; 12];
            let (id, number) = seed.split_at_mut(8);
            id.copy_from_slice(&member.id.0.to_be_bytes());
            number.copy_from_slice(&i.to_be_bytes());
            vnodes.push(Vnode { token: murmur3_128(&seed), member: index });
        }
    }
    vnodes.sort_unstable();
    vnodes
}

/// For each slot the index of the first vnode at or after it, clockwise.
fn starts(vnodes: &[Vnode]) -> Vec<u32> {
    let mut starts = Vec::with_capacity(usize::from(SLOTS));
    let mut numbered = (0u32..).zip(vnodes).peekable();
    for slot in 0..SLOTS {
        while numbered.next_if(|(_, vnode)| vnode.slot() < slot).is_some() {}
        starts.push(numbered.peek().map_or(0, |&(index, _)| index));
    }
    starts
}

#[cfg(test)]
mod tests;
