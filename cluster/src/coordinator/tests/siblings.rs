//! VC.SET and VC.DEL on their primary: what it reads, what it writes, and what it goes on from.

use super::{Bench, QUORUM, WALL, value, version};
use crate::coordinator::Tag;
use crate::message::Message;
use crate::modify::context::CausalContext;
use crate::modify::{Crowd, Modify, ModifyError, ModifyReply, SIBLINGS_WARNED};
use crate::outcome::{Failure, Outcome};

use gyre_storage::siblings::{Dot, Sibling, SiblingSet};
use gyre_storage::{Body, Cell, KeyRef, Record, Row, Version, View};

/// The actor of the benches' own cells.
const ACTOR: u64 = 11;

fn put(bench: &mut Bench, context: &CausalContext, value: &[u8]) -> Tag {
    let tag = bench.tag();
    let name = bench.key.clone();
    let key = KeyRef::new(0, name.as_bytes());
    let mut bytes = Vec::new();
    context.encode(&mut bytes);
    let set = Modify::SetSibling { context: &bytes, value, expiry: None };
    bench.core.modify(&mut bench.shell, bench.now, tag, key, &set, (QUORUM, QUORUM));
    tag
}

fn nothing() -> CausalContext {
    CausalContext::default()
}

/// The sibling cell of another actor.
fn siblings(actor: u64, hlc: u64, base: Version, value: &'static [u8]) -> Record {
    let mut set = SiblingSet::default();
    set.put(Sibling::new(Dot { event: hlc, actor }, None, value));
    let mut bytes = Vec::new();
    set.encode(&mut bytes);
    Record::of_row(&Row {
        key: KeyRef::new(0, b""),
        cell: Cell::Siblings { actor },
        version: version(hlc),
        expiry: None,
        body: Body::Siblings { base, set: &bytes },
    })
}

fn values(record: &Record) -> Vec<&[u8]> {
    let bytes = |view| if let View::Bytes(bytes) = view { bytes } else { b"a number" };
    record.siblings(WALL).into_iter().map(|sibling| bytes(sibling.value)).collect()
}

const DONE: Outcome = Outcome::Modified(ModifyReply::Done);

#[test]
fn a_write_joins_what_replicas_hold_and_counts_only_once_it_is_stored_here() {
    let mut bench = Bench::new();
    let elsewhere = siblings(99, 7, Version::ZERO, b"theirs");
    let tag = put(&mut bench, &nothing(), b"ours");
    let asked = bench.shell.sent[0].to.0;
    bench.serve(asked, &elsewhere);
    // They differ: the record is fetched, and this node is brought up to date first.
    bench.serve(asked, &elsewhere);
    bench.commit(true);
    assert_eq!(bench.shell.applies.len(), 1);
    bench.serve(2, &elsewhere);
    bench.serve(3, &elsewhere);
    assert!(bench.is_open(tag) && !bench.shell.locks.is_empty(), "two replicas have it, this node has not");
    bench.commit(true);
    assert_eq!(bench.outcome(tag), DONE);
    assert!(bench.shell.locks.is_empty());
    let record = bench.shell.record.clone().unwrap();
    assert_eq!(values(&record), [&b"ours"[..], b"theirs"]);
    assert_eq!(record.sibling_cells().map(|cell| cell.actor).collect::<Vec<_>>(), [ACTOR]);
}

#[test]
fn writes_in_a_row_go_on_from_this_nodes_own_cell() {
    let mut bench = Bench::new();
    for count in 1..=5 {
        let tag = put(&mut bench, &nothing(), b"value");
        let held = bench.shell.record.clone().unwrap();
        let asked = bench.requests(2).first().map_or(3, |_| 2);
        bench.serve(asked, &held);
        bench.commit(true);
        bench.serve(2, &held);
        bench.serve(3, &held);
        assert_eq!(bench.outcome(tag), DONE);
        assert_eq!(values(&bench.shell.record.clone().unwrap()).len(), count);
    }
}

