//! The rows that a record stands for, and which of them another lacks.

use super::{Record, SiblingCell};
use crate::key::KeyRef;
use crate::row::{Body, Cell, Row};
use crate::version::Version;

impl Record {
    /// Every row of the record, as rows of `key`.
    pub fn rows<'a>(&'a self, key: KeyRef<'a>) -> impl Iterator<Item = Row<'a>> + 'a {
        let register = self.register().filter(|r| r.version > Version::ZERO).map(|r| Row {
            key,
            cell: Cell::Register,
            version: r.version,
            expiry: r.expiry,
            body: r.value.map_or(Body::Tombstone, Body::Value),
        });
        let counters = self.counters().map(move |cell| Row {
            key,
            cell: Cell::Counter { actor: cell.actor },
            version: cell.version,
            expiry: None,
            body: Body::Counter { base: cell.base, sum: cell.sum },
        });
        let siblings = self.all_sibling_cells().map(move |cell| Row {
            key,
            cell: Cell::Siblings { actor: cell.actor },
            version: cell.version,
            expiry: None,
            body: Body::Siblings { base: cell.base, set: cell.set },
        });
        register.into_iter().chain(counters).chain(siblings)
    }

    /// The rows of this record that `other` lacks or has an older version of: what a repair sends. Cells that this
    /// record's register has voided for ever are left out.
    pub fn rows_missing_in<'a>(
        &'a self,
        other: &'a Record,
        key: KeyRef<'a>,
    ) -> impl Iterator<Item = Row<'a>> + 'a {
        let (base, sibling_base) = (self.base(), self.sibling_base());
        self.rows(key).filter(move |row| {
            let is_void = match row.body {
                Body::Counter { base: own, .. } => own < base,
                Body::Siblings { base: own, .. } => own < sibling_base,
                Body::Tombstone | Body::Value(_) => false,
            };
            !is_void && !other.covers(row)
        })
    }

    /// Whether whoever has this record need not be told `row`: it has the row, a newer one of the cell, or what makes
    /// the row void.
    #[must_use]
    pub fn covers(&self, row: &Row<'_>) -> bool {
        match (row.cell, row.body) {
            (Cell::Register, _) => row.version <= self.base(),
            (Cell::Counter { .. }, Body::Counter { base, .. }) if base < self.base() => true,
            (Cell::Counter { actor }, _) => {
                self.counters().any(|cell| cell.actor == actor && cell.version >= row.version)
            }
            (Cell::Siblings { actor }, Body::Siblings { base, set }) => {
                self.covers_siblings(&SiblingCell { actor, version: row.version, base, set })
            }
            (Cell::Siblings { .. }, _) => true,
        }
    }
}
