//! One node without seeds: works like redis-server.

use crate::support::{Cluster, Node, Reply, eventually_equals};

#[test]
fn a_node_alone_answers_as_redis_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::new(dir.path(), "alone");
    node.start(&[]);
    let mut client = node.client_soon();
    eventually_equals("it forms a cluster of one", &Ok(("ok".to_string(), 1)), || node.cluster_info());

    assert_eq!(client.run("GET k"), Reply::Null);
    assert_eq!(client.run("SET k v"), Reply::ok());
    assert_eq!(client.run("GET k"), Reply::bulk("v"));
    assert_eq!(client.run("APPEND k w"), Reply::Integer(2));
    assert_eq!(client.run("MSET a 1 b 2 c 3"), Reply::ok());
    assert_eq!(
        client.run("MGET a b none"),
        Reply::Array(vec![Reply::bulk("1"), Reply::bulk("2"), Reply::Null])
    );
    assert_eq!(client.run("INCRBY a 41"), Reply::Integer(42));
    assert_eq!(client.run("DEL a b none"), Reply::Integer(2));
    assert_eq!(client.run("EXISTS a c"), Reply::Integer(1));
    assert_eq!(client.run("SET k x NX"), Reply::Null);
    assert_eq!(client.run("SET k x XX GET"), Reply::bulk("vw"));
    assert_eq!(client.run("INCR k"), Reply::Error("ERR value is not an integer or out of range".into()));
    assert_eq!(client.run("DBSIZE"), Reply::Integer(2));
}

#[test]
fn databases_are_separate_and_keys_move_between_them() {
    let mut cluster = Cluster::start(1);
    let mut client = cluster.nodes[0].client_soon();
    client.run("SET k zero");
    assert_eq!(client.run("SELECT 5"), Reply::ok());
    assert_eq!(client.run("GET k"), Reply::Null);
    client.run("SET other five");
    assert_eq!(client.run("MOVE other 0"), Reply::Integer(1));
    assert_eq!(client.run("DBSIZE"), Reply::Integer(0));
    client.run("SET k five");
    assert_eq!(client.run("FLUSHDB"), Reply::ok());
    assert_eq!(client.run("SELECT 0"), Reply::ok());
    assert_eq!(client.run("MGET k other"), Reply::Array(vec![Reply::bulk("zero"), Reply::bulk("five")]));
    assert_eq!(client.run("SELECT 16"), Reply::Error("ERR DB index is out of range".into()));
}

#[test]
fn keys_expire_when_they_should() {
    let cluster = Cluster::start(1);
    let mut client = cluster.client(0);
    client.run("SET soon v PX 150");
    client.run("SET later v EX 100");
    assert_eq!(client.run("TTL later"), Reply::Integer(100));
    assert_eq!(client.run("PERSIST later"), Reply::Integer(1));
    assert_eq!(client.run("TTL later"), Reply::Integer(-1));
    eventually_equals("the key expires", &Reply::Null, || client.run("GET soon"));
    assert_eq!(client.run("TTL soon"), Reply::Integer(-2));
    assert_eq!(client.run("EXISTS soon later"), Reply::Integer(1));
    assert_eq!(client.run("DBSIZE"), Reply::Integer(1));
}
