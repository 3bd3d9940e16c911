//! Stand-ins and hints: who is contacted for a replica that is down, and who keeps the hint.

use gyre_storage::{KeyRef, Record, Version};

use super::{ALL, Bench, LINK, ONE, QUORUM, counter, value, version};
use crate::coordinator::Tag;
use crate::level::{Level, Quorums};
use crate::message::{HintTargets, Levels, Message, RequestId};
use crate::modify::{Modify, ModifyReply};
use crate::node::NodeId;
use crate::outcome::{Failure, Outcome};

/// Six nodes; node 1 is the first replica of the key. The replicas, then the fallbacks in their order.
fn bench() -> (Bench, Vec<NodeId>) {
    with(|replicas| replicas[0] == NodeId(1))
}

fn with(is_wanted: impl Fn(&[NodeId]) -> bool) -> (Bench, Vec<NodeId>) {
    let bench = Bench::with(6, is_wanted);
    let slot = KeyRef::new(0, bench.key.as_bytes()).slot();
    let walk = bench.replicas.iter().copied().chain(bench.core.env.ring.fallbacks(slot)).collect();
    (bench, walk)
}

impl Bench {
    fn write(&mut self, level: impl Into<Level>) -> Tag {
        let (tag, name) = (self.tag(), self.key.clone());
        let key = KeyRef::new(0, name.as_bytes());
        self.core.write(&mut self.shell, self.now, tag, key, Some(b"v"), None, level);
        tag
    }

    fn add(&mut self, levels: impl Into<Levels>) -> Tag {
        let (tag, name) = (self.tag(), self.key.clone());
        let key = KeyRef::new(0, name.as_bytes());
        self.core.modify(&mut self.shell, self.now, tag, key, &Modify::Add { delta: 2 }, levels);
        tag
    }

    /// For whom the open row on its way to `node` asks for hints.
    fn hints_sent(&self, node: NodeId) -> Vec<NodeId> {
        let requests = self.requests(node.0);
        let Some((_, Message::Apply { hints, .. })) = requests.first() else { panic!("no row to {node:?}") };
        hints.iter().collect()
    }

    fn is_idle(&self, node: NodeId) -> bool {
        self.requests(node.0).is_empty()
    }

    /// KeepHint messages sent: to whom, for whom.
    fn hints_asked(&self) -> Vec<(NodeId, NodeId)> {
        let sent = self.shell.sent.iter();
        sent.filter_map(|sent| match Message::decode(&sent.bytes).unwrap() {
            Message::KeepHint { target, .. } => Some((sent.to, target)),
            _ => None,
        })
        .collect()
    }

    fn hints_here(&self) -> Vec<NodeId> {
        self.shell.hints.iter().map(|(target, _)| *target).collect()
    }
}

fn unavailable(needed: usize, alive: usize) -> Outcome {
    Outcome::Failed(Failure::Unavailable { needed, alive })
}

const STRICT: Level = Level::strict(QUORUM);

#[test]
fn while_all_replicas_are_alive_nobody_stands_in_and_nobody_keeps_a_hint() {
    let (mut bench, walk) = bench();
    bench.write(ALL);
    assert!(bench.hints_sent(walk[1]).is_empty() && bench.hints_sent(walk[2]).is_empty());
    assert!(bench.is_idle(walk[3]) && bench.shell.hints.is_empty());
    assert_eq!(bench.core.statistics().stood_in, 0);
}

#[test]
fn the_next_node_clockwise_stands_in_with_a_hint_and_counts() {
    let (mut bench, walk) = bench();
    bench.down(walk[1].0);
    let tag = bench.write(ALL);
    assert_eq!(bench.hints_sent(walk[3]), [walk[1]]);
    assert!(bench.hints_sent(walk[2]).is_empty() && bench.shell.hints.is_empty());
    assert!(bench.is_idle(walk[1]) && bench.is_idle(walk[4]));
    bench.commit(true);
    bench.serve(walk[2].0, &Record::ABSENT);
    assert!(bench.is_open(tag));
    bench.serve(walk[3].0, &Record::ABSENT);
    assert_eq!(bench.outcome(tag), Outcome::Written);
    assert_eq!(bench.shell.settled, [(tag, 3)]);
    assert!(bench.shell.hints.is_empty() && bench.hints_asked().is_empty(), "one holder is enough");
}

