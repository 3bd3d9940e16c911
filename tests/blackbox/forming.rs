//! How nodes become one cluster, and when they must not.

use crate::support::cluster::seeds;
use crate::support::{Client, Cluster, Node, Reply, eventually_equals, node};

#[test]
fn nodes_started_with_the_same_seeds_form_one_cluster() {
    let cluster = Cluster::start(3);
    let ids = |index: usize| {
        let lines = cluster.client(index).run("CLUSTER NODES").text();
        let mut ids: Vec<String> =
            lines.lines().map(|line| line.split(' ').next().unwrap().to_string()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(0).len(), 3);
    assert!(ids(0).iter().all(|id| id.len() == 40), "{:?}", ids(0));
    assert_eq!((ids(1), ids(2)), (ids(0), ids(0)));
    // The same ring everywhere.
    let ranges = |index: usize| cluster.client(index).run("CLUSTER SLOTS");
    assert_eq!((ranges(1), ranges(2)), (ranges(0), ranges(0)));
}

#[test]
fn five_nodes_keep_each_key_three_times_and_serve_it_from_anywhere() {
    let mut cluster = Cluster::start(5);
    let mut clients = cluster.clients();
    for key in 0..100 {
        assert_eq!(clients[key % 5].run(&format!("SET key:{key} value:{key}")), Reply::ok());
    }
    for (index, client) in clients.iter_mut().enumerate() {
        for key in 0..100 {
            assert_eq!(
                client.run(&format!("GET key:{key}")),
                Reply::bulk(&format!("value:{key}")),
                "by node {index}"
            );
        }
        assert_eq!(client.run("DBSIZE"), Reply::Integer(100));
    }
    // Whichever three nodes hold a key, two of them live.
    cluster.nodes[4].kill();
    for key in 0..100 {
        assert_eq!(clients[key % 4].run(&format!("GET key:{key}")), Reply::bulk(&format!("value:{key}")));
        assert_eq!(clients[key % 4].run(&format!("SET key:{key} again")), Reply::ok());
    }
}

#[test]
fn a_fresh_node_waits_for_seeds_that_it_cannot_reach() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = [Node::new(dir.path(), "early"), Node::new(dir.path(), "late")];
    let seeds = seeds(&nodes);
    nodes[0].start(&["--seeds", &seeds]);
    let mut client = nodes[0].client_soon();
    nodes[0].wait_for_log("the cluster has not formed yet");
    nodes[0].wait_for_log("no link to a peer yet");
    assert_eq!(nodes[0].cluster_info().unwrap().0, "fail");
    let refused = client.run("SET k v");
    assert!(refused.error().starts_with("UNAVAILABLE "), "{refused:?}");

    nodes[1].start(&["--seeds", &seeds]);
    for node in &nodes {
        eventually_equals("both form one cluster", &Ok(("ok".to_string(), 2)), || node.cluster_info());
        eventually_equals("both are up", &0, || node.sees_down());
    }
    assert_eq!(client.run("SET k v"), Reply::ok());
    assert_eq!(nodes[1].client().run("GET k"), Reply::bulk("v"));
}

#[test]
fn a_node_that_comes_later_coordinates_and_holds_nothing() {
    let cluster = Cluster::start(3);
    cluster.client(0).run("SET k v");
    let dir = tempfile::tempdir().unwrap();
    let mut late = Node::new(dir.path(), "late");
    late.start(&["--seeds", &seeds(&cluster.nodes)]);
    let mut client = late.client_soon();
    eventually_equals("it joins", &Ok(("ok".to_string(), 4)), || late.cluster_info());
    eventually_equals("it reads", &Reply::bulk("v"), || client.run("GET k"));
    assert_eq!(client.run("SET k w"), Reply::ok());
    assert_eq!(cluster.client(1).run("GET k"), Reply::bulk("w"));
    let own = client.run("CLUSTER MYID").text();
    let lines = client.run("CLUSTER NODES").text();
    let line = lines.lines().find(|line| line.starts_with(&own)).unwrap();
    assert!(line.ends_with("connected"), "it owns no slots: {line}");
}

