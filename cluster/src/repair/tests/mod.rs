//! Nodes that have drifted apart become equal, whatever happens meanwhile, and at what price.

mod messages;
mod properties;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gyre_storage::{Hlc, KeyRef, SLOTS};

use super::{PairState, SlotSet, Trouble};
use crate::node::NodeId;
use world::{Node, World, ring, scattered, version};

const MINUTE: Duration = Duration::from_secs(60);

/// Both nodes of a cluster have `keys` keys.
fn two_equal(keys: usize) -> World {
    let mut world = World::new(2, 2);
    for n in 0..keys {
        world.put(&[1, 2], &format!("key-{n}"), &[7; 32], version(1_000, 1));
    }
    world
}

/// The one of two nodes that does not drive.
fn passive(world: &World) -> u64 {
    let drives = |id: NodeId| world.nodes[&id].core.status(world.now).pairs[0].drives;
    if drives(NodeId(1)) { 2 } else { 1 }
}

fn all(world: &mut World) {
    let nodes: Vec<u64> = world.nodes.keys().map(|id| id.0).collect();
    for id in nodes {
        assert!(world.node(id).core.request(&SlotSet::all()) > 0);
    }
}

#[test]
fn equal_nodes_find_that_out_in_a_few_messages_and_send_no_row() {
    let mut world = two_equal(20_000);
    world.run(Duration::from_secs(30));
    let ended: Vec<_> = world.nodes.values().flat_map(|node| &node.ended).collect();
    assert_eq!(ended.len(), 1, "one of the two drives: {ended:?}");
    assert_eq!((world.rows_sent(), world.moved().keys_listed), (0, 0));
    assert!(world.bytes < 1_000 && world.messages < 40, "{} bytes, {} messages", world.bytes, world.messages);
    let clocks: Vec<Hlc> =
        [1, 2].iter().flat_map(|&id| [0, SLOTS - 1].map(|slot| world.verified(id, slot))).collect();
    assert!(clocks.iter().all(|&clock| clock.millis() >= 1_005_000), "both know, durably: {clocks:?}");
}

#[test]
fn rows_that_differ_are_sent_and_hardly_any_other() {
    for differ in [1usize, 20, 2_000] {
        let mut world = two_equal(20_000);
        for n in 0..differ {
            let (node, key) = (1 + n as u64 % 2, format!("key-{}", n * 7 % 20_000));
            match n % 3 {
                0 => world.node(node).put(&key, b"newer", version(2_000, 2)),
                1 => world.node(node).delete(&key, version(2_000, 2)),
                _ => world.node(node).put(&format!("new-{n}"), b"only here", version(2_000, 2)),
            }
        }
        world.run(Duration::from_secs(15));
        world.settle(MINUTE * 5);
        world.assert_equal();
        let rows = world.rows_sent();
        println!("{differ} of 20,000 differ: {rows} rows, {} bytes, {:?}", world.bytes, world.moved());
        assert!(rows as f64 <= differ as f64 * 1.1 + 4.0, "{rows} rows for {differ} that differ");
        let per_row = world.bytes / differ as u64;
        assert!(per_row < 2_500, "{per_row} bytes for each");
    }
}

#[test]
fn a_node_that_has_nothing_gets_everything_in_steps_of_bounded_size() {
    let mut world = World::new(2, 2);
    for n in 0..5_000 {
        world.put(&[1], &format!("key-{n}"), &[7; 32], version(1_000, 1));
    }
    world.run(Duration::from_secs(15));
    world.settle(MINUTE);
    world.assert_equal();
    assert_eq!(world.rows_sent(), 5_000);
    let compared = world.moved().ranges_compared;
    assert!(compared < 64, "it looks no closer at what one side lacks: {compared}");
}

