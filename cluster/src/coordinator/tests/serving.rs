//! What a node answers as a replica of somebody else's operation.

use super::{Bench, LINK, WALL, value};
use crate::coordinator::scan::PREFIX_END;
use crate::message::{HintTargets, Message, Reason, RequestId, ScanRange};
use crate::node::NodeId;
use crate::topology::Databases;

use gyre_storage::{Body, Cell, Hlc, KeyRef, Record, Row, Version};

const REQUEST: RequestId = RequestId(5);
const KEY: KeyRef<'static> = KeyRef { db: 0, key: b"k", position: 1 };

fn row(hlc: u64) -> Row<'static> {
    let version = Version { hlc: Hlc(hlc), node: 2 };
    Row { key: KEY, cell: Cell::Register, version, expiry: None, body: Body::Value(b"v") }
}

fn receive(bench: &mut Bench, message: Message<'_>) {
    bench.core.receive(&mut bench.shell, bench.now, NodeId(2), LINK, message);
}

#[test]
fn a_row_is_acknowledged_once_it_is_stored() {
    let mut bench = Bench::new();
    receive(
        &mut bench,
        Message::Apply { request: REQUEST, row: row(1), want_digest: false, hints: HintTargets::NONE },
    );
    assert!(bench.responses().is_empty());
    bench.commit(true);
    assert_eq!(bench.responses(), [Message::Applied { request: REQUEST, digest: None }]);
}

#[test]
fn a_row_that_could_not_be_stored_is_refused() {
    for want_digest in [false, true] {
        let mut bench = Bench::new();
        receive(
            &mut bench,
            Message::Apply { request: REQUEST, row: row(1), want_digest, hints: HintTargets::NONE },
        );
        bench.commit(false);
        assert_eq!(bench.responses(), [Message::Failed { request: REQUEST, reason: Reason::Storage }]);
        assert_eq!(bench.core.in_flight(), 0);
    }
}

#[test]
fn a_wanted_digest_is_that_of_the_record_with_the_row() {
    let mut bench = Bench::new();
    receive(
        &mut bench,
        Message::Apply { request: REQUEST, row: row(1 << 30), want_digest: true, hints: HintTargets::NONE },
    );
    bench.commit(true);
    let digest = Some(Record::of_row(&row(1 << 30)).digest());
    assert_eq!(bench.responses(), [Message::Applied { request: REQUEST, digest }]);
}

#[test]
fn a_wanted_digest_may_come_from_disk() {
    let mut bench = Bench::new();
    bench.shell.record = None;
    receive(
        &mut bench,
        Message::Apply { request: REQUEST, row: row(1), want_digest: true, hints: HintTargets::NONE },
    );
    bench.commit(true);
    assert!(bench.responses().is_empty());
    let ticket = bench.shell.disk_reads.remove(0);
    bench.core.local_record(&mut bench.shell, bench.now, ticket, Some(value(7, b"w")));
    let digest = Some(value(7, b"w").digest());
    assert_eq!(bench.responses(), [Message::Applied { request: REQUEST, digest }]);
    assert_eq!(bench.core.in_flight(), 0);
}

#[test]
fn records_and_digests_are_read_for_peers_from_memory_or_disk() {
    let record = value(7, b"w");
    let mut bench = Bench::new();
    for is_on_disk in [false, true] {
        bench.shell.record = (!is_on_disk).then(|| record.clone());
        receive(&mut bench, Message::Read { request: REQUEST, key: KEY });
        receive(&mut bench, Message::Digest { request: REQUEST, key: KEY });
        for ticket in std::mem::take(&mut bench.shell.disk_reads) {
            bench.core.local_record(&mut bench.shell, bench.now, ticket, Some(record.clone()));
        }
        let found = Message::Found { request: REQUEST, record: record.clone() };
        let digested = Message::Digested { request: REQUEST, digest: record.digest() };
        assert_eq!(bench.responses(), [found, digested]);
        bench.shell.responses.clear();
    }
    bench.shell.record = None;
    receive(&mut bench, Message::Read { request: REQUEST, key: KEY });
    let ticket = bench.shell.disk_reads.remove(0);
    bench.core.local_record(&mut bench.shell, bench.now, ticket, None);
    assert_eq!(bench.responses(), [Message::Failed { request: REQUEST, reason: Reason::Storage }]);
}

