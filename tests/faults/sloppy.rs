//! Sloppy quorums: both sides of a broken network serve, and the hints they keep drain when it is whole again.

use std::net::SocketAddr;

use crate::load::{self, Group, Level};
use crate::network::Network;
use crate::processes::{FLAGS, addresses};
use crate::report::conclude;
use crate::support::{Cluster, Node, Reply, eventually, eventually_equals};

/// Operations of every group between two steps of a scenario.
const SOME: u64 = 60;
/// Operations of every group while the network is broken and everybody knows.
const MANY: u64 = 300;

/// Keys for which `node` holds hints, whatever their target.
fn pending_hints(node: &Node) -> i64 {
    let reply = node.client().run("GYRE HINTS");
    assert!(reply.error().is_empty(), "{reply:?}");
    keys_in(&reply)
}

/// The sum of all fields `keys` anywhere in `reply`.
fn keys_in(reply: &Reply) -> i64 {
    let Reply::Array(items) = reply else { return 0 };
    let own = match reply.field("keys") {
        Some(Reply::Integer(keys)) => *keys,
        _ => 0,
    };
    own + items.iter().map(keys_in).sum::<i64>()
}

fn all_pending_hints(cluster: &Cluster) -> i64 {
    cluster.nodes.iter().map(pending_hints).sum()
}

#[test]
#[ignore = "until sloppy quorums are merged"]
fn a_rolling_restart_fails_no_operation_of_a_client_that_goes_elsewhere() {
    let mut cluster = Cluster::start_with(3, FLAGS);
    let groups = Group::of_each(&[Level::SloppyQuorum], &addresses(&cluster));
    let groups = load::run(&groups, |progress| {
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
    for (group, _) in &report.groups {
        let failures = group.ledger.failures;
        // Connections end with the nodes; whoever is answered is answered well.
        assert_eq!((failures.unavailable, failures.timeout), (0, 0), "{}", group.group.name());
        assert_eq!(group.ledger.given_up, 0, "{}", group.group.name());
    }
}

#[test]
#[ignore = "until sloppy quorums are merged"]
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
        // What was sent before everybody knew has been answered by now.
        progress.wait_for(SOME);
        let before = progress.failed();
        progress.wait_for(MANY);
        assert_eq!(progress.failed(), before, "both sides serve every operation");
        assert!(all_pending_hints(&cluster) > 0, "fallbacks keep hints");
        network.heal();
        cluster.wait_formed();
        progress.wait_for(SOME);
    });
    eventually("hints drain", || match all_pending_hints(&cluster) {
        0 => Ok(()),
        left => Err(left),
    });
    let report = conclude("two of five nodes cut off from three", &mut cluster, groups);
    for (group, verdict) in &report.groups {
        assert_eq!(verdict.behind, 0, "{}: hints have brought everything, unread", group.group.name());
    }
}
