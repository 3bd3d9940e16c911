//! How rows are laid out as key-value pairs of an engine.
//!
//! ```text
//! row key    prefix u32 BE | db u8 | key length varint | key | cell kind u8 | [actor u64 BE] | !hlc u64 BE | !node u64 BE
//! row value  kind and flags u8 | [expiry ms u64 BE] | payload
//! expiry key expiry ms u64 BE | row key                                                   (value empty)
//! ```
//!
//! The prefix is the top 32 bits of the key's ring position, so the rows of a slot stand together. Within a cell
//! the complemented version puts the newest row first. Cell kinds sort siblings and counters before the register: a
//! plain string's newest row is then the very first row of its key, and one seek answers a read. Kinds 3 (element) and
//! 4 (score index) are kept free for collections, whose rows come after the register.
//!
//! The varint is LEB128 in its shortest form. Format 0 of a value has the top two bits of its first byte clear.

use crate::error::StorageError;
use crate::key::KeyRef;
use crate::row::{Body, Cell, Row};
use crate::siblings::SiblingSet;
use crate::version::{Hlc, UnixMillis, Version};

const KIND_SIBLINGS: u8 = 0;
const KIND_COUNTER: u8 = 1;
const KIND_REGISTER: u8 = 2;

const BODY_TOMBSTONE: u8 = 1;
const BODY_VALUE: u8 = 2;
const BODY_COUNTER: u8 = 3;
const BODY_SIBLINGS: u8 = 4;
const BODY_MASK: u8 = 0x0f;
const FLAG_EXPIRY: u8 = 0x10;

/// Bytes of a version at the end of a row key.
pub(crate) const VERSION_BYTES: usize = 16;
/// Bytes of the position prefix at the start of a row key.
pub(crate) const PREFIX_BYTES: usize = 4;

/// The parts of a row key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowKey<'a> {
    pub(crate) prefix: u32,
    pub(crate) db: u8,
    pub(crate) key: &'a [u8],
    pub(crate) cell: Cell,
    pub(crate) version: Version,
    /// Length of the part that all rows of the key share (prefix to key).
    pub(crate) key_bytes: usize,
}

/// The parts of a row value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowValue<'a> {
    pub(crate) expiry: Option<UnixMillis>,
    pub(crate) body: Body<'a>,
}

/// Appends what all rows of `key` begin with.
pub(crate) fn put_key(out: &mut Vec<u8>, key: KeyRef<'_>) {
    out.extend_from_slice(&key.prefix().to_be_bytes());
    out.push(key.db);
    put_varint(out, key.key.len());
    out.extend_from_slice(key.key);
}

/// Appends the row key of `row`.
pub(crate) fn put_row_key(out: &mut Vec<u8>, row: &Row<'_>) {
    put_key(out, row.key);
    match row.cell {
        Cell::Siblings { actor } => {
            out.push(KIND_SIBLINGS);
            out.extend_from_slice(&actor.to_be_bytes());
        }
        Cell::Counter { actor } => {
            out.push(KIND_COUNTER);
            out.extend_from_slice(&actor.to_be_bytes());
        }
        Cell::Register => out.push(KIND_REGISTER),
    }
    out.extend_from_slice(&(!row.version.hlc.0).to_be_bytes());
    out.extend_from_slice(&(!row.version.node).to_be_bytes());
}

/// How many bytes [`put_row_key`] appends.
pub(crate) fn row_key_bytes(row: &Row<'_>) -> usize {
    let cell = match row.cell {
        Cell::Siblings { .. } | Cell::Counter { .. } => 9,
        Cell::Register => 1,
    };
    PREFIX_BYTES + 1 + varint_bytes(row.key.key.len()) + row.key.key.len() + cell + VERSION_BYTES
}

/// Appends the row value of `row`.
pub(crate) fn put_row_value(out: &mut Vec<u8>, row: &Row<'_>) {
    let kind = match row.body {
        Body::Tombstone => BODY_TOMBSTONE,
        Body::Value(_) => BODY_VALUE,
        Body::Counter { .. } => BODY_COUNTER,
        Body::Siblings { .. } => BODY_SIBLINGS,
    };
    match row.expiry {
        Some(at) => {
            out.push(kind | FLAG_EXPIRY);
            out.extend_from_slice(&at.0.to_be_bytes());
        }
        None => out.push(kind),
    }
    match row.body {
        Body::Tombstone => {}
        Body::Value(bytes) => out.extend_from_slice(bytes),
        Body::Counter { base, sum } => {
            put_base(out, base);
            out.extend_from_slice(&sum.to_be_bytes());
        }
        Body::Siblings { base, set } => {
            put_base(out, base);
            out.extend_from_slice(set);
        }
    }
}

/// How many bytes [`put_row_value`] appends.
pub(crate) fn row_value_bytes(row: &Row<'_>) -> usize {
    let body = match row.body {
        Body::Tombstone => 0,
        Body::Value(bytes) => bytes.len(),
        Body::Counter { .. } => 24,
        Body::Siblings { set, .. } => VERSION_BYTES + set.len(),
    };
    1 + if row.expiry.is_some() { 8 } else { 0 } + body
}

/// Takes a row key apart.
pub(crate) fn decode_row_key(bytes: &[u8]) -> Result<RowKey<'_>, StorageError> {
    row_key(bytes).ok_or_else(|| StorageError::damaged("a row key does not parse"))
}