/// Rows sent to a node that lacks `keys` which two others have, of which one is met `delay` later than the other.
fn rows_for_what_a_node_lacks(keys: u64, delay: Duration) -> u64 {
    let mut world = World::new(3, 3);
    for n in 0..keys {
        world.put(&[1, 2], &format!("key-{n}"), &[7; 32], version(1_000, 1));
    }
    world.down = vec![NodeId(2)];
    all(&mut world);
    world.run(delay);
    world.down.clear();
    world.settle(MINUTE);
    world.assert_equal();
    world.rows_sent()
}

#[test]
fn what_a_node_lacks_it_gets_from_one_of_the_others() {
    let keys = 30_000;
    // Whether they begin together, or one is about to catch up with the other: the whole takes 0.3 s.
    let rows = [0, 60, 130, 170, 220, 260].map(Duration::from_millis).map(|delay| {
        let rows = rows_for_what_a_node_lacks(keys, delay);
        assert!(rows <= keys * 11 / 10, "{rows} rows for {keys} that it lacks, {delay:?} apart");
        rows
    });
    assert!(rows[0] <= keys * 41 / 40, "{} rows for {keys} that it lacks, begun together", rows[0]);
    let mean = rows.iter().sum::<u64>() / rows.len() as u64;
    assert!(mean <= keys * 21 / 20, "{mean} rows for {keys} that it lacks, on average");
}

#[test]
fn keys_without_end_at_one_place_and_values_without_measure_go_through() {
    let mut world = World::new(2, 2);
    for n in 0..1_500 {
        world.put(
            &[1 + n % 2],
            &format!("{{tag}}{n}"),
            &vec![1; if n % 300 == 0 { 400_000 } else { 10 }],
            version(1, 1),
        );
    }
    world.run(Duration::from_secs(15));
    world.settle(MINUTE);
    world.assert_equal();
    assert_eq!(world.rows_sent(), 1_500);
}

#[test]
fn cells_of_a_counter_go_both_ways() {
    let mut world = World::new(2, 2);
    world.put(&[1, 2], "n", b"10", version(1, 1));
    world.node(1).add("n", 71, version(1, 1), 5, version(2, 1));
    world.node(2).add("n", 72, version(1, 1), 6, version(3, 2));
    // The newer row is on one side, a cell that it lacks on the other.
    world.node(1).add("m", 71, version(0, 0), 5, version(2, 1));
    world.node(2).put("m", b"1", version(1, 2));
    world.run(Duration::from_secs(15));
    world.settle(MINUTE);
    world.assert_equal();
    assert_eq!(world.node(1).read("n").counters().count(), 2);
    assert_eq!(
        world.rows_sent(),
        2 + 3 + 1 + 1,
        "each record once each way, without the cell that is void by now"
    );
}

#[test]
fn all_replicas_of_larger_clusters_become_equal() {
    let mut world = World::new(5, 3);
    for n in 0..1_000u64 {
        let key = format!("key-{n}");
        let replicas = world.replicas(&key);
        world.put(
            &replicas[usize::from(key.as_bytes()[key.len() - 1] % 3)..][..1],
            &key,
            b"v",
            version(1_000 + n, 1),
        );
    }
    world.run(Duration::from_secs(20));
    world.settle(MINUTE * 10);
    // A row that came from one peer goes on to the next with the following exchange.
    all(&mut world);
    world.settle(MINUTE * 10);
    world.assert_equal();
}

#[test]
fn a_range_that_is_written_all_the_time_does_not_keep_an_exchange_from_ending() {
    let mut world = two_equal(2_000);
    let mut n = 0u64;
    world.before_work = Some(Box::new(move |nodes: &BTreeMap<NodeId, Node>, id| {
        for _ in 0..20 {
            n += 1;
            nodes[&id].put(&format!("key-{}", n * 37 % 2_000), b"again", version(10_000 + n, id.0));
        }
    }));
    world.run(Duration::from_secs(15));
    world.settle(MINUTE * 10);
    let ended: Vec<_> = world.nodes.values().flat_map(|node| node.ended.clone()).collect();
    assert!(ended.iter().any(|(_, _, trouble)| trouble.is_none()), "{ended:?}");
    world.before_work = None;
    all(&mut world);
    world.settle(MINUTE * 10);
    world.assert_equal();
}

