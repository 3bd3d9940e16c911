//! What gossip does, step by step, between a few nodes whose messages are carried by hand.

mod large;
mod properties;

use super::*;
use crate::ring::VNODES_DEFAULT;
use crate::topology::{Endpoint, Member, MemberState};
use gyre_storage::UnixMillis;

const START: MonoMicros = MonoMicros(1_000_000_000);

fn id(raw: u64) -> NodeId {
    NodeId(raw)
}

fn topology(ids: impl IntoIterator<Item = u64>) -> Topology {
    let members = ids.into_iter().map(|raw| Member {
        id: id(raw),
        incarnation: 1,
        revision: 0,
        state: MemberState::Active,
        client_addr: Endpoint::new("host", 1),
        peer_addr: Endpoint::new("host", 2),
        rack: None,
        vnodes: VNODES_DEFAULT,
        build: String::new(),
    });
    Topology::form(7, "test", 3, members)
}

fn about(raw: u64) -> About {
    About {
        status: NodeStatus::Active,
        client_addr: Endpoint::new(format!("node-{raw}"), 6379),
        peer_addr: Endpoint::new(format!("node-{raw}"), 16379),
        rack: raw.is_multiple_of(2).then(|| "r1".to_owned()),
        weight: 150,
        topology: TopologyMark::default(),
        build: "0.1.0".into(),
        load: 0,
        oldest_hint: None,
        floor: None,
        away: Vec::new(),
        has_failed: false,
    }
}

fn node(raw: u64, incarnation: u64, topology: &Topology, now: MonoMicros) -> Gossip {
    let settings = GossipSettings::default();
    let options = GossipOptions { id: id(raw), incarnation, about: about(raw), settings, random: raw };
    Gossip::new(options, topology, now)
}

/// Nodes 1 to `count` of one cluster.
fn nodes(count: u64) -> Vec<Gossip> {
    let topology = topology(1..=count);
    (1..=count).map(|raw| node(raw, 1, &topology, START)).collect()
}

fn own(gossip: &Gossip) -> NodeId {
    gossip.members.own().id
}

fn at(ms: u64) -> MonoMicros {
    START.plus_millis(ms)
}

/// A round of `nodes[from]`: its messages, and the other effects.
fn tick(nodes: &mut [Gossip], from: usize, now: MonoMicros) -> (Vec<(NodeId, GossipMessage)>, Vec<Effect>) {
    let mut effects = Vec::new();
    nodes[from].tick(now, &mut effects);
    split(effects)
}

fn split(effects: Vec<Effect>) -> (Vec<(NodeId, GossipMessage)>, Vec<Effect>) {
    let (mut messages, mut others) = (Vec::new(), Vec::new());
    for effect in effects {
        match effect {
            Effect::Send { to, message } => messages.push((to, message)),
            other => others.push(other),
        }
    }
    (messages, others)
}

/// Delivers `message` over the wire. Answers the answer, and the other effects at the receiver.
fn deliver(
    to: &mut Gossip,
    from: NodeId,
    message: &GossipMessage,
    now: MonoMicros,
) -> (Option<GossipMessage>, Vec<Effect>) {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    assert!(bytes.len() <= MESSAGE_BYTES_MAX);
    let message = GossipMessage::decode(&bytes).expect("what is sent can be read");
    let mut effects = Vec::new();
    to.receive(now, from, &message, &mut effects);
    let (mut messages, others) = split(effects);
    assert!(messages.len() <= 1);
    (messages.pop().map(|(_, message)| message), others)
}

/// A whole exchange that `nodes[from]` begins with `nodes[to]`. Answers the effects at both.
fn exchange(nodes: &mut [Gossip], from: usize, to: usize, now: MonoMicros) -> (Vec<Effect>, Vec<Effect>) {
    let (a, b) = (own(&nodes[from]), own(&nodes[to]));
    let syn = nodes[from].syn();
    let (ack, mut at_b) = deliver(&mut nodes[to], a, &syn, now);
    let (ack2, at_a) = deliver(&mut nodes[from], b, &ack.expect("a SYN is answered"), now);
    if let Some(ack2) = ack2 {
        let (nothing, more) = deliver(&mut nodes[to], a, &ack2, now);
        assert_eq!(nothing, None);
        at_b.extend(more);
    }
    (at_a, at_b)
}

