//! Removing the rows of what is dead at a horizon: a bounded step at a time, and rest between.

use std::time::Duration;

use gyre_storage::{Hlc, PurgeStep, Slot};

use super::api::Effect;
use super::{PAUSE, Purge};
use crate::time::MonoMicros;

/// Keys in a step of purging.
const STEP_KEYS: usize = 256;
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
        /// In which slot.
        slot: Slot,
        /// Of which pass.
        pass: Pass,
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
        let next = self.waiting.range(self.hand..).next().or_else(|| self.waiting.first_key_value());
        let Some((&slot, &pass)) = next else { return };
        self.hand = slot;
        self.removal = Removal::Running { slot, pass };
        effects.push(Effect::Purge { slot, from: pass.from, keys: STEP_KEYS });
    }

    /// The step has come to `result` (`None`: it failed) after it `took` so long.
    pub fn purged(&mut self, now: MonoMicros, took: Duration, result: Option<PurgeStep>) {
        let Removal::Running { slot, pass } = self.removal else { return };
        let Some(step) = result else {
            self.removal = Removal::Idle { until: now + PAUSE };
            return;
        };
        self.removal = Removal::Idle { until: now + took * REST };
        self.status.looked_at += step.looked_at as u64;
        self.status.keys += step.keys as u64;
        self.status.rows += step.rows as u64;
        if self.waiting.get(&slot) != Some(&pass) {
            // The horizon has risen meanwhile: from the beginning.
            return;
        }
        let is_partial = pass.is_partial || step.busy > 0;
        match step.next {
            Some(_) => drop(self.waiting.insert(slot, Pass { from: step.next, is_partial, ..pass })),
            None if is_partial => {
                self.waiting.insert(slot, Pass::of(pass.horizon));
                self.hand = slot.saturating_add(1);
                self.removal = Removal::Idle { until: now + (took * REST).max(REST_BUSY) };
            }
            None => {
                self.waiting.remove(&slot);
                self.hand = slot.saturating_add(1);
                if let Some(own) = self.own.get_mut(usize::from(slot)) {
                    own.removed = pass.horizon;
                }
            }
        }
    }
}
