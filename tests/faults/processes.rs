//! Processes die, freeze and restart.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use crate::load::{self, Group, Level};
use crate::report::{Report, conclude};
use crate::support::{Cluster, Node};

/// Servers answer or refuse within this time, as in production, not as on a crowded machine.
pub(crate) const FLAGS: &[&str] = &["--request-timeout-ms", "1000"];
/// Operations of every group between two steps of a scenario: there is load before, during and after a fault.
const SOME: u64 = 60;

pub(crate) fn addresses(cluster: &Cluster) -> Vec<SocketAddr> {
    cluster.nodes.iter().map(Node::address).collect()
}

/// Clients at ONE and clients at QUORUM, through all nodes.
pub(crate) fn both_levels(cluster: &Cluster) -> Vec<Group> {
    Group::of_each(&[Level::One, Level::Quorum], &addresses(cluster))
}

/// Kills one node after the other, `rounds` times, restarting each while the load goes on.
fn kill_in_a_loop(rounds: usize) {
    let mut cluster = Cluster::start_with(3, FLAGS);
    let groups = load::run(&both_levels(&cluster), |progress| {
        for round in 0..rounds {
            let victim = round % cluster.nodes.len();
            progress.wait_for(SOME);
            cluster.nodes[victim].kill();
            progress.wait_for(SOME);
            cluster.nodes[victim].restart();
            cluster.wait_formed();
        }
        progress.wait_for(SOME);
    });
    conclude(&format!("kill -9 and restart, {rounds} times"), &mut cluster, groups);
}

#[test]
fn nothing_acknowledged_is_lost_when_nodes_are_killed_in_a_loop() {
    kill_in_a_loop(6);
}

#[test]
#[ignore = "long: make faults"]
fn nothing_acknowledged_is_lost_when_nodes_are_killed_forty_times() {
    kill_in_a_loop(40);
}

/// Freezes a node for `time` under load.
fn freeze(time: Duration) {
    let mut cluster = Cluster::start_with(3, FLAGS);
    let groups = load::run(&both_levels(&cluster), |progress| {
        progress.wait_for(SOME);
        cluster.nodes[1].freeze();
        thread::sleep(time);
        cluster.nodes[1].thaw();
        cluster.wait_formed();
        progress.wait_for(SOME);
    });
    conclude(&format!("SIGSTOP for {} s", time.as_secs()), &mut cluster, groups);
}

#[test]
fn a_node_frozen_for_5_s_costs_no_acknowledged_write() {
    freeze(Duration::from_secs(5));
}

#[test]
#[ignore = "long: make faults"]
fn a_node_frozen_for_60_s_costs_no_acknowledged_write() {
    freeze(Duration::from_secs(60));
}

/// Stops and starts one node after the other, in order, while clients of `levels` work. No operation fails for good.
pub(crate) fn rolling_restart(levels: &[Level]) -> Report {
    let mut cluster = Cluster::start_with(3, FLAGS);
    let groups = load::run(&Group::of_each(levels, &addresses(&cluster)), |progress| {
        for node in 0..cluster.nodes.len() {
            progress.wait_for(SOME);
            assert!(cluster.nodes[node].terminate().success());
            progress.wait_for(SOME);
            cluster.nodes[node].restart();
            cluster.wait_formed();
        }
        progress.wait_for(SOME);
    });
    let report = conclude("rolling restart", &mut cluster, groups);
    report.expect_all_done();
    report
}

#[test]
fn a_rolling_restart_loses_nothing_and_one_and_quorum_are_served_throughout() {
    rolling_restart(&[Level::One, Level::Quorum]);
}
