//! What was acknowledged is there after a crash, and after an orderly stop.

use std::thread;

use crate::support::{Node, Reply, eventually_equals};

/// Kills a node while it is loaded, restarts it, and checks every acknowledged write.
fn survives_a_kill_in_mid_load(fsync: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::new(dir.path(), "node");
    node.start(&["--appendfsync", fsync]);
    let mut client = node.client_soon();
    eventually_equals("it serves", &Reply::ok(), || client.run("SET ready v"));
    let mut clients: Vec<_> = (0..3).map(|_| node.client()).collect();
    let acknowledged: Vec<usize> = thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter_mut()
            .enumerate()
            .map(|(number, client)| {
                scope.spawn(move || {
                    let is_ok = |key: &usize| {
                        let line = format!("SET w{number}:{key} value:{key}");
                        client.try_run(&line).is_ok_and(|reply| reply == Reply::ok())
                    };
                    (0..1_000_000).take_while(is_ok).count()
                })
            })
            .collect();
        let mut watcher = client;
        eventually_equals("there is load", &true, || watcher.run("DBSIZE").integer() > 200);
        node.kill();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(acknowledged.iter().sum::<usize>() > 100, "{acknowledged:?}");
    node.restart();
    let mut client = node.client_soon();
    eventually_equals("it serves again", &Reply::bulk("v"), || client.run("GET ready"));
    for (number, count) in acknowledged.into_iter().enumerate() {
        let lines: Vec<String> = (0..count).map(|key| format!("GET w{number}:{key}")).collect();
        for (key, reply) in client.pipeline(&lines).into_iter().enumerate() {
            assert_eq!(reply, Reply::bulk(&format!("value:{key}")), "w{number}:{key} of {count}");
        }
    }
}

#[test]
fn a_killed_node_has_every_acknowledged_write_with_fsync_always() {
    survives_a_kill_in_mid_load("always");
}

#[test]
fn a_killed_process_has_every_acknowledged_write_with_fsync_everysec() {
    survives_a_kill_in_mid_load("everysec");
}

#[test]
fn sigterm_stops_in_order_and_the_data_is_there_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::new(dir.path(), "node");
    node.start(&["--appendfsync", "no"]);
    let mut client = node.client_soon();
    eventually_equals("it serves", &Reply::ok(), || client.run("SET k v"));
    assert_eq!(client.run("INCRBY n 41"), Reply::Integer(41));
    let status = node.terminate();
    assert!(status.success(), "{status}");
    assert!(node.log().contains("stopped; everything acknowledged is on disk"), "{}", node.log());
    node.restart();
    let mut client = node.client_soon();
    eventually_equals("it serves again", &Reply::bulk("v"), || client.run("GET k"));
    assert_eq!(client.run("INCR n"), Reply::Integer(42));
    assert_eq!(client.run("SET k w"), Reply::ok());
    assert_eq!(client.run("GET k"), Reply::bulk("w"));
}
