//! Free ports below the range from which the system takes the local ports of outgoing connections.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 12_000;
const COUNT: u32 = 8_000;
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port of loopback that nobody listens on, and that no other test of this process is given.
pub(crate) fn free() -> u16 {
    // Another run of these tests at the same time begins elsewhere.
    let start = std::process::id().wrapping_mul(67);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(FIRST + start.wrapping_add(step) % COUNT).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

/// The first of `count` free ports in a row whose peer ports (10000 higher) are free too.
pub(crate) fn free_row(count: u16) -> u16 {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    for _ in 0..COUNT {
        let first = free();
        if (first..first + count).all(|port| is_free(port) && is_free(port + 10_000)) {
            NEXT.fetch_add(u32::from(count), Ordering::Relaxed);
            return first;
        }
    }
    panic!("no free row of ports");
}
