//! The cluster as Redis Cluster clients are shown it: every slot at one node that is alive.
//!
//! Any node coordinates any key, so what is shown decides only how many hops a request takes. A slot is shown at the
//! first live node of its preference list, then at the first live node clockwise, so that each slot appears exactly
//! once (Jedis needs that) and never at a node that is down.

use gyre_cluster::node::NodeId;
use gyre_cluster::ring::{Ring, quorum};
use gyre_storage::{SLOTS, Slot};

/// A member as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The node.
    pub id: NodeId,
    /// The host that clients dial; never empty.
    pub host: String,
    /// The client port.
    pub port: u16,
    /// The peer port.
    pub peer_port: u16,
    /// Whether this node reaches it.
    pub is_up: bool,
    /// The slots shown at it, as runs with both ends included, ascending.
    pub ranges: Vec<(Slot, Slot)>,
}

/// A run of slots shown at one node, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first slot.
    pub first: Slot,
    /// The last slot.
    pub last: Slot,
    /// The node's index in [`View::nodes`].
    pub node: usize,
}

/// How many slots are how well served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Slots that have a preference list.
    pub assigned: u32,
    /// Slots with a live majority of their list.
    pub ok: u32,
    /// Slots with some live replica, but no majority: served at ONE only.
    pub minority: u32,
    /// Slots without any live replica.
    pub lost: u32,
}

/// The cluster at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The members, this node among them.
    pub nodes: Vec<Shown>,
    /// This node's id.
    pub myself: NodeId,
    /// All slots, ascending; empty before the cluster has formed.
    pub ranges: Vec<Range>,
    /// How well the slots are served.
    pub health: Health,
    /// The epoch of the topology; 0 before there is one.
    pub epoch: u64,
}

impl View {
    /// The view of `ring` when `nodes` are its members, their `ranges` still empty.
    pub fn build(mut nodes: Vec<Shown>, myself: NodeId, ring: &Ring, epoch: u64) -> View {
        nodes.sort_by_key(|node| node.id);
        let mut ranges: Vec<Range> = Vec::new();
        let mut health = Health::default();
        for slot in 0..SLOTS {
            health.count(ring.replicas(slot), &nodes);
            let Some(owner) = owner(&nodes, ring, slot) else { continue };
            match ranges.last_mut() {
                Some(range) if range.node == owner && range.last + 1 == slot => range.last = slot,
                _ => ranges.push(Range { first: slot, last: slot, node: owner }),
            }
        }
        for range in &ranges {
            if let Some(node) = nodes.get_mut(range.node) {
                node.ranges.push((range.first, range.last));
            }
        }
        View { nodes, myself, ranges, health, epoch }
    }

    /// The member of that id.
    pub fn node(&self, id: NodeId) -> Option<&Shown> {
        position(&self.nodes, id).and_then(|index| self.nodes.get(index))
    }

    /// Whether every slot has a live replica.
    pub fn is_ok(&self) -> bool {
        self.health.assigned == u32::from(SLOTS) && self.health.lost == 0
    }
}

impl Health {
    fn count(&mut self, replicas: &[NodeId], nodes: &[Shown]) {
        if replicas.is_empty() {
            return;
        }
        self.assigned += 1;
        match replicas.iter().filter(|id| is_up(nodes, **id)).count() {
            0 => self.lost += 1,
            live if live >= quorum(replicas.len()) => self.ok += 1,
            _ => self.minority += 1,
        }
    }
}

/// Where `slot` is shown, as an index into `nodes`, which are sorted by id.
fn owner(nodes: &[Shown], ring: &Ring, slot: Slot) -> Option<usize> {
    let replica = ring.replicas(slot).iter().copied().find(|id| is_up(nodes, *id));
    position(nodes, replica.or_else(|| ring.fallbacks(slot).find(|id| is_up(nodes, *id)))?)
}

