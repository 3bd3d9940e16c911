//! Writes far enough apart are ordered as they happened: while most wall clocks are within the allowed drift of each
//! other, a write that ended before another began has the lesser version. So nothing comes back that was overwritten or
//! deleted (invariant 4), whatever became of it in between.

use gyre_storage::Version;

use crate::history::Operation;
use crate::queue::{Micros, SECOND};

/// How far apart writes must be: clocks that are half a drift off either way, and a restart that begins at the durable
/// mark, ahead of both.
const APART: Micros = 2 * SECOND;
/// How far if some clocks are wrong: times may be off by the drift more, and clocks are followed that are as far ahead.
const APART_ASTRAY: Micros = 4 * SECOND;

/// When writes to a key ended, each with the greatest version of any until then.
#[derive(Default)]
pub(crate) struct OrderWatch(Vec<(Micros, Version)>);

impl OrderWatch {
    /// A write of `version` has ended, however.
    pub(crate) fn ended(&mut self, at: Micros, version: Version) {
        let greatest = self.0.last().map_or(version, |(_, greatest)| version.max(*greatest));
        self.0.push((at, greatest));
    }

    /// A write was acknowledged. Answers whether an earlier one will win over it.
    pub(crate) fn is_overtaken(
        &self,
        operation: &Operation,
        version: Version,
        clocks_are_close: bool,
    ) -> bool {
        let apart = if clocks_are_close { APART } else { APART_ASTRAY };
        let before = operation.begun_at.unwrap_or_default().saturating_sub(apart);
        let earlier = self.0.partition_point(|(at, _)| *at < before);
        earlier
            .checked_sub(1)
            .and_then(|last| self.0.get(last))
            .is_some_and(|(_, greatest)| *greatest > version)
    }
}
