//! Read-modify-writes: forwarded, locked, read, applied, written.

use super::{Bench, LINK, QUORUM, value};
use crate::coordinator::Tag;
use crate::level::Quorums;
use crate::message::{Levels, Message, Reason, RequestId};
use crate::modify::{ExpiryChange, Modify, ModifyReply, SetCondition};
use crate::node::NodeId;
use crate::outcome::{Failure, Outcome};

use gyre_storage::{KeyRef, Record};

const SET_NX: Modify<'static> =
    Modify::Set { value: b"mine", condition: SetCondition::Nx, expiry: ExpiryChange::Clear, get: false };

fn modify(bench: &mut Bench, modify: &Modify<'_>) -> Tag {
    let tag = bench.tag();
    let name = bench.key.clone();
    let key = KeyRef::new(0, name.as_bytes());
    bench.core.modify(&mut bench.shell, bench.now, tag, key, modify, (QUORUM, QUORUM));
    tag
}

fn forwarded(bench: &Bench, node: u64) -> bool {
    matches!(bench.requests(node).first(), Some((_, Message::Modify { .. })))
}

#[test]
fn a_read_modify_write_reads_then_writes_then_gives_the_lock_back() {
    let mut bench = Bench::new();
    let tag = modify(&mut bench, &SET_NX);
    let asked = bench.shell.sent[0].to.0;
    bench.serve(asked, &Record::ABSENT);
    assert_eq!(bench.shell.applies.len(), 1);
    bench.commit(true);
    assert!(bench.is_open(tag) && !bench.shell.locks.is_empty());
    bench.serve(2, &Record::ABSENT);
    assert_eq!(bench.outcome(tag), Outcome::Modified(ModifyReply::Done));
    assert!(bench.shell.locks.is_empty());
}

#[test]
fn what_changes_nothing_writes_nothing_but_has_read_at_its_level() {
    let mut bench = Bench::new();
    bench.shell.record = Some(value(1, b"theirs"));
    let tag = modify(&mut bench, &SET_NX);
    assert!(bench.is_open(tag));
    let asked = bench.shell.sent[0].to.0;
    bench.serve(asked, &value(1, b"theirs"));
    assert_eq!(bench.outcome(tag), Outcome::Modified(ModifyReply::Nil));
    assert!(bench.shell.applies.is_empty() && bench.shell.locks.is_empty());
}

#[test]
fn the_written_version_is_after_the_one_read_even_if_that_lies_in_the_future() {
    let mut bench = Bench::new();
    let future = value((super::WALL.0 + 3_600_000) << 16, b"future");
    bench.shell.record = Some(future.clone());
    modify(&mut bench, &Modify::Append { value: b"!" });
    let asked = bench.shell.sent[0].to.0;
    bench.serve(asked, &future);
    let written = &bench.shell.applies[0].1;
    assert!(written.base() > future.base());
    assert_eq!(written.register().unwrap().value, Some(&b"future!"[..]));
}

#[test]
fn a_second_change_of_a_key_waits_for_the_first() {
    let mut bench = Bench::new();
    bench.shell.record = Some(value(1, b"theirs"));
    let (first, second) = (modify(&mut bench, &SET_NX), modify(&mut bench, &SET_NX));
    assert_eq!(bench.shell.sent.len(), 1);
    let asked = bench.shell.sent[0].to.0;
    bench.serve(asked, &value(1, b"theirs"));
    assert!(!bench.is_open(first) && bench.is_open(second));
    let (op, hash) = bench.shell.handed_on.remove(0);
    bench.core.locked(&mut bench.shell, bench.now, op, hash);
    bench.serve(asked, &value(1, b"theirs"));
    assert_eq!(bench.outcome(second), Outcome::Modified(ModifyReply::Nil));
    assert!(bench.shell.locks.is_empty());
}

#[test]
fn a_lock_that_comes_too_late_is_given_back() {
    let mut bench = Bench::new();
    let first = modify(&mut bench, &SET_NX);
    bench.now.mono.0 += 1_000;
    let second = modify(&mut bench, &SET_NX);
    bench.wait(1_999);
    assert_eq!(bench.outcome(first), Outcome::Failed(Failure::Timeout { needed: 2, acked: 1 }));
    bench.wait(1);
    assert_eq!(bench.outcome(second), Outcome::Failed(Failure::Timeout { needed: 2, acked: 0 }));
    let (op, hash) = bench.shell.handed_on.remove(0);
    bench.core.locked(&mut bench.shell, bench.now, op, hash);
    assert!(bench.shell.locks.is_empty());
}

