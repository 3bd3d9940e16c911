//! Nodes die and come back: who is still served, and what the returned know.

use crate::support::{Client, Cluster, Reply, eventually, eventually_equals};

const KEYS: usize = 60;

fn write(client: &mut Client, value: &str) {
    for key in 0..KEYS {
        assert_eq!(client.run(&format!("SET key:{key} {value}")), Reply::ok());
    }
}

fn expect(client: &mut Client, value: &str) {
    for key in 0..KEYS {
        assert_eq!(client.run(&format!("GET key:{key}")), Reply::bulk(value), "key:{key}");
    }
}

#[test]
fn what_one_node_writes_the_others_read_change_and_delete() {
    let cluster = Cluster::start(3);
    let mut clients = cluster.clients();
    for writer in 0..3 {
        let (reader, deleter) = ((writer + 1) % 3, (writer + 2) % 3);
        assert_eq!(clients[writer].run("SET k v EX 100"), Reply::ok());
        assert_eq!(clients[reader].run("GET k"), Reply::bulk("v"));
        let ttl = clients[deleter].run("TTL k").integer();
        assert!((95..=100).contains(&ttl), "{ttl}");
        assert_eq!(clients[reader].run("APPEND k w"), Reply::Integer(2));
        assert_eq!(clients[deleter].run("DEL k"), Reply::Integer(1));
        assert_eq!(clients[writer].run("GET k"), Reply::Null);
        assert_eq!(clients[reader].run("DEL k"), Reply::Integer(0));
    }
}

#[test]
fn quorum_survives_one_node_and_one_survives_two() {
    let mut cluster = Cluster::start(3);
    let mut clients = cluster.clients();
    write(&mut clients[2], "first");

    cluster.nodes[2].kill();
    // From the first command on, without an error.
    expect(&mut clients[0], "first");
    write(&mut clients[1], "second");
    expect(&mut clients[0], "second");
    assert_eq!(clients[0].run("INCR counter"), Reply::Integer(1));
    assert_eq!(clients[1].run("SET lock me NX"), Reply::ok());
    assert_eq!(clients[0].run("DEL lock"), Reply::Integer(1));

    cluster.nodes[1].kill();
    let refusal = Reply::Error("UNAVAILABLE needed 2 alive 1".into());
    eventually_equals("QUORUM writes are refused", &refusal, || clients[0].run("SET key:0 third"));
    assert_eq!(clients[0].run("GET key:0"), refusal);
    assert_eq!(clients[0].run("INCR counter"), refusal);
    assert_eq!(clients[0].run("DEL key:0"), refusal);
    assert_eq!(clients[0].run("CONSISTENCY ONE"), Reply::ok());
    expect(&mut clients[0], "second");
    assert_eq!(clients[0].run("SET alone v"), Reply::ok());
    assert_eq!(clients[0].run("GET alone"), Reply::bulk("v"));

    cluster.nodes[1].restart();
    cluster.nodes[2].restart();
    cluster.wait_formed();
    for client in &mut cluster.clients() {
        expect(client, "second");
        // Written at ONE while it was the only node: read where ALL are asked.
        client.run("CONSISTENCY READ ALL");
        assert_eq!(client.run("GET alone"), Reply::bulk("v"));
    }
}

#[test]
fn quorum_reads_repair_a_node_that_was_down() {
    let mut cluster = Cluster::start(3);
    write(&mut cluster.client(0), "old");
    cluster.client(0).run("SET deleted v");
    cluster.nodes[2].kill();
    write(&mut cluster.client(0), "new");
    assert_eq!(cluster.client(1).run("DEL deleted"), Reply::Integer(1));

    cluster.nodes[2].restart();
    cluster.wait_formed();
    let mut client = cluster.client(2);
    expect(&mut client, "new");
    assert_eq!(client.run("GET deleted"), Reply::Null);
    // Reading has brought it up to date: it now answers the same without the others.
    cluster.nodes[0].kill();
    cluster.nodes[1].kill();
    cluster.wait_noticed(&[0, 1]);
    assert_eq!(client.run("CONSISTENCY ONE"), Reply::ok());
    expect(&mut client, "new");
    assert_eq!(client.run("GET deleted"), Reply::Null);
}

#[test]
fn the_whole_cluster_keeps_its_data_when_all_nodes_restart() {
    let mut cluster = Cluster::start(3);
    write(&mut cluster.client(0), "kept");
    cluster.client(1).run("SET timed v EX 1000");
    assert_eq!(cluster.client(2).run("INCRBY counter 7"), Reply::Integer(7));
    let identity = cluster.client(0).run("CLUSTER MYID");
    for node in &mut cluster.nodes {
        node.kill();
    }
    for node in &mut cluster.nodes {
        node.restart();
    }
    cluster.wait_formed();
    assert_eq!(cluster.client(0).run("CLUSTER MYID"), identity);
    for client in &mut cluster.clients() {
        expect(client, "kept");
        let ttl = client.run("TTL timed").integer();
        assert!((900..=1000).contains(&ttl), "{ttl}");
        assert_eq!(client.run("GET counter"), Reply::bulk("7"));
    }
    assert_eq!(cluster.client(1).run("INCR counter"), Reply::Integer(8));
}

#[test]
fn a_flush_reaches_a_node_that_was_down() {
    let mut cluster = Cluster::start(3);
    write(&mut cluster.client(0), "old");
    cluster.nodes[2].kill();
    assert_eq!(cluster.client(0).run("FLUSHALL"), Reply::ok());
    assert_eq!(cluster.client(1).run("DBSIZE"), Reply::Integer(0));
    assert_eq!(cluster.client(1).run("SET after v"), Reply::ok());

    cluster.nodes[2].restart();
    cluster.wait_formed();
    let mut client = cluster.client(2);
    assert_eq!(client.run("GET key:0"), Reply::Null);
    assert_eq!(client.run("GET after"), Reply::bulk("v"));
    assert_eq!(client.run("DBSIZE"), Reply::Integer(1));
    // Its own copy, too, is flushed.
    client.run("CONSISTENCY ONE");
    eventually("its own keys are gone", || {
        let left: Vec<usize> =
            (0..KEYS).filter(|key| client.run(&format!("GET key:{key}")) != Reply::Null).collect();
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

#[test]
fn a_stopped_node_is_no_node_to_wait_for() {
    let mut cluster = Cluster::start(3);
    let mut client = cluster.client(0);
    client.run("SET k v");
    assert!(cluster.nodes[1].terminate().success());
    cluster.wait_noticed(&[1]);
    assert_eq!(client.run("GET k"), Reply::bulk("v"));
    client.run("CONSISTENCY ALL");
    assert_eq!(client.run("SET k w"), Reply::Error("UNAVAILABLE needed 3 alive 2".into()));
    cluster.nodes[1].restart();
    cluster.wait_formed();
    eventually_equals("ALL is served again", &Reply::ok(), || client.run("SET k w"));
}
