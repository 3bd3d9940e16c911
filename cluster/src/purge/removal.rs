//! Removing the rows of what is dead at a horizon: a bounded step at a time, and rest between.

use std::time::Duration;

use gyre_storage::{PurgeStep, Slot};

use super::api::Effect;
use super::{PAUSE, Purge};
use crate::time::MonoMicros;

/// Keys in a step of purging.
const STEP_KEYS: usize = 256;
/// How long to rest after a step, in times of the step.
const REST: u32 = 9;

/// Where the removal of rows stands.
#[derive(Debug)]
pub(super) enum Removal {
    /// Nothing is under way, nor shall be before this.
    Idle {
        /// Until then.
        until: MonoMicros,
    },
    /// A step in this slot is.
    Running {
        /// Which.
        slot: Slot,
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
        let Some((&slot, &from)) = next else { return };
        self.hand = slot;
        self.removal = Removal::Running { slot };
        effects.push(Effect::Purge { slot, from, keys: STEP_KEYS });
    }

    /// The step has come to `result` (`None`: it failed) after it `took` so long.
    pub fn purged(&mut self, now: MonoMicros, took: Duration, result: Option<PurgeStep>) {
        let Removal::Running { slot } = self.removal else { return };
        let Some(step) = result else {
            self.removal = Removal::Idle { until: now + PAUSE };
            return;
        };
        self.removal = Removal::Idle { until: now + took * REST };
        self.status.looked_at += step.looked_at as u64;
        self.status.keys += step.keys as u64;
        self.status.rows += step.rows as u64;
        match step.next {
            Some(next) => drop(self.waiting.insert(slot, Some(next))),
            None => {
                self.waiting.remove(&slot);
                self.hand = slot.saturating_add(1);
            }
        }
    }
}
