//! Claims about [`Parser`](super::Parser).

use super::{Limits, Parsed, Parser, integer};
use crate::error::ProtocolError;

/// The arguments of the one request in `bytes`, and how much of them it takes.
fn request(bytes: &[u8]) -> (Vec<Vec<u8>>, usize) {
    let mut parser = Parser::new();
    match parser.parse(bytes, &Limits::DEFAULT) {
        Ok(Parsed::Request { consumed }) => {
            (parser.args(bytes).iter().map(<[u8]>::to_vec).collect(), consumed)
        }
        other => panic!("{} parses to {other:?}", bytes.escape_ascii()),
    }
}

fn result(bytes: &[u8]) -> Result<Parsed, ProtocolError> {
    Parser::new().parse(bytes, &Limits::DEFAULT)
}

fn error(bytes: &[u8]) -> String {
    result(bytes).expect_err("is refused").to_string()
}

#[test]
fn arguments_are_slices_of_the_buffer() {
    let buffer = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n*1\r\n";
    let mut parser = Parser::new();
    assert_eq!(parser.parse(buffer, &Limits::DEFAULT), Ok(Parsed::Request { consumed: 26 }));
    let args = parser.args(buffer);
    assert_eq!(args.iter().collect::<Vec<_>>(), [&b"SET"[..], b"k", b""]);
    assert!(std::ptr::eq(args.arg(0).as_ptr(), &raw const buffer[8]));
}