/// What was there when the exchange began is on both sides when it counts as verified, whatever is written meanwhile.
#[test]
fn a_verified_time_promises_what_it_says() {
    let mut world = two_equal(500);
    for n in 0..200 {
        world.node(1 + n % 2).put(&format!("key-{n}"), b"old", version(2_000, 1));
    }
    let mut n = 0u64;
    world.before_work = Some(Box::new(move |nodes: &BTreeMap<NodeId, Node>, id| {
        n += 1;
        nodes[&id].put(&format!("key-{}", n * 37 % 500), b"again", version(10_000 + n, id.0));
    }));
    world.run(Duration::from_secs(15));
    world.settle(MINUTE * 10);
    for n in 0..200 {
        let key = format!("key-{n}");
        let slot = KeyRef::new(0, key.as_bytes()).slot();
        assert!(world.verified(1, slot).millis() > 1_000_000 && world.verified(2, slot).millis() > 1_000_000);
        for node in [1, 2] {
            assert!(world.node(node).read(&key).base() >= version(2_000, 1), "{key} on {node}");
        }
    }
}

#[test]
fn the_rate_bounds_what_goes_through() {
    let mut world = World::new(2, 2);
    for n in 0..3_000 {
        world.put(&[1], &format!("key-{n}"), b"v", version(1_000, 1));
    }
    let now = world.now;
    [1, 2].into_iter().for_each(|id| world.node(id).core.set_limits(now, MINUTE, 200));
    all(&mut world);
    world.run(Duration::from_secs(5));
    let sent = (0..3_000).filter(|n| !world.node(2).read(&format!("key-{n}")).is_absent()).count();
    assert!((300..=1_300).contains(&sent), "five seconds at 200 a second, and a step: {sent}");
    world.settle(MINUTE);
    world.assert_equal();
}

#[test]
fn a_peer_that_goes_away_costs_a_portion_and_no_more() {
    let mut world = World::new(2, 2);
    for n in 0..4_000 {
        world.put(&[1], &format!("key-{n}"), b"v", version(1_000, 1));
    }
    let now = world.now;
    [1, 2].into_iter().for_each(|id| world.node(id).core.set_limits(now, MINUTE * 10, 1_000));
    all(&mut world);
    world.run(Duration::from_millis(2_500));
    let progress = |world: &World| {
        world.nodes.values().flat_map(|node| node.core.status(world.now).pairs).find_map(|pair| {
            match pair.state {
                PairState::Running { done, total, .. } => Some((done, total)),
                _ => None,
            }
        })
    };
    let (done, total) = progress(&world).expect("an exchange is under way");
    assert!(done > 0 && total == usize::from(SLOTS), "{done} of {total}");
    world.down = vec![NodeId(2)];
    world.run(Duration::from_secs(30));
    assert!(!world.nodes.values().any(|node| node.ended.iter().any(|(.., trouble)| trouble.is_none())));
    let lost = world.nodes.values().find_map(|node| node.ended.first().copied()).unwrap();
    assert_eq!(lost.2, Some(Trouble::PeerLost));
    world.down.clear();
    world.run(Duration::from_secs(1));
    let (_, rest) = progress(&world).expect("it goes on");
    assert!(rest < total - done + 4_096, "where it was: {rest}");
    world.settle(MINUTE);
    world.assert_equal();
    assert!(world.rows_sent() < 4_300, "what had come through is not sent again: {}", world.rows_sent());
}

#[test]
fn a_restart_goes_on_with_what_was_not_compared_lately() {
    let mut world = two_equal(100);
    world.run(Duration::from_secs(40));
    let compared = world.moved().ranges_compared;
    assert!(compared > 0);
    [1, 2].into_iter().for_each(|id| world.restart(id));
    world.run(Duration::from_secs(60));
    assert_eq!(world.moved().ranges_compared, compared, "all is remembered");
    world.run(MINUTE * 10);
    assert!(world.moved().ranges_compared > compared, "until it is due");
}

