//! Inline commands: one line of text, split as Redis's `sdssplitargs` splits it.

use crate::request::Span;

/// Splits `line` into arguments, unquoted into `bytes`, with one span each. `None` when quotes do not balance.
///
/// `"…"` knows `\n \r \t \b \a \xHH` and `\` before any other character; `'…'` knows only `\'`. A closing quote
/// must be followed by a space or the end. Outside quotes a quote opens one even in mid-word. The NUL byte ends the
/// line, since Redis works on C strings.
pub(crate) fn split(line: &[u8], bytes: &mut Vec<u8>, spans: &mut Vec<Span>) -> Option<()> {
    let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut rest = line;
    loop {
        rest = skip_spaces(rest);
        if rest.is_empty() {
            return Some(());
        }
        let start = u32::try_from(bytes.len()).ok()?;
        rest = word(rest, bytes)?;
        let end = u32::try_from(bytes.len()).ok()?;
        spans.push(Span { start, end });
    }
}

/// Appends the first word of `rest` to `bytes` and answers what follows it.
fn word<'a>(mut rest: &'a [u8], bytes: &mut Vec<u8>) -> Option<&'a [u8]> {
    while let Some((first, after)) = rest.split_first() {
        match first {
            b' ' | b'\n' | b'\r' | b'\t' => return Some(rest),
            b'"' => return closed(double_quoted(after, bytes)?),
            b'\'' => return closed(single_quoted(after, bytes)?),
            byte => bytes.push(*byte),
        }
        rest = after;
    }
    Some(rest)
}

/// The text after the opening `"`; answers what follows the closing one.
fn double_quoted<'a>(mut rest: &'a [u8], bytes: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [b'"', after @ ..] => return Some(after),
            [b'\\', b'x', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                bytes.push(hex(*high) << 4 | hex(*low));
                after
            }
            [b'\\', escaped, after @ ..] => {
                bytes.push(unescape(*escaped));
                after
            }
            [byte, after @ ..] => {
                bytes.push(*byte);
                after
            }
            [] => return None,
        };
    }
}

/// The text after the opening `'`; answers what follows the closing one.
fn single_quoted<'a>(mut rest: &'a [u8], bytes: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [b'\\', b'\'', after @ ..] => {
                bytes.push(b'\'');
                after
            }
            [b'\'', after @ ..] => return Some(after),
            [byte, after @ ..] => {
                bytes.push(*byte);
                after
            }
            [] => return None,
        };
    }
}

/// What follows a closing quote must be a space or nothing.
fn closed(rest: &[u8]) -> Option<&[u8]> {
    rest.first().is_none_or(|byte| is_space(*byte)).then_some(rest)
}

fn skip_spaces(bytes: &[u8]) -> &[u8] {
    let spaces = bytes.iter().take_while(|byte| is_space(**byte)).count();
    bytes.get(spaces..).unwrap_or_default()
}

/// C's `isspace`.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

/// The value of a hexadecimal digit.
fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    fn words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
        let (mut bytes, mut spans) = (Vec::new(), Vec::new());
        split(line, &mut bytes, &mut spans)?;
        Some(spans.iter().map(|span| bytes[span.start as usize..span.end as usize].to_vec()).collect())
    }

    #[test]
    fn words_are_split_at_any_run_of_spaces() {
        assert_eq!(words(b"  SET \t k  v ").unwrap(), [&b"SET"[..], b"k", b"v"]);
        assert_eq!(words(b" \t ").unwrap(), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn double_quotes_unescape_and_single_quotes_only_the_quote() {
        assert_eq!(
            words(br#""a\n\r\t\b\a\x00\xfF\q\"" 'b\n\''"#).unwrap(),
            [&b"a\n\r\t\x08\x07\x00\xffq\""[..], br"b\n'"]
        );
        assert_eq!(words(br#""\xZ1""#).unwrap(), [b"xZ1"]);
    }

    #[test]
    fn empty_quotes_are_an_empty_argument() {
        assert_eq!(words(br#"SET k """#).unwrap(), [&b"SET"[..], b"k", b""]);
        assert_eq!(words(b"''").unwrap(), [b""]);
    }

    #[test]
    fn a_quote_opens_in_mid_word_and_must_close_at_its_end() {
        assert_eq!(words(br#"a"b c""#).unwrap(), [b"ab c"]);
        for line in [&br#""open"#[..], b"'open", br#""a"b"#, b"'a'b", br#""a\"#, br#"a "b"#] {
            assert_eq!(words(line), None, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn a_nul_byte_ends_the_line() {
        assert_eq!(words(b"PING\0 x").unwrap(), [b"PING"]);
    }
}