#[test]
fn stand_ins_are_distinct_alive_and_in_ring_order() {
    let (mut bench, walk) = bench();
    for node in [walk[1], walk[2], walk[4]] {
        bench.down(node.0);
    }
    bench.write(QUORUM);
    assert_eq!(bench.hints_sent(walk[3]), [walk[1]]);
    assert_eq!(bench.hints_sent(walk[5]), [walk[2]]);
}

#[test]
fn a_suspected_peer_counts_as_down_and_its_late_answer_still_counts() {
    let (mut bench, walk) = bench();
    let tag = bench.write(ALL);
    bench.commit(true);
    bench.core.suspect(walk[1]);
    bench.serve(walk[2].0, &Record::ABSENT);
    bench.serve(walk[1].0, &Record::ABSENT);
    assert_eq!(bench.outcome(tag), Outcome::Written);
    bench.write(QUORUM);
    assert!(bench.is_idle(walk[1]));
    assert_eq!(bench.hints_sent(walk[3]), [walk[1]]);
    assert!(!bench.core.live_peers().contains(&walk[1]));
    bench.core.trust(walk[1]);
    bench.write(QUORUM);
    assert!(!bench.is_idle(walk[1]));
}

#[test]
fn a_peer_that_is_trusted_without_a_link_stays_down() {
    let (mut bench, walk) = bench();
    bench.core.suspect(walk[1]);
    bench.down(walk[1].0);
    bench.core.trust(walk[1]);
    assert!(!bench.core.live_peers().contains(&walk[1]));
    bench.core.suspect(walk[1]);
    bench.core.peer_up(walk[1]);
    assert!(!bench.core.live_peers().contains(&walk[1]));
}

#[test]
fn strict_never_contacts_a_stand_in_and_keeps_the_hint_with_a_replica() {
    let (mut bench, walk) = bench();
    bench.down(walk[1].0);
    let tag = bench.write(STRICT);
    assert!(bench.is_idle(walk[3]) && bench.hints_sent(walk[2]).is_empty());
    assert_eq!(bench.hints_here(), [walk[1]], "this node first");
    bench.commit(true);
    bench.serve(walk[2].0, &Record::ABSENT);
    assert_eq!(bench.outcome(tag), Outcome::Written);
    bench.down(walk[2].0);
    let tag = bench.write(STRICT);
    assert_eq!(bench.outcome(tag), unavailable(2, 1));
    let tag = bench.write(QUORUM);
    assert!(bench.is_open(tag));
}

#[test]
fn without_a_stand_in_left_a_live_replica_keeps_the_hint() {
    // Three nodes: there is nobody else.
    let mut bench = Bench::new();
    bench.down(2);
    bench.write(QUORUM);
    assert_eq!(bench.hints_here(), [NodeId(2)]);
    // Not a replica itself, this node leaves it to the first replica alive.
    let (mut bench, walk) = with(|replicas| !replicas.contains(&NodeId(1)));
    bench.down(walk[0].0);
    bench.write(STRICT);
    assert_eq!(bench.hints_sent(walk[1]), [walk[0]]);
    assert!(bench.hints_sent(walk[2]).is_empty() && bench.shell.hints.is_empty());
}

#[test]
fn nothing_is_sent_when_even_with_stand_ins_too_few_are_alive() {
    let (mut bench, walk) = bench();
    walk[1..].iter().for_each(|node| bench.down(node.0));
    let tag = bench.write(QUORUM);
    assert_eq!(bench.outcome(tag), unavailable(2, 1));
    assert!(bench.shell.sent.is_empty() && bench.shell.applies.is_empty() && bench.shell.hints.is_empty());
    let tag = bench.read(QUORUM);
    assert_eq!(bench.outcome(tag), unavailable(2, 1));
}

#[test]
fn the_coordinator_itself_may_stand_in() {
    let (mut bench, walk) = with(|replicas| !replicas.contains(&NodeId(1)));
    for node in walk.iter().filter(|node| **node != NodeId(1)) {
        bench.down(node.0);
    }
    let tag = bench.write(ONE);
    assert_eq!(bench.shell.applies.len(), 1);
    assert_eq!(bench.hints_here().len(), 3, "it keeps the hints of all, for there is nobody else");
    bench.commit(true);
    assert_eq!(bench.outcome(tag), Outcome::Written);
    let tag = bench.read(ONE);
    assert!(matches!(bench.outcome(tag), Outcome::Record(record) if !record.is_absent()));
}