/// Beats of `nodes[from]`, one a second until `until_ms`, which only `nodes[to]` hears.
fn beat(nodes: &mut [Gossip], from: usize, to: usize, from_ms: u64, until_ms: u64) -> Vec<Effect> {
    let mut effects = Vec::new();
    for ms in (from_ms..=until_ms).step_by(1_000) {
        nodes[from].tick(at(ms), &mut Vec::new());
        effects.extend(tick(nodes, to, at(ms)).1);
        effects.extend(exchange(nodes, from, to, at(ms)).1);
    }
    effects
}

/// Rounds of `gossip` alone until `until_ms`: the effects that are no messages, and when.
fn alone(gossip: &mut Gossip, from_ms: u64, until_ms: u64) -> Vec<(u64, Effect)> {
    let mut found = Vec::new();
    for ms in (from_ms..=until_ms).step_by(1_000) {
        let mut effects = Vec::new();
        gossip.tick(at(ms), &mut effects);
        found.extend(split(effects).1.into_iter().map(|effect| (ms, effect)));
    }
    found
}

#[test]
fn one_exchange_makes_two_nodes_known_and_up_to_each_other() {
    let mut nodes = nodes(2);
    assert_eq!(nodes[0].liveness(id(2)), Liveness::Unknown);
    assert_eq!(nodes[0].phi(id(2), START), None);
    let (at_a, at_b) = exchange(&mut nodes, 0, 1, START);
    assert_eq!((at_a, at_b), (vec![Effect::Up { peer: id(2) }], vec![Effect::Up { peer: id(1) }]));
    for (this, that) in [(0, 1), (1, 0)] {
        let peer = own(&nodes[that]);
        let view = nodes[this].peer(peer, START).unwrap();
        assert_eq!(view.about, nodes[that].peer(peer, START).unwrap().about);
        assert!(view.about.is_some());
        assert_eq!(view.liveness, Liveness::Up);
        assert_eq!(nodes[this].phi(peer, START), Some(0.0));
    }
}

#[test]
fn a_quiet_exchange_has_no_third_step_and_no_entries() {
    let mut nodes = nodes(3);
    exchange(&mut nodes, 0, 1, START);
    let syn = nodes[0].syn();
    let (ack, _) = deliver(&mut nodes[1], id(1), &syn, at(10));
    let ack = ack.unwrap();
    assert!(ack.deltas.is_empty());
    assert_eq!(ack.digests.len(), 1, "only the answerer's own: {ack:?}");
    assert_eq!(deliver(&mut nodes[0], id(2), &ack, at(20)).0, None);
}

#[test]
fn a_change_travels_alone() {
    let mut nodes = nodes(2);
    exchange(&mut nodes, 0, 1, START);
    nodes[0].set_about(START, About { build: "0.2.0".into(), ..about(1) });
    let syn = nodes[1].syn();
    let (ack, _) = deliver(&mut nodes[0], id(2), &syn, START);
    let ack = ack.unwrap();
    assert_eq!(ack.deltas.len(), 1);
    assert_eq!(ack.deltas[0].entries.len(), 1);
    deliver(&mut nodes[1], id(1), &ack, START);
    assert_eq!(nodes[1].peer(id(1), START).unwrap().about.unwrap().build, "0.2.0");
}

