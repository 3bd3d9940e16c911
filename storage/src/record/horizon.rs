//! Records below horizons: what a flush has deleted, and deletions that are over and done with.

use super::{EXPIRY, Record, RecordBuilder, Register, SIBLINGS, TOMBSTONE};
use crate::version::{Hlc, UnixMillis, Version};

impl Record {
    /// The record as it stands below a deletion horizon: every row at or before `horizon` is gone and the register
    /// is at least a tombstone of that version. [`Version::ZERO`] is no horizon.
    #[must_use]
    pub fn under_horizon(&self, horizon: Version) -> Record {
        let mut cells = self.counters().map(|c| c.version).chain(self.all_sibling_cells().map(|c| c.version));
        if horizon == Version::ZERO
            || self.is_ghost()
            || self.base() > horizon && cells.all(|version| version > horizon)
        {
            return self.clone();
        }
        let mut builder = RecordBuilder::from(self);
        builder.counters.retain(|cell| cell.version > horizon);
        builder.siblings.retain(|cell| cell.version > horizon);
        if self.base() <= horizon {
            builder.register = Some(Register { version: horizon, expiry: None, value: None });
        }
        builder.build()
    }

    /// Whether some horizon may find the record dead, by one byte of it: plain values that do not expire, and keys that are
    /// not there, never are.
    #[must_use]
    pub fn may_be_dead(&self) -> bool {
        self.encoded().first().is_some_and(|flags| flags & (TOMBSTONE | EXPIRY | SIBLINGS) != 0)
    }

    /// Whether the register is a deletion that is over and done with at `horizon`: its row is at or before it, and a
    /// tombstone that nothing counts on, or a value that had expired by then. This follows from the rows alone, no clock is
    /// asked: replicas that hold the same rows agree.
    #[must_use]
    pub fn is_dead_at(&self, horizon: Hlc) -> bool {
        if !self.may_be_dead() {
            return false;
        }
        if self.has_siblings() {
            return self.siblings_are_dead_at(horizon);
        }
        let Some(register) = self.register().filter(|r| r.version.hlc <= horizon && !self.is_ghost()) else {
            return false;
        };
        match register.expiry {
            Some(at) => at.0 <= horizon.millis(),
            None => register.value.is_none() && self.counters().all(|cell| cell.base != register.version),
        }
    }

    /// The record as it stands when what is dead at `horizon` is forgotten: the register and every older row are gone.
    /// What is left of a key that is dead as a whole is its *ghost*, which has the digest of [`Record::ABSENT`] and no
    /// row, but counts as expired (its expiry says at which horizon), so that an increment begins a new register, and
    /// siblings a new base.
    #[must_use]
    pub fn without_dead(&self, horizon: Hlc) -> Record {
        if !self.is_dead_at(horizon) {
            return self.clone();
        }
        let mut builder = RecordBuilder::from(self);
        builder.counters.retain(|cell| cell.version.hlc > horizon);
        builder.siblings.retain(|cell| cell.version.hlc > horizon);
        let expiry = Some(UnixMillis(horizon.millis()));
        builder.register = Some(Register { version: Version::ZERO, expiry, value: None });
        builder.build()
    }

    /// Whether this is what is left of a key that is dead.
    #[must_use]
    pub fn is_ghost(&self) -> bool {
        self.register().is_some_and(|register| register.version == Version::ZERO)
    }
}
