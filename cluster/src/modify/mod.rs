//! Read-modify-writes: commands that must read a key before they write it.
//!
//! Such a command is forwarded to the key's first live replica, which serialises per key, reads the newest record
//! and calls [`apply`]. That is a pure function: it answers the row to write (if any) and the reply. The caller
//! stamps the row's version, which must be greater than every version in the record it read.
//!
//! Counters: while a key is only added to, each actor keeps its own [`Cell::Counter`] and the value is register
//! plus sums ([`Record::view`]). Every other change of such a key materialises the value in a new register row,
//! whose version voids the counters of the old one.
//!
//! Siblings: changes with a context write the actor's own [`Cell::Siblings`]. All others see the newest sibling as the
//! key's value and write a register row, which replaces all siblings.

mod bits;
pub mod context;
mod counter;
mod expiry;
mod extended;
mod natural;
mod range;
mod set;
mod siblings;
#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::needless_pass_by_value,
    reason = "small numbers of a model"
)]
mod tests;
mod wire;

use std::borrow::Cow;

use gyre_storage::siblings::Dot;
use gyre_storage::{Body, Cell, KeyRef, Record, Row, UnixMillis, Version, View};

pub use siblings::{ACTORS_FOLDED, SIBLING_BYTES_MAX, SIBLINGS_BYTES_MAX, SIBLINGS_MAX, SIBLINGS_WARNED};
pub use wire::MalformedModify;

/// The longest string a read-modify-write may build: Redis's default `proto-max-bulk-len`, 512 MB.
pub const STRING_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Whether a SET depends on the key's existence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetCondition {
    /// In any case.
    #[default]
    Always,
    /// Only if the key does not exist.
    Nx,
    /// Only if the key exists.
    Xx,
}

/// What a write does to the key's expiry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpiryChange {
    /// It stays as it is.
    Keep,
    /// The key no longer expires.
    #[default]
    Clear,
    /// The key expires then. A time that has passed deletes the key.
    At(UnixMillis),
}

/// Whether an EXPIRE depends on the present expiry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpireCondition {
    /// In any case.
    #[default]
    Always,
    /// Only if the key has no expiry.
    Nx,
    /// Only if the key has an expiry.
    Xx,
    /// Only to a later time; no expiry counts as the end of time. (`XX GT` is the same.)
    Gt,
    /// Only to an earlier time; no expiry counts as the end of time.
    Lt,
    /// `XX LT`: only if there is an expiry and the new one is earlier.
    XxLt,
}

/// A change of one key that depends on what is there. Borrows its bytes; see [`Modify::encode`] for an owned form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modify<'a> {
    /// SET with NX, XX, GET or KEEPTTL, SETNX, GETSET. Replies the old value with `get`, else `Done` or `Nil`.
    Set {
        /// The new value.
        value: &'a [u8],
        /// When to write at all.
        condition: SetCondition,
        /// The new expiry.
        expiry: ExpiryChange,
        /// Whether to reply the old value.
        get: bool,
    },
    /// GETDEL: replies the value and deletes.
    GetDelete,
    /// GETEX: replies the value and changes the expiry.
    GetExpire {
        /// The new expiry.
        expiry: ExpiryChange,
    },
    /// APPEND: replies the new length.
    Append {
        /// What to append.
        value: &'a [u8],
    },
    /// SETRANGE: overwrites from `offset` on, padding with zero bytes. Replies the new length.
    SetRange {
        /// Where to write, in bytes.
        offset: u64,
        /// What to write.
        value: &'a [u8],
    },
    /// SETBIT: replies the old bit.
    SetBit {
        /// Which bit, counted from the most significant bit of the first byte.
        offset: u64,
        /// Its new value.
        bit: bool,
    },
    /// INCR, DECR, INCRBY, DECRBY: replies the new value.
    Add {
        /// What to add.
        delta: i64,
    },
    /// INCRBYFLOAT: replies the new value as text.
    AddFloat {
        /// What to add, as decimal text.
        delta: &'a [u8],
    },
    /// DEL, UNLINK: replies 1 if the key existed, else 0.
    Delete,
    /// Deletes if no row of the key is newer than `version`: the end of RENAME. Replies 1 or 0; 0 also when the
    /// key is gone.
    DeleteIfVersion {
        /// [`Record::newest_version`] of the record the caller read.
        version: Version,
    },
    /// Deletes if the value is `value`: how MSETNX takes back what it wrote. Replies 1 or 0.
    DeleteIfEqual {
        /// The value that may be deleted.
        value: &'a [u8],
    },
    /// EXPIRE and its kin: replies 1 if the expiry was set (or the key deleted, by a time that has passed), else 0.
    Expire {
        /// The new expiry.
        at: UnixMillis,
        /// When to set it.
        condition: ExpireCondition,
    },
    /// PERSIST: replies 1 if an expiry was removed, else 0.
    Persist,
    /// VC.SET: a value in place of those that the context has seen. Replies `Done`.
    SetSibling {
        /// The binary form of a [`CausalContext`](context::CausalContext).
        context: &'a [u8],
        /// The value.
        value: &'a [u8],
        /// When it expires. A time that has passed deletes what the context has seen.
        expiry: Option<UnixMillis>,
    },
    /// VC.DEL: deletes the values that the context has seen. Replies how many there were.
    DeleteSiblings {
        /// The binary form of a [`CausalContext`](context::CausalContext).
        context: &'a [u8],
    },
}

