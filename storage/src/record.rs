//! Records: the newest row of every cell of one key, in one allocation.
//!
//! A record is what the row cache holds, what a read returns, what replicas send each other and merge. It is kept
//! encoded, so that all of these are one reference count or one copy:
//!
//! ```text
//! flags: u8 (1 register, 2 tombstone, 4 expiry, 8 siblings) | counters: u16
//! [register version: hlc u64, node u64] [expiry ms: u64]
//! counters × { actor u64, version (hlc, node), base (hlc, node), sum i64 }      by ascending actor
//! [sibling cells, see record/siblings.rs]
//! value bytes to the end
//! ```
//! All integers are little-endian. A tombstone with an expiry is a *swept* row: its value expired and was freed. It has
//! the version and the expiry of the row that it was.

use std::sync::Arc;

use crate::row::{Body, Cell, Row};
use crate::version::{Hlc, UnixMillis, Version};

mod builder;
mod horizon;
mod rows;
mod siblings;
#[cfg(test)]
mod tests;
mod view;

pub use builder::RecordBuilder;
pub use siblings::{LiveSibling, SiblingCell, SiblingState};
pub use view::{View, parse_integer};

const REGISTER: u8 = 1;
const TOMBSTONE: u8 = 2;
const EXPIRY: u8 = 4;
const SIBLINGS: u8 = 8;
const HEAD_BYTES: usize = 3;
const COUNTER_BYTES: usize = 48;

/// The newest row of every cell of one key. Cheap to clone; immutable.
#[derive(Clone, Default)]
pub struct Record(Option<Shared>);

/// The allocation a record stands in, from `start` on. The row cache keeps the key before it, in the same
/// allocation, so that a cached row costs one.
#[derive(Clone)]
struct Shared {
    bytes: Arc<[u8]>,
    start: usize,
}

impl PartialEq for Record {
    fn eq(&self, other: &Record) -> bool {
        self.encoded() == other.encoded()
    }
}

impl Eq for Record {}

/// The newest register row of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register<'a> {
    /// Its version.
    pub version: Version,
    /// From when on it counts as deleted.
    pub expiry: Option<UnixMillis>,
    /// Its value, or `None` for a tombstone.
    pub value: Option<&'a [u8]>,
}

impl<'a> Register<'a> {
    /// What `row` says, if it is a register row.
    pub(crate) fn of(row: &Row<'a>) -> Option<Register<'a>> {
        let value = match (row.cell, row.body) {
            (Cell::Register, Body::Value(bytes)) => Some(bytes),
            (Cell::Register, Body::Tombstone) => None,
            _ => return None,
        };
        Some(Register { version: row.version, expiry: row.expiry, value })
    }

    /// Whether the row's expiry has passed at `now`, or at the clock of the node that swept it.
    #[must_use]
    pub fn is_expired(&self, now: UnixMillis) -> bool {
        self.is_swept() || self.expiry.is_some_and(|at| at <= now)
    }

    /// Whether this is a row that expired and whose value was freed.
    #[must_use]
    pub fn is_swept(&self) -> bool {
        self.expiry.is_some() && self.value.is_none()
    }

    /// Whether `other` is to be taken instead: it is newer, or it is this row from before it was swept.
    ///
    /// That a value wins over the tombstone that was made of it is a choice. Readers see no difference, as it has
    /// expired; but where a clock was wrong and a row was swept too early, the value comes back by any repair.
    pub(crate) fn yields_to(&self, other: &Register<'_>) -> bool {
        self.version < other.version
            || self.version == other.version && self.is_swept() && other.value.is_some()
    }
}

/// The newest row of one counter cell of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterCell {
    /// The node incarnation that owns the cell.
    pub actor: u64,
    /// The row's version.
    pub version: Version,
    /// The register version that the sum counts from.
    pub base: Version,
    /// What the actor has added on that base.
    pub sum: i64,
}

/// The bytes are not a record: how a decoder refuses damaged or hostile input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed record")]
pub struct MalformedRecord;

impl Record {
    /// The record of a key without any row.
    pub const ABSENT: Record = Record(None);