fn is_up(nodes: &[Shown], id: NodeId) -> bool {
    position(nodes, id).and_then(|index| nodes.get(index)).is_some_and(|node| node.is_up)
}

fn position(nodes: &[Shown], id: NodeId) -> Option<usize> {
    nodes.binary_search_by_key(&id, |node| node.id).ok()
}

#[cfg(test)]
pub(super) mod tests {
    //! Tests, and the views that other tests start from.

    use gyre_cluster::ring::RingMember;

    use super::*;

    /// A view of nodes 1 to `count`, three replicas, those in `down` dead; this node is node 1.
    pub(in super::super) fn view(count: u64, down: &[u64]) -> (View, Ring) {
        let ids: Vec<NodeId> = (1..=count).map(NodeId).collect();
        let members: Vec<RingMember> =
            ids.iter().map(|&id| RingMember { id, rack: None, vnodes: 150 }).collect();
        let ring = Ring::build(&members, 3);
        let shown = ids.iter().map(|&id| Shown {
            id,
            host: "127.0.0.1".into(),
            port: 7000 + u16::try_from(id.0).unwrap(),
            peer_port: 17000 + u16::try_from(id.0).unwrap(),
            is_up: !down.contains(&id.0),
            ranges: Vec::new(),
        });
        (View::build(shown.collect(), NodeId(1), &ring, 4), ring)
    }

    fn covered(view: &View) -> Vec<Slot> {
        view.ranges.iter().flat_map(|range| range.first..=range.last).collect()
    }

    #[test]
    fn every_slot_is_shown_once_at_its_primary_while_all_are_up() {
        let (view, ring) = view(6, &[]);
        assert_eq!(covered(&view), (0..SLOTS).collect::<Vec<_>>());
        for range in &view.ranges {
            let id = view.nodes[range.node].id;
            assert!((range.first..=range.last).all(|slot| ring.primary(slot) == Some(id)));
        }
        assert!(view.nodes.iter().all(|node| !node.ranges.is_empty()));
        assert!(view.is_ok());
    }

    #[test]
    fn slots_of_a_dead_primary_are_shown_at_the_first_live_replica() {
        let (view, ring) = view(6, &[2]);
        assert_eq!(covered(&view), (0..SLOTS).collect::<Vec<_>>());
        for range in &view.ranges {
            let id = view.nodes[range.node].id;
            for slot in range.first..=range.last {
                let first_live = ring.replicas(slot).iter().find(|id| id.0 != 2);
                assert_eq!(first_live, Some(&id));
            }
        }
        assert!(view.node(NodeId(2)).unwrap().ranges.is_empty());
        assert!(view.is_ok());
        assert_eq!(view.health.ok, u32::from(SLOTS));
    }

    #[test]
    fn neighbouring_slots_of_one_node_are_one_range() {
        let (view, _) = view(3, &[2, 3]);
        assert_eq!(view.ranges, [Range { first: 0, last: SLOTS - 1, node: 0 }]);
        assert_eq!(view.health, Health { assigned: 16384, ok: 0, minority: 16384, lost: 0 });
        assert!(view.is_ok(), "every key can still be served at ONE");
    }

    #[test]
    fn a_slot_without_live_replicas_is_shown_elsewhere_and_the_state_is_fail() {
        let (view, ring) = view(6, &[2, 3, 4]);
        assert_eq!(covered(&view), (0..SLOTS).collect::<Vec<_>>());
        let lost =
            (0..SLOTS).filter(|&slot| ring.replicas(slot).iter().all(|id| (2..=4).contains(&id.0))).count();
        assert!(lost > 0);
        assert_eq!(usize::try_from(view.health.lost), Ok(lost));
        assert!(!view.is_ok());
    }

    #[test]
    fn before_the_cluster_has_formed_no_slot_is_shown() {
        let (formed, _) = view(1, &[]);
        let view = View::build(formed.nodes, NodeId(1), &Ring::empty(), 0);
        assert!(view.ranges.is_empty() && !view.is_ok());
    }
}
