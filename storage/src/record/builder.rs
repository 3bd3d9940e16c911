//! Putting records together from rows.

use std::borrow::Cow;
use std::sync::Arc;

use super::siblings::{StagedSiblings, put_cells, settled};
use super::{
    COUNTER_BYTES, CounterCell, EXPIRY, HEAD_BYTES, REGISTER, Record, Register, SIBLINGS, TOMBSTONE,
    put_version,
};
use crate::row::{Body, Cell, Row};
use crate::version::Version;

/// Collects rows of one key, in any order, keeping the newest of each cell.
#[derive(Default)]
pub struct RecordBuilder<'a> {
    pub(super) register: Option<Register<'a>>,
    pub(super) counters: Vec<CounterCell>,
    pub(super) siblings: Vec<StagedSiblings<'a>>,
}

impl<'a> From<&'a Record> for RecordBuilder<'a> {
    fn from(record: &'a Record) -> Self {
        RecordBuilder {
            register: record.register(),
            counters: record.counters().collect(),
            siblings: record.all_sibling_cells().map(StagedSiblings::from).collect(),
        }
    }
}

impl<'a> RecordBuilder<'a> {
    /// Takes `row` in, unless a newer row of its cell is there already. The row's key is not looked at.
    pub fn add(&mut self, row: &Row<'a>) {
        if let Some(register) = Register::of(row) {
            self.add_register(register);
            return;
        }
        match (row.cell, row.body) {
            (Cell::Counter { actor }, Body::Counter { base, sum }) => {
                self.add_counter(CounterCell { actor, version: row.version, base, sum });
            }
            (Cell::Siblings { actor }, Body::Siblings { base, set }) => {
                self.add_siblings(actor, row.version, base, Cow::Borrowed(set));
            }
            // Not a row.
            _ => {}
        }
    }

    /// Takes every row of `record` in.
    pub fn add_record(&mut self, record: &'a Record) {
        if let Some(register) = record.register() {
            self.add_register(register);
        }
        for cell in record.counters() {
            self.add_counter(cell);
        }
        for cell in record.all_sibling_cells() {
            self.add_siblings(cell.actor, cell.version, cell.base, Cow::Borrowed(cell.set));
        }
    }

    pub(crate) fn has_counters(&self) -> bool {
        !self.counters.is_empty()
    }

    pub(crate) fn add_register(&mut self, register: Register<'a>) {
        if self.register.is_none_or(|own| own.yields_to(&register)) {
            self.register = Some(register);
        }
    }

    pub(crate) fn add_counter(&mut self, cell: CounterCell) {
        match self.counters.binary_search_by_key(&cell.actor, |c| c.actor) {
            Ok(at) => {
                if let Some(own) = self.counters.get_mut(at).filter(|own| own.version < cell.version) {
                    *own = cell;
                }
            }
            // A record counts its cells in 16 bits; a key gains one cell per node restart, so the bound is remote.
            Err(at) if self.counters.len() < usize::from(u16::MAX) => self.counters.insert(at, cell),
            Err(_) => {}
        }
    }

    /// The register, unless it is a ghost beside cells of actors, which count on its absence.
    fn shown_register(&self) -> Option<Register<'a>> {
        let has_cells = !self.counters.is_empty() || !self.siblings.is_empty();
        self.register.filter(|r| r.version > Version::ZERO || !has_cells)
    }

    /// Encodes what was collected.
    #[must_use]
    pub fn build(&self) -> Record {
        let value = self.shown_register().and_then(|r| r.value).unwrap_or_default();
        let mut out = Vec::with_capacity(HEAD_BYTES + 24 + self.counters.len() * COUNTER_BYTES + value.len());
        self.encode_into(&mut out);
        if out.is_empty() { Record::ABSENT } else { Record::whole(Arc::from(out)) }
    }

    /// Appends the encoded form of what was collected; nothing if that is nothing.
    pub(crate) fn encode_into(&self, out: &mut Vec<u8>) {
        if self.register.is_none() && self.counters.is_empty() && self.siblings.is_empty() {
            return;
        }
        let register = self.shown_register();
        let value = register.and_then(|r| r.value).unwrap_or_default();
        let flags = register.map_or(0, |r| {
            REGISTER
                | if r.value.is_none() { TOMBSTONE } else { 0 }
                | if r.expiry.is_some() { EXPIRY } else { 0 }
        });
        let siblings = settled(self.register, &self.siblings);
        out.push(if siblings.is_empty() { flags } else { flags | SIBLINGS });
        let count = u16::try_from(self.counters.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&count.to_le_bytes());
        if let Some(register) = register {
            put_version(out, register.version);
            if let Some(expiry) = register.expiry {
                out.extend_from_slice(&expiry.0.to_le_bytes());
            }
        }
        for cell in &self.counters {
            out.extend_from_slice(&cell.actor.to_le_bytes());
            put_version(out, cell.version);
            put_version(out, cell.base);
            out.extend_from_slice(&cell.sum.to_le_bytes());
        }
        put_cells(out, &siblings);
        out.extend_from_slice(value);
    }
}
