//! Bytes to requests: RESP arrays of bulk strings, and inline commands.
//!
//! ```text
//! request = "*" count CRLF { "$" length CRLF bytes CRLF }      array of bulk strings
//!         | line LF                                            inline command
//! ```
//!
//! The parser remembers how far it came, so a request that arrives in a thousand pieces is scanned once. It looks at
//! counts and lengths only: arguments stay in the read buffer. As in Redis, the CRLF after an argument is skipped,
//! not looked at.
//!
//! The result depends on the bytes alone, never on how they were cut into reads.

use crate::error::ProtocolError;
use crate::inline;
use crate::request::{Args, Span};

/// Spans a parser keeps between requests; what a larger request needed beyond them is given back.
const SPANS_KEPT: usize = 1024;

/// Bytes of unquoted inline arguments a parser keeps between requests.
const INLINE_BYTES_KEPT: usize = 4096;

/// What one request may take. Everything above is refused at the moment its size is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest argument (Redis: `proto-max-bulk-len`).
    pub bulk_bytes_max: usize,
    /// Most arguments of a request, its name included.
    pub arguments_max: usize,
    /// Longest inline command, and longest line that holds a count or a length.
    pub inline_bytes_max: usize,
    /// Longest request with all its arguments (Redis: `client-query-buffer-limit`); at most `u32::MAX`.
    pub request_bytes_max: usize,
    /// Whether passing `bulk_bytes_max` or `arguments_max` is answered with "unauthenticated …".
    pub unauthenticated: bool,
}

impl Limits {
    /// A client that may use the server.
    pub const DEFAULT: Self = Self {
        bulk_bytes_max: 512 << 20,
        arguments_max: 1_048_576,
        inline_bytes_max: 64 << 10,
        request_bytes_max: 1 << 30,
        unauthenticated: false,
    };

    /// A client that has not authenticated yet, where a password is asked for.
    pub const UNAUTHENTICATED: Self =
        Self { bulk_bytes_max: 16 << 10, arguments_max: 10, unauthenticated: true, ..Self::DEFAULT };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What [`Parser::parse`] found at the start of the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// A whole request of `consumed` bytes; [`Parser::args`] shows it until the next call.
    Request {
        /// Bytes to drop from the front of the buffer, once the arguments are no longer needed.
        consumed: usize,
    },
    /// `consumed` bytes that ask for nothing (`*0`, a blank line): no reply.
    Empty {
        /// Bytes to drop from the front of the buffer.
        consumed: usize,
    },
    /// The request is not complete. Call again with the same bytes and more behind them.
    Incomplete {
        /// At least so many bytes are missing: the rest of the argument that is under way, or 1.
        wanted: usize,
    },
}

/// Where the parser stands within a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Before its first byte.
    Start,
    /// Within the line `*count`, searched for its end up to here.
    Count { searched: usize },
    /// Within an inline command, searched for its line feed up to here.
    Inline { searched: usize },
    /// Before an argument's `$`; `searched` is how far its line was looked through.
    Length { searched: usize },
    /// Within an argument of so many bytes.
    Bulk { length: usize },
}

