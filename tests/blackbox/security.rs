//! Nobody gets in by accident: passwords, protected mode, cluster secrets and names.

use std::net::{SocketAddr, UdpSocket};

use crate::support::cluster::seeds;
use crate::support::{Client, Cluster, Node, Reply, eventually_equals};

#[test]
fn a_password_is_asked_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::new(dir.path(), "node");
    node.start(&["--requirepass", "open sesame"]);
    let mut client = node.client_soon();
    let refusal = Reply::Error("NOAUTH Authentication required.".into());
    for line in ["GET k", "SET k v", "PING", "CLUSTER INFO", "CONFIG GET requirepass", "FLUSHALL"] {
        assert_eq!(client.run(line), refusal, "{line}");
    }
    let wrong = client.run("AUTH sesame");
    assert!(wrong.error().starts_with("WRONGPASS "), "{wrong:?}");
    assert_eq!(client.run("GET k"), refusal);
    assert_eq!(client.call(&[b"AUTH", b"open sesame"]), Reply::ok());
    eventually_equals("it serves", &Reply::ok(), || client.run("SET k v"));
    assert_eq!(client.run("GET k"), Reply::bulk("v"));
    // Another connection begins locked, and HELLO opens it as well.
    let mut other = node.client();
    assert_eq!(other.run("GET k"), refusal);
    other.call(&[b"HELLO", b"2", b"AUTH", b"default", b"open sesame"]).array();
    assert_eq!(other.run("GET k"), Reply::bulk("v"));
}

/// An address of this machine that is not loopback, if it has one.
fn outer_address() -> Option<std::net::IpAddr> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
    // Sends nothing: it only picks the local address of the route.
    socket.connect(("198.51.100.1", 9)).ok()?;
    Some(socket.local_addr().unwrap().ip()).filter(|address| !address.is_loopback())
}

#[test]
fn protected_mode_turns_strangers_away_with_an_explanation() {
    let Some(address) = outer_address() else {
        eprintln!("this machine has no address but loopback: nothing to test");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::new(dir.path(), "node");
    node.start(&["--bind", "0.0.0.0"]);
    let mut local = node.client_soon();
    let outer = SocketAddr::new(address, node.port);
    let told = Client::try_connect(outer).unwrap().rest().unwrap();
    let told = String::from_utf8(told).unwrap();
    assert!(
        told.starts_with("-DENIED Gyre is running in protected mode") && told.ends_with("\r\n"),
        "{told}"
    );
    assert_eq!(local.run("CONFIG SET protected-mode no"), Reply::ok());
    assert_eq!(Client::try_connect(outer).unwrap().run("PING"), Reply::Simple("PONG".into()));
}

#[test]
fn nodes_with_one_secret_form_a_cluster_and_others_stay_out() {
    let mut cluster = Cluster::start_with(2, &["--cluster-secret", "right"]);
    assert_eq!(cluster.client(0).run("SET k v"), Reply::ok());
    assert_stays_out(
        &mut cluster,
        &["--cluster-secret", "wrong"],
        "the peer does not know our cluster secret",
    );
    assert_stays_out(&mut cluster, &[], "the peer does not know our cluster secret");
}

#[test]
fn nodes_of_another_cluster_name_stay_out() {
    let mut cluster = Cluster::start_with(2, &["--cluster-name", "ours"]);
    assert_stays_out(&mut cluster, &["--cluster-name", "theirs"], "this node to \"theirs\"");
}

/// A node with `flags` and the cluster's seeds is refused: it says `reason`, serves nothing, and nobody knows it.
fn assert_stays_out(cluster: &mut Cluster, flags: &[&str], reason: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut stranger = Node::new(dir.path(), "stranger");
    stranger.start(&[&["--seeds", &seeds(&cluster.nodes)], flags].concat());
    let mut client = stranger.client_soon();
    stranger.wait_for_log(reason);
    assert_eq!(stranger.cluster_info().unwrap().0, "fail");
    let refused = client.run("GET k");
    assert!(refused.error().starts_with("UNAVAILABLE"), "{refused:?}");
    cluster.wait_formed();
}
