//! The nodes an operation works with.

use crate::node::NodeId;

/// The most replicas a key may have: the bound of `replication-factor`.
pub const REPLICAS_MAX: usize = 7;

/// The replicas of one key, in order of its preference list, as they were when the operation began. A later change of
/// the ring does not touch operations in flight. (Stand-ins and the new owners of a transition will be further
/// entries with a role of their own.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Replicas {
    nodes: [NodeId; REPLICAS_MAX],
    len: u8,
}

impl Replicas {
    /// A copy of a preference list; what exceeds [`REPLICAS_MAX`] is left out.
    pub(crate) fn of(list: &[NodeId]) -> Replicas {
        let mut replicas = Replicas { nodes: [NodeId(0); REPLICAS_MAX], len: 0 };
        for (slot, node) in replicas.nodes.iter_mut().zip(list) {
            *slot = *node;
            replicas.len += 1;
        }
        replicas
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// All of them with their index.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, NodeId)> + use<> {
        let (nodes, len) = (self.nodes, self.len());
        nodes.into_iter().take(len).enumerate()
    }

    /// Where `node` stands.
    pub(crate) fn index_of(&self, node: NodeId) -> Option<usize> {
        self.iter().find(|&(_, replica)| replica == node).map(|(index, _)| index)
    }
}
