//! Removing the rows of what is dead at a horizon: a bounded step at a time, and rest between.

use std::time::Duration;

use gyre_storage::{Hlc, PurgeStep, Slot};

use super::api::Effect;
use super::{PAUSE, Purge};
use crate::time::MonoMicros;

/// Keys in a step of purging.
const STEP_KEYS: usize = 256;
/// Slots in a step, at most: most have few keys or none, and a step for each would come down to waiting.
const STEP_SLOTS: usize = 256;
/// How long to rest after a step, in times of the step.
const REST: u32 = 9;
/// How long to rest at least after a slot in which keys were left alone.
const REST_BUSY: Duration = Duration::from_secs(1);

/// How far the removal of what is dead in a slot at `horizon` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pass {
    horizon: Hlc,
    /// The prefix to go on from.
    from: Option<u64>,
    /// Whether keys were left alone: then it is not done with this.
    is_partial: bool,
}

impl Pass {
    /// The beginning.
    pub(super) fn of(horizon: Hlc) -> Pass {
        Pass { horizon, from: None, is_partial: false }
    }
}

/// Where the removal of rows stands.
#[derive(Debug)]
pub(super) enum Removal {
    /// Nothing is under way, nor shall be before this.
    Idle {
        /// Until then.
        until: MonoMicros,
    },
    /// A step is.
    Running {
        /// In which slots, each with its pass.
        slots: Vec<(Slot, Pass)>,
    },
}

impl Purge {
    /// Goes on with removing rows.
    pub(super) fn remove(&mut self, now: MonoMicros, effects: &mut Vec<Effect>) {
        self.status.slots_waiting = self.waiting.len();
        if !matches!(self.removal, Removal::Idle { until } if until <= now) {
            return;
        }
        // Round and round, or the first ones would be waited for again before the last have had their turn.
        let next = self.waiting.range(self.hand..).chain(self.waiting.range(..self.hand));
        let slots: Vec<(Slot, Pass)> = next.map(|(&slot, &pass)| (slot, pass)).take(STEP_SLOTS).collect();
        if slots.is_empty() {
            return;
        }
        effects.push(Effect::Purge {
            slots: slots.iter().map(|&(slot, pass)| (slot, pass.from)).collect(),
            keys: STEP_KEYS,
        });
        self.removal = Removal::Running { slots };
    }

    /// The step has come to `results`, one for each slot that it came to, in order (`None`: it failed), after it `took` so
    /// long.
    pub fn purged(&mut self, now: MonoMicros, took: Duration, results: Option<Vec<PurgeStep>>) {
        let Removal::Running { slots } = &mut self.removal else { return };
        let slots = std::mem::take(slots);
        let Some(results) = results else {
            self.removal = Removal::Idle { until: now + PAUSE };
            return;
        };
        let mut rest = took * REST;
        for ((slot, pass), step) in slots.into_iter().zip(results) {
            if self.purged_slot(slot, pass, step) {
                rest = rest.max(REST_BUSY);
            }
        }
        self.removal = Removal::Idle { until: now + rest };
    }

    /// Answers whether the slot is to be passed once more, since keys were left alone.
    fn purged_slot(&mut self, slot: Slot, pass: Pass, step: PurgeStep) -> bool {
        self.hand = slot;
        self.status.looked_at += step.looked_at as u64;
        self.status.keys += step.keys as u64;
        self.status.rows += step.rows as u64;
        if self.waiting.get(&slot) != Some(&pass) {
            // The horizon has risen meanwhile: from the beginning.
            return false;
        }
        let is_partial = pass.is_partial || step.busy > 0;
        if step.next.is_some() {
            self.waiting.insert(slot, Pass { from: step.next, is_partial, ..pass });
            return false;
        }
        self.hand = slot.saturating_add(1);
        if is_partial {
            self.waiting.insert(slot, Pass::of(pass.horizon));
        } else {
            self.waiting.remove(&slot);
            if let Some(own) = self.own.get_mut(usize::from(slot)) {
                own.removed = pass.horizon;
            }
        }
        is_partial
    }
}