#[test]
fn load_waits_for_its_time_and_a_first_hint_does_not() {
    let mut nodes = nodes(1);
    let version = |gossip: &Gossip| gossip.members.own().entries.version();
    let before = version(&nodes[0]);
    nodes[0].set_about(at(1_000), About { load: 5, ..about(1) });
    assert_eq!(version(&nodes[0]), before);
    nodes[0].set_about(at(2_000), About { load: 6, oldest_hint: Some(UnixMillis(9)), ..about(1) });
    assert_eq!(version(&nodes[0]), before + 1);
    let seen = |gossip: &Gossip| gossip.peer(id(1), START).unwrap().about.unwrap();
    assert_eq!((seen(&nodes[0]).load, seen(&nodes[0]).oldest_hint), (0, Some(UnixMillis(9))));
    nodes[0].set_about(at(3_000), About { load: 7, oldest_hint: Some(UnixMillis(11)), ..about(1) });
    assert_eq!(version(&nodes[0]), before + 1);
    tick(&mut nodes, 0, at(LEISURE_INTERVALS * 1_000));
    assert_eq!(version(&nodes[0]), before + 2);
    assert_eq!((seen(&nodes[0]).load, seen(&nodes[0]).oldest_hint), (7, Some(UnixMillis(11))));
}

#[test]
fn a_silent_peer_goes_down_and_is_up_at_its_first_heartbeat() {
    let mut nodes = nodes(2);
    beat(&mut nodes, 1, 0, 0, 120_000);
    let downs = alone(&mut nodes[0], 121_000, 160_000);
    let [(ms, Effect::Down { peer, cause: Cause::Silence { phi } })] = downs[..] else { panic!("{downs:?}") };
    // The mean gap is one second, and 18.4 of them make phi 8.
    assert_eq!((peer, ms), (id(2), 139_000));
    assert!(phi > 8.0 && phi < 8.6, "{phi}");
    assert_eq!(nodes[0].liveness(id(2)), Liveness::Down);
    nodes[1].tick(at(160_000), &mut Vec::new());
    let (_, at_a) = exchange(&mut nodes, 1, 0, at(160_000));
    assert_eq!(at_a, [Effect::Up { peer: id(2) }]);
    // The outage is no sample: the next silence is noticed as fast.
    let downs = alone(&mut nodes[0], 161_000, 200_000);
    assert!(matches!(downs[..], [(179_000, Effect::Down { .. })]), "{downs:?}");
}

#[test]
fn a_relayed_heartbeat_of_a_dead_node_does_not_bring_it_up() {
    let mut nodes = nodes(3);
    beat(&mut nodes, 2, 1, 0, 20_000);
    // Node 3 is dead from now on. Node 1 hears of it from node 2, again and again.
    for ms in (21_000..60_000).step_by(1_000) {
        let (_, at_a) = exchange(&mut nodes, 1, 0, at(ms));
        assert!(!at_a.contains(&Effect::Up { peer: id(3) }));
        alone(&mut nodes[0], ms, ms);
        alone(&mut nodes[1], ms, ms);
    }
    assert_eq!(nodes[0].liveness(id(3)), Liveness::Unknown);
}

#[test]
fn a_second_relayed_heartbeat_brings_a_node_up() {
    let mut nodes = nodes(3);
    beat(&mut nodes, 2, 1, 0, 5_000);
    exchange(&mut nodes, 1, 0, at(5_000));
    assert_eq!(nodes[0].liveness(id(3)), Liveness::Unknown);
    beat(&mut nodes, 2, 1, 6_000, 6_000);
    let (_, at_a) = exchange(&mut nodes, 1, 0, at(6_000));
    assert_eq!(at_a, [Effect::Up { peer: id(3) }]);
}

#[test]
fn a_first_relayed_heartbeat_is_forgotten_after_a_long_silence() {
    let mut nodes = nodes(3);
    beat(&mut nodes, 2, 1, 0, 5_000);
    exchange(&mut nodes, 1, 0, at(5_000));
    alone(&mut nodes[0], 6_000, 120_000);
    beat(&mut nodes, 2, 1, 120_000, 120_000);
    exchange(&mut nodes, 1, 0, at(120_000));
    assert_eq!(nodes[0].liveness(id(3)), Liveness::Unknown);
}

