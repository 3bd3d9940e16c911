//! In which order two nodes compare the slots that they share: another one than the pairs which have a node in common.
//!
//! A node that has missed much misses it at every other replica, and compares with all of them at the same time. If they all
//! went through the ring alike, each would send it the same rows. So the ring is cut into blocks, and the members meet each
//! other in them as in a round-robin tournament: in each turn a node shares the slots of a block with one other node. By the
//! time it comes to that block with the next one, it has the rows. Pairs that begin later or go slower do meet in a block;
//! within one [each goes its own way](super::exchange).

use gyre_storage::{SLOTS, Slot};

use super::slots::SlotSet;
use crate::node::NodeId;

/// Slots of a block.
const BLOCK: Slot = 2_048;
pub(super) const BLOCK_SLOTS: usize = BLOCK as usize;

/// The order of a pair of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turns {
    /// Which turn of block 0 is theirs.
    first: usize,
    /// How many turns there are.
    count: usize,
}

impl Turns {
    /// The turns of `node` and `peer` among `members`, whose order is the same everywhere.
    pub(super) fn new(node: NodeId, peer: NodeId, members: &[NodeId]) -> Turns {
        let place = |id| members.iter().position(|&member| member == id).unwrap_or_default();
        Turns { first: place(node) + place(peer), count: members.len().max(1) }
    }

    /// Takes the next slots out of `left`: at most `slots_max`, of one block.
    pub(super) fn take(self, left: &mut SlotSet, slots_max: usize) -> SlotSet {
        let mut taken = SlotSet::default();
        for block in self.blocks() {
            let slots = (block * BLOCK..(block + 1) * BLOCK).filter(|&slot| left.contains(slot));
            slots.take(slots_max).for_each(|slot| taken.insert(slot));
            if !taken.is_empty() {
                break;
            }
        }
        left.subtract(&taken);
        taken
    }

    /// All blocks in the order of this pair.
    fn blocks(self) -> impl Iterator<Item = Slot> {
        let of_turn = move |turn| (0..SLOTS / BLOCK).filter(move |&block| self.turn(block) == turn);
        (0..self.count).flat_map(of_turn)
    }

    /// The turn in which this pair compares a block.
    fn turn(self, block: Slot) -> usize {
        (usize::from(block) + self.first) % self.count
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn turns(nodes: u64, node: u64, peer: u64) -> Turns {
        Turns::new(NodeId(node), NodeId(peer), &(0..nodes).map(NodeId).collect::<Vec<_>>())
    }

    #[test]
    fn every_block_has_its_turn_and_both_nodes_agree_on_it() {
        for nodes in [1, 2, 3, 4, 7, 60] {
            let blocks: Vec<Slot> = turns(nodes, 0, nodes - 1).blocks().collect();
            assert_eq!(blocks.len(), usize::from(SLOTS / BLOCK));
            assert_eq!(blocks.iter().collect::<BTreeSet<_>>().len(), blocks.len());
            assert_eq!(turns(nodes, 0, nodes - 1), turns(nodes, nodes - 1, 0));
        }
    }

    #[test]
    fn no_node_is_in_one_block_with_two_others_at_a_time() {
        for nodes in 3..=16u64 {
            for block in 0..SLOTS / BLOCK {
                for node in 0..nodes {
                    let others = (0..nodes).filter(|&other| other != node);
                    let met: BTreeSet<usize> =
                        others.map(|other| turns(nodes, node, other).turn(block)).collect();
                    assert_eq!(met.len() as u64, nodes - 1, "node {node} of {nodes} in block {block}");
                }
            }
        }
    }

    #[test]
    fn slots_are_taken_in_that_order_and_once() {
        let (turns, mut left) = (turns(3, 0, 1), SlotSet::all());
        left.remove(2 * BLOCK);
        let first = turns.take(&mut left, 3);
        // Blocks 2, 5, 8 come first: (2 + 0 + 1) mod 3 is 0.
        assert_eq!(first.iter().collect::<Vec<_>>(), [1, 2, 3].map(|slot| 2 * BLOCK + slot));
        assert_eq!(left.len(), usize::from(SLOTS) - 4);
        let block = turns.take(&mut left, usize::MAX);
        assert_eq!(block.len(), usize::from(BLOCK) - 4, "a portion ends with its block");
        while !left.is_empty() {
            assert!(!turns.take(&mut left, 1_000).is_empty());
        }
        assert!(turns.take(&mut left, 1).is_empty());
    }
}
