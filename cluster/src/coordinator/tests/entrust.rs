//! INCR forwarded by a replica: the primary entrusts the reply to it.

use gyre_storage::{Body, Cell, KeyRef, Record, Row, Version};

use super::{ALL, Bench, LINK, ONE, QUORUM, counter, value, version};
use crate::coordinator::Tag;
use crate::level::Consistency;
use crate::message::{Message, Reason, RequestId};
use crate::modify::{Modify, ModifyReply};
use crate::node::NodeId;
use crate::outcome::{Failure, Outcome};

/// The forwarder's request.
const FORWARDED: RequestId = RequestId(5);
const REQUEST: RequestId = RequestId(0x0107);

/// Node 1 is the primary, and `node` has forwarded an increment by 2.
fn forward_from(bench: &mut Bench, node: u64, level: Consistency) {
    let name = bench.key.clone();
    let key = KeyRef::new(0, name.as_bytes());
    let (levels, modify) = ((level, level).into(), Modify::Add { delta: 2 });
    let message = Message::Modify { request: FORWARDED, key, levels, modify };
    bench.core.receive(&mut bench.shell, bench.now, NodeId(node), LINK, message);
}

/// Node 1 as the primary of an increment that node 2 has forwarded, with 40 there; its row is stored.
fn entrusting() -> (Bench, Record) {
    let mut bench = Bench::new();
    bench.shell.record = Some(value(5, b"40"));
    forward_from(&mut bench, 2, QUORUM);
    let row = bench.shell.applies[0].1.clone();
    assert!(
        bench.shell.sent.is_empty() && bench.shell.responses.is_empty(),
        "nothing leaves before it is stored"
    );
    bench.commit(true);
    (bench, row)
}

/// What the primary has asked of the forwarder: its request, and the digest expected.
fn asked(bench: &Bench) -> (RequestId, u64) {
    match bench.responses()[0] {
        Message::Entrust { request, forwarded: FORWARDED, digest, reply: 42, .. } => (request, digest),
        ref other => panic!("not entrusted: {other:?}"),
    }
}

/// The forwarder says what it holds.
fn answer(bench: &mut Bench, digest: u64) {
    let (request, _) = asked(bench);
    let message = Message::Applied { request, digest: Some(digest) };
    bench.core.receive(&mut bench.shell, bench.now, NodeId(2), LINK, message);
}

#[test]
fn a_reply_is_entrusted_once_the_row_is_stored_and_not_sent_again() {
    let (mut bench, row) = entrusting();
    let (_, digest) = asked(&bench);
    assert_eq!(digest, value(5, b"40").merge(&row).digest());
    assert!(matches!(bench.requests(3)[0].1, Message::Apply { want_digest: false, .. }));
    assert!(bench.requests(2).is_empty(), "the forwarder has the row already");
    answer(&mut bench, digest);
    assert!(bench.shell.locks.is_empty());
    assert_eq!(bench.responses().len(), 1, "its client has the reply");
    assert_eq!(bench.core.statistics().counter_rounds_single, 1);
    bench.serve(3, &value(5, b"40"));
    assert_eq!(bench.core.operations.lingering(), 0);
}

#[test]
fn only_two_replicas_that_decide_need_no_other_word() {
    for (level, node, nodes) in [(ONE, 2, 3), (ALL, 2, 3), (QUORUM, 6, 6)] {
        let mut bench = Bench::with(nodes, |list| list[0] == NodeId(1) && !list.contains(&NodeId(6)));
        forward_from(&mut bench, node, level);
        assert_eq!(bench.shell.sent.len(), 2, "the row goes to the others at once: {level:?}");
        bench.commit(true);
        let is_entrusted = |message: &Message<'_>| matches!(message, Message::Entrust { .. });
        assert!(!bench.responses().iter().any(is_entrusted), "{level:?} {node}");
    }
}

#[test]
fn a_forwarder_that_differs_is_told_the_merged_value() {
    let (mut bench, row) = entrusting();
    let elsewhere = value(5, b"40").merge(&counter(99, 7, version(5), 100));
    answer(&mut bench, elsewhere.merge(&row).digest());
    bench.serve(2, &elsewhere.merge(&row));
    bench.commit(true);
    let result = Ok(ModifyReply::Integer(142));
    assert_eq!(bench.responses()[1..], [Message::Modified { request: FORWARDED, result }]);
}

