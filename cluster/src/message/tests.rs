//! Messages survive the wire, and no bytes hurt the decoder.

use gyre_storage::siblings::{Dot, Sibling, SiblingSet, VersionVector};
use gyre_storage::{Body, Cell, Hlc, KeyRef, Record, Row, UnixMillis, Version};
use proptest::prelude::*;

use super::{ClockReading, DecodeError, HintTargets, Levels, Message, Reason, RequestId, ScanRange};
use crate::level::{Consistency, Quorums};
use crate::modify::context::CausalContext;
use crate::modify::{Modify, ModifyError, ModifyReply};
use crate::node::NodeId;
use crate::topology::Databases;

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

fn version() -> impl Strategy<Value = Version> {
    (any::<u64>(), any::<u64>()).prop_map(|(hlc, node)| Version { hlc: Hlc(hlc), node })
}

fn record() -> impl Strategy<Value = Record> {
    let register = (version(), any::<Option<u64>>(), prop::option::of(bytes()));
    let counters = prop::collection::vec((any::<u64>(), version(), version(), any::<i64>()), 0..3);
    let siblings = prop::collection::vec((1..u64::MAX, version(), version(), bytes()), 0..3);
    (prop::option::of(register), counters, siblings).prop_map(|(register, counters, siblings)| {
        let register = register.map_or(Record::ABSENT, |(version, expiry, value)| {
            let expiry = expiry.filter(|_| value.is_some()).map(UnixMillis);
            Record::of_register(version, expiry, value.as_deref())
        });
        let counted = counters.into_iter().fold(register, |record, (actor, version, base, sum)| {
            record.merge(&Record::of_row(&Row {
                key: KeyRef::new(0, b""),
                cell: Cell::Counter { actor },
                version,
                expiry: None,
                body: Body::Counter { base, sum },
            }))
        });
        siblings.into_iter().fold(counted, |record, (actor, version, base, value)| {
            record.merge(&Record::of_row(&Row {
                key: KeyRef::new(0, b""),
                cell: Cell::Siblings { actor },
                version,
                expiry: None,
                body: Body::Siblings { base, set: &set(actor, &value) },
            }))
        })
    })
}

/// An encoded set of one value.
fn set(actor: u64, value: &[u8]) -> Vec<u8> {
    let mut set = SiblingSet::default();
    set.put(Sibling::new(Dot { event: 7, actor }, None, value));
    let mut bytes = Vec::new();
    set.encode(&mut bytes);
    bytes
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..40)
}

/// What messages are made of; [`with_message`] makes one of it.
type Parts = (u8, u64, (u8, Vec<u8>), Record, Version, (Vec<u8>, Option<u64>, bool, u64));

fn parts() -> impl Strategy<Value = Parts> {
    let rest = (bytes(), any::<Option<u64>>(), any::<bool>(), any::<u64>());
    (0u8..35, any::<u64>(), (any::<u8>(), bytes()), record(), version(), rest)
}