#[test]
fn evidence_ends_a_silence_and_brings_nobody_up() {
    let mut nodes = nodes(2);
    nodes[0].heard_from(id(2), START);
    assert_eq!(nodes[0].liveness(id(2)), Liveness::Unknown);
    beat(&mut nodes, 1, 0, 0, 120_000);
    nodes[0].heard_from(id(2), at(130_000));
    let downs = alone(&mut nodes[0], 121_000, 160_000);
    assert!(matches!(downs[..], [(149_000, Effect::Down { .. })]), "{downs:?}");
    nodes[0].heard_from(id(2), at(161_000));
    assert_eq!(nodes[0].liveness(id(2)), Liveness::Down);
}

#[test]
fn after_a_local_pause_nobody_is_judged_until_they_had_time_to_be_heard() {
    let mut nodes = nodes(2);
    beat(&mut nodes, 1, 0, 0, 120_000);
    assert_eq!(alone(&mut nodes[0], 180_000, 198_000), []);
    let downs = alone(&mut nodes[0], 199_000, 220_000);
    assert!(matches!(downs[..], [(199_000, Effect::Down { .. })]), "silence counts from the end: {downs:?}");
}

#[test]
fn after_a_local_pause_low_thresholds_wait_too() {
    let mut nodes = nodes(2);
    nodes[0].set_settings(GossipSettings { phi_threshold: 0.5, ..GossipSettings::default() });
    beat(&mut nodes, 1, 0, 0, 20_000);
    let downs = alone(&mut nodes[0], 80_000, 90_000);
    assert!(matches!(downs[..], [(85_000, Effect::Down { .. })]), "{downs:?}");
}

#[test]
fn a_pause_is_noticed_by_a_message_that_comes_before_the_tick() {
    let mut nodes = nodes(2);
    beat(&mut nodes, 1, 0, 0, 120_000);
    nodes[1].tick(at(180_000), &mut Vec::new());
    exchange(&mut nodes, 1, 0, at(180_000));
    // The minute of the pause is no sample of how often node 2 is heard.
    let downs = alone(&mut nodes[0], 180_000, 220_000);
    assert!(matches!(downs[..], [(199_000, Effect::Down { .. })]), "{downs:?}");
}

#[test]
fn a_higher_incarnation_replaces_all_that_was_known() {
    let mut nodes = nodes(3);
    beat(&mut nodes, 1, 0, 0, 10_000);
    let old = nodes[1].members.own().digest();
    let topology = topology(1..=3);
    nodes[1] = node(2, 2, &topology, at(11_000));
    exchange(&mut nodes, 1, 0, at(11_000));
    let view = nodes[0].peer(id(2), at(11_000)).unwrap();
    assert_eq!(view.heartbeat, Heartbeat { incarnation: 2, counter: 0 });
    assert_eq!(view.version, nodes[1].members.own().entries.version());
    assert!(view.about.is_some());
    // What others still say of the old incarnation changes nothing.
    let delta = Delta { id: id(2), incarnation: 1, after: 0, entries: [].into() };
    let message = GossipMessage {
        step: Step::Syn,
        topology: nodes[0].topology,
        digests: vec![old],
        deltas: vec![delta],
    };
    deliver(&mut nodes[0], id(3), &message, at(12_000));
    assert_eq!(nodes[0].peer(id(2), at(11_000)), Some(view));
}

#[test]
fn entries_with_a_gap_before_them_are_not_taken() {
    let mut nodes = nodes(2);
    exchange(&mut nodes, 0, 1, START);
    let known = nodes[0].peer(id(2), START).unwrap().version;
    let entry = |version| Entry { kind: 5, version, value: [1, 0, 0, 0].into() };
    let message = |after: u64| GossipMessage {
        step: Step::Ack2,
        topology: nodes[0].topology,
        digests: Vec::new(),
        deltas: vec![Delta { id: id(2), incarnation: 1, after, entries: [entry(known + 9)].into() }],
    };
    let (with_gap, without) = (message(known + 1), message(known));
    deliver(&mut nodes[0], id(2), &with_gap, START);
    assert_eq!(nodes[0].peer(id(2), START).unwrap().version, known);
    deliver(&mut nodes[0], id(2), &without, START);
    assert_eq!(nodes[0].peer(id(2), START).unwrap().about.unwrap().weight, 1);
}

