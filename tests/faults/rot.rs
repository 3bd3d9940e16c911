//! A bit flips on one node's disk while it runs: nobody reads anything wrong, and the node mends itself.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::support::cluster::seeds;
use crate::support::{Cluster, Reply, eventually};
use crate::verify::disagreeing;

const KEYS: usize = 20_000;
const PIPELINE: usize = 500;

fn key(number: usize) -> String {
    format!("rot:{number}")
}

fn value(number: usize) -> String {
    // Hardly compresses, so that a block holds few rows.
    (0..8u64)
        .map(|part| format!("{:016x}", (number as u64 + part).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
        .collect()
}

fn tables(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "sst"))
}

/// The largest table file of a data directory.
fn largest_table(dir: &Path) -> PathBuf {
    tables(dir).max_by_key(|table| table.metadata().unwrap().len()).unwrap()
}

fn flip_bits(file: &Path, parts: &[u64]) {
    let opened = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let length = opened.metadata().unwrap().len();
    for part in parts {
        let (at, mut byte) = (length * part / 100, [0]);
        opened.read_exact_at(&mut byte, at).unwrap();
        opened.write_all_at(&[byte[0] ^ 1], at).unwrap();
    }
}

#[test]
fn flipped_bits_are_mended_from_other_replicas_while_the_node_runs() {
    let mut cluster = Cluster::start(3);
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    let mut client = cluster.client(0);
    assert_eq!(client.run("CONSISTENCY ALL"), Reply::ok());
    for chunk in (0..KEYS).collect::<Vec<_>>().chunks(PIPELINE) {
        let lines: Vec<String> = chunk.iter().map(|&n| format!("SET {} {}", key(n), value(n))).collect();
        assert!(client.pipeline(&lines).iter().all(|reply| *reply == Reply::ok()));
    }
    // What is started anew writes its log to files, and has nothing in its caches.
    cluster.nodes[2].kill();
    cluster.nodes[2].restart();
    cluster.wait_formed();
    flip_bits(&largest_table(&cluster.nodes[2].store_dir()), &[10, 40, 70]);

    let started = Instant::now();
    let mut reader = cluster.client(2);
    for level in ["QUORUM", "ONE"] {
        assert_eq!(reader.run(&format!("CONSISTENCY {level}")), Reply::ok());
        for n in 0..KEYS {
            assert_eq!(reader.run(&format!("GET {}", key(n))), Reply::bulk(&value(n)), "{level} {n}");
        }
    }
    cluster.nodes[2].wait_for_log("a damaged file was dropped");
    eventually("every key is equal on all replicas", || {
        let marked = reader.run("GYRE REPAIR STATUS").field("marked-slots").cloned().map(Reply::integer);
        let differing = disagreeing(&mut reader, &keys).len();
        if marked == Some(0) && differing == 0 { Ok(()) } else { Err((marked, differing)) }
    });
    let took = started.elapsed();
    assert_eq!(reader.run("CONSISTENCY ALL"), Reply::ok());
    for n in 0..KEYS {
        assert_eq!(reader.run(&format!("GET {}", key(n))), Reply::bulk(&value(n)));
        if n % 50 == 0 {
            assert_eq!(reader.run(&format!("SET {} {}", key(n), value(n))), Reply::ok());
        }
    }
    assert!(cluster.nodes[2].is_running());
    // Past the capture of output: these numbers are what the run is for.
    let _ = writeln!(
        io::stderr(),
        "\nthree blocks of a file of {KEYS} keys were damaged: {:.1} s from the first read to equal replicas\n",
        took.as_secs_f64()
    );
}

/// Damage that a node cannot start with: it names the file and says what to do, and that works.
#[test]
fn node_that_cannot_start_says_how_it_gets_its_data_back() {
    let mut cluster = Cluster::start(3);
    let keys: Vec<String> = (0..1_000).map(key).collect();
    let mut client = cluster.client(0);
    assert_eq!(client.run("CONSISTENCY ALL"), Reply::ok());
    for n in 0..keys.len() {
        assert_eq!(client.run(&format!("SET {} {}", key(n), value(n))), Reply::ok());
    }
    let id = cluster.client(2).run("GYRE STATUS").field("node").cloned().unwrap().text();
    let node = &mut cluster.nodes[2];
    for _ in 0..2 {
        node.kill();
        // What is started anew writes its log to files.
        node.restart();
        node.client_soon();
    }
    node.kill();
    for table in tables(&node.store_dir()) {
        flip_bits(&table, &(0..100).collect::<Vec<_>>());
    }
    node.restart();
    assert!(!node.wait_end().success());
    let log = node.log();
    assert!(log.contains(".sst") && log.contains("--node-id") && log.contains("move "), "{log}");

    node.lose_disk();
    let seeds = seeds(&cluster.nodes);
    cluster.nodes[2].start(&["--seeds", &seeds, "--node-id", &id]);
    cluster.wait_formed();
    assert_eq!(client.run("GYRE REPAIR ALL"), Reply::ok());
    eventually("every key is equal on all replicas", || {
        let differing = disagreeing(&mut client, &keys).len();
        if differing == 0 { Ok(()) } else { Err(differing) }
    });
}
