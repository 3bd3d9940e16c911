//! The coordinator in a simulated cluster: virtual time, a network that delays, drops, duplicates, reorders and
//! breaks, nodes that crash; random histories, checked. A failing seed is printed; `GYRE_SEED=n` runs only that one,
//! `GYRE_SEEDS=n` that many.

#![expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a harness over its own small numbers, where a panic is a failed test"
)]

mod checker;
mod machine;
mod network;
mod random;
mod simulation;

use simulation::{Plan, Simulation};

/// Runs `plan` under as many seeds as asked for, naming the one that fails.
fn run_seeds(plan: &Plan, seeds: u64) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let range = match number("GYRE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("GYRE_SEEDS").unwrap_or(seeds),
    };
    let mut done = 0;
    for seed in range {
        let result = std::panic::catch_unwind(|| Simulation::new(plan, seed).run());
        match result {
            Ok(operations) => done += operations,
            Err(panic) => {
                eprintln!("failing seed: GYRE_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!(done > 0, "no operation succeeded under any seed");
}

#[test]
fn histories_hold_on_a_slow_and_lossy_network() {
    let plan = Plan { nodes: 5, loss_per_mille: 20, ..Plan::default() };
    run_seeds(&plan, 60);
}

#[test]
fn histories_hold_under_partitions() {
    let plan = Plan { nodes: 5, partitions: true, loss_per_mille: 5, ..Plan::default() };
    run_seeds(&plan, 60);
}

#[test]
fn histories_hold_under_crashes_and_partitions() {
    let plan = Plan { nodes: 4, crashes: true, partitions: true, loss_per_mille: 5, ..Plan::default() };
    run_seeds(&plan, 60);
}

#[test]
fn histories_hold_on_three_nodes_that_all_hold_every_key() {
    let plan = Plan { nodes: 3, crashes: true, partitions: true, ..Plan::default() };
    run_seeds(&plan, 60);
}

#[test]
fn histories_hold_on_a_single_node() {
    let plan = Plan { nodes: 1, crashes: true, ..Plan::default() };
    run_seeds(&plan, 20);
}

#[test]
fn nothing_acknowledged_is_lost_with_stand_ins_under_partitions() {
    let plan = Plan { nodes: 7, partitions: true, sloppy: true, ..Plan::default() };
    run_seeds(&plan, 100);
}

#[test]
fn nothing_acknowledged_is_lost_with_stand_ins_under_crashes_partitions_and_loss() {
    let plan = Plan {
        nodes: 6,
        crashes: true,
        partitions: true,
        loss_per_mille: 5,
        sloppy: true,
        ..Plan::default()
    };
    run_seeds(&plan, 100);
}

#[test]
fn hints_bring_replicas_up_to_date_without_stand_ins() {
    let plan = Plan { nodes: 3, partitions: true, ..Plan::default() };
    run_seeds(&plan, 60);
}

#[test]
fn what_is_flushed_stays_away_and_what_is_written_after_stays() {
    let plan = Plan {
        nodes: 5,
        crashes: true,
        partitions: true,
        loss_per_mille: 5,
        flushes: true,
        ..Plan::default()
    };
    run_seeds(&plan, 100);
}
