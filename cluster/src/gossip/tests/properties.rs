//! Laws: the wire gives back what was put in, hostile bytes are refused, merging is a union, and exchanges converge
//! whatever is lost, doubled or overtaken.

use proptest::prelude::*;

use super::*;
use crate::purge::absence::Vote;

fn entry() -> impl Strategy<Value = Entry> {
    let value = prop::collection::vec(any::<u8>(), 0..40);
    (32u8..64, 1u64..20, value).prop_map(|(kind, version, value)| Entry {
        kind,
        version,
        value: value.into(),
    })
}

/// Entries of unknown kinds, whose values are free.
fn entries() -> impl Strategy<Value = Vec<Entry>> {
    prop::collection::vec(entry(), 0..8).prop_map(|mut entries| {
        entries.sort_by_key(|entry| entry.kind);
        entries.dedup_by_key(|entry| entry.kind);
        entries
    })
}

fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0u32..64).prop_map(|(bits, shift)| bits >> shift)
}

fn message() -> impl Strategy<Value = GossipMessage> {
    let digest = (1u64.., number(), number(), number()).prop_map(|(raw, incarnation, counter, version)| {
        Digest { id: id(raw), heartbeat: Heartbeat { incarnation, counter }, version }
    });
    let delta = (1u64.., number(), entries()).prop_map(|(raw, incarnation, entries)| Delta {
        id: id(raw),
        incarnation,
        after: 0,
        entries: entries.into(),
    });
    let step = prop_oneof![Just(Step::Syn), Just(Step::Ack), Just(Step::Ack2)];
    let lists = (prop::collection::vec(digest, 0..20), prop::collection::vec(delta, 0..6));
    (step, number(), any::<u64>(), lists).prop_map(|(step, epoch, digest, (digests, deltas))| GossipMessage {
        step,
        topology: TopologyMark { epoch, digest },
        digests,
        deltas,
    })
}

fn encoded(message: &GossipMessage) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

fn merged(lists: &[&Vec<Entry>]) -> Entries {
    let mut all = Entries::default();
    lists.iter().for_each(|list| {
        all.merge(&list.as_slice().into());
    });
    all
}

