//! Many clients at once, through all nodes: what must be exact, and what must be exclusive.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;

use crate::support::{Client, Cluster, Reply};

#[test]
fn concurrent_increments_through_all_nodes_all_count_once() {
    const EACH: usize = 150;
    let cluster = Cluster::start(3);
    let replies: Vec<i64> = thread::scope(|scope| {
        let count = |client: &mut Client| -> Vec<i64> {
            (0..EACH).map(|_| client.run("INCR hits").integer()).collect()
        };
        let clients = cluster.clients().into_iter().chain(cluster.clients());
        let threads: Vec<_> = clients.map(|mut client| scope.spawn(move || count(&mut client))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let expected = 6 * EACH;
    for client in &mut cluster.clients() {
        assert_eq!(client.run("GET hits"), Reply::bulk(&expected.to_string()));
    }
    // While the ring is stable each value is handed out once: they may serve as ids.
    let distinct: BTreeSet<i64> = replies.iter().copied().collect();
    assert_eq!((distinct.len(), distinct.last().copied()), (expected, i64::try_from(expected).ok()));
}

#[test]
fn no_acknowledged_increment_is_lost_when_a_node_dies() {
    const EACH: usize = 200;
    let mut cluster = Cluster::start(3);
    let (acknowledged, indeterminate) = (AtomicI64::new(0), AtomicI64::new(0));
    let clients = [cluster.client(0), cluster.client(1), cluster.client(0), cluster.client(1)];
    let victim = &mut cluster.nodes[2];
    thread::scope(|scope| {
        for mut client in clients {
            let (acknowledged, indeterminate) = (&acknowledged, &indeterminate);
            scope.spawn(move || {
                for _ in 0..EACH {
                    match client.run("INCRBY hits 3") {
                        Reply::Integer(_) => acknowledged.fetch_add(3, Ordering::Relaxed),
                        reply if reply.error().starts_with("TIMEOUT") => {
                            indeterminate.fetch_add(3, Ordering::Relaxed)
                        }
                        reply if reply.error().starts_with("UNAVAILABLE") => 0,
                        other => panic!("{other:?}"),
                    };
                }
            });
        }
        // In the middle of it, whenever that is.
        while acknowledged.load(Ordering::Relaxed) < 3 * 100 {
            thread::yield_now();
        }
        victim.kill();
    });
    let (acknowledged, indeterminate) = (acknowledged.into_inner(), indeterminate.into_inner());
    let value: i64 = cluster.client(1).run("GET hits").text().parse().unwrap();
    assert!(
        (acknowledged..=acknowledged + indeterminate).contains(&value),
        "{acknowledged} +{indeterminate}: {value}"
    );
    cluster.nodes[2].restart();
    cluster.wait_formed();
    for client in &mut cluster.clients() {
        assert_eq!(client.run("GET hits"), Reply::bulk(&value.to_string()));
    }
}

#[test]
fn of_many_set_nx_one_wins() {
    const KEYS: usize = 40;
    let cluster = Cluster::start(3);
    let winners: Vec<Vec<usize>> = thread::scope(|scope| {
        let clients = cluster.clients().into_iter().chain(cluster.clients());
        let threads: Vec<_> = clients
            .enumerate()
            .map(|(number, mut client)| {
                scope.spawn(move || {
                    let wins =
                        |key: &usize| client.run(&format!("SET lock:{key} {number} NX")) == Reply::ok();
                    (0..KEYS).filter(wins).collect()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut client = cluster.client(0);
    for key in 0..KEYS {
        let won: Vec<usize> = (0..6).filter(|number| winners[*number].contains(&key)).collect();
        assert_eq!(won.len(), 1, "lock:{key} was won by {won:?}");
        assert_eq!(client.run(&format!("GET lock:{key}")), Reply::bulk(&won[0].to_string()));
    }
}

#[test]
fn appends_from_all_nodes_are_all_there() {
    const EACH: usize = 40;
    let cluster = Cluster::start(3);
    thread::scope(|scope| {
        for (letter, mut client) in ["a", "b", "c"].into_iter().zip(cluster.clients()) {
            scope.spawn(move || {
                for _ in 0..EACH {
                    client.run(&format!("APPEND log {letter}")).integer();
                }
            });
        }
    });
    let log = cluster.client(2).run("GET log").text();
    for letter in ["a", "b", "c"] {
        assert_eq!(log.matches(letter).count(), EACH, "{log}");
    }
}

#[test]
fn a_pipeline_answers_in_order_with_each_key_in_order() {
    let cluster = Cluster::start(3);
    let mut client = cluster.client(1);
    let mut lines = Vec::new();
    let mut expected = Vec::new();
    for key in 0..150 {
        let steps = [
            (format!("SET p:{key} 1"), Reply::ok()),
            (format!("INCR p:{key}"), Reply::Integer(2)),
            ("INCR shared".to_string(), Reply::Integer(key + 1)),
            (format!("APPEND p:{key} 0"), Reply::Integer(2)),
            (format!("GET p:{key}"), Reply::bulk("20")),
            (format!("SET p:{key} 5"), Reply::ok()),
            (format!("INCRBY p:{key} 5"), Reply::Integer(10)),
            ("PING".to_string(), Reply::Simple("PONG".into())),
            (
                format!("MGET p:{key} shared"),
                Reply::Array(vec![Reply::bulk("10"), Reply::bulk(&(key + 1).to_string())]),
            ),
            (format!("DEL p:{key}"), Reply::Integer(1)),
            (format!("GET p:{key}"), Reply::Null),
            (
                "NOSUCH command".to_string(),
                Reply::Error("ERR unknown command 'NOSUCH', with args beginning with: 'command' ".into()),
            ),
        ];
        for (line, reply) in steps {
            lines.push(line);
            expected.push(reply);
        }
    }
    let replies = client.pipeline(&lines);
    for ((line, reply), expected) in lines.iter().zip(&replies).zip(&expected) {
        assert_eq!(reply, expected, "{line}");
    }
}