impl Modify<'_> {
    /// Whether it writes into the actor's sibling cell.
    #[must_use]
    pub fn has_context(&self) -> bool {
        matches!(self, Modify::SetSibling { .. } | Modify::DeleteSiblings { .. })
    }
}

/// What a read-modify-write answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModifyReply {
    /// It was done; nothing more to say.
    Done,
    /// Its condition did not hold, or there was no value.
    Nil,
    /// A number: a count, a length, a bit, a counter's value.
    Integer(i64),
    /// A value.
    Bytes(Vec<u8>),
}

/// Why a read-modify-write was refused: what it read does not allow it. Displays as Redis's error text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModifyError {
    /// The value (or the sum's start) is not an integer of 64 bits.
    #[error("ERR value is not an integer or out of range")]
    NotAnInteger,
    /// The sum leaves 64 bits.
    #[error("ERR increment or decrement would overflow")]
    Overflow,
    /// The value or the increment is not a number.
    #[error("ERR value is not a valid float")]
    NotAFloat,
    /// The sum of floats is not a finite number.
    #[error("ERR increment would produce NaN or Infinity")]
    NotFinite,
    /// The string would grow past [`STRING_BYTES_MAX`].
    #[error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")]
    TooLong,
    /// The value is longer than [`SIBLING_BYTES_MAX`].
    #[error("ERR value exceeds the maximum size of a sibling (8 MiB)")]
    SiblingTooLong,
    /// The context does not parse.
    #[error("BADCONTEXT the context is damaged, truncated or forged, or of another cluster")]
    BadContext,
    /// The context has seen what is further ahead of the primary's clock than clocks may differ.
    #[error(
        "BADCONTEXT the context is further ahead of the clock of the key's primary than max-clock-drift allows"
    )]
    ContextAhead,
}

/// The content of a row to be written, owning its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewBody {
    /// See [`Body::Tombstone`].
    Tombstone,
    /// See [`Body::Value`].
    Value(Vec<u8>),
    /// See [`Body::Counter`].
    Counter {
        /// The register version the sum counts from.
        base: Version,
        /// The actor's new sum on that base.
        sum: i64,
    },
    /// See [`Body::Siblings`].
    Siblings {
        /// The register version that the set stands on.
        base: Version,
        /// The encoded set.
        set: Vec<u8>,
    },
}

/// A row to be written; its key and version are the caller's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRow {
    /// The cell.
    pub cell: Cell,
    /// The content.
    pub body: NewBody,
    /// The expiry.
    pub expiry: Option<UnixMillis>,
}

impl NewRow {
    /// A register row that holds `value`, or a tombstone if `expiry` has passed at `now`.
    fn register(value: Vec<u8>, expiry: Option<UnixMillis>, now: UnixMillis) -> NewRow {
        if expiry.is_some_and(|at| at <= now) {
            return NewRow::tombstone();
        }
        NewRow { cell: Cell::Register, body: NewBody::Value(value), expiry }
    }

    fn tombstone() -> NewRow {
        NewRow { cell: Cell::Register, body: NewBody::Tombstone, expiry: None }
    }

    /// The row itself, of `key`, under `version`.
    #[must_use]
    pub fn row<'a>(&'a self, key: KeyRef<'a>, version: Version) -> Row<'a> {
        let body = match &self.body {
            NewBody::Tombstone => Body::Tombstone,
            NewBody::Value(value) => Body::Value(value),
            NewBody::Counter { base, sum } => Body::Counter { base: *base, sum: *sum },
            NewBody::Siblings { base, set } => Body::Siblings { base: *base, set },
        };
        Row { key, cell: self.cell, version, expiry: self.expiry, body }
    }
}

/// What a read-modify-write comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The row to write, or `None` when nothing changes.
    pub row: Option<NewRow>,
    /// The reply, due once the row is written.
    pub reply: ModifyReply,
    /// What the operator should know.
    pub crowd: Option<Crowd>,
}

/// A key has many siblings: whoever writes it does not merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crowd {
    /// [`SIBLINGS_WARNED`] or more.
    Many {
        /// How many.
        siblings: usize,
    },
    /// So many, or so long, that only the newest was kept ([`SIBLINGS_MAX`], [`SIBLINGS_BYTES_MAX`]).
    Merged {
        /// How many were dropped.
        dropped: usize,
    },
}