proptest! {
    #[test]
    fn every_message_survives_the_wire(message in message()) {
        let bytes = encoded(&message);
        prop_assert_eq!(bytes.len(), message.encoded_bytes());
        prop_assert_eq!(GossipMessage::decode(&bytes), Ok(message));
    }

    #[test]
    fn cut_and_bent_messages_are_read_or_refused(
        message in message(),
        cut in any::<prop::sample::Index>(),
        bend in any::<(prop::sample::Index, u8)>(),
    ) {
        let mut bytes = encoded(&message);
        let cut = cut.index(bytes.len());
        prop_assert!(GossipMessage::decode(&bytes[..cut]).is_err());
        let at = bend.0.index(bytes.len());
        bytes[at] ^= bend.1;
        if let Ok(message) = GossipMessage::decode(&bytes) {
            let mut nodes = nodes(3);
            nodes[0].receive(START, id(2), &message, &mut Vec::new());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), step in 1u8..=3) {
        let _ = GossipMessage::decode(&bytes);
        let mut bytes = bytes;
        bytes.insert(0, step);
        let _ = GossipMessage::decode(&bytes);
    }

    #[test]
    fn merging_entries_is_a_union(a in entries(), b in entries(), c in entries()) {
        let left = merged(&[&a, &b, &c]);
        prop_assert_eq!(&left, &merged(&[&c, &b, &a]), "commutes");
        let mut right = Entries::default();
        right.merge(&merged(&[&b, &c]).newer_than(0));
        right.merge(&a.as_slice().into());
        prop_assert_eq!(&left, &right, "associates");
        prop_assert_eq!(&left, &merged(&[&a, &b, &c, &a, &b, &c]), "is idempotent");
    }

    #[test]
    fn what_a_node_says_of_itself_is_read_back(
        status in 0u8..4, host in "[a-z0-9.:-]{1,255}", rack in prop::option::of("[a-z]{1,64}"),
        numbers in any::<(u32, u64, u64)>(), oldest_hint in any::<Option<u64>>(), build in ".{0,16}",
    ) {
        let about = About {
            status: [NodeStatus::Joining, NodeStatus::Active, NodeStatus::Stopping, NodeStatus::Left][usize::from(status)],
            client_addr: Endpoint::new(host.clone(), 1),
            peer_addr: Endpoint::new(host, 2),
            rack,
            weight: numbers.0,
            topology: TopologyMark { epoch: numbers.1, digest: numbers.2 },
            build,
            load: numbers.2,
            oldest_hint: oldest_hint.map(UnixMillis),
            floor: oldest_hint.map(gyre_storage::Hlc),
            away: oldest_hint.map(|at| Vote { member: NodeId(at | 1), incarnation: 3 }).into_iter().collect(),
            has_failed: numbers.2 % 3 == 1,
        };
        let mut entries = Entries::default();
        entries.publish(about.values().to_vec());
        prop_assert_eq!(About::of(&entries), Some(about));
        prop_assert!(entries.list().iter().all(|entry| about::check(entry).is_ok()));
        prop_assert_eq!(About::of(&Entries::default()), None);
    }

    #[test]
    fn exchanges_converge_whatever_was_lost_doubled_or_overtaken(
        history in prop::collection::vec((0usize..5, 0usize..5, any::<(bool, bool, u8)>()), 0..120),
    ) {
        let mut nodes = nodes(5);
        let shared = topology(1..=5);
        let mut incarnations = [1u64; 5];
        let mut on_the_way: Vec<(NodeId, usize, GossipMessage)> = Vec::new();
        for (a, b, (is_lost, is_late, what)) in history {
            nodes[a].tick(START, &mut Vec::new());
            nodes[a].members.own_mut().heartbeat.counter += 1;
            match what % 8 {
                0 => {
                    incarnations[a] += 1;
                    nodes[a] = node(a as u64 + 1, incarnations[a], &shared, START);
                }
                1 => nodes[a].set_about(START, About { weight: u32::from(what), ..about(a as u64 + 1) }),
                2 => nodes[a].set_about(START, About { build: format!("0.{what}"), ..about(a as u64 + 1) }),
                _ => {}
            }
            if a == b || is_lost {
                continue;
            }
            let from = own(&nodes[a]);
            on_the_way.push((from, b, nodes[a].syn()));
            if is_late {
                continue;
            }
            // Everything on the way arrives, the last first, and some of it twice.
            while let Some((from, to, message)) = on_the_way.pop() {
                for _ in 0..=(what % 2) {
                    let (answer, _) = deliver(&mut nodes[to], from, &message, START);
                    if let Some(answer) = answer {
                        on_the_way.push((own(&nodes[to]), usize::try_from(from.0 - 1).unwrap(), answer));
                    }
                }
            }
        }
        // A ring of exchanges, twice, takes everything everywhere.
        for _ in 0..2 {
            (0..5).for_each(|a| { exchange(&mut nodes, a, (a + 1) % 5, START); });
        }
        for (index, incarnation) in incarnations.into_iter().enumerate() {
            let truth = nodes[index].peer(id(index as u64 + 1), START).unwrap();
            prop_assert_eq!(truth.heartbeat.incarnation, incarnation);
            for observer in &nodes {
                let seen = observer.peer(truth.id, START).unwrap();
                prop_assert_eq!(&seen.about, &truth.about);
                prop_assert_eq!((seen.heartbeat, seen.version), (truth.heartbeat, truth.version));
            }
        }
    }
}

#[test]
fn a_known_entry_with_a_bad_value_is_refused() {
    let bad: [(u8, &[u8]); 6] =
        [(1, &[9]), (1, &[1, 1]), (2, &[0, 0, 1, 0]), (4, &[2]), (5, &[1, 2, 3]), (9, &[1, 2])];
    for (kind, value) in bad {
        let entry = Entry { kind, version: 1, value: value.into() };
        assert!(about::check(&entry).is_err(), "{entry:?}");
        let deltas = vec![Delta { id: id(1), incarnation: 1, after: 0, entries: [entry].into() }];
        let message =
            GossipMessage { step: Step::Ack, topology: TopologyMark::default(), digests: vec![], deltas };
        assert!(GossipMessage::decode(&encoded(&message)).is_err());
    }
}

