//! Reads: digests, repair before the reply, the doubling of a slow replica.

use super::{ALL, Bench, ONE, QUORUM, value};
use crate::message::{Message, RequestId};
use crate::node::NodeId;
use crate::outcome::{Failure, Outcome, ReplicaState};

use gyre_storage::{KeyRef, Record};

fn timeout(needed: usize, acked: usize) -> Outcome {
    Outcome::Failed(Failure::Timeout { needed, acked })
}

#[test]
fn one_reads_here_without_a_message() {
    let mut bench = Bench::new();
    bench.shell.record = Some(value(1, b"v"));
    let tag = bench.read(ONE);
    assert_eq!(bench.outcome(tag), Outcome::Record(value(1, b"v")));
    assert!(bench.shell.sent.is_empty());
    assert_eq!(bench.core.in_flight(), 0);
}

#[test]
fn a_quorum_read_needs_one_digest_that_agrees() {
    let mut bench = Bench::new();
    bench.shell.record = Some(value(1, b"v"));
    let tag = bench.read(QUORUM);
    assert_eq!(bench.shell.sent.len(), 1);
    let other = bench.shell.sent[0].to.0;
    assert!(matches!(bench.requests(other)[0].1, Message::Digest { .. }));
    assert!(bench.is_open(tag));
    bench.serve(other, &value(1, b"v"));
    assert_eq!(bench.outcome(tag), Outcome::Record(value(1, b"v")));
    assert_eq!(bench.core.statistics().digest_mismatches, 0);
}

#[test]
fn a_newer_row_elsewhere_is_stored_here_before_the_answer() {
    let mut bench = Bench::new();
    bench.shell.record = Some(value(1, b"old"));
    let tag = bench.read(QUORUM);
    let other = bench.shell.sent[0].to.0;
    bench.serve(other, &value(2, b"new"));
    assert!(matches!(bench.requests(other)[0].1, Message::Read { .. }));
    bench.serve(other, &value(2, b"new"));
    assert!(bench.is_open(tag));
    assert_eq!(bench.shell.applies[0].1, value(2, b"new"));
    bench.commit(true);
    assert_eq!(bench.outcome(tag), Outcome::Record(value(2, b"new")));
    // The third was not asked, and is told without anybody waiting.
    let third = if other == 2 { 3 } else { 2 };
    let requests = bench.requests(third);
    assert!(matches!(requests[0].1, Message::Repair { request: RequestId::NONE, .. }));
    let counted = bench.core.statistics();
    assert_eq!((counted.digest_mismatches, counted.repairs_blocking, counted.repairs_background), (1, 1, 1));
}

#[test]
fn a_replica_that_lags_is_repaired_before_the_answer() {
    let mut bench = Bench::new();
    bench.shell.record = Some(value(2, b"new"));
    let tag = bench.read(QUORUM);
    let other = bench.shell.sent[0].to.0;
    bench.serve(other, &Record::ABSENT);
    bench.serve(other, &Record::ABSENT);
    assert!(bench.is_open(tag));
    let requests = bench.requests(other);
    let Message::Repair { record, .. } = &requests[0].1 else { panic!("no repair: {requests:?}") };
    assert_eq!(*record, value(2, b"new"));
    bench.serve(other, &Record::ABSENT);
    assert_eq!(bench.outcome(tag), Outcome::Record(value(2, b"new")));
}

#[test]
fn a_replica_that_dies_before_its_repair_is_replaced() {
    let mut bench = Bench::new();
    bench.shell.record = Some(value(2, b"new"));
    let tag = bench.read(QUORUM);
    let other = bench.shell.sent[0].to.0;
    let third = if other == 2 { 3 } else { 2 };
    bench.serve(other, &Record::ABSENT);
    bench.serve(other, &Record::ABSENT);
    bench.shell.sent.retain(|sent| sent.to != NodeId(third));
    bench.down(other);
    assert!(bench.is_open(tag));
    bench.serve(third, &Record::ABSENT);
    assert_eq!(bench.outcome(tag), Outcome::Record(value(2, b"new")));
}

#[test]
fn a_slow_replica_is_helped_out_by_one_that_was_not_asked() {
    let mut bench = Bench::new();
    bench.shell.record = Some(value(1, b"v"));
    let tag = bench.read(QUORUM);
    let first = bench.shell.sent[0].to.0;
    let third = if first == 2 { 3 } else { 2 };
    bench.wait(49);
    assert!(bench.requests(third).is_empty());
    bench.wait(1);
    assert_eq!(bench.core.statistics().speculative_retries, 1);
    bench.serve(third, &value(1, b"v"));
    assert_eq!(bench.outcome(tag), Outcome::Record(value(1, b"v")));
    bench.serve(first, &value(7, b"late"));
    assert_eq!(bench.shell.finished.len(), 1);
}

#[test]
fn the_delay_before_another_is_asked_follows_the_latency_of_peers() {
    let mut bench = Bench::new();
    bench.shell.record = Some(value(1, b"v"));
    for _ in 0..200 {
        bench.read(QUORUM);
        bench.now.mono.0 += 300;
        let asked = bench.shell.sent.last().unwrap().to.0;
        bench.serve(asked, &value(1, b"v"));
    }
    assert!((300..400).contains(&bench.core.peer_latency_p99().unwrap()));
    bench.read(QUORUM);
    bench.wait(2);
    assert_eq!(bench.core.statistics().speculative_retries, 1);
}