#[test]
fn locks_are_given_back_when_replicas_fail() {
    let mut bench = Bench::new();
    let tag = modify(&mut bench, &SET_NX);
    bench.down(2);
    bench.down(3);
    assert_eq!(bench.outcome(tag), Outcome::Failed(Failure::Timeout { needed: 2, acked: 1 }));
    assert!(bench.shell.locks.is_empty());
    let tag = modify(&mut bench, &SET_NX);
    assert_eq!(bench.outcome(tag), Outcome::Failed(Failure::Unavailable { needed: 2, alive: 1 }));
    assert!(bench.shell.locks.is_empty());
}

#[test]
fn it_runs_on_the_first_live_replica_and_the_answer_is_relayed() {
    let mut bench = Bench::with(3, |replicas| replicas[0] == NodeId(2) && replicas[1] == NodeId(3));
    let tag = modify(&mut bench, &SET_NX);
    assert!(forwarded(&bench, 2) && bench.shell.locks.is_empty());
    bench.answer(2, |_, request| Message::Modified { request, result: Ok(ModifyReply::Done) });
    assert_eq!(bench.outcome(tag), Outcome::Modified(ModifyReply::Done));
    bench.down(2);
    let tag = modify(&mut bench, &SET_NX);
    assert!(forwarded(&bench, 3));
    bench.answer(3, |_, request| Message::Failed {
        request,
        reason: Reason::Unavailable { needed: 2, alive: 1 },
    });
    assert_eq!(bench.outcome(tag), Outcome::Failed(Failure::Unavailable { needed: 2, alive: 1 }));
}

#[test]
fn what_could_not_be_sent_goes_to_the_next_and_what_was_sent_does_not() {
    let mut bench = Bench::with(3, |replicas| replicas[0] == NodeId(2) && replicas[1] == NodeId(3));
    bench.shell.full_queues.insert(NodeId(2));
    let tag = modify(&mut bench, &SET_NX);
    assert!(forwarded(&bench, 3));
    bench.down(3);
    assert_eq!(bench.outcome(tag), Outcome::Failed(Failure::Timeout { needed: 2, acked: 0 }));
    assert!(bench.shell.locks.is_empty(), "it may have happened there, so it does not happen here");
}

#[test]
fn a_forwarded_change_outlasts_the_deadline_of_its_primary() {
    let mut bench = Bench::with(3, |replicas| replicas[0] == NodeId(2));
    let tag = modify(&mut bench, &SET_NX);
    bench.wait(2_400);
    assert!(bench.is_open(tag));
    bench.wait(100);
    assert_eq!(bench.outcome(tag), Outcome::Failed(Failure::Timeout { needed: 2, acked: 0 }));
}

/// Peer 2 asks this node for a read-modify-write.
fn ask(bench: &mut Bench, modify: Modify<'_>) {
    ask_at(bench, (QUORUM, QUORUM).into(), modify);
}

fn ask_at(bench: &mut Bench, levels: Levels, modify: Modify<'_>) {
    let name = bench.key.clone();
    let message =
        Message::Modify { request: RequestId(5), key: KeyRef::new(0, name.as_bytes()), levels, modify };
    bench.core.receive(&mut bench.shell, bench.now, NodeId(2), LINK, message);
}

#[test]
fn as_primary_for_a_peer_it_answers_the_peer() {
    let mut bench = Bench::new();
    bench.shell.record = Some(value(1, b"theirs"));
    ask(&mut bench, SET_NX);
    let asked = bench.shell.sent[0].to.0;
    bench.serve(asked, &value(1, b"theirs"));
    let request = RequestId(5);
    assert_eq!(bench.responses(), [Message::Modified { request, result: Ok(ModifyReply::Nil) }]);
    assert!(bench.shell.finished.is_empty() && bench.shell.locks.is_empty());
}

#[test]
fn as_primary_for_a_peer_it_tells_why_not() {
    let mut bench = Bench::new();
    bench.down(2);
    bench.down(3);
    ask(&mut bench, SET_NX);
    let (request, reason) = (RequestId(5), Reason::Unavailable { needed: 2, alive: 1 });
    assert_eq!(bench.responses(), [Message::Failed { request, reason }]);
    let mut bench = Bench::with(6, |replicas| !replicas.contains(&NodeId(1)));
    ask_at(&mut bench, Levels { read: QUORUM, write: QUORUM, quorums: Quorums::Strict }, SET_NX);
    assert_eq!(bench.responses(), [Message::Failed { request, reason: Reason::NotReplica }]);
}
