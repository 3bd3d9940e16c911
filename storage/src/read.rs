//! Reading the newest row of each cell of one key.

use std::borrow::Cow;

use crate::encode::{RowKey, RowValue, decode_row_key, decode_row_value, put_key};
use crate::engine::{Engine, Step, Tier, Walk};
use crate::error::StorageError;
use crate::key::KeyRef;
use crate::record::{CounterCell, Record, RecordBuilder, Register};
use crate::row::{Body, Cell};

/// The record of `key` as the engine holds it; `None` if finding out would touch the disk.
pub(crate) fn newest(
    engine: &dyn Engine,
    key: KeyRef<'_>,
    tier: Tier,
) -> Result<Option<Record>, StorageError> {
    let mut shared = Vec::with_capacity(key.key.len() + 10);
    put_key(&mut shared, key);
    let mut found = Found::default();
    let walk = engine.walk_key(&shared, tier, &mut |row_key, row_value| {
        found.take(&decode_row_key(row_key)?, &decode_row_value(row_value)?, true)?;
        Ok(if found.complete.is_some() { Step::Stop } else { Step::NextCell })
    })?;
    Ok((walk == Walk::Done).then(|| found.into_record()))
}

/// What a walk over the rows of one key has found so far. The cells of actors come first; the register row, after them,
/// completes the record.
#[derive(Default)]
pub(crate) struct Found {
    cells: RecordBuilder<'static>,
    /// How many sibling cells there were.
    sibling_cells: usize,
    complete: Option<Record>,
}

impl Found {
    /// Takes in the newest row of a cell. Without `with_values` a value that no counter stands on is left empty.
    pub(crate) fn take(
        &mut self,
        key: &RowKey<'_>,
        value: &RowValue<'_>,
        with_values: bool,
    ) -> Result<(), StorageError> {
        match (key.cell, value.body) {
            (Cell::Counter { actor }, Body::Counter { base, sum }) => {
                self.cells.add_counter(CounterCell { actor, version: key.version, base, sum });
            }
            (Cell::Siblings { actor }, Body::Siblings { base, set }) => {
                self.sibling_cells += 1;
                self.cells.add_siblings(actor, key.version, base, Cow::Owned(set.to_vec()));
            }
            (Cell::Register, Body::Tombstone) => self.complete_with(key, value.expiry, None),
            (Cell::Register, Body::Value(bytes)) => {
                let wanted = with_values || self.cells.has_counters();
                self.complete_with(key, value.expiry, Some(if wanted { bytes } else { &[] }));
            }
            _ => return Err(StorageError::damaged("a row's value is not of its cell's kind")),
        }
        Ok(())
    }

    fn complete_with(
        &mut self,
        key: &RowKey<'_>,
        expiry: Option<crate::version::UnixMillis>,
        value: Option<&[u8]>,
    ) {
        let mut builder: RecordBuilder<'_> = std::mem::take(&mut self.cells);
        builder.add_register(Register { version: key.version, expiry, value });
        self.complete = Some(builder.build());
    }

    /// Whether the register row was seen; only older versions follow.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete.is_some()
    }

    /// How many sibling cells were seen. The record has fewer if some are void.
    pub(crate) fn sibling_cells(&self) -> usize {
        self.sibling_cells
    }

    pub(crate) fn into_record(self) -> Record {
        self.complete.unwrap_or_else(|| self.cells.build())
    }
}
