//! SCAN, KEYS, DBSIZE, FLUSHDB: the keys of the whole cluster, from any node.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{Client, Cluster, Reply};

const KEYS: usize = 1500;

/// What SCAN returns from beginning to end, with how often.
fn scan(client: &mut Client, options: &str) -> BTreeMap<String, usize> {
    let mut seen = BTreeMap::new();
    let mut cursor = "0".to_string();
    for _ in 0..10 * KEYS {
        let mut page = client.run(&format!("SCAN {cursor} {options}")).array();
        let keys = page.pop().unwrap().array();
        cursor = page.pop().unwrap().text();
        for key in keys {
            *seen.entry(key.text()).or_default() += 1;
        }
        if cursor == "0" {
            return seen;
        }
    }
    panic!("SCAN does not end");
}

#[test]
fn scan_returns_every_key_once_from_every_node_also_with_one_down() {
    let mut cluster = Cluster::start(3);
    let lines: Vec<String> = (0..KEYS).map(|key| format!("SET scan:{key} v")).collect();
    assert!(cluster.client(0).pipeline(&lines).iter().all(|reply| *reply == Reply::ok()));
    cluster.client(1).run("DEL scan:0 scan:1");
    let expected: BTreeMap<String, usize> = (2..KEYS).map(|key| (format!("scan:{key}"), 1)).collect();
    for client in &mut cluster.clients() {
        assert_eq!(scan(client, "COUNT 100"), expected);
        assert_eq!(client.run("DBSIZE"), Reply::Integer(i64::try_from(KEYS).unwrap() - 2));
    }
    cluster.nodes[1].kill();
    assert_eq!(scan(&mut cluster.client(0), "COUNT 1000"), expected);
    let some = scan(&mut cluster.client(2), "MATCH scan:14?? COUNT 500");
    assert_eq!(some.len(), 100);
    let found: BTreeSet<String> =
        cluster.client(2).run("KEYS scan:99?").array().into_iter().map(Reply::text).collect();
    assert_eq!(found, (990..1000).map(|key| format!("scan:{key}")).collect());
}

#[test]
fn keys_that_come_and_go_do_not_hide_those_that_stay() {
    let cluster = Cluster::start(3);
    let (mut scanner, mut writer) = (cluster.client(0), cluster.client(1));
    let lines: Vec<String> = (0..300).map(|key| format!("SET stays:{key} v")).collect();
    writer.pipeline(&lines);
    let mut seen = BTreeSet::new();
    let mut cursor = "0".to_string();
    for round in 0..1000 {
        writer.run(&format!("SET comes:{round} v"));
        writer.run(&format!("DEL comes:{}", round / 2));
        let mut page = scanner.run(&format!("SCAN {cursor} COUNT 10 MATCH stays:*")).array();
        seen.extend(page.pop().unwrap().array().into_iter().map(Reply::text));
        cursor = page.pop().unwrap().text();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!((cursor.as_str(), seen.len()), ("0", 300));
}

#[test]
fn flushdb_empties_one_database_on_all_nodes() {
    let cluster = Cluster::start(3);
    let mut clients = cluster.clients();
    for client in &mut clients {
        client.run("SELECT 3");
    }
    let lines: Vec<String> = (0..100).map(|key| format!("SET k:{key} v")).collect();
    clients[0].pipeline(&lines);
    clients[2].run("SELECT 4");
    clients[2].run("SET k:0 other");
    assert_eq!(clients[1].run("FLUSHDB"), Reply::ok());
    assert_eq!(clients[0].run("DBSIZE"), Reply::Integer(0));
    assert_eq!(clients[0].run("GET k:0"), Reply::Null);
    assert_eq!(clients[2].run("GET k:0"), Reply::bulk("other"));
    assert_eq!(clients[0].run("SET k:0 again"), Reply::ok());
    assert_eq!(clients[1].run("GET k:0"), Reply::bulk("again"));
}

#[test]
fn flushall_empties_every_database_on_all_nodes() {
    let cluster = Cluster::start(3);
    let mut clients = cluster.clients();
    for (db, client) in [0, 7, 15].into_iter().zip(&mut clients) {
        assert_eq!(client.run(&format!("SELECT {db}")), Reply::ok());
        assert_eq!(client.run("SET k v"), Reply::ok());
    }
    assert_eq!(cluster.client(1).run("FLUSHALL"), Reply::ok());
    for client in &mut clients {
        assert_eq!(client.run("GET k"), Reply::Null);
        assert_eq!(client.run("SET k again"), Reply::ok());
        assert_eq!(client.run("DBSIZE"), Reply::Integer(1));
    }
}