impl Change {
    fn none(reply: ModifyReply) -> Change {
        Change { row: None, reply, crowd: None }
    }

    fn write(row: NewRow, reply: ModifyReply) -> Change {
        Change { row: Some(row), reply, crowd: None }
    }
}

/// What `modify` does to a key whose newest record is `record`, at wall-clock time `now`.
///
/// `actor` is the node incarnation whose counter cell an [`Modify::Add`] may change; the other changes ignore it.
///
/// # Panics
/// If `modify` has a context: [`apply_in_context`] is for these.
pub fn apply(
    modify: &Modify<'_>,
    record: &Record,
    now: UnixMillis,
    actor: u64,
) -> Result<Change, ModifyError> {
    if let Modify::Add { delta } = *modify {
        return counter::add(record, now, actor, delta);
    }
    let live = Live::of(record, now);
    match *modify {
        Modify::Set { value, condition, expiry, get } => {
            Ok(set::set(live.as_ref(), now, value, condition, expiry, get))
        }
        Modify::GetDelete => Ok(set::get_delete(live)),
        Modify::GetExpire { expiry } => Ok(expiry::get_expire(live, now, expiry)),
        Modify::Append { value } => range::append(live.as_ref(), now, value),
        Modify::SetRange { offset, value } => range::set_range(live.as_ref(), now, offset, value),
        Modify::SetBit { offset, bit } => bits::set_bit(live.as_ref(), now, offset, bit),
        Modify::Add { delta } => counter::add(record, now, actor, delta),
        Modify::SetSibling { .. } | Modify::DeleteSiblings { .. } => {
            unreachable!("changes with a context need more than an actor")
        }
        Modify::AddFloat { delta } => counter::add_float(live.as_ref(), now, delta),
        Modify::Delete => Ok(set::delete_if(live.is_some())),
        Modify::DeleteIfVersion { version } => {
            Ok(set::delete_if(live.is_some() && record.newest_version() <= version))
        }
        Modify::DeleteIfEqual { value } => {
            Ok(set::delete_if(live.is_some_and(|live| live.value.as_ref() == value)))
        }
        Modify::Expire { at, condition } => Ok(expiry::expire(live, now, at, condition)),
        Modify::Persist => Ok(expiry::persist(live, now)),
    }
}

/// What `modify`, which [has a context](Modify::has_context), does to a key whose newest record is `record`, at wall-clock
/// time `now`.
///
/// `dot` is the node incarnation that writes, and the clock of the version that the row will have. That must come after
/// every version this node has ever stamped, and after [`seen_in_context`]. `record` must have the newest row of the
/// actor's own cell.
///
/// # Panics
/// If `modify` has no context.
pub fn apply_in_context(
    modify: &Modify<'_>,
    record: &Record,
    now: UnixMillis,
    dot: Dot,
) -> Result<Change, ModifyError> {
    match *modify {
        Modify::SetSibling { context, value, expiry } => {
            siblings::set(record, now, dot, context, value, expiry)
        }
        Modify::DeleteSiblings { context } => siblings::delete(record, now, dot, context),
        _ => unreachable!("only changes with a context write a sibling cell"),
    }
}

/// What a change that has a context must be stamped after: the greatest version that `record` or the context knows of.
///
/// # Errors
/// [`ModifyError::BadContext`] if the context does not parse.
pub fn seen_in_context(modify: &Modify<'_>, record: &Record) -> Result<Version, ModifyError> {
    let (Modify::SetSibling { context, .. } | Modify::DeleteSiblings { context }) = modify else {
        return Ok(record.newest_version());
    };
    siblings::seen(record, context)
}

/// The value of a live key with its expiry, counters summed up.
struct Live<'a> {
    value: Cow<'a, [u8]>,
    expiry: Option<UnixMillis>,
}

impl<'a> Live<'a> {
    fn of(record: &'a Record, now: UnixMillis) -> Option<Live<'a>> {
        let value = match record.view(now)? {
            View::Bytes(bytes) => Cow::Borrowed(bytes),
            View::Integer(number) => Cow::Owned(number.to_string().into_bytes()),
        };
        Some(Live { value, expiry: record.expiry(now) })
    }

    /// A register row with `value` in place of the present one, keeping the expiry; without a live key, a new one.
    fn replaced(live: Option<&Live<'_>>, value: Vec<u8>, now: UnixMillis) -> NewRow {
        NewRow::register(value, live.and_then(|live| live.expiry), now)
    }
}

/// A length as a reply. Strings are at most [`STRING_BYTES_MAX`] long, so this never saturates.
fn length_reply(bytes: usize) -> ModifyReply {
    ModifyReply::Integer(i64::try_from(bytes).unwrap_or(i64::MAX))
}
