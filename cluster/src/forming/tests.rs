//! Claims about formation, one at a time. What holds under all faults together is in the simulation.

use proptest::collection::vec;
use proptest::prelude::*;

use super::attempt::{ATTEMPT_MS, PATIENCE_MS};
use super::simulation::{SETTLE_MS, World, address, member};
use super::*;

const ACTIVE: Option<MemberState> = Some(MemberState::Active);
const JOINING: Option<MemberState> = Some(MemberState::Joining);

fn at(ms: u64) -> MonoMicros {
    MonoMicros(0).plus_millis(ms)
}

fn options(id: u64, incarnation: u64, seeds: &[usize]) -> FormingOptions {
    FormingOptions {
        member: member(NodeId(id), usize::try_from(id).unwrap(), incarnation),
        cluster_name: "test".into(),
        replication_factor: 3,
        seeds: seeds.iter().map(|&seed| address(seed)).collect(),
        settle_ms: SETTLE_MS,
        random: 5,
    }
}

fn start(options: FormingOptions, saved: Saved) -> (Forming, Vec<Effect>) {
    let mut effects = Vec::new();
    (Forming::start(options, saved, at(0), &mut effects), effects)
}

fn step(forming: &mut Forming, ms: u64, event: Event) -> Vec<Effect> {
    let mut effects = Vec::new();
    forming.step(at(ms), event, &mut effects);
    effects
}

fn message(from: u64, message: FormingMessage) -> Event {
    Event::Message { from: NodeId(from), message }
}

fn ballot(proposer: u64, incarnation: u64, attempt: u64) -> Ballot {
    let cluster_id = u128::from(proposer << 32 | incarnation << 16 | attempt);
    Ballot { proposer: NodeId(proposer), incarnation, attempt, cluster_id }
}

fn propose(ballot: Ballot) -> Event {
    let message = FormingMessage::Propose { ballot, addr: address(9), replication_factor: 3 };
    Event::Message { from: ballot.proposer, message }
}

fn status(id: u64, incarnation: u64, seq: u64, ended: u64, seeds: &[(usize, u64)]) -> FormingMessage {
    let view = |&(seed, node): &(usize, u64)| SeedView { addr: address(seed), node: NodeId::new(node) };
    FormingMessage::Status(Box::new(Status {
        member: member(NodeId(id), usize::try_from(id).unwrap(), incarnation),
        seq,
        replication_factor: 3,
        ended,
        seeds: seeds.iter().map(view).collect(),
        known: vec![(NodeId(3), address(3))],
    }))
}

/// The messages among the effects, statuses left out.
fn said(effects: &[Effect]) -> Vec<&FormingMessage> {
    let sent = effects.iter().filter_map(|effect| match effect {
        Effect::Send { message, .. } => Some(message),
        _ => None,
    });
    sent.filter(|message| !matches!(message, FormingMessage::Status(_))).collect()
}

