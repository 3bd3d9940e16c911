//! A node misses much and nobody keeps hints: anti-entropy alone makes replicas equal.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Cluster, Reply};
use crate::verify::disagreeing;

const KEYS: usize = 200_000;
const CHANGED: usize = 100_000;
const DELETED: usize = 10_000;
const PIPELINE: usize = 1_000;
/// Records a second. By default it is a tenth of that, and takes ten times as long.
const RATE: &str = "20000";
/// Longer than it may take on a crowded machine.
const TIME_MAX: Duration = Duration::from_secs(300);

fn key(number: usize) -> String {
    format!("drift:{number}")
}

fn send(cluster: &Cluster, lines: impl Iterator<Item = String>) {
    let mut client = cluster.client(0);
    let lines: Vec<String> = lines.collect();
    for chunk in lines.chunks(PIPELINE) {
        let replies = client.pipeline(chunk);
        let failed = replies.iter().find(|reply| !matches!(reply, Reply::Simple(_) | Reply::Integer(1)));
        assert_eq!(failed, None);
    }
}

fn status(cluster: &Cluster, node: usize) -> Reply {
    cluster.client(node).run("GYRE REPAIR STATUS")
}

fn number(reply: &Reply, name: &str) -> i64 {
    reply.field(name).cloned().map_or(0, Reply::integer)
}

/// What all nodes count, since they started.
fn sums(cluster: &Cluster, nodes: &[usize]) -> (i64, i64) {
    let sum = |name: &str| nodes.iter().map(|&node| number(&status(cluster, node), name)).sum();
    (sum("bytes-sent"), sum("rows-sent"))
}

/// Whether no node has anything left to compare, and none has a mark.
fn is_done(cluster: &Cluster) -> bool {
    (0..cluster.nodes.len()).all(|node| {
        let status = status(cluster, node);
        let peers = status.field("peers").cloned().map(Reply::array).unwrap_or_default();
        let is_idle = |peer: &Reply| peer.field("state") == Some(&Reply::bulk("idle"));
        number(&status, "marked-slots") == 0 && peers.len() == 2 && peers.iter().all(is_idle)
    })
}

fn wait_done(cluster: &Cluster) -> Duration {
    let started = Instant::now();
    // Marks are read every few seconds: it is done when it stays so.
    let mut done_since: Option<Instant> = None;
    while done_since.is_none_or(|since| since.elapsed() < Duration::from_secs(7)) {
        assert!(started.elapsed() < TIME_MAX, "not done: {:?}", status(cluster, 0));
        thread::sleep(Duration::from_millis(100));
        done_since = is_done(cluster).then(|| done_since.unwrap_or_else(Instant::now));
    }
    done_since.map_or(Duration::ZERO, |since| since - started)
}

#[test]
fn anti_entropy_alone_brings_a_node_up_to_date_that_missed_110_000_writes() {
    let mut cluster = Cluster::start_with(3, &["--max-hint-bytes", "0", "--anti-entropy-rate", RATE]);
    send(&cluster, (0..KEYS).map(|n| format!("SET {} before-{n}", key(n))));
    // What is under way arrives; nobody has missed anything yet.
    wait_done(&cluster);
    cluster.nodes[2].kill();
    cluster.wait_noticed(&[2]);
    let changed = (0..CHANGED).map(|n| format!("SET {} after-{n}", key(n * 17 % KEYS)));
    let deleted = (0..DELETED).map(|n| format!("DEL {}", key((CHANGED + n) * 17 % KEYS)));
    send(&cluster, changed.chain(deleted));
    for node in [0, 1] {
        assert_eq!(number(&cluster.client(node).run("GYRE HINTS"), "kept"), 0, "hints are off");
    }
    let before = sums(&cluster, &[0, 1]);
    cluster.nodes[2].restart();
    cluster.wait_formed();
    let took = wait_done(&cluster);
    let after = sums(&cluster, &[0, 1, 2]);
    let (bytes, rows) = (after.0 - before.0, after.1 - before.1);
    // Each replica is asked what it holds, which repairs nothing.
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    let differing = disagreeing(&mut cluster.client(1), &keys);
    assert!(differing.is_empty(), "{} keys differ, such as {}", differing.len(), differing[0]);
    let mut returned = cluster.client(2);
    assert_eq!(returned.run("CONSISTENCY ONE"), Reply::ok());
    for n in (0..CHANGED).step_by(97) {
        assert_eq!(returned.run(&format!("GET {}", key(n * 17 % KEYS))), Reply::bulk(&format!("after-{n}")));
    }
    for n in (0..DELETED).step_by(31) {
        assert_eq!(returned.run(&format!("GET {}", key((CHANGED + n) * 17 % KEYS))), Reply::Null);
    }
    // Past the capture of output: these numbers are what the run is for.
    let _ = writeln!(
        io::stderr(),
        "\nof {KEYS} keys {CHANGED} were changed and {DELETED} deleted while a node was down, without hints; equal \
         {:.1} s after it was back (at {RATE} records/s), {rows} rows and {bytes} bytes sent by all nodes\n",
        took.as_secs_f64()
    );
    assert!(rows <= i64::try_from((CHANGED + DELETED) * 11 / 10 + 100).unwrap(), "{rows} rows");
}
