//! What a client can do wrong on the wire, in Redis's words.

use thiserror::Error;

/// The request cannot be understood and neither can anything after it: answer [`ProtocolError::to_string`] as an
/// error reply, then close the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// `*` is followed by something that is no count, or by one above [`crate::Limits::arguments_max`].
    #[error("ERR Protocol error: invalid multibulk length")]
    InvalidMultibulkLength,
    /// `$` is followed by something that is no length, or by one above [`crate::Limits::bulk_bytes_max`].
    #[error("ERR Protocol error: invalid bulk length")]
    InvalidBulkLength,
    /// An argument does not begin with `$`. A line break is shown as a space.
    #[error("ERR Protocol error: expected '$', got '{}'", printable(*.got))]
    ExpectedDollar {
        /// The byte in its place.
        got: u8,
    },
    /// The line after `*` does not end.
    #[error("ERR Protocol error: too big mbulk count string")]
    MultibulkCountTooLong,
    /// The line after `$` does not end.
    #[error("ERR Protocol error: too big bulk count string")]
    BulkCountTooLong,
    /// An inline command is longer than [`crate::Limits::inline_bytes_max`].
    #[error("ERR Protocol error: too big inline request")]
    InlineTooLong,
    /// A quote of an inline command is not closed, or text follows the closing quote.
    #[error("ERR Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// More arguments than a client may send before it has authenticated.
    #[error("ERR Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulkLength,
    /// A longer argument than a client may send before it has authenticated.
    #[error("ERR Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    /// All arguments together pass [`crate::Limits::request_bytes_max`]. Redis closes such a connection without a
    /// word (`client-query-buffer-limit`).
    #[error("ERR Protocol error: too big request")]
    RequestTooBig,
}

/// `byte` as a character that keeps an error reply one line.
fn printable(byte: u8) -> char {
    if matches!(byte, b'\r' | b'\n') { ' ' } else { char::from(byte) }
}
