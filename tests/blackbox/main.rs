//! Black-box tests: real `gyre server` processes on loopback, talked to as any client would.
//!
//! Every node runs in a temporary directory, on free ports, and is killed when its test ends. Nothing waits by the
//! clock: each step waits for the state it needs ([`support::eventually`]), with a bound.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "what does not hold fails the test"
)]

mod alone;
mod concurrency;
mod durability;
mod expiry;
mod forming;
mod operator;
mod outages;
mod purge;
mod repair;
mod security;
mod siblings;
#[path = "../support/mod.rs"]
mod support;
mod whole_keyspace;
mod wire;
