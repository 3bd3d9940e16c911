//! `GYRE REPAIR` and `gyre repair`: replicas are compared when an operator wants it, and said to be equal.

use serde_json::Value;

use crate::support::{Cluster, Reply, eventually, node};

/// Runs `gyre repair` with `arguments` against node `index`; what it prints as JSON.
fn repair(cluster: &Cluster, index: usize, arguments: &[&str]) -> Value {
    let mut command = node::gyre();
    command.arg("repair").args(arguments).args(["--port", &cluster.nodes[index].port.to_string(), "--json"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn an_operator_has_replicas_compared_and_sees_that_they_are() {
    // By themselves nodes compare nothing here.
    let cluster = Cluster::start_with(3, &["--anti-entropy-interval", "0"]);
    let mut client = cluster.client(0);
    assert_eq!(client.run("MSET a 1 b 2 c 3"), Reply::ok());
    let before = eventually("the node knows its peers", || {
        let status = repair(&cluster, 1, &["status"]);
        if status["peers"].as_array().is_some_and(|peers| peers.len() == 2) {
            Ok(status)
        } else {
            Err(status)
        }
    });
    assert_eq!((before["interval-seconds"].as_u64(), before["completed"].as_u64()), (Some(0), Some(0)));
    let peers = before["peers"].as_array().unwrap();
    assert!(peers.iter().all(|peer| peer["slots"] == 16_384 && peer["state"] == "idle"), "{before:#}");

    let after = repair(&cluster, 1, &["--all"]);
    let peers = after["peers"].as_array().unwrap();
    assert!(peers.iter().all(|peer| peer["oldest-unverified-seconds"].as_u64() < Some(60)), "{after:#}");
    let completed = |status: &Value| status["completed"].as_u64().unwrap();
    let all: u64 = (0..3).map(|index| completed(&repair(&cluster, index, &["status"]))).sum();
    assert!(all >= 3, "each of three pairs has compared everything: {all}");

    // One slot, by its replicas; then what one node keeps.
    repair(&cluster, 0, &["--slot", "77"]);
    repair(&cluster, 0, &[]);
    let more: u64 = (0..3).map(|index| completed(&repair(&cluster, index, &["status"]))).sum();
    assert!(more >= all + 3 + 2, "{more} after {all}");
    let text = node::gyre().args(["repair", "status", "--port", &cluster.nodes[0].port.to_string()]).output();
    let text = String::from_utf8(text.unwrap().stdout).unwrap();
    assert!(text.contains("only when asked to") && text.contains("16384"), "{text}");
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let cluster = Cluster::start(1);
    let mut client = cluster.client(0);
    for (line, error) in [
        ("GYRE REPAIR SLOT 16384", "ERR Invalid slot"),
        ("GYRE REPAIR SLOT x", "ERR Invalid slot"),
        ("GYRE REPAIR SLOT", "ERR syntax error"),
        ("GYRE REPAIR NOW", "ERR syntax error"),
    ] {
        assert_eq!(client.run(line).error(), error, "{line}");
    }
    // Alone there is nobody to compare with.
    assert_eq!(client.run("GYRE REPAIR ALL"), Reply::ok());
    let status = eventually("the status", || Ok::<Reply, ()>(client.run("GYRE REPAIR STATUS")));
    assert_eq!(status.field("oldest-unverified-seconds"), Some(&Reply::Null));
}
