//! A checker that catches no bug is worth nothing: each deliberate bug must be caught, within a stated number of seeds.

use gyre_simulation::{Failure, Mutation, Options, run_seed};

/// The bug, and within how many seeds it must be caught. `docs/simulation.md` says how many it took.
const BOUNDS: [(Mutation, u64); 20] = [
    (Mutation::AckBeforeApply, 20),
    (Mutation::NoReadRepair, 30),
    (Mutation::ArrivalOrder, 10),
    (Mutation::ClockNotMerged, 20),
    (Mutation::StaleCache, 10),
    (Mutation::QuorumOffByOne, 20),
    (Mutation::HintLostInCrash, 200),
    (Mutation::HintDroppedEarly, 300),
    (Mutation::OwnClockBelieved, 60),
    (Mutation::ClockMarkForgotten, 800),
    (Mutation::SweptAnew, 20),
    (Mutation::TreeMissesLeaf, 60),
    (Mutation::DirtyMarkLost, 20),
    (Mutation::ActorReused, 150),
    (Mutation::ContextTooWide, 20),
    (Mutation::ContextIgnored, 20),
    (Mutation::PurgedByAge, 10),
    (Mutation::TombstonePurgedAlone, 5),
    (Mutation::HorizonNotAgreed, 5),
    (Mutation::LapsedKept, 5),
];

#[test]
fn every_deliberate_bug_is_caught_within_its_number_of_seeds() {
    assert_eq!(BOUNDS.map(|(mutation, _)| mutation), Mutation::ALL, "none is left out");
    for (mutation, bound) in BOUNDS {
        let is_purging = mutation.is_of_purging();
        let options = Options { mutation: Some(mutation), is_purging, ..Options::default() };
        let caught = (0..bound).find_map(|seed| run_seed(seed, options).err());
        let Failure { seed, what } = caught.unwrap_or_else(|| {
            panic!("{} was not caught within {bound} seeds", mutation.name());
        });
        let first_line = what.lines().next().unwrap_or_default();
        println!("{}: {} seeds: {first_line}", mutation.name(), seed + 1);
    }
}