#[test]
fn a_node_that_says_it_stops_is_down_at_once_until_it_starts_again() {
    let mut nodes = nodes(2);
    exchange(&mut nodes, 1, 0, START);
    nodes[1].set_about(START, About { status: NodeStatus::Stopping, ..about(2) });
    let (_, at_a) = exchange(&mut nodes, 1, 0, START);
    assert_eq!(at_a, [Effect::Down { peer: id(2), cause: Cause::Stopping }]);
    assert_eq!(beat(&mut nodes, 1, 0, 1_000, 10_000), [], "its last heartbeats do not bring it up");
    nodes[1] = node(2, 2, &topology(1..=2), at(11_000));
    let (_, at_a) = exchange(&mut nodes, 1, 0, at(11_000));
    assert_eq!(at_a, [Effect::Up { peer: id(2) }]);
}

#[test]
fn what_is_announced_is_known_at_once_without_a_round() {
    for (about, cause) in [
        (About { status: NodeStatus::Stopping, ..about(2) }, Cause::Stopping),
        (About { has_failed: true, ..about(2) }, Cause::Failed),
    ] {
        let mut nodes = nodes(3);
        for from in 0..3 {
            for to in (0..3).filter(|&to| to != from) {
                exchange(&mut nodes, from, to, START);
            }
        }
        let mut told = Vec::new();
        nodes[1].announce(START, about, &mut told);
        assert_eq!(told.len(), 2);
        for effect in told {
            let Effect::Send { to, message } = effect else { panic!("{effect:?}") };
            let at = usize::try_from(to.0).unwrap() - 1;
            let (answer, effects) = deliver(&mut nodes[at], id(2), &message, START);
            assert_eq!(answer, None);
            assert_eq!(effects, [Effect::Down { peer: id(2), cause }]);
        }
    }
}

#[test]
fn the_document_goes_to_those_that_differ_and_are_not_ahead() {
    let ids = 1..=6u64;
    let mut nodes = nodes(6);
    let mut newer = topology(ids);
    newer.epoch += 1;
    nodes[0].set_topology(START, &newer);
    // Node 1 answers, and is asked by, those who are behind.
    let (at_a, at_b) = exchange(&mut nodes, 0, 1, START);
    assert!(at_a.contains(&Effect::SendTopology { to: id(2) }));
    assert!(!at_b.iter().any(|effect| matches!(effect, Effect::SendTopology { .. })));
    // Once a round to each, and to three at most.
    for peer in 1..6 {
        exchange(&mut nodes, peer, 0, START);
        exchange(&mut nodes, peer, 0, START);
    }
    assert_eq!(nodes[0].sent_topology, [id(2), id(3), id(4)]);
    tick(&mut nodes, 0, START);
    let (_, at_a) = exchange(&mut nodes, 5, 0, START);
    assert_eq!(at_a, [Effect::SendTopology { to: id(6) }]);
    nodes[5].set_topology(START, &newer);
    tick(&mut nodes, 0, at(1_000));
    let (at_b, at_a) = exchange(&mut nodes, 5, 0, at(1_000));
    assert_eq!((at_a, at_b), (vec![], vec![]));
    assert_eq!(
        nodes[0].peer(id(6), START).unwrap().about.unwrap().topology,
        TopologyMark { epoch: 2, digest: newer.digest() }
    );
}

#[test]
fn documents_of_one_epoch_cross() {
    let mut nodes = nodes(2);
    let mut other = topology(1..=2);
    other.raise_horizon(0, gyre_storage::Version { hlc: gyre_storage::Hlc(1), node: 1 });
    nodes[1].set_topology(START, &other);
    let (at_a, at_b) = exchange(&mut nodes, 0, 1, START);
    assert!(at_a.contains(&Effect::SendTopology { to: id(2) }));
    assert!(at_b.contains(&Effect::SendTopology { to: id(1) }));
}

