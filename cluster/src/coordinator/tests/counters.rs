//! INCR in one round: when the digests agree, and what follows when they do not.

use super::{Bench, ONE, QUORUM, WALL, counter, value, version};
use crate::coordinator::Tag;
use crate::level::Consistency;
use crate::message::Message;
use crate::modify::{Modify, ModifyError, ModifyReply};
use crate::outcome::{Failure, Outcome};

use gyre_storage::{KeyRef, Record, UnixMillis, Version, View};

/// The actor of the benches' own cells.
const ACTOR: u64 = 11;

fn add_at(bench: &mut Bench, delta: i64, level: Consistency) -> Tag {
    let tag = bench.tag();
    let name = bench.key.clone();
    let key = KeyRef::new(0, name.as_bytes());
    bench.core.modify(&mut bench.shell, bench.now, tag, key, &Modify::Add { delta }, (level, level));
    tag
}

fn add(bench: &mut Bench, delta: i64) -> Tag {
    add_at(bench, delta, QUORUM)
}

fn integer(number: i64) -> Outcome {
    Outcome::Modified(ModifyReply::Integer(number))
}

/// Whether a register row waits to be stored here.
fn writes_register(bench: &Bench) -> bool {
    bench.shell.applies.iter().any(|(_, rows)| rows.register().is_some())
}

#[test]
fn replicas_that_agree_take_a_single_round() {
    let mut bench = Bench::new();
    bench.shell.record = Some(value(5, b"40"));
    let tag = add(&mut bench, 2);
    assert!(matches!(bench.requests(2)[0].1, Message::Apply { want_digest: true, .. }));
    bench.commit(true);
    assert!(bench.is_open(tag));
    bench.serve(2, &value(5, b"40"));
    assert_eq!(bench.outcome(tag), integer(42));
    assert_eq!(bench.shell.sent.len(), 2, "one message to each replica");
    assert_eq!(bench.core.statistics().counter_rounds_single, 1);
    assert!(bench.shell.locks.is_empty());
}

#[test]
fn only_as_many_digests_are_asked_for_as_the_level_needs() {
    for (level, expected) in [(ONE, 0), (QUORUM, 1), (Consistency::All, 2)] {
        let mut bench = Bench::new();
        add_at(&mut bench, 1, level);
        let requests: Vec<_> = [2, 3].into_iter().flat_map(|node| bench.requests(node)).collect();
        let is_asked = |(_, message): &&(usize, Message<'_>)| {
            matches!(message, Message::Apply { want_digest: true, .. })
        };
        assert_eq!((requests.iter().filter(is_asked).count(), requests.len()), (expected, 2), "{level:?}");
    }
}

#[test]
fn a_replica_that_was_not_asked_for_its_digest_does_not_decide() {
    let mut bench = Bench::new();
    bench.shell.record = Some(value(5, b"40"));
    let tag = add(&mut bench, 2);
    bench.commit(true);
    bench.serve(3, &value(5, b"40"));
    assert!(
        bench.is_open(tag),
        "two have the row, but whether they agree only the digest of node 2 can tell"
    );
    bench.serve(2, &value(5, b"40"));
    assert_eq!(bench.outcome(tag), integer(42));
}

#[test]
fn a_slow_digest_is_replaced_by_the_record_of_another_replica() {
    let mut bench = Bench::new();
    bench.shell.record = Some(value(5, b"40"));
    let tag = add(&mut bench, 2);
    let row = bench.shell.applies[0].1.clone();
    bench.commit(true);
    bench.serve(3, &value(5, b"40"));
    bench.wait(1_000);
    assert!(bench.is_open(tag));
    bench.serve(3, &value(5, b"40").merge(&row));
    assert_eq!(bench.outcome(tag), integer(42));
    assert_eq!(bench.core.statistics().speculative_retries, 1);
    assert!(bench.shell.locks.is_empty());
}

#[test]
fn increments_in_a_row_add_up_in_one_cell() {
    let mut bench = Bench::new();
    let mut remote = Record::ABSENT;
    for round in 1..=5 {
        let tag = add(&mut bench, 10);
        let row = bench.shell.applies[0].1.clone();
        bench.commit(true);
        bench.serve(2, &remote);
        bench.serve(3, &remote);
        remote = remote.merge(&row);
        assert_eq!(bench.outcome(tag), integer(10 * round));
    }
    assert_eq!(remote.counters().count(), 1);
    assert_eq!(bench.core.statistics().counter_rounds_single, 5);
}

