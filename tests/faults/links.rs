//! Networks break: partitions, loss, delay. In network namespaces; skipped, loudly, where these cannot be made.

use std::thread;
use std::time::Duration;

use crate::load;
use crate::network::Network;
use crate::processes::{FLAGS, both_levels};
use crate::report::conclude;
use crate::wire::Condition;

/// How long a network stays broken: shorter than peers keep a silent link, and longer.
const SHORT: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(15);
/// Operations of every group between two steps of a scenario.
const SOME: u64 = 60;
/// Breaks the network of three nodes by `harm` under load, for `time`.
fn broken(scenario: &str, time: Duration, harm: impl FnOnce(&Network)) {
    let Some(network) = Network::start(3) else { return };
    let mut cluster = network.cluster(FLAGS);
    let groups = load::run(&both_levels(&cluster), |progress| {
        progress.wait_for(SOME);
        harm(&network);
        thread::sleep(time);
        network.heal();
        cluster.wait_formed();
        progress.wait_for(SOME);
    });
    conclude(&format!("{scenario} for {} s", time.as_secs()), &mut cluster, groups);
}

#[test]
fn a_node_cut_off_costs_no_acknowledged_write() {
    broken("one node of three cut off", LONG, |network| network.cut(&[2], &[0, 1]));
}

#[test]
#[ignore = "long: make faults"]
fn a_node_cut_off_for_60_s_costs_no_acknowledged_write() {
    broken("one node of three cut off", Duration::from_secs(60), |network| network.cut(&[2], &[0, 1]));
}

#[test]
fn a_node_that_is_heard_but_does_not_hear_costs_no_acknowledged_write() {
    broken("one way: a node hears nobody", SHORT, |network| network.cut_one_way(&[0, 1], &[2]));
}

#[test]
fn a_node_that_hears_but_is_not_heard_costs_no_acknowledged_write() {
    broken("one way: nobody hears a node", SHORT, |network| network.cut_one_way(&[2], &[0, 1]));
}

/// Puts `condition` in force between all nodes while every group has `operations` done.
fn impaired(scenario: &str, condition: Condition, operations: u64) {
    let Some(network) = Network::start(3) else { return };
    let mut cluster = network.cluster(FLAGS);
    let groups = load::run(&both_levels(&cluster), |progress| {
        progress.wait_for(SOME);
        network.set_all(condition);
        progress.wait_for(operations);
        network.heal();
        progress.wait_for(SOME);
    });
    conclude(scenario, &mut cluster, groups).expect_all_done();
}

#[test]
fn five_percent_loss_slows_and_loses_nothing() {
    impaired("5 % of packets lost", Condition { loss_per_mille: 50, ..Condition::default() }, 400);
}

#[test]
fn a_delay_of_100_ms_slows_and_loses_nothing() {
    let delay = Duration::from_millis(100);
    impaired("100 ms more each way", Condition { delay, ..Condition::default() }, SOME);
}
