//! All members, this node among them, ascending by id.

use std::collections::BTreeSet;

use super::peer::Peer;
use crate::node::NodeId;
use crate::topology::{MemberState, Topology};

/// The members that gossip is about.
///
/// One sorted list: messages carry ascending runs of members, so that most are found next to the one before, and a
/// round that looks at all of 10,000 walks through memory in order.
#[derive(Clone, Debug)]
pub(super) struct Members {
    /// Never empty: this node is always in it.
    list: Vec<Peer>,
    own: usize,
}

impl Members {
    /// This node alone.
    pub(super) fn new(own: Peer) -> Members {
        Members { list: vec![own], own: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// This node's own place.
    pub(super) fn own_at(&self) -> usize {
        self.own
    }

    pub(super) fn own(&self) -> &Peer {
        self.list.get(self.own).expect("this node is always in the list")
    }

    pub(super) fn own_mut(&mut self) -> &mut Peer {
        self.list.get_mut(self.own).expect("this node is always in the list")
    }

    pub(super) fn get(&self, at: usize) -> Option<&Peer> {
        self.list.get(at)
    }

    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut Peer> {
        self.list.get_mut(at)
    }

    /// Where `id` is; `hint` is looked at first.
    pub(super) fn find(&self, hint: usize, id: NodeId) -> Option<usize> {
        if self.list.get(hint).is_some_and(|peer| peer.id == id) {
            return Some(hint);
        }
        self.list.binary_search_by_key(&id, |peer| peer.id).ok()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.list.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.list.iter_mut()
    }

    /// Keeps who belongs to `topology` and takes up who is new there. This node stays, whatever it says.
    pub(super) fn follow(&mut self, topology: &Topology) {
        let own = self.own().id;
        let members = topology.members.values();
        let mut ids: BTreeSet<NodeId> = members
            .filter(|member| member.state != MemberState::Left)
            .map(|member| member.id)
            .chain([own])
            .collect();
        self.list.retain(|peer| ids.remove(&peer.id));
        self.list.extend(ids.into_iter().map(Peer::unheard));
        self.list.sort_unstable_by_key(|peer| peer.id);
        self.own = self.find(0, own).expect("this node is always in the list");
    }
}