#[test]
fn times_count_as_verified_only_once_they_are_saved() {
    let mut world = two_equal(10);
    [1, 2].into_iter().for_each(|id| world.node(id).break_saving());
    world.run(Duration::from_secs(40));
    assert!(world.moved().ranges_compared > 0);
    assert_eq!([1, 2].map(|id| world.verified(id, 0)), [Hlc::ZERO; 2]);
}

#[test]
fn a_peer_that_has_restarted_is_not_told_what_its_process_before_held() {
    let mut world = two_equal(3_000);
    all(&mut world);
    world.run(Duration::from_millis(4));
    // The links are not noticed to have broken; only the session tells.
    let passive = passive(&world);
    world.restart(passive);
    world.run(Duration::from_secs(1));
    let lost = world
        .nodes
        .values()
        .flat_map(|node| &node.ended)
        .any(|(.., trouble)| *trouble == Some(Trouble::PeerLost));
    assert!(lost);
    all(&mut world);
    world.settle(MINUTE);
    world.assert_equal();
}

#[test]
fn lost_messages_delay_and_harm_nothing() {
    let mut world = World::new(3, 3);
    world.loses = |number| scattered(number) % 29 == 3;
    for n in 0..300u64 {
        world.put(&[1 + n % 3], &format!("key-{n}"), b"v", version(1_000 + n, 1));
    }
    all(&mut world);
    world.settle(MINUTE * 60);
    world.loses = |_| false;
    for _ in 0..2 {
        all(&mut world);
        world.settle(MINUTE * 10);
    }
    world.assert_equal();
}

#[test]
fn marked_slots_are_compared_soon_and_their_marks_go() {
    let mut world = World::new(3, 3);
    world.run(MINUTE);
    let ended = |world: &World| world.nodes.values().map(|node| node.ended.len()).sum::<usize>();
    let before = ended(&world);
    for node in [1, 2] {
        world.node(node).put("missed", b"v", version(1_030_000, 1));
        world.node(node).drop_hint("missed", version(1_030_000, 1));
    }
    world.run(Duration::from_secs(20));
    assert!(!world.node(3).read("missed").is_absent(), "long before the interval is over");
    world.run(Duration::from_secs(20));
    world.assert_equal();
    assert!((1..=3).all(|id| world.node(id).store.marked_slots().unwrap().is_empty()));
    assert!(ended(&world) - before <= 6, "and then there is peace");
}

#[test]
fn marks_wait_until_all_replicas_are_up() {
    let mut world = World::new(3, 3);
    world.run(MINUTE);
    world.down = vec![NodeId(3)];
    let before: usize = world.nodes.values().map(|node| node.ended.len()).sum();
    for n in 0..50u64 {
        for node in [1, 2] {
            world.node(node).put("missed", b"v", version(1_060_000 + n, 1));
            world.node(node).drop_hint("missed", version(1_060_000 + n, 1));
        }
        world.run(Duration::from_secs(5));
    }
    let ended: usize = world.nodes.values().map(|node| node.ended.len()).sum();
    assert_eq!(ended, before, "a mark at every write, and no exchange for each");
    world.down.clear();
    world.run(Duration::from_secs(30));
    world.assert_equal();
    assert!((1..=3).all(|id| world.node(id).store.marked_slots().unwrap().is_empty()));
}

