//! Replies to bytes, straight into the output buffer of a connection.

use std::fmt::Write as _;

/// The protocol version of a connection, as `HELLO` chose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resp {
    /// RESP2: what every connection starts with.
    #[default]
    Two,
    /// RESP3.
    Three,
}

/// Appends replies to an output buffer.
///
/// Types that RESP2 lacks are written as Redis writes them: maps as arrays of twice the length, sets and pushes as
/// arrays, doubles, big numbers and verbatim strings as bulk strings, booleans as 0 and 1.
///
/// ```
/// use gyre_protocol::{Resp, Writer};
/// let mut out = Vec::new();
/// let mut writer = Writer::new(&mut out, Resp::Three);
/// writer.map(1);
/// writer.bulk(b"proto");
/// writer.integer(3);
/// assert_eq!(out, b"%1\r\n$5\r\nproto\r\n:3\r\n");
/// ```
#[derive(Debug)]
pub struct Writer<'o> {
    out: &'o mut Vec<u8>,
    resp: Resp,
}

impl<'o> Writer<'o> {
    /// A writer at the end of `out`.
    #[inline]
    #[must_use]
    pub fn new(out: &'o mut Vec<u8>, resp: Resp) -> Self {
        Self { out, resp }
    }

    /// The protocol version that it writes.
    #[inline]
    #[must_use]
    pub fn resp(&self) -> Resp {
        self.resp
    }

    /// Writes the following replies in another version (`HELLO`).
    #[inline]
    pub fn set_resp(&mut self, resp: Resp) {
        self.resp = resp;
    }

    /// Bytes in the output buffer.
    #[inline]
    #[must_use]
    pub fn written(&self) -> usize {
        self.out.len()
    }

    /// Takes back everything written after [`Writer::written`] was `length`: an answer that turned into an error.
    #[inline]
    pub fn truncate(&mut self, length: usize) {
        self.out.truncate(length);
    }

    /// Bytes that are RESP already.
    #[inline]
    pub fn raw(&mut self, resp: &[u8]) {
        self.out.extend_from_slice(resp);
    }

    /// `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// A simple string: `text` is ours and one line.
    #[inline]
    pub fn simple(&mut self, text: &str) {
        debug_assert!(!text.contains(['\r', '\n']), "a simple string is one line: {text:?}");
        self.out.push(b'+');
        self.out.extend_from_slice(text.as_bytes());
        self.crlf();
    }

