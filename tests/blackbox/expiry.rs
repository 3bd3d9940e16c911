//! Keys that expire: the sweeper frees them on every replica, and no client notices anything but that they are gone.

use crate::support::{Client, Cluster, Reply, eventually, eventually_equals};

fn expired_keys(client: &mut Client) -> u64 {
    let info = client.run("INFO stats").text();
    let line = info.lines().find_map(|line| line.strip_prefix("expired_keys:")).unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn expired_keys_are_swept_on_every_replica_once() {
    const KEYS: usize = 200;
    let mut cluster = Cluster::start_with(3, &["--ttl-sweep-interval", "1"]);
    let mut clients = cluster.clients();
    let lines: Vec<String> = (0..KEYS).map(|key| format!("SET e:{key} value PX 1500")).collect();
    assert!(clients[0].pipeline(&lines).iter().all(|reply| *reply == Reply::ok()));
    let stay: Vec<String> = (0..50).map(|key| format!("SET s:{key} value PX 3600000")).collect();
    clients[1].pipeline(&stay);
    // Written anew before it expires: only its entry goes.
    clients[2].run("SET e:0 again");
    eventually("the sweepers have swept", || {
        let swept: Vec<u64> = clients.iter_mut().map(expired_keys).collect();
        let expected = vec![KEYS as u64 - 1; 3];
        if swept == expected { Ok(()) } else { Err(format!("{swept:?}")) }
    });
    for client in &mut clients {
        assert_eq!(client.run("DBSIZE"), Reply::Integer(51));
        assert_eq!(client.run("GET e:1"), Reply::Null);
        assert_eq!(client.run("TTL e:1"), Reply::Integer(-2));
        assert_eq!(client.run("GET e:0"), Reply::bulk("again"));
        assert_eq!(client.run("GET s:49"), Reply::bulk("value"));
    }
    let replicas = clients[0].run("GYRE REPLICAS e:1");
    let expired = format!("{:?}", Reply::bulk("expired"));
    assert_eq!(format!("{replicas:?}").matches(&expired).count(), 3, "all three say so");
    // A swept key begins anew.
    assert_eq!(clients[0].run("INCR e:1"), Reply::Integer(1));
    assert_eq!(clients[1].run("SET e:2 new NX"), Reply::ok());
    assert_eq!(clients[2].run("APPEND e:3 tail"), Reply::Integer(4));
    clients[1].run("CONFIG RESETSTAT");
    assert_eq!(expired_keys(&mut clients[1]), 0);
    // A node that was down while they expired sweeps by itself, and learns nothing old from the others.
    clients[0].run("SET late value PX 1000");
    cluster.nodes[2].kill();
    cluster.wait_noticed(&[2]);
    eventually_equals("the key has expired", &Reply::Null, || clients[0].run("GET late"));
    cluster.nodes[2].restart();
    cluster.wait_formed();
    let mut returned = cluster.client(2);
    eventually_equals("the node that was down has swept", &1, || expired_keys(&mut returned));
    assert_eq!(returned.run("GET late"), Reply::Null);
    assert_eq!(returned.run("GET e:3"), Reply::bulk("tail"));
}