#[test]
fn a_repair_stores_every_row_and_is_answered_once_or_not_at_all() {
    let rows = value(7, b"w").merge(&super::counter(1, 8, super::version(7), 3));
    let mut bench = Bench::new();
    receive(&mut bench, Message::Repair { request: REQUEST, key: KEY, record: rows.clone() });
    assert_eq!(bench.shell.applies.len(), 2);
    bench.commit(true);
    assert_eq!(bench.responses(), [Message::Applied { request: REQUEST, digest: None }]);
    assert_eq!(bench.shell.record, Some(rows.clone()));
    receive(&mut bench, Message::Repair { request: RequestId::NONE, key: KEY, record: rows });
    bench.commit(true);
    assert_eq!(bench.responses().len(), 1);
    receive(&mut bench, Message::Repair { request: REQUEST, key: KEY, record: Record::ABSENT });
    assert_eq!(bench.responses().len(), 2);
}

#[test]
fn a_horizon_is_set_and_moves_the_clock() {
    let mut bench = Bench::new();
    let version = Version { hlc: Hlc::from_millis(WALL.0 + 300), node: 2 };
    let databases = Databases::one(4);
    receive(&mut bench, Message::Horizon { request: REQUEST, databases, version });
    let (ticket, flushed, set) = bench.shell.horizons[0];
    assert_eq!((flushed, set), (databases, version));
    assert!(bench.clock.stamp(WALL) > version.hlc);
    bench.core.applied(&mut bench.shell, bench.now, ticket, true);
    assert_eq!(bench.responses(), [Message::HorizonSet { request: REQUEST }]);
}

#[test]
fn clocks_are_told() {
    let mut bench = Bench::new();
    let clock = bench.clock.stamp(WALL);
    receive(&mut bench, Message::ClockRead { request: REQUEST });
    assert_eq!(bench.responses(), [Message::ClockReply { request: REQUEST, clock }]);
}

#[test]
fn pages_for_peers_are_bounded_whatever_they_ask() {
    let mut bench = Bench::new();
    let range = ScanRange { db: 0, from: 3, end: u64::MAX, keys_max: u32::MAX, bytes_max: u32::MAX };
    receive(&mut bench, Message::Scan { request: REQUEST, range });
    receive(&mut bench, Message::Count { request: REQUEST, range });
    for (_, bounded) in &bench.shell.scans {
        assert_eq!((bounded.from, bounded.end), (3, PREFIX_END));
        assert!(bounded.keys_max <= 200_000 && bounded.bytes_max <= 4 << 20);
    }
    let (scan, count) = (bench.shell.scans[0].0, bench.shell.scans[1].0);
    bench.core.scanned(&mut bench.shell, bench.now, scan, Some((Vec::new(), Some(9))));
    bench.core.counted(&mut bench.shell, bench.now, count, Some((7, None)));
    let scanned = Message::Scanned { request: REQUEST, entries: Vec::new(), next: Some(9) };
    let counted = Message::Counted { request: REQUEST, keys: 7, next: None };
    assert_eq!(bench.responses(), [scanned, counted]);
}

#[test]
fn answers_to_nothing_are_ignored() {
    let mut bench = Bench::new();
    for request in [REQUEST, RequestId::NONE, RequestId(u64::MAX)] {
        receive(&mut bench, Message::Applied { request, digest: None });
        receive(&mut bench, Message::Found { request, record: Record::ABSENT });
        receive(&mut bench, Message::Failed { request, reason: Reason::Storage });
    }
    assert!(bench.responses().is_empty() && bench.shell.finished.is_empty());
}