#[test]
fn another_actors_increments_are_found_and_counted() {
    let mut bench = Bench::new();
    bench.shell.record = Some(value(5, b"40"));
    let elsewhere = value(5, b"40").merge(&counter(99, 7, version(5), 100));
    let tag = add(&mut bench, 2);
    let row = bench.shell.applies[0].1.clone();
    bench.commit(true);
    bench.serve(2, &elsewhere);
    bench.serve(2, &elsewhere.merge(&row));
    // This node lacks the other cell, so it is stored here before the reply.
    assert!(bench.is_open(tag));
    bench.commit(true);
    assert_eq!(bench.outcome(tag), integer(142));
    assert_eq!(bench.core.statistics().counter_rounds_resolved, 1);
}

#[test]
fn an_increment_on_a_key_that_was_set_elsewhere_is_made_on_the_new_value() {
    let mut bench = Bench::new();
    bench.shell.record = Some(value(5, b"40"));
    let elsewhere = value(6, b"1000");
    let tag = add(&mut bench, 2);
    let row = bench.shell.applies[0].1.clone();
    bench.commit(true);
    bench.serve(2, &elsewhere);
    bench.serve(2, &elsewhere.merge(&row));
    bench.commit(true);
    assert!(bench.is_open(tag), "the increment on the old value is void");
    let row = bench.shell.applies[0].1.clone();
    let cell = row.counters().next().unwrap();
    assert_eq!((cell.actor, cell.base, cell.sum), (ACTOR, version(6), 2));
    bench.commit(true);
    bench.serve(2, &elsewhere);
    assert_eq!(bench.outcome(tag), integer(1002));
    let here = bench.shell.record.clone().unwrap();
    assert_eq!(here.view(WALL), Some(View::Integer(1002)));
}

#[test]
fn a_key_that_became_text_elsewhere_refuses() {
    let mut bench = Bench::new();
    bench.shell.record = Some(value(5, b"40"));
    let elsewhere = value(6, b"text");
    let tag = add(&mut bench, 2);
    let row = bench.shell.applies[0].1.clone();
    bench.commit(true);
    bench.serve(2, &elsewhere);
    bench.serve(2, &elsewhere.merge(&row));
    bench.commit(true);
    assert_eq!(bench.outcome(tag), Outcome::Refused(ModifyError::NotAnInteger));
    assert!(bench.shell.locks.is_empty());
}

#[test]
fn a_refusal_comes_from_a_quorum_read_not_from_what_is_here() {
    for (here, elsewhere, expected) in [
        (value(5, b"text"), value(5, b"text"), Outcome::Refused(ModifyError::NotAnInteger)),
        (value(5, b"text"), value(6, b"7"), integer(8)),
        (value(5, b"9223372036854775807"), value(6, b"7"), integer(8)),
    ] {
        let mut bench = Bench::new();
        bench.shell.record = Some(here);
        let tag = add(&mut bench, 1);
        assert!(bench.shell.applies.is_empty() && bench.is_open(tag));
        let asked = bench.shell.sent[0].to.0;
        for _ in 0..3 {
            if !bench.requests(asked).is_empty() {
                bench.serve(asked, &elsewhere);
            }
            bench.commit(true);
        }
        assert_eq!(bench.outcome(tag), expected);
        assert!(bench.shell.locks.is_empty());
    }
}

#[test]
fn overflow_is_refused_and_changes_nothing() {
    let mut bench = Bench::new();
    let full = value(5, b"9223372036854775807");
    bench.shell.record = Some(full.clone());
    let tag = add(&mut bench, 1);
    let asked = bench.shell.sent[0].to.0;
    bench.serve(asked, &full);
    assert_eq!(bench.outcome(tag), Outcome::Refused(ModifyError::Overflow));
    assert!(bench.shell.applies.is_empty());
}

