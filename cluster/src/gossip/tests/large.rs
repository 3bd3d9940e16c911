//! Gossip among as many members as a topology may have: messages stay bounded, and everyone's turn comes.

use std::collections::BTreeSet;

use super::*;
use crate::topology::MEMBERS_MAX;

const COUNT: u64 = MEMBERS_MAX as u64;

/// An id spread over all 64 bits, as random ids are.
fn spread(index: u64) -> u64 {
    index.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

fn large() -> (Topology, Vec<NodeId>) {
    let ids: Vec<u64> = (1..=COUNT).map(spread).collect();
    (topology(ids.iter().copied()), ids.into_iter().map(NodeId).collect())
}

/// A node that has heard heartbeat `counter` of everyone, and their entries.
fn knowing(index: usize, ids: &[NodeId], topology: &Topology, counter: u64) -> Gossip {
    let mut gossip = node(ids[index].0, 1, topology, START);
    let values = about(1).values();
    for peer in gossip.members.iter_mut() {
        peer.heartbeat = Heartbeat { incarnation: 1, counter };
        if peer.id != ids[index] {
            peer.entries.publish(values.to_vec());
        }
    }
    gossip
}

#[test]
fn messages_are_bounded_and_pages_cover_everyone() {
    let (topology, ids) = large();
    let mut nodes = [knowing(0, &ids, &topology, 40_000), knowing(1, &ids, &topology, 40_001)];
    let mut seen = BTreeSet::new();
    let mut pages = 0;
    while seen.len() < ids.len() {
        let syn = nodes[0].syn();
        assert!(
            syn.encoded_bytes() > MESSAGE_BYTES_MAX - 2 * DIGEST_BYTES_MAX,
            "a page is as full as it can be"
        );
        let before = seen.len();
        seen.extend(syn.digests.iter().map(|digest| digest.id));
        assert!(seen.len() > before, "each page goes on where the last ended");
        let (ack, _) = deliver(&mut nodes[1], ids[0], &syn, START);
        let ack = ack.unwrap();
        assert!(ack.digests.len() > 1_000, "later heartbeats come back: {}", ack.digests.len());
        deliver(&mut nodes[0], ids[1], &ack, START);
        pages += 1;
    }
    assert!(pages <= 6, "{pages} pages");
}

#[test]
fn two_nodes_that_know_nothing_of_each_others_members_come_to_agree() {
    let (topology, ids) = large();
    let mut nodes = vec![node(ids[0].0, 1, &topology, START), knowing(1, &ids, &topology, 7)];
    let mut exchanges = 0;
    let is_known =
        |gossip: &Gossip| gossip.members.iter().all(|peer| about::About::of(&peer.entries).is_some());
    while !is_known(&nodes[0]) {
        exchange(&mut nodes, 0, 1, START);
        exchanges += 1;
        assert!(exchanges < 400, "all entries of {COUNT} members need about a megabyte");
    }
    // Of node 1 itself the other knew a heartbeat that it has not made yet.
    let others = |gossip: &Gossip| {
        gossip.members.iter().filter(|peer| peer.id != ids[0]).map(Peer::digest).collect::<Vec<_>>()
    };
    assert!(others(&nodes[0]) == others(&nodes[1]));
}

#[test]
fn news_does_not_wait_for_its_page() {
    let (topology, ids) = large();
    let mut nodes = [knowing(0, &ids, &topology, 9), knowing(1, &ids, &topology, 9)];
    let third = ids[2];
    let at = nodes[0].members.find(0, third).unwrap();
    let delta = Delta {
        id: third,
        incarnation: 1,
        after: 1,
        entries: [Entry { kind: 5, version: 2, value: [9, 0, 0, 0].into() }].into(),
    };
    nodes[0].learn(&delta, &mut Vec::new());
    // A page that does not reach the third node.
    for round in 0..=NEWS_ROUNDS {
        nodes[0].page_at = at + 1;
        let syn = nodes[0].syn();
        assert!(syn.digests.iter().any(|digest| digest.id == third), "round {round}");
        nodes[0].tick(at_round(round), &mut Vec::new());
    }
    nodes[0].page_at = at + 1;
    assert!(!nodes[0].syn().digests.iter().any(|digest| digest.id == third), "it is old by now");
    nodes[0].learn(&Delta { after: 2, entries: load(3).into(), ..delta }, &mut Vec::new());
    nodes[0].page_at = at + 1;
    assert!(!nodes[0].syn().digests.iter().any(|digest| digest.id == third), "load is no news");
}

fn at_round(round: u64) -> MonoMicros {
    at(round * 1_000)
}

fn load(version: u64) -> Vec<Entry> {
    vec![Entry { kind: 8, version, value: 5u64.to_le_bytes().into() }]
}

#[test]
fn news_is_bounded() {
    let (topology, ids) = large();
    let mut gossip = knowing(0, &ids, &topology, 9);
    ids.iter().for_each(|id| gossip.note_news(*id));
    gossip.note_news(ids[ids.len() - 1]);
    assert_eq!(gossip.news.len(), NEWS_MAX);
    assert!(gossip.syn().encoded_bytes() <= MESSAGE_BYTES_MAX);
}