/// A resumable request parser: one for each connection.
#[derive(Debug)]
pub struct Parser {
    stage: Stage,
    /// Where the next line or argument begins.
    at: usize,
    /// Arguments still to come.
    remaining: usize,
    spans: Vec<Span>,
    /// Unquoted arguments of an inline command; empty for an array.
    inline: Vec<u8>,
    is_inline: bool,
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

impl Parser {
    /// A parser before its first request.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            stage: Stage::Start,
            at: 0,
            remaining: 0,
            spans: Vec::new(),
            inline: Vec::new(),
            is_inline: false,
        }
    }

    /// Whether a request has begun and is not complete.
    #[must_use]
    pub fn is_within_request(&self) -> bool {
        self.stage != Stage::Start
    }

    /// Parses the request that `buffer` starts with.
    ///
    /// Until it is complete every call must pass the same bytes, with more behind them. After
    /// [`Parsed::Request`] and [`Parsed::Empty`] the caller drops the consumed bytes.
    ///
    /// # Errors
    /// A [`ProtocolError`] ends the connection: what follows cannot be understood.
    #[inline]
    pub fn parse(&mut self, buffer: &[u8], limits: &Limits) -> Result<Parsed, ProtocolError> {
        match self.stage {
            Stage::Start => match buffer.first() {
                Some(b'*') => self.count(buffer, 0, limits),
                Some(_) => self.inline(buffer, 0, limits),
                None => Ok(Parsed::Incomplete { wanted: 1 }),
            },
            Stage::Count { searched } => self.count(buffer, searched, limits),
            Stage::Inline { searched } => self.inline(buffer, searched, limits),
            Stage::Length { .. } | Stage::Bulk { .. } => self.arguments(buffer, limits),
        }
    }

    /// The arguments of the request that [`Parser::parse`] has just completed in `buffer`.
    #[inline]
    #[must_use]
    pub fn args<'a>(&'a self, buffer: &'a [u8]) -> Args<'a> {
        Args::new(if self.is_inline { &self.inline } else { buffer }, &self.spans)
    }

    /// Bytes of heap that the parser holds between requests.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.spans.capacity() * size_of::<Span>() + self.inline.capacity()
    }

    /// Reads `*count`.
    #[inline]
    fn count(&mut self, buffer: &[u8], searched: usize, limits: &Limits) -> Result<Parsed, ProtocolError> {
        let (count, next) = match line(buffer, 0, searched, limits.inline_bytes_max) {
            Line::Number { value, next } => (value, next),
            Line::Invalid => return Err(ProtocolError::InvalidMultibulkLength),
            Line::TooLong => return Err(ProtocolError::MultibulkCountTooLong),
            Line::Incomplete { searched } => {
                self.stage = Stage::Count { searched };
                return Ok(Parsed::Incomplete { wanted: 1 });
            }
        };
        self.reset();
        let count = match usize::try_from(count) {
            Ok(0) | Err(_) => return Ok(Parsed::Empty { consumed: next }),
            Ok(count) => count,
        };
        if count > limits.arguments_max {
            return Err(if limits.unauthenticated && count <= Limits::DEFAULT.arguments_max {
                ProtocolError::UnauthenticatedMultibulkLength
            } else {
                ProtocolError::InvalidMultibulkLength
            });
        }
        self.remaining = count;
        self.at = next;
        self.stage = Stage::Length { searched: next };
        self.arguments(buffer, limits)
    }

    /// Reads the arguments that are still to come.
    fn arguments(&mut self, buffer: &[u8], limits: &Limits) -> Result<Parsed, ProtocolError> {
        if matches!(self.stage, Stage::Length { .. }) && self.whole_arguments(buffer, limits) {
            let consumed = self.at;
            self.stage = Stage::Start;
            return Ok(Parsed::Request { consumed });
        }
        loop {
            let length = match self.stage {
                Stage::Bulk { length } => length,
                Stage::Length { searched } => match self.length(buffer, searched, limits)? {
                    Some(length) => length,
                    None => return Ok(Parsed::Incomplete { wanted: 1 }),
                },
                Stage::Start | Stage::Count { .. } | Stage::Inline { .. } => {
                    return Ok(Parsed::Incomplete { wanted: 1 });
                }
            };
            let end = self.at.saturating_add(length);
            let next = end.saturating_add(2);
            if buffer.len() < next {
                self.stage = Stage::Bulk { length };
                return Ok(Parsed::Incomplete { wanted: next - buffer.len() });
            }
            let (Ok(start), Ok(end)) = (u32::try_from(self.at), u32::try_from(end)) else {
                return Err(ProtocolError::RequestTooBig);
            };
            self.spans.push(Span { start, end });
            self.remaining -= 1;
            if self.remaining == 0 {
                self.stage = Stage::Start;
                return Ok(Parsed::Request { consumed: next });
            }
            self.at = next;
            self.stage = Stage::Length { searched: next };
        }
    }

    /// The hot path: takes the arguments that lie whole in the buffer and announce at most 999 bytes. Answers whether
    /// those were all; whatever is unusual is left to [`Parser::arguments`].
    #[inline]
    fn whole_arguments(&mut self, buffer: &[u8], limits: &Limits) -> bool {
        let end_max = buffer.len().min(limits.request_bytes_max);
        let (mut at, mut remaining) = (self.at, self.remaining);
        while remaining > 0 {
            let Some((length, header)) = buffer.get(at..).and_then(short_length) else { break };
            let start = at + header;
            let (end, next) = (start + length, start + length + 2);
            if next > end_max || length > limits.bulk_bytes_max {
                break;
            }
            let (Ok(start), Ok(end)) = (u32::try_from(start), u32::try_from(end)) else { break };
            self.spans.push(Span { start, end });
            at = next;
            remaining -= 1;
        }
        (self.at, self.remaining) = (at, remaining);
        self.stage = Stage::Length { searched: at };
        remaining == 0
    }

    /// Reads `$length`; `None` when its line is not complete.
    #[inline]
    fn length(
        &mut self,
        buffer: &[u8],
        searched: usize,
        limits: &Limits,
    ) -> Result<Option<usize>, ProtocolError> {
        match buffer.get(self.at) {
            Some(b'$') => {}
            Some(got) => return Err(ProtocolError::ExpectedDollar { got: *got }),
            None => return Ok(None),
        }
        let (length, next) = match line(buffer, self.at, searched, limits.inline_bytes_max) {
            Line::Number { value, next } => (value, next),
            Line::Invalid => return Err(ProtocolError::InvalidBulkLength),
            Line::TooLong => return Err(ProtocolError::BulkCountTooLong),
            Line::Incomplete { searched } => {
                self.stage = Stage::Length { searched };
                return Ok(None);
            }
        };
        let length = usize::try_from(length).map_err(|_| ProtocolError::InvalidBulkLength)?;
        if length > limits.bulk_bytes_max {
            return Err(if limits.unauthenticated && length <= Limits::DEFAULT.bulk_bytes_max {
                ProtocolError::UnauthenticatedBulkLength
            } else {
                ProtocolError::InvalidBulkLength
            });
        }
        if next.saturating_add(length) > limits.request_bytes_max.min(u32::MAX as usize) {
            return Err(ProtocolError::RequestTooBig);
        }
        self.at = next;
        Ok(Some(length))
    }

    /// Reads an inline command, whose first `searched` bytes hold no line feed.
    fn inline(&mut self, buffer: &[u8], searched: usize, limits: &Limits) -> Result<Parsed, ProtocolError> {
        let found = buffer.get(searched..).and_then(|rest| memchr::memchr(b'\n', rest));
        let length = found.map_or(buffer.len(), |at| searched + at);
        if length > limits.inline_bytes_max {
            return Err(ProtocolError::InlineTooLong);
        }
        if found.is_none() {
            self.stage = Stage::Inline { searched: length };
            return Ok(Parsed::Incomplete { wanted: 1 });
        }
        let line = buffer.get(..length).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.reset();
        self.is_inline = true;
        inline::split(line, &mut self.inline, &mut self.spans).ok_or(ProtocolError::UnbalancedQuotes)?;
        let consumed = length + 1;
        Ok(if self.spans.is_empty() { Parsed::Empty { consumed } } else { Parsed::Request { consumed } })
    }

    /// Forgets the last request, and the memory that only a huge one needed.
    #[inline]
    fn reset(&mut self) {
        self.stage = Stage::Start;
        self.at = 0;
        self.remaining = 0;
        self.spans.clear();
        if self.is_inline {
            self.is_inline = false;
            self.inline.clear();
            self.inline.shrink_to(INLINE_BYTES_KEPT);
        }
        if self.spans.capacity() > SPANS_KEPT {
            self.spans.shrink_to(SPANS_KEPT);
        }
    }
}

