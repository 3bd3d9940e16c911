//! What all nodes of a world share: time, chance, the network, and what watches them.

use std::collections::BTreeMap;
use std::sync::Arc;

use gyre_cluster::coordinator::Tag;
use gyre_cluster::node::NodeId;
use gyre_cluster::outcome::Outcome;
use gyre_cluster::topology::Topology;
use gyre_storage::{Hlc, Slot};

use crate::checkers::journal::Journal;
use crate::checkers::owed::Owed;
use crate::event::Event;
use crate::mutation::Mutation;
use crate::network::Network;
use crate::node::node_id;
use crate::plan::Plan;
use crate::purge::Hidden;
use crate::queue::{MS, Micros, Queue};
use crate::random::Random;
use crate::repair::slots_of;

/// The surroundings of all nodes.
pub(crate) struct Env {
    pub(crate) queue: Queue<Event>,
    pub(crate) random: Random,
    pub(crate) network: Network,
    /// Every row ever stamped.
    pub(crate) journal: Journal,
    /// What has become of hints.
    pub(crate) owed: Owed,
    pub(crate) mutation: Option<Mutation>,
    /// Keys of which a write has merged siblings, since the world last looked.
    pub(crate) merged_siblings: Vec<usize>,
    /// Operations that have ended and whose clients are to be told.
    pub(crate) finished: Vec<(Tag, Outcome)>,
    /// The incarnation of each node's process, as it says when it makes a link.
    pub(crate) incarnations: Vec<u64>,
    /// Which node an id names.
    pub(crate) names: BTreeMap<NodeId, usize>,
    /// The document that names all nodes.
    pub(crate) topology: Arc<Topology>,
    /// How often a node has taken another for dead.
    pub(crate) suspicions: u64,
    /// Whether at most a minority of wall clocks is ever wrong by more than the allowed drift.
    pub(crate) are_most_clocks_right: bool,
    /// How often a node went by a time that was far from the truth though most clocks were right.
    pub(crate) strays: u64,
    /// Batches committed.
    pub(crate) commits: u64,
    /// Records handed over for hints.
    pub(crate) handed_over: u64,
    /// How old a deletion must be before its record may go; `None`: nothing is purged.
    pub(crate) grace: Option<Micros>,
    /// Whether a database is flushed now and then.
    pub(crate) has_flushes: bool,
    /// The slots that have keys.
    pub(crate) slots: Vec<Slot>,
    /// Up to when some replica hides what is dead.
    pub(crate) hidden: Hidden,
    /// Dead keys removed.
    pub(crate) purged: u64,
    /// How often nodes sweep.
    pub(crate) sweep_interval: Micros,
    /// Rows swept.
    pub(crate) swept: u64,
    /// How often nodes compare what they hold; `None` while they do not.
    pub(crate) compare_interval: Option<Micros>,
    /// Exchanges that ended well, and rows that they have sent.
    pub(crate) exchanges: u64,
    pub(crate) exchanged: u64,
    /// How many commits in a thousand take long.
    slow_commits_per_mille: u64,
}

impl Env {
    pub(crate) fn new(plan: &Plan, topology: Arc<Topology>) -> Env {
        Env {
            queue: Queue::new(),
            random: Random::new(plan.seed),
            network: Network::new(plan.nodes, plan.weather.clone()),
            journal: Journal::new(plan),
            owed: Owed::default(),
            mutation: plan.mutation,
            merged_siblings: Vec::new(),
            finished: Vec::new(),
            incarnations: vec![0; plan.nodes],
            names: (0..plan.nodes).map(|index| (node_id(index), index)).collect(),
            topology,
            suspicions: 0,
            are_most_clocks_right: plan.are_most_clocks_right(),
            strays: 0,
            commits: 0,
            handed_over: 0,
            grace: plan.grace,
            has_flushes: plan.flush_gap.is_some(),
            slots: slots_of(&plan.keys),
            hidden: Hidden::new(),
            purged: 0,
            sweep_interval: plan.sweep_interval,
            swept: 0,
            compare_interval: plan.compare_interval,
            exchanges: 0,
            exchanged: 0,
            slow_commits_per_mille: plan.slow_commits_per_mille,
        }
    }

    /// A replica hides what is dead up to `clock`.
    pub(crate) fn hide(&mut self, slot: Slot, clock: Hlc) {
        let hidden = self.hidden.entry(slot).or_default();
        *hidden = clock.max(*hidden);
    }

    /// Up to when some replica of `slot` hides what is dead.
    pub(crate) fn hidden(&self, slot: Slot) -> Hlc {
        self.hidden.get(&slot).copied().unwrap_or_default()
    }

    /// Whether every node has gone by about the right time all the while.
    pub(crate) fn are_times_right(&self) -> bool {
        self.are_most_clocks_right && self.strays == 0
    }

    /// How long the next commit takes.
    pub(crate) fn commit_time(&mut self) -> Micros {
        if self.random.chance(self.slow_commits_per_mille) {
            self.random.skewed(5 * MS..500 * MS)
        } else {
            50 + self.random.below(MS)
        }
    }
}