#[test]
fn a_dead_or_refusing_replica_is_replaced_at_once_while_there_is_one() {
    let mut bench = Bench::new();
    bench.shell.record = Some(value(1, b"v"));
    let tag = bench.read(QUORUM);
    let first = bench.shell.sent[0].to.0;
    let third = if first == 2 { 3 } else { 2 };
    bench.down(first);
    bench.refuse(third);
    assert_eq!(bench.outcome(tag), timeout(2, 1));
}

#[test]
fn a_read_on_a_node_without_the_key_takes_one_record_and_one_digest() {
    let mut bench = Bench::with(6, |replicas| !replicas.contains(&NodeId(1)));
    let tag = bench.read(QUORUM);
    let replicas = bench.replicas.clone();
    let (first, second) = (replicas[0].0, replicas[1].0);
    assert!(matches!(bench.requests(first)[0].1, Message::Read { .. }));
    assert!(matches!(bench.requests(second)[0].1, Message::Digest { .. }));
    bench.serve(second, &value(1, b"v"));
    bench.serve(first, &value(1, b"v"));
    assert_eq!(bench.outcome(tag), Outcome::Record(value(1, b"v")));
}

#[test]
fn when_the_only_record_is_late_another_is_fetched() {
    let mut bench = Bench::with(6, |replicas| !replicas.contains(&NodeId(1)));
    let tag = bench.read(QUORUM);
    let replicas = bench.replicas.clone();
    bench.serve(replicas[1].0, &value(1, b"v"));
    bench.wait(50);
    assert!(matches!(bench.requests(replicas[2].0)[0].1, Message::Read { .. }));
    bench.serve(replicas[2].0, &value(1, b"v"));
    assert_eq!(bench.outcome(tag), Outcome::Record(value(1, b"v")));
}

#[test]
fn a_record_on_disk_is_waited_for_and_a_failed_store_replaced() {
    let mut bench = Bench::new();
    bench.shell.record = None;
    let (first, second) = (bench.read(ONE), bench.read(ONE));
    let tickets = std::mem::take(&mut bench.shell.disk_reads);
    bench.core.local_record(&mut bench.shell, bench.now, tickets[0], Some(value(1, b"v")));
    assert_eq!(bench.outcome(first), Outcome::Record(value(1, b"v")));
    bench.core.local_record(&mut bench.shell, bench.now, tickets[1], None);
    let other = bench.shell.sent[0].to.0;
    bench.serve(other, &value(2, b"w"));
    assert_eq!(bench.outcome(second), Outcome::Record(value(2, b"w")));
}

#[test]
fn all_waits_for_every_replica_and_repairs_every_one() {
    let mut bench = Bench::new();
    bench.shell.record = Some(value(1, b"v"));
    let tag = bench.read(ALL);
    bench.serve(2, &value(1, b"v"));
    bench.serve(3, &value(2, b"w"));
    bench.serve(3, &value(2, b"w"));
    bench.commit(true);
    assert!(bench.is_open(tag));
    bench.serve(2, &value(1, b"v"));
    assert_eq!(bench.outcome(tag), Outcome::Record(value(2, b"w")));
}

#[test]
fn a_replica_that_falls_silent_does_not_make_every_read_wait_longer_for_it() {
    let mut bench = Bench::new();
    bench.shell.record = Some(value(1, b"v"));
    let (silent, other) = (bench.replicas[1].0, bench.replicas[2].0);
    for _ in 0..200 {
        let tag = bench.read(QUORUM);
        bench.wait(1);
        bench.serve(silent, &value(1, b"v"));
        assert_eq!(bench.outcome(tag), Outcome::Record(value(1, b"v")));
    }
    // From here on the other is always asked in its stead, and as soon as before.
    for _ in 0..1_000 {
        let tag = bench.read(QUORUM);
        bench.wait(3);
        bench.serve(other, &value(1, b"v"));
        assert_eq!(bench.outcome(tag), Outcome::Record(value(1, b"v")));
    }
}

#[test]
fn reads_end_at_their_deadline() {
    let mut bench = Bench::new();
    let tag = bench.read(QUORUM);
    assert!(bench.core.next_deadline().is_some());
    bench.wait(2_000);
    assert_eq!(bench.outcome(tag), timeout(2, 1));
    assert_eq!(bench.core.in_flight(), 0);
}

#[test]
fn a_cluster_that_has_not_formed_is_unavailable() {
    let mut bench = Bench::new();
    bench.core.set_ring(std::sync::Arc::new(crate::ring::Ring::empty()));
    let tag = bench.read(QUORUM);
    assert_eq!(bench.outcome(tag), Outcome::Failed(Failure::Unavailable { needed: 1, alive: 0 }));
}

#[test]
fn an_inspection_tells_what_each_replica_holds() {
    let mut bench = Bench::new();
    bench.shell.record = Some(value(1, b"v"));
    bench.down(3);
    let tag = bench.tag();
    let name = bench.key.clone();
    bench.core.replicas(&mut bench.shell, bench.now, tag, KeyRef::new(0, name.as_bytes()));
    bench.serve(2, &value(2, b"w"));
    let Outcome::Replicas(replicas) = bench.outcome(tag) else { panic!("not an inspection") };
    let of = |node| replicas.iter().find(|(id, _)| *id == NodeId(node)).unwrap().1.clone();
    assert_eq!(of(1), ReplicaState::Holds(value(1, b"v")));
    assert_eq!(of(2), ReplicaState::Holds(value(2, b"w")));
    assert_eq!(of(3), ReplicaState::Silent);
    assert!(bench.shell.applies.is_empty() && bench.requests(2).is_empty());
}