/// Takes a row value apart.
pub(crate) fn decode_row_value(bytes: &[u8]) -> Result<RowValue<'_>, StorageError> {
    row_value(bytes).ok_or_else(|| StorageError::damaged("a row value does not parse"))
}

/// Puts a row together from its stored key and value. `key` must be the key the row belongs to.
pub(crate) fn row_of<'a>(key: KeyRef<'a>, parts: &RowKey<'_>, value: &RowValue<'a>) -> Row<'a> {
    Row { key, cell: parts.cell, version: parts.version, expiry: value.expiry, body: value.body }
}

fn row_key(bytes: &[u8]) -> Option<RowKey<'_>> {
    let (prefix, rest) = bytes.split_first_chunk::<4>()?;
    let (&db, rest) = rest.split_first()?;
    let (key_len, rest) = take_varint(rest)?;
    let (key, rest) = rest.split_at_checked(key_len)?;
    let key_bytes = bytes.len() - rest.len();
    let (&kind, rest) = rest.split_first()?;
    let (cell, rest) = match kind {
        KIND_REGISTER => (Cell::Register, rest),
        KIND_COUNTER | KIND_SIBLINGS => {
            let (actor, rest) = rest.split_first_chunk::<8>()?;
            let actor = u64::from_be_bytes(*actor);
            (if kind == KIND_COUNTER { Cell::Counter { actor } } else { Cell::Siblings { actor } }, rest)
        }
        _ => return None,
    };
    let (hlc, rest) = rest.split_first_chunk::<8>()?;
    let node: &[u8; 8] = rest.try_into().ok()?;
    let version = Version { hlc: Hlc(!u64::from_be_bytes(*hlc)), node: !u64::from_be_bytes(*node) };
    Some(RowKey { prefix: u32::from_be_bytes(*prefix), db, key, cell, version, key_bytes })
}

fn row_value(bytes: &[u8]) -> Option<RowValue<'_>> {
    let (&head, mut rest) = bytes.split_first()?;
    if head & !(BODY_MASK | FLAG_EXPIRY) != 0 {
        return None;
    }
    let mut expiry = None;
    if head & FLAG_EXPIRY != 0 {
        let (at, after) = rest.split_first_chunk::<8>()?;
        expiry = Some(UnixMillis(u64::from_be_bytes(*at)));
        rest = after;
    }
    let body = match head & BODY_MASK {
        BODY_TOMBSTONE if rest.is_empty() => Body::Tombstone,
        BODY_VALUE => Body::Value(rest),
        BODY_COUNTER => {
            let (base, rest) = take_base(rest)?;
            let sum: &[u8; 8] = rest.try_into().ok()?;
            Body::Counter { base, sum: i64::from_be_bytes(*sum) }
        }
        BODY_SIBLINGS => {
            let (base, set) = take_base(rest)?;
            // Whoever takes the row in relies on it.
            SiblingSet::decode(set).ok()?;
            Body::Siblings { base, set }
        }
        _ => return None,
    };
    Some(RowValue { expiry, body })
}

fn put_base(out: &mut Vec<u8>, base: Version) {
    out.extend_from_slice(&base.hlc.0.to_be_bytes());
    out.extend_from_slice(&base.node.to_be_bytes());
}

fn take_base(bytes: &[u8]) -> Option<(Version, &[u8])> {
    let (hlc, rest) = bytes.split_first_chunk::<8>()?;
    let (node, rest) = rest.split_first_chunk::<8>()?;
    Some((Version { hlc: Hlc(u64::from_be_bytes(*hlc)), node: u64::from_be_bytes(*node) }, rest))
}

/// Appends `value` as LEB128.
pub(crate) fn put_varint(out: &mut Vec<u8>, value: usize) {
    put_varint64(out, value as u64);
}

/// As [`put_varint`].
pub(crate) fn put_varint64(out: &mut Vec<u8>, value: u64) {
    let mut rest = value;
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push((rest & 0x7f) as u8);
}

/// How many bytes [`put_varint`] appends.
pub(crate) fn varint_bytes(value: usize) -> usize {
    let bits = usize::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// Takes a LEB128 number of at most 32 bits off the front; refuses one that is not in its shortest form.
pub(crate) fn take_varint(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (value, rest) = take_varint64(bytes)?;
    Some((usize::try_from(u32::try_from(value).ok()?).ok()?, rest))
}

/// As [`take_varint`], of at most 64 bits.
pub(crate) fn take_varint64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    let mut rest = bytes;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            let is_shortest = byte != 0 || shift == 0;
            return is_shortest.then_some((value, rest));
        }
    }
    None
}

/// Appends the key of `row`'s entry in the expiry index.
pub(crate) fn put_expiry_key(out: &mut Vec<u8>, at: UnixMillis, row: &Row<'_>) {
    out.extend_from_slice(&at.0.to_be_bytes());
    put_row_key(out, row);
}

/// Takes an expiry key apart.
pub(crate) fn decode_expiry_key(bytes: &[u8]) -> Result<(UnixMillis, RowKey<'_>), StorageError> {
    let parts = bytes
        .split_first_chunk::<8>()
        .and_then(|(at, key)| Some((UnixMillis(u64::from_be_bytes(*at)), row_key(key)?)));
    parts.ok_or_else(|| StorageError::damaged("an expiry key does not parse"))
}

#[cfg(test)]
mod tests;