#[test]
fn messages_out_of_bounds_are_refused() {
    let message = |entries: Vec<Entry>, after| GossipMessage {
        step: Step::Ack,
        topology: TopologyMark::default(),
        digests: vec![],
        deltas: vec![Delta { id: id(1), incarnation: 1, after, entries: entries.into() }],
    };
    let entry = |kind, version, bytes| Entry { kind, version, value: vec![0; bytes].into() };
    let is_read = |message: &GossipMessage| GossipMessage::decode(&encoded(message)).is_ok();
    assert!(is_read(&message(vec![entry(100, 1, ENTRY_BYTES_MAX)], 0)));
    assert!(!is_read(&message(vec![entry(100, 1, ENTRY_BYTES_MAX + 1)], 0)), "too long a value");
    assert!(!is_read(&message(vec![entry(100, 0, 1)], 0)), "no version");
    assert!(!is_read(&message(vec![entry(100, 5, 1)], 5)), "not newer");
    assert!(!is_read(&message(vec![entry(101, 1, 1), entry(100, 1, 1)], 0)), "descending");
    assert!(!is_read(&message(vec![entry(100, 1, 1), entry(100, 2, 1)], 0)), "twice");
    let many = |count: u8| (100..100 + count).map(|kind| entry(kind, 1, 1)).collect::<Vec<_>>();
    assert!(is_read(&message(many(32), 0)));
    assert!(!is_read(&message(many(33), 0)), "too many");
    let heavy = (100..105).map(|kind| entry(kind, 1, 500)).collect();
    assert!(!is_read(&message(heavy, 0)), "too much of one node");
    let mut bytes = encoded(&message(many(1), 0));
    bytes.push(0);
    assert!(GossipMessage::decode(&bytes).is_err(), "bytes left over");
    let mut long = vec![2u8; MESSAGE_BYTES_MAX + 1];
    long[0] = 1;
    assert!(GossipMessage::decode(&long).is_err());
}

#[test]
fn a_node_keeps_no_more_of_another_than_its_share() {
    let mut entries = Entries::default();
    let entry = |kind| Entry { kind, version: 1, value: vec![0; ENTRY_BYTES_MAX].into() };
    assert!(entries.merge(&(100..104).map(entry).collect()));
    let before = entries.clone();
    assert!(!entries.merge(&[entry(104)].into()));
    assert_eq!(entries, before);
}

#[test]
fn kinds_of_a_newer_version_are_passed_on() {
    let mut nodes = nodes(3);
    nodes[0].members.own_mut().entries.publish(vec![(200, b"what is to come".to_vec())]);
    exchange(&mut nodes, 0, 1, START);
    exchange(&mut nodes, 1, 2, START);
    let at = nodes[2].members.find(0, id(1)).unwrap();
    assert_eq!(nodes[2].members.get(at).unwrap().entries.value(200), Some(&b"what is to come"[..]));
}

#[test]
fn the_encoding_does_not_change() {
    let message = GossipMessage {
        step: Step::Ack,
        topology: TopologyMark { epoch: 300, digest: 0x0102 },
        digests: vec![
            Digest { id: id(0x1000), heartbeat: Heartbeat { incarnation: 3, counter: 130 }, version: 7 },
            Digest { id: id(0x1001), heartbeat: Heartbeat::default(), version: 0 },
        ],
        deltas: vec![Delta {
            id: id(0x1003),
            incarnation: 2,
            after: 4,
            entries: [Entry { kind: 1, version: 5, value: [1].into() }].into(),
        }],
    };
    let expected = [
        2, 0xac, 2, 2, 1, 0, 0, 0, 0, 0, 0, // step, topology
        2, 0, 0x80, 0x20, 3, 0x82, 1, 7, 1, 0, 0, 0, // digests
        1, 0, 2, 2, 4, 1, 1, 5, 1, 1, // deltas
    ];
    assert_eq!(encoded(&message), expected);
}
