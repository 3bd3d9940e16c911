//! APPEND and SETRANGE.

use gyre_storage::UnixMillis;

use super::{Change, Live, ModifyError, STRING_BYTES_MAX, length_reply};

/// APPEND creates the key even with an empty value, as Redis does.
pub(super) fn append(live: Option<&Live<'_>>, now: UnixMillis, value: &[u8]) -> Result<Change, ModifyError> {
    let present = live.map_or(&[][..], |live| &live.value);
    if live.is_some() && value.is_empty() {
        return Ok(Change::none(length_reply(present.len())));
    }
    let length = present.len().saturating_add(value.len());
    if live.is_some() {
        check_length(length)?;
    }
    let mut joined = Vec::with_capacity(length);
    joined.extend_from_slice(present);
    joined.extend_from_slice(value);
    Ok(Change::write(Live::replaced(live, joined, now), length_reply(length)))
}

/// SETRANGE with an empty value changes nothing and creates no key, whatever the offset.
pub(super) fn set_range(
    live: Option<&Live<'_>>,
    now: UnixMillis,
    offset: u64,
    value: &[u8],
) -> Result<Change, ModifyError> {
    let present = live.map_or(&[][..], |live| &live.value);
    if value.is_empty() {
        return Ok(Change::none(length_reply(present.len())));
    }
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let end = start.saturating_add(value.len());
    check_length(end)?;
    let mut text = Vec::with_capacity(end.max(present.len()));
    text.extend_from_slice(present);
    text.resize(end.max(present.len()), 0);
    if let Some(target) = text.get_mut(start..end) {
        target.copy_from_slice(value);
    }
    let length = text.len();
    Ok(Change::write(Live::replaced(live, text, now), length_reply(length)))
}

/// Refuses strings longer than [`STRING_BYTES_MAX`].
pub(super) fn check_length(bytes: usize) -> Result<(), ModifyError> {
    if u64::try_from(bytes).is_ok_and(|bytes| bytes <= STRING_BYTES_MAX) {
        Ok(())
    } else {
        Err(ModifyError::TooLong)
    }
}
