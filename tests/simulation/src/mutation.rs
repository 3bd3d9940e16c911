//! Deliberate bugs, each of which the checkers must find.
//!
//! All of them are made around the production cores, not in them: the shell acknowledges too early, answers from an old
//! snapshot, asks for a lower level than the client did, and so on. So the cores need no switch for them.

use std::collections::BTreeMap;
use std::str::FromStr;

use gyre_cluster::level::Consistency;
use gyre_cluster::modify::context::CausalContext;
use gyre_storage::siblings::Dot;
use gyre_storage::{Hlc, KeyRef, Record};

/// A deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutation {
    /// A replica acknowledges a row while its batch is still on the way to the disk.
    AckBeforeApply,
    /// A read whose replicas disagree answers without having repaired those on other nodes.
    NoReadRepair,
    /// A replica shows the row that arrived last instead of the one of the greatest version.
    ArrivalOrder,
    /// A node does not take notice of the clocks that messages carry.
    ClockNotMerged,
    /// A node answers reads from what it first read, whatever was written since.
    StaleCache,
    /// One replica fewer than the level asks for is enough.
    QuorumOffByOne,
    /// A process that is killed takes the hints it keeps with it.
    HintLostInCrash,
    /// A hint is removed when its record is sent, not when that is acknowledged.
    HintDroppedEarly,
    /// A node stamps by its wall clock, whatever the others' say.
    OwnClockBelieved,
    /// A process that starts does not begin where its clock was.
    ClockMarkForgotten,
    /// The sweeper deletes what has expired by a tombstone that it stamps itself.
    SweptAnew,
    /// The trees of some slots miss everything.
    TreeMissesLeaf,
    /// A process that is killed takes the marks of dirty segments with it.
    DirtyMarkLost,
    /// A node that has lost its disk writes counter cells under a name it had before.
    ActorReused,
    /// The context that a client gets claims to have seen what was written a little later.
    ContextTooWide,
    /// A write with a context replaces nothing.
    ContextIgnored,
    /// What is old enough is removed, whoever lacks it.
    PurgedByAge,
    /// Of what is removed only the tombstone goes, not the older rows.
    TombstonePurgedAlone,
    /// Replicas agree on horizons without those that are down.
    HorizonNotAgreed,
    /// A node whose data has lapsed comes back with it.
    LapsedKept,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Mutation; 20] = [
        Mutation::AckBeforeApply,
        Mutation::NoReadRepair,
        Mutation::ArrivalOrder,
        Mutation::ClockNotMerged,
        Mutation::StaleCache,
        Mutation::QuorumOffByOne,
        Mutation::HintLostInCrash,
        Mutation::HintDroppedEarly,
        Mutation::OwnClockBelieved,
        Mutation::ClockMarkForgotten,
        Mutation::SweptAnew,
        Mutation::TreeMissesLeaf,
        Mutation::DirtyMarkLost,
        Mutation::ActorReused,
        Mutation::ContextTooWide,
        Mutation::ContextIgnored,
        Mutation::PurgedByAge,
        Mutation::TombstonePurgedAlone,
        Mutation::HorizonNotAgreed,
        Mutation::LapsedKept,
    ];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Mutation::AckBeforeApply => "ack-before-apply",
            Mutation::NoReadRepair => "no-read-repair",
            Mutation::ArrivalOrder => "arrival-order",
            Mutation::ClockNotMerged => "clock-not-merged",
            Mutation::StaleCache => "stale-cache",
            Mutation::QuorumOffByOne => "quorum-off-by-one",
            Mutation::HintLostInCrash => "hint-lost-in-crash",
            Mutation::HintDroppedEarly => "hint-dropped-early",
            Mutation::OwnClockBelieved => "own-clock-believed",
            Mutation::ClockMarkForgotten => "clock-mark-forgotten",
            Mutation::SweptAnew => "swept-anew",
            Mutation::TreeMissesLeaf => "tree-misses-leaf",
            Mutation::DirtyMarkLost => "dirty-mark-lost",
            Mutation::ActorReused => "actor-reused",
            Mutation::ContextTooWide => "context-too-wide",
            Mutation::ContextIgnored => "context-ignored",
            Mutation::PurgedByAge => "purged-by-age",
            Mutation::TombstonePurgedAlone => "tombstone-purged-alone",
            Mutation::HorizonNotAgreed => "horizon-not-agreed",
            Mutation::LapsedKept => "lapsed-kept",
        }
    }

    /// The context that a client has of a read which gave `context`.
    pub(crate) fn distort_context(mutation: Option<Mutation>, context: CausalContext) -> CausalContext {
        const WIDER: u64 = Hlc::from_millis(500).0;
        match mutation {
            Some(Mutation::ContextIgnored) => CausalContext::default(),
            Some(Mutation::ContextTooWide) => {
                let mut wider = context.clone();
                for dot in context.seen.iter() {
                    wider.seen.see(Dot { event: dot.event.saturating_add(WIDER), ..dot });
                }
                wider
            }
            _ => context,
        }
    }

    /// The level that is asked for where a client wants `level`.
    pub(crate) fn distort(mutation: Option<Mutation>, level: Consistency) -> Consistency {
        match (mutation, level) {
            (Some(Mutation::QuorumOffByOne), Consistency::All) => Consistency::Quorum,
            (Some(Mutation::QuorumOffByOne), Consistency::Quorum) => Consistency::One,
            _ => level,
        }
    }
}