#[test]
fn a_node_without_seeds_forms_a_cluster_of_one_at_once() {
    let (forming, effects) = start(options(1, 1, &[]), Saved::Nothing);
    let [Effect::Join { topology, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert!(forming.is_done() && topology.cluster_id != 0);
    assert_eq!(topology.ring().members(), [NodeId(1)]);
}

#[test]
fn a_node_with_a_topology_belongs_to_it_whatever_its_seeds() {
    let others = [1, 2].map(|id| member(NodeId(id), 0, 1));
    let topology = Topology::form(9, "test", 3, others);
    let (forming, effects) = start(options(1, 7, &[2]), Saved::Topology(topology));
    let [Effect::Join { topology, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert!(forming.is_done() && topology.cluster_id == 9);
    assert_eq!(topology.members[&NodeId(1)].incarnation, 7, "it is known that it has started again");
}

#[test]
fn a_node_whose_only_seed_is_itself_forms_after_settling() {
    let mut world = World::calm(&[(&[0], 0)]);
    assert_eq!(world.states_at(SETTLE_MS / 2), [None]);
    assert_eq!(world.states_at(SETTLE_MS + 500), [ACTIVE]);
}

#[test]
fn nodes_started_together_form_one_cluster_soon() {
    let lists: [&[&[usize]]; 5] = [
        &[&[0, 1, 2], &[0, 1, 2], &[0, 1, 2]],
        &[&[0], &[0], &[0]],
        &[&[1, 2], &[0, 2], &[0, 1]],
        &[&[1], &[2], &[0]],
        &[&[0, 1], &[1, 2], &[2, 0, 3], &[1]],
    ];
    for seeds in lists {
        let processes: Vec<(&[usize], u64)> = seeds.iter().map(|&seeds| (seeds, 0)).collect();
        let mut world = World::calm(&processes);
        let states = world.states_at(SETTLE_MS + 1_500);
        assert!(states.iter().all(|&state| state == ACTIVE), "{seeds:?}: {states:?}");
    }
}

#[test]
fn fifty_nodes_form_one_cluster() {
    let processes: Vec<(&[usize], u64)> = (0..50).map(|i| (&[0, 1, 2][..], i * 20)).collect();
    let states = World::calm(&processes).states_at(10_000);
    assert!(states.iter().all(|&state| state == ACTIVE), "{states:?}");
}

#[test]
fn a_node_that_comes_later_is_admitted_as_joining() {
    let mut world = World::calm(&[(&[0, 1], 0), (&[0, 1], 0), (&[1], 9_000), (&[2], 15_000)]);
    assert_eq!(world.states_at(8_000), [ACTIVE, ACTIVE, None, None]);
    assert_eq!(world.states_at(20_000), [ACTIVE, ACTIVE, JOINING, JOINING]);
}

#[test]
fn nothing_forms_while_any_seed_is_unreachable() {
    let mut world = World::calm(&[(&[0, 1, 2], 0), (&[0, 1, 2], 0), (&[0, 1, 2], 3_600_000)]);
    assert_eq!(world.states_at(3_600_000), [None, None, None]);
    assert!(world.waiting(0).to_string().contains("seed sim:2"), "{}", world.waiting(0));
    assert_eq!(world.states_at(3_605_000), [ACTIVE, ACTIVE, ACTIVE]);
    // Not even if it is the seed of a seed.
    let mut world = World::calm(&[(&[1], 0), (&[2], 0), (&[0], 100_000)]);
    assert_eq!(world.states_at(99_000), [None, None, None]);
}

#[test]
fn a_seed_does_not_wait_for_nodes_whose_own_seeds_are_missing() {
    let mut world = World::calm(&[(&[0], 0), (&[0, 2], 0), (&[0], 50_000)]);
    assert_eq!(world.states_at(5_000), [ACTIVE, ACTIVE, None]);
}

#[test]
fn a_promise_binds_until_the_proposer_ends_the_try() {
    let (mut forming, _) = start(options(5, 1, &[1]), Saved::Nothing);
    let first = ballot(2, 1, 1);
    let effects = step(&mut forming, 1, propose(first));
    let saved = Promise { ballot: first, addr: address(9) };
    assert_eq!(effects[0], Effect::SavePromise(saved), "on disk before it is said");
    assert_eq!(said(&effects), [&FormingMessage::Accept { ballot: first }]);
    let again = step(&mut forming, 2, propose(first));
    assert!(said(&again) == [&FormingMessage::Accept { ballot: first }] && !again.contains(&effects[0]));

    let other = ballot(1, 1, 1);
    let busy = FormingMessage::Busy { ballot: other, holder: NodeId(2) };
    assert_eq!(said(&step(&mut forming, 3_600_000, propose(other))), [&busy]);
    let going_on = message(2, status(2, 1, 8, 0, &[]));
    step(&mut forming, 3_600_001, going_on);
    assert_eq!(said(&step(&mut forming, 3_600_002, propose(other))), [&busy]);
    step(&mut forming, 3_600_003, message(2, status(2, 1, 9, 1, &[])));
    let released = step(&mut forming, 3_600_004, propose(other));
    assert_eq!(said(&released), [&FormingMessage::Accept { ballot: other }]);
    assert!(step(&mut forming, 3_600_005, propose(first)).is_empty(), "a try that is over gets no promise");
}

#[test]
fn a_promise_survives_a_restart_and_ends_with_the_proposers() {
    let promise = Promise { ballot: ballot(2, 4, 1), addr: address(2) };
    let saved = Saved::Promise(Promise::decode(&promise.encode()).unwrap());
    let (mut forming, effects) = start(options(5, 2, &[]), saved);
    assert!(effects.is_empty(), "not even alone may it form a cluster");
    let dial = Effect::Dial { node: NodeId(2), addr: address(2) };
    assert!(step(&mut forming, 100, Event::Tick).contains(&dial));
    assert_eq!(forming.waiting(at(100)), Waiting::Promise(Box::new(promise)));
    step(&mut forming, 200, message(2, status(2, 5, 1, 0, &[])));
    assert!(!matches!(forming.waiting(at(200)), Waiting::Promise(_)));
}

#[test]
fn a_proposer_yields_to_a_lower_id_and_never_to_a_higher() {
    let proposing = || {
        let (mut forming, _) = start(options(5, 1, &[6]), Saved::Nothing);
        step(&mut forming, 0, Event::SeedResolved { seed: 0, node: NodeId(6) });
        let mut effects = Vec::new();
        for ms in (0..=SETTLE_MS).step_by(100) {
            effects = step(&mut forming, ms, message(6, status(6, 1, ms + 1, 0, &[(5, 5)])));
        }
        let [FormingMessage::Propose { ballot, .. }] = said(&effects)[..] else { panic!("{effects:?}") };
        let ballot = *ballot;
        (forming, ballot)
    };
    let (mut forming, own) = proposing();
    let higher = ballot(8, 1, 1);
    let effects = step(&mut forming, 600, propose(higher));
    assert_eq!(said(&effects), [&FormingMessage::Busy { ballot: higher, holder: NodeId(5) }]);
    let effects = step(&mut forming, 601, message(6, FormingMessage::Accept { ballot: own }));
    assert!(matches!(&effects[0], Effect::Join { topology, .. } if topology.members.len() == 2));

    let (mut forming, own) = proposing();
    let lower = ballot(2, 1, 1);
    let effects = step(&mut forming, 600, propose(lower));
    assert_eq!(said(&effects), [&FormingMessage::Accept { ballot: lower }]);
    let effects = step(&mut forming, 700, message(6, FormingMessage::Accept { ballot: own }));
    assert!(!forming.is_done() && said(&effects).is_empty(), "its own try is over");
}

/// A proposer 5 with the seeds 6 and 7, which name all three, and the guest 8, at the time it proposes.
fn proposer_of_three() -> (Forming, Ballot, u64) {
    let (mut forming, _) = start(options(5, 1, &[6, 7]), Saved::Nothing);
    step(&mut forming, 0, Event::SeedResolved { seed: 0, node: NodeId(6) });
    step(&mut forming, 0, Event::SeedResolved { seed: 1, node: NodeId(7) });
    for ms in (0..=10 * SETTLE_MS).step_by(100) {
        let effects = keep_alive(&mut forming, ms);
        if let Some(FormingMessage::Propose { ballot, .. }) = said(&effects).first() {
            assert_eq!(said(&effects).len(), 3, "the guest is asked too");
            return (forming, *ballot, ms);
        }
    }
    panic!("nothing proposed: {}", forming.waiting(at(10 * SETTLE_MS)));
}

fn keep_alive(forming: &mut Forming, ms: u64) -> Vec<Effect> {
    let others: [(u64, &[(usize, u64)]); 3] = [(6, &[(5, 5), (7, 7)]), (7, &[(5, 5)]), (8, &[(6, 6)])];
    let statuses = others.map(|(id, seeds)| message(id, status(id, 1, ms + 1, 0, seeds)));
    statuses.into_iter().flat_map(|status| step(forming, ms, status)).collect()
}

#[test]
fn a_proposer_forms_nothing_without_everyone_in_its_core() {
    let (mut forming, ballot, since) = proposer_of_three();
    for id in [6, 8] {
        step(&mut forming, since, message(id, FormingMessage::Accept { ballot }));
    }
    step(&mut forming, since, message(7, FormingMessage::Accept { ballot: Ballot { attempt: 9, ..ballot } }));
    let mut ended = 0;
    for ms in (since..since + ATTEMPT_MS + 300).step_by(100) {
        for effect in keep_alive(&mut forming, ms) {
            if let Effect::Send { message: FormingMessage::Status(status), .. } = effect {
                ended = status.ended;
            }
        }
        assert!(!forming.is_done());
    }
    assert_eq!(ended, ballot.attempt, "and then says that the try is over");
    step(&mut forming, since + ATTEMPT_MS + 400, message(7, FormingMessage::Accept { ballot }));
    assert!(!forming.is_done(), "a promise that comes too late forms nothing");
}

#[test]
fn a_guest_that_does_not_answer_is_left_out() {
    let (mut forming, ballot, since) = proposer_of_three();
    for id in [6, 7] {
        step(&mut forming, since, message(id, FormingMessage::Accept { ballot }));
    }
    assert!(!forming.is_done(), "it is waited for");
    keep_alive(&mut forming, since + PATIENCE_MS - 1);
    let effects = step(&mut forming, since + PATIENCE_MS, Event::Tick);
    let Effect::Join { topology, .. } = &effects[0] else { panic!("{effects:?}") };
    assert_eq!(topology.ring().members(), [5, 6, 7].map(NodeId));
    assert_eq!(said(&effects).len(), 2, "those that promised are told");
}

#[test]
fn a_seed_that_has_gone_stops_the_birth() {
    let (mut forming, ballot, since) = proposer_of_three();
    step(&mut forming, since, message(6, FormingMessage::Accept { ballot }));
    step(&mut forming, since, Event::SeedLost { seed: 1 });
    for id in [7, 8] {
        step(&mut forming, since, message(id, FormingMessage::Accept { ballot }));
    }
    assert!(!forming.is_done());
    step(&mut forming, since + 1, Event::SeedResolved { seed: 1, node: NodeId(7) });
    assert!(forming.is_done());
}

#[test]
fn a_node_that_lost_its_disk_gets_its_seat_back_empty_as_a_later_incarnation() {
    // Started seven times, then its disk was lost: it counts from one again.
    let mut topology = Topology::form(9, "test", 3, [member(NodeId(1), 0, 7), member(NodeId(2), 0, 1)]);
    let document = |topology: &Topology| message(2, FormingMessage::Document(Box::new(topology.clone())));
    let (mut forming, _) = start(options(1, 1, &[2]), Saved::Nothing);
    let formed = message(2, FormingMessage::Formed { cluster_id: 9 });
    let effects = step(&mut forming, 1, formed);
    let [ask @ FormingMessage::Admit { .. }] = said(&effects)[..] else { panic!("{effects:?}") };
    let (changed, answer) = greet(&mut topology, NodeId(1), ask);
    assert!(!changed.any(), "an incarnation that has been may not have the seat");
    assert_eq!(answer, Some(FormingMessage::Document(Box::new(topology.clone()))));

    let effects = step(&mut forming, 2, document(&topology));
    let ask = said(&effects)[0].clone();
    assert!(is_request_for_seat(&topology, NodeId(1), &ask) && !forming.is_done());
    let stale = topology.clone();
    let (changed, _) = greet(&mut topology, NodeId(1), &ask);
    assert!(changed.members && !changed.ring, "nothing moves");
    assert!(!greet(&mut topology, NodeId(1), &ask).0.any(), "asking twice changes nothing");
    // Somebody who has not heard of it yet is asked, too, for the same.
    assert_eq!(said(&step(&mut forming, 3, document(&stale))), [&ask]);
    let effects = step(&mut forming, 4, document(&topology));
    let [Effect::Join { topology, incarnation: 8, has_lost_its_disk: true }] = &effects[..] else {
        panic!("{effects:?}")
    };
    let seat = &topology.members[&NodeId(1)];
    assert_eq!((seat.state, seat.incarnation), (MemberState::Active, 8));
}

#[test]
fn a_seat_that_another_process_has_taken_meanwhile_is_not_fought_over() {
    let of = |incarnation| {
        let topology = Topology::form(9, "test", 3, [member(NodeId(1), 0, incarnation)]);
        message(2, FormingMessage::Document(Box::new(topology)))
    };
    let (mut forming, _) = start(options(1, 1, &[2]), Saved::Nothing);
    step(&mut forming, 1, of(7));
    let effects = step(&mut forming, 2, of(9));
    assert_eq!(effects[0], Effect::Refused(Refusal::IdTaken { id: NodeId(1) }));
}

#[test]
fn a_node_that_had_promised_itself_to_this_very_cluster_has_lost_nothing() {
    let topology = Topology::form(9, "test", 3, [1, 2].map(|id| member(NodeId(id), 0, 1)));
    let promise = Promise { ballot: Ballot { cluster_id: 9, ..ballot(2, 1, 1) }, addr: address(2) };
    let (mut forming, _) = start(options(1, 2, &[2]), Saved::Promise(promise));
    let effects = step(&mut forming, 1, message(2, FormingMessage::Document(Box::new(topology))));
    assert!(matches!(&effects[..], [Effect::Join { has_lost_its_disk: false, .. }]));
}

#[test]
fn nodes_of_other_settings_are_refused_by_name() {
    let refused = |topology: Topology| {
        let (mut forming, _) = start(options(1, 1, &[2]), Saved::Nothing);
        let effects = step(&mut forming, 1, message(2, FormingMessage::Document(Box::new(topology))));
        let Effect::Refused(refusal) = &effects[0] else { panic!("{effects:?}") };
        refusal.to_string()
    };
    let text = refused(Topology::form(9, "prod", 3, []));
    assert!(text.contains("prod") && text.contains("test"), "{text}");
    let text = refused(Topology::form(9, "test", 5, []));
    assert!(text.contains('5') && text.contains('3'), "{text}");

    let mut topology = Topology::form(9, "test", 3, [member(NodeId(2), 2, 1)]);
    let admit = |id, replication_factor| {
        let member = Box::new(member(NodeId(id), 1, 1));
        FormingMessage::Admit { member, replication_factor }
    };
    let (changed, answer) = greet(&mut topology, NodeId(1), &admit(1, 5));
    let refusal = Refusal::ReplicationFactor { cluster: 3, node: 5 };
    assert!(!changed.any() && answer == Some(FormingMessage::Refused(refusal)));
    let (changed, answer) = greet(&mut topology, NodeId(7), &admit(1, 3));
    assert!(!changed.any() && answer.is_none(), "nobody asks for another");
}

#[test]
fn a_core_of_different_replication_factors_waits_and_says_so() {
    let (mut forming, _) = start(options(1, 1, &[2]), Saved::Nothing);
    step(&mut forming, 0, Event::SeedResolved { seed: 0, node: NodeId(2) });
    let FormingMessage::Status(mut theirs) = status(2, 1, 1, 0, &[(1, 1)]) else { unreachable!() };
    theirs.replication_factor = 5;
    step(&mut forming, 0, message(2, FormingMessage::Status(theirs)));
    let waiting = Waiting::ReplicationFactor { node: NodeId(2), ours: 3, theirs: 5 };
    assert_eq!(forming.waiting(at(0)), waiting);
}

#[test]
fn an_overtaken_status_is_ignored() {
    let (mut forming, _) = start(options(1, 1, &[2]), Saved::Nothing);
    step(&mut forming, 0, Event::SeedResolved { seed: 0, node: NodeId(2) });
    step(&mut forming, 0, message(2, status(2, 1, 9, 0, &[(1, 1)])));
    step(&mut forming, 1, message(2, status(2, 1, 8, 0, &[(4, 0)])));
    assert_eq!(forming.waiting(at(1)), Waiting::Settling { nodes: 2 });
}

#[test]
fn every_message_survives_the_trip() {
    let member = Box::new(member(NodeId(4), 4, 2));
    let ballot = ballot(7, 8, 9);
    let messages = [
        status(1, 2, 3, 4, &[(5, 6), (7, 0)]),
        FormingMessage::Propose { ballot, addr: address(1), replication_factor: 3 },
        FormingMessage::Accept { ballot },
        FormingMessage::Busy { ballot, holder: NodeId(3) },
        FormingMessage::Formed { cluster_id: 1 << 99 },
        FormingMessage::Admit { member: member.clone(), replication_factor: 2 },
        FormingMessage::Document(Box::new(Topology::form(3, "name", 3, [*member]))),
        FormingMessage::Refused(Refusal::IdTaken { id: NodeId(3) }),
        FormingMessage::Refused(Refusal::ReplicationFactor { cluster: 3, node: 5 }),
        FormingMessage::Refused(Refusal::ClusterName { cluster: "a".into(), node: "b".into() }),
        FormingMessage::Refused(Refusal::Full),
    ];
    for message in messages {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        assert_eq!(FormingMessage::decode(&bytes), Ok(message));
        for cut in 0..bytes.len() {
            assert!(FormingMessage::decode(&bytes[..cut]).is_err());
        }
        bytes.push(0);
        assert!(FormingMessage::decode(&bytes).is_err());
    }
}

proptest! {
    #[test]
    fn noise_is_read_or_refused(kind in 0u8..10, noise in vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..120)) {
        let bytes = [&[kind][..], &noise].concat();
        if let Ok(message) = FormingMessage::decode(&bytes) {
            let mut again = Vec::new();
            message.encode(&mut again);
            prop_assert_eq!(again, bytes);
        }
        prop_assert!(Promise::decode(&noise).is_err() || noise.len() > 40);
    }
}
