//! Gossip in simulated clusters of 10 and 50 nodes: who is up and down to whom, and how far changes get. A failing seed
//! is printed; `GYRE_SEED=n` runs only that one. Figures for larger clusters: `cargo run --release -p gyre-cluster
//! --example gossip_figures`.

#![expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a harness over its own small numbers, where a panic is a failed test"
)]

#[path = "../coordinator/random.rs"]
mod random;
mod world;

use gyre_cluster::gossip::{GossipSettings, Liveness, TopologyMark};
use gyre_cluster::time::MonoMicros;
use world::{Verdict, World};

const SEEDS: u64 = 5;

/// Runs `claim` on clusters of 10 and 50 nodes which have run for `warm_ms`, under several seeds.
fn in_worlds(warm_ms: u64, claim: impl Fn(&mut World) + std::panic::RefUnwindSafe) {
    let chosen = std::env::var("GYRE_SEED").ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = chosen.map_or(0..SEEDS, |seed| seed..seed + 1);
    for (count, seed) in [10, 50].into_iter().flat_map(|count| seeds.clone().map(move |seed| (count, seed))) {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(count, seed, GossipSettings::default());
            world.run_for(warm_ms);
            claim(&mut world);
        });
        if let Err(panic) = outcome {
            eprintln!("failing: {count} nodes, GYRE_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

fn is_up(world: &World, observer: usize, peer: usize) -> bool {
    world.gossip(observer).liveness(world.id(peer)) == Liveness::Up
}

/// All pairs of different nodes.
fn pairs(world: &World) -> impl Iterator<Item = (usize, usize)> + use<> {
    let count = world.count();
    (0..count).flat_map(move |a| (0..count).map(move |b| (a, b))).filter(|(a, b)| a != b)
}

fn downs(world: &World) -> Vec<Verdict> {
    world.verdicts.iter().copied().filter(|verdict| !verdict.is_up).collect()
}

#[test]
fn nodes_that_start_together_are_up_to_each_other_within_seconds() {
    in_worlds(8_000, |world| {
        assert!(pairs(world).all(|(a, b)| is_up(world, a, b)));
        assert!(pairs(world).all(|(a, b)| {
            let view = world.gossip(a).peer(world.id(b), MonoMicros(world.now_us())).unwrap();
            view.about.is_some()
        }));
    });
}

#[test]
fn a_crash_is_noticed_by_all_and_by_nobody_too_soon() {
    in_worlds(120_000, |world| {
        world.run_off_beat();
        let (dead, at_us) = (world.any(), world.now_us());
        world.crash(dead);
        world.run_for(30_000);
        let found = downs(world);
        assert_eq!(found.len(), world.count() - 1, "once to everyone");
        for verdict in found {
            assert_eq!(verdict.peer, dead);
            let after_ms = (verdict.at_us - at_us) / 1_000;
            assert!((17_000..27_000).contains(&after_ms), "after {after_ms} ms");
        }
    });
}

#[test]
fn a_crashed_node_is_up_again_within_seconds_of_its_restart() {
    in_worlds(60_000, |world| {
        let dead = world.any();
        world.crash(dead);
        world.run_for(60_000);
        assert!(pairs(world).filter(|(_, b)| *b == dead).all(|(a, b)| !is_up(world, a, b)));
        world.restart(dead);
        world.run_for(8_000);
        assert!(pairs(world).all(|(a, b)| is_up(world, a, b)));
    });
}

#[test]
fn a_node_that_restarts_while_another_is_dead_never_takes_the_dead_for_up() {
    in_worlds(60_000, |world| {
        let (dead, restarted) = (0, 1);
        world.crash(dead);
        world.run_for(60_000);
        world.crash(restarted);
        world.restart(restarted);
        let before = world.verdicts.len();
        world.run_for(60_000);
        let found = &world.verdicts[before..];
        assert!(!found.iter().any(|verdict| verdict.observer == restarted && verdict.peer == dead));
        assert!(
            pairs(world)
                .filter(|(_, b)| *b != dead)
                .filter(|(a, _)| *a != dead)
                .all(|(a, b)| is_up(world, a, b))
        );
    });
}

#[test]
fn a_node_back_from_a_minute_of_sleep_is_up_and_has_suspected_nobody() {
    in_worlds(60_000, |world| {
        let asleep = world.any();
        world.pause(asleep, 60_000);
        world.run_for(59_000);
        assert_eq!(downs(world).len(), world.count() - 1, "all others have noticed");
        world.run_for(9_000);
        assert!(pairs(world).all(|(a, b)| is_up(world, a, b)));
        assert!(downs(world).iter().all(|verdict| verdict.observer != asleep));
    });
}

#[test]
fn both_sides_of_a_cut_see_each_other_down_and_up_again_when_it_heals() {
    in_worlds(60_000, |world| {
        let half = world.count() / 2;
        world.cut(|node| node < half);
        world.run_for(60_000);
        assert!(pairs(world).all(|(a, b)| is_up(world, a, b) == ((a < half) == (b < half))));
        world.cut(|_| false);
        world.run_for(10_000);
        assert!(pairs(world).all(|(a, b)| is_up(world, a, b)));
    });
}

#[test]
fn a_fifth_of_all_messages_lost_makes_nobody_suspicious() {
    in_worlds(20_000, |world| {
        world.loss_per_mille = 200;
        world.run_for(300_000);
        assert_eq!(downs(world), []);
    });
}

#[test]
fn a_change_reaches_everyone_in_a_few_rounds() {
    in_worlds(20_000, |world| {
        for _ in 0..5 {
            world.run_off_beat();
            let node = world.any();
            let change = world.change(node);
            world.run_for(10_000);
            let spread = world.spread_us(change).expect("everyone has it after ten rounds");
            assert!(spread[spread.len() - 1] < 6_000_000, "{spread:?}");
        }
    });
}

#[test]
fn a_new_document_reaches_everyone_though_it_is_sent_only_where_it_differs() {
    in_worlds(20_000, |world| {
        let before = TopologyMark::of(world.document(0));
        let mut newer = world.document(0).clone();
        newer.epoch += 1;
        world.install(0, newer.clone());
        world.run_for(10_000);
        assert_ne!(TopologyMark::of(&newer), before);
        assert!((0..world.count()).all(|node| *world.document(node) == newer));
    });
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut world = World::new(20, seed, GossipSettings::default());
        world.loss_per_mille = 100;
        world.run_for(30_000);
        world.crash(3);
        world.run_for(30_000);
        (world.verdicts.clone(), world.take_sent_bytes())
    };
    assert!(run(1) == run(1));
    assert!(run(1) != run(2));
}
