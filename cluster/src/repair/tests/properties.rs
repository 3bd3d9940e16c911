//! Whatever two nodes hold, and however it is cut into steps, an exchange leaves both with the union.

use std::time::Duration;

use gyre_storage::{KeyRef, Record};
use proptest::prelude::*;

use super::super::SlotSet;
use super::world::{World, scattered, version};
use crate::node::NodeId;

/// Which messages are lost.
const LOSSES: [fn(u64) -> bool; 5] = [
    |_| false,
    |n| scattered(n) % 53 == 2,
    |n| scattered(n) % 91 == 1,
    |n| n < 4,
    |n| scattered(n) % 67 == 5,
];

/// A write: where (bit 0 and 1 for the nodes), which key, what (0 delete, 1 set, 2.. add), its clock.
type Write = (u8, u8, u8, u64);

fn write(world: &mut World, (nodes, key, kind, clock): Write) {
    // Few slots, so that ranges have several keys.
    let key = format!("{{{}}}{key}", key % 3);
    for node in [1, 2].into_iter().filter(|node| nodes >> (node - 1) & 1 == 1) {
        let (base, stamp) = (version(5, 1), version(clock + 1, u64::from(kind)));
        match kind {
            0 => world.node(node).delete(&key, stamp),
            1 => world.node(node).put(&key, &clock.to_le_bytes(), stamp),
            actor => {
                // Nobody adds to a register before it is stamped.
                let stamp = version(clock + 6, u64::from(actor));
                world.node(node).add(&key, u64::from(actor), base, 1, stamp);
            }
        }
    }
}

fn compare(world: &mut World) {
    for id in [1, 2] {
        assert_eq!(world.node(id).core.request(&SlotSet::all()), 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn both_sides_end_with_the_union(
        writes in prop::collection::vec((1u8..4, 0u8..60, 0u8..4, 0u64..50), 0..200),
        later in prop::collection::vec((1u8..4, 0u8..60, 0u8..4, 50u64..90), 0..20),
        losses in 0..LOSSES.len(),
    ) {
        let mut world = World::new(2, 2);
        world.loses = LOSSES[losses];
        writes.iter().for_each(|&one| write(&mut world, one));
        let keys: Vec<String> = (0..60u8).map(|key| format!("{{{}}}{key}", key % 3)).collect();
        world.run(Duration::from_secs(12));
        later.iter().for_each(|&one| write(&mut world, one));
        let read = |world: &World, node: u64, key: &str| -> Record {
            world.nodes[&NodeId(node)].store.read(KeyRef::new(0, key.as_bytes())).unwrap()
        };
        let unions: Vec<Record> =
            keys.iter().map(|key| read(&world, 1, key).merge(&read(&world, 2, key))).collect();
        compare(&mut world);
        world.settle(Duration::from_secs(36_000));
        world.loses = |_| false;
        compare(&mut world);
        world.settle(Duration::from_secs(36_000));
        world.assert_equal();
        for (key, union) in keys.iter().zip(&unions) {
            for node in [1, 2] {
                prop_assert_eq!(read(&world, node, key).digest(), union.digest(), "{} on {}", key, node);
            }
        }
    }
}
