//! Seeds that every commit must survive, and that a seed is what it says: one history.

use gyre_simulation::{Failure, Options, Report, replay_command, run_seed, run_seeds, split};

/// What CI has.
const THREADS: usize = 2;

/// Fails the test with the command that runs the seed again.
fn expect(result: Result<Report, Failure>, options: Options) -> Report {
    result.unwrap_or_else(|Failure { seed, what }| {
        panic!("seed {seed} failed: {what}\nagain: {}", replay_command(seed, options))
    })
}

#[test]
fn two_hundred_seeds_hold() {
    let options = Options::default();
    let report = expect(run_seeds(0..240, options, THREADS, |_, _| ()), options);
    println!("{report}");
    // A run in which nothing happens proves nothing.
    assert!(report.done > 200_000 && report.strikes > 1_000 && report.stops > 500, "{report}");
    assert!(report.batches_lost > 100 && report.poisoned > 20 && report.suspicions > 50, "{report}");
    assert!(report.handed_over > 1_000 && report.owed > 1_000, "{report}");
    assert!(report.exchanges > 20_000 && report.exchanged > 1_000, "{report}");
    assert!(report.flushed > 300, "{report}");
}

/// An increment was void while the node that had forwarded it was slow to say whether its client had been told.
#[test]
fn a_seed_that_failed_once_holds() {
    expect(run_seed(723, Options::default()), Options::default());
}

#[test]
fn one_seed_is_one_history() {
    let hash = |seed| run_seed(seed, Options::default()).map(|report| report.hash);
    let twice: Vec<_> = (300..330).map(|seed| (hash(seed), hash(seed))).collect();
    assert!(twice.iter().all(|(first, second)| first == second && first.is_ok()), "{twice:?}");
    let mut all: Vec<u64> = twice.into_iter().flat_map(|(first, _)| first).collect();
    all.dedup();
    assert_eq!(all.len(), 30, "and no two are alike");
}

#[test]
fn hours_hold() {
    let options = Options { hours: Some(4.0), ..Options::default() };
    expect(run_seeds(0..4, options, THREADS, |_, _| ()), options);
}

/// Nodes are away for 2, 4, 80 and 200 hours where the grace period is 72, all of it 120 times shorter.
#[test]
fn deletions_are_forgotten_and_stay_deleted() {
    let options = Options { is_purging: true, ..Options::default() };
    let report = expect(run_seeds(0..6, options, THREADS, |_, _| ()), options);
    println!("{report}");
    assert!(report.purged > 3_000 && report.lapses > 3, "{report}");
}

#[test]
fn a_large_cluster_holds() {
    let options = Options { nodes: Some(100), ..Options::default() };
    expect(run_seeds(0..2, options, THREADS, |_, _| ()), options);
}

#[test]
fn both_halves_of_fifty_nodes_serve_and_agree_when_they_meet_again() {
    for seed in 0..3 {
        let report = split(seed, 50).unwrap_or_else(|failure| panic!("seed {seed} failed: {}", failure.what));
        println!("{report}");
        for half in report.halves {
            assert!(half.done > 5_000, "both halves serve: {report}");
            assert_eq!(half.failed_later, 0, "and fail nobody once they know: {report}");
        }
        assert!(report.contended > 50 && report.discarded > 0 && report.counters > 20, "{report}");
        assert_eq!(report.run.before_reads.different, 0, "hints alone make all replicas agree: {report}");
    }
}