#[test]
fn a_void_increment_is_made_once_more_if_the_forwarder_has_not_told_its_client() {
    let (mut bench, row) = entrusting();
    let elsewhere = value(6, b"1000");
    answer(&mut bench, elsewhere.merge(&row).digest());
    bench.serve(2, &elsewhere.merge(&row));
    bench.commit(true);
    bench.commit(true);
    bench.serve(2, &elsewhere);
    let result = Ok(ModifyReply::Integer(1002));
    assert_eq!(bench.responses()[1..], [Message::Modified { request: FORWARDED, result }]);
}

/// The key was set on node 3, which answers while the forwarder does not. What it answers goes on to the forwarder.
fn void_and_in_doubt(is_lost: bool) -> (Bench, Record) {
    let (mut bench, row) = entrusting();
    let elsewhere = value(6, b"1000");
    bench.serve(3, &elsewhere);
    match is_lost {
        false => bench.wait(1_000),
        true => bench.down(2),
    }
    bench.serve(3, &elsewhere.merge(&row));
    // This node lacks the new value, so that is stored first.
    bench.commit(true);
    (bench, elsewhere.merge(&row))
}

#[test]
fn a_void_increment_is_not_made_once_more_if_nobody_says_whether_its_client_was_told() {
    for is_lost in [false, true] {
        let (mut bench, _) = void_and_in_doubt(is_lost);
        if !is_lost {
            assert_eq!(bench.responses().len(), 1, "it waits for the forwarder");
            bench.wait(1_000);
        }
        let reason = Reason::Timeout { needed: 2, acked: 2 };
        assert_eq!(bench.responses()[1..], [Message::Failed { request: FORWARDED, reason }], "{is_lost}");
        assert!(
            bench.shell.applies.is_empty() && bench.shell.locks.is_empty(),
            "no further increment: {is_lost}"
        );
    }
}

#[test]
fn a_void_increment_whose_forwarder_says_late_that_it_differs_is_made_once_more() {
    let (mut bench, elsewhere) = void_and_in_doubt(false);
    answer(&mut bench, elsewhere.digest());
    bench.commit(true);
    bench.serve(3, &elsewhere);
    let result = Ok(ModifyReply::Integer(1002));
    assert_eq!(bench.responses()[1..], [Message::Modified { request: FORWARDED, result }]);
}

#[test]
fn a_void_increment_whose_forwarder_says_late_that_it_agrees_is_over() {
    let (mut bench, _) = void_and_in_doubt(false);
    let (_, digest) = asked(&bench);
    answer(&mut bench, digest);
    assert_eq!(bench.responses().len(), 1, "its client has the reply");
    assert!(bench.shell.applies.is_empty() && bench.shell.locks.is_empty(), "no further increment");
}

#[test]
fn a_forwarder_that_could_not_store_the_row_is_told() {
    let (mut bench, row) = entrusting();
    let (request, _) = asked(&bench);
    let message = Message::Failed { request, reason: Reason::Storage };
    bench.core.receive(&mut bench.shell, bench.now, NodeId(2), LINK, message);
    bench.serve(3, &value(5, b"40"));
    bench.serve(3, &value(5, b"40").merge(&row));
    let result = Ok(ModifyReply::Integer(42));
    assert_eq!(bench.responses()[1..], [Message::Modified { request: FORWARDED, result }]);
}

#[test]
fn a_row_that_is_stored_too_late_to_be_sent_leaves_hints() {
    let mut bench = Bench::new();
    forward_from(&mut bench, 2, QUORUM);
    bench.wait(2_000);
    let reason = Reason::Timeout { needed: 2, acked: 0 };
    assert_eq!(bench.responses(), [Message::Failed { request: FORWARDED, reason }]);
    bench.commit(true);
    assert!(bench.shell.sent.is_empty() && bench.shell.locks.is_empty());
    let mut missing: Vec<NodeId> = bench.shell.hints.iter().map(|(node, _)| *node).collect();
    missing.sort();
    assert_eq!(missing, [NodeId(2), NodeId(3)]);
}