#[test]
fn a_data_directory_of_another_cluster_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::new(dir.path(), "node");
    node.start(&["--cluster-name", "one"]);
    node.client_soon();
    eventually_equals("it forms", &Ok(("ok".to_string(), 1)), || node.cluster_info());
    assert!(node.terminate().success());
    node.start(&["--cluster-name", "two"]);
    assert!(!node.wait_end().success());
    let log = node.log();
    assert!(log.contains("cluster-name") && log.contains("\"one\"") && log.contains("\"two\""), "{log}");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = Node::new(dir.path(), "first");
    first.start(&[]);
    first.client_soon();
    let output = node::gyre()
        .args(["server", "--bind", "127.0.0.1", "--port", &first.port.to_string(), "--dir"])
        .arg(dir.path().join("second"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(text.contains(&format!("127.0.0.1:{}", first.port)) && text.contains("`port`"), "{text}");
}

#[test]
fn a_node_that_lost_its_disk_comes_back_empty_under_its_id_as_a_later_incarnation() {
    let mut cluster = Cluster::start(3);
    let mut client = cluster.client(0);
    for key in 0..200 {
        assert_eq!(client.run(&format!("SET key:{key} value")), Reply::ok());
    }
    assert_eq!(cluster.client(1).run("INCRBY counter 5"), Reply::Integer(5));
    let id = field(&mut cluster.client(2), "node");
    let before: i64 = field(&mut cluster.client(2), "incarnation").parse().unwrap();
    cluster.nodes[2].kill();
    assert_eq!(client.run("INCRBY counter 5"), Reply::Integer(10));
    cluster.nodes[2].lose_disk();
    let seeds = seeds(&cluster.nodes);
    cluster.nodes[2].start(&["--seeds", &seeds, "--node-id", &id]);
    cluster.wait_formed();
    let log = cluster.nodes[2].log();
    assert!(log.contains("its disk is empty"), "it says so: {log}");
    let mut back = cluster.client(2);
    assert_eq!(field(&mut back, "node"), id);
    let after: i64 = field(&mut back, "incarnation").parse().unwrap();
    assert!(after > before, "{after} comes after {before}");
    for (count, client) in (11..).zip(&mut cluster.clients()) {
        assert_eq!(client.run("INCRBY counter 1"), Reply::Integer(count));
        for key in 0..200 {
            assert_eq!(client.run(&format!("GET key:{key}")), Reply::bulk("value"), "key {key}");
        }
    }
    // It counts its starts on from there.
    assert!(cluster.nodes[2].terminate().success());
    cluster.nodes[2].restart();
    cluster.wait_formed();
    assert!(field(&mut cluster.client(2), "incarnation").parse::<i64>().unwrap() > after);
}

#[test]
fn a_second_process_of_an_id_does_not_get_the_seat_of_one_that_is_alive() {
    let cluster = Cluster::start(3);
    let id = field(&mut cluster.client(2), "node");
    let dir = tempfile::tempdir().unwrap();
    let mut second = Node::new(dir.path(), "second");
    second.start(&["--seeds", &seeds(&cluster.nodes), "--node-id", &id]);
    second.wait_end();
    let log = second.log();
    assert!(log.contains("another process"), "{log}");
    assert_eq!(cluster.client(0).run("SET k v"), Reply::ok());
    assert_eq!(cluster.nodes[0].sees_down(), 0);
}

/// A field of GYRE STATUS.
fn field(client: &mut Client, name: &str) -> String {
    let Reply::Array(fields) = client.run("GYRE STATUS") else { panic!("GYRE STATUS is a map") };
    let at = fields.iter().position(|field| *field == Reply::bulk(name)).unwrap();
    match &fields[at + 1] {
        Reply::Integer(number) => number.to_string(),
        other => other.clone().text(),
    }
}
