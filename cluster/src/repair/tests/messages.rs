//! Messages survive the wire, and no bytes hurt the decoder.

use gyre_storage::tree::{PrefixRange, RangeSum};
use gyre_storage::{Hlc, PREFIX_END, Record, SLOTS, Version};
use proptest::prelude::*;

use super::super::message::{Refusal, RepairMessage};
use super::super::slots::SlotRun;
use super::super::work::{Answer, Entry, KeyEntry, Place, Split, Want, Work};
use crate::wire::Malformed;

fn version() -> impl Strategy<Value = Version> {
    (any::<u64>(), any::<u64>()).prop_map(|(hlc, node)| Version { hlc: Hlc(hlc), node })
}

fn range() -> impl Strategy<Value = PrefixRange> {
    (0..PREFIX_END, 1..=PREFIX_END).prop_map(|(from, length)| {
        let end = (from + length).min(PREFIX_END);
        PrefixRange { from, end }
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let value = prop::option::of(bytes());
    (any::<u8>(), bytes(), version(), value).prop_map(|(db, key, version, value)| {
        let record = Record::of_register(version, None, value.as_deref());
        Entry { db, key, record }
    })
}

fn some<T: std::fmt::Debug>(item: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    prop::collection::vec(item, 0..6)
}

fn work() -> impl Strategy<Value = Work> {
    let hashes = prop::collection::btree_set(any::<u64>(), 0..5);
    let want =
        (range(), hashes).prop_map(|(range, hashes)| Want { range, hashes: hashes.into_iter().collect() });
    prop_oneof![
        some((range(), 1u8..=16).prop_map(|(range, parts)| Split { range, parts })).prop_map(Work::Sums),
        some(range()).prop_map(Work::Keys),
        some(want).prop_map(Work::Fetch),
        some(entry()).prop_map(Work::Merge),
        some((0..SLOTS, any::<u64>().prop_map(Hlc))).prop_map(Work::Mark),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let sum = (any::<u64>(), any::<u64>())
        .prop_map(|(sum, keys)| RangeSum { sum: if keys > 0 { sum } else { 0 }, keys });
    let key = (any::<u64>(), any::<u64>(), version()).prop_map(|(hash, digest, newest)| KeyEntry {
        hash,
        digest,
        newest,
    });
    let place =
        || prop::option::of((any::<u16>(), any::<u64>()).prop_map(|(index, prefix)| Place { index, prefix }));
    prop_oneof![
        some(sum).prop_map(Answer::Sums),
        (some(some(key)), place()).prop_map(|(lists, next)| Answer::Keys { lists, next }),
        (some(entry()), place()).prop_map(|(entries, next)| Answer::Records { entries, next }),
        some(any::<u16>()).prop_map(Answer::Merged),
        Just(Answer::Marked),
    ]
}

fn runs() -> impl Strategy<Value = Vec<SlotRun>> {
    prop::collection::btree_set(0..SLOTS, 0..20).prop_map(|borders| {
        let borders: Vec<u16> = borders.into_iter().collect();
        borders.chunks_exact(2).map(|pair| SlotRun { first: pair[0], last: pair[1] }).collect()
    })
}

fn message() -> impl Strategy<Value = RepairMessage> {
    let refusal = prop_oneof![Just(Refusal::NotReplica), Just(Refusal::Overloaded), Just(Refusal::Storage)];
    let (id, session, clock) = (any::<u64>(), any::<u64>(), any::<u64>().prop_map(Hlc));
    prop_oneof![
        (id, work()).prop_map(|(id, work)| RepairMessage::Request { id, work }),
        (any::<u64>(), session, clock, answer())
            .prop_map(|(id, session, clock, answer)| RepairMessage::Answer { id, session, clock, answer }),
        (any::<u64>(), refusal).prop_map(|(id, reason)| RepairMessage::Refused { id, reason }),
        (any::<u64>(), any::<u64>(), runs()).prop_map(|(session, clock, runs)| RepairMessage::Verified {
            session,
            clock: Hlc(clock),
            runs
        }),
        runs().prop_map(|runs| RepairMessage::Wanted { runs }),
        runs().prop_map(|runs| RepairMessage::Compare { runs }),
    ]
}

fn encoded(message: &RepairMessage) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

proptest! {
    #[test]
    fn every_message_survives_the_wire(message in message()) {
        prop_assert_eq!(RepairMessage::decode(&encoded(&message)), Ok(message));
    }

    #[test]
    fn cut_and_bent_messages_never_panic(
        message in message(),
        cut in any::<prop::sample::Index>(),
        bend in any::<(prop::sample::Index, u8)>(),
    ) {
        let mut bytes = encoded(&message);
        prop_assert_eq!(RepairMessage::decode(&bytes[..cut.index(bytes.len())]), Err(Malformed));
        let at = bend.0.index(bytes.len());
        bytes[at] ^= bend.1;
        let _ = RepairMessage::decode(&bytes);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0u8..7) {
        let _ = RepairMessage::decode(&bytes);
        let mut bytes = bytes;
        bytes.insert(0, kind);
        let _ = RepairMessage::decode(&bytes);
    }
}

#[test]
fn more_than_a_step_may_have_is_refused() {
    let whole = PrefixRange { from: 0, end: PREFIX_END };
    let refused = [
        Work::Sums(vec![Split { range: whole, parts: 17 }]),
        Work::Sums(vec![Split { range: whole, parts: 0 }]),
        Work::Sums(vec![Split { range: whole, parts: 1 }; 129]),
        Work::Keys(vec![whole; 129]),
        Work::Fetch(vec![Want { range: whole, hashes: (0..257).collect() }]),
        Work::Fetch(vec![Want { range: whole, hashes: vec![2, 1] }]),
        Work::Merge(vec![Entry { db: 0, key: Vec::new(), record: Record::ABSENT }; 257]),
    ];
    for work in refused {
        let bytes = encoded(&RepairMessage::Request { id: 1, work });
        assert_eq!(RepairMessage::decode(&bytes), Err(Malformed));
    }
}

#[test]
fn the_encoding_of_a_request_does_not_change() {
    let split = Split { range: PrefixRange { from: 256, end: 384 }, parts: 3 };
    let bytes = encoded(&RepairMessage::Request { id: 200, work: Work::Sums(vec![split]) });
    assert_eq!(bytes, [1, 200, 1, 1, 1, 0, 128, 2, 128, 1, 3]);
}