/// Node 1 as a replica that has forwarded an increment to node 2, with 40 there.
fn forwarding() -> (Bench, Tag, RequestId) {
    let mut bench = Bench::with(3, |replicas| replicas[0] == NodeId(2));
    bench.shell.record = Some(value(5, b"40"));
    let (tag, name) = (bench.tag(), bench.key.clone());
    let (key, modify) = (KeyRef::new(0, name.as_bytes()), Modify::Add { delta: 2 });
    bench.core.modify(&mut bench.shell, bench.now, tag, key, &modify, (QUORUM, QUORUM));
    let Message::Modify { request, .. } = bench.requests(2)[0].1 else { panic!("not forwarded") };
    (bench, tag, request)
}

/// `node` entrusts 42, expecting that this node then holds what `holder` holds with the row.
fn entrust(bench: &mut Bench, node: u64, forwarded: RequestId, holder: &Record) {
    let name = bench.key.clone();
    let (cell, body) = (Cell::Counter { actor: 22 }, Body::Counter { base: version(5), sum: 2 });
    let key = KeyRef::new(0, name.as_bytes());
    let row = Row { key, cell, version: version(8), expiry: None, body };
    let digest = holder.merge(&Record::of_row(&row)).digest();
    let message = Message::Entrust { request: REQUEST, forwarded, reply: 42, digest, row };
    bench.core.receive(&mut bench.shell, bench.now, NodeId(node), LINK, message);
}

fn digest_here(bench: &Bench) -> Option<u64> {
    bench.shell.record.as_ref().map(Record::digest)
}

#[test]
fn an_entrusted_reply_is_given_when_the_row_is_stored_and_the_records_are_equal() {
    let (mut bench, tag, request) = forwarding();
    entrust(&mut bench, 2, request, &value(5, b"40"));
    assert!(bench.is_open(tag));
    bench.commit(true);
    assert_eq!(bench.outcome(tag), Outcome::Modified(ModifyReply::Integer(42)));
    let digest = digest_here(&bench);
    assert_eq!(bench.responses(), [Message::Applied { request: REQUEST, digest }]);
    // It comes once more, late.
    entrust(&mut bench, 2, request, &value(5, b"40"));
    bench.commit(true);
    assert_eq!(bench.responses().len(), 2);
    assert_eq!(bench.core.in_flight(), 0);
}

#[test]
fn a_record_on_disk_is_waited_for_before_an_entrusted_reply_is_given() {
    let (mut bench, tag, request) = forwarding();
    let record = bench.shell.record.take().unwrap();
    entrust(&mut bench, 2, request, &record);
    let row = bench.shell.applies[0].1.clone();
    bench.commit(true);
    assert!(bench.is_open(tag) && bench.responses().is_empty());
    let ticket = bench.shell.disk_reads.remove(0);
    bench.core.local_record(&mut bench.shell, bench.now, ticket, Some(record.merge(&row)));
    assert_eq!(bench.outcome(tag), Outcome::Modified(ModifyReply::Integer(42)));
}

#[test]
fn a_reply_that_does_not_fit_what_is_here_is_the_primarys_to_give() {
    for is_stored in [true, false] {
        let (mut bench, tag, request) = forwarding();
        entrust(&mut bench, 2, request, &value(6, b"1000"));
        bench.commit(is_stored);
        assert!(bench.is_open(tag));
        let expected = match is_stored {
            true => Message::Applied { request: REQUEST, digest: digest_here(&bench) },
            false => Message::Failed { request: REQUEST, reason: Reason::Storage },
        };
        assert_eq!(bench.responses(), [expected]);
        bench.answer(2, |_, request| Message::Modified { request, result: Ok(ModifyReply::Integer(1002)) });
        assert_eq!(bench.outcome(tag), Outcome::Modified(ModifyReply::Integer(1002)));
    }
}

#[test]
fn only_the_primary_entrusts() {
    let (mut bench, tag, request) = forwarding();
    entrust(&mut bench, 3, request, &value(5, b"40"));
    bench.commit(true);
    assert!(bench.is_open(tag));
    let digest = digest_here(&bench);
    assert_eq!(
        bench.responses(),
        [Message::Applied { request: REQUEST, digest }],
        "the row counts all the same"
    );
    bench.down(2);
    assert_eq!(bench.outcome(tag), Outcome::Failed(Failure::Timeout { needed: 2, acked: 0 }));
    assert_eq!(
        bench.shell.record.as_ref().unwrap().newest_version(),
        Version { hlc: version(8).hlc, node: 9 }
    );
}
