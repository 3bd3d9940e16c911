//! The parser's result depends on the bytes, never on how they were cut; and no bytes make it panic.

use gyre_protocol::{Limits, Parsed, Parser, ProtocolError};
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};

/// Limits small enough to be met by generated input.
const SMALL: Limits = Limits {
    bulk_bytes_max: 64,
    arguments_max: 8,
    inline_bytes_max: 32,
    request_bytes_max: 200,
    unauthenticated: false,
};

/// All requests of a connection, and what ended it.
#[derive(Debug, PartialEq, Eq, Default)]
struct Session {
    requests: Vec<Vec<Vec<u8>>>,
    error: Option<ProtocolError>,
    left: Vec<u8>,
}

/// Feeds `pieces` to one parser as a connection does.
fn session<'p>(pieces: impl IntoIterator<Item = &'p [u8]>, limits: &Limits) -> Session {
    let (mut parser, mut buffer, mut session) = (Parser::new(), Vec::new(), Session::default());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match parser.parse(&buffer, limits) {
                Ok(Parsed::Request { consumed }) => {
                    session.requests.push(parser.args(&buffer).iter().map(<[u8]>::to_vec).collect());
                    buffer.drain(..consumed);
                }
                Ok(Parsed::Empty { consumed }) => {
                    assert!(consumed > 0, "an empty request takes bytes");
                    buffer.drain(..consumed);
                }
                Ok(Parsed::Incomplete { wanted }) => {
                    assert!(wanted > 0, "something is missing");
                    break;
                }
                Err(error) => {
                    session.error = Some(error);
                    return session;
                }
            }
        }
    }
    session.left = buffer;
    session
}

/// Asserts that `stream` reads the same in one piece, byte by byte, and in pieces of `size`.
fn assert_same_however_cut(stream: &[u8], size: usize) {
    let whole = session([stream], &SMALL);
    assert_eq!(session(stream.chunks(1), &SMALL), whole, "{}", stream.escape_ascii());
    assert_eq!(session(stream.chunks(size), &SMALL), whole, "{}", stream.escape_ascii());
}

/// Streams that look like RESP more often than random bytes do.
fn resp_like() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just(b"*1\r\n".to_vec()),
        Just(b"*3\r\n".to_vec()),
        Just(b"$3\r\nSET\r\n".to_vec()),
        Just(b"$0\r\n\r\n".to_vec()),
        Just(b"$10\r\n0123456789\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"PING\n".to_vec()),
        Just(b"\"a \\x41\" 'b'".to_vec()),
        Just(b"*-1\r\n".to_vec()),
        "[*$][0-9]{0,3}\r?\n?".prop_map(String::into_bytes),
        "[ -~\r\n\"']{0,40}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..8),
    ];
    prop::collection::vec(word, 0..12).prop_map(|words| words.concat())
}

/// Streams of whole requests within [`SMALL`].
fn valid() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
    let argument = prop::collection::vec(any::<u8>(), 0..16);
    prop::collection::vec(prop::collection::vec(argument, 1..6), 0..8)
}

fn encode(requests: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for request in requests {
        bytes.extend_from_slice(format!("*{}\r\n", request.len()).as_bytes());
        for argument in request {
            bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            bytes.extend_from_slice(argument);
            bytes.extend_from_slice(b"\r\n");
        }
    }
    bytes
}

proptest! {
    #[test]
    fn valid_requests_come_out_as_they_went_in_wherever_they_are_cut(requests in valid()) {
        let stream = encode(&requests);
        for cut in 0..=stream.len() {
            let (first, second) = stream.split_at(cut);
            let session = session([first, second], &SMALL);
            assert_eq!((&session.requests, session.error, session.left.len()), (&requests, None, 0));
        }
    }

    #[test]
    fn streams_that_resemble_resp_read_the_same_however_cut(stream in resp_like(), size in 2_usize..20) {
        assert_same_however_cut(&stream, size);
    }

    #[test]
    fn random_bytes_read_the_same_however_cut(stream in prop::collection::vec(any::<u8>(), 0..300), size in 2_usize..50) {
        assert_same_however_cut(&stream, size);
    }
}
