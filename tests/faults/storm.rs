//! Everything at once: kills, freezes, cuts and loss on two of five nodes at a time, drawn from a seed.

use std::thread;
use std::time::Duration;

use crate::load::{self, Group, Level};
use crate::network::Network;
use crate::processes::{FLAGS, addresses};
use crate::report::conclude;
use crate::support::Cluster;
use crate::wire::{Condition, scramble};

const NODES: usize = 5;
/// How long the faults of one round last, in milliseconds.
const LASTING_MS: std::ops::Range<u64> = 200..3_000;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Kill,
    Freeze,
    CutOff,
    Deaf,
    Mute,
    Lossy,
}

const FAULTS: [Fault; 6] =
    [Fault::Kill, Fault::Freeze, Fault::CutOff, Fault::Deaf, Fault::Mute, Fault::Lossy];

/// Draws from a seed.
struct Dice {
    seed: u64,
    draws: u64,
}

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.draws += 1;
        scramble(self.seed ^ (self.draws << 32)) % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

fn begin(fault: Fault, node: usize, cluster: &mut Cluster, network: &Network) {
    let others: Vec<usize> = (0..NODES).filter(|other| *other != node).collect();
    match fault {
        Fault::Kill => cluster.nodes[node].kill(),
        Fault::Freeze => cluster.nodes[node].freeze(),
        Fault::CutOff => network.cut(&[node], &others),
        Fault::Deaf => network.cut_one_way(&others, &[node]),
        Fault::Mute => network.cut_one_way(&[node], &others),
        Fault::Lossy => {
            let lossy = Condition { loss_per_mille: 200, ..Condition::default() };
            network.set(&[node], &others, lossy);
            network.set(&others, &[node], lossy);
        }
    }
}

/// Ends what concerns the process; the network is healed as a whole.
fn end(fault: Fault, node: usize, cluster: &mut Cluster) {
    match fault {
        Fault::Kill => cluster.nodes[node].restart(),
        Fault::Freeze => cluster.nodes[node].thaw(),
        Fault::CutOff | Fault::Deaf | Fault::Mute | Fault::Lossy => {}
    }
}

fn storm(seed: u64, rounds: usize) {
    let Some(network) = Network::start(NODES) else { return };
    let mut cluster = network.cluster(FLAGS);
    let groups = Group::of_each(&[Level::One, Level::Quorum, Level::SloppyQuorum], &addresses(&cluster));
    let mut dice = Dice { seed, draws: 0 };
    let groups = load::run(&groups, |progress| {
        for round in 0..rounds {
            let first = dice.below(NODES as u64) as usize;
            let second = (first + 1 + dice.below(NODES as u64 - 1) as usize) % NODES;
            let faults = [first, second].map(|node| (dice.pick(&FAULTS), node));
            // What led to a failure is in the output of the failed test.
            println!("seed {seed}, round {round}: {faults:?}");
            for (fault, node) in faults {
                begin(fault, node, &mut cluster, &network);
            }
            let lasting = LASTING_MS.start + dice.below(LASTING_MS.end - LASTING_MS.start);
            thread::sleep(Duration::from_millis(lasting));
            network.heal();
            for (fault, node) in faults {
                end(fault, node, &mut cluster);
            }
            // Mostly the next faults meet a cluster that is still busy with the last ones.
            if dice.below(3) == 0 {
                cluster.wait_formed();
            }
        }
        cluster.wait_formed();
        progress.wait_for(60);
    });
    conclude(&format!("storm of {rounds} rounds, seed {seed}"), &mut cluster, groups);
}

#[test]
fn a_storm_of_faults_costs_no_acknowledged_write() {
    storm(1, 8);
}

#[test]
#[ignore = "long: make faults"]
fn long_storms_of_faults_cost_no_acknowledged_write() {
    for seed in 2..6 {
        storm(seed, 25);
    }
}
