//! What a fresh node sees of the others: their latest statuses, and who must agree before a cluster may form.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::message::{Ballot, FORMING_NODES_MAX, SeedView, Status};
use super::{ALIVE_MS, Waiting};
use crate::node::NodeId;
use crate::time::MonoMicros;

/// After this long without a status a node is forgotten, in milliseconds.
const FORGET_MS: u64 = 60_000;

/// The latest status of every fresh node that this node hears directly. Hearsay decides nothing.
#[derive(Debug, Default)]
pub(super) struct View {
    heard: BTreeMap<NodeId, Heard>,
}

#[derive(Debug)]
struct Heard {
    status: Status,
    at: MonoMicros,
}

impl View {
    /// Takes a status that has arrived at `now`. Answers whether it tells of a node, an incarnation or a seed that
    /// was not known: such news are worth passing on at once.
    pub(super) fn hear(&mut self, now: MonoMicros, status: Status) -> bool {
        let is_full = self.heard.len() >= FORMING_NODES_MAX;
        match self.heard.entry(status.member.id) {
            Entry::Vacant(vacant) if !is_full => {
                vacant.insert(Heard { status, at: now });
                true
            }
            Entry::Vacant(_) => false,
            Entry::Occupied(mut known) => {
                let order = |status: &Status| (status.member.incarnation, status.seq);
                let last = known.get();
                if order(&status) <= order(&last.status) {
                    return false;
                }
                let is_news = status.member.incarnation != last.status.member.incarnation
                    || status.seeds != last.status.seeds
                    || !is_alive(now, last);
                known.insert(Heard { status, at: now });
                is_news
            }
        }
    }

    /// Drops nodes that have been silent for long.
    pub(super) fn forget(&mut self, now: MonoMicros) {
        self.heard.retain(|_, heard| now.micros_since(heard.at) < FORGET_MS * 1_000);
    }

    /// The node's latest status, however old.
    pub(super) fn latest(&self, node: NodeId) -> Option<&Status> {
        self.heard.get(&node).map(|heard| &heard.status)
    }

    /// The node's latest status, if it is recent.
    pub(super) fn alive(&self, now: MonoMicros, node: NodeId) -> Option<&Status> {
        self.heard.get(&node).filter(|heard| is_alive(now, heard)).map(|heard| &heard.status)
    }

    /// The recent statuses.
    pub(super) fn all_alive(&self, now: MonoMicros) -> impl Iterator<Item = &Status> {
        self.heard.values().filter(move |heard| is_alive(now, heard)).map(|heard| &heard.status)
    }

    /// Everyone heard and not yet forgotten.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.heard.keys().copied()
    }

    /// Whether the proposer itself has said that the try is over: it ended it, or it has started again without
    /// having formed a cluster.
    pub(super) fn is_over(&self, ballot: &Ballot) -> bool {
        self.latest(ballot.proposer).is_some_and(|status| {
            let incarnation = status.member.incarnation;
            incarnation > ballot.incarnation
                || (incarnation == ballot.incarnation && status.ended >= ballot.attempt)
        })
    }

    /// The core of `me`: itself, its seeds, their seeds and so on. `None` for a core whose members would form a
    /// cluster without `me`, since `me` is not among their seeds' seeds: it is for them to propose.
    ///
    /// # Errors
    /// What is missing: a seed that cannot be reached, a node that is not heard, one with another replication factor.
    pub(super) fn core(
        &self,
        now: MonoMicros,
        me: NodeId,
        own_seeds: &[SeedView],
        replication_factor: u8,
    ) -> Result<Option<BTreeSet<NodeId>>, Waiting> {
        let mut core = BTreeSet::from([me]);
        let mut named_by: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
        let mut open = vec![me];
        while let Some(node) = open.pop() {
            let seeds = if node == me {
                own_seeds
            } else {
                let status = self.alive(now, node).ok_or(Waiting::Silent { node })?;
                if status.replication_factor != replication_factor {
                    let (ours, theirs) = (replication_factor, status.replication_factor);
                    return Err(Waiting::ReplicationFactor { node, ours, theirs });
                }
                &status.seeds
            };
            for seed in seeds {
                let unreachable = || Waiting::Seed { addr: seed.addr.clone(), named_by: node };
                let next = seed.node.ok_or_else(unreachable)?;
                named_by.entry(next).or_default().push(node);
                if core.insert(next) {
                    open.push(next);
                }
            }
        }
        let leads_here = reach(me, &named_by);
        Ok((leads_here == core).then_some(core))
    }
}

/// All nodes from which `me` is reached over seeds, itself included.
fn reach(me: NodeId, named_by: &BTreeMap<NodeId, Vec<NodeId>>) -> BTreeSet<NodeId> {
    let mut reached = BTreeSet::from([me]);
    let mut open = vec![me];
    while let Some(node) = open.pop() {
        for &namer in named_by.get(&node).map(Vec::as_slice).unwrap_or_default() {
            if reached.insert(namer) {
                open.push(namer);
            }
        }
    }
    reached
}

fn is_alive(now: MonoMicros, heard: &Heard) -> bool {
    now.micros_since(heard.at) < ALIVE_MS * 1_000
}
