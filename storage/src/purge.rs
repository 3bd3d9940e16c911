//! Purge horizons: up to which clock the deletions of a slot are over and done with.
//!
//! A tombstone must stay until every replica has it, or what it deletes comes back. A slot's horizon is a clock up to
//! which its replicas have agreed that all of them have every row ([`PurgeHorizon::hidden`]); a key that is *dead* at the
//! horizon ([`Record::without_dead`](crate::Record::without_dead)) is then like one that never was. Nodes do not learn
//! of that at one moment, so it comes in three steps, each of which waits for all replicas to have taken the one before:
//!
//! 1. `hidden`: trees leave dead keys out, and reads show them as absent. But an increment does not begin at nothing yet,
//!    as a replica that still shows the tombstone would void it; it begins a new register, as on an expired key.
//! 2. `counted`: all replicas hide them, so increments begin at nothing, as on a key that never was.
//! 3. `purged`: nobody can still add to a counter on a dead register, and what was added before is everywhere
//!    (another exchange has shown it): their rows may be removed ([`Store::purge`](crate::Store::purge)).
//!
//! ```text
//! "storage.purge.NNNNN" (slot) = hidden u64 BE | counted u64 BE | purged u64 BE      in the meta family
//! ```

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::batch::Batch;
use crate::engine::{Engine, Step};
use crate::error::StorageError;
use crate::family::Family;
use crate::key::{SLOTS, Slot};
use crate::version::Hlc;

const PURGE_PREFIX: &str = "storage.purge.";

/// How far the purging of a slot has come: see the [module](self). Each is at most the one before, and never falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PurgeHorizon {
    /// Dead keys up to here are hidden and left out of trees.
    pub hidden: Hlc,
    /// Increments of dead keys up to here begin at nothing.
    pub counted: Hlc,
    /// Rows of dead keys up to here may be removed.
    pub purged: Hlc,
}

impl PurgeHorizon {
    /// The later of both, step by step, as far as each step's predecessor allows.
    fn raised_to(self, other: PurgeHorizon) -> PurgeHorizon {
        let hidden = self.hidden.max(other.hidden);
        let counted = self.counted.max(other.counted).min(hidden);
        PurgeHorizon { hidden, counted, purged: self.purged.max(other.purged).min(counted) }
    }

    fn encode(self) -> [u8; 24] {
        let mut out = [0; 24];
        for (place, clock) in out.chunks_exact_mut(8).zip([self.hidden, self.counted, self.purged]) {
            place.copy_from_slice(&clock.0.to_be_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<PurgeHorizon> {
        let ([hidden, counted, purged], []) = bytes.as_chunks::<8>() else { return None };
        let clock = |bytes: &[u8; 8]| Hlc(u64::from_be_bytes(*bytes));
        Some(PurgeHorizon { hidden: clock(hidden), counted: clock(counted), purged: clock(purged) })
    }
}

/// The horizon of every slot; empty while no slot has one.
#[derive(Debug, Default)]
pub(crate) struct PurgeHorizons(ArcSwap<Vec<PurgeHorizon>>);

impl PurgeHorizons {
    /// Reads what `engine` holds.
    pub(crate) fn open(engine: &dyn Engine) -> Result<PurgeHorizons, StorageError> {
        let end = name(SLOTS);
        let mut all = Vec::new();
        engine.walk_range(
            Family::Meta,
            PURGE_PREFIX.as_bytes(),
            Some(end.as_bytes()),
            &mut |name, value| {
                let slot: Option<Slot> = name
                    .get(PURGE_PREFIX.len()..)
                    .and_then(|digits| str::from_utf8(digits).ok()?.parse().ok());
                let (Some(slot), Some(horizon)) = (slot, PurgeHorizon::decode(value)) else {
                    return Err(StorageError::damaged("the purge horizon of a slot does not parse"));
                };
                set(&mut all, slot, horizon);
                Ok(Step::Next)
            },
        )?;
        Ok(PurgeHorizons(ArcSwap::from_pointee(all)))
    }

    /// That of `slot`.
    pub(crate) fn of(&self, slot: Slot) -> PurgeHorizon {
        self.0.load().get(usize::from(slot)).copied().unwrap_or_default()
    }

    /// All of them, by slot; empty if there is none.
    pub(crate) fn all(&self) -> Arc<Vec<PurgeHorizon>> {
        self.0.load_full()
    }

    /// Puts `merged` (from [`PurgeHorizons::merged_with`]) in force.
    pub(crate) fn store(&self, merged: Vec<PurgeHorizon>) {
        self.0.store(Arc::new(merged));
    }

    /// The present ones with `raised` taken in, which is added to `batch`, and the slots whose dead keys are hidden
    /// further; `None` if nothing rises.
    pub(crate) fn merged_with(
        &self,
        raised: &[(Slot, PurgeHorizon)],
        batch: &mut Batch,
    ) -> Option<(Vec<PurgeHorizon>, Vec<Slot>)> {
        let mut all = self.all().to_vec();
        let mut hiding = Vec::new();
        for (slot, horizon) in raised.iter().filter(|(slot, _)| *slot < SLOTS) {
            let present = all.get(usize::from(*slot)).copied().unwrap_or_default();
            let fresh = present.raised_to(*horizon);
            if fresh != present {
                set(&mut all, *slot, fresh);
                batch.put_meta(&name(*slot), &fresh.encode());
            }
            if fresh.hidden > present.hidden {
                hiding.push(*slot);
            }
        }
        (!batch.is_empty()).then_some((all, hiding))
    }
}

fn set(all: &mut Vec<PurgeHorizon>, slot: Slot, horizon: PurgeHorizon) {
    if all.is_empty() {
        all.resize(usize::from(SLOTS), PurgeHorizon::default());
    }
    if let Some(place) = all.get_mut(usize::from(slot)) {
        *place = horizon;
    }
}

fn name(slot: Slot) -> String {
    format!("{PURGE_PREFIX}{slot:05}")
}