#[test]
fn a_stand_in_goes_on_from_its_own_cell_though_others_answer_its_read() {
    let mut bench = Bench::with(6, |replicas| !replicas.contains(&super::NodeId(1)));
    // A peer believes all replicas to be down and has it lead. It knows better, and asks them; its own cell they lack.
    let own = siblings(ACTOR, 7, Version::ZERO, b"before");
    bench.shell.record = Some(own);
    let name = bench.key.clone();
    let mut bytes = Vec::new();
    nothing().encode(&mut bytes);
    let modify = Modify::SetSibling { context: &bytes, value: b"after", expiry: None };
    let message = Message::Modify {
        request: super::RequestId(5),
        key: KeyRef::new(0, name.as_bytes()),
        levels: (QUORUM, QUORUM).into(),
        modify,
    };
    bench.core.receive(&mut bench.shell, bench.now, super::NodeId(6), super::LINK, message);
    for _ in 0..4 {
        for node in 2..=6 {
            while !bench.requests(node).is_empty() {
                bench.serve(node, &Record::ABSENT);
            }
        }
        bench.commit(true);
    }
    let record = bench.shell.record.clone().unwrap();
    assert_eq!(values(&record), [&b"after"[..], b"before"]);
}

#[test]
fn a_node_whose_store_has_failed_writes_no_siblings() {
    let mut bench = Bench::new();
    bench.shell.is_poisoned = true;
    let tag = put(&mut bench, &nothing(), b"value");
    assert_eq!(bench.outcome(tag), Outcome::Failed(Failure::Unavailable { needed: 2, alive: 0 }));
    assert!(bench.shell.locks.is_empty() && bench.shell.sent.is_empty());
}

#[test]
fn the_row_comes_after_everything_that_the_context_has_seen() {
    let mut bench = Bench::new();
    let ahead = (WALL.0 + 400) << 16;
    let seen = CausalContext::of(&value(ahead, b"set elsewhere"));
    let held = value(5, b"older");
    bench.shell.record = Some(held.clone());
    put(&mut bench, &seen, b"new");
    let asked = bench.shell.sent[0].to.0;
    bench.serve(asked, &held);
    let written = &bench.shell.applies[0].1;
    let cell = written.sibling_cells().next().unwrap();
    assert_eq!(cell.base, version(ahead), "it stands on what its client has seen");
    assert!(cell.version > version(ahead));
    bench.commit(true);
    assert_eq!(values(&bench.shell.record.clone().unwrap()), [b"new"], "which voids what was before");
}

#[test]
fn a_context_ahead_of_the_clock_is_refused_as_a_peer_would_be() {
    for (ahead_ms, is_refused) in [(400, false), (600, true), (u64::MAX >> 20, true)] {
        let mut bench = Bench::new();
        let seen = CausalContext::of(&value((WALL.0 + ahead_ms) << 16, b"set elsewhere"));
        let tag = put(&mut bench, &seen, b"new");
        let asked = bench.shell.sent[0].to.0;
        bench.serve(asked, &Record::ABSENT);
        assert_eq!(bench.requests(2).iter().any(|(_, m)| matches!(m, Message::Apply { .. })), !is_refused);
        if !is_refused {
            bench.commit(true);
            bench.serve(2, &Record::ABSENT);
        }
        let expected = if is_refused { Outcome::Refused(ModifyError::ContextAhead) } else { DONE };
        assert_eq!(bench.outcome(tag), expected, "{ahead_ms} ms");
        assert!(bench.shell.locks.is_empty());
    }
}

#[test]
fn many_siblings_are_told_to_the_shell_and_counted() {
    let mut bench = Bench::new();
    for count in 1..=SIBLINGS_WARNED {
        put(&mut bench, &nothing(), b"value");
        let held = bench.shell.record.clone().unwrap();
        let asked = bench.requests(2).first().map_or(3, |_| 2);
        bench.serve(asked, &held);
        bench.commit(true);
        bench.serve(2, &held);
        bench.serve(3, &held);
        assert_eq!(bench.shell.crowds.len(), usize::from(count == SIBLINGS_WARNED));
    }
    assert_eq!(bench.shell.crowds, [Crowd::Many { siblings: SIBLINGS_WARNED }]);
    assert_eq!(bench.core.statistics().siblings_many, 1);
}
