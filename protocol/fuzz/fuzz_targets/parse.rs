//! Any bytes, cut anywhere: the parser answers the same as on the whole, and never panics.
#![no_main]

use gyre_protocol::{Limits, Parsed, Parser, ProtocolError};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits =
    Limits { bulk_bytes_max: 4096, arguments_max: 64, inline_bytes_max: 256, ..Limits::DEFAULT };

/// All requests in `pieces`, and what ended them.
fn session<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> (Vec<Vec<Vec<u8>>>, Option<ProtocolError>) {
    let (mut parser, mut buffer, mut requests) = (Parser::new(), Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match parser.parse(&buffer, &LIMITS) {
                Ok(Parsed::Request { consumed }) => {
                    requests.push(parser.args(&buffer).iter().map(<[u8]>::to_vec).collect());
                    buffer.drain(..consumed);
                }
                Ok(Parsed::Empty { consumed }) => drop(buffer.drain(..consumed)),
                Ok(Parsed::Incomplete { .. }) => break,
                Err(error) => return (requests, Some(error)),
            }
        }
    }
    (requests, None)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (size, bytes) = input;
    assert_eq!(session(bytes.chunks(usize::from(size).max(1))), session([bytes]));
});