#[test]
fn a_replica_that_stays_silent_gets_a_hint_when_the_time_is_up() {
    let mut bench = Bench::new();
    let tag = bench.write(QUORUM);
    bench.commit(true);
    bench.serve(2, &Record::ABSENT);
    assert_eq!(bench.outcome(tag), Outcome::Written);
    assert!(bench.shell.hints.is_empty());
    bench.wait(2_000);
    assert_eq!(bench.hints_here(), [NodeId(3)]);
    assert_eq!(bench.core.statistics().hints_late, 1);
}

#[test]
fn a_replica_that_refuses_or_loses_its_link_gets_a_hint_at_once() {
    let mut bench = Bench::new();
    bench.write(QUORUM);
    bench.commit(true);
    bench.refuse(2);
    bench.down(3);
    assert_eq!(bench.hints_here(), [NodeId(2), NodeId(3)], "the write has failed, but one replica has it");
}

#[test]
fn a_node_that_has_the_row_keeps_the_hint_if_this_one_has_not() {
    let (mut bench, walk) = with(|replicas| !replicas.contains(&NodeId(1)));
    bench.write(ONE);
    bench.serve(walk[1].0, &Record::ABSENT);
    bench.wait(2_000);
    assert_eq!(bench.hints_asked(), [(walk[1], walk[0]), (walk[1], walk[2])]);
    assert!(bench.shell.hints.is_empty() && bench.shell.dropped_hints == 0);
}

#[test]
fn a_hint_that_nobody_can_be_asked_to_keep_is_dropped_and_said_so() {
    let (mut bench, walk) = with(|replicas| !replicas.contains(&NodeId(1)));
    bench.write(ONE);
    bench.serve(walk[1].0, &Record::ABSENT);
    bench.shell.full_queues.insert(walk[1]);
    bench.wait(2_000);
    assert_eq!((bench.shell.dropped_hints, bench.hints_asked().len()), (2, 0));
}

#[test]
fn a_hint_whose_holder_stays_silent_is_kept_by_another() {
    let (mut bench, walk) = bench();
    bench.down(walk[1].0);
    bench.write(ONE);
    bench.commit(true);
    bench.serve(walk[2].0, &Record::ABSENT);
    bench.wait(2_000);
    assert_eq!(bench.hints_here(), [walk[1]], "the stand-in did not acknowledge");
}

#[test]
fn a_write_that_nobody_has_leaves_no_hint() {
    let (mut bench, _) = with(|replicas| !replicas.contains(&NodeId(1)));
    let tag = bench.write(ONE);
    bench.wait(2_000);
    assert_eq!(bench.outcome(tag), Outcome::Failed(Failure::Timeout { needed: 1, acked: 0 }));
    assert!(bench.shell.hints.is_empty() && bench.hints_asked().is_empty());
}

#[test]
fn over_the_bound_of_lingering_writes_hints_are_left_at_once() {
    let mut bench = Bench::new();
    bench.core.env.config.lingering_max = 1;
    for left in [0, 2] {
        bench.write(ONE);
        bench.commit(true);
        assert_eq!(bench.hints_here().len(), left);
    }
    let (tag, name) = (bench.tag(), bench.key.clone());
    let key = KeyRef::new(0, name.as_bytes());
    let append = Modify::Append { value: b"x" };
    bench.core.modify(&mut bench.shell, bench.now, tag, key, &append, (ONE, ONE));
    bench.commit(true);
    assert!(!bench.is_open(tag));
    assert_eq!((bench.hints_here().len(), bench.shell.locks.len()), (4, 0));
    bench.wait(2_000);
    assert_eq!(bench.hints_here().len(), 6, "those of the one that lingered, and no other twice");
    assert_eq!(bench.shell.dropped_hints, 0);
}

#[test]
fn a_read_asks_stand_ins_only_when_there_are_too_few_replicas() {
    let (mut bench, walk) = bench();
    bench.shell.record = Some(value(1, b"v"));
    bench.down(walk[1].0);
    bench.read(QUORUM);
    assert!(bench.is_idle(walk[3]) && !bench.is_idle(walk[2]));
    bench.serve(walk[2].0, &value(1, b"v"));
    bench.down(walk[2].0);
    let tag = bench.read(QUORUM);
    assert!(bench.is_open(tag));
    bench.serve(walk[3].0, &Record::ABSENT);
    bench.serve(walk[3].0, &Record::ABSENT);
    let repairs = bench.requests(walk[3].0);
    let (_, Message::Repair { record, .. }) = &repairs[0] else { panic!("not repaired: {repairs:?}") };
    assert_eq!(*record, value(1, b"v"));
    assert_eq!(bench.hints_asked(), [(walk[3], walk[1])], "what it is repaired with its owner shall get");
    bench.serve(walk[3].0, &value(1, b"v"));
    assert_eq!(bench.outcome(tag), Outcome::Record(value(1, b"v")));
}

