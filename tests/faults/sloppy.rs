//! Sloppy quorums: both sides of a broken network serve, and the hints they keep drain when it is whole again.

use std::net::SocketAddr;

use crate::load::{self, Group, Level, Work};
use crate::network::Network;
use crate::processes::{FLAGS, rolling_restart};
use crate::report::conclude;
use crate::support::eventually_equals;
use crate::verify::pending_hints;

/// Operations of every group between two steps of a scenario.
const SOME: u64 = 60;
/// Operations of every group while the network is broken and everybody knows.
const MANY: u64 = 300;

#[test]
fn a_rolling_restart_fails_no_operation_of_a_client_that_goes_elsewhere() {
    let report = rolling_restart(&[Level::SloppyQuorum]);
    report.expect_nothing_behind();
    for (group, _) in &report.groups {
        // Connections end with the nodes; whoever is answered is answered well. A stopping node says so first, and then
        // answers what it was asked until then. (An increment may meet a leader that has just started, and be refused.)
        let failures = group.ledger.failures;
        assert_eq!(failures.timeout, 0, "{}", group.group.name());
        if group.group.work == Work::Registers {
            assert_eq!(failures.unavailable, 0);
        }
    }
}

#[test]
fn both_sides_of_a_partition_serve_and_their_hints_drain_after_it() {
    const SIDES: [(&str, &[usize]); 2] = [("side of two", &[0, 1]), ("side of three", &[2, 3, 4])];
    let Some(network) = Network::start(5) else { return };
    let mut cluster = network.cluster(FLAGS);
    let groups = SIDES.iter().flat_map(|(side, nodes)| {
        let nodes: Vec<SocketAddr> = nodes.iter().map(|node| cluster.nodes[*node].address()).collect();
        Group::of_each(&[Level::SloppyQuorum], &nodes).into_iter().map(|group| group.on(side))
    });
    let groups: Vec<Group> = groups.collect();
    let groups = load::run(&groups, |progress| {
        progress.wait_for(SOME);
        network.cut(SIDES[0].1, SIDES[1].1);
        for (_, nodes) in SIDES {
            let others = cluster.nodes.len() - nodes.len();
            for node in nodes {
                let node = &cluster.nodes[*node];
                eventually_equals("the other side is seen down", &others, || node.sees_down());
            }
        }
        // What was sent before everybody knew may still end in a time-out.
        eventually_equals("both sides serve every operation", &0, || {
            let before = progress.failed();
            progress.wait_for(MANY);
            progress.failed() - before
        });
        assert!(pending_hints(&cluster) > 0, "fallbacks keep hints");
        network.heal();
        cluster.wait_formed();
        progress.wait_for(SOME);
    });
    conclude("two of five nodes cut off from three", &mut cluster, groups).expect_nothing_behind();
}