fn with_message(parts: &Parts, check: impl FnOnce(Message<'_>)) {
    let (kind, id, (db, key), record, version, (value, option, choice, number)) = parts;
    let (request, key, version) = (RequestId(*id), KeyRef::new(*db, key), *version);
    let range = ScanRange { db: *db, from: *id, end: *number, keys_max: 7, bytes_max: u32::MAX };
    let row = |cell, body, expiry| Row { key, cell, version, expiry, body };
    let expiry = option.map(UnixMillis);
    let ids = vec![number.to_le_bytes(); value.len() % 8];
    let hints = HintTargets::new(&ids).unwrap();
    let counter = Body::Counter { base: version, sum: -1 };
    let set = set(number | 1, value);
    let mut context = Vec::new();
    let mut seen = VersionVector::default();
    seen.see(Dot { event: number | 1, actor: *id });
    CausalContext { base: version, seen }.encode(&mut context);
    check(match kind {
        0 => {
            let row = row(Cell::Register, Body::Value(value), expiry);
            Message::Apply { request, row, want_digest: *choice, hints }
        }
        1 => {
            let row = row(Cell::Register, Body::Tombstone, None);
            Message::Apply { request, row, want_digest: *choice, hints }
        }
        2 => {
            let row = row(Cell::Counter { actor: *number }, counter, None);
            Message::Apply { request, row, want_digest: *choice, hints }
        }
        3 => Message::Applied { request, digest: *option },
        4 => Message::Read { request, key },
        5 => Message::Found { request, record: record.clone() },
        6 => Message::Digest { request, key },
        7 => Message::Digested { request, digest: *number },
        8 => Message::Repair { request, key, record: record.clone() },
        9 => {
            let quorums = if *choice { Quorums::Strict } else { Quorums::Sloppy };
            let levels = Levels { read: Consistency::One, write: Consistency::All, quorums };
            Message::Modify { request, key, levels, modify: Modify::Append { value } }
        }
        10 => Message::Modified { request, result: Ok(ModifyReply::Bytes(value.clone())) },
        11 => Message::Modified { request, result: Err(ModifyError::Overflow) },
        12 => Message::Failed { request, reason: Reason::Storage },
        13 => Message::Failed { request, reason: Reason::Unavailable { needed: *db, alive: 1 } },
        14 => Message::Failed { request, reason: Reason::Timeout { needed: 2, acked: *db } },
        15 => Message::Failed { request, reason: Reason::NotReplica },
        16 => Message::Failed { request, reason: Reason::Overloaded },
        17 => Message::Scan { request, range },
        18 => {
            let entries = vec![(value.clone(), record.clone()); usize::from(*choice) * 3];
            Message::Scanned { request, entries, next: *option }
        }
        19 => Message::Count { request, range },
        20 => Message::Counted { request, keys: *number, next: *option },
        21 => Message::ClockRead { request },
        22 => Message::ClockReply { request, clock: Hlc(*number) },
        23 => {
            let databases = Databases { first: db / 2, last: *db };
            Message::Horizon { request, databases, version }
        }
        24 => Message::HorizonSet { request },
        25 => Message::Topology { bytes: value },
        26 => Message::Forming { bytes: value },
        27 => Message::Gossip { bytes: value },
        28 => Message::Ping { nonce: *number },
        29 => Message::KeepHint { target: NodeId(*number), key, missed: version },
        30 if *choice => Message::Purge { bytes: value },
        30 => Message::Exchange { bytes: value },
        31 => {
            let body = Body::Siblings { base: version, set: &set };
            let row = row(Cell::Siblings { actor: *number }, body, None);
            Message::Apply { request, row, want_digest: *choice, hints }
        }
        32 => {
            let levels = Levels::from((Consistency::Quorum, Consistency::One));
            let modify = match choice {
                true => Modify::SetSibling { context: &context, value, expiry },
                false => Modify::DeleteSiblings { context: &context },
            };
            Message::Modify { request, key, levels, modify }
        }
        33 => {
            let row = row(Cell::Counter { actor: *number }, counter, None);
            Message::Entrust { request, forwarded: RequestId(*number), reply: -3, digest: *id, row }
        }
        _ => {
            let reading = ClockReading { wall_us: number.wrapping_mul(3), time_us: *option };
            Message::Pong { nonce: *number, reading: (*choice).then_some(reading) }
        }
    });
}

proptest! {
    #[test]
    fn every_message_survives_the_wire(parts in parts()) {
        with_message(&parts, |message| {
            let bytes = encoded(&message);
            let is_about_clocks = matches!(message, Message::Ping { .. } | Message::Pong { .. });
            assert_eq!(Message::is_about_clocks(&bytes), is_about_clocks);
            assert_eq!(Message::decode(&bytes), Ok(message));
        });
    }

    #[test]
    fn cut_and_bent_messages_never_panic(parts in parts(), cut in any::<prop::sample::Index>(), bend in any::<(prop::sample::Index, u8)>()) {
        with_message(&parts, |message| {
            let mut bytes = encoded(&message);
            let _ = Message::decode(&bytes[..cut.index(bytes.len())]);
            let at = bend.0.index(bytes.len());
            bytes[at] ^= bend.1;
            let _ = Message::decode(&bytes);
        });
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0u8..32) {
        let _ = Message::decode(&bytes);
        let mut bytes = bytes;
        bytes.insert(0, kind);
        let _ = Message::decode(&bytes);
    }
}

#[test]
fn an_unknown_kind_is_told_from_damage() {
    assert_eq!(Message::decode(&[200, 1, 2, 3]), Err(DecodeError::UnknownKind(200)));
    assert_eq!(Message::decode(&[]), Err(DecodeError::Malformed));
    assert_eq!(Message::decode(&[super::kind::PING, 0]), Err(DecodeError::Malformed));
}

#[test]
fn a_message_with_bytes_left_over_is_damaged() {
    let mut bytes = encoded(&Message::Ping { nonce: 1 });
    bytes.push(0);
    assert_eq!(Message::decode(&bytes), Err(DecodeError::Malformed));
}

#[test]
fn databases_that_end_before_they_begin_are_damage() {
    let databases = Databases { first: 2, last: 1 };
    let bytes = encoded(&Message::Horizon { request: RequestId(1), databases, version: Version::ZERO });
    assert_eq!(Message::decode(&bytes), Err(DecodeError::Malformed));
}

#[test]
fn a_length_beyond_the_message_allocates_nothing() {
    let mut bytes = encoded(&Message::Read { request: RequestId(1), key: KeyRef::new(0, b"k") });
    let length_at = 1 + 8 + 1;
    bytes[length_at..length_at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(Message::decode(&bytes), Err(DecodeError::Malformed));
    let scanned = Message::Scanned { request: RequestId(1), entries: Vec::new(), next: None };
    let mut bytes = encoded(&scanned);
    bytes.extend_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(Message::decode(&bytes), Err(DecodeError::Malformed));
}

#[test]
fn a_large_value_stays_out_of_the_head() {
    let value = vec![7u8; 1 << 20];
    let row = Row {
        key: KeyRef::new(0, b"k"),
        cell: Cell::Register,
        version: Version { hlc: Hlc(1), node: 1 },
        expiry: None,
        body: Body::Value(&value),
    };
    let hints = HintTargets::NONE;
    let message = Message::Apply { request: RequestId(1), row, want_digest: false, hints };
    let mut head = Vec::new();
    message.encode_head(&mut head);
    assert!(head.len() < 64);
    assert!(std::ptr::eq(message.tail(), &*value));
}

#[test]
fn the_encoding_of_an_apply_does_not_change() {
    let row = Row {
        key: KeyRef::new(3, b"key"),
        cell: Cell::Register,
        version: Version { hlc: Hlc(0x0102), node: 5 },
        expiry: Some(UnixMillis(9)),
        body: Body::Value(b"value"),
    };
    let ids = [7u64.to_le_bytes()];
    for (flags, hints) in [(2, HintTargets::NONE), (18, HintTargets::new(&ids).unwrap())] {
        let bytes = encoded(&Message::Apply { request: RequestId(0x0a0b), row, want_digest: false, hints });
        let mut expected = vec![1, 0x0b, 0x0a, 0, 0, 0, 0, 0, 0, flags, 3, 3, 0, 0, 0];
        expected.extend_from_slice(b"key");
        expected.extend_from_slice(&[2, 1, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
        if flags == 18 {
            expected.extend_from_slice(&[1, 7, 0, 0, 0, 0, 0, 0, 0]);
        }
        expected.extend_from_slice(b"value");
        assert_eq!(bytes, expected);
    }
}

#[test]
fn an_apply_names_between_one_and_seven_hint_targets_or_has_no_flag() {
    let row = Row {
        key: KeyRef::new(0, b"k"),
        cell: Cell::Register,
        version: Version { hlc: Hlc(1), node: 1 },
        expiry: None,
        body: Body::Tombstone,
    };
    assert_eq!(HintTargets::new(&[[1; 8]; 8]), None);
    let ids = [[1; 8]; 7];
    let hints = HintTargets::new(&ids).unwrap();
    let bytes = encoded(&Message::Apply { request: RequestId(1), row, want_digest: false, hints });
    let count_at = bytes.len() - 7 * 8 - 1;
    assert_eq!(bytes[count_at], 7);
    for count in [0, 6, 8, 255] {
        let mut bent = bytes.clone();
        bent[count_at] = count;
        assert_eq!(Message::decode(&bent), Err(DecodeError::Malformed), "{count}");
    }
}
