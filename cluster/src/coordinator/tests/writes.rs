//! Writes: when each level is reached, refused or out of time.

use super::{ALL, Bench, ONE, QUORUM};
use crate::coordinator::Operation;
use crate::message::Message;
use crate::node::NodeId;
use crate::outcome::{Failure, Outcome};

use gyre_storage::{KeyRef, Record};

fn timeout(needed: usize, acked: usize) -> Outcome {
    Outcome::Failed(Failure::Timeout { needed, acked })
}

#[test]
fn a_write_goes_to_all_replicas_and_is_done_when_a_majority_has_it() {
    let mut bench = Bench::new();
    let tag = bench.set(b"v", QUORUM);
    assert_eq!((bench.requests(2).len(), bench.requests(3).len(), bench.shell.applies.len()), (1, 1, 1));
    bench.commit(true);
    assert!(bench.is_open(tag));
    bench.serve(3, &Record::ABSENT);
    assert_eq!(bench.outcome(tag), Outcome::Written);
    assert!(bench.shell.settled.is_empty());
    bench.serve(2, &Record::ABSENT);
    assert_eq!(bench.shell.settled, [(tag, 3)]);
    assert_eq!(bench.core.in_flight(), 0);
}

#[test]
fn every_replica_gets_the_same_row() {
    let mut bench = Bench::new();
    bench.set(b"v", QUORUM);
    let here = bench.shell.applies[0].1.clone();
    for node in [2, 3] {
        let requests = bench.requests(node);
        let (_, Message::Apply { row, want_digest: false, .. }) = &requests[0] else { panic!("no row") };
        assert_eq!(Record::of_row(row), here);
        assert_eq!(row.version.node, 1);
    }
}

#[test]
fn one_is_done_with_the_first_and_all_with_the_last() {
    let mut bench = Bench::new();
    let (one, all) = (bench.set(b"v", ONE), bench.set(b"v", ALL));
    bench.commit(true);
    assert_eq!(bench.outcome(one), Outcome::Written);
    for node in [2, 2, 3] {
        assert!(bench.is_open(all));
        bench.serve(node, &Record::ABSENT);
    }
    bench.serve(3, &Record::ABSENT);
    assert_eq!(bench.outcome(all), Outcome::Written);
}

#[test]
fn nothing_is_sent_when_too_few_replicas_are_alive() {
    let mut bench = Bench::new();
    bench.down(2);
    bench.down(3);
    let tag = bench.set(b"v", QUORUM);
    assert_eq!(bench.outcome(tag), Outcome::Failed(Failure::Unavailable { needed: 2, alive: 1 }));
    assert!(bench.shell.sent.is_empty() && bench.shell.applies.is_empty());
    let one = bench.set(b"v", ONE);
    bench.commit(true);
    assert_eq!(bench.outcome(one), Outcome::Written);
    assert_eq!(bench.core.statistics().ends(Operation::Write, QUORUM).unavailable, 1);
}

#[test]
fn a_write_ends_in_a_timeout_that_counts_and_late_answers_change_nothing() {
    let mut bench = Bench::new();
    let tag = bench.set(b"v", QUORUM);
    bench.commit(true);
    bench.wait(1_999);
    assert!(bench.is_open(tag));
    bench.wait(1);
    assert_eq!(bench.outcome(tag), timeout(2, 1));
    bench.serve(2, &Record::ABSENT);
    bench.serve(3, &Record::ABSENT);
    assert_eq!(bench.shell.finished.len(), 1);
}

#[test]
fn a_write_ends_early_when_its_level_cannot_be_met_any_more() {
    let mut bench = Bench::new();
    let tag = bench.set(b"v", QUORUM);
    bench.commit(true);
    bench.refuse(2);
    assert!(bench.is_open(tag));
    bench.down(3);
    assert_eq!(bench.outcome(tag), timeout(2, 1));
}

#[test]
fn a_full_queue_and_a_failed_store_count_as_failed_replicas() {
    let mut bench = Bench::new();
    bench.shell.full_queues.insert(NodeId(2));
    let tag = bench.set(b"v", QUORUM);
    bench.serve(3, &Record::ABSENT);
    bench.commit(false);
    assert_eq!(bench.outcome(tag), timeout(2, 1));
}

#[test]
fn a_node_that_is_no_replica_stores_nothing() {
    let mut bench = Bench::with(6, |replicas| !replicas.contains(&NodeId(1)));
    let tag = bench.set(b"v", QUORUM);
    assert!(bench.shell.applies.is_empty());
    let replicas = bench.replicas.clone();
    bench.serve(replicas[2].0, &Record::ABSENT);
    bench.serve(replicas[0].0, &Record::ABSENT);
    assert_eq!(bench.outcome(tag), Outcome::Written);
}

#[test]
fn operations_over_the_bound_are_refused() {
    let mut bench = Bench::new();
    for _ in 0..8 {
        bench.set(b"v", QUORUM);
    }
    let sent = bench.shell.sent.len();
    let (write, read) = (bench.set(b"v", QUORUM), bench.read(QUORUM));
    assert_eq!(bench.outcome(write), Outcome::Failed(Failure::Overloaded));
    assert_eq!(bench.outcome(read), Outcome::Failed(Failure::Overloaded));
    assert_eq!(bench.shell.sent.len(), sent);
    bench.wait(2_000);
    assert_eq!(bench.core.in_flight(), 0);
    bench.set(b"v", QUORUM);
    assert_eq!(bench.core.in_flight(), 1);
}

#[test]
fn acknowledgements_are_counted_after_the_answer_until_the_deadline() {
    let mut bench = Bench::new();
    let tag = bench.tag();
    let name = bench.key.clone();
    let key = KeyRef::new(0, name.as_bytes());
    let op = bench.core.write(&mut bench.shell, bench.now, tag, key, None, None, ONE).unwrap();
    assert_eq!(bench.core.acknowledged(op), Some(0));
    bench.commit(true);
    bench.serve(2, &Record::ABSENT);
    assert_eq!(bench.core.acknowledged(op), Some(2));
    assert_eq!(bench.core.in_flight(), 0);
    bench.wait(2_000);
    assert_eq!((bench.core.acknowledged(op), &*bench.shell.settled), (None, &[(tag, 2)][..]));
}

#[test]
fn a_tombstone_has_no_expiry() {
    let mut bench = Bench::new();
    let tag = bench.tag();
    let name = bench.key.clone();
    let key = KeyRef::new(0, name.as_bytes());
    bench.core.write(&mut bench.shell, bench.now, tag, key, None, Some(super::WALL), ONE);
    let register = bench.shell.applies[0].1.register().unwrap();
    assert_eq!((register.value, register.expiry), (None, None));
}
