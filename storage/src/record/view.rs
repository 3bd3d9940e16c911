//! What a client sees of a record.

use super::Record;
use crate::version::UnixMillis;

/// What a client sees of a live key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View<'a> {
    /// A plain string.
    Bytes(&'a [u8]),
    /// An integer register plus its counter cells, or counter cells alone.
    Integer(i64),
}

impl Record {
    /// What a client sees at `now`: `None` when the key does not exist. Of several siblings the newest.
    #[must_use]
    pub fn view(&self, now: UnixMillis) -> Option<View<'_>> {
        if self.has_sibling_cells() {
            return self.siblings(now).first().map(|sibling| sibling.value);
        }
        self.plain_view(now)
    }

    /// What was written without a context, as far as it has not been replaced.
    ///
    /// Counter cells count only on the newest register row (or on its absence, or on its tombstone). A register
    /// that counters stand on is an integer; should it not be one, its bytes win and the counters are void.
    pub(super) fn plain_view(&self, now: UnixMillis) -> Option<View<'_>> {
        let register = self.register();
        if register.is_some_and(|r| r.is_expired(now)) {
            return None;
        }
        let value = register.and_then(|r| r.value);
        if !self.has_counters() {
            return value.map(View::Bytes);
        }
        let base = self.base();
        let mut on_base = self.counters().filter(|cell| cell.base == base).peekable();
        if on_base.peek().is_none() {
            return value.map(View::Bytes);
        }
        let sum = on_base.fold(0i64, |sum, cell| sum.wrapping_add(cell.sum));
        match value {
            None => Some(View::Integer(sum)),
            Some(bytes) => match parse_integer(bytes) {
                Some(start) => Some(View::Integer(start.wrapping_add(sum))),
                None => Some(View::Bytes(bytes)),
            },
        }
    }

    /// When the key expires, if it is live at `now` and has an expiry. Of several siblings, when the newest does.
    #[must_use]
    pub fn expiry(&self, now: UnixMillis) -> Option<UnixMillis> {
        if self.has_sibling_cells() {
            return self.siblings(now).first().and_then(|sibling| sibling.expiry);
        }
        self.register().filter(|r| r.value.is_some() && !r.is_expired(now)).and_then(|r| r.expiry)
    }
}

/// Parses a decimal integer the way Redis's `string2ll` does: no sign but `-`, no leading zeros, no spaces.
#[must_use]
pub fn parse_integer(bytes: &[u8]) -> Option<i64> {
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let canonical = match digits {
        [b'0'] => bytes.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit) && digits.len() <= 19,
        _ => false,
    };
    if !canonical {
        return None;
    }
    std::str::from_utf8(bytes).ok()?.parse().ok()
}
