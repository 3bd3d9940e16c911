//! The figures of docs/failure-detection.md, by simulation: `cargo run --release -p gyre-cluster --example
//! gossip_figures -- NODES [PART…]` prints one line for each part: `loss`, `spread` (of changes), `crash`, `threshold`;
//! all but the last unless told. `loss:PERCENT:SECONDS` is one loss for as long as that. The seed is 1, 2, …, and printed.

#![expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a program for people, over its own numbers"
)]

#[path = "../tests/coordinator/random.rs"]
mod random;
#[path = "../tests/gossip/world.rs"]
#[allow(dead_code, reason = "shared with tests that use all of it")]
mod world;

use std::time::Instant;

use gyre_cluster::gossip::GossipSettings;
use gyre_cluster::time::MonoMicros;
use world::World;

/// How much is simulated for one size of cluster.
struct Plan {
    nodes: usize,
    /// How many worlds, with seeds from 1.
    worlds: u64,
    /// For how long each runs before anything is measured, in seconds.
    warm_s: u64,
    /// The losses at which false suspicions are counted, in percent.
    losses: Vec<u64>,
    /// For how long, at each loss, in seconds.
    loss_s: u64,
    /// How long without loss then, so that the mean gaps are those of a good network again, in seconds.
    settle_s: u64,
    /// How many changes are followed in each world.
    changes: usize,
    /// For how long each has time to reach everyone, in seconds.
    change_s: u64,
    /// How many nodes crash in each world, at once.
    crashes: usize,
    /// For how long the others are watched then, in seconds.
    crash_s: u64,
}

impl Plan {
    fn of(nodes: usize) -> Plan {
        let every = &[1, 5, 20];
        let (worlds, losses, loss_s): (u64, &[u64], u64) = match nodes {
            0..=20 => (50, every, 3_600),
            21..=200 => (20, every, 3_600),
            201..=2_000 => (1, every, 600),
            _ => (1, &[20], 30),
        };
        let is_large = nodes > 2_000;
        Plan {
            nodes,
            worlds,
            warm_s: if is_large { 30 } else { 150 },
            losses: losses.to_vec(),
            loss_s,
            settle_s: if is_large { 0 } else { 150 },
            changes: if is_large { 2 } else { 10 },
            change_s: if is_large { 10 } else { 20 },
            crashes: if nodes > 200 { 10 } else { 1 },
            crash_s: if is_large { 80 } else { 60 },
        }
    }

    fn warm(&self, seed: u64, settings: GossipSettings) -> World {
        let mut world = World::new(self.nodes, seed, settings);
        world.run_for(self.warm_s * 1_000);
        world
    }

