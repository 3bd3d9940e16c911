//! What at least so many replicas of a key are known to hold, and so what a read of so many others must see.
//!
//! A write acknowledged at a level, or a read answered at one, says that as many replicas as the level asks for hold its
//! row or a newer one (a read repairs before it answers). A read that asks `needed` of n replicas meets at least one of
//! any n - needed + 1. So one rule covers every mix of levels: QUORUM with QUORUM, ALL with ONE, ONE with ALL; and ONE
//! with ONE promises nothing.

use gyre_storage::{Record, UnixMillis, Version, View, parse_integer};

/// What an operation must at least see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Floor {
    /// The version of the register.
    pub(crate) version: Version,
    /// The value of a counter that is only added to.
    pub(crate) count: i64,
}

impl Floor {
    fn raise(&mut self, other: Floor) {
        self.version = self.version.max(other.version);
        self.count = self.count.max(other.count);
    }

    fn cap(&mut self, other: Floor) {
        self.version = self.version.min(other.version);
        self.count = self.count.min(other.count);
    }

    /// What a record shows.
    pub(crate) fn of(record: &Record) -> Floor {
        Floor { version: record.base(), count: count(record).unwrap_or(0) }
    }
}

/// The value of a counter that has no expiry; `None` if the record is no number.
pub(crate) fn count(record: &Record) -> Option<i64> {
    match record.view(UnixMillis(0)) {
        None => Some(0),
        Some(View::Integer(number)) => Some(number),
        Some(View::Bytes(bytes)) => parse_integer(bytes),
    }
}

/// Floors by number of holders.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// At `h - 1`: what at least h replicas hold.
    by_holders: Vec<Floor>,
    /// At `h - 1`: the sum of acknowledged increments that at least h replicas hold.
    added: Vec<i64>,
}

impl Held {
    /// Nothing is known of `replicas` replicas.
    pub(crate) fn new(replicas: usize) -> Held {
        Held { by_holders: vec![Floor::default(); replicas], added: vec![0; replicas] }
    }

    /// How many replicas there are.
    pub(crate) fn replicas(&self) -> usize {
        self.by_holders.len()
    }

    /// `holders` replicas hold `floor`.
    pub(crate) fn raise(&mut self, holders: usize, floor: Floor) {
        self.by_holders.iter_mut().take(holders).for_each(|held| held.raise(floor));
    }

    /// `holders` replicas hold one more increment.
    pub(crate) fn add(&mut self, holders: usize, delta: i64) {
        self.added.iter_mut().take(holders).for_each(|added| *added += delta);
    }

    /// What a read that asks `needed` replicas must see.
    pub(crate) fn seen_by(&self, needed: usize) -> Floor {
        let Some(at) = self.replicas().checked_sub(needed) else { return Floor::default() };
        let mut floor = self.by_holders.get(at).copied().unwrap_or_default();
        floor.count = floor.count.max(self.added.get(at).copied().unwrap_or(0));
        floor
    }

    /// Replicas have lost rows: they now hold `records`, and no more than that is promised.
    pub(crate) fn cap(&mut self, records: &[Record]) {
        let replicas = self.replicas();
        for holders in 1..=replicas {
            let least = least_seen(records, replicas - holders + 1);
            self.by_holders[holders - 1].cap(least);
            self.added[holders - 1] = self.added[holders - 1].min(least.count);
        }
    }
}

/// The least that any `asked` of the replicas show together.
fn least_seen(records: &[Record], asked: usize) -> Floor {
    let mut least: Option<Floor> = None;
    for subset in 0u32..1 << records.len() {
        if subset.count_ones() as usize != asked {
            continue;
        }
        let chosen = records.iter().enumerate().filter(|(index, _)| subset >> index & 1 == 1);
        let seen = Floor::of(&chosen.fold(Record::ABSENT, |all, (_, record)| all.merge(record)));
        match &mut least {
            Some(least) => least.cap(seen),
            None => least = Some(seen),
        }
    }
    least.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use gyre_storage::Hlc;

    use super::*;

    fn version(hlc: u64) -> Version {
        Version { hlc: Hlc(hlc), node: 1 }
    }

    fn floor(hlc: u64) -> Floor {
        Floor { version: version(hlc), count: 0 }
    }

    #[test]
    fn a_read_must_see_a_write_if_their_levels_overlap_and_need_not_otherwise() {
        for (written, read, must) in [
            (1, 1, false),
            (1, 2, false),
            (1, 3, true),
            (2, 1, false),
            (2, 2, true),
            (2, 3, true),
            (3, 1, true),
            (3, 2, true),
        ] {
            let mut held = Held::new(3);
            held.raise(written, floor(7));
            assert_eq!(
                held.seen_by(read).version == version(7),
                must,
                "written at {written}, read at {read}"
            );
        }
    }

    #[test]
    fn increments_add_up_by_how_many_hold_them() {
        let mut held = Held::new(3);
        held.add(2, 5);
        held.add(1, 3);
        assert_eq!([1, 2, 3].map(|needed| held.seen_by(needed).count), [0, 5, 8]);
    }

    #[test]
    fn a_replica_that_lost_rows_takes_the_promise_with_it() {
        let at = |hlc| Record::of_register(version(hlc), None, Some(b"x"));
        let mut held = Held::new(3);
        held.raise(2, floor(9));
        held.raise(3, floor(4));
        held.cap(&[at(9), at(4), at(5)]);
        assert_eq!([1, 2, 3].map(|needed| held.seen_by(needed).version.hlc.0), [4, 5, 9]);
    }
}
