//! Claims about the topology: merging obeys its three laws, bytes survive the trip, seats are safe.

use std::collections::BTreeSet;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::ring::VNODES_MAX;

fn member(id: u64) -> Member {
    Member {
        id: NodeId(id),
        incarnation: 1,
        revision: 0,
        state: MemberState::Joining,
        client_addr: Endpoint::new("127.0.0.1", 6379),
        peer_addr: Endpoint::new("::1", 16379),
        rack: None,
        vnodes: 150,
        build: "0.1.0".into(),
    }
}

fn cluster(ids: &[u64]) -> Topology {
    Topology::form(77, "test", 3, ids.iter().map(|&id| member(id)))
}

fn any_member(id: u64) -> impl Strategy<Value = Member> {
    let state = prop_oneof![Just(MemberState::Joining), Just(MemberState::Active), Just(MemberState::Left)];
    let rack = proptest::option::of("[a-c]");
    (0u64..3, 0u64..3, state, rack, 0u32..3, 1u16..3).prop_map(
        move |(incarnation, revision, state, rack, vnodes, port)| Member {
            incarnation,
            revision,
            state,
            rack,
            vnodes,
            client_addr: Endpoint::new("host", port),
            ..member(id)
        },
    )
}

fn any_topology() -> impl Strategy<Value = Topology> {
    let members = vec(1u64..6, 0..6).prop_flat_map(|ids| ids.into_iter().map(any_member).collect::<Vec<_>>());
    let horizon = (1u64..4, 0u64..4).prop_map(|(hlc, node)| Version { hlc: Hlc(hlc), node });
    let lapse = (1u64..4, 0u64..3).prop_map(|(incarnation, later)| Lapse {
        incarnation,
        returned: if later == 0 { 0 } else { incarnation + later },
    });
    let lapses = btree_map((1u64..6).prop_map(NodeId), lapse, 0..3);
    (members, btree_map(0u8..4, horizon, 0..4), 0u64..4, lapses).prop_map(
        |(members, horizons, epoch, lapses)| Topology {
            members: members.into_iter().map(|member| (member.id, member)).collect(),
            horizons,
            epoch,
            lapses,
            ..cluster(&[])
        },
    )
}

fn merged(left: &Topology, right: &Topology) -> Topology {
    let mut merged = left.clone();
    merged.merge(right).unwrap();
    merged
}