    /// Measures in the world given and in those of the other seeds.
    fn each(&self, first: &mut World, mut measure: impl FnMut(&mut World)) {
        measure(first);
        (2..=self.worlds).for_each(|seed| measure(&mut self.warm(seed, GossipSettings::default())));
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let Some(nodes) = args.next().and_then(|text| text.parse().ok()) else {
        eprintln!("usage: gossip_figures NODES [loss] [spread] [crash] [threshold]");
        return;
    };
    let parts: Vec<String> = args.collect();
    let has = |part: &str| {
        parts.iter().any(|asked| asked.split(':').next() == Some(part))
            || (parts.is_empty() && part != "threshold")
    };
    let (mut plan, started) = (Plan::of(nodes), Instant::now());
    let longer = parts.iter().find_map(|part| part.strip_prefix("loss:")?.split_once(':'));
    if let Some((percent, seconds)) = longer.and_then(|(p, s)| Some((p.parse().ok()?, s.parse().ok()?))) {
        (plan.losses, plan.loss_s) = (vec![percent], seconds);
    }
    println!("{nodes} nodes, seeds 1..={}", plan.worlds);
    let mut world = plan.warm(1, GossipSettings::default());
    println!("({:.0} s of real time to warm up)", started.elapsed().as_secs_f64());
    if has("spread") {
        spread(&plan, &mut world);
    }
    if has("loss") {
        loss(&plan, &mut world);
    }
    if has("crash") {
        crashes(&plan, &mut world);
    }
    if has("threshold") {
        thresholds(&plan);
    }
    println!("({:.0} s of real time)", started.elapsed().as_secs_f64());
}

/// False suspicions and traffic at several rates of loss, nobody being down.
fn loss(plan: &Plan, world: &mut World) {
    for percent in &plan.losses {
        world.loss_per_mille = percent * 10;
        world.verdicts.clear();
        world.take_sent_bytes();
        let started = Instant::now();
        world.run_for(plan.loss_s * 1_000);
        let real_s = started.elapsed().as_secs_f64();
        let sent = world.take_sent_bytes();
        let (sum, most) = (sent.iter().sum::<u64>(), sent.iter().max().copied().unwrap_or(0));
        let per_s = |bytes: u64| bytes / plan.loss_s;
        let downs = world.verdicts.iter().filter(|verdict| !verdict.is_up).count();
        println!(
            "loss {percent} %, {} s: {downs} false suspicions; bytes per node and second {} (busiest node {}), \
             longest message {}; {:.1} us of processor per node and second",
            plan.loss_s,
            per_s(sum / plan.nodes as u64),
            per_s(most),
            world.longest_message,
            real_s * 1e6 / (plan.loss_s as f64 * plan.nodes as f64),
        );
        println!("  phi now, of all pairs: {}", quantiles(phis(world)));
    }
    world.loss_per_mille = 0;
    world.run_for(plan.settle_s * 1_000);
}

/// What phi is at this moment, for a sample of observers.
fn phis(world: &World) -> Vec<f64> {
    let step = (world.count() / 100).max(1);
    let observers = (0..world.count()).step_by(step);
    observers
        .flat_map(|at| world.gossip(at).peers(MonoMicros(world.now_us())).filter_map(|peer| peer.phi))
        .collect()
}

/// Rounds until everyone has a change; no loss.
fn spread(plan: &Plan, first: &mut World) {
    let (mut halves, mut lasts) = (Vec::new(), Vec::new());
    plan.each(first, |world| {
        for _ in 0..plan.changes {
            world.run_off_beat();
            let node = world.any();
            let change = world.change(node);
            world.run_for(plan.change_s * 1_000);
            let spread = world.spread_us(change).expect("everyone has it by now");
            halves.push(spread[spread.len() / 2] as f64 / 1e6);
            lasts.push(spread[spread.len() - 1] as f64 / 1e6);
        }
    });
    println!("rounds until half have a change: {}", quantiles(halves));
    println!("rounds until all have a change: {}", quantiles(lasts));
}

/// Seconds until everyone has noticed a crash; no loss.
fn crashes(plan: &Plan, first: &mut World) {
    let (mut noticed, mut missed) = (Vec::new(), 0);
    plan.each(first, |world| {
        let (times, unseen) = crash(plan, world);
        noticed.extend(times);
        missed += unseen;
    });
    println!("seconds until a crash is noticed, over observers: {}; {missed} never", quantiles(noticed));
}

/// Crashes some nodes. Answers after how many seconds each other node had noticed each, and how many have not.
fn crash(plan: &Plan, world: &mut World) -> (Vec<f64>, usize) {
    world.run_off_beat();
    let mut dead = Vec::new();
    while dead.len() < plan.crashes {
        let node = world.any();
        if !dead.contains(&node) {
            world.crash(node);
            dead.push(node);
        }
    }
    let crashed_us = world.now_us();
    world.verdicts.clear();
    world.run_for(plan.crash_s * 1_000);
    let downs: Vec<_> = world.verdicts.iter().filter(|verdict| !verdict.is_up).collect();
    let wrong = downs.iter().filter(|verdict| !dead.contains(&verdict.peer)).count();
    assert_eq!(wrong, 0, "nobody else is suspected");
    let times: Vec<f64> = downs.iter().map(|verdict| (verdict.at_us - crashed_us) as f64 / 1e6).collect();
    let missed = dead.len() * (plan.nodes - dead.len()) - times.len();
    (times, missed)
}

/// What other thresholds would do: false suspicions at 20 % loss, and the time to notice a crash.
fn thresholds(plan: &Plan) {
    for phi_threshold in [1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 12.0] {
        let settings = GossipSettings { phi_threshold, ..GossipSettings::default() };
        let mut world = plan.warm(1, settings);
        let mut counts = Vec::new();
        for percent in &plan.losses {
            world.loss_per_mille = percent * 10;
            world.verdicts.clear();
            world.run_for(plan.loss_s * 1_000);
            counts.push(world.verdicts.iter().filter(|verdict| !verdict.is_up).count());
        }
        let mut times = Vec::new();
        for seed in 1..=plan.worlds {
            let mut world = plan.warm(seed, settings);
            world.run_off_beat();
            let (crashed_us, dead) = (world.now_us(), world.any());
            world.crash(dead);
            world.verdicts.clear();
            world.run_for(plan.crash_s * 1_000);
            let downs = world.verdicts.iter().filter(|verdict| !verdict.is_up && verdict.peer == dead);
            times.extend(downs.map(|verdict| (verdict.at_us - crashed_us) as f64 / 1e6));
        }
        println!(
            "threshold {phi_threshold}: false suspicions in {} s at {:?} % loss {counts:?}; crash noticed {}",
            plan.loss_s,
            plan.losses,
            quantiles(times)
        );
    }
}

/// Mean, median, 99th percentile and maximum.
fn quantiles(mut values: Vec<f64>) -> String {
    if values.is_empty() {
        return "none".into();
    }
    values.sort_unstable_by(f64::total_cmp);
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let at = |quantile: f64| values[((values.len() - 1) as f64 * quantile).round() as usize];
    format!(
        "mean {mean:.2}, p50 {:.2}, p99 {:.2}, max {:.2} ({} values)",
        at(0.5),
        at(0.99),
        at(1.0),
        values.len()
    )
}
