//! The hot path does not allocate, and hostile headers do not either.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use gyre_protocol::{Limits, Parsed, Parser, Resp, Writer, lookup, resolve};

/// The system's allocator, counting what each thread asks for.
struct Counting;

thread_local! {
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches a thread-local without a destructor.
#[expect(unsafe_code, reason = "an allocator cannot be written without")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.set(BYTES.get() + layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that `work` asks for.
fn allocated(work: impl FnOnce()) -> usize {
    let before = BYTES.get();
    work();
    BYTES.get() - before
}

/// Parses all of `stream` and resolves each command; answers how many there were.
fn drain(parser: &mut Parser, stream: &[u8]) -> usize {
    let (mut rest, mut requests) = (stream, 0);
    while let Ok(Parsed::Request { consumed }) = parser.parse(rest, &Limits::DEFAULT) {
        assert!(resolve(parser.args(rest)).is_ok(), "a known command");
        rest = rest.get(consumed..).unwrap_or_default();
        requests += 1;
    }
    requests
}

#[test]
fn pipelined_requests_are_parsed_and_resolved_without_allocation() {
    let set = format!("*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000001\r\n$64\r\n{}\r\n", "x".repeat(64));
    let stream =
        format!("{set}*2\r\n$3\r\nget\r\n$1\r\nk\r\nPING\r\nSET k 'v v'\r\n").repeat(64).into_bytes();
    let mut parser = Parser::new();
    assert_eq!(drain(&mut parser, &stream), 256, "the first round sizes the parser's own buffers");
    let bytes = allocated(|| assert_eq!(drain(&mut parser, &stream), 256));
    assert_eq!(bytes, 0);
}

#[test]
fn replies_are_written_into_the_output_without_further_allocation() {
    let mut out = Vec::with_capacity(4096);
    let bytes = allocated(|| {
        let mut writer = Writer::new(&mut out, Resp::Three);
        writer.ok();
        writer.bulk(&[b'x'; 1000]);
        writer.integer(1 << 60);
        writer.array(1000);
        writer.map(3);
        writer.null();
        writer.bulk_integer(-12);
    });
    assert_eq!(bytes, 0);
}

#[test]
fn names_are_looked_up_without_allocation() {
    let bytes = allocated(|| {
        assert!(lookup(b"IncrByFloat").is_some());
        assert!(lookup(b"nosuch").is_none());
    });
    assert_eq!(bytes, 0);
}

#[test]
fn announced_sizes_take_no_memory_before_the_bytes_arrive() {
    for header in [
        &b"*1048576\r\n"[..],
        b"*1000000000\r\n",
        b"*1\r\n$536870912\r\n",
        b"*1\r\n$999999999999\r\n",
        b"*3\r\n$1",
    ] {
        let mut parser = Parser::new();
        let bytes = allocated(|| {
            let _ = std::hint::black_box(parser.parse(header, &Limits::DEFAULT));
        });
        assert_eq!(bytes, 0, "{}", header.escape_ascii());
    }
}

#[test]
fn memory_of_a_request_with_very_many_arguments_is_given_back() {
    let many = format!("*100000\r\n{}", "$0\r\n\r\n".repeat(100_000)).into_bytes();
    let mut parser = Parser::new();
    let bytes =
        allocated(|| assert!(matches!(parser.parse(&many, &Limits::DEFAULT), Ok(Parsed::Request { .. }))));
    assert!(bytes < 4 * many.len(), "{bytes} bytes in all for a request of {}", many.len());
    assert!(parser.parse(b"PING\r\n", &Limits::DEFAULT).is_ok());
    assert!(parser.memory_bytes() < 64 << 10, "{} bytes kept", parser.memory_bytes());
}