#[test]
fn binary_arguments_and_long_lengths_are_taken_as_they_are() {
    let value: Vec<u8> = (0..70_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    let mut bytes = format!("*2\r\n$4\r\nECHO\r\n${}\r\n", value.len()).into_bytes();
    bytes.extend_from_slice(&value);
    bytes.extend_from_slice(b"\r\n");
    assert_eq!(request(&bytes), (vec![b"ECHO".to_vec(), value], bytes.len()));
}

#[test]
fn inline_commands_end_at_a_line_feed_with_or_without_carriage_return() {
    assert_eq!(request(b"PING\r\nX"), (vec![b"PING".to_vec()], 6));
    assert_eq!(request(b"SET k \"a b\"\n"), (vec![b"SET".to_vec(), b"k".to_vec(), b"a b".to_vec()], 12));
    assert_eq!(result(b"PING"), Ok(Parsed::Incomplete { wanted: 1 }));
}

#[test]
fn requests_that_ask_for_nothing_are_empty() {
    assert_eq!(result(b"\r\n"), Ok(Parsed::Empty { consumed: 2 }));
    assert_eq!(result(b"  \n"), Ok(Parsed::Empty { consumed: 3 }));
    assert_eq!(result(b"*0\r\n"), Ok(Parsed::Empty { consumed: 4 }));
    assert_eq!(result(b"*-1\r\n"), Ok(Parsed::Empty { consumed: 5 }));
    assert_eq!(result(b""), Ok(Parsed::Incomplete { wanted: 1 }));
}

#[test]
fn an_incomplete_argument_says_how_much_is_missing() {
    let mut parser = Parser::new();
    let header = b"*2\r\n$3\r\nGET\r\n$67108864\r\nab";
    assert_eq!(parser.parse(header, &Limits::DEFAULT), Ok(Parsed::Incomplete { wanted: 67_108_864 }));
    assert!(parser.is_within_request());
    assert_eq!(result(b"*2\r\n$3\r\nGE"), Ok(Parsed::Incomplete { wanted: 3 }));
}

/// What the parser says to `first`, overwritten with `junk` after it was parsed, and `rest`.
fn after_overwriting(first: &[u8], junk: u8, rest: &[u8]) -> Result<Parsed, ProtocolError> {
    let mut parser = Parser::new();
    assert!(matches!(parser.parse(first, &Limits::DEFAULT), Ok(Parsed::Incomplete { .. })));
    parser.parse(&[&vec![junk; first.len()], rest].concat(), &Limits::DEFAULT)
}

#[test]
fn what_was_scanned_once_is_not_looked_at_again() {
    assert_eq!(
        after_overwriting(b"*2\r\n$3\r\nGET\r\n$5\r\nab", b'?', b"cde\r\n"),
        Ok(Parsed::Request { consumed: 24 })
    );
    // A line end among the bytes that were scanned would end the line too early.
    assert_eq!(after_overwriting(b"SET k v", b'\n', b"w"), Ok(Parsed::Incomplete { wanted: 1 }));
    assert_eq!(after_overwriting(b"*000000", b'\r', b"0"), Ok(Parsed::Incomplete { wanted: 1 }));
    let argument = after_overwriting(b"*1\r\n", b'\r', b"$1\r\nx\r\n");
    assert_eq!(argument, Ok(Parsed::Request { consumed: 11 }));
}

#[test]
fn a_parser_serves_one_request_after_the_other() {
    let stream = b"*1\r\n$4\r\nPING\r\nECHO 'x y'\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
    let (mut parser, mut rest, mut seen) = (Parser::new(), &stream[..], Vec::new());
    while let Ok(Parsed::Request { consumed }) = parser.parse(rest, &Limits::DEFAULT) {
        seen.push(
            parser.args(rest).iter().map(|arg| arg.escape_ascii().to_string()).collect::<Vec<_>>().join(","),
        );
        rest = &rest[consumed..];
    }
    assert_eq!(seen, ["PING", "ECHO,x y", "GET,k"]);
    assert!(rest.is_empty() && !parser.is_within_request());
}

#[test]
fn errors_are_in_the_words_of_redis() {
    for (bytes, text) in [
        (&b"*x\r\n"[..], "invalid multibulk length"),
        (b"*3000000000\r\n", "invalid multibulk length"),
        (b"*1048577\r\n", "invalid multibulk length"),
        (b"*1000000000\r\n", "invalid multibulk length"),
        (b"*\r\n", "invalid multibulk length"),
        (b"*+1\r\n", "invalid multibulk length"),
        (b"*01\r\n", "invalid multibulk length"),
        (b"*99999999999999999999\r\n", "invalid multibulk length"),
        (b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n", "expected '$', got 'f'"),
        (b"*1\r\n*1\r\n$4\r\nPING\r\n", "expected '$', got '*'"),
        (b"*1\r\n\r\n", "expected '$', got ' '"),
        (b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$-10\r\n", "invalid bulk length"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$999999999999\r\n", "invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "invalid bulk length"),
        (b"*1\r\n$blabla\r\n", "invalid bulk length"),
        (b"SET \"a\r\n", "unbalanced quotes in request"),
    ] {
        assert_eq!(error(bytes), format!("ERR Protocol error: {text}"), "{}", bytes.escape_ascii());
    }
}

#[test]
fn lines_that_do_not_end_are_refused_at_64_kib() {
    let endless = |start: &[u8]| [start, &vec![b'1'; 64 << 10]].concat();
    assert_eq!(error(&endless(b"*")), "ERR Protocol error: too big mbulk count string");
    assert_eq!(error(&endless(b"*1\r\n$")), "ERR Protocol error: too big bulk count string");
    assert_eq!(error(&endless(b"x")), "ERR Protocol error: too big inline request");
    assert_eq!(result(&vec![b'x'; 64 << 10]), Ok(Parsed::Incomplete { wanted: 1 }));
}

#[test]
fn a_client_without_a_password_may_send_little() {
    let error =
        |bytes: &[u8]| Parser::new().parse(bytes, &Limits::UNAUTHENTICATED).map_err(|e| e.to_string());
    assert_eq!(error(b"*11\r\n"), Err("ERR Protocol error: unauthenticated multibulk length".to_owned()));
    assert_eq!(error(b"*10\r\n"), Ok(Parsed::Incomplete { wanted: 1 }));
    assert_eq!(error(b"*1\r\n$16385\r\n"), Err("ERR Protocol error: unauthenticated bulk length".to_owned()));
    assert_eq!(error(b"*1\r\n$16384\r\n"), Ok(Parsed::Incomplete { wanted: 16_386 }));
    assert_eq!(error(b"*1000000000\r\n"), Err("ERR Protocol error: invalid multibulk length".to_owned()));
}

#[test]
fn the_request_as_a_whole_is_bounded() {
    let limits = Limits { request_bytes_max: 40, ..Limits::DEFAULT };
    let mut parser = Parser::new();
    assert_eq!(
        parser.parse(b"*2\r\n$10\r\n0123456789\r\n$20\r\n", &limits),
        Err(ProtocolError::RequestTooBig)
    );
}

#[test]
fn integers_have_one_spelling() {
    for (text, value) in [
        ("0", 0),
        ("7", 7),
        ("-1", -1),
        ("9223372036854775807", i64::MAX),
        ("-9223372036854775808", i64::MIN),
    ] {
        assert_eq!(integer(text.as_bytes()), Some(value));
    }
    for text in [
        "",
        "-",
        "-0",
        "00",
        "01",
        "+1",
        " 1",
        "1 ",
        "1a",
        "9223372036854775808",
        "-9223372036854775809",
        "0x1",
    ] {
        assert_eq!(integer(text.as_bytes()), None, "{text}");
    }
}