impl FromStr for Mutation {
    type Err = String;

    fn from_str(name: &str) -> Result<Mutation, String> {
        let names = || Mutation::ALL.map(Mutation::name).join(", ");
        Mutation::ALL
            .into_iter()
            .find(|mutation| mutation.name() == name)
            .ok_or_else(|| format!("no mutation is called {name}; there are {}", names()))
    }
}

/// A node's store as a mutation shows it.
pub(crate) enum Distortion {
    /// As it is.
    None,
    /// What arrived last, by key.
    Arrived(BTreeMap<Vec<u8>, Record>),
    /// What was read first, by key.
    Stale(BTreeMap<Vec<u8>, Record>),
    /// As it is, but for the last values of keys, by key, which purging leaves behind.
    Kept(BTreeMap<Vec<u8>, Record>),
}

impl Distortion {
    pub(crate) fn new(mutation: Option<Mutation>) -> Distortion {
        match mutation {
            Some(Mutation::ArrivalOrder) => Distortion::Arrived(BTreeMap::new()),
            Some(Mutation::StaleCache) => Distortion::Stale(BTreeMap::new()),
            Some(Mutation::TombstonePurgedAlone) => Distortion::Kept(BTreeMap::new()),
            _ => Distortion::None,
        }
    }

    /// Whether [`Distortion::committed`] looks at rows.
    pub(crate) fn wants_rows(&self) -> bool {
        matches!(self, Distortion::Arrived(_) | Distortion::Kept(_))
    }

    /// Rows were committed.
    pub(crate) fn committed(&mut self, rows: Vec<(Vec<u8>, Record)>) {
        match self {
            Distortion::Arrived(arrived) => arrived.extend(rows),
            Distortion::Kept(kept) => {
                let is_value = |record: &Record| {
                    record.register().is_some_and(|r| r.value.is_some() && r.expiry.is_none())
                };
                kept.extend(rows.into_iter().filter(|(_, record)| is_value(record)));
            }
            _ => {}
        }
    }

    /// What a read of `key` shows where the store has `record`.
    pub(crate) fn read(&mut self, key: KeyRef<'_>, record: Record) -> Record {
        match self {
            Distortion::None | Distortion::Kept(_) => record,
            Distortion::Arrived(arrived) => arrived.get(key.key).cloned().unwrap_or(record),
            Distortion::Stale(snapshots) => snapshots.entry(key.key.to_vec()).or_insert(record).clone(),
        }
    }
}

impl Mutation {
    /// Whether it is of purging, and shows only where that goes on.
    #[must_use]
    pub const fn is_of_purging(self) -> bool {
        matches!(
            self,
            Mutation::PurgedByAge
                | Mutation::TombstonePurgedAlone
                | Mutation::HorizonNotAgreed
                | Mutation::LapsedKept
        )
    }
}
