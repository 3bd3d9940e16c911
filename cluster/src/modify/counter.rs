//! INCR and its kin on counter cells, INCRBYFLOAT on registers.

use gyre_storage::{Cell, Record, UnixMillis, View, parse_integer};

use super::extended::Extended;
use super::{Change, Live, ModifyError, ModifyReply, NewBody, NewRow};

/// Adds `delta` to the actor's own cell on the present base.
///
/// A register that has expired still is the newest register, and nothing counts on it; adding to such a key
/// therefore starts a new register, like SET. So does adding to a key with siblings, whose newest is the number.
pub(super) fn add(record: &Record, now: UnixMillis, actor: u64, delta: i64) -> Result<Change, ModifyError> {
    let present = match record.view(now) {
        None => 0,
        Some(View::Integer(number)) => number,
        Some(View::Bytes(bytes)) => parse_integer(bytes).ok_or(ModifyError::NotAnInteger)?,
    };
    let value = present.checked_add(delta).ok_or(ModifyError::Overflow)?;
    let reply = ModifyReply::Integer(value);
    if record.has_siblings() || record.register().is_some_and(|register| register.is_expired(now)) {
        let expiry = record.expiry(now);
        return Ok(Change::write(NewRow::register(value.to_string().into_bytes(), expiry, now), reply));
    }
    let base = record.base();
    let own = record.counters().find(|cell| cell.actor == actor && cell.base == base);
    // The own sum may wrap although the value does not: other actors' sums make up for it, modulo 2^64.
    let sum = own.map_or(0, |cell| cell.sum).wrapping_add(delta);
    let row = NewRow { cell: Cell::Counter { actor }, body: NewBody::Counter { base, sum }, expiry: None };
    Ok(Change::write(row, reply))
}

/// INCRBYFLOAT: writes the sum's text as a register, keeping the expiry.
pub(super) fn add_float(
    live: Option<&Live<'_>>,
    now: UnixMillis,
    delta: &[u8],
) -> Result<Change, ModifyError> {
    let present = match live {
        Some(live) => Extended::parse(&live.value).ok_or(ModifyError::NotAFloat)?,
        None => Extended::ZERO,
    };
    let delta = Extended::parse(delta).ok_or(ModifyError::NotAFloat)?;
    let sum = present.plus(delta).ok_or(ModifyError::NotFinite)?;
    let text = sum.to_text().into_bytes();
    Ok(Change::write(Live::replaced(live, text.clone(), now), ModifyReply::Bytes(text)))
}