#[test]
fn a_second_process_under_one_id_is_reported_once() {
    let topology = topology(1..=2);
    let mut nodes = vec![node(1, 1, &topology, START), node(2, 1, &topology, START)];
    let mut twins = vec![node(1, 5, &topology, START), nodes[1].clone()];
    exchange(&mut twins, 0, 1, START);
    nodes[1] = twins.remove(1);
    let (at_a, _) = exchange(&mut nodes, 0, 1, START);
    assert!(at_a.contains(&Effect::Superseded { incarnation: 5 }), "{at_a:?}");
    let (at_a, _) = exchange(&mut nodes, 0, 1, START);
    assert_eq!(at_a, []);
}

#[test]
fn who_is_no_member_is_ignored_and_who_leaves_is_forgotten() {
    let mut nodes = nodes(3);
    nodes[0].set_topology(START, &topology([1, 3]));
    exchange(&mut nodes, 1, 0, START);
    assert_eq!(nodes[0].liveness(id(2)), Liveness::Unknown);
    assert_eq!(nodes[0].peer(id(2), START), None);
    assert_eq!(nodes[0].peers(START).map(|view| view.id).collect::<Vec<_>>(), [id(3)]);
    let mut left = topology(1..=3);
    left.members.get_mut(&id(1)).unwrap().state = MemberState::Left;
    assert_eq!(nodes[1].liveness(id(1)), Liveness::Up);
    nodes[1].set_topology(START, &left);
    assert_eq!(nodes[1].peer(id(1), START), None);
    nodes[0].set_topology(START, &topology([3]));
    assert_eq!(nodes[0].liveness(id(1)), Liveness::Up, "a node never leaves its own list");
}

#[test]
fn a_round_takes_three_live_peers_and_now_and_then_one_that_is_down() {
    let mut nodes = nodes(12);
    for peer in 1..9 {
        beat(&mut nodes, peer, 0, 0, 0);
    }
    let (mut live, mut down, mut rounds) = (0, 0, 0);
    for ms in (1_000..=2_000_000).step_by(1_000) {
        (1..9).for_each(|peer| nodes[0].heard_from(id(peer + 1), at(ms)));
        let (messages, others) = tick(&mut nodes, 0, at(ms));
        assert_eq!(others, []);
        let to: std::collections::BTreeSet<NodeId> = messages.iter().map(|(to, _)| *to).collect();
        assert_eq!(to.len(), messages.len(), "nobody twice");
        live += to.iter().filter(|to| to.0 <= 9).count();
        down += to.iter().filter(|to| to.0 > 9).count();
        rounds += 1;
    }
    assert_eq!(live, 3 * rounds);
    // Three are down and eight live: the probability is 3 / 9.
    assert!((600..740).contains(&down), "{down} of {rounds}");
}

#[test]
fn a_node_alone_tries_as_many_as_it_would_talk_to() {
    let mut nodes = nodes(12);
    assert_eq!(tick(&mut nodes, 0, START).0.len(), 3);
}

#[test]
fn seeds_are_asked_though_no_document_names_them() {
    let mut nodes = nodes(8);
    nodes[0].set_seeds([id(1), id(99)]);
    let asked = (0..1_000u64)
        .map(|round| tick(&mut nodes, 0, at(round * 1_000)).0)
        .filter(|messages| messages.iter().any(|(to, _)| *to == id(99)));
    // One seed among seven others.
    let asked = asked.count();
    assert!((100..190).contains(&asked), "{asked}");
}

#[test]
fn ticks_that_come_too_often_do_not_make_rounds() {
    let mut nodes = nodes(4);
    let rounds = (0..100u64).filter(|tenth| !tick(&mut nodes, 0, at(tenth * 100)).0.is_empty()).count();
    assert_eq!(rounds, 10);
    assert_eq!(nodes[0].due_at(), at(10_000));
    tick(&mut nodes, 0, at(13_500));
    assert_eq!(nodes[0].due_at(), at(14_500), "rounds missed are not made up for");
}

#[test]
fn what_a_message_from_oneself_says_is_ignored() {
    let mut nodes = nodes(2);
    let syn = nodes[0].syn();
    assert_eq!(deliver(&mut nodes[0], id(1), &syn, START), (None, vec![]));
}
