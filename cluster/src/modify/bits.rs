//! SETBIT.

use gyre_storage::UnixMillis;

use super::range::check_length;
use super::{Change, Live, ModifyError, ModifyReply};

/// SETBIT grows the string with zero bytes to reach the bit, and creates the key even for a zero bit.
pub(super) fn set_bit(
    live: Option<&Live<'_>>,
    now: UnixMillis,
    offset: u64,
    bit: bool,
) -> Result<Change, ModifyError> {
    let byte_at = usize::try_from(offset >> 3).unwrap_or(usize::MAX);
    let length_min = byte_at.saturating_add(1);
    check_length(length_min)?;
    let present = live.map_or(&[][..], |live| &live.value);
    let mask = 0x80u8 >> (offset & 7);
    let old = present.get(byte_at).is_some_and(|byte| byte & mask != 0);
    let reply = ModifyReply::Integer(i64::from(old));
    if old == bit && present.len() >= length_min {
        return Ok(Change::none(reply));
    }
    let mut text = Vec::with_capacity(length_min.max(present.len()));
    text.extend_from_slice(present);
    text.resize(length_min.max(present.len()), 0);
    if let Some(byte) = text.get_mut(byte_at) {
        *byte = if bit { *byte | mask } else { *byte & !mask };
    }
    Ok(Change::write(Live::replaced(live, text, now), reply))
}
