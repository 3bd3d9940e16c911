//! Deletions are forgotten once every replica has them and is known to; nothing that they deleted comes back, also not from a
//! node that was away for so long that the others went on without it.
//!
//! The grace period is ten seconds here instead of three days. The rest takes the time it takes everywhere: replicas look
//! every ten seconds how far they are, and wait for another comparison, begun twenty seconds later, before rows go.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Client, Cluster, Reply, eventually, node};

const FLAGS: &[&str] = &[
    "--tombstone-grace",
    "10",
    "--anti-entropy-interval",
    "5",
    "--anti-entropy-rate",
    "100000",
    "--ttl-sweep-interval",
    "1",
    // What members keep for others is told every sixty rounds.
    "--gossip-interval",
    "250",
    // As it is by default, too, hints do not wait for as long.
    "--hint-window",
    "5",
];
const GRACE: Duration = Duration::from_secs(10);
/// By then what is dead is gone, on a busy machine.
const PURGED_TIME_MAX: Duration = Duration::from_secs(180);

/// What `gyre status` tells of node `index`.
fn status(cluster: &Cluster, index: usize) -> Value {
    let mut command = node::gyre();
    command.args(["status", "--json", "--port", &cluster.nodes[index].port.to_string()]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn purged(cluster: &Cluster, index: usize) -> u64 {
    status(cluster, index)["purged-keys"].as_u64().unwrap()
}

/// Waits until each of `nodes` has purged so many keys since it started.
fn wait_purged(cluster: &Cluster, nodes: &[usize], keys: u64) {
    let deadline = Instant::now() + PURGED_TIME_MAX;
    for &index in nodes {
        while purged(cluster, index) < keys {
            assert!(Instant::now() < deadline, "node {index}: {:#}", status(cluster, index));
            std::thread::sleep(Duration::from_millis(200));
        }
        assert_eq!(purged(cluster, index), keys, "of node {index}, and nothing else");
    }
}

/// Waits until replicas have agreed on a horizon: all have compared everything once.
fn wait_horizon(cluster: &Cluster) {
    let deadline = Instant::now() + PURGED_TIME_MAX;
    while status(cluster, 0)["purge-horizon-seconds"].is_null() {
        assert!(Instant::now() < deadline, "{:#}", status(cluster, 0));
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// How many replicas say that they hold `key` so: `live`, `deleted`, `absent`.
fn held(client: &mut Client, key: &str, how: &str) -> usize {
    let shown = client.run(&format!("GYRE REPLICAS {key}"));
    let Some(Reply::Array(replicas)) = shown.field("replicas") else { panic!("{shown:?}") };
    replicas.iter().filter(|replica| replica.field("state") == Some(&Reply::bulk(how))).count()
}

fn set_all(client: &mut Client, names: std::ops::Range<usize>) {
    let lines: Vec<String> = names.map(|key| format!("SET d:{key} value-{key}")).collect();
    assert!(client.pipeline(&lines).iter().all(|reply| *reply == Reply::ok()));
}

fn delete_all(client: &mut Client, names: std::ops::Range<usize>) {
    let lines: Vec<String> = names.map(|key| format!("DEL d:{key}")).collect();
    assert!(client.pipeline(&lines).iter().all(|reply| *reply == Reply::Integer(1)));
}

/// Every one of these keys is absent at every node, whichever of its replicas is asked.
fn assert_gone(cluster: &Cluster, names: std::ops::Range<usize>) {
    for mut client in cluster.clients() {
        client.run("CONSISTENCY READ ONE");
        let lines: Vec<String> = names.clone().map(|key| format!("GET d:{key}")).collect();
        assert!(client.pipeline(&lines).iter().all(|reply| *reply == Reply::Null));
    }
    let mut client = cluster.client(0);
    for key in names.step_by(37) {
        assert_eq!(held(&mut client, &format!("d:{key}"), "live"), 0);
    }
}

#[test]
fn deleted_and_expired_keys_are_gone_from_every_disk_and_may_be_written_again() {
    let cluster = Cluster::start_with(3, FLAGS);
    let mut client = cluster.client(0);
    set_all(&mut client, 0..300);
    let counters: Vec<String> = (0..20).map(|key| format!("INCRBY c:{key} 5")).collect();
    client.pipeline(&counters);
    let short: Vec<String> = (0..40).map(|key| format!("SET e:{key} value PX 300")).collect();
    client.pipeline(&short);
    delete_all(&mut client, 0..200);
    client.pipeline(&(0..10).map(|key| format!("DEL c:{key}")).collect::<Vec<_>>());
    assert_eq!(status(&cluster, 0)["purge-horizon-seconds"], Value::Null, "nothing is agreed on yet");
    wait_purged(&cluster, &[0, 1, 2], 200 + 10 + 40);
    assert_gone(&cluster, 0..200);
    let horizon = status(&cluster, 1)["purge-horizon-seconds"].as_u64().unwrap();
    assert!(horizon >= GRACE.as_secs(), "{horizon}");
    assert_eq!(held(&mut client, "d:7", "absent"), 3);
    assert_eq!(held(&mut client, "d:299", "live"), 3);
    // What lives still does, and what is gone begins anew.
    assert_eq!(client.run("DBSIZE"), Reply::Integer(100 + 10));
    assert_eq!(client.run("GET d:299"), Reply::bulk("value-299"));
    assert_eq!(client.run("INCR c:0"), Reply::Integer(1));
    assert_eq!(client.run("INCR c:10"), Reply::Integer(6));
    assert_eq!(client.run("SET d:0 again"), Reply::ok());
    assert_eq!(cluster.client(2).run("GET d:0"), Reply::bulk("again"));
}

#[test]
fn a_node_that_is_down_holds_purging_up_and_what_it_missed_stays_deleted() {
    // Two of four: no majority could go on without them.
    let mut cluster = Cluster::start_with(4, FLAGS);
    let mut client = cluster.client(0);
    set_all(&mut client, 0..400);
    // Until all have compared everything once, so that what holds purging up later is that two are down.
    wait_horizon(&cluster);
    for down in [2, 3] {
        cluster.nodes[down].kill();
    }
    cluster.wait_noticed(&[2, 3]);
    delete_all(&mut client, 0..300);
    std::thread::sleep(GRACE * 4);
    for up in [0, 1] {
        let shown = status(&cluster, up);
        assert_eq!(shown["purged-keys"], 0, "{shown:#}");
        let held_up_by = shown["purge-held-up-by"].as_array().unwrap();
        for down in [2, 3] {
            assert!(
                held_up_by.contains(&Value::from(cluster.nodes[down].address().to_string())),
                "{shown:#}"
            );
        }
    }
    for down in [2, 3] {
        cluster.nodes[down].restart();
    }
    cluster.wait_formed();
    let deadline = Instant::now() + PURGED_TIME_MAX;
    // Each key is on three of the four.
    while (0..4).map(|index| purged(&cluster, index)).sum::<u64>() < 300 * 3 {
        assert!(Instant::now() < deadline, "{:#}", status(&cluster, 2));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_gone(&cluster, 0..300);
    assert!(cluster.nodes.iter().all(|node| !node.log().contains("AWAY FOR LONGER")));
}

#[test]
fn a_node_away_for_longer_than_the_grace_period_is_told_so_and_rejoins_empty() {
    let mut cluster = Cluster::start_with(3, FLAGS);
    let mut client = cluster.client(0);
    set_all(&mut client, 0..400);
    wait_horizon(&cluster);
    let incarnation = status(&cluster, 2)["incarnation"].as_u64().unwrap();
    cluster.nodes[2].kill();
    cluster.wait_noticed(&[2]);
    delete_all(&mut client, 0..300);
    // The others go on without it.
    wait_purged(&cluster, &[0, 1], 300);
    let lapsed = |cluster: &Cluster| {
        let nodes = status(cluster, 0)["nodes"].as_array().unwrap().clone();
        nodes.iter().filter(|node| node["lapsed"] == true).count()
    };
    assert_eq!(lapsed(&cluster), 1);
    // It has everything that was deleted, and no record of it.
    cluster.nodes[2].restart();
    cluster.nodes[2].wait_for_log("AWAY FOR LONGER THAN tombstone-grace");
    cluster.wait_formed();
    cluster.nodes[0].wait_for_log("must rejoin empty");
    let aside = std::fs::read_dir(cluster.nodes[2].store_dir().parent().unwrap()).unwrap();
    let aside = aside
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("store.lapsed-"));
    assert_eq!(aside.count(), 1, "its data is set aside");
    assert!(status(&cluster, 2)["incarnation"].as_u64().unwrap() > incarnation + 1);
    // Anti-entropy gives it what lives.
    let mut returned = cluster.client(2);
    eventually("it holds what it should", || match held(&mut returned, "d:399", "live") {
        3 => Ok(()),
        live => Err(live),
    });
    eventually("it counts again", || match lapsed(&cluster) {
        0 => Ok(()),
        lapsed => Err(lapsed),
    });
    assert_gone(&cluster, 0..300);
    eventually("it holds all that it should", || match returned.run("DBSIZE") {
        Reply::Integer(100) => Ok(()),
        other => Err(other),
    });
    assert_gone(&cluster, 0..300);
    // And takes part: what is deleted now is purged by all three.
    delete_all(&mut returned, 300..350);
    wait_purged(&cluster, &[2], 50);
    wait_purged(&cluster, &[0, 1], 350);
    assert_gone(&cluster, 0..350);
}

#[test]
fn a_cluster_that_was_switched_off_for_longer_has_everything() {
    let mut cluster = Cluster::start_with(3, FLAGS);
    set_all(&mut cluster.client(0), 0..100);
    for node in &mut cluster.nodes {
        node.terminate();
    }
    std::thread::sleep(GRACE * 2);
    cluster.nodes[0].restart();
    cluster.nodes[1].restart();
    // The last one is a little later than the others, and no more.
    std::thread::sleep(GRACE / 2);
    cluster.nodes[2].restart();
    cluster.wait_formed();
    std::thread::sleep(GRACE + GRACE / 2);
    for index in 0..3 {
        assert_eq!(cluster.client(index).run("DBSIZE"), Reply::Integer(100));
        assert!(!cluster.nodes[index].log().contains("AWAY FOR LONGER"));
    }
}