    /// An error; `text` begins with its code (`ERR …`). Line breaks become spaces, as in Redis.
    pub fn error(&mut self, text: &str) {
        self.out.push(b'-');
        let text = text.trim_end_matches(['\r', '\n']);
        self.out.extend(text.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
        self.crlf();
    }

    /// An integer.
    #[inline]
    pub fn integer(&mut self, value: i64) {
        match value {
            0 => self.out.extend_from_slice(b":0\r\n"),
            1 => self.out.extend_from_slice(b":1\r\n"),
            _ => self.signed(b':', value),
        }
    }

    /// A count or length as an integer.
    #[inline]
    pub fn count(&mut self, value: usize) {
        self.integer(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// A bulk string.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.out.reserve(bytes.len() + 32);
        self.header(b'$', bytes.len());
        self.out.extend_from_slice(bytes);
        self.crlf();
    }

    /// An integer as a bulk string.
    #[inline]
    pub fn bulk_integer(&mut self, value: i64) {
        self.bulk(itoa::Buffer::new().format(value).as_bytes());
    }

    /// The value that is not there.
    #[inline]
    pub fn null(&mut self) {
        self.out.extend_from_slice(match self.resp {
            Resp::Two => b"$-1\r\n",
            Resp::Three => b"_\r\n",
        });
    }

    /// The array that is not there.
    #[inline]
    pub fn null_array(&mut self) {
        self.out.extend_from_slice(match self.resp {
            Resp::Two => b"*-1\r\n",
            Resp::Three => b"_\r\n",
        });
    }

    /// The start of an array: `items` replies follow.
    #[inline]
    pub fn array(&mut self, items: usize) {
        self.header(b'*', items);
    }

    /// The start of a map: `pairs` times a key and a value follow.
    #[inline]
    pub fn map(&mut self, pairs: usize) {
        match self.resp {
            Resp::Two => self.header(b'*', pairs.saturating_mul(2)),
            Resp::Three => self.header(b'%', pairs),
        }
    }

    /// The start of a set: `items` replies follow.
    #[inline]
    pub fn set(&mut self, items: usize) {
        self.either(b'*', b'~', items);
    }

    /// The start of an out-of-band message: `items` replies follow.
    #[inline]
    pub fn push(&mut self, items: usize) {
        self.either(b'*', b'>', items);
    }

    /// A floating point number, in the fewest digits that read back as the same number, as Redis 7.2 writes it.
    pub fn double(&mut self, value: f64) {
        let text = crate::double::format(value);
        match self.resp {
            Resp::Two => self.bulk(text.as_bytes()),
            Resp::Three => self.line(b',', text.as_bytes()),
        }
    }

    /// A truth value.
    #[inline]
    pub fn boolean(&mut self, value: bool) {
        self.out.extend_from_slice(match (self.resp, value) {
            (Resp::Two, false) => b":0\r\n",
            (Resp::Two, true) => b":1\r\n",
            (Resp::Three, false) => b"#f\r\n",
            (Resp::Three, true) => b"#t\r\n",
        });
    }

    /// An integer of any size; `digits` holds an optional sign and digits.
    pub fn big_number(&mut self, digits: &str) {
        match self.resp {
            Resp::Two => self.bulk(digits.as_bytes()),
            Resp::Three => self.line(b'(', digits.as_bytes()),
        }
    }

    /// A text with its format (`txt`, `mkd`).
    pub fn verbatim(&mut self, format: [u8; 3], text: &[u8]) {
        match self.resp {
            Resp::Two => self.bulk(text),
            Resp::Three => {
                self.header(b'=', text.len().saturating_add(4));
                self.out.extend_from_slice(&format);
                self.out.push(b':');
                self.out.extend_from_slice(text);
                self.crlf();
            }
        }
    }

    /// A bulk string formatted in place.
    pub fn bulk_fmt(&mut self, arguments: std::fmt::Arguments<'_>) {
        match arguments.as_str() {
            Some(text) => self.bulk(text.as_bytes()),
            None => {
                let mut text = String::new();
                // Writing to a String cannot fail; a Display that fails leaves what it wrote.
                let _ = text.write_fmt(arguments);
                self.bulk(text.as_bytes());
            }
        }
    }

    #[inline]
    fn either(&mut self, two: u8, three: u8, items: usize) {
        let kind = match self.resp {
            Resp::Two => two,
            Resp::Three => three,
        };
        self.header(kind, items);
    }

    /// `kind`, a count, and the line end.
    #[inline]
    fn header(&mut self, kind: u8, count: usize) {
        match u8::try_from(count) {
            Ok(count @ 0..=9) => self.out.extend_from_slice(&[kind, b'0' + count, b'\r', b'\n']),
            Ok(count @ 10..=99) => {
                self.out.extend_from_slice(&[kind, b'0' + count / 10, b'0' + count % 10, b'\r', b'\n']);
            }
            _ => self.line(kind, itoa::Buffer::new().format(count).as_bytes()),
        }
    }

    #[inline]
    fn signed(&mut self, kind: u8, value: i64) {
        self.line(kind, itoa::Buffer::new().format(value).as_bytes());
    }

    #[inline]
    fn line(&mut self, kind: u8, text: &[u8]) {
        self.out.reserve(text.len() + 3);
        self.out.push(kind);
        self.out.extend_from_slice(text);
        self.crlf();
    }

    #[inline]
    fn crlf(&mut self) {
        self.out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::{Resp, Writer};

    fn both(write: impl Fn(&mut Writer<'_>)) -> (String, String) {
        let text = |resp| {
            let mut out = Vec::new();
            write(&mut Writer::new(&mut out, resp));
            String::from_utf8(out).unwrap()
        };
        (text(Resp::Two), text(Resp::Three))
    }

    fn same(write: impl Fn(&mut Writer<'_>), expected: &str) {
        assert_eq!(both(write), (expected.to_owned(), expected.to_owned()));
    }

    #[test]
    fn types_of_both_versions_are_written_alike() {
        same(|w| w.ok(), "+OK\r\n");
        same(|w| w.simple("PONG"), "+PONG\r\n");
        same(|w| w.integer(-17), ":-17\r\n");
        same(|w| w.integer(0), ":0\r\n");
        same(|w| w.integer(i64::MIN), ":-9223372036854775808\r\n");
        same(|w| w.count(1), ":1\r\n");
        same(|w| w.bulk(b""), "$0\r\n\r\n");
        same(|w| w.bulk(b"a\r\n"), "$3\r\na\r\n\r\n");
        same(|w| w.bulk_integer(1_000_000_000_000_000), "$16\r\n1000000000000000\r\n");
        same(|w| w.bulk_fmt(format_args!("{}:{}", 1, 2)), "$3\r\n1:2\r\n");
        for (items, header) in
            [(0, "*0\r\n"), (9, "*9\r\n"), (10, "*10\r\n"), (99, "*99\r\n"), (100, "*100\r\n")]
        {
            same(|w| w.array(items), header);
        }
    }

    #[test]
    fn types_that_resp2_lacks_become_its_nearest() {
        let pair = |two: &str, three: &str| (two.to_owned(), three.to_owned());
        assert_eq!(both(|w| w.null()), pair("$-1\r\n", "_\r\n"));
        assert_eq!(both(|w| w.null_array()), pair("*-1\r\n", "_\r\n"));
        assert_eq!(both(|w| w.map(2)), pair("*4\r\n", "%2\r\n"));
        assert_eq!(both(|w| w.set(2)), pair("*2\r\n", "~2\r\n"));
        assert_eq!(both(|w| w.push(300)), pair("*300\r\n", ">300\r\n"));
        assert_eq!(both(|w| w.double(1.5)), pair("$3\r\n1.5\r\n", ",1.5\r\n"));
        assert_eq!(both(|w| w.boolean(true)), pair(":1\r\n", "#t\r\n"));
        assert_eq!(both(|w| w.boolean(false)), pair(":0\r\n", "#f\r\n"));
        assert_eq!(both(|w| w.big_number("-12")), pair("$3\r\n-12\r\n", "(-12\r\n"));
        assert_eq!(both(|w| w.verbatim(*b"txt", b"ab")), pair("$2\r\nab\r\n", "=6\r\ntxt:ab\r\n"));
    }

    #[test]
    fn an_error_stays_one_line_whatever_a_client_put_into_it() {
        same(|w| w.error("ERR unknown 'a\r\nb\n+OK'\r\n"), "-ERR unknown 'a  b +OK'\r\n");
    }

    #[test]
    fn truncate_takes_back_what_was_written() {
        let mut out = b"+OK\r\n".to_vec();
        let mut writer = Writer::new(&mut out, Resp::Two);
        let before = writer.written();
        writer.array(2);
        writer.truncate(before);
        writer.error("ERR no");
        assert_eq!(out, b"+OK\r\n-ERR no\r\n");
    }
}
