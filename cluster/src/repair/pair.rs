//! This node and another one with which it shares slots.

use std::time::Duration;

use super::exchange::{Exchange, PORTION_KEYS_MAX, Trouble};
use super::slots::SlotSet;
use crate::node::NodeId;
use crate::time::MonoMicros;

/// How soon after a start two nodes compare what they hold: when the worst of the start is over.
const FIRST_AFTER: Duration = Duration::from_secs(5);
/// Not all pairs at once.
const FIRST_SPREAD_MS: u64 = 10_000;
/// How long a pair is left alone after its first failure; doubled with each further one.
const PAUSE_MIN: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(120);

/// What is waited for on behalf of an exchange.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) id: u64,
    pub(super) here: bool,
    pub(super) there: bool,
    pub(super) until: MonoMicros,
}

/// This node and a peer.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) is_up: bool,
    /// Whether this node drives.
    pub(super) drives: bool,
    pub(super) shared: SlotSet,
    /// Slots that are to be compared soon.
    pub(super) wanted: SlotSet,
    /// When all are.
    pub(super) due_at: MonoMicros,
    pub(super) exchange: Option<Exchange>,
    pub(super) waiting: Option<Waiting>,
    /// Nothing before.
    pub(super) paused_until: MonoMicros,
    pub(super) failures: u32,
    pub(super) trouble: Option<Trouble>,
    /// When the peer was last told that slots are wanted.
    pub(super) asked_at: Option<MonoMicros>,
    /// When slots were last found equal, or made so.
    pub(super) verified_at: Option<MonoMicros>,
    pub(super) completed: u64,
    pub(super) portion_keys_max: u64,
}

impl Pair {
    pub(super) fn new(drives: bool, peer: NodeId, now: MonoMicros) -> Pair {
        let spread = peer.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        Pair {
            is_up: false,
            drives,
            shared: SlotSet::default(),
            wanted: SlotSet::default(),
            due_at: (now + FIRST_AFTER).plus_millis(spread % FIRST_SPREAD_MS),
            exchange: None,
            waiting: None,
            paused_until: now,
            failures: 0,
            trouble: None,
            asked_at: None,
            verified_at: None,
            completed: 0,
            portion_keys_max: PORTION_KEYS_MAX,
        }
    }

    pub(super) fn set_up(&mut self) {
        if !self.is_up {
            self.is_up = true;
            self.failures = 0;
            self.paused_until = MonoMicros(0);
            self.asked_at = None;
        }
    }

    /// Has `slots` compared soon.
    pub(super) fn want(&mut self, slots: &SlotSet) {
        let before = self.wanted.len();
        let mut slots = slots.clone();
        if let Some(exchange) = &self.exchange {
            slots.subtract(exchange.left());
        }
        self.wanted.add(&slots);
        if self.wanted.len() > before {
            self.asked_at = None;
        }
    }

    /// It has failed: leaves it alone for a while.
    pub(super) fn pause(&mut self, now: MonoMicros) {
        let pause = PAUSE_MIN.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        self.paused_until = now + pause;
    }
}

/// Whether `node` drives the exchange with `peer`: so that each drives about half of its exchanges.
pub(super) fn drives(node: NodeId, peer: NodeId) -> bool {
    let is_swapped = (node.0 ^ peer.0).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 63 == 1;
    (node < peer) != is_swapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_two_drives_and_each_of_many_about_half() {
        let nodes: Vec<NodeId> = (1..=60u64).map(|n| NodeId(n.wrapping_mul(0xd134_2543_de82_ef95))).collect();
        for &node in &nodes {
            let others = nodes.iter().filter(|&&other| other != node);
            let driven = others
                .inspect(|&&other| assert_ne!(drives(node, other), drives(other, node)))
                .filter(|&&other| drives(node, other));
            let driven = driven.count();
            assert!((15..=45).contains(&driven), "{driven} of 59");
        }
    }
}
