//! Scans: pages of ring positions, merged over replicas.

use super::{Bench, ONE, QUORUM, value, version};
use crate::coordinator::{PREFIX_END, ScannedPage};
use crate::level::Consistency;
use crate::message::Message;
use crate::node::NodeId;
use crate::outcome::{Failure, Outcome};
use crate::topology::Databases;

use gyre_storage::{Hlc, KeyRef, Record};

type Entry = (Vec<u8>, Record);

/// Entries of these names in ring order.
fn entries(named: &[(&str, Record)]) -> Vec<Entry> {
    let mut all: Vec<Entry> =
        named.iter().map(|(name, record)| (name.as_bytes().to_vec(), record.clone())).collect();
    all.sort_by_key(|(key, _)| KeyRef::new(0, key).position);
    all
}

fn prefix(key: &[u8]) -> u64 {
    u64::from(KeyRef::new(0, key).prefix())
}

fn start(bench: &mut Bench, keys_max: usize, level: Consistency) -> super::Tag {
    let tag = bench.tag();
    bench.core.scan(&mut bench.shell, bench.now, tag, 0, 0, PREFIX_END, keys_max, level);
    tag
}

fn scanned_here(bench: &mut Bench, page: Option<ScannedPage>) {
    let (ticket, _) = bench.shell.scans.remove(0);
    bench.core.scanned(&mut bench.shell, bench.now, ticket, page);
}

#[test]
fn pages_of_a_quorum_are_merged_and_the_newest_rows_win() {
    let mut bench = Bench::new();
    let tag = start(&mut bench, 100, QUORUM);
    let here = entries(&[("a", value(1, b"")), ("b", value(5, b""))]);
    let there = entries(&[("b", Record::of_register(version(9), None, None)), ("c", value(2, b""))]);
    scanned_here(&mut bench, Some((here, None)));
    assert!(bench.is_open(tag));
    let asked = bench.shell.sent[0].to.0;
    bench.answer(asked, |_, request| Message::Scanned { request, entries: there, next: None });
    let deleted = Record::of_register(version(9), None, None);
    let merged = entries(&[("a", value(1, b"")), ("b", deleted), ("c", value(2, b""))]);
    assert_eq!(bench.outcome(tag), Outcome::Scanned { entries: merged, next: None });
}

#[test]
fn a_page_ends_where_the_shortest_answer_ends() {
    let mut bench = Bench::new();
    let tag = start(&mut bench, 1, QUORUM);
    let all = entries(&[("a", value(1, b"")), ("b", value(1, b"")), ("c", value(1, b""))]);
    let cut = prefix(&all[1].0);
    scanned_here(&mut bench, Some((all.clone(), None)));
    let asked = bench.shell.sent[0].to.0;
    let first = vec![all[0].clone()];
    let short = first.clone();
    bench.answer(asked, |_, request| Message::Scanned { request, entries: short, next: Some(cut) });
    assert_eq!(bench.outcome(tag), Outcome::Scanned { entries: first, next: Some(cut) });
}

#[test]
fn a_replica_that_fails_is_replaced_and_one_that_stands_still_fails() {
    let mut bench = Bench::new();
    let tag = start(&mut bench, 10, ONE);
    scanned_here(&mut bench, Some((Vec::new(), Some(0))));
    let asked = bench.shell.sent[0].to.0;
    bench.down(asked);
    let other = if asked == 2 { 3 } else { 2 };
    bench.answer(other, |_, request| Message::Scanned { request, entries: Vec::new(), next: None });
    assert_eq!(bench.outcome(tag), Outcome::Scanned { entries: Vec::new(), next: None });
}

#[test]
fn a_scan_walks_every_range_and_asks_its_replicas() {
    let mut bench = Bench::with(6, |_| true);
    let tag = start(&mut bench, 1_000, ONE);
    let (mut covered, mut pages) = (0, 0);
    while bench.is_open(tag) && pages < 1_000 {
        pages += 1;
        if let Some((ticket, range)) = bench.shell.scans.pop() {
            assert_eq!(range.from, covered);
            covered = range.end;
            bench.core.scanned(&mut bench.shell, bench.now, ticket, Some((Vec::new(), None)));
            continue;
        }
        let node = bench.shell.sent.iter().find(|sent| !sent.is_answered).expect("somebody is asked").to.0;
        bench.answer(node, |message, request| {
            let Message::Scan { range, .. } = message else { panic!("not a scan: {message:?}") };
            assert_eq!(range.from, covered);
            covered = range.end;
            Message::Scanned { request, entries: Vec::new(), next: None }
        });
    }
    // It gives up on empty pages after a while and says where to go on.
    let Outcome::Scanned { next, .. } = bench.outcome(tag) else { panic!("not a scan") };
    assert_eq!(next.unwrap_or(PREFIX_END), covered);
    assert!(pages > 1);
}