#[test]
fn a_stand_in_alone_does_not_answer_for_a_replica_that_is_slow() {
    let (mut bench, walk) = with(|replicas| !replicas.contains(&NodeId(1)));
    bench.down(walk[0].0);
    let tag = bench.read(ONE);
    bench.wait(100);
    assert!(!bench.is_idle(walk[1]) && !bench.is_idle(walk[2]), "the other replica is asked");
    assert!(bench.is_idle(walk[3]) && bench.is_open(tag), "the stand-in is not");
}

#[test]
fn a_stand_in_leads_a_read_modify_write_only_when_no_replica_is_alive() {
    let (mut bench, walk) = with(|replicas| !replicas.contains(&NodeId(1)));
    bench.down(walk[0].0);
    bench.add((QUORUM, QUORUM));
    assert!(matches!(bench.requests(walk[1].0)[..], [(_, Message::Modify { .. })]));
    bench.down(walk[1].0);
    bench.down(walk[2].0);
    let tag = bench.add((QUORUM, QUORUM));
    let lead = walk[3];
    if lead == NodeId(1) {
        assert_eq!(bench.shell.applies.len(), 1);
    } else {
        assert!(matches!(bench.requests(lead.0)[..], [(_, Message::Modify { .. })]));
    }
    assert!(bench.is_open(tag));
    let levels = Levels { read: QUORUM, write: QUORUM, quorums: Quorums::Strict };
    let tag = bench.add(levels);
    assert_eq!(bench.outcome(tag), unavailable(2, 0));
}

/// A peer that sees all replicas down asks this node, which is a replica of nothing and sees them all.
#[test]
fn a_node_asked_to_lead_takes_a_place_and_keeps_a_hint() {
    let (mut bench, walk) = with(|replicas| !replicas.contains(&NodeId(1)));
    let name = bench.key.clone();
    let key = KeyRef::new(0, name.as_bytes());
    let levels = (QUORUM, QUORUM).into();
    let modify = Modify::Add { delta: 2 };
    let message = Message::Modify { request: RequestId(5), key, levels, modify };
    bench.core.receive(&mut bench.shell, bench.now, NodeId(2), LINK, message);
    assert_eq!(bench.hints_here(), [walk[2]]);
    assert!(bench.is_idle(walk[2]) && bench.hints_sent(walk[0]).is_empty());
    bench.commit(true);
    let theirs = counter(99, 3, Version::ZERO, 40);
    for _ in ["its digest", "its record", "its repair"] {
        bench.serve(walk[0].0, &theirs);
    }
    let (request, result) = (RequestId(5), Ok(ModifyReply::Integer(42)));
    bench.commit(true);
    assert_eq!(bench.responses(), [Message::Modified { request, result }]);
}

#[test]
fn an_increment_answers_gives_its_lock_back_and_still_sees_to_silent_replicas() {
    let mut bench = Bench::new();
    let tag = bench.add((QUORUM, QUORUM));
    bench.commit(true);
    let one_cell = bench.shell.record.clone().unwrap();
    bench.answer(2, |_, request| Message::Applied { request, digest: Some(one_cell.digest()) });
    assert_eq!(bench.outcome(tag), Outcome::Modified(ModifyReply::Integer(2)));
    assert!(bench.shell.locks.is_empty() && bench.core.in_flight() == 0);
    assert!(bench.shell.hints.is_empty());
    bench.wait(2_000);
    assert_eq!(bench.hints_here(), [NodeId(3)]);
    let tag = bench.add((ONE, ONE));
    bench.commit(true);
    // Node 3 still owes the answer to the first.
    [2, 3, 3].into_iter().for_each(|node| bench.serve(node, &Record::ABSENT));
    bench.wait(2_000);
    assert_eq!((bench.hints_here().len(), bench.is_open(tag)), (1, false), "everybody has this one");
}