proptest! {
    #[test]
    fn merging_commutes_associates_and_is_idempotent(
        a in any_topology(), b in any_topology(), c in any_topology(),
    ) {
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        prop_assert_eq!(merged(&merged(&a, &b), &b), merged(&a, &b));
        prop_assert_eq!(merged(&a, &a), a);
    }

    #[test]
    fn a_merge_says_what_it_changed(a in any_topology(), b in any_topology()) {
        let mut after = a.clone();
        let changed = after.merge(&b).unwrap();
        prop_assert_eq!(changed.any(), after != a);
        prop_assert_eq!(changed.members, after.members != a.members);
        prop_assert!(changed.ring || after.ring() == a.ring());
        prop_assert_eq!(after.digest() == a.digest(), after == a);
        prop_assert!(!after.merge(&b).unwrap().any());
    }

    #[test]
    fn bytes_survive_the_trip_and_no_prefix_is_a_document(topology in any_topology()) {
        let bytes = topology.encode();
        prop_assert_eq!(Topology::decode(&bytes), Ok(topology));
        for cut in 0..bytes.len() {
            prop_assert!(Topology::decode(&bytes[..cut]).is_err());
        }
        prop_assert!(Topology::decode(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn damaged_bytes_are_read_or_refused(topology in any_topology(), at: usize, byte: u8) {
        let mut bytes = topology.encode();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(read) = Topology::decode(&bytes) {
            prop_assert_eq!(read.encode(), bytes, "what is read is canonical");
        }
    }

    #[test]
    fn noise_is_refused(mut bytes in vec(any::<u8>(), 0..200)) {
        bytes.insert(0, FORMAT);
        prop_assert!(Topology::decode(&bytes).is_err() || bytes.len() > 30);
    }
}

#[test]
fn documents_of_other_clusters_are_refused_with_both_names() {
    let ours = cluster(&[1]);
    let refuse = |theirs: Topology, texts: [&str; 2]| {
        let mut merged = ours.clone();
        let error = merged.merge(&theirs).unwrap_err().to_string();
        assert!(texts.iter().all(|text| error.contains(text)), "{error}");
        assert_eq!(merged, ours);
    };
    refuse(Topology { cluster_id: 0xabc, ..ours.clone() }, ["00000abc", "0000004d"]);
    refuse(Topology { cluster_name: "prod".into(), ..ours.clone() }, ["prod", "test"]);
    refuse(Topology { replication_factor: 5, ..ours.clone() }, ["5", "3"]);
}

#[test]
fn an_unknown_format_is_refused_by_number() {
    let mut bytes = cluster(&[1]).encode();
    bytes[0] = 9;
    assert_eq!(Topology::decode(&bytes), Err(TopologyError::UnsupportedFormat { found: 9 }));
}

#[test]
fn the_ring_is_of_active_members_only() {
    let mut topology = cluster(&[1, 2, 3]);
    let changed = topology.admit(&member(4)).unwrap();
    assert_eq!(changed, Changed { members: true, ..Changed::default() });
    assert_eq!(topology.ring().members(), [NodeId(1), NodeId(2), NodeId(3)]);
    assert_eq!(topology.members[&NodeId(4)].state, MemberState::Joining);
    assert!(!topology.admit(&member(4)).unwrap().any(), "asking twice changes nothing");
}

#[test]
fn a_member_that_lost_its_disk_has_its_seat_only_as_a_later_incarnation() {
    let mut topology = cluster(&[1, 2]);
    let known = topology.members[&NodeId(2)].clone();
    let same = Member { incarnation: known.incarnation, client_addr: Endpoint::new("new", 1), ..member(2) };
    assert!(!topology.admit(&same).unwrap().any());
    let later = Member { incarnation: 9, vnodes: 7, rack: Some("r".into()), ..same };
    let changed = topology.admit(&later).unwrap();
    assert_eq!(changed, Changed { members: true, ..Changed::default() }, "nothing moves");
    let seat = &topology.members[&NodeId(2)];
    assert_eq!((seat.state, seat.incarnation, seat.revision), (MemberState::Active, 9, 0));
    assert_eq!((seat.vnodes, &seat.rack, &*seat.client_addr.host), (known.vnodes, &known.rack, "new"));
    topology.members.get_mut(&NodeId(2)).unwrap().state = MemberState::Left;
    let latest = Member { incarnation: 10, ..later };
    assert_eq!(topology.admit(&latest), Err(TopologyError::IdTaken { id: NodeId(2) }));
}

#[test]
fn a_restarted_member_keeps_its_place_on_the_ring() {
    let mut topology = cluster(&[1, 2, 3]);
    let restarted = Member { incarnation: 2, vnodes: 7, client_addr: Endpoint::new("new", 1), ..member(2) };
    let changed = topology.renew(&restarted).unwrap();
    assert!(changed.members && !changed.ring);
    let kept = &topology.members[&NodeId(2)];
    assert_eq!((kept.state, kept.vnodes, kept.incarnation), (MemberState::Active, 150, 2));
    assert_eq!(kept.client_addr.host, "new");
    assert!(!topology.renew(&restarted).unwrap().any());
    let moved = Member { client_addr: Endpoint::new("newer", 1), ..restarted };
    assert!(topology.renew(&moved).unwrap().members);
    assert_eq!(topology.members[&NodeId(2)].revision, 1);
    assert_eq!(topology.renew(&member(9)), Err(TopologyError::NotAMember { id: NodeId(9) }));
}

#[test]
fn a_cluster_is_bounded() {
    let mut topology = cluster(&(1..=MEMBERS_MAX as u64).collect::<Vec<_>>());
    assert_eq!(topology.admit(&member(20_000)), Err(TopologyError::TooManyMembers));
    assert_eq!(topology.merge(&cluster(&[20_000])), Err(TopologyError::TooManyMembers));
    assert_eq!(Topology::decode(&topology.encode()), Ok(topology));
    let invalid = Member { vnodes: VNODES_MAX + 1, ..member(1) };
    assert_eq!(cluster(&[]).admit(&invalid), Err(TopologyError::InvalidMember { id: NodeId(1) }));
}

#[test]
fn horizons_only_move_forward() {
    let at = |hlc| Version { hlc: Hlc(hlc), node: 1 };
    let mut topology = cluster(&[1]);
    assert!(topology.raise_horizon(3, at(5)) && !topology.raise_horizon(3, at(4)));
    assert_eq!((topology.horizon(3), topology.horizon(0)), (at(5), Version::ZERO));
}

#[test]
fn addresses_are_shown_as_they_are_dialled() {
    assert_eq!(Endpoint::new("::1", 7).to_string(), "[::1]:7");
    assert_eq!(Endpoint::new("db-1.example", 7).to_string(), "db-1.example:7");
}

#[test]
fn what_a_member_holds_lapses_until_it_has_come_back_empty() {
    let id = NodeId(2);
    let mut topology = cluster(&[1, 2, 3]);
    assert!(!topology.lapse(id, 5), "not the incarnation that is known");
    assert!(!topology.lapse(NodeId(9), 1), "no member");
    assert!(topology.lapse(id, 1) && !topology.lapse(id, 1));
    assert_eq!(topology.lapsed(), BTreeSet::from([id]));
    // It starts again and again with what it has.
    topology.renew(&Member { incarnation: 4, ..member(2) }).unwrap();
    assert!(topology.has_lapsed(id, 4) && topology.has_lapsed(id, 77) && !topology.has_lapsed(NodeId(1), 1));
    assert!(!topology.return_empty(id, 1), "it must be a later one");
    assert!(topology.return_empty(id, 5) && !topology.return_empty(id, 5));
    assert!(topology.has_lapsed(id, 4) && !topology.has_lapsed(id, 5) && topology.lapsed().is_empty());
    assert!(!topology.lapse(id, 4), "an older start is not known any more");
    topology.renew(&Member { incarnation: 6, ..member(2) }).unwrap();
    assert!(topology.lapse(id, 6) && topology.has_lapsed(id, 6), "it may be away for long again");
}

#[test]
fn a_lapsed_member_that_lost_its_disk_comes_back_with_its_seat() {
    let mut topology = cluster(&[1, 2]);
    topology.lapse(NodeId(2), 1);
    let changed = topology.admit(&Member { incarnation: 2, ..member(2) }).unwrap();
    assert!(changed.lapses && !topology.has_lapsed(NodeId(2), 2));
}