#[test]
fn rows_that_are_nowhere_else_come_to_their_replicas_and_are_then_forgotten() {
    let mut world = World::new(6, 3);
    world.run(MINUTE);
    let (mut kept, mut counted) = (Vec::new(), 0);
    for n in 0..400 {
        let key = format!("key-{n}");
        if world.replicas(&key).contains(&1) {
            continue;
        }
        world.node(1).put(&key, b"v", version(1_060_000, 1));
        if n % 10 == 0 {
            // Node 1's own actor.
            world.node(1).add(&key, 1_000, version(1_060_000, 1), 1, version(1_060_001, 1));
            counted += 1;
        }
        world.node(1).drop_hint(&key, version(1_060_000, 1));
        kept.push(key);
    }
    assert!(kept.len() > 100 && counted > 5);
    world.run(MINUTE);
    for key in &kept {
        for replica in world.replicas(key) {
            assert!(!world.node(replica).read(key).is_absent(), "{key} on {replica}");
        }
    }
    assert_eq!(world.node(1).forgotten, kept.len() - counted);
    assert!((1..=6).all(|id| world.node(id).store.marked_slots().unwrap().is_empty()));
    world.assert_equal();
}

#[test]
fn rows_of_others_do_not_wait_for_a_replica_that_is_to_come_back_empty() {
    let mut world = World::new(6, 3);
    world.run(MINUTE);
    let names = (0..400).map(|n| format!("key-{n}"));
    let of_two = |key: &String| !world.replicas(key).contains(&1) && world.replicas(key).contains(&2);
    let kept: Vec<String> = names.filter(of_two).collect();
    assert!(kept.len() > 50);
    for key in &kept {
        world.node(1).put(key, b"v", version(1_060_000, 1));
        world.node(1).drop_hint(key, version(1_060_000, 1));
    }
    world.down.push(NodeId(2));
    world.run(10 * MINUTE);
    assert!(!world.node(1).store.marked_slots().unwrap().is_empty(), "it may have other rows of them");
    world.node(1).core.set_lapsed([NodeId(2)].into());
    world.run(2 * MINUTE);
    assert!(world.node(1).store.marked_slots().unwrap().is_empty());
    assert_eq!(world.node(1).forgotten, kept.len());
    for key in &kept {
        let others = world.replicas(key).into_iter().filter(|&replica| replica != 2);
        assert!(others.into_iter().all(|replica| !world.node(replica).read(key).is_absent()), "{key}");
    }
}

#[test]
fn a_node_that_is_no_replica_is_shown_nothing_and_a_changed_ring_ends_exchanges() {
    let mut world = World::new(4, 2);
    for n in 0..2_000 {
        let key = format!("key-{n}");
        let replicas = world.replicas(&key);
        world.put(&replicas[..1], &key, b"v", version(1_000, 1));
    }
    // One node thinks that it is a replica of everything.
    let grown = ring(4, 4);
    world.use_ring(1, &grown);
    all(&mut world);
    world.run(MINUTE);
    let refused = world
        .node(1)
        .ended
        .iter()
        .any(|(.., trouble)| *trouble == Some(Trouble::Refused(super::Refusal::NotReplica)));
    assert!(refused, "{:?}", world.node(1).ended);
    let held = (0..2_000).filter(|n| !world.node(1).read(&format!("key-{n}")).is_absent()).count();
    let own = (0..2_000).filter(|n| world.replicas(&format!("key-{n}")).contains(&1)).count();
    assert!(held <= own, "{held}");
    let usual = Arc::clone(&world.ring);
    world.use_ring(1, &usual);
    all(&mut world);
    world.settle(MINUTE * 10);
    world.assert_equal();
}

#[test]
fn without_an_interval_only_what_is_asked_for_is_compared() {
    let mut world = two_equal(100);
    let now = world.now;
    [1, 2].into_iter().for_each(|id| world.node(id).core.set_limits(now, Duration::ZERO, 1_000));
    world.run(MINUTE * 60);
    assert_eq!(world.messages, 0);
    let mut one = SlotSet::default();
    one.insert(77);
    // The node that does not drive has the other do it.
    let passive = passive(&world);
    assert_eq!(world.node(passive).core.request(&one), 1);
    world.settle(MINUTE);
    world.run(Duration::from_secs(20));
    assert!(world.verified(passive, 77) > Hlc::ZERO);
    assert_eq!(world.verified(passive, 78), Hlc::ZERO);
}
