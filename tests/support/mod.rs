//! What tests of real processes stand on: nodes, clients, waiting. Shared by `tests/blackbox` and `tests/faults`.
#![allow(dead_code, reason = "each of the two uses what it needs")]

pub(crate) mod cart;
pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod node;
pub(crate) mod ports;

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use client::{Client, Reply};
pub(crate) use cluster::Cluster;
pub(crate) use node::Node;

/// How long a condition may take to come true on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until `look` answers `Ok` and answers that. Panics with `what` and the last reason once [`PATIENCE`] is over.
pub(crate) fn eventually<T, E: Debug>(what: &str, mut look: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(value) => return value,
            Err(reason) if Instant::now() > deadline => panic!("not in time: {what}: {reason:?}"),
            Err(_) => thread::sleep(LOOK_EVERY),
        }
    }
}

/// Waits until `look` answers `expected`.
pub(crate) fn eventually_equals<T: Debug + PartialEq>(what: &str, expected: &T, mut look: impl FnMut() -> T) {
    eventually(what, || {
        let seen = look();
        if seen == *expected { Ok(()) } else { Err(seen) }
    });
}