#[test]
fn a_read_modify_write_out_of_time_leaves_hints_for_what_it_wrote() {
    let mut bench = Bench::new();
    let (tag, name) = (bench.tag(), bench.key.clone());
    let key = KeyRef::new(0, name.as_bytes());
    let modify = Modify::Append { value: b"x" };
    bench.core.modify(&mut bench.shell, bench.now, tag, key, &modify, (ONE, QUORUM));
    bench.commit(true);
    bench.wait(2_000);
    assert_eq!(bench.outcome(tag), Outcome::Failed(Failure::Timeout { needed: 2, acked: 1 }));
    assert_eq!(bench.hints_here(), [NodeId(2), NodeId(3)]);
    assert!(bench.shell.locks.is_empty());
}

#[test]
fn rows_from_peers_bring_their_hints_and_never_one_for_this_node() {
    let mut bench = Bench::new();
    let name = bench.key.clone();
    let key = KeyRef::new(0, name.as_bytes());
    let record = value(5, b"v");
    let row = record.rows(key).next().unwrap();
    let ids = [1u64, 8].map(u64::to_le_bytes);
    for want_digest in [false, true] {
        let hints = HintTargets::new(&ids).unwrap();
        let message = Message::Apply { request: RequestId(5), row, want_digest, hints };
        bench.core.receive(&mut bench.shell, bench.now, NodeId(2), LINK, message);
        assert_eq!(bench.shell.hints.pop(), Some((NodeId(8), version(5))));
        assert!(bench.shell.hints.is_empty());
    }
    for (target, kept) in [(NodeId(1), 0), (NodeId(8), 1)] {
        let message = Message::KeepHint { target, key, missed: version(6) };
        bench.core.receive(&mut bench.shell, bench.now, NodeId(2), LINK, message);
        assert_eq!(bench.shell.hints.len(), kept);
    }
}

fn hand_off(bench: &mut Bench, target: u64) -> Tag {
    let (tag, name) = (bench.tag(), bench.key.clone());
    let key = KeyRef::new(0, name.as_bytes());
    bench.core.hand_off(&mut bench.shell, bench.now, tag, NodeId(target), key);
    tag
}

#[test]
fn a_hand_over_ends_when_the_target_has_the_record() {
    let mut bench = Bench::new();
    bench.shell.record = Some(value(5, b"v"));
    let tag = hand_off(&mut bench, 2);
    let requests = bench.requests(2);
    let [(_, Message::Repair { record, .. })] = &requests[..] else { panic!("not sent: {requests:?}") };
    assert_eq!(*record, value(5, b"v"));
    assert!(bench.is_open(tag));
    bench.serve(2, &Record::ABSENT);
    assert_eq!(bench.outcome(tag), Outcome::HandedOff(value(5, b"v")));
    assert_eq!((bench.core.in_flight(), bench.core.statistics().handed_off), (0, 1));
}

#[test]
fn a_hand_over_waits_for_the_disk_and_ends_at_once_when_there_is_nothing() {
    let mut bench = Bench::new();
    bench.shell.record = None;
    let tag = hand_off(&mut bench, 2);
    let ticket = bench.shell.disk_reads[0];
    bench.core.local_record(&mut bench.shell, bench.now, ticket, Some(value(5, b"v")));
    bench.serve(2, &Record::ABSENT);
    assert_eq!(bench.outcome(tag), Outcome::HandedOff(value(5, b"v")));
    bench.shell.record = Some(Record::ABSENT);
    let tag = hand_off(&mut bench, 2);
    assert_eq!(bench.outcome(tag), Outcome::HandedOff(Record::ABSENT));
}

#[test]
fn a_hand_over_fails_when_the_target_is_down_refuses_dies_or_is_silent() {
    let mut bench = Bench::new();
    bench.shell.record = Some(value(5, b"v"));
    let failed = Outcome::Failed(Failure::Timeout { needed: 1, acked: 0 });
    let tag = hand_off(&mut bench, 2);
    bench.refuse(2);
    assert_eq!(bench.outcome(tag), failed);
    let tag = hand_off(&mut bench, 2);
    bench.wait(2_000);
    assert_eq!(bench.outcome(tag), failed);
    let tag = hand_off(&mut bench, 3);
    bench.down(3);
    assert_eq!(bench.outcome(tag), failed);
    let tag = hand_off(&mut bench, 3);
    assert_eq!(bench.outcome(tag), unavailable(1, 0));
}