#[test]
fn a_count_adds_up_pages() {
    let mut bench = Bench::new();
    let tag = bench.tag();
    bench.core.count(&mut bench.shell, bench.now, tag, 0);
    for (keys, next) in [(40, Some(1 << 20)), (2, None)] {
        let (ticket, _) = bench.shell.scans.remove(0);
        bench.core.counted(&mut bench.shell, bench.now, ticket, Some((keys, next)));
    }
    assert_eq!(bench.outcome(tag), Outcome::Counted(42));
}

#[test]
fn every_page_has_its_own_deadline() {
    let mut bench = Bench::new();
    let tag = bench.tag();
    bench.core.count(&mut bench.shell, bench.now, tag, 0);
    bench.wait(9_000);
    let (ticket, _) = bench.shell.scans.remove(0);
    bench.core.counted(&mut bench.shell, bench.now, ticket, Some((1, Some(1 << 20))));
    bench.wait(9_000);
    assert!(bench.is_open(tag));
    bench.wait(1_000);
    assert_eq!(bench.outcome(tag), Outcome::Failed(Failure::Timeout { needed: 1, acked: 0 }));
}

const FLUSHED: Databases = Databases { first: 3, last: 5 };

fn flush(bench: &mut Bench) -> super::Tag {
    let tag = bench.tag();
    bench.core.flush(&mut bench.shell, bench.now, tag, FLUSHED, QUORUM);
    tag
}

#[test]
fn a_flush_is_after_every_clock_and_on_enough_members() {
    let mut bench = Bench::with(5, |_| true);
    let tag = flush(&mut bench);
    let ahead = Hlc::from_millis(super::WALL.0 + 400);
    for node in 2..=5 {
        assert!(bench.shell.horizons.is_empty());
        let clock = if node == 4 { ahead } else { Hlc::ZERO };
        bench.answer(node, |_, request| Message::ClockReply { request, clock });
    }
    let (ticket, databases, horizon) = bench.shell.horizons[0];
    assert_eq!(databases, FLUSHED);
    assert!(horizon.hlc > ahead);
    // Of five members with three replicas a key, four must have it for any two replicas of three to have it.
    bench.core.applied(&mut bench.shell, bench.now, ticket, true);
    for node in [2, 3] {
        bench.answer(node, |_, request| Message::HorizonSet { request });
    }
    bench.wait(9_000);
    assert!(bench.is_open(tag));
    bench.answer(5, |_, request| Message::HorizonSet { request });
    assert_eq!(bench.outcome(tag), Outcome::Written);
}

#[test]
fn a_flush_without_enough_members_sends_nothing() {
    let mut bench = Bench::with(5, |_| true);
    bench.down(2);
    bench.down(3);
    let tag = flush(&mut bench);
    assert_eq!(bench.outcome(tag), Outcome::Failed(Failure::Unavailable { needed: 4, alive: 3 }));
    assert!(bench.shell.sent.is_empty());
}

#[test]
fn a_member_that_is_stuck_does_not_stop_a_flush() {
    let mut bench = Bench::new();
    let tag = flush(&mut bench);
    bench.answer(2, |_, request| Message::ClockReply { request, clock: Hlc::ZERO });
    bench.wait(2_000);
    let (ticket, ..) = bench.shell.horizons[0];
    // A disk may take longer than a clock.
    bench.wait(9_000);
    assert!(bench.is_open(tag));
    bench.core.applied(&mut bench.shell, bench.now, ticket, true);
    bench.answer(2, |_, request| Message::HorizonSet { request });
    assert_eq!(bench.outcome(tag), Outcome::Written);
}

/// Three replicas of five: what two of them stamped and keep, no other clock need have seen.
#[test]
fn a_flush_that_cannot_read_enough_clocks_deletes_nothing() {
    let mut bench = Bench::with(5, |_| true);
    let tag = flush(&mut bench);
    for node in [2, 3] {
        bench.answer(node, |_, request| Message::ClockReply { request, clock: Hlc::ZERO });
    }
    bench.wait(2_000);
    assert_eq!(bench.outcome(tag), Outcome::Failed(Failure::Unavailable { needed: 4, alive: 3 }));
    assert!(bench.shell.horizons.is_empty());
}

#[test]
fn a_dead_member_fails_the_flush_only_when_too_many_die() {
    let mut bench = Bench::new();
    let tag = flush(&mut bench);
    bench.down(2);
    bench.answer(3, |_, request| Message::ClockReply { request, clock: Hlc::ZERO });
    bench.down(3);
    assert_eq!(bench.outcome(tag), Outcome::Failed(Failure::Timeout { needed: 2, acked: 0 }));
    assert_eq!(bench.core.live_peers(), &[] as &[NodeId]);
}