/// A line that holds one number behind its first byte.
enum Line {
    /// The number, and where the next line begins.
    Number {
        value: i64,
        next: usize,
    },
    /// No carriage return before `searched`.
    Incomplete {
        searched: usize,
    },
    Invalid,
    TooLong,
}

/// Reads the line at `start` that was searched for its end up to `searched`.
#[inline]
fn line(buffer: &[u8], start: usize, searched: usize, bytes_max: usize) -> Line {
    let Some(text) = buffer.get(start..) else {
        return Line::Incomplete { searched };
    };
    // Nearly every count has one digit.
    match text {
        [_, digit @ b'0'..=b'9', b'\r', _, ..] => {
            Line::Number { value: i64::from(digit & 0x0f), next: start + 4 }
        }
        _ => long_line(buffer, start, searched, bytes_max),
    }
}

/// The length behind a `$`, when it has one to three digits, and the bytes of its line.
#[inline]
fn short_length(text: &[u8]) -> Option<(usize, usize)> {
    let digit = |byte: u8| usize::from(byte & 0x0f);
    match *text {
        [b'$', a @ b'0'..=b'9', b'\r', _, ..] => Some((digit(a), 4)),
        [b'$', a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', _, ..] => Some((digit(a) * 10 + digit(b), 5)),
        [b'$', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b'\r', _, ..] => {
            Some((digit(a) * 100 + digit(b) * 10 + digit(c), 6))
        }
        _ => None,
    }
}

#[cold]
fn long_line(buffer: &[u8], start: usize, searched: usize, bytes_max: usize) -> Line {
    let from = searched.max(start);
    let found = buffer.get(from..).and_then(|rest| memchr::memchr(b'\r', rest));
    let end = found.map_or(buffer.len(), |at| from + at);
    if end - start.min(end) > bytes_max {
        return Line::TooLong;
    }
    // The line feed, whatever it is, belongs to the line.
    if found.is_none() || end + 1 >= buffer.len() {
        return Line::Incomplete { searched: end };
    }
    match buffer.get(start + 1..end).and_then(integer) {
        Some(value) => Line::Number { value, next: end + 2 },
        None => Line::Invalid,
    }
}

/// The integer that `text` spells in its one canonical way, as Redis's `string2ll`: no sign but `-`, no leading
/// zero, no space, nothing beyond 64 bits.
#[must_use]
pub fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    match digits {
        [b'0'] if digits.len() == text.len() => return Some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    let negative = digits.len() != text.len();
    digits.iter().try_fold(0_i64, |value, digit| {
        let digit = i64::from(digit.wrapping_sub(b'0'));
        if !(0..=9).contains(&digit) {
            return None;
        }
        let value = value.checked_mul(10)?;
        if negative { value.checked_sub(digit) } else { value.checked_add(digit) }
    })
}

#[cfg(test)]
mod tests;