#[test]
fn an_expired_key_starts_anew_with_a_register() {
    let mut bench = Bench::new();
    let expired = Record::of_register(version(5), Some(UnixMillis(WALL.0 - 1)), Some(b"40"));
    bench.shell.record = Some(expired.clone());
    let tag = add(&mut bench, 2);
    let asked = bench.shell.sent[0].to.0;
    bench.serve(asked, &expired);
    assert!(writes_register(&bench));
    bench.commit(true);
    bench.serve(asked, &expired);
    assert_eq!(bench.outcome(tag), integer(2));
    let here = bench.shell.record.clone().unwrap();
    assert_eq!((here.view(WALL), here.expiry(WALL)), (Some(View::Bytes(b"2")), None));
}

#[test]
fn a_key_that_will_expire_keeps_its_expiry() {
    let mut bench = Bench::new();
    let expiry = UnixMillis(WALL.0 + 1_000);
    let mortal = Record::of_register(version(5), Some(expiry), Some(b"40"));
    bench.shell.record = Some(mortal.clone());
    let tag = add(&mut bench, 2);
    bench.commit(true);
    bench.serve(2, &mortal);
    assert_eq!(bench.outcome(tag), integer(42));
    let here = bench.shell.record.clone().unwrap();
    assert_eq!((here.expiry(WALL), here.view(expiry)), (Some(expiry), None));
}

#[test]
fn a_new_actor_leaves_the_cell_of_the_old_one_alone() {
    let mut bench = Bench::new();
    let before = counter(ACTOR - 1, 7, Version::ZERO, 30);
    bench.shell.record = Some(before.clone());
    let tag = add(&mut bench, 2);
    let row = bench.shell.applies[0].1.clone();
    bench.commit(true);
    bench.serve(2, &before);
    assert_eq!(bench.outcome(tag), integer(32));
    // A replica that had increments of the old actor which this node lost counts them, too.
    let richer = counter(ACTOR - 1, 8, Version::ZERO, 31).merge(&row);
    assert_eq!(richer.merge(&before).view(WALL), Some(View::Integer(33)));
}

#[test]
fn nothing_is_answered_before_the_own_cell_is_stored_here() {
    let mut bench = Bench::new();
    let tag = add(&mut bench, 1);
    bench.serve(2, &Record::ABSENT);
    bench.serve(3, &Record::ABSENT);
    assert!(bench.is_open(tag));
    bench.commit(true);
    assert_eq!(bench.outcome(tag), integer(1));
}

#[test]
fn the_lock_is_kept_until_the_own_cell_is_stored_even_past_the_deadline() {
    let mut bench = Bench::new();
    let tag = add(&mut bench, 1);
    bench.down(2);
    bench.down(3);
    assert_eq!(bench.outcome(tag), Outcome::Failed(Failure::Timeout { needed: 2, acked: 0 }));
    assert!(!bench.shell.locks.is_empty());
    bench.wait(5_000);
    assert!(!bench.shell.locks.is_empty());
    bench.commit(true);
    assert!(bench.shell.locks.is_empty());
}

#[test]
fn a_store_that_fails_here_fails_the_increment() {
    let mut bench = Bench::new();
    let tag = add(&mut bench, 1);
    bench.serve(2, &Record::ABSENT);
    bench.serve(3, &Record::ABSENT);
    bench.commit(false);
    assert_eq!(bench.outcome(tag), Outcome::Failed(Failure::Timeout { needed: 2, acked: 2 }));
    assert!(bench.shell.locks.is_empty());
}

#[test]
fn at_one_the_own_store_is_enough() {
    let mut bench = Bench::new();
    bench.down(2);
    bench.down(3);
    let tag = add_at(&mut bench, 3, ONE);
    bench.commit(true);
    assert_eq!(bench.outcome(tag), integer(3));
}

#[test]
fn a_node_whose_store_has_failed_counts_no_more() {
    let mut bench = Bench::new();
    let seen = add(&mut bench, 5);
    bench.commit(false);
    bench.shell.is_poisoned = true;
    assert!(matches!(bench.outcome(seen), Outcome::Failed(Failure::Timeout { .. })));
    bench.shell.sent.clear();
    let tag = add(&mut bench, 1);
    assert_eq!(bench.outcome(tag), Outcome::Failed(Failure::Unavailable { needed: 2, alive: 0 }));
    assert!(bench.shell.sent.is_empty(), "a cell that does not know of the 5 would undo it on the replicas");
    assert!(bench.shell.locks.is_empty());
}
