//! A reply as a value: what commands off the hot path answer, and what tests compare.

use std::borrow::Cow;

use crate::writer::Writer;

/// One reply.
///
/// Its depth is bounded by the code that builds it, never by a client; so writing it may recurse.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Reply {
    /// `+OK`.
    Ok,
    /// A simple string: ours and one line.
    Simple(Cow<'static, str>),
    /// An error, which begins with its code (`ERR …`). Line breaks become spaces when written.
    Error(Cow<'static, str>),
    /// An integer.
    Integer(i64),
    /// A bulk string.
    Bulk(Vec<u8>),
    /// The value that is not there.
    Null,
    /// The array that is not there.
    NullArray,
    /// An array.
    Array(Vec<Reply>),
    /// Keys and values.
    Map(Vec<(Reply, Reply)>),
    /// A set.
    Set(Vec<Reply>),
    /// A floating point number.
    Double(f64),
    /// A truth value.
    Boolean(bool),
    /// An integer of any size: an optional sign and digits.
    BigNumber(String),
    /// A text with its format.
    Verbatim {
        /// `txt` or `mkd`.
        format: [u8; 3],
        /// The text.
        text: Vec<u8>,
    },
    /// An out-of-band message.
    Push(Vec<Reply>),
}

impl Reply {
    /// A bulk string of `bytes`.
    #[must_use]
    pub fn bulk(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Bulk(bytes.into())
    }

    /// A bulk string of `text`.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::Bulk(text.into().into_bytes())
    }

    /// A simple string.
    #[must_use]
    pub fn simple(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Simple(text.into())
    }

    /// An error; `text` begins with its code.
    #[must_use]
    pub fn error(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Error(text.into())
    }

    /// A count or length as an integer.
    #[must_use]
    pub fn count(count: usize) -> Self {
        Self::Integer(i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// A text that clients show as it is (`INFO`).
    #[must_use]
    pub fn verbatim(text: impl Into<Vec<u8>>) -> Self {
        Self::Verbatim { format: *b"txt", text: text.into() }
    }

    /// A map with text keys.
    #[must_use]
    pub fn map<'k>(pairs: impl IntoIterator<Item = (&'k str, Reply)>) -> Self {
        Self::Map(pairs.into_iter().map(|(key, value)| (Self::text(key), value)).collect())
    }

    /// Whether this is an error.
    #[must_use]
    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// Writes this reply at the end of the output.
    pub fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Ok => writer.ok(),
            Self::Simple(text) => writer.simple(text),
            Self::Error(text) => writer.error(text),
            Self::Integer(value) => writer.integer(*value),
            Self::Bulk(bytes) => writer.bulk(bytes),
            Self::Null => writer.null(),
            Self::NullArray => writer.null_array(),
            Self::Array(items) => {
                writer.array(items.len());
                write_all(items, writer);
            }
            Self::Map(pairs) => {
                writer.map(pairs.len());
                for (key, value) in pairs {
                    key.write(writer);
                    value.write(writer);
                }
            }
            Self::Set(items) => {
                writer.set(items.len());
                write_all(items, writer);
            }
            Self::Double(value) => writer.double(*value),
            Self::Boolean(value) => writer.boolean(*value),
            Self::BigNumber(digits) => writer.big_number(digits),
            Self::Verbatim { format, text } => writer.verbatim(*format, text),
            Self::Push(items) => {
                writer.push(items.len());
                write_all(items, writer);
            }
        }
    }
}

fn write_all(items: &[Reply], writer: &mut Writer<'_>) {
    for item in items {
        item.write(writer);
    }
}

#[cfg(test)]
mod tests {
    use super::Reply;
    use crate::writer::{Resp, Writer};

    #[test]
    fn a_nested_reply_is_written_in_order_in_both_versions() {
        let reply = Reply::map([
            ("flags", Reply::Set(vec![Reply::simple("write")])),
            ("items", Reply::Array(vec![Reply::count(2), Reply::Null, Reply::Boolean(true)])),
        ]);
        let written = |resp| {
            let mut out = Vec::new();
            reply.write(&mut Writer::new(&mut out, resp));
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            written(Resp::Two),
            "*4\r\n$5\r\nflags\r\n*1\r\n+write\r\n$5\r\nitems\r\n*3\r\n:2\r\n$-1\r\n:1\r\n"
        );
        assert_eq!(
            written(Resp::Three),
            "%2\r\n$5\r\nflags\r\n~1\r\n+write\r\n$5\r\nitems\r\n*3\r\n:2\r\n_\r\n#t\r\n"
        );
    }
}