    /// A record of one register row and no counters.
    #[must_use]
    pub fn of_register(version: Version, expiry: Option<UnixMillis>, value: Option<&[u8]>) -> Record {
        let register = Some(Register { version, expiry, value });
        RecordBuilder { register, ..RecordBuilder::default() }.build()
    }

    /// A record of just `row`.
    #[must_use]
    pub fn of_row(row: &Row<'_>) -> Record {
        let mut builder = RecordBuilder::default();
        builder.add(row);
        builder.build()
    }

    /// Whether no row is known of the key (a tombstone is a row).
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.0.is_none()
    }

    /// The encoded form; empty for [`Record::ABSENT`].
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        self.0.as_ref().and_then(|shared| shared.bytes.get(shared.start..)).unwrap_or_default()
    }

    /// The record that this crate encoded into `bytes` from `start` on; absent if nothing stands there.
    pub(crate) fn shared(bytes: &Arc<[u8]>, start: usize) -> Record {
        if start >= bytes.len() {
            return Record::ABSENT;
        }
        Record(Some(Shared { bytes: Arc::clone(bytes), start }))
    }

    fn whole(bytes: Arc<[u8]>) -> Record {
        Record(Some(Shared { bytes, start: 0 }))
    }

    /// Reads an encoded record. Checks everything the accessors rely on.
    pub fn decode(bytes: &[u8]) -> Result<Record, MalformedRecord> {
        if bytes.is_empty() {
            return Ok(Record::ABSENT);
        }
        let flags = *bytes.first().ok_or(MalformedRecord)?;
        let legal = flags & REGISTER != 0 || flags & (TOMBSTONE | EXPIRY) == 0;
        let record = Record::whole(Arc::from(bytes));
        if flags & SIBLINGS != 0 {
            record.check_siblings()?;
        }
        let Some(value_at) = record.value_at() else { return Err(MalformedRecord) };
        let has_value = flags & (REGISTER | TOMBSTONE) == REGISTER;
        let actors_ascend = record.counters().is_sorted_by(|a, b| a.actor < b.actor);
        let fits = bytes.len() == value_at || (has_value && bytes.len() > value_at);
        if flags > 15 || !legal || !fits || !actors_ascend {
            return Err(MalformedRecord);
        }
        Ok(record)
    }

    /// The newest register row, if there is one.
    #[must_use]
    pub fn register(&self) -> Option<Register<'_>> {
        let bytes = self.encoded();
        let flags = *bytes.first()?;
        if flags & REGISTER == 0 {
            return None;
        }
        let version = version_at(bytes, HEAD_BYTES)?;
        let expiry =
            if flags & EXPIRY != 0 { Some(UnixMillis(u64_at(bytes, HEAD_BYTES + 16)?)) } else { None };
        let value = if flags & TOMBSTONE != 0 { None } else { bytes.get(self.value_at()?..) };
        Some(Register { version, expiry, value })
    }

    /// The version of the newest register row, [`Version::ZERO`] if there is none: the base new counts start on.
    #[must_use]
    pub fn base(&self) -> Version {
        self.register().map_or(Version::ZERO, |register| register.version)
    }

    /// All counter cells, by ascending actor, those on a void base included.
    pub fn counters(&self) -> impl Iterator<Item = CounterCell> + '_ {
        let bytes = self.encoded();
        let start = HEAD_BYTES + self.register_bytes();
        let count = usize::from(self.counter_count());
        bytes.get(start..).unwrap_or_default().chunks_exact(COUNTER_BYTES).take(count).filter_map(|cell| {
            Some(CounterCell {
                actor: u64_at(cell, 0)?,
                version: version_at(cell, 8)?,
                base: version_at(cell, 24)?,
                sum: i64::from_le_bytes(cell.get(40..48)?.try_into().ok()?),
            })
        })
    }

    /// Whether the record has counter cells at all (the common record has none).
    #[must_use]
    pub fn has_counters(&self) -> bool {
        self.counter_count() > 0
    }

    /// Whether the record has no cells of actors: the common record.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        !self.has_counters() && !self.has_sibling_cells()
    }

    /// The greatest version of any row in the record; [`Version::ZERO`] if absent.
    #[must_use]
    pub fn newest_version(&self) -> Version {
        let counters = self.counters().map(|cell| cell.version);
        counters.chain(self.all_sibling_cells().map(|cell| cell.version)).fold(self.base(), Version::max)
    }

    /// A 64-bit digest of which row of which cell is newest. Replicas whose digests agree show the same record;
    /// values are not read (a version names its row). Counter cells that the register has voided for ever do not
    /// count: a replica whose cache took the register in without reading need not know them.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let base = self.base();
        let digest = self
            .counters()
            .filter(|cell| cell.base >= base)
            .fold(mix(mix(0, base.hlc.0), base.node), |digest, cell| {
                mix(mix(mix(digest, cell.actor), cell.version.hlc.0), cell.version.node)
            });
        // An actor's sibling cell is another one than its counter.
        self.sibling_cells().fold(digest, |digest, cell| {
            mix(mix(mix(digest, !cell.actor), cell.version.hlc.0), cell.version.node)
        })
    }

    /// A 64-bit digest of what replicas must agree on of a key when rows up to `horizon` are gone: as
    /// [`Record::digest`], and the expiry. `None` if nothing of the record counts, so that the key is like an absent one.
    ///
    /// An expired value and the tombstone that is made of it, of the same version and with the same expiry, have the
    /// same digest. Counter cells that the register has voided do not count, nor do they keep a key.
    #[must_use]
    pub fn state_digest(&self, horizon: Version) -> Option<u64> {
        let record = self.under_horizon(horizon);
        let base = record.base();
        if base <= horizon && !record.counters().any(|cell| cell.base >= base) && !record.has_siblings() {
            return None;
        }
        let expiry = record.register().and_then(|register| register.expiry);
        Some(mix(record.digest(), expiry.map_or(0, |at| at.0)))
    }

    /// The union of two records of one key: the newest row of each cell. Commutes, associates, is idempotent. Of a row
    /// and the same row swept it keeps the former.
    #[must_use]
    pub fn merge(&self, other: &Record) -> Record {
        if other.is_absent() || self == other {
            return self.clone();
        }
        if self.is_absent() {
            return other.clone();
        }
        if self.is_plain() && other.is_plain() {
            return match (self.register(), other.register()) {
                (own, Some(theirs)) if own.is_none_or(|own| own.yields_to(&theirs)) => other.clone(),
                _ => self.clone(),
            };
        }
        let mut builder = RecordBuilder::from(self);
        builder.add_record(other);
        builder.build()
    }

    fn counter_count(&self) -> u16 {
        self.encoded().get(1..3).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes)
    }

    fn register_bytes(&self) -> usize {
        match self.encoded().first() {
            Some(flags) if flags & REGISTER != 0 => 16 + if flags & EXPIRY != 0 { 8 } else { 0 },
            _ => 0,
        }
    }

    /// Where the value begins; `None` if the header claims more than there is.
    fn value_at(&self) -> Option<usize> {
        let at = self.siblings_at() + self.sibling_bytes()?;
        (at <= self.encoded().len()).then_some(at)
    }

    /// Where the sibling cells begin, if there are any.
    fn siblings_at(&self) -> usize {
        HEAD_BYTES + self.register_bytes() + usize::from(self.counter_count()) * COUNTER_BYTES
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counters: Vec<_> = self.counters().collect();
        let mut out = f.debug_struct("Record");
        out.field("register", &self.register()).field("counters", &counters);
        if self.has_sibling_cells() {
            out.field("siblings", &self.all_sibling_cells().collect::<Vec<_>>());
        }
        out.finish()
    }
}

fn put_version(out: &mut Vec<u8>, version: Version) {
    out.extend_from_slice(&version.hlc.0.to_le_bytes());
    out.extend_from_slice(&version.node.to_le_bytes());
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn version_at(bytes: &[u8], at: usize) -> Option<Version> {
    Some(Version { hlc: Hlc(u64_at(bytes, at)?), node: u64_at(bytes, at + 8)? })
}

/// One round of multiply-rotate mixing (the finaliser of murmur3, applied per word).
pub(crate) fn mix(state: u64, word: u64) -> u64 {
    let mut x = (state.rotate_left(23) ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x.wrapping_mul(0xc4ce_b9fe_1a85_ec53)
}
