//! Any request: it resolves to a row or to an error of one line, and `COMMAND` answers it.
#![no_main]

use gyre_protocol::{Limits, Parsed, Parser, Resp, Writer, command::introspect, resolve};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut parser = Parser::new();
    let Ok(Parsed::Request { .. }) = parser.parse(bytes, &Limits::DEFAULT) else { return };
    let args = parser.args(bytes);
    let reply = match resolve(args) {
        Ok(command) => {
            assert!(command.keys(args).all(|(index, _)| index < args.len()));
            introspect::answer(command.id, args)
        }
        Err(reply) => Some(reply),
    };
    if let Some(reply) = reply {
        let mut out = Vec::new();
        reply.write(&mut Writer::new(&mut out, Resp::Three));
        assert!(out.ends_with(b"\r\n"));
    }
});
