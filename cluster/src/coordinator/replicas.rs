//! The nodes an operation works with: whose place each is, and who is contacted there.

use crate::level::bit;
use crate::message::HintTargets;
use crate::node::NodeId;

/// The most replicas a key may have: the bound of `replication-factor`.
pub const REPLICAS_MAX: usize = 7;

/// The places of one key's preference list, as they were when the operation began; a later change of the ring, or of
/// who is alive, does not touch operations in flight.
///
/// A place belongs to its *owner*, a replica. Who is asked there is its *contact*: the owner, or a stand-in while the
/// owner is down. Everything that counts answers knows places by their index and nodes as contacts. While all are
/// alive, owners and contacts are the same and the two masks are zero. (The new owners of a transition will be further
/// entries with a role of their own.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Replicas {
    contacts: [NodeId; REPLICAS_MAX],
    owners: [NodeId; REPLICAS_MAX],
    len: u8,
    /// Places whose owner gets no row from this operation.
    absent: u8,
    /// Places whose contact stands in for the owner.
    stand_ins: u8,
}

impl Replicas {
    /// A copy of a preference list, every owner its own contact; what exceeds [`REPLICAS_MAX`] is left out.
    pub(crate) fn of(list: &[NodeId]) -> Replicas {
        let mut contacts = [NodeId(0); REPLICAS_MAX];
        let mut len = 0;
        for (place, node) in contacts.iter_mut().zip(list) {
            *place = *node;
            len += 1;
        }
        Replicas { contacts, owners: contacts, len, absent: 0, stand_ins: 0 }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// All contacts with their index.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, NodeId)> + use<> {
        let (nodes, len) = (self.contacts, self.len());
        nodes.into_iter().take(len).enumerate()
    }

    /// The contacts that are alive as far as known, in the order in which they should lead: replicas first, then
    /// stand-ins, who may know nothing of the key.
    pub(crate) fn leaders(&self) -> impl Iterator<Item = NodeId> + use<> {
        let places = *self;
        let of_role = move |stands_in| {
            places.iter().filter(move |&(index, _)| {
                places.is_reachable(index) && places.is_stand_in(index) == stands_in
            })
        };
        of_role(false).chain(of_role(true)).map(|(_, node)| node)
    }

    /// At which place `node` is the contact.
    pub(crate) fn index_of(&self, node: NodeId) -> Option<usize> {
        self.iter().find(|&(_, replica)| replica == node).map(|(index, _)| index)
    }

    /// Whose place `index` is.
    pub(crate) fn owner(&self, index: usize) -> Option<NodeId> {
        self.owners.get(index).copied().filter(|_| index < self.len())
    }

    /// Whether some owner gets no row from this operation.
    pub(crate) fn has_absent(&self) -> bool {
        self.absent != 0
    }

    /// Whether the owner of place `index` gets no row from this operation.
    pub(crate) fn is_absent(&self, index: usize) -> bool {
        self.absent & bit(index) != 0
    }

    /// Whether some contact stands in.
    pub(crate) fn has_stand_ins(&self) -> bool {
        self.stand_ins != 0
    }

    /// Whether the contact at place `index` stands in for its owner.
    pub(crate) fn is_stand_in(&self, index: usize) -> bool {
        self.stand_ins & bit(index) != 0
    }

    /// Whether place `index` has a contact that is alive.
    pub(crate) fn is_reachable(&self, index: usize) -> bool {
        index < self.len() && (!self.is_absent(index) || self.is_stand_in(index))
    }

    /// How many places have a contact that is alive.
    pub(crate) fn reachable(&self) -> usize {
        self.len() - (self.absent & !self.stand_ins).count_ones() as usize
    }

    /// The owner of place `index` is down.
    pub(crate) fn mark_absent(&mut self, index: usize) {
        self.absent |= bit(index);
    }

    /// `node`, which is no contact yet, stands in at place `index`, whose owner gets no row any more.
    pub(crate) fn stand_in(&mut self, index: usize, node: NodeId) {
        if let Some(contact) = self.contacts.get_mut(index) {
            *contact = node;
            self.absent |= bit(index);
            self.stand_ins |= bit(index);
        }
    }

    /// The place whose contact keeps the hint for the absent owner of place `index`: its stand-in, else this node if
    /// it is `here`, else the first replica that is alive. So each absent owner has exactly one holder, and the
    /// holder gets the row anyway.
    pub(crate) fn holder(&self, index: usize, here: Option<usize>) -> Option<usize> {
        if self.is_stand_in(index) {
            return Some(index);
        }
        here.or_else(|| (0..self.len()).find(|&other| self.is_reachable(other)))
    }

    /// The owners for which the contact at place `index` keeps hints, written into `ids`.
    pub(crate) fn hints_at<'a>(
        &self,
        index: usize,
        here: Option<usize>,
        ids: &'a mut [[u8; 8]; REPLICAS_MAX],
    ) -> HintTargets<'a> {
        let mut count = 0;
        for (absent, owner) in self.owners.iter().enumerate().take(self.len()) {
            if self.is_absent(absent)
                && self.holder(absent, here) == Some(index)
                && let Some(id) = ids.get_mut(count)
            {
                *id = owner.0.to_le_bytes();
                count += 1;
            }
        }
        ids.get(..count).and_then(HintTargets::new).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hints(replicas: &Replicas, here: Option<usize>) -> Vec<(usize, u64)> {
        let mut ids = [[0; 8]; REPLICAS_MAX];
        let at =
            |index| replicas.hints_at(index, here, &mut ids).iter().map(|node| (index, node.0)).collect();
        (0..replicas.len())
            .flat_map({
                let mut at = at;
                move |index| -> Vec<(usize, u64)> { at(index) }
            })
            .collect()
    }

    #[test]
    fn every_absent_owner_has_exactly_one_holder() {
        let mut replicas = Replicas::of(&[NodeId(1), NodeId(2), NodeId(3)]);
        assert_eq!((hints(&replicas, Some(0)), replicas.reachable()), (vec![], 3));
        replicas.mark_absent(1);
        assert_eq!(hints(&replicas, Some(2)), [(2, 2)], "this node, without a stand-in");
        assert_eq!(hints(&replicas, None), [(0, 2)], "else the first replica alive");
        replicas.stand_in(1, NodeId(9));
        replicas.mark_absent(0);
        assert_eq!(hints(&replicas, None), [(1, 1), (1, 2)], "the stand-in, for both if there is only one");
        assert_eq!(
            (replicas.reachable(), replicas.index_of(NodeId(9)), replicas.index_of(NodeId(2))),
            (2, Some(1), None)
        );
        replicas.stand_in(0, NodeId(8));
        assert_eq!(hints(&replicas, Some(2)), [(0, 1), (1, 2)]);
        assert_eq!(replicas.leaders().collect::<Vec<_>>(), [NodeId(3), NodeId(8), NodeId(9)]);
    }

    #[test]
    fn without_anybody_alive_nobody_keeps_a_hint() {
        let mut replicas = Replicas::of(&[NodeId(1)]);
        replicas.mark_absent(0);
        assert_eq!(
            (hints(&replicas, None), replicas.reachable(), replicas.leaders().count()),
            (vec![], 0, 0)
        );
    }
}
